"""The threat model names tests that are there, and each kind of fault that was found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/threat-model.md").read_text()
TESTS = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")
]


def test_every_test_that_it_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", TEXT))
    assert len(named) > 30
    assert named - TESTS == set()


@pytest.mark.parametrize("number", range(1, 31))
def test_each_kind_of_fault_has_a_control_and_a_test(number: int) -> None:
    (row,) = [row for row in ROWS if row[0] == str(number)]
    assert all(row[1:3])
    assert re.search(r"`test_\w+\.py`", row[3])


def test_each_actor_stands_at_a_border() -> None:
    actors = {row[0] for row in ROWS if re.fullmatch(r"T\d+", row[0])}
    at_borders = {one for row in ROWS if len(row) == 5 for one in row[1].split(", ")}
    assert actors <= at_borders
