"""Sends a simulated day as a hospital's interface does: several connections, each waiting for its acknowledgment.

Messages of one patient always take the same connection, so that their order holds. What is not acknowledged is sent
again, byte for byte, until it is or until patience ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Final

from engine.domain.message import AckCode
from engine.domain.record import Record
from engine.errors import INTERNAL_ERROR, DeliveryError
from engine.hl7v2.ack import Ack
from engine.simulator.sender import Sender
from engine.simulator.traffic import Simulated

_QUEUE_MAX: Final = 64
_PAUSE_SECONDS: Final = (0.05, 2.0)
"""Between two attempts: the first pause, and the longest."""


class Summary(Record, frozen=True, kw_only=True):
    """How it went.

    acked: answers by code. errors: attempts without one (connection lost, no answer in time). unacknowledged: messages
    that were given up.
    """

    sent: int
    acked: dict[str, int]
    errors: int
    unacknowledged: int
    seconds: float
    rate: float
    """Messages acknowledged with AA or CA a second."""


class Feed:
    """One run. The counters may be read while it is under way."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connections: int,
        per_second: float = 0.0,
        patience_seconds: float = 30.0,
        timeout_seconds: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._senders = [Sender(host, port, tls=tls, timeout_seconds=timeout_seconds) for _ in range(connections)]
        self._per_second = per_second
        self._patience_seconds = patience_seconds
        self.sent = 0
        self.acked: Counter[str] = Counter()
        self.errors = 0
        self.unacknowledged = 0
        self.finished = False
        self._began = perf_counter()

    @property
    def accepted(self) -> int:
        return self.acked[AckCode.AA] + self.acked[AckCode.CA]

    async def run(self, stream: Iterator[Simulated], progress: Callable[[Feed], None] | None = None) -> Summary:
        """Send it all. progress: called twice a second.

        Raises DeliveryError when nobody listens at the start, or when patience ended.
        """
        await self._senders[0].connect()
        self._began = perf_counter()
        queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue(_QUEUE_MAX) for _ in self._senders]
        try:
            async with asyncio.TaskGroup() as tasks:
                ticker = tasks.create_task(self._tick(progress)) if progress is not None else None
                lines = [
                    tasks.create_task(self._line(sender, queue))
                    for sender, queue in zip(self._senders, queues, strict=True)
                ]
                await self._deal(stream, queues)
                for line in lines:
                    await line
                if ticker is not None:
                    ticker.cancel()
        except* DeliveryError as group:
            raise group.exceptions[0] from None
        finally:
            for sender in self._senders:
                await sender.close()
        self.finished = True
        if progress is not None:
            progress(self)
        return self.summary()

    def summary(self) -> Summary:
        seconds = perf_counter() - self._began
        return Summary(
            sent=self.sent,
            acked=dict(sorted(self.acked.items())),
            errors=self.errors,
            unacknowledged=self.unacknowledged,
            seconds=round(seconds, 3),
            rate=round(self.accepted / seconds, 1),
        )

    async def _deal(self, stream: Iterator[Simulated], queues: list[asyncio.Queue[bytes | None]]) -> None:
        for number, message in enumerate(stream):
            if self._per_second:
                early = self._began + number / self._per_second - perf_counter()
                if early > 0:
                    await asyncio.sleep(early)
            queue = queues[message.case % len(queues)]
            if queue.full():
                await queue.put(message.payload)
            else:
                queue.put_nowait(message.payload)
        for queue in queues:
            await queue.put(None)

    async def _line(self, sender: Sender, queue: asyncio.Queue[bytes | None]) -> None:
        while (payload := await queue.get()) is not None:
            await self._send(sender, payload)

    async def _send(self, sender: Sender, payload: bytes) -> None:
        """Until it is acknowledged or refused for good. Raises DeliveryError when patience ends."""
        self.sent += 1
        pause, longest = _PAUSE_SECONDS
        gives_up_at = 0.0
        while True:
            failure: DeliveryError | None = None
            try:
                ack = (await sender.send(payload)).ack
                if ack is not None:
                    self.acked[ack.code] += 1
                if ack is None or not _asks_for_resending(ack):
                    return
            except DeliveryError as error:
                self.errors += 1
                failure = error
            now = perf_counter()
            gives_up_at = gives_up_at or now + self._patience_seconds
            if now >= gives_up_at:
                self.unacknowledged += 1
                if failure is not None:
                    raise failure
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _tick(self, progress: Callable[[Feed], None]) -> None:
        while True:
            await asyncio.sleep(0.5)
            progress(self)


def _asks_for_resending(ack: Ack) -> bool:
    """CE, or AR for a fault that is not the message's (HL7 v2.9.1, 2.9.3.2): the same message may pass later."""
    return ack.code is AckCode.CE or (ack.code is AckCode.AR and ack.hl7_code == INTERNAL_ERROR)
