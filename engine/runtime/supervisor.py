"""Keeps the workers alive: starts and hears them, starts one again when it dies or falls silent, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from engine import logs
from engine.domain.message import Receipt
from engine.environment import held_for
from engine.errors import StoreError
from engine.runtime import hints
from engine.runtime.background import start_task
from engine.runtime.status import WorkerStatus
from engine.snapshot import Snapshot

_log = logs.get_logger()

_HINT_SECONDS: Final = 0.02
"""A hint goes out at once, the next ones are gathered for so long: many messages in one batch cost less each."""
_AWAITED_SECONDS: Final = 0.002
"""The same while a sender waits for the outcome."""
_SILENCE_SECONDS_MAX: Final = 30.0
"""A worker that reports about every second and says nothing for so long hangs. It is killed: on SQLite it may hold the
lock that all writers of the charts wait for."""
_SILENT_SECONDS: Final = 10.0
"""After so long its silence is trouble already."""
_START_SECONDS_MAX: Final = 60.0
_RELOAD_SECONDS_MAX: Final = 30.0
_KILLED_SECONDS_MAX: Final = 2.0
_RESTART_SECONDS_FIRST: Final = 0.25
_RESTART_SECONDS_MAX: Final = 30.0
_ENVIRONMENT: Final = {"MALLOC_ARENA_MAX": "1"}
"""An allocator's arena for each thread costs memory and gains nothing: one thread at a time runs Python anyway."""
_DYING_DEATHS: Final = 3
_DYING_SECONDS: Final = 60.0
"""A worker whose lives are shorter than this, several in a row, keeps dying, until one life is longer."""


PutCauses = Callable[[Sequence[Receipt]], Awaitable[Sequence[int]]]


def worker_command(fd: int) -> list[str]:
    """How the worker is started: this interpreter, this package, never a module of the current folder (`-P`)."""
    return [sys.executable, "-P", "-m", "engine", "worker", "--fd", str(fd), "--parent", str(os.getpid())]


def console_command(listen_fd: int) -> Callable[[int], list[str]]:
    """How the process that serves people is started. listen_fd: of the console's socket, which listens already."""

    def command(fd: int) -> list[str]:
        own = ["--fd", str(fd), "--listen-fd", str(listen_fd), "--parent", str(os.getpid())]
        return [sys.executable, "-P", "-m", "engine", "console", *own]

    return command


class Workers:
    """All workers of this node, as the daemon sees them. Parameters as of `Supervisor`."""

    def __init__(
        self,
        snapshot: Snapshot,
        on_message: Callable[[hints.ToMain], None],
        count: int,
        *,
        put_causes: PutCauses,
        command: Callable[[int], Sequence[str]] = worker_command,
    ) -> None:
        self._each = [
            Supervisor(snapshot, on_message, index=index, count=count, put_causes=put_causes, command=command)
            for index in range(count)
        ]
        self._snapshot = snapshot

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why they can't be relied on now, as stable codes, each once."""
        return tuple(dict.fromkeys(trouble for one in self._each if (trouble := one.trouble) is not None))

    @property
    def up(self) -> bool:
        return all(one.up for one in self._each)

    @property
    def counting(self) -> bool:
        """Whether the one that looks at the queues is up."""
        return self._each[0].up

    @property
    def restarts(self) -> int:
        return sum(one.restarts for one in self._each)

    @property
    def status(self) -> tuple[WorkerStatus, ...]:
        return tuple(one.status for one in self._each)

    def start(self) -> None:
        for one in self._each:
            one.start()

    def hint(self, *, awaited: bool = False) -> None:
        """There is work in the journal. Cheap enough for every commit. awaited: a sender waits for its outcome."""
        for one in self._each:
            one.hint(awaited=awaited)

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


async def _no_causes(_: Sequence[Receipt]) -> Sequence[int]:
    raise StoreError("this process puts no causes into the journal")


async def _no_answers(_: hints.Ask) -> hints.Told:
    raise StoreError("this process asks for nothing")


