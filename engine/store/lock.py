"""The worker's lock: one process at a time works on the charts; a second one waits until the first is gone.

The cursor's compare-and-swap keeps the data right in any case. The lock keeps a second worker from doing all the work
in vain, and from sending what the first one is sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from sqlalchemy import Connection, Engine, text

from engine.errors import StoreUnavailableError
from engine.store.engines import Location, translated, writer_engine
from engine.store.schema import CHARTS

_LOCK: Final = 0x48414E44_57
_ASK_AGAIN_SECONDS: Final = 0.25


class WorkerLock(Protocol):
    def release(self) -> None: ...


@asynccontextmanager
async def worker_lock(location: Location) -> AsyncIterator[None]:
    """Hold the lock; wait for it as long as it takes. Cancel it to stop waiting."""
    while (lock := await asyncio.to_thread(try_worker_lock, location)) is None:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    try:
        yield
    finally:
        lock.release()


def try_worker_lock(location: Location) -> WorkerLock | None:
    """Take the lock if it is free; none: another process has it. It falls when the process ends, however it ends."""
    return _file_lock(location) if location.is_sqlite else _database_lock(location)


class _FileLock:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        os.close(self._handle)


def _file_lock(location: Location) -> _FileLock | None:
    charts = location.file(CHARTS)
    path = charts.with_name(f"{charts.stem}-worker.lock")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailableError(f"{path}: the worker's lock can't be taken: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return _FileLock(handle)


class _DatabaseLock:
    def __init__(self, engine: Engine, conn: Connection) -> None:
        self._engine = engine
        self._conn = conn

    def release(self) -> None:
        with contextlib.suppress(Exception):  # a connection that is lost has lost the lock too
            self._conn.close()
        self._engine.dispose()


def _database_lock(location: Location) -> _DatabaseLock | None:
    engine = writer_engine(location, CHARTS)
    try:
        with translated():
            conn = engine.connect()
            taken = conn.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}).scalar_one()
            conn.commit()  # the lock belongs to the session, and a transaction left open would hold back vacuum
    except BaseException:
        engine.dispose()
        raise
    if taken:
        return _DatabaseLock(engine, conn)
    conn.close()
    engine.dispose()
    return None
