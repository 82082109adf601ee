from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import forward_payload, patient_payload
from couriers import AMBIGUOUS, PERMANENT, QUICK, TRANSIENT, Destination, courier, item, running, until
from held_leases import held_leases
from outbox_store import get, make_store, put, states
from peers.mllp_receiver import MllpReceiver
from peers.salesforce_org import SalesforceOrg

from engine.clock import SystemClock
from engine.connectors.base import NOT_ATTEMPTED, Result, always, failed
from engine.connectors.mllp import MllpConnector, MllpDestination
from engine.connectors.salesforce import SalesforceConnector, SalesforceDestination
from engine.domain.delivery import Operation, QueuedDelivery
from engine.errors import DeliveryError, StoreUnavailableError
from engine.pipeline.breaker import BreakerState
from engine.runtime.courier import Courier, Route
from engine.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path) as made:
        yield made


# --- order and independence ---


async def test_deliveries_of_a_patient_keep_their_order(store: Store):
    put(store, [item(f"{patient}{number}", patient) for number in range(5) for patient in "abc"])
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 15)
    for patient in "abc":
        assert [key for key in crm.got if key.startswith(patient)] == [f"{patient}{number}" for number in range(5)]
    # A batch never holds two of a patient, unless the connector keeps the order in it.
    assert all(len({key[0] for key in batch}) == len(batch) for batch in crm.batches)
    assert states(store, 15) == ["delivered"] * 15


async def test_a_connector_that_keeps_order_in_a_batch_gets_all_at_once(store: Store):
    put(store, [item(f"{patient}{number}", patient) for number in range(5) for patient in "abc"])
    files = Destination(ordered_batches=True)
    async with running(courier(store, files)):
        await until(lambda: len(files.got) == 15)
    assert len(files.batches) == 1
    assert [key for key in files.got if key.startswith("a")] == [f"a{number}" for number in range(5)]


async def test_a_patient_whose_delivery_fails_holds_up_only_itself(store: Store):
    put(store, [item("a1", "a"), item("a2", "a"), item("b1", "b"), item("b2", "b")])
    crm = Destination()
    crm.answers["a1"] = [failed(TRANSIENT, "unable-to-lock-row", "locked")] * 4
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 4)
    assert crm.got.index("b2") < crm.got.index("a1") < crm.got.index("a2")
    assert get(store, 1).attempts == 5
    assert get(store, 2).attempts == 1


async def test_a_locked_record_of_one_patient_never_opens_the_breaker(store: Store):
    put(store, [item("a1", "a")])
    crm = Destination()
    crm.answers["a1"] = [failed(TRANSIENT, "unable-to-lock-row", "locked")] * 20
    made = courier(store, crm)
    async with running(made):
        await until(lambda: len(crm.batches) > 5)
        put(store, [item("b1", "b")])
        made.wake()
        await until(lambda: "b1" in crm.got)
    assert (made.counters()["crm"].failures, made.counters()["crm"].breaker) == (0, BreakerState.CLOSED)


async def test_a_destination_that_is_down_or_stuck_holds_up_no_other(store: Store):
    put(store, [item("x", "a", "down"), item("x2", "a", "stuck"), item("y", "a", "works")])
    down, stuck, works = Destination("down"), Destination("stuck"), Destination("works")
    down.down(10_000)
    stuck.gate = asyncio.Event()
    async with running(courier(store, down, stuck, works)):
        await until(lambda: works.got == ["y"] and stuck.batches == [["x2"]])
        assert down.got == []
        stuck.gate.set()


