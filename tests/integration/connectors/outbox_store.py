"""A real store with deliveries in its outbox, for tests of the courier."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from engine.domain.delivery import Delivery, QueuedDelivery
from engine.store import Store
from engine.store.engines import locate
from engine.store.keys import KeyRing
from engine.store.migrations import upgrade


def make_store(folder: Path) -> Store:
    url = f"sqlite:///{folder / 'handoff.db'}"
    upgrade(locate(url, None))
    return Store.open(url, KeyRing.create(folder / "keys.json"), "worker")


def open_store(folder: Path) -> Store:
    return Store.open(f"sqlite:///{folder / 'handoff.db'}", KeyRing.load(folder / "keys.json"), "worker")


def put(store: Store, deliveries: Iterable[Delivery]) -> None:
    wanted = list(deliveries)
    store.charts_ledger.write_now(
        lambda conn: store.recorder.queue(conn, wanted, now=datetime.now(UTC), channel="main")
    )


def get(store: Store, delivery_id: int) -> QueuedDelivery:
    found = store.read_now(lambda conn: store.outbox.get(conn, delivery_id))
    assert found is not None
    return found


def states(store: Store, count: int) -> list[str]:
    return [get(store, number).state.value for number in range(1, count + 1)]
