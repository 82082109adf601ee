"""Pages in the daemon: each call goes out once and its receipt is heard, whatever dies on the way."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import test_daemon
from test_due_causes import DISCHARGED, NEW_YORK, POINTS, Site, receive
from wire import eventually

from engine.domain.message import EntryKind, EntryState
from engine.domain.page import Page, PageState, StepResult
from engine.domain.task import TaskState

folder = test_daemon.folder
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
PATIENTS = 6


def gone_home(number: int) -> bytes:
    """After two weeks, at high risk, some minutes ago."""
    at = f"{DISCHARGED.astimezone(NEW_YORK) - timedelta(minutes=number + 1):%Y%m%d%H%M%S}"
    visit = {1: "1", 2: "I", 3: "3W^1^A", 4: "E", 19: f"V{number}^^^MRN", 36: "01", 44: "20260214080000", 45: at}
    pv1 = "|".join(visit.get(field, "") for field in range(1, 46))
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||ADT^A03^ADT_A03|C{number}|P|2.5.1\rEVN|A03|{at}\r"
        f"PID|1||P{number}^^^MRN^MR||Doe^Jane||19480312|F\rPV1|{pv1}\r"
    ).encode()


class Paging(Site):
    """The site of `test_due_causes`, with a destination that people are called by."""

    def __init__(self, folder: test_daemon.Folder) -> None:
        site = folder.site

        def with_files(**more: str) -> None:
            site(destinations="{files: {type: file, path: var/out}}", **more)

        folder.site = with_files  # type: ignore[method-assign]
        super().__init__(folder)
        self.out: Path = folder.path / "var/out"

    def pages(self) -> list[Page]:
        return [one.page for one in self.store.read_now(lambda conn: self.store.pages.find(conn, limit=None))]

    def notified(self) -> Counter[str]:
        """How often each call stands in the files, by its idempotency key."""
        lines = [line for file in sorted(self.out.glob("*.ndjson")) for line in file.read_text().splitlines()]
        said = [json.loads(line) for line in lines]
        return Counter(one["idempotency_key"] for one in said if one["operation"] == "notify")

    def results(self) -> Counter[StepResult]:
        return Counter(step.result for page in self.pages() for step in page.steps)


@one_loop
async def test_each_call_of_a_page_goes_out_once_and_is_heard_of_whoever_dies_in_between(
    folder: test_daemon.Folder,
) -> None:
    with contextlib.closing(Paging(folder)) as site:
        receive(site.store, site.clock.now(), *map(gone_home, range(PATIENTS)))
        process = site.start()  # while they are fresh: nobody is paged about a discharge of hours ago
        await eventually(lambda: len(site.pages()) == PATIENTS, 60)
        process.kill()
        process.wait()
        now = await site.dies(*POINTS)
        site.start()
        while any(page.state is not PageState.EXHAUSTED for page in site.pages()):
            await eventually(lambda: site.due() == 0, 60)
            now += timedelta(minutes=5)
            site.put_clock(now)
            assert now < site.clock.now() + timedelta(hours=9)
        await eventually(lambda: site.results()[StepResult.QUEUED] == 0, 60)

        for page in site.pages():
            calls = Counter((step.loop, step.level, step.person, step.contact) for step in page.steps)
            assert calls.most_common(1)[0][1] == 1, "somebody was called twice for the same"
            assert page.steps[-1].person == "example-supervisor"
        called = {f"{page.id}-{number}" for page in site.pages() for number in range(1, len(page.steps) + 1)
                  if page.steps[number - 1].person is not None}  # fmt: skip
        assert site.notified() == dict.fromkeys(called, 1)
        assert set(site.results()) == {StepResult.SENT}
        tasks = [one.task for one in site.store.read_now(lambda conn: site.store.tasks.find(conn, limit=None))]
        assert Counter(task.kind for task in tasks)["safety_event"] == PATIENTS
        assert {task.state for task in tasks if task.kind == "on_call_page"} == {TaskState.MISSED}
        replies = site.store.read_now(lambda conn: site.store.journal.find(conn, kind=EntryKind.REPLY, limit=None))
        assert Counter(one.control_id for one in replies).most_common(1)[0][1] == 1, "a receipt is in the journal twice"
        assert len(replies) == len(called)
        assert {one.state for one in replies} == {EntryState.PROCESSED}
