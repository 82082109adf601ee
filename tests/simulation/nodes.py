"""The engine's processes: the real services, wired by the real composition root, over simulated surroundings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn
from unittest import mock

import msgspec
import structlog
from simulation import installed
from simulation.database import Database, SimulatedStore, simulated_leases
from simulation.destinations import Destination, SimulatedConnector
from simulation.hospital import Line
from simulation.world import BEGIN, Gone, Machine, Process, World, in_process

from engine import bootstrap
from engine.access.copies import Copies
from engine.clock import Clock
from engine.domain.message import AckCode
from engine.errors import HandoffError, StoreError
from engine.hl7v2.ack import Verdict
from engine.runtime import hints, intake, processor, worker
from engine.runtime.answers import Lane
from engine.runtime.courier import Route
from engine.runtime.intake import Intake
from engine.runtime.listener import Connection, Listener
from engine.runtime.metrics import Metrics
from engine.settings import Configuration
from engine.store.journal import Append
from engine.store.store import Role, check_same_time

_encode = msgspec.json.Encoder().encode
_RESTART_SECONDS = (0.3, 2.0)
_LATENCY_SECONDS = 0.002


class Node:
    """A machine with a main process and its workers, started again whenever they end."""

    def __init__(self, cluster: Cluster, name: str, machine: Machine, workers: int) -> None:
        self.cluster = cluster
        self.name = name
        self.machine = machine
        self.worker_count = workers
        self.main: Main | None = None
        self.workers: dict[int, WorkerProcess] = {}
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self.main = Main(self)

    def processes(self) -> list[Process]:
        found = [self.main.process] if self.main is not None else []
        return [*found, *(one.process for one in self.workers.values())]

    def main_ended(self) -> None:
        """Its workers die with it, a moment later, and the service manager starts the node again."""
        world = self.cluster.world
        self.main = None
        for one in list(self.workers.values()):
            world.after(world.random.random() * 0.02, one.process.kill)
        world.after(world.random.uniform(*_RESTART_SECONDS), self.start)

    def start_worker(self, index: int) -> None:
        self.starts += 1
        self.workers[index] = WorkerProcess(self, index)

    def worker_ended(self, index: int) -> None:
        world, main = self.cluster.world, self.main
        del self.workers[index]

        def again() -> None:
            if main is not None and main.process.alive and index not in self.workers:
                self.start_worker(index)

        world.after(world.random.uniform(*_RESTART_SECONDS), again)


class Cluster:
    """All nodes on one database, and who they deliver to."""

    def __init__(
        self,
        world: World,
        database: Database,
        destinations: dict[str, Destination],
        machines: Sequence[Machine],
        workers: int,
    ) -> None:
        self.world = world
        self.database = database
        self.destinations = destinations
        self.hints_lost = 0.0
        self.nodes = [
            Node(self, name, machine, workers)
            for name, machine in zip(("north", "south", "west"), machines, strict=False)
        ]

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def of(self, process: Process) -> Node:
        return next(node for node in self.nodes if process in node.processes())

    def stop(self, process: Process, message: object) -> None:
        """A worker is told to finish and to leave; a main process has nobody who tells it."""
        for one in self.of(process).workers.values():
            if one.process is process:
                one.tell(message)

    def connect(self, process: Process, channel: str) -> Line | None:
        """A connection from a sender to some node; none: nobody listens there."""
        node = self.world.random.choice(self.nodes)
        if node.main is None or channel not in node.main.listeners:
            return None
        return node.main.accept(process, channel)


class Main:
    """A main process: listener and intake over the journal."""

    def __init__(self, node: Node) -> None:
        self.node = node
        world = node.cluster.world
        self.process = Process(world, f"{node.name}.main.{node.starts}", node.machine)
        self.process.at_end.append(node.main_ended)
        self.listeners: dict[str, Listener] = {}
        self._store = SimulatedStore(node.cluster.database, self.process, "main", node.name)
        self._intake: Intake | None = None
        self.process.spawn(self._start())

    async def _start(self) -> None:
        store, process = self._store, self.process
        try:
            await store.read(check_same_time)
            await store.journal_ledger.write(store.journal.claim)
            await store.journal_ledger.write(store.journal.mark_startup_unsent)
        except StoreError:
            process.kill()  # the service manager tries again
            return
        metrics = Metrics("simulated")
        self._intake = Intake(
            store.journal, store.journal_ledger, store.keys, process.machine, metrics,
            outcomes=self._outcomes, stored=self._hint, return_to=lambda _lane, _answer: None,
        )  # fmt: skip
        self._intake.start()
        for name, channel in installed.configuration().channels.items():
            self.listeners[name] = Listener(channel, self._intake, Lane(channel, metrics.channel(name)))
            self.listeners[name]._sweep()
        for index in range(self.node.worker_count):
            if index not in self.node.workers:
                self.node.start_worker(index)

    async def _outcomes(self, entries: Sequence[int]) -> dict[int, Verdict]:
        found = await self._store.read(lambda conn: self._store.recorder.outcomes(conn, entries))
        return {
            entry: Verdict(
                code=one.application_ack,
                hl7_code=one.error_code,
                text="" if one.application_ack is AckCode.AA else "why",
            )
            for entry, one in found.items()
        }

    def _hint(self, _awaited: bool) -> None:
        cluster = self.node.cluster
        if cluster.world.random.random() >= cluster.hints_lost:
            for one in self.node.workers.values():
                one.tell(hints.Work())

    def hear(self, message: object) -> None:
        if isinstance(message, hints.Outcomes) and self._intake is not None:
            self._intake.late.have_outcomes(message.accepted, message.failed)

    async def put(self, worker: WorkerProcess, message: hints.PutCauses) -> None:
        """What a worker's scheduler has found due."""
        entries: tuple[int, ...] | None = None
        with suppress(StoreError):
            append = Append(receipts=tuple(message.receipts))
            stored = await self._store.journal_ledger.add(self._store.journal.append_each, append)
            entries = tuple(one.id or one.duplicate_of or 0 for one in stored)
        worker.tell(hints.InJournal(number=message.number, entries=entries))
        worker.tell(hints.Work())

    def accept(self, sender: Process, channel: str) -> Line:
        world, main = self.process.world, self.process
        connection: list[Connection] = []
        line = Line(sender, lambda data: transport.arrives(data), lambda: transport.hangs_up())
        transport = _Transport(world, main, sender, line, connection)

        def begin() -> None:
            server = Connection(self.listeners[channel], ("10.0.0.9", 4711))
            connection.append(server)
            server.connection_made(transport)

        with in_process(world, main):
            main.loop.call_soon(begin)
        return line


