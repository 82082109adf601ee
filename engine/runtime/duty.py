"""Looks ahead in the rosters, so that a gap is known days before somebody is to be called in it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from engine.care.oncall import FAILING, Rosters
from engine.domain.standing import Overview
from engine.store import oncall
from engine.store.keys import KeyRing

AHEAD: Final = timedelta(days=14)
_EVERY: Final = timedelta(minutes=10)


class DutyWatch:
    """Not thread-safe: one look at a time. rosters: may be given others."""

    def __init__(self, keys: KeyRing, rosters: Rosters) -> None:
        self.rosters = rosters
        self._keys = keys
        self._looked: tuple[Rosters, datetime] | None = None
        self._found: dict[str, datetime] = {}

    def seen(self, conn: Connection, work: Overview) -> Overview:
        """With when nobody would be called for the first time in the days to come, by role (`on-call/primary`).

        Worked out anew every few minutes, and when the rosters are others.
        """
        rosters, now = self.rosters, work.at
        if self._looked is None or self._looked[0] is not rosters or not _recent(self._looked[1], now):
            standing = oncall.overrides(conn, self._keys, now, lambda _entry: None)
            found: dict[str, datetime] = {}
            for fault in rosters.with_overrides(standing).faults(now, now + AHEAD):
                if fault.what in FAILING:
                    found.setdefault(f"{fault.roster}/{fault.role}", fault.begins)
            self._looked, self._found = (rosters, now), found
        return structs.replace(work, gaps=self._found)


def _recent(looked: datetime, now: datetime) -> bool:
    return looked <= now < looked + _EVERY
