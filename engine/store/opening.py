"""Opening a site's store: all that a command needs which reads it. Kept light, because commands wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import SettingsError, StoreError
from engine.settings import Configuration
from engine.store.keys import KeyRing

if TYPE_CHECKING:
    from engine.store.engines import Location
    from engine.store.store import Role, Store


def open_keys(configuration: Configuration) -> KeyRing:
    """The key ring of the site: a path, or the content of a key file out of a credential. Raises StoreError."""
    path = key_file(configuration)
    return KeyRing.parse(configuration.site.store.keys) if path is None else KeyRing.load(path)


def key_file(configuration: Configuration) -> Path | None:
    """Where the keys are; none when `store.keys` is their content itself (`{credential: NAME}`): it is no path then."""
    keys = configuration.site.store.keys
    return None if keys.lstrip().startswith("{") else configuration.path(keys)


def open_store(configuration: Configuration, role: Role) -> Store:
    """Raises SettingsError or StoreError."""
    from engine.store.store import Store

    store_location(configuration)
    store = configuration.site.store
    node = configuration.site.node if role == "main" else ""
    return Store.open(store.url, open_keys(configuration), role, base=configuration.snapshot.base, node=node)


def store_location(configuration: Configuration) -> Location:
    """Where the store is. Raises SettingsError when its URL can't be read."""
    from engine.store.engines import locate

    snapshot = configuration.snapshot
    try:
        return locate(configuration.site.store.url, snapshot.base)
    except StoreError as error:
        document = snapshot.document(snapshot.site_file)
        raise SettingsError((document.problem(("store", "url"), str(error)),)) from None
