"""`handoff init`: a new site, ready to run."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from engine.cli.common import NO, Cli, called, config_option
from engine.errors import KeyMissingError

FIRST_MESSAGE: Final = "channels/examples/first-message.hl7"
"""An admission and the discharge that follows, to try a new site with."""

_SHIPPED: Final = ("config.yaml", "channels", "mappings", "docs/schemas")
_CONFIG_MODE: Final = 0o640
"""It says where data goes; others of this machine need not know."""
_IGNORED: Final = """# Keys, stores and what was delivered hold patients' data, or open it: never in a repository.
/var/
keys*.json
*.key
*.pem
*.p12
.env
"""


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--missing", is_flag=True, help="Create only what is missing, and leave the rest as it is.")
@config_option
@click.pass_obj
def init(cli: Cli, folder: Path, missing: bool) -> int:
    """Make a new site in DIR.

    It gets config.yaml, channels, mappings, keys (readable for you only) and var/. Nothing is ever overwritten.

    config.yaml and the channels are those of a site that nobody has changed. The mappings are those of the
    installation: in a source tree its folder mappings/ as it stands, with what has been edited there.
    """
    kept = [name for name, _ in shipped_files() if (folder / name).exists()]
    if kept and not missing:
        cli.fail(
            f"{folder}: {len(kept)} of the files of a site are here already, and none is ever overwritten",
            hint="Choose an empty folder, or add what is missing with --missing.",
        )
        return NO
    keys = make_site(folder)
    if keys is not None:
        cli.say(f"Made the keys {keys}.\nKeep a copy elsewhere: nothing stored can be read without them.")
    if not missing:
        cli.say(f"Made the site {folder}. Now: cd {shlex.quote(str(folder))} && {called(from_elsewhere=True)} run")
    return 0


def make_site(folder: Path) -> Path | None:
    """Make what a site lacks, and nothing else. Returns the key file when it was made too.

    A site that has a config.yaml names its own channels and mappings: none are put beside them. Raises KeyMissingError
    when its keys are gone and its store is not.
    """
    from engine.settings import Store
    from engine.snapshot import Snapshot
    from engine.store.keys import KeyRing

    if not (folder / "config.yaml").exists():
        for name, source in shipped_files():
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                target.chmod(_CONFIG_MODE if name == "config.yaml" else 0o644)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text(_IGNORED, encoding="utf-8")
    (folder / "var").mkdir(mode=0o700, exist_ok=True)
    site = Snapshot.read(folder / "config.yaml").document("config.yaml").value
    store = site.get("store") if isinstance(site, dict) else None
    settings = {"keys": Store().keys, "url": Store().url} | (store if isinstance(store, dict) else {})
    named = settings["keys"]
    if not isinstance(named, str) or (folder / named).exists():  # {credential: ...}: they are kept elsewhere
        return None
    kind, _, file = str(settings["url"]).partition(":///")
    if kind == "sqlite" and (folder / file.partition("?")[0]).is_file():
        raise KeyMissingError(
            f"{folder / named}: the key file is not there, and new keys would not open the store that is"
        )
    KeyRing.create(folder / named)
    return folder / named


def shipped() -> Path:
    """The folder that holds the files a site begins with: the source tree, or what an installation has put aside."""
    import sysconfig

    import engine

    source = Path(engine.__file__).parent.parent
    return source if (source / "mappings").is_dir() else Path(sysconfig.get_path("data")) / "share" / "handoff"


def shipped_files() -> Iterator[tuple[str, Path]]:
    """(name in a site, file) of all that a new site gets.

    config.yaml and the channels come from the package itself: those beside it may be a site that somebody lives in.
    """
    from importlib.resources import files

    template = Path(str(files("engine"))) / "site"
    for name in _SHIPPED:
        root = template if name in {"config.yaml", "channels"} else shipped()
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file():
                yield path.relative_to(root).as_posix(), path