async def test_hints_close_behind_a_look_share_the_next(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.runtime.courier._GATHER_SECONDS", 1.0)
    looks: list[str] = []
    due = store.outbox.due
    monkeypatch.setattr(store.outbox, "due", lambda *given, **named: looks.append(given[1]) or due(*given, **named))
    crm = Destination()
    made = courier(store, crm)
    async with running(made):
        await until(lambda: looks == ["crm"])
        for _ in range(3):
            made.wake()
            await asyncio.sleep(0.01)
        assert looks == ["crm"]
        put(store, [item("a1", "a")])
        await until(lambda: crm.got == ["a1"])


# --- what becomes of failures ---


async def test_a_permanent_failure_is_a_dead_letter_and_the_next_goes_on(store: Store):
    put(store, [item("a1", "a"), item("a2", "a")])
    crm = Destination()
    crm.answers["a1"] = [failed(PERMANENT, "invalid-field", "the org refuses the record")]
    made = courier(store, crm)
    async with running(made):
        await until(lambda: crm.got == ["a2"])
    assert states(store, 2) == ["dead", "delivered"]
    letters = store.read_now(store.dead_letters.find)
    assert [(one.stage.value, one.error, one.detail) for one in letters] == [
        ("delivery", "invalid-field", "the org refuses the record")
    ]
    assert (made.counters()["crm"].dead, made.counters()["crm"].delivered) == (1, 1)


async def test_an_attempt_with_unknown_outcome_is_repeated_under_the_same_key(store: Store):
    put(store, [item("a1", "a")])
    crm = Destination()
    crm.answers["a1"] = [failed(AMBIGUOUS, "no-answer", "none")]
    async with running(courier(store, crm)):
        await until(lambda: crm.got == ["a1"])
    assert crm.batches == [["a1"], ["a1"]]


async def test_a_transient_failure_is_given_up_after_its_attempts(store: Store):
    put(store, [item("a1", "a")])
    crm = Destination()
    crm.answers["a1"] = [failed(TRANSIENT, "unable-to-lock-row", "locked")] * 20
    retry = QUICK.model_copy(update={"attempts_max": 4})
    async with running(courier(store, crm, retry=retry)):
        await until(lambda: states(store, 1) == ["dead"])
    assert get(store, 1).attempts == 4


async def test_deliveries_that_were_not_attempted_stay_as_they_are(store: Store):
    put(store, [item("a1", "a"), item("b1", "b")])
    crm = Destination()
    crm.answers["a1"] = [failed(AMBIGUOUS, "no-answer", "none")]
    crm.answers["b1"] = [NOT_ATTEMPTED]
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 2)
    assert (get(store, 1).attempts, get(store, 2).attempts) == (2, 1)


async def test_an_outage_costs_no_attempts_and_ends_in_delivery(store: Store):
    """However long a destination is away, nothing of it dies."""
    put(store, [item(f"{patient}1", patient) for patient in "abc"])
    crm = Destination()
    crm.down(12)
    made = courier(store, crm, retry=QUICK.model_copy(update={"attempts_max": 2}))
    async with running(made):
        await until(lambda: len(crm.got) == 3)
    assert [get(store, number).attempts for number in (1, 2, 3)] == [1, 1, 1]
    assert made.counters()["crm"].failures == 12
    assert made.counters()["crm"].breaker is BreakerState.CLOSED


async def test_after_its_rest_a_destination_gets_one_delivery_first(store: Store):
    put(store, [item(f"{patient}1", patient) for patient in "abcd"])
    crm = Destination()
    crm.down(3)
    async with running(courier(store, crm)):
        await until(lambda: len(crm.got) == 4)
    assert [len(batch) for batch in crm.batches] == [1, 3]


async def test_a_fault_of_the_whole_batch_with_unknown_outcome_is_held_where_twice_would_harm(store: Store):
    put(store, [item("a1", "a"), item("b1", "b")])
    lab = Destination(idempotent=False)
    lab.answers["a1"] = [DeliveryError("crm", "no-answer", "none", kind=AMBIGUOUS)]
    async with running(courier(store, lab)):
        await until(lambda: lab.got == ["b1"])
    assert states(store, 2) == ["held", "delivered"]


# --- defects ---


async def test_a_delivery_that_breaks_the_connector_is_found_and_buried_alone(store: Store):
    put(store, [item("a1", "a"), item("b1", "b"), item("b2", "b"), item("c1", "c")])
    crm = Destination(ordered_batches=True)
    crm.answers["b1"] = [KeyError("Doe"), KeyError("Doe")]
    async with running(courier(store, crm)):
        await until(lambda: states(store, 4) == ["delivered", "dead", "delivered", "delivered"])
    letters = store.read_now(store.dead_letters.find)
    assert [one.error for one in letters] == ["connector-defect"]
    assert "Doe" not in letters[0].detail


async def test_a_defect_where_twice_would_harm_is_held(store: Store):
    put(store, [item("a1", "a")])
    lab = Destination(idempotent=False)
    lab.answers["a1"] = [ValueError("Doe")]
    async with running(courier(store, lab)):
        await until(lambda: states(store, 1) == ["held"])
    assert lab.batches == [["a1"]]


