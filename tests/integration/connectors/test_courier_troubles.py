"""Whose failure it is: one delivery must not hold up the others, and an outage must not cost deliveries their lives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import encounter_payload, forward_payload, patient_payload, score_payload
from couriers import AMBIGUOUS, PERMANENT, QUICK, TRANSIENT, Destination, courier, item, running, until
from held_leases import held_leases
from outbox_store import get, make_store, put, states
from peers.mllp_receiver import MllpReceiver
from peers.salesforce_org import SalesforceOrg
from sqlalchemy import select

from engine.clock import FixedClock, SystemClock
from engine.connectors.base import NOT_ATTEMPTED, NOTHING_TO_SEND, Result, always, failed
from engine.connectors.mllp import MllpConnector, MllpDestination
from engine.connectors.salesforce import SalesforceConnector, SalesforceDestination
from engine.domain.delivery import Operation, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure
from engine.pipeline.breaker import BreakerState
from engine.runtime.courier import Courier, Route
from engine.settings import RetrySettings
from engine.store import Store, schema


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path) as made:
        yield made


class Picky(Destination):
    """The destination as a whole seems to fail whenever a batch holds what it does not like."""

    def __init__(self, poison: str, kind: DeliveryFailure = TRANSIENT, **more: Any) -> None:
        super().__init__(**more)
        self.poison = poison
        self.kind = kind

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        if any(queued.delivery.idempotency_key == self.poison for queued in batch):
            self.batches.append([queued.delivery.idempotency_key for queued in batch])
            raise DeliveryError(self.name, "http-403", "a firewall dislikes it", kind=self.kind)
        return await super().deliver(batch)


@pytest.mark.parametrize("kind", [TRANSIENT, AMBIGUOUS])
@pytest.mark.parametrize("position", [0, 7, 29])
async def test_a_delivery_that_makes_the_destination_fail_holds_up_no_other(
    store: Store, kind: DeliveryFailure, position: int
):
    put(store, [item(f"k{number}", f"p{number}") for number in range(30)])
    crm = Picky(f"k{position}", kind)
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 29)
    assert f"k{position}" not in crm.got


async def test_a_delivery_that_fails_alone_while_others_do_not_is_given_up_in_the_end(store: Store):
    put(store, [item("bad", "bad"), item("k0", "p0")])
    crm = Picky("bad")
    made = courier(store, crm, retry=QUICK.model_copy(update={"attempts_max": 3}))
    count = 1
    async with running(made):
        while states(store, 1) != ["dead"]:
            put(store, [item(f"k{count}", f"p{count}")])
            made.wake()
            count += 1
            await asyncio.sleep(0.02)
            assert count < 1000
    assert get(store, 1).attempts == 3
    [letter] = store.read_now(store.dead_letters.find)
    assert letter.error == "http-403"


@pytest.mark.parametrize("kind", [TRANSIENT, AMBIGUOUS])
async def test_a_destination_that_takes_nothing_for_long_costs_nobody_an_attempt(store: Store, kind: DeliveryFailure):
    put(store, [item(f"k{number}", f"p{number}") for number in range(3)])
    crm = Destination()
    refusal = failed(kind, "answer-ar", "its database is down", of_destination=True)
    crm.answers = {f"k{number}": [refusal] * 20 for number in range(3)}
    made = courier(store, crm, retry=QUICK.model_copy(update={"attempts_max": 2}))
    async with running(made):
        await until(lambda: made.counters()["crm"].failures > 15)
        crm.answers.clear()
        await until(lambda: len(crm.got) == 3)
    assert [get(store, number).attempts for number in (1, 2, 3)] == [1, 1, 1]


async def test_an_attempt_with_unknown_outcome_is_held_where_twice_would_harm_whoever_is_to_blame(store: Store):
    put(store, [item("a1", "a")])
    lab = Destination(idempotent=False)
    lab.answers["a1"] = [failed(AMBIGUOUS, "no-answer", "none", of_destination=True)]
    async with running(courier(store, lab)):
        await until(lambda: states(store, 1) == ["held"])


async def test_in_an_outage_every_delivery_gets_its_turn_to_be_the_one_that_is_tried(store: Store):
    put(store, [item(f"k{number}", f"p{number}") for number in range(4)])
    crm = Destination()
    refusal = failed(TRANSIENT, "http-503", "busy", of_destination=True)
    crm.answers = {f"k{number}": [refusal] * 50 for number in range(4)}
    async with running(courier(store, crm)):
        await until(lambda: {key for batch in crm.batches[5:] for key in batch} == {"k0", "k1", "k2", "k3"})
    assert {len(batch) for batch in crm.batches[1:]} == {1}


async def test_what_needs_no_word_to_the_destination_says_nothing_of_how_it_does(store: Store):
    put(store, [item(f"k{number}", "p") for number in range(6)])
    crm = Destination()
    crm.answers = {f"k{number}": [NOTHING_TO_SEND] for number in range(6)}
    crm.down(3)
    made = courier(store, crm)
    async with running(made):
        await until(lambda: states(store, 6) == ["delivered"] * 6)
        assert made.counters()["crm"].breaker is BreakerState.HALF_OPEN


async def test_a_receiver_whose_database_is_down_gets_every_message_when_it_is_back(store: Store):
    put(
        store,
        [
            item(f"m{number}", f"p{number}", "lab", operation=Operation.FORWARD, payload=forward_payload(f"M{number}"))
            for number in range(3)
        ],
    )
    async with MllpReceiver() as receiver:
        receiver.behave(*["ar:207"] * 12)
        settings = MllpDestination(
            type="mllp", host="127.0.0.1", port=receiver.port, retry=QUICK.model_copy(update={"attempts_max": 2})
        )
        lab = MllpConnector("lab", host="127.0.0.1", port=receiver.port, timeout_seconds=60.0, deduplicates=False)
        made = Courier(
            store.outbox, store.charts_ledger, store.reader, {"lab": Route(lab, settings)}, clock=SystemClock(),
            leases=held_leases(store, "lab"),
        )  # fmt: skip
        async with running(made):
            await until(lambda: states(store, 3) == ["delivered"] * 3)
    assert [get(store, number).attempts for number in (1, 2, 3)] == [1, 1, 1]


# --- what can't be read ---


async def test_a_damaged_delivery_is_buried_by_name_and_the_others_go_on(store: Store):
    put(store, [item("a1", "a"), item("bad", "b"), item("b2", "b")])
    body = schema.delivery_payload.c.body
    number = schema.delivery_payload.c.delivery_id

    def damage(conn: Any) -> None:
        other = conn.execute(select(body).where(number == 1)).scalar_one()
        conn.execute(schema.delivery_payload.update().where(number == 2).values(body=other))

    store.charts_ledger.write_now(damage)
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 2)
    assert states(store, 3) == ["delivered", "dead", "delivered"]
    assert [letter.error for letter in store.read_now(store.dead_letters.find)] == ["payload-damaged"]


async def test_a_delivery_whose_key_is_missing_waits_for_a_person_and_holds_back_its_patient_only(store: Store):
    put(store, [item("a1", "a"), item("bad", "b"), item("b2", "b")])
    number = schema.delivery_payload.c.delivery_id
    # An envelope begins with its format and the number of the key: this one names a key that nobody has.
    unknown = schema.delivery_payload.update().where(number == 2).values(body=b"\x01\xff\xff" + b"x" * 60)
    store.charts_ledger.write_now(lambda conn: conn.execute(unknown))
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: states(store, 3) == ["delivered", "held", "pending"])
    assert crm.got == ["a1"]


# --- stopping ---


async def test_a_stop_is_passed_on_to_the_connector(store: Store):
    crm = Destination()
    async with running(courier(store, crm)):
        assert not crm.stopped
    assert crm.stopped


async def test_what_was_done_before_a_stop_in_the_middle_of_a_batch_is_on_record(
    store: Store, org: SalesforceOrg, salesforce: Callable[..., SalesforceConnector]
):
    """Three calls for three objects; the word to stop comes during the first."""
    put(
        store,
        [
            item("p1", "a", payload=patient_payload("MRN:1")),
            item("p2", "b", operation=Operation.UPSERT_ENCOUNTER, payload=encounter_payload("VN:1", "MRN:1")),
            item("p3", "c", operation=Operation.UPSERT_SCORE, payload=score_payload("MRN:1")),
        ],
    )
    entered, release = threading.Event(), threading.Event()
    real = org.upsert_collection

    def slowly(*args: Any) -> Any:
        entered.set()
        release.wait(60)
        return real(*args)

    org.upsert_collection = slowly  # type: ignore[method-assign]  # waits, and passes on
    settings = SalesforceDestination(type="salesforce", login_url=org.url, client_id="c", client_secret="s")
    made = Courier(
        store.outbox, store.charts_ledger, store.reader, {"crm": Route(salesforce(), settings)}, clock=SystemClock(),
        leases=held_leases(store, "crm"),
    )  # fmt: skip
    task = asyncio.create_task(made.run())
    await until(entered.is_set)
    made.stop()
    release.set()
    await asyncio.wait_for(task, 60)
    assert len(org.upserts()) == 1
    # The score goes to the same object as the patient, but never in one call with the same record.
    assert states(store, 3) == ["delivered", "pending", "pending"]
    assert [get(store, number).attempts for number in (2, 3)] == [0, 0]


async def test_messages_behind_the_one_in_hand_are_not_begun_after_a_stop():
    async with MllpReceiver() as receiver:
        lab = MllpConnector("lab", host="127.0.0.1", port=receiver.port, timeout_seconds=60.0, deduplicates=True)
        await lab.connect()
        lab.stop()
        batch = [_forward("A"), _forward("B")]
        assert await lab.deliver(batch) == [NOT_ATTEMPTED] * 2
        await lab.close()
        await lab.connect()
        assert [result.delivered for result in await lab.deliver(batch)] == [True, True]
        await lab.close()
        assert receiver.control_ids() == ["A", "B"]


def _forward(control_id: str) -> QueuedDelivery:
    from connector_deliveries import delivery, queued

    return queued(delivery(Operation.FORWARD, forward_payload(control_id), key=control_id))


# --- turns and clocks ---


async def test_a_delivery_that_lost_its_turn_between_reading_and_sending_is_not_sent_before_the_older_one(
    store: Store,
):
    """Another process puts an older, buried one back just then."""
    put(store, [item("a1", "a"), item("a2", "a")])
    lab = Destination(idempotent=False)
    lab.answers["a1"] = [failed(PERMANENT, "refused", "no")]
    put_back = False
    real = lab.connect

    async def connect() -> None:
        nonlocal put_back
        await real()
        if not put_back and states(store, 2)[0] == "dead":
            put_back = True
            await store.charts_ledger.write(
                lambda conn: store.outbox.put_back(conn, 1, SystemClock().now(), ordering_key="a")
            )

    lab.connect = connect  # type: ignore[method-assign]
    async with running(courier(store, lab)):
        await until(lambda: len(lab.got) == 2)
    assert lab.got == ["a1", "a2"]


async def test_deliveries_put_off_by_a_clock_that_ran_ahead_go_out_when_it_is_right_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engine.runtime.courier._LOOK_SECONDS", 0.02)
    put(store, [item("a1", "a")])
    crm = Destination()
    crm.answers["a1"] = [failed(TRANSIENT, "unable-to-lock-row", "locked")]
    clock = FixedClock(SystemClock().now() + timedelta(days=30))
    made = courier(store, crm, retry=RetrySettings(first_seconds=60.0, seconds_max=60.0), clock=clock)
    async with running(made):
        await until(lambda: get(store, 1).attempts == 1)
        clock.at -= timedelta(days=29)
        await until(lambda: crm.got == ["a1"])


async def test_a_rest_of_the_breaker_ends_when_the_clock_is_set_back(store: Store):
    put(store, [item("a1", "a")])
    crm = Destination()
    crm.down(3)
    clock = FixedClock(SystemClock().now() + timedelta(days=30))
    made = courier(store, crm, retry=QUICK.model_copy(update={"breaker_seconds": 3600.0}), clock=clock)
    async with running(made):
        while made.counters()["crm"].breaker is not BreakerState.OPEN:
            clock.at += timedelta(seconds=1)
            made.wake()
            await asyncio.sleep(0.01)
        clock.at -= timedelta(days=29)
        made.wake()
        await until(lambda: crm.got == ["a1"])


async def test_a_batch_is_limited_by_its_bytes(store: Store):
    put(store, [item(f"k{number}", f"p{number}", payload=patient_payload(f"MRN:{number}")) for number in range(6)])
    crm = Destination()
    async with running(courier(store, crm, batch_bytes_max=1)):
        await until(lambda: len(crm.got) == 6)
    assert {len(batch) for batch in crm.batches} == {1}


async def test_messages_behind_the_one_in_hand_are_not_begun_when_the_worker_has_hung():
    """Another worker may have the destination by now."""
    async with MllpReceiver() as receiver:
        lab = MllpConnector("lab", host="127.0.0.1", port=receiver.port, timeout_seconds=60.0, deduplicates=True)
        await lab.connect()
        answers = iter((True, False, False))
        first, *others = await lab.deliver([_forward(name) for name in "ABC"], lambda: next(answers))
        assert first.delivered
        assert others == [NOT_ATTEMPTED] * 2
        await lab.close()
        assert receiver.control_ids() == ["A"]
