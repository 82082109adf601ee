"""The composition root: the only place where the rooms are wired together."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

from engine import __version__, logs
from engine.clock import site_clock
from engine.connectors.registry import build_connectors, check_files, destination_settings, load
from engine.domain.audit import AuditRecord
from engine.environment import hold
from engine.errors import HandoffError, Problem, SettingsError, StoreError, StoreUnavailableError
from engine.files import writable_by_others
from engine.pipeline.channel import CompiledConfiguration, Key
from engine.pipeline.compiling import (
    beyond_the_standard,
    compile_configuration,
    left_out,
    never_equal,
    terms_of,
    unfilled,
)
from engine.pipeline.doubts import doubts, log_ins_in_clear
from engine.pipeline.unworkable import contradictions, never_happens
from engine.runtime import hints
from engine.runtime.configurations import compile_site, hasher, recorded_configuration, with_former
from engine.runtime.memory import protect_memory
from engine.runtime.sockets import user_name
from engine.runtime.worker import Assembly, WorkerContext
from engine.settings import Configuration, loaded
from engine.snapshot import References, Snapshot
from engine.store.keys import KeyRing
from engine.store.opening import key_file, open_keys, open_store, store_location
from engine.tlsfiles import exposed_key, tls_problems
from engine.trial.cases import run_tests

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.access.copies import Copies
    from engine.clock import Clock
    from engine.connectors.checkpoints import Place
    from engine.domain.standing import Overview
    from engine.privacy.rules import PrivacyRules
    from engine.runtime.courier import Route
    from engine.runtime.glasswatch import GlassWatch
    from engine.runtime.oversight import AccessWatch
    from engine.runtime.resealing import Resealer
    from engine.runtime.status import Status
    from engine.runtime.sweeper import Sweeper
    from engine.store.engines import Location
    from engine.store.leases import Leases
    from engine.store.store import Store

T = TypeVar("T")

_log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Examined:
    """A configuration in which nothing is wrong, ready to be worked by."""

    configuration: Configuration
    compiled: CompiledConfiguration
    warnings: tuple[Problem, ...]
    failures: tuple[Problem, ...]
    """Of the tests beside the files, and secrets that stand in them. `check` and a reload refuse these; a start says
    so and goes on: a hospital's feed does not stand still after a power cut because of an expectation."""


def examine(
    path: Path, keys: KeyRing | None = None, *, references: References = "required", tests: bool = True
) -> Examined:
    """All that can be said of a configuration without its store and without the network.

    The one examination of `check`, `run` and `reload`. keys: none: ids are made without them (they are only compared).
    tests: run those beside the files. Raises SettingsError with everything that keeps a daemon from working by it; what
    only keeps a destination from working is in `side_problems`.
    """
    configuration = load(Snapshot.read(path), references=references)
    problems: list[Problem] = []

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except SettingsError as error:
            problems.extend(error.problems)
            return None

    key: Key = hasher(keys) if keys is not None else lambda *parts: "/".join(parts)
    compiled = attempt(lambda: compile_configuration(configuration, key))
    attempt(lambda: build_connectors(configuration, clock=site_clock(configuration.clock_file)))
    attempt(lambda: store_location(configuration))
    attempt(lambda: check_listen_tls(configuration))
    problems += log_ins_in_clear(configuration.site_document, configuration.site)
    if problems or compiled is None:
        raise SettingsError(tuple(dict.fromkeys(problems)))
    warnings = [
        *doubts(configuration),
        *never_equal(compiled),
        *left_out(compiled),
        *never_happens(compiled),
        *unfilled(compiled),
    ]
    failures = configuration.exposed
    if tests:
        report = run_tests(compiled, configuration.snapshot)
        failures += tuple(report.failures)
        warnings += report.skipped
    return Examined(configuration, compiled, tuple(warnings), failures)


