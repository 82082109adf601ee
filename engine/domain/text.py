"""A text: words to a patient, of a series that follows a discharge or an appointment, and what the patient replies.

All that a series expects is an item of the chart from the plan on: what did not go keeps the one reason why.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from engine.domain.record import Phi, Record
from engine.domain.task import Alert


class TextState(StrEnum):
    """In the words of the contract."""

    PLANNED = "planned"
    """Its time is to come."""
    WITHHELD = "withheld"
    """It did not go, and will not: the reason says why."""
    QUEUED = "queued"
    """It is in the outbox."""
    SENT = "sent"
    """The carrier has taken it."""
    DELIVERED = "delivered"
    """It is on the phone, as far as the carrier says."""
    FAILED = "failed"
    """The carrier says that it will not arrive."""
    REPLIED = "replied"
    """The patient has answered what it asks."""
    EXPIRED = "expired"
    """It asked, and nobody has answered in time."""
    RETRACTED = "retracted"
    """What it hung on is gone; it had not been sent."""


AHEAD: Final = frozenset({TextState.PLANNED, TextState.QUEUED})
"""It has not gone out, and still may."""
ANSWERS: Final = "answers"
"""`Text.series` of a text that answers a reply."""
Occasion = Literal["opted_out", "opted_in", "help", "not_understood"]
"""`Text.step` of one."""
ASKED_FOR: Final[frozenset[str]] = frozenset({"opted_out", "opted_in", "help"})
"""Occasions on which the patient has asked to be written to just now."""

GONE_OUT: Final = frozenset(
    {TextState.SENT, TextState.DELIVERED, TextState.REPLIED, TextState.EXPIRED, TextState.FAILED}
)
"""A carrier has had it."""


class Then(Record, frozen=True, kw_only=True):
    """What follows from an answer, or from none in time."""

    alert: Alert | None = None
    """A task for somebody. Its `due_at` is counted from the planning; `due_seconds` from what has happened."""
    due_seconds: int = 86_400
    confirms: bool = False
    """The patient confirms the appointment that the text speaks of."""


class Answer(Record, frozen=True, kw_only=True):
    """One thing that a reply to a question can mean."""

    meaning: str
    """A word of the series: `confirmed`, `change`, `taken`, `not_taken`."""
    words: tuple[str, ...]
    """What the patient writes, in any of the languages; compared without case, marks and spaces around."""
    then: Then = Then()


class Question(Record, frozen=True, kw_only=True):
    """What a text asks. It is open from when the carrier has taken the text until an answer, or `seconds` later."""

    answers: tuple[Answer, ...]
    seconds: int
    """How long an answer is waited for."""
    unanswered: Then = Then()


class Reply(Phi, frozen=True, kw_only=True):
    """What came from the number of the text while it was the one that a reply was bound to."""

    id: str
    """The carrier's id of it."""
    at: datetime
    text: str
    """As it was written, cut at the limit of the intake."""
    meaning: str | None
    """A meaning of the question's answers; `ambiguous`, `free`, `urgent`, `opt_out`, `opt_in`, `help`; none: nobody
    has read it yet."""
    task: str | None = None
    """Id of the task that asks a person to read it."""


class Text(Phi, frozen=True, kw_only=True):
    id: str
    """Opaque: made from the discharge (or the appointment), the series and the step."""
    series: str
    series_version: str
    series_digest: str = ""
    step: str
    purpose: str = "care"
    channel: str = "sms"
    """By what it goes: `sms`, `whatsapp`."""
    encounter: str | None
    """Key of the stay whose discharge it follows."""
    discharge: int = 0
    """Which discharge of the stay (`Encounter.discharges`)."""
    appointment: str | None = None
    """Id of the appointment that it speaks of."""
    state: TextState = TextState.PLANNED
    reason: str | None = None
    """Why it is as it is: a word of the closed list (`contract.md`, reasons); none: nothing is to be said."""
    detail: str | None = None
    """What belongs to the reason, as codes: the carrier's code, until when."""
    planned_for: datetime
    """When the series wants it."""
    due_at: datetime | None
    """When it is decided (again): later than `planned_for` for quiet hours and caps. None: nothing is waited for."""
    useful_until: datetime
    """After this it is not sent."""
    tries: int = 0
    """How often it was put into the outbox: names what stands there."""
    number: str | None = None
    """E.164, as it was queued."""
    language: str | None = None
    """ISO 639-1, as it was queued."""
    destination: str | None = None
    body: str | None = None
    """As it was queued."""
    segments: int | None = None
    expires_at: datetime | None = None
    """As it was queued: after this it is not sent, but decided on again."""
    awaits: bool = False
    """It was put into the outbox, and what became of that is still to be heard: whatever it is now, it may go."""
    queued_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    ended_at: datetime | None = None
    receipt: str | None = None
    """The carrier's id of it."""
    question: Question | None = None
    answer_by: datetime | None = None
    """Until when its question is open; none: it asks nothing, or has not gone out."""
    replies: tuple[Reply, ...] = ()
    answer_to: str | None = None
    """Id of the reply that it answers: it counts for no cap, and goes at any hour. None: it is one of a series."""

    @property
    def is_open(self) -> bool:
        """It has asked, and a reply may be the answer."""
        return self.answer_by is not None and self.state in {TextState.SENT, TextState.DELIVERED}

    @property
    def stands(self) -> bool:
        """It is in the outbox, or has gone out: what hangs on it may be sent."""
        return self.state is TextState.QUEUED or self.state in GONE_OUT

    @property
    def ground(self) -> str:
        """What its notice hangs on: that it stands as it was put into the outbox."""
        return f"{self.id}#{self.tries}"
