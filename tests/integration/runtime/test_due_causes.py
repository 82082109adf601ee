"""What a worker finds due is in the journal once and is done once, whatever dies on the way.

The whole way, with processes that kill themselves between any two of its steps (`ringing.py`) while weeks pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import test_daemon
from test_processor import discharged
from wire import eventually

from engine import bootstrap
from engine.clock import site_clock
from engine.domain.message import EntryKind, EntryState, Receipt
from engine.domain.task import TaskState
from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import summarize
from engine.store import Store
from engine.store.counts import ledger
from engine.store.due import overdue

folder = test_daemon.folder
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
PATIENTS = 24
POINTS = ("worker-asked", "worker-answered", "main-put-nothing-answered")


NEW_YORK = ZoneInfo("America/New_York")
DISCHARGED = datetime(2026, 3, 1, 17, tzinfo=UTC)


def gone_home(number: int) -> bytes:
    """One each hour of the last day."""
    at = f"{DISCHARGED.astimezone(NEW_YORK) - timedelta(hours=number + 0.5):%Y%m%d%H%M%S}"
    return discharged(number).replace(b"20260301113000", at.encode()).replace(b"20260302100000", at.encode())


def receive(store: Store, now: datetime, *payloads: bytes) -> None:
    receipts = [
        Receipt(
            channel="east",
            peer="10.0.0.4:51022",
            received_at=now,
            payload=payload,
            summary=summarize(header := read_header(payload)),
            dedupe_key=store.keys.lookup("east", header.raw(10)),
            digest=store.keys.lookup(payload),
            ordering_key=ordering_key(payload, header),
        )
        for payload in payloads
    ]
    store.journal_ledger.write_now(lambda conn: store.journal.append(conn, receipts))


class Site:
    """A site with a clock of its own, whose daemon, with two workers, is started again and again."""

    def __init__(self, folder: test_daemon.Folder) -> None:
        folder.site(workers="2", purpose="test", clock="{offset_seconds_file: var/ahead}")
        folder.channel("east", 0, "risk: [lace]", "protocol: post-discharge")
        self.folder = folder
        self._ahead = folder.path / "var/ahead"
        self.put_clock(DISCHARGED)
        configuration = folder.load()
        self.clock = site_clock(configuration.clock_file)
        self.store = bootstrap.open_store(configuration, "tool")
        self._process: subprocess.Popen[bytes] | None = None

    def put_clock(self, at: datetime) -> None:
        new = self._ahead.with_suffix(".new")
        new.write_text(str((at - datetime.now(UTC)).total_seconds()))
        new.replace(self._ahead)

    def start(self, *points: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("ringing.py")
        command = [sys.executable, str(script), "main", str(self.folder.config), str(self.folder.path / "var")]
        self._process = subprocess.Popen([*command, ",".join(points)], stderr=subprocess.DEVNULL)
        return self._process

    async def dies(self, *points: str) -> datetime:
        """While days go by; returns when it was over."""
        process, now = self.start(*points), self.clock.now()
        async with asyncio.timeout(60):
            while process.poll() is None:
                await asyncio.sleep(0.2)
                now += timedelta(minutes=30)
                self.put_clock(now)
        assert process.returncode == -9
        assert all((self.folder.path / "var" / point).exists() for point in points)
        return now

    def due(self) -> int:
        return self.store.read_now(lambda conn: overdue(conn, self.clock.now())).charts

    def patients(self) -> list[Counter[tuple[object, ...]]]:
        """What each patient's tasks have come to."""
        found: defaultdict[str, Counter[tuple[object, ...]]] = defaultdict(Counter)
        for one in self.store.read_now(lambda conn: self.store.tasks.find(conn)):
            task = one.task
            said = tuple((step.why, step.owner, step.alert is None, step.page) for step in task.escalations)
            reason = task.reason.partition(" (heard of")[0]  # how late, which is another time for each
            found[one.chart_id][task.kind, task.state, reason, said] += 1
        return list(found.values())

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.store.close()


@one_loop
async def test_each_deadline_rings_once_and_is_done_once_whoever_dies_in_between(folder: test_daemon.Folder) -> None:
    with contextlib.closing(Site(folder)) as site:
        receive(site.store, site.clock.now(), *map(gone_home, range(PATIENTS)))
        process = site.start()
        await eventually(lambda: len(site.patients()) == PATIENTS)
        process.kill()
        process.wait()
        now = await site.dies(*POINTS)
        site.start()
        for days in (3, 10, 40):
            await eventually(lambda: site.due() == 0, 60)
            then = now + timedelta(days=days)
            site.put_clock(then)
            await eventually(lambda then=then: site.clock.now() >= then)
        await eventually(lambda: site.due() == 0, 60)

        found = site.store.read_now(lambda conn: site.store.journal.find(conn, kind=EntryKind.DUE, limit=None))
        assert Counter(one.control_id for one in found).most_common(1)[0][1] == 1, "a cause is in the journal twice"
        assert {one.state for one in found} == {EntryState.PROCESSED}
        assert len(found) >= PATIENTS
        first, *others = site.patients()
        assert all(one == first for one in others), "to whom it happened while a process died, it happened no other way"
        assert {state for _, state, *_ in first} == {TaskState.MISSED}
        lines = site.store.read_now(ledger)
        assert all(line.balanced and not line.pending for line in lines)
        assert {line.kind: line.received for line in lines}[EntryKind.DUE] == len(found)
