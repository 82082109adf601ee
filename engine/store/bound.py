"""Rows in clear that decide something, and a keyed hash over what each says, written with every change of it.

An open question, a notice and what a rule said of a delivery hold no value of a patient, so they stand in clear.
Without the hash who writes to the database could end a question that nobody has answered, or have a notice never sent.

A change does not vouch for what was altered before it: the hash of such a row stays wrong, and `audit verify` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, select, update

from engine.store.keys import KeyRing
from engine.store.schema import admission, hold, notice


class Bound(NamedTuple):
    """columns: what the hash is over, the row's own key among them, so that it can't be another row's."""

    table: Table
    columns: tuple[str, ...]


HOLD: Final = Bound(
    hold,
    ("root_id", "code", "location", "entry_id", "opened_at", "state", "decided_at", "decided_by", "answered_by"),
)
"""What it is about and until when it waits is where its document is sealed (`holds.hold_place`)."""
NOTICE: Final = Bound(notice, ("delivery_id", "chart_id", "ground", "gone", "gone_at", "gone_by", "awaits"))
ADMISSION: Final = Bound(
    admission,
    ("delivery_id", "destination", "code", "not_before", "said_at", "decision", "decided_at", "decided_by", "released"),
)
BOUND: Final = (HOLD, NOTICE, ADMISSION)


def mac(keys: KeyRing, bound: Bound, row: Mapping[str, Any]) -> bytes:
    """row: its columns by name; one that is missing is NULL."""
    return keys.lookup(bound.table.name, *(_part(row.get(name)) for name in bound.columns))


def _part(value: Any) -> bytes:
    if value is None:
        return b""
    return b"=" + (bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode())


def fits(keys: KeyRing, bound: Bound, row: Any) -> bool:
    """row: of the table, with the columns and `mac`."""
    return mac(keys, bound, {name: getattr(row, name) for name in bound.columns}) == bytes(row.mac)


def renewed(keys: KeyRing, bound: Bound, was: Any, values: Mapping[str, Any]) -> bytes:
    """The hash of a row after a change. was: the row before it."""
    if not fits(keys, bound, was):
        return bytes(was.mac)
    return mac(keys, bound, {name: getattr(was, name) for name in bound.columns} | dict(values))


def change(conn: Connection, keys: KeyRing, bound: Bound, where: ColumnElement[bool], **values: Any) -> int:
    """Change rows. Returns how many there are."""
    table = bound.table
    rows = conn.execute(select(table).where(where).with_for_update()).all()
    for row in rows:
        same = [column == getattr(row, column.name) for column in table.primary_key]
        conn.execute(update(table).where(*same).values(**values, mac=renewed(keys, bound, row, values)))
    return len(rows)