class _Transport(asyncio.Transport):
    """Both ends of a connection: what either writes comes to the other a little later, in order, in pieces."""

    def __init__(self, world: World, main: Process, sender: Process, line: Line, connection: list[Connection]) -> None:
        super().__init__()
        self._world, self._main, self._sender = world, main, sender
        self._line, self._connection = line, connection
        self._closed = False
        self._paused = False
        self._held: list[bytes] = []
        self._clear_at = {True: 0.0, False: 0.0}
        main.at_end.append(self._reset)

    # --- the sender's side -------------------------------------------------------------------------------------------

    def arrives(self, data: bytes) -> None:
        random = self._world.random
        cuts = sorted(random.randrange(len(data)) for _ in range(random.choice([0, 0, 0, 1, 2])))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if end > begin:
                self._later(True, lambda piece=data[begin:end]: self._main.loop.call_soon(self._give, piece))

    def hangs_up(self) -> None:
        self._later(True, lambda: self._main.loop.call_soon(self._lose))

    # --- the engine's side -------------------------------------------------------------------------------------------

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The peer takes everything."""

    def write(self, data: bytes) -> None:  # type: ignore[override]  # nobody writes anything else
        if self._main.alive and not self._closed:
            self._later(False, lambda: self._line.closed or self._sender.loop.call_soon(self._line.received, data))

    def is_closing(self) -> bool:
        return self._closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for data in held:
            self._main.loop.call_soon(self._give, data)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._later(False, self._tell_lost)
            self._main.loop.call_soon(self._connection[0].connection_lost, None)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _later(self, inward: bool, work: Callable[[], object]) -> None:
        """In order, each direction for itself."""
        world = self._world
        at = max(self._clear_at[inward], world.now + world.random.expovariate(1 / _LATENCY_SECONDS))
        self._clear_at[inward] = at + 1e-7
        world.after(at - world.now, work)

    def _give(self, data: bytes) -> None:
        if self._paused:
            self._held.append(data)
        elif not self._closed:
            self._connection[0].data_received(data)

    def _lose(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection[0].connection_lost(None)

    def _reset(self) -> None:
        self._closed = True
        self._later(False, self._tell_lost)

    def _tell_lost(self) -> None:
        if not self._line.closed:
            self._sender.loop.call_soon(self._line.lost)


class WorkerProcess:
    """A worker process: the real shell around the real services."""

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index
        self.process = Process(node.cluster.world, f"{node.name}.worker{index}.{node.starts}", node.machine)
        self.process.at_end.append(lambda: node.worker_ended(index))
        self.store = SimulatedStore(node.cluster.database, self.process, "worker", node.name)
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        _OF_PROCESS[self.process] = self
        self.process.spawn(self._run())

    async def _run(self) -> None:
        pipe: Any = _Pipe(self)
        self._lines.put_nowait(
            _encode(hints.Configure(index=self.index, count=self.node.worker_count, base="", site_file="", files={}))
        )
        try:
            await _Worker(pipe, bootstrap.assemble_worker).run()
        except StoreError as error:
            self.process.world.note(f"could not start: {error}")
        self.process.kill()

    def opened(self, role: Role) -> SimulatedStore:
        """A sweep opens one of its own, and closes it."""
        if role == "worker":
            return self.store
        return SimulatedStore(self.node.cluster.database, self.process, role, self.node.name)

    def tell(self, message: object) -> None:
        """What main says: it comes a little later."""
        world = self.process.world
        world.after(
            world.random.expovariate(1 / _LATENCY_SECONDS),
            lambda: self.process.loop.call_soon(self._lines.put_nowait, _encode(message)),
        )

    def say(self, message: object) -> None:
        cluster, main = self.node.cluster, self.node.main
        world = cluster.world
        if main is not None and isinstance(message, hints.Outcomes) and world.random.random() >= cluster.hints_lost:
            world.after(
                world.random.expovariate(1 / _LATENCY_SECONDS), lambda: main.process.loop.call_soon(main.hear, message)
            )
        elif main is not None and isinstance(message, hints.PutCauses):
            world.after(
                world.random.expovariate(1 / _LATENCY_SECONDS), lambda: main.process.spawn(main.put(self, message))
            )

    async def line(self) -> bytes:
        return await self._lines.get()


_OF_PROCESS: dict[Process, WorkerProcess] = {}


class _Pipe:
    def __init__(self, owner: WorkerProcess) -> None:
        self.send = owner.say
        self.line = owner.line

    async def drain(self) -> None:
        """What is said is said."""


class _Worker(worker.Worker):
    def _load(self, _message: hints.Configure) -> Configuration:
        return installed.configuration()


class _Time:
    """Stands for the module `time` where the engine asks for the time that passes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return 1000.0 + self._world.now

    perf_counter = monotonic

    def time_ns(self) -> int:
        return int((BEGIN.timestamp() + self._world.now) * 1e9)


