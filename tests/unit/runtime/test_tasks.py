"""A task that dies is told; a connection that fails takes nobody else with it."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.runtime.tasks import keep, tolerate_connections


class Stops:
    """Stands for the handler that stops the daemon."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.told.append(context))


async def fail() -> None:
    raise RuntimeError("a defect")


async def test_a_kept_task_that_fails_is_an_unhandled_error_though_somebody_holds_it() -> None:
    stops = Stops()
    task = keep(fail(), "intake")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [type(context["exception"]) for context in stops.told] == [RuntimeError]


async def test_a_kept_task_that_is_cancelled_or_ends_says_nothing() -> None:
    stops = Stops()
    cancelled, ended = keep(asyncio.sleep(10), "a"), keep(asyncio.sleep(0), "b")
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
