"""What goes out, and what could not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Self

import msgspec

from engine.domain.appointment import Appointment
from engine.domain.codec import decoder, encode
from engine.domain.consent import Marking
from engine.domain.encounter import Encounter
from engine.domain.page import Page
from engine.domain.patient import Patient
from engine.domain.record import Phi, Record
from engine.domain.score import Score
from engine.domain.shapes import AppointmentShape, PageShape, PatientShape, TaskShape, TextShape
from engine.domain.task import Task
from engine.domain.text import Text as PatientText
from engine.errors import Fault


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"
    DEAD = "dead"
    WITHHELD = "withheld"
    """Not sent, because a rule says that it must not be. Nothing has failed; a person may release or dismiss it."""


class DeliveryEvent(StrEnum):
    """What can happen to a delivery in the outbox."""

    STARTED = "started"
    """An attempt is under way."""
    SETTLED = "settled"
    """An attempt has ended, a rule was asked, or a person said what became of it."""
    RELEASED = "released"
    """A person wants a held one to be tried again."""
    PUT_BACK = "put_back"
    """A person wants a dead one to be tried again, or a withheld one to go out."""


DELIVERY_MOVES: Final[Mapping[tuple[DeliveryState, DeliveryEvent], frozenset[DeliveryState]]] = {
    (DeliveryState.PENDING, DeliveryEvent.STARTED): frozenset({DeliveryState.PENDING}),
    (DeliveryState.PENDING, DeliveryEvent.SETTLED): frozenset(DeliveryState),
    (DeliveryState.HELD, DeliveryEvent.SETTLED): frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD}),
    (DeliveryState.HELD, DeliveryEvent.RELEASED): frozenset({DeliveryState.PENDING}),
    (DeliveryState.DEAD, DeliveryEvent.PUT_BACK): frozenset({DeliveryState.PENDING}),
    (DeliveryState.WITHHELD, DeliveryEvent.PUT_BACK): frozenset({DeliveryState.PENDING}),
}
"""All there is: what is delivered stays so."""
UNFINISHED: Final = frozenset(state for state, event in DELIVERY_MOVES if event is DeliveryEvent.SETTLED)
"""States in which it stands in its patient's line."""


class Operation(StrEnum):
    """What a destination is asked to do, and its name in a channel's `deliver.what`."""

    UPSERT_PATIENT = "upsert_patient", "patient"
    UPSERT_ENCOUNTER = "upsert_encounter", "encounter"
    UPSERT_SCORE = "upsert_score", "score"
    UPSERT_TASK = "upsert_task", "task"
    UPSERT_APPOINTMENT = "upsert_appointment", "appointment"
    MERGE_PATIENT = "merge_patient", "patient"
    FORWARD = "forward", "message"
    UPSERT_PAGE = "upsert_page", "page"
    UPSERT_TEXT = "upsert_text", "text"
    REQUEST_APPOINTMENT = "request_appointment", "request"
    CANCEL_APPOINTMENT = "cancel_appointment", "request"
    SEND_TEXT = "send_text", "text"
    NOTIFY = "notify", "notification"
    NOTIFY_END = "notify_end", "notification_end"
    SEND_MAIL = "send_mail", "mail"
    NOTIFY_GLASS = "notify_glass", "glass_notice"

    what: str

    def __new__(cls, value: str, what: str) -> Self:
        made = str.__new__(cls, value)
        made._value_ = value
        made.what = what
        return made


TEST_DATA: Final = "test-data"
"""Why a delivery of test data is withheld from a destination that takes none. Nobody is asked about it."""
NOTHING_SENT: Final = "nothing"
"""What a delivery counts as for the accounting of disclosures that was done without a word to the destination."""
ADDRESSED: Final = frozenset({Operation.NOTIFY, Operation.NOTIFY_END, Operation.NOTIFY_GLASS})
"""Goes to the destinations that the people have whom it is for (`mappings/oncall/`), and not to those of a channel."""
WHAT: Final[tuple[str, ...]] = tuple(
    dict.fromkeys(operation.what for operation in Operation if operation not in ADDRESSED)
)
"""All that `deliver.what` may name. Which of it a type of destination takes, its own file says (`takes`)."""


