"""The file of erasure keys beside backups. There is one, which is replaced: of what was erased since, it has no key.

    magic, key number, salt | AES-256-GCM of the tree's nodes, under a key derived from the site's key and the salt

A backup is read with what no copy has destroyed: of the file beside it, of one that is named, of the store itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select

from engine.errors import BackupError, KeyMissingError, StoreError
from engine.store import erasure
from engine.store.erasure import Node, Tree
from engine.store.keys import KeyRing, replace_file
from engine.store.schema import backup_made
from engine.store.store import Store

SUFFIX: Final = ".erasure-keys"
_MAGIC: Final = b"HANDOFFE"
_HEAD: Final = struct.Struct(">8sH32s")
_NONCE: Final = b"\0" * 12
"""Each file has a key of its own."""
_BYTES_MAX: Final = 1 << 30

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, int, bytes]]).decode


def path_of(folder: Path, tree: str) -> Path:
    """Stores that share a folder have a file each."""
    return folder / f"{tree}{SUFFIX}"


def write(store: Store, folder: Path) -> Tree:
    """Put today's keys into a folder. Raises BackupError, StoreError, or BackupError when there are none yet.

    Who writes at the same time may put down what is older: so it is looked at again until it is the same.
    """
    written: Tree | None = None
    while True:
        tree = store.read_now(lambda conn: erasure.load(conn, store.keys))
        if tree is None:
            raise BackupError("this store has no erasure keys: they come with its first backup")
        if written is not None and written.nodes == tree.nodes:
            return tree
        salt = os.urandom(32)
        number, key = store.keys.derived("erasure keys", salt)
        head = _HEAD.pack(_MAGIC, number, salt)
        plain = _encode([(node.first.to_bytes(9), node.depth, node.key) for node in tree.nodes.values()])
        try:
            replace_file(path_of(folder, tree.id), head + AESGCM(key).encrypt(_NONCE, plain, head + tree.id.encode()))
        except StoreError as error:
            raise BackupError(f"{folder}: the erasure keys can't be written: {error}") from None
        written = tree


def read(path: Path, keys: KeyRing) -> Tree:
    """Raises BackupError or KeyMissingError, in words for people."""
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MAX)
    except OSError as error:
        raise BackupError(f"{path}: the erasure keys can't be read: {error.strerror}") from None
    if len(raw) < _HEAD.size or not raw.startswith(_MAGIC):
        raise BackupError(f"{path}: is not a file of erasure keys, or it is damaged")
    head, tree = raw[: _HEAD.size], path.name.removesuffix(SUFFIX)
    _, number, salt = _HEAD.unpack(head)
    try:
        _, key = keys.derived("erasure keys", salt, number)
    except KeyMissingError:
        raise KeyMissingError(f"{path}: it is sealed with key {number}, which the key file does not hold") from None
    try:
        nodes = _decode(AESGCM(key).decrypt(_NONCE, raw[_HEAD.size :], head + tree.encode()))
    except (InvalidTag, msgspec.MsgspecError):
        raise BackupError(f"{path}: is damaged, was renamed, or is of another site's keys") from None
    return Tree(tree, [Node(int.from_bytes(first), depth, key) for first, depth, key in nodes])


def find(tree: str, folders: Iterable[Path], keys: KeyRing, store: Store | None) -> Tree:
    """What is left of a tree, by all copies that are there. Raises BackupError when there is none."""
    found: Tree | None = None
    if store is not None:
        own = store.read_now(lambda conn: erasure.load(conn, keys))
        found = own if own is not None and own.id == tree else None
    for folder in folders:
        path = path_of(folder, tree)
        if path.exists():
            copy = read(path, keys)
            found = copy if found is None else found.and_of(copy)
    if found is None:
        raise BackupError(
            f"the erasure keys of this backup ({tree}{SUFFIX}) are not beside it: copy the newest there is into its"
            " folder, or name its folder (`--erasure-keys`)"
        )
    return found


def renew(store: Store) -> list[str]:
    """After something was erased: today's keys into all folders of backups. Returns those that could not be reached.

    Folders of another node are that one's: the next backup there does it.
    """
    missed: list[str] = []
    with store.reader() as conn:
        folders = conn.execute(
            select(backup_made.c.folder).where(backup_made.c.folder.is_not(None)).distinct()
        ).scalars()
        known = sorted(folders)
        tree = erasure.load(conn, store.keys)
    for folder in known:
        if tree is None or not path_of(Path(folder), tree.id).exists():
            missed.append(folder)
            continue
        try:
            write(store, Path(folder))
        except BackupError:
            missed.append(folder)
    return missed