def check_listen_tls(configuration: Configuration) -> None:
    """Raises SettingsError when a certificate, key or client_ca of a channel or the console can't be used."""
    problems: list[Problem] = []
    if (own := configuration.site.console.tls) is not None:
        where = ("console", "tls")
        problems += tls_problems(configuration.site_document, where, own, configuration.snapshot.base)
    for name, channel in configuration.channels.items():
        if (tls := channel.listen.tls) is not None:
            document = configuration.channel_documents[name]
            folder = configuration.path(document.file).parent
            problems += tls_problems(document, ("listen", "tls"), tls, folder)
    if problems:
        raise SettingsError(tuple(problems))


def side_problems(examined: Examined) -> tuple[Problem, ...]:
    """What `handoff check` refuses and a daemon goes on with, because stopping would harm more.

    Paths beyond the segments of the standard: a sender may have made its own fields there. Tasks of protocols that
    nobody can get.
    What a destination needs for TLS and can't be used, what lies in its folder and is not its own: its deliveries
    wait. A TLS key that others may read.
    """
    configuration = examined.configuration
    problems: list[Problem] = [*beyond_the_standard(examined.compiled), *contradictions(examined.compiled)]
    problems += check_files(configuration)
    problems += _exposed_keys(configuration)
    if (own := configuration.site.console.tls) is not None:
        problems += exposed_key(configuration.site_document, ("console", "tls"), own, configuration.snapshot.base)
    for name, channel in configuration.channels.items():
        if channel.listen.tls is not None:
            document = configuration.channel_documents[name]
            folder = configuration.path(document.file).parent
            problems += exposed_key(document, ("listen", "tls"), channel.listen.tls, folder)
    return tuple(dict.fromkeys(problems))


def _exposed_keys(configuration: Configuration) -> Iterator[Problem]:
    """Folders above that of the keys in which everybody may put another one. (Its own folder keeps it from opening.)"""
    path = key_file(configuration)
    for folder in path.resolve().parent.parents if path is not None else ():
        if writable_by_others(folder):
            text = f"everybody may change what lies below {folder}, and so put other keys here: run chmod o-w on it"
            yield configuration.site_document.problem(("store", "keys"), text)


async def assemble_worker(configuration: Configuration, context: WorkerContext) -> Assembly:
    """The worker's services over the store."""
    from engine.runtime.courier import Courier
    from engine.runtime.duty import DutyWatch
    from engine.runtime.processor import Processor
    from engine.runtime.receipts import Receipts
    from engine.runtime.scheduler import Scheduler
    from engine.runtime.trailwatch import TrailWatch
    from engine.store.overview import overview

    clock = site_clock(configuration.clock_file)
    store = open_store(configuration, "worker")
    destinations = configuration.site.destinations
    leases = _leases(store, configuration, context)
    compiled = with_former(compile_site(configuration, store.keys), store)
    await _remember(store, configuration, clock.now(), context.index)
    current = configuration

    processor = Processor(
        store,
        compiled,
        clock,
        leases,
        shadow=lambda: open_shadow(current, clock.now()),
        recompile=lambda version: recorded_configuration(store, configuration.snapshot.base, version),
        on_outcomes=context.have_outcomes,
        tally=context.tally,
    )
    receipts, duty = Receipts(store, context.put_causes, clock), DutyWatch(store.keys, compiled.rules.rosters)
    courier = Courier(
        store.outbox,
        store.charts_ledger,
        store.reader,
        _routes(configuration, compiled.copies),
        clock=clock,
        leases=leases,
        count=receipts.counting(context.tally),
    )

    scheduler = Scheduler(store, clock, leases, context.put_causes)
    access = _access_watch(store, compiled)
    watch = TrailWatch(store, *_watching(configuration), clock, time.monotonic, ours=not context.index)
    resealer = _resealer(store, leases, lambda: open_shadow(current, clock.now()) if current.has_shadow else None)
    await _say_orphans(store, context.index, destinations)

    async def reload(new: Configuration) -> None:
        nonlocal current
        compiled, routes = _ready(new, store)
        store.keys.reload()
        await _remember(store, new, clock.now(), context.index)
        # From here on nothing can go wrong: it is taken as a whole or not at all.
        leases.wanted_destinations(new.site.destinations)
        current = new
        courier.reload(routes)
        processor.reload(compiled)
        duty.rosters = compiled.rules.rosters
        watch.places, watch.rows, watch.seconds = _watching(new)
        access.take(*_watching_access(compiled))
        settle_memory()
        await _say_orphans(store, context.index, new.site.destinations)

    async def look() -> Overview | None:
        if context.index:
            return None
        site = current.site
        types = {name: one.type for name, one in site.destinations.items()}
        now = clock.now()
        return await store.read(
            lambda conn: access.seen(
                conn, watch.seen(duty.seen(conn, overview(store, conn, sorted(current.channels), types, now)))
            )
        )

    def changed() -> None:
        context.work.ring()
        context.outbox.ring()

    async def close() -> None:
        await asyncio.to_thread(leases.leave)
        await asyncio.to_thread(processor.close)
        await asyncio.to_thread(store.close)

    settle_memory()
    return Assembly(
        services={
            "processor": lambda: processor.run(context.work, context.outbox, context.stopping),
            "courier": lambda: courier.serve(context.outbox, context.stopping),
            "scheduler": lambda: scheduler.run(context.stopping),
            "receipts": lambda: receipts.run(context.stopping),
            "resealing": lambda: resealer.run(context.stopping),
            "trail": lambda: watch.run(context.stopping),
            "glasses": partial(_glass_watch(store, clock, lambda: current, context).run, context.stopping),
            "sweeper": partial(_sweeper(leases, lambda: current, clock).run, context.stopping),
            "leases": lambda: leases.run(context.stopping, changed),
        },
        reload=reload,
        overview=look,
        close=close,
        leased=lambda: hints.Leased(partitions=len(leases.partitions), destinations=leases.destinations),
    )


