"""The file of a backup: chunks that are sealed in their order, and a manifest at the end that names all of them.

    magic, format, key number, salt (its id), check | record 0 | record 1 | ... | lists | manifest | where that is

Each file has a key of its own, derived from a key of the site and the salt. A record is AES-256-GCM with its number as
nonce and a flag on the last one (the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizar 2015), and the head of
the file as associated data: records can't be left out, put in another order or brought from another file. The
manifest comes last, so a file that was cut off has none.

A chunk that an earlier file of the same folder has is not written again: the lists name that file, by its id.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.domain.record import Record
from engine.errors import BackupError, KeyMissingError
from engine.store.keys import KeyRing

FORMAT: Final = 2
SUFFIX: Final = ".handoff-backup"
_MAGIC: Final = b"HANDOFFB"
_END_MAGIC: Final = b"BFFODNAH"
_HEAD: Final = struct.Struct(">8sBH32s16s")
_END: Final = struct.Struct(">QQQ8s")
_SALT_BYTES: Final = 32
_CHECK_BYTES: Final = 16
_DIGEST_BYTES: Final = 16
_TAG_BYTES: Final = 16
_RECORD_BYTES_MAX: Final = 1 << 31
_SYNC_BYTES: Final = 16 << 20
"""Written at most before the disk has them: a daemon that commits on the same disk would wait for all of them."""


class Piece(NamedTuple):
    """Where a chunk is: by the file's place in `Manifest.files`, and the record in it."""

    digest: bytes
    file: int
    number: int
    offset: int
    size: int


class TableManifest(Record, frozen=True, kw_only=True):
    columns: tuple[str, ...]
    rows: int


class Manifest(Record, frozen=True, kw_only=True):
    """What a backup holds. No PHI: names, numbers, times."""

    id: str
    as_of: datetime
    """Everything that was acknowledged before is in it."""
    finished_at: datetime
    node: str
    made_by: str
    """Version of the program."""
    revision: str
    """Of the tables."""
    database: str
    config_version: str | None
    """In force then; its text is among the rows."""
    entries: int
    last_entry: int
    charts: int
    tree: str
    """Of the erasure keys that its rows are sealed with."""
    bare: int
    """Rows of it that can't be erased: see `wrapping`."""
    trail_chain: str
    trail_seq: int
    trail_mac: str
    books: dict[str, dict[str, int]]
    """By channel: received, refused, processed, filtered, dead, pending, duplicates."""
    tables: dict[str, TableManifest]
    """By `schema.table`, in the order in which they are put back."""
    files: tuple[str, ...]
    """Ids of the files that hold the chunks, this one first."""
    depth: int
    """How many backups it rests on; 0: on none."""
    bytes: int
    """Written for it; of the rows the others are in earlier files."""
    whole_bytes: int
    """Of all its chunks."""


_encode_lists = msgspec.msgpack.Encoder().encode
_decode_lists = msgspec.msgpack.Decoder(dict[str, list[tuple[bytes, int, int, int, int]]]).decode
_decode_manifest = msgspec.msgpack.Decoder(Manifest).decode


def digest_of(chunk: bytes) -> bytes:
    """By which a chunk is known again, before it is wrapped. It stands in the sealed lists alone."""
    return blake2b(chunk, digest_size=_DIGEST_BYTES).digest()


