"""The places that deliveries go to: they remember what they did, fail in every way, and answer late or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulation.world import Process, World

from engine.connectors.base import DELIVERED, NOT_ATTEMPTED, Result, always, failed
from engine.domain.delivery import QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure

TRAVEL_SECONDS_MAX = 1.5
"""No request is on its way for longer, so that whoever looks later than this sees what became of it."""


@dataclass(frozen=True)
class Troubles:
    """How often what goes wrong, as parts of one."""

    unreachable: float = 0.0
    transient: float = 0.0
    lost: float = 0.0
    """The request arrives, and its answer never does."""
    missing: float = 0.0
    """The request never arrives, and nobody can tell."""
    partial: float = 0.0
    """Of a batch the first ones are taken and the others are not."""
    permanent: float = 0.0
    slow: float = 0.0


class Destination:
    """One of them. received: told of everything that it acts on, in its order (first time for its key or not).

    sent: told of everything that is sent to it, at that moment, whether it arrives or not.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        idempotent: bool,
        received: Callable[[str, QueuedDelivery, bool], None],
        sent: Callable[[str, QueuedDelivery], None],
    ) -> None:
        self.name = name
        self.idempotent = idempotent
        self.troubles = Troubles()
        self.acts: dict[str, int] = {}
        """How often it has acted, by idempotency key."""
        self.refused: set[str] = set()
        """Keys that it will never take."""
        self._world = world
        self._received = received
        self.sent = sent

    def take(self, queued: QueuedDelivery) -> None:
        key = queued.delivery.idempotency_key
        first = key not in self.acts
        self._world.note(f"{self.name} gets delivery {queued.id}{'' if first else ' again'}")
        self.acts[key] = self.acts.get(key, 0) + (1 if first or not self.idempotent else 0)
        self._received(self.name, queued, first)

    def refuse(self, queued: QueuedDelivery) -> None:
        self._world.note(f"{self.name} will never take delivery {queued.id}")
        self.refused.add(queued.delivery.idempotency_key)


class SimulatedConnector:
    """A courier's way to a destination. What was sent arrives, whether its sender still lives or not."""

    ordered_batches = False

    def __init__(self, process: Process, destination: Destination, timeout_seconds: float) -> None:
        self.name = destination.name
        self.idempotent = destination.idempotent
        self._process, self._destination, self._timeout = process, destination, timeout_seconds
        self._stopping = False

    async def connect(self) -> None:
        random = self._process.world.random
        self._process.pause("connect-out")
        await asyncio.sleep(random.random() * 0.01)
        if random.random() < self._destination.troubles.unreachable:
            raise DeliveryError(self.name, "unreachable", "nobody answers", kind=DeliveryFailure.TRANSIENT)

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        process, world = self._process, self._process.world
        process.pause("deliver")
        if self._stopping or not may_go_on():
            return [NOT_ATTEMPTED] * len(batch)
        for queued in batch:
            self._destination.sent(self.name, queued)
        random, troubles = world.random, self._destination.troubles
        answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        travel = random.random() * (TRAVEL_SECONDS_MAX if random.random() < troubles.slow else 0.02)
        missing, lost = random.random() < troubles.missing, random.random() < troubles.lost

        def arrives() -> None:
            results = self._act(batch)
            if not lost:
                world.after(random.random() * 0.02, lambda: process.loop.call_soon_threadsafe(say, results))

        def say(results: list[Result]) -> None:
            if not answer.done():
                answer.set_result(results)

        if not missing:
            world.after(travel, arrives)
        try:
            results = await asyncio.wait_for(answer, self._timeout)
        except TimeoutError:
            raise DeliveryError(self.name, "no-answer", "no answer", kind=DeliveryFailure.AMBIGUOUS) from None
        process.pause("delivered")
        return results

    def stop(self) -> None:
        self._stopping = True

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _act(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        world, destination = self._process.world, self._destination
        random, troubles = world.random, destination.troubles
        results: list[Result] = []
        stopped = random.random() < troubles.transient
        for queued in batch:
            if stopped:
                results.append(
                    failed(DeliveryFailure.TRANSIENT, "not-now", "not now", of_destination=random.random() < 0.5)
                )
            elif queued.delivery.idempotency_key in destination.refused or (
                random.random() < troubles.permanent and queued.delivery.idempotency_key not in destination.acts
            ):
                destination.refuse(queued)
                results.append(failed(DeliveryFailure.PERMANENT, "refused", "not this one"))
            else:
                destination.take(queued)
                results.append(DELIVERED)
            stopped = stopped or random.random() < troubles.partial
        return results
