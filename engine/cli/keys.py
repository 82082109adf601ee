"""`handoff keys`: the keys that everything stored is sealed with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.common import Cli, clock_time, config_option, json_option, table

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
    from engine.bootstrap import open_keys

    _print(cli, open_keys(cli.configuration()), None, "")


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
    configuration = cli.configuration()
    return configuration.path(configuration.site.store.keys)


def _print(cli: Cli, ring: KeyRing, path: Path | None, text: str) -> None:
    from engine.domain.shapes import plain

    described = ring.describe()
    rows = [(key.number, clock_time(key.created_at), "in use" if key.active else "") for key in described]
    document = {"file": str(path) if path else None, "keys": plain(described)}
    cli.print(document, text + table(("key", "created", ""), rows))
