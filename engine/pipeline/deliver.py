"""What goes out after an entry: one delivery for each object that changed, for each destination that wants it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, Operation
from engine.domain.encounter import Encounter
from engine.domain.ids import beginning_like
from engine.domain.message import Entry
from engine.domain.score import Band, Score
from engine.domain.shapes import patient_shape, task_shape
from engine.domain.task import Task
from engine.pipeline.plan import ARRIVED, came_at

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


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
    wanted: dict[str, list[str]] = {}
    for deliver in channel.settings.deliver:
        for what in deliver.what:
            wanted.setdefault(what, []).append(deliver.to)
    deliveries: list[Delivery] = []
    key = chart.patient.key
    version = str(chart.version)

    def add(what: str, operation: Operation, subject: str, payload: dict[str, Any]) -> None:
        if kinds is not None:
            kinds[what] = None
        destinations = wanted.get(what)
        if not destinations:
            return
        body = _encode(payload)
        for destination in destinations:
            # The chart's version makes the key: the same change replayed has the same key, a later change another one.
            own = channel.key("delivery", destination, operation, chart.id, subject, version)
            deliveries.append(
                Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=chart.id,
                    idempotency_key=beginning_like(chart.id, own),
                    payload=body,
                )
            )

    if before is None or before.patient != chart.patient:
        add("patient", Operation.UPSERT_PATIENT, "", {"patient": patient_shape(chart.patient)})
    for folded in merged:
        add("patient", Operation.MERGE_PATIENT, folded.id, {"survivor": key, "merged": folded.patient.key})
    for encounter in _changed(before.encounters if before else (), chart.encounters, _encounter_key):
        add("encounter", Operation.UPSERT_ENCOUNTER, encounter.key, {"patient_key": key, "encounter": encounter})
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
            add("score", Operation.UPSERT_SCORE, _score_subject(score), _withdrawn(key, score, deciding))
    for score in scores:
        told = _score_payload(key, score, decides=score is deciding)
        add("score", Operation.UPSERT_SCORE, _score_subject(score), told)
    for task in _changed(before.tasks if before else (), chart.tasks, _task_key):
        add("task", Operation.UPSERT_TASK, task.id, {"task": task_shape(task, key)})
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
                found.setdefault((item.operation, subject(item.operation, item.payload)), item)
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
    root = entry.replay_root or entry.id
    return [
        Delivery(
            destination=deliver.to,
            operation=Operation.FORWARD,
            ordering_key=ordering_key,
            idempotency_key=channel.key("forward", deliver.to, channel.settings.name, str(root)),
            payload=_encode({"hl7": base64.b64encode(entry.payload).decode("ascii")}),
        )
        for deliver in channel.settings.deliver
        if "message" in deliver.what
    ]


def as_of_now(chart: Chart, operation: Operation, payload: bytes) -> bytes:
    """What a delivery of an object of this patient would say now. Raises Gone when there is no such object any more.

    A merge stays as it was told: it is true for ever.
    """
    said = msgspec.json.decode(payload)
    key = chart.patient.key
    now: dict[str, Any]
    match operation:
        case Operation.UPSERT_PATIENT:
            now = {"patient": patient_shape(chart.patient)}
        case Operation.UPSERT_ENCOUNTER:
            encounter = chart.encounter(said["encounter"]["key"])
            if encounter is None:
                raise Gone
            now = {"patient_key": key, "encounter": encounter}
        case Operation.UPSERT_SCORE:
            wanted = (said["score"]["encounter"], said["score"]["model"])
            score = next((score for score in chart.scores if _score_key(score) == wanted), None)
            if score is None:
                was = msgspec.convert(said["score"], Score)
                now = _withdrawn(key, was, _deciding(chart, was.model))
                now["decides"] = bool(said["decides"]) and now["decides"]
            else:
                decides = bool(said["decides"]) and score is _deciding(chart, score.model)
                now = _score_payload(key, score, decides=decides)
        case Operation.UPSERT_TASK:
            task = next((task for task in chart.tasks if task.id == said["task"]["id"]), None)
            if task is None:
                raise Gone
            now = {"task": task_shape(task, key)}
        case _:
            return payload
    return _encode(now)


def subject(operation: Operation, payload: bytes) -> tuple[str | None, ...]:
    """Which object of its patient a delivery is about: the newer of two of one object turns the older into old news."""
    said = msgspec.json.decode(payload)
    match operation:
        case Operation.UPSERT_ENCOUNTER:
            return (said["encounter"]["key"],)
        case Operation.UPSERT_SCORE:
            return (said["score"]["encounter"], said["score"]["model"])
        case Operation.UPSERT_TASK:
            return (said["task"]["id"],)
        case Operation.MERGE_PATIENT:
            return (said["merged"],)
        case _:
            return ()


def patient_key(operation: Operation, payload: bytes) -> str | None:
    """Whose object a delivery is about; none: it is a message."""
    said = msgspec.json.decode(payload)
    key: str | None
    match operation:
        case Operation.UPSERT_PATIENT:
            key = said["patient"]["key"]
        case Operation.UPSERT_TASK:
            key = said["task"]["patient_key"]
        case Operation.MERGE_PATIENT:
            key = said["survivor"]
        case _:
            key = said.get("patient_key")
    return key


def _score_payload(patient_key: str, score: Score, *, decides: bool, withdrawn: bool = False) -> dict[str, Any]:
    return {"patient_key": patient_key, "decides": decides, "withdrawn": withdrawn, "score": score}


def _withdrawn(patient_key: str, was: Score, deciding: Score | None) -> dict[str, Any]:
    """The score of a stay that never was, or is no longer an inpatient's: what a destination holds of it must go.

    It has no points any more, also for who does not look at `withdrawn`; it decides when no other stands.
    """
    nothing = msgspec.structs.replace(
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
    return _score_payload(patient_key, nothing, decides=deciding is None, withdrawn=True)


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
