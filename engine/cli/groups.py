"""Changes to many things at once: seen before they are made, and asked about where a person sits at the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from engine.cli.common import Cli

F = TypeVar("F", bound=Callable[..., Any])


def group_options(function: F) -> F:
    """Adds `dry_run` and `yes`."""
    function = click.option("--yes", is_flag=True, help="Do not ask.")(function)
    return click.option("--dry-run", is_flag=True, help="Only show what would be done.")(function)


def agree(cli: Cli, question: str, *, yes: bool, unattended: bool = False) -> None:
    """Ask before a group is changed. Without a terminal nobody can answer, so the group needs --yes there.

    unattended: not this one: its things were named one by one, or scripts may rely on the command without (the
    contract has `replay`, `dead replay`, `dead discard` and `resend` so). Raises Abort when the answer is no,
    UsageError when nobody can give one.
    """
    if yes:
        return
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        cli.say(question)
        click.confirm("Go on?", abort=True, err=True)
    elif not unattended:
        raise click.UsageError(f"{question} Nobody is there to ask: --yes does it, --dry-run only shows it.")


def counted(items: Iterable[str]) -> str:
    """`31 timeout (west), 2 identifier-missing (main)`: what a group is made of, the most frequent first."""
    return ", ".join(f"{number:,} {item}" for item, number in Counter(items).most_common())
