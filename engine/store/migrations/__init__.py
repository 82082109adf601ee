"""Bringing the tables of both sides to the revision that the code works with.

Each side has its own `alembic_version` and is migrated by itself, in one transaction. Alembic is imported only when
there is something to do, so that it costs nothing at an ordinary start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, literal_column, select, text

from engine.errors import StoreMissingError, StoreUnavailableError
from engine.store.engines import Location, make_sqlite_file, reader_engine, translated, writer_engine
from engine.store.schema import CHARTS, JOURNAL, REVISION, SHADOW_NUMBERS, entry, outcome

_SIDES: Final = (JOURNAL, CHARTS)
_LOCK: Final = 0x48414E44_4D


def current(location: Location) -> dict[str, str | None]:
    """The revision of each side; none: it has no tables yet. Raises StoreUnavailableError when it can't be read."""
    if location.is_sqlite and not all(location.file(side).exists() for side in _SIDES):
        return dict.fromkeys(_SIDES)
    engine = reader_engine(location)
    try:
        with translated(), engine.connect() as conn:
            return {side: _revision(conn, location.schema(side)) for side in _SIDES}
    finally:
        engine.dispose()


def check(location: Location) -> None:
    """Raises StoreUnavailableError when this code can't work with the store as it is."""
    revisions = current(location)
    if None in revisions.values():
        if location.shadow:
            raise StoreMissingError("nothing is kept of a channel in shadow: there is none, or it has not begun yet")
        _check_whole(location)
        raise StoreMissingError("the store is not there yet: `handoff run` or `handoff db migrate` makes it")
    if any(revision != REVISION for revision in revisions.values()):
        raise StoreUnavailableError("the store's tables are of another version of Handoff: `handoff db migrate`")


def upgrade(location: Location) -> bool:
    """Make or change the tables of both sides as needed. Returns whether there was something to do.

    SQLite files are made when they are missing, readable for their owner only. Raises StoreUnavailableError, also when
    the store was made by a later version of Handoff, or before its first release.
    """
    if all(revision == REVISION for revision in current(location).values()):
        return False
    if not location.shadow:  # else it may well be gone, and begins anew
        _check_whole(location)
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    for side in _SIDES:
        schema = location.schema(side)
        if location.is_sqlite:
            make_sqlite_file(location.file(side))
        engine = writer_engine(location, side)
        try:
            with translated(), engine.connect() as conn, conn.begin():
                if not location.is_sqlite:
                    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                    conn.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
                config = Config(attributes={"connection": conn, "side": side, "schema": schema})
                config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
                config.set_main_option("path_separator", "newline")
                begins = _revision(conn, schema) is None
                command.upgrade(config, REVISION)
                if location.shadow and begins and side == CHARTS:
                    _number_apart(conn, schema)
        except CommandError:
            raise StoreUnavailableError(
                "the store was made by a later version of Handoff, or by one from before its first release"
            ) from None
        finally:
            engine.dispose()
    return True


def _number_apart(conn: Connection, schema: str) -> None:
    """See SHADOW_NUMBERS."""
    for table in ("dead_letter", "hold"):
        if conn.dialect.name == "sqlite":
            conn.execute(
                text(f"INSERT INTO {schema}.sqlite_sequence (name, seq) VALUES (:name, :last)"),  # noqa: S608 - ours
                {"name": table, "last": SHADOW_NUMBERS},
            )
        else:
            conn.execute(
                text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"),
                {"name": f"{schema}.{table}", "last": SHADOW_NUMBERS},
            )


def drop_shadow(location: Location) -> bool:
    """Delete the charts of channels in shadow. Returns whether there were any. location: of the living ones.

    Whoever still has them open goes on with files that have no name any more, or finds its tables missing.
    """
    shadow = location.in_shadow()
    if location.is_sqlite:
        file = shadow.file(CHARTS)
        files = [file, *(file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))]
        there = [one for one in files if one.exists()]
        try:
            for one in there:
                one.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"{file}: can't be deleted: {error.strerror}") from None
        return bool(there)
    schema = shadow.schema(CHARTS)
    engine = writer_engine(location, CHARTS)
    try:
        with translated(), engine.connect() as conn, conn.begin():
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            there_is = conn.dialect.has_schema(conn, schema)
            if there_is:
                conn.execute(text(f"DROP SCHEMA {schema} CASCADE"))
            return bool(there_is)
    finally:
        engine.dispose()


def _check_whole(location: Location) -> None:
    """Raises StoreUnavailableError when one side is gone and the other is in use.

    Made anew it would be empty: without the charts everything would be processed and delivered a second time, without
    the journal its ids would be given again. A first start that was cut off leaves a journal without entries.
    """
    journal, charts = _look(location, JOURNAL), _look(location, CHARTS)
    gone: str | None = None
    if charts is None and journal:
        gone = CHARTS
    if journal is None and charts is not None:
        gone = JOURNAL
    if gone is not None:
        what = str(location.file(gone)) if location.is_sqlite else f"the schema {gone}"
        raise StoreUnavailableError(
            f"{what}: this half of the store is gone, and the other is there: restore both from the same backup"
        )


def _look(location: Location, side: str) -> bool | None:
    """Whether anything has been stored on a side; none: it has no tables."""
    if location.is_sqlite and not location.file(side).exists():
        return None
    engine = writer_engine(location, side)
    try:
        with translated(), engine.connect() as conn:
            if _revision(conn, side) is None:
                return None
            table = entry if side == JOURNAL else outcome
            return conn.execute(select(literal_column("1")).select_from(table).limit(1)).first() is not None
    finally:
        engine.dispose()


def _revision(conn: Connection, side: str) -> str | None:
    if not conn.dialect.has_table(conn, "alembic_version", schema=side):
        return None
    version = Table("alembic_version", MetaData(), Column("version_num", String(32)), schema=side)
    revision: str | None = conn.execute(select(version.c.version_num)).scalar_one_or_none()
    return revision
