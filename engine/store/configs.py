"""Configuration versions that were in force, so that a replay can run under the one of its time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import Connection, select

from engine.errors import HandoffError
from engine.store.schema import config_version, to_micros
from engine.store.statements import Rows

_INSERT = Rows(config_version, ("version", "first_used_at", "files"), conflict=("version",))


class ConfigStore:
    """`remember` must run in a transaction of the charts' ledger. The files hold no secrets (see `Snapshot`)."""

    def remember(self, conn: Connection, version: str, files: Mapping[str, str], now: datetime) -> None:
        """Keep a version; nothing happens when it is known."""
        _INSERT.write(conn, [(version, to_micros(now), msgspec.json.encode(dict(files)))])

    def get(self, conn: Connection, version: str) -> dict[str, str] | None:
        """The files of a version: path -> text. Raises HandoffError when they can't be read any more."""
        raw = conn.execute(
            select(config_version.c.files).where(config_version.c.version == version)
        ).scalar_one_or_none()
        try:
            return None if raw is None else msgspec.json.decode(raw, type=dict[str, str])
        except msgspec.DecodeError:
            raise HandoffError(f"the recorded configuration {version} is damaged in the store") from None
