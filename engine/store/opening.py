"""Opening a site's store: all that a command needs which reads it. Kept light, because commands wait for it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import SettingsError, StoreDamagedError, StoreError
from engine.outline import Place
from engine.store.keys import KeyRing

if TYPE_CHECKING:
    from engine.store.engines import Location
    from engine.store.store import Role, Store


def open_keys(site: Place) -> KeyRing:
    """The key ring of the site: a path, or the content of a key file out of a credential. Raises StoreError."""
    path = key_file(site)
    return KeyRing.parse(site.store_keys) if path is None else KeyRing.load(path)


def key_file(site: Place) -> Path | None:
    """Where the keys are; none when `store.keys` is their content itself (`{credential: NAME}`): it is no path then."""
    keys = site.store_keys
    return None if keys.lstrip().startswith("{") else site.path(keys)


def open_store(site: Place, role: Role, *, shadow: bool = False) -> Store:
    """shadow: with the charts of channels in shadow. Raises SettingsError or StoreError."""
    from engine.store.store import Store

    store_location(site)
    node = site.node if role == "main" else ""
    return Store.open(site.store_url, open_keys(site), role, base=site.snapshot.base, node=node, shadow=shadow)


def store_location(site: Place) -> Location:
    """Where the store is. Raises SettingsError when its URL can't be read."""
    from engine.store.engines import locate

    snapshot = site.snapshot
    try:
        return locate(site.store_url, snapshot.base)
    except StoreError as error:
        document = snapshot.document(snapshot.site_file)
        raise SettingsError((document.problem(("store", "url"), str(error)),)) from None


def has_worked(store: Store, version: str) -> bool:
    """Whether a daemon of this store has ever worked by the files of this version: then nothing is wrong in them."""
    with contextlib.suppress(StoreDamagedError):
        return store.read_now(lambda conn: store.configs.is_known(conn, version))
    return False
