"""The processes of a comparison end with it, however it ends, and one that is lost is said in plain words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from engine.trial.compare import CompareError, Comparison, Findings, Part, Plan

PARTS = tuple(Part(array("q", [number]), bytearray(1)) for number in range(2))
SLOW = """
import time
from test_compare_processes import PARTS, Plan, comparison
comparison(lambda: time.sleep(60)).run(Plan(PARTS, 2, 0, 0), processes=2, progress=print)
"""


def comparison(work: Any) -> Comparison:
    class Working(Comparison):
        def part(self, *_: Any, **__: Any) -> Findings:
            work()
            return Findings()

    return Working("main", {}, {}, None, lambda: None, ({}, {}))  # type: ignore[arg-type]  # nothing of it is used


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_die_with_whoever_began_them() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", SLOW], env=environment)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until = time.monotonic() + 60
    children: list[str] = []
    while len(children) < len(PARTS):
        assert time.monotonic() < until
        children = listed.read_text().split()
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(map(lives, children)):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_process_that_is_lost_ends_the_comparison_with_what_to_do() -> None:
    with pytest.raises(CompareError, match="try a lower --limit"):
        comparison(lambda: os.kill(os.getpid(), signal.SIGKILL)).run(
            Plan(PARTS, 2, 0, 0), processes=2, progress=lambda _: None
        )
