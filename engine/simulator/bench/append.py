"""The second probe: the same bytes appended by plain group commit, with nothing around it; and what one sync costs.

Raw SQLite as the store has it (WAL, `synchronous=FULL`), one writer, groups as large as there are senders: what the
disk and the database allow an engine that does nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from sqlcipher3 import dbapi2 as sqlite


def append_rate(folder: Path, payload: bytes, *, group: int, seconds: float) -> float:
    """Rows a second, `group` rows a transaction."""
    file = folder / f"append-{group}.db"
    connection = sqlite.connect(str(file), isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        rows = [(payload,)] * group
        count = 0
        began = perf_counter()
        until = began + seconds
        while (now := perf_counter()) < until:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO entry (body) VALUES (?)", rows)
            connection.execute("COMMIT")
            count += group
        return count / (now - began)
    finally:
        connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)


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
