"""The charts side on which channels in shadow are decided, as a worker uses it.

It is opened when such a channel has work, and closed when the configuration changes. It has cursors of its own: what
was recorded here and, after a crash, not yet on the living side is found again by them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from engine.domain.message import Entry
from engine.errors import StoreError
from engine.logs import get_logger
from engine.store.record import RecordedOutcome
from engine.store.store import Store

_PAUSE_SECONDS: Final = 1.0
"""While it can't be used, its channels wait; no other channel does."""

_log = get_logger(__name__)


class Shadow:
    """Not thread-safe: the processor's own."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """open_store: raises StoreError when it can't be used now."""
        self._open_store = open_store
        self._opened: Store | None = None
        self._positions: dict[str, dict[int, int]] | None = None
        self._observed: dict[str, datetime] = {}
        self._rests_until = 0.0

    @property
    def store(self) -> Store:
        """Raises StoreError."""
        if self._opened is None:
            self._opened = self._open_store()
        return self._opened

    @property
    def rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def is_usable(self) -> bool:
        """Open it, if it is not. False: it can't be used now, ask again later."""
        if self.rests:
            return False
        try:
            self._cursors()
        except StoreError as error:
            self.rest(error)
            return False
        return True

    def rest(self, error: StoreError) -> None:
        """Something could not be read or written: leave it alone for a while, then open it anew."""
        _log.warning("charts of channels in shadow not available, they wait", seconds=_PAUSE_SECONDS, exc_info=error)
        self._rests_until = time.monotonic() + _PAUSE_SECONDS
        self.close()

    def forget(self) -> None:
        """Others may have written meanwhile: read the cursors again."""
        self._positions = None

    def close(self) -> None:
        opened, self._opened = self._opened, None
        self._positions = None
        self._observed.clear()
        if opened is not None:
            with contextlib.suppress(StoreError):
                opened.close()

    def observed_since(self, channel: str) -> datetime | None:
        """When the first message of the channel came that has changed a chart here; none: there is none yet."""
        if channel not in self._observed:
            with self.store.reader() as conn:
                self._observed |= self.store.journal.first_received(conn, decided=True)
        return self._observed.get(channel)

    def position(self, channel: str, partition: int) -> int:
        """Every entry of the partition up to this id was recorded here, or came before the channel was in shadow."""
        return self._cursors().get(channel, {}).get(partition, 0)

    def moved(self, channel: str, positions: Mapping[int, int]) -> None:
        """What was just recorded has moved its cursors to here."""
        self._cursors().setdefault(channel, {}).update(positions)

    def knows(self, entry: Entry) -> bool:
        return entry.id <= self.position(entry.channel, entry.partition)

    def recorded(self, entries: Sequence[Entry]) -> list[RecordedOutcome]:
        """The outcomes of entries that it knows. Raises StoreError."""
        with self.store.reader() as conn:
            found = self.store.recorder.outcomes(conn, [entry.id for entry in entries])
        return [found[entry.id] for entry in entries]

    def _cursors(self) -> dict[str, dict[int, int]]:
        if self._positions is None:
            with self.store.reader() as conn:
                self._positions = self.store.recorder.cursors(conn)
        return self._positions
