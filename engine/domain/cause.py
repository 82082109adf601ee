"""What happens to a patient by no message: the payload of entries of all other kinds.

A cause names opaque ids only; a reason, a note or an assignee is what somebody typed, and may hold PHI.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final

import msgspec

from engine.domain.audit import Whence
from engine.domain.consent import ConsentKind
from engine.domain.message import EntryKind
from engine.domain.moment import to_micros
from engine.domain.record import Phi
from engine.domain.task import How, Result


class _Cause(Phi, frozen=True, kw_only=True, tag_field="cause"):
    kind: ClassVar[EntryKind]
    actor: str
    """Who does it: of an act, the operating system's user; of what is due, `CLOCK`; of what became of a delivery,
    `COURIER`."""
    chart_id: str | None
    """The patient's chart as it was found; it may have been merged since. None: of a question about nobody known."""
    reason: str | None = None
    """Why, in the words of who does it."""
    whence: Whence | None = None
    """Where from; none: not known, or it is no act."""

    @property
    def once(self) -> str | None:
        """A name by which the journal takes the cause once, whoever puts it there. None: each is new."""
        return None


class _Act(_Cause, frozen=True, kw_only=True):
    kind: ClassVar[EntryKind] = EntryKind.ACT


class _OnTask(_Act, frozen=True, kw_only=True):
    task: str
    """Its id."""


class TaskDone(_OnTask, frozen=True, kw_only=True, tag="task-done"):
    evidence: str | None = None
    """What shows it, in the words of who does it."""


class TaskAssigned(_OnTask, frozen=True, kw_only=True, tag="task-assigned"):
    assignee: str
    """A role or a person."""


class TaskAttempted(_OnTask, frozen=True, kw_only=True, tag="task-attempted"):
    """Somebody has tried to reach the patient."""

    how: How
    result: Result
    note: str | None = None


class TaskSnoozed(_OnTask, frozen=True, kw_only=True, tag="task-snoozed"):
    until: datetime


class TaskCancelled(_OnTask, frozen=True, kw_only=True, tag="task-cancelled"):
    """It need not be done; the reason says why."""


class TaskUndone(_OnTask, frozen=True, kw_only=True, tag="task-undone"):
    """What the actor did last to the task is taken back."""


class PlanMigrated(_Act, frozen=True, kw_only=True, tag="plan-migrated"):
    """The patient's running plans are made anew by what their protocols say today."""

    protocol: str | None = None
    """Plans of this one only."""


class QuestionDismissed(_Act, frozen=True, kw_only=True, tag="dismiss"):
    """What a message asserts is not so, or was seen to by hand."""

    hold: int
    """Its number (`m12` is 12)."""
    root: int
    """The message that asks: the first entry of its chain of replays."""
    code: str
    location: str | None


class QualityDecided(_Act, frozen=True, kw_only=True):
    """Of an item of the data-quality list. chart_id: none, it is about a feed."""

    item: int


class QualityResolved(QualityDecided, frozen=True, kw_only=True, tag="quality-resolved"):
    """It was seen to."""


class QualityReopened(QualityDecided, frozen=True, kw_only=True, tag="quality-reopened"):
    """It is not over."""


class PageAcknowledged(_Act, frozen=True, kw_only=True, tag="page-ack"):
    page: str
    """Its id."""
    by: str
    """Who takes it: a person of the rosters, or anybody."""


class OnCallOverridden(_Act, frozen=True, kw_only=True, tag="oncall-override"):
    """Somebody stands in on a roster; nobody's chart is concerned."""

    roster: str
    role: str
    person: str
    begins: datetime
    ends: datetime


class ConsentGiven(_Act, frozen=True, kw_only=True, tag="consent-given"):
    """The patient has said something to copies that leave. The reason says what shows it."""

    consent: ConsentKind
    to: tuple[str, ...] = ()
    """Destinations, of one for named recipients."""
    ends: datetime | None = None


