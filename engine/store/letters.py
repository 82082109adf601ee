"""Writing dead letters: what each says, and a keyed hash of it.

They are words without patient data, so they stand in clear; the hash keeps anybody without the key from altering or
inventing one. What became of a letter since is no part of it, nor is the patient's key: an erasure takes that away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from engine.store.keys import KeyRing
from engine.store.schema import dead_letter
from engine.store.statements import Rows

_INSERT: Final = Rows(
    dead_letter,
    ("entry_id", "channel", "delivery_id", "stage", "error", "location", "detail", "died_at", "key_hash", "mac"),
)


class Letter(NamedTuple):
    entry_id: int | None
    channel: str
    delivery_id: int | None
    stage: str
    error: str
    location: str | None
    detail: str
    died_at: int


def write(conn: Connection, keys: KeyRing, letters: Iterable[tuple[Letter, bytes | None]]) -> None:
    """letters: each with the hash of its patient's key, where that could be read."""
    _INSERT.write(conn, [(*letter, key_hash, letter_mac(keys, letter)) for letter, key_hash in letters])


def letter_mac(keys: KeyRing, letter: Letter) -> bytes:
    return keys.lookup("dead-letter", *("" if value is None else str(value) for value in letter))


def letter_of(row: Any) -> Letter:
    """row: of the table."""
    return Letter(*(getattr(row, name) for name in Letter._fields))
