"""`handoff outbox`: the files of destinations of type `file` whose lines are sealed to a reader."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from engine.cli.common import NO, Cli, Said, config_option, json_option
from engine.cli.desk import open_desk

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("outbox")
@config_option
def outbox() -> None:
    """Files of delivered lines that are sealed to a reader."""


@outbox.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@config_option
@click.pass_obj
def key(cli: Cli, file: Path) -> None:
    """Make the key of a reader: FILE holds the private half (mode 0600), printed is the public one.

    Do it where the files are read, not where the daemon runs. The public half goes into config.yaml, as
    `reader: PUBLIC` of the destination; without FILE nobody can read what is sealed to it, so keep a copy.
    """
    from engine.connectors.sealedlines import new_reader
    from engine.errors import StoreError

    private, public = new_reader()
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StoreError(f"{file}: the key can't be written: {error.strerror}") from None
    with os.fdopen(handle, "wb") as made:
        made.write(private)
    cli.print({"file": str(file), "public": public}, f"{public}\nIn config.yaml: reader: {public}")


@outbox.command("read")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option("--key", "private", type=_FILE, required=True, help="File with the reader's private key.")
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit; - asks.")
@json_option
@config_option
@click.pass_obj
def read(cli: Cli, files: tuple[Path, ...], private: Path, reason: str) -> int:
    """Print what sealed lines say, as NDJSON; with --json as one list. Lines that are in clear are printed as they are.

    Where there is a site (`--config`), its audit has a record of each file before anything of it is shown. Exit code 1
    when a line can't be opened: it was altered, or sealed to another reader.
    """
    from engine.connectors.sealedlines import LineOpener
    from engine.errors import TamperedError
    from engine.files import SECRET_BYTES_MAX, read_regular

    opener = LineOpener(read_regular(private, bytes_max=SECRET_BYTES_MAX))
    if cli.config_path.exists():
        with open_desk(cli) as desk:
            desk.audit("reveal", [f"outbox:{file.name}" for file in files], reason)
    shown: list[object] = []
    code = 0
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    text = opener.open(line)
                except TamperedError:
                    cli.say(f"{file}:{number}: can't be opened: it was altered, or is sealed to another reader")
                    code = NO
                    continue
                if cli.json:
                    shown.append(json.loads(text))
                else:
                    click.echo(text.decode())
    if cli.json:
        cli.print(shown, "")
    return code
