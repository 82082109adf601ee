"""Deliveries for tests of connectors and the courier."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.domain.delivery import Delivery, DeliveryState, Operation, QueuedDelivery

NOW = datetime(2026, 3, 5, 14, 30, tzinfo=UTC)


def delivery(
    operation: Operation = Operation.UPSERT_PATIENT,
    payload: dict[str, Any] | bytes | None = None,
    *,
    destination: str = "crm",
    patient: str = "chart-1",
    key: str = "key-1",
) -> Delivery:
    if payload is None:
        payload = patient_payload()
    return Delivery(
        destination=destination,
        operation=operation,
        ordering_key=patient,
        idempotency_key=key,
        payload=payload if isinstance(payload, bytes) else msgspec.json.encode(payload),
    )


def queued(item: Delivery | None = None, *, number: int = 1, attempts: int = 0, **fields: Any) -> QueuedDelivery:
    return QueuedDelivery(
        id=number,
        entry_id=number,
        delivery=item or delivery(**{"key": f"key-{number}", **fields}),
        state=DeliveryState.PENDING,
        attempts=attempts,
        next_attempt_at=NOW,
        created_at=NOW,
    )


def patient_payload(key: str = "MRN:1001", **fields: Any) -> dict[str, Any]:
    authority, _, value = key.partition(":")
    patient = {
        "key": key,
        "identifiers": [{"value": value, "authority": authority, "type": "MR"}],
        "name": {"family": "Doe", "given": "Jane", "middle": None, "prefix": None, "suffix": None},
        "birth_date": "1958-07-15",
        "sex": "F",
        "address": {"line": "1 Main St", "city": "Troy", "state": "NY", "postal_code": "12180", "country": "USA"},
        "phones": ["+15185550100"],
        "language": None,
        "deceased": None,
        "deceased_at": None,
        "pcp": {"id": "77", "family": "Welby", "given": "Marcus"},
        "merged_from": [],
    }
    return {"patient": patient | fields}


def encounter_payload(key: str = "VN:5001", patient_key: str = "MRN:1001", **fields: Any) -> dict[str, Any]:
    encounter = {
        "key": key,
        "visit_number": key.partition(":")[2],
        "class": "I",
        "status": "active",
        "location": {"point_of_care": "4W", "room": "401", "bed": "A", "facility": None},
        "attending": {"id": "9", "family": "House", "given": "Greg"},
        "admitted_at": "2026-03-01T09:15:00-05:00",
        "discharged_at": None,
        "disposition": None,
        "diagnoses": [{"code": "I50.9", "system": "I10"}, {"code": "E11.9", "system": "I10"}],
        "procedures": [],
        "time_sources": {"admitted_at": "PV1-44"},
    }
    return {"patient_key": patient_key, "encounter": encounter | fields}


def score_payload(patient_key: str = "MRN:1001", decides: bool | None = None, **fields: Any) -> dict[str, Any]:
    score = {
        "model": "lace",
        "version": "1",
        "value": 14,
        "min": 14,
        "max": 14,
        "band": "high",
        "factors": [],
        "missing": [],
        "observed_since": None,
        "scored_at": "2026-03-05T14:00:00+00:00",
        "encounter": "VN:5001",
    }
    payload: dict[str, Any] = {"patient_key": patient_key, "score": score | fields}
    return payload if decides is None else payload | {"decides": decides}


def task_payload(task_id: str = "task-1", patient_key: str = "MRN:1001", **fields: Any) -> dict[str, Any]:
    task = {
        "id": task_id,
        "kind": "pcp_follow_up",
        "patient_key": patient_key,
        "encounter": "VN:5001",
        "due_at": "2026-03-08T14:00:00+00:00",
        "escalate_at": None,
        "state": "open",
        "assignee": "care_coordinator",
        "reason": "high risk after discharge",
    }
    return {"task": task | fields}


def forward_payload(control_id: str = "MSG1") -> dict[str, Any]:
    message = f"MSH|^~\\&|EHR|A|HANDOFF|B|20260305||ADT^A08^ADT_A01|{control_id}|P|2.5.1\rPID|1||1001^^^MRN\r"
    return {"hl7": base64.b64encode(message.encode()).decode()}
