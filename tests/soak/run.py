"""Crashes, faults, simulation and fuzz with new seeds, round after round: what CI does once, for an hour or a weekend.

    make soak SECONDS=3600
    HANDOFF_TEST_SEED=N .venv/bin/python -m pytest tests/acceptance/test_kill.py     # a round that failed, once more

Two lanes run side by side: one starts real daemons and databases and kills them, the other simulates and fuzzes. The
report is written to docs/soak.md (and a JSON beside it); the output of what failed is in `.soak/`. The exit code is 1
when anything did.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[2]
GATHERED: Final = ROOT / ".soak"
SIMULATED_SEEDS: Final = 500
"""Of one round of simulation."""
FUZZ_SECONDS: Final = 120
ROUND_SECONDS_MAX: Final = 1800


@dataclass(frozen=True)
class Job:
    """What one round runs, as a process of its own. tests: paths, for pytest."""

    name: str
    what: str
    tests: tuple[str, ...] = ()

    def command(self, results: Path) -> list[str]:
        if not self.tests:
            return [sys.executable, "-m", "tests.fuzz.run", "--seconds", str(FUZZ_SECONDS)]
        # The round has its own limit; one test of it may take all of it.
        result = (f"--junit-xml={results}", "-o", "junit_family=xunit1", "--timeout=0")
        return [sys.executable, "-m", "pytest", *self.tests, *result]

    def environment(self, seed: int) -> dict[str, str]:
        return os.environ | {
            "HANDOFF_TEST_SEED": str(seed),
            "HANDOFF_SOAK": "1",
            "SIMULATION_FIRST": str(seed * SIMULATED_SEEDS),
            "SIMULATION_SEEDS": str(SIMULATED_SEEDS),
        }


PROCESSES: Final = (
    Job("kill", "kill -9 of daemon and worker at random moments under load", ("tests/acceptance/test_kill.py",)),
    Job("points", "kill -9 at named points, under load", ("tests/acceptance/test_crash_points.py",)),
    Job(
        "day",
        "a day of 30,000 simulated messages, twice",
        ("tests/acceptance/test_simulated_day.py",),
    ),
    Job(
        "month",
        "a month of 1,500 stays by the test clock, and what its final charts warrant",
        ("tests/acceptance/test_month.py",),
    ),
    Job(
        "daemon",
        "the daemon, reloaded, stopped and in trouble, on both event loops",
        ("tests/integration/runtime/test_daemon.py",),
    ),
    Job(
        "cluster",
        "three nodes, a primary with two standbys: nodes killed, hung, the primary killed",
        ("tests/acceptance/test_cluster.py",),
    ),
    Job(
        "faults",
        "disk, database, clock, network, senders and destinations that fail",
        ("tests/faults", "tests/integration/connectors/test_file_crash.py"),
    ),
)
PURE: Final = (
    Job(
        "simulation",
        "processor, outbox, courier, intake and leases under a seeded scheduler",
        ("tests/simulation/test_simulation_one_node.py", "tests/simulation/test_simulation_cluster.py"),
    ),
    Job(
        "closing",
        "random histories through whole and bounded charts",
        ("tests/unit/pipeline/test_closing.py",),
    ),
    Job("fuzz", "framer, reader, acknowledgment, mapping, filters, configuration, the heart"),
)


@dataclass
class Tally:
    """What the rounds of one job came to. counts: what tests said of themselves (kills, messages)."""

    rounds: int = 0
    seconds: float = 0.0
    tests: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[dict[str, Any]] = field(default_factory=list)


class Soak:
    def __init__(self, seconds: float, first_seed: int) -> None:
        self.first_seed = first_seed
        self.started_at = datetime.now(UTC)
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.tallies: dict[str, Tally] = {job.name: Tally() for job in (*PROCESSES, *PURE)}

    def run(self) -> None:
        """Both lanes, to the end of the last round that began in time."""
        lanes = [threading.Thread(target=self._lane, args=(jobs,)) for jobs in (PROCESSES, PURE)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    @property
    def clean(self) -> bool:
        return not any(tally.failed for tally in self.tallies.values())

    def _lane(self, jobs: Sequence[Job]) -> None:
        for seed in itertools.count(self.first_seed):
            for job in jobs:
                if time.monotonic() >= self.until:
                    return
                self._round(job, seed)

    def _round(self, job: Job, seed: int) -> None:
        tally = self.tallies[job.name]
        results, output = GATHERED / f"{job.name}-{seed}.xml", GATHERED / f"{job.name}-{seed}.log"
        began = time.monotonic()
        with output.open("wb") as log:
            try:
                code: int | str = subprocess.run(
                    job.command(results), cwd=ROOT, env=job.environment(seed), stdout=log, stderr=subprocess.STDOUT,
                    timeout=ROUND_SECONDS_MAX, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = f"not done after {ROUND_SECONDS_MAX} s"
        seconds = time.monotonic() - began
        tally.rounds += 1
        tally.seconds += seconds
        if job.tests:
            self._read(tally, results)
        else:
            tally.counts["inputs"] += _inputs(output)
        held = code == 0
        if held:
            output.unlink()
        else:
            tally.failed.append({"seed": seed, "exit": code, "output": output.name})
        results.unlink(missing_ok=True)
        sys.stdout.write(f"{job.name:<11} seed {seed}  {seconds:5.0f} s  {'held' if held else f'FAILED: {output}'}\n")
        sys.stdout.flush()

    def _read(self, tally: Tally, results: Path) -> None:
        """What pytest says it ran, and the numbers that tests gave of themselves."""
        if not results.exists():
            return
        for case in ElementTree.parse(results).iter("testcase"):  # noqa: S314 - our own pytest wrote it
            tally.tests += 1
            for note in case.iter("property"):
                tally.counts[note.get("name", "")] += int(note.get("value", "0"))

    # --- the report --------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        return {
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.began),
            "commit": _commit(),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "first_seed": self.first_seed,
            "jobs": {
                job.name: {
                    "what": job.what,
                    "rounds": (tally := self.tallies[job.name]).rounds,
                    "seconds": round(tally.seconds),
                    "tests": tally.tests,
                    "counts": dict(sorted(tally.counts.items())),
                    "failed": tally.failed,
                }
                for job in (*PROCESSES, *PURE)
            },
        }


def _inputs(output: Path) -> int:
    """How many inputs a fuzz run tried: the second column of its table."""
    rows = [line.split() for line in output.read_text(errors="replace").splitlines()[1:]]
    return sum(int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit())


def _commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def report(document: dict[str, Any]) -> str:
    """The report that people read."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: dict[str, Any]) -> Iterator[str]:
    machine, jobs = document["machine"], document["jobs"]
    failures = [(name, failure) for name, job in jobs.items() for failure in job["failed"]]
    yield "# Soak"
    yield ""
    yield f"Made by `make soak`: {document['seconds'] / 60:.0f} minutes from {document['started_at']}, at commit"
    yield f"`{document['commit']}`, on {machine['cores']} cores, Python {machine['python']}, {machine['system']}."
    yield f"Rounds take their chances from seeds that begin at {document['first_seed']}. After each round a model of"
    yield "what was acknowledged is compared with what is in the store and with what came out"
    yield "(see [guarantees.md](guarantees.md))."
    yield ""
    yield f"**{'Clean: nothing failed.' if not failures else f'{len(failures)} rounds failed.'}**"
    yield ""
    yield "| | rounds | tests | minutes | in them | failed |"
    yield "|---|---|---|---|---|---|"
    for job in jobs.values():
        counts = ", ".join(f"{number:,} {name}" for name, number in job["counts"].items())
        yield (
            f"| {job['what']} | {job['rounds']} | {job['tests'] or ''} | {job['seconds'] / 60:.0f} | {counts}"
            f" | {len(job['failed'])} |"
        )
    if failures:
        yield ""
        for name, failure in failures:
            yield f"- `{name}`, seed {failure['seed']}: {failure['exit']} (`.soak/{failure['output']}`)"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, help="of the first round; without it another each time")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "soak.md")
    options = parser.parse_args()
    shutil.rmtree(GATHERED, ignore_errors=True)
    GATHERED.mkdir()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1, 1_000_000)
    soak = Soak(options.seconds, seed)
    soak.run()
    document = soak.document()
    options.output.write_text(report(document))
    options.output.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.write(f"\n{report(document)}")
    return 0 if soak.clean else 1


if __name__ == "__main__":
    sys.exit(main())
