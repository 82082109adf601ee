"""The simulated world itself: it repeats itself exactly, and treats its processes as an operating system would."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from simulation.database import Disk
from simulation.simulate import run
from simulation.world import Gone, Machine, Process, Turn, Violation, World

from engine import bootstrap
from engine.runtime.courier import Courier
from engine.runtime.processor import Processor
from engine.runtime.scheduler import Scheduler

SEED = 40
_TESTS = Path(__file__).parents[1]
_PRINT_DIGEST = f"""
import hashlib
from simulation.simulate import make_disk, run
disk = make_disk()
print(hashlib.sha256("\\n".join(run({SEED}, disk).trace).encode()).hexdigest())
disk.close()
"""


def process(world: World, name: str = "one") -> Process:
    return Process(world, name, Machine(world))


def test_a_seed_replays_exactly(disk: Disk) -> None:
    first, second = run(SEED, disk), run(SEED, disk)
    assert len(first.trace) > 50
    assert first.trace == second.trace


def test_a_seed_replays_exactly_in_another_process(disk: Disk) -> None:
    here = hashlib.sha256("\n".join(run(SEED, disk).trace).encode()).hexdigest()
    environment = {**os.environ, "PYTHONPATH": f"{_TESTS}{os.pathsep}{_TESTS.parent}", "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


def test_another_seed_is_another_run(disk: Disk) -> None:
    assert run(SEED, disk).trace != run(SEED + 1, disk).trace


def test_a_failing_seed_says_how_to_replay_it(disk: Disk) -> None:
    report = run(SEED, disk).report()
    assert f"SIMULATION_SEED={SEED}" in report


@pytest.mark.parametrize(
    ("module", "name"), [(bootstrap, "assemble_worker"), (Scheduler, "run"), (Courier, "run"), (Processor, "run")]
)
def test_a_stand_in_with_another_signature_is_named_by_its_exception(disk: Disk, module: object, name: str) -> None:
    def stand_in(*, only: int) -> None:
        raise AssertionError

    failed = run(SEED, disk, lambda: mock.patch.object(module, name, stand_in))
    assert failed.violation is not None
    assert "TypeError" in failed.violation
    assert "stand_in() takes" in failed.violation
    assert "Traceback" in failed.report()


def test_a_defect_in_what_a_process_runs_ends_the_run_with_it() -> None:
    world = World(1)

    async def fails() -> None:
        await asyncio.sleep(0.1)
        raise KeyError("a defect")

    process(world).spawn(fails())
    with pytest.raises(Violation, match=r"one ended: KeyError: 'a defect'"):
        world.run(lambda: False, 1)


def test_hours_pass_at_once_when_nothing_happens() -> None:
    world = World(1)
    one = process(world)
    task = one.spawn(asyncio.sleep(3600, "woken"))
    assert world.run(task.done, 4000)
    assert task.result() == "woken"
    assert 3600 <= world.now < 3601


def test_what_runs_in_a_thread_gives_the_turn_back_where_it_reaches_for_the_world() -> None:
    world = World(1)
    seen: list[str] = []

    def work(name: str) -> None:
        for step in range(20):
            seen.append(name)
            processes[name].pause(f"step {step}")

    processes = {name: process(world, name) for name in "ab"}
    ended: list[object] = []
    for name, one in processes.items():
        one.start(lambda name=name: work(name), lambda result, error: ended.append(error))  # type: ignore[misc]
    assert world.run(lambda: len(ended) == 2, 10)
    assert ended == [None, None]
    assert "".join(seen) not in {"a" * 20 + "b" * 20, "b" * 20 + "a" * 20}


def test_a_killed_process_does_nothing_more_and_is_unwound() -> None:
    world = World(1)
    one = process(world)
    done: list[str] = []

    async def sleeps() -> None:
        try:
            await asyncio.sleep(1.0)
            done.append("went on")
        finally:
            done.append("task unwound")

    def works() -> None:
        try:
            while True:
                one.pause("here")
        except Gone:
            done.append("thread unwound")
            raise

    one.spawn(sleeps())
    one.start(works, lambda *_: done.append("thread ended"))
    world.after(0.5, one.kill)
    world.after(2.0, lambda: done.append("later"))
    assert world.run(lambda: "later" in done, 3)
    assert sorted(done[:2]) == ["task unwound", "thread unwound"]
    assert done[2:] == ["later"]


def test_a_process_that_hangs_goes_on_later_as_if_nothing_had_been() -> None:
    world = World(1)
    one = process(world)
    at: list[float] = []

    async def ticks() -> None:
        while True:
            at.append(world.now)
            await asyncio.sleep(1.0)

    one.spawn(ticks())
    world.after(2.25, lambda: one.hang(10.0))
    assert world.run(lambda: world.now > 14.0, 20)
    assert [round(moment) for moment in at[:4]] == [0, 1, 2, 12]
    world.end()


def test_threads_of_a_process_wait_for_their_lock() -> None:
    world = World(1)
    one = process(world)
    lock, inside, most, ended = Turn(one), 0, 0, []

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with lock:
                inside += 1
                most = max(most, inside)
                one.pause("inside")
                inside -= 1
            one.pause("outside")

    for _ in range(3):
        one.start(work, lambda _, error: ended.append(error))
    assert world.run(lambda: len(ended) == 3, 10)
    assert ended == [None] * 3
    assert most == 1


def test_a_world_in_which_nothing_can_happen_any_more_is_an_error() -> None:
    with pytest.raises(Violation, match="nothing will ever happen"):
        World(1).run(lambda: False, 10)


def test_an_error_that_nobody_handles_is_a_violation() -> None:
    world = World(1)
    one = process(world)

    def fails() -> None:
        raise RuntimeError("a defect")

    one.loop.call_soon(fails)
    with pytest.raises(Violation, match="unhandled"):
        world.run(lambda: False, 1)
