"""The courier: takes what is due from the outbox, hands it to the destinations' connectors, records what became of it.

One task a destination, so that one which fails or is slow never holds up another; within a destination order per
patient is the outbox's doing, which gives only the oldest open delivery of a patient (or, for connectors that keep the
order in a batch themselves, a run of them from the oldest on).

What can go wrong between a delivery and its record:

| the process is killed | idempotent destination | others |
|---|---|---|
| before the attempt | it is due again | the same |
| during it, or after it and before the record | it is delivered again under the same idempotency key | it is found as started and held for a person |
| after the record | done | done |

Therefore destinations that are not idempotent get one delivery at a time, which is marked as started before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from engine import logs
from engine.clock import Clock
from engine.connectors.base import Connector, Result, failed
from engine.domain.delivery import QueuedDelivery
from engine.domain.record import Record
from engine.errors import DeliveryError, DeliveryFailure, StoreError
from engine.pipeline.breaker import Breaker, BreakerState
from engine.pipeline.retry import Bury, Decision, Hold, RetryAt, decide
from engine.settings import DestinationBase

_log = logs.get_logger()

_STORE_PAUSE_SECONDS: Final = 1.0
_LOOK_SECONDS_MAX: Final = 30.0
"""The outbox is looked at so often even when nobody says that there is something: a hint can be lost."""


class Settlement(Record, frozen=True, kw_only=True):
    """What is to be recorded of one delivery. decision: none when it is delivered."""

    delivery_id: int
    decision: Decision | None
    error: str = ""
    text: str = ""


class Outbox(Protocol):
    """What the courier needs of the store. All raise StoreError when the store can't be used now."""

    async def due(
        self, destination: str, now: datetime, limit: int, *, heads_only: bool
    ) -> Sequence[QueuedDelivery]:
        """What is due, oldest due time first. heads_only: of each patient only the oldest delivery that is open."""
        ...

    async def next_due_at(self, destination: str) -> datetime | None:
        """When the next delivery is due; none: nothing is pending."""
        ...

    async def start(self, deliveries: Sequence[QueuedDelivery], now: datetime) -> None:
        """Record that an attempt begins. What is found started after a crash is ambiguous."""
        ...

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None: ...


@dataclass(slots=True)
class Counters:
    """What was done for one destination since the start, and how it stands."""

    delivered: int = 0
    retried: int = 0
    held: int = 0
    buried: int = 0
    failures: int = 0
    """Times when the destination as a whole could not be used."""
    breaker: BreakerState = BreakerState.CLOSED


@dataclass(frozen=True)
class Route:
    """A destination: its connector and how to treat it."""

    connector: Connector
    settings: DestinationBase


@dataclass
class _Stop:
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Courier:
    """Runs one task for each destination until it is stopped.

    random: uniform in [0, 1), for jitter. count: told of each settled delivery (destination, what became of it, how
    many): delivered, retried, held, dead.
    """

    def __init__(
        self,
        outbox: Outbox,
        routes: Mapping[str, Route],
        *,
        clock: Clock,
        random: Callable[[], float] = random_module.random,
        count: Callable[[str, str, int], None] | None = None,
    ) -> None:
        self._rounds = {
            name: _Rounds(name, outbox, route, clock=clock, random=random, count=count or _uncounted)
            for name, route in routes.items()
        }

    async def run(self) -> None:
        """Until `stop`. Then each destination finishes the batch it has in hand."""
        async with asyncio.TaskGroup() as tasks:
            for rounds in self._rounds.values():
                tasks.create_task(rounds.run(), name=f"courier {rounds.name}")

    def wake(self) -> None:
        """There are new deliveries."""
        for rounds in self._rounds.values():
            rounds.wake()

    def stop(self) -> None:
        """Take nothing new. `run` returns when what is in hand is recorded; cancel it when that takes too long."""
        for rounds in self._rounds.values():
            rounds.stop()

    def counters(self) -> dict[str, Counters]:
        """By destination."""
        return {name: rounds.counters for name, rounds in self._rounds.items()}


class _Rounds:
    """One destination, batch after batch."""

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        route: Route,
        *,
        clock: Clock,
        random: Callable[[], float],
        count: Callable[[str, str, int], None],
    ) -> None:
        self.name = name
        self.counters = Counters()
        self._outbox = outbox
        self._connector = route.connector
        self._policy = route.settings.retry
        # What is not idempotent goes one by one, so that a crash leaves one delivery in doubt and not a batch.
        self._batch_max = route.settings.batch_max if route.connector.idempotent else 1
        self._clock = clock
        self._random = random
        self._count = count
        self._breaker = Breaker(self._policy)
        self._signal = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        self._signal.set()

    def stop(self) -> None:
        self._stopping = True
        self._signal.set()

    async def run(self) -> None:
        try:
            while not self._stopping:
                self._signal.clear()
                try:
                    wait = await self._round()
                except StoreError as error:
                    _log.warning("outbox not usable", destination=self.name, exc_info=error)
                    wait = _STORE_PAUSE_SECONDS
                except Exception as error:  # noqa: BLE001 - the one supervised loop of a destination: it goes on
                    _log.error("courier round failed", destination=self.name, exc_info=error)
                    wait = _STORE_PAUSE_SECONDS
                if wait > 0 and not self._stopping:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._signal.wait(), wait)
        finally:
            await self._connector.close()

    async def _round(self) -> float:
        """Deliver one batch; the seconds to wait before the next."""
        now = self._clock.now()
        if not self._breaker.ready(now):
            return self._until(self._breaker.resting_until, now)
        self.counters.breaker = self._breaker.state
        limit = 1 if self._breaker.state is BreakerState.HALF_OPEN else self._batch_max
        heads_only = not self._connector.ordered_batches
        batch = await self._outbox.due(self.name, now, limit, heads_only=heads_only)
        if not batch:
            return self._until(await self._outbox.next_due_at(self.name), now)
        await self._attempt(batch)
        return 0.0

    def _until(self, at: datetime | None, now: datetime) -> float:
        if at is None:
            return _LOOK_SECONDS_MAX
        # Never 0: the outbox may know of something that is not given out (its predecessor is held, or not due yet).
        return min(max((at - now).total_seconds(), 0.05), _LOOK_SECONDS_MAX)

    async def _attempt(self, batch: Sequence[QueuedDelivery]) -> None:
        try:
            await self._connector.connect()
        except DeliveryError as error:
            self._destination_failed(error.error, error.retry_after_seconds)
            return
        if not self._connector.idempotent:
            await self._outbox.start(batch, self._clock.now())
        try:
            results = await self._connector.deliver(batch)
        except DeliveryError as error:
            self._destination_failed(error.error, error.retry_after_seconds)
            if error.kind is not DeliveryFailure.TRANSIENT:
                await self._settle(batch, [failed(error.kind, error.error, error.text)] * len(batch))
            return
        except asyncio.CancelledError:
            if not self._connector.idempotent:
                interrupted = failed(DeliveryFailure.AMBIGUOUS, "interrupted", "stopped while it waited for an answer")
                await asyncio.shield(self._settle(batch, [interrupted] * len(batch)))
            raise
        self._note(results)
        await self._settle(batch, results)
