"""A courier that is given other destinations while it runs."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from couriers import QUICK, Destination, item, running, until
from held_leases import held_leases
from outbox_store import put

from engine.clock import SystemClock
from engine.connectors.base import failed
from engine.connectors.file import FileDestination
from engine.errors import DeliveryFailure
from engine.pipeline.breaker import BreakerState
from engine.runtime.courier import Courier, Route
from engine.settings import RetrySettings
from engine.store import Store

LONG = RetrySettings(first_seconds=0.01, seconds_max=0.02, breaker_failures=1, breaker_seconds=3600.0)


def route(connector: Destination, *, channels: frozenset[str] = frozenset(), made_from: Any = (), **more: Any) -> Route:
    settings = FileDestination(**{"type": "file", "path": "unused", "retry": QUICK, **more})
    return Route(connector, settings, channels, made_from)


def courier(store: Store, routes: dict[str, Route]) -> Courier:
    leases = held_leases(store, "crm", "lab", "new")
    return Courier(store.outbox, store.charts_ledger, store.reader, routes, clock=SystemClock(), leases=leases)


class Closing(Destination):
    """Says when it was let go of."""

    closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_what_is_the_same_goes_on_with_what_it_has(store: Store):
    crm = Closing()
    crm.down(1)
    made = courier(store, {"crm": route(crm, retry=LONG)})
    put(store, [item("k1", "p1")])
    async with running(made):
        await until(lambda: made.counters()["crm"].breaker is BreakerState.OPEN)
        failures = made.counters()["crm"].failures
        unused = Closing()
        made.reload({"crm": route(unused, retry=LONG, channels=frozenset({"east"}))})
        await until(lambda: store.read_now(lambda conn: store.destinations.get(conn, "crm")).fed_by == ("east",))
        assert (made.counters()["crm"].breaker, made.counters()["crm"].failures) == (BreakerState.OPEN, failures)
        assert (crm.closed, crm.stopped, unused.batches) == (0, False, [])
    assert (crm.closed, unused.closed) == (1, 0)


async def test_what_failed_alone_is_remembered(store: Store):
    """Else a delivery that makes its destination look down would hold up all others again after each reload."""
    crm = Destination()
    crm.answers["bad"] = [failed(DeliveryFailure.TRANSIENT, "down", "x", of_destination=True)] * 40
    settings: dict[str, Any] = {"retry": RetrySettings(
        first_seconds=0.01, seconds_max=0.02, attempts_max=3, breaker_failures=50, breaker_seconds=0.05
    )}  # fmt: skip
    made = courier(store, {"crm": route(crm, **settings)})
    put(store, [item("bad", "p0")])
    async with running(made):
        await until(lambda: len(crm.batches) >= 2)
        number = 0
        while made.counters()["crm"].dead == 0:
            number += 1
            put(store, [item(f"good{number}", f"p{number}")])
            made.wake()
            made.reload({"crm": route(Destination(), **settings)})
            await until(lambda expected=number: made.counters()["crm"].delivered == expected)  # type: ignore[misc]
            await asyncio.sleep(0.03)
            assert number < 30
    assert crm.got == [f"good{one}" for one in range(1, number + 1)]


@pytest.mark.parametrize(
    "change",
    [{"timeout_seconds": 7.0}, {"batch_max": 3}, {"path": "elsewhere"}, {"made_from": ("another field map",)}],
    ids=str,
)
async def test_what_is_another_begins_when_the_old_one_has_let_go(store: Store, change: dict[str, Any]):
    old, new = Closing(), Closing()
    old.gate = asyncio.Event()
    made = courier(store, {"crm": route(old)})
    put(store, [item("k1", "p1")])
    async with running(made):
        await until(lambda: old.batches == [["k1"]])
        made.reload({"crm": route(new, **change)})
        put(store, [item("k2", "p2")])
        made.wake()
        await asyncio.sleep(0.05)
        assert (old.stopped, old.closed, new.batches) == (True, 0, [])
        old.gate.set()
        await until(lambda: new.got == ["k2"])
        assert (old.got, old.closed) == (["k1"], 1)


async def test_destinations_come_and_go(store: Store):
    crm, lab, new = Closing("crm"), Closing("lab"), Closing("new")
    made = courier(store, {})
    async with running(made):
        await asyncio.sleep(0.01)
        put(store, [item("k1", "p1", "new"), item("k2", "p1", "lab")])
        made.reload({"crm": route(crm), "lab": route(lab)})
        await until(lambda: lab.got == ["k2"])
        made.reload({"crm": route(Closing("crm")), "new": route(new)})
        await until(lambda: new.got == ["k1"] and lab.closed == 1)
        assert sorted(made.counters()) == ["crm", "new"]
        made.reload({})
        await until(lambda: (crm.closed, new.closed) == (1, 1) and not made.counters())
        put(store, [item("k3", "p1", "lab")])
        made.reload({"lab": route(back := Closing("lab"))})
        await until(lambda: back.got == ["k3"])
    assert back.closed == 1


async def test_many_reloads_in_a_row_end_with_the_last(store: Store):
    made = courier(store, {"crm": route(Closing())})
    async with running(made):
        for number in range(20):
            last = Closing()
            made.reload({"crm": route(last, batch_max=number + 1)})
            if number % 3 == 0:
                await asyncio.sleep(0)
        put(store, [item("k1", "p1")])
        made.wake()
        await until(lambda: last.got == ["k1"])


def test_a_route_is_the_same_by_what_its_connector_does():
    one = route(Destination())
    assert one.same(route(Destination()))
    assert one.same(dataclasses.replace(one, channels=frozenset({"x"})))
    assert not one.same(route(Destination(), made_from=("x",)))
    assert not one.same(route(Destination(), retry=LONG))
