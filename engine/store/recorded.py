"""Recorded traffic, to be tried again: which messages a channel received, and whose they are.

Replays are left out: their original stands for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, select

from engine.domain.message import LANES
from engine.domain.record import Record
from engine.store.schema import chart, entry, outcome, to_micros
from engine.store.statements import Listed, Statement

_ROWS_MAX: Final = 5_000
"""Of one look into the journal."""
_OUT_OF_ORDER: Final = timedelta(hours=1)
"""Entries stand in the order of their commits: so far may their times of receipt be out of order."""


class Place(Record, frozen=True, kw_only=True):
    """Where a recorded message belongs."""

    id: int
    partition: int
    chart: str | None
    """None: it has touched no chart."""
    received: int
    """Microseconds since 1970."""


_COLUMNS: Final = (entry.c.id, entry.c.partition, outcome.c.chart_id, entry.c.received_at)
_BEFORE: Final = Statement(
    select(*_COLUMNS, entry.c.replay_of)
    .select_from(entry.outerjoin(outcome, outcome.c.entry_id == entry.c.id))
    .where(entry.c.channel == bindparam("channel"), entry.c.id < bindparam("before"))
    .order_by(entry.c.id.desc())
    .limit(bindparam("count", type_=entry.c.id.type)),
    ("channel", "before", "count"),
)
_OF_CHARTS: Final = Listed(
    outcome.c.chart_id,
    lambda listed: (
        select(*_COLUMNS)
        .select_from(outcome.join(entry, entry.c.id == outcome.c.entry_id))
        .where(
            outcome.c.entry_id < bindparam("before"), listed, entry.c.received_at >= bindparam("since"),
            entry.c.replay_of.is_(None), entry.c.refused == bindparam("refused"),
            *(entry.c.channel != lane for lane in LANES),
        )
    ),
    ("before", "since", "refused"),
)  # fmt: skip
_UP: Final = Listed(
    chart.c.id,
    lambda listed: select(chart.c.id, chart.c.merged_into).where(listed, chart.c.merged_into.is_not(None)),
)
_DOWN: Final = Listed(chart.c.merged_into, lambda listed: select(chart.c.id, chart.c.merged_into).where(listed))


def received(conn: Connection, channel: str, *, since: datetime, until: datetime | None, limit: int) -> Iterator[Place]:
    """The channel's messages of this time, the newest first, at most so many. Needs a reader: looks at both sides."""
    first, last = to_micros(since), to_micros(until) if until is not None else None
    far = to_micros(since - _OUT_OF_ORDER)
    before, left = 1 << 62, limit
    while True:
        rows = _BEFORE.rows(conn, channel, before, _ROWS_MAX)
        for row in rows:
            if row.replay_of is None and row.received_at >= first and (last is None or row.received_at < last):
                yield Place(id=row.id, partition=row.partition, chart=row.chart_id, received=row.received_at)
                left -= 1
                if not left:
                    return
        if len(rows) < _ROWS_MAX or rows[-1].received_at < far:
            return
        before = rows[-1].id


def of_charts(conn: Connection, charts: Collection[str], *, since: datetime, before: int) -> list[Place]:
    """Messages of any channel that touched these charts: received since then, and with a lower id than this."""
    rows = _OF_CHARTS.rows(conn, sorted(charts), before, to_micros(since), 0)
    return [
        Place(id=row.id, partition=row.partition, chart=row.chart_id, received=row.received_at)
        for row in sorted(rows, key=lambda row: row.id)
    ]


def families(conn: Connection, charts: Iterable[str]) -> Mapping[str, str]:
    """These charts and all that they were merged with -> the one that each has ended in."""
    found: dict[str, str] = {}
    """Chart -> what it was merged into."""
    known: set[str] = set()
    new = set(charts)
    while new:
        known |= new
        wanted = sorted(new)
        rows = [*_UP.rows(conn, wanted), *_DOWN.rows(conn, wanted)]
        found |= {row.id: row.merged_into for row in rows}
        new = {one for row in rows for one in (row.id, row.merged_into)} - known
    return {one: _end(one, found) for one in known}


def _end(one: str, merged: Mapping[str, str]) -> str:
    for _ in merged:  # a circle, which somebody has made behind our back, ends somewhere
        if one not in merged:
            break
        one = merged[one]
    return one
