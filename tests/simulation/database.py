"""The database of the simulated world: real SQL on a real SQLite store, with sessions and locks as PostgreSQL has them.

All simulated processes share the store's real connections; what each has of its own is a session, which ends with its
process, or before. One transaction a side is open at a time: SQLite's writers are alone anyway. (What several open
transactions of PostgreSQL do to each other is for the tests that run on PostgreSQL.) Before a transaction, before its
commit and after it others run, processes die, and sessions are ended.

An observer, made of triggers inside the database, writes down every change; what a transaction has changed is looked at
before it is committed (`Observed`), so that the checks see what is there and not what somebody believes to be there.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from simulation.world import Gone, Process, Strand, Turn, World
from sqlalchemy import Connection, Engine

from engine.errors import StoreError, StoreUnavailableError
from engine.store import migrations
from engine.store.engines import locate, reader_engine, translated, writer_engine
from engine.store.keys import KeyRing
from engine.store.leases import STALE_SECONDS, Leases
from engine.store.ledger import Ledger
from engine.store.schema import CHARTS, JOURNAL, metadata
from engine.store.store import _SIDES, Role, Store

T = TypeVar("T")

IDLE_IN_TRANSACTION_SECONDS = 5.0
LOCK_SECONDS = 10.0
CHECKPOINT_RUNS = 16

_KEYS = """{
    "format": 1, "active": 1, "lookup": "bG9va3VwLWtleS1vZi10aGUtc2ltdWxhdGlvbi0wMDE=",
    "audit": ["dHJhaWwtcm9vdC1vZi10aGUtc2ltdWxhdGlvbi0wMDE="],
    "keys": {"1": {"created_at": "2026-01-01T00:00:00Z", "key": "c2VhbGluZy1rZXktb2YtdGhlLXNpbXVsYXRpb24tMDE="}}
}"""

_TRIGGERS = {
    JOURNAL: """
        CREATE TABLE journal.observed (
            number INTEGER PRIMARY KEY, what TEXT, id INTEGER, channel TEXT, a, b, c);
        CREATE TRIGGER journal.see_entry AFTER INSERT ON entry BEGIN
            INSERT INTO observed (what, id, channel, a, b, c)
            VALUES ('entry', new.id, new.channel, new.partition, new.digest, new.replay_of);
        END;
        CREATE TRIGGER journal.see_repeat AFTER INSERT ON repeat BEGIN
            INSERT INTO observed (what, id, channel, a) VALUES ('repeat', new.entry_id, new.channel, new.id);
        END;
        CREATE TRIGGER journal.see_gone AFTER DELETE ON entry BEGIN
            INSERT INTO observed (what, id, channel) VALUES ('entry-deleted', old.id, old.channel);
        END;
    """,
    CHARTS: """
        CREATE TABLE charts.observed (
            number INTEGER PRIMARY KEY, what TEXT, id INTEGER, channel TEXT, a, b, c);
        CREATE TRIGGER charts.see_outcome AFTER INSERT ON outcome BEGIN
            INSERT INTO observed (what, id, channel, a) VALUES ('outcome', new.entry_id, new.channel, new.state);
        END;
        CREATE TRIGGER charts.see_first_cursor AFTER INSERT ON cursor BEGIN
            INSERT INTO observed (what, id, channel, a, b)
            VALUES ('cursor', new.partition, new.channel, 0, new.position);
        END;
        CREATE TRIGGER charts.see_cursor AFTER UPDATE ON cursor BEGIN
            INSERT INTO observed (what, id, channel, a, b)
            VALUES ('cursor', new.partition, new.channel, old.position, new.position);
        END;
        CREATE TRIGGER charts.see_delivery AFTER INSERT ON delivery BEGIN
            INSERT INTO observed (what, id, channel, a, b, c)
            VALUES ('delivery', new.id, new.destination, new.ordering_key, new.idempotency_key, new.operation);
        END;
        CREATE TRIGGER charts.see_delivery_state AFTER UPDATE OF state ON delivery WHEN old.state <> new.state BEGIN
            INSERT INTO observed (what, id, channel, a, b)
            VALUES ('settled', new.id, new.destination, old.state, new.state);
        END;
        CREATE TRIGGER charts.see_attempt AFTER UPDATE OF started_at ON delivery
        WHEN new.started_at IS NOT old.started_at BEGIN
            INSERT INTO observed (what, id, channel, a)
            VALUES (iif(new.started_at IS NULL, 'attempt-over', 'attempt'), new.id, new.destination, new.started_at);
        END;
        CREATE TRIGGER charts.see_line AFTER UPDATE OF ordering_key ON delivery BEGIN
            INSERT INTO observed (what, id, channel, a) VALUES ('line', new.id, new.destination, new.ordering_key);
        END;
        CREATE TRIGGER charts.see_page AFTER UPDATE OF state ON page BEGIN
            INSERT INTO observed (what, id, channel, a, b) VALUES ('page', 0, '', new.id, new.state);
        END;
        CREATE TRIGGER charts.see_identifier AFTER INSERT ON identifier BEGIN
            INSERT INTO observed (what, id, channel, a, b)
            VALUES ('identity', 0, '', new.identity_hash, new.chart_id);
        END;
        CREATE TRIGGER charts.see_moved_identifier AFTER UPDATE OF chart_id ON identifier BEGIN
            INSERT INTO observed (what, id, channel, a, b)
            VALUES ('identity', 0, '', new.identity_hash, new.chart_id);
        END;
    """,
}


@dataclass(frozen=True, slots=True)
class Observed:
    """One change that a transaction makes."""

    what: str
    id: int
    channel: str
    a: Any
    b: Any
    c: Any


class Disk:
    """A real store, made once and emptied for each run; opening one costs more than a run."""

    def __init__(self, folder: Path) -> None:
        self.keys = KeyRing.parse(_KEYS)
        self.location = locate(f"sqlite:///{folder}/handoff.db")
        migrations.upgrade(self.location)
        self.writers = {side: _by_driver(writer_engine(self.location, side)) for side in (JOURNAL, CHARTS)}
        for side, conn in self.writers.items():
            _driver(conn).executescript(_TRIGGERS[side])
        self._readers = reader_engine(self.location)
        self._free: list[Connection] = []
        self._folder = folder
        self._runs = 0

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """What is committed now."""
        conn = self._free.pop() if self._free else _by_driver(self._readers)
        _driver(conn).execute("BEGIN")
        try:
            yield conn
        finally:
            _driver(conn).execute("ROLLBACK")
            self._free.append(conn)

    def clear(self) -> None:
        self._runs += 1
        for side, conn in self.writers.items():
            execute = _driver(conn).execute
            execute("BEGIN IMMEDIATE")
            tables = [table.name for table in metadata.sorted_tables if table.schema == side]
            if side == CHARTS:  # the trail lets go what is noted there
                tables = [name for name in tables if not name.startswith("audit")]
                execute("INSERT INTO charts.audit_purge VALUES (0, 0, 1000000000, 1)")
                for name in ("audit", "audit_payload", "audit_patient", "audit_purge"):
                    execute(f"DELETE FROM charts.{name}")
                execute("UPDATE charts.audit_head SET seq = 0, mac = x''")
            for name in (*tables, "observed"):
                execute(f"DELETE FROM {side}.{name}")
            execute("COMMIT")
            if self._runs % CHECKPOINT_RUNS == 0:
                execute(f"PRAGMA {side}.wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        for conn in (*self.writers.values(), *self._free):
            conn.close()
        self._readers.dispose()
        shutil.rmtree(self._folder, ignore_errors=True)


class Database:
    """What the server knows: sessions, locks, who lives. clustered: leases as on PostgreSQL, else as on SQLite."""

    def __init__(self, world: World, disk: Disk, *, clustered: bool) -> None:
        self.world = world
        self.disk = disk
        self.clustered = clustered
        self.sessions: list[Session] = []
        self.holders: dict[int, Session | Process] = {}
        """Who holds a lease, by its number: the truth, whatever a process believes."""
        self.workers: dict[str, tuple[Session | None, float]] = {}
        self.down = False
        self.before_commit: Callable[[Session, list[Observed]], None] = lambda _session, _changes: None
        self.after_commit: Callable[[Session, list[Observed]], None] = lambda _session, _changes: None
        self.fate: Callable[[Session, list[Observed]], str] = lambda _session, _changes: "committed"
        """What becomes of a commit: `committed`, `failed` (rolled back), `unknown` (committed, and nobody hears)."""
        self._writing: dict[str, Session | None] = {JOURNAL: None, CHARTS: None}
        self._queue: dict[str, deque[Strand]] = {JOURNAL: deque(), CHARTS: deque()}

    def check_up(self) -> None:
        if self.down:
            raise StoreUnavailableError("the simulated database is down")

    def stop(self) -> None:
        """The server is gone: every session with it."""
        self.down = True
        for session in list(self.sessions):
            session.end()

    def ended(self, session: Session) -> None:
        self.sessions.remove(session)
        for number in [number for number, holder in self.holders.items() if holder is session]:
            del self.holders[number]

    def take_turn(self, session: Session) -> None:
        """Wait for the side's write lock."""
        side, world = session.side, self.world
        until = world.now + LOCK_SECONDS
        while self._writing[side] is not None:
            strand = world.strand
            assert strand is not None, "nobody writes in a loop's callback"
            if world.now >= until:
                raise StoreUnavailableError("the simulated database has waited too long for a lock")
            self._queue[side].append(strand)
            timer = world.after(until - world.now, strand.wake)
            strand.wait()
            timer.cancelled = True
            session.check()
        self._writing[side] = session

    def give_turn(self, session: Session) -> None:
        if self._writing[session.side] is session:
            self._writing[session.side] = None
            queue = self._queue[session.side]
            for strand in queue:
                strand.wake()
            queue.clear()