class _System:
    """Stands for the module `os` where a worker ends itself."""

    EX_CONFIG, EX_UNAVAILABLE = os.EX_CONFIG, os.EX_UNAVAILABLE

    def __init__(self, world: World) -> None:
        self._world = world

    def _exit(self, _status: int) -> NoReturn:
        process = self._world.current
        assert process is not None
        process.kill()
        raise Gone


@contextmanager
def simulated_surroundings(world: World, cluster: Cluster) -> Iterator[None]:
    """Give the composition root the simulated world to wire the services to, and write its log into the trace."""

    def here() -> WorkerProcess:
        assert world.current is not None
        return _OF_PROCESS[world.current]

    def routes(configuration: Configuration, _copies: Copies) -> dict[str, Route]:
        process = here().process
        return {
            name: Route(
                SimulatedConnector(process, cluster.destinations[name], settings.timeout_seconds),  # type: ignore[arg-type]
                settings,
                rules=installed.rules(name) if world.rules else (),
            )
            for name, settings in configuration.site.destinations.items()
        }

    def leases(_location: Any, index: int, count: int, destinations: Sequence[str] = ()) -> Any:
        own = here()
        held = simulated_leases(cluster.database, own.store, own.process, index, count)
        held.wanted_destinations(tuple(destinations))
        return held

    def clock() -> Clock:
        assert world.current is not None
        return world.current.machine

    def log(_logger: Any, level: str, event: dict[str, Any]) -> Any:
        error = event.pop("exc_info", None)
        more = " ".join(f"{name}={value}" for name, value in event.items() if name not in {"event", "module"})
        text = f" ({type(error).__name__}: {error})" if isinstance(error, BaseException) else ""
        world.note(f"[{level}] {event['event']} {more}{text}")
        if isinstance(error, Exception) and not isinstance(error, HandoffError | OSError):
            world.unexpected(error, event["event"])
        raise structlog.DropEvent

    configured = structlog.get_config() if structlog.is_configured() else None
    time = _Time(world)
    _OF_PROCESS.clear()
    with ExitStack() as stack:
        for module, name, stand_in in (
            (bootstrap, "open_store", lambda _configuration, role: here().opened(role)),
            (bootstrap, "compile_site", lambda _configuration, _keys: installed.compiled(cluster.database.disk)),
            (bootstrap, "site_clock", lambda _file: clock()),
            (bootstrap, "_routes", routes),
            (bootstrap, "gc", mock.Mock()),  # a process of its own may freeze what it has loaded
            (worker, "REPORT_SECONDS", 20.0),
            (worker, "os", _System(world)),
            (worker, "logs", mock.Mock()),
            (processor, "time", time),
            (intake, "time", time),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        stack.enter_context(mock.patch("engine.store.leases.file_leases", leases))
        stack.enter_context(mock.patch("engine.runtime.answers.time", time))
        stack.enter_context(mock.patch("engine.store.leases.time", time))
        structlog.configure(
            processors=[log], wrapper_class=structlog.make_filtering_bound_logger(20), cache_logger_on_first_use=False
        )
        try:
            yield
        finally:
            if configured is None:  # as it was: nothing is logged (`engine.logs`), and not structlog's own way
                structlog.reset_defaults()
            else:
                structlog.configure(**configured)
            _OF_PROCESS.clear()
