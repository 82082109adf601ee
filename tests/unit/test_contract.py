"""`docs/contract.md` is held to what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec
import pytest

from engine.cli import app
from engine.domain.appointment import Appointment
from engine.domain.encounter import Encounter
from engine.domain.patient import Patient
from engine.domain.score import Score
from engine.domain.shapes import PageShape
from engine.domain.task import Task

CONTRACT = (Path(__file__).parents[2] / "docs/contract.md").read_text()
SHAPES = CONTRACT.partition("### Shapes")[2].partition("```\n")[2].partition("```")[0]


def _commands() -> dict[str, click.Command]:
    root = app.handoff
    context = click.Context(root)
    return {name: found for name in root.list_commands(context) if (found := root.get_command(context, name))}


def _rows() -> dict[str, set[str]]:
    """The contract's commands, with the subcommands that it names."""
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`handoff [^|]*) \|", CONTRACT, re.MULTILINE):
        words = [re.sub(r"[\[(].*", "", one).split() for one in re.findall(r"`([^`]*)`", row)]
        first = words[0][1]
        found.setdefault(first, set()).update(words[0][2:3])
        found[first].update(one[0] for one in words[1:] if one)
    return found


def test_every_command_is_in_the_contract_and_the_contract_names_no_other() -> None:
    named = _rows()
    others = named.pop("help")
    assert set(named) | {"help"} | others == set(_commands())


@pytest.mark.parametrize("name", sorted(name for name, one in _commands().items() if isinstance(one, click.Group)))
def test_every_subcommand_is_in_the_contract(name: str) -> None:
    group = _commands()[name]
    assert isinstance(group, click.Group)
    assert set(group.list_commands(click.Context(group))) <= _rows()[name] | {"train", "validate"}


@pytest.mark.parametrize(
    ("name", "shape", "others"),
    [
        ("patient", Patient, {"key"}),
        ("encounter", Encounter, set()),
        ("score", Score, {"factors_masked"}),
        ("task", Task, {"patient_key", "closed_by"}),
        ("page", PageShape, set()),
        ("appointment", Appointment, {"patient_key"}),
    ],
)
def test_the_shapes_of_the_contract_are_fields(name: str, shape: type[msgspec.Struct], others: set[str]) -> None:
    text = re.search(rf"^{name} +(\{{.*?\}})\n(?=\S)", SHAPES, re.MULTILINE | re.DOTALL)
    assert text is not None
    outer = re.sub(r":\{[^{}]*\}|:\[[^\[\]]*\]", "", text[1])
    fields = {field.encode_name for field in msgspec.structs.fields(shape)} | others
    assert set(re.findall(r'"(\w+)"', outer)) <= fields
