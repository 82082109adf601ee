"""The processor over the real store: shares of several workers, takeovers, damaged entries."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from engine.clock import FixedClock
from engine.connectors.registry import load
from engine.domain.message import AckCode, AckState, EntryState, Receipt
from engine.domain.outcome import Outcome
from engine.domain.partition import ALL_PARTITIONS, PARTITIONS
from engine.errors import CursorMovedError, LeaseLostError, StoreUnavailableError
from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import summarize
from engine.pipeline.channel import CompiledConfiguration
from engine.pipeline.prepared import Prepared
from engine.runtime import processor as processor_module
from engine.runtime.configurations import compile_site
from engine.runtime.hints import Leased
from engine.runtime.processor import Processor
from engine.runtime.worker import Tally
from engine.snapshot import Snapshot
from engine.store import Store, counts, engines
from engine.store.charts import key_hash
from engine.store.record import Recorded

CHANNEL = "main-campus"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
CONFIG = Path(__file__).parents[3] / "config.yaml"


def adt(event: str, patient: str, number: int, *, also: str = "", at: str = "20260302100000") -> bytes:
    identifiers = f"{patient}^^^MRN^MR" + (f"~{also}^^^MPI^PI" if also else "")
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||ADT^{event}^ADT_A01|C{number}|P|2.5.1\rEVN|{event}|{at}\r"
        f"PID|1||{identifiers}||Doe^Jane||19480312|F\r"
        f"PV1|1|I|3W^{number}^A||||||||||||||||V{patient}^^^MRN|||||||||||||||||||||||||20260301113000\r"
    ).encode()


def discharged(number: int) -> bytes:
    """A patient with a stay, a score and tasks."""
    return adt("A03", f"P{number}", number)


@dataclass
class Share:
    """Leases that a test gives and takes."""

    partitions: frozenset[int]
    lost: bool = False
    checked: list[frozenset[int]] = field(default_factory=list)

    def check(self, _conn: Connection, partitions: Collection[int]) -> None:
        self.checked.append(frozenset(partitions))
        if self.lost or not self.partitions.issuperset(partitions):
            raise LeaseLostError("taken away by the test")


class Bench:
    """A store with a channel, and any number of processors over it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.compiled: CompiledConfiguration = compile_site(load(Snapshot.read(CONFIG)), store.keys)
        self.clock = FixedClock(NOW)
        self.received_at = NOW
        self.told: list[int] = []
        self.failed: list[int] = []
        self.tally = Tally()

    def processor(self, share: Share | frozenset[int] = ALL_PARTITIONS) -> Processor:
        leases = share if isinstance(share, Share) else Share(share)
        return Processor(
            self.store,
            self.compiled,
            self.clock,
            leases,  # type: ignore[arg-type]  # what the processor uses of them
            shadow=self.open_shadow,
            recompile=lambda _: None,
            on_outcomes=self.hear,
            tally=self.tally,
        )

    def open_shadow(self) -> Store:
        raise StoreUnavailableError("no channel of these tests is in shadow")

    def hear(self, accepted: Sequence[int], failed: Sequence[int]) -> None:
        self.told += [*accepted, *failed]
        self.failed += failed

    def receive(self, *payloads: bytes, channel: str = CHANNEL, awaited: bool = True) -> list[int]:
        receipts = []
        for payload in payloads:
            header = read_header(payload)
            receipts.append(
                Receipt(
                    channel=channel,
                    peer="10.0.0.4:51022",
                    received_at=self.received_at,
                    payload=payload,
                    summary=summarize(header),
                    dedupe_key=self.store.keys.lookup(channel, header.raw(10)),
                    digest=self.store.keys.lookup(payload),
                    ordering_key=ordering_key(payload, header),
                    ack=AckCode.AA,
                    ack_state=AckState.SENT,
                    wants_application_ack=awaited,
                )
            )
        stored = self.store.journal_ledger.write_now(lambda conn: self.store.journal.append(conn, receipts))
        return [one.arrival for one in stored]

    def partition(self, payload: bytes) -> int:
        """Where the journal will have it."""
        return self.store.keys.lookup("partition", ordering_key(payload, read_header(payload)))[0] % PARTITIONS

    def states(self) -> dict[int, EntryState]:
        return {
            one.id: one.state for one in self.store.read_now(lambda conn: self.store.journal.find(conn, limit=None))
        }

    def reason(self, entry: int) -> str | None:
        [one] = self.store.read_now(lambda conn: self.store.journal.find(conn, ids=[entry]))
        return one.reason

    def balanced(self) -> bool:
        return all(line.balanced for line in self.store.read_now(counts.ledger))

    def pending(self) -> int:
        return self.store.read_now(lambda conn: counts.pending(conn, [CHANNEL]))[CHANNEL]

    def rows(self, table: str) -> set[tuple[Any, ...]]:
        """All that stands in a table of the charts."""
        return self.store.read_now(
            lambda conn: {tuple(row) for row in conn.execute(text(f"SELECT * FROM charts.{table}"))}
        )

    def write(self, statement: str, **values: object) -> None:
        ledger = self.store.journal_ledger if "journal." in statement else self.store.charts_ledger
        ledger.write_now(lambda conn: conn.execute(text(statement), values))


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


