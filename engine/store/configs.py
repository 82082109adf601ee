"""Configuration versions that were in force, so that a replay can run under the one of its time, and who loaded them.

The text decides who gets patients' data, so it is sealed, and its digest is worked out again whenever it is read: a
version that was altered in the store is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from engine.domain.record import Record
from engine.errors import TamperedError
from engine.snapshot import Loaded, version_of
from engine.store.keys import KeyRing
from engine.store.schema import config_load, config_version, from_micros, to_micros
from engine.store.statements import Rows

_INSERT: Final = Rows(config_version, ("version", "first_used_at", "files"), conflict=("version",))
_INSERT_LOAD: Final = Rows(config_load, ("load_id", "at", "version", "node", "who", "by"), conflict=("load_id",))


class ConfigLoad(Record, frozen=True, kw_only=True):
    """One loading of a version: when, on which node, by whom, and by what (`run` or `reload`)."""

    at: datetime
    version: str
    node: str
    who: str
    by: str


class ConfigStore:
    """What writes must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def remember(self, conn: Connection, version: str, files: Mapping[str, str], now: datetime) -> None:
        """Keep a version; nothing happens when it is known."""
        sealed = self._keys.seal(files_place(version), msgspec.json.encode(dict(files)))
        _INSERT.write(conn, [(version, to_micros(now), sealed)])

    def note_load(self, conn: Connection, version: str, node: str, loaded: Loaded) -> bool:
        """Keep who loaded a version; false when this loading is known already."""
        known = select(config_load.c.load_id).where(config_load.c.load_id == loaded.id)
        if conn.execute(known).first() is not None:
            return False
        _INSERT_LOAD.write(conn, [(loaded.id, to_micros(loaded.at), version, node, loaded.who, loaded.by)])
        return True

    def get(self, conn: Connection, version: str) -> dict[str, str] | None:
        """The files of a version: path -> text. Raises TamperedError when they are not those that were recorded."""
        raw = conn.execute(
            select(config_version.c.files).where(config_version.c.version == version)
        ).scalar_one_or_none()
        if raw is None:
            return None
        files = msgspec.json.decode(self._keys.open(files_place(version), raw), type=dict[str, str])
        if version_of(files) != version:
            raise TamperedError(files_place(version))
        return files

    def is_known(self, conn: Connection, version: str) -> bool:
        """Whether a daemon has worked by it."""
        statement = select(config_version.c.version).where(config_version.c.version == version)
        return conn.execute(statement).first() is not None

    def versions(self, conn: Connection, prefix: str) -> list[str]:
        """Versions that begin so, those used first first."""
        statement = select(config_version.c.version).order_by(config_version.c.first_used_at)
        return [version for version in conn.execute(statement).scalars() if version.startswith(prefix)]

    def loads(self, conn: Connection, limit: int | None = None) -> list[ConfigLoad]:
        """Newest first."""
        statement = select(config_load).order_by(config_load.c.at.desc(), config_load.c.load_id)
        if limit is not None:
            statement = statement.limit(limit)
        return [
            ConfigLoad(at=from_micros(row.at), version=row.version, node=row.node, who=row.who, by=row.by)
            for row in conn.execute(statement)
        ]


def files_place(version: str) -> str:
    return f"config_version.files:{version}"
