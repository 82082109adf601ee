"""A task that dies is told; a connection that fails takes nobody else with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from engine.runtime.background import in_own_thread, start_task, tolerate_connections


class Stops:
    """Stands for the handler that stops the daemon."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.told.append(context))


async def fail() -> None:
    raise RuntimeError("a defect")


async def test_a_kept_task_that_fails_is_an_unhandled_error_though_somebody_holds_it() -> None:
    stops = Stops()
    task = start_task(fail(), "intake")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [type(context["exception"]) for context in stops.told] == [RuntimeError]


async def test_a_kept_task_that_is_cancelled_or_ends_says_nothing() -> None:
    stops = Stops()
    cancelled, ended = start_task(asyncio.sleep(10), "a"), start_task(asyncio.sleep(0), "b")
    cancelled.cancel()
    await asyncio.wait([cancelled, ended])
    await asyncio.sleep(0)
    assert stops.told == []


async def test_what_goes_wrong_with_one_connection_does_not_stop_the_daemon() -> None:
    stops = Stops()
    loop = asyncio.get_running_loop()
    tolerate_connections(loop)
    loop.call_exception_handler({"message": "x", "exception": ValueError("x"), "transport": None, "protocol": None})
    loop.call_exception_handler({"message": "x", "exception": ConnectionResetError()})
    assert stops.told == []
    loop.call_exception_handler({"message": "x", "exception": ValueError("x")})
    assert len(stops.told) == 1


async def test_work_apart_gives_its_result_or_raises_what_it_raised() -> None:
    assert await in_own_thread(lambda: 7, "seven") == 7
    with pytest.raises(ZeroDivisionError):
        await in_own_thread(lambda: 1 // 0, "a defect")


def test_work_apart_that_hangs_keeps_no_process_from_ending() -> None:
    program = """
import asyncio, time
from engine.runtime.background import in_own_thread

async def main():
    try:
        await asyncio.wait_for(in_own_thread(lambda: time.sleep(60), "hangs"), 0.1)
    except TimeoutError:
        print("gave up")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == ("gave up\n", "")
