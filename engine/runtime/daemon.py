"""The main process: listeners, intake, the journal's writer, the console's port and the workers' supervisors.

Start: configuration checked, store opened, listeners opened, console, worker. Stop: the same backwards, each step with
its share of the time. Reload: all or nothing; open connections stay.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from engine import logs
from engine.clock import Clock, ShiftedClock
from engine.connectors.base import DestinationSettings
from engine.domain.message import AckCode, Receipt
from engine.errors import HandoffError, Problem, SettingsError, StoreError, StoreUnavailableError
from engine.hl7v2.ack import Verdict
from engine.pipeline.changes import Change, changes, in_the_way
from engine.pipeline.trouble import Certificate, Trouble, of_backups, of_certificates, of_work, trouble
from engine.runtime import hints
from engine.runtime.answers import Lane
from engine.runtime.background import in_own_thread
from engine.runtime.certificates import certificates
from engine.runtime.hearing import Hearing
from engine.runtime.intake import Intake
from engine.runtime.listener import Listener, bind
from engine.runtime.metrics import REPEATS_TROUBLE, Metrics
from engine.runtime.notify import Systemd
from engine.runtime.priority import answer_first
from engine.runtime.resealing import Resealer
from engine.runtime.returns import Returns
from engine.runtime.services import Services
from engine.runtime.status import (
    ChannelStatus,
    Connections,
    ConsoleStatus,
    DaemonRunningError,
    LastReload,
    OpenConnection,
    ReloadResult,
    Status,
    StatusFile,
    clock_status,
    status_path,
)
from engine.runtime.supervisor import Supervisor, Workers, console_command, worker_command
from engine.settings import Channel, Configuration, loaded
from engine.store.days import prepare_days_apart
from engine.store.journal import Append
from engine.store.overview import overview
from engine.store.schema import JOURNAL
from engine.tlsfiles import console_context, load_console_certificate

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.domain.standing import Overview
    from engine.runtime.health import ConsoleServer
    from engine.snapshot import Snapshot
    from engine.store.store import Store

_log = logs.get_logger(__name__)

CONSOLE: Final = "console"
"""The name of the console's socket when systemd opens it."""
HOOKS: Final = "hooks"
"""That of the socket for calls of far ends."""
_SWITCH_SECONDS: Final = 0.0001
"""How long a thread may keep the interpreter while another waits for it. The journal's writer waits for the disk often
and each time has to get back in; Python's 5 ms would then be most of what a commit takes."""
_DISK_BYTES_MIN: Final = 64 << 20
_CLAIM_ATTEMPTS: Final = 8
_DAYS_SECONDS: Final = 3600.0
_TEND_SECONDS: Final = 2.0
_STORE_SECONDS_MAX: Final = 5.0
"""A store that takes longer for next to nothing is as good as gone."""
_LOOK_SECONDS: Final = 10.0
"""Between our own looks at what waits, while no worker looks."""
_RATE_SECONDS: Final = 300.0
_LEAVING_SECONDS_MAX: Final = 5.0
_ASK_SECONDS: Final = 0.5
_SHARE_SECONDS: Final = 0.25
_PEOPLE_SECONDS_MAX: Final = 3.0
"""For the console's process to leave; what it has in hand is in whole transactions."""
_RELOADS_WAITING_MAX: Final = 2
"""One that is under way, and one more that will read the configuration after it."""
RELOAD_SECONDS_MAX: Final = 45.0
"""For reading, checking and testing a new configuration; `handoff reload` waits longer."""
_NEEDS_RESTART: Final = ("node", "purpose", "clock", "store", "console", "hooks", "shutdown_seconds_max", "workers")


