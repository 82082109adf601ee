"""Connections: where the store is, and how each kind of connection to it is set up.

On SQLite the main database of every connection is an empty one in memory, and the files are attached as `journal` and
`charts`: the same statements then serve writers, which attach their one file only (BEGIN IMMEDIATE locks all that is
attached), readers, which attach both, and PostgreSQL, where these are schemas.

Channels in shadow have a charts side of their own (`Location.in_shadow`): another file under the same name, on
PostgreSQL another schema that statements are compiled for. No statement knows of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from msgspec.structs import replace
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool, QueuePool
from sqlcipher3 import dbapi2 as sqlite_driver

from engine.domain.record import Record
from engine.errors import RowTakenError, StoreBusyError, StoreDamagedError, StoreError, StoreUnavailableError
from engine.store.schema import CHARTS, JOURNAL, SHADOW

# The driver asks every value but texts and numbers for a way to adapt it, at five times the cost of storing it. So each
# is given one: bytes become what the driver takes as it is, and this dictionary gives None for None.
sqlite_driver.register_adapter(bytes, bytearray)
sqlite_driver.register_adapter(type(None), {}.get)

SQLITE_VERSION_MIN: Final = (3, 51, 3)
"""Older ones can corrupt a database when the WAL is reset (fixed in 3.51.3)."""

_BUSY_MS: Final = 10_000
_IDLE_IN_TRANSACTION_MS: Final = 5_000
_WARNED: Final = "warned"
_PASSING: Final = frozenset({"25006", "25P03", "25P04"})
"""PostgreSQL: a server that is no primary (yet), and sessions that were cut off because their process had stopped for a
while. The driver takes them for errors of the statement, but the next try may well succeed."""
_UNDONE: Final = frozenset({"40001", "40P01"})
"""PostgreSQL: a serialisation failure, a deadlock. The session lives on."""
_WRITER_CACHE_KIB: Final = 8 * 1024
_READER_CACHE_KIB: Final = 1024
"""Each of several connections, for each of two files."""
_WAL_KEPT_BYTES: Final = 256 * 1024 * 1024
_READERS_MAX: Final = 6


class Location(Record, frozen=True, kw_only=True):
    """Where a store is."""

    url: str
    charts_file: Path | None = None
    """None: the store is a PostgreSQL database."""
    journal_file: Path | None = None
    shadow: bool = False
    """The charts are those of channels in shadow."""

    def __repr__(self) -> str:
        return "<Location>"  # its URL may hold a password

    def in_shadow(self) -> Location:
        """The same journal with the charts of channels in shadow."""
        file = self.charts_file
        charts = file.with_name(f"{file.stem}-shadow.db") if file is not None else None
        return replace(self, charts_file=charts, shadow=True)

    def schema(self, side: str) -> str:
        """What the tables of a side stand in, by its name there."""
        return SHADOW if self.shadow and side == CHARTS and not self.is_sqlite else side

    @property
    def is_sqlite(self) -> bool:
        return self.charts_file is not None

    def file(self, side: str) -> Path:
        file = self.journal_file if side == JOURNAL else self.charts_file
        if file is None:
            raise StoreError("a PostgreSQL store has no files")
        return file


def locate(url: str, base: Path | None = None) -> Location:
    """Read a store URL; relative paths are relative to `base`. Raises StoreError when it can't be used."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("the store's URL can't be read; it looks like sqlite:///var/handoff.db") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError("the store's URL names no file; it looks like sqlite:///var/handoff.db")
        charts = (base or Path()).joinpath(parsed.database).resolve()
        return Location(url=url, charts_file=charts, journal_file=charts.with_name(f"{charts.stem}-journal.db"))
    if parsed.get_backend_name() == "postgresql" and parsed.get_driver_name() == "psycopg":
        return Location(url=url)
    raise StoreError("the store's URL must begin with sqlite:/// or postgresql+psycopg://")


def writer_engine(location: Location, side: str) -> Engine:
    """For the one writer of a side: every transaction takes the side's write lock at its start."""
    if location.is_sqlite:
        _check_sqlite_version(sqlite_driver.sqlite_version_info)
        engine = _sqlite_engine(lambda: _attached(location, (side,), writes=True), pooled=False)
        _begin_with(engine, "BEGIN IMMEDIATE")
        return engine
    # A process that hangs in the middle of a transaction would keep its locks, and with them all other nodes waiting.
    # Whoever waits for a lock must see then what its holder has written, whatever the server's default is.
    engine = _postgresql_engine(
        location,
        pooled=False,
        isolation_level="READ COMMITTED",
        options=f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}",
    )

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, record: Any) -> None:
        # A server may be set up to answer before the disk has it; what we acknowledge must be there.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
        connection.commit()
        connection.add_notice_handler(lambda notice: _note_warning(record.info, notice))

    return engine


def _note_warning(session: dict[str, bool], notice: Any) -> None:
    if notice.severity_nonlocalized == "WARNING":
        session[_WARNED] = True


def committed_with_warning(conn: Connection) -> bool:
    """Whether PostgreSQL warned in this session, and so may have ended a commit before its standbys had it.

    That is what it does when the wait for them is cancelled (by a `statement_timeout`, by an operator): the commit
    succeeds, and all that tells it from others is a warning ("canceling wait for synchronous replication"). No
    transaction of ours gives any other.
    """
    return _WARNED in conn.info


