"""What goes out after an entry: one delivery for each object that changed, for each destination that wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import structs

from engine.domain.chart import Chart
from engine.domain.delivery import (
    Content,
    Delivery,
    EncounterUpsert,
    Forward,
    Operation,
    PatientMerge,
    PatientUpsert,
    ScoreUpsert,
    TaskUpsert,
)
from engine.domain.encounter import Encounter
from engine.domain.ids import beginning_like
from engine.domain.message import Entry
from engine.domain.score import Band, Score
from engine.domain.task import Task
from engine.pipeline.plan import ARRIVED, came_at

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

T = TypeVar("T")


class Gone(Exception):  # noqa: N818 - no error: an answer that is rare
    """The object of a delivery is no longer there."""


def chart_deliveries(
    before: Chart | None,
    chart: Chart,
    channel: CompiledChannel,
    *,
    merged: Sequence[Chart] = (),
    kinds: dict[str, None] | None = None,
) -> list[Delivery]:
    """Deliveries for all that differs between two versions of a chart.

    merged: charts that were folded into this one by the entry; destinations hear of each first, and what they held goes
    out again under its new patient. kinds: takes up those of all that differs, also those that no destination wants.
    """
    wanted = channel.settings.takers
    deliveries: list[Delivery] = []
    key = chart.patient.key
    version = str(chart.version)

    def add(operation: Operation, subject: str, content: Content) -> None:
        what = operation.what
        if kinds is not None:
            kinds[what] = None
        destinations = wanted.get(what)
        if not destinations:
            return
        payload = content.encoded()
        for destination in destinations:
            # The chart's version makes the key: the same change replayed has the same key, a later change another one.
            own = channel.key("delivery", destination, operation, chart.id, subject, version)
            deliveries.append(
                Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=chart.id,
                    idempotency_key=beginning_like(chart.id, own),
                    payload=payload,
                )
            )

    if before is None or before.patient != chart.patient:
        add(Operation.UPSERT_PATIENT, "", PatientUpsert.of(chart.patient))
    for folded in merged:
        add(Operation.MERGE_PATIENT, folded.id, PatientMerge(survivor=key, merged=folded.patient.key))
    for encounter in _changed(before.encounters if before else (), chart.encounters, _encounter_key):
        add(Operation.UPSERT_ENCOUNTER, encounter.key, EncounterUpsert(patient_key=key, encounter=encounter))
    first = channel.models[0].name if channel.models else ""
    scores = list(_changed(before.scores if before else (), chart.scores, _score_key))
    deciding = _deciding(chart, first)
    if deciding and deciding not in scores:
        decided = _deciding(before, first)
        if decided and _score_key(deciding) != _score_key(decided):
            scores.append(deciding)  # the later stay is no more: this one speaks for the patient again
    left = set(map(_score_key, chart.scores))
    for score in before.scores if before else ():
        if _score_key(score) not in left:
            add(Operation.UPSERT_SCORE, _score_subject(score), _withdrawn(key, score, decides=deciding is None))
    for score in scores:
        told = ScoreUpsert(patient_key=key, decides=score is deciding, score=score)
        add(Operation.UPSERT_SCORE, _score_subject(score), told)
    for task in _changed(before.tasks if before else (), chart.tasks, _task_key):
        add(Operation.UPSERT_TASK, task.id, TaskUpsert.of(task, key))
    return deliveries


def state_deliveries(
    chart: Chart, channels: Sequence[CompiledChannel], destination: str, *, merged: Sequence[Chart] = ()
) -> list[Delivery]:
    """All that a chart says today, for one destination, in the order in which it must hear it.

    channels: those that the patient was heard of on, the latest first; of what several deliver, the first one's is
    taken. merged: charts that ended in this one and that the destination knows. The idempotency keys are those of a
    change of the chart; who sends it again gives them others.
    """
    found: dict[tuple[Operation, tuple[str | None, ...]], Delivery] = {}
    for channel in channels:
        for item in chart_deliveries(None, chart, channel, merged=merged):
            if item.destination == destination:
                found.setdefault((item.operation, item.content.about), item)
    return sorted(found.values(), key=lambda item: _ORDER.index(item.operation))


_ORDER: Final = (
    Operation.UPSERT_PATIENT,
    Operation.MERGE_PATIENT,
    Operation.UPSERT_ENCOUNTER,
    Operation.UPSERT_SCORE,
    Operation.UPSERT_TASK,
)


def forward_deliveries(entry: Entry, ordering_key: str, channel: CompiledChannel) -> list[Delivery]:
    """The message itself, for destinations that want `message`. A replay has the key of the entry it replays."""
    takers = channel.settings.takers.get("message")
    if not takers:
        return []
    payload = Forward(hl7=entry.payload).encoded()
    root = str(entry.replay_root or entry.id)
    return [
        Delivery(
            destination=destination,
            operation=Operation.FORWARD,
            ordering_key=ordering_key,
            idempotency_key=channel.key("forward", destination, channel.settings.name, root),
            payload=payload,
        )
        for destination in takers
    ]


def as_of_now(chart: Chart, said: Content) -> Content:
    """What a delivery of an object of this patient would say now. Raises Gone when there is no such object any more.

    What was said once (a merge, a message, a notice) stays as it was said.
    """
    key = chart.patient.key
    match said:
        case PatientUpsert():
            return PatientUpsert.of(chart.patient)
        case EncounterUpsert():
            encounter = chart.encounter(said.encounter.key)
            if encounter is None:
                raise Gone
            return EncounterUpsert(patient_key=key, encounter=encounter)
        case ScoreUpsert(score=was):
            deciding = _deciding(chart, was.model)
            score = next((score for score in chart.scores if _score_key(score) == _score_key(was)), None)
            if score is None:
                return _withdrawn(key, was, decides=said.decides and deciding is None)
            return ScoreUpsert(patient_key=key, decides=said.decides and score is deciding, score=score)
        case TaskUpsert():
            task = next((task for task in chart.tasks if task.id == said.task.id), None)
            if task is None:
                raise Gone
            return TaskUpsert.of(task, key)
        case _:
            return said


def _withdrawn(patient_key: str, was: Score, *, decides: bool) -> ScoreUpsert:
    """A score that a destination has to forget.

    It has no points any more, also for who does not look at `withdrawn`; it decides when no other stands.
    """
    nothing = structs.replace(
        was,
        value=None,
        min=0,
        max=0,
        band=Band.LOW,
        band_max=Band.LOW,
        factors=(),
        missing=(),
        expected_risk_percent=None,
    )
    return ScoreUpsert(patient_key=patient_key, decides=decides, withdrawn=True, score=nothing)


def _deciding(chart: Chart | None, model: str) -> Score | None:
    """The score that speaks for the patient where there is one place for it: the first model's, of the latest stay.

    Otherwise a correction of an old stay would put that stay's risk over the one of today.
    """
    if chart is None:
        return None
    scores = {score.encounter: score for score in chart.scores if score.model == model}
    stays = [stay for stay in chart.encounters if stay.key in scores and stay.status in ARRIVED]
    latest = max(stays, key=_lateness) if len(stays) > 1 else next(iter(stays), None)
    return scores[latest.key] if latest is not None else None


def _lateness(stay: Encounter) -> tuple[float, str]:
    return came_at(stay), stay.key


def _changed(before: tuple[T, ...], after: tuple[T, ...], key: Callable[[T], object]) -> Iterator[T]:
    """Those that are not what they were before, found by key: a chart may hold thousands."""
    if before is after:
        return
    known = {key(item): item for item in before}
    for item in after:
        old = known.get(key(item))
        if old is not item and old != item:
            yield item


def _encounter_key(encounter: Encounter) -> object:
    return encounter.key


def _score_key(score: Score) -> object:
    return score.encounter, score.model


def _score_subject(score: Score) -> str:
    return f"{score.encounter}/{score.model}"


def _task_key(task: Task) -> object:
    return task.id
