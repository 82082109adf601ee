"""The scheduler and the processor over the real store: what is due rings once, in order, whoever looks."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta

import deadlines
import msgspec
import pytest
from test_processor import EVEN, NOW, ODD, Bench, Share, discharged, finish

from engine.domain.cause import read
from engine.domain.chart import Charts
from engine.domain.message import EntryKind, EntryState, Receipt
from engine.domain.outcome import Outcome
from engine.domain.partition import ALL_PARTITIONS
from engine.domain.task import TaskState
from engine.errors import StoreUnavailableError
from engine.pipeline import due as rules
from engine.runtime import scheduler as scheduler_module
from engine.runtime.scheduler import Scheduler
from engine.store import Store
from engine.store.causes import receipt_of
from engine.store.due import overdue

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])
YEAR = timedelta(days=365)
LANE = EntryKind.DUE.lane


class Ringing(Bench):
    """A bench whose patients wait for deadlines; what schedulers ask for is put into the journal at once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: list[Receipt] = []

    async def put(self, receipts: Sequence[Receipt]) -> list[int]:
        self.asked += receipts
        stored = self.store.journal_ledger.write_now(lambda conn: self.store.journal.append(conn, receipts))
        return [one.id or one.duplicate_of or 0 for one in stored]

    def scheduler(self, partitions: Collection[int] = ALL_PARTITIONS) -> Scheduler:
        return Scheduler(self.store, self.clock, Share(frozenset(partitions)), self.put)  # type: ignore[arg-type]

    def discharge(self, numbers: Iterable[int]) -> None:
        self.receive(*map(discharged, numbers), awaited=False)
        finish(self.processor())

    def entries(self) -> list[tuple[int, EntryState]]:
        found = self.store.read_now(lambda conn: self.store.journal.find(conn, kind=EntryKind.DUE, limit=None))
        return sorted((one.id, one.state) for one in found)

    def causes(self) -> list[str | None]:
        """The charts that rang, in the order of the journal."""
        with self.store.reader() as conn:
            entries = self.store.journal.entries(conn, [id_ for id_, _ in self.entries()])
        return [read(entry.payload).chart_id for entry in entries]

    def states(self) -> set[TaskState]:  # type: ignore[override]  # of tasks, which are what these tests are about
        return {one.task.state for one in self.store.read_now(lambda conn: self.store.tasks.find(conn))}

    async def until_quiet(self, *schedulers: Scheduler) -> int:
        """Steps of schedulers and a processor by turns; how many entries were recorded."""
        processor, done = self.processor(), 0
        while True:
            before = len(self.asked)
            for one in schedulers:
                await one.step()
            counted = processor.step()
            done += counted
            if not counted and len(self.asked) == before:
                return done


@pytest.fixture
def bench(store: Store, monkeypatch: pytest.MonkeyPatch) -> Ringing:
    monkeypatch.setattr(rules, "SOURCES", (deadlines.SOURCE,))
    return Ringing(store)


async def test_nothing_rings_before_its_time_and_all_that_is_overdue_at_once_oldest_first(bench: Ringing) -> None:
    for number in range(5):
        bench.clock.at = NOW + timedelta(hours=number)
        bench.discharge([number])
    scheduler = bench.scheduler()
    assert await bench.until_quiet(scheduler) == 0
    first = {one.chart_id: one.task.escalate_at for one in bench.store.read_now(bench.store.tasks.find)}
    for one in bench.store.read_now(bench.store.tasks.find):
        first[one.chart_id] = min(first[one.chart_id], one.task.escalate_at)
    bench.clock.at = NOW + YEAR
    assert await bench.until_quiet(scheduler) == 5, "one entry for all that is due of a patient"
    assert bench.states() == {TaskState.MISSED}
    urgent = [chart for chart, one in zip(bench.causes(), bench.asked, strict=True) if one.summary.type == "due-urgent"]
    assert urgent == sorted(urgent, key=lambda chart: first[chart or ""])
    assert bench.causes()[: len(urgent)] == urgent
    assert {state for _, state in bench.entries()} == {EntryState.PROCESSED}
    assert bench.balanced()
    assert bench.store.read_now(lambda conn: overdue(conn, bench.clock.at)) == (0, None)
    report = bench.tally.take(None, failing=(), leased=None)  # type: ignore[arg-type]
    assert report.rung is not None
    assert sum(report.rung.counts) == 5
    assert report.rung.latest_seconds > 300 * 86_400


