from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from store_builders import CHANNEL, NOW, delivery, due, ids, queue

from engine.domain.delivery import DeliveryState, Stage
from engine.errors import StoreError
from engine.store import schema
from engine.store.outbox import Settled

LATER = NOW + timedelta(minutes=5)


def settle(store, key, state, destination="crm", attempts=1, now=NOW, **more):
    [delivery_id] = ids(store, [key], destination)
    result = Settled(id=delivery_id, state=state, attempts=attempts, **more)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], now))


def delivered(store, key, destination="crm"):
    settle(store, key, DeliveryState.DELIVERED, destination)


def retry(store, key, at=LATER):
    settle(store, key, DeliveryState.PENDING, next_attempt_at=at, error="timeout")


def test_a_queued_delivery_comes_back_as_it_was_asked_for(store):
    wanted = delivery("k1", payload=b'{"patient": 1}')
    queue(store, wanted)
    [found] = store.read_now(lambda conn: store.outbox.due(conn, "crm", NOW, 10))
    assert found.delivery == wanted
    assert (found.state, found.attempts, found.next_attempt_at, found.created_at) == (
        DeliveryState.PENDING, 0, NOW, NOW,
    )  # fmt: skip
    assert store.read_now(lambda conn: store.outbox.get(conn, found.id)) == found


def test_only_the_oldest_open_delivery_of_a_patient_is_due(store):
    queue(store, *(delivery(f"a{number}", ordering_key="a") for number in range(3)), delivery("b0", ordering_key="b"))
    assert due(store) == ["a0", "b0"]
    delivered(store, "a0")
    assert due(store) == ["b0", "a1"] or due(store) == ["a1", "b0"]
    delivered(store, "a1")
    delivered(store, "b0")
    assert due(store) == ["a2"]
    delivered(store, "a2")
    assert due(store) == []


def test_destinations_do_not_wait_for_each_other(store):
    queue(store, delivery("c1", "crm"), delivery("f1", "files"), delivery("c2", "crm"), delivery("f2", "files"))
    retry(store, "c1")
    delivered(store, "f1", "files")
    assert due(store, "crm") == []
    assert due(store, "files") == ["f2"]
    assert due(store, "nowhere") == []


def test_a_failed_delivery_holds_back_its_patient_until_it_is_due_again(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"), delivery("b0", ordering_key="b"))
    retry(store, "a0")
    assert due(store) == ["b0"]
    assert due(store, now=LATER) == ["b0", "a0"]
    assert store.read_now(lambda conn: store.outbox.next_due_at(conn, "crm")) == NOW
    delivered(store, "b0")
    assert store.read_now(lambda conn: store.outbox.next_due_at(conn, "crm")) == LATER


def test_nothing_is_due_by_waiting_where_all_is_held_or_done(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"), delivery("b0", ordering_key="b"))
    settle(store, "a0", DeliveryState.HELD, error="ambiguous")
    delivered(store, "b0")
    assert due(store, now=LATER) == []
    assert store.read_now(lambda conn: store.outbox.next_due_at(conn, "crm")) is None


def test_a_held_delivery_holds_back_its_patient_until_a_person_releases_it(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"))
    settle(store, "a0", DeliveryState.HELD, error="ambiguous")
    [held] = store.read_now(store.outbox.held)
    assert (held.delivery.idempotency_key, held.attempts) == ("a0", 1)
    store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, held.id, LATER))
    assert due(store, now=NOW) == []
    assert due(store, now=LATER) == ["a0"]
    with pytest.raises(StoreError, match="not held"):
        store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, held.id, LATER))


def test_a_buried_delivery_leaves_a_dead_letter_and_lets_the_next_one_go(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"))
    settle(store, "a0", DeliveryState.DEAD, error="required-field", detail="the org wants LastName", attempts=3)
    assert due(store) == ["a1"]
    [letter] = store.read_now(store.dead_letters.find)
    assert (letter.stage, letter.error, letter.detail) == (
        Stage.DELIVERY, "required-field", "the org wants LastName",
    )  # fmt: skip
    assert (letter.delivery, letter.channel, letter.entry) == (ids(store, ["a0"])[0], CHANNEL, None)


def test_a_buried_delivery_that_is_put_back_goes_before_what_waits_behind_it(store):
    queue(store, *(delivery(f"a{number}", ordering_key="a") for number in range(3)))
    settle(store, "a0", DeliveryState.DEAD, error="gone")
    delivered(store, "a1")
    assert due(store) == ["a2"]
    [dead] = ids(store, ["a0"])
    store.charts_ledger.write_now(lambda conn: store.outbox.requeue(conn, dead, LATER))
    assert due(store, now=LATER) == ["a0"]
    delivered(store, "a0")
    assert due(store, now=LATER) == ["a2"]
    with pytest.raises(StoreError, match="not a dead one"):
        store.charts_ledger.write_now(lambda conn: store.outbox.requeue(conn, dead, LATER))


def test_what_is_settled_twice_keeps_its_first_end(store):
    queue(store, delivery("a0"))
    delivered(store, "a0")
    settle(store, "a0", DeliveryState.DEAD, error="late")
    settle(store, "a0", DeliveryState.PENDING, next_attempt_at=NOW)
    assert due(store) == []
    assert store.read_now(store.dead_letters.find) == []


def test_a_batch_of_results_is_settled_together(store):
    keys = [f"k{number}" for number in range(8)]
    queue(
        store,
        *(delivery(key, ordering_key=key) for key in keys),
        *(delivery(f"{key}+", ordering_key=key) for key in keys),
    )
    numbers = ids(store, keys)
    states = [DeliveryState.DELIVERED] * 5 + [DeliveryState.PENDING, DeliveryState.HELD, DeliveryState.DEAD]
    results = [
        Settled(id=number, state=state, attempts=1 + number % 2, next_attempt_at=LATER)
        for number, state in zip(numbers, states, strict=True)
    ]
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, results, NOW))
    assert due(store) == [*(f"{key}+" for key in keys[:5]), "k7+"]
    assert due(store, now=LATER)[-1] == "k5"
    unfinished = store.read_now(store.outbox.unfinished)
    assert unfinished == {"crm": {DeliveryState.PENDING: 9, DeliveryState.HELD: 1}}


