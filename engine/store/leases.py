"""Leases: which worker does what. Each partition, and each destination, is one worker's at a time.

A lease is a lock that falls with the process (SQLite: a byte of a lock file) or with the database session
(PostgreSQL: an advisory lock) that holds it, so there is nothing to time out and nothing to agree on.

Fencing. Two workers can never both write for a partition. On PostgreSQL everything that a worker writes goes through
the very session that holds its locks: when the session is gone, so are the locks, and so is the way to write. `check`
looks, inside the transaction, whether it still runs in that session. The cursors' compare-and-swap and the versions of
the charts stand behind it.

Sharing out. The workers that live are known (SQLite: they are told; PostgreSQL: each keeps a row of its own fresh), and
all work out the same shares from their order: what has the number n belongs to worker n modulo their count. Whoever
holds what is no longer his lets go of it when it is not in use; whoever lacks something asks again, every second.

A worker that hangs keeps its session, and so its locks. When its row has been stale for STALE_SECONDS, the others have
the server end its session (`pg_terminate_backend`), which fences it for good.

That fences what it writes. What it does to a destination no session can fence: when it goes on after it hung, others
may have told the destination newer things meanwhile. So before each call a worker asks its own clock how long ago it
last made sure of its locks (`may_act`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from engine.domain.partition import PARTITIONS
from engine.errors import LeaseLostError, StoreError, StoreUnavailableError
from engine.logs import get_logger
from engine.store.engines import Location, translated, writer_engine
from engine.store.ledger import Ledger
from engine.store.schema import CHARTS

TICK_SECONDS: Final = 1.0
STALE_SECONDS: Final = 5.0
"""A worker that has not been heard of for so long is dead or hangs: others take over what it had."""
_FRESH_SECONDS: Final = STALE_SECONDS * 0.7
"""For this long after its last sign of life a worker can be sure that nobody has taken over what it holds."""
_FIRST_TICK_SECONDS: Final = 0.1
_DESTINATIONS: Final = 1 << 20
"""Destinations get numbers from PARTITIONS up, by a hash of their names; two may share one, and then a worker."""
_SPACE: Final = 0x48414E44
"""PostgreSQL: the first half of our advisory locks."""

_log = get_logger(__name__)


class _Locks(Protocol):
    """Where the locks are. `beat` and the others may be called from different threads."""

    def beat(self) -> tuple[int, int]:
        """Show that we live; our place among the living, and their count. Raises StoreUnavailableError."""
        ...

    def begin(self, conn: Connection) -> None:
        """A session that is to hold nothing yet."""
        ...

    def take(self, conn: Connection | None, number: int) -> bool: ...

    def release(self, conn: Connection | None, number: int) -> None: ...

    def leave(self, conn: Connection | None) -> None:
        """Let go of all, and no longer be a member."""
        ...


class Leases:
    """What this worker holds. `run` keeps it right; the rest may be called from any thread."""

    def __init__(self, locks: _Locks, ledger: Ledger | None, destinations: Collection[str] = ()) -> None:
        """ledger: of the charts, when the locks belong to its session. destinations: see `wanted_destinations`."""
        self._locks = locks
        self._ledger = ledger
        self._destinations = tuple(destinations)
        self._guard = threading.Lock()
        self._beating = threading.Lock()
        self._held: set[int] = set()
        self._unwanted: set[int] = set()
        """Held, but another worker's by right: no use of it begins any more, so that it can be let go of."""
        self._tenures: dict[int, int] = {}
        self._in_use: dict[int, int] = {}
        self._place = (0, 0)
        self._beaten_at = self._held_at = -STALE_SECONDS
        """When the last sign of life, and the last look at what is held, were begun that came through."""
        self._session: Any = None
        self.partitions: frozenset[int] = frozenset()

    def wanted_destinations(self, names: Collection[str]) -> None:
        self._destinations = tuple(names)

    @property
    def destinations(self) -> tuple[str, ...]:
        """Those that are ours now."""
        return tuple(name for name in self._destinations if destination_number(name) in self._held)

    def check(self, conn: Connection, partitions: Collection[int]) -> None:
        """To be called in the transaction that writes for the partitions. Raises LeaseLostError."""
        self._check_session(conn)
        if not self._held.issuperset(partitions):
            raise LeaseLostError("these partitions belong to another worker now")

    def check_destination(self, conn: Connection, name: str) -> None:
        """To be called in the transaction that notes what became of deliveries. Raises LeaseLostError."""
        self._check_session(conn)
        if destination_number(name) not in self._held:
            raise LeaseLostError(f"destination {name} belongs to another worker now")

    def may_act(self, name: str) -> bool:
        """To be asked right before something is done at the destination, which no transaction can undo.

        False: it is another worker's, or may be by now, because we hung or were cut off from the database.
        """
        fresh = time.monotonic() - min(self._beaten_at, self._held_at) < _FRESH_SECONDS
        return destination_number(name) in self._held and (fresh or self._ledger is None)

    @contextmanager
    def destination(self, name: str) -> Iterator[int]:
        """Whether the destination is ours; while in it, it stays so unless the session is lost. 0: it is not.

        Else a number that is another one each time we have come to it: in between it may have been another worker's.
        """
        number = destination_number(name)
        with self._guard:
            ours = number in self._held and number not in self._unwanted
            if ours:
                self._in_use[number] = self._in_use.get(number, 0) + 1
        try:
            yield self._tenures[number] if ours else 0
        finally:
            if ours:
                with self._guard:
                    self._in_use[number] -= 1

    async def run(self, stopping: asyncio.Event, changed: Callable[[], None] = lambda: None) -> None:
        """Take what is ours, again and again, until told to stop. changed: called when there is more or less of it."""
        async with asyncio.TaskGroup() as tasks:  # a sign of life must not wait for a write that waits for a lock
            tasks.create_task(self._beat_forever(stopping))
            tasks.create_task(self._take_forever(stopping, changed))

    async def _beat_forever(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await asyncio.to_thread(self.beat)
            except StoreError as error:
                _log.warning("store not available, no sign of life", exc_info=error)
            await _pause(stopping, TICK_SECONDS)

    async def _take_forever(self, stopping: asyncio.Event, changed: Callable[[], None]) -> None:
        while not stopping.is_set():
            before = self._held.copy()
            pause = TICK_SECONDS
            try:
                await asyncio.to_thread(self.take)
                pause = TICK_SECONDS if self._held else _FIRST_TICK_SECONDS
            except StoreError as error:
                _log.warning("store not available, leases wait", exc_info=error)
                self._lost()
                self._session = None  # whatever the session may still hold is let go of before it is used again
            if before != self._held:
                changed()
            await _pause(stopping, pause)

    def beat(self) -> None:
        """Show that we live, and see who else does. Raises StoreUnavailableError."""
        with self._beating:
            began = time.monotonic()
            self._place = self._locks.beat()
            self._beaten_at = began

    def take(self) -> None:
        """Take once what is ours, and let go of what no longer is. Raises StoreError."""
        if self._ledger is None:
            self._take(None, self._let_go())
            return
        began = time.monotonic()
        session = self._ledger.write_now(self._begin)
        if session is not None:
            self.beat()  # the others must know the session before it holds anything
            self._session = session
        # Before the ledger has it: what it writes in one group with this is checked after that, or was on disk before.
        leaving = self._let_go()
        self._ledger.write_now(lambda conn: self._take(conn, leaving))
        self._held_at = began

    def leave(self) -> None:
        """Let go of everything, at the end."""

        def go(conn: Connection | None) -> None:
            self._locks.leave(conn)
            self._lost()

        with contextlib.suppress(StoreError):  # the end of the process does it as well
            if self._ledger is None:
                go(None)
            else:
                self._ledger.write_now(go)

    def _begin(self, conn: Connection) -> Any:
        """The session, when it is another than before."""
        session = conn.connection.driver_connection
        if session is self._session:
            return None
        self._session = None
        self._lost()
        self._locks.begin(conn)
        return session

    def _wanted(self) -> set[int]:
        rank, count = self._place
        numbers = {*range(PARTITIONS), *map(destination_number, self._destinations)}
        return {number for number in numbers if number % count == rank} if count else self._held.copy()

    def _let_go(self) -> set[int]:
        """What others are to have now; from here on nothing is written for it, and its locks may be released."""
        wanted = self._wanted()
        with self._guard:
            self._unwanted = self._held - wanted
            leaving = {number for number in self._unwanted if not self._in_use.get(number)}
            self._held -= leaving
            self._show()
        return leaving

    def _take(self, conn: Connection | None, leaving: set[int]) -> None:
        if conn is not None:
            self._check_session(conn)
        while leaving:  # once only, also when this is run again: a lock does not come back with a transaction
            self._locks.release(conn, leaving.pop())
        wanted = self._wanted()
        taken = {number for number in sorted(wanted - self._held) if self._locks.take(conn, number)}
        with self._guard:
            self._tenures |= {number: self._tenures.get(number, 0) + 1 for number in taken}
            self._held |= taken
            self._show()

    def _show(self) -> None:
        partitions = frozenset(number for number in self._held if number < PARTITIONS)
        if partitions != self.partitions:
            self.partitions = partitions
            _log.info("partitions of this worker", count=len(partitions))

    def _check_session(self, conn: Connection) -> None:
        if self._ledger is not None and conn.connection.driver_connection is not self._session:
            raise LeaseLostError("the database session that held what is ours is gone")

    def _lost(self) -> None:
        with self._guard:
            self._held.clear()
            self.partitions = frozenset()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def destination_number(name: str) -> int:
    return PARTITIONS + zlib.crc32(name.encode()) % _DESTINATIONS


def file_leases(location: Location, index: int, count: int, destinations: Collection[str] = ()) -> Leases:
    """For worker `index` of `count` on a SQLite store. Raises StoreUnavailableError."""
    return Leases(_FileLocks(location, index, count), None, destinations)


def database_leases(location: Location, ledger: Ledger, name: str, destinations: Collection[str] = ()) -> Leases:
    """For a worker of any number of nodes on a PostgreSQL store. name: its own, which no other has at any time."""
    return Leases(_DatabaseLocks(location, name), ledger, destinations)


class _FileLocks:
    """One byte of a file for each number: the kernel gives a byte to one process, until that ends."""

    def __init__(self, location: Location, index: int, count: int) -> None:
        charts = location.file(CHARTS)
        path = charts.with_name(f"{charts.stem}-worker.lock")
        self._index, self._count = index, count
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"{path}: the workers' lock can't be taken: {error.strerror}") from None

    def beat(self) -> tuple[int, int]:
        return self._index, self._count

    def begin(self, _conn: Connection) -> None:
        """There are no sessions."""

    def take(self, _conn: Connection | None, number: int) -> bool:
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        return True

    def release(self, _conn: Connection | None, number: int) -> None:
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, number)

    def leave(self, _conn: Connection | None) -> None:
        os.close(self._handle)