async def test_only_so_many_are_on_their_way_and_urgent_ones_pass_them(
    bench: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "IN_FLIGHT_MAX", 4)
    urgent = {"P11", "P3"}
    monkeypatch.setattr(
        rules,
        "SOURCES",
        (deadlines.SOURCE._replace(urgent=lambda chart: chart.patient.identifiers[0].value in urgent),),
    )
    bench.discharge(range(12))
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    await scheduler.step()
    await scheduler.step()
    await scheduler.step()
    assert [one.summary.type for one in bench.asked] == ["due-urgent"] * len(urgent) + ["due"] * 4
    await bench.until_quiet(scheduler)
    assert len(bench.asked) == len(set(bench.causes())) == 12, "nothing is asked for twice"
    assert bench.states() == {TaskState.MISSED}


async def test_two_workers_ring_what_is_theirs_and_a_patient_who_changes_hands_rings_once(bench: Ringing) -> None:
    bench.discharge(range(20))
    bench.clock.at = NOW + YEAR
    even, odd = bench.scheduler(EVEN), bench.scheduler(ODD)
    await even.step()
    asked = len(bench.asked)
    assert 0 < asked < 20
    await odd.step()
    assert len(bench.asked) == 20
    # The one who had all of it before, or who comes after a crash, asks for all of it again.
    await bench.scheduler().step()
    assert len(bench.asked) == 40
    assert len(bench.entries()) == 20
    await bench.until_quiet(even, odd, bench.scheduler())
    assert len(bench.entries()) == 20
    assert bench.states() == {TaskState.MISSED}


async def test_what_could_not_be_put_into_the_journal_is_found_again(bench: Ringing) -> None:
    bench.discharge(range(3))
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    put, scheduler._put = scheduler._put, refuse
    with pytest.raises(StoreUnavailableError):
        await scheduler.step()
    assert bench.entries() == []
    scheduler._put = put
    await bench.until_quiet(scheduler)
    assert bench.states() == {TaskState.MISSED}


async def refuse(_receipts: Sequence[Receipt]) -> Sequence[int]:
    raise StoreUnavailableError("the main process does not say")


async def test_a_clock_that_was_set_back_between_the_look_and_the_deciding_loses_nothing(bench: Ringing) -> None:
    bench.discharge([1])
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    await scheduler.step()
    bench.clock.at = NOW + timedelta(minutes=1)
    finish(bench.processor())
    bench.clock.at = NOW + YEAR
    await bench.until_quiet(scheduler)
    assert bench.states() == {TaskState.MISSED}


async def test_a_deadline_that_an_act_brings_back_rings_again(bench: Ringing) -> None:
    bench.discharge([1])
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    await bench.until_quiet(scheduler)
    [chart] = bench.store.read_now(bench.store.charts.find)
    reopened = tuple(
        msgspec.structs.replace(task, state=TaskState.OPEN, ended_at=None, ended_by=None) for task in chart.tasks
    )
    undone = msgspec.structs.replace(chart, version=chart.version + 1, tasks=reopened)
    before = Charts()
    before.add(chart)
    outcome = Outcome(
        entry_id=10_000, state=EntryState.PROCESSED, chart_id=chart.id, charts=(undone,), config_version="1"
    )
    bench.store.charts_ledger.write_now(
        lambda conn: bench.store.recorder.record(
            conn,
            [outcome],
            before,
            channel="@act",
            moves=dict.fromkeys(range(64), (0, 10_000)),
            now=bench.clock.at,
        )
    )
    await bench.until_quiet(scheduler)
    assert bench.states() == {TaskState.MISSED}
    assert len(bench.entries()) == 2