class Session:
    """A connection that writes: of one process, to one side."""

    def __init__(self, database: Database, process: Process, side: str) -> None:
        self.database = database
        self.process = process
        self.side = side
        self.alive = True
        self.real = database.disk.writers[side]
        self.changes: list[Observed] = []
        self._open = False
        database.sessions.append(self)
        process.at_end.append(self.end)

    def check(self) -> None:
        self.process.check()
        if not self.alive:
            raise StoreUnavailableError("the simulated database has ended this session")

    def end(self) -> None:
        if self.alive:
            self.alive = False
            self._roll_back()
            self.database.ended(self)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        process, database = self.process, self.database
        process.pause(f"{self.side}-begin")
        self.check()
        database.take_turn(self)
        try:
            _driver(self.real).execute("BEGIN IMMEDIATE")
            self._open = True
            yield
        except BaseException:
            self._roll_back()
            raise
        self._observe()
        try:
            # A server ends whoever keeps others waiting for a transaction in which nothing is done.
            idle = database.world.after(IDLE_IN_TRANSACTION_SECONDS, self.end) if database.clustered else None
            process.pause(f"{self.side}-commit" if self.changes else f"{self.side}-nothing")
            if idle is not None:
                idle.cancelled = True
            self.check()
        except BaseException:
            self._roll_back()
            raise
        fate = database.fate(self, self.changes)
        if fate == "failed":
            self._roll_back()
            raise StoreUnavailableError("the simulated database could not commit")
        database.before_commit(self, self.changes)
        _driver(self.real).execute("COMMIT")
        self._open = False
        database.give_turn(self)
        database.after_commit(self, self.changes)
        if fate == "unknown":
            self.end()
            raise StoreUnavailableError("the simulated database was lost while it committed")
        process.pause(f"{self.side}-committed" if self.changes else f"{self.side}-nothing")

    def _observe(self) -> None:
        driver = _driver(self.real)
        rows = driver.execute(f"SELECT what, id, channel, a, b, c FROM {self.side}.observed ORDER BY number").fetchall()
        self.changes = [Observed(*row) for row in rows]
        if rows:
            driver.execute(f"DELETE FROM {self.side}.observed")

    def _roll_back(self) -> None:
        if self._open:
            _driver(self.real).execute("ROLLBACK")
            self._open = False
        self.database.give_turn(self)


