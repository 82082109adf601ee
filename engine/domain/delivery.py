"""What goes out, and what could not."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi, Record


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"
    DEAD = "dead"


class Operation(StrEnum):
    """What a destination is asked to do. The payload of each is the contract's shape of that object, unmasked."""

    UPSERT_PATIENT = "upsert_patient"
    UPSERT_ENCOUNTER = "upsert_encounter"
    UPSERT_SCORE = "upsert_score"
    UPSERT_TASK = "upsert_task"
    MERGE_PATIENT = "merge_patient"
    """payload: {"survivor": key, "merged": key}."""
    FORWARD = "forward"
    """The message itself, byte for byte; payload: {"hl7": base64}."""

    @property
    def what(self) -> str:
        """As a channel's `deliver.what` names it."""
        return _WHAT[self]


_WHAT: Final = {
    Operation.UPSERT_PATIENT: "patient",
    Operation.MERGE_PATIENT: "patient",
    Operation.UPSERT_ENCOUNTER: "encounter",
    Operation.UPSERT_SCORE: "score",
    Operation.UPSERT_TASK: "task",
    Operation.FORWARD: "message",
}


class Delivery(Phi, frozen=True, kw_only=True):
    """A delivery as the pure heart asks for it. The store gives it an id when it is recorded."""

    destination: str
    operation: Operation
    ordering_key: str
    """Chart id: deliveries of one patient to one destination keep their order."""
    idempotency_key: str
    """The same in every replay; at most one delivery is ever recorded under it."""
    payload: bytes
    """JSON."""


class QueuedDelivery(Phi, frozen=True, kw_only=True):
    """A delivery in the outbox."""

    id: int
    entry_id: int
    delivery: Delivery
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    created_at: datetime
    error: str | None = None
    """Of the last attempt that failed, as a stable code."""
    settled_at: datetime | None = None
    """When it was delivered, died, or was held."""
    unreadable: str | None = None
    """Why its payload can't be read (then it is empty), as a stable code; such a delivery is never sent."""


class Stage(StrEnum):
    INTAKE = "intake"
    PROCESSING = "processing"
    DELIVERY = "delivery"


class DeadLetter(Record, frozen=True, kw_only=True):
    """Why something ended unsuccessfully. No value of the message: its bytes stay in the journal."""

    stage: Stage
    error: str
    location: str | None
    detail: str
