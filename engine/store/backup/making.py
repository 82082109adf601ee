"""Taking a backup of a store beside a running daemon: one snapshot of both sides, read from end to end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import structs
from sqlalchemy import Connection, func, insert, select, text

from engine.domain.audit import AuditRecord
from engine.domain.record import Record
from engine.errors import BackupError, KeyMissingError
from engine.store import erasure
from engine.store.backup import companion
from engine.store.backup.archive import (
    SUFFIX,
    Archive,
    ArchiveWriter,
    Manifest,
    Piece,
    TableManifest,
    digest_of,
    siblings,
)
from engine.store.backup.keeping import delete_older
from engine.store.backup.rows import chunks, columns_of, read_rows, tables
from engine.store.backup.wrapping import Wrapping
from engine.store.counts import ledger
from engine.store.schema import CHARTS, JOURNAL, REVISION, backup_made, chart, config_load, entry, to_micros
from engine.store.store import Store

DEPTH_MAX: Final = 6
"""Backups that the next one may rest on; after a week of days one is whole again."""


FREE_BYTES_MIN: Final = 256 << 20
"""On the disk of the store: its log grows for as long as a backup reads, and a daemon with a full disk refuses."""
_LOOK_EACH_CHUNKS: Final = 256


class Made(Record, frozen=True, kw_only=True):
    """What a backup came to."""

    path: str
    manifest: Manifest
    seconds: float
    deleted: tuple[str, ...] = ()
    """Older ones, by path."""


def make_backup(
    store: Store,
    path: Path,
    *,
    node: str,
    program: str,
    now: Callable[[], datetime],
    record: Callable[[Manifest], AuditRecord] | None,
    whole: bool = False,
    erasure_keys: Path | None = None,
    keep: timedelta | None = None,
    step_back: Callable[[], None] = lambda: None,
) -> Made:
    """Write a backup.

    path: of the file, which must not be there; or a folder that is there, where it gets a name of its own and what the
    backups before it have is not written again. whole: it rests on none of them. keep: older ones than that, which
    none younger rests on, are deleted when this one is whole. record: stands in the trail when it is done; none: no
    record is written. erasure_keys: the folder of the file of erasure keys; none: beside the backup. step_back: makes
    this thread wait for whoever else wants to run; what writes the store, and so holds a lock, runs in another one.
    Raises BackupError or StoreError.
    """
    erasure.begin(store)
    folder = (erasure_keys or (path if path.is_dir() else path.parent)).absolute()
    with ThreadPoolExecutor(1) as writer:
        writer.submit(lambda: None).result()  # a thread begins with the priority of who starts it
        step_back()

        def keep_keys() -> None:
            writer.submit(companion.write, store, folder).result()

        made = _made(store, path, keep_keys, node=node, program=program, now=now, whole=whole)
        if keep is not None:
            gone = delete_older(Path(made.path).parent, store.keys, now() - keep)
            made = structs.replace(made, deleted=tuple(map(str, gone)))
        if record is not None:
            writer.submit(_note, store, made, folder, record(made.manifest)).result()
            keep_keys()  # what was erased before anybody knew of this folder
    return made


def _made(
    store: Store,
    path: Path,
    keep_keys: Callable[[], None],
    *,
    node: str,
    program: str,
    now: Callable[[], datetime],
    whole: bool,
) -> Made:
    began = now()
    base: dict[bytes, tuple[str, Piece]] = {}
    depth = 0
    if path.is_dir():
        if not whole:
            base, depth = _base(path, store)
        path /= f"handoff-{began:%Y%m%dT%H%M%S%f}Z{SUFFIX}"
    with ArchiveWriter(path, store.keys) as archive:
        lists, manifest = _written(store, archive, base, depth, node=node, program=program, began=began, now=now)
        keep_keys()  # no backup without its keys
        archive.finish(lists, manifest)
    return Made(path=str(path), manifest=manifest, seconds=round((now() - began).total_seconds(), 3))


def _written(
    store: Store,
    archive: ArchiveWriter,
    base: dict[bytes, tuple[str, Piece]],
    depth: int,
    *,
    node: str,
    program: str,
    began: datetime,
    now: Callable[[], datetime],
) -> tuple[dict[str, list[Piece]], Manifest]:
    lists: dict[str, list[Piece]] = {}
    counted: dict[str, TableManifest] = {}
    files = {archive.id: 0}
    whole_bytes = 0
    start = archive.offset
    with store.reader() as conn:
        _begin(conn)
        facts = _facts(store, conn)
        tree = erasure.load(conn, store.keys)
        if tree is None:
            raise BackupError("the erasure keys of the store are gone: somebody has emptied the table erasure_key")
        wrapping = Wrapping(tree)
        for table in tables():
            pieces: list[Piece] = []
            total = 0
            for chunk, number_of_rows in chunks(read_rows(conn, table)):
                if not len(pieces) % _LOOK_EACH_CHUNKS:
                    _check_room(store)
                digest = digest_of(chunk)
                total += number_of_rows
                if (known := base.get(digest)) is not None:
                    id_, there = known
                    piece = there._replace(file=files.setdefault(id_, len(files)))
                else:
                    number, offset, size = archive.append(wrapping.wrap(table.fullname, chunk))
                    piece = Piece(digest, 0, number, offset, size)
                whole_bytes += piece.size
                pieces.append(piece)
            lists[table.fullname] = pieces
            counted[table.fullname] = TableManifest(columns=columns_of(table), rows=total)
    manifest = Manifest(
        id=archive.id,
        as_of=began,
        finished_at=now(),
        node=node,
        made_by=program,
        revision=REVISION,
        database="sqlite" if store.location.is_sqlite else "postgresql",
        tables=counted,
        files=tuple(files),
        depth=depth + 1 if len(files) > 1 else 0,
        bytes=archive.offset - start,
        whole_bytes=whole_bytes,
        tree=tree.id,
        bare=wrapping.bare,
        **facts,
    )
    return lists, manifest


def _check_room(store: Store) -> None:
    file = store.location.charts_file
    if file is not None and shutil.disk_usage(file.parent).free < FREE_BYTES_MIN:
        raise BackupError(
            f"{file.parent}: less than {FREE_BYTES_MIN >> 20} MiB are free on the disk of the store, and its log grows"
            " while a backup is made: make room, and try again"
        )


def _begin(conn: Connection) -> None:
    """Both sides are seen as they are now: the charts first, so that none is ahead of its journal."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("SET LOCAL statement_timeout = 0"))
        conn.execute(text("SET LOCAL synchronize_seqscans = off"))  # each time in the same order
        conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    for side in (CHARTS, JOURNAL):
        conn.execute(text(f"SELECT version_num FROM {side}.alembic_version")).all()  # noqa: S608 - names of ours


