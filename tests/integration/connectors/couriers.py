"""A courier over a real store, and a destination in memory that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from connector_deliveries import delivery
from held_leases import held_leases

from engine.clock import Clock, SystemClock
from engine.connectors.base import DELIVERED, Connector, Result, always
from engine.connectors.file import FileDestination
from engine.domain.delivery import Delivery, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure
from engine.pipeline.admit import Rule
from engine.runtime.courier import Courier, Route
from engine.settings import RetrySettings
from engine.store import Store

TRANSIENT, AMBIGUOUS, PERMANENT = DeliveryFailure.TRANSIENT, DeliveryFailure.AMBIGUOUS, DeliveryFailure.PERMANENT
QUICK = RetrySettings(first_seconds=0.01, seconds_max=0.02, breaker_failures=3, breaker_seconds=0.05)


class Destination:
    """A destination in memory that does what it is told: `answers` by idempotency key, then delivers."""

    def __init__(self, name: str = "crm", *, idempotent: bool = True, ordered_batches: bool = False) -> None:
        self.name = name
        self.idempotent = idempotent
        self.ordered_batches = ordered_batches
        self.answers: dict[str, list[Result | Exception]] = {}
        self.unreachable: list[DeliveryError] = []
        self.batches: list[list[str]] = []
        self.got: list[str] = []
        self.gate: asyncio.Event | None = None
        self.stopped = False

    async def connect(self) -> None:
        if self.unreachable:
            raise self.unreachable.pop(0)

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        self.batches.append([queued.delivery.idempotency_key for queued in batch])
        if self.gate is not None:
            await self.gate.wait()
        results: list[Result] = []
        for queued in batch:
            key = queued.delivery.idempotency_key
            answer = self.answers[key].pop(0) if self.answers.get(key) else DELIVERED
            if isinstance(answer, Exception):
                raise answer
            results.append(answer)
            if answer.delivered:
                self.got.append(key)
        return results

    def stop(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        pass

    def down(self, times: int, error: str = "unreachable") -> None:
        self.unreachable += [DeliveryError(self.name, error, "down", kind=TRANSIENT) for _ in range(times)]


def courier(
    store: Store,
    *connectors: Connector,
    retry: RetrySettings = QUICK,
    clock: Clock | None = None,
    rules: Sequence[Rule] = (),
    **settings: Any,
) -> Courier:
    given = FileDestination(type="file", path="unused", retry=retry, **settings)
    return Courier(
        store.outbox,
        store.charts_ledger,
        store.reader,
        {connector.name: Route(connector, given, rules=rules) for connector in connectors},
        clock=clock or SystemClock(),
        leases=held_leases(store, *(connector.name for connector in connectors)),
    )


@asynccontextmanager
async def running(made: Courier) -> AsyncIterator[Courier]:
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        await asyncio.wait_for(task, 60)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.01)


def item(key: str, patient: str, destination: str = "crm", **fields: Any) -> Delivery:
    return delivery(key=key, patient=patient, destination=destination, **fields)
