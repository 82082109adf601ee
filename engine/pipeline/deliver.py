"""What goes out after an entry: one delivery for each object that changed, for each destination that wants it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, Operation
from engine.domain.encounter import Encounter
from engine.domain.message import Entry
from engine.domain.score import Score
from engine.domain.shapes import encounter_shape, patient_shape, plain, task_shape
from engine.domain.task import Task

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

T = TypeVar("T")


def chart_deliveries(
    before: Chart | None, chart: Chart, channel: CompiledChannel, *, merged: Sequence[Chart] = ()
) -> list[Delivery]:
    """Deliveries for all that differs between two versions of a chart.

    merged: charts that were folded into this one by the entry; destinations hear of each first, and what they held goes
    out again under its new patient.
    """
    wanted: dict[str, list[str]] = {}
    for deliver in channel.settings.deliver:
        for what in deliver.what:
            wanted.setdefault(what, []).append(deliver.to)
    deliveries: list[Delivery] = []
    key = chart.patient.key

    def add(what: str, operation: Operation, subject: str, payload: dict[str, Any]) -> None:
        destinations = wanted.get(what)
        if not destinations:
            return
        body = msgspec.json.encode(payload)
        for destination in destinations:
            # The chart's version makes the key: the same change replayed has the same key, a later change another one.
            idempotency_key = channel.key("delivery", destination, operation, chart.id, subject, str(chart.version))
            deliveries.append(
                Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=chart.id,
                    idempotency_key=idempotency_key,
                    payload=body,
                )
            )

    if before is None or before.patient != chart.patient:
        add("patient", Operation.UPSERT_PATIENT, "", {"patient": patient_shape(chart.patient)})
    for folded in merged:
        add("patient", Operation.MERGE_PATIENT, folded.id, {"survivor": key, "merged": folded.patient.key})
    for encounter in _changed(before.encounters if before else (), chart.encounters, _encounter_key):
        payload = {"patient_key": key, "encounter": encounter_shape(encounter)}
        add("encounter", Operation.UPSERT_ENCOUNTER, encounter.key, payload)
    for score in _changed(before.scores if before else (), chart.scores, _score_key):
        # The first model decides on bands and plans: a destination with one field for the risk takes that one.
        decides = score.model == channel.models[0].name if channel.models else False
        subject = f"{score.encounter}/{score.model}"
        add("score", Operation.UPSERT_SCORE, subject, {"patient_key": key, "decides": decides, "score": plain(score)})
    for task in _changed(before.tasks if before else (), chart.tasks, _task_key):
        add("task", Operation.UPSERT_TASK, task.id, {"task": task_shape(task, key)})
    return deliveries


def forward_deliveries(entry: Entry, ordering_key: str, channel: CompiledChannel) -> list[Delivery]:
    """The message itself, for destinations that want `message`. A replay has the key of the entry it replays."""
    root = entry.replay_root or entry.id
    return [
        Delivery(
            destination=deliver.to,
            operation=Operation.FORWARD,
            ordering_key=ordering_key,
            idempotency_key=channel.key("forward", deliver.to, channel.settings.name, str(root)),
            payload=msgspec.json.encode({"hl7": base64.b64encode(entry.payload).decode("ascii")}),
        )
        for deliver in channel.settings.deliver
        if "message" in deliver.what
    ]


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


def _task_key(task: Task) -> object:
    return task.id