class Content(Phi, frozen=True, kw_only=True):
    """What a delivery says, as a type. Its JSON is the payload; field names and their order are what is on disk."""

    is_state: ClassVar[bool] = True
    """It says how something is, so a newer one makes it old news. What is said once (a message, a notice) is not."""
    marking: Marking | msgspec.UnsetType = msgspec.UNSET
    """What the copy of a restricted record says of itself; put in when it goes out, never stored."""

    @property
    def about(self) -> tuple[str | None, ...]:
        """Which object of its patient it is about."""
        return ()

    @property
    def whose(self) -> str | None:
        """Key of the patient it names; none: it names nobody outside of its words."""
        return None

    def encoded(self) -> bytes:
        return encode(self)


class PatientUpsert(Content, frozen=True, kw_only=True):
    patient: PatientShape

    @classmethod
    def of(cls, patient: Patient) -> PatientUpsert:
        return cls(patient=msgspec.convert(patient, PatientShape, from_attributes=True))

    @property
    def whose(self) -> str:
        return self.patient.key


class PatientMerge(Content, frozen=True, kw_only=True):
    """One patient's record has become another's. It is true for ever."""

    survivor: str
    """Patient key, as `merged` is."""
    merged: str

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.merged,)

    @property
    def whose(self) -> str:
        return self.survivor


class EncounterUpsert(Content, frozen=True, kw_only=True):
    patient_key: str
    encounter: Encounter

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.encounter.key,)

    @property
    def whose(self) -> str:
        return self.patient_key


class ScoreUpsert(Content, frozen=True, kw_only=True):
    patient_key: str
    decides: bool = True
    """It speaks for the patient where there is one place for a score."""
    withdrawn: bool = False
    """The score of a stay that never was, or is no longer an inpatient's: what a destination holds of it must go."""
    score: Score

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.score.encounter, self.score.model)

    @property
    def whose(self) -> str:
        return self.patient_key


class TaskUpsert(Content, frozen=True, kw_only=True):
    task: TaskShape

    @classmethod
    def of(cls, task: Task, patient_key: str) -> TaskUpsert:
        return cls(task=TaskShape.of(task, patient_key))

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.task.id,)

    @property
    def whose(self) -> str:
        return self.task.patient_key


class PageUpsert(Content, frozen=True, kw_only=True):
    page: PageShape

    @classmethod
    def of(cls, page: Page, patient_key: str) -> PageUpsert:
        return cls(page=PageShape.of(page, patient_key))

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.page.id,)

    @property
    def whose(self) -> str:
        return self.page.patient_key


class AppointmentUpsert(Content, frozen=True, kw_only=True):
    appointment: AppointmentShape

    @classmethod
    def of(cls, appointment: Appointment, patient_key: str) -> AppointmentUpsert:
        return cls(appointment=AppointmentShape.of(appointment, patient_key))

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.appointment.id,)

    @property
    def whose(self) -> str:
        return self.appointment.patient_key


class TextUpsert(Content, frozen=True, kw_only=True):
    text: TextShape

    @classmethod
    def of(cls, text: PatientText, patient_key: str) -> TextUpsert:
        return cls(text=TextShape.of(text, patient_key))

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.text.id,)

    @property
    def whose(self) -> str:
        return self.text.patient_key


class Forward(Content, frozen=True, kw_only=True):
    """The message itself, byte for byte."""

    is_state: ClassVar[bool] = False
    hl7: bytes
    """Base64 in JSON."""
    stay: str | msgspec.UnsetType = msgspec.UNSET
    """Key of the stay that the message is about, where it is known."""


class Ground(Phi, frozen=True, kw_only=True):
    """What a notice hangs on. kind: of `engine.pipeline.grounds.GROUNDS`. key: of the task or stay that it is."""

    kind: str
    key: str


