"""Receivers that are not ours, and refuse otherwise than the standard has it: nothing dies early, nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import delivery, forward_payload
from couriers import running, until
from held_leases import held_leases
from outbox_store import get, make_store, put, states
from peers.mllp_receiver import MllpReceiver

from engine.clock import SystemClock
from engine.connectors.base import DELIVERED, failed
from engine.connectors.mllp import AnswersWithoutCode, MllpConnector, MllpDestination
from engine.domain.delivery import Delivery, Operation
from engine.errors import DeliveryFailure
from engine.pipeline.breaker import BreakerState
from engine.runtime.courier import Courier, Route
from engine.settings import RetrySettings
from engine.store import Store
from engine.store.destinations import Standing

QUICK = RetrySettings(first_seconds=0.01, seconds_max=0.05, breaker_failures=3, breaker_seconds=0.05)
SLOW = RetrySettings(first_seconds=0.01, seconds_max=3600.0, breaker_failures=1, breaker_seconds=3600.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[MllpReceiver]:
    async with MllpReceiver() as peer:
        yield peer


def message(control_id: str, patient: str) -> Delivery:
    return delivery(Operation.FORWARD, forward_payload(control_id), destination="lab", patient=patient, key=control_id)


def courier(store: Store, receiver: MllpReceiver, retry: RetrySettings = QUICK, **settings: Any) -> Courier:
    given = MllpDestination(type="mllp", host="127.0.0.1", port=receiver.port, retry=retry, **settings)
    connector = MllpConnector(
        "lab",
        host=given.host,
        port=given.port,
        timeout_seconds=30.0,
        deduplicates=given.deduplicates,
        answers_without_code=given.answers_without_code,
    )
    return Courier(
        store.outbox,
        store.charts_ledger,
        store.reader,
        {"lab": Route(connector, given)},
        clock=SystemClock(),
        leases=held_leases(store, "lab"),
    )


def standing(store: Store) -> Standing:
    return store.read_now(lambda conn: store.destinations.standings(conn, {"lab": "mllp"}, datetime.now(UTC)))[0]


@pytest.mark.parametrize("answer", ["ae", "ar", "ae:207", "ar:207", "ce"])
async def test_an_engine_whose_database_is_away_costs_no_message(store: Store, receiver: MllpReceiver, answer: str):
    put(store, [message(f"M{n}", f"p{n % 4}") for n in range(10)])
    receiver.always = answer
    async with running(courier(store, receiver, answers_without_code=AnswersWithoutCode(attempts_max=2))) as made:
        await until(lambda: len(receiver.received) > 30)  # far more attempts than either limit
        assert set(states(store, 10)) == {"pending"}
        assert made.counters()["lab"].breaker is BreakerState.CLOSED
        await until(lambda: standing(store).error == f"answer-{answer.replace(':', '-')}")
        assert standing(store).state == "up"
        receiver.always = None
        await until(lambda: states(store, 10) == ["delivered"] * 10)
    last = [one for one in receiver.control_ids() if one in {"M0", "M4", "M8"}]
    assert last[-1] == "M8"  # of one patient, in their order
    assert standing(store).error is None


@pytest.mark.parametrize("answer", ["ar", "ae", "cr"])
async def test_a_filter_that_drops_one_message_holds_up_that_patient_alone(
    store: Store, receiver: MllpReceiver, answer: str
):
    receiver.filtered = (b"|DROPPED|", answer)
    put(store, [message("DROPPED", "p0"), message("BEHIND", "p0"), *(message(f"M{n}", f"q{n}") for n in range(5))])
    # One failure of the destination would be its last for an hour.
    retry = SLOW.model_copy(update={"seconds_max": 0.05})
    async with running(
        courier(store, receiver, retry, answers_without_code=AnswersWithoutCode(attempts_max=3))
    ) as made:
        await until(lambda: {f"M{n}" for n in range(5)} <= set(receiver.control_ids()))
        assert "BEHIND" not in receiver.control_ids()
        number = 0
        while states(store, 2) != [
            "dead",
            "delivered",
        ]:  # it pays while others are delivered, and then its patient goes on
            put(store, [message(f"N{number}", f"n{number}")])
            made.wake()
            number += 1
            await asyncio.sleep(0.02)
            assert number < 500
        assert made.counters()["lab"].failures == 0
    [letter] = store.read_now(store.dead_letters.find)
    assert letter.error == f"answer-{answer}"


async def test_a_refusal_may_be_a_person_s_to_decide(store: Store, receiver: MllpReceiver):
    receiver.filtered = (b"|DROPPED|", "ar")
    put(store, [message("DROPPED", "p0"), message("M1", "q1")])
    async with running(courier(store, receiver, answers_without_code=AnswersWithoutCode(ar="hold"))):
        await until(lambda: states(store, 2) == ["held", "delivered"])
    assert (standing(store).state, standing(store).held) == ("up", 1)


@pytest.mark.parametrize("deduplicates", [False, True])
async def test_answers_that_name_no_message_are_one_trouble_of_the_destination(
    store: Store, receiver: MllpReceiver, deduplicates: bool
):
    receiver.always = "aa!"
    put(store, [message(f"M{n}", f"p{n}") for n in range(20)])
    retry = SLOW.model_copy(update={"breaker_failures": 2})
    async with running(courier(store, receiver, retry, deduplicates=deduplicates)):
        await until(lambda: standing(store).failures >= 2)
        one = standing(store)
        assert (one.state, one.error) == ("down", "answer-without-control-id")
        assert "MSA-2" in (one.detail or "")
        assert one.held == (0 if deduplicates else 2)
        assert one.held + one.pending == 20
    assert len(receiver.received) <= 3  # it is not flooded
    assert "delivered" not in states(store, 20)


@pytest.mark.parametrize(
    ("deduplicates", "rests"), [(False, [10.0, 20.0, 40.0, 60.0, 60.0]), (True, [10.0, 10.0, 10.0, 10.0, 10.0])]
)
async def test_each_try_that_leaves_a_message_in_doubt_makes_the_next_rest_longer_up_to_a_limit(
    store: Store, receiver: MllpReceiver, deduplicates: bool, rests: list[float]
):
    """Where the receiver knows a delivery again, trying costs nobody anything."""
    retry = RetrySettings(breaker_failures=2, breaker_seconds=10, seconds_max=60)
    made = courier(store, receiver, retry, deduplicates=deduplicates)._rounds["lab"]
    nameless = failed(DeliveryFailure.AMBIGUOUS, "answer-without-control-id", "MSA-2 is empty", of_destination=True)
    made._learn([nameless])
    assert made._breaker.state is BreakerState.CLOSED, "once may be chance"
    found: list[float] = []
    for _ in rests:
        assert made._breaker.ready(datetime.max.replace(tzinfo=UTC))
        made._learn([nameless])
        since, until = made._breaker._resting_since, made._breaker.resting_until
        assert since is not None
        assert until is not None
        found.append((until - since).total_seconds())
    assert found == rests
    made._breaker.ready(datetime.max.replace(tzinfo=UTC))
    made._learn([DELIVERED])
    assert (made._breaker.state, made._breaker.failures) == (BreakerState.CLOSED, 0)
    await made._connector.close()


async def test_as_many_refusals_in_a_row_as_the_limit_are_trouble_of_the_destination(
    store: Store, receiver: MllpReceiver
):
    made = courier(store, receiver, RetrySettings(breaker_failures=3))._rounds["lab"]
    refused = failed(DeliveryFailure.TRANSIENT, "answer-ae", "refused", answered=True)
    for results in ([refused], [refused], [DELIVERED], [refused, refused]):
        made._learn(results)
        assert made._trouble is None, "one here and there is the trouble of its patient"
    made._learn([refused])
    assert made._trouble is not None
    assert (made._trouble.error, made._trouble.down) == ("answer-ae", False)
    assert made._breaker.state is BreakerState.CLOSED


async def test_a_receiver_that_stops_with_a_message_in_hand_leaves_it_to_a_person(store: Store, receiver: MllpReceiver):
    receiver.behave("close")
    put(store, [message("M0", "p0"), message("M1", "p0"), message("M2", "p2")])
    async with running(courier(store, receiver)):
        await until(lambda: states(store, 3) == ["held", "pending", "delivered"])
    assert get(store, 1).error == "connection-lost"
    assert standing(store).held == 1