async def test_a_connector_that_gives_too_few_results_delivers_nothing_by_accident(store: Store):
    put(store, [item("a1", "a"), item("b1", "b")])

    class Forgetful(Destination):
        async def deliver(
            self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always
        ) -> list[Result]:
            return (await super().deliver(batch, may_go_on))[:-1]

    async with running(courier(store, Forgetful())):
        await until(lambda: states(store, 2) == ["dead", "dead"])


# --- crashes, stops and the store ---


async def test_what_was_begun_when_the_last_courier_was_killed_is_held_where_twice_would_harm(store: Store):
    put(store, [item("a1", "a"), item("b1", "b")])
    await store.charts_ledger.write(lambda conn: store.outbox.start(conn, 1, SystemClock().now()))
    lab = Destination(idempotent=False)
    async with running(courier(store, lab)):
        await until(lambda: lab.got == ["b1"])
    assert states(store, 2) == ["held", "delivered"]


async def test_what_another_worker_began_meanwhile_is_held_where_twice_would_harm(store: Store):
    lab = Destination(idempotent=False)
    made = courier(store, lab)
    (rounds,) = made._rounds.values()
    leases = rounds._leases
    put(store, [item("a1", "a")])
    async with running(made):
        await until(lambda: states(store, 1) == ["delivered"])  # it has looked for what was begun, and found nothing
        leases._lost()  # the destination goes to another worker, which dies, and comes back before the next look
        put(store, [item("b1", "b")])
        store.charts_ledger.write_now(lambda conn: store.outbox.start(conn, 2, SystemClock().now()))
        leases.take()
        made.wake()
        await until(lambda: states(store, 2)[1] != "pending")
    assert states(store, 2) == ["delivered", "held"]
    assert lab.got == ["a1"]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_worker_that_hung_sends_nothing_before_it_has_made_sure_that_it_may(
    store: Store, idempotent: bool, monkeypatch: pytest.MonkeyPatch
):
    """Others may have told the destination newer things meanwhile."""
    put(store, [item("a1", "a")])
    crm = Destination(idempotent=idempotent)
    made = courier(store, crm)
    (rounds,) = made._rounds.values()
    asked: list[str] = []
    with monkeypatch.context() as hung:
        hung.setattr(rounds._leases, "may_act", lambda name: bool(asked.append(name)))
        async with running(made):
            await until(lambda: bool(asked))
            await until(lambda: not store.read_now(lambda conn: store.outbox.interrupted(conn, "crm")))
            assert crm.batches == []
            assert (states(store, 1), get(store, 1).attempts) == (["pending"], 0)
            hung.undo()
            await until(lambda: crm.got == ["a1"])


async def test_what_was_begun_is_sent_again_to_an_idempotent_destination(store: Store):
    put(store, [item("a1", "a")])
    await store.charts_ledger.write(lambda conn: store.outbox.start(conn, 1, SystemClock().now()))
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: crm.got == ["a1"])


async def test_a_destination_that_must_not_get_anything_twice_gets_one_delivery_at_a_time_noted_before(store: Store):
    put(store, [item("a1", "a"), item("b1", "b")])
    lab = Destination(idempotent=False)
    lab.gate = asyncio.Event()
    async with running(courier(store, lab)):
        await until(lambda: bool(lab.batches))
        assert store.read_now(lambda conn: store.outbox.interrupted(conn, "crm")) == [1]
        lab.gate.set()
        await until(lambda: len(lab.got) == 2)
    assert [len(batch) for batch in lab.batches] == [1, 1]
    assert store.read_now(lambda conn: store.outbox.interrupted(conn, "crm")) == []


async def test_a_stop_lets_the_batch_in_hand_be_finished_and_recorded(store: Store):
    put(store, [item("a1", "a"), item("a2", "a")])
    crm = Destination()
    crm.gate = asyncio.Event()
    made = courier(store, crm)
    task = asyncio.create_task(made.run())
    await until(lambda: bool(crm.batches))
    made.stop()
    await asyncio.sleep(0)
    assert not task.done()
    crm.gate.set()
    await asyncio.wait_for(task, 20)
    assert states(store, 2) == ["delivered", "pending"]


