"""The ledger: what arrived and what became of it, from counts that do not know of each other.

`received` and `duplicates` come from the journal's rows, `refused` from the flag of the entries, `processed`,
`filtered` and `dead` from the outcomes, `pending` from the entries behind the cursor. They add up only when no entry
was lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, func, literal_column, select, text

from engine.domain.delivery import DeliveryState
from engine.domain.message import EntryKind, EntryState, kind_of
from engine.domain.partition import PARTITIONS
from engine.domain.record import Record
from engine.store import schema
from engine.store.schema import cursor, delivery, entry, from_micros, outcome, repeat
from engine.store.statements import Statement


def _by_channels(table: Table, *numbers: ColumnElement[int], decided: ColumnElement[int] | None = None) -> Statement:
    """All numbers in one pass: it is the rows that take long, once they are many. decided: the entry's number, where
    only those that have an outcome are counted.
    """
    statement = select(table.c.channel, *numbers).group_by(table.c.channel)
    return Statement(statement if decided is None else statement.where(decided.in_(select(outcome.c.entry_id))))


def _by_states(table: Table) -> Statement:
    columns = (table.c.channel, table.c.state)
    return Statement(select(*columns, func.count().label("number")).group_by(*columns))


def _behind(column: ColumnElement[Any]) -> Select[Any]:
    """Of a channel's entries behind their partition's cursor."""
    return (
        select(column)
        .select_from(
            entry.outerjoin(cursor, and_(cursor.c.channel == entry.c.channel, cursor.c.partition == entry.c.partition))
        )
        .where(
            entry.c.channel == bindparam("channel"),
            entry.c.id > bindparam("lowest"),
            entry.c.id > func.coalesce(cursor.c.position, literal_column("0")),
        )
    )


_ARRIVALS: Final = (
    func.count().label("number"),
    func.count().filter(text("ack IN ('AA', 'CA') AND ack_state = 'sent'")).label("acked"),
)
_REFUSED: Final = entry.c.refused == literal_column("1")

_OF_ENTRIES: Final = (*_ARRIVALS, func.count().filter(_REFUSED).label("refused"))
_ENTRIES: Final = _by_channels(entry, *_OF_ENTRIES)
_ENTRIES_DECIDED: Final = _by_channels(entry, *_OF_ENTRIES, decided=entry.c.id)
_REPEATS: Final = _by_channels(repeat, *_ARRIVALS)
_REPEATS_DECIDED: Final = _by_channels(repeat, *_ARRIVALS, decided=repeat.c.entry_id)
_OUTCOMES: Final = _by_states(outcome)
_DELIVERIES: Final = _by_states(delivery)
_ERASED: Final = Statement(select(schema.erased))
_CURSORS: Final = Statement(
    select(cursor.c.partition, cursor.c.position).where(cursor.c.channel == bindparam("channel")), ("channel",)
)
_WAITING: Final = Statement(_behind(func.count()), ("channel", "lowest"))
_WAITING_REFUSED: Final = Statement(_behind(func.count()).where(_REFUSED), ("channel", "lowest"))
_OLDEST_WAITING: Final = Statement(
    _behind(entry.c.received_at).order_by(entry.c.id).limit(literal_column("1")), ("channel", "lowest")
)


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
    erased: int
    """Of the entries, those whose text is erased because it was kept long enough. They are counted above all the same.
    """
    deliveries: DeliveryCounts
    balanced: bool


def ledger(conn: Connection, channels: Iterable[str] = (), *, decided: bool = False) -> list[LedgerLine]:
    """One line for each channel that has received something, and for those named; lanes come last.

    Needs a reader: one snapshot. decided: of the entries that have an outcome alone (in shadow: of no others).
    The charts are read before the journal: what arrives in between is pending, never an outcome without an entry.
    """
    outcomes = _by_state(conn, _OUTCOMES)
    deliveries = _by_state(conn, _DELIVERIES)
    entries = _by_channel(conn, _ENTRIES_DECIDED if decided else _ENTRIES)
    repeats = _by_channel(conn, _REPEATS_DECIDED if decided else _REPEATS)
    erased: dict[str, int] = {row.channel: row.entries for row in _ERASED.rows(conn)}
    lines: list[LedgerLine] = []
    names = {*channels, *entries, *repeats, *(name for name, _ in outcomes)}
    for channel in sorted(names, key=lambda name: (kind_of(name) is not EntryKind.MESSAGE, name)):
        stored, repeated = entries.get(channel), repeats.get(channel)
        refused = stored.refused if stored else 0
        duplicates = repeated.number if repeated else 0
        received = (stored.number if stored else 0) + duplicates
        lowest = _lowest(conn, channel)
        unseen = 0 if decided else _WAITING_REFUSED.scalar(conn, channel, lowest)
        waiting = 0 if decided else _WAITING.scalar(conn, channel, lowest) - unseen
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
                erased=0 if decided else erased.get(channel, 0),
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
    return {channel: _WAITING.scalar(conn, channel, _lowest(conn, channel)) for channel in channels}


def oldest_waiting(conn: Connection, channel: str) -> datetime | None:
    """When the oldest entry came that waits for the processor."""
    row = _OLDEST_WAITING.first(conn, channel, _lowest(conn, channel))
    return None if row is None else from_micros(row.received_at)


def _lowest(conn: Connection, channel: str) -> int:
    """Of the channel's cursors. Cursors of idle partitions are lifted now and then (see the processor), so that it is
    never far behind.
    """
    cursors = {row.partition: row.position for row in _CURSORS.rows(conn, channel)}
    return min((cursors.get(partition, 0) for partition in range(PARTITIONS)), default=0)


def _by_channel(conn: Connection, counted: Statement) -> dict[str, Any]:
    return {row.channel: row for row in counted.rows(conn)}


def _by_state(conn: Connection, counted: Statement) -> dict[tuple[str, str], int]:
    return {(row.channel, row.state): row.number for row in counted.rows(conn)}
