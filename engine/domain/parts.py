"""The parts of a chart, as a table: whatever a patient has many of.

What handles parts alike loops over `PARTS`: loading and writing (with `engine.store.parts`, which says how each is
stored), merges, what differs after an entry, deliveries, masks, `handoff patients show`. A part that is added here, and
as a field of `Chart`, is handled everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import structs

from engine.domain.appointment import Appointment
from engine.domain.chart import Chart, Stamp
from engine.domain.delivery import (
    AppointmentUpsert,
    Content,
    EncounterUpsert,
    Operation,
    PageUpsert,
    ScoreUpsert,
    TaskUpsert,
    TextUpsert,
)
from engine.domain.encounter import Encounter
from engine.domain.medication import Medication
from engine.domain.page import Page
from engine.domain.score import Score
from engine.domain.shapes import (
    appointment_shape,
    encounter_shape,
    medication_shape,
    page_shape,
    patient_shape,
    plain,
    score_shape,
    task_shape,
    text_shape,
)
from engine.domain.task import Task
from engine.domain.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What of a shape is shown unrevealed. The rest is hidden, so that a new field is hidden until someone decides."""

    shown: frozenset[str] | None = frozenset()
    """None: all that is not named below."""
    codes: frozenset[str] = frozenset()
    """Shown when they hold a short code, as they should, and no text."""
    apart: frozenset[str] = frozenset()
    """Codes that are hidden in the record of a patient, and shown where nobody is asked for: in a comparison."""
    days: frozenset[str] = frozenset()
    """Times of which only the day is shown: to the second they say who it is to whoever was there."""
    keys: frozenset[str] = frozenset()
    """Keys of patients or encounters: shown as a pseudonym."""
    inner: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Lists of objects: what of each object is shown."""
    counted: frozenset[str] = frozenset()
    """Lists of which nothing but the length is shown (`factors_masked`): points alone name a condition to whoever
    knows the table."""
    typed: frozenset[str] = frozenset()
    """What a person has typed, if the shape says that a person has closed it (`closed_by`): hidden then."""


def _of_no_stay(_item: Any) -> None:
    return None


def _on_nothing(_item: Any) -> tuple[str | None, ...]:
    return ()


def _plain(item: Any, _patient_key: str) -> dict[str, Any]:
    return plain(item)  # type: ignore[no-any-return]  # a record becomes a dict


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of part. What has no default must be said of each."""

    name: str
    """The field of `Chart` that holds them, and that of the contract's shape: `tasks`."""
    what: str
    """One of them, as its delivery's content, its table and the masks name it: `task`."""
    item: type[Any]
    """A record."""
    key: Callable[[Any], str]
    """An item -> what names it among the patient's own, for ever."""
    stamps: str | None = None
    """The field of `Chart` that holds when each field of an item was last said, by the item's key.

    None: items are not put together from several messages.
    """
    as_of: Callable[[Any], Any] | None = None
    """Of parts without stamps: an item -> what is greater for the version that counts. None: the survivor's counts."""
    stay: Callable[[Any], str | None] = _of_no_stay
    """An item -> the key of the encounter that it is closed with; none: it never is."""
    hangs_on: Callable[[Any], Iterable[str | None]] = _on_nothing
    """An item -> keys of stays, tasks and others of its kind, with any of which it goes to another patient (A44, A45).

    That of its stay need not be among them. What hangs on the person alone (a consent, an opt-out) stays with them.
    """
    shape: Callable[[Any, str], dict[str, Any]] = _plain
    """An item, the patient key -> the contract's shape."""
    mask: Mask = Mask()
    """Nothing is shown, until someone decides."""

    def of(self, chart: Chart) -> tuple[Any, ...]:
        return getattr(chart, self.name)  # type: ignore[no-any-return]

    def stamps_of(self, chart: Chart) -> dict[str, dict[str, Stamp]]:
        """By key of the item."""
        return getattr(chart, self.stamps) if self.stamps is not None else {}

    def fields(self, items: Sequence[Any], stamps: Mapping[str, dict[str, Stamp]] | None = None) -> dict[str, Any]:
        """The fields of a chart that has these items. stamps: of any; those of other items are left out."""
        fields: dict[str, Any] = {self.name: tuple(items)}
        if self.stamps is not None:
            known = stamps or {}
            fields[self.stamps] = {key: known[key] for key in map(self.key, items) if key in known}
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredPart(Part):
    """A part that destinations hear of."""

    operation: Operation
    content: Callable[[Any, str], Content]
    """An item, the patient key -> what a destination is told of it as it is."""