class ConsentRevoked(_Act, frozen=True, kw_only=True, tag="consent-revoked"):
    """...and takes it back."""

    id: str


class ContactConsentGiven(_Act, frozen=True, kw_only=True, tag="contact-given"):
    """The patient may be written to at a number. The reason says what shows it."""

    purpose: str
    channel: str
    number: str
    """E.164."""
    how: str
    wording: str | None = None
    """Version of the words that were agreed to."""
    at: datetime | None = None
    """When it was said, of one that is put on record later; none: now."""


class ContactConsentRevoked(_Act, frozen=True, kw_only=True, tag="contact-revoked"):
    """...and may not any more."""

    purpose: str
    channel: str
    number: str
    """E.164."""
    how: str
    at: datetime | None = None


CLOCK: Final = "clock"
COURIER: Final = "courier"


class Due(_Cause, frozen=True, kw_only=True, tag="due"):
    """A deadline of the chart has come: all that is due then happens, whatever deadline it was."""

    kind: ClassVar[EntryKind] = EntryKind.DUE
    at: datetime
    """The deadline that was found: what the chart waited for first."""
    version: int
    """Of the chart: when an act brings the same deadline back, that is another one."""
    since: datetime
    """Since when it was to ring: the deadline, or when that came about, if it was over by then."""

    @property
    def once(self) -> str:
        return f"due/{self.chart_id}/{self.version}/{to_micros(self.at)}"


class UrgentDue(Due, frozen=True, kw_only=True, tag="due-urgent"):
    """...and somebody is to be called."""


class NotificationSettled(_Cause, frozen=True, kw_only=True, tag="notification-settled"):
    """What became of a notification of a page, as far as its destination says."""

    kind: ClassVar[EntryKind] = EntryKind.REPLY
    page: str
    step: int
    """Which of its notifications, from 1."""
    delivery: int
    result: str
    """A `domain.page.StepResult`."""
    detail: str | None = None
    """Why it failed, as a code."""

    @property
    def once(self) -> str:
        return f"receipt/{self.delivery}/{self.result}"


class PageAnswered(_Cause, frozen=True, kw_only=True, tag="page-answered"):
    """A page was acknowledged at a far end. actor: the destination, as `destination:NAME`."""

    kind: ClassVar[EntryKind] = EntryKind.REPLY
    page: str
    by: str
    """Who has, as the far end names them."""
    word: str
    """The far end's name for this word of it."""

    @property
    def once(self) -> str:
        return f"answer/{self.actor}/{self.word}"


class RequestSettled(_Cause, frozen=True, kw_only=True, tag="request-settled"):
    """What became of a request for an appointment, and what the scheduling system has answered."""

    TAKEN: ClassVar[str] = "taken"
    REFUSED: ClassVar[str] = "refused"
    UNKNOWN: ClassVar[str] = "unknown"

    kind: ClassVar[EntryKind] = EntryKind.REPLY
    appointment: str
    """Its id."""
    delivery: int
    result: str
    detail: str | None = None
    """Why it was refused, as a code."""
    filler: str | None = None
    """The number that the scheduling system has given it (SCH-2)."""
    filler_authority: str | None = None
    status: str | None = None
    """SCH-25."""
    starts_at: str | None = None
    """SCH-11.4, as it was sent."""

    @property
    def once(self) -> str:
        return f"request/{self.delivery}/{self.result}"


class TextSettled(_Cause, frozen=True, kw_only=True, tag="text-settled"):
    """What became of a text: of its delivery, or what the carrier says of it later, in any order."""

    SENT: ClassVar[str] = "sent"
    DELIVERED: ClassVar[str] = "delivered"
    FAILED: ClassVar[str] = "failed"
    WITHHELD: ClassVar[str] = "withheld"
    HELD: ClassVar[str] = "held"
    """Nobody knows whether it went: a person decides, and a later word says what."""

    kind: ClassVar[EntryKind] = EntryKind.REPLY
    text: str
    """Its id."""
    tries: int
    """Which time it was put into the outbox (`Text.tries`)."""
    result: str
    detail: str | None = None
    """A code: why it was withheld, the carrier's error."""
    receipt: str | None = None
    """The carrier's id of it."""

    @property
    def once(self) -> str:
        return f"text/{self.text}/{self.tries}/{self.result}/{self.detail or ''}"


