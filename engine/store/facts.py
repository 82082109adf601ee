"""What rules of admission need to know (`engine.pipeline.admit.Known`), read for a batch at a time.

A fact is a field of `Known` and a line of `_READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import structs
from sqlalchemy import Connection, bindparam, literal_column, select

from engine.domain.chart import Chart
from engine.domain.delivery import Gone, QueuedDelivery
from engine.errors import KeyMissingError, TamperedError
from engine.pipeline.admit import SENT_DAYS, Known
from engine.store import admissions
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.schema import delivery, from_micros, notice, to_micros, word
from engine.store.statements import Listed

_SENT: Final = Listed(
    notice.c.chart_id,
    lambda listed: (
        select(delivery.c.settled_at)
        .join(notice, notice.c.delivery_id == delivery.c.id)
        .where(
            listed,
            delivery.c.destination == bindparam("wanted"),
            delivery.c.state == literal_column("'delivered'"),
            delivery.c.settled_at >= bindparam("since"),
        )
    ),
    ("wanted", "since"),
)
_GONE: Final = Listed(
    notice.c.delivery_id,
    lambda listed: select(notice.c.delivery_id, notice.c.gone).where(listed, notice.c.gone.is_not(None)),
)


class FactStore:
    def __init__(self, keys: KeyRing) -> None:
        self._charts = ChartStore(keys)

    def read(
        self, conn: Connection, batch: Sequence[QueuedDelivery], needs: frozenset[str], now: datetime
    ) -> list[Known]:
        """`Known` of each delivery of a batch to one destination, with the fields that are needed."""
        ids = [queued.id for queued in batch]
        released = admissions.released(conn, ids)
        gone = {row.delivery_id: word(Gone, row.gone, Gone.GROUND) for row in _GONE.rows(conn, ids)}
        readers = [(name, _READERS[name]) for name in sorted(needs)]
        found: list[Known] = []
        for queued in batch:
            known = Known(released=released.get(queued.id, frozenset()), gone=gone.get(queued.id))
            try:
                facts: dict[str, Any] = {name: read(self._charts, conn, queued, now) for name, read in readers}
                known = structs.replace(known, **facts)
            except TamperedError:
                known = structs.replace(known, unreadable="chart-damaged")
            except KeyMissingError:
                known = structs.replace(known, unreadable="key-missing")
            found.append(known)
        return found


def _chart(charts: ChartStore, conn: Connection, queued: QueuedDelivery, _now: datetime) -> Chart | None:
    found = charts.living(conn, queued.delivery.chart_id)
    with suppress(msgspec.DecodeError):  # of what can't be read nothing is sent
        whose = queued.delivery.content.whose if found is not None else None
        if found is not None and whose is not None and all(item.key != whose for item in found.patient.identifiers):
            # The ordering key, which led to the chart, is not sealed.
            raise TamperedError(f"delivery.ordering_key:{queued.id}")
    return found


def _sent_at(charts: ChartStore, conn: Connection, queued: QueuedDelivery, now: datetime) -> tuple[datetime, ...]:
    family = charts.family(conn, {queued.delivery.chart_id})
    since = to_micros(now - timedelta(days=SENT_DAYS))
    rows = _SENT.rows(conn, sorted(family), queued.delivery.destination, since)
    return tuple(sorted(from_micros(row.settled_at) for row in rows))


_READERS: Final[Mapping[str, Callable[[ChartStore, Connection, QueuedDelivery, datetime], Any]]] = {
    "chart": _chart,
    "sent_at": _sent_at,
}
"""By the field of `Known`."""
