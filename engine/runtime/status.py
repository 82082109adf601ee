"""The status file beside the store: how commands find the running daemon, whatever ports it was given.

Written by the daemon (atomically, removed at its stop), read by `handoff status` and `handoff reload`. A lock beside it
tells a running daemon from one that was killed, and keeps a second daemon from the same store.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from engine.clock import Clock, ShiftedClock
from engine.domain.record import Record
from engine.domain.standing import Overview, Standing
from engine.errors import HandoffError, StoreUnavailableError
from engine.pipeline.changes import Change
from engine.pipeline.trouble import Certificate, Trouble, codes
from engine.runtime.refusals import Refusal
from engine.runtime.skews import SenderSkew
from engine.tls import harden

if TYPE_CHECKING:
    from engine.outline import Place

_NAME: Final = "handoff.status.json"
_ASK_SECONDS: Final = 2.0
_LOOK_ASK_SECONDS: Final = 0.5
_RELOAD_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_LOCK_ATTEMPTS: Final = 10


class DaemonRunningError(HandoffError):
    """Another daemon works on this store."""


class ChannelStatus(Record, frozen=True, kw_only=True):
    name: str
    mode: str
    host: str
    port: int
    connections: int
    waiting: int = 0
    """Entries that wait for processing."""
    oldest_waiting_at: datetime | None = None
    last_message_at: datetime | None = None
    per_minute: float | None = None
    """Messages received, on average over the last minutes; none: not known yet."""


class ConsoleStatus(Record, frozen=True, kw_only=True):
    host: str
    port: int
    tls: bool = False
    pid: int | None = None
    """Of the process that serves people; none: there is none, or it is being started again."""
    restarts: int = 0


class ClockStatus(Record, frozen=True, kw_only=True):
    """The clock that the daemon works by."""

    real: bool = True
    """False: it is that of a test site, and all times are by it."""
    offset_seconds: float = 0.0
    """It is ahead of the machine's."""
    due: int = 0
    """Patients whose deadline has come and has not rung."""
    late_seconds: float = 0.0
    """For how long the first of them was to ring; 0: there is none."""
    rung_late_seconds: float | None = None
    """How late the latest was that rang in the last 5 minutes; none: none rang."""


def clock_status(clock: Clock, rung_late_seconds: float | None = None) -> ClockStatus:
    if not isinstance(clock, ShiftedClock):
        return ClockStatus(rung_late_seconds=rung_late_seconds)
    seconds = clock.offset.total_seconds()
    return ClockStatus(real=False, offset_seconds=seconds, rung_late_seconds=rung_late_seconds)


class LastReload(Record, frozen=True, kw_only=True):
    """number: how many there were. ok, problems, changes: as in `ReloadResult`."""

    number: int
    ok: bool
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    at: datetime | None = None


class WorkerStatus(Record, frozen=True, kw_only=True):
    """One of this node's workers, and what is its own; other nodes' workers have the other partitions."""

    index: int
    pid: int | None
    up: bool
    restarts: int
    partitions: int
    destinations: tuple[str, ...]


