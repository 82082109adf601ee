"""Watches the trail while the daemon runs: makes checkpoints outside of the database, and looks whether all that came
since the last one is as it was written.

A checkpoint is made after so many records or seconds, and at the next look after an act that matters
(`Event.witnessed`) of which no command has made one; one that says nothing new is written once an hour, so that a place
shows that somebody still writes there. None is made of a trail that is behind the last one: it would pass for whole
from there on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs
from sqlalchemy import Connection

from engine import logs
from engine.clock import Clock
from engine.connectors.checkpoints import FilePlace, Place
from engine.domain.audit import EVENTS
from engine.domain.checkpoint import Checkpoint
from engine.domain.standing import Overview
from engine.errors import CheckpointError, StoreError
from engine.store.checkpoints import checkpoint
from engine.store.store import Store
from engine.store.verify import is_behind, is_ours, unrecorded_acts, verify_tail

_log = logs.get_logger(__name__)

_LOOK_SECONDS_MAX: Final = 10.0
_SAME_SECONDS: Final = 3_600.0
"""Between two checkpoints that say the same."""
SILENT_TIMES: Final = 3
"""So many times the seconds of a checkpoint without one: the trail is silent."""
_TAIL_ROWS_MAX: Final = 100_000
"""Looked at after a start where no checkpoint says from where on."""

_ACT_ENTRIES_MAX: Final = 10_000
"""The newest entries of the journal that are looked through for acts of people without a record."""

_WITNESSED: Final = frozenset(name for name, event in EVENTS.items() if event.witnessed)
BROKEN: Final = "trail-broken"
ROLLED_BACK: Final = "trail-rolled-back"
FAILED: Final = "trail-checkpoint-failed"
SILENT: Final = "trail-silent"
UNRECORDED: Final = "trail-unrecorded"
UNWATCHED: Final = "trail-unwatched"


class TrailWatch:
    """places, rows, seconds: may be given others."""

    def __init__(
        self,
        store: Store,
        places: Sequence[Place],
        rows: int,
        seconds: float,
        clock: Clock,
        monotonic: Callable[[], float],
        *,
        ours: bool = True,
    ) -> None:
        """ours: this worker does it, of those of a node."""
        self.places = tuple(places)
        self.rows = rows
        self.seconds = seconds
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._ours = ours
        self._last: Checkpoint | None = None
        """The newest that we know of."""
        self._made_at: float | None = None
        """When it was written."""
        self._began_at = monotonic()
        self._checked = 0
        """The last record that was looked at."""
        self._acted = 0
        """The last entry of the journal that was looked at for acts of people."""
        self._read = False
        self.trouble: dict[str, str] = {}
        """Code -> what is known besides."""

    def seen(self, work: Overview) -> Overview:
        return structs.replace(work, trail=dict(self.trouble))

    async def run(self, stopping: asyncio.Event) -> None:
        if not self._ours:
            await stopping.wait()
        while not stopping.is_set():
            await asyncio.to_thread(self.look)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), min(_LOOK_SECONDS_MAX, self.seconds / 2))

    def look(self) -> None:
        """One look, and a checkpoint where it is time. Raises nothing that is the store's or a place's."""
        found: dict[str, str] = {}
        try:
            self._look(found)
        except StoreError as error:
            found[BROKEN] = str(error)
        if not self.places:
            found[UNWATCHED] = "trail.checkpoints names no place"
        elif self._monotonic() - (self._made_at or self._began_at) > SILENT_TIMES * self.seconds:
            found.setdefault(SILENT, "no checkpoint was made for too long")
        for code in found.keys() - self.trouble.keys():
            _log.error("the trail is in trouble", error=code)
        self.trouble = found

    def _look(self, found: dict[str, str]) -> None:
        if not self._read:
            self._read_places(found)
        with self._store.reader() as conn:
            if self._last is not None and is_behind(self._store, conn, self._last):
                found[ROLLED_BACK] = f"it was seen with {self._last.seq:,} records"
                return
            self._adopt()
            self._checked = max(self._checked, self._store.audit.head(conn).seq - _TAIL_ROWS_MAX)
            head, problems = verify_tail(self._store, conn, self._checked)
            if problems:
                first = problems[0]
                found[BROKEN] = f"{first.kind}{f' at {first.seq:,}' if first.seq is not None else ''}"
                return
            if head is None:
                return
            newest, silent = unrecorded_acts(self._store, conn, self._acted, _ACT_ENTRIES_MAX)
            if silent:
                found[UNRECORDED] = f"{len(silent):,} act{'s' * (len(silent) > 1)}, the first: {silent[0]}"
            else:
                self._acted = newest
            self._checked = max(0, head.seq - 1)  # the last one again: what comes next has to follow it
            due = self._is_due(head.seq) or self._matters(conn)
            made = checkpoint(self._store, conn, self._clock.now()) if due and self.places else None
        if made is not None:
            self._write(made, found)
        elif FAILED in self.trouble:
            found[FAILED] = self.trouble[FAILED]

    def _is_due(self, seq: int) -> bool:
        if self._last is None or self._made_at is None or FAILED in self.trouble:
            return True
        since = self._monotonic() - self._made_at
        new = seq - self._last.seq
        return new >= self.rows or (new > 0 and since >= self.seconds) or since >= max(_SAME_SECONDS, self.seconds)

    def _adopt(self) -> None:
        """A command may have made a newer one."""
        for place in self.places:
            newest = place.last() if isinstance(place, FilePlace) else None
            if newest is None or not is_ours(self._store, newest):
                continue
            if self._last is not None and newest.seq > self._last.seq:
                self._last, self._made_at = newest, self._monotonic()

    def _matters(self, conn: Connection) -> bool:
        """Whether something came since the last one that should be known outside of the database at once."""
        since = self._last.seq if self._last is not None else 0
        return not _WITNESSED.isdisjoint(self._store.audit.actions_after(conn, since))

    def _write(self, made: Checkpoint, found: dict[str, str]) -> None:
        failed: list[str] = []
        for place in self.places:
            try:
                place.write(made)
            except CheckpointError as error:
                failed.append(str(error))
        if failed:
            found[FAILED] = "; ".join(failed)
        if len(failed) < len(self.places):
            self._last, self._made_at = made, self._monotonic()

    def _read_places(self, found: dict[str, str]) -> None:
        """The newest checkpoint of before this start."""
        for place in self.places:
            try:
                there = [one for one in place.read() or () if is_ours(self._store, one)]
            except CheckpointError as error:
                found[FAILED] = str(error)
                continue
            newest = max(there, key=lambda one: (one.at, one.seq), default=None)
            if newest is not None and (self._last is None or newest.at > self._last.at):
                self._last = newest
        self._read = True