class ArchiveWriter:
    """A backup that is being written, under another name until `finish`. Not finished, it is gone."""

    def __init__(self, path: Path, keys: KeyRing) -> None:
        """Raises BackupError when there is something of that name already, or the folder can't be written."""
        self._path = path
        if path.exists():
            raise BackupError(f"{path}: is there already; a backup is never overwritten")
        salt = os.urandom(_SALT_BYTES)
        self.id = salt.hex()
        self.key_number, key = keys.derived("backup", salt)
        self._head = _head(self.key_number, salt, key)
        self._cipher = AESGCM(key)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # mode 0600
        except OSError as error:
            raise BackupError(f"{path}: can't be written: {error.strerror}") from None
        self._temporary = Path(name)
        self._file = os.fdopen(handle, "wb", buffering=1 << 20)
        self._number = 0
        self._synced = 0
        self.offset = 0
        self._put(self._head)

    def append(self, plain: bytes, *, last: bool = False) -> tuple[int, int, int]:
        """Seal a record. Returns its number, offset and size."""
        number, offset = self._number, self.offset
        sealed = self._cipher.encrypt(_nonce(number, last=last), plain, self._head)
        self._put(sealed)
        self._number += 1
        return number, offset, len(sealed)

    def finish(self, lists: Mapping[str, list[Piece]], manifest: Manifest) -> None:
        """Write what holds it together, and give it its name: from then on it is there, whole."""
        self.append(_encode_lists(lists))
        number, offset, size = self.append(msgspec.msgpack.encode(manifest), last=True)
        self._put(_END.pack(offset, size, number, _END_MAGIC))
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            try:
                os.link(self._temporary, self._path)  # never over another one
            except FileExistsError:
                raise BackupError(f"{self._path}: is there already; a backup is never overwritten") from None
            except OSError:  # a file system without links
                self._temporary.rename(self._path)
            self._temporary.unlink(missing_ok=True)
            _sync(self._path.parent)
        except OSError as error:
            raise BackupError(f"{self._path}: can't be written: {error.strerror}") from None

    def _put(self, raw: bytes) -> None:
        try:
            self._file.write(raw)
            self.offset += len(raw)
            if self.offset - self._synced >= _SYNC_BYTES:
                self._sync()
        except OSError as error:
            raise BackupError(f"{self._path}: can't be written: {error.strerror}") from None

    def _sync(self) -> None:
        """On the disk, and out of memory: what the daemon reads again and again stays there."""
        self._file.flush()
        os.fdatasync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), self._synced, 0, os.POSIX_FADV_DONTNEED)
        self._synced = self.offset

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class ArchiveFile:
    """A file that is there, open for reading. Raises BackupError or KeyMissingError, in words for people."""

    def __init__(self, path: Path, keys: KeyRing) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise BackupError(f"{path}: can't be read: {error.strerror}") from None
        try:
            self._open(keys)
        except BaseException:
            self._file.close()
            raise

    def _open(self, keys: KeyRing) -> None:
        path = self.path
        self._size = os.fstat(self._file.fileno()).st_size
        raw = self._file.read(_HEAD.size)
        if len(raw) < _HEAD.size or raw[: len(_MAGIC)] != _MAGIC:
            raise BackupError(f"{path}: is not a backup of Handoff, or its beginning is damaged")
        _, form, self.key_number, salt, check = _HEAD.unpack(raw)
        if form != FORMAT:
            raise BackupError(f"{path}: format {form} of backups is not known to this version of Handoff")
        self.id = salt.hex()
        try:
            _, key = keys.derived("backup", salt, self.key_number)
        except KeyMissingError:
            raise KeyMissingError(
                f"{path}: it is sealed with key {self.key_number}, which the key file does not hold"
            ) from None
        if not hmac.compare_digest(_head(self.key_number, salt, key)[-_CHECK_BYTES:], check):
            raise KeyMissingError(
                f"{path}: it was made with other keys than those of this site's key file, or its beginning is damaged"
            )
        self._head, self._cipher = raw, AESGCM(key)

    def record(self, number: int, offset: int, size: int, *, last: bool = False) -> bytes:
        if not (_HEAD.size <= offset and _TAG_BYTES <= size < _RECORD_BYTES_MAX and offset + size <= self._size):
            raise BackupError(f"{self.path}: it was cut off: record {number} is not there")
        try:
            self._file.seek(offset)
            sealed = self._file.read(size)
        except OSError as error:
            raise BackupError(f"{self.path}: can't be read: {error.strerror}") from None
        try:
            return self._cipher.decrypt(_nonce(number, last=last), sealed, self._head)
        except InvalidTag:
            raise BackupError(
                f"{self.path}: it is damaged, or was altered: record {number} is not what was written there"
            ) from None

    def manifest(self) -> tuple[Manifest, dict[str, list[Piece]]]:
        """What it holds, and where."""
        self._file.seek(max(0, self._size - _END.size))
        raw = self._file.read(_END.size)
        if len(raw) < _END.size or raw[-len(_END_MAGIC) :] != _END_MAGIC:
            raise BackupError(f"{self.path}: it was cut off: its end is missing")
        offset, size, number, _ = _END.unpack(raw)
        if offset + size + _END.size != self._size:
            raise BackupError(f"{self.path}: it is damaged, or was altered: its end does not fit its length")
        try:
            manifest = _decode_manifest(self.record(number, offset, size, last=True))
        except msgspec.MsgspecError:
            raise BackupError(
                f"{self.path}: it was made by another version of Handoff: restore it with that one"
            ) from None
        # The record before it begins where the others end; its size is what is left.
        start = self._lists_offset(manifest)
        lists = _decode_lists(self.record(number - 1, start, offset - start))
        return manifest, {table: [Piece(*one) for one in pieces] for table, pieces in lists.items()}

    def _lists_offset(self, manifest: Manifest) -> int:
        return _HEAD.size + manifest.bytes

    def close(self) -> None:
        self._file.close()


