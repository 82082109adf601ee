"""What the courier does with what may not go out, or not yet; pauses that destinations ask for; receipts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from connector_deliveries import delivery
from couriers import QUICK, Destination, item, running, until
from held_leases import held_leases
from outbox_store import put

from engine.clock import SystemClock
from engine.connectors.base import Result, delivered, failed
from engine.connectors.file import FileDestination
from engine.domain.delivery import DeliveryState, Notice, Operation, QueuedDelivery
from engine.errors import DeliveryFailure
from engine.pipeline.admit import GO, Admission, Known, Never, NotBefore, Rule
from engine.runtime.courier import Courier, Route
from engine.store import Store
from engine.store.counts import ledger


class Gate:
    """Answers by idempotency key, from what may change at any time."""

    def __init__(self, **answers: Admission) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.known: list[Known] = []

    def ask(self, queued: QueuedDelivery, known: Known, _now: datetime) -> Admission:
        self.asked.append(queued.delivery.idempotency_key)
        self.known.append(known)
        return self.answers.get(queued.delivery.idempotency_key, GO)


def courier(store: Store, crm: Destination, gate: Gate | None = None, *needs: str, **settings: Any) -> Courier:
    rules = () if gate is None else (Rule(gate.ask, frozenset(needs)),)
    given = FileDestination(type="file", path="unused", retry=QUICK, **settings)
    return Courier(
        store.outbox, store.charts_ledger, store.reader, {"crm": Route(crm, given, rules=rules)}, clock=SystemClock(),
        leases=held_leases(store, "crm"),
    )  # fmt: skip


def found(store: Store, key: str) -> QueuedDelivery:
    one = store.read_now(lambda conn: [store.outbox.get(conn, number) for number in range(1, 10)])
    return next(each for each in one if each is not None and each.delivery.idempotency_key == key)


def later(hours: float) -> NotBefore:
    return NotBefore(at=datetime.now(UTC) + timedelta(hours=hours), code="quiet-hours")


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_what_must_not_go_out_is_withheld_counted_and_lets_others_go(
    store: Store, ordered: bool, idempotent: bool
):
    put(store, [item("a1", "p1"), item("a2", "p1"), item("b1", "p2")])
    crm = Destination(idempotent=idempotent, ordered_batches=ordered)
    made = courier(store, crm, Gate(a1=Never(code="no-consent")))
    async with running(made):
        await until(lambda: len(crm.got) == 2)
    assert sorted(crm.got) == ["a2", "b1"]
    one = found(store, "a1")
    assert (one.state, one.error, one.attempts) == (DeliveryState.WITHHELD, "no-consent", 0)
    assert one.settled_at is not None
    assert (made.counters()["crm"].withheld, made.counters()["crm"].dead) == (1, 0)
    assert store.read_now(lambda conn: store.dead_letters.find(conn)) == []
    (standing,) = store.read_now(lambda conn: store.destinations.standings(conn, {"crm": "file"}, datetime.now(UTC)))
    assert (standing.withheld, standing.pending, standing.troubled) == ({"no-consent": 1}, 0, False)
    (line,) = store.read_now(lambda conn: ledger(conn, ["main"]))
    assert (line.deliveries.withheld, line.deliveries.delivered, line.deliveries.dead) == (1, 2, 0)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_what_may_not_go_yet_keeps_its_turn_and_pays_no_attempt(store: Store, ordered: bool, idempotent: bool):
    put(store, [item("a1", "p1"), item("a2", "p1"), item("b1", "p2"), item("a3", "p1")])
    crm = Destination(idempotent=idempotent, ordered_batches=ordered)
    gate = Gate(a1=later(48))
    made = courier(store, crm, gate)
    async with running(made):
        await until(lambda: crm.got == ["b1"] and made.counters()["crm"].put_off == 1)
        for _ in range(5):
            made.wake()
            await asyncio.sleep(0.02)
        assert crm.got == ["b1"]
        one = found(store, "a1")
        assert (one.state, one.error, one.attempts) == (DeliveryState.PENDING, "quiet-hours", 0)
        # Asked again within the hour, whatever the rule said: it may be another one by then.
        assert timedelta(minutes=55) < one.next_attempt_at - datetime.now(UTC) < timedelta(hours=1, minutes=1)
        gate.answers.clear()
        store.charts_ledger.write_now(
            lambda conn: store.outbox.recall(conn, "crm", datetime.now(UTC), datetime.now(UTC))
        )
        made.wake()
        await until(lambda: len(crm.got) == 4)
    assert crm.got == ["b1", "a1", "a2", "a3"]
    assert made.counters()["crm"].retried == 0


async def test_an_attempt_is_not_begun_for_what_is_kept(store: Store):
    """Else a crash would leave it held, as if it could have been sent."""
    put(store, [item("a1", "p1")])
    crm = Destination(idempotent=False)
    made = courier(store, crm, Gate(a1=later(1)))
    async with running(made):
        await until(lambda: made.counters()["crm"].put_off == 1)
    assert store.read_now(lambda conn: store.outbox.interrupted(conn, "crm")) == []


async def test_rules_are_asked_after_the_connection_stands(store: Store):
    """A destination may be down for a day; what was right when it was read is not asked for that."""
    put(store, [item("a1", "p1")])
    crm = Destination()
    crm.down(2)
    gate = Gate()
    async with running(courier(store, crm, gate)):
        await until(lambda: crm.got == ["a1"])
    assert gate.asked == ["a1"]


async def test_a_notice_that_waited_too_long_is_withheld_without_any_gate(store: Store):
    late = Notice(id="n", patient_key="MRN:1", to="x", body="y", not_after=datetime(2026, 1, 1, tzinfo=UTC))
    good = Notice(id="m", patient_key="MRN:1", to="x", body="y")
    put(store, [
        delivery(Operation.SEND_TEXT, late.encoded(), key="late", patient="p1"),
        delivery(Operation.SEND_TEXT, good.encoded(), key="good", patient="p1"),
    ])  # fmt: skip
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: crm.got == ["good"])
    assert (found(store, "late").state, found(store, "late").error) == (DeliveryState.WITHHELD, "too-late")


# --- pauses that destinations ask for --------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_destination_that_asks_for_a_pause_gets_it_also_when_all_went_well(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination()
    ends = at(1.5)
    crm.answers["k1"] = [delivered("r1", ends)]
    made = courier(store, crm)
    async with running(made):
        await until(lambda: crm.got == ["k1"])
        put(store, [item("k2", "p2")])
        await until(lambda: made.wake() or crm.got == ["k1", "k2"])  # type: ignore[func-returns-value]
        assert datetime.now(UTC) >= ends
    assert made.counters()["crm"].failures == 0


async def test_a_long_pause_is_on_record_and_a_person_can_end_it(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination()
    crm.answers["k1"] = [delivered(None, at(10 * 86_400))]
    made = courier(store, crm)

    def standing() -> Any:
        (one,) = store.read_now(lambda conn: store.destinations.standings(conn, {"crm": "file"}, datetime.now(UTC)))
        return one

    async with running(made):
        await until(lambda: standing().error == "asked-to-wait")
        assert (standing().state, standing().troubled) == ("up", False)
        put(store, [item("k2", "p2")])
        assert standing().next_attempt_at - datetime.now(UTC) < timedelta(hours=1, minutes=1)
        store.charts_ledger.write_now(lambda conn: store.destinations.retry(conn, "crm", datetime.now(UTC)))
        await until(lambda: made.wake() or crm.got == ["k1", "k2"])  # type: ignore[func-returns-value]
        await until(lambda: standing().error is None)


async def test_what_one_delivery_is_asked_to_wait_for_is_no_pause_of_others(store: Store):
    put(store, [item("k1", "p1"), item("k2", "p2")])
    crm = Destination()
    crm.answers["k1"] = [failed(DeliveryFailure.TRANSIENT, "locked", "x", not_before=at(600))]
    async with running(courier(store, crm, batch_max=1)):
        await until(lambda: crm.got == ["k2"])
    assert found(store, "k1").next_attempt_at > at(300)


# --- receipts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["001xx000003DGb2AAG", "SM1234", "MRN 1001 ä", "x" * 1000])
async def test_a_receipt_is_kept_sealed_and_found_again(store: Store, text: str):
    put(store, [item("k1", "p1"), item("k2", "p2")])
    crm = Destination()
    crm.answers["k1"] = [delivered(text)]
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 2)
    first = found(store, "k1").id
    kept = text[:255]
    assert store.read_now(lambda conn: store.outbox.receipts(conn, [first, found(store, "k2").id])) == {first: kept}
    assert store.read_now(lambda conn: store.outbox.by_receipt(conn, "crm", kept)) == [first]
    assert store.read_now(lambda conn: store.outbox.by_receipt(conn, "lab", kept)) == []
    assert store.read_now(lambda conn: store.outbox.by_receipt(conn, "crm", "other")) == []


async def test_a_refusal_may_have_a_receipt_and_the_last_one_counts(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination()
    crm.answers["k1"] = [
        Result(delivered=False, failure=DeliveryFailure.TRANSIENT, error="busy", text="x", receipt="first"),
        delivered("second"),
    ]
    async with running(courier(store, crm)):
        await until(lambda: crm.got == ["k1"])
    assert store.read_now(lambda conn: store.outbox.receipts(conn, [found(store, "k1").id])) == {
        found(store, "k1").id: "second"
    }
