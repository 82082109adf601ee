"""What becomes of the tasks of a chart by acts of people and by deadlines; the rules are `engine.care.tasks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from engine.care import tasks
from engine.care.proofs import kept_visit, still_shown
from engine.domain.cause import (
    Cause,
    TaskAssigned,
    TaskAttempted,
    TaskCancelled,
    TaskDone,
    TaskSnoozed,
    TaskUndone,
)
from engine.domain.chart import Chart
from engine.domain.task import Attempt, Task
from engine.pipeline.rule import Deciding, NotDoneError, Rule


def with_raised(chart: Chart, raised: Sequence[Task]) -> Chart:
    """The chart with alerts that were raised."""
    return msgspec.structs.replace(chart, tasks=(*chart.tasks, *raised)) if raised else chart


def deadlines(chart: Chart) -> Iterator[datetime]:
    """A source of `engine.pipeline.due`."""
    for task in chart.tasks:
        yield from tasks.deadlines(task)


def calls(chart: Chart) -> bool:
    """Whether somebody is paged when the first deadline of the tasks has come."""
    paging = [at for task in chart.tasks if task.ladder and (at := tasks.calls_at(task)) is not None]
    return bool(paging) and min(paging) <= min(deadlines(chart))


def ring(chart: Chart, deciding: Deciding) -> Chart:
    """What the deadlines of tasks bring about up to now, the oldest of them first."""
    after: list[Task] = []
    raised: list[Task] = []
    known = {task.id: task for task in chart.tasks}
    for task in chart.tasks:
        one, alerts = tasks.rung(task, deciding.now, known)
        after.append(one)
        raised += alerts
    return with_raised(_with(chart, after), raised)


def follow_proofs(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`: visits that were kept show what is done, and no longer when they are not.

    By the chart alone: it does not matter which came first, the visit or the discharge.
    """
    if not chart.tasks or (
        before is not None
        and before.tasks is chart.tasks
        and before.encounters is chart.encounters
        and before.encounter_stamps is chart.encounter_stamps  # somebody has spoken of a visit on its day
        and before.appointments is chart.appointments  # the patient may have missed it
        and before.patient is chart.patient  # a visit may be one to the patient's own doctor
    ):
        return chart
    return _with(chart, (_followed(task, chart, deciding) for task in chart.tasks))


def follow_proofs_taken_back(_before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`: of what is done, before others look at the tasks that stand again."""
    if all(task.proved_by is None for task in chart.tasks):
        return chart
    after = (_followed(task, chart, deciding) if task.proved_by is not None else task for task in chart.tasks)
    return _with(chart, after)


def _followed(task: Task, chart: Chart, deciding: Deciding) -> Task:
    if not task.stands and task.proved_by is None:
        return task
    channel = deciding.channel
    planner = channel.planner_of(task) if channel is not None else None
    visits = planner.protocol.proofs.get(task.kind, ()) if planner is not None else None
    calendar = channel.calendar if channel is not None else None
    if task.proved_by is not None and not still_shown(task, visits, chart, calendar):
        task = tasks.unproved(task)
    if not task.stands or not visits or calendar is None:
        return task
    found = kept_visit(task, visits, chart, calendar=calendar)
    return task if found is None else tasks.proved(task, found[0], at=deciding.now, evidence=found[1])


def follow_alerts(_before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`."""
    return _with(chart, tasks.alerts_follow(chart.tasks, at=deciding.now))


def _with(chart: Chart, after: Iterable[Task]) -> Chart:
    changed = tuple(after)
    same = all(one is other for one, other in zip(changed, chart.tasks, strict=True))
    return chart if same else msgspec.structs.replace(chart, tasks=changed)


# --- acts of people ---

_TaskAct = TaskDone | TaskAssigned | TaskAttempted | TaskSnoozed | TaskCancelled | TaskUndone


def _done(act: TaskDone, chart: Chart | None, deciding: Deciding) -> Chart:
    return _with_task(
        chart, act.task, lambda task: tasks.done(task, by=act.actor, at=deciding.at, evidence=act.evidence)
    )


def _assigned(act: TaskAssigned, chart: Chart | None, deciding: Deciding) -> Chart:
    return _with_task(chart, act.task, lambda task: tasks.assigned(task, act.assignee, by=act.actor, at=deciding.at))


def _attempted(act: TaskAttempted, chart: Chart | None, deciding: Deciding) -> Chart:
    attempt = Attempt(at=deciding.at, by=act.actor, how=act.how, result=act.result, note=act.note)
    raised: list[Task] = []
    known = {task.id: task for task in chart.tasks} if chart is not None else {}

    def attempted(task: Task) -> Task:
        after, alerts = tasks.attempted(task, attempt, known)
        raised.extend(alerts)
        return after

    return with_raised(_with_task(chart, act.task, attempted), raised)


def _snoozed(act: TaskSnoozed, chart: Chart | None, deciding: Deciding) -> Chart:
    return _with_task(chart, act.task, lambda task: tasks.snoozed(task, act.until, by=act.actor, at=deciding.at))


def _cancelled(act: TaskCancelled, chart: Chart | None, deciding: Deciding) -> Chart:
    why = act.reason or ""
    return _with_task(chart, act.task, lambda task: tasks.cancelled(task, by=act.actor, at=deciding.at, why=why))


def _undone(act: TaskUndone, chart: Chart | None, _deciding: Deciding) -> Chart:
    return _with_task(chart, act.task, lambda task: tasks.undone(task, by=act.actor))


def _with_task(chart: Chart | None, task_id: str, change: Callable[[Task], Task]) -> Chart:
    if chart is None or all(task.id != task_id for task in chart.tasks):
        raise NotDoneError("task-unknown", "there is no such task any more")
    try:
        after = tuple(change(task) if task.id == task_id else task for task in chart.tasks)
    except tasks.RefusedError as refused:
        raise NotDoneError(refused.code, str(refused)) from None
    return msgspec.structs.replace(chart, tasks=after)


def _of_task(act: _TaskAct, _chart: Chart | None) -> list[str]:
    return [f"task:{act.task}"]


TASK_RULES: Final[Mapping[type[Cause], Rule]] = {
    TaskDone: Rule(_done, _of_task),
    TaskAssigned: Rule(_assigned, _of_task),
    TaskAttempted: Rule(_attempted, _of_task),
    TaskSnoozed: Rule(_snoozed, _of_task),
    TaskCancelled: Rule(_cancelled, _of_task),
    TaskUndone: Rule(_undone, _of_task),
}
"""Part of `engine.pipeline.acts.ACT_RULES`."""
