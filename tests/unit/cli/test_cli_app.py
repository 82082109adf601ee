"""The command as a whole: what it lists, how it ends, and what it says when it can't do what was asked."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from engine.cli import app
from engine.cli.common import json_option
from engine.errors import HandoffError, KeyMissingError, Problem, SettingsError, StoreError, StoreUnavailableError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """A command that raises what it is told to."""

    def make(error: BaseException) -> None:
        @click.command("status")
        def command() -> None:
            raise error

        monkeypatch.setattr(app._Lazy, "get_command", lambda *_: json_option(command))

    return make


def test_help_lists_every_command_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in app.COMMANDS:
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 2


def test_every_command_takes_config_and_says_so_in_its_help() -> None:
    def walk(command: click.Command, ctx: click.Context) -> None:
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                walk(child, click.Context(child, parent=ctx, info_name=name))
        options = [option for parameter in command.params for option in parameter.opts]
        assert "--config" in options, ctx.command_path

    walk(app.handoff, click.Context(app.handoff, info_name="handoff"))


def test_a_command_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["fly"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_a_missing_configuration_ends_with_78_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HANDOFF_CONFIG", raising=False)
    assert app.run(["messages", "list"]) == 78
    assert "handoff init" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--config", "X", "messages", "list"], ["messages", "list", "--config", "X"],
                                       ["messages", "--config", "X", "list"]])  # fmt: skip
def test_config_is_taken_before_and_after_the_command(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HANDOFF_CONFIG", "from-the-environment.yaml")
    named = str(tmp_path / "named.yaml")
    assert app.run([named if part == "X" else part for part in arguments]) == 78
    assert "named.yaml" in capsys.readouterr().err


def test_the_environment_names_the_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HANDOFF_CONFIG", "/nowhere/else.yaml")
    assert app.run(["messages", "list"]) == 78
    assert "/nowhere/else.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailableError("the store can't be used now"), 69),
        (KeyMissingError("no key"), 78),
        (SettingsError((Problem("config.yaml", 3, 5, "node", "unknown key"),)), 78),
        (StoreError("no"), 1),
        (HandoffError("no"), 1),
        (KeyboardInterrupt(), 1),
        (ValueError("Sanchez, Maria 1958-07-15"), 1),
    ],
)
def test_every_error_ends_with_its_exit_code_and_without_a_traceback(
    failing, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert app.run(["status"]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_an_unexpected_error_shows_its_type_and_place_but_never_its_text(
    failing, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ValueError("Sanchez, Maria 1958-07-15"))
    app.run(["status"])
    text = capsys.readouterr().err
    assert "internal error" in text
    assert "ValueError" in text
    assert "Sanchez" not in text
    assert "1958" not in text


def test_with_json_an_error_is_one_document_on_stdout(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(SettingsError((Problem("config.yaml", 3, 5, "node", "unknown key"),)))
    assert app.run(["status", "--json"]) == 78
    problem = json.loads(capsys.readouterr().out)["error"]["problems"][0]
    place = {"file": "config.yaml", "line": 3, "column": 5, "key": "node"}
    assert problem == place | {"message": "unknown key", "level": "problem"}
