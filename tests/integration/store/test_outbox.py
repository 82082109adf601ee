from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from store_builders import CHANNEL, NOW, delivery, due, ids, queue

from engine.domain.delivery import (
    DELIVERY_MOVES,
    UNFINISHED,
    DeliveryEvent,
    DeliveryState,
    NotificationEnd,
    Operation,
    Stage,
)
from engine.errors import StoreError
from engine.store import schema
from engine.store.outbox import Settled, join_lines

LATER = NOW + timedelta(minutes=5)


def settle(store, key, state, destination="crm", attempts=1, now=NOW, **more):
    [delivery_id] = ids(store, [key], destination)
    result = Settled(id=delivery_id, state=state, attempts=attempts, **more)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], now))


def delivered(store, key, destination="crm"):
    settle(store, key, DeliveryState.DELIVERED, destination)


def retry(store, key, at=LATER):
    settle(store, key, DeliveryState.PENDING, next_attempt_at=at, error="timeout")


def put_back(store, number, ordering_key="a", now=LATER):
    store.charts_ledger.write_now(lambda conn: store.outbox.put_back(conn, number, now, ordering_key=ordering_key))


def start(store, number):
    return store.charts_ledger.write_now(lambda conn: store.outbox.start(conn, number, NOW))


def join(store, merged):
    store.charts_ledger.write_now(lambda conn: join_lines(conn, merged))


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
    assert store.read_now(lambda conn: store.outbox.last_due_at(conn, "crm")) == LATER


def test_nothing_is_due_by_waiting_where_all_is_held_or_done(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"), delivery("b0", ordering_key="b"))
    settle(store, "a0", DeliveryState.HELD, error="ambiguous")
    delivered(store, "b0")
    assert due(store, now=LATER) == []
    assert store.read_now(lambda conn: store.outbox.last_due_at(conn, "crm")) is None


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
    put_back(store, dead)
    assert due(store, now=LATER) == ["a0"]
    delivered(store, "a0")
    assert due(store, now=LATER) == ["a2"]
    with pytest.raises(StoreError, match="not a dead or withheld one"):
        put_back(store, dead)


def test_what_is_settled_twice_keeps_its_first_end(store):
    queue(store, delivery("a0"))
    delivered(store, "a0")
    settle(store, "a0", DeliveryState.DEAD, error="late")
    settle(store, "a0", DeliveryState.PENDING, next_attempt_at=NOW)
    assert due(store) == []
    assert store.read_now(store.dead_letters.find) == []


def happens(store, event, number, to):
    """Have it happen to a delivery; whether it did."""
    before = store.read_now(lambda conn: store.outbox.get(conn, number))
    try:
        match event:
            case DeliveryEvent.STARTED:
                return start(store, number)
            case DeliveryEvent.SETTLED:
                settle(store, "k1", to, attempts=7, error="x", next_attempt_at=LATER)
            case DeliveryEvent.RELEASED:
                store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, number, LATER))
            case DeliveryEvent.PUT_BACK:
                put_back(store, number, "chart-1")
    except StoreError:
        return False
    return store.read_now(lambda conn: store.outbox.get(conn, number)) != before


@pytest.mark.parametrize("to", DeliveryState)
@pytest.mark.parametrize("event", DeliveryEvent)
@pytest.mark.parametrize("state", DeliveryState)
def test_a_delivery_moves_as_the_table_says_and_not_otherwise(store, state, event, to):
    if event is not DeliveryEvent.SETTLED and to is not DeliveryState.PENDING:
        pytest.skip("ends in pending, whoever asks")
    queue(store, delivery("k1"), delivery("k2"))
    if state is not DeliveryState.PENDING:
        settle(store, "k1", state, error="first")
    [number] = ids(store, ["k1"])
    moves = to in DELIVERY_MOVES.get((state, event), ())
    assert happens(store, event, number, to) == moves
    after = store.read_now(lambda conn: store.outbox.get(conn, number)).state
    assert after is (to if moves else state)
    # The line goes on behind what has left it, and waits behind what has not.
    waits = after in UNFINISHED
    [second] = ids(store, ["k2"])
    ready = store.read_now(lambda conn: [one.id for one in store.outbox.due(conn, "crm", LATER, 10)])
    assert (second in ready) == (not waits)


def test_the_line_is_of_the_states_that_the_table_calls_unfinished():
    names = ", ".join(f"'{state.value}'" for state in DeliveryState if state in UNFINISHED)
    [index] = [one for one in schema.delivery.indexes if one.name == "delivery_unfinished"]
    assert str(index.dialect_options["sqlite"]["where"]) == f"state IN ({names})"


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
        assert due(store, limit=150, ordered_batches=ordered) == [f"fine{number}" for number in range(50)]
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
    for number in numbers[:3]:
        assert start(store, number)
    delivered(store, "k0")
    retry(store, "k1")
    again = site.open("worker")
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "crm")) == [numbers[2]]
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "files")) == []


