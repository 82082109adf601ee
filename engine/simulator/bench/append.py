"""The second probe: the same bytes appended by plain group commit, with nothing around it; and what one sync costs.

One writer, groups as large as there are senders: what the disk and the database allow an engine that does nothing else.
SQLite is raw, set as the store sets it (WAL, `synchronous=FULL`); PostgreSQL gets each group as one array of one
statement, prepared, in one transaction.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import psycopg
from sqlalchemy.engine import make_url
from sqlcipher3 import dbapi2 as sqlite


def append_rate(folder: Path, payload: bytes, *, group: int, seconds: float, postgresql: str | None = None) -> float:
    """Rows a second, `group` rows a transaction; into a file below `folder`, or the database of a URL."""
    writer = _sqlite(folder, payload, group) if postgresql is None else _postgresql(postgresql, payload, group)
    with writer as append:
        count = 0
        began = perf_counter()
        until = began + seconds
        while (now := perf_counter()) < until:
            append()
            count += group
        return count / (now - began)


@contextlib.contextmanager
def _sqlite(folder: Path, payload: bytes, group: int) -> Iterator[Callable[[], None]]:
    file = folder / f"append-{group}.db"
    connection = sqlite.connect(str(file), isolation_level=None)
    rows = [(payload,)] * group

    def append() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO entry (body) VALUES (?)", rows)
        connection.execute("COMMIT")

    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        yield append
    finally:
        connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def _postgresql(url: str, payload: bytes, group: int) -> Iterator[Callable[[], None]]:
    made = make_url(url).set(drivername="postgresql")
    rows = ([payload] * group,)
    with psycopg.connect(made.render_as_string(hide_password=False), prepare_threshold=0) as connection:
        connection.execute("SET synchronous_commit = on")
        connection.execute("CREATE TABLE probe (id bigserial PRIMARY KEY, body bytea NOT NULL)")
        connection.commit()

        def append() -> None:
            connection.execute("INSERT INTO probe (body) SELECT unnest(%b::bytea[])", rows)
            connection.commit()

        try:
            yield append
        finally:
            connection.rollback()
            connection.execute("DROP TABLE probe")


def sync_milliseconds(folder: Path, *, times: int = 200) -> tuple[float, float]:
    """(median, 99th percentile) of writing 4 KiB behind the others and waiting for the disk."""
    file = folder / "sync"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        took: list[float] = []
        for _ in range(times):
            began = perf_counter()
            os.write(descriptor, b"\0" * 4096)
            os.fdatasync(descriptor)
            took.append((perf_counter() - began) * 1000)
    finally:
        os.close(descriptor)
        file.unlink()
    took.sort()
    return round(took[times // 2], 3), round(took[int(times * 0.99)], 3)
