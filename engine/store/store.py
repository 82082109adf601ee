"""The store as the rest of the engine uses it: who may write what, and everything that reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from sqlalchemy import Connection, Engine, func, select

from engine.errors import StoreError
from engine.store import fence, migrations
from engine.store.appointments import AppointmentStore
from engine.store.audit import AuditStore
from engine.store.charts import ChartStore
from engine.store.configs import ConfigStore
from engine.store.deadletters import DeadLetters
from engine.store.destinations import DestinationStore
from engine.store.engines import Location, locate, reader_engine, translated, writer_engine
from engine.store.holds import Holds
from engine.store.journal import Journal
from engine.store.keycheck import check_keys
from engine.store.keys import KeyRing
from engine.store.ledger import Ledger
from engine.store.outbox import Outbox
from engine.store.pages import PageStore
from engine.store.quality import Quality
from engine.store.record import Recorder
from engine.store.schema import CHARTS, JOURNAL, cursor, entry
from engine.store.tasks import TaskStore
from engine.store.texts import TextStore
from engine.store.users import Users
from engine.store.worklist import WorklistStore

T = TypeVar("T")

Role = Literal["main", "worker", "tool", "look"]
"""main writes the journal, worker the charts, a tool (a command) both, in short transactions; a look writes nothing."""

_SIDES: Final[dict[Role, tuple[str, ...]]] = {
    "main": (JOURNAL,),
    "worker": (CHARTS,),
    "tool": (JOURNAL, CHARTS),
    "look": (),
}
_READING_THREADS: Final = 4


class Store:
    """Open it with `Store.open`; engines and threads come into being when they are first used."""

    def __init__(self, location: Location, keys: KeyRing, role: Role, node: str = "") -> None:
        self.location = location
        self.keys = keys
        self.role: Role = role
        self.journal = Journal(keys, node)
        self.charts = ChartStore(keys)
        self.audit = AuditStore(keys)
        self.recorder = Recorder(keys, self.audit)
        self.outbox = Outbox(keys)
        self.destinations = DestinationStore()
        self.dead_letters = DeadLetters()
        self.holds = Holds(keys)
        self.tasks = TaskStore(self.charts)
        self.pages = PageStore(self.charts)
        self.worklist = WorklistStore(keys)
        self.quality = Quality(keys)
        self.appointments = AppointmentStore(self.charts)
        self.texts = TextStore(self.charts)
        self.configs = ConfigStore(keys)
        self.users = Users(keys)
        self._lock = threading.Lock()
        self._ledgers: dict[str, Ledger] = {}
        self._engine: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    @classmethod
    def open(
        cls, url: str, keys: KeyRing, role: Role, *, base: Path | None = None, node: str = "", shadow: bool = False
    ) -> Store:
        """Open a store; a relative path in the URL is relative to `base`. node: whose daemon this is. shadow: with the
        charts of channels in shadow.

        Raises StoreUnavailableError when it is not there, or is not of the version that this code works with; for the
        daemon's processes StoreError when its two sides are of different times or somebody has altered the schema,
        KeyMissingError when the keys are those of another store.
        """
        location = locate(url, base)
        location = location.in_shadow() if shadow else location
        migrations.check(location)
        store = cls(location, keys, role, node)
        if role in {"main", "worker"}:  # a tool may look into it, to see what happened
            try:
                store.read_now(check_same_time)
                store.read_now(lambda conn: check_keys(conn, keys))
                fence.check(store.read_now(fence.all_breaches))
            except BaseException:
                store.close()
                raise
        return store

    @property
    def journal_ledger(self) -> Ledger:
        """The one who writes the journal."""
        return self._ledger(JOURNAL)

    @property
    def charts_ledger(self) -> Ledger:
        """The one who writes everything else."""
        return self._ledger(CHARTS)

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """A connection that reads both sides as they are at its first look. Keep it short: it pins SQLite's log."""
        with translated(), self._readers().connect() as conn:
            conn.begin()
            yield conn
            conn.rollback()  # SQLite refuses to commit once it has met a damaged page, though nothing was written

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` with a reader, in a thread, so that the event loop goes on."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="store-reader")
            threads = self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self.read_now, work)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        with self.reader() as conn:
            return work(conn)

    def close(self) -> None:
        """Finish what is being written, then let go of everything."""
        with self._lock:
            self._closed = True
            ledgers, threads, engine = list(self._ledgers.values()), self._threads, self._engine
        for ledger in ledgers:
            ledger.close()
        if threads is not None:
            threads.shutdown(wait=True)
        if engine is not None:
            engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ledger(self, side: str) -> Ledger:
        if side not in _SIDES[self.role]:
            raise StoreError(f"the {self.role} process does not write the {side} side")
        with self._lock:
            self._check_open()
            if side not in self._ledgers:
                self._ledgers[side] = Ledger(writer_engine(self.location, side), side)
            return self._ledgers[side]

    def _readers(self) -> Engine:
        with self._lock:
            self._check_open()
            if self._engine is None:
                self._engine = reader_engine(self.location)
            return self._engine

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


def check_same_time(conn: Connection) -> None:
    """Raises StoreError when the charts know entries that the journal does not have: it is an older copy of itself.

    Going on would give their ids to new entries, which then would pass for processed.
    """
    done = conn.execute(select(func.max(cursor.c.position))).scalar_one()
    stored = conn.execute(select(func.max(entry.c.id))).scalar_one()
    if (done or 0) > (stored or 0):
        raise StoreError("the journal is older than the charts: restore both from the same backup")