def _leases(store: Store, configuration: Configuration, context: WorkerContext) -> Leases:
    from engine.store.leases import database_leases, file_leases

    destinations = configuration.site.destinations
    if store.location.is_sqlite:
        return file_leases(store.location, context.index, context.count, destinations)
    name = f"{configuration.site.node}/{context.index}/{secrets.token_hex(4)}"
    return database_leases(store.location, store.charts_ledger, name, destinations)


def _access_watch(store: Store, compiled: CompiledConfiguration) -> AccessWatch:
    from engine.runtime.oversight import AccessWatch

    return AccessWatch(store, *_watching_access(compiled))


def _watching_access(compiled: CompiledConfiguration) -> tuple[PrivacyRules, tzinfo, timedelta]:
    """The rules, the site's zone, and how long a relation holds after what it followed from."""
    site = compiled.site
    days = site.access.grace_days if site.access is not None else 7.0
    return compiled.rules.privacy, ZoneInfo(site.calendar.timezone), timedelta(days=days)


def _watching(configuration: Configuration) -> tuple[tuple[Place, ...], int, float]:
    """Where checkpoints of the trail go, and after how many records or seconds."""
    from engine.connectors.checkpoints import places_of

    trail = configuration.site.trail
    places = tuple(places_of(configuration))
    return places, trail.checkpoint_rows, trail.checkpoint_seconds


def _resealer(store: Store, leases: Leases, shadow: Callable[[], Store | None]) -> Resealer:
    from engine.runtime.resealing import Resealer
    from engine.store.schema import CHARTS

    return Resealer(store, CHARTS, ours=lambda: 0 in leases.partitions, beside=shadow)  # one worker of all nodes


def _sweeper(leases: Leases, current: Callable[[], Configuration], clock: Clock) -> Sweeper:
    from engine.runtime.sweeper import Sweeper

    return Sweeper(
        lambda: open_store(current(), "tool"),
        lambda: current().site.retention.policy if current().site.retention.automatic else None,
        clock,
        ours=lambda: 0 in leases.partitions,
    )


async def _say_orphans(store: Store, index: int, configured: Collection[str]) -> None:
    """index: of the worker; the first one of a node says it."""
    if index == 0:
        for name, count in (await store.read(lambda conn: store.destinations.orphans(conn, configured))).items():
            _log.warning("deliveries wait for a destination that is not configured", destination=name, count=count)


