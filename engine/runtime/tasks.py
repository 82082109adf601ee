"""Tasks that live as long as the process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def keep(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run it as a task whose failure is an unhandled error of the loop, which stops the daemon.

    A task that somebody still refers to may fail without a word: a queue would stand still and nobody be told.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a task failed", "exception": error, "task": task})
