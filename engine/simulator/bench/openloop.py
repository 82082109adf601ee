"""Part `openloop`: latency at a fixed rate, while the messages are processed and delivered.

A message is due at its time whatever the daemon does, and its latency counts from then (see `load.py`): a stall is seen
by every message that was due in it. stored: until the answer of a channel that answers when the message is on disk.
processed: until the answer of a channel that answers when it is processed; that is the latency to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final

from engine.simulator.bench.measure import WARM_UP_SECONDS, Meter, Say, await_, load, pending_entries, warm_up
from engine.simulator.bench.site import ANSWERED, LIVE, Daemon, Database, Place
from engine.store import Store

SENDERS: Final = 128
"""Enough senders that at 1,000/s each hears its answer before its next message is due."""


def openloop(
    place: Place, databases: Sequence[Database], *, rates: Sequence[float], seconds: float, say: Say
) -> list[dict[str, Any]]:
    """One run for each store and rate."""
    return [_run(place, database, rate, seconds, say) for database in databases for rate in rates]


def at_rate(daemon: Daemon, store: Store, channel: str, *, rate: float, seconds: float, name: str) -> dict[str, Any]:
    """Load on a channel at a rate; with the most that was seen waiting, and how long it took to work that off."""
    waiting: list[int] = []
    meter = Meter(daemon)
    result = load(
        daemon.port(channel),
        senders=SENDERS,
        certificate=daemon.site.certificate,
        meanwhile=lambda _: waiting.append(pending_entries(store, channel)),
        rate=rate,
        seconds=seconds,
        warm_up_seconds=WARM_UP_SECONDS,
        name=name,
    )
    began = perf_counter()
    await_(daemon, lambda: pending_entries(store, channel), "processed")
    result |= {"pending_max": max(waiting, default=0), "drain_seconds": round(perf_counter() - began, 3)}
    return result | {"cpu_us": meter.read(result["sent"])}


def _run(place: Place, database: Database, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    what = f"{rate:,.0f} messages/s on {database}"
    with place.site(database=database) as site, site.daemon() as daemon, site.store() as store:
        warm_up(daemon, store)
        say(f"{what}: until stored")
        stored = at_rate(daemon, store, LIVE, rate=rate, seconds=seconds, name="S")
        say(f"{what}: until processed")
        processed = at_rate(daemon, store, ANSWERED, rate=rate, seconds=seconds, name="P")
    return {"rate": rate, "store": database, "stored": stored, "processed": processed}