class SessionEngine:
    """What a ledger takes for its engine."""

    def __init__(self, database: Database, process: Process, side: str) -> None:
        self.dialect = database.disk.writers[side].dialect
        self._database, self._process, self._side = database, process, side

    def connect(self) -> SessionConnection:
        self._process.pause("connect")
        self._database.check_up()
        return SessionConnection(Session(self._database, self._process, self._side))

    def dispose(self) -> None:
        """There is nothing to let go of."""


class SessionConnection:
    """What a ledger takes for its connection: the real one, as long as the session lives."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.dialect = session.real.dialect
        self.connection = _Pooled(session)

    def begin(self) -> Any:
        return self.session.transaction()

    def get_execution_options(self) -> Any:
        return self.session.real.get_execution_options()

    def execute(self, *arguments: Any) -> Any:
        self.session.check()
        return self.session.real.execute(*arguments)

    def exec_driver_sql(self, *arguments: Any) -> Any:
        self.session.check()
        return self.session.real.exec_driver_sql(*arguments)

    def invalidate(self) -> None:
        self.session.end()

    def close(self) -> None:
        self.session.end()


class _Pooled:
    def __init__(self, session: Session) -> None:
        self.driver_connection = _Driver(session)


class _Driver:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._execute = _driver(session.real).execute

    def execute(self, *arguments: Any) -> Any:
        self._session.check()
        return self._execute(*arguments)


def _by_driver(engine: Engine) -> Connection:
    """A connection whose transactions the driver begins and ends: SQLAlchemy's own way takes longer than most of them.

    SQLAlchemy believes that a single one is open all the time.
    """
    conn = engine.connect()
    conn.begin()
    _driver(conn).execute("ROLLBACK")
    return conn


def _driver(conn: Connection) -> Any:
    return conn.connection.driver_connection


class SimulatedLedger(Ledger):
    """The real ledger, whose thread is a strand."""

    def __init__(self, database: Database, process: Process, side: str) -> None:
        super().__init__(SessionEngine(database, process, side), side)  # type: ignore[arg-type]
        self._process = process
        self._units: deque[Any] = deque()
        self._strand: Strand | None = None
        self._at_end: list[Strand] = []

    def write_now(self, work: Callable[[Connection], T]) -> T:
        strand = self._process.world.strand
        assert strand is not None, "nobody waits for a commit in a loop's callback"
        future: Future[T] = Future()
        future.add_done_callback(lambda _: strand.wake())
        self._put(_unit(work, future))
        while not future.done():
            strand.wait()
        return future.result()

    def close(self) -> None:
        world = self._process.world
        self._closed = True
        if self._strand is not None and not self._strand.finished and world.strand is not None:
            self._at_end.append(world.strand)
            self._strand.wake()
            while not self._strand.finished:
                world.strand.wait()

    def _put(self, unit: Any) -> None:
        self._process.check()
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        self._units.append(unit)
        if self._strand is None:
            self._strand = self._process.start(self._run, self._ended)
        else:
            self._strand.wake()

    def _ended(self, _result: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Gone):
            self._process.world.fail(f"the writer of {self._side} died of {error!r}")
        for strand in self._at_end:
            strand.wake()

    def _next_group(self) -> tuple[list[Any], bool]:
        world = self._process.world
        while not self._units:
            if self._closed:
                return [], False
            assert world.strand is not None
            world.strand.wait()
        self._process.pause("group")
        count = len(self._units) if world.random.random() < 0.8 else world.random.randint(1, len(self._units))
        return [self._units.popleft() for _ in range(count)], True

    def _checkpoint_if_due(self, *, idle: bool) -> None:
        """The disk sees to it between the runs."""


def _unit(work: Any, future: Any) -> Any:
    from engine.store.ledger import _Unit

    return _Unit(work, None, None, None, future)


class SimulatedStore(Store):
    """The real store over the world's database."""

    def __init__(self, database: Database, process: Process, role: Role, node: str = "") -> None:
        super().__init__(database.disk.location, database.disk.keys, role, node)
        self._database = database
        self._process = process

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        self._process.pause("read")
        self._database.check_up()
        with translated(), self._database.disk.reader() as conn:
            yield conn
        self._process.pause("have-read")

    def _ledger(self, side: str) -> Ledger:
        self._process.check()
        if side not in _SIDES[self.role]:
            raise StoreError(f"the {self.role} process does not write the {side} side")
        if side not in self._ledgers:
            self._ledgers[side] = SimulatedLedger(self._database, self._process, side)
        return self._ledgers[side]


