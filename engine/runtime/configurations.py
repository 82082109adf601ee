"""Configurations ready to be worked by: the one in force, and those that were, as the store has recorded them."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.care.protocol import Protocol, load_protocol
from engine.connectors.registry import load
from engine.errors import HandoffError, Problem, SettingsError, TamperedError
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration, Key, Planner
from engine.pipeline.compiling import compile_configuration
from engine.snapshot import Snapshot
from engine.yamlfile import parse

if TYPE_CHECKING:
    from engine.settings import Configuration
    from engine.store.keys import KeyRing
    from engine.store.store import Store


def hasher(keys: KeyRing) -> Key:
    """Ids and idempotency keys: the same parts always give the same key, and nothing can be read from it."""
    return keys.id_of


def compile_site(configuration: Configuration, keys: KeyRing) -> CompiledConfiguration:
    """Everything that processing needs. Raises SettingsError with the problems of all files."""
    return compile_configuration(configuration, hasher(keys))


FORMER_MAX: Final = 200
"""Configurations of before, the last ones, whose protocols are known again. Plans run for some weeks."""


def with_former(compiled: CompiledConfiguration, store: Store) -> CompiledConfiguration:
    """The configuration with the protocols of those before it, as the store has recorded them.

    A plan goes on by the protocol that it was made with (`CompiledChannel.planner_of`), however its file reads today.
    """
    today = {(one.name, one.digest) for one in compiled.rules.protocols.values()}
    former = {key: one for key, one in _former(store).items() if key not in today}
    if not former:
        return compiled
    channels = {
        name: dataclasses.replace(channel, former={key: _as_then(channel, one) for key, one in former.items()})
        for name, channel in compiled.channels.items()
    }
    return dataclasses.replace(compiled, channels=channels)


def _as_then(channel: CompiledChannel, protocol: Protocol) -> Planner:
    """The protocol, with the model whose band decides in it today."""
    today = channel.planners.get(protocol.name) or channel.planner
    return Planner(protocol, today.model if today is not None else None)


def _former(store: Store) -> dict[tuple[str, str], Protocol]:
    """By name and digest. What can't be read any more, or was altered in the store, is left out."""
    found: dict[tuple[str, str], Protocol] = {}
    known: set[str] = set()
    with store.reader() as conn:
        for version in store.configs.versions(conn, "")[-FORMER_MAX:]:
            try:
                files = store.configs.get(conn, version) or {}
            except TamperedError:
                continue
            for name, text in files.items():
                if "/protocols/" not in name or name.endswith(".test.yaml") or text in known:
                    continue
                known.add(text)
                with contextlib.suppress(SettingsError):
                    protocol = load_protocol(parse(text, name))
                    found[protocol.name, protocol.digest] = protocol
    return found


def recorded_configuration(store: Store, base: Path, version: str) -> CompiledConfiguration | None:
    """A configuration as it was recorded, for replays under it; its secrets are not part of it. None: not known."""
    snapshot = recorded_snapshot(store, base, version)
    if snapshot is None:
        return None
    return with_former(compile_site(load(snapshot, references="never"), store.keys), store)


def recorded_snapshot(store: Store, base: Path, version: str) -> Snapshot | None:
    """The files of a version. Raises HandoffError when they are not those any more that were recorded under it."""
    try:
        with store.reader() as conn:
            files = store.configs.get(conn, version)
    except TamperedError as error:  # replays under it are dead letters; everything else goes on
        raise SettingsError((Problem(f"configuration {version}", 1, 1, "", str(error)),)) from None
    if files is None:
        return None
    site_file = next((name for name in files if "/" not in name), "config.yaml")
    snapshot = Snapshot(base, site_file, files)
    if snapshot.version != version:
        raise HandoffError(f"the recorded configuration {version} was altered in the store, and is not used")
    return snapshot
