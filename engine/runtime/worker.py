"""The worker: a child process that processes, delivers and watches the clock, as a shell around given services.

Its life hangs on the pipe to the main process: hints wake its services, a closed pipe ends it at once. All it does is
in the store, in whole transactions, so it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine import environment, logs, settings
from engine.connectors.registry import load
from engine.domain.message import Receipt
from engine.domain.standing import Overview
from engine.errors import HandoffError, SettingsError
from engine.runtime import hints
from engine.runtime.causes import CausesToMain
from engine.runtime.counters import Name
from engine.runtime.priority import let_answers_go_first
from engine.runtime.services import Service, Services
from engine.runtime.skews import SENDERS_MAX
from engine.snapshot import Snapshot

_log = logs.get_logger()

REPORT_SECONDS: Final = 1.0
_COUNT_SHARE: Final = 0.05
"""Of the time at most goes into counting what waits: where that is millions, a look at it takes seconds."""
_COUNT_PAUSE_SECONDS_MAX: Final = 60.0
_CLOSE_SECONDS_MAX: Final = 3.0
"""A store that is gone can't be taken leave of; what was to be done there falls with the process."""
_PR_SET_PDEATHSIG: Final = 1
_SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another waits for it. With Python's 5 ms an outcome that is on disk
would wait for a courier's turn before its sender hears of it."""