def finish(*processors: Processor) -> int:
    """Step by turns until nobody finds anything."""
    done = 0
    while counted := sum(processor.step() for processor in processors):
        done += counted
    return done


EVEN = frozenset(number for number in ALL_PARTITIONS if number % 2 == 0)
ODD = ALL_PARTITIONS - EVEN


def test_two_workers_share_the_entries_and_each_is_processed_once(bench: Bench) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(100)))
    one, two = bench.processor(EVEN), bench.processor(ODD)
    assert 20 < finish(one) < 80
    assert bench.balanced()
    finish(two)
    assert set(bench.states().values()) == {EntryState.PROCESSED}
    assert sorted(bench.told) == list(range(1, 101)), "each sender is told once"
    assert (bench.pending(), bench.balanced()) == (0, True)


def test_the_messages_of_a_patient_are_in_one_partition(bench: Bench) -> None:
    bench.receive(*(adt(event, f"P{number % 5}", number) for number, event in enumerate(["A01", "A08", "A03"] * 20)))
    found = bench.store.read_now(lambda conn: bench.store.journal.after(conn, CHANNEL, 0, 100))
    partitions: dict[int, set[int]] = {}
    for index, (_, partition) in enumerate(found):
        partitions.setdefault(index % 5, set()).add(partition)
    assert all(len(one) == 1 for one in partitions.values())


def test_a_worker_goes_on_where_the_one_before_it_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "BATCH_MAX", 7)
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(60)))
    bench.processor(EVEN).step()
    bench.processor(ALL_PARTITIONS).step()
    finish(bench.processor(ODD), bench.processor(EVEN))
    assert set(bench.states().values()) == {EntryState.PROCESSED}
    assert (len(bench.told), bench.balanced()) == (60, True)


def test_what_a_worker_lost_while_it_worked_is_recorded_by_its_successor_only(bench: Bench) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(20)))
    share = Share(ALL_PARTITIONS, lost=True)
    hanging = bench.processor(share)
    with pytest.raises(LeaseLostError):
        hanging.step()
    assert set(bench.states().values()) == {EntryState.RECEIVED}
    finish(bench.processor())
    assert (len(bench.told), bench.balanced()) == (20, True)


def test_a_worker_that_does_not_know_it_was_replaced_records_nothing(bench: Bench) -> None:
    bench.receive(adt("A01", "P1", 1))
    old = bench.processor()
    assert finish(old) == 1
    bench.receive(adt("A08", "P1", 2))
    assert finish(bench.processor()) == 1
    bench.receive(adt("A08", "P1", 3))
    with pytest.raises(CursorMovedError):  # nobody took its leases: the cursor alone stops it
        old.step()
    assert bench.states()[3] is EntryState.RECEIVED
    assert bench.told == [1, 2]


