from __future__ import annotations

import asyncio
import os
import signal

import pytest

from engine.store.lock import try_worker_lock, worker_lock


def test_only_one_worker_has_the_lock(site):
    first = try_worker_lock(site.location)
    assert first is not None
    assert try_worker_lock(site.location) is None
    first.release()
    second = try_worker_lock(site.location)
    assert second is not None
    second.release()


async def test_a_second_worker_waits_until_the_first_is_gone(site):
    order = []

    async def work(name, seconds):
        async with worker_lock(site.location):
            order.append(f"{name} in")
            await asyncio.sleep(seconds)
            order.append(f"{name} out")

    first = asyncio.create_task(work("first", 0.4))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(work("second", 0))
    await asyncio.gather(first, second)
    assert order == ["first in", "first out", "second in", "second out"]


async def test_a_worker_that_stops_waiting_leaves_the_lock_alone(site):
    first = try_worker_lock(site.location)
    entered = []

    async def wait():
        async with worker_lock(site.location):
            entered.append(1)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.release()
    again = try_worker_lock(site.location)
    assert again is not None
    assert entered == []
    again.release()


def test_the_lock_of_a_killed_worker_is_free(sqlite_site):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = try_worker_lock(sqlite_site.location)
            os.write(writing, b"y" if held else b"n")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(reading, 1) == b"y"
    assert try_worker_lock(sqlite_site.location) is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mine = try_worker_lock(sqlite_site.location)
    assert mine is not None
    mine.release()
    os.close(reading)
    os.close(writing)
