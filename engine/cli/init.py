"""`handoff init`: a new site, ready to run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from engine.cli.common import NO, Cli, config_option

FIRST_MESSAGE: Final = "channels/examples/first-message.hl7"
"""An admission and the discharge that follows, to try a new site with."""

_SHIPPED: Final = ("config.yaml", "channels", "mappings", "docs/schemas")


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--missing", is_flag=True, help="Create only what is missing, and leave the rest as it is.")
@config_option
@click.pass_obj
def init(cli: Cli, folder: Path, missing: bool) -> int:
    """Make a new site in DIR.

    It gets config.yaml, channels, mappings, keys (readable for you only) and var/. Nothing is ever overwritten.
    """
    from engine.settings import Site, Snapshot
    from engine.store.keys import KeyRing
    from engine.yamlfile import validate

    wanted = {name: path for name, path in shipped_files() if not (folder / name).exists()}
    kept = sum(1 for _ in shipped_files()) - len(wanted)
    if kept and not missing:
        cli.fail(
            f"{folder}: {kept} of the files of a site are here already, and none is ever overwritten",
            hint="Choose an empty folder, or add what is missing with --missing.",
        )
        return NO
    # A site that has a configuration of its own names its own channels and mappings.
    if not (missing and (folder / "config.yaml").exists()):
        for name, source in wanted.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    snapshot = Snapshot.read(folder / "config.yaml")
    site = validate(snapshot.document(snapshot.site_file), Site)
    keys = folder / site.store.keys
    (folder / "var").mkdir(mode=0o700, exist_ok=True)
    if not keys.exists():
        keys.parent.mkdir(parents=True, exist_ok=True)
        KeyRing.create(keys)
        cli.say(f"Made the keys {keys}: keep a copy elsewhere, nothing stored can be read without them.")
    if not missing:
        cli.say(f"Made the site {folder}. Now: cd {folder} && handoff run")
    return 0


def shipped() -> Path:
    """The folder that holds the files a site begins with: the source tree, or what an installation has put aside."""
    import sys

    import engine

    source = Path(engine.__file__).parent.parent
    return source if (source / "mappings").is_dir() else Path(sys.prefix) / "share" / "handoff"


def shipped_files() -> Iterator[tuple[str, Path]]:
    """(name in a site, file) of all that a new site gets."""
    root = shipped()
    for name in _SHIPPED:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                yield path.relative_to(root).as_posix(), path