def test_two_workers_that_meet_a_new_patient_at_the_same_time_make_one_chart(bench: Bench) -> None:
    """One sender names him by his number first, another by the index: two partitions, two workers, one patient."""
    for index in (f"X{number}" for number in range(1, 100)):  # the keys are new each time, and so are the partitions
        both = adt("A28", "P1", 1, also=index)
        swapped = both.replace(
            f"P1^^^MRN^MR~{index}^^^MPI^PI".encode(), f"{index}^^^MPI^PI~P1^^^MRN^MR".encode()
        ).replace(b"|C1|", b"|C2|")
        if bench.partition(both) != bench.partition(swapped):
            break
    bench.receive(both, swapped)
    found = bench.store.read_now(lambda conn: bench.store.journal.after(conn, CHANNEL, 0, 10))
    assert found[0][1] != found[1][1]
    first, second = (bench.processor(frozenset({partition})) for _, partition in found)
    load_charts = bench.store.charts.load
    meanwhile = [first]

    def load_and_let_the_other_go_first(conn, identities, visits, ids, **more):  # type: ignore[no-untyped-def]
        charts = load_charts(conn, identities, visits, ids, **more)
        if meanwhile:
            meanwhile.pop().step()
        return charts

    bench.store.charts.load = load_and_let_the_other_go_first  # type: ignore[method-assign]
    finish(second)
    assert set(bench.states().values()) == {EntryState.PROCESSED}
    [chart] = bench.store.read_now(bench.store.charts.find)
    assert {item.value for item in chart.patient.identifiers} == {"P1", index}
    assert bench.balanced()


@pytest.mark.parametrize("column", ["head", "body"])
def test_an_entry_that_was_tampered_with_is_buried_alone(bench: Bench, column: str) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(9)))
    bench.write(f"UPDATE journal.payload SET {column} = :junk WHERE entry_id = 5", junk=bytes(100))
    finish(bench.processor())
    states = bench.states()
    assert states.pop(5) is EntryState.DEAD
    assert set(states.values()) == {EntryState.PROCESSED}
    [letter] = bench.store.read_now(lambda conn: bench.store.dead_letters.of_entry(conn, 5))
    assert letter.error == "entry-damaged"
    assert bench.failed == [5], "its sender is told that it was not processed"
    assert bench.balanced()


def test_an_entry_whose_payload_is_gone_is_buried_alone(bench: Bench) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(3)))
    bench.write("DELETE FROM journal.payload WHERE entry_id = 2")
    finish(bench.processor())
    assert bench.states() == {1: EntryState.PROCESSED, 2: EntryState.DEAD, 3: EntryState.PROCESSED}
    assert bench.balanced()


def test_a_chart_that_was_tampered_with_stops_its_own_patient_only(bench: Bench) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(3)))
    finish(bench.processor())
    chart_id = bench.store.read_now(
        lambda conn: conn.execute(text("SELECT chart_id FROM charts.outcome WHERE entry_id = 2")).scalar_one()
    )
    bench.write("UPDATE charts.chart SET document = :junk WHERE id = :id", junk=bytes(100), id=chart_id)
    bench.receive(*(adt("A08", f"P{number}", 10 + number) for number in range(3)))
    finish(bench.processor())
    assert [bench.states()[entry] for entry in (4, 5, 6)] == ["processed", "dead", "processed"]
    assert bench.balanced()


SWAP = "UPDATE charts.{table} SET {column} = CASE {column} WHEN :one THEN :two WHEN :two THEN :one ELSE {column} END"


