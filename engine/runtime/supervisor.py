"""Keeps the workers alive: starts and hears them, starts one again when it dies or falls silent, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from engine import logs
from engine.runtime import hints
from engine.runtime.tasks import keep
from engine.settings import Snapshot

_log = logs.get_logger()

_HINT_SECONDS: Final = 0.02
"""Hints are gathered for so long: the worker takes its work in batches anyway."""
_SILENCE_SECONDS_MAX: Final = 60.0
"""A worker that reports about every second and says nothing for so long hangs."""
_START_SECONDS_MAX: Final = 60.0
_RELOAD_SECONDS_MAX: Final = 30.0
_RESTART_SECONDS_FIRST: Final = 0.25
_RESTART_SECONDS_MAX: Final = 30.0
_DYING_RESTARTS: Final = 3
_DYING_SECONDS: Final = 60.0
"""Dead so often within so long: the worker keeps dying, and the daemon is not ready."""


def worker_command(fd: int) -> list[str]:
    """How the worker is started: this interpreter, this package, never a module of the current folder (`-P`)."""
    return [sys.executable, "-P", "-m", "engine", "worker", "--fd", str(fd), "--parent", str(os.getpid())]


class Workers:
    """All workers of this node, as the daemon sees them. Parameters as of `Supervisor`."""

    def __init__(
        self,
        snapshot: Snapshot,
        on_message: Callable[[hints.ToMain], None],
        count: int,
        *,
        command: Callable[[int], Sequence[str]] = worker_command,
    ) -> None:
        self._each = [
            Supervisor(snapshot, on_message, index=index, count=count, command=command) for index in range(count)
        ]
        self._snapshot = snapshot

    @property
    def trouble(self) -> str | None:
        """Why they can't be relied on now: the first one's trouble that has some."""
        return next((trouble for one in self._each if (trouble := one.trouble) is not None), None)

    @property
    def ready(self) -> bool:
        return all(one.ready_version is not None for one in self._each)

    @property
    def restarts(self) -> int:
        return sum(one.restarts for one in self._each)

    def start(self) -> None:
        for one in self._each:
            one.start()

    def hint(self) -> None:
        """There is work in the journal. Cheap enough for every commit."""
        for one in self._each:
            one.hint()

    async def reload(self, snapshot: Snapshot) -> bool:
        """Give all of them a new configuration; whether they took it. If one did not, all go on with the old one."""
        taken = await asyncio.gather(*(one.reload(snapshot) for one in self._each))
        if all(taken):
            self._snapshot = snapshot
            return True
        await asyncio.gather(*(one.reload(self._snapshot) for one, took in zip(self._each, taken, strict=True) if took))
        return False

    async def stop(self, seconds_max: float) -> bool:
        """Let them finish what they have in hand, kill those that take too long; whether all left by themselves."""
        return all(await asyncio.gather(*(one.stop(seconds_max) for one in self._each)))


class Supervisor:
    """One worker at a time.

    on_message: called for each of the worker's messages. index, count: which of how many workers of the node it is.
    command: how to start it, given the number of its descriptor.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        on_message: Callable[[hints.ToMain], None],
        *,
        index: int = 0,
        count: int = 1,
        command: Callable[[int], Sequence[str]] = worker_command,
        restart_seconds_first: float = _RESTART_SECONDS_FIRST,
    ) -> None:
        self._snapshot = snapshot
        self._on_message = on_message
        self._index, self._count = index, count
        self._command = command
        self._restart_seconds_first = restart_seconds_first
        self._pipe: hints.Pipe | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._hint: asyncio.TimerHandle | None = None
        self._deaths: deque[float] = deque(maxlen=_DYING_RESTARTS)
        self._stopping = asyncio.Event()
        self._started_at = 0.0
        self._heard_at = 0.0
        self.ready_version: str | None = None
        """The configuration that the running worker said it works by."""
        self._answer: asyncio.Future[bool] | None = None
        self._asked: str | None = None
        """The version that `reload` waits for an answer about."""
        self.restarts = 0
        self.failing: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def trouble(self) -> str | None:
        """Why the worker can't be relied on now, as a stable code; none: all is well, or it has only just started."""
        now = asyncio.get_running_loop().time()
        if len(self._deaths) == _DYING_RESTARTS and now - self._deaths[0] < _DYING_SECONDS:
            return "worker-keeps-dying"
        if self.ready_version is None and now - self._started_at > _START_SECONDS_MAX:
            return "worker-not-ready"
        if self.failing:
            return "service-failing"
        return None

    def start(self) -> None:
        self._started_at = asyncio.get_running_loop().time()
        self._task = keep(self._run(), "worker-supervisor")

    def hint(self) -> None:
        """There is work in the journal. Cheap enough for every commit."""
        if self._hint is None and self._pipe is not None:
            self._hint = asyncio.get_running_loop().call_later(_HINT_SECONDS, self._send_hint)

    async def reload(self, snapshot: Snapshot) -> bool:
        """Give the worker a new configuration; whether it took it. When it did not, it goes on with the old one.

        A worker that is only just being started has been given the old one: it takes the new one after that.
        """
        old, self._snapshot = self._snapshot, snapshot
        if self._pipe is not None:
            self._answer = asyncio.get_running_loop().create_future()
            self._asked = snapshot.version
            self._pipe.send(self._configure(snapshot))
            try:
                taken = await asyncio.wait_for(self._answer, _RELOAD_SECONDS_MAX)
            except TimeoutError:
                taken = False
            finally:
                self._answer = None
            if not taken:
                self._snapshot = old
            return taken
        return True

    async def stop(self, seconds_max: float) -> bool:
        """Let the worker finish what it has in hand, kill it if that takes too long; whether it left by itself."""
        self._stopping.set()
        if self._pipe is not None:
            self._pipe.send(hints.Stop())
        clean = True
        process = self._process
        if process is not None and process.returncode is None:
            try:
                await asyncio.wait_for(process.wait(), seconds_max)
            except TimeoutError:
                clean = False
                _log.warning("worker killed because it did not stop in time", seconds=seconds_max)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        return clean

    def _send_hint(self) -> None:
        self._hint = None
        if self._pipe is not None:
            self._pipe.send(hints.Work())

    async def _run(self) -> None:
        pause = self._restart_seconds_first
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._live_once()
            if self._stopping.is_set():
                return
            self.restarts += 1
            self._deaths.append(loop.time())
            if loop.time() - started > _DYING_SECONDS:
                pause = self._restart_seconds_first
            _log.error(
                "worker died and is started again",
                worker=self._index,
                exit_code=status,
                restarts=self.restarts,
                seconds=pause,
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RESTART_SECONDS_MAX)

    async def _live_once(self) -> int:
        """One worker from its start to its end; its exit status (negative: the signal that killed it)."""
        ours, its = socket.socketpair()
        with its:
            process = await asyncio.create_subprocess_exec(
                *self._command(its.fileno()), pass_fds=(its.fileno(),), stdin=asyncio.subprocess.DEVNULL
            )
        self._process = process
        pipe = self._pipe = await hints.Pipe.over(ours)
        self._heard_at = asyncio.get_running_loop().time()
        pipe.send(self._configure(self._snapshot))
        watchdog = asyncio.create_task(self._watch(process))
        try:
            while (line := await pipe.line()) is not None:
                self._heard_at = asyncio.get_running_loop().time()
                self._hear(line)
            return await process.wait()
        finally:
            watchdog.cancel()
            self._pipe = None
            self.ready_version = None
            self._reloaded(taken=False)
            pipe.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def _hear(self, line: bytes) -> None:
        try:
            message = hints.read_to_main(line)
        except msgspec.DecodeError:
            _log.error("worker said something that is no message")
            return
        if isinstance(message, hints.Ready):
            self.ready_version = message.config_version
            if message.config_version == self._asked:
                self._reloaded(taken=True)
            _log.info("worker ready", worker=self._index, config_version=message.config_version, pid=self.pid)
        elif isinstance(message, hints.Refused):
            self._reloaded(taken=False)
        elif isinstance(message, hints.Report):
            self.failing = message.failing
        self._on_message(message)

    def _reloaded(self, *, taken: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(taken)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(_SILENCE_SECONDS_MAX / 12)
            if asyncio.get_running_loop().time() - self._heard_at > _SILENCE_SECONDS_MAX:
                _log.error("worker killed because it fell silent", seconds=_SILENCE_SECONDS_MAX)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return

    def _configure(self, snapshot: Snapshot) -> hints.Configure:
        return hints.Configure(
            base=str(snapshot.base),
            site_file=snapshot.site_file,
            files=dict(snapshot.files),
            index=self._index,
            count=self._count,
        )
