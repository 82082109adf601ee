"""Requests for appointments over MLLP, to a scheduling system that answers, refuses, is busy, or says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from peers.scheduling_system import SchedulingSystem

from engine.clock import FixedClock
from engine.connectors.base import Result
from engine.connectors.mllp import MllpConnector
from engine.connectors.requests import Answer, compile_requests
from engine.domain.appointment import Appointment, AppointmentStatus, Coded, RequestState
from engine.domain.delivery import (
    AppointmentRequest,
    AppointmentRequestEnd,
    Content,
    Delivery,
    DeliveryState,
    Operation,
    QueuedDelivery,
)
from engine.domain.patient import Identifier, Name, Patient
from engine.domain.shapes import AppointmentShape, PatientShape, TaskShape
from engine.domain.task import Task, TaskState
from engine.errors import DeliveryFailure
from engine.yamlfile import parse

NOW = datetime(2026, 3, 6, 17, 0, tzinfo=UTC)
SHIPPED = Path(__file__).parents[3] / "mappings/destinations/scheduling.yaml"
MAP = compile_requests(parse(SHIPPED.read_text(), "scheduling.yaml"), zone=ZoneInfo("America/New_York"))


def wanted(number: int, *, cancel: bool = False) -> QueuedDelivery:
    patient = Patient(
        identifiers=(Identifier(value="5", authority="MRN", type="MR"),), name=Name(family="D", given="J")
    )
    appointment = Appointment(
        id=f"a{number}",
        numbers=(Identifier(value=f"HF-{number}", authority="HANDOFF"),),
        status=AppointmentStatus.REQUESTED,
        service=Coded(code="PCP"),
        request=RequestState.ASKED,
    )
    task = Task(
        id="t", kind="pcp_follow_up", encounter=None, due_at=NOW, escalate_at=None, state=TaskState.OPEN, assignee=None,
        reason="r", protocol="p", discharge=1, created_at=NOW,
    )  # fmt: skip
    shapes = {"patient": PatientShape(key="MRN:5", **{n: getattr(patient, n) for n in patient.__struct_fields__})}
    shape = AppointmentShape.of(appointment, "MRN:5")
    said: Content
    if cancel:
        said = AppointmentRequestEnd(id=appointment.id, appointment=shape, **shapes)
    else:
        said = AppointmentRequest(id=appointment.id, appointment=shape, task=TaskShape.of(task, "MRN:5"), **shapes)
    operation = Operation.CANCEL_APPOINTMENT if cancel else Operation.REQUEST_APPOINTMENT
    delivery = Delivery(
        destination="sched", operation=operation, ordering_key=f"c1/a{number}",
        idempotency_key=f"k{number}{operation}", payload=said.encoded(),
    )  # fmt: skip
    return QueuedDelivery(
        id=number, entry_id=1, delivery=delivery, state=DeliveryState.PENDING, attempts=0, next_attempt_at=NOW,
        created_at=NOW,
    )  # fmt: skip


async def sent(system: SchedulingSystem, *queued: QueuedDelivery, seconds: float = 5.0) -> list[Result]:
    async with system:
        connector = MllpConnector(
            "sched", host="127.0.0.1", port=system.port, timeout_seconds=seconds, deduplicates=True, requests=MAP,
            clock=FixedClock(NOW),
        )  # fmt: skip
        results = []
        for one in queued:
            await connector.connect()
            results += await connector.deliver([one])
        await connector.close()
        return results


async def test_an_answer_is_kept_as_the_receipt() -> None:
    system = SchedulingSystem()
    [result] = await sent(system, wanted(1))
    assert result.delivered
    assert Answer.read(result.receipt) == Answer(
        filler="F-1", authority=None, status="Booked", starts_at="20260308120000-0500"
    )
    assert (system.booked["HF-1"].patient, system.booked["HF-1"].service) == ("5", "PCP")


async def test_the_same_request_sent_again_is_the_same_appointment() -> None:
    system = SchedulingSystem(mute=1)
    first, second = await sent(system, wanted(1), wanted(1), seconds=0.2)
    assert first.failure is DeliveryFailure.AMBIGUOUS
    assert second.delivered
    assert [(one.filler, one.duplicates) for one in system.booked.values()] == [("F-1", 1)]
    assert len({message.get("MSH-10") for message in system.received}) == 1


async def test_a_cancellation_names_what_was_asked_for() -> None:
    system = SchedulingSystem()
    results = await sent(system, wanted(1), wanted(1, cancel=True))
    assert [one.delivered for one in results] == [True, True]
    assert system.booked["HF-1"].status == "Cancelled"


@pytest.mark.parametrize(("code", "failure"), [("204", DeliveryFailure.PERMANENT), ("207", DeliveryFailure.TRANSIENT)])
async def test_a_refusal_means_what_its_code_says(code: str, failure: DeliveryFailure) -> None:
    [result] = await sent(SchedulingSystem(refuse=[code]), wanted(1))
    assert (result.delivered, result.failure, result.error) == (False, failure, f"answer-ae-{code}")


async def test_a_cancellation_of_what_nobody_knows_is_refused() -> None:
    [result] = await sent(SchedulingSystem(), wanted(1, cancel=True))
    assert (result.failure, result.error) == (DeliveryFailure.PERMANENT, "answer-ae-204")


async def test_an_answer_without_an_appointment_says_that_they_have_it() -> None:
    [result] = await sent(SchedulingSystem(plain=True), wanted(1))
    assert (result.delivered, Answer.read(result.receipt)) == (True, Answer())