def test_an_attempt_that_is_under_way_keeps_its_turn_when_an_older_one_is_put_back_before_it(site):
    """Or nobody would know after a crash that it may have been made."""
    store = site.open("tool")
    queue(store, *(delivery(f"a{number}", ordering_key="a") for number in range(3)))
    settle(store, "a0", DeliveryState.DEAD, error="gone")
    dead, running, _ = ids(store, ["a0", "a1", "a2"])
    assert start(store, running)
    put_back(store, dead)
    again = site.open("worker")
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "crm")) == [running]
    retry(store, "a1")
    assert due(store, now=LATER) == ["a0"]
    delivered(store, "a0")
    assert due(store, now=LATER) == ["a1"]


def test_nothing_is_started_that_has_lost_its_turn_since_it_was_read(store):
    queue(store, *(delivery(f"a{number}", ordering_key="a") for number in range(2)))
    settle(store, "a0", DeliveryState.DEAD, error="gone")
    dead, read = ids(store, ["a0", "a1"])
    put_back(store, dead)
    assert not start(store, read)
    assert start(store, dead)


# --- lines that become one -------------------------------------------------------------------------------------------


def test_what_waits_for_a_merged_patient_comes_into_the_line_of_the_survivor_by_age(store):
    queue(store, *(delivery(f"{key}{number}", ordering_key=key) for number in range(2) for key in "mst"))
    queue(store, delivery("m0 files", "files", ordering_key="m"))
    join(store, {"m": "s"})
    queue(store, delivery("merge", ordering_key="s"))
    got = []
    while found := due(store):
        got += found
        for key in found:
            delivered(store, key)
    assert [key for key in got if key[0] != "t"] == ["m0", "s0", "m1", "s1", "merge"]
    assert [key for key in got if key[0] == "t"] == ["t0", "t1"]
    assert due(store, "files") == ["m0 files"]


def test_what_is_held_for_a_merged_patient_holds_back_the_survivor(store):
    queue(store, delivery("m0", ordering_key="m"), delivery("s0", ordering_key="s"))
    settle(store, "m0", DeliveryState.HELD, error="ambiguous")
    join(store, {"m": "s"})
    assert due(store, now=LATER) == []
    [held] = store.read_now(store.outbox.held)
    store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, held.id, NOW))
    assert due(store) == ["m0"]


@pytest.mark.parametrize("end", [DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.DEAD])
def test_attempts_under_way_when_lines_join_end_as_they_do_and_the_rest_waits_for_both(store, end):
    queue(store, delivery("s0", ordering_key="s"), delivery("m0", ordering_key="m"), delivery("m1", ordering_key="m"))
    assert all(start(store, number) for number in ids(store, ["s0", "m0"]))
    join(store, {"m": "s"})
    queue(store, delivery("merge", ordering_key="s"))
    settle(store, "m0", end, next_attempt_at=NOW)
    assert due(store) == ["s0"]
    delivered(store, "s0")
    rest = (["m0"] if end is DeliveryState.PENDING else []) + ["m1", "merge"]
    for key in rest:
        assert due(store) == [key]
        delivered(store, key)


def test_attempts_under_way_when_lines_join_are_known_after_a_crash(site):
    store = site.open("tool")
    queue(store, delivery("s0", ordering_key="s"), delivery("m0", ordering_key="m"))
    numbers = ids(store, ["s0", "m0"])
    assert all(start(store, number) for number in numbers)
    join(store, {"m": "s"})
    again = site.open("worker")
    assert again.read_now(lambda conn: again.outbox.interrupted(conn, "crm")) == numbers


def test_lines_may_join_again_and_several_at_once(store):
    queue(store, *(delivery(f"{key}0", ordering_key=key) for key in "cba"))
    join(store, {"a": "b"})
    join(store, {"b": "d", "c": "d"})
    for key in ("c0", "b0", "a0"):
        assert due(store) == [key]
        delivered(store, key)


# --- how much at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_a_batch_is_limited_by_the_bytes_of_its_payloads(store, ordered):
    big = b'{"x": "%b"}' % (b"x" * 1000)
    queue(store, *(delivery(f"k{number}", ordering_key=f"p{number}", payload=big) for number in range(10)))
    assert due(store, bytes_max=3500, ordered_batches=ordered) == ["k0", "k1", "k2"]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_payload_that_is_larger_than_a_batch_goes_alone(store, ordered):
    big = b'{"x": "%b"}' % (b"x" * 10_000)
    queue(store, delivery("big", ordering_key="a", payload=big), delivery("small", ordering_key="b"))
    assert due(store, bytes_max=100, ordered_batches=ordered) == ["big"]
    delivered(store, "big")
    assert due(store, bytes_max=100, ordered_batches=ordered) == ["small"]


# --- what can't be read ----------------------------------------------------------------------------------------------