def reader_engine(location: Location) -> Engine:
    """For reading both sides: one snapshot a transaction, and no way to write."""
    if location.is_sqlite:
        _check_sqlite_version(sqlite_driver.sqlite_version_info)
        engine = _sqlite_engine(lambda: _attached(location, (CHARTS, JOURNAL), writes=False), pooled=True)
        _begin_with(engine, "BEGIN")
        return engine
    engine = _postgresql_engine(location, pooled=True, isolation_level="REPEATABLE READ")

    @event.listens_for(engine, "connect")
    def _only_reads(connection: Any, _record: Any) -> None:
        # Not at the start of the session: a URL that asks for a server that can be written would refuse it then.
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")
        connection.commit()

    return engine


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of SQLAlchemy and the drivers into ours. Their texts may hold values, so they go no further."""
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from None


def translate(error: Exception) -> StoreError | None:
    """What an error of SQLAlchemy or a driver means; only its code is kept. None: it is neither."""
    driver_error: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(driver_error, sqlite_driver.Error) and not type(driver_error).__module__.startswith("psycopg"):
        if not isinstance(error, SQLAlchemyError):
            return None
        if isinstance(error, PoolTimeoutError):
            return StoreUnavailableError("the store has no free connection")
        return StoreError(f"the store could not do what was asked ({type(error).__name__})")
    kinds = {base.__name__ for base in type(driver_error).__mro__}
    code = getattr(driver_error, "sqlite_errorname", None) or getattr(driver_error, "sqlstate", None) or "no code"
    if code in {"42P01", "3F000"} or (code == "SQLITE_ERROR" and "no such table" in str(driver_error)):
        return StoreUnavailableError("the store's tables are missing or of another version: handoff db migrate")
    if code in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
        return StoreDamagedError(f"the store's file is damaged or is not a database ({code})")
    if code in {"SQLITE_FULL", "53100"}:
        return StoreUnavailableError(f"the store's disk is full ({code})")
    if code == "23505" or (code == "SQLITE_CONSTRAINT" and str(driver_error).startswith("UNIQUE")):
        return RowTakenError(f"another writer has made this row meanwhile ({code})")
    if code in _UNDONE:
        return StoreBusyError(f"the store has undone this for another writer ({code})")
    if "OperationalError" in kinds and code == "no code":
        return StoreUnavailableError("the database can't be reached, or does not let us in")
    if kinds & {"OperationalError", "InterfaceError"} or code in _PASSING:
        return StoreUnavailableError(f"the store can't be used now ({code})")
    return StoreError(f"the store refused what was asked ({code})")


def _check_sqlite_version(version: tuple[int, ...]) -> None:
    if version < SQLITE_VERSION_MIN:
        raise StoreUnavailableError(
            f"SQLite {'.'.join(map(str, version))} is too old: {'.'.join(map(str, SQLITE_VERSION_MIN))} or later is"
            " needed (older ones can corrupt a database when the write-ahead log is reset)"
        )


def _sqlite_engine(connect: Callable[[], Any], *, pooled: bool) -> Engine:
    pool: dict[str, Any] = (
        {"poolclass": QueuePool, "pool_size": _READERS_MAX, "max_overflow": 0} if pooled else {"poolclass": NullPool}
    )
    return create_engine("sqlite://", module=sqlite_driver, creator=connect, hide_parameters=True, **pool)


def _attached(location: Location, sides: tuple[str, ...], *, writes: bool) -> Any:
    connection = sqlite_driver.connect(
        ":memory:",
        isolation_level=None,  # the driver begins nothing by itself
        check_same_thread=False,
        cached_statements=512,
        uri=True,
        timeout=_BUSY_MS / 1000,
    )
    try:
        for side in sides:
            connection.execute(f"ATTACH DATABASE ? AS {side}", (f"file:{quote(str(location.file(side)))}?mode=rw",))
            connection.execute(f"PRAGMA {side}.journal_mode = WAL")
            connection.execute(f"PRAGMA {side}.synchronous = FULL")
            connection.execute(f"PRAGMA {side}.cache_size = -{_WRITER_CACHE_KIB if writes else _READER_CACHE_KIB}")
            connection.execute(f"PRAGMA {side}.journal_size_limit = {_WAL_KEPT_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")  # views and triggers are nobody's of ours
        if writes:
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # the ledger does it when it has time
        else:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_with(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # By the driver: a transaction of one message is short enough to notice SQLAlchemy's own execution.
        connection.connection.driver_connection.execute(statement)


def _postgresql_engine(location: Location, *, pooled: bool, options: str = "", **more: Any) -> Engine:
    url: URL = make_url(location.url)
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        pool = {"poolclass": QueuePool, "pool_size": _READERS_MAX, "max_overflow": 0, "pool_pre_ping": True}
    arguments: dict[str, Any] = {
        "connect_timeout": 5,
        "application_name": "handoff",
        # A database that vanished is noticed in seconds, not after the system's two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        "options": f"-c lock_timeout={_BUSY_MS} {options}".strip(),
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if location.shadow:
        more["execution_options"] = {"schema_translate_map": {CHARTS: location.schema(CHARTS)}}
    return create_engine(url, connect_args=arguments, paramstyle="format", hide_parameters=True, **pool, **more)


def make_sqlite_file(path: Path) -> None:
    """Make an empty database file that only its owner may read; SQLite gives the files beside it the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnavailableError(f"{path}: the store can't be made here: {error.strerror}") from None