async def test_a_courier_that_is_cancelled_in_the_middle_leaves_the_delivery_held(store: Store):
    put(store, [item("a1", "a")])
    lab = Destination(idempotent=False)
    lab.gate = asyncio.Event()
    task = asyncio.create_task(courier(store, lab).run())
    await until(lambda: bool(lab.batches))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert states(store, 1) == ["held"]


class Unwilling:
    """The ledger, unavailable for some writes."""

    def __init__(self, store: Store, times: int) -> None:
        self._ledger = store.charts_ledger
        self.times = times

    async def write(self, work: Any) -> Any:
        if self.times:
            self.times -= 1
            raise StoreUnavailableError("the disk is full")
        return await self._ledger.write(work)


async def test_results_wait_for_the_store_and_nothing_is_sent_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.runtime.courier._PAUSE_SECONDS", 0.02)
    put(store, [item("a1", "a"), item("a2", "a")])
    crm = Destination()
    made = courier(store, crm)
    for rounds in made._rounds.values():
        rounds._ledger = Unwilling(store, 5)  # type: ignore[assignment]  # has the one method that is used
    async with running(made):
        await until(lambda: len(crm.got) == 2)
    assert crm.batches == [["a1"], ["a2"]]


async def test_an_unreadable_outbox_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.runtime.courier._PAUSE_SECONDS", 0.02)
    put(store, [item("a1", "a")])
    crm = Destination()
    made = courier(store, crm)
    (rounds,) = made._rounds.values()
    real, failures = rounds._reader, iter(range(3))

    def reader() -> Any:
        if next(failures, None) is not None:
            raise StoreUnavailableError("gone")
        return real()

    rounds._reader = reader
    async with running(made):
        await until(lambda: crm.got == ["a1"])


async def test_nothing_of_another_destination_is_taken(store: Store):
    put(store, [item("a1", "a", "elsewhere"), item("b1", "b", "crm")])
    crm = Destination()
    async with running(courier(store, crm)):
        await until(lambda: crm.got == ["b1"])
    assert states(store, 2) == ["pending", "delivered"]


# --- with real connectors ---


async def test_a_silent_receiver_leaves_one_message_held_and_gets_the_next_ones(store: Store):
    put(
        store,
        [
            item(f"m{number}", f"patient-{number}", "lab", operation=Operation.FORWARD,
                 payload=forward_payload(f"M{number}"))
            for number in range(3)
        ],
    )  # fmt: skip
    async with MllpReceiver() as receiver:
        receiver.behave("silent")
        settings = MllpDestination(type="mllp", host="127.0.0.1", port=receiver.port, retry=QUICK)
        lab = MllpConnector(
            "lab", host="127.0.0.1", port=receiver.port, timeout_seconds=2.0, deduplicates=settings.deduplicates
        )
        made = Courier(
            store.outbox,
            store.charts_ledger,
            store.reader,
            {"lab": Route(lab, settings)},
            clock=SystemClock(),
            leases=held_leases(store, "lab"),
        )
        async with running(made):
            await until(lambda: states(store, 3) == ["held", "delivered", "delivered"])
        assert receiver.control_ids() == ["M0", "M1", "M2"]


async def test_a_salesforce_org_in_trouble_ends_with_every_patient_once(
    store: Store, org: SalesforceOrg, salesforce: Callable[..., SalesforceConnector]
):
    keys = [f"MRN:{number}" for number in range(20)]
    put(store, [item(f"p{key}", f"chart-{key}", payload=patient_payload(key)) for key in keys])
    org.fail(status=503, body=[])
    org.fail(drop="after")
    org.fail(results="short")
    org.fail(row="MRN:7", code="UNABLE_TO_LOCK_ROW", times=2)
    org.fail(row="MRN:9", code="INVALID_FIELD", times=99)
    crm = salesforce()
    settings = SalesforceDestination(
        type="salesforce", login_url=org.url, client_id="c", client_secret="s", retry=QUICK, batch_max=200
    )
    made = Courier(
        store.outbox,
        store.charts_ledger,
        store.reader,
        {"crm": Route(crm, settings)},
        clock=SystemClock(),
        leases=held_leases(store, "crm"),
    )
    async with running(made):
        await until(lambda: states(store, 20) == ["delivered"] * 9 + ["dead"] + ["delivered"] * 10)
    assert sorted(row["ExternalId__c"] for row in org.find("Account")) == sorted(set(keys) - {"MRN:9"})