class TextReceived(_Cause, frozen=True, kw_only=True, tag="text-received"):
    """Somebody has written to us. actor: the destination, as `destination:NAME`. chart_id: one of those that have to
    do with the number (the same words come as a cause for each); none: nobody is known of it.
    """

    kind: ClassVar[EntryKind] = EntryKind.REPLY
    id: str
    """The carrier's id of it."""
    channel: str
    """By what it came: `sms`, `whatsapp`."""
    number: str
    """E.164, from whom."""
    to: str
    """Our own number."""
    text: str
    at: datetime
    """When the carrier says that it was written."""
    answered: str | None = None
    """The carrier has taken it for a word of its own, and has answered: `STOP`, `START`, `HELP`."""
    charts: int = 1
    """How many charts have to do with the number."""
    open_questions: int = 0
    """How many questions are open at the number, in all of these charts."""
    speaks: bool = True
    """It is this one of the charts that answers the patient, so that nobody is answered twice."""

    @property
    def once(self) -> str:
        return f"inbound/{self.actor}/{self.id}/{self.chart_id or ''}"


Act = (
    TaskDone
    | TaskAssigned
    | TaskAttempted
    | TaskSnoozed
    | TaskCancelled
    | TaskUndone
    | PlanMigrated
    | QuestionDismissed
    | QualityResolved
    | QualityReopened
    | PageAcknowledged
    | OnCallOverridden
    | ConsentGiven
    | ConsentRevoked
    | ContactConsentGiven
    | ContactConsentRevoked
)
Cause = Act | Due | UrgentDue | NotificationSettled | PageAnswered | RequestSettled | TextSettled | TextReceived

CAUSES: Final[Mapping[str, type[Cause]]] = {
    "task-done": TaskDone,
    "task-assigned": TaskAssigned,
    "task-attempted": TaskAttempted,
    "task-snoozed": TaskSnoozed,
    "task-cancelled": TaskCancelled,
    "task-undone": TaskUndone,
    "plan-migrated": PlanMigrated,
    "dismiss": QuestionDismissed,
    "quality-resolved": QualityResolved,
    "quality-reopened": QualityReopened,
    "page-ack": PageAcknowledged,
    "oncall-override": OnCallOverridden,
    "consent-given": ConsentGiven,
    "consent-revoked": ConsentRevoked,
    "contact-given": ContactConsentGiven,
    "contact-revoked": ContactConsentRevoked,
    "due": Due,
    "due-urgent": UrgentDue,
    "notification-settled": NotificationSettled,
    "page-answered": PageAnswered,
    "request-settled": RequestSettled,
    "text-settled": TextSettled,
    "text-received": TextReceived,
}
"""By their tag, which is also the action in the audit."""

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Cause] = msgspec.json.Decoder(Cause)


OF_PEOPLE: Final = frozenset(CAUSES) - {
    "due",
    "due-urgent",
    "notification-settled",
    "request-settled",
    "text-settled",
}
"""Those that somebody did: each of them that comes about is on record (`pipeline.rule.Rule.audited`)."""


def action_of(cause: Cause) -> str:
    """The stable verb: `task-done`."""
    return str(cause.__struct_config__.tag)


def written(cause: Cause) -> bytes:
    """The cause as an entry's payload."""
    return _encode(cause)


def read(payload: bytes) -> Cause:
    """The cause that an entry's payload holds. Raises ValueError; its text holds nothing of the payload."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("the payload is no cause that this version knows") from None
