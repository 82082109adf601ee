"""What names a patient, or what a person says, need not be an argument: others see those, and shells keep them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import click
import pytest
from site_with_store import Site

from engine.cli import app
from engine.cli.common import Private

OF_PATIENTS = {"reason", "patient", "name", "birth_date", "visit", "note", "evidence", "encounter", "key", "because"}
"""Options and arguments that do, wherever they come."""
OTHERS = {("risk", "name"), ("risk", "key"), ("send", "key"), ("simulate", "key"), ("destinations", "name"),
          ("resend", "name"), ("users", "name"), ("break-glass", "reason")}  # fmt: skip
"""Of the same name, and of models, destinations, accounts and certificates, or a code of a list."""


def _commands(
    group: click.Group, ctx: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, ctx, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_can_ask_for_it() -> None:
    seen = 0
    for name, command in _commands(app.handoff, click.Context(app.handoff)):
        for param in command.params:
            if param.name in OF_PATIENTS and (name.split(maxsplit=1)[0], param.name) not in OTHERS:
                assert isinstance(param.type, Private) or type(param.type).__name__ == "_Named", f"{name}: {param.name}"
                seen += 1
    assert seen > 25


def with_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_several_are_read_in_the_order_in_which_they_stand(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with_input(monkeypatch, "asked for by DOE\nMRN:558181838\n")
    shown = stocked.json("patients", "show", "-", "--reveal", "--reason", "-")
    assert shown["name"]["family"] == "DOE"
    assert stocked.json("audit", "list", "--reveal", "--reason", "x")[0]["reason"] in {"x", "asked for by DOE"}
    with_input(monkeypatch, "1947-05-04\nDO\n")
    found = stocked.run("patients", "find", "--birth-date", "-", "--name", "-")
    assert found.code == 0, found


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("patients", "show", "-"), ""),
        (("patients", "show", "-"), "  \n"),
        (("patients", "find", "--name", "-"), ""),
        (("patients", "find", "--birth-date", "-"), "yesterday\n"),
        (("dead", "discard", "1", "--reason", "-"), "\n"),
        (("patients", "show", "-", "--reveal", "--reason", "-"), "asked\n"),
    ],
)
def test_nothing_to_read_is_wrong_use(
    stocked: Site, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], text: str
) -> None:
    with_input(monkeypatch, text)
    assert stocked.run(*command).code == 2


def test_closed_standard_input_is_said(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    done = stocked.run("patients", "show", "-")
    assert (done.code, "standard input is closed" in done.err) == (2, True)
