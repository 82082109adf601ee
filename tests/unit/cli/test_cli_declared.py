"""Every command declares what it is, so that none can be run by somebody who may not."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from engine.access.actions import CATALOGUE, OF_VERB, Action
from engine.cli import app
from engine.cli.declared import ACTIONS, action_of
from engine.domain.audit import ACTIONS as VERBS


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))
    else:
        yield " ".join(path)


EVERY = sorted(commands(app.handoff))


def test_every_command_declares_its_action_and_no_other_does() -> None:
    assert sorted(set(ACTIONS) - {"worker", "console"}) == EVERY


def test_a_command_that_declares_none_can_not_be_run() -> None:
    root = click.Context(app.handoff, info_name="handoff")
    with pytest.raises(KeyError):
        action_of(click.Context(click.Command("new"), parent=root, info_name="new"))


def test_every_action_of_people_is_that_of_a_command() -> None:
    unused = set(Action) - set(ACTIONS.values()) - {Action.PATIENT_REVEAL}
    assert unused <= {Action.RETENTION_MANAGE}


def test_what_people_do_is_an_action_that_changes_something() -> None:
    for verb, action in OF_VERB.items():
        assert verb in VERBS or verb.startswith(("destination-", "page-", "oncall-")), verb
        assert CATALOGUE[action].writes or verb == "reveal", verb
