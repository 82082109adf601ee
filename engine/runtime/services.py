"""Services that run side by side: one that dies must not take the others with it, nor stay dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from engine import logs

_log = logs.get_logger(__name__)

_RESTART_SECONDS_FIRST: Final = 0.2
_RESTART_SECONDS_MAX: Final = 15.0
STEADY_SECONDS: Final = 60.0
"""A service that ran so long since it last failed counts as sound again."""

Service = Callable[[], Awaitable[None]]
"""Runs until it is told to stop, and then returns."""


class Services:
    """Runs them by name until `stopping` is set; each returns then."""

    def __init__(self, services: Mapping[str, Service], stopping: asyncio.Event) -> None:
        self._services = dict(services)
        self._stopping = stopping
        self._failed_at: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._supervise(name, run), name=name) for name, run in self._services.items()]

    async def ended(self) -> None:
        """Wait for all to return."""
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        """Do not wait for them: what they do can be left at any moment."""
        for task in self._tasks:
            task.cancel()

    def failing(self) -> tuple[str, ...]:
        """Those that had to be started again, and have not run long since."""
        now = asyncio.get_running_loop().time()
        return tuple(name for name, at in self._failed_at.items() if now - at < STEADY_SECONDS)

    async def _supervise(self, name: str, run: Service) -> None:
        loop = asyncio.get_running_loop()
        pause = _RESTART_SECONDS_FIRST
        while not self._stopping.is_set():
            started = loop.time()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - the one supervised loop of services
                self._failed_at[name] = loop.time()
                if loop.time() - started > STEADY_SECONDS:
                    pause = _RESTART_SECONDS_FIRST
                _log.error("service failed and is started again", service=name, seconds=pause, exc_info=error)
            else:
                if self._stopping.is_set():
                    return
                self._failed_at[name] = loop.time()
                _log.error("service ended by itself and is started again", service=name, seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, _RESTART_SECONDS_MAX)
