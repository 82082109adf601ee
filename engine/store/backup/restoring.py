"""Putting a backup back into another place, and looking whether it is all there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, func, select, text, update

from engine.domain.audit import AuditRecord
from engine.domain.page import UNANSWERED
from engine.domain.record import Record
from engine.errors import BackupError, KeyMissingError, StoreError, TamperedError
from engine.pipeline.restored import Mark
from engine.store import days, erasure, migrations, sealed
from engine.store.backup import companion, leftout
from engine.store.backup.archive import Archive, Manifest
from engine.store.backup.leftout import LeftOut
from engine.store.backup.mark import set_back
from engine.store.backup.rows import columns_of, tables
from engine.store.backup.wrapping import Wrapping
from engine.store.counts import ledger
from engine.store.engines import Location, locate, translated, writer_engine
from engine.store.keys import KeyRing
from engine.store.legalholds import LegalHolds
from engine.store.schema import (
    CHARTS,
    JOURNAL,
    REVISION,
    audit_head,
    backup_made,
    chart,
    entry,
    outcome,
    page,
    payload,
    to_micros,
)
from engine.store.store import Store, check_same_time
from engine.store.verify import verify

OPENED_MAX: Final = 100_000
"""Sealed values of a column that are opened, spread over all of it; `everything` opens all."""
_PROBLEMS_MAX: Final = 20
_COMMIT_CHUNKS: Final = 200
_CACHE_KIB: Final = 64 * 1024


class Restored(Record, frozen=True, kw_only=True):
    """What a restore came to: the contract's shape, and more."""

    ok: bool
    entries: int
    charts: int
    seconds: float
    as_of: datetime
    backup: str
    """Its id."""
    target: str | None
    """Where the store is now; none: it was a rehearsal, and is gone."""
    held: int = 0
    """Deliveries that may have been sent since the backup: they wait for a person."""
    unconfirmed: int = 0
    """Accounts that were active then: somebody says who may still come in."""
    opened: int = 0
    """Sealed values that were opened."""
    to_do: dict[str, int] = {}
    """What people have to see to, since it may have changed after the backup: `legal_holds` that stood then, `pages`
    that nobody had answered then."""
    problems: tuple[str, ...] = ()
    left_out: dict[str, int] = {}
    """What was erased since the backup, so that its keys are destroyed: charts, messages, deliveries, trail."""


def restore(
    path: Path,
    keys: KeyRing,
    target: str,
    *,
    name: str,
    now: Callable[[], datetime],
    record: Callable[[Manifest], AuditRecord],
    rehearse: bool = False,
    everything: bool = False,
    erasure_keys: Sequence[Path] = (),
    site: Store | None = None,
) -> Restored:
    """Put a backup back and verify it.

    path: a backup, or a folder of them (the newest is meant). target: a folder in which there is no store, or the URL
    of an empty PostgreSQL database. name: of the SQLite file in the folder. record: stands in the restored trail.
    rehearse: what was restored is thrown away again. erasure_keys: folders in which newer erasure keys may stand,
    besides that of the backup. site: the store that the backup is of, if it is there: it knows best what was erased.
    Raises BackupError, KeyMissingError or StoreError.
    """
    began = now()
    with Archive(path, keys) as archive:
        manifest = archive.manifest
        _check_version(archive)
        tree = companion.find(manifest.tree, (archive.path.parent, *erasure_keys), keys, site)
        with _place(target, name, keep=not rehearse) as place:
            left = LeftOut()
            loaded = _load(archive, Wrapping(tree), place, left)
            with Store.open(place.url, keys, "tool") as store:
                problems = _ends_where_it_should(store, manifest)
                said = record(manifest)
                leftout.settle(store, left, said)
                store.charts_ledger.write_now(lambda conn: erasure.put(conn, keys, tree))
                found, opened, counts = _verified(store, manifest, loaded, left, everything=everything)
                problems += found
                held = unconfirmed = 0
                to_do = store.read_now(lambda conn: _to_do(store, conn))
                if not rehearse:
                    mark = Mark(at=now(), as_of=manifest.as_of, last_entry=manifest.last_entry)
                    said = msgspec.structs.replace(said, reason=left.explained(said.reason), facts={"to_do": to_do})
                    held, unconfirmed = store.charts_ledger.write_now(
                        lambda conn: _mark(store, conn, manifest, mark, said)
                    )
            if place.is_sqlite:
                _settle(place)
    return Restored(
        ok=not problems,
        entries=counts[0],
        charts=counts[1],
        seconds=round((now() - began).total_seconds(), 3),
        as_of=manifest.as_of,
        backup=manifest.id,
        target=None if rehearse else target,
        held=held,
        unconfirmed=unconfirmed,
        opened=opened,
        to_do=to_do,
        problems=tuple(problems[:_PROBLEMS_MAX]),
        left_out=left.counts,
    )