class Daemon:
    """`handoff run`, from start to stop.

    load: reads the configuration again and checks all of it, compilation included; raises SettingsError. in_force:
    called in a thread when all workers work by a new one. sockets: those that systemd opened, by channel name.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        clock: Clock,
        version: str,
        *,
        load: Callable[[], Configuration],
        in_force: Callable[[Configuration], None] = lambda _configuration: None,
        systemd: Systemd,
        sockets: Mapping[str, socket.socket],
        command: Callable[[int], Sequence[str]] = worker_command,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._clock = clock
        self._load = load
        self._in_force = in_force
        self._systemd = systemd
        self._given = dict(sockets)
        self._sockets: dict[str, socket.socket] = {}
        self._listeners: dict[str, Listener] = {}
        self._leaving: set[asyncio.Task[bool]] = set()
        self._state: Literal["starting", "running", "stopping", "stopped"] = "starting"
        self._started_at: datetime = clock.now()
        self._console: ConsoleStatus | None = None
        self._hooks: ConsoleStatus | None = None
        self._shared = _Shared()
        self._http: list[ConsoleServer] = []
        """The console's, and that of the hooks if the site has one."""
        self._file = StatusFile(status_path(configuration))
        self._watchdog: asyncio.TimerHandle | None = None
        self._services = Services(
            {
                "tend": self._tend,
                "journal-days": self._keep_days,
                "resealing": self._reseal,
                "console": self._share_console,
                "ears": self._ask_far_ends,
            },
            asyncio.Event(),
        )
        """Side by side with the listeners."""
        self._name_is_ours = True
        self._store_answers = True
        self._reloading = asyncio.Lock()
        """Held by the start too: a reload that is asked for meanwhile comes after it."""
        self._cancellable: asyncio.Task[Any] | None = None
        """The start or the reload, while it is under way: a stop need not wait for it."""
        self._cancelled = asyncio.Event()
        self._last_reload: LastReload | None = None
        self._changes: tuple[Change, ...] = ()
        """Of the reload that is under way."""
        self._reloads: set[asyncio.Task[Any]] = set()
        self._failed = False
        """It could not start."""
        self.stuck = False
        """It has stopped, but threads of it still wait for the store: only the end of the process ends them."""
        self.metrics = Metrics(version)
        self._returns = Returns()
        self._intake = Intake(
            store.journal,
            store.journal_ledger,
            store.keys,
            clock,
            self.metrics,
            outcomes=self._outcomes,
            stored=self._hint,
            return_to=self._returns.send,
        )
        self._workers = Workers(
            configuration.snapshot,
            self._hear,
            configuration.site.worker_count,
            put_causes=self._put_causes,
            command=command,
        )
        self._hearing = Hearing(store, self._put_causes, clock)
        self._show_in_metrics()
        self._looks_itself = False
        self._looked_at = 0.0
        """No worker looks at what waits: we do, more rarely."""
        self._config_loaded_at = self._started_at
        self._certificates: tuple[Certificate, ...] = ()
        self._rates = {name: _Rate() for name in configuration.channels}
        self._trouble_since: dict[str, datetime] = {}

    def _show_in_metrics(self) -> None:
        self.metrics.worker_restarts = lambda: self._workers.restarts
        self.metrics.worker_up = lambda: self._workers.up
        self.metrics.partitions = lambda: sum(one.partitions for one in self._workers.status)
        self.metrics.destinations = self._destinations
        self.metrics.queues_known = lambda: self._workers.counting or self._looks_itself
        self.metrics.status = self.status

    # --- start and stop ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises HandoffError; then `stop` is still to be called. One that comes earlier cancels it."""
        async with self._reloading:
            try:
                await self._unless_stopped(self._start())
            except HandoffError:
                self._failed = True
                raise

    async def _start(self) -> None:
        answer_first()
        sys.setswitchinterval(_SWITCH_SECONDS)
        _raise_file_limit()
        if not self._file.take():
            if self._store.location.is_sqlite:  # nothing else keeps two daemons apart
                raise StoreUnavailableError(
                    f"the store can't be used now: no lock can be made beside {self._file.path}"
                )
            _log.warning("status file can't be written, commands will not find the daemon", path=self._file.path)
        await self._claim_name()
        await self._prepare_days()
        unsent = await self._store.journal_ledger.write(self._store.journal.mark_startup_unsent)
        if unsent:
            _log.info("answers of the last run were not sent", count=unsent)
        self._intake.start()
        for channel in self._configuration.channels.values():
            self._listeners[channel.name] = await self._open(channel)
        for listener in self._listeners.values():
            await listener.serve()
        await self._open_console()
        await self._open_hooks()
        for name in self._given:
            _log.warning("socket from the service manager is no channel's", channel=name)
        self._workers.start()
        self._serve_people()
        self._certificates = await asyncio.to_thread(certificates, self._configuration)
        self._state = "running"
        self._file.write(self.status())
        self._systemd.ready(f"{len(self._listeners)} channel(s)")
        self._pat_watchdog()
        self._services.start()
        if isinstance(self._clock, ShiftedClock):
            seconds = self._clock.offset.total_seconds()
            _log.warning(
                "clock is not the real one, this is a test site", path=self._clock.file, offset_seconds=seconds
            )
        _log.info(
            "daemon started",
            node=self._configuration.site.node,
            pid=os.getpid(),
            channels=len(self._listeners),
            config_version=self._configuration.snapshot.version,
        )

    async def stop(self) -> None:
        """Answer what was received, note what was answered, let the worker finish its batch. Each in its time."""
        if self._state in {"stopping", "stopped"}:
            return
        self._state = "stopping"
        self._systemd.stopping()
        if self._cancellable is not None:
            self._cancellable.cancel()
            await self._cancelled.wait()
        self._services.cancel()
        self._file.write(self.status())
        loop = asyncio.get_running_loop()
        site = self._configuration.site
        until = loop.time() + site.shutdown_seconds_max
        closing_seconds = max(1.0, site.shutdown_seconds_max * 0.1)
        drains = [listener.drain(site.drain_seconds_max) for listener in self._listeners.values()]
        clean = all(await asyncio.gather(*drains, *self._leaving))
        clean = await self._in_time(self._intake.close(), closing_seconds) and clean
        await self._returns.close(max(0.1, (until - loop.time()) / 4))
        ending = [self._workers.stop(max(1.0, until - closing_seconds - loop.time()))]
        if self._shared.people is not None:
            ending.append(self._shared.people.stop(_PEOPLE_SECONDS_MAX))
        clean = all(await asyncio.gather(*ending)) and clean
        for http in self._http:
            await http.close()
        clean = await self._in_time(in_own_thread(self._store.close, "store-closing"), closing_seconds) and clean
        own = [self._shared.socket] if self._shared.socket is not None else []
        for sock in [*self._sockets.values(), *self._given.values(), *own]:
            sock.close()
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._state = "stopped"
        self._file.remove()
        if not self._failed:  # else why it did not start is all that there is to say
            _log.info("daemon stopped", clean=clean)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it as what `stop` may cancel."""
        task = self._cancellable = asyncio.create_task(work)
        self._cancelled.clear()
        try:
            await task
        finally:
            self._cancellable = None
            self._cancelled.set()

    async def _in_time(self, step: Coroutine[Any, Any, None], seconds: float) -> bool:
        """Whether this step of stopping came to its end. A store that hangs must not keep the daemon."""
        try:
            await asyncio.wait_for(step, seconds)
        except TimeoutError:
            self.stuck = True
            _log.error("store does not answer, stopping without it", seconds=seconds)
            return False
        return True

    async def _claim_name(self) -> None:
        """Raises DaemonRunningError when another node has our name: it would take our answers for its own."""
        for _ in range(_CLAIM_ATTEMPTS):
            if await self._store.journal_ledger.write(self._store.journal.claim):
                return
            await asyncio.sleep(1.0)  # a daemon that was killed keeps its database session for a moment
        name = self._configuration.site.node
        raise DaemonRunningError(
            f"another daemon with the node name {name} runs on this store: give each its own `node`"
        )

    async def _tend(self) -> None:
        """Keep right what gets wrong by itself: our claim to our name, what we know of the store, the status file."""
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            if not self._store.location.is_sqlite:
                await self._claim_again()
            for name, counts in self.metrics.channels.items():
                self._rates.setdefault(name, _Rate()).take(counts.received.total(), asyncio.get_running_loop().time())
            await self._look()
            self._file.write(self.status())

    async def _look(self) -> None:
        """Where no worker looks at what waits, look ourselves: that nobody works is when it is to be seen."""
        loop = asyncio.get_running_loop()
        if self._workers.counting:
            self._looked_at, self._looks_itself = loop.time(), False
            return
        if loop.time() - self._looked_at < _LOOK_SECONDS:
            return
        site = self._configuration.site
        types = {name: one.type for name, one in site.destinations.items()}
        channels, now = sorted(self._configuration.channels), self._clock.now()
        try:
            look = self._store.read(lambda conn: overview(self._store, conn, channels, types, now))
            self.metrics.work = await asyncio.wait_for(look, _STORE_SECONDS_MAX)
        except (StoreError, TimeoutError) as error:
            _log.warning("queues not counted", exc_info=error)
        else:
            self._looks_itself = True
        self._looked_at = loop.time()

    async def _claim_again(self) -> None:
        try:
            claim = self._store.journal_ledger.write(self._store.journal.claim)
            ours = await asyncio.wait_for(claim, _STORE_SECONDS_MAX)
        except (StoreError, TimeoutError) as error:
            if self._store_answers:
                _log.error("store does not answer", exc_info=error)
            self._store_answers = False
            return
        self._store_answers = True
        if self._name_is_ours and not ours:
            _log.error("another node has our name now", node=self._configuration.site.node)
        self._name_is_ours = ours

    async def _keep_days(self) -> None:
        while True:
            await asyncio.sleep(_DAYS_SECONDS)
            await self._prepare_days()
            self._certificates = await asyncio.to_thread(certificates, self._configuration)

    async def _reseal(self) -> None:
        await Resealer(self._store, JOURNAL).run(asyncio.Event())  # left at any moment: a page is one transaction

    async def _prepare_days(self) -> None:
        """Keep partitions of the journal ready for the days to come. Without them all goes into the default one."""
        prepare = in_own_thread(lambda: prepare_days_apart(self._store.location, self._clock.now()), "journal-days")
        try:
            await asyncio.wait_for(prepare, _STORE_SECONDS_MAX)
        except (StoreError, TimeoutError) as error:
            _log.warning("partitions of the journal not prepared", exc_info=error)

    async def _open(self, channel: Channel) -> Listener:
        """A listener on its socket, not serving yet. Raises ListenError."""
        lane = Lane(channel, self.metrics.channel(channel.name))
        # Paths of a channel are relative to its own file.
        folder = self._configuration.path(self._configuration.channel_documents[channel.name].file).parent
        listener = Listener(channel, self._intake, lane, resolve=folder.joinpath)
        await listener.open(await self._socket(channel))
        return listener

    async def _socket(self, channel: Channel) -> socket.socket:
        """The listening socket of a channel's place. It stays open over reloads, so that no sender is refused then."""
        place = self._place(channel)
        if place not in self._sockets:
            given = self._given.pop(channel.name, None)
            listen = channel.listen
            self._sockets[place] = given or await bind(listen.host, listen.port, f"channel {channel.name}")
        return self._sockets[place]

    def _place(self, channel: Channel) -> str:
        # Port 0 is another port for each channel.
        return f"{channel.listen.host}:{channel.listen.port or channel.name}"

    async def _open_console(self) -> None:
        # Not before the listeners are open: it takes long to import.
        from engine.runtime.health import ConsoleServer, answer, create_app, is_loopback

        console = self._configuration.site.console
        sock = self._given.pop(CONSOLE, None) or await bind(console.host, console.port, "the console")
        host, port = sock.getsockname()[:2]
        tls = console_context(self._configuration)
        app = create_app(
            partial(answer, self), loopback=is_loopback(host), console=lambda: self._shared.people is not None
        )
        self._shared.server = ConsoleServer(app, tls=tls)
        self._http.append(self._shared.server)
        self._shared.socket, self._shared.tls = sock, tls
        await self._shared.server.open(sock.dup())
        self._console = ConsoleStatus(host=host, port=port, tls=tls is not None)
        _log.info("console opened", host=host, port=port)

    def _serve_people(self) -> None:
        """Have a process of its own serve whoever logs in, on a site that has accounts."""
        from engine.runtime.health import answer

        if self._configuration.site.access is None or self._shared.socket is None or self._shared.people is not None:
            return
        listening = self._shared.socket.fileno()
        self._shared.people = Supervisor(
            self._configuration.snapshot,
            self._hear_console,
            answer=partial(answer, self),
            command=console_command(listening),
            name="console",
            pass_fds=(listening,),
        )
        self._shared.people.start()

    def _hear_console(self, message: hints.ToMain) -> None:
        """When it is ready we take no more connections, and only then it begins to: nobody is answered by both."""
        if isinstance(message, hints.Ready) and self._shared.server is not None and self._shared.people is not None:
            self._shared.server.pause()
            self._shared.people.hint(awaited=True)

    async def _share_console(self) -> None:
        """While the console's own process is up it takes the connections to the console's port; else we do."""
        while True:
            server, sock, people = self._shared.server, self._shared.socket, self._shared.people
            if server is not None and sock is not None:
                theirs = people is not None and people.up
                if theirs and server.is_open:
                    server.pause()
                elif not theirs and not server.is_open:
                    await server.open(sock.dup())
            await asyncio.sleep(_SHARE_SECONDS)

    async def _ask_far_ends(self) -> None:
        """Ask those far ends for their words that can't call us."""
        from engine.connectors.registry import destination_settings

        while True:
            found = 0
            for name in self._configuration.site.destinations:
                ear = destination_settings(name, self._configuration).ear(name, self._configuration)
                try:
                    found += 0 if ear is None else await self._hearing.ask(name, ear)
                except HandoffError as error:
                    _log.warning("a far end could not be asked for its words", destination=name, exc_info=error)
            if not found:
                await asyncio.sleep(_ASK_SECONDS)

    async def _open_hooks(self) -> None:
        from engine.connectors.registry import destination_settings
        from engine.runtime.health import ConsoleServer
        from engine.runtime.hooks import CONNECTIONS_MAX, create_hooks

        hooks = self._configuration.site.hooks
        if hooks is None:
            return
        sock = self._given.pop(HOOKS, None) or await bind(hooks.host, hooks.port, "the hooks")
        host, port = sock.getsockname()[:2]

        def find(name: str) -> DestinationSettings | None:
            known = name in self._configuration.site.destinations
            return destination_settings(name, self._configuration) if known else None

        def public_url() -> str | None:
            now = self._configuration.site.hooks
            return now.public_url if now is not None else None

        app = create_hooks(find, self._hearing, self.metrics.count_hook, public_url)
        self._http.append(ConsoleServer(app, connections_max=CONNECTIONS_MAX))
        await self._http[-1].open(sock)
        self._hooks = ConsoleStatus(host=host, port=port)
        _log.info("hooks opened", host=host, port=port)

    def _pat_watchdog(self) -> None:
        if self._systemd.watchdog_seconds is not None:
            self._systemd.alive()
            loop = asyncio.get_running_loop()
            self._watchdog = loop.call_later(self._systemd.watchdog_seconds, self._pat_watchdog)

    # --- reload ------------------------------------------------------------------------------------------------------

    def reload_soon(self) -> None:
        """SIGHUP."""
        if len(self._reloads) < _RELOADS_WAITING_MAX:
            task = asyncio.create_task(self.try_reload(allow_remove=False))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def try_reload(self, *, allow_remove: bool = True, who: str = "a signal") -> ReloadResult:
        """Load the configuration again, all or nothing. Never raises for what is wrong with it.

        allow_remove: also when that takes away a channel with connections, or a destination with deliveries. who: asks
        for it, for the record.
        """
        async with self._reloading:
            self._changes = ()
            result = await self._try_reload(allow_remove=allow_remove, who=who)
            if self._running:
                number = self._last_reload.number + 1 if self._last_reload is not None else 1
                now = self._clock.now()
                self._last_reload = LastReload(
                    number=number, ok=result.ok, problems=result.problems, changes=result.changes or (), at=now
                )
                if result.ok:
                    self._config_loaded_at = now
                    self._certificates = await asyncio.to_thread(certificates, self._configuration)
                self._file.write(self.status())
                self._systemd.ready(f"{len(self._listeners)} channel(s)")
        return result

    async def _try_reload(self, *, allow_remove: bool, who: str) -> ReloadResult:
        stopping = ReloadResult(ok=False, problems=("the daemon is stopping",))
        if not self._running:
            return stopping
        self._systemd.reloading()
        try:
            await self._unless_stopped(self._reload(allow_remove=allow_remove, who=who))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return stopping
        except HandoffError as error:
            problems = error.problems if isinstance(error, SettingsError) else ()
            for problem in problems:
                _log.error("configuration refused, the old one stays", exc_info=SettingsError((problem,)))
            if not problems:
                _log.error("configuration refused, the old one stays", exc_info=error)
            return ReloadResult(ok=False, problems=tuple(map(str, problems)) or (str(error),), changes=self._changes)
        version = self._configuration.snapshot.version
        _log.info("configuration loaded", config_version=version, channels=len(self._listeners))
        return ReloadResult(ok=True, config_version=version, changes=self._changes)

    async def _reload(self, *, allow_remove: bool, who: str) -> None:
        try:  # in a thread that nobody waits for: a file may lie on a server that does not answer
            new = await asyncio.wait_for(in_own_thread(self._load, "reload"), RELOAD_SECONDS_MAX)
        except TimeoutError:
            raise SettingsError(
                (Problem(self._configuration.snapshot.site_file, 1, 1, "", "reading and checking it takes too long"),)
            ) from None
        self._check_unchanged(new)
        await self._weigh(new, allow_remove=allow_remove)
        new = loaded(new, who=who, by="reload", at=self._clock.now())
        old_configuration, self._configuration = self._configuration, new  # paths are made absolute by it
        opened: dict[str, Listener] = {}
        kept: list[Listener] = []
        gone = [name for name in self._listeners if name not in new.channels]
        try:
            for channel in new.channels.values():
                listener = self._listeners.get(channel.name)
                if listener is not None and listener.serves_like(channel):
                    listener.check(channel)
                    kept.append(listener)
                else:
                    opened[channel.name] = await self._open(channel)
            # The worker forgets a channel only after its last message has come, and knows one before its first comes.
            await asyncio.gather(*(self._listeners[name].drain(_LEAVING_SECONDS_MAX) for name in gone))
            await self._reload_worker(new, old_configuration.snapshot)
        except BaseException:
            self._configuration = old_configuration
            for listener in opened.values():
                listener.stop_accepting()
            if self._running:
                for name in gone:
                    self._listeners[name] = await self._open(old_configuration.channels[name])
                    await self._listeners[name].serve()
                self._close_unused_sockets()
            raise
        for name in [*gone, *(name for name in opened if name in self._listeners)]:
            self._leave(self._listeners.pop(name))
        for listener in kept:
            listener.reconfigure(new.channels[listener.channel.name])
        self._listeners.update(opened)
        for listener in opened.values():
            await listener.serve()
        self._close_unused_sockets()
        logs.configure(new.site.log_level, new.site.log_format)
        await self._take_access(new)
        await asyncio.to_thread(self._in_force, new)

    async def _weigh(self, new: Configuration, *, allow_remove: bool) -> None:
        """Find out what it changes. Raises SettingsError when that takes away what is in use, and nobody said so."""
        gone = set(self._configuration.site.destinations) - set(new.site.destinations)
        waiting: dict[str, int] = {}
        if gone and not allow_remove:
            try:
                outbox = await asyncio.wait_for(self._store.read(self._store.outbox.unfinished), _STORE_SECONDS_MAX)
            except (StoreError, TimeoutError):
                text = f"what waits for {', '.join(sorted(gone))} can't be counted now: the store does not answer"
                raise SettingsError((Problem(new.snapshot.site_file, 1, 1, "", text),)) from None
            waiting = {name: sum(outbox.get(name, {}).values()) for name in gone}
        open_now = {name: len(listener.connections) for name, listener in self._listeners.items()}
        self._changes = changes(self._configuration, new, connections=open_now, waiting=waiting)
        if (why := in_the_way(self._changes)) is not None and not allow_remove:
            text = f"{why}; `handoff reload --allow-remove` does it all the same"
            raise SettingsError((Problem(new.snapshot.site_file, 1, 1, "", text),))

    async def _reload_worker(self, new: Configuration, old: Snapshot) -> None:
        if (
            self._shared.people is not None
            and new.site.access is not None
            and not await self._shared.people.reload(new.snapshot)
        ):
            text = "the console's process can't work by it: see its log"
            raise SettingsError((Problem(new.snapshot.site_file, 1, 1, "", text),))
        if not await self._workers.reload(new.snapshot):
            if self._shared.people is not None:
                await self._shared.people.reload(old)
            raise SettingsError(
                (Problem(new.snapshot.site_file, 1, 1, "", "the worker can't work by it: see its log"),)
            )

    async def _take_access(self, new: Configuration) -> None:
        """Begin to serve people, or cease to, as the configuration says; take a renewed certificate."""
        if self._shared.tls is not None:
            load_console_certificate(self._shared.tls, new)
        if new.site.access is None and self._shared.people is not None:
            people, self._shared.people = self._shared.people, None
            await people.stop(_PEOPLE_SECONDS_MAX)
        self._serve_people()

    def _leave(self, listener: Listener) -> None:
        """Its connections go as they become idle; the reload does not wait for them."""
        task = asyncio.create_task(listener.drain(_LEAVING_SECONDS_MAX))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _check_unchanged(self, new: Configuration) -> None:
        """Some settings are for the life of a process."""
        document = new.snapshot.document(new.snapshot.site_file)
        problems = [
            document.problem((key,), "can't be changed by a reload: restart the daemon")
            for key in _NEEDS_RESTART
            if getattr(new.site, key) != getattr(self._configuration.site, key)
        ]
        if problems:
            raise SettingsError(tuple(problems))

    def _close_unused_sockets(self) -> None:
        used = {self._place(channel) for channel in self._configuration.channels.values()}
        for place in [place for place in self._sockets if place not in used]:
            self._sockets.pop(place).close()

    @property
    def _running(self) -> bool:
        return self._state == "running"

    # --- standing ----------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        unready = self._unready()
        now = self._clock.now()
        channels = self.metrics.channels
        status = Status(
            node=self._configuration.site.node,
            state=self._state,
            pid=os.getpid(),
            channels=tuple(
                ChannelStatus(
                    name=name,
                    mode=listener.channel.mode,
                    host=listener.host,
                    port=listener.port,
                    connections=len(listener.connections),
                    per_minute=self._rates[name].per_minute if name in self._rates else None,
                )
                for name, listener in self._listeners.items()
            ),
            console=self._console_status(),
            hooks=self._hooks,
            workers=self._workers.status,
            ready=self._running and not unready,
            purpose=self._configuration.site.purpose,
            clock=clock_status(self._clock, self.metrics.latest_seconds()),
            unanswered_bytes=sum(counts.inflight_bytes() for counts in channels.values()),
            certificates=self._certificates,
            disk_free_bytes=self._disk_free(),
            config_version=self._configuration.snapshot.version,
            sealing_key=self._store.keys.active,
            config_loaded_at=self._config_loaded_at,
            started_at=self._started_at,
            last_reload=self._last_reload,
            senders=tuple(self.metrics.skews.all()),
        )
        work = self.metrics.work if self.metrics.queues_known() else None
        if work is not None:
            status = status.with_work(work)
        return status.with_troubles(self._dated(self._troubles(unready, work, now), now))

    def _console_status(self) -> ConsoleStatus | None:
        if self._console is None or self._shared.people is None:
            return self._console
        people = self._shared.people
        return msgspec.structs.replace(self._console, pid=people.pid if people.up else None, restarts=people.restarts)

    def connections(self) -> Connections:
        refused = [one for counts in self.metrics.channels.values() for one in counts.refusals.listed()]
        return Connections(
            channels=tuple(self._listeners),
            open=tuple(
                OpenConnection(channel=name, peer=connection.peer)
                for name, listener in self._listeners.items()
                for connection in listener.connections
            ),
            refused=tuple(sorted(refused, key=lambda one: one.last_at, reverse=True)),
        )

    def _own_trouble(self) -> tuple[str, ...]:
        down = self._shared.people is not None and self._shared.people.trouble is not None
        return (("service-failing",) if self._services.failing() else ()) + (("console-down",) if down else ())

    def _troubles(self, unready: Sequence[str], work: Overview | None, now: datetime) -> Iterator[Trouble]:
        yield from map(trouble, unready)
        if self._running:
            yield from map(trouble, dict.fromkeys((*self._workers.trouble, *self._own_trouble(), *self._repeating())))
        if self._last_reload is not None and not self._last_reload.ok:
            yield trouble("reload-refused", self._last_reload.at)
        yield from of_certificates(self._certificates, datetime.now(UTC))  # as those see it who check them
        if work is not None:
            yield from of_work(work, now)
            backup = self._configuration.site.backup
            yield from of_backups(None if backup is None else backup.hours_max, work, now)

    def _dated(self, found: Iterable[Trouble], now: datetime) -> list[Trouble]:
        """What does not know itself since when it is there has been since we first saw it."""
        listed = list(found)
        self._trouble_since = {one.code: self._trouble_since.get(one.code, now) for one in listed}
        return [
            one if one.since is not None else msgspec.structs.replace(one, since=self._trouble_since[one.code])
            for one in listed
        ]

    def _unready(self) -> tuple[str, ...]:
        """Why no message should come here now: it could not be stored, or not as this node's."""
        trouble: list[str] = []
        if not self.metrics.store_writable or not self._store_answers:
            trouble.append("store-not-writable")
        if self._disk_is_full():
            trouble.append("disk-almost-full")
        if not self._name_is_ours:
            trouble.append("node-name-taken")
        return tuple(trouble)

    def _repeating(self) -> tuple[str, ...]:
        """Channels on which a sender sends the same message again and again."""
        now = time.monotonic()
        counts = self.metrics.channels
        return tuple(
            f"message-repeated:{name}" for name in self._listeners if counts[name].repeats.most(now) >= REPEATS_TROUBLE
        )

    def _destinations(self) -> dict[str, bool]:
        ours = {name for worker in self._workers.status for name in worker.destinations}
        return {name: name in ours for name in self._configuration.site.destinations}

    def _disk_is_full(self) -> bool:
        return self._store.location.journal_file is not None and (self._disk_free() or 0) < _DISK_BYTES_MIN

    def _disk_free(self) -> int | None:
        """Bytes on the disk of the store; none: it is not on one of ours, or can't be looked at."""
        file = self._store.location.journal_file
        if file is None:
            return None
        try:
            return shutil.disk_usage(file.parent).free
        except OSError:
            return None

    # --- the worker --------------------------------------------------------------------------------------------------

    def _hint(self, awaited: bool) -> None:  # noqa: FBT001 - as intake says it
        self._workers.hint(awaited=awaited)

    def look(self) -> None:
        self._workers.hint(awaited=True)

    def _hear(self, message: hints.ToMain) -> None:
        if isinstance(message, hints.Outcomes):
            self._intake.late.have_outcomes(message.accepted, message.failed)
        elif isinstance(message, hints.Report):
            self.metrics.hear(message)

    async def _put_causes(self, receipts: Sequence[Receipt]) -> list[int]:
        """Those of one request share a transaction with what senders have sent meanwhile. Raises StoreError."""
        append = Append(receipts=tuple(receipts))
        stored = await self._store.journal_ledger.add(self._store.journal.append_each, append)
        self._workers.hint(awaited=True)
        return [one.id or one.duplicate_of or 0 for one in stored]

    async def _outcomes(self, entries: Sequence[int]) -> Mapping[int, Verdict]:
        """What senders who wait for the outcome are told; of failures their code and place, never a value."""

        def read(conn: Connection) -> dict[int, Verdict]:
            found: dict[int, Verdict] = {}
            for entry, (code, error_code) in self._store.recorder.answers(conn, entries).items():
                letters = [] if code is AckCode.AA else self._store.dead_letters.of_entry(conn, entry)
                found[entry] = Verdict(
                    code=code,
                    hl7_code=error_code,
                    error=letters[0].error if letters else "",
                    location=letters[0].location if letters else None,
                    text=letters[0].detail if letters else "",
                )
            return found

        return await self._store.read(read)


@dataclass
class _Shared:
    """The console's port, which two processes serve in turn (docs/decisions/0041)."""

    server: ConsoleServer | None = None
    """Ours."""
    socket: socket.socket | None = None
    tls: ssl.SSLContext | None = None
    people: Supervisor | None = None
    """The process that serves who logs in; none: the site has no accounts."""


class _Rate:
    """Messages a minute, over the last minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def take(self, total: int, now: float) -> None:
        """total: since the start. now: of the loop's clock."""
        self._samples.append((now, total))
        while now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()

    @property
    def per_minute(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return round((last - first) * 60 / (ended - began), 1) if ended > began else None


def _raise_file_limit() -> None:
    """Each connection needs a descriptor; the soft limit (often 1,024) is only there for old programs."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return
