"""`python -m benchmarks.backup FOLDER SIZE ...`: backups of stores of many entries, what they cost, and a rehearsal.

Acknowledgments beside a backup are compared with those of the same daemon before it: backups are made one after the
other for as long as the load lasts. FOLDER needs room for three times the store.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import history
from engine.simulator.bench.measure import load, ratio, warm_up
from engine.simulator.bench.site import STORED, Place, Site

_SECONDS = 12.0
_SENDERS = 16


def measure(place: Place, size: int) -> dict[str, Any]:
    """One store with so many entries."""
    backups, scratch = place.folder / "backups", place.folder / "scratch"
    backups.mkdir()
    with place.site() as site:
        site.make_store()
        entries = history.extend(site, 0, size, payload_bytes=400)
        stored_bytes = site.stored_bytes()
        whole = _handoff(site, "backup", str(backups))
        with site.daemon() as daemon, site.store() as store:
            warm_up(daemon, store)
            alone = load(daemon.port(STORED), senders=_SENDERS, name="A", seconds=_SECONDS)["rate"]
            made = _start(site, place.folder / "beside")
            number = 0

            def again(_: float) -> None:
                nonlocal made, number
                if made.poll() is not None:
                    number += 1
                    made = _start(site, place.folder / f"beside-{number}")

            beside = load(
                daemon.port(STORED), senders=_SENDERS, name="B", seconds=_SECONDS, meanwhile=again, every_seconds=0.2
            )["rate"]
            made.wait()
        later = _handoff(site, "backup", str(backups))
        restored = _handoff(site, "restore", str(backups), str(scratch), "--rehearse")
    for file in (*backups.iterdir(), *place.folder.glob("beside*")):
        file.unlink()
    backups.rmdir()
    return {
        "entries": entries,
        "stored_mb": round(stored_bytes / 1e6, 1),
        "backup_seconds": whole["seconds"],
        "backup_mb": round(whole["bytes"] / 1e6, 1),
        "second_seconds": later["seconds"],
        "second_mb": round(later["bytes"] / 1e6, 1),
        "second_entries": later["entries"],
        "restore_seconds": restored["seconds"],
        "restored": restored["entries"],
        "opened": restored["opened"],
        "ok": restored["ok"],
        "acknowledged_per_second": round(alone),
        "beside_a_backup": round(beside),
        "ratio": ratio(beside, alone),
    }


def _start(site: Site, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "engine", "--config", str(site.config), "backup", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _handoff(site: Site, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "engine", "--config", str(site.config), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    folder, *sizes = sys.argv[1:]
    for size in sizes:
        print(json.dumps(measure(Place(Path(folder)), int(size))), flush=True)


if __name__ == "__main__":
    main()
