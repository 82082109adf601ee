"""The benchmark: how fast the daemon is on this machine, beside what says how fast it could be.

Times depend on the machine and on what else it does; the ratios to the probes of the same run are the result. Each part
is a file of its own. Parts that take long, or need more than this machine, stand in `benchmarks/` of the source tree.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeVar

from sqlcipher3 import dbapi2 as sqlite

from engine import __version__
from engine.simulator.bench import deadlines, openloop, throughput
from engine.simulator.bench.append import sync_milliseconds
from engine.simulator.bench.load import STAY, Feed, left_home
from engine.simulator.bench.measure import Say
from engine.simulator.bench.processes import machine_time
from engine.simulator.bench.site import BenchError, Database, Place, server_version
from engine.simulator.bench.throughput import Variant


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure. seconds: of each measurement. messages: sent in each measurement to the end. deadlines: patients
    whose deadlines come at once.

    folder: where sites are made and removed again; its disk is what is measured. postgresql, settings: see
    `site.Place`. beside: other MLLP receivers by name (host, port).
    """

    databases: Sequence[Database] = ("sqlite",)
    tls: bool = False
    senders: Sequence[int] = (1, 8, 64, 256)
    seconds: float = 5.0
    messages: int = 12_000
    rates: Sequence[float] = (200.0, 1000.0)
    deadlines: int = 100_000
    folder: Path | None = None
    postgresql: str | None = None
    beside: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


Options_ = TypeVar("Options_", bound=Options)
Part = Callable[[Place, Options_, Say], dict[str, Any]]
"""Measures something; what it returns is added to the result."""


def benchmark(
    options: Options_, parts: Mapping[str, Part[Options_]], *, say: Say, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run the parts, one after the other. Raises BenchError.

    keep: called with all there is so far after each part, so that a long run that is stopped has not been in vain.
    """
    _check(options)
    with tempfile.TemporaryDirectory(prefix=".handoff-bench-", dir=options.folder or Path.cwd()) as folder:
        place = Place(Path(folder), options.postgresql, options.settings)
        say("the machine")
        began, before = perf_counter(), machine_time()
        result: dict[str, Any] = {
            "format": 2,
            "version": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(options, place.folder),
            "message_bytes": _message_bytes(),
            "parts": [],
            "settings": dict(options.settings),
            "generator": None,
            "runs": [],
            "start_seconds": None,
            "memory_mb": None,
        }
        for name, part in parts.items():
            result |= part(place, options, say)
            result["parts"].append(name)
            result["took_seconds"] = round(perf_counter() - began, 1)
            stolen = machine_time().stolen - before.stolen
            result["machine"]["stolen_share"] = round(stolen / result["took_seconds"] / result["machine"]["cores"], 4)
            keep(result)
        return result


def _check(options: Options) -> None:
    """Whatever is missing is better said at the start than after an hour."""
    if "postgresql" in options.databases:
        if options.postgresql is None:
            raise BenchError("measuring on PostgreSQL needs the URL of a server: --postgresql URL")
        server_version(options.postgresql)


def _throughput(place: Place, options: Options, say: Say) -> dict[str, Any]:
    variants = [Variant(database) for database in options.databases]
    if options.tls:
        variants.append(Variant(options.databases[0], tls=True))
    runs = throughput.throughput(
        place,
        variants,
        senders=options.senders,
        seconds=options.seconds,
        messages=options.messages,
        beside=options.beside,
        say=say,
    )
    starts = [start for run in runs for start in run.pop("start_seconds")]
    memory = [size for run in runs for size in run.pop("memory_mb")]
    opened, processed = (sorted(pair[index] for pair in starts) for index in (0, 1))
    cost = min(run["framer"]["generator_us"] for run in runs)
    return {
        "runs": runs,
        "generator": {"us_per_message": cost, "ceiling_per_second": round(1e6 / cost)},
        "start_seconds": {
            "first": starts[0][0],
            "median": opened[len(opened) // 2],
            "first_processed": processed[len(processed) // 2],
        },
        "memory_mb": max(memory, key=lambda size: float(size["proportional"])),
    }


def _openloop(place: Place, options: Options, say: Say) -> dict[str, Any]:
    runs = openloop.openloop(place, options.databases, rates=options.rates, seconds=options.seconds, say=say)
    return {"openloop": runs}


def _deadlines(place: Place, options: Options, say: Say) -> dict[str, Any]:
    runs = deadlines.deadlines(
        place,
        options.databases,
        patients=options.deadlines,
        rate=min(options.rates),
        seconds=options.seconds,
        say=say,
    )
    return {"deadlines": runs}


PARTS: Final[Mapping[str, Part[Options]]] = {
    "throughput": _throughput,
    "openloop": _openloop,
    "deadlines": _deadlines,
}


def _message_bytes() -> list[int]:
    feed = Feed("A", 0, left_home())
    return [len(feed.next()) for _ in range(STAY)]


def _machine(options: Options, folder: Path) -> dict[str, Any]:
    median, worst = sync_milliseconds(folder)
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite.sqlite_version,
        "postgresql": server_version(options.postgresql) if options.postgresql else None,
        "file_system": _file_system(folder),
        "fdatasync_ms": {"p50": median, "p99": worst},
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder (a tmpfs syncs nothing)."""
    best = ("", "unknown")
    for mount, kind in _mounts():
        if len(mount) >= len(best[0]) and folder.resolve().is_relative_to(mount):
            best = (mount, kind)
    return best[1]


def _mounts() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, mount, kind, *_ = line.split(" ")
            yield mount, kind
