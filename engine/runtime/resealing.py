"""Seals anew, in the background, what was sealed with a key of before: one side of the store in each process.

It begins when another key has become the active one, and at the start of a process that has several keys (what is done
already is only looked at). It works a page at a time and then rests for a multiple of that page's time, so that it
takes a small part of one core and the writers hardly notice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from engine.errors import StoreError
from engine.logs import get_logger
from engine.store.sealed import of_side, reseal_page
from engine.store.store import Store

_REST_TIMES: Final = 4.0
_REST_SECONDS_MIN: Final = 0.005
_LOOK_SECONDS: Final = 1.0
"""Between two looks whether the active key is another."""
_PAUSE_SECONDS: Final = 10.0
"""After the store was not there, and between looks of those whose turn it is not."""

_log = get_logger(__name__)


class Resealer:
    """One service. side: what this process writes. ours: whether it is this one's turn, of several that could.

    beside: opens another store with the same side (charts of channels in shadow); none: there is none.
    """

    def __init__(
        self,
        store: Store,
        side: str,
        *,
        ours: Callable[[], bool] = lambda: True,
        beside: Callable[[], Store | None] = lambda: None,
    ) -> None:
        self._store = store
        self._columns = of_side(side)
        self._ours = ours
        self._beside = beside
        self._done = 0
        """The key that everything is sealed with."""

    async def run(self, stopping: asyncio.Event) -> None:
        keys = self._store.keys
        while not stopping.is_set():
            seconds, active = _LOOK_SECONDS, keys.active
            if active != self._done and len(keys.numbers) > 1:
                seconds = _PAUSE_SECONDS
                if self._ours():
                    try:
                        if await self._pass(active, stopping):
                            self._done, seconds = active, _LOOK_SECONDS
                    except StoreError as error:
                        _log.warning("sealing anew waits for the store", seconds=seconds, exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)

    async def _pass(self, active: int, stopping: asyncio.Event) -> bool:
        """Whether all was gone through, with this key the active one."""
        count = await self._walk(self._store, active, stopping)
        beside = await asyncio.to_thread(self._beside) if count is not None else None
        if beside is not None:
            try:
                more = await self._walk(beside, active, stopping)
            finally:
                await asyncio.to_thread(beside.close)
            count = count + more if count is not None and more is not None else None
        if count:
            _log.info("values sealed anew with the active key", count=count, key_id=str(active))
        return count is not None

    async def _walk(self, store: Store, active: int, stopping: asyncio.Event) -> int | None:
        """How many values were sealed anew; none: it was cut short."""
        loop = asyncio.get_running_loop()
        count = 0
        for one in self._columns:
            after: tuple[Any, ...] | None = None
            while True:
                began = loop.time()
                page = await asyncio.to_thread(reseal_page, store, one, after)
                count += len(page.fresh)
                if page.damaged:
                    _log.warning("values that can't be opened keep their key", count=page.damaged, kind=one.table.name)
                rest = max(_REST_SECONDS_MIN, (loop.time() - began) * _REST_TIMES)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), rest)
                if stopping.is_set() or self._store.keys.active != active or not self._ours():
                    return None
                after = page.last
                if after is None:
                    break
        return count