_SESSION: Final = text(
    """
    SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint AS began
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
    """
)
_BEAT: Final = text(
    """
    INSERT INTO charts.worker (id, backend_pid, backend_start, seen_at)
    VALUES (:id, :pid, :began, extract(epoch FROM clock_timestamp()) * 1000000)
    ON CONFLICT (id) DO UPDATE
    SET backend_pid = excluded.backend_pid, backend_start = excluded.backend_start, seen_at = excluded.seen_at
    """
)
# `now()` is when the transaction began: a server that stood still since then makes nobody stale.
_LIVING: Final = text(
    """
    SELECT id FROM charts.worker
    WHERE seen_at > extract(epoch FROM now()) * 1000000 - :stale ORDER BY id
    """
)
# The start of the session is compared too: the numbers of processes are used again.
_END_STALE: Final = text(
    """
    SELECT count(pg_terminate_backend(activity.pid))
    FROM charts.worker JOIN pg_stat_activity AS activity
      ON activity.pid = backend_pid
     AND (extract(epoch FROM activity.backend_start) * 1000000)::bigint = worker.backend_start
    WHERE seen_at <= extract(epoch FROM now()) * 1000000 - :stale
    """
)
_FORGET_STALE: Final = text(
    """
    DELETE FROM charts.worker WHERE id IN (
        SELECT id FROM charts.worker
        WHERE seen_at <= extract(epoch FROM now()) * 1000000 - :stale FOR UPDATE SKIP LOCKED
    )
    """
)
# The server's clock went back, or a standby with another clock took over: a worker that is dead by now would pass for
# living until the clock has come to its last sign of life.
_PULL_BACK: Final = text(
    """
    UPDATE charts.worker SET seen_at = extract(epoch FROM clock_timestamp()) * 1000000 WHERE id IN (
        SELECT id FROM charts.worker
        WHERE seen_at > extract(epoch FROM clock_timestamp()) * 1000000 + :stale FOR UPDATE SKIP LOCKED
    )
    """
)


