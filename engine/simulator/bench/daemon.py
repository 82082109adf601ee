"""A real daemon in a site of its own, for as long as one measurement takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

from engine.domain.record import Record
from engine.errors import HandoffError

CHANNEL: Final = "bench"
_START_SECONDS_MAX: Final = 30.0
_STOP_SECONDS_MAX: Final = 30.0

_SITE: Final = """\
node: bench
store: {{url: "sqlite:///var/handoff.db", keys: var/keys.json}}
console: {{host: 127.0.0.1, port: {console}}}
destinations:
  files: {{type: file, path: var/outbox}}
"""
_CHANNEL: Final = """\
name: bench
mode: {mode}
listen: {{host: 127.0.0.1, port: {port}}}
timezone: America/New_York
accept: {{types: ["ADT^*"], processing_ids: [P]}}
mapping: adt
risk: [lace, seed]
protocol: post-discharge
deliver: [{{to: files, what: [patient, encounter, score, task]}}]
"""


class BenchError(HandoffError):
    """The benchmark could not be run."""


class Memory(Record, frozen=True, kw_only=True):
    """In MB. resident: of each process, main first. proportional: of all, with shared pages counted once."""

    resident: tuple[float, ...]
    proportional: float


class Daemon:
    """`start_seconds`: from the start of the process until its port took a connection."""

    def __init__(self, site: Path, process: subprocess.Popen[bytes], port: int, start_seconds: float) -> None:
        self.site = site
        self.port = port
        self.start_seconds = start_seconds
        self._process = process

    def memory(self) -> Memory:
        family = _family(self._process.pid)
        return Memory(
            resident=tuple(round(_kilobytes(pid, "Rss") / 1024, 1) for pid in family),
            proportional=round(sum(_kilobytes(pid, "Pss") for pid in family) / 1024, 1),
        )

    def alive(self) -> bool:
        return self._process.poll() is None


@contextlib.contextmanager
def daemon(folder: Path, *, mode: str = "live") -> Iterator[Daemon]:
    """A fresh site below `folder` and its daemon; both are gone afterwards. Raises BenchError."""
    site = folder / "site"
    _handoff("init", str(site))
    port, console = _free_port(), _free_port()
    (site / "config.yaml").write_text(_SITE.format(console=console), encoding="utf-8")
    for file in (site / "channels").rglob("*.yaml"):
        file.unlink()
    (site / "channels" / "bench.yaml").write_text(_CHANNEL.format(port=port, mode=mode), encoding="utf-8")
    log = folder / "daemon.log"
    try:
        with log.open("wb") as output:
            began = perf_counter()
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-P", "-m", "engine", "--config", str(site / "config.yaml"), "run"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
            try:
                _await_port(port, process, began)
                yield Daemon(site, process, port, round(perf_counter() - began, 3))
            finally:
                _stop(process)
    finally:
        shutil.rmtree(site, ignore_errors=True)


def _handoff(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "engine", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise BenchError(f"handoff {arguments[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")


def _await_port(port: int, process: subprocess.Popen[bytes], began: float) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            raise BenchError(f"the daemon ended at its start with {process.returncode}")
        if perf_counter() - began > _START_SECONDS_MAX:
            raise BenchError("the daemon did not open its port in time")
        sleep(0.005)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        for pid in _family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(pid: int) -> list[int]:
    """A process and what it started, the eldest first."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        children = []
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


def _kilobytes(pid: int, kind: str) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(next((line.split()[1] for line in rollup.splitlines() if line.startswith(f"{kind}:")), "0"))
