"""Tasks that live as long as the process."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from engine import logs

_log = logs.get_logger(__name__)

T = TypeVar("T")


def start_task(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run it as a task whose failure is an unhandled error of the loop, which stops the daemon.

    A task that somebody still refers to may fail without a word: a queue would stand still and nobody be told.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    task.add_done_callback(_report)
    return task


async def in_own_thread(work: Callable[[], T], name: str) -> T:
    """Run it in a thread of its own, which nobody waits for at the end of the process: it may hang with a database."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(error: BaseException | None, result: Any) -> None:
        if future.done():  # nobody waits any more
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        error, result = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - it is the waiting one's
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


def tolerate_connections(loop: asyncio.AbstractEventLoop) -> None:
    """Let what goes wrong with one connection end that connection only; all else goes to the handler that is set."""
    stop = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        of_one = "transport" in context or "protocol" in context or "socket" in context
        if of_one or stop is None or isinstance(error, ConnectionError | ssl.SSLError):
            _log.error("connection failed", exc_info=error) if error is not None else _log.error("connection failed")
        else:
            stop(loop, context)

    loop.set_exception_handler(handle)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a task failed", "exception": error, "task": task})