@pytest.mark.parametrize(
    ("tamper", "dead"),
    [
        (SWAP.format(table="identifier", column="chart_id"), {1, 2}),
        (SWAP.format(table="encounter", column="chart_id"), {1, 2}),
        (SWAP.format(table="task", column="chart_id"), {1, 2}),
        (SWAP.format(table="score", column="chart_id"), {1, 2}),
        (SWAP.format(table="chart", column="merged_into").replace(" ELSE merged_into ", " ELSE :two "), {1, 2, 0}),
        ("UPDATE charts.identifier SET chart_id = :two WHERE chart_id = :one", {1}),
        ("UPDATE charts.identifier SET chart_id = 'nobody' WHERE chart_id = :one", {1}),
        ("DELETE FROM charts.identifier WHERE chart_id = :one", {1}),  # its stay leads there
        ("UPDATE charts.chart SET merged_into = :two WHERE id = :one", {1}),
        ("UPDATE charts.chart SET version = version + 1 WHERE id = :one", {1}),
        ("UPDATE charts.task SET chart_id = :two WHERE chart_id = :one", {1, 2}),
        ("UPDATE charts.task SET state = 'done' WHERE chart_id = :one", {1}),
        ("UPDATE charts.task SET due_at = due_at + 1 WHERE chart_id = :one", {1}),
        ("DELETE FROM charts.chart WHERE id = :one", {1}),
    ],
)
def test_a_row_that_leads_to_another_chart_touches_nobody_and_holds_up_nobody_else(
    bench: Bench, log: io.StringIO, tamper: str, dead: set[int]
) -> None:
    bench.receive(*(discharged(number) for number in range(3)))
    finish(bench.processor())
    of = bench.store.read_now(lambda conn: bench.store.recorder.outcomes(conn, [1, 2, 3]))
    bench.write(
        tamper, **{f: v for f, v in {"one": of[2].chart_id, "two": of[3].chart_id}.items() if f":{f}" in tamper}
    )
    before = bench.rows("chart")
    bench.receive(*(adt("A31", f"P{number}", 10 + number).replace(b"Doe^Jane", b"Roe^Ann") for number in range(3)))
    processor = bench.processor()
    finish(processor)
    assert {number for number in range(3) if bench.states()[4 + number] == "dead"} == dead
    letters = [bench.store.read_now(lambda conn, e=4 + n: bench.store.dead_letters.of_entry(conn, e)) for n in dead]
    assert {letter.error for [letter] in letters} == {"chart-damaged"}
    keys = bench.store.read_now(lambda conn: bench.store.recorder.outcomes(conn, [4 + number for number in dead]))
    assert {number: keys[4 + number].patient_key for number in dead} == {number: f"MRN:P{number}" for number in dead}
    untouched = {of[1 + number].chart_id for number in dead}
    assert {row for row in bench.rows("chart") if row[0] in untouched} == {row for row in before if row[0] in untouched}
    assert len(bench.rows("chart")) == len(before), "no second chart came about"
    assert log.getvalue().count("a stored chart is damaged or was altered") == len(dead)
    report = bench.tally.take(None, failing=(), leased=Leased())
    assert dict(report.counts["deviations"])[CHANNEL, "chart-damaged"] == len(dead)
    assert bench.balanced()


def test_an_identifier_that_is_gone_is_missed_when_a_message_names_another_of_the_patient(bench: Bench) -> None:
    bench.receive(adt("A01", "P1", 1, also="X1"), adt("A01", "P2", 2, also="X2"))
    finish(bench.processor())
    hashed = key_hash(bench.store.keys, "MRN:P1")
    bench.write("DELETE FROM charts.identifier WHERE key_hash = :hashed", hashed=hashed)
    away = [adt("A31", f"P{n}", 2 + n, also=f"X{n}").replace(f"VP{n}^^^MRN".encode(), b"") for n in (1, 2)]
    bench.receive(*away)
    finish(bench.processor())
    assert [bench.states()[entry] for entry in (3, 4)] == ["dead", "processed"]
    assert len(bench.rows("chart")) == 2


