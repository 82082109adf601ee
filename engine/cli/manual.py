"""`handoff help`, `handoff completion` and `handoff manual`: the commands explained, completed, and as man pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from engine.cli.common import Cli, config_option

_SHELLS: Final = {
    "bash": "echo 'eval \"$(handoff completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(handoff completion zsh)\"' >> ~/.zshrc",
    "fish": "handoff completion fish > ~/.config/fish/completions/handoff.fish",
}


@click.command("help")
@click.argument("words", metavar="[COMMAND...]", nargs=-1)
@config_option
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show what a command does and takes: `handoff help tasks list`."""
    cli: Cli = ctx.obj
    command, context = _command(ctx.find_root(), words)
    cli.write(command.get_help(context))


def _command(root: click.Context, words: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    """Raises UsageError for one that there is not, with what may have been meant."""
    command, context = root.command, root
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{context.command_path} has no commands below it", context)
        _, found, _ = command.resolve_command(context, [word])
        if found is None:
            raise click.UsageError(f"No such command {word!r}.", context)
        command, context = found, click.Context(found, info_name=word, parent=context)
    return command, context


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@config_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the shell's script that completes commands, options and the names of channels and destinations.

    \b
    bash  echo 'eval "$(handoff completion bash)"' >> ~/.bashrc
    zsh   echo 'eval "$(handoff completion zsh)"' >> ~/.zshrc
    fish  handoff completion fish > ~/.config/fish/completions/handoff.fish
    """  # noqa: D301 - click's mark for lines that are not to be joined
    from click.shell_completion import get_completion_class

    cli: Cli = ctx.obj
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"{shell} can't be completed")
    # Its check of the shell's version is left out: that runs the shell, which need not be on this machine.
    script = made(ctx.find_root().command, {}, "handoff", "_HANDOFF_COMPLETE")
    cli.write(script.source_template % script.source_vars())


@click.command("manual")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@config_option
@click.pass_context
def manual(ctx: click.Context, folder: Path) -> None:
    """Write man pages to a folder (/usr/local/share/man/man1): `handoff.1`, and one for each command."""
    cli: Cli = ctx.obj
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name, text in pages(ctx.find_root()):
        (folder / name).write_text(text, encoding="utf-8")
        written += 1
    cli.say(f"{written} pages in {folder}: man -l {folder}/handoff.1")


def pages(root: click.Context) -> Iterator[tuple[str, str]]:
    """Names and texts of all man pages."""
    yield "handoff.1", _page(root.command, click.Context(root.command, info_name="handoff"))
    assert isinstance(root.command, click.Group)  # noqa: S101 - it is ours
    for name in root.command.list_commands(root):
        command = root.command.get_command(root, name)
        if command is not None:
            top = click.Context(root.command, info_name="handoff")
            yield f"handoff-{name}.1", _page(command, click.Context(command, info_name=name, parent=top))


def _page(command: click.Command, context: click.Context) -> str:
    title = context.command_path.replace(" ", "-")
    lines = [
        f'.TH "{title.upper()}" "1" "{datetime.now(UTC):%Y-%m-%d}" "Handoff" "Handoff"',
        ".SH NAME",
        f"{_roff(title)} \\- {_roff(command.get_short_help_str(200))}",
        ".SH SYNOPSIS",
        f".B {_roff(context.command_path)}",
        _roff(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_prose(command.help or ""),
        *_options(command, context),
    ]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is None:
                continue
            inner = click.Context(below, info_name=name, parent=context)
            if context.parent is None:
                lines += [".TP", f".BR handoff-{_roff(name)} (1)", _roff(below.get_short_help_str(200))]
            else:
                usage = " ".join(below.collect_usage_pieces(inner))
                lines += [f'.SS "{_roff(inner.command_path)} {_roff(usage)}"', *_prose(below.help or "")]
                lines += _options(below, inner, heading=False)
                lines += _prose(below.epilog or "")
    lines += _prose(command.epilog or "")
    lines += [
        ".SH EXIT STATUS",
        "0 done; 1 the answer is no; 2 usage; 69 store or daemon can't be reached; 78 the configuration is wrong.",
    ]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context, *, heading: bool = True) -> list[str]:
    records = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    lines = [".SH OPTIONS"] if records and heading else []
    for names, text in records:
        lines += [".TP", f".B {_roff(names)}", _roff(text)]
    return lines


def _prose(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            lines += [".PP", ".nf", *map(_roff, paragraph.lstrip("\b\n").splitlines()), ".fi"]
        elif paragraph:
            lines += [".PP", _roff(" ".join(paragraph.split()))]
    return lines


def _roff(text: str) -> str:
    """Nothing in it is taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
