"""How a destination stands: on record, so that commands and the next worker know it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from connector_deliveries import patient_payload
from couriers import AMBIGUOUS, QUICK, TRANSIENT, Destination, courier, item, running, until
from outbox_store import get, make_store, put, states

from engine.connectors.base import failed
from engine.domain.delivery import Operation
from engine.errors import DeliveryFailure
from engine.pipeline.breaker import BreakerState
from engine.store import Store
from engine.store.destinations import Standing, discard_rest, move_rest

SLOW = QUICK.model_copy(update={"breaker_failures": 1, "breaker_seconds": 3600.0})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path) as made:
        yield made


def standing(store: Store, name: str = "crm", **configured: str) -> Standing:
    types = configured or {"crm": "file"}
    found = store.read_now(lambda conn: store.destinations.standings(conn, types, datetime.now(UTC)))
    return next(one for one in found if one.name == name)


async def test_a_destination_is_down_since_its_first_failure_until_it_takes_something(store: Store):
    put(store, [item("k1", "p1"), item("k2", "p2")])
    crm = Destination()
    crm.down(3)
    made = courier(store, crm)
    async with running(made):
        await until(lambda: standing(store).state == "down")
        first = standing(store)
        assert first.error == "unreachable"
        assert (first.pending, first.held, first.dead) == (2, 0, 0)
        assert first.oldest_at is not None
        assert first.next_attempt_at is not None
        await until(lambda: standing(store).failures >= 2 or standing(store).state == "up")
        assert standing(store).since == first.since or standing(store).state == "up"
        await until(lambda: len(crm.got) == 2)
    after = standing(store)
    assert (after.state, after.error, after.pending, after.next_attempt_at) == ("up", None, 0, None)
    assert after.since is not None
    assert after.since >= first.since  # type: ignore[operator]


async def test_the_next_worker_knows_since_when_a_destination_is_down(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination()
    crm.down(1)
    async with running(courier(store, crm, retry=SLOW)):
        await until(lambda: standing(store).state == "down")
    first = standing(store)
    again = Destination()
    again.down(1, "tls-failed")
    async with running(courier(store, again, retry=SLOW)):
        await until(lambda: standing(store).error == "tls-failed")
    assert standing(store).since == first.since


async def test_nothing_is_sent_while_a_destination_is_paused_and_everything_after(store: Store):
    put(store, [item(f"k{n}", f"p{n}") for n in range(3)])
    now = datetime.now(UTC)
    store.charts_ledger.write_now(lambda conn: store.destinations.pause(conn, "crm", now, until=None, by="anna"))
    crm = Destination()
    made = courier(store, crm)
    async with running(made):
        for _ in range(10):
            made.wake()
            await asyncio.sleep(0.01)
        assert crm.batches == []
        paused = standing(store)
        assert (paused.state, paused.since, paused.pending, paused.paused_by) == ("paused", now, 3, "anna")
        assert paused.next_attempt_at is None
        store.charts_ledger.write_now(lambda conn: store.destinations.resume(conn, "crm"))
        made.wake()
        await until(lambda: len(crm.got) == 3)
    assert standing(store).state == "up"


async def test_a_pause_ends_by_itself(store: Store):
    put(store, [item("k1", "p1")])
    now = datetime.now(UTC)
    ends = now + timedelta(milliseconds=300)
    store.charts_ledger.write_now(lambda conn: store.destinations.pause(conn, "crm", now, until=ends, by="anna"))
    crm = Destination()
    assert standing(store).next_attempt_at == ends
    made = courier(store, crm)
    async with running(made):
        await until(lambda: made.wake() or bool(crm.got))  # type: ignore[func-returns-value]
    assert datetime.now(UTC) >= ends


async def test_a_wish_for_an_attempt_ends_the_rest_of_a_destination(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination()
    crm.down(1)
    made = courier(store, crm, retry=SLOW)
    async with running(made):
        await until(lambda: standing(store).state == "down")
        made.wake()
        await asyncio.sleep(0.05)
        assert crm.got == []  # it rests for an hour
        store.charts_ledger.write_now(lambda conn: store.destinations.retry(conn, "crm", datetime.now(UTC)))
        made.wake()
        await until(lambda: crm.got == ["k1"])
        await until(lambda: standing(store).state == "up")


async def test_a_wish_for_an_attempt_tells_of_a_destination_for_which_nothing_waits(store: Store):
    put(store, [item("k1", "p1")])
    crm = Destination(idempotent=False)
    crm.answers["k1"] = [failed(AMBIGUOUS, "no-answer", "no answer within the time allowed", of_destination=True)]
    made = courier(store, crm, retry=SLOW)
    async with running(made):
        await until(lambda: standing(store).state == "down")
        assert (standing(store).pending, standing(store).held) == (0, 1)
        store.charts_ledger.write_now(lambda conn: store.destinations.retry(conn, "crm", datetime.now(UTC)))
        made.wake()
        await until(lambda: standing(store).state == "up")


@pytest.mark.parametrize("code", ["answer-ae", "answer-ar", "answer-ar-207"])
async def test_an_answered_refusal_is_no_sign_that_the_destination_is_down(store: Store, code: str):
    put(store, [item("bad", "bad"), item("good", "good")])
    lab = Destination(idempotent=False)
    refusal = failed(TRANSIENT, code, "the receiver refused", of_destination=True, answered=True)
    lab.answers["bad"] = [refusal] * 100_000
    made = courier(store, lab, retry=SLOW)  # one failure of the destination would open the breaker for an hour
    async with running(made):
        await until(lambda: "good" in lab.got)
        assert made.counters()["crm"].breaker is BreakerState.CLOSED
        await until(lambda: ((one := standing(store)).state, one.error) == ("up", code))
        lab.answers.clear()
        await until(lambda: "bad" in lab.got)
        await until(lambda: standing(store).error is None)


async def test_a_refusal_for_want_of_a_reason_can_be_given_up_or_held_early(store: Store):
    put(store, [item("dies", "p1"), item("waits", "p2"), *(item(f"k{n}", f"q{n}") for n in range(3))])
    lab = Destination(idempotent=False)
    retried = failed(TRANSIENT, "answer-ae", "refused", of_destination=True, answered=True, attempts_max=2)
    lab.answers["dies"] = [retried] * 100_000
    lab.answers["waits"] = [failed(DeliveryFailure.UNDECIDED, "answer-ar", "refused")]
    made = courier(store, lab)
    async with running(made):
        number = 0
        while states(store, 2) != ["dead", "held"]:  # others go on, and only then an attempt is paid for
            put(store, [item(f"more{number}", f"m{number}")])
            made.wake()
            number += 1
            await asyncio.sleep(0.02)
            assert number < 500
    assert get(store, 1).attempts == 2


async def test_what_nobody_serves_any_more_is_an_orphan_and_can_be_moved_or_given_up(store: Store):
    put(store, [item("k1", "p1", "old"), item("k2", "p1", "old"), item("k3", "p1"), item("k4", "p2", "older")])
    assert store.read_now(lambda conn: store.destinations.orphans(conn, {"crm"})) == {"old": 2, "older": 1}
    one = standing(store, "old")
    assert (one.state, one.orphan, one.error, one.type, one.pending) == ("down", True, "not-configured", None, 2)
    now = datetime.now(UTC)
    store.charts_ledger.write_now(lambda conn: discard_rest(conn, store.outbox, "older", now))
    assert states(store, 4) == ["pending", "pending", "pending", "dead"]
    assert store.read_now(store.dead_letters.find) == []  # it is resolved
    assert store.charts_ledger.write_now(lambda conn: move_rest(conn, store.outbox, "old", "crm", now)) == 2
    assert store.charts_ledger.write_now(lambda conn: move_rest(conn, store.outbox, "old", "crm", now)) == 0
    assert store.read_now(lambda conn: store.destinations.orphans(conn, {"crm"})) == {}
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 3)
    assert crm.got == ["k1", "k2", "k3"]


def test_two_deliveries_of_one_key_at_one_destination_are_one(store: Store):
    put(store, [item("k1", "p1", operation=Operation.UPSERT_PATIENT, payload=patient_payload())] * 2)
    assert standing(store).pending == 1