class Hours:
    """A clock that stands still but for what is slow."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("slow", ["prepare", "decide"])
def test_slow_messages_of_one_channel_cost_another_one_turn_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    hours = Hours()
    real = getattr(processor_module, slow)

    def slowly(what: Any, *rest: Any) -> Any:
        entry = what if slow == "prepare" else what.entry
        hours.now += 10.0 if entry.channel == CHANNEL else 0.001
        return real(what, *rest)

    monkeypatch.setattr(processor_module, "time", hours)
    monkeypatch.setattr(processor_module, slow, slowly)
    channels = bench.compiled.channels
    channels["other"] = dataclasses.replace(
        channels[CHANNEL], settings=channels[CHANNEL].settings.model_copy(update={"name": "other"})
    )
    flood = bench.receive(*(adt("A01" if number < 3 else "A08", f"P{number % 3}", number) for number in range(20)))
    quick = bench.receive(*(adt("A01", f"Q{number}", 100 + number) for number in range(30)), channel="other")
    processor = bench.processor()
    assert processor.step() == 1 + 30
    assert hours.now < 11, "nothing was read or decided in vain"
    states = bench.states()
    assert [states[entry] for entry in quick] == ["processed"] * 30
    for turn in range(1, 5):
        late = bench.receive(adt("A01", f"L{turn}", 200 + turn), channel="other")
        assert processor.step() == 2, "one of each channel"
        states = bench.states()
        assert [states[entry] for entry in late] == ["processed"]
        assert [entry for entry in flood if states[entry] != "received"] == flood[: turn + 1], "in their order"
    finish(processor)
    assert (bench.pending(), bench.balanced()) == (0, True)
    assert {bench.states()[entry] for entry in flood} == {"processed"}


@pytest.mark.parametrize("awaited", [True, False])
def test_a_sender_that_waits_for_its_outcome_waits_less_for_the_backlog_of_another_channel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, awaited: bool
) -> None:
    hours = Hours()
    real = processor_module.decide

    def slowly(what: Any, *rest: Any) -> Any:
        hours.now += 0.01
        return real(what, *rest)

    monkeypatch.setattr(processor_module, "time", hours)
    monkeypatch.setattr(processor_module, "decide", slowly)
    channels = bench.compiled.channels
    channels["other"] = dataclasses.replace(
        channels[CHANNEL], settings=channels[CHANNEL].settings.model_copy(update={"name": "other"})
    )
    flood = bench.receive(*(adt("A08", f"P{number}", number) for number in range(40)), awaited=False)
    bench.receive(adt("A01", "Q1", 100), channel="other", awaited=awaited)
    processor = bench.processor()
    processor.step()
    done = [entry for entry in flood if bench.states()[entry] != "received"]
    assert len(done) == (4 if awaited else 40)
    assert done == flood[: len(done)], "in their order"
    finish(processor)
    assert (bench.pending(), bench.balanced()) == (0, True)


def test_batches_grow_again_when_a_channel_is_no_longer_slow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = Hours()
    real = processor_module.prepare

    def slowly(entry: Any, channel: Any) -> Prepared:
        hours.now += 10.0 if entry.id <= 2 else 0.0
        return real(entry, channel)

    monkeypatch.setattr(processor_module, "time", hours)
    monkeypatch.setattr(processor_module, "prepare", slowly)
    bench.receive(*(adt("A08", f"P{number % 3}", number) for number in range(40)))
    processor = bench.processor()
    assert [processor.step() for _ in range(8)] == [1, 1, 2, 4, 8, 16, 8, 0]
    assert bench.balanced()


@pytest.mark.parametrize(("slow", "seconds"), [("decide", 0.3), ("prepare", 0.03)])
def test_a_slow_batch_with_a_damaged_chart_in_it_ends_with_its_turn_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, slow: str, seconds: float
) -> None:
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(8)))
    finish(bench.processor())
    bench.write("UPDATE charts.chart SET version = version + 1 WHERE id = (SELECT max(id) FROM charts.chart)")
    hours = Hours()
    real = getattr(processor_module, slow)

    def slowly(*given: Any) -> Any:
        hours.now += seconds
        return real(*given)

    monkeypatch.setattr(processor_module, "time", hours)
    monkeypatch.setattr(processor_module, slow, slowly)
    entries = bench.receive(*(adt("A08", f"P{number}", 20 + number) for number in range(8)))
    processor = bench.processor()
    while processor.step():
        states = [bench.states()[entry] for entry in entries]
        done = [state for state in states if state != "received"]
        assert states[: len(done)] == done, "in their order"
    assert [bench.states()[entry] for entry in entries] == ["processed"] * 7 + ["dead"]
    assert bench.balanced()


def test_idle_partitions_are_lifted_so_that_nobody_looks_there_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor_module, "_LIFT_SECONDS", 0.0)
    bench.receive(*(adt("A01", "P1", number) for number in range(30)))
    finish(bench.processor())
    cursors = bench.store.read_now(bench.store.recorder.cursors)[CHANNEL]
    assert cursors == dict.fromkeys(ALL_PARTITIONS, 30)


def test_lifting_passes_over_nothing_that_is_not_recorded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_module, "_LIFT_SECONDS", 0.0)
    monkeypatch.setattr(processor_module, "_LIFT_ENTRIES", 1)
    monkeypatch.setattr(processor_module, "BATCH_MAX", 3)
    monkeypatch.setattr(processor_module, "_LOOK_MAX", 5)
    bench.receive(*(adt("A01", f"P{number % 17}", number) for number in range(80)))
    one, two = bench.processor(EVEN), bench.processor(ODD)
    while one.step() + two.step():
        assert bench.balanced()
        done: Sequence[EntryState] = list(bench.states().values())
        assert bench.pending() == done.count(EntryState.RECEIVED)
    assert (len(bench.told), bench.pending()) == (80, 0)


def test_a_worker_rests_only_when_it_has_seen_the_end_of_the_journal(bench: Bench, monkeypatch) -> None:
    """Most of what it looks at is another's: a look that finds little of its own need not be the last one."""
    monkeypatch.setattr(processor_module, "_LOOK_MAX", 5)
    bench.receive(*(adt("A01", f"P{number % 17}", number) for number in range(80)))
    one, two = bench.processor(EVEN), bench.processor(ODD)
    for processor in (one, two):
        while processor.step() and processor._more:
            pass
        assert not processor._more
    assert (len(bench.told), bench.pending()) == (80, 0)