def score_key(score: Score) -> str:
    return f"{score.encounter}/{score.model}"


def stay_of_score(key: str) -> str | None:
    """The encounter's key in that of a score."""
    stay = key.rpartition("/")[0]
    return None if stay == str(None) else stay


def _encounter_key(encounter: Encounter) -> str:
    return encounter.key


def _stay(item: Score | Task | Page | Text) -> str | None:
    return item.encounter


def _task_key(task: Task) -> str:
    return task.id


def _page_key(page: Page) -> str:
    return page.id


def _text_key(text: Text) -> str:
    return text.id


def _medication_key(medication: Medication) -> str:
    return medication.id


def _appointment_key(appointment: Appointment) -> str:
    return appointment.id


ENCOUNTERS: Final = DeliveredPart(
    name="encounters",
    what="encounter",
    item=Encounter,
    key=_encounter_key,
    stamps="encounter_stamps",
    stay=_encounter_key,
    shape=lambda encounter, _patient_key: encounter_shape(encounter),
    mask=Mask(
        shown=frozenset({"status", "time_sources", "discharges", "in_transit", "discharge_pending"}),
        codes=frozenset({"class", "admission_type", "disposition"}),
        apart=frozenset({"hospital_service"}),  # that of psychiatry or oncology names a condition
        days=frozenset({
            "admitted_at", "discharged_at", "expected_admission_at", "expected_discharge_at", "leave_began_at",
            "leave_return_expected_at",
        }),
        keys=frozenset({"key", "merged_into"}),
    ),
    operation=Operation.UPSERT_ENCOUNTER,
    content=lambda encounter, patient_key: EncounterUpsert(patient_key=patient_key, encounter=encounter),
)  # fmt: skip

SCORES: Final = DeliveredPart(
    name="scores",
    what="score",
    item=Score,
    key=score_key,
    as_of=lambda score: score.scored_at,
    stay=_stay,
    shape=lambda score, _patient_key: score_shape(score),
    mask=Mask(shown=None, keys=frozenset({"encounter"}), counted=frozenset({"factors"})),
    operation=Operation.UPSERT_SCORE,
    content=lambda score, patient_key: ScoreUpsert(patient_key=patient_key, score=score),
)

TASKS: Final = DeliveredPart(
    name="tasks",
    what="task",
    item=Task,
    key=_task_key,
    as_of=lambda task: (task.ended_at is not None, task.ended_at or task.created_at),
    stay=_stay,
    shape=task_shape,
    mask=Mask(
        shown=None,
        keys=frozenset({"encounter", "patient_key", "suspended_by"}),
        inner={"attempts": frozenset({"at", "by", "how", "result"})},
        typed=frozenset({"end_reason", "evidence"}),
    ),
    operation=Operation.UPSERT_TASK,
    content=TaskUpsert.of,
)

PAGES: Final = DeliveredPart(
    name="pages",
    what="page",
    item=Page,
    key=_page_key,
    as_of=lambda page: (page.ended_at or page.acknowledged_at or page.raised_at, len(page.steps)),
    stay=_stay,
    shape=page_shape,
    mask=Mask(shown=None, keys=frozenset({"encounter", "patient_key"})),
    operation=Operation.UPSERT_PAGE,
    content=PageUpsert.of,
)

APPOINTMENTS: Final = DeliveredPart(
    name="appointments",
    what="appointment",
    item=Appointment,
    key=_appointment_key,
    stamps="appointment_stamps",
    hangs_on=lambda item: (item.visit, item.task, item.replaces, item.replaced_by),
    shape=appointment_shape,
    mask=Mask(
        shown=frozenset({
            "id", "status", "starts_at", "ends_at", "earliest", "latest", "opened_by", "opened_at", "told_by",
            "replaces", "replaced_by", "task", "said", "said_at", "unheard_at",
            "request", "requested_for",
        }),
        keys=frozenset({"patient_key", "visit", "kept_by"}),
    ),
    operation=Operation.UPSERT_APPOINTMENT,
    content=AppointmentUpsert.of,
)  # fmt: skip

