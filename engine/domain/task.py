"""A follow-up task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi

ENGINE: Final = "engine"
"""`Task.ended_by` of a task that no person has ended: a message, or what followed from one, has."""
KINDS: Final = (
    "medication_reconciliation",
    "pcp_follow_up",
    "specialist_follow_up",
    "care_coordinator_alert",
    "on_call_page",
    "tcm_contact",
    "education",
)
"""The kinds of task of a protocol that declares none."""


class TaskState(StrEnum):
    OPEN = "open"
    DONE = "done"
    MISSED = "missed"
    CANCELLED = "cancelled"
    RETRACTED = "retracted"


class Task(Phi, frozen=True, kw_only=True):
    id: str
    """Made from what caused it (encounter, discharge, protocol, kind), so that it is the same in every replay."""
    kind: str
    encounter: str | None
    """Encounter key; none: it is about the patient, and not about one of the stays."""
    due_at: datetime
    escalate_at: datetime | None
    state: TaskState
    assignee: str | None
    """A role (`care_coordinator`) or a person."""
    reason: str
    """Why it exists, in words for the care team."""
    protocol: str
    discharge: int
    """Which discharge of the encounter it belongs to."""
    created_at: datetime
    ended_at: datetime | None = None
    """When it ended; none: it is open."""
    ended_by: str | None = None
    """Who ended it: a person, or `ENGINE`; none: it is open."""
    end_reason: str | None = None
    """Why it ended, in words for the care team; none: it is open, or it was done and nothing more was said."""
    suspended_by: str | None = None
    """Key of the encounter whose admission suspended it; when that admission is cancelled the task opens again."""


READMITTED: Final = "suspended: the patient was admitted again"
SIDE_BY_SIDE: Final = "suspended: another stay of the same admission time goes on: is it one stay under two numbers?"
"""Why tasks are set aside."""
