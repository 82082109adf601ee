"""What of a configuration leads to its store and names its channels and destinations, without the models.

A command that only looks into the store needs no more of it, and the models take longer to load than such a command may
take. Read from files that are known to be right (some daemon has worked by exactly these); of others `settings.load`
says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from engine.errors import Problem, SettingsError
from engine.snapshot import Snapshot, resolve_references

NODE: Final = "main-1"
STORE_URL: Final = "sqlite:///var/handoff.db"
STORE_KEYS: Final = "var/keys.json"
CONSOLE_HOST: Final = "127.0.0.1"
CONSOLE_PORT: Final = 8080
KEYS_SECONDS_MAX: Final = 10.0
TIMEZONE: Final = "America/New_York"
ROLES: Final = "mappings/access/roles.yaml"
SEARCHES_PER_HOUR_MAX: Final = 2_000
CHECKPOINTS: Final = "var/trail/checkpoints.ndjson"
CHECKPOINT_ROWS: Final = 1_000
RECEIPTS: Final = "var/trail/taken-by-{name}.ndjson"
"""Checkpoints that a destination has taken."""
_MODE: Final = "live"
_HOST: Final = "127.0.0.1"
_TO_RESOLVE: Final = ("node", "store", "console", "purpose", "clock")


@dataclass(frozen=True, kw_only=True)
class KeyCommand:
    """A command that prints the keys."""

    command: tuple[str, ...]
    seconds_max: float


KeySource = str | KeyCommand
"""The path of the key file, its content, or a command that prints that."""


class Place(Protocol):
    """Where a site and its store are: a whole configuration, or the outline of one."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def node(self) -> str: ...
    @property
    def store_url(self) -> str: ...
    @property
    def store_keys(self) -> KeySource: ...
    @property
    def clock_file(self) -> Path | None:
        """What holds the seconds that the site's clock is ahead; none: it has the real one."""
        ...

    def path(self, relative: str) -> Path:
        """A path of the configuration, made absolute."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChannelOutline:
    name: str
    mode: str
    host: str
    port: int
    authorities: frozenset[str]
    """Assigning authorities that its identity rules name."""
    senders: frozenset[str]
    """Names of applications and facilities (MSH-3, MSH-4) that it lists."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A `Place`, with the names in it."""

    snapshot: Snapshot
    node: str
    store_url: str = field(repr=False)
    store_keys: KeySource = field(repr=False)
    console_host: str
    console_port: int
    destinations: Mapping[str, str]
    """Name -> type."""
    channels: Mapping[str, ChannelOutline]
    clock_file: Path | None = None
    access: Mapping[str, Any] | None = None
    """Keys of `access` but `oidc`; none: there is no `access`, and the command line may do everything."""
    checkpoint_files: tuple[str, ...] | None = (CHECKPOINTS,)
    """Where checkpoints of the trail go; none: not to files alone, so that the whole configuration has to be loaded."""
    checkpoint_rows: int = CHECKPOINT_ROWS

    searches_per_hour_max: int = SEARCHES_PER_HOUR_MAX
    """Of one actor: how often patients may be asked for by who they are."""

    @property
    def in_shadow(self) -> frozenset[str]:
        """The channels that work on charts of their own."""
        return frozenset(name for name, channel in self.channels.items() if channel.mode == "shadow")

    def path(self, relative: str) -> Path:
        return self.snapshot.base / relative


class _UnusualError(Exception):
    """Something is not as a right configuration has it."""


def outline(snapshot: Snapshot) -> Outline | None:
    """The outline of a configuration. None: it can't be told from the plain values, so `settings.load` has to look."""
    if any(remark.level == "problem" for remark in snapshot.remarks):
        return None
    try:
        return _outline(snapshot)
    except (SettingsError, _UnusualError):
        return None


