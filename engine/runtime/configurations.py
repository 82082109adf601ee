"""Configurations ready to be worked by: the one in force, and those that were, as the store has recorded them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.connectors.registry import load
from engine.errors import HandoffError, Problem, SettingsError, TamperedError
from engine.pipeline.channel import CompiledConfiguration, Key
from engine.pipeline.compiling import compile_configuration
from engine.snapshot import Snapshot

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


def recorded_configuration(store: Store, base: Path, version: str) -> CompiledConfiguration | None:
    """A configuration as it was recorded, for replays under it; its secrets are not part of it. None: not known."""
    snapshot = recorded_snapshot(store, base, version)
    return None if snapshot is None else compile_site(load(snapshot, references="never"), store.keys)


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
