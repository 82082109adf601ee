"""The month through the real daemon: its clock is put on, slice by slice, and people do some of what they are to do."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from harness import Daemon, MakeDaemon, Site
from sqlalchemy import func, select

from engine import bootstrap
from engine.connectors.registry import load
from engine.domain.cause import Act, PageAcknowledged, TaskAttempted, TaskDone
from engine.domain.chart import Chart
from engine.domain.page import WAITING
from engine.domain.task import STANDING, How, Result, Task
from engine.snapshot import Snapshot
from engine.store import Store, schema
from engine.store.causes import put
from engine.store.counts import ledger
from month.hospital import DAY, HOUR, Hospital, Told, slices

CHUNK = 50
"""Messages that are sent before their answers are read."""
WAIT_SECONDS = 300.0
_TROUBLE_SECONDS = 0.02


@dataclass
class Seen:
    """What happened on the way, for the report and for what a chart does not say."""

    messages: int = 0
    acts: int = 0
    slices: int = 0
    answers: dict[str, int] = field(default_factory=dict)


class Month:
    """slice_length: how far the clock is put on at a time, at most. begin: of the month."""

    def __init__(self, site: Site, make_daemon: MakeDaemon, hospital: Hospital, slice_length: timedelta) -> None:
        self.hospital = hospital
        self.random = Random(7)
        self.seen = Seen()
        self._slice_length = slice_length
        self._file = site.folder / "var/ahead"
        site.edit("config.yaml", (r"(?m)^node:", "purpose: test\nclock: {offset_seconds_file: var/ahead}\nnode:"))
        self.put(hospital.begin)
        self.site = site
        self.daemon: Daemon = make_daemon(site)
        self.store: Store = bootstrap.open_store(load(Snapshot.read(site.config)), "tool")

    def put(self, at: datetime) -> None:
        """Put the clock."""
        self.at = at
        new = self._file.with_suffix(".new")
        new.write_text(f"{(at - datetime.now(UTC)).total_seconds():.3f}\n")
        new.replace(self._file)

    def run(self) -> None:
        told = self.hospital.told()
        with self.daemon.connection() as sender:
            for until, batch in slices(told, self._slice_length):
                while until - self.at > DAY:  # a quiet time is slept through day by day, and deadlines ring in it
                    self.put(self.at + DAY)
                    self._wait_for_the_clock()
                    self.settle()
                    self.people()
                self.put(until)
                self._wait_for_the_clock()
                for start in range(0, len(batch), CHUNK):
                    self._send(sender, batch[start : start + CHUNK])
                self.settle()
                self.people()
                self.seen.slices += 1
        self.put(self.hospital.end)
        self._wait_for_the_clock()
        self.settle()
        self._replay_what_came_before_its_merge()

    def _replay_what_came_before_its_merge(self) -> None:
        """Under the number that is to stay, of a visit that was still known under the other: a person is asked."""
        code = "visit-of-another-patient"
        if any(one["error"] == code for one in self.site.json("dead", "list")):
            self.site.run("dead", "replay", "--error", code)
            self.settle()

    def close(self) -> None:
        self.store.close()

    def charts(self) -> list[Chart]:
        """The living ones, whole."""

        def read(conn: Any) -> list[Chart]:
            ids = conn.execute(select(schema.chart.c.id).where(schema.chart.c.merged_into.is_(None))).scalars().all()
            found: list[Chart] = []
            for start in range(0, len(ids), 500):
                found += self.store.charts.whole(conn, ids[start : start + 500])
            return found

        return self.store.read_now(read)

    # --- steps

    def _send(self, sender: Any, batch: list[Told]) -> None:
        for one in batch:
            sender.write(one.payload)
        for _ in batch:
            answer = sender.read().decode()
            code = answer.split("\rMSA|", 1)[1].split("|", 1)[0]
            self.seen.answers[code] = self.seen.answers.get(code, 0) + 1
            self.seen.messages += 1

    def _wait_for_the_clock(self) -> None:
        """Until the daemon has read how far it is ahead."""
        until = time.monotonic() + WAIT_SECONDS
        ahead = float(self._file.read_text())
        while True:
            with urllib.request.urlopen(self.daemon.console + "/healthz", timeout=30) as found:
                said = json.load(found)
            if abs(said["clock"]["offset_seconds"] - ahead) < 0.01:
                return
            assert time.monotonic() < until, said
            time.sleep(_TROUBLE_SECONDS)

    def settle(self) -> None:
        """Wait until nothing is under way: no entry, no delivery, and no deadline that has passed."""
        until = time.monotonic() + WAIT_SECONDS
        while (left := self._left()) is not None:
            assert time.monotonic() < until, left
            time.sleep(_TROUBLE_SECONDS)

    def _left(self) -> str | None:
        now = schema.to_micros(self.at)

        def read(conn: Any) -> str | None:
            chart = schema.chart
            overdue = conn.execute(select(func.count()).where(chart.c.due_at <= now)).scalar_one()
            if overdue:
                return f"{overdue} charts are due"
            lines = ledger(conn)
            pending = sum(line.pending for line in lines)
            if pending:
                return f"{pending} entries wait"
            queued = conn.execute(
                select(func.count()).select_from(schema.delivery).where(schema.delivery.c.state == "pending")
            ).scalar_one()
            return f"{queued} deliveries wait" if queued else None

        with self.store.reader() as conn:
            return read(conn)

    def people(self) -> None:
        """Some pages are acknowledged, some tasks are done, some patients are called."""
        random = self.random
        acts: list[Act] = []
        with self.store.reader() as conn:
            pages = self.store.pages.find(conn, states=sorted(WAITING), limit=None)
            tasks = self.store.tasks.find(conn, states=sorted(STANDING), limit=None)
        for page in pages:
            if random.random() < 0.7:
                by = random.choice(("example-backup", "example-night", "someone"))
                acts.append(PageAcknowledged(actor="anna", chart_id=page.chart_id, page=page.page.id, by=by))
        for listed in tasks:
            task: Task = listed.task
            if task.page is not None or task.created_at > self.at - HOUR:
                continue
            fate = random.random()
            if fate < 0.003 * self._slice_length / HOUR:
                acts.append(TaskDone(actor="anna", chart_id=listed.chart_id, task=task.id))
            elif fate < 0.006 * self._slice_length / HOUR and task.attempts_wanted:
                acts.append(
                    TaskAttempted(
                        actor="anna",
                        chart_id=listed.chart_id,
                        task=task.id,
                        how=How.PHONE,
                        result=random.choice(list(Result)),
                    )
                )
        if not acts:
            return
        self.seen.acts += len(acts)
        store = self.store
        store.journal_ledger.write_now(lambda conn: put(store.journal, store.keys, conn, acts, self.at))
        self.settle()


@contextlib.contextmanager
def lived(site: Site, make_daemon: MakeDaemon, *, stays: int, seed: int, slice_length: timedelta) -> Iterator[Month]:
    """A month that is over."""
    begin = datetime(2027, 3, 1, 5, tzinfo=UTC)  # the clocks of the site change in it
    month = Month(site, make_daemon, Hospital(seed, stays, begin), slice_length)
    try:
        month.run()
        yield month
    finally:
        month.close()
