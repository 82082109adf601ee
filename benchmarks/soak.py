"""Part `soak`: a fixed rate for a long time, and what grows meanwhile.

The slope is that of the straight line through the samples (least squares), without the first part of the run, in which
caches fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from engine.simulator.bench.measure import (
    WARM_UP_SECONDS,
    Meter,
    Say,
    await_,
    ledger_line,
    load,
    pending_entries,
    unfinished_deliveries,
    warm_up,
)
from engine.simulator.bench.openloop import SENDERS
from engine.simulator.bench.site import LIVE, BenchError, Database, Place

_SAMPLES_MAX: Final = 360
_SAMPLE_SECONDS_MIN: Final = 1.0
_SETTLING_SHARE: Final = 0.2
_SECONDS_AN_HOUR: Final = 3600.0


def soak(place: Place, database: Database, *, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    """Messages at a rate for so long, processed and delivered. Raises BenchError when the books do not balance."""
    say(f"{rate:,.0f} messages/s for {seconds / 60:,.1f} minutes on {database}")
    every = max(_SAMPLE_SECONDS_MIN, seconds / _SAMPLES_MAX)
    samples: list[dict[str, Any]] = []
    with place.site(database=database) as site, site.daemon() as daemon, site.store() as store:

        def look(after_seconds: float) -> None:
            memory = daemon.memory()
            samples.append({
                "seconds": round(after_seconds, 1),
                "proportional_mb": memory.proportional,
                "resident_mb": memory.resident,
                "pending": pending_entries(store),
            })  # fmt: skip

        warm_up(daemon, store)
        before = ledger_line(store).received
        meter = Meter(daemon)
        result = load(
            daemon.port(LIVE),
            senders=SENDERS,
            name="K",
            rate=rate,
            seconds=seconds,
            warm_up_seconds=WARM_UP_SECONDS,
            series_seconds=every,
            meanwhile=look,
            every_seconds=every,
        )
        await_(daemon, lambda: pending_entries(store), "processed")
        await_(daemon, lambda: unfinished_deliveries(store), "delivered")
        cpu = meter.read(result["sent"])
        await_(daemon, lambda: before + result["sent"] - ledger_line(store).acked, "noted as answered")
        line = ledger_line(store)
        if not line.balanced or line.received != before + result["sent"] or line.dead or line.deliveries.dead:
            raise BenchError("the ledger does not hold what was sent")
        stored_bytes = site.stored_bytes()
    return {
        "store": database,
        **result,
        "cpu_us": cpu,
        "memory_mb": _memory(samples, seconds),
        "pending_max": max(sample["pending"] for sample in samples),
        "stored_bytes": stored_bytes,
        "samples": samples,
    }


def slope_per_hour(points: Sequence[tuple[float, float]]) -> float | None:
    """Of (seconds, value), by least squares; none: one point makes no line."""
    if len(points) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    under = sum((x - mean_x) ** 2 for x, _ in points)
    return over / under * _SECONDS_AN_HOUR if under else None


def _memory(samples: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    points = [(sample["seconds"], sample["proportional_mb"]) for sample in samples if sample["seconds"] <= seconds]
    settled = [point for point in points if point[0] >= seconds * _SETTLING_SHARE]
    slope = slope_per_hour(settled)
    return {
        "first": points[0][1] if points else None,
        "last": points[-1][1] if points else None,
        "max": max((value for _, value in points), default=None),
        "slope_mb_per_hour": None if slope is None else round(slope, 2),
        "settled_after_seconds": round(seconds * _SETTLING_SHARE, 1),
    }