def test_a_message_that_breaks_the_processing_is_buried_alone_and_blocks_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = processor_module.decide

    def broken(prepared: Prepared, *rest: object) -> Outcome:
        if prepared.entry.id == 4:
            raise RuntimeError("a defect that one message triggers")
        return decide(prepared, *rest)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(processor_module, "decide", broken)
    bench.receive(*(adt("A01", f"P{number % 3}", number) for number in range(9)))
    finish(bench.processor())
    states = bench.states()
    assert states.pop(4) is EntryState.DEAD
    assert set(states.values()) == {EntryState.PROCESSED}
    assert bench.balanced()


def test_a_message_that_can_not_be_recorded_is_found_by_halving_and_buried_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = type(bench.store.recorder)
    record = recorder.record

    def broken(self: object, conn: Connection, outcomes: Sequence[Outcome], *rest: object, **more: object) -> Recorded:
        recorded = record(self, conn, outcomes, *rest, **more)  # type: ignore[arg-type]  # as it came
        if any(one.entry_id == 6 and one.charts for one in outcomes):
            raise ValueError("a defect that one outcome triggers")
        return recorded

    monkeypatch.setattr(recorder, "record", broken)
    bench.receive(*(adt("A01", f"P{number}", number) for number in range(16)))
    finish(bench.processor())
    states = bench.states()
    assert states.pop(6) is EntryState.DEAD
    assert set(states.values()) == {EntryState.PROCESSED}
    assert bench.balanced()


