"""What is due next of a chart stands beside it, and is found by the partition of what will ring it."""

from __future__ import annotations

from datetime import datetime, timedelta

import deadlines
import pytest
from msgspec import structs
from sqlalchemy import select
from store_builders import NOW, append, changed, chart, load, merged, outcome, receipt, record, task

from engine.domain.cause import CLOCK, Due
from engine.domain.chart import Chart
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import EntryKind, EntryState
from engine.domain.partition import ALL_PARTITIONS
from engine.domain.task import TaskState
from engine.errors import Fault
from engine.pipeline import due as rules
from engine.store import Store, schema
from engine.store.causes import receipt_of
from engine.store.due import DueChart, decided, due, overdue

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SOURCES", (deadlines.SOURCE,))


def waiting(number: int, at: datetime, *, urgent: bool = False, version: int = 1) -> Chart:
    kind = deadlines.URGENT_KIND if urgent else "pcp_follow_up"
    tasks = (task(f"task-{number}", f"MRN:V{number}", escalate_at=at, kind=kind),)
    return chart(f"chart-{number}", number, version, tasks=tasks)


def found(store: Store, now: datetime = NOW, limit: int = 100, *, urgent: bool = False) -> list[DueChart]:
    return store.read_now(lambda conn: due(conn, ALL_PARTITIONS, now, limit, urgent=urgent))


def test_charts_are_found_when_their_deadline_has_come_oldest_first_and_urgent_ones_apart(store: Store) -> None:
    late, later, ahead = waiting(1, NOW - HOUR), waiting(2, NOW - 2 * HOUR), waiting(3, NOW + HOUR)
    urgent = waiting(4, NOW - HOUR, urgent=True)
    none = chart("chart-5", 5, tasks=(task("task-5", "MRN:V5", state=TaskState.DONE),))
    record(store, outcome(1, late), outcome(2, later), outcome(3, ahead), outcome(4, urgent), outcome(5, none))
    assert [one.id for one in found(store)] == ["chart-2", "chart-1"]
    assert [one.id for one in found(store, limit=1)] == ["chart-2"]
    assert [(one.id, one.at, one.urgent) for one in found(store, urgent=True)] == [("chart-4", NOW - HOUR, True)]
    assert [one.id for one in found(store, NOW + HOUR)] == ["chart-2", "chart-1", "chart-3"]
    assert store.read_now(lambda conn: due(conn, (), NOW, 100, urgent=False)) == []


def test_the_deadline_moves_and_goes_with_the_chart(store: Store) -> None:
    first = waiting(1, NOW - HOUR)
    record(store, outcome(1, first))
    moved = changed(first, tasks=(structs.replace(first.tasks[0], escalate_at=NOW + HOUR),))
    record(store, outcome(2, moved), before=load(store, first))
    assert found(store) == []
    assert [(one.version, one.at) for one in found(store, NOW + HOUR)] == [(2, NOW + HOUR)]
    ended = changed(moved, tasks=(structs.replace(moved.tasks[0], state=TaskState.DONE),))
    record(store, outcome(3, ended), before=load(store, first))
    assert found(store, NOW + 100 * HOUR) == []
    assert store.read_now(
        lambda conn: conn.execute(
            select(schema.chart.c.due_at, schema.chart.c.due_rank, schema.chart.c.partition)
        ).one()
    ) == (None, None, None)


def test_a_chart_that_was_merged_away_waits_for_nothing_and_the_survivor_for_all(store: Store) -> None:
    one, two = waiting(1, NOW + HOUR), waiting(2, NOW - HOUR)
    record(store, outcome(1, one), outcome(2, two))
    survivor, other = merged(one, two)
    record(store, outcome(3, survivor, other), before=load(store, one, two))
    assert [(found_one.id, found_one.at) for found_one in found(store)] == [("chart-1", NOW - HOUR)]


def test_a_chart_is_found_by_the_partition_in_which_the_journal_has_what_rings_it(store: Store) -> None:
    charts = [waiting(number, NOW - HOUR) for number in range(1, 41)]
    record(store, *(outcome(number, one) for number, one in enumerate(charts, 1)))
    causes = [
        receipt_of(store.keys, Due(actor=CLOCK, chart_id=one.id, at=NOW, version=1, since=NOW), NOW) for one in charts
    ]
    append(store, *causes)
    places = dict(store.read_now(lambda conn: store.journal.after(conn, EntryKind.DUE.lane, 0, 100)))
    assert len(set(places.values())) > 10
    for entry, one in zip(sorted(places), charts, strict=True):
        mine = frozenset({places[entry]})
        assert one.id in {found_one.id for found_one in store.read_now(lambda c: due(c, mine, NOW, 99, urgent=False))}
        others = ALL_PARTITIONS - mine
        rest = store.read_now(lambda c: due(c, others, NOW, 99, urgent=False))
        assert one.id not in {found_one.id for found_one in rest}


def test_a_deadline_that_was_over_when_it_came_about_is_late_from_then_on(store: Store) -> None:
    record(store, outcome(1, waiting(1, NOW - 500 * HOUR)), now=NOW - HOUR)
    record(store, outcome(2, waiting(2, NOW - HOUR / 2)), now=NOW - HOUR)
    assert [one.since for one in found(store)] == [NOW - HOUR, NOW - HOUR / 2]
    assert store.read_now(lambda conn: overdue(conn, NOW)) == (2, NOW - HOUR)
    assert store.read_now(lambda conn: overdue(conn, NOW - 2 * HOUR)) == (1, NOW - HOUR)
    assert store.read_now(lambda conn: overdue(conn, NOW - 600 * HOUR)) == (0, None)


def test_a_chart_whose_ringing_died_is_counted_as_a_dead_letter_and_no_more_as_due(store: Store) -> None:
    one = waiting(1, NOW - HOUR)
    record(store, outcome(1, one))
    letter = DeadLetter.of(Stage.PROCESSING, Fault(error="chart-damaged", text="damaged"))
    died = outcome(2, chart_id="chart-1", state=EntryState.DEAD, dead_letter=letter)
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2"))
    record(store, died, channel=EntryKind.DUE.lane)
    assert store.read_now(lambda conn: overdue(conn, NOW)) == (0, None)
    assert len(found(store)) == 1, "a person who restores it need not tell the clock"


def test_what_was_decided_is_told_from_what_is_on_its_way(store: Store) -> None:
    record(store, outcome(1, waiting(1, NOW)), outcome(2))
    assert store.read_now(lambda conn: decided(conn, [1, 2, 3])) == {1, 2}