def test_waiting_deliveries_of_one_failing_patient_do_not_fill_the_window(store):
    queue(store, *(delivery(f"poison{number}", ordering_key="poison") for number in range(5000)))
    queue(store, *(delivery(f"fine{number}", ordering_key=f"p{number}") for number in range(50)))
    retry(store, "poison0")
    for ordered in (False, True):
        assert due(store, limit=100, ordered_batches=ordered) == [f"fine{number}" for number in range(50)]
    assert "poison0" in due(store, limit=100, now=LATER)


def test_the_window_is_limited_and_oldest_first(store):
    queue(store, *(delivery(f"k{number}", ordering_key=f"p{number}") for number in range(20)))
    assert due(store, limit=5) == [f"k{number}" for number in range(5)]


# --- connectors that keep the order within a batch -------------------------------------------------------------------


def test_an_ordered_batch_holds_all_that_is_due_of_a_patient_in_order(store):
    queue(store, *(delivery(f"{key}{number}", ordering_key=key) for number in range(3) for key in "ab"))
    assert due(store, ordered_batches=True) == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert due(store, limit=4, ordered_batches=True) == ["a0", "b0", "a1", "b1"]


def test_an_ordered_batch_stops_at_what_is_held_or_not_due(store):
    queue(store, *(delivery(f"{key}{number}", ordering_key=key) for key in "abc" for number in range(3)))
    settle(store, "a1", DeliveryState.HELD)
    retry(store, "b1")
    assert due(store, ordered_batches=True) == ["a0", "b0", "c0", "c1", "c2"]
    assert due(store, now=LATER, ordered_batches=True) == ["a0", "b0", "b1", "b2", "c0", "c1", "c2"]


def test_a_follower_that_failed_alone_keeps_its_place(store):
    queue(store, *(delivery(f"a{number}", ordering_key="a") for number in range(3)))
    retry(store, "a1")
    delivered(store, "a0")
    assert due(store, ordered_batches=True) == []
    assert due(store, now=LATER, ordered_batches=True) == ["a1", "a2"]


# --- attempts that were cut off --------------------------------------------------------------------------------------


def test_attempts_that_were_under_way_at_a_crash_are_known(site):
    store = site.open("tool")
    queue(store, *(delivery(f"k{number}", ordering_key=f"p{number}") for number in range(4)))
    numbers = ids(store, [f"k{number}" for number in range(4)])
    store.charts_ledger.write_now(lambda conn: store.outbox.start(conn, numbers[:3], NOW))
    delivered(store, "k0")
    retry(store, "k1")
    again = site.open("worker")
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "crm")) == [numbers[2]]
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "files")) == []


# --- the turn, whatever happens --------------------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["queue", "delivered", "retry", "held", "dead", "release", "requeue"]), st.integers(0, 9)
        ),
        max_size=40,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_the_oldest_open_delivery_of_each_patient_has_its_turn(sqlite_site, steps):
    with sqlite_site.open("tool") as store:
        for table in (schema.delivery, schema.delivery_payload):
            store.charts_ledger.write_now(lambda conn, table=table: conn.execute(table.delete()))
        made = 0
        for step, pick in steps:
            if step == "queue":
                made += 1
                queue(store, delivery(f"k{made}", ordering_key=f"p{pick % 3}"))
                continue
            with store.reader() as conn:
                rows = conn.execute(text("SELECT id, state FROM charts.delivery ORDER BY id")).all()
            if not rows:
                continue
            number = rows[pick % len(rows)].id
            act(store, step, number)
            assert turns(store) == oldest_open(store)


def act(store, step, number):
    states = {
        "delivered": DeliveryState.DELIVERED,
        "retry": DeliveryState.PENDING,
        "held": DeliveryState.HELD,
        "dead": DeliveryState.DEAD,
    }
    outbox, ledger = store.outbox, store.charts_ledger
    try:
        if step in states:
            result = Settled(id=number, state=states[step], attempts=1)
            ledger.write_now(lambda conn: outbox.settle(conn, [result], NOW))
        elif step == "release":
            ledger.write_now(lambda conn: outbox.release(conn, number, NOW))
        else:
            ledger.write_now(lambda conn: outbox.requeue(conn, number, NOW))
    except StoreError:  # not held, not dead: nothing happens then
        return


def turns(store):
    with store.reader() as conn:
        return {row.id for row in conn.execute(text("SELECT id FROM charts.delivery WHERE turn = 1"))}


def oldest_open(store):
    statement = (
        "SELECT min(id) AS oldest FROM charts.delivery WHERE state IN ('pending', 'held')"
        " GROUP BY destination, ordering_key"
    )
    with store.reader() as conn:
        return {row.oldest for row in conn.execute(text(statement))}