class Supervisor:
    """One worker at a time, or one process that serves people (`console_command`).

    on_message: called for each of the worker's messages. index, count: which of how many workers of the node it is.
    put_causes: puts what the worker asks for into the journal. answer: to what it asks. command: how to start it, given
    the number of its descriptor. name: in the log, of one that is no worker. pass_fds: further descriptors it gets.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        on_message: Callable[[hints.ToMain], None],
        *,
        put_causes: PutCauses = _no_causes,
        answer: Callable[[hints.Ask], Awaitable[hints.Told]] = _no_answers,
        index: int = 0,
        count: int = 1,
        name: str | None = None,
        pass_fds: Sequence[int] = (),
        command: Callable[[int], Sequence[str]] = worker_command,
        restart_seconds_first: float = _RESTART_SECONDS_FIRST,
        silence_seconds_max: float = _SILENCE_SECONDS_MAX,
    ) -> None:
        self._snapshot = snapshot
        self._on_message = on_message
        self._put_causes = put_causes
        self._answer_to = answer
        self._index, self._count = index, count
        self._name = index if name is None else name
        self._pass_fds = tuple(pass_fds)
        self._command = command
        self._restart_seconds_first = restart_seconds_first
        self._silence_seconds_max = silence_seconds_max
        self._pipe: hints.Pipe | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._hint: asyncio.TimerHandle | None = None
        self._hinted_at = 0.0
        self._early_deaths = 0
        """In a row."""
        self._stopping = asyncio.Event()
        self._born_at = 0.0
        self._unready_since = 0.0
        self._heard_at = 0.0
        self.ready_version: str | None = None
        """The configuration that the running worker said it works by."""
        self._answer: asyncio.Future[bool] | None = None
        self._asked: str | None = None
        """The version that `reload` waits for an answer about."""
        self.restarts = 0
        self.failing: tuple[str, ...] = ()
        self._leased = hints.Leased()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def up(self) -> bool:
        """It works by a configuration, and is heard of."""
        return self.ready_version is not None and not self._silent

    @property
    def _silent(self) -> bool:
        return asyncio.get_running_loop().time() - self._heard_at > min(_SILENT_SECONDS, self._silence_seconds_max / 2)

    @property
    def status(self) -> WorkerStatus:
        return WorkerStatus(
            index=self._index,
            pid=self.pid,
            up=self.up,
            restarts=self.restarts,
            partitions=self._leased.partitions,
            destinations=self._leased.destinations,
        )

    @property
    def trouble(self) -> str | None:
        """Why the worker can't be relied on now, as a stable code; none: all is well, or it has only just started."""
        now = asyncio.get_running_loop().time()
        ready = self.ready_version is not None
        if self._early_deaths >= _DYING_DEATHS and not (ready and now - self._born_at > _DYING_SECONDS):
            return "worker-keeps-dying"
        if not ready and now - self._unready_since > _START_SECONDS_MAX:
            return "worker-not-ready"
        if ready and self._silent:
            return "worker-silent"
        if self.failing:
            return "service-failing"
        return None

    def start(self) -> None:
        self._unready_since = asyncio.get_running_loop().time()
        self._task = start_task(self._run(), "worker-supervisor")

    def hint(self, *, awaited: bool = False) -> None:
        """There is work in the journal. Cheap enough for every commit. awaited: a sender waits for its outcome."""
        if self._pipe is None or (self._hint is not None and not awaited):
            return
        loop = asyncio.get_running_loop()
        due = self._hinted_at + (_AWAITED_SECONDS if awaited else _HINT_SECONDS)
        if self._hint is not None:
            if self._hint.when() <= due:
                return
            self._hint.cancel()
        if loop.time() < due:
            self._hint = loop.call_at(due, self._send_hint)
        else:
            self._send_hint()

    async def reload(self, snapshot: Snapshot) -> bool:
        """Give the worker a new configuration; whether it took it. When it did not, it goes on with the old one.

        A worker that is only just being started has been given the old one: it takes the new one after that.
        """
        old, self._snapshot = self._snapshot, snapshot
        if self._pipe is None:
            return True
        self._answer = asyncio.get_running_loop().create_future()
        self._asked = snapshot.version
        self._pipe.send(self._configure(snapshot))
        try:
            taken = await asyncio.wait_for(self._answer, _RELOAD_SECONDS_MAX)
        except TimeoutError:
            taken = False
            if self._pipe is not None:  # it may still come to it, and is then to come back from it
                self._pipe.send(self._configure(old))
        finally:
            self._answer = self._asked = None
        if not taken:
            self._snapshot = old
        return taken

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
                with contextlib.suppress(TimeoutError):  # one that is stuck in the kernel goes when that lets it
                    await asyncio.wait_for(process.wait(), _KILLED_SECONDS_MAX)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        return clean

    def _send_hint(self) -> None:
        self._hint = None
        self._hinted_at = asyncio.get_running_loop().time()
        if self._pipe is not None:
            self._pipe.send(hints.Work())

    async def _run(self) -> None:
        pause = self._restart_seconds_first
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            self._born_at = loop.time()
            status = await self._live_once()
            if self._stopping.is_set():
                return
            self.restarts += 1
            if loop.time() - self._born_at > _DYING_SECONDS:
                self._early_deaths = 0
                pause = self._restart_seconds_first
            self._early_deaths += 1
            _log.error(
                "worker died and is started again",
                worker=self._name,
                exit_code=status,
                restarts=self.restarts,
                seconds=pause,
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RESTART_SECONDS_MAX)

    async def _live_once(self) -> int | None:
        """One worker from its start to its end; its exit status (negative: the signal that killed it).

        None: it could not be started (no memory, no descriptors).
        """
        try:
            process, pipe = await self._spawn()
        except OSError as error:
            _log.error("worker can't be started", worker=self._name, exc_info=error)
            return None
        self._pipe = pipe
        self._heard_at = asyncio.get_running_loop().time()
        pipe.send(self._configure(self._snapshot))
        if self._stopping.is_set():  # `stop` did not find it yet
            pipe.send(hints.Stop())
        watchdog = asyncio.create_task(self._watch(process))
        try:
            while (line := await pipe.line()) is not None:
                self._heard_at = asyncio.get_running_loop().time()
                self._hear(line, pipe)
            return await process.wait()
        finally:
            watchdog.cancel()
            self._pipe = None
            if self.ready_version is not None:
                self.ready_version = None
                self._unready_since = asyncio.get_running_loop().time()
            self.failing = ()
            self._leased = hints.Leased()
            self._reloaded(taken=False)
            pipe.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, hints.Pipe]:
        ours, its = socket.socketpair()
        try:
            with its:
                process = await asyncio.create_subprocess_exec(
                    *self._command(its.fileno()),
                    pass_fds=(its.fileno(), *self._pass_fds),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=_ENVIRONMENT | os.environ,
                    start_new_session=True,  # Ctrl-C is for us: when a worker stops is our decision
                )
            self._process = process
            return process, await hints.Pipe.over(ours)
        except BaseException:
            ours.close()
            raise

    def _hear(self, line: bytes, pipe: hints.Pipe) -> None:
        try:
            message = hints.read_to_main(line)
        except msgspec.DecodeError:
            _log.error("worker said something that is no message")
            return
        if isinstance(message, hints.Ready):
            self.ready_version = message.config_version
            if message.config_version == self._asked:
                self._reloaded(taken=True)
            _log.info("worker ready", worker=self._name, config_version=message.config_version, pid=self.pid)
        elif isinstance(message, hints.Refused):
            if message.config_version == self._asked:
                self._reloaded(taken=False)
        elif isinstance(message, hints.Report):
            self.failing = message.failing
            self._leased = message.leased
        elif isinstance(message, hints.PutCauses):
            start_task(self._put(message, pipe), "put-causes")
        elif isinstance(message, hints.Ask):
            start_task(self._tell(message, pipe), "answer")
        self._on_message(message)

    async def _put(self, message: hints.PutCauses, pipe: hints.Pipe) -> None:
        """pipe: of the worker that has asked. When it is gone, the next one asks again by itself."""
        entries: tuple[int, ...] | None = None
        try:
            entries = tuple(await self._put_causes(message.receipts))
        except StoreError as error:
            _log.warning("causes of a worker not put into the journal", worker=self._name, exc_info=error)
        except Exception as error:  # noqa: BLE001 - what a worker asks for must not stop the acknowledgments
            _log.error("causes of a worker can't be put into the journal", worker=self._name, exc_info=error)
        pipe.send(hints.InJournal(number=message.number, entries=entries))

    async def _tell(self, ask: hints.Ask, pipe: hints.Pipe) -> None:
        try:
            told = await self._answer_to(ask)
        except Exception as error:  # noqa: BLE001 - what is asked must not stop the acknowledgments
            _log.error("question of a process can't be answered", action=ask.what, exc_info=error)
            told = hints.Told(number=ask.number, status=500, media="application/json", body="{}")
        pipe.send(told)

    def _reloaded(self, *, taken: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(taken)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(self._silence_seconds_max / 12)
            if asyncio.get_running_loop().time() - self._heard_at > self._silence_seconds_max:
                _log.error("worker killed because it fell silent", worker=self._name, seconds=self._silence_seconds_max)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return

    def _configure(self, snapshot: Snapshot) -> hints.Configure:
        return hints.Configure(
            base=str(snapshot.base),
            site_file=snapshot.site_file,
            files=dict(snapshot.files),
            left_out=dict(snapshot.left_out),
            variables=held_for(snapshot.files.values()),
            loaded=snapshot.loaded,
            index=self._index,
            count=self._count,
        )
