"""Scores and follow-up tasks of a chart that an event has changed: what is worked out again, and what becomes of it."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from engine.care.protocol import end, reconcile, retract_all
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import parse_moment
from engine.domain.outcome import Effect
from engine.domain.score import Band, Score
from engine.domain.task import Task, TaskState
from engine.risk.inputs import inputs_of

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

SCORED_CLASSES: Final = frozenset({"I", "OBS"})
"""Inpatient and observation stays: the readmission models were made for these."""

_READMITTING_CLASSES: Final = frozenset({"I", "OBS"})
_OPEN: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
_ARRIVED: Final = _OPEN | {EncounterStatus.FINISHED}
_SUSPENDED: Final = " — suspended:"


def rescore(before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime) -> Chart:
    """Work out again every current score that the change can have touched; a score that comes out the same stays."""
    if not channel.models:
        return chart
    changed = _encounters_to_score(before, chart, subject)
    if not changed:
        return chart
    current = {(score.encounter, score.model): score for score in chart.scores}
    for encounter in changed:
        inputs = inputs_of(chart, encounter, now=now, observed_since=channel.observed_since, tables=channel.inputs)
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
    """The stay that the event spoke of, and those that still matter and whose patient or history has changed.

    Open stays matter, and those with an open plan; the history are the earlier stays and visits.
    """
    person_changed = before is None or before.patient is not chart.patient
    since = _history_changed_since(before, chart)
    planned = {task.encounter for task in chart.tasks if task.state is TaskState.OPEN}

    def touched(encounter: Encounter) -> bool:
        if encounter.key == subject:
            return True
        if encounter.status is not EncounterStatus.ACTIVE and encounter.key not in planned:
            return False
        if person_changed:
            return True
        admitted = parse_moment(encounter.admitted_at) if since is not None else None
        return since is not None and admitted is not None and admitted > since

    return [e for e in chart.encounters if e.class_ in SCORED_CLASSES and e.status in _ARRIVED and touched(e)]


def _history_changed_since(before: Chart | None, chart: Chart) -> datetime | None:
    """The admission of the earliest encounter that reads differently to a later one; none: none does."""
    old = {encounter.key: encounter for encounter in before.encounters} if before is not None else {}
    moments: list[datetime] = []
    for encounter in chart.encounters:
        was = old.get(encounter.key)
        if was is encounter or (was is not None and _as_history(was) == _as_history(encounter)):
            continue
        for version in (was, encounter):
            admitted = parse_moment(version.admitted_at) if version is not None else None
            if admitted is not None:
                moments.append(admitted)
    return min(moments, default=None)


def _as_history(encounter: Encounter) -> tuple[object, ...]:
    return (
        encounter.status,
        encounter.class_,
        encounter.admitted_at,
        encounter.discharged_at,
        encounter.disposition,
    )


def _same_result(old: Score, new: Score) -> bool:
    return old == msgspec.structs.replace(new, scored_at=old.scored_at, observed_since=old.observed_since)


def replan(before: Chart | None, chart: Chart, channel: CompiledChannel, now: datetime) -> Chart:
    """Bring the tasks of the chart into line with its encounters.

    What is wanted follows from the state of the encounters alone, so that the same state never gives a second task,
    whatever way led to it. Tasks are touched only when something that decides on them has changed: class, disposition,
    discharge, band, death or a readmission.
    """
    if chart.patient.deceased is True:
        ended = retract_all(chart.tasks, why="the patient has died", state=TaskState.CANCELLED)
        return _with_tasks(chart, {task.id: task for task in ended})
    tasks = {task.id: task for task in chart.tasks}
    for encounter in _encounters_to_plan(before, chart, channel):
        # What waits for the end of a readmission is decided on like what is open; whether it goes on waiting, below.
        existing = tuple(_resume(task) for task in chart.tasks if task.encounter == encounter.key)
        wanted: tuple[Task, ...] = ()
        why = _why_not(encounter)
        if why is None:
            if channel.protocol is None:
                continue
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
        tasks |= {task.id: task for task in reconcile(existing, wanted, why=why)}
    _suspend_or_resume(chart, tasks)
    return _with_tasks(chart, tasks)


def band_of(chart: Chart, encounter: Encounter, channel: CompiledChannel) -> Band | None:
    """The band that decides on the plan: that of the channel's first model."""
    return _bands(chart, channel).get(encounter.key)


def _bands(chart: Chart, channel: CompiledChannel) -> dict[str | None, Band]:
    if not channel.models:
        return {}
    name = channel.models[0].name
    return {score.encounter: score.band for score in chart.scores if score.model == name}


def _encounters_to_plan(before: Chart | None, chart: Chart, channel: CompiledChannel) -> list[Encounter]:
    """Those of which something has changed that decides on their plan."""
    if before is None:
        return [encounter for encounter in chart.encounters if encounter.discharges > 0]
    old = {encounter.key: encounter for encounter in before.encounters}
    bands, old_bands = _bands(chart, channel), _bands(before, channel)
    lived_again = before.patient.deceased is True
    changed = []
    for encounter in chart.encounters:
        was = old.get(encounter.key)
        if was is None:
            decides = encounter.discharges > 0
        else:
            decides = (
                lived_again
                or old_bands.get(encounter.key) is not bands.get(encounter.key)
                or (was is not encounter and _decides(was) != _decides(encounter))
            )
        if decides:
            changed.append(encounter)
    return changed


def _decides(encounter: Encounter) -> tuple[object, ...]:
    return (
        encounter.status,
        encounter.class_,
        encounter.disposition,
        encounter.discharged_at,
        encounter.discharges,
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


def _suspend(task: Task, by: str) -> Task:
    ended = end(task, TaskState.CANCELLED, why=f"{_SUSPENDED.removeprefix(' — ')} the patient was admitted again")
    return msgspec.structs.replace(ended, suspended_by=by)


def _resume(task: Task) -> Task:
    if task.suspended_by is None:
        return task
    reason = task.reason.partition(_SUSPENDED)[0]
    return msgspec.structs.replace(task, state=TaskState.OPEN, suspended_by=None, reason=reason)


def _suspend_or_resume(chart: Chart, tasks: dict[str, Task]) -> None:
    """The plan of a stay waits while there is a later one; when that turns out not to have been, the plan goes on.

    Later by when the patient came, not by when we heard of it: an old stay that is heard of late, and one whose end was
    never heard of, take nobody's plan away.
    """
    pending = [task for task in tasks.values() if task.state is TaskState.OPEN or task.suspended_by is not None]
    if not pending:
        return
    came = {encounter.key: _came(encounter) for encounter in chart.encounters}
    stays = sorted(
        (came[encounter.key], encounter.status in _OPEN, encounter.key)
        for encounter in chart.encounters
        if encounter.class_ in _READMITTING_CLASSES and encounter.status in _ARRIVED
    )
    order = [stay[:2] for stay in stays]
    for task in pending:
        # At the same time, the stay that goes on is the later one.
        later = bisect_right(order, (came[task.encounter], False))
        by = stays[later][2] if later < len(stays) else None
        if by == task.suspended_by:
            continue
        task = _resume(task)  # noqa: PLW2901
        tasks[task.id] = task if by is None else _suspend(task, by)


def _came(encounter: Encounter) -> float:
    """When the patient came, in seconds since 1970: admission, else discharge; unknown: now if open, else long ago."""
    moment = parse_moment(encounter.admitted_at) or parse_moment(encounter.discharged_at)
    if moment is not None:
        return moment.timestamp()
    return float("inf") if encounter.status in _OPEN else float("-inf")


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
