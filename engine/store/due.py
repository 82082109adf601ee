"""Charts whose next deadline has come, by the columns that `record` writes with every chart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, select

from engine.domain.message import EntryKind
from engine.domain.record import Record
from engine.store.schema import chart, dead_letter, from_micros, outcome, to_micros
from engine.store.statements import Listed, Statement

URGENT: Final = 0
"""`chart.due_rank` of charts that come first."""
OTHER: Final = 1


class DueChart(Record, frozen=True, kw_only=True):
    """A chart that waits for a time that has come."""

    id: str
    version: int
    at: datetime
    """Its earliest deadline."""
    since: datetime
    """Since when it is to ring: that, or when it was written, with a deadline that was over by then."""
    urgent: bool


class Overdue(NamedTuple):
    """Charts that are due and have not rung."""

    charts: int
    """How many."""
    since: datetime | None
    """Since when the first of them is to ring."""


_DUE: Final = Listed(
    chart.c.partition,
    lambda listed: (
        select(chart.c.id, chart.c.version, chart.c.due_at, chart.c.updated_at)
        .where(chart.c.due_rank == bindparam("rank"), chart.c.due_at <= bindparam("until"), listed)
        .order_by(chart.c.due_at)
        .limit(bindparam("count", type_=chart.c.version.type))
    ),
    ("rank", "until", "count"),
)
_DECIDED: Final = Listed(outcome.c.entry_id, lambda listed: select(outcome.c.entry_id).where(listed))
_FAILED: Final = (
    select(outcome.c.chart_id)
    .select_from(dead_letter.join(outcome, outcome.c.entry_id == dead_letter.c.entry_id))
    .where(
        dead_letter.c.resolved_by.is_(None),
        dead_letter.c.channel == bindparam("lane"),
        outcome.c.chart_id.is_not(None),
    )
)
_UNHEARD: Final = (
    chart.c.due_rank == bindparam("rank"),
    chart.c.due_at <= bindparam("until"),
    chart.c.id.not_in(_FAILED),
)
_NUMBER: Final[ColumnElement[Any]] = func.count().label("number")
_OVERDUE: Final = Statement(select(_NUMBER).where(*_UNHEARD), ("rank", "until", "lane"))
_FIRST: Final = Statement(
    select(chart.c.due_at, chart.c.updated_at).where(*_UNHEARD).order_by(chart.c.due_at).limit(literal_column("100")),
    ("rank", "until", "lane"),
)


def due(conn: Connection, partitions: Collection[int], now: datetime, limit: int, *, urgent: bool) -> list[DueChart]:
    """The charts of these partitions whose deadline has come, oldest first."""
    if not partitions:
        return []
    rank = URGENT if urgent else OTHER
    rows = _DUE.rows(conn, sorted(partitions), rank, to_micros(now), limit)
    return [
        DueChart(
            id=row.id,
            version=row.version,
            at=from_micros(row.due_at),
            since=from_micros(max(row.due_at, row.updated_at)),
            urgent=urgent,
        )
        for row in rows
    ]


def decided(conn: Connection, entries: Sequence[int]) -> set[int]:
    """Those of the entries that have an outcome."""
    return {row.entry_id for row in _DECIDED.rows(conn, entries)}


def overdue(conn: Connection, now: datetime) -> Overdue:
    """Of all partitions. Charts whose ringing has died are not counted: a dead letter says so, until it is resolved."""
    until, lane = to_micros(now), EntryKind.DUE.lane
    ranks = (URGENT, OTHER)
    number = sum(_OVERDUE.scalar(conn, rank, until, lane) for rank in ranks)
    first = [row for rank in ranks for row in _FIRST.rows(conn, rank, until, lane)] if number else []
    since = min((max(row.due_at, row.updated_at) for row in first), default=None)
    return Overdue(number, None if since is None else from_micros(since))
