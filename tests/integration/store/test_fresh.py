"""Deliveries that are handed to the courier of the same process from memory."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_builders import CHANNEL, NOW, delivery

from engine.domain.delivery import DeliveryState
from engine.errors import StoreError
from engine.store import fresh, schema
from engine.store.outbox import Outbox, Renewed, Settled, join_lines

LATER = NOW + timedelta(minutes=5)


def queue(store, *wanted):
    """As the processor does it."""
    recorded = store.charts_ledger.write_now(lambda conn: store.recorder.queue(conn, wanted, now=NOW, channel=CHANNEL))
    store.outbox.fresh.keep(recorded.fresh)


def due(store, outbox=None, now=LATER, destination="crm"):
    return store.read_now(lambda conn: (outbox or store.outbox).due(conn, destination, now, 100, ordered_batches=True))


def write(store, work):
    store.charts_ledger.write_now(work)


def garble(store):
    """What the store holds of the payloads can't be read any more: whoever reads one all the same has it in memory."""
    write(store, lambda conn: conn.execute(schema.delivery_payload.update().values(body=bytes(1))))


def test_what_was_put_into_the_outbox_is_handed_out_once_without_being_read_again(store):
    wanted = delivery("k1", payload=b'{"patient": 1}')
    queue(store, wanted)
    [as_stored] = due(store, Outbox(store.keys))
    garble(store)
    [found] = due(store)
    assert found == as_stored
    [again] = due(store)
    assert again.unreadable == "payload-damaged"


@pytest.mark.parametrize(
    "change",
    [
        lambda conn, outbox: outbox.settle(
            conn, [Settled(id=1, state=DeliveryState.PENDING, attempts=1, next_attempt_at=NOW)], NOW
        ),
        lambda conn, outbox: outbox.settle(
            conn,
            [Settled(id=1, state=DeliveryState.PENDING, attempts=0, next_attempt_at=NOW, error="quiet-hours")],
            NOW,
        ),
        lambda conn, _outbox: join_lines(conn, {"p": "q"}),
    ],
    ids=["tried by another process", "put off by a rule", "merged into another line"],
)
def test_what_has_changed_since_is_read_from_the_store(store, change):
    queue(store, delivery("k1", ordering_key="p"))
    write(store, lambda conn: change(conn, store.outbox))
    assert due(store) == due(store, Outbox(store.keys))


def test_what_was_put_back_with_a_newer_content_says_that(store):
    queue(store, delivery("k1", ordering_key="p", payload=b"old"))
    write(store, lambda conn: store.outbox.settle(conn, [Settled(id=1, state=DeliveryState.DEAD, attempts=0)], NOW))
    renewed = Renewed(payload=b"new", idempotency_key="k1/2")
    write(store, lambda conn: store.outbox.put_back(conn, 1, NOW, ordering_key="p", renewed=renewed))
    [found] = due(store)
    assert (found.delivery.payload, found.delivery.idempotency_key) == (b"new", "k1/2")


def test_long_payloads_and_what_waits_behind_many_are_not_kept(store, monkeypatch):
    monkeypatch.setattr("engine.store.fresh._DELIVERIES_MAX", 2)
    queue(store, delivery("k1", payload=b"x" * 5_000), *(delivery(f"k{number}") for number in range(2, 6)))
    garble(store)
    assert [one.unreadable is None for one in due(store)] == [False, True, True, False, False]


def test_what_was_settled_elsewhere_makes_room(store, monkeypatch):
    monkeypatch.setattr("engine.store.fresh._DELIVERIES_MAX", 2)
    queue(store, delivery("k1"), delivery("k2"), delivery("k3"))  # the third finds no room
    for number in (1, 2):
        settled = Settled(id=number, state=DeliveryState.DELIVERED, attempts=1)
        write(store, lambda conn, settled=settled: store.outbox.settle(conn, [settled], NOW))
    due(store)  # the third alone: by now it is seen that nobody asks for the first two
    queue(store, delivery("k4"), delivery("k5"))
    garble(store)
    assert [one.unreadable is None for one in due(store)] == [False, True, True]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["queue", "take", "delivered", "retry", "held", "dead", "release", "put back", "join"]),
            st.integers(0, 9),
        ),
        max_size=30,
    )
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_happens_in_between_what_is_handed_out_is_what_the_store_holds(sqlite_site, steps):
    states = {
        "delivered": DeliveryState.DELIVERED,
        "retry": DeliveryState.PENDING,
        "held": DeliveryState.HELD,
        "dead": DeliveryState.DEAD,
    }
    with sqlite_site.open("tool") as store:
        for table in (schema.delivery, schema.delivery_payload):
            write(store, lambda conn, table=table: conn.execute(table.delete()))
        outbox, made = store.outbox, 0
        for step, pick in steps:
            number = 1 + pick % max(made, 1)
            try:
                if step == "queue":
                    made += 1
                    queue(store, delivery(f"k{made}", ordering_key=f"p{pick % 3}", payload=b"%d" % made))
                elif step == "take":
                    assert due(store) == due(store, Outbox(store.keys))
                elif step == "join":
                    write(store, lambda conn, pick=pick: join_lines(conn, {f"p{pick % 3}": f"p{(pick + 1) % 3}"}))
                elif step == "release":
                    write(store, lambda conn, number=number: outbox.release(conn, number, NOW))
                elif step == "put back":
                    renewed = Renewed(payload=b"new", idempotency_key=f"k{number}/{pick}") if pick % 2 else None
                    line = store.read_now(lambda conn, number=number: outbox.get(conn, number))
                    if line is not None:
                        write(
                            store,
                            lambda conn, number=number, line=line, renewed=renewed: outbox.put_back(
                                conn, number, NOW, ordering_key=line.delivery.ordering_key, renewed=renewed
                            ),
                        )
                else:
                    result = Settled(id=number, state=states[step], attempts=pick % 2)
                    write(store, lambda conn, result=result: outbox.settle(conn, [result], NOW))
            except StoreError:  # not held, not dead: nothing happens then
                continue
        assert due(store) == due(store, Outbox(store.keys))


def test_nothing_is_copied_for_a_destination_whose_deliveries_nobody_takes(store, monkeypatch):
    monkeypatch.setattr(fresh, "_DELIVERIES_MAX", 2)
    queue(store, delivery("k1"), delivery("k2"))
    kept = store.outbox.fresh._kept["crm"]
    queue(store, delivery("k3"), delivery("k4"))
    assert store.outbox.fresh._kept["crm"] is kept
    assert len(kept) == 2