class Status(Record, frozen=True, kw_only=True):
    """The contract's shape of `handoff status`; ports are the bound ones."""

    node: str
    state: Literal["starting", "running", "stopping", "stopped"]
    pid: int | None
    channels: tuple[ChannelStatus, ...]
    console: ConsoleStatus | None
    hooks: ConsoleStatus | None = None
    """Where far ends call; none: they can't."""
    workers: tuple[WorkerStatus, ...] = ()
    ready: bool = False
    """It accepts and stores what senders send."""
    purpose: str = "production"
    """`test`: it is no site for patients."""
    clock: ClockStatus = ClockStatus()
    trouble: tuple[str, ...] = ()
    """What is wrong, as stable codes. With a worker's trouble it is still ready: what is stored is worked on later,
    here or by another node, and to send it elsewhere would change nothing."""
    troubles: tuple[Trouble, ...] = ()
    """The same, with what each means and what to do."""
    destinations: tuple[Standing, ...] = ()
    dead: int = 0
    """Dead letters that wait for a person."""
    held: int = 0
    """Deliveries and messages that wait for a person."""
    holds: dict[str, int] = {}
    """The messages among them, by code."""
    quality: dict[str, int] = {}
    """Open items of the data-quality list, by kind."""
    pages: dict[str, int] = {}
    """Pages that nobody has acknowledged, by state."""
    withheld: int = 0
    """Deliveries that a rule does not let go and nobody has decided on; none of them has failed."""
    waiting: int = 0
    """Entries that wait for processing."""
    oldest_waiting_at: datetime | None = None
    unanswered_bytes: int = 0
    """Of messages that are under way: received, and not answered yet."""
    certificates: tuple[Certificate, ...] = ()
    disk_free_bytes: int | None = None
    config_version: str | None = None
    sealing_key: int | None = None
    """Number of the key that this daemon seals with."""
    config_loaded_at: datetime | None = None
    backup_at: datetime | None = None
    """To which moment the last backup goes."""
    started_at: datetime | None = None
    last_reload: LastReload | None = None
    senders: tuple[SenderSkew, ...] = ()
    """How far the clocks of senders are from ours."""

    def with_work(self, work: Overview) -> Status:
        """With how the work of the store stands."""
        known = {one.name: one for one in work.channels}
        waits = [one.oldest_waiting_at for one in work.channels if one.oldest_waiting_at is not None]
        channels = tuple(
            msgspec.structs.replace(
                channel,
                waiting=known[channel.name].waiting,
                oldest_waiting_at=known[channel.name].oldest_waiting_at,
                last_message_at=known[channel.name].last_message_at,
            )
            if channel.name in known
            else channel
            for channel in self.channels
        )
        return msgspec.structs.replace(
            self,
            channels=channels,
            destinations=work.destinations,
            dead=work.dead,
            held=sum(work.holds.values()) + sum(one.held for one in work.destinations),
            holds=work.holds,
            clock=msgspec.structs.replace(self.clock, due=work.due, late_seconds=_late(work)),
            quality=dict(sum((Counter(kinds) for kinds in work.quality.values()), Counter())),
            pages=work.pages,
            withheld=sum(sum(one.withheld.values()) for one in work.destinations),
            waiting=work.waiting,
            oldest_waiting_at=min(waits, default=None),
            backup_at=work.backup_at,
        )

    def with_troubles(self, troubles: Sequence[Trouble]) -> Status:
        return msgspec.structs.replace(self, trouble=codes(troubles), troubles=tuple(troubles))


class OpenConnection(Record, frozen=True, kw_only=True):
    """peer: its address, and its certificate's name when it has shown one."""

    channel: str
    peer: str


class Connections(Record, frozen=True, kw_only=True):
    """Who is connected, and who could not connect since the daemon started."""

    channels: tuple[str, ...]
    open: tuple[OpenConnection, ...]
    refused: tuple[Refusal, ...]


class ReloadResult(Record, frozen=True, kw_only=True):
    """problems: why the old configuration stays in force. changes: what the new one changes, or would have changed;
    none: the daemon could not be asked (its `last_reload` knows).
    """

    ok: bool
    config_version: str | None = None
    problems: tuple[str, ...] = ()
    changes: tuple[Change, ...] | None = None


def _late(work: Overview) -> float:
    return 0.0 if work.due_since is None else round(max(0.0, (work.at - work.due_since).total_seconds()), 1)


def status_path(site: Place) -> Path:
    """Beside the SQLite files; with PostgreSQL in `var/` beside the configuration."""
    # Not by `store.engines.locate`: that takes SQLAlchemy, which takes longer than all the rest of `handoff status`.
    scheme, _, file = site.store_url.partition(":///")
    folder = site.path(file.partition("?")[0]).parent if scheme == "sqlite" else site.path("var")
    return folder / _NAME


# --- the daemon's side -----------------------------------------------------------------------------------------------