def note_rehearsal(store: Store, done: Restored, at: datetime, record: AuditRecord) -> None:
    """In the store that the backup is of: the proof that it could be restored."""

    def write(conn: Connection) -> None:
        conn.execute(
            update(backup_made)
            .where(backup_made.c.id == done.backup)
            .values(rehearsed_at=to_micros(at), rehearsed_millis=round(done.seconds * 1000), rehearsed_ok=int(done.ok))
        )
        store.audit.append(conn, [record])

    store.charts_ledger.write_now(write)


def _mark(store: Store, conn: Connection, manifest: Manifest, mark: Mark, record: AuditRecord) -> tuple[int, int]:
    """Deliveries that are held, accounts that wait to be confirmed."""
    held = set_back(conn, store.keys, manifest.id, mark)
    unconfirmed = store.users.unconfirm(conn)
    store.audit.append(conn, [record])
    return held, unconfirmed


def _to_do(store: Store, conn: Connection) -> dict[str, int]:
    open_pages = select(func.count()).select_from(page).where(page.c.state.in_([one.value for one in UNANSWERED]))
    return {
        "legal_holds": sum(one.stands for one in LegalHolds(store.keys).find(conn)),
        "pages": conn.execute(open_pages).scalar_one(),
    }


def _check_version(archive: Archive) -> None:
    manifest = archive.manifest
    same = {name: one.columns for name, one in manifest.tables.items()} == {
        table.fullname: columns_of(table) for table in tables()
    }
    if manifest.revision != REVISION or not same:
        raise BackupError(
            f"{archive.path}: it was made by another version of Handoff ({manifest.made_by}, tables"
            f" {manifest.revision}; here {REVISION}): restore it with that version, then `handoff db migrate` with this"
        )


# --- where to ---


