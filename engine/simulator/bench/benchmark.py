"""The benchmark: how fast the daemon is on this machine, beside two probes that say how fast it could be.

Times depend on the machine and on what else it does; the ratios to the probes of the same run are the result.

framer: the engine's own framing and acknowledging without a store. append: the same bytes, appended by raw SQLite with
nothing around it. acknowledged: the daemon answers AA once a message is on disk, encrypted (its channel is paused: only
received). to the end: the daemon also maps, scores, plans and fills the outbox (and delivers to files), measured until
nothing is pending.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

from sqlcipher3 import dbapi2 as sqlite

from engine.simulator.bench.append import append_rate, sync_milliseconds
from engine.simulator.bench.daemon import CHANNEL, BenchError, Daemon, daemon
from engine.simulator.bench.load import frames
from engine.store import Store
from engine.store.counts import LedgerLine, ledger, pending
from engine.store.keys import KeyRing

SENDERS: Final = (1, 8, 64)
_WARM_UP_SECONDS: Final = 1.0
_DRAIN_SECONDS_MAX: Final = 600.0
_POLL_SECONDS: Final = 0.02


def benchmark(
    *,
    senders: Sequence[int] = SENDERS,
    seconds: float = 8.0,
    messages: int = 12_000,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run everything; takes about `senders * (2.5 * seconds + a drain)`.

    seconds: of each measurement. messages: sent in each measurement to the end. folder: where the site is made (and
    removed again); its disk is what is measured. Raises BenchError.
    """
    with tempfile.TemporaryDirectory(prefix=".handoff-bench-", dir=folder or Path.cwd()) as name:
        place = Path(name)
        say("the machine")
        machine = _machine(place)
        runs = [_measure(count, seconds, messages, place, say) for count in senders]
        starts = [start for run in runs for start in run.pop("start_seconds")]
        memory = [size for run in runs for size in run.pop("memory_mb")]
        costs = [run["framer"]["generator_us"] for run in runs]
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "message_bytes": [len(frame) for frame, _ in islice(frames(0, "B"), 3)],
            "generator": {"us_per_message": min(costs), "ceiling_per_second": round(1e6 / min(costs))},
            "runs": runs,
            "start_seconds": {"first": starts[0], "median": sorted(starts)[len(starts) // 2]},
            "memory_mb": max(memory, key=lambda size: float(size["proportional"])),
        }


def table_rows(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The headers and lines of the table for people."""
    headers = ("senders", "framer/s", "append/s", "acknowledged/s", "p50 ms", "p99 ms", "of framer", "of append",
               "to the end/s", "of acknowledged")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for run in result["runs"]:
        acknowledged, to_the_end = run["acknowledged"], run["to_the_end"]
        rows.append((
            f"{run['senders']}",
            f"{run['framer']['rate']:,.0f}",
            f"{run['append']['rate']:,.0f}",
            f"{acknowledged['rate']:,.0f}",
            f"{acknowledged['p50_ms']}",
            f"{acknowledged['p99_ms']}",
            f"{run['ratios']['acknowledged_of_framer']:.2f}",
            f"{run['ratios']['acknowledged_of_append']:.2f}",
            f"{to_the_end['rate']:,.0f}",
            f"{run['ratios']['to_the_end_of_acknowledged']:.2f}",
        ))  # fmt: skip
    return headers, rows


def _measure(senders: int, seconds: float, messages: int, place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"{senders} sender(s): the bare framer")
    with _framer() as port:
        framer = _load(port, senders, "--seconds", str(seconds / 2), "--warm-up-seconds", str(_WARM_UP_SECONDS / 2))
    say(f"{senders} sender(s): the plain append")
    payload = next(frames(0, "B"))[0]
    append = append_rate(place, payload, group=senders, seconds=seconds / 2)
    say(f"{senders} sender(s): acknowledged")
    starts, memory = [], []
    with daemon(place, mode="paused") as running:
        starts.append(running.start_seconds)
        acknowledged = _load(
            running.port, senders, "--seconds", str(seconds), "--warm-up-seconds", str(_WARM_UP_SECONDS)
        )
        memory.append(_memory(running))
    say(f"{senders} sender(s): to the end")
    with daemon(place) as running:
        starts.append(running.start_seconds)
        to_the_end = _to_the_end(running, senders, messages)
        memory.append(_memory(running))
    return {
        "senders": senders,
        "framer": framer,
        "append": {"group": senders, "rate": round(append, 1)},
        "acknowledged": acknowledged,
        "to_the_end": to_the_end,
        "ratios": {
            "acknowledged_of_framer": _ratio(acknowledged["rate"], framer["rate"]),
            "acknowledged_of_append": _ratio(acknowledged["rate"], append),
            "to_the_end_of_acknowledged": _ratio(to_the_end["rate"], acknowledged["rate"]),
        },
        "start_seconds": starts,
        "memory_mb": memory,
    }


def _to_the_end(running: Daemon, senders: int, messages: int) -> dict[str, Any]:
    keys = KeyRing.load(running.site / "var" / "keys.json")
    with Store.open("sqlite:///var/handoff.db", keys, "tool", base=running.site) as store:
        began = perf_counter()
        load = _load(running.port, senders, "--messages", str(messages))
        _await(running, lambda: not _pending(store), "processed")
        seconds = perf_counter() - began
        _await(running, lambda: not _line(store).deliveries.pending, "delivered")
        delivered_seconds = perf_counter() - began
        _await(running, lambda: _line(store).acked == messages, "noted as answered")
        line = _line(store)
    if not line.balanced or line.received != messages:
        raise BenchError("the ledger does not hold what was sent")
    return {
        "messages": messages,
        "seconds": round(seconds, 3),
        "rate": round(messages / seconds, 1),
        "acknowledged_rate": load["rate"],
        "p50_ms": load["p50_ms"],
        "p99_ms": load["p99_ms"],
        "deliveries": line.deliveries.delivered,
        "delivered_seconds": round(delivered_seconds, 3),
        "dead": line.dead,
    }


def _pending(store: Store) -> int:
    return store.read_now(lambda conn: pending(conn, [CHANNEL]))[CHANNEL]


def _line(store: Store) -> LedgerLine:
    return next(line for line in store.read_now(ledger) if line.channel == CHANNEL)


def _await(running: Daemon, reached: Callable[[], bool], what: str) -> None:
    until = perf_counter() + _DRAIN_SECONDS_MAX
    while not reached():
        if not running.alive():
            raise BenchError("the daemon ended during the measurement")
        if perf_counter() > until:
            raise BenchError(f"not everything was {what} within {_DRAIN_SECONDS_MAX:.0f} s")
        sleep(_POLL_SECONDS)


def _load(port: int, senders: int, *options: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "engine.simulator.bench.load",
        "127.0.0.1",
        str(port),
        "--senders",
        str(senders),
    ]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise BenchError("the load generator failed; is there a receiver?")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["wrong"]:
        raise BenchError(f"{result['wrong']} messages were not acknowledged with AA")
    return result


@contextlib.contextmanager
def _framer() -> Iterator[int]:
    command = [sys.executable, "-P", "-m", "engine.simulator.bench.framer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own module
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            if not line:
                raise BenchError("the bare framer did not start")
            yield int(line)
        finally:
            process.terminate()


def _memory(running: Daemon) -> dict[str, Any]:
    memory = running.memory()
    return {"proportional": memory.proportional, "resident": list(memory.resident)}


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0


def _machine(place: Path) -> dict[str, Any]:
    median, worst = sync_milliseconds(place)
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite.sqlite_version,
        "file_system": _file_system(place),
        "fdatasync_ms": {"p50": median, "p99": worst},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(place: Path) -> str:
    """The type of the file system that holds a folder (a tmpfs syncs nothing)."""
    best = ("", "unknown")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, mount, kind, *_ = line.split(" ")
            if len(mount) >= len(best[0]) and place.resolve().is_relative_to(mount):
                best = (mount, kind)
    return best[1]
