"""What a worker finds due is in the journal once and is done once, whatever dies on the way.

The whole way, with processes that kill themselves between any two of its steps: see `ringing.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import test_daemon
from sqlalchemy import func, select
from test_processor import discharged
from wire import eventually

from engine import bootstrap
from engine.domain.message import EntryKind, EntryState, Receipt
from engine.domain.task import TaskState
from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import summarize
from engine.store import Store, schema
from engine.store.counts import ledger

folder = test_daemon.folder
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
PATIENTS = 24
POINTS = ("worker-asked", "worker-answered", "main-put-nothing-answered")


def receive(store: Store, *payloads: bytes) -> None:
    receipts = [
        Receipt(
            channel="east",
            peer="10.0.0.4:51022",
            received_at=datetime.now(UTC),
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
    """A site whose daemon, with two workers, is started again and again."""

    def __init__(self, folder: test_daemon.Folder) -> None:
        folder.site(workers="2")
        folder.channel("east", 0, "risk: [lace]", "protocol: post-discharge")
        self.folder = folder
        self.store = bootstrap.open_store(folder.load(), "tool")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *points: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("ringing.py")
        command = [sys.executable, str(script), "main", str(self.folder.config), str(self.folder.path / "var")]
        self._process = subprocess.Popen([*command, ",".join(points)], stderr=subprocess.DEVNULL)
        return self._process

    async def dies(self, *points: str) -> None:
        process = self.start(*points)
        assert await asyncio.to_thread(process.wait, 60) == -9
        assert all((self.folder.path / "var" / point).exists() for point in points)

    def tasks(self, state: TaskState) -> int:
        return self.store.read_now(
            lambda conn: conn.execute(
                select(func.count()).select_from(schema.task).where(schema.task.c.state == state.value)
            ).scalar_one()
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.store.close()


@one_loop
async def test_a_cause_is_put_once_and_done_once_whoever_dies_in_between(
    folder: test_daemon.Folder,
) -> None:
    with contextlib.closing(Site(folder)) as site:
        receive(site.store, *(discharged(number) for number in range(PATIENTS)))
        await site.dies(*POINTS)
        assert site.tasks(TaskState.OPEN) > 0
        site.start()
        await eventually(lambda: site.tasks(TaskState.DONE) >= PATIENTS and not site.tasks(TaskState.OPEN))

        found = site.store.read_now(lambda conn: site.store.journal.find(conn, kind=EntryKind.ACT, limit=None))
        assert Counter(one.control_id for one in found).most_common(1)[0][1] == 1, "a cause is in the journal twice"
        assert len(found) == site.tasks(TaskState.DONE)
        assert {(one.state, one.without_effect) for one in found} == {(EntryState.PROCESSED, False)}
        audit = site.store.read_now(lambda conn: site.store.audit.find(conn, limit=None))
        done = Counter(one.subject for one in audit if one.action == "task-done")
        assert len(done) == len(found)
        assert set(done.values()) == {1}
        lines = site.store.read_now(ledger)
        assert all(line.balanced and not line.pending for line in lines)
        assert {line.kind: line.received for line in lines}[EntryKind.ACT] == len(found)
