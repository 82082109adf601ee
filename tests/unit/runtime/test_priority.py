"""Who goes first on a busy machine, as the kernel has it afterwards."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from engine.runtime import priority

_SCHED_GETATTR = {number: number + 1 for number in (314, 274)}
NUMBER = _SCHED_GETATTR.get(priority._SCHED_SETATTR.get(os.uname().machine, 0))
SHORTEST = 100_000

pytestmark = pytest.mark.skipif(sys.platform != "linux" or NUMBER is None, reason="the kernel is not asked for this")


def attributes() -> tuple[int, int, int]:
    """Policy, niceness and slice of this thread."""
    found, size = priority._Attributes(), ctypes.c_long(ctypes.sizeof(priority._Attributes))
    libc = ctypes.CDLL(None)
    assert libc.syscall(ctypes.c_long(NUMBER or 0), ctypes.c_long(0), ctypes.byref(found), size, ctypes.c_long(0)) == 0
    return found.policy, found.nice, found.runtime


def of_a_thread() -> tuple[int, int, int]:
    found: list[tuple[int, int, int]] = []
    thread = threading.Thread(target=lambda: found.append(attributes()))
    thread.start()
    thread.join()
    return found[0]


def test_who_lets_all_go_first_leaves_threads_that_were_there_before_as_they_are() -> None:
    code = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as before:
        before.submit(int).result()
        priority.let_all_go_first()
        print(attributes()[1], before.submit(lambda: attributes()[1]).result())
    """
    assert in_a_child(textwrap.dedent(code)) == ["19", str(os.getpriority(os.PRIO_PROCESS, 0))]


def in_a_child(code: str) -> list[str]:
    text = f"from test_priority import *\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    return done.stdout.split()


def test_the_threads_of_main_have_the_shortest_slice_and_a_worker_that_of_the_system_and_is_nicer() -> None:
    policy, nice, slice_of_system = attributes()
    if slice_of_system == 0:
        pytest.skip("this kernel gives no slices")
    child = "print(*of_a_thread()); priority.let_answers_go_first(); print(*of_a_thread())"
    found = in_a_child(f"priority.answer_first(); {child}")
    worker = [policy, min(nice + 10, 19), slice_of_system]
    assert list(map(int, found)) == [policy, nice, SHORTEST, *worker]


def test_another_policy_that_an_operator_has_chosen_stays() -> None:
    found = in_a_child(
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); before = attributes(); priority.answer_first();"
        "print(attributes() == before, attributes()[0] == os.SCHED_BATCH)"
    )
    assert found == ["True", "True"]


def test_what_a_service_manager_forbids_ends_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "nice", forbidden)
    priority.let_answers_go_first()