_COLLECT_AT: Final = (50_000, 10, 10)
"""A batch in hand is some 50,000 objects, of which none is garbage. With Python's own first threshold (700) each batch
brought a collection that walks over all there is; what that put out of the processor's caches cost a tenth of the work.
"""


def settle_memory() -> None:
    """What is loaded by now stays: garbage collections that walk over it again and again cost a tenth of the work."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AT)


def _glass_watch(
    store: Store, clock: Clock, current: Callable[[], Configuration], context: WorkerContext
) -> GlassWatch:
    from engine.runtime.glasswatch import GlassWatch

    def access() -> tuple[Sequence[str], float]:
        settings = current().site.access
        return ((), 24.0) if settings is None else (settings.glass_notices, settings.glass_reminder_hours)

    return GlassWatch(store, clock, access, ours=not context.index)


def _ready(configuration: Configuration, store: Store) -> tuple[CompiledConfiguration, dict[str, Route]]:
    """Raises SettingsError."""
    compiled = with_former(compile_site(configuration, store.keys), store)
    return compiled, _routes(configuration, compiled.copies)


def _routes(configuration: Configuration, copies: Copies) -> dict[str, Route]:
    from engine.runtime.courier import Route

    connectors = build_connectors(configuration, clock=site_clock(configuration.clock_file))
    routes: dict[str, Route] = {}
    for name, connector in connectors.items():
        settings = destination_settings(name, configuration)
        made_from = (configuration.snapshot.base, *settings.made_from(configuration))
        routes[name] = Route(
            connector,
            settings,
            configuration.feeding(name),
            made_from,
            settings.admission(),
            copies,
            terms_of(name, settings),
        )
    return routes


async def _remember(store: Store, configuration: Configuration, now: datetime, index: int) -> None:
    """Keep the configuration, so that entries can be replayed under it, and who loaded it.

    index: of the worker; the first one of a node keeps its record.
    """
    snapshot, node = configuration.snapshot, configuration.site.node

    def remember(conn: Connection) -> None:
        store.configs.remember(conn, snapshot.version, snapshot.recorded, now)
        loaded = snapshot.loaded
        if loaded is not None and index == 0 and store.configs.note_load(conn, snapshot.version, node, loaded):
            action, subject = f"config-{loaded.by}", f"config:{snapshot.version}"
            store.audit.append(conn, [AuditRecord(at=loaded.at, actor=loaded.who, action=action, subject=subject)])

    await store.charts_ledger.write(remember)


def run_daemon(path: Path, *, announce: Callable[[Status], None]) -> int:
    """`handoff run`: the main process from its start to its exit code. Raises HandoffError when it can't start.

    announce: called once, when it listens.
    """
    import aiorun

    from engine.runtime import daemon as main_process
    from engine.runtime.background import tolerate_connections
    from engine.runtime.notify import Systemd, activated_sockets

    protect_memory()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a reload that is asked for now comes after the start
    systemd, sockets = Systemd(), activated_sockets()
    configuration, store = _open_site(path)

    def load_again() -> Configuration:
        examined = examine(path, store.keys)
        if examined.failures:
            raise SettingsError(examined.failures)
        _say_doubts(examined)
        if examined.configuration.has_shadow:
            make_shadow(store.location)
        hold(examined.configuration.variables)
        store.keys.reload()  # after `handoff keys rotate`, new values are sealed with the new key from here on
        return examined.configuration

    failure: list[HandoffError] = []
    # aiorun ignores a word to stop that comes before it has set its handlers up; so that waits until it is heard.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    running: list[main_process.Daemon] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tolerate_connections(loop)
        daemon = main_process.Daemon(
            configuration,
            store,
            site_clock(configuration.clock_file),
            __version__,
            load=load_again,
            in_force=drop_shadow,
            systemd=systemd,
            sockets=sockets,
        )
        running.append(daemon)
        loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        try:
            await daemon.start()
        except HandoffError as error:
            failure.append(error)
            loop.stop()
        else:
            announce(daemon.status())
            settle_memory()

    async def stop(_: asyncio.AbstractEventLoop) -> None:
        for daemon in running:
            await daemon.stop()

    try:
        aiorun.run(
            main(),
            use_uvloop=find_spec("uvloop") is not None,
            stop_on_unhandled_errors=True,
            shutdown_callback=stop,
            timeout_task_shutdown=5,
        )
    except Exception as error:  # noqa: BLE001 - an unhandled error has stopped the daemon; the service manager restarts it
        logs.get_logger(__name__).critical("daemon stopped by an unhandled error", exc_info=error)
        return os.EX_SOFTWARE
    if any(daemon.stuck for daemon in running):
        os._exit(0)  # at its end Python would wait for threads that wait for the store
    if failure:
        raise failure[0]
    return 0


def _open_site(path: Path) -> tuple[Configuration, Store]:
    """What a daemon starts with. Raises HandoffError."""
    configuration = load(Snapshot.read(path))
    logs.configure(configuration.site.log_level, configuration.site.log_format)
    keys = open_keys(configuration)
    examined = examine(path, keys)
    _say_doubts(examined)
    make_store(configuration)
    _check_shadow(configuration)
    hold(examined.configuration.variables)
    by_us = loaded(
        examined.configuration, who=user_name(os.getuid()), by="run", at=site_clock(configuration.clock_file).now()
    )
    return by_us, open_store(configuration, "main")


def _say_doubts(examined: Examined) -> None:
    for problem in (*examined.failures, *side_problems(examined), *examined.warnings):
        logs.get_logger(__name__).warning("configuration questionable", exc_info=SettingsError((problem,)))


def run_worker(fd: int, parent: int) -> int:
    """The worker process, started by the daemon: fd is its end of the socket pair, parent the daemon's pid."""
    from engine.runtime import worker

    logs.configure()
    protect_memory()
    runner = asyncio.Runner(loop_factory=loop_factory())
    with runner:
        return runner.run(worker.serve(fd, parent, assemble_worker))


