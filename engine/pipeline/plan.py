"""Scores and follow-up tasks of a chart that an event has changed: what is worked out again, and what becomes of it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from engine.care.events import Applied
from engine.care.protocol import end, reconcile, retract_all
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.outcome import Effect
from engine.domain.score import Band, Score
from engine.domain.task import Task, TaskState
from engine.risk.inputs import inputs_of

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

SCORED_CLASSES: Final = frozenset({"I", "OBS"})
"""Inpatient and observation stays: the readmission models were made for these."""

_READMITTING_CLASSES: Final = frozenset({"I", "OBS"})


def rescore(
    before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime
) -> Chart:
    """Work out again every current score that the change can have touched; a score that comes out the same stays."""
    if not channel.models:
        return chart
    changed = _encounters_to_score(before, chart, subject)
    if not changed:
        return chart
    current = {(score.encounter, score.model): score for score in chart.scores}
    for encounter in changed:
        inputs = inputs_of(
            chart, encounter, now=now, observed_since=channel.observed_since, tables=channel.inputs
        )
        for model in channel.models:
            score = msgspec.structs.replace(
                model.score(inputs, now=now, observed_since=channel.observed_since), encounter=encounter.key
            )
            old = current.get((encounter.key, model.name))
            if old is None or not _same_result(old, score):
                current[encounter.key, model.name] = score
    scores = tuple(current.values())
    return chart if scores == chart.scores else msgspec.structs.replace(chart, scores=scores)


def _encounters_to_score(before: Chart | None, chart: Chart, subject: str | None) -> list[Encounter]:
    person_changed = before is None or before.patient is not chart.patient
    planned = {task.encounter for task in chart.tasks if task.state is TaskState.OPEN}
    return [
        encounter
        for encounter in chart.encounters
        if encounter.class_ in SCORED_CLASSES
        and encounter.status in {EncounterStatus.ACTIVE, EncounterStatus.FINISHED, EncounterStatus.ON_LEAVE}
        and (
            encounter.key == subject
            or (person_changed and (encounter.status is EncounterStatus.ACTIVE or encounter.key in planned))
        )
    ]


def _same_result(old: Score, new: Score) -> bool:
    return old == msgspec.structs.replace(new, scored_at=old.scored_at, observed_since=old.observed_since)


def replan(
    before: Chart | None, chart: Chart, applied: Applied, channel: CompiledChannel, now: datetime
) -> Chart:
    """Bring the tasks of the chart into line with its encounters.

    What is wanted follows from the state of the encounter alone, so that the same state never gives a second task. Tasks
    are touched only when something that decides on them has changed: class, disposition, discharge, band or death.
    """
    tasks = {task.id: task for task in chart.tasks}
    if chart.patient.deceased is True:
        ended = retract_all(chart.tasks, why="the patient has died", state=TaskState.CANCELLED)
        return _with_tasks(chart, {task.id: task for task in ended})
    for encounter in chart.encounters:
        if channel.protocol is None or not _decision_changed(before, chart, encounter, channel):
            continue
        existing = tuple(task for task in chart.tasks if task.encounter == encounter.key)
        wanted: tuple[Task, ...] = ()
        why = _why_not(encounter)
        if why is None:
            wanted = channel.protocol.plan(
                chart,
                encounter,
                band=band_of(chart, encounter, channel),
                disposition=channel.dispositions.of(encounter.disposition),
                calendar=channel.calendar,
                now=now,
                key=channel.key,
            )
            why = "the discharge data changed: no longer part of the plan"
        readmission = _readmission(chart, encounter)
        for task in reconcile(existing, wanted, why=why):
            new = task.id not in tasks
            tasks[task.id] = _suspend(task, readmission) if new and readmission is not None else task
    if applied.encounter is not None:
        _suspend_or_resume(chart, tasks, applied)
    return _with_tasks(chart, tasks)


def band_of(chart: Chart, encounter: Encounter, channel: CompiledChannel) -> Band | None:
    """The band that decides on the plan: that of the channel's first model."""
    if not channel.models:
        return None
    name = channel.models[0].name
    return next((s.band for s in chart.scores if s.encounter == encounter.key and s.model == name), None)


def _decision_changed(before: Chart | None, chart: Chart, encounter: Encounter, channel: CompiledChannel) -> bool:
    old = before.encounter(encounter.key) if before is not None else None
    if old is None or before is None:
        return encounter.discharges > 0
    return _decides(before, old, channel) != _decides(chart, encounter, channel)


def _decides(chart: Chart, encounter: Encounter, channel: CompiledChannel) -> tuple[object, ...]:
    return (
        encounter.status,
        encounter.class_,
        encounter.disposition,
        encounter.discharged_at,
        encounter.discharges,
        band_of(chart, encounter, channel),
        chart.patient.deceased,
    )


def _why_not(encounter: Encounter) -> str | None:
    """Why an encounter calls for no plan at all; none: it may call for one."""
    if encounter.status is EncounterStatus.CANCELLED:
        return "the admission was cancelled"
    if encounter.status is not EncounterStatus.FINISHED:
        return "the discharge was cancelled"
    if encounter.discharges == 0:
        return "no discharge was seen"
    return None


def _readmission(chart: Chart, encounter: Encounter) -> Encounter | None:
    """The stay that the patient is in now, when it is not this one: a plan of an earlier stay waits for its end."""
    return next(
        (
            other
            for other in chart.encounters
            if other.key != encounter.key
            and other.status is EncounterStatus.ACTIVE
            and other.class_ in _READMITTING_CLASSES
        ),
        None,
    )


def _suspend(task: Task, by: Encounter) -> Task:
    ended = end(task, TaskState.CANCELLED, why="suspended: the patient was admitted again")
    return msgspec.structs.replace(ended, suspended_by=by.key)


def _suspend_or_resume(chart: Chart, tasks: dict[str, Task], applied: Applied) -> None:
    """A new admission suspends what was planned after an earlier stay; when it is cancelled, that opens again."""
    key = applied.encounter
    encounter = chart.encounter(key) if key else None
    if encounter is None:
        return
    if applied.admitted and encounter.class_ in _READMITTING_CLASSES:
        for task in chart.tasks:
            if task.encounter != key and tasks[task.id].state is TaskState.OPEN:
                tasks[task.id] = _suspend(tasks[task.id], encounter)
    elif applied.admission_cancelled:
        for task in chart.tasks:
            if task.suspended_by == key:
                tasks[task.id] = msgspec.structs.replace(
                    task, state=TaskState.OPEN, suspended_by=None, reason=task.reason.partition(" — suspended:")[0]
                )


def _with_tasks(chart: Chart, tasks: dict[str, Task]) -> Chart:
    after = tuple(tasks.values())
    return chart if after == chart.tasks else msgspec.structs.replace(chart, tasks=after)


def task_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    old = {task.id: task.state for task in before.tasks} if before is not None else {}
    return [
        Effect(kind=f"task-{'created' if task.id not in old else task.state}", subject=task.id, detail=task.kind)
        for task in chart.tasks
        if old.get(task.id) is not task.state
    ]


def score_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    old = set(map(id, before.scores)) if before is not None else set()
    return [
        Effect(kind="scored", subject=score.encounter or chart.id, detail=f"{score.model} {score.band}")
        for score in chart.scores
        if id(score) not in old
    ]
