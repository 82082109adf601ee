"""What the people who run the daemon see of it: readiness, status, metrics, the log."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Daemon

_SAMPLE = re.compile(r"^(handoff_\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


def metrics(daemon: Daemon) -> dict[str, float]:
    """By name and labels, as they are written: `handoff_deliveries_total{destination="lab",state="held"}`."""
    with urllib.request.urlopen(daemon.console + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {name + (labels or ""): float(value) for name, labels, value in _SAMPLE.findall(text)}


def metric(daemon: Daemon, name: str, **labels: str) -> float:
    """The sum of the samples of that name that carry these labels; 0 when there is none."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for sample, value in metrics(daemon).items()
        if sample.partition("{")[0] == f"handoff_{name}" and all(label in sample for label in wanted)
    )


def readiness(daemon: Daemon) -> tuple[bool, list[str]]:
    """What /readyz says: whether it is ready, and why not."""
    connection = http.client.HTTPConnection(daemon.console.removeprefix("http://"), timeout=30)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    assert answer.status == (200 if said["ready"] else 503)
    return said["ready"], said["trouble"]


def log(daemon: Daemon) -> list[dict[str, Any]]:
    whole, _, _ = daemon.log.read_text(errors="replace").rpartition("\n")  # the last line may be in the writing
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def events(daemon: Daemon) -> set[str]:
    return {line["event"] for line in log(daemon)}


def eventually(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Wait for a condition; what it says in the end."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.05)
    return found


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory of a process: now, and at its highest."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most