def make_store(configuration: Configuration) -> None:
    """Make the store, or bring its tables to this version; also that of channels in shadow. Raises StoreError."""
    from engine.store import migrations

    location = store_location(configuration)
    migrations.upgrade(location)
    if configuration.has_shadow:
        make_shadow(location)


def make_shadow(location: Location) -> None:
    """Make the charts of channels in shadow, where they are not there. Raises StoreError."""
    from engine.store import migrations

    migrations.upgrade(location.in_shadow())


def open_shadow(configuration: Configuration, now: datetime) -> Store:
    """For a worker: the charts of channels in shadow, which remember the configuration. Raises StoreError."""
    store = open_store(configuration, "worker", shadow=True)
    snapshot = configuration.snapshot
    try:
        store.charts_ledger.write_now(
            lambda conn: store.configs.remember(conn, snapshot.version, snapshot.recorded, now)
        )
    except BaseException:
        store.close()
        raise
    return store


def drop_shadow(configuration: Configuration) -> None:
    """When all channels are live nothing is kept of those that were in shadow.

    To be called when no worker writes it any more. What can't be deleted now is deleted by the next start or reload.
    """
    from engine.store import migrations

    if configuration.keeps_shadow:
        return
    try:
        dropped = migrations.drop_shadow(store_location(configuration))
    except StoreError as error:
        _log.warning("charts of channels in shadow can't be deleted", exc_info=error)
    else:
        if dropped:
            _log.info("no channel is in shadow, their charts are deleted")


def _check_shadow(configuration: Configuration) -> None:
    """Begin anew in shadow when what is kept there was made with a later journal than this one: it was restored."""
    from engine.store import migrations
    from engine.store.store import check_same_time

    drop_shadow(configuration)
    if not configuration.has_shadow:
        return
    try:
        with open_store(configuration, "look", shadow=True) as beside:
            beside.read_now(check_same_time)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        _log.warning("charts of channels in shadow are of another time, they begin anew", exc_info=error)
        location = store_location(configuration)
        migrations.drop_shadow(location)
        make_shadow(location)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
