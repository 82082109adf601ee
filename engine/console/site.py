"""A site as its console has it open: store, roles and limits, for whoever comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from engine.clock import site_clock
from engine.desk.accounts import Accounts
from engine.desk.desk import Desk
from engine.desk.gate import access_of, limits_of, of_actor, policy_of
from engine.desk.looking import at
from engine.errors import SettingsError
from engine.store.opening import open_store

if TYPE_CHECKING:
    from engine.access.actions import Action
    from engine.access.roles import Policy
    from engine.domain.actor import Actor
    from engine.domain.audit import Whence
    from engine.runtime import hints
    from engine.settings import Configuration

T = TypeVar("T")

_THREADS: Final = 16
"""Requests worked on at once; others wait. An act keeps its thread until the worker has decided it."""
_HASHING_THREADS: Final = 2
"""Passwords looked at at once: each takes 64 MiB (Argon2id)."""
BY: Final = "console"


class Daemon(Protocol):
    """The way to the daemon."""

    async def ask(self, ask: hints.Ask) -> hints.Told: ...

    def hear(self, told: hints.Told) -> None: ...

    def look(self) -> None: ...


class ConsoleSite:
    """Raises SettingsError or StoreError."""

    def __init__(self, configuration: Configuration, line: Daemon) -> None:
        self.line = line
        self._take(configuration)
        self.store = open_store(configuration, "tool")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        self._hashing = ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="console-log-in")

    def take(self, configuration: Configuration) -> None:
        """Go on by another configuration. Raises SettingsError or StoreError; then the old one stays."""
        self._take(configuration)
        self.store.keys.reload()

    def _take(self, configuration: Configuration) -> None:
        outline, snapshot = configuration.outline, configuration.snapshot
        access = access_of(outline, snapshot.files[snapshot.site_file])
        if access is None:
            raise SettingsError((configuration.site_document.problem((), "has no `access`: nobody can log in"),))
        self.policy: Policy = policy_of(access, snapshot)
        self.configuration, self.limits = configuration, limits_of(access)
        provider = str(access.get("provider", "local"))
        self.by_password, self.by_sign_on = provider != "oidc", "oidc" in provider
        self.clock = site_clock(configuration.clock_file)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._hashing.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    async def run(self, work: Callable[[], T], *, hashing: bool = False) -> T:
        """In a thread. hashing: a password is looked at."""
        threads = self._hashing if hashing else self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def accounts(self, whence: Whence) -> Accounts:
        return Accounts(self.store, BY, self.clock.now(), limits=self.limits, whence=whence)

    @contextmanager
    def desk(self, actor: Actor, action: Action, whence: Whence) -> Iterator[Desk]:
        """Somebody has come in and sits down for one request. Raises DeniedError, which is on record."""
        configuration = self.configuration
        desk = Desk(
            self.store,
            configuration.outline,
            lambda: configuration,
            actor,
            gate=of_actor(self.policy, actor, self.store, self.clock.now()),
            action=action,
            whence=whence,
            name=whence.command or "",
            ring=self.line.look,
        )
        with at(desk):
            yield desk