def test_messages_of_one_patient_are_worked_on_in_their_order_by_however_many_workers(bench: Bench) -> None:
    """All at the same time of the sender's clock, so that nothing but the order says which one is the last."""
    bench.receive(*(adt("A08", f"P{number % 7}", number) for number in range(70)))
    workers = [bench.processor(frozenset(range(start, 64, 3))) for start in range(3)]
    finish(*workers)
    found = bench.store.read_now(bench.store.charts.find)
    rooms = {chart.patient.identifiers[0].value: chart.encounters[0].location for chart in found}
    assert {patient: place.room if place else None for patient, place in rooms.items()} == {
        f"P{number % 7}": str(number) for number in range(63, 70)
    }


def test_a_process_that_stood_still_inside_a_transaction_costs_no_message(
    postgresql_site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has cut its session off meanwhile. That is nobody's fault, least of all the message's."""
    Bench(postgresql_site.open("tool")).receive(adt("A01", "P1", 1))
    monkeypatch.setattr(engines, "_IDLE_IN_TRANSACTION_MS", 200)
    bench = Bench(postgresql_site.open("tool"))
    recorder = type(bench.store.recorder)
    record, pauses = recorder.record, iter([0.6])

    def slow(self: object, conn: Connection, *rest: object, **more: object) -> Recorded:
        conn.execute(text("SELECT 1"))
        time.sleep(next(pauses, 0))
        return record(self, conn, *rest, **more)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(recorder, "record", slow)
    processor = bench.processor()
    with pytest.raises(StoreUnavailableError):
        processor.step()
    for _ in range(20):  # a machine that stands still now may cost it another session
        with contextlib.suppress(StoreUnavailableError):
            finish(processor)
            break
    assert bench.states() == {1: EntryState.PROCESSED}


def test_a_worker_that_lost_its_partitions_and_got_them_back_reads_on_where_others_have_stopped(bench):
    """The same ones, taken again before anybody looked: what it remembers of them is not true any more."""
    share = Share(ALL_PARTITIONS)
    worker = bench.processor(share)
    bench.receive(adt("A01", "P1", 1))
    assert worker.step() == 1
    bench.receive(adt("A08", "P1", 2))
    assert bench.processor().step() == 1
    share.partitions = frozenset(list(ALL_PARTITIONS))
    bench.receive(adt("A08", "P1", 3))
    assert worker.step() == 1
    assert set(bench.states().values()) == {EntryState.PROCESSED}


# --- patients with many stays


def visit(event: str, number: int, control: int, *, ward: str = "3W") -> bytes:
    """An emergency visit of one patient: it has no tasks, so that it is over when it has ended."""
    at = f"202602{number:02d}10{control % 60:02d}00"
    left = (
        f"01||||||||202602{number:02d}090000|202602{number:02d}103000"
        if event == "A03"
        else f"||||||||202602{number:02d}090000"
    )
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||ADT^{event}|N{control}|P|2.5.1\rEVN|{event}|{at}\r"
        f"PID|1||P1^^^MRN^MR||Doe^Jane||19480312|F\r"
        f"PV1|1|E|{ward}^1^A||||||||||||||||V{number}^^^MRN|||||||||||||||||{left}\r"
    ).encode()


def visits_of_a_patient(bench: Bench) -> int:
    """Seven visits, one batch each; returns how many stays a message finds loaded then."""
    worker = bench.processor()
    for number in range(1, 8):
        bench.receive(visit("A04", number, 2 * number), visit("A03", number, 2 * number + 1))
        finish(worker)
    found = bench.store.read_now(lambda conn: bench.store.charts.load(conn, [("MRN", "MR", "P1")], [], bounded=True))
    [chart] = found.by_id.values()
    assert chart.closed is not None
    return len(chart.encounters)


def test_late_news_of_a_closed_stay_and_a_new_stay_behind_it_in_one_batch_both_count(bench: Bench) -> None:
    assert visits_of_a_patient(bench) < 7
    bench.receive(visit("A04", 8, 20), visit("A08", 1, 21, ward="ICU"), visit("A03", 8, 22))
    finish(bench.processor())
    [chart] = bench.store.read_now(lambda conn: bench.store.charts.by_key(conn, "MRN:P1"))
    assert [stay.key for stay in chart.encounters] == [f"MRN:V{number}" for number in range(1, 9)]
    assert {stay.status for stay in chart.encounters} == {"finished"}
    first = chart.encounters[0].location
    assert first is not None
    assert first.point_of_care == "ICU"
    assert set(bench.states().values()) == {EntryState.PROCESSED}
    assert bench.balanced()


def test_what_a_rule_asks_for_is_loaded_while_it_decides(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    visits_of_a_patient(bench)
    loads: list[str] = []
    original = Processor._reopen
    reopen = staticmethod(lambda store, id_, *more: loads.append(id_) or original(store, id_, *more))
    monkeypatch.setattr(Processor, "_reopen", reopen)
    bench.receive(visit("A13", 1, 23).replace(b"V1^^^MRN", b""))  # which of the ended visits goes on? by its admission
    finish(bench.processor())
    assert len(loads) == 1
    [chart] = bench.store.read_now(lambda conn: bench.store.charts.by_key(conn, "MRN:P1"))
    assert [stay.status for stay in chart.encounters] == ["active", *["finished"] * 6]


def of_stay(event: str, patient: str, at: str, number: str, *segments: str) -> bytes:
    name = {"P1": "Doe^Jane||19480312", "P2": "Roe^Jay||19700101", "P3": "Poe^Edgar||18990119"}[patient]
    lines = [f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|202602{at}||ADT^{event}|M{event}{at}|P|2.5.1", f"EVN|{event}|202602{at}",
             f"PID|1||{patient}^^^MRN^MR||{name}|F", f"PV1|1|I|3W^1^A{'|' * 16}{number}^^^MRN", *segments]  # fmt: skip
    return ("\r".join(lines) + "\r").encode()


def test_late_news_by_a_former_number_reaches_a_stay_that_was_moved_twice(bench: Bench) -> None:
    """The chart that the stay has come to is named by nothing in the message."""
    moves = (
        of_stay("A01", "P1", "01100000", "V1"),
        of_stay("A50", "P1", "02100000", "V2", "MRG|P1^^^MRN^MR||||V1^^^MRN"),
        of_stay("A45", "P2", "04100000", "V2", "MRG|P1^^^MRN^MR||||V2^^^MRN"),
        of_stay("A45", "P3", "05100000", "V2", "MRG|P2^^^MRN^MR||||V2^^^MRN"),
    )
    for message in moves:
        bench.receive(message)
        finish(bench.processor())
    bench.receive(of_stay("A02", "P1", "03100000", "V2").replace(b"A|||||||", b"A|||||||CAR"))
    finish(bench.processor())
    assert set(bench.states().values()) == {EntryState.PROCESSED}
    found = {key: bench.store.read_now(lambda conn, key=key: bench.store.charts.by_key(conn, f"MRN:{key}"))[0]
             for key in ("P1", "P2", "P3")}  # fmt: skip
    assert (found["P1"].encounters, found["P2"].encounters) == ((), ())
    (stay,) = found["P3"].encounters
    assert (stay.visit_number, stay.hospital_service) == ("V2", "CAR")
    bench.receive(of_stay("A08", "P1", "06100000", "V2"))
    finish(bench.processor())
    assert sorted(bench.states().values())[:1] == [EntryState.DEAD]
