"""All parts of the benchmark: the engine's own, and those that take long or need more than this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import delivery, growth, heart, soak, stays
from engine.simulator.bench import benchmark
from engine.simulator.bench.benchmark import Part
from engine.simulator.bench.measure import Say
from engine.simulator.bench.site import BenchError, Place, check_org


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """What to measure, besides. sizes: stored entries. stored_bytes: of a message of the history.

    salesforce: the URL of an org on this machine.
    """

    sizes: Sequence[int] = (0, 1_000_000, 10_000_000)
    stored_bytes: int = 400
    soak_minutes: float = 30.0
    soak_rate: float = 300.0
    salesforce: str | None = None


def check(parts: Sequence[str], options: Options) -> None:
    """Whatever is missing is better said at the start than after an hour. Raises BenchError."""
    if "salesforce" in parts:
        check_org(_org(options))


def _org(options: Options) -> str:
    if options.salesforce is None:
        raise BenchError("the part salesforce needs the URL of an org on this machine: --salesforce URL")
    return options.salesforce


def _cpu(place: Place, options: Options, say: Say) -> dict[str, Any]:
    return {"cpu": heart.cpu(place, messages=options.messages, say=say)}


def _stays(place: Place, _options: Options, say: Say) -> dict[str, Any]:
    return {"stays": stays.stays(place, say=say)}


def _salesforce(place: Place, options: Options, say: Say) -> dict[str, Any]:
    return {"salesforce": delivery.salesforce(place, _org(options), messages=options.messages // 4, say=say)}


def _growth(place: Place, options: Options, say: Say) -> dict[str, Any]:
    return {
        "growth": growth.growth(
            place,
            options.databases,
            sizes=options.sizes,
            payload_bytes=options.stored_bytes,
            seconds=options.seconds,
            messages=options.messages,
            rate=max(options.rates),
            say=say,
        )
    }


def _soak(place: Place, options: Options, say: Say) -> dict[str, Any]:
    seconds = options.soak_minutes * 60
    return {"soak": soak.soak(place, options.databases[0], rate=options.soak_rate, seconds=seconds, say=say)}


PARTS: Final[Mapping[str, Part[Options]]] = {
    **benchmark.PARTS,
    "cpu": _cpu,
    "stays": _stays,
    "salesforce": _salesforce,
    "growth": _growth,
    "soak": _soak,
}
SHORT: Final = (*benchmark.PARTS, "cpu", "stays")
"""Those that need nothing but this machine and a few minutes."""
