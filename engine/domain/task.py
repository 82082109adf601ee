"""A follow-up task."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi, Record

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
    "pcp_alert",
    "physiotherapy",
    "pharmacy_consult",
    "result_follow_up",
    "notice_of_discharge",
)
"""The kinds of task of a protocol that declares none."""


ON_CALL_PAGE: Final = "on_call_page"
"""The kind of task that calls somebody at once."""


class TaskState(StrEnum):
    OPEN = "open"
    IN_PROGRESS = "in_progress"
    """Somebody has begun: there was an attempt."""
    DONE = "done"
    MISSED = "missed"
    """The deadline has passed, with its escalation. It is still to be done."""
    CANCELLED = "cancelled"
    RETRACTED = "retracted"


STANDING: Final = (TaskState.OPEN, TaskState.IN_PROGRESS, TaskState.MISSED)
"""States of a task that is still to be done."""


class How(StrEnum):
    """By what an attempt to reach the patient was made."""

    PHONE = "phone"
    VISIT = "visit"
    VIDEO = "video"
    TEXT = "text"

    @property
    def is_contact(self) -> bool:
        """Whether it can be the contact that Transitional Care Management asks for: an automated text can't."""
        return self is not How.TEXT


class Result(StrEnum):
    """What came of an attempt."""

    REACHED = "reached"
    NO_ANSWER = "no_answer"
    LEFT_MESSAGE = "left_message"
    DECLINED = "declined"
    """The patient was reached, and does not want what the task is about."""


class Attempt(Phi, frozen=True, kw_only=True):
    """One attempt to reach the patient."""

    at: datetime
    by: str
    how: How
    result: Result
    note: str | None = None
    """What somebody typed: it may hold anything."""


class Alert(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """A task for somebody else, about one that was not done."""

    kind: str
    assignee: str
    due_at: datetime
    """When the alert is raised at its time; of one raised late it is later."""
    reason: str
    page: str | None = None
    """Name of the ladder that it pages."""


class Rung(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """What is done about a task that is not done at this moment: each of these that is not none."""

    at: datetime
    """Never before the task is due."""
    owner: str | None = None
    """Who has it from then on."""
    alert: Alert | None = None
    page: str | None = None
    """Name of the ladder that is paged."""


class Escalation(Record, frozen=True, kw_only=True):
    """What was done about a task."""

    at: datetime
    why: str
    """`deadline`, `declined`, or a later kind: a word of the code."""
    owner: str | None = None
    """Who was given the task."""
    alert: str | None = None
    """The id of the task that was raised, now or for an earlier reason: it stands as long as a reason names it."""
    page: str | None = None
    """The ladder that was paged."""
    appointment: str | None = None
    """The id of the appointment that was missed."""

    @property
    def told(self) -> str:
        """In words: `deadline: owner unit_lead, alert 9f2c...`."""
        said = (("owner", self.owner), ("alert", self.alert), ("page", self.page))
        return f"{self.why}: {', '.join(f'{name} {value}' for name, value in said if value) or 'nothing more'}"


class Task(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """The document in the store leaves out what is as its default says; `TaskShape` does not."""

    id: str
    """Made from what caused it (encounter, discharge, protocol, kind), so that it is the same in every replay."""
    kind: str
    encounter: str | None
    """Encounter key; none: it is about the patient, and not about one of the stays."""
    due_at: datetime
    escalate_at: datetime | None
    """When something is done about it next, if it is not done by then; none: nothing more is."""
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
    """When it ended; none: it stands."""
    ended_by: str | None = None
    """Who ended it: a person, or `ENGINE`; none: it stands."""
    end_reason: str | None = None
    """Why it ended, in words for the care team; none: it stands, or it was done and nothing more was said."""
    suspended_by: str | None = None
    """Key of the encounter whose admission suspended it; when that admission is cancelled the task opens again."""
    owner: str | None = None
    """Who has taken it, or was given it, by an act or an escalation; none: it waits for somebody of the assignee's."""
    snoozed_until: datetime | None = None
    """Nobody need look at it before; none: it is not snoozed. Its deadlines stay as they are."""
    attempts: tuple[Attempt, ...] = ()
    evidence: str | None = None
    """What shows that it is done: what somebody typed, or the entry and the fields of a message."""
    appointment: str | None = None
    """Id of the appointment that it waits for, or was done by."""
    page: str | None = None
    """Name of the ladder that is paged while it stands; none: it pages nobody."""
    protocol_version: str | None = None
    """Of the protocol, as it was when the plan was made."""
    missed_at: datetime | None = None
    """Since when it is missed: its deadline, whenever that was noticed; none: it is not."""
    escalations: tuple[Escalation, ...] = ()
    """What was done about it, in order."""
    raised_for: str | None = None
    """Id of the task that it is an alert about; none: it is none."""
    attempts_wanted: int = 0
    """Attempts to reach the patient that are asked for until it is due; 0: it is not about reaching the patient."""

    # What follows is the engine's own and in no shape.

    ladder: tuple[Rung, ...] = ()
    """What is done about it when it is not done, as its protocol said when the plan was made."""
    climbed: int = 0
    """How many rungs of the ladder are behind it."""
    stood_as: TaskState | None = None
    """The state in which it ended, for when it stands again; none: it stands."""
    proved_by: str | None = None
    """What in the chart shows that it is done (`encounter:...`); none: a person said so, or it is not done."""
    proof_written: float = 0.0
    """When a result that shows it was written (seconds since 1970): what was withdrawn before is another one."""
    disproved: dict[str, float] = {}
    """Results that were withdrawn -> when that was written (seconds since 1970): nothing older proves it done."""
    protocol_digest: str = ""
    """Of what the protocol said when the plan was made."""
    step: str = ""
    """The step of the protocol that it came from; empty: of none, as an alert is."""
    undo: Undo | None = None
    """The last act; none: there was none, or something else has happened to the task since."""

    @property
    def stands(self) -> bool:
        """It is still to be done."""
        return self.state in STANDING

    @property
    def calls(self) -> bool:
        """Somebody is called at once because of it, and not because it was not done."""
        by_itself = self.page is not None and not any(one.page for one in self.escalations)
        return by_itself or self.kind == ON_CALL_PAGE

    @property
    def contacts_tried(self) -> int:
        """Attempts that count for those that are wanted: until it was due, and no automated texts."""
        return sum(one.how.is_contact and one.at <= self.due_at for one in self.attempts)


class Undo(Phi, frozen=True, kw_only=True):
    """How to take the last act back."""

    by: str
    at: datetime
    act: str
    was: Task
    """The task before the act, without what could be taken back then."""


OWN_FIELDS: Final = frozenset(
    {"ladder", "climbed", "stood_as", "proved_by", "proof_written", "disproved", "protocol_digest", "step", "undo"}
)
"""Fields of a task that are in no shape."""

READMITTED: Final = "suspended: the patient was admitted again"
SIDE_BY_SIDE: Final = "suspended: a stay that began before this discharge goes on: is it one stay under two numbers?"
ENDED_LATER: Final = "suspended: another stay of the patient was at the same time and ended later: its plan counts"
"""Why tasks are set aside."""
