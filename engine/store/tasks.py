"""Follow-up tasks across charts: lists for the care team."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, func, literal_column, or_, select

from engine.domain.task import STANDING, Task, TaskState
from engine.errors import TamperedError
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.listed import Damaged, Listed, ListedStore
from engine.store.parts import TASKS, assignee_hash
from engine.store.schema import task, to_micros


class TaskConditions(TypedDict, total=False):
    """Which tasks; absent or none: any."""

    states: Collection[TaskState]
    """Empty: all."""
    kind: str | None
    assignee: str | None
    chart_ids: Sequence[str] | None
    due_from: datetime | None
    due_before: datetime | None
    """Not included."""


class ListedTask(Listed, frozen=True, kw_only=True):
    """A task with the patient it is for."""

    task: Task


class TaskStore(ListedStore[ListedTask]):
    """Reading tasks."""

    def __init__(self, charts: ChartStore) -> None:
        super().__init__(charts, TASKS, task, ListedTask)

    def find(
        self,
        conn: Connection,
        *,
        limit: int | None = 100,
        damaged: Damaged | None = None,
        after: tuple[bool, datetime, str] | None = None,
        **conditions: Unpack[TaskConditions],
    ) -> list[ListedTask]:
        """Tasks that meet all conditions: those that are still to be done first, the most urgent of them first.

        after: those that stand behind this place (`key`).
        """
        where = _where(self._charts.keys, conditions)
        states = conditions.get("states") or (() if after is None else tuple(TaskState))
        if not states:
            ended = task.c.state.not_in([literal_column(f"'{state}'") for state in sorted(STANDING)])
            statement = select(task).where(*where).order_by(ended, task.c.due_at, task.c.id)
            return self._run(conn, statement if limit is None else statement.limit(limit), damaged)
        found: list[ListedTask] = []
        for state in states:  # each is in its order in the index, all of them together are not
            is_ended = state not in STANDING
            if after is not None and is_ended < after[0]:
                continue
            behind = _behind(after) if after is not None and is_ended == after[0] else ()
            own = (*where, *behind, task.c.state == state.value)
            statement = select(task).where(*own).order_by(task.c.due_at, task.c.id)
            found += self._run(conn, statement if limit is None else statement.limit(limit), damaged)
        return sorted(found, key=_urgency)[:limit]

    def key(self, item: ListedTask) -> tuple[bool, datetime, str]:
        """Where it stands in a list."""
        return _urgency(item)

    def count(self, conn: Connection, **conditions: Unpack[TaskConditions]) -> int:
        """How many meet the conditions (see `find`)."""
        return self._count(conn, _where(self._charts.keys, conditions))

    def kinds(self, conn: Connection) -> list[str]:
        """Of all tasks that there are, in order."""
        return list(conn.execute(select(task.c.kind).distinct().order_by(task.c.kind)).scalars())

    def assignees(self, conn: Connection) -> list[str]:
        """Everybody who has a task, in order."""
        one_each = select(func.min(task.c.id)).where(task.c.assignee_hash.is_not(None)).group_by(task.c.assignee_hash)
        found: set[str] = set()
        for row in conn.execute(select(task).where(task.c.id.in_(one_each))):
            with suppress(TamperedError):
                found.add(TASKS.open(self._charts.keys, row).assignee or "")
        return sorted(found)


def _behind(after: tuple[bool, datetime, str]) -> tuple[ColumnElement[bool], ...]:
    due = to_micros(after[1])
    return (task.c.due_at >= due, or_(task.c.due_at > due, task.c.id > after[2]))


def _urgency(item: ListedTask) -> tuple[bool, datetime, str]:
    return not item.task.stands, item.task.due_at, item.task.id


def _where(keys: KeyRing, conditions: TaskConditions) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if states := conditions.get("states"):
        where.append(task.c.state.in_([state.value for state in states]))
    if (kind := conditions.get("kind")) is not None:
        where.append(task.c.kind == kind)
    if (assignee := conditions.get("assignee")) is not None:
        where.append(task.c.assignee_hash == assignee_hash(keys, assignee))
    if (chart_ids := conditions.get("chart_ids")) is not None:
        where.append(task.c.chart_id.in_(chart_ids))
    if (due_from := conditions.get("due_from")) is not None:
        where.append(task.c.due_at >= to_micros(due_from))
    if (due_before := conditions.get("due_before")) is not None:
        where.append(task.c.due_at < to_micros(due_before))
    return where