class _DatabaseLocks:
    """Advisory locks of the charts' writing session, and a table of the workers that live."""

    def __init__(self, location: Location, name: str) -> None:
        self._name = name
        self._session = {"pid": 0, "began": 0}
        self._engine = writer_engine(location, CHARTS)
        self._conn: Connection | None = None
        self._beaten_at = -STALE_SECONDS

    def beat(self) -> tuple[int, int]:
        stale = {"stale": int(STALE_SECONDS * 1_000_000)}
        try:
            with translated():
                conn = self._conn = self._conn or self._engine.connect()
                with conn.begin():
                    # A sign of life need not wait for the standbys: it is worth nothing after a failover.
                    conn.execute(text("SET LOCAL synchronous_commit = local"))
                    conn.execute(_BEAT, {"id": self._name, **self._session})
                    conn.execute(_PULL_BACK, stale)
                    # Who was away himself (the database was, for all) can't tell yet who hangs.
                    away = time.monotonic() - self._beaten_at > STALE_SECONDS / 2
                    ended = 0 if away else conn.execute(_END_STALE, stale).scalar_one()
                    if not away:
                        conn.execute(_FORGET_STALE, stale)
                    living = [row.id for row in conn.execute(_LIVING, stale)]
        except StoreError:
            self._disconnect()
            raise
        self._beaten_at = time.monotonic()
        if ended:
            _log.warning("sessions of workers that hang were ended", count=ended)
        return (living.index(self._name), len(living)) if self._name in living else (0, 0)

    def begin(self, conn: Connection) -> None:
        conn.execute(text("SELECT pg_advisory_unlock_all()"))
        row = conn.execute(_SESSION).one()
        self._session = {"pid": row.pid, "began": row.began}

    def take(self, conn: Connection | None, number: int) -> bool:
        statement = text("SELECT pg_try_advisory_lock(:space, :number)")
        return bool(_there(conn).execute(statement, {"space": _SPACE, "number": number}).scalar_one())

    def release(self, conn: Connection | None, number: int) -> None:
        statement = text("SELECT pg_advisory_unlock(:space, :number)")
        _there(conn).execute(statement, {"space": _SPACE, "number": number})

    def leave(self, conn: Connection | None) -> None:
        conn = _there(conn)
        conn.execute(text("DELETE FROM charts.worker WHERE id = :id"), {"id": self._name})
        conn.execute(text("SELECT pg_advisory_unlock_all()"))
        self._disconnect()
        self._engine.dispose()

    def _disconnect(self) -> None:
        if self._conn is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._conn.invalidate()
                self._conn.close()
            self._conn = None


def _there(conn: Connection | None) -> Connection:
    if conn is None:
        raise StoreError("leases of a database need its connection")
    return conn
