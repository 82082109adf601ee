"""`handoff keys`: the keys that everything stored is sealed with."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, Cli, clock_time, config_option, json_option, time_column
from engine.cli.desk import admit, put_on_record
from engine.cli.tables import table
from engine.errors import SettingsError

if TYPE_CHECKING:
    from engine.settings import Configuration
    from engine.store.keys import KeyRing
    from engine.store.sealed import SealedColumn
    from engine.store.store import Store

_file_option = click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key file, where config.yaml does not name it (a credential).",
)


@click.group("keys")
@config_option
def keys() -> None:
    """The keys that everything stored is sealed with."""


@keys.command("create")
@_file_option
@json_option
@config_option
@click.pass_obj
def create(cli: Cli, file: Path | None) -> None:
    """Make the key file that config.yaml names (mode 0600). An existing one is never overwritten."""
    from engine.store.keys import KeyRing

    path = file or _path(cli)
    ring = KeyRing.create(path)
    _print(cli, ring, path, f"Made {path}. Keep a copy elsewhere: without it nothing stored can be read.\n")


@keys.command("status")
@json_option
@config_option
@click.pass_obj
def status(cli: Cli) -> None:
    """Show which keys there are, never the keys themselves, and how many stored values are sealed with each.

    With one key nothing is counted. Counting reads every value: minutes, where there are millions.
    """
    admit(cli)
    from engine.store.opening import key_file, open_keys

    configuration = cli.readable_configuration()[0]
    ring = open_keys(configuration)
    _print(cli, ring, key_file(configuration), "", _counted(configuration) if len(ring.numbers) > 1 else None)


@keys.command("rotate")
@_file_option
@json_option
@config_option
@click.pass_obj
def rotate(cli: Cli, file: Path | None) -> None:
    """Add a key; from now on everything is sealed with it.

    Old keys stay, for what was sealed with them. After `handoff reload` the daemon seals that anew in the background;
    `keys status` shows how far it is, `keys retire` takes an old key away when nothing needs it any more.
    """
    from engine.store.keys import KeyRing

    path = file or _path(cli)
    ring = KeyRing.load(path)
    _put_on_record(cli, "keys-rotated", file)
    number = ring.rotate()
    text = f"Key {number} is in use. Copy {path} to where the copy is; `handoff reload`, which also begins to seal"
    _print(cli, ring, path, f"{text} anew what the others have sealed.\n")


@keys.command("reseal")
@json_option
@config_option
@click.pass_obj
def reseal(cli: Cli) -> int:
    """Seal anew, now, all that is sealed with other keys than the active one.

    A running daemon does so by itself, slowly; both may be at it. Exit code 1 when there are values that can't be
    opened: they keep their key.
    """
    put_on_record(cli, "keys-resealed", "keys")
    from engine.store.sealed import reseal_page

    done = damaged = 0
    for store, columns in _stores(cli.readable_configuration()[0]):
        with store:
            for one in columns:
                after, more = None, True
                while more:
                    page = reseal_page(store, one, after)
                    done, damaged, after = done + len(page.fresh), damaged + page.damaged, page.last
                    more = after is not None
                cli.say(f"{one}: done")
    left = f"; {damaged} can't be opened, and keep their key" if damaged else ""
    cli.print({"resealed": done, "damaged": damaged}, f"{done} value(s) sealed anew{left}.")
    return NO if damaged else 0


@keys.command("retire")
@click.argument("number", type=click.IntRange(min=1), metavar="N")
@click.option("--leave-damaged", is_flag=True, help="Values of it that can't be opened, being damaged, don't count.")
@_file_option
@json_option
@config_option
@click.pass_obj
def retire(cli: Cli, number: int, leave_damaged: bool, file: Path | None) -> int:
    """Take key N away. Refused (exit code 1) while anything is sealed with it, or the daemon seals with it.

    Do it on every node, and with every copy of the key file: what is sealed with the key elsewhere, as in a backup,
    can't be read any more.
    """
    if file is None:
        admit(cli)
    from engine.runtime.status import running_status
    from engine.store.keys import KeyRing

    configuration = cli.readable_configuration()[0]
    path = file or _path(cli)
    ring = KeyRing.load(path)
    if number not in ring.numbers or number == ring.active:
        ring.retire(number)  # says why not
    running = running_status(configuration)
    if running is not None and running.sealing_key == number:
        cli.fail(f"the daemon still seals with key {number}", hint="Run `handoff reload` first.")
        return NO
    left = _left(configuration, number, damaged=not leave_damaged)
    if left:
        hint = (
            "The daemon seals them anew in the background; `handoff keys reseal` does so now, and says of damaged ones."
        )
        cli.fail(f"{left} value(s) are still sealed with key {number}", hint=hint)
        return NO
    _put_on_record(cli, "keys-retired", file, number)
    ring.retire(number)
    _print(cli, ring, path, f"Key {number} is gone. Take it out of the copies too.\n")
    return 0


def _put_on_record(cli: Cli, action: str, file: Path | None, number: int | None = None) -> None:
    """file: that was named in place of the site's: who can write it needs no site, nor its trail."""
    try:
        put_on_record(cli, action, "keys" if number is None else f"keys:{number}", unless_lost=file is not None)
    except SettingsError as error:
        if file is None:
            raise
        cli.say(f"The trail has no record of it: {error}")


