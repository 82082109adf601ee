"""Requests for appointments in the daemon: each is booked once and its answer is heard, whatever dies on the way."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest
import test_daemon
from peers.scheduling_system import SchedulingSystem
from test_due_causes import POINTS, Site, receive
from test_paging_daemon import gone_home
from wire import eventually

from engine.domain.appointment import Appointment, RequestState
from engine.domain.message import EntryKind, EntryState

folder = test_daemon.folder
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
PATIENTS = 4


class Asking(Site):
    """The site of `test_due_causes`, with a scheduling system."""

    def __init__(self, folder: test_daemon.Folder, port: int) -> None:
        site, channel = folder.site, folder.channel
        where = f"{{sched: {{type: mllp, host: 127.0.0.1, port: {port}, deduplicates: true}}}}"

        def with_scheduling(**more: str) -> None:
            site(destinations=where, **more)

        def that_asks(name: str, port: int = 0, *more: str, **listen: object) -> None:
            channel(name, port, *more, "deliver: [{to: sched, what: [request]}]", **listen)

        folder.site, folder.channel = with_scheduling, that_asks  # type: ignore[method-assign]
        super().__init__(folder)

    def requests(self) -> list[Appointment]:
        found = self.store.read_now(lambda conn: self.store.appointments.find(conn, limit=1000))
        return [one.appointment for one in found]


@one_loop
async def test_each_request_is_booked_once_and_its_answer_is_heard_whoever_dies_in_between(
    folder: test_daemon.Folder,
) -> None:
    async with SchedulingSystem() as system:
        with contextlib.closing(Asking(folder, system.port)) as site:
            receive(site.store, site.clock.now(), *map(gone_home, range(PATIENTS)))
            await site.dies(*POINTS)
            site.start()
            await eventually(
                lambda: (
                    len(found := site.requests()) >= PATIENTS
                    and {one.request for one in found} == {RequestState.CONFIRMED}
                ),
                60,
            )
            found = site.requests()
            assert len(found) >= PATIENTS
            numbers = {one.numbers[0].value: one for one in found}
            assert numbers.keys() == system.booked.keys()
            assert all(one.numbers[1].value == system.booked[placer].filler for placer, one in numbers.items())
            replies = site.store.read_now(lambda conn: site.store.journal.find(conn, kind=EntryKind.REPLY, limit=None))
            heard = Counter(one.control_id for one in replies if one.control_id.startswith("request/"))
            assert len(heard) == len(found)
            assert heard.most_common(1)[0][1] == 1, "an answer is in the journal twice"
            assert {one.state for one in replies} == {EntryState.PROCESSED}
