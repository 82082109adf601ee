"""The worklist: charts with tasks that are still to be done, by the most urgent of them, from a place on.

A chart stands where its most urgent task does. That is the one before which no other of the same chart comes: an
index of the chart's tasks tells, so a page costs the same wherever in the list it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from engine.domain.record import Record
from engine.domain.task import STANDING
from engine.store.keys import KeyRing
from engine.store.parts import assignee_hash
from engine.store.schema import chart, from_micros, task, to_micros
from engine.store.statements import Listed

_OTHER: Final = task.alias("other")
_VERSIONS: Final = Listed(chart.c.id, lambda listed: select(chart.c.id, chart.c.version).where(listed))
_STATES: Final = tuple(sorted(state.value for state in STANDING))


class Place(Record, frozen=True, kw_only=True):
    """A chart in the list. due_at, task_id: of its most urgent task."""

    chart_id: str
    due_at: datetime
    task_id: str


class WorklistStore:
    """Reading the list."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def find(
        self,
        conn: Connection,
        *,
        limit: int,
        assignee: str | None = None,
        kind: str | None = None,
        due_before: datetime | None = None,
        after: tuple[datetime, str] | None = None,
        damaged: object = None,  # noqa: ARG002 - places hold nothing sealed
    ) -> list[Place]:
        """assignee, kind, due_before: the most urgent task that is so counts. after: those that stand behind it."""
        own = self._where(task, assignee, kind)
        if due_before is not None:
            own.append(task.c.due_at < to_micros(due_before))
        if after is not None:
            due = to_micros(after[0])
            own.append(task.c.due_at >= due)
            own.append(or_(task.c.due_at > due, task.c.id > after[1]))
        earlier = or_(_OTHER.c.due_at < task.c.due_at, and_(_OTHER.c.due_at == task.c.due_at, _OTHER.c.id < task.c.id))
        others = (
            _OTHER.c.chart_id == task.c.chart_id,
            _OTHER.c.state.in_(_STATES),
            earlier,
            *self._where(_OTHER, assignee, kind),
        )
        first = ~select(_OTHER.c.id).where(*others).exists()
        found: list[Place] = []
        for state in _STATES:  # each is in its order in the index, all of them together are not
            statement = (
                select(task.c.chart_id, task.c.due_at, task.c.id)
                .where(*own, task.c.state == state, first)
                .order_by(task.c.due_at, task.c.id)
                .limit(limit)
            )
            rows = conn.execute(statement)
            found += (Place(chart_id=row.chart_id, due_at=from_micros(row.due_at), task_id=row.id) for row in rows)
        return sorted(found, key=self.key)[:limit]

    def versions(self, conn: Connection, chart_ids: Sequence[str]) -> list[tuple[str, int]]:
        """What tells that one of these charts has changed."""
        rows = _VERSIONS.rows(conn, list(chart_ids))
        return sorted((row.id, row.version) for row in rows)

    def key(self, place: Place) -> tuple[datetime, str]:
        """Where it stands in the list."""
        return place.due_at, place.task_id

    def _where(self, table: object, assignee: str | None, kind: str | None) -> list[ColumnElement[bool]]:
        columns = table.c  # type: ignore[attr-defined]
        where: list[ColumnElement[bool]] = []
        if assignee is not None:
            where.append(columns.assignee_hash == assignee_hash(self._keys, assignee))
        if kind is not None:
            where.append(columns.kind == kind)
        return where