def _outline(snapshot: Snapshot) -> Outline:
    document = snapshot.document(snapshot.site_file)
    site = _mapping(document.value)
    problems: list[Problem] = []
    parts = {key: site[key] for key in _TO_RESOLVE if key in site}
    parts = resolve_references(document, parts, (), snapshot.base, problems, mode="required")
    if problems:
        raise _UnusualError
    store, console = _mapping(parts.get("store", {})), _mapping(parts.get("console", {}))
    destinations, trail = _mapping(site.get("destinations", {})), _mapping(site.get("trail", {}))
    channels = [
        _channel(_mapping(snapshot.document(file).value))
        for file in snapshot.below(_text(site.get("channels", "channels")))
    ]
    return Outline(
        snapshot=snapshot,
        node=_text(parts.get("node", NODE)),
        store_url=_text(store.get("url", STORE_URL)),
        store_keys=_keys(store.get("keys", STORE_KEYS)),
        console_host=_text(console.get("host", CONSOLE_HOST)),
        console_port=_number(console.get("port", CONSOLE_PORT)),
        destinations={name: _text(_mapping(one).get("type")) for name, one in destinations.items()},
        channels={channel.name: channel for channel in channels},
        clock_file=_clock_file(parts, snapshot.base),
        access=_access(site.get("access")),
        checkpoint_files=_checkpoint_files(trail),
        checkpoint_rows=_count(trail.get("checkpoint_rows", CHECKPOINT_ROWS)),
        searches_per_hour_max=_number(
            _mapping(site.get("trail", {})).get("searches_per_hour_max", SEARCHES_PER_HOUR_MAX)
        ),
    )


def _checkpoint_files(trail: Mapping[str, Any]) -> tuple[str, ...] | None:
    places = [_mapping(one) for one in _list(trail.get("checkpoints", [{"file": CHECKPOINTS}]))]
    return tuple(_text(one["file"]) for one in places) if all(one.keys() == {"file"} for one in places) else None


def _access(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    kept = {key: one for key, one in _mapping(value).items() if key != "oidc"}
    if any(isinstance(one, dict) for key, one in kept.items() if key != "local_users"):
        raise _UnusualError  # it stands elsewhere
    return kept


def _keys(value: Any) -> KeySource:
    if not isinstance(value, dict):
        return _text(value)
    seconds = value.get("seconds_max", KEYS_SECONDS_MAX)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise _UnusualError
    return KeyCommand(command=tuple(_text(one) for one in _list(value.get("command"))), seconds_max=float(seconds))


def _clock_file(site: Mapping[str, Any], base: Path) -> Path | None:
    if (clock := site.get("clock")) is None:
        return None
    if site.get("purpose") != "test":
        raise _UnusualError
    return base / _text(_mapping(clock).get("offset_seconds_file"))


def _channel(value: Mapping[str, Any]) -> ChannelOutline:
    name, listen = _text(value.get("name")), _mapping(value.get("listen"))
    identity, timezone = _mapping(value.get("identity", {})), value.get("timezone")
    zones = _mapping(timezone).get("senders", {}) if not isinstance(timezone, str) else {}
    named: dict[str, str] = {}
    for one in _list(identity.get("authorities", [])):
        said = {"name": one} if isinstance(one, str) else _mapping(one)
        main = _text(said.get("name"))
        oid = said.get("oid")
        named |= dict.fromkeys((main, *([_text(oid)] if oid is not None else ()), *_list(said.get("also", []))), main)
    authority = identity.get("authority")
    own = name if authority is None else _text(authority)
    return ChannelOutline(
        name=name,
        mode=_text(value.get("mode", _MODE)),
        host=_text(listen.get("host", _HOST)),
        port=_number(listen.get("port")),
        authorities=frozenset({*named.values(), named.get(own, own)}),
        senders=frozenset(_text(one) for one in (*_list(value.get("senders", [])), *_mapping(zones))),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _UnusualError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _UnusualError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _UnusualError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _UnusualError
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _UnusualError
    return value
