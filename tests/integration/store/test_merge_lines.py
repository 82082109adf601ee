"""A merge in the record transaction: what waits for the old patient goes out before the merge is told, in order."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import select
from store_builders import NOW, changed, chart, delivery, due, ids, load, merged, outcome, queue, record

from engine.domain.chart import Charts
from engine.domain.delivery import DeliveryState
from engine.errors import StaleChartError, StoreError
from engine.store import schema
from engine.store.outbox import Settled


def of(one, key, **more):
    return delivery(key, ordering_key=one.id, **more)


def deliver_all(store):
    """The order in which everything goes out when each round sends what is due."""
    got = []
    while found := due(store, limit=1):
        got += found
        results = [Settled(id=number, state=DeliveryState.DELIVERED, attempts=1) for number in ids(store, found)]
        store.charts_ledger.write_now(lambda conn, results=results: store.outbox.settle(conn, results, NOW))
    return got


@pytest.fixture
def pair(store):
    """Two patients with something on its way for both."""
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    record(store, outcome(1, one, deliveries=(of(one, "one 1"),)), outcome(2, two, deliveries=(of(two, "two 1"),)))
    queue(store, of(one, "one 2"), of(two, "two 2"))
    return one, two


def test_what_waits_for_the_merged_patient_goes_out_before_the_merge(store, pair):
    one, two = pair
    survivor, gone = merged(two, one)
    record(store, outcome(3, survivor, gone, deliveries=(of(survivor, "merge"),)), before=load(store, one, two))
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "merge"]


def test_what_is_held_for_the_merged_patient_holds_back_the_merge(store, pair):
    one, two = pair
    [held] = ids(store, ["one 1"])
    doubt = Settled(id=held, state=DeliveryState.HELD, attempts=1)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [doubt], NOW))
    survivor, gone = merged(two, one)
    record(store, outcome(3, survivor, gone, deliveries=(of(survivor, "merge"),)), before=load(store, one, two))
    assert deliver_all(store) == []
    store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, held, NOW))
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "merge"]


def test_a_message_of_the_patient_in_the_batch_that_merges_it_keeps_its_place_before_the_merge(store, pair):
    one, two = pair
    newer = changed(one, stamps={"name": (9.0, 1)})
    survivor, gone = merged(two, newer)
    record(
        store,
        outcome(3, newer, deliveries=(of(newer, "one 3"),)),
        outcome(4, survivor, gone, deliveries=(of(survivor, "merge"),)),
        before=load(store, one, two),
    )
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "one 3", "merge"]


def test_a_patient_that_is_made_and_merged_in_one_batch_leaves_no_line_of_its_own(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    survivor, gone = merged(two, one)
    record(
        store,
        outcome(1, one, deliveries=(of(one, "one"),)),
        outcome(2, two, deliveries=(of(two, "two"),)),
        outcome(3, survivor, gone, deliveries=(of(survivor, "merge"),)),
    )
    assert due(store) == ["one"]
    assert deliver_all(store) == ["one", "two", "merge"]


def test_a_merge_that_is_told_to_nobody_joins_the_lines_all_the_same(store, pair):
    """In shadow mode, say. The survivor may be delivered again tomorrow."""
    one, two = pair
    survivor, gone = merged(two, one)
    record(store, outcome(3, survivor, gone), before=load(store, one, two))
    queue(store, of(survivor, "later"))
    assert deliver_all(store)[-1] == "later"


def test_a_survivor_that_is_merged_again_takes_everything_along(store, pair):
    one, two = pair
    three = chart("chart-3", 3)
    record(store, outcome(3, three, deliveries=(of(three, "three"),)))
    second, gone = merged(two, one)
    record(store, outcome(4, second, gone, deliveries=(of(second, "merge 1"),)), before=load(store, one, two))
    third, away = merged(three, second)
    record(store, outcome(5, third, away, deliveries=(of(third, "merge 2"),)), before=load(store, second, three))
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "three", "merge 1", "merge 2"]


def test_a_chain_of_merges_in_one_batch_ends_in_one_line(store, pair):
    one, two = pair
    three = chart("chart-3", 3)
    record(store, outcome(3, three))
    second, gone = merged(two, one)
    third, away = merged(three, second)
    record(
        store,
        outcome(4, second, gone, deliveries=(of(second, "merge 1"),)),
        outcome(5, third, away, deliveries=(of(third, "merge 2"),)),
        before=load(store, one, two, three),
    )
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "merge 1", "merge 2"]


def test_a_message_forwarded_by_who_has_not_heard_of_the_merge_comes_into_the_line_of_the_survivor(store, pair):
    """It changed nothing of its chart, so no version tells that the chart is another's now."""
    one, two = pair
    survivor, gone = merged(two, one)
    record(store, outcome(3, survivor, gone, deliveries=(of(survivor, "merge"),)), before=load(store, one, two))
    record(store, outcome(4, deliveries=(of(one, "forwarded"),)))
    assert deliver_all(store) == ["one 1", "two 1", "one 2", "two 2", "merge", "forwarded"]
    lines = store.read_now(
        lambda conn: conn.execute(select(schema.delivery.c.ordering_key).order_by(schema.delivery.c.id.desc())).first()
    )
    assert lines.ordering_key == "chart-2"


def test_a_merge_that_came_too_late_joins_nothing(store, pair):
    one, two = pair
    known = load(store, one, two)
    record(store, outcome(3, changed(one, stamps={"name": (9.0, 1)})), before=load(store, one))
    survivor, gone = merged(two, one)
    with pytest.raises(StaleChartError):
        record(store, outcome(4, survivor, gone, deliveries=(of(survivor, "merge"),)), before=known)
    assert sorted(due(store)) == ["one 1", "two 1"]


@pytest.mark.parametrize("survivor", [None, "chart-3"])
def test_a_merged_chart_never_comes_back_to_life(store, pair, survivor):
    """What is on its way for the two stands in one line, and could no longer be told apart."""
    one, two = pair
    living, gone = merged(two, one)
    record(store, outcome(3, living, gone), before=load(store, one, two))
    known = Charts()
    known.add(gone)
    with pytest.raises(StoreError, match="never comes back"):
        record(
            store,
            outcome(4, msgspec.structs.replace(gone, version=gone.version + 1, merged_into=survivor)),
            before=known,
        )