def _facts(store: Store, conn: Connection) -> dict[str, Any]:
    head = store.audit.head(conn)
    in_force = select(config_load.c.version).order_by(config_load.c.at.desc()).limit(1)
    names = ("received", "refused", "processed", "filtered", "dead", "pending", "duplicates")
    return {
        "config_version": conn.execute(in_force).scalar_one_or_none(),
        "entries": conn.execute(select(func.count()).select_from(entry)).scalar_one(),
        "last_entry": conn.execute(select(func.max(entry.c.id))).scalar_one() or 0,
        "charts": conn.execute(select(func.count()).select_from(chart)).scalar_one(),
        "trail_chain": head.chain,
        "trail_seq": head.seq,
        "trail_mac": head.mac.hex(),
        "books": {line.channel: {name: getattr(line, name) for name in names} for line in ledger(conn)},
    }


def _base(folder: Path, store: Store) -> tuple[dict[bytes, tuple[str, Piece]], int]:
    """The chunks of the newest backup of a folder, by what they are, when the next one may rest on it."""
    keys, tree = store.keys, store.read_now(erasure.tree_id)
    for path in siblings(folder):
        if not path.name.endswith(SUFFIX):
            continue
        try:
            with Archive(path, keys) as archive:
                manifest, lists = archive.manifest, archive.lists
                keyed = archive.key_numbers
        except (BackupError, KeyMissingError):
            return {}, 0  # damaged, or of other keys: a whole one is made
        sealed_alike = keyed == {keys.active} and manifest.tree == tree
        if manifest.depth >= DEPTH_MAX or manifest.revision != REVISION or not sealed_alike:
            return {}, 0
        known = {piece.digest: (manifest.files[piece.file], piece) for pieces in lists.values() for piece in pieces}
        return known, manifest.depth
    return {}, 0


def _note(store: Store, made: Made, folder: Path, record: AuditRecord) -> None:
    manifest = made.manifest

    def write(conn: Connection) -> None:
        conn.execute(
            insert(backup_made).values(
                id=manifest.id,
                as_of=to_micros(manifest.as_of),
                finished_at=to_micros(manifest.finished_at),
                entries=manifest.entries,
                bytes=manifest.bytes,
                depth=manifest.depth,
                folder=str(folder),
                node=manifest.node,
            )
        )
        more = f"; {len(made.deleted)} older ones deleted" if made.deleted else ""
        store.audit.append(conn, [structs.replace(record, reason=f"{record.reason or ''}{more}" or None)])

    store.charts_ledger.write_now(write)
