"""What /proc says of a family of processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.simulator.bench.measure import per_message
from engine.simulator.bench.processes import Spent, family, machine_time, memory, spent

PARENT = """
import subprocess, sys, threading, time
code = "import sys; held = bytearray(50_000_000); print(1, flush=True); sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
def burn():
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[tuple[int, int]]:
    """A process that has burnt 0.3 s in a thread that is gone, and its child, which holds 50 MB: their ids."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def test_a_family_is_a_process_and_all_that_it_started(parent: tuple[int, int]) -> None:
    assert family(parent[0]) == list(parent)
    assert family(parent[1]) == [parent[1]]


def test_memory_is_that_of_the_whole_family(parent: tuple[int, int]) -> None:
    whole, child = memory(parent[0]), memory(parent[1])
    assert len(whole.resident) == len(whole.peak) == 2
    assert whole.resident[1] == child.resident[0] > 40
    assert whole.proportional > child.proportional > 40
    assert whole.peak[1] >= whole.resident[1]


def test_the_time_of_threads_that_are_gone_is_counted(parent: tuple[int, int]) -> None:
    times = spent(parent[0])
    assert list(times) == list(parent)
    assert times[parent[0]].others >= 0.25
    assert times[parent[1]].others == 0.0
    assert machine_time().busy > 0.25


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert memory(process.pid).proportional == 0.0
    assert spent(process.pid) == {process.pid: Spent(first=0.0, others=0.0)}


def test_processor_time_a_message_counts_main_and_all_workers() -> None:
    before = {1: Spent(first=1.0, others=2.0), 2: Spent(first=0.0, others=0.0)}
    after = {1: Spent(first=1.1, others=2.2), 2: Spent(first=0.3, others=0.4), 3: Spent(first=0.1, others=0.1)}
    assert per_message(before, after, 1000) == {
        "main_loop": 100.0, "main_writer": 200.0, "worker_loops": 400.0, "worker_threads": 500.0, "all": 1200.0,
        "processes": 3,
    }  # fmt: skip
