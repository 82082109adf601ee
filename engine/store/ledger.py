"""The one write path of a side: a thread that takes what is waiting and commits it as one transaction.

Group commit: while one group is on its way to the disk the next one gathers, so many senders share one sync. A unit of
work is a function of a connection and must be re-runnable: when one unit of a group fails, the transaction is rolled
back and the group is halved until the culprit stands alone, so that only it fails.

Deadlocks. Each unit takes its locks in one order (charts, outbox, deliveries), but a group of several takes those of
its second unit after those of its first, and two workers may meet at rows that both make. PostgreSQL then undoes one of
them. That costs neither the session, with the locks and leases that hang on it, nor anybody's work: it is done again,
in halves, for a unit alone keeps the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlcipher3 import dbapi2 as sqlite_driver

from engine.errors import StoreBusyError, StoreUnavailableError
from engine.store.engines import committed_with_warning, translated

T = TypeVar("T")
Item = TypeVar("Item")

_GROUP_UNITS_MAX: Final = 1024
_IDLE_SECONDS: Final = 0.25
"""With nothing to write for so long, the write-ahead log is brought into the database file."""
_WAL_FRAMES_MAX: Final = 16_384
"""...or when it has so many frames (pages of 4 KiB). Writers wait for that meanwhile (measured: 40-160 ms for 64 MiB);
more often would make more of them wait, more rarely would make the files grow."""
_GROUPS_BETWEEN_LOOKS: Final = 16
_BUSY_ATTEMPTS_MAX: Final = 5

_Work = Callable[[Connection], Any]
_Batch = Callable[[Connection, Sequence[Any]], Sequence[Any]]


class _Unit:
    """A piece of work and the one who waits for it."""

    __slots__ = ("batch", "future", "item", "loop", "work")

    def __init__(
        self,
        work: _Work | None,
        batch: _Batch | None,
        item: Any,
        loop: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[Any] | Future[Any],
    ) -> None:
        self.work = work
        self.batch = batch
        self.item = item
        self.loop = loop
        self.future = future


class Ledger:
    """The writer of one side. `write`, `add` and `write_now` return when what they wrote is on disk."""

    def __init__(self, engine: Engine, side: str) -> None:
        self._engine = engine
        self._side = side
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._turn = threading.Lock()
        """Held by who writes a group: our thread, or a caller that found nobody else here."""
        self._closed = False
        self._conn: Connection | None = None
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._groups_since_look = 0
        self._dirty = False
        self._wrote_at = 0.0

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the next group. Raises what it raises, or StoreUnavailableError."""
        return await self.submit(work)

    def submit(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """`write`, for callers in the event loop's thread that do not wait; raises nothing itself."""
        return self._submit(work, None, None)

    async def add(self, batch: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        """Like `write`, for work that many callers do alike: `batch` gets the items of all of them in one call.

        It returns one result for each item, in their order.
        """
        return await self.submit_item(batch, item)

    def submit_item(self, batch: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> asyncio.Future[T]:
        """`add`, for callers in the event loop's thread that do not wait; raises nothing itself."""
        return self._submit(None, batch, item)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Like `write`, for callers without an event loop: waits in this thread, or is the writer itself if none is.

        A change of threads and back costs more than a small transaction.
        """
        future: Future[T] = Future()
        unit = _Unit(work, None, None, None, future)
        if not self._write_here(unit):
            self._put(unit)
        return future.result()

    def close(self) -> None:
        """Finish what is waiting, then stop. What comes later gets StoreUnavailableError."""
        with self._starting:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self._engine.dispose()

    def _submit(self, work: _Work | None, batch: _Batch | None, item: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        try:
            self._put(_Unit(work, batch, item, loop, future))
        except StoreUnavailableError as error:
            future.set_exception(error)
        return future

    def _write_here(self, unit: _Unit) -> bool:
        """Write this unit in the caller's thread; false: others write or wait, and it is to wait with them."""
        if not self._queue.empty() or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._closed or not self._dirty:  # our thread sleeps until it is given work, and would not clear up
                return False
            self._group([unit])
        finally:
            self._turn.release()
        return True

    def _put(self, unit: _Unit) -> None:
        with self._starting:
            if self._closed:
                raise StoreUnavailableError("the store is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"ledger-{self._side}", daemon=True)
                self._thread.start()
            self._queue.put(unit)

    def _run(self) -> None:
        open_for_work = True
        while open_for_work:
            units, open_for_work = self._next_group()
            with self._turn:
                self._group(units)
        with self._turn:
            self._disconnect()

    def _group(self, units: list[_Unit]) -> None:
        try:
            if units:
                self._commit(units)
            if self._is_sqlite:
                self._checkpoint_if_due(idle=not units and time.monotonic() - self._wrote_at >= _IDLE_SECONDS)
        except Exception as error:  # noqa: BLE001 - a writer that dies would leave everybody waiting for ever
            self._disconnect()
            broken = f"the {self._side} writer broke with {type(error).__name__}"
            _settle([(unit, None, StoreUnavailableError(broken)) for unit in units if not unit.future.done()])

    def _next_group(self) -> tuple[list[_Unit], bool]:
        """What is waiting; nothing after an idle while. Also whether there can be more."""
        units: list[_Unit] = []
        try:
            unit = self._queue.get(timeout=_IDLE_SECONDS if self._dirty else None)
            while unit is not None:
                units.append(unit)
                if len(units) >= _GROUP_UNITS_MAX:
                    return units, True
                unit = self._queue.get_nowait()
        except queue.Empty:
            return units, True
        return units, False

    def _commit(self, units: list[_Unit], attempt: int = 1) -> None:
        try:
            results = self._transaction(units)
        except StoreBusyError as error:
            if len(units) > 1:
                self._commit_halves(units)
            elif attempt < _BUSY_ATTEMPTS_MAX:
                self._commit(units, attempt + 1)
            else:
                _settle([(units[0], None, StoreUnavailableError(*error.args))])
        except StoreUnavailableError as error:
            self._disconnect()
            _settle([(unit, None, StoreUnavailableError(*error.args)) for unit in units])
        except Exception as error:  # noqa: BLE001 - whatever a unit raises belongs to its caller
            if len(units) > 1:
                self._commit_halves(units)
            else:
                _settle([(units[0], None, error)])
        else:
            self._dirty = True
            self._wrote_at = time.monotonic()
            self._groups_since_look += 1
            _settle([(unit, result, None) for unit, result in zip(units, results, strict=True)])

    def _commit_halves(self, units: list[_Unit]) -> None:
        middle = len(units) // 2
        self._commit(units[:middle])
        self._commit(units[middle:])

    def _transaction(self, units: list[_Unit]) -> list[Any]:
        results: list[Any] = [None] * len(units)
        batches: dict[_Batch, list[int]] = {}
        for index, unit in enumerate(units):
            if unit.batch is not None:
                batches.setdefault(unit.batch, []).append(index)
        with translated():
            if self._conn is None:
                self._conn = self._engine.connect()
            with self._conn.begin():
                for batch, indexes in batches.items():
                    answers = batch(self._conn, [units[index].item for index in indexes])
                    for index, answer in zip(indexes, answers, strict=True):
                        results[index] = answer
                for index, unit in enumerate(units):
                    if unit.work is not None:
                        results[index] = unit.work(self._conn)
            if not self._is_sqlite and committed_with_warning(self._conn):
                # It is committed here, but a standby that takes over may not have it: to be sent again.
                raise StoreUnavailableError("the database did not wait until its standbys had what was written")
        return results

    def _disconnect(self) -> None:
        """Also after an error: the next group then starts with a new connection."""
        if self._conn is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._conn.invalidate()
                self._conn.close()
            self._conn = None

    def _checkpoint_if_due(self, *, idle: bool) -> None:
        if self._conn is None or not self._dirty or not (idle or self._groups_since_look >= _GROUPS_BETWEEN_LOOKS):
            return
        self._groups_since_look = 0
        try:
            if not idle and self._frames("NOOP") < _WAL_FRAMES_MAX:
                return
            self._frames("PASSIVE")
            self._dirty = False
        except sqlite_driver.Error:
            # What is committed is safe in the log. The next write meets the same trouble, and reports it.
            self._disconnect()

    def _frames(self, mode: str) -> int:
        """Run a checkpoint; NOOP only looks. Returns the frames in the log."""
        assert self._conn is not None  # noqa: S101 - for the type checker; the caller looked
        driver = self._conn.connection.driver_connection
        assert driver is not None  # noqa: S101
        row = driver.execute(f"PRAGMA {self._side}.wal_checkpoint({mode})").fetchone()
        return int(row[1])


def _settle(answers: list[tuple[_Unit, Any, BaseException | None]]) -> None:
    """Tell the waiting ones, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
    for unit, result, error in answers:
        if isinstance(unit.future, Future):
            if error is None:
                unit.future.set_result(result)
            else:
                unit.future.set_exception(error)
        elif unit.loop is not None:
            by_loop.setdefault(unit.loop, []).append((unit.future, result, error))
    for loop, waiting in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in waiting:
        if future.done():  # its waiter was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
