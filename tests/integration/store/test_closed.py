"""Charts with many stays: what is over is loaded when it is asked for, and is as safe as the rest."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest
from sqlalchemy import insert, select
from store_builders import NOW, changed, chart, charts_of, close_all, encounter, outcome, record, score, task, with_past

from engine.domain.chart import Chart, Charts
from engine.domain.encounter import EncounterStatus
from engine.domain.moment import Moment
from engine.domain.parts import PARTS
from engine.domain.task import TaskState
from engine.errors import TamperedError
from engine.pipeline import due
from engine.pipeline.closing import reopened
from engine.store import Store, schema

PAST = ("MRN:W1", "MRN:W2", "MRN:W3")


def closed_chart(store: Store) -> Chart:
    """The whole chart, of which the store has closed three of four stays."""
    first = chart()
    record(store, outcome(1, first))
    whole = with_past(first, *PAST)
    record(store, outcome(2, whole), before=charts_of(first), close=close_all)
    return whole


def loaded(store: Store, *visits: str, bounded: bool = True, ids: tuple[str, ...] = ()) -> Charts:
    identity = ("MRN", "MR", "P1")
    return store.read_now(lambda conn: store.charts.load(conn, [identity], visits, ids, bounded=bounded))


def without_order(chart: Chart) -> Chart:
    """Scores and tasks have no order of their own: those that are closed come first."""
    return msgspec.structs.replace(
        chart,
        scores=tuple(sorted(chart.scores, key=lambda one: one.encounter or "")),
        tasks=tuple(sorted(chart.tasks, key=lambda one: one.id)),
    )


def write(store: Store, *statements: object) -> None:
    store.charts_ledger.write_now(lambda conn: [conn.execute(statement) for statement in statements])


def test_what_is_over_stays_away_until_it_is_asked_for(store: Store) -> None:
    whole = closed_chart(store)
    known = loaded(store, "MRN:V1").by_id["chart-1"]
    assert [stay.key for stay in known.encounters] == ["MRN:V1"]
    assert [one.encounter for one in (*known.scores, *known.tasks)] == ["MRN:V1", "MRN:V1"]
    assert known.closed is not None
    assert known.closed.keys == PAST
    assert loaded(store, bounded=False).by_id["chart-1"] == whole
    assert store.read_now(lambda conn: store.charts.by_key(conn, "MRN:P1")) == [whole]
    assert reopened(known, whole) == whole


@pytest.mark.parametrize("how", ["visit", "id"])
def test_a_closed_stay_that_is_named_and_a_chart_that_is_named_by_id_come_whole(store: Store, how: str) -> None:
    whole = closed_chart(store)
    found = loaded(store, "MRN:W2") if how == "visit" else loaded(store, ids=("chart-1",))
    assert found.by_id["chart-1"] == whole


def test_a_search_by_visit_finds_closed_ones_too(store: Store) -> None:
    closed_chart(store)
    [(_, document)] = store.read_now(lambda conn: store.charts.documents(conn, ["chart-1"]))
    assert document is not None
    assert document.keys_of("encounters") == (*PAST, "MRN:V1")


def test_a_change_of_what_is_open_leaves_what_is_closed(store: Store) -> None:
    whole = closed_chart(store)
    before = loaded(store)
    summary = store.read_now(lambda conn: conn.execute(select(schema.closed)).all())
    stay = msgspec.structs.replace(before.by_id["chart-1"].encounters[0], account="A1")
    record(store, outcome(3, changed(before.by_id["chart-1"], encounters=(stay,))), before=before, close=close_all)
    assert store.read_now(lambda conn: conn.execute(select(schema.closed)).all()) == summary, "it is not written again"
    expected = changed(whole, encounters=(*whole.encounters[:-1], stay))
    assert loaded(store, bounded=False).by_id["chart-1"] == expected


def test_a_closed_stay_that_goes_on_is_loaded_again_until_it_ends(store: Store) -> None:
    whole = closed_chart(store)
    first = msgspec.structs.replace(whole.encounters[0], status=EncounterStatus.ACTIVE)
    goes_on = changed(whole, encounters=(first, *whole.encounters[1:]))
    record(store, outcome(3, goes_on), before=loaded(store, "MRN:W1"), close=close_all)
    known = loaded(store).by_id["chart-1"]
    assert {stay.key for stay in known.encounters} == {"MRN:W1", "MRN:V1"}
    assert known.closed is not None
    assert known.closed.keys == PAST[1:]
    assert without_order(loaded(store, bounded=False).by_id["chart-1"]) == without_order(goes_on)
    over = changed(goes_on, encounters=(whole.encounters[0], *whole.encounters[1:]))
    record(store, outcome(4, over), before=loaded(store, "MRN:W1", "MRN:W2"), close=close_all)
    assert without_order(loaded(store, bounded=False).by_id["chart-1"]) == without_order(over)


def test_more_and_more_stays_are_closed_and_none_is_lost(store: Store) -> None:
    closed_chart(store)
    for number in range(4, 8):
        before = loaded(store)
        known = before.by_id["chart-1"]
        stay = encounter(f"MRN:W{number}", admitted_at=Moment.of(f"2025-01-{number:02d}T08:00:00+00:00"))
        over = msgspec.structs.replace(stay, status=EncounterStatus.FINISHED)
        more = changed(
            known,
            encounters=(over, *known.encounters),
            scores=(*known.scores, score(stay.key)),
            tasks=(*known.tasks, task(f"t{number}", stay.key, state=TaskState.CANCELLED)),
        )
        record(store, outcome(number, more), before=before, close=close_all)
    known, whole = (loaded(store, bounded=bounded).by_id["chart-1"] for bounded in (True, False))
    assert known.closed is not None
    assert known.closed.keys == tuple(f"MRN:W{number}" for number in range(1, 8))
    assert [len(part.of(whole)) for part in PARTS[:3]] == [8, 8, 8]
    assert [len(part.of(known)) for part in PARTS[:3]] == [1, 1, 1]


@pytest.mark.parametrize("name", ["encounter", "score", "task"])
def test_a_closed_row_that_was_taken_away_is_noticed_when_it_is_loaded(store: Store, name: str) -> None:
    closed_chart(store)
    table = schema.metadata.tables[f"charts.{name}"]
    rows = store.read_now(lambda conn: [dict(row._mapping) for row in conn.execute(select(table))])
    assert loaded(store).by_id["chart-1"].closed is not None
    noticed = 0
    for row in rows:
        key = [column == row[column.name] for column in table.primary_key]
        write(store, table.delete().where(*key))
        try:
            loaded(store)
        except TamperedError:
            pass  # the row of what is open
        else:
            noticed += 1
        with pytest.raises(TamperedError):
            loaded(store, bounded=False)
        write(store, insert(table).values(row))
    assert noticed == len(PAST)


def test_a_summary_that_was_taken_away_or_is_an_older_one_is_noticed(store: Store) -> None:
    whole = closed_chart(store)
    older = store.read_now(lambda conn: dict(conn.execute(select(schema.closed)).one()._mapping))
    first = msgspec.structs.replace(whole.encounters[0], account="A1")
    again = changed(whole, encounters=(first, *whole.encounters[1:]))
    record(store, outcome(3, again), before=loaded(store, bounded=False), close=close_all)
    assert loaded(store).by_id["chart-1"].closed is not None
    for statements in ([schema.closed.update().values(document=older["document"])], [schema.closed.delete()]):
        write(store, *statements)
        for bounded in (True, False):
            with pytest.raises(TamperedError, match="closed"):
                loaded(store, bounded=bounded)


def test_a_chart_that_is_named_by_what_is_due_comes_without_what_is_over(store: Store) -> None:
    closed_chart(store)
    known = store.read_now(lambda conn: store.charts.load(conn, (), (), bounded=True, bounded_ids=("chart-1",)))
    assert [stay.key for stay in known.by_id["chart-1"].encounters] == ["MRN:V1"]


def test_what_still_rings_is_not_closed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def next_at(chart: Chart) -> list[datetime]:
        return [NOW for one in chart.scores if one.encounter == "MRN:W2"]

    monkeypatch.setattr(due, "SOURCES", (due.Source(next_at, lambda chart, _deciding: chart),))
    whole = closed_chart(store)
    assert loaded(store, "MRN:V1").by_id["chart-1"] == whole
