"""The process that serves people: whatever it does, it can't slow down an acknowledgment.

It is started, watched and started again by the daemon (`runtime.supervisor`), takes the connections to the console's
port from the socket that the daemon has opened, and asks the daemon over the pipe for what that alone knows. All that
it keeps is in the store, in whole transactions, so it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Final

from engine import environment, logs
from engine.bootstrap import loop_factory, settle_memory
from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.site import ConsoleSite
from engine.errors import HandoffError, StoreUnavailableError
from engine.runtime import hints
from engine.runtime.health import ConsoleServer
from engine.runtime.memory import protect_memory
from engine.runtime.priority import let_answers_go_first
from engine.runtime.worker import REPORT_SECONDS, die_with_parent
from engine.snapshot import Snapshot
from engine.tlsfiles import console_context, load_console_certificate

_log = logs.get_logger(__name__)

_ANSWER_SECONDS_MAX: Final = 60.0
"""For an answer of the daemon: a reload can take that long."""
_CONNECTIONS_MAX: Final = 512


class Line:
    """The pipe to the daemon, with what is asked over it."""

    def __init__(self, pipe: hints.Pipe) -> None:
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[hints.Told]] = {}
        self._number = 0

    async def ask(self, ask: hints.Ask) -> hints.Told:
        """Raises StoreUnavailableError when the daemon does not answer."""
        self._number += 1
        number = self._number
        answer = self._waiting[number] = self._loop.create_future()
        self._pipe.send(hints.Ask(number=number, what=ask.what, allow_remove=ask.allow_remove, who=ask.who))
        try:
            return await asyncio.wait_for(answer, _ANSWER_SECONDS_MAX)
        except TimeoutError:
            raise StoreUnavailableError("the daemon does not answer") from None
        finally:
            del self._waiting[number]

    def hear(self, told: hints.Told) -> None:
        answer = self._waiting.get(told.number)
        if answer is not None and not answer.done():
            answer.set_result(told)

    def look(self) -> None:
        """Something was put into the journal; in any thread."""
        self._loop.call_soon_threadsafe(self._pipe.send, hints.Ask(what="look"))


async def serve(fd: int, listen_fd: int, parent_pid: int) -> int:
    """From its start to its exit status. fd: its end of the socket pair."""
    die_with_parent(parent_pid)
    let_answers_go_first()
    loop = asyncio.get_running_loop()
    logs.watch_loop(loop)
    # Whoever sends these to all processes means the main process, whose decision it is when to stop.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    pipe = await hints.Pipe.over(socket.socket(fileno=fd))
    first = await pipe.line()
    configure = hints.read_to_worker(first) if first is not None else None
    if not isinstance(configure, hints.Configure):
        return 1
    listening = socket.socket(fileno=listen_fd)
    try:
        environment.receive(configure.variables)
        configuration = load(_snapshot(configure))
        site = ConsoleSite(configuration, Line(pipe))
        tls = console_context(configuration)
    except (HandoffError, OSError) as error:
        _log.error("console can't start", exc_info=error)
        pipe.send(hints.Refused(config_version=""))
        await pipe.drain()
        return os.EX_CONFIG
    logs.configure(configuration.site.log_level, configuration.site.log_format)
    host = str(listening.getsockname()[0])
    server = ConsoleServer(create_console(site, host), connections_max=_CONNECTIONS_MAX, tls=tls)
    settle_memory()
    pipe.send(hints.Ready(config_version=configuration.snapshot.version))
    reporting = asyncio.create_task(_report(pipe))
    stopping, turn = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopping.set()
        turn.set()

    loop.add_signal_handler(signal.SIGTERM, stop)
    hearing = asyncio.create_task(_hear(pipe, site, tls, turn, stopping))
    await turn.wait()
    if not stopping.is_set():
        await server.open(listening)
    await stopping.wait()
    reporting.cancel()
    hearing.cancel()
    await server.close()
    site.close()
    await pipe.drain()
    return 0


async def _report(pipe: hints.Pipe) -> None:
    """The sign of life: a process that is stuck gives none, and is killed."""
    while True:
        pipe.send(hints.Report())
        await asyncio.sleep(REPORT_SECONDS)


async def _hear(
    pipe: hints.Pipe, site: ConsoleSite, tls: ssl.SSLContext | None, turn: asyncio.Event, stopping: asyncio.Event
) -> None:
    """turn: set once the daemon leaves the connections to us."""
    while (line := await pipe.line()) is not None:
        message = hints.read_to_worker(line)
        if isinstance(message, hints.Told):
            site.line.hear(message)
        elif isinstance(message, hints.Work):
            turn.set()
        elif isinstance(message, hints.Stop):
            stopping.set()
            turn.set()
        elif isinstance(message, hints.Configure):
            _take(message, pipe, site, tls)
    if not stopping.is_set():
        os._exit(1)  # the daemon is gone


def _take(message: hints.Configure, pipe: hints.Pipe, site: ConsoleSite, tls: ssl.SSLContext | None) -> None:
    """A reload."""
    snapshot = _snapshot(message)
    version = snapshot.version
    try:
        environment.receive(message.variables)
        configuration = load(snapshot)
        site.take(configuration)
        if tls is not None:
            load_console_certificate(tls, configuration)
    except (HandoffError, OSError) as error:
        _log.error("configuration refused by the console", exc_info=error)
        pipe.send(hints.Refused(config_version=version))
        return
    logs.configure(configuration.site.log_level, configuration.site.log_format)
    pipe.send(hints.Ready(config_version=version))


def _snapshot(message: hints.Configure) -> Snapshot:
    return Snapshot(
        Path(message.base), message.site_file, message.files, loaded=message.loaded, left_out=message.left_out
    )


def run_console(fd: int, listen_fd: int, parent: int) -> int:
    """The process, started by the daemon: listen_fd is the console's socket, which listens already."""
    logs.configure()
    protect_memory()
    with contextlib.suppress(OSError):
        os.set_inheritable(listen_fd, False)  # noqa: FBT003 - the standard library's signature
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(serve(fd, listen_fd, parent))
