"""What the store knows of destinations, on both databases."""

from __future__ import annotations

from datetime import timedelta

from store_builders import NOW, changed, chart, charts_of, delivery, outcome, record

from engine.domain.delivery import DeliveryState
from engine.domain.ids import beginning_like
from engine.store import Store
from engine.store.destinations import Kept, Trouble, discard_rest, move_rest
from engine.store.outbox import Settled

TYPES = {"crm": "salesforce", "lab": "mllp"}


def rows(store: Store, at=NOW):
    return {one.name: one for one in store.read_now(lambda conn: store.destinations.standings(conn, TYPES, at))}


def write(store: Store, work):
    return store.charts_ledger.write_now(work)


def test_a_destination_of_which_nothing_is_known_is_up(store: Store):
    one = rows(store)["crm"]
    assert (one.type, one.state, one.since, one.error, one.pending, one.held, one.dead) == (
        "salesforce", "up", None, None, 0, 0, 0,
    )  # fmt: skip
    assert store.read_now(lambda conn: store.destinations.get(conn, "crm")) == Kept()


def test_trouble_pause_and_wish_are_kept_apart(store: Store):
    trouble = Trouble(since=NOW, error="unreachable", detail="refused", down=True, failures=3, next_attempt_at=NOW)
    write(store, lambda conn: store.destinations.failed(conn, "crm", trouble))
    write(store, lambda conn: store.destinations.pause(conn, "crm", NOW, until=NOW + timedelta(hours=2), by="anna"))
    write(store, lambda conn: store.destinations.retry(conn, "crm", NOW))
    write(store, lambda conn: store.destinations.fed(conn, "crm", {"west", "east"}, 7))
    kept = store.read_now(lambda conn: store.destinations.get(conn, "crm"))
    assert (kept.trouble, kept.paused_by, kept.retry_at, kept.fed_by) == (trouble, "anna", NOW, ("east", "west"))
    assert rows(store)["crm"].state == "paused"
    after = rows(store, NOW + timedelta(hours=2))["crm"]
    assert (after.state, after.error, after.untold, after.paused_until) == ("down", "unreachable", 7, None)
    write(store, lambda conn: store.destinations.worked(conn, "crm", NOW))
    write(store, lambda conn: store.destinations.resume(conn, "crm"))
    one = rows(store)["crm"]
    assert (one.state, one.since, one.error) == ("up", NOW, None)


def test_what_waits_is_counted_by_state_with_the_oldest(store: Store):
    items = [delivery(f"k{n}", ordering_key=f"chart-{n}") for n in range(4)]
    record(store, outcome(1, chart(), deliveries=(*items, delivery("m", "gone"))))
    results = [
        Settled(id=1, state=DeliveryState.DELIVERED, attempts=1),
        Settled(id=2, state=DeliveryState.HELD, attempts=1, error="no-answer"),
        Settled(id=3, state=DeliveryState.DEAD, attempts=1, error="invalid-field"),
    ]
    write(store, lambda conn: store.outbox.settle(conn, results, NOW))
    found = rows(store)
    one = found["crm"]
    assert (one.pending, one.held, one.dead, one.oldest_at, one.next_attempt_at) == (1, 1, 1, NOW, NOW)
    assert (found["gone"].orphan, found["gone"].type, found["gone"].pending) == (True, None, 1)
    assert store.read_now(lambda conn: store.destinations.orphans(conn, TYPES)) == {"gone": 1}
    held = store.read_now(lambda conn: store.outbox.get(conn, 2))
    assert held is not None
    assert (held.error, held.settled_at) == ("no-answer", NOW)
    assert write(store, lambda conn: move_rest(conn, store.outbox, "gone", "crm", NOW)) == 1
    moved = store.read_now(lambda conn: store.outbox.get(conn, 5))
    assert moved is not None
    assert (moved.delivery.destination, moved.unreadable, moved.delivery.payload) == ("crm", None, b"{}")
    assert write(store, lambda conn: discard_rest(conn, store.outbox, "crm", NOW)) == 3
    assert rows(store)["crm"].dead == 1  # the discarded ones are resolved


def test_patients_of_these_channels_that_were_never_told_are_counted(store: Store):
    told, never, other = chart("a" * 32, 1), chart("b" * 32, 2), chart("c" * 32, 3)
    record(store, outcome(1, told, deliveries=(delivery("k1", ordering_key=told.id),)))
    record(store, outcome(2, never), outcome(3, changed(never), chart_id=never.id), before=charts_of())
    record(store, outcome(4, other), channel="east")
    count = lambda *channels: store.read_now(lambda conn: store.destinations.untold(conn, "crm", channels))  # noqa: E731
    assert (count("main-campus"), count("east"), count("main-campus", "east"), count()) == (1, 1, 2, 0)
    assert store.read_now(lambda conn: store.destinations.untold(conn, "lab", ["main-campus"])) == 2


def test_what_a_destination_was_told_of_a_chart_is_found_by_the_beginning_of_its_keys(store: Store):
    first, second = "0123456789ab" + "0" * 20, "0123456789ac" + "0" * 20
    keys = {id_: [beginning_like(id_, f"{n}" * 32) for n in "12f"] for id_ in (first, second)}
    items = [delivery(key, ordering_key=id_) for id_, listed in keys.items() for key in listed]
    items.append(delivery(beginning_like(first, "e" * 32), "lab", ordering_key=first))
    record(store, outcome(1, chart(first, 1), chart(second, 2), chart_id=first, deliveries=tuple(items)))
    told = store.read_now(lambda conn: store.outbox.told(conn, "crm", first, {first}))
    assert [one.delivery.idempotency_key for one in told] == keys[first]
    assert store.read_now(lambda conn: store.outbox.told(conn, "crm", first, {"another"})) == []
    behind = store.read_now(lambda conn: store.outbox.behind(conn, told))
    assert list(behind.values()) == [2, 1, 0]