@contextmanager
def _place(target: str, name: str, *, keep: bool) -> Iterator[Location]:
    """An empty store. With `keep` it is what the target is afterwards, whole or not at all; else it is gone."""
    if "://" in target:
        location = locate(target)
        if location.is_sqlite:
            raise BackupError("name the folder to restore into, not a sqlite URL")
        fresh = _check_empty(location)
        migrations.upgrade(location)
        try:
            yield location
        finally:
            if not keep:
                _clear(location, drop=fresh)
        return
    folder = Path(target).absolute()
    final = locate(f"sqlite:///{folder / name}")
    for side in (JOURNAL, CHARTS):
        if final.file(side).exists():
            raise BackupError(f"{final.file(side)}: is there already; restore into a folder without a store")
    try:
        new = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".restoring-", dir=folder))
    except OSError as error:
        raise BackupError(f"{folder}: can't be written: {error.strerror}") from None
    try:
        location = locate(f"sqlite:///{scratch / name}")
        migrations.upgrade(location)
        yield location
        if keep:
            for side in (JOURNAL, CHARTS):  # with the journal alone it is no store yet, and nobody takes it for one
                location.file(side).rename(final.file(side))
            _sync(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not keep and new:
            with suppress(OSError):
                folder.rmdir()


def _check_empty(location: Location) -> bool:
    """Whether there are not even tables. Raises BackupError when there is something in it."""
    revisions = migrations.current(location)
    if not any(revisions.values()):
        return True
    if all(revision == REVISION for revision in revisions.values()):
        engine = writer_engine(location, CHARTS)
        try:
            with translated(), engine.connect() as conn:
                if not any(conn.execute(select(table).limit(1)).first() for table in (entry, outcome, chart)):
                    return False
        finally:
            engine.dispose()
    raise BackupError("there is a store in this database already; restore into an empty one")


def _clear(location: Location, *, drop: bool) -> None:
    """After a rehearsal in a database. drop: the schemas too, which were not there before."""
    engine = writer_engine(location, CHARTS)
    try:
        with translated(), engine.connect() as conn, conn.begin():
            for side in (JOURNAL, CHARTS):
                conn.execute(text(f"DROP SCHEMA {side} CASCADE"))
    finally:
        engine.dispose()
    if not drop:
        migrations.upgrade(location)


# --- rows ---


def _load(archive: Archive, wrapping: Wrapping, location: Location, left: LeftOut) -> dict[str, int]:
    """All rows whose keys are there. Returns how many of each table there were, with those that are left out."""
    loaded: dict[str, int] = {}
    for side in (CHARTS, JOURNAL):
        of_side = [table for table in tables() if table.schema == side]
        engine = writer_engine(location, side)
        try:
            with translated():
                raw = engine.raw_connection()
                try:
                    driver: Any = raw.driver_connection
                    if location.is_sqlite:
                        loaded |= _load_sqlite(driver, archive, wrapping, left, side, of_side)
                    else:
                        loaded |= _load_postgresql(driver, archive, wrapping, left, of_side)
                finally:
                    raw.close()
        finally:
            engine.dispose()
    return loaded


def _load_sqlite(
    driver: Any, archive: Archive, wrapping: Wrapping, left: LeftOut, side: str, of_side: list[Table]
) -> dict[str, int]:
    loaded: dict[str, int] = {}
    driver.execute(f"PRAGMA {side}.synchronous = OFF")  # it is nobody's yet; `_settle` has the disk take it
    driver.execute(f"PRAGMA {side}.cache_size = -{_CACHE_KIB}")
    driver.execute("PRAGMA wal_autocheckpoint = 16384")
    found = driver.execute(f"SELECT name, sql FROM {side}.sqlite_master WHERE type = 'index' AND sql IS NOT NULL")  # noqa: S608 - ours
    indexes = dict(found.fetchall())
    driver.execute("BEGIN IMMEDIATE")
    for name in indexes:
        driver.execute(f"DROP INDEX {side}.{name}")
    for table in of_side:
        driver.execute(f"DELETE FROM {table.fullname}")  # noqa: S608 - ours; what a new store begins with
        names = columns_of(table)
        columns = ", ".join(f'"{name}"' for name in names)
        insert = f"INSERT INTO {table.fullname} ({columns}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - ours
        loaded[table.fullname] = 0
        for number, chunk in enumerate(archive.chunks(table.fullname)):
            total, rows = left.sorted_out(table.fullname, wrapping.unwrap(table.fullname, chunk))
            driver.executemany(insert, rows)
            loaded[table.fullname] += total
            if number % _COMMIT_CHUNKS == _COMMIT_CHUNKS - 1:
                driver.execute("COMMIT")
                driver.execute("BEGIN IMMEDIATE")
    for sql in indexes.values():  # sorted once: a tenth of the time that keeping them up takes
        words = sql.replace("CREATE UNIQUE INDEX ", f"CREATE UNIQUE INDEX {side}.", 1)
        driver.execute(words.replace("CREATE INDEX ", f"CREATE INDEX {side}.", 1))
    driver.execute("COMMIT")
    return loaded


def _load_postgresql(
    driver: Any, archive: Archive, wrapping: Wrapping, left: LeftOut, of_side: list[Table]
) -> dict[str, int]:
    """In one transaction: cut off, the database is empty still."""
    loaded: dict[str, int] = {}
    with driver.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SET LOCAL statement_timeout = 0")
        for table in of_side:
            cursor.execute(f"DELETE FROM {table.fullname}")  # noqa: S608 - ours
        for table in of_side:
            if table is payload:
                _prepare_days(cursor)
            names = ", ".join(f'"{name}"' for name in columns_of(table))
            loaded[table.fullname] = 0
            with cursor.copy(f"COPY {table.fullname} ({names}) FROM STDIN") as copy:
                for chunk in archive.chunks(table.fullname):
                    total, rows = left.sorted_out(table.fullname, wrapping.unwrap(table.fullname, chunk))
                    for row in rows:
                        copy.write_row(row)
                    loaded[table.fullname] += total
        for table in of_side:
            for column in table.primary_key.columns:
                cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", (table.fullname, column.name))
                (sequence,) = cursor.fetchone()
                if sequence is not None:
                    cursor.execute(
                        f"SELECT setval(%s, coalesce(max({column.name}), 1), max({column.name}) IS NOT NULL)"  # noqa: S608 - ours
                        f" FROM {table.fullname}",
                        (sequence,),
                    )
    driver.commit()
    return loaded


def _prepare_days(cursor: Any) -> None:
    """The partitions that the payloads go into; the entries are there already."""
    cursor.execute(f"SELECT DISTINCT day FROM {entry.fullname}")  # noqa: S608 - ours
    for (day,) in cursor.fetchall():
        name = f"{JOURNAL}.{days.partition_name(day)}"
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {payload.fullname} FOR VALUES FROM ({day}) TO ({day + 1})"
        )


