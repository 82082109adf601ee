"""`handoff keys`: the keys that everything stored is sealed with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.common import Cli, clock_time, config_option, json_option, time_column
from engine.cli.tables import table

if TYPE_CHECKING:
    from engine.store.keys import KeyRing


@click.group("keys")
@config_option
def keys() -> None:
    """The keys that everything stored is sealed with."""


@keys.command("create")
@json_option
@config_option
@click.pass_obj
def create(cli: Cli) -> None:
    """Make the key file that config.yaml names (mode 0600). An existing one is never overwritten."""
    from engine.store.keys import KeyRing

    path = _path(cli)
    ring = KeyRing.create(path)
    _print(cli, ring, path, f"Made {path}. Keep a copy elsewhere: without it nothing stored can be read.\n")


@keys.command("status")
@json_option
@config_option
@click.pass_obj
def status(cli: Cli) -> None:
    """Show which keys there are; never the keys themselves."""
    from engine.store.opening import key_file, open_keys

    configuration = cli.readable_configuration()[0]
    _print(cli, open_keys(configuration), key_file(configuration), "")


@keys.command("rotate")
@json_option
@config_option
@click.pass_obj
def rotate(cli: Cli) -> None:
    """Add a key; from now on everything is sealed with it. Old keys stay, for what was sealed with them."""
    from engine.store.keys import KeyRing

    path = _path(cli)
    ring = KeyRing.load(path)
    number = ring.rotate()
    _print(cli, ring, path, f"Key {number} is in use. Copy {path} to where the copy is; `handoff reload`.\n")


def _path(cli: Cli) -> Path:
    """The key file. Raises KeyFileError when the configuration gives the keys themselves, which are shown to nobody."""
    from engine.errors import KeyFileError
    from engine.store.opening import key_file

    path = key_file(cli.readable_configuration()[0])
    if path is None:
        raise KeyFileError(
            "store.keys of config.yaml gives the keys' content, not a file that could be written: do this where the"
            " content comes from, with a config.yaml whose store.keys is the path of that file"
        )
    return path


def _print(cli: Cli, ring: KeyRing, path: Path | None, text: str) -> None:
    from engine.domain.shapes import plain

    described = ring.describe()
    rows = [(key.number, clock_time(key.created_at), "in use" if key.active else "") for key in described]
    document = {"file": str(path) if path else None, "keys": plain(described)}
    cli.print(document, text + table(("key", time_column("created"), ""), rows))
