"""The ledger: what arrived and what became of it, from counts that do not know of each other.

`received` and `duplicates` come from the journal's rows, `refused` from the flag of the entries, `processed`,
`filtered` and `dead` from the outcomes, `pending` from the entries behind the cursor. They add up only when no entry
was lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, literal_column, select, text

from engine.domain.delivery import DeliveryState
from engine.domain.message import EntryKind, EntryState, kind_of
from engine.domain.partition import PARTITIONS
from engine.domain.record import Record
from engine.store.schema import cursor, delivery, entry, from_micros, outcome, repeat

_ARRIVALS: Final = (
    func.count().label("number"),
    func.count().filter(text("ack IN ('AA', 'CA') AND ack_state = 'sent'")).label("acked"),
)
_REFUSED: Final = entry.c.refused == literal_column("1")


class DeliveryCounts(Record, frozen=True, kw_only=True):
    pending: int = 0
    delivered: int = 0
    held: int = 0
    dead: int = 0
    withheld: int = 0


class LedgerLine(Record, frozen=True, kw_only=True):
    """One channel of the ledger. received = refused + filtered + processed + dead + pending + duplicates."""

    channel: str
    """Or the lane of another kind of entry."""
    kind: EntryKind = EntryKind.MESSAGE
    received: int
    """Arrivals: entries and exact duplicates."""
    refused: int
    filtered: int
    processed: int
    dead: int
    pending: int
    duplicates: int
    acked: int
    """Arrivals whose AA or CA has gone out."""
    deliveries: DeliveryCounts
    balanced: bool


def ledger(conn: Connection, channels: Iterable[str] = ()) -> list[LedgerLine]:
    """One line for each channel that has received something, and for those named; lanes come last.

    Needs a reader: one snapshot.
    The charts are read before the journal: what arrives in between is pending, never an outcome without an entry.
    """
    outcomes = _by_state(conn, outcome)
    deliveries = _by_state(conn, delivery)
    entries = _by_channel(conn, entry, *_ARRIVALS, func.count().filter(_REFUSED).label("refused"))
    repeats = _by_channel(conn, repeat, *_ARRIVALS)
    lines: list[LedgerLine] = []
    names = {*channels, *entries, *repeats, *(name for name, _ in outcomes)}
    for channel in sorted(names, key=lambda name: (kind_of(name) is not EntryKind.MESSAGE, name)):
        stored, repeated = entries.get(channel), repeats.get(channel)
        refused = stored.refused if stored else 0
        duplicates = repeated.number if repeated else 0
        received = (stored.number if stored else 0) + duplicates
        unseen = _waiting(conn, channel, _REFUSED)
        waiting = _waiting(conn, channel) - unseen
        states = {state: outcomes.get((channel, state.value), 0) for state in EntryState}
        ended = states[EntryState.FILTERED] + states[EntryState.PROCESSED] + states[EntryState.DEAD]
        lines.append(
            LedgerLine(
                channel=channel,
                kind=kind_of(channel),
                received=received,
                refused=refused,
                filtered=states[EntryState.FILTERED],
                processed=states[EntryState.PROCESSED],
                dead=states[EntryState.DEAD],
                pending=waiting,
                duplicates=duplicates,
                acked=(stored.acked if stored else 0) + (repeated.acked if repeated else 0),
                deliveries=DeliveryCounts(
                    **{state.value: deliveries.get((channel, state.value), 0) for state in DeliveryState}
                ),
                # The second condition: a refused entry has its outcome too, once the processor has come to it.
                balanced=received == refused + ended + waiting + duplicates
                and refused == states[EntryState.REFUSED] + unseen,
            )
        )
    return lines


def pending(conn: Connection, channels: Iterable[str]) -> dict[str, int]:
    """How many entries of each channel wait for the processor, from an index alone; finished ones are not looked at."""
    return {channel: _waiting(conn, channel) for channel in channels}


def oldest_waiting(conn: Connection, channel: str) -> datetime | None:
    """When the oldest entry came that waits for the processor."""
    received = _behind(conn, channel, entry.c.received_at).order_by(entry.c.id).limit(1)
    micros = conn.execute(received).scalar_one_or_none()
    return None if micros is None else from_micros(micros)


def _waiting(conn: Connection, channel: str, *where: ColumnElement[bool]) -> int:
    return int(conn.execute(_behind(conn, channel, func.count()).where(*where)).scalar_one())


def _behind(conn: Connection, channel: str, column: ColumnElement[Any]) -> Select[Any]:
    """Entries behind their partition's cursor. Cursors of idle partitions are lifted now and then (see the processor),
    so that the lowest of them is never far behind.
    """
    cursors = {
        row.partition: row.position
        for row in conn.execute(select(cursor.c.partition, cursor.c.position).where(cursor.c.channel == channel))
    }
    lowest = min((cursors.get(partition, 0) for partition in range(PARTITIONS)), default=0)
    return (
        select(column)
        .select_from(
            entry.outerjoin(cursor, and_(cursor.c.channel == entry.c.channel, cursor.c.partition == entry.c.partition))
        )
        .where(
            entry.c.channel == channel,
            entry.c.id > lowest,
            entry.c.id > func.coalesce(cursor.c.position, literal_column("0")),
        )
    )


def _by_channel(conn: Connection, table: Table, *numbers: ColumnElement[int]) -> dict[str, Row[Any]]:
    """All numbers in one pass: it is the rows that take long, once they are many."""
    statement = select(table.c.channel, *numbers).group_by(table.c.channel)
    return {row.channel: row for row in conn.execute(statement)}


def _by_state(conn: Connection, table: Table) -> dict[tuple[str, str], int]:
    columns = (table.c.channel, table.c.state)
    statement = select(*columns, func.count().label("number")).group_by(*columns)
    return {(row.channel, row.state): row.number for row in conn.execute(statement)}