class ClusterLocks:
    """What `_DatabaseLocks` does by SQL: locks of the session, signs of life by the server's clock."""

    def __init__(self, database: Database, process: Process, name: str) -> None:
        self._database, self._process, self._name = database, process, name
        self._session: Session | None = None
        self._beaten_at = -STALE_SECONDS

    def beat(self) -> tuple[int, int]:
        self._process.pause("beat")
        database, now = self._database, self._database.world.now
        database.check_up()
        workers = database.workers
        workers[self._name] = (self._session, now)
        away, self._beaten_at = now - self._beaten_at > STALE_SECONDS / 2, now
        for name, (session, seen_at) in list(workers.items()):
            if seen_at <= now - STALE_SECONDS and not away:
                del workers[name]
                if session is not None and session.alive:
                    database.world.note(f"ends the session of {name}, which hangs")
                    session.end()
        living = sorted(name for name, (_, seen_at) in workers.items() if seen_at > now - STALE_SECONDS)
        self._process.pause("beaten")
        return living.index(self._name), len(living)

    def begin(self, conn: Any) -> None:
        self._release_all(conn.session)
        self._session = conn.session

    def take(self, conn: Any, number: int) -> bool:
        conn.session.check()
        return self._database.holders.setdefault(number, conn.session) is conn.session

    def release(self, conn: Any, number: int) -> None:
        conn.session.check()
        if self._database.holders.get(number) is conn.session:
            del self._database.holders[number]

    def leave(self, conn: Any) -> None:
        conn.session.check()
        self._database.workers.pop(self._name, None)
        self._release_all(conn.session)

    def _release_all(self, session: Session) -> None:
        holders = self._database.holders
        for number in [number for number, holder in holders.items() if holder is session]:
            del holders[number]


