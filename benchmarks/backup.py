"""`python -m benchmarks.backup FOLDER SIZE ...`: backups of stores of many entries: what they take, and what the daemon
beside them notices.

For each size: a store is made (`history`), backed up whole, backed up again beside load, restored into another folder
and verified. Acknowledgments with and without a backup are measured in turns on one daemon, because the machine is
never the same for minutes. A line of JSON a size on stdout; what is under way on stderr.

FOLDER needs room for twice the store, its backup and its log: 2.2 GB a million entries at least. `--drop` takes the
store away before it is restored, which saves a third.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks import history
from engine.simulator.bench.measure import WARM_UP_SECONDS, load, ratio, warm_up
from engine.simulator.bench.site import STORED, Daemon, Database, Place, Site

_SENDERS: Final = 16
_STORED_BYTES: Final = 400
_SHARE_OF_FULL: Final = 0.5
"""Of the rate at full load: the rate at which latency is measured."""


def measure(
    place: Place, size: int, *, database: Database, turns: int, seconds: float, rate: float, drop: bool
) -> dict[str, Any]:
    """One store with so many entries. rate: of the open loop; 0: half of what it acknowledges at most."""
    backups, scratch = place.folder / "backups", place.folder / "scratch"
    backups.mkdir()
    result: dict[str, Any] = {"store": database}
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(place.site(database=database))
        site.make_store()
        _say(f"{size:,} entries on {database}: making them")
        began = perf_counter()
        result["entries"] = history.extend(site, 0, size, payload_bytes=_STORED_BYTES)
        result["made_per_second"] = round(result["entries"] / (perf_counter() - began))
        site.gather_statistics()
        result["stored_mb"] = _mb(site.stored_bytes())
        _say("a whole backup")
        result["whole"] = _shown(_handoff(site, "backup", str(backups)))
        if turns:
            result |= _beside(place, site, turns, seconds, rate)
        _say("the next backup")
        result["next"] = _shown(later := _handoff(site, "backup", str(backups)))
        if drop and database == "sqlite":
            for file in (site.folder / "var").glob("*.db*"):
                file.unlink()
        _say("a restore")
        target = str(scratch) if database == "sqlite" else stack.enter_context(place.store(database))
        with _room(scratch) as room:
            done = _handoff(site, "restore", str(backups), target, *(() if drop else ("--rehearse",)))
        result["restore"] = _shown(done) | {"room_mb": _mb(max(room))}
        result["whole_again"] = done["ok"] and done["entries"] == later["entries"]
    _clear(backups, scratch)
    return result


def _beside(place: Place, site: Site, turns: int, seconds: float, rate: float) -> dict[str, Any]:
    """Acknowledgments without and with a backup, in turns: as many as it can, then at a rate."""
    said: dict[str, Any] = {}
    with site.daemon() as daemon, site.store() as store:
        warm_up(daemon, store)
        full = _turns(place, site, daemon, turns, seconds, 0.0)
        said["full_load"] = _compared(full, "rate")
        steady = rate or round(_SHARE_OF_FULL * statistics.median(one["rate"] for one in full[False]))
        said["at_a_rate"] = {"rate": steady} | _compared(_turns(place, site, daemon, turns, seconds, steady), "p99_ms")
    return said


def _turns(
    place: Place, site: Site, daemon: Daemon, turns: int, seconds: float, rate: float
) -> dict[bool, list[dict[str, Any]]]:
    """By whether a backup ran. A backup that ends before its turn is begun again; one that does not is cut off."""
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    order = [False, True, True, False]
    for number in range(2 * turns):
        beside = order[number % 4]
        _say(f"turn {number + 1} of {2 * turns}, {f'{rate}/s' if rate else 'full load'}{', a backup' * beside}")
        with _running_backups(site, place.folder) if beside else contextlib.nullcontext([0]) as logs:
            one = load(
                daemon.port(STORED),
                senders=_SENDERS,
                name=f"{'R' if rate else 'F'}{number:02d}",
                seconds=seconds,
                warm_up_seconds=WARM_UP_SECONDS,
                rate=rate,
            )
        found[beside].append(one | {"log_mb": _mb(max(logs))})
    return found


def _compared(found: dict[bool, list[dict[str, Any]]], what: str) -> dict[str, Any]:
    """Medians without and with a backup, and the ratio of pairs that followed one another."""
    shown = {}
    for beside, name in ((False, "alone"), (True, "beside")):
        shown[name] = {
            key: round(statistics.median(one[key] for one in found[beside]), 3) for key in ("rate", "p50_ms", "p99_ms")
        }
    pairs = [ratio(b[what], a[what]) for a, b in zip(found[False], found[True], strict=True)]
    return shown | {
        "ratios": pairs,
        "ratio": round(statistics.median(pairs), 3),
        "log_mb": max(one["log_mb"] for one in found[True]),
    }


@contextlib.contextmanager
def _running_backups(site: Site, folder: Path) -> Iterator[list[int]]:
    """One backup after the other in the background. Yields what the store's log came to, in bytes."""
    over = threading.Event()
    logs = [0]

    def run() -> None:
        number = 0
        while not over.is_set():
            path = folder / f"beside-{number}"
            process = subprocess.Popen(
                _command(site, "backup", str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None and not over.wait(0.2):
                logs.append(_sizes(site.folder / "var", "*-wal"))
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)
            for left in (*folder.glob(f".{path.name}.*.part"), *folder.glob("*.erasure-keys")):
                left.unlink()
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield logs
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[list[int]]:
    """What a folder takes on the disk while something runs, looked at each second."""
    over = threading.Event()
    seen = [0]

    def look() -> None:
        while not over.wait(1.0):
            seen.append(_sizes(folder, "**/*"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _sizes(folder: Path, pattern: str) -> int:
    total = 0
    for file in folder.glob(pattern):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _handoff(site: Site, *arguments: str) -> dict[str, Any]:
    """A command's document, with the processor seconds and the memory that it took."""
    process = subprocess.Popen(_command(site, *arguments, "--json"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"handoff {arguments[0]} ended with {process.returncode}: {text.decode()[:2000]}")
    result: dict[str, Any] = json.loads(text)
    return result | {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def _command(site: Site, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "engine", "--config", str(site.config), *arguments]


def _shown(done: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "seconds": round(done["seconds"], 1),
        "cpu_seconds": round(done["cpu_seconds"], 1),
        "cpu_us_an_entry": round(done["cpu_seconds"] / max(done["entries"], 1) * 1e6, 1),
        "peak_mb": round(done["peak_mb"]),
        "entries": done["entries"],
    }
    if "bytes" in done:
        return shown | {"mb": _mb(done["bytes"]), "rows": sum(done["rows"].values())}
    return shown | {"opened": done["opened"], "ok": done["ok"], "problems": done["problems"]}


def _mb(size: float) -> float:
    return round(size / 1e6, 1)


def _clear(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--postgresql", metavar="URL", help="on a database of this server, not on SQLite")
    parser.add_argument("--turns", type=int, default=4, help="of load with and without a backup; 0: none")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn")
    parser.add_argument("--rate", type=float, default=0.0, help="of the open loop; else half of what it can")
    parser.add_argument("--drop", action="store_true", help="take the store away before it is restored")
    options = parser.parse_args(arguments)
    place = Place(options.folder, postgresql=options.postgresql)
    for size in options.sizes:
        result = measure(
            place,
            size,
            database="postgresql" if options.postgresql else "sqlite",
            turns=options.turns,
            seconds=options.seconds,
            rate=options.rate,
            drop=options.drop,
        )
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
