"""Fixtures: a channel that listens."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
import uvloop
from rounds import SOAK
from wire import Feed, Sender

from engine import logs


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop where it installs, and on asyncio's own loop elsewhere: their transports differ.

    Tests of the whole daemon start it with its workers, and say little of transports: `make soak` runs them on both.
    """
    if item.path.stem == "test_daemon" and not SOAK:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    """What is logged, through the daemon's own set-up; pytest keeps its hooks."""
    stream = io.StringIO()
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    logs.configure("debug", stream=stream)
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    yield stream
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
async def make_feed(sqlite_site: Any) -> AsyncIterator[Callable[..., Awaitable[Feed]]]:
    """Opens a channel over a SQLite store; keyword arguments are keys of the channel file."""
    feeds: list[Feed] = []

    async def make(*, site: Any = sqlite_site, **more: Any) -> Feed:
        feeds.append(Feed(site, **more))
        await feeds[-1].open()
        return feeds[-1]

    yield make
    for feed in feeds:
        await feed.close()


@pytest.fixture
async def feed(make_feed: Callable[..., Awaitable[Feed]]) -> Feed:
    return await make_feed()


@pytest.fixture
async def sender(feed: Feed) -> Sender:
    return await feed.sender()