class Gone(StrEnum):
    """Why the ground of a notice has gone, as the code with which the notice is withheld."""

    GROUND = "ground-gone"
    DECEASED = "patient-deceased"
    MERGED = "patient-merged"

    @property
    def final(self) -> bool:
        """Nothing is left for a person to decide. After a merge there is: whether it is right for the survivor."""
        return self is not Gone.MERGED


class Fallen(Phi, frozen=True, kw_only=True):
    """What an entry has taken away from under notices of one chart."""

    chart_id: str
    code: Gone
    grounds: tuple[Ground, ...] | None = None
    """None: whatever they hang on."""


class Spoken(Content, frozen=True, kw_only=True):
    """Words to a person: a text, a page, a mail.

    No upsert: it is said once, nobody is told it again in another form, and after `not_after`, or when its ground has
    gone, it is not sent at all. So it waits for no other delivery, and none waits for it.
    """

    is_state: ClassVar[bool] = False
    id: str
    """Opaque: of the text, notification or mail that it is."""
    not_after: datetime | None = None
    """It is of no use after this moment; none: it always is."""
    not_before: datetime | None = None
    """It is not sent before this moment."""
    ground: Ground | None = None
    """None: it hangs on the patient alone, as all do: on being alive, and not merged into another."""

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.id,)


class Notice(Spoken, frozen=True, kw_only=True):
    """A text or a mail about a patient."""

    patient_key: str
    to: str
    """Number, address or routing key."""
    body: str
    language: str | None = None
    """ISO 639-1; none: the site's."""
    channel: str = "sms"
    """By what it goes: `sms`, `whatsapp`."""
    template: str | None = None
    """What the words are called where they had to be approved (WhatsApp): `SERIES/STEP`; none: they are free."""
    fields: dict[str, str] = {}
    """What stands in the template's places."""

    @property
    def whose(self) -> str:
        return self.patient_key


class Notification(Spoken, frozen=True, kw_only=True):
    """One call of a person on call, who is to acknowledge a page. It goes over pagers and phones: no PHI.

    What a connector needs: `page_id` names the incident at the far end (a dedup key: the same for all calls of a page),
    `id` this one call; `to` and `options` are the person's at the destination; `text` and `link` are what they read.
    """

    page_id: str
    ladder: str
    level: int
    loop: int
    step: int
    """Which of the page's calls it is, from 1."""
    person: str
    """As the roster calls them."""
    to: str | None
    """Number, address or routing key; none: the destination knows."""
    options: dict[str, str] = {}
    text: str
    link: str
    """Path of the page, below the console's address."""
    reason: str
    """Kind of the task that it is for."""
    raised_at: datetime
    acknowledge_by: datetime | None = None
    """Then somebody else is called; none: nobody is."""
    handed_over: bool = False
    """It moves to this person, because they have come on duty."""
    round: int = 0
    """How often the page was raised again."""


class AppointmentRequest(Spoken, frozen=True, kw_only=True):
    """A scheduling system is asked to book a visit. Its `id` is that of the appointment."""

    patient: PatientShape
    appointment: AppointmentShape
    task: TaskShape
    minutes: int | None = None
    """How long it is to be; none: as long as such visits are."""

    @property
    def whose(self) -> str:
        return self.patient.key


class AppointmentRequestEnd(Content, frozen=True, kw_only=True):
    """A visit that was asked for is not wanted any more."""

    is_state: ClassVar[bool] = False
    id: str
    patient: PatientShape
    appointment: AppointmentShape

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.id,)

    @property
    def whose(self) -> str:
        return self.patient.key


class NotificationEnd(Content, frozen=True, kw_only=True):
    """Nobody need be called for a page any more; for destinations that go on calling by themselves. No PHI."""

    is_state: ClassVar[bool] = False
    page_id: str
    to: str | None = None
    """As it was of the notifications that it ends."""
    round: int = 0
    """As it was of the notifications that it ends."""
    state: str
    """`acknowledged` or `resolved`."""
    by: str | None
    """Who has acknowledged; none: it is not needed any more."""
    at: datetime

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.page_id,)