@pytest.mark.parametrize("again", [False, True], ids=["the same worker", "a worker that starts"])
async def test_a_patient_whose_chart_is_damaged_stops_no_other_and_is_asked_for_once(
    bench: Ringing, *, again: bool
) -> None:
    bench.discharge(range(6))
    [hurt, *_] = bench.store.read_now(bench.store.charts.find)
    bench.write("UPDATE charts.chart SET document = :junk WHERE id = :id", junk=bytes(100), id=hurt.id)
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    await bench.until_quiet(scheduler)
    assert sorted(state for _, state in bench.entries()) == [EntryState.DEAD] + [EntryState.PROCESSED] * 5
    letters = bench.store.read_now(lambda conn: bench.store.dead_letters.find(conn))
    assert [one.error for one in letters] == ["chart-damaged"]
    asked = len(bench.asked)
    if again:
        scheduler, asked = bench.scheduler(), asked + 1
    for _ in range(5):
        await scheduler.step()
    assert len(bench.asked) == asked
    assert len(bench.entries()) == 6


async def test_a_patient_whose_channel_is_gone_is_a_dead_letter_and_rings_when_it_is_replayed(bench: Ringing) -> None:
    bench.discharge([1])
    bench.clock.at = NOW + YEAR
    channels, bench.compiled = bench.compiled, dataclasses.replace(bench.compiled, channels={})
    scheduler = bench.scheduler()
    await bench.until_quiet(scheduler)
    [(entry, state)] = bench.entries()
    [letter] = bench.store.read_now(lambda conn: bench.store.dead_letters.find(conn))
    assert (state, letter.error, letter.entry) == (EntryState.DEAD, "channel-unknown", entry)
    [shown] = bench.store.read_now(lambda conn: bench.store.journal.find(conn, ids=[entry]))
    assert shown.patient_key is not None
    assert bench.store.read_now(lambda conn: overdue(conn, bench.clock.at)) == (0, None)
    bench.compiled = channels
    with bench.store.reader() as conn:
        [died] = bench.store.journal.entries(conn, [entry])
    replay = msgspec.structs.replace(
        receipt_of(bench.store.keys, read(died.payload), bench.clock.at), replay_of=entry, once=False, dedupe_key=None
    )
    bench.store.journal_ledger.write_now(lambda conn: bench.store.journal.append(conn, [replay]))
    await bench.until_quiet(scheduler)
    assert bench.states() == {TaskState.MISSED}


async def test_a_kind_of_deadline_that_never_ends_does_not_make_the_clock_spin(
    bench: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "SOURCES", (deadlines.SOURCE._replace(ring=lambda chart, _deciding: chart),))
    bench.discharge(range(3))
    bench.clock.at = NOW + YEAR
    scheduler = bench.scheduler()
    for _ in range(3):
        await bench.until_quiet(scheduler)
    assert len(bench.entries()) == len(bench.asked) == 3
    assert bench.store.read_now(lambda conn: overdue(conn, bench.clock.at)).charts == 3, "a person sees it"


async def test_it_goes_on_when_the_store_was_away(bench: Ringing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "_STORE_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(scheduler_module, "_LOOK_SECONDS", 0.01)
    bench.discharge(range(3))
    bench.clock.at = NOW + YEAR
    scheduler, stopping = bench.scheduler(), asyncio.Event()
    put, scheduler._put = scheduler._put, refuse
    running = asyncio.create_task(scheduler.run(stopping))
    await asyncio.sleep(0.05)
    scheduler._put = put
    while len(bench.entries()) < 3:
        await asyncio.sleep(0.01)
    stopping.set()
    await running