class Archive:
    """A backup, with the files of its folder that it rests on."""

    def __init__(self, path: Path, keys: KeyRing) -> None:
        """path: a backup, or a folder of them, of which the newest is meant."""
        self._keys = keys
        self.path = newest(path) if path.is_dir() else path
        own = ArchiveFile(self.path, keys)
        self._files: dict[str, ArchiveFile] = {own.id: own}
        try:
            self.manifest, self.lists = own.manifest()
            self._find_others()
        except BaseException:
            self.close()
            raise

    def _find_others(self) -> None:
        wanted = set(self.manifest.files) - self._files.keys()
        for path in siblings(self.path.parent):
            if not wanted:
                return
            if (id_ := id_of(path)) in wanted:
                self._files[id_] = ArchiveFile(path, self._keys)
                wanted.discard(id_)
        if wanted:
            raise BackupError(
                f"{self.path}: it rests on {len(wanted)} earlier backup(s) that are not in its folder: put them there"
            )

    @property
    def key_numbers(self) -> set[int]:
        """Of the keys that its files are sealed with."""
        return {one.key_number for one in self._files.values()}

    def chunks(self, table: str) -> Iterator[bytes]:
        """Of a table's rows, in order, as they were wrapped."""
        for piece in self.lists.get(table, ()):
            file = self._files[self.manifest.files[piece.file]]
            yield file.record(piece.number, piece.offset, piece.size)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def siblings(folder: Path) -> list[Path]:
    """The backups of a folder, the newest first, by their names."""
    return sorted((one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")), reverse=True)


def id_of(path: Path) -> str | None:
    """Of a file that looks like a backup."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        raw = file.read(_HEAD.size)
        if len(raw) == _HEAD.size and raw.startswith(_MAGIC):
            return bytes(_HEAD.unpack(raw)[3]).hex()
    return None


def newest(folder: Path) -> Path:
    """The last backup of a folder that was finished. Raises BackupError when there is none."""
    for path in siblings(folder):
        if path.name.endswith(SUFFIX) and id_of(path) is not None:
            return path
    raise BackupError(f"{folder}: there is no backup in this folder")


def _head(number: int, salt: bytes, key: bytes) -> bytes:
    without = _HEAD.pack(_MAGIC, FORMAT, number, salt, b"\0" * _CHECK_BYTES)[:-_CHECK_BYTES]
    return without + blake2b(without, key=key, digest_size=_CHECK_BYTES, person=b"backup head").digest()


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + (b"\1" if last else b"\0")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(manifest: Manifest) -> dict[str, Any]:
    """As a document."""
    document: dict[str, Any] = msgspec.to_builtins(manifest)
    return document