def test_a_damaged_payload_is_named_and_hides_no_other(store):
    queue(store, *(delivery(f"k{number}", ordering_key=f"p{number}") for number in range(3)))
    payload = schema.delivery_payload

    def damage(conn):
        body = conn.execute(select(payload.c.body).where(payload.c.delivery_id == 1)).scalar_one()
        conn.execute(payload.update().where(payload.c.delivery_id == 2).values(body=body))

    store.charts_ledger.write_now(damage)
    found = store.read_now(lambda conn: store.outbox.due(conn, "crm", NOW, 10))
    assert [(item.delivery.idempotency_key, item.unreadable) for item in found] == [
        ("k0", None), ("k1", "payload-damaged"), ("k2", None),
    ]  # fmt: skip


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_what_a_wrong_clock_has_put_off_can_be_made_due(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("b0", ordering_key="b"), now=NOW + timedelta(days=400))
    retry(store, "b0", LATER)
    assert store.read_now(lambda conn: store.outbox.last_due_at(conn, "crm")) == NOW + timedelta(days=400)
    store.charts_ledger.write_now(lambda conn: store.outbox.recall(conn, "crm", LATER, NOW))
    assert due(store) == ["a0"]
    assert due(store, now=LATER) == ["a0", "b0"]


# --- the turn, whatever happens --------------------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["queue", "delivered", "retry", "held", "dead", "withheld", "release", "put back", "start", "join"]
            ),
            st.integers(0, 9),
        ),
        max_size=40,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_the_oldest_open_delivery_of_each_patient_has_its_turn_and_no_other_that_is_not_under_way(sqlite_site, steps):
    with sqlite_site.open("tool") as store:
        for table in (schema.delivery, schema.delivery_payload):
            store.charts_ledger.write_now(lambda conn, table=table: conn.execute(table.delete()))
        made = 0
        for step, pick in steps:
            if step == "queue":
                made += 1
                queue(store, delivery(f"k{made}", ordering_key=f"p{pick % 3}"))
                continue
            if step == "join":
                join(store, {f"p{pick % 3}": f"p{(pick + 1) % 3}"})
                continue
            with store.reader() as conn:
                rows = conn.execute(text("SELECT id, state FROM charts.delivery ORDER BY id")).all()
            if not rows:
                continue
            number = rows[pick % len(rows)].id
            act(store, step, number)
            assert turns(store) - under_way(store) <= oldest_open(store) <= turns(store)


def act(store, step, number):
    states = {
        "delivered": DeliveryState.DELIVERED,
        "retry": DeliveryState.PENDING,
        "held": DeliveryState.HELD,
        "dead": DeliveryState.DEAD,
        "withheld": DeliveryState.WITHHELD,
    }
    outbox, ledger = store.outbox, store.charts_ledger
    try:
        if step in states:
            result = Settled(id=number, state=states[step], attempts=1)
            ledger.write_now(lambda conn: outbox.settle(conn, [result], NOW))
        elif step == "release":
            ledger.write_now(lambda conn: outbox.release(conn, number, NOW))
        elif step == "start":
            ledger.write_now(lambda conn: outbox.start(conn, number, NOW))
        else:
            with store.reader() as conn:
                line = outbox.get(conn, number).delivery.ordering_key
            ledger.write_now(lambda conn: outbox.put_back(conn, number, NOW, ordering_key=line))
    except StoreError:  # not held, not dead: nothing happens then
        return


def turns(store):
    with store.reader() as conn:
        return {row.id for row in conn.execute(text("SELECT id FROM charts.delivery WHERE turn = 1"))}


def under_way(store):
    with store.reader() as conn:
        return {row.id for row in conn.execute(text("SELECT id FROM charts.delivery WHERE started_at IS NOT NULL"))}


def oldest_open(store):
    statement = (
        "SELECT min(id) AS oldest FROM charts.delivery WHERE state IN ('pending', 'held')"
        " GROUP BY destination, ordering_key"
    )
    with store.reader() as conn:
        return {row.oldest for row in conn.execute(text(statement))}


@pytest.mark.parametrize("ordered_batches", [False, True])
def test_a_call_of_a_person_waits_behind_no_backlog(store, ordered_batches):
    for number in range(40):
        queue(store, *(delivery(f"a{number}-{step}", ordering_key=f"a{number}") for step in range(8)))
    said = NotificationEnd(page_id="page-1", state="resolved", by=None, at=NOW).encoded()
    call = delivery("call", ordering_key="page-1", payload=said)
    call = msgspec.structs.replace(call, operation=Operation.NOTIFY_END)
    queue(store, call, now=NOW + timedelta(minutes=9))
    found = due(store, limit=40, now=NOW + timedelta(minutes=9), ordered_batches=ordered_batches)
    assert "call" in found
    assert len(found) <= 40
    lines: dict[str, list[str]] = {}
    for key in found:
        lines.setdefault(key.partition("-")[0], []).append(key)
    assert all(keys == sorted(keys) and keys[0].endswith(("-0", "call")) for keys in lines.values())
