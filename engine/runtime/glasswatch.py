"""Reminds privacy officers, by deliveries, of broken glasses that nobody has attested."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from engine import logs
from engine.clock import Clock
from engine.errors import StoreError
from engine.runtime.background import in_own_thread
from engine.store.glassnotices import remind
from engine.store.store import Store

_log = logs.get_logger()
_SECONDS: Final = 60.0


class GlassWatch:
    """settings: destinations, and hours between reminders, of today. One worker of a node looks (`ours`)."""

    def __init__(
        self, store: Store, clock: Clock, settings: Callable[[], tuple[Sequence[str], float]], *, ours: bool
    ) -> None:
        self._store, self._clock, self._ours, self._settings = store, clock, ours, settings

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            to, hours = self._settings()
            if self._ours and to:
                try:
                    await in_own_thread(partial(remind, self._store, to, self._clock.now(), hours), "glass-reminders")
                except StoreError as error:
                    _log.warning("reminders of broken glasses are not queued yet", exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._clock.pause(_SECONDS))
