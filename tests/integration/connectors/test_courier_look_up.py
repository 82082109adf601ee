"""Deliveries in doubt at a destination that takes everything twice, and can be asked what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from connector_deliveries import delivery
from couriers import AMBIGUOUS, TRANSIENT, Destination, courier, item, running, until
from outbox_store import get, make_store, put, states
from peers.twilio import FROM, SID, TOKEN, Twilio

from engine.clock import SystemClock
from engine.connectors.base import Result, in_doubt
from engine.connectors.twilio import TwilioConnector, TwilioDestination
from engine.domain.delivery import Notice, Operation, QueuedDelivery
from engine.errors import DeliveryError
from engine.pipeline.admit import GO, Admission, Known, Never, Rule
from engine.store import Store

DOUBT = in_doubt("no-answer", "no answer within the time allowed")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path) as made:
        yield made


class Carrier(Destination):
    """What it takes in doubt, it has under a receipt when `has` says so."""

    def __init__(self, *, seconds: float = 0.01) -> None:
        super().__init__(idempotent=False)
        self.look_up_seconds = seconds
        self.has: dict[str, list[str]] = {}
        self.unasked: list[DeliveryError] = []
        self.asked: list[str] = []

    async def look_up(self, queued: QueuedDelivery) -> Sequence[str]:
        self.asked.append(queued.delivery.idempotency_key)
        if self.unasked:
            raise self.unasked.pop(0)
        return self.has.get(queued.delivery.idempotency_key, [])


def receipts(store: Store, *numbers: int) -> list[str | None]:
    found = store.read_now(lambda conn: store.outbox.receipts(conn, numbers))
    return [found.get(number) for number in numbers]


async def test_what_the_far_end_has_is_delivered_and_never_sent_again(store: Store) -> None:
    put(store, [item("a1", "a")])
    carrier = Carrier()
    carrier.answers["a1"] = [DOUBT]
    carrier.has["a1"] = ["r1"]
    async with running(courier(store, carrier)):
        await until(lambda: states(store, 1) == ["delivered"])
    assert (carrier.batches, receipts(store, 1)) == ([["a1"]], ["r1"])


async def test_what_the_far_end_does_not_have_is_sent_after_that_was_asked_and_not_before(store: Store) -> None:
    put(store, [item("a1", "a")])
    carrier = Carrier()
    carrier.answers["a1"] = [DOUBT]
    async with running(courier(store, carrier)):
        await until(lambda: carrier.got == ["a1"])
    assert (len(carrier.batches), carrier.asked) == (2, ["a1"])


async def test_a_receipt_of_another_delivery_is_not_taken_for_its_own(store: Store) -> None:
    put(store, [item("a1", "a"), item("b1", "b")])
    carrier = Carrier()
    carrier.answers |= {"a1": [DOUBT], "b1": [DOUBT]}
    carrier.has |= {"a1": ["r1"], "b1": ["r1"]}  # the same words to one number, and only one of them has arrived
    async with running(courier(store, carrier)):
        await until(lambda: states(store, 2) == ["delivered", "delivered"])
    assert len(carrier.got) == 1
    assert sorted(str(one) for one in receipts(store, 1, 2)) == ["None", "r1"]


async def test_what_a_killed_courier_had_begun_is_looked_up(store: Store) -> None:
    put(store, [item("a1", "a"), item("b1", "b")])
    for number in (1, 2):
        await store.charts_ledger.write(partial(store.outbox.start, delivery_id=number, now=SystemClock().now()))
    carrier = Carrier()
    carrier.has["a1"] = ["r1"]
    async with running(courier(store, carrier)):
        await until(lambda: states(store, 2) == ["delivered", "delivered"])
    assert carrier.got == ["b1"]


async def test_one_that_is_cancelled_in_the_middle_waits_to_be_looked_up(store: Store) -> None:
    put(store, [item("a1", "a")])
    carrier = Carrier(seconds=3600)
    carrier.gate = asyncio.Event()
    task = asyncio.create_task(courier(store, carrier).run())
    await until(lambda: bool(carrier.batches))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = get(store, 1)
    assert (found.state, found.error) == ("pending", "in-doubt")
    assert found.next_attempt_at > datetime.now(UTC) + timedelta(minutes=50)


async def test_a_far_end_that_can_not_be_asked_is_asked_again_and_then_a_person_decides(store: Store) -> None:
    put(store, [item("a1", "a"), item("b1", "b")])
    carrier = Carrier()
    carrier.answers |= {"a1": [DOUBT], "b1": [DOUBT]}
    carrier.has["a1"] = ["r1"]
    carrier.unasked = [DeliveryError("crm", "http-503", "no list came", kind=TRANSIENT)] * 2
    async with running(courier(store, carrier)):
        await until(lambda: states(store, 1) == ["delivered"])
        await until(lambda: carrier.got == ["b1"])
    put(store, [item("c1", "c"), item("d1", "d")])
    carrier.answers |= {"c1": [DOUBT], "d1": [DOUBT]}
    carrier.unasked = [
        DeliveryError("crm", "in-doubt", "it can't be looked up", kind=AMBIGUOUS),
        *[DeliveryError("crm", "http-503", "no list came", kind=TRANSIENT)] * 9,
    ]
    async with running(courier(store, carrier)):
        await until(lambda: [get(store, number).state.value for number in (3, 4)] == ["held", "held"])
    assert carrier.got == ["b1"]


async def test_a_defect_of_the_look_up_leaves_it_to_a_person(store: Store) -> None:
    put(store, [item("a1", "a")])

    class Broken(Carrier):
        async def look_up(self, queued: QueuedDelivery) -> Sequence[str]:
            raise RuntimeError(queued.id)

    carrier = Broken()
    carrier.answers["a1"] = [DOUBT]
    async with running(courier(store, carrier)):
        await until(lambda: states(store, 1) == ["held"])
    assert get(store, 1).error == "connector-defect"


async def test_what_is_in_doubt_is_looked_up_whatever_rules_say_and_asks_them_before_it_is_sent(store: Store) -> None:
    """It may have been sent: that it was withheld would be untrue. If it was not, it must not go any more."""
    put(store, [item("a1", "a"), item("b1", "b")])
    stopped: set[str] = set()

    def stop(queued: QueuedDelivery, _: Known, __: datetime) -> Admission:
        return Never(code="opted-out") if queued.delivery.idempotency_key in stopped else GO

    class Stops(Carrier):
        async def deliver(self, batch: Sequence[QueuedDelivery], *_: object) -> list[Result]:
            self.batches.append([one.delivery.idempotency_key for one in batch])
            stopped.update(self.batches[-1])
            return [DOUBT] * len(batch)

    carrier = Stops()
    carrier.has["a1"] = ["r1"]
    async with running(courier(store, carrier, rules=(Rule(stop),))):
        await until(lambda: states(store, 2) == ["delivered", "withheld"])
    assert len(carrier.batches) == 2


@pytest.mark.parametrize("lost", [503, None])
async def test_a_patient_gets_a_text_once_though_its_answer_was_lost(store: Store, lost: int | None) -> None:
    notices = [
        delivery(
            Operation.SEND_TEXT,
            Notice(id=f"t{n}-1", patient_key="MRN:1", to=f"+1518555012{n}", body="the same words").encoded(),
            destination="phone",
            patient=f"p{n}/t{n}-1",
            key=f"k{n}",
        )
        for n in (1, 2)
    ]
    async with Twilio() as carrier:
        carrier.lose = [lost, lost]
        given = {"type": "twilio", "account_sid": SID, "auth_token": TOKEN, "from": FROM, "base_url": carrier.url}
        settings = TwilioDestination(**given, look_up_seconds=0.05)
        phone = TwilioConnector("phone", settings, clock=SystemClock())
        put(store, notices)
        async with running(courier(store, phone)):
            await until(lambda: states(store, 2) == ["delivered", "delivered"])
        assert sorted(one.form["To"] for one in carrier.messages) == ["+15185550121", "+15185550122"]
        assert receipts(store, 1, 2) == [carrier.messages[n].sid for n in (0, 1)]
