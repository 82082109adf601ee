"""A page: somebody on call must say that they have seen to something, or the next in line is called.

The states of a page and of each notification are kept apart: that a destination has taken a notification says nothing
of whether a person has seen it. A page keeps the policy (the ladder) that it was raised with; who is on call is asked
anew each time that somebody is to be called.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi, Record


class PageState(StrEnum):
    QUEUED = "queued"
    """Nobody's destination has taken a notification of this level yet."""
    SENT = "sent"
    """A destination has taken one."""
    DELIVERED = "delivered"
    """One has reached a person's device, as far as the far end says."""
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    """It is not needed any more."""
    EXHAUSTED = "exhausted"
    """Nobody on the ladder has acknowledged it; a safety event was opened."""


WAITING: Final = frozenset({PageState.QUEUED, PageState.SENT, PageState.DELIVERED})
"""Somebody is being called."""
UNANSWERED: Final = WAITING | {PageState.EXHAUSTED}
"""Nobody has acknowledged it, and it is still needed."""


class StepResult(StrEnum):
    """What became of one notification."""

    QUEUED = "queued"
    SENT = "sent"
    """Its destination has taken it."""
    DELIVERED = "delivered"
    """It has reached the person's device."""
    FAILED = "failed"
    """It will not arrive."""
    WITHDRAWN = "withdrawn"
    """It was not sent, because it was not needed any more."""
    SKIPPED = "skipped"
    """There was nobody to notify; the next level was called at once."""


class Target(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Whom a level calls: a role of a roster, who comes after them in its rotation, or one person."""

    roster: str | None = None
    role: str | None = None
    """None: the first of the roster."""
    next: int = 0
    """So many turns later in the rotation than who is on call; 0: who is on call."""
    person: str | None = None

    @property
    def said(self) -> str:
        if self.person is not None:
            return self.person
        role = f"/{self.role}" if self.role is not None else ""
        return f"{self.roster}{role}" + (f", {self.next} later in the rotation" if self.next else "")


class Level(Record, frozen=True, kw_only=True):
    targets: tuple[Target, ...]
    seconds: int
    """After so long without an acknowledgment the next level is called."""


class Exhausted(Record, frozen=True, kw_only=True):
    """What happens when nobody has acknowledged: who is told, and the task that remains."""

    targets: tuple[Target, ...] = ()
    assignee: str = "house_supervisor"
    kind: str = "safety_event"
    reason: str = "Nobody on call has acknowledged a page: see to the patient, and report a safety event"
    due_seconds: int = 900


class Policy(Record, frozen=True, kw_only=True):
    """A ladder as it was when a page was raised; a change of the file changes no page that there is."""

    ladder: str
    version: str
    text: str = ""
    """What a notification says; it holds nothing of a patient."""
    levels: tuple[Level, ...] = ()
    loops: int = 1
    acknowledged_seconds: int | None = None
    """So long after an acknowledgment without a further act it is raised again; none: never."""
    closes: tuple[str, ...] = ("on_call_page",)
    """Kinds of task that ask for nothing but an acknowledgment."""
    on_ladder_only: bool = False
    """Only a person of the ladder may acknowledge."""
    exhausted: Exhausted = Exhausted()

    @property
    def roster(self) -> str | None:
        """The one that it calls first."""
        named = (target.roster for level in self.levels for target in level.targets)
        return next((roster for roster in named if roster is not None), None)


class Later(Record, frozen=True, kw_only=True):
    """A further way to reach a person, to be tried at a time unless they have answered by then."""

    at: datetime
    person: str
    contact: int


class Step(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One notification of one person, or a level at which there was nobody."""

    loop: int
    level: int
    """1 is the first. One more than there are: after the last loop."""
    round: int = 0
    at: datetime
    person: str | None = None
    channel: str | None = None
    """The destination."""
    contact: int = 0
    """Which of the person's."""
    result: StepResult = StepResult.QUEUED
    result_at: datetime | None = None
    detail: str | None = None
    """Why, as a code: `hand-over`, `nobody-on-call`, or that of a failed delivery."""


class Page(Phi, frozen=True, kw_only=True):
    id: str
    """Made from its task's: of one task there is one page for ever."""
    task: str
    """Id of the task that it is raised for."""
    kind: str
    """Of the task."""
    encounter: str | None
    policy: Policy
    closes: bool
    """An acknowledgment is all that the task asks for: it is done then. Else who acknowledges takes it."""
    state: PageState = PageState.QUEUED
    raised_at: datetime
    level: int = 0
    """The one that was called last; 0: none yet."""
    loop: int = 1
    round: int = 0
    """How often it was raised again, because nothing was done after an acknowledgment."""
    next_at: datetime | None
    """When something happens to it by itself; none: nothing does."""
    escalates_at: datetime | None = None
    """The end of the level that was called last."""
    hands_over_at: datetime | None = None
    """When the duty of one of those who were called ends."""
    handed_over: bool = False
    """It was handed over in this level."""
    later: tuple[Later, ...] = ()
    steps: tuple[Step, ...] = ()
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    on_ladder: bool | None = None
    """Whether who acknowledged was one of those whom the ladder calls; none: nobody has."""
    ended_at: datetime | None = None
    end_reason: str | None = None
    """Why it was resolved."""
    stood_as: PageState | None = None
    """The state in which it was called off with its task, for when that stands again; none: it was not."""

    @property
    def has_called(self) -> bool:
        """Somebody was called: a call that was taken back unsent, or has failed for good, has reached nobody."""
        return any(step.person is not None and step.result not in _REACHED_NOBODY for step in self.steps)


_REACHED_NOBODY: Final = frozenset({StepResult.FAILED, StepResult.WITHDRAWN})

PAGE_LETTER: Final = "p"
"""Ids of pages begin with it, those of tasks (hexadecimal) never do."""


def page_id(task_id: str) -> str:
    return f"{PAGE_LETTER}{task_id}"


def ack_code(page: str) -> str:
    """What whoever was called by text replies after ACK: four digits made of the page's id. No secret: it tells a
    person's pages apart, and counts from the number that was called alone.
    """
    return f"{int.from_bytes(hashlib.sha256(page.encode()).digest()[:4]) % 10_000:04d}"
