"""Part `stays`: what a message costs for a patient with many stays, beside one with a single stay.

Each patient is admitted and discharged again and again, with every task done in between, and is in the hospital now.
The chart is recorded and loaded as the daemon does both; what is measured is the discharge.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any, Final

import msgspec

from engine.bootstrap import settle_memory
from engine.care.tasks import end
from engine.domain.chart import Chart, Charts
from engine.domain.message import Entry, EntryState
from engine.domain.outcome import Outcome
from engine.domain.task import TaskState
from engine.hl7v2.header import read_header
from engine.pipeline.acceptance import summarize
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.closing import closed_up
from engine.pipeline.process import decide, prepare
from engine.runtime.configurations import compile_site
from engine.simulator.bench.measure import Say
from engine.simulator.bench.site import LIVE, BenchError, Place
from engine.store import Store
from engine.store.engines import writer_engine
from engine.store.schema import CHARTS

STAYS: Final = (1, 10, 50, 200)
TIMES_MAX: Final = 3.0
"""Loading and deciding for the patient of most stays, in times of those for the patient of one."""

_DAYS_APART: Final = 5
_ROUNDS: Final = 60
_IN_A_ROUND: Final = 5


def stays(place: Place, *, say: Say) -> list[dict[str, Any]]:
    """Processor microseconds by number of stays; `times`: of loading and the discharge, beside one stay."""
    say("patients with many stays")
    found: list[dict[str, Any]] = []
    with place.site() as site:
        site.make_store()
        with site.store() as store:
            settle_memory()
            channel = compile_site(site.configuration(), store.keys).channels[LIVE]
            for number, count in enumerate(STAYS, 1):
                found.append(_measured(store, channel, number, count))
    first = found[0]
    for one in found:
        one["times"] = round((one["load_us"] + one["decide_us"]) / (first["load_us"] + first["decide_us"]), 2)
    return found


def _measured(store: Store, channel: CompiledChannel, number: int, count: int) -> dict[str, Any]:
    now = datetime.now(UTC).replace(microsecond=0)
    patient = _Patient(channel, number, now - timedelta(days=_DAYS_APART * count))
    patient.live(count)
    prepared = prepare(patient.entry("A03", patient.day + timedelta(days=1), left=True), channel)
    with writer_engine(store.location, CHARTS).connect() as conn, conn.begin():
        outcome = Outcome(entry_id=number, state=EntryState.PROCESSED, charts=(patient.chart,), config_version="bench")
        moves = {0: (number - 1, number)}
        store.recorder.record(conn, [outcome], Charts(), channel=LIVE, moves=moves, now=now, close=closed_up)

    def load() -> Charts:
        with store.reader() as reader:
            return store.charts.load(reader, prepared.identities, prepared.visits, bounded=True)

    before = load()
    discharged = decide(prepared, channel, before, patient.day + timedelta(days=1))
    if discharged.state is not EntryState.PROCESSED or not discharged.deliveries:
        raise BenchError("the discharge of the benchmark's patient was not taken")
    return {
        "stays": count,
        "tasks": len(patient.chart.tasks),
        "scores": len(patient.chart.scores),
        "loaded": sum(len(chart.encounters) for chart in before.by_id.values()),
        "load_us": _least_us(load),
        "decide_us": _least_us(lambda: decide(prepared, channel, before, patient.day + timedelta(days=1))),
    }


def _least_us(work: Callable[[], object]) -> float:
    """The least of many, for whatever else the machine does only adds to it."""
    gc.collect()
    least = float("inf")
    for _ in range(_ROUNDS):
        began = process_time()
        for _ in range(_IN_A_ROUND):
            work()
        least = min(least, (process_time() - began) / _IN_A_ROUND)
    return round(least * 1e6, 1)


class _Patient:
    """One patient of the benchmark, from the first stay on."""

    def __init__(self, channel: CompiledChannel, number: int, day: datetime) -> None:
        self._channel = channel
        self._number = number
        self._charts = Charts()
        self._stay = 0
        self._sent = 0
        self.day = day

    @property
    def chart(self) -> Chart:
        """As a store takes it that does not have it yet."""
        [chart] = self._charts.by_id.values()
        return msgspec.structs.replace(chart, version=1)

    def live(self, count: int) -> None:
        for self._stay in range(1, count + 1):
            self._take(self.entry("A01", self.day, left=False))
            if self._stay < count:
                self._take(self.entry("A03", self.day + timedelta(days=1), left=True))
                self._do_all_tasks()
                self.day += timedelta(days=_DAYS_APART)

    def entry(self, event: str, at: datetime, *, left: bool) -> Entry:
        self._sent += 1
        time, since = (moment.strftime("%Y%m%d%H%M%S+0000") for moment in (at, self.day))
        disposition, end = ("01", time) if left else ("", "")
        payload = (
            f"MSH|^~\\&|LOAD|BENCH|HANDOFF|BENCH|{time}||ADT^{event}|S{self._number}-{self._sent}|P|2.5.1\r"
            f"EVN||{time}\rPID|1||S{self._number:07d}^^^BENCH^MR||Testerman^Quillon||19510617|M\r"
            f"PV1|1|I|4W^12^2^BENCH|U|||||||MED||||1|||||S{self._number}V{self._stay}^^^BENCH^VN|||||||||||||||||"
            f"{disposition}||||||||{since}|{end}\rDG1|1||I50.9^Heart failure^I10|||F\r"
        ).encode()
        summary = summarize(read_header(payload))
        return Entry(id=self._sent, channel=LIVE, peer="bench", received_at=at, payload=payload, summary=summary)

    def _take(self, entry: Entry) -> None:
        outcome = decide(prepare(entry, self._channel), self._channel, self._charts, entry.received_at)
        if outcome.state is not EntryState.PROCESSED:
            raise BenchError("the stays of the benchmark are not such as the pipeline takes")
        for chart in outcome.charts:
            self._charts.add(chart)

    def _do_all_tasks(self) -> None:
        [chart] = self._charts.by_id.values()
        tasks = tuple(
            end(task, TaskState.DONE, at=self.day, by="bench") if task.state is TaskState.OPEN else task
            for task in chart.tasks
        )
        self._charts.add(msgspec.structs.replace(chart, tasks=tasks))
