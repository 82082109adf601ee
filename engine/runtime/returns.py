"""Sends the application ACKs of enhanced mode to a channel's return address.

Such an ACK is a message of its own that asks for no answer. What can't be sent is noted and logged; nothing is lost
by it, because how the processing ended is in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from engine import logs
from engine.domain.message import AckState
from engine.hl7v2 import mllp
from engine.runtime.answers import Lane
from engine.settings import ReturnAddress

_log = logs.get_logger(__name__)

_QUEUE_MAX: Final = 10_000
_CONNECT_SECONDS_MAX: Final = 10.0
_WRITE_SECONDS_MAX: Final = 30.0
_ATTEMPTS_MAX: Final = 3
_PAUSE_SECONDS: Final = 2.0


_Item = tuple[Lane, bytes, Callable[[AckState], None]]


class Returns:
    """One queue and one connection for each return address."""

    def __init__(self) -> None:
        self._queues: dict[ReturnAddress, asyncio.Queue[_Item]] = {}
        self._tasks: dict[ReturnAddress, asyncio.Task[None]] = {}

    def send(self, lane: Lane, answer: bytes, settled: Callable[[AckState], None]) -> None:
        """Send an answer, unframed, to the channel's return address. settled: told what became of it."""
        address = lane.channel.ack.return_to
        if address is None:  # a reload has just taken it away
            settled(AckState.UNSENT)
            return
        queue = self._queues.setdefault(address, asyncio.Queue(_QUEUE_MAX))
        try:
            queue.put_nowait((lane, mllp.wrap(answer), settled))
        except asyncio.QueueFull:
            settled(AckState.UNSENT)
            return
        self._start(address)

    async def close(self, seconds_max: float) -> None:
        """Give what is queued a last chance."""
        running = [task for task in self._tasks.values() if not task.done()]
        if running:
            await asyncio.wait(running, timeout=seconds_max)
        for queue in self._queues.values():
            while not queue.empty():
                queue.get_nowait()[2](AckState.UNSENT)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, address: ReturnAddress) -> None:
        task = self._tasks.get(address)
        if (task is None or task.done()) and not self._queues[address].empty():
            self._tasks[address] = task = asyncio.create_task(self._run(address, self._queues[address]))
            task.add_done_callback(lambda _: self._start(address))  # what came while it was closing

    async def _run(self, address: ReturnAddress, queue: asyncio.Queue[_Item]) -> None:
        """Until nothing is left to send. Ends with the connection; the next answer opens another."""
        writer: asyncio.StreamWriter | None = None
        try:
            while not queue.empty():
                lane, frame, settled = queue.get_nowait()
                state = AckState.UNSENT
                try:
                    writer = await self._send(address, writer, frame)
                    if writer is not None:
                        state = AckState.SENT
                finally:
                    settled(state)
                if state is AckState.UNSENT:
                    _log.warning("application ack could not be sent to its return address", channel=lane.channel.name)
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 1.0)

    async def _send(
        self, address: ReturnAddress, writer: asyncio.StreamWriter | None, frame: bytes
    ) -> asyncio.StreamWriter | None:
        """Send it over the connection that is open, or another one. Returns that; none: it could not be sent."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                if writer is None:
                    writer = await _connect(address)
                writer.write(frame)
                await asyncio.wait_for(writer.drain(), _WRITE_SECONDS_MAX)
            except (OSError, TimeoutError):
                if writer is not None:
                    writer.transport.abort()
                    writer = None
                if attempt < _ATTEMPTS_MAX:
                    await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return writer
        return None


async def _connect(address: ReturnAddress) -> asyncio.StreamWriter:
    opening = asyncio.open_connection(address.host, address.port)
    _, writer = await asyncio.wait_for(opening, _CONNECT_SECONDS_MAX)
    return writer
