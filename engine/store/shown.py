"""Whose the things are that somebody was shown: charts of entries and deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from engine.domain.delivery import chart_of_line
from engine.store.schema import concerned, delivery, outcome
from engine.store.statements import Listed

_OF_ENTRIES: Final = Listed(
    outcome.c.entry_id, lambda listed: select(outcome.c.entry_id, outcome.c.chart_id).where(listed)
)
_CONCERNED: Final = Listed(
    concerned.c.entry_id, lambda listed: select(concerned.c.entry_id, concerned.c.chart_id).where(listed)
)
_OF_DELIVERIES: Final = Listed(
    delivery.c.id, lambda listed: select(delivery.c.id, delivery.c.ordering_key).where(listed)
)


def charts_of_entries(conn: Connection, entry_ids: Sequence[int]) -> dict[int, set[str]]:
    """Of those that are about a chart: a message may be about several (a merge)."""
    found: dict[int, set[str]] = {}
    for statement in (_OF_ENTRIES, _CONCERNED) if entry_ids else ():
        for row in statement.rows(conn, entry_ids):
            if row.chart_id is not None:
                found.setdefault(row.entry_id, set()).add(row.chart_id)
    return found


def charts_of_deliveries(conn: Connection, delivery_ids: Sequence[int]) -> dict[int, list[str]]:
    rows = _OF_DELIVERIES.rows(conn, delivery_ids) if delivery_ids else ()
    return {row.id: [chart_of_line(row.ordering_key)] for row in rows}
