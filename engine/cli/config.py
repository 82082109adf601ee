"""`handoff config`: which configurations were in force, who loaded them, and what changed between two of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import NO, Cli, config_option, json_option, limit_option, named_time
from engine.cli.desk import open_desk
from engine.cli.tables import table
from engine.desk.desk import Desk
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.yamlfile import Path

DISK: Final = "disk"
HIDDEN: Final = "***"
_PASSWORD: Final = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")
_LINE: Final = re.compile(
    r"^(\s*[\w-]*(?:secret|token|password|passphrase|private_key|routing_key)[\w-]*\s*:\s*)(\S.*)$"
)


@click.group("config")
@config_option
def config() -> None:
    """Configuration versions: list them, compare them."""


@config.command("list")
@limit_option
@json_option
@config_option
@click.pass_obj
def list_(cli: Cli, limit: int) -> None:
    """Show which configuration was loaded when, on which node, by whom, and how; the newest first."""
    from engine.domain.shapes import plain

    with open_desk(cli) as desk, desk.store.reader() as conn:
        loads = desk.store.configs.loads(conn, limit)
    rows = [(named_time(load.at), load.version, load.node, load.who, load.by) for load in loads]
    cli.print([plain(load) for load in loads], table(("at", "version", "node", "who", "by"), rows) or "No versions.")


@config.command("diff")
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", default=DISK)
@json_option
@config_option
@click.pass_obj
def diff(cli: Cli, first: str, second: str) -> int:
    """Show what changed from version A to version B, file by file.

    A version may be shortened; `disk` stands for the files as they are now (also while they are broken), and is B when
    there is none. Secrets that stand in the files are not shown. Exit code 1 when they differ.
    """
    with open_desk(cli) as desk:
        before, after = _files(cli, desk, first), _files(cli, desk, second)
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    texts = {name: "\n".join(_compared(name, before.get(name), after.get(name))) for name in changed}
    cli.print(
        {"same": not changed, "files": [{"file": name, "diff": text} for name, text in texts.items()]},
        "\n".join(texts.values()) or "They are the same.",
    )
    return NO if changed else 0


def _files(cli: Cli, desk: Desk, version: str) -> Mapping[str, str]:
    """Raises NotFoundError, TamperedError or SettingsError."""
    from engine.snapshot import Snapshot

    if version == DISK:
        return Snapshot.read(cli.existing_config()).files
    with desk.store.reader() as conn:
        found = desk.store.configs.versions(conn, version)
        if len(found) != 1:
            raise NotFoundError(
                f"{len(found)} versions begin with {version}: write more of it"
                if found
                else f"there is no version {version}; `handoff config list` shows them"
            )
        return desk.store.configs.get(conn, found[0]) or {}


def _compared(name: str, before: str | None, after: str | None) -> Iterator[str]:
    old, new = (without_secrets(text, name).splitlines() if text is not None else [] for text in (before, after))
    names = name if before is not None else "/dev/null", name if after is not None else "/dev/null"
    shown = list(difflib.unified_diff(old, new, *names, lineterm=""))
    return iter(shown or [f"--- {name}", f"+++ {name}", "(only a secret in it differs, which is not shown)"])


def without_secrets(text: str, name: str) -> str:
    """The text of a file with the values of secret keys, and passwords in URLs, replaced."""
    from engine.errors import SettingsError
    from engine.yamlfile import parse

    try:
        found = list(_secrets(parse(text, name).value, ()))
    except SettingsError:  # it is half edited: then whole lines go
        found = []
    for secret in found:
        for line in secret.splitlines():
            if line.strip():
                text = text.replace(line.strip(), HIDDEN)
    text = "\n".join(_LINE.sub(_but_references, line) for line in text.split("\n"))
    return _PASSWORD.sub(rf"\1{HIDDEN}\2", text)


def _but_references(line: re.Match[str]) -> str:
    """A reference names where a secret is, and is none."""
    return line[0] if line[2].lstrip().startswith(("{", "#", "|", ">")) else f"{line[1]}{HIDDEN}"


def _secrets(value: Any, path: Path) -> Iterator[str]:
    from engine.yamlfile import SECRET

    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str | int) and SECRET.search(key) and "tls" not in path and inner is not True:
                is_path = path == ("store",) and isinstance(inner, str) and not inner.lstrip().startswith("{")
                if not is_path:
                    yield str(inner)
            yield from _secrets(inner, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(item, path)
