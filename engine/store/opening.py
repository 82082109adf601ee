"""Opening a site's store: all that a command needs which reads it. Kept light, because commands wait for it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import KeyFileError, SettingsError, StoreDamagedError, StoreError
from engine.files import SECRET_BYTES_MAX
from engine.outline import KeyCommand, Place
from engine.store.keys import KeyRing

if TYPE_CHECKING:
    from engine.store.engines import Location
    from engine.store.store import Role, Store


def open_keys(site: Place) -> KeyRing:
    """The key ring of the site: of a file, of its content out of a credential, or of what a command prints.

    Raises StoreError.
    """
    keys, path = site.store_keys, key_file(site)
    if isinstance(keys, KeyCommand):
        return KeyRing.printed(lambda: _printed(keys, site.snapshot.base))
    return KeyRing.parse(keys) if path is None else KeyRing.load(path)


def key_file(site: Place) -> Path | None:
    """Where the keys are; none when `store.keys` is no path: their content itself (`{credential: NAME}`), a command."""
    keys = site.store_keys
    return None if isinstance(keys, KeyCommand) or keys.lstrip().startswith("{") else site.path(keys)


def _printed(keys: KeyCommand, folder: Path) -> bytes:
    """What the command prints, which stands in no text here. Raises KeyFileError."""
    import subprocess
    import threading

    name = f"the command of store.keys ({Path(keys.command[0]).name})"
    try:
        process = subprocess.Popen(  # noqa: S603 - who writes config.yaml decides what runs
            keys.command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise KeyFileError(f"{name} can't be run: {error.strerror}") from None
    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(keys.seconds_max, stop)
    timer.start()
    try:
        with process:
            raw = process.stdout.read(SECRET_BYTES_MAX + 1) if process.stdout is not None else b""
            if len(raw) > SECRET_BYTES_MAX:
                stop()
    finally:
        timer.cancel()
    if len(raw) > SECRET_BYTES_MAX:
        raise KeyFileError(f"{name} prints more than any key file holds")
    if late.is_set():
        raise KeyFileError(f"{name} took longer than {keys.seconds_max:g} s (`seconds_max`)")
    if process.returncode:
        raise KeyFileError(f"{name} ended with exit code {process.returncode}: run it by hand to see why")
    return raw


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
