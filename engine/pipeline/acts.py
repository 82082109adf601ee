"""What people do: one rule for each act, the same for whoever acts from wherever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from engine.care.protocol import TransitionError, end
from engine.domain.cause import (
    Cause,
    QualityDecided,
    QualityReopened,
    QualityResolved,
    QuestionDismissed,
    TaskAssigned,
    TaskDone,
)
from engine.domain.chart import Chart
from engine.domain.outcome import Dismissal, QualityDecision
from engine.domain.quality import QualityState
from engine.domain.task import Task, TaskState
from engine.pipeline.plan import decide_death
from engine.pipeline.rule import Deciding, NotDoneError, Rule


def _done(act: TaskDone, chart: Chart | None, deciding: Deciding) -> Chart:
    def done(task: Task) -> Task:
        try:
            return end(task, TaskState.DONE, at=deciding.at, by=act.actor)
        except TransitionError:
            raise _not_open(task) from None

    return _with_task(chart, act.task, done)


def _assigned(act: TaskAssigned, chart: Chart | None, _deciding: Deciding) -> Chart:
    def assigned(task: Task) -> Task:
        if task.state is not TaskState.OPEN:
            raise _not_open(task)
        return msgspec.structs.replace(task, assignee=act.assignee)

    return _with_task(chart, act.task, assigned)


def _dismissed(act: QuestionDismissed, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None:
        return None
    return decide_death(chart, act.root, act.code, act.location, by=act.actor, at=deciding.at)


def _with_task(chart: Chart | None, task_id: str, change: Callable[[Task], Task]) -> Chart:
    if chart is None or all(task.id != task_id for task in chart.tasks):
        raise NotDoneError("task-unknown", "there is no such task any more")
    tasks = tuple(change(task) if task.id == task_id else task for task in chart.tasks)
    return msgspec.structs.replace(chart, tasks=tasks)


def _not_open(task: Task) -> NotDoneError:
    return NotDoneError("task-not-open", f"the task is not open but {task.state}")


def _of_task(act: TaskDone | TaskAssigned, _chart: Chart | None) -> list[str]:
    return [f"task:{act.task}"]


def _of_question(act: QuestionDismissed, chart: Chart | None) -> list[str]:
    return [f"hold:m{act.hold}", *([f"chart:{chart.id}"] if chart is not None else [])]


def _dismissals(act: QuestionDismissed) -> tuple[Dismissal, ...]:
    return (Dismissal(hold=act.hold, by=act.actor, reason=act.reason or ""),)


def _no_chart(_act: QualityDecided, _chart: Chart | None, _deciding: Deciding) -> None:
    return None


def _of_quality(act: QualityDecided, _chart: Chart | None) -> list[str]:
    return [f"quality:{act.item}"]


def _quality_decisions(act: QualityDecided) -> tuple[QualityDecision, ...]:
    state = QualityState.DONE if isinstance(act, QualityResolved) else QualityState.OPEN
    return (QualityDecision(item=act.item, state=state, by=act.actor, reason=act.reason or ""),)


ACT_RULES: Final[Mapping[type[Cause], Rule]] = {
    TaskDone: Rule(_done, _of_task),
    TaskAssigned: Rule(_assigned, _of_task),
    QuestionDismissed: Rule(_dismissed, _of_question, _dismissals),
    **dict.fromkeys((QualityResolved, QualityReopened), Rule(_no_chart, _of_quality, quality=_quality_decisions)),
}