class GlassNotice(Content, frozen=True, kw_only=True):
    """Somebody has broken the glass: told to who watches that, with nothing of the patient and of the words."""

    is_state: ClassVar[bool] = False
    id: str
    """Of the glass, as `handoff audit glasses` lists it."""
    actor: str
    reason: str
    """A code of the file of roles."""
    broken_at: datetime
    ends_at: datetime
    told: tuple[str, ...] = ()
    """Accounts of those who are to be told."""
    reminder: int = 0
    """0: it was just broken; else it waits to be attested, and this is the reminder of that number."""

    @property
    def about(self) -> tuple[str | None, ...]:
        return (self.id, str(self.reminder))


CONTENTS: Final[Mapping[Operation, type[Content]]] = {
    Operation.UPSERT_PATIENT: PatientUpsert,
    Operation.UPSERT_ENCOUNTER: EncounterUpsert,
    Operation.UPSERT_SCORE: ScoreUpsert,
    Operation.UPSERT_TASK: TaskUpsert,
    Operation.UPSERT_APPOINTMENT: AppointmentUpsert,
    Operation.MERGE_PATIENT: PatientMerge,
    Operation.FORWARD: Forward,
    Operation.UPSERT_PAGE: PageUpsert,
    Operation.UPSERT_TEXT: TextUpsert,
    Operation.REQUEST_APPOINTMENT: AppointmentRequest,
    Operation.CANCEL_APPOINTMENT: AppointmentRequestEnd,
    Operation.SEND_TEXT: Notice,
    Operation.NOTIFY: Notification,
    Operation.NOTIFY_END: NotificationEnd,
    Operation.SEND_MAIL: Notice,
    Operation.NOTIFY_GLASS: GlassNotice,
}
"""The content of each operation: the tag of the union is the operation, which is stored beside the payload."""
STATE: Final = frozenset(operation.what for operation, content in CONTENTS.items() if content.is_state)
"""What of `deliver.what` is the state of charts, which can be told again; the rest happens once."""

_DECODE: Final = {operation: decoder(content) for operation, content in CONTENTS.items()}


def line_of_notice(chart_id: str, notice_id: str) -> str:
    """The ordering key of a notice: a line of its own, for one that waits until morning must hold back no other."""
    return f"{chart_id}/{notice_id}"


def chart_of_line(ordering_key: str) -> str:
    return ordering_key.partition("/")[0]


class Delivery(Phi, frozen=True, kw_only=True):
    """A delivery as the pure heart asks for it. The store gives it an id when it is recorded."""

    destination: str
    operation: Operation
    ordering_key: str
    """Chart id: deliveries of one patient to one destination keep their order. Of a notice see `line_of_notice`."""
    idempotency_key: str
    """The same in every replay; at most one delivery is ever recorded under it."""
    payload: bytes
    """The content as JSON: what is stored, and what most destinations pass on as it is."""
    marked: bool = False
    """Something restricts its patient's record, or did: whether it may go is asked of the chart."""
    kept: str | None = None
    """Why it is withheld from the beginning, as a stable code; none: it waits for its turn."""

    @property
    def chart_id(self) -> str:
        """The chart of the patient that it is of; of a message that no chart is concerned with, there is none."""
        return chart_of_line(self.ordering_key)

    @property
    def content(self) -> Content:
        """The payload as a type, read anew each time. Raises msgspec.DecodeError when it does not fit the operation."""
        return _DECODE[self.operation](self.payload)


class QueuedDelivery(Phi, frozen=True, kw_only=True):
    """A delivery in the outbox."""

    id: int
    entry_id: int | None
    """What caused it; none: no entry, a destination was told again."""
    delivery: Delivery
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    created_at: datetime
    error: str | None = None
    """Why the last attempt failed, or why it waits or was withheld, as a stable code."""
    settled_at: datetime | None = None
    """When it was delivered, died, was held or withheld."""
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

    @classmethod
    def of(cls, stage: Stage, fault: Fault) -> DeadLetter:
        return cls(stage=stage, error=fault.error, location=fault.location, detail=fault.text)