class FileLocks:
    """What `_FileLocks` does by the kernel: locks of the process."""

    def __init__(self, database: Database, process: Process, index: int, count: int) -> None:
        self._holders, self._process = database.holders, process
        self._index, self._count = index, count
        process.at_end.append(lambda: self.leave(None))

    def beat(self) -> tuple[int, int]:
        self._process.pause("beat")
        return self._index, self._count

    def begin(self, _conn: Any) -> None:
        """There are no sessions."""

    def take(self, _conn: Any, number: int) -> bool:
        self._process.check()
        return self._holders.setdefault(number, self._process) is self._process

    def release(self, _conn: Any, number: int) -> None:
        self._process.check()
        if self._holders.get(number) is self._process:
            del self._holders[number]

    def leave(self, _conn: Any) -> None:
        for number in [number for number, holder in self._holders.items() if holder is self._process]:
            del self._holders[number]


def simulated_leases(database: Database, store: SimulatedStore, process: Process, index: int, count: int) -> Leases:
    if database.clustered:
        locks: Any = ClusterLocks(database, process, process.name)
        leases = Leases(locks, store.charts_ledger)
    else:
        leases = Leases(FileLocks(database, process, index, count), None)
    leases._beating = Turn(process)  # type: ignore[assignment]
    return leases


def read_all(disk: Disk, work: Callable[[Connection], T]) -> T:
    """Read what is committed, from outside of the world."""
    with disk.reader() as conn:
        return work(conn)