TEXTS: Final = DeliveredPart(
    name="texts",
    what="text",
    item=Text,
    key=_text_key,
    as_of=lambda text: (text.ended_at is not None, text.tries, text.sent_at is not None, len(text.replies)),
    stay=_stay,
    hangs_on=lambda text: (text.appointment,),
    shape=text_shape,
    mask=Mask(
        shown=frozenset({
            "id", "series", "step", "purpose", "channel", "appointment", "language", "state", "reason", "detail",
            "planned_for", "due_at", "sent_at", "delivered_at", "ended_at", "answer_by", "segments", "destination",
        }),
        keys=frozenset({"encounter", "patient_key"}),
        inner={"replies": frozenset({"at", "meaning"})},
    ),
    operation=Operation.UPSERT_TEXT,
    content=TextUpsert.of,
)  # fmt: skip

MEDICATIONS: Final = Part(
    name="medications",
    what="medication",
    item=Medication,
    key=_medication_key,
    as_of=lambda one: one.said_at,
    shape=medication_shape,
    mask=Mask(shown=frozenset({"id", "state", "on", "written_at", "filled_at"}), keys=frozenset({"encounter"})),
)

PARTS: Final[tuple[Part, ...]] = (ENCOUNTERS, SCORES, TASKS, APPOINTMENTS, PAGES, TEXTS, MEDICATIONS)
"""In the order in which a destination hears of them: a stay before what is of it."""
DELIVERED: Final = tuple(part for part in PARTS if isinstance(part, DeliveredPart))


def united(charts: Sequence[Chart], parts: Sequence[Part] = PARTS) -> Chart:
    """The first chart with the parts of all of them, in their order, each item once.

    Two charts may have the same item, because the hospital has booked an appointment again under the number that is
    left. Then each of its fields is as it was said last, and what has no stamp is as in the version that was spoken of
    last. Of parts without stamps the later version counts (`Part.as_of`). Of two that are equally late it is that of
    the first chart. So it does not matter in which order charts are merged, nor how often.
    """
    fields: dict[str, Any] = {}
    for part in parts:
        fields |= _united(part, charts)
    return structs.replace(charts[0], **fields)


def folded(survivor: Chart, merged: Chart, parts: Sequence[Part] = PARTS) -> tuple[Chart, Chart]:
    """Two charts after all parts of the second one have gone to the first."""
    empty: dict[str, Any] = {}
    for part in parts:
        empty |= part.fields(())
    return united((survivor, merged), parts), structs.replace(merged, **empty)


def stamps_of(chart: Chart) -> Iterator[Stamp]:
    """All stamps of a chart: of the patient, and of what they have."""
    yield from chart.stamps.values()
    for part in PARTS:
        for stamps in part.stamps_of(chart).values():
            yield from stamps.values()


def _united(part: Part, charts: Sequence[Chart]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    stamps: dict[str, dict[str, Stamp]] = {}
    for chart in charts:
        said = part.stamps_of(chart)
        for item in part.of(chart):
            key = part.key(item)
            if key not in items:
                items[key], stamps[key] = item, said.get(key, {})
            elif part.stamps is not None:
                items[key], stamps[key] = by_field(items[key], stamps[key], item, said.get(key, {}))
            elif part.as_of is not None:
                items[key] = max(items[key], item, key=part.as_of)
    return part.fields(tuple(items.values()), {key: said for key, said in stamps.items() if said})


_NEVER: Final[Stamp] = (0.0, 0)


def by_field(
    first: Any, first_stamps: Mapping[str, Stamp], second: Any, second_stamps: Mapping[str, Stamp]
) -> tuple[Any, dict[str, Stamp]]:
    """One item out of two versions of it, and its stamps: each field as it was said last."""
    latest = (max(stamps.values(), default=_NEVER) for stamps in (first_stamps, second_stamps))
    if next(latest) < next(latest):
        first, first_stamps, second, second_stamps = second, second_stamps, first, first_stamps
    newer = {name: at for name, at in second_stamps.items() if at > first_stamps.get(name, _NEVER)}
    changes = {name: getattr(second, name) for name in newer if name in type(second).__struct_fields__}
    return structs.replace(first, **changes), {**first_stamps, **newer}


def chart_shape(chart: Chart) -> dict[str, Any]:
    """The answer of `handoff patients show`."""
    key = chart.patient.key
    return (
        patient_shape(chart.patient)
        | {part.name: [part.shape(item, key) for item in part.of(chart)] for part in PARTS}
        | {"moved_away": [{"encounter": stay, "patient_key": gone.to} for stay, gone in chart.renamed.departed.items()]}
    )