def _settle(location: Location) -> None:
    """Everything in the files themselves, and on the disk."""
    for side in (JOURNAL, CHARTS):
        engine = writer_engine(location, side)
        try:
            with translated():
                raw = engine.raw_connection()
                try:
                    raw.driver_connection.execute(f"PRAGMA {side}.wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
                finally:
                    raw.close()
        finally:
            engine.dispose()
        handle = os.open(location.file(side), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- whether it is all there ---


def _ends_where_it_should(store: Store, manifest: Manifest) -> list[str]:
    with store.reader() as conn:
        head = conn.execute(select(audit_head)).first()
    if head is not None and (head.chain, head.seq, bytes(head.mac).hex()) == (
        manifest.trail_chain, manifest.trail_seq, manifest.trail_mac
    ):  # fmt: skip
        return []
    return ["the trail does not end where the backup says"]


def _verified(
    store: Store, manifest: Manifest, loaded: Mapping[str, int], left: LeftOut, *, everything: bool
) -> tuple[list[str], int, tuple[int, int]]:
    """What is wrong; how many sealed values were opened; entries and charts."""
    problems = [
        f"{name}: {loaded.get(name, 0):,} rows, where the backup says {one.rows:,}"
        for name, one in manifest.tables.items()
        if loaded.get(name) != one.rows
    ]
    with store.reader() as conn:
        entries: int = conn.execute(select(func.count()).select_from(entry)).scalar_one()
        number_of_charts: int = conn.execute(select(func.count()).select_from(chart)).scalar_one()
        if (entries, number_of_charts + left.counts.get("charts", 0)) != (manifest.entries, manifest.charts):
            problems.append("entries and charts are not as many as the backup says")
        problems += _books(conn, manifest)
        problems += [f"trail: {one.kind} {one.seq or ''}: {one.detail}" for one in verify(store, conn).problems]
        try:
            check_same_time(conn)
        except StoreError as error:
            problems.append(str(error))
        opened, damaged = _opened(conn, store.keys, None if everything else OPENED_MAX)
    problems += [f"{number:,} values of {name} can't be opened" for name, number in damaged.items()]
    return problems, opened, (entries, number_of_charts)


def _books(conn: Connection, manifest: Manifest) -> Iterator[str]:
    lines = {line.channel: line for line in ledger(conn)}
    for channel in sorted(lines.keys() | manifest.books.keys()):
        line, said = lines.get(channel), manifest.books.get(channel)
        if line is None or said is None or any(getattr(line, name) != number for name, number in said.items()):
            yield f"the books of {channel} are not those of the backup"
        elif not line.balanced:
            yield f"the books of {channel} do not balance"


def _opened(conn: Connection, keys: KeyRing, limit: int | None) -> tuple[int, dict[str, int]]:
    """Sealed values that were opened, and those that can't be, by column. limit: of a column; none: all."""
    opened, damaged = 0, dict[str, int]()
    for one in sealed.SEALED:
        total: int = conn.execute(select(func.count()).select_from(one.table)).scalar_one()
        every = 1 if limit is None else -(-total // limit) or 1
        for number, row in enumerate(sealed.rows(conn, one)):
            if number % every or row.sealed is None:
                continue
            try:
                keys.open(one.place(keys, row), bytes(row.sealed))
                opened += 1
            except (TamperedError, KeyMissingError):
                damaged[str(one)] = damaged.get(str(one), 0) + 1
    return opened, damaged