def _stores(configuration: Configuration) -> Iterator[tuple[Store, Sequence[SealedColumn]]]:
    """The store, and the charts of channels in shadow if there are any, each with its columns."""
    from engine.errors import StoreUnavailableError
    from engine.store.opening import open_store
    from engine.store.schema import CHARTS
    from engine.store.sealed import SEALED, of_side

    yield open_store(configuration, "tool"), SEALED
    with contextlib.suppress(StoreUnavailableError):
        yield open_store(configuration, "tool", shadow=True), of_side(CHARTS)


def _counted(configuration: Configuration) -> Counter[int] | None:
    """Values by key; none: there is no store yet."""
    from engine.errors import StoreUnavailableError
    from engine.store.sealed import count_by_key

    counts: Counter[int] = Counter()
    try:
        for store, columns in _stores(configuration):
            with store, store.reader() as conn:
                counts += count_by_key(conn, columns)
    except StoreUnavailableError:
        return None
    return counts


def _left(configuration: Configuration, number: int, *, damaged: bool) -> int:
    """How many values are sealed with a key, with or without those that can't be opened."""
    from engine.store.sealed import count_with

    found = 0
    for store, columns in _stores(configuration):
        with store, store.reader() as conn:
            found += count_with(conn, store.keys, number, columns, damaged=damaged)
    return found


def _path(cli: Cli) -> Path:
    """The key file. Raises KeyFileError when the configuration gives the keys themselves, which are shown to nobody."""
    from engine.errors import KeyFileError
    from engine.store.opening import key_file

    path = key_file(cli.readable_configuration()[0])
    if path is None:
        raise KeyFileError(
            "store.keys of config.yaml gives the keys' content, not a file that could be written: name the file that"
            " the content comes from (`--file`)"
        )
    return path


def _print(cli: Cli, ring: KeyRing, path: Path | None, text: str, counts: Mapping[int, int] | None = None) -> None:
    from engine.domain.shapes import plain

    described = ring.describe()
    values = {key.number: None if counts is None else counts.get(key.number, 0) for key in described}
    rows = [
        (
            key.number,
            clock_time(key.created_at),
            "in use" if key.active else "",
            "" if counts is None else values[key.number],
        )
        for key in described
    ]
    document = {
        "file": str(path) if path else None,
        "keys": [plain(key) | {"values": values[key.number]} for key in described],
    }
    cli.print(document, text + table(("key", time_column("created"), "", "values" if counts is not None else ""), rows))
