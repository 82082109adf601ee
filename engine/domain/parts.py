"""The parts of a chart, as a table: whatever a patient has many of.

What handles parts alike loops over `PARTS`: loading and writing (with `engine.store.parts`, which says how each is
stored), merges, what differs after an entry, deliveries, masks, `handoff patients show`. A part that is added here, and
as a field of `Chart`, is handled everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import structs

from engine.domain.chart import Chart
from engine.domain.delivery import Content, EncounterUpsert, Operation, ScoreUpsert, TaskUpsert
from engine.domain.encounter import Encounter
from engine.domain.score import Score
from engine.domain.shapes import encounter_shape, patient_shape, score_shape, task_shape
from engine.domain.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What of a shape is shown unrevealed. The rest is hidden, so that a new field is hidden until someone decides."""

    shown: frozenset[str] | None = frozenset()
    """None: all that is not named below."""
    codes: frozenset[str] = frozenset()
    """Shown when they hold a short code, as they should, and no text."""
    keys: frozenset[str] = frozenset()
    """Keys of patients or encounters: shown as a pseudonym."""
    inner: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Lists of objects: what of each object is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of part."""

    name: str
    """The field of `Chart` that holds them, and that of the contract's shape: `tasks`."""
    what: str
    """One of them, as its delivery's content and the masks name it: `task`."""
    key: Callable[[Any], str]
    """An item -> what names it among the patient's own, for ever."""
    stay: Callable[[Any], str | None]
    """An item -> the key of the encounter that it is closed with; none: it never is."""
    shape: Callable[[Any, str], dict[str, Any]]
    """An item, the patient key -> the contract's shape."""
    mask: Mask
    operation: Operation
    content: Callable[[Any, str], Content]
    """An item, the patient key -> what a destination is told of it as it is."""

    def of(self, chart: Chart) -> tuple[Any, ...]:
        return getattr(chart, self.name)  # type: ignore[no-any-return]


def score_key(score: Score) -> str:
    return f"{score.encounter}/{score.model}"


def stay_of_score(key: str) -> str | None:
    """The encounter's key in that of a score."""
    stay = key.rpartition("/")[0]
    return None if stay == str(None) else stay


def _encounter_key(encounter: Encounter) -> str:
    return encounter.key


def _stay(item: Score | Task) -> str | None:
    return item.encounter


def _task_key(task: Task) -> str:
    return task.id


ENCOUNTERS: Final = Part(
    name="encounters",
    what="encounter",
    key=_encounter_key,
    stay=_encounter_key,
    shape=lambda encounter, _patient_key: encounter_shape(encounter),
    mask=Mask(
        shown=frozenset({"status", "admitted_at", "discharged_at", "time_sources", "discharges"}),
        codes=frozenset({"class", "admission_type", "hospital_service", "disposition"}),
        keys=frozenset({"key"}),
    ),
    operation=Operation.UPSERT_ENCOUNTER,
    content=lambda encounter, patient_key: EncounterUpsert(patient_key=patient_key, encounter=encounter),
)

SCORES: Final = Part(
    name="scores",
    what="score",
    key=score_key,
    stay=_stay,
    shape=lambda score, _patient_key: score_shape(score),
    mask=Mask(shown=None, keys=frozenset({"encounter"}), inner={"factors": frozenset({"name", "points"})}),
    operation=Operation.UPSERT_SCORE,
    content=lambda score, patient_key: ScoreUpsert(patient_key=patient_key, score=score),
)

TASKS: Final = Part(
    name="tasks",
    what="task",
    key=_task_key,
    stay=_stay,
    shape=task_shape,
    mask=Mask(shown=None, keys=frozenset({"encounter", "patient_key", "suspended_by"})),
    operation=Operation.UPSERT_TASK,
    content=TaskUpsert.of,
)

PARTS: Final[tuple[Part, ...]] = (ENCOUNTERS, SCORES, TASKS)
"""In the order in which a destination hears of them: a stay before what is of it."""


def united(charts: Sequence[Chart]) -> Chart:
    """The first chart with the parts of all of them, in their order."""
    parts = {part.name: tuple(item for one in charts for item in part.of(one)) for part in PARTS}
    return structs.replace(charts[0], **parts)


def folded(survivor: Chart, merged: Chart) -> tuple[Chart, Chart]:
    """Two charts after all parts of the second one have gone to the first."""
    stamps = {**merged.encounter_stamps, **survivor.encounter_stamps}
    return (
        structs.replace(united((survivor, merged)), encounter_stamps=stamps),
        structs.replace(merged, encounter_stamps={}, **{part.name: () for part in PARTS}),
    )


def chart_shape(chart: Chart) -> dict[str, Any]:
    """The answer of `handoff patients show`."""
    key = chart.patient.key
    return patient_shape(chart.patient) | {
        part.name: [part.shape(item, key) for item in part.of(chart)] for part in PARTS
    }
