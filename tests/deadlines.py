"""A kind of deadline for tests of the clock: an open task rings once, at its time to escalate, and is missed then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec import structs

from engine.domain.chart import Chart
from engine.domain.task import Task, TaskState
from engine.pipeline.due import Source
from engine.pipeline.rule import Deciding

URGENT_KIND = "on_call_page"


def _next_at(chart: Chart) -> Iterator[datetime]:
    return (task.escalate_at for task in chart.tasks if task.state is TaskState.OPEN)


def _ring(chart: Chart, deciding: Deciding) -> Chart:
    def rung(task: Task) -> Task:
        if task.state is not TaskState.OPEN or task.escalate_at > deciding.now:
            return task
        return structs.replace(task, state=TaskState.MISSED, ended_at=deciding.now, ended_by="clock")

    return structs.replace(chart, tasks=tuple(map(rung, chart.tasks)))


def _urgent(chart: Chart) -> bool:
    return any(task.state is TaskState.OPEN and task.kind == URGENT_KIND for task in chart.tasks)


SOURCE = Source(_next_at, _ring, _urgent)
