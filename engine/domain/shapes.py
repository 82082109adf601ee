"""Domain objects in the shapes of the contract (`docs/contract.md`): plain values, unmasked.

Deliveries carry these; the command line and the console show them through a mask.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from engine.domain.appointment import Appointment
from engine.domain.codec import text_of
from engine.domain.encounter import Encounter
from engine.domain.medication import Medication
from engine.domain.page import Page, PageState, Step
from engine.domain.patient import Patient
from engine.domain.quality import QualityItem
from engine.domain.record import Phi, Record
from engine.domain.score import Score
from engine.domain.task import ENGINE, OWN_FIELDS, Task
from engine.domain.text import Text, TextState


def plain(value: Any) -> Any:
    """A record as dicts, lists, texts and numbers."""
    return msgspec.to_builtins(value, enc_hook=text_of)


if TYPE_CHECKING:

    class PatientShape(Patient, frozen=True, kw_only=True):
        """A patient as the contract shows one."""

        key: str
else:
    # `key` comes first, and fields of a subclass come last.
    PatientShape = msgspec.defstruct(
        "PatientShape",
        [("key", str), *((field.name, field.type, field.default) for field in structs.fields(Patient))],
        bases=(Phi,),
        module=__name__,
        frozen=True,
        kw_only=True,
        gc=False,
    )


if TYPE_CHECKING:

    class TaskShape(Task, frozen=True, kw_only=True):
        """A task as the contract shows one."""

        patient_key: str
        closed_by: str | None = None
        """The person who ended it; none while it stands, and when a message ended it."""

        @classmethod
        def of(cls, task: Task, patient_key: str) -> TaskShape: ...
else:

    def _of_task(cls: Any, task: Task, patient_key: str) -> Any:
        closed_by = None if task.ended_by == ENGINE else task.ended_by
        more = {"patient_key": patient_key, "closed_by": closed_by}
        return msgspec.convert(structs.asdict(task) | more, cls)  # twice as fast as naming the fields in a call

    TaskShape = msgspec.defstruct(
        "TaskShape",
        [
            *(
                (field.name, field.type, *(() if field.default is msgspec.NODEFAULT else (field.default,)))
                for field in structs.fields(Task)
                if field.name not in OWN_FIELDS
            ),
            ("patient_key", str),
            ("closed_by", str | None, None),
        ],
        bases=(Phi,),
        module=__name__,
        namespace={"of": classmethod(_of_task)},
        frozen=True,
        kw_only=True,
        gc=False,
    )


class StepShape(Record, frozen=True, kw_only=True):
    """A notification of a page as the contract shows one."""

    level: int
    loop: int
    person: str | None
    channel: str | None
    """The destination."""
    at: datetime
    result: str
    result_at: datetime | None
    detail: str | None

    @classmethod
    def of(cls, step: Step) -> StepShape:
        return msgspec.convert(step, cls, from_attributes=True)


class PageShape(Phi, frozen=True, kw_only=True):
    """A page as the contract shows one."""

    id: str
    patient_key: str
    task: str
    kind: str
    encounter: str | None
    ladder: str
    policy_version: str
    roster: str | None
    level: int
    loop: int
    round: int
    state: PageState
    raised_at: datetime
    next_at: datetime | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    on_ladder: bool | None
    ended_at: datetime | None
    end_reason: str | None
    steps: tuple[StepShape, ...]

    @classmethod
    def of(cls, page: Page, patient_key: str) -> PageShape:
        own = {name: getattr(page, name) for name in cls.__struct_fields__ if name in Page.__struct_fields__}
        policy = page.policy
        of_policy = {"ladder": policy.ladder, "policy_version": policy.version, "roster": policy.roster}
        return cls(**own | of_policy | {"patient_key": patient_key, "steps": tuple(map(StepShape.of, page.steps))})


def page_shape(page: Page, patient_key: str) -> dict[str, Any]:
    return plain(PageShape.of(page, patient_key))  # type: ignore[no-any-return]  # a record becomes a dict


def patient_shape(patient: Patient) -> dict[str, Any]:
    return {"key": patient.key, **plain(patient)}


def encounter_shape(encounter: Encounter) -> dict[str, Any]:
    return plain(encounter)  # type: ignore[no-any-return]  # a record becomes a dict


def quality_shape(item: QualityItem) -> dict[str, Any]:
    """A fault of the feed in one message. detail: its field."""
    return {"kind": item.kind.value, "detail": item.detail or None}


def score_shape(score: Score) -> dict[str, Any]:
    return plain(score)  # type: ignore[no-any-return]  # a record becomes a dict


class AppointmentShape(Appointment, frozen=True, kw_only=True):
    """An appointment as the contract shows one."""

    patient_key: str

    @classmethod
    def of(cls, appointment: Appointment, patient_key: str) -> AppointmentShape:
        return cls(**structs.asdict(appointment), patient_key=patient_key)


def appointment_shape(appointment: Appointment, patient_key: str) -> dict[str, Any]:
    return plain(AppointmentShape.of(appointment, patient_key))  # type: ignore[no-any-return]  # a record becomes a dict


def task_shape(task: Task, patient_key: str) -> dict[str, Any]:
    return plain(TaskShape.of(task, patient_key))  # type: ignore[no-any-return]  # a record becomes a dict


class ReplyShape(Phi, frozen=True, kw_only=True):
    at: datetime
    text: str
    meaning: str | None


class TextShape(Phi, frozen=True, kw_only=True):
    """A text as the contract shows one."""

    id: str
    patient_key: str
    series: str
    step: str
    purpose: str
    channel: str
    encounter: str | None
    appointment: str | None
    number: str | None
    language: str | None
    state: TextState
    reason: str | None
    detail: str | None
    planned_for: datetime
    due_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    ended_at: datetime | None
    answer_by: datetime | None
    body: str | None
    segments: int | None
    destination: str | None
    replies: tuple[ReplyShape, ...]

    @classmethod
    def of(cls, text: Text, patient_key: str) -> TextShape:
        own = {name: getattr(text, name) for name in cls.__struct_fields__ if name in Text.__struct_fields__}
        replies = tuple(ReplyShape(at=one.at, text=one.text, meaning=one.meaning) for one in text.replies)
        return cls(**own | {"patient_key": patient_key, "replies": replies})


def text_shape(text: Text, patient_key: str) -> dict[str, Any]:
    return plain(TextShape.of(text, patient_key))  # type: ignore[no-any-return]  # a record becomes a dict


def medication_shape(medication: Medication, _patient_key: str) -> dict[str, Any]:
    """With all its fields: what is absent is null."""
    return {name: plain(getattr(medication, name)) for name in Medication.__struct_fields__}