class Wake:
    """Lets a service sleep until it is rung for, or a little while: hints may be lost, the store is always right."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds_max: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds_max)
        self._event.clear()


class Tally:
    """Counts since the last report. Services count in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[Name, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._skews: defaultdict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
        self._late: list[float] = []

    def count(self, name: Name, *labels: str, by: int = 1) -> None:
        """labels: as `COUNTERS` has them for this name."""
        with self._lock:
            self._counts[name][labels] += by

    def clock(self, channel: str, sender: int, seconds: float, entry: int) -> None:
        """A message came so long after its sender's clock says that it was sent."""
        with self._lock:
            senders = self._skews[channel]
            known = senders.get(sender)
            if known is None and len(senders) >= SENDERS_MAX:
                return
            if known is None or seconds < known[0]:
                senders[sender] = (seconds, entry)

    def rang(self, late_seconds: Iterable[float]) -> None:
        """Deadlines were recorded as rung, each so late."""
        with self._lock:
            self._late += late_seconds

    def take(self, work: Overview | None, *, failing: tuple[str, ...], leased: hints.Leased) -> hints.Report:
        with self._lock:
            counts, self._counts = self._counts, defaultdict(Counter)
            skews, self._skews = self._skews, defaultdict(dict)
            late, self._late = self._late, []
        return hints.Report(
            counts={name: tuple(rows.items()) for name, rows in counts.items()},
            work=work,
            skews=dict(skews),
            failing=failing,
            leased=leased,
            rung=_rung(late) if late else None,
        )


def _rung(late: Sequence[float]) -> hints.Rung:
    counts = [0] * (len(hints.LATE_SECONDS) + 1)
    for seconds in late:
        counts[bisect_left(hints.LATE_SECONDS, seconds)] += 1
    return hints.Rung(counts=tuple(counts), total_seconds=sum(late), latest_seconds=max(late))


@dataclass
class WorkerContext:
    """What a service sees of the shell around it.

    work: rung when there may be new entries. outbox: to be rung by the processor when it has written deliveries.
    stopping: set when the service is to finish what it has in hand and return. tally: where it counts.
    index, count: which of the node's workers this is, and how many there are.
    have_outcomes(accepted, failed): tells main that these entries, whose senders wait, have their outcome. May be
    called from any thread.
    put_causes(receipts): has the main process put causes into the journal: see `CausesToMain.put`.
    """

    have_outcomes: Callable[[Sequence[int], Sequence[int]], None]
    put_causes: Callable[[Sequence[Receipt]], Awaitable[Sequence[int]]]
    index: int = 0
    count: int = 1
    work: Wake = field(default_factory=Wake)
    outbox: Wake = field(default_factory=Wake)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class Assembly:
    """What the composition root made out of a configuration.

    services: by name; each runs until `stopping` is set and then returns. reload: takes a new configuration or raises
    HandoffError and goes on with the old one. overview: for the report, about once a second, more rarely when it takes
    long. close: the last call. leased: for the report; waits for nothing.
    """

    services: Mapping[str, Service]
    reload: Callable[[settings.Configuration], Awaitable[None]]
    overview: Callable[[], Awaitable[Overview | None]]
    close: Callable[[], Awaitable[None]]
    leased: Callable[[], hints.Leased] = hints.Leased


Assemble = Callable[[settings.Configuration, WorkerContext], Awaitable[Assembly]]


class Worker:
    """The shell: reads hints, supervises the services, reports."""

    def __init__(self, pipe: hints.Pipe, assemble: Assemble) -> None:
        self._pipe = pipe
        self._assemble = assemble
        self._loop = asyncio.get_running_loop()
        self._causes = CausesToMain(pipe.send)
        self.context = WorkerContext(have_outcomes=self._tell_outcomes, put_causes=self._causes.put)
        self._services = Services({}, self.context.stopping)
        self._work: Overview | None = None
        self._assembly: Assembly | None = None

    async def run(self) -> int:
        """Work until told to stop; the exit status. A pipe that closes ends the process without another word."""
        first = await self._pipe.line()
        if first is None:
            return 1
        configure = hints.read_to_worker(first)
        if not isinstance(configure, hints.Configure):
            raise TypeError("the first line to the worker is its configuration")
        self.context.index, self.context.count = configure.index, configure.count
        configuration = self._load(configure)
        if configuration is None:
            await self._pipe.drain()
            return os.EX_CONFIG
        logs.configure(configuration.site.log_level, configuration.site.log_format)
        try:
            self._assembly = assembly = await self._assemble(configuration, self.context)
        except HandoffError as error:
            _log.error("worker can't start", worker=self.context.index, exc_info=error)
            return os.EX_UNAVAILABLE
        self._pipe.send(hints.Ready(config_version=configuration.snapshot.version))
        async with asyncio.TaskGroup() as tasks:
            self._services = Services(assembly.services, self.context.stopping)
            self._services.start()
            side = [tasks.create_task(run()) for run in (self._listen, self._report_forever, self._count_forever)]
            await self.context.stopping.wait()
            self.context.work.ring()
            self.context.outbox.ring()
            await self._services.ended()
            for task in side:
                task.cancel()
        self._report()
        try:
            await asyncio.wait_for(assembly.close(), _CLOSE_SECONDS_MAX)
        except TimeoutError:
            _log.warning("store not closed in time, leaving without that", seconds=_CLOSE_SECONDS_MAX)
            await self._pipe.drain()
            os._exit(0)  # its threads wait for the store, and nothing could be written by them any more
        await self._pipe.drain()
        return 0

    def stop(self) -> None:
        self.context.stopping.set()

    async def _listen(self) -> None:
        while (line := await self._pipe.line()) is not None:
            message = hints.read_to_worker(line)
            if isinstance(message, hints.Work):
                self.context.work.ring()
            elif isinstance(message, hints.InJournal):
                self._causes.hear(message)
            elif isinstance(message, hints.Stop):
                self.stop()
            elif isinstance(message, hints.Configure):
                await self._reload(message)
        if not self.context.stopping.is_set():
            os._exit(1)  # main is gone: whatever is in hand is in no transaction yet, or in a whole one

    async def _reload(self, message: hints.Configure) -> None:
        configuration = self._load(message)
        if configuration is None or self._assembly is None:
            return
        try:
            await self._assembly.reload(configuration)
        except HandoffError as error:
            self._refuse(configuration.snapshot.version, error)
            return
        logs.configure(configuration.site.log_level, configuration.site.log_format)
        self._pipe.send(hints.Ready(config_version=configuration.snapshot.version))

    def _load(self, message: hints.Configure) -> settings.Configuration | None:
        snapshot = Snapshot(
            Path(message.base), message.site_file, message.files, loaded=message.loaded, left_out=message.left_out
        )
        environment.receive(message.variables)
        try:
            configuration = load(snapshot)
        except SettingsError as error:
            self._refuse(snapshot.version, error)
            return None
        return configuration

    def _refuse(self, version: str, error: HandoffError) -> None:
        _log.error("configuration refused by the worker", config_version=version, exc_info=error)
        self._pipe.send(hints.Refused(config_version=version))

    async def _report_forever(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(REPORT_SECONDS)

    def _report(self) -> None:
        """The sign of life too: it waits for nothing, least of all for the store."""
        work, self._work = self._work, None
        leased = self._assembly.leased() if self._assembly is not None else hints.Leased()
        self._pipe.send(self.context.tally.take(work, failing=self._services.failing(), leased=leased))

    async def _count_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while self._assembly is not None:
            began = loop.time()
            try:
                self._work = await self._assembly.overview()
            except Exception as error:  # noqa: BLE001 - a count that can't be read now can be read later
                _log.warning("queues not counted", exc_info=error)
            await asyncio.sleep(count_pause_seconds(loop.time() - began))

    def _tell_outcomes(self, accepted: Sequence[int], failed: Sequence[int]) -> None:
        if accepted or failed:
            outcomes = hints.Outcomes(accepted=tuple(accepted), failed=tuple(failed))
            self._loop.call_soon_threadsafe(self._pipe.send, outcomes)


def count_pause_seconds(taken_seconds: float) -> float:
    """Until what waits is counted again, after a count that took so long."""
    return min(max(REPORT_SECONDS, taken_seconds / _COUNT_SHARE), _COUNT_PAUSE_SECONDS_MAX)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the main process dies (Linux; elsewhere the closed pipe does it)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)  # it died before we could ask


async def serve(fd: int, parent_pid: int, assemble: Assemble) -> int:
    """The worker process from its start to its exit status. fd: its end of the socket pair."""
    die_with_parent(parent_pid)
    let_answers_go_first()
    sys.setswitchinterval(_SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    logs.watch_loop(loop)
    # Whoever sends these to all processes means the main process, whose decision it is when to stop.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    pipe = await hints.Pipe.over(socket.socket(fileno=fd))
    worker = Worker(pipe, assemble)
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    return await worker.run()
