"""Channels in shadow over the real store: what they write, and what they leave alone."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from test_processor import CHANNEL, EVEN, NOW, ODD, Bench, Share, adt, finish

from engine.domain.delivery import DeliveryState
from engine.domain.message import AckCode, EntryState, Receipt
from engine.domain.partition import ALL_PARTITIONS
from engine.errors import LeaseLostError, StoreUnavailableError
from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import summarize
from engine.store import Store, counts
from engine.store.migrations import drop_shadow, upgrade
from engine.store.overview import overview
from engine.store.schema import SHADOW_NUMBERS, metadata

WEST = "west"
UNREADABLE = adt("A08", "P9", 90).replace(b"PID|1||P9^^^MRN^MR|", b"PID|1|||")
HELD = adt("A11", "P1", 91, at="20260101000000")
"""A cancellation that is older than what the chart says: a person has to look."""
BESIDE = frozenset({"outcome", "cursor", "quality"})
"""What the living are told of a message in shadow stands in these, and what is wrong with its feed."""


class ShadowBench(Bench):
    """A live channel, and another that is in shadow."""

    def __init__(self, site: Any) -> None:
        super().__init__(site.open())
        self.site = site
        self.opened = 0
        self.mode("shadow")
        upgrade(site.location.in_shadow())

    def mode(self, mode: str) -> None:
        """Of the channel west, for processors that begin or reload from now on."""
        live = self.compiled.channels[CHANNEL]
        west = replace(live, settings=live.settings.model_copy(update={"name": WEST, "mode": mode}))
        self.compiled = replace(self.compiled, channels={CHANNEL: live, WEST: west})

    def open_shadow(self) -> Store:
        self.opened += 1
        return self.site.open("worker", shadow=True)

    def look(self) -> Store:
        return self.site.open("look", shadow=True)

    def west(self, *payloads: bytes) -> list[int]:
        return self.receive(*payloads, channel=WEST)

    def tables(self, store: Store | None = None) -> dict[str, set[tuple[Any, ...]]]:
        """The rows of every table of the charts; those of `cursor` that have moved."""
        store = store or self.store
        found: dict[str, set[tuple[Any, ...]]] = {}
        with store.reader() as conn:
            for table in metadata.sorted_tables:
                if table.schema == "charts":
                    rows = {tuple(row) for row in conn.execute(select(table))}
                    found[table.name] = {row for row in rows if table.name != "cursor" or row[-1]}
        return found

    def in_shadow(self) -> dict[str, set[tuple[Any, ...]]]:
        return self.tables(self.look())


@pytest.fixture
def bench(site: Any) -> ShadowBench:
    return ShadowBench(site)


def stay(patient: str, number: int) -> list[bytes]:
    return [adt("A01", patient, number), adt("A03", patient, number + 1, at="20260302110000")]


def test_a_channel_in_shadow_writes_nothing_of_the_living_and_keeps_all_in_shadow(bench: ShadowBench) -> None:
    before = bench.tables()
    entries = bench.west(*stay("P1", 1), *stay("P2", 3), UNREADABLE, HELD)
    finish(bench.processor())
    after = bench.tables()
    assert {name for name, rows in after.items() if rows != before[name]} == BESIDE
    kept = bench.in_shadow()
    for name in ("chart", "identifier", "encounter", "score", "task", "delivery", "dead_letter", "hold"):
        assert kept[name], name
    with bench.look().reader() as conn:
        store = bench.look()
        states = {one.id: one.state for one in store.journal.find(conn, decided=True)}
        deliveries = [queued for entry in entries for queued in store.outbox.of_entry(conn, entry)]
        assert store.outbox.due(conn, "files", NOW, 100) == []
        assert store.outbox.unfinished(conn) == {}
    assert {(queued.state, queued.error) for queued in deliveries} == {(DeliveryState.WITHHELD, "shadow")}
    assert min(queued.id for queued in deliveries) > SHADOW_NUMBERS, "nor can a person release one of the living by it"
    assert any(queued.delivery.operation == "upsert_task" for queued in deliveries)
    assert bench.states() == states
    assert sorted(states.values()) == [EntryState.DEAD, *[EntryState.PROCESSED] * 5]
    assert (sorted(bench.told), bench.failed) == (entries, [entries[-2]])
    assert bench.balanced()


def test_its_outcomes_on_the_living_side_are_as_those_of_a_live_channel(bench: ShadowBench) -> None:
    """The same messages on both: state, answer and deviations are the same, and nothing else is said of the shadow."""
    messages = [*stay("P1", 1), UNREADABLE, adt("A20", "P1", 5)]
    live = bench.receive(*messages)
    beside = bench.west(*messages)
    finish(bench.processor())
    found = bench.store.read_now(lambda conn: bench.store.recorder.outcomes(conn, [*live, *beside]))
    for one, other in zip(live, beside, strict=True):
        first, second = found[one], found[other]
        for name in ("state", "patient_key", "encounter_key", "application_ack", "error_code", "charset", "deviations"):
            assert getattr(first, name) == getattr(second, name), name
        assert second.chart_id is None
        assert {effect.kind for effect in second.effects} <= {"recorded-without-effect"}
    assert found[beside[0]].reason == "in shadow"
    assert found[beside[2]].reason == found[live[2]].reason
    answers = bench.store.read_now(lambda conn: bench.store.recorder.answers(conn, beside))
    assert [answers[entry][0] for entry in beside] == [AckCode.AA, AckCode.AA, AckCode.AE, AckCode.AA]


def test_the_same_patient_of_a_live_channel_is_left_alone_and_unknown_to_the_shadow(bench: ShadowBench) -> None:
    bench.receive(adt("A01", "P1", 1))
    finish(bench.processor())
    before = bench.tables()
    bench.west(adt("A03", "P1", 2, at="20260302110000"), adt("A08", "P1", 3).replace(b"Doe^Jane", b"Roe^Joan"))
    finish(bench.processor())
    after = bench.tables()
    assert {name for name, rows in after.items() if rows != before[name]} == BESIDE
    bench.receive(adt("A03", "P1", 4, at="20260302113000"))
    finish(bench.processor())
    told = bench.store.read_now(lambda conn: bench.store.outbox.due(conn, "files", NOW, 100))
    assert told, "the live channel's discharge is news to the destination, whatever the shadow has heard before"
    chart = bench.store.read_now(lambda conn: bench.store.charts.by_key(conn, "MRN:P1"))[0]
    assert chart.patient.name is not None
    assert chart.patient.name.family == "Doe"


def cut_between_the_commits(bench: ShadowBench, error: Exception) -> None:
    """A worker that records in shadow, and comes no further."""
    processor = bench.processor()

    def cut(*_: object) -> None:
        raise error

    processor._commit = cut  # type: ignore[method-assign]
    processor.step()


def test_a_crash_between_the_two_commits_is_made_good_and_changes_nothing_in_shadow(bench: ShadowBench) -> None:
    entries = bench.west(*stay("P1", 1), UNREADABLE)
    cut_between_the_commits(bench, StoreUnavailableError("gone"))
    kept = bench.in_shadow()
    assert len(kept["outcome"]) == 3
    assert set(bench.states().values()) == {EntryState.RECEIVED}
    entries += bench.west(adt("A08", "P1", 5))
    finish(bench.processor())
    now = bench.in_shadow()
    for name in ("outcome", "task", "delivery", "dead_letter", "hold"):
        assert kept[name] <= now[name], name
    assert len(now["outcome"]) == 4
    assert len(now["dead_letter"]) == 1
    assert bench.states() == dict.fromkeys(entries, EntryState.PROCESSED) | {entries[2]: EntryState.DEAD}
    assert (bench.balanced(), sorted(bench.told), bench.failed) == (True, entries, [entries[2]])


def test_what_a_worker_lost_between_the_two_is_told_by_its_successor_once(bench: ShadowBench) -> None:
    entries = bench.west(*stay("P1", 1), *stay("P2", 3))
    with pytest.raises(LeaseLostError):
        bench.processor(Share(ALL_PARTITIONS, lost=True)).step()
    kept = bench.in_shadow()
    finish(bench.processor(EVEN), bench.processor(ODD))
    assert sorted(bench.told) == entries
    assert bench.in_shadow()["delivery"] == kept["delivery"]
    assert bench.balanced()


def test_workers_that_met_in_shadow_agree(bench: ShadowBench) -> None:
    """One that was replaced and does not know it has read older cursors than there are."""
    bench.west(adt("A01", "P1", 1))
    old = bench.processor()
    assert finish(old) == 1
    bench.west(adt("A08", "P1", 2))
    cut_between_the_commits(bench, StoreUnavailableError("gone"))
    with pytest.raises(Exception, match="another processor"):
        old.step()
    old._share = frozenset()  # as `run` does
    finish(old)
    assert sorted(bench.told) == [1, 2]
    assert bench.balanced()


def test_a_shadow_that_can_not_be_used_holds_up_no_other_channel(bench: ShadowBench, log: io.StringIO) -> None:
    waits = bench.west(adt("A01", "P1", 1))
    drop_shadow(bench.site.location)
    processor = bench.processor()
    bench.receive(adt("A01", "P2", 2))
    finish(processor)
    assert bench.states() == {waits[0]: EntryState.RECEIVED, 2: EntryState.PROCESSED}
    assert "charts of channels in shadow not available" in log.getvalue()
    upgrade(bench.site.location.in_shadow())
    processor._shadow._rests_until = 0.0
    finish(processor)
    assert set(bench.states().values()) == {EntryState.PROCESSED}


def test_what_dies_or_is_held_in_shadow_rings_nobody(bench: ShadowBench) -> None:
    bench.west(adt("A01", "P1", 1), UNREADABLE, HELD)
    finish(bench.processor())
    with bench.store.reader() as conn:
        work = overview(bench.store, conn, [CHANNEL, WEST], {}, NOW)
        line = next(one for one in counts.ledger(conn) if one.channel == WEST)
    assert (work.dead, dict(work.holds), work.oldest_dead_at, work.oldest_hold_at) == (0, {}, None, None)
    assert (line.dead, line.processed, line.deliveries) == (1, 2, counts.DeliveryCounts())
    with (look := bench.look()).reader() as conn:
        [letter] = look.dead_letters.find(conn)
        [asked] = look.holds.find(conn)
        [line] = counts.ledger(conn, decided=True)
    assert min(letter.id, asked.id) > SHADOW_NUMBERS, "no number of the living"
    assert (line.channel, line.received, line.dead, line.processed, line.balanced) == (WEST, 3, 1, 2, True)
    assert line.deliveries.withheld


def test_a_damaged_chart_in_shadow_is_dead_on_both_sides_and_the_others_go_on(bench: ShadowBench) -> None:
    bench.west(adt("A01", "P1", 1), adt("A01", "P2", 2))
    finish(bench.processor())
    beside = bench.site.open("worker", shadow=True)
    schema = bench.site.location.in_shadow().schema("charts")
    chart_id = beside.read_now(lambda conn: beside.charts.by_key(conn, "MRN:P1"))[0].id
    beside.charts_ledger.write_now(
        lambda conn: conn.execute(
            text(f"UPDATE {schema}.chart SET document = :junk WHERE id = :id"), {"junk": b"junk", "id": chart_id}
        )
    )
    dead, well = bench.west(adt("A08", "P1", 3), adt("A08", "P2", 4))
    finish(bench.processor())
    assert (bench.states()[dead], bench.states()[well]) == (EntryState.DEAD, EntryState.PROCESSED)
    assert "altered" in (bench.reason(dead) or "")
    assert bench.tables()["dead_letter"] == set()
    assert len(bench.in_shadow()["dead_letter"]) == 1


def test_going_live_begins_with_the_living_charts(bench: ShadowBench) -> None:
    processor = bench.processor()
    bench.west(adt("A01", "P1", 1))
    finish(processor)
    bench.mode("live")
    processor.reload(bench.compiled)
    bench.west(adt("A01", "P2", 2))
    finish(processor)
    drop_shadow(bench.site.location)
    with bench.store.reader() as conn:
        assert bench.store.charts.by_key(conn, "MRN:P1") == []
        assert bench.store.charts.by_key(conn, "MRN:P2")
        assert {queued.entry_id for queued in bench.store.outbox.due(conn, "files", NOW, 100)} == {2}
    with pytest.raises(StoreUnavailableError):
        bench.look()
    assert bench.balanced()


def test_a_shadow_that_was_deleted_begins_anew(bench: ShadowBench) -> None:
    bench.west(adt("A01", "P1", 1))
    finish(bench.processor())
    drop_shadow(bench.site.location)
    assert not drop_shadow(bench.site.location)
    upgrade(bench.site.location.in_shadow())
    bench.west(adt("A01", "P2", 2))
    finish(bench.processor())
    assert len(bench.in_shadow()["outcome"]) == 1
    assert bench.balanced()


@pytest.mark.parametrize("recorded", ["live", "shadow"])
def test_a_replay_under_a_recorded_configuration_is_on_the_side_where_the_channel_is_today(
    bench: ShadowBench, recorded: str
) -> None:
    bench.mode(recorded)
    then = replace(bench.compiled, version="then")
    bench.mode("shadow" if recorded == "live" else "live")
    bench.west(adt("A01", "P1", 1))
    finish(bench.processor())
    processor = bench.processor()
    processor._recompile = lambda _: then
    before = bench.tables()
    payload = adt("A03", "P1", 2, at="20260302110000")
    header = read_header(payload)
    again = Receipt(
        channel=WEST, peer="", received_at=NOW, payload=payload, summary=summarize(header), dedupe_key=None,
        digest=b"2", ordering_key=ordering_key(payload, header), replay_of=1, config_as_of="then",
    )  # fmt: skip
    bench.store.journal_ledger.write_now(lambda conn: bench.store.journal.append(conn, [again]))
    finish(processor)
    assert bench.states()[2] is EntryState.PROCESSED
    changed = {name for name, rows in bench.tables().items() if rows != before[name]}
    assert (changed == BESIDE) == (recorded == "live")
    assert ("delivery" in changed) == (recorded == "shadow")


def test_without_a_channel_in_shadow_no_second_side_is_opened(bench: ShadowBench) -> None:
    bench.mode("live")
    bench.west(adt("A01", "P1", 1))
    finish(bench.processor())
    assert bench.opened == 0


def test_a_look_writes_nothing(bench: ShadowBench) -> None:
    with pytest.raises(Exception, match="does not write"):
        _ = bench.look().charts_ledger


def test_a_patient_is_observed_since_the_channel_is_on_these_charts(bench: ShadowBench) -> None:
    """What a score says of its history must not reach back to messages that its chart has not heard of."""

    def since(store: Store, patient: str) -> set[Any]:
        [chart] = store.read_now(lambda conn: store.charts.by_key(conn, f"MRN:{patient}"))
        return {score.observed_since for score in chart.scores}

    processor = bench.processor()
    bench.mode("live")
    processor.reload(bench.compiled)
    bench.west(*stay("P1", 1))
    finish(processor)
    later = NOW + timedelta(days=1)
    for mode, patient, number, received in (("shadow", "P2", 3, later), ("live", "P3", 5, later + timedelta(days=1))):
        bench.mode(mode)
        processor.reload(bench.compiled)
        bench.received_at = received
        bench.west(*stay(patient, number))
        finish(processor)
    assert since(bench.look(), "P2") == {later}
    assert since(bench.store, "P3") == {NOW}
    assert bench.store.read_now(bench.store.journal.first_received) == {WEST: NOW}


def test_a_feed_that_was_in_shadow_first_is_observed_since_it_is_live(bench: ShadowBench) -> None:
    processor = bench.processor()
    bench.west(*stay("P1", 1))
    finish(processor)
    assert bench.store.read_now(bench.store.journal.first_received) == {}
    bench.mode("live")
    processor.reload(bench.compiled)
    bench.received_at = NOW + timedelta(days=1)
    bench.west(*stay("P1", 3))
    finish(processor)
    assert bench.store.read_now(bench.store.journal.first_received) == {WEST: NOW + timedelta(days=1)}
