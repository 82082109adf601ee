"""Rows of tables as chunks, and back: the same for SQLite and PostgreSQL.

A chunk is a list of rows in MessagePack. Where one ends is decided by the rows themselves, so that after a change the
later chunks are the same as before, and are not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter, sleep
from typing import Any, Final
from zlib import crc32

import msgspec
from sqlalchemy import Connection, Table

from engine.store.schema import CHARTS, metadata

_CHUNK_BYTES_MIN: Final = 32 << 10
_CHUNK_BYTES_MAX: Final = 1 << 20
_ENDS: Final = 0xF
"""One row in sixteen may be the last of a chunk."""
_FETCH_ROWS: Final = 500
_PAUSES: Final = 3
"""On PostgreSQL: so many times as long as the server took for some rows it has nothing to do for us after it. Its
process is not ours to make nicer.
"""
_PAUSE_SECONDS_MAX: Final = 0.05
_ARRAY32: Final = b"\xdd"

_LEFT_OUT: Final = frozenset({"worker", "ticket", "erasure_key"})
"""Who works, and who is logged in (what was revoked since must not be valid again); keys of what may be erased."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode


def tables() -> list[Table]:
    """All that a backup holds. The charts come first: where a side is read later, it is the journal, which then knows
    more and never less.
    """
    found = [table for table in metadata.sorted_tables if table.name not in _LEFT_OUT]
    return sorted(found, key=lambda table: table.schema != CHARTS)


def columns_of(table: Table) -> tuple[str, ...]:
    return tuple(str(column.name) for column in table.columns)


def read_rows(conn: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """In the order of the disk, which is quick, and the same while nothing is changed."""
    names = ", ".join(f'"{name}"' for name in columns_of(table))
    statement = f"SELECT {names} FROM {table.schema}.{table.name}"  # noqa: S608 - names of ours
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        cursor = raw.execute(statement)
    else:
        cursor = raw.cursor(name="handoff_backup")
        cursor.itersize = _FETCH_ROWS
        cursor.execute(statement, binary=True)
    pauses = 0 if conn.dialect.name == "sqlite" else _PAUSES
    try:
        began = perf_counter()
        while rows := cursor.fetchmany(_FETCH_ROWS):
            if pauses:
                sleep(min(pauses * (perf_counter() - began), _PAUSE_SECONDS_MAX))
            yield from rows
            began = perf_counter()
    finally:
        cursor.close()


def chunks(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[bytes, int]]:
    """Each with how many rows it holds."""
    gathered: list[bytes] = []
    size = 0
    for row in rows:
        raw = _encode(tuple(row))
        gathered.append(raw)
        size += len(raw)
        if size >= _CHUNK_BYTES_MIN and (not crc32(raw) & _ENDS or size >= _CHUNK_BYTES_MAX):
            yield join(gathered), len(gathered)
            gathered, size = [], 0
    if gathered:
        yield join(gathered), len(gathered)


def rows_of(chunk: bytes) -> list[tuple[Any, ...]]:
    return _decode(chunk)


def join(rows: Sequence[bytes]) -> bytes:
    """Encoded rows as a chunk."""
    return _ARRAY32 + len(rows).to_bytes(4) + b"".join(rows)
