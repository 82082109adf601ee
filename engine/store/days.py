"""PostgreSQL: the payloads of the journal in one partition a day, so that retention is the dropping of tables.

Partitions are made ahead. What falls on a day that nobody has prepared (a clock that jumped) goes into the default
partition, `payload_other`, and is found there like everything else. Days that a sweep has emptied are dropped;
the narrow entries stay, with their ids, states and keys for finding duplicates.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from engine.store.engines import Location, translated, writer_engine
from engine.store.schema import JOURNAL, day_of

AHEAD_DAYS: Final = 7
_LOCK: Final = 0x48414E44_44
_LOCK_MS_MAX: Final = 500


def prepare_days_apart(location: Location, now: datetime) -> list[str]:
    """`prepare_days` over a connection of its own: what can't be done now is nobody else's failure."""
    if location.is_sqlite:
        return []
    engine = writer_engine(location, JOURNAL)
    try:
        with translated(), engine.begin() as conn:
            return prepare_days(conn, now)
    finally:
        engine.dispose()


def prepare_days(conn: Connection, now: datetime) -> list[str]:
    """Make the partitions of today and the next days that are missing; their names. Nothing to do on SQLite.

    Raises StoreUnavailableError when somebody uses the journal's tables for long: it is to be tried again later.
    """
    if conn.dialect.name != "postgresql":
        return []
    days = [day_of(now) + ahead for ahead in range(AHEAD_DAYS + 1)]
    known = set(conn.execute(text("SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid")).scalars())
    missing = {day: name for day in days if (name := partition_name(day)) not in known}
    if not missing:
        return []
    # A new partition needs the whole table for itself: senders wait behind us, while we wait for who reads it (a dump).
    conn.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MS_MAX}"))
    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})  # all nodes come at the same time
    made: list[str] = []
    for day, name in missing.items():
        taken = text(f"SELECT 1 FROM {JOURNAL}.payload_other WHERE day = :day LIMIT 1")  # noqa: S608 - a name of ours
        there = text("SELECT to_regclass(:name)")
        if conn.execute(there, {"name": f"{JOURNAL}.{name}"}).scalar() or conn.execute(taken, {"day": day}).scalar():
            continue
        conn.execute(
            text(f"CREATE TABLE {JOURNAL}.{name} PARTITION OF {JOURNAL}.payload FOR VALUES FROM ({day}) TO ({day + 1})")
        )
        made.append(name)
    return made


def partition_name(day: int) -> str:
    """`payload_20261122`."""
    return f"payload_{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y%m%d}"


def drop_swept_days(location: Location, before: datetime) -> list[str]:
    """Drop the partitions of days before that time that hold nothing any more; their names. Nothing to do on SQLite.

    What is in use for long is left for the next time.
    """
    if location.is_sqlite:
        return []
    engine, dropped = writer_engine(location, JOURNAL), list[str]()
    try:
        with translated(), engine.connect() as conn:
            known = sorted(conn.execute(_DAYS).scalars())
            conn.rollback()
            for name in known:
                if name >= partition_name(day_of(before)):
                    break
                try:
                    with conn.begin():
                        conn.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MS_MAX}"))
                        conn.execute(text(f"LOCK TABLE {JOURNAL}.{name} IN ACCESS EXCLUSIVE MODE"))
                        full = conn.execute(text(f"SELECT 1 FROM {JOURNAL}.{name} LIMIT 1")).scalar()  # noqa: S608 - ours
                        if full is None:
                            conn.execute(text(f"DROP TABLE {JOURNAL}.{name}"))
                            dropped.append(name)
                except OperationalError:
                    continue
    finally:
        engine.dispose()
    return dropped


_DAYS: Final = text(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'journal' AND c.relname ~ '^payload_[0-9]{8}$'"
)