class StatusFile:
    """The daemon's hold on the file. A folder that can't be written costs the file, not the daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._written: Status | None = None

    def take(self) -> bool:
        """Become the store's daemon; false: the folder can't be written. Raises DaemonRunningError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(_lock_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        for _ in range(_LOCK_ATTEMPTS):  # a command that looks whether we run has it for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
                continue
            self._lock = handle
            with contextlib.suppress(OSError):  # of a daemon that was killed: it would be taken for ours now
                self.path.unlink(missing_ok=True)
            return True
        os.close(handle)
        raise DaemonRunningError("another daemon runs on this store: `handoff status` shows it")

    def write(self, status: Status) -> None:
        """Nothing to do when it is what was written last."""
        if self._lock is None or status == self._written:
            return
        with contextlib.suppress(OSError):
            temporary = self.path.with_name(f".{_NAME}.new")  # one name: on a full disk it stays, and must not be many
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n")
            temporary.chmod(0o644)
            temporary.replace(self.path)
            self._written = status

    def remove(self) -> None:
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


# --- the commands' side ----------------------------------------------------------------------------------------------


def running_status(site: Place) -> Status | None:
    """The daemon's status as it is now, none when it does not run. Raises StoreUnavailableError when we may not know.

    Asked from the daemon itself; when its console does not answer, as it wrote it some seconds ago.
    """
    written = _written(status_path(site))
    if written is not None and written.console is not None:
        answer = _ask(written.console, "GET", "/api/v1/status", _ASK_SECONDS)
        if answer is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(answer, type=Status)
    return written


def ask_to_look(status: Status) -> None:
    """Have the daemon look at the journal now, as we have put something there. By itself it does so a little later."""
    if status.console is not None:
        _ask(status.console, "POST", "/api/v1/look", _LOOK_ASK_SECONDS)


def running_connections(site: Place) -> Connections | None:
    """From the daemon itself; none when it does not run, or its console does not answer."""
    written = _written(status_path(site))
    answer = None
    if written is not None and written.console is not None:
        answer = _ask(written.console, "GET", "/api/v1/connections", _ASK_SECONDS)
    return None if answer is None else msgspec.json.decode(answer, type=Connections)


def _written(path: Path) -> Status | None:
    """What the running daemon wrote last."""
    if not _is_held(path):
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None


def request_reload(site: Place, *, allow_remove: bool = False) -> ReloadResult | None:
    """Have the running daemon load its configuration again, all or nothing. None: no daemon runs.

    allow_remove: also when that takes away a channel with connections, or a destination with deliveries.
    """
    status = running_status(site)
    if status is None or status.pid is None:
        return None
    if status.console is not None:
        body = msgspec.json.encode({"allow_remove": allow_remove})
        answer = _ask(status.console, "POST", "/api/v1/reload", _RELOAD_SECONDS, body)
        if answer is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                return msgspec.json.decode(answer, type=ReloadResult)
    try:
        os.kill(status.pid, signal.SIGHUP)
    except OSError:
        problem = "the daemon's console does not answer, and it belongs to another user: systemctl reload handoff"
        return ReloadResult(ok=False, problems=(problem,))
    return _told_by_file(site, status)


def _told_by_file(site: Place, before: Status) -> ReloadResult:
    """What became of a reload that was asked for by a signal."""
    number = before.last_reload.number if before.last_reload is not None else 0
    until = time.monotonic() + _RELOAD_SECONDS
    while time.monotonic() < until:
        written = _written(status_path(site))
        if written is None:
            return ReloadResult(ok=False, problems=("the daemon has stopped",))
        last = written.last_reload
        if last is not None and last.number > number:
            version = written.config_version if last.ok else None
            return ReloadResult(ok=last.ok, config_version=version, problems=last.problems)
        time.sleep(_LOOK_SECONDS)
    return ReloadResult(ok=False, problems=("the daemon did not say in time whether it took it: see its log",))


def _ask(console: ConsoleStatus, method: str, path: str, seconds: float, body: bytes | None = None) -> bytes | None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(console.host, console.host)
    connection = http.client.HTTPConnection(host, console.port, timeout=seconds)
    if console.tls:  # this machine's own port, as the daemon wrote it down: there is no name to check
        context = harden(ssl.create_default_context())
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, console.port, timeout=seconds, context=context)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.read() if answer.status in {200, 409} else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(_lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        try:
            return path.exists()  # another user's: believe the file
        except OSError:
            raise StoreUnavailableError(f"{path.parent} can't be looked into: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
