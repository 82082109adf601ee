"""Services side by side: one that fails is started again, and the others go on."""

from __future__ import annotations

import asyncio

import pytest

from engine.runtime import services
from engine.runtime.services import Services


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_RESTART_SECONDS_FIRST", 0.0)


async def test_one_that_fails_is_started_again_and_the_others_go_on() -> None:
    stopping, runs, steady = asyncio.Event(), 0, asyncio.Event()

    async def failing() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError("boom")
        steady.set()
        await stopping.wait()

    other = 0

    async def sound() -> None:
        nonlocal other
        other += 1
        await stopping.wait()

    made = Services({"failing": failing, "sound": sound}, stopping)
    made.start()
    await asyncio.wait_for(steady.wait(), 10)
    assert (runs, other, made.failing()) == (3, 1, ("failing",))
    stopping.set()
    await asyncio.wait_for(made.ended(), 10)


async def test_one_that_ends_by_itself_is_started_again() -> None:
    stopping, runs, again = asyncio.Event(), 0, asyncio.Event()

    async def brief() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            again.set()

    made = Services({"brief": brief}, stopping)
    made.start()
    await asyncio.wait_for(again.wait(), 10)
    assert made.failing() == ("brief",)
    stopping.set()
    await asyncio.wait_for(made.ended(), 10)


async def test_what_can_be_left_at_any_moment_is_cancelled() -> None:
    left = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    made = Services({"endless": endless}, asyncio.Event())
    made.start()
    await asyncio.sleep(0)
    made.cancel()
    await asyncio.wait_for(left.wait(), 10)
