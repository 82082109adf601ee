"""What all parts of the benchmark do: run the load, wait for the daemon, count processor time."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

from engine.simulator.bench.processes import Spent, machine_time
from engine.simulator.bench.site import LIVE, BenchError, Daemon
from engine.store import Store
from engine.store.counts import LedgerLine, ledger, pending

WARM_UP_SECONDS: Final = 1.0
_WARM_UP_MESSAGES: Final = 256
_WARM_UP_SENDERS: Final = 8
DRAIN_SECONDS_MAX: Final = 900.0
_POLL_SECONDS: Final = (0.02, 0.25)

Say = Callable[[str], None]


def load(
    port: int,
    *,
    senders: int,
    name: str,
    host: str = "127.0.0.1",
    certificate: Path | None = None,
    seconds: float = 0.0,
    warm_up_seconds: float = 0.0,
    messages: int = 0,
    rate: float = 0.0,
    series_seconds: float = 0.0,
    meanwhile: Callable[[float], None] | None = None,
    every_seconds: float = 1.0,
) -> dict[str, Any]:
    """Run the load generator (`load.py`) in a process of its own. Raises BenchError when an answer was not AA.

    warm_up_seconds: not longer than what is measured. meanwhile: called again and again with the seconds since the
    start.
    """
    command = [sys.executable, "-P", "-m", "engine.simulator.bench.load", host, str(port)]
    options = {
        "senders": senders,
        "name": name,
        "ca": certificate,
        "seconds": seconds,
        "warm-up-seconds": min(warm_up_seconds, seconds),
        "messages": messages,
        "rate": rate,
        "series-seconds": series_seconds,
    }
    for option, value in options.items():
        if value:
            command += [f"--{option}", str(value)]
    began = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own module
        try:
            while meanwhile is not None and process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(every_seconds)
                meanwhile(perf_counter() - began)
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchError("the load generator failed; is there a receiver?")
    result: dict[str, Any] = json.loads(output)
    if result["wrong"]:
        unanswered = result["unanswered"]
        wrong = result["wrong"] - unanswered
        raise BenchError(f"{wrong} messages got another answer than AA, {unanswered} none")
    return result


@contextlib.contextmanager
def started(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server of ours in a process of its own: the process, and the port that it has printed."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own module
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            if not line:
                raise BenchError(f"{module} did not start")
            yield process, int(line)
        finally:
            process.terminate()


def await_(daemon: Daemon, waiting: Callable[[], int], what: str) -> None:
    """Until nothing is waiting any more. Looks rarely while much is, because looking costs time as well."""
    began = perf_counter()
    before, at = waiting(), perf_counter()
    while before:
        daemon.check()
        if at - began > DRAIN_SECONDS_MAX:
            raise BenchError(f"not everything was {what} within {DRAIN_SECONDS_MAX:.0f} s")
        least, most = _POLL_SECONDS
        sleep(least)
        now, looked = waiting(), perf_counter()
        rate = (before - now) / (looked - at)
        before, at = now, looked
        if now and rate > 0:
            sleep(min(most, max(0.0, now / rate / 2 - least)))


def warm_up(daemon: Daemon, store: Store, *, name: str = "W") -> float:
    """Have a few messages processed and delivered, so that workers are up and statements prepared.

    Returns the seconds from the start of the daemon's process until its first message was processed.
    """
    load(daemon.port(LIVE), senders=1, name=f"{name}0", certificate=daemon.site.certificate, messages=1)
    await_(daemon, lambda: pending_entries(store), "processed")
    first = perf_counter() - daemon.began
    load(
        daemon.port(LIVE),
        senders=_WARM_UP_SENDERS,
        name=f"{name}1",
        certificate=daemon.site.certificate,
        messages=_WARM_UP_MESSAGES,
    )
    await_(daemon, lambda: pending_entries(store), "processed")
    await_(daemon, lambda: unfinished_deliveries(store), "delivered")
    return round(first, 3)


def pending_entries(store: Store, channel: str = LIVE) -> int:
    """How many entries of a channel wait for their outcome."""
    return store.read_now(lambda conn: pending(conn, [channel]))[channel]


def unfinished_deliveries(store: Store) -> int:
    states = store.read_now(store.outbox.unfinished).values()
    return sum(number for counts in states for number in counts.values())


def ledger_line(store: Store, channel: str = LIVE) -> LedgerLine:
    return next(line for line in store.read_now(lambda conn: ledger(conn, [channel])) if line.channel == channel)


def per_message(before: Mapping[int, Spent], after: Mapping[int, Spent], messages: int) -> dict[str, Any]:
    """Processor microseconds a message, by process and by thread: what /proc knows without looking inside.

    main_loop: listener and intake. main_writer: the journal's writer. worker_loops: what holds workers together, and
    connectors. worker_threads: reading, prepare, decide, record, the couriers' statements.
    """
    result = dict.fromkeys(("main_loop", "main_writer", "worker_loops", "worker_threads"), 0.0)
    nothing = Spent(first=0.0, others=0.0)
    for index, (pid, now) in enumerate(after.items()):
        then = before.get(pid, nothing)
        first, others = ("worker_loops", "worker_threads") if index else ("main_loop", "main_writer")
        result[first] += now.first - then.first
        result[others] += now.others - then.others
    shares = {name: round(seconds / max(messages, 1) * 1e6, 1) for name, seconds in result.items()}
    return {**shares, "all": round(sum(shares.values()), 1), "processes": len(after)}


class Meter:
    """What the daemon, and the machine as a whole, spend between two moments."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._before = daemon.spent()
        self._machine = machine_time()

    def read(self, messages: int) -> dict[str, Any]:
        machine = machine_time()
        whole = (machine.busy - self._machine.busy) / max(messages, 1) * 1e6
        return {**per_message(self._before, self._daemon.spent(), messages), "machine": round(whole, 1)}


def ratio(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0
