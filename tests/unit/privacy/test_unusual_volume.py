"""Unusual access by how much: looks that are many, and looks that only seem so. Small ones stand beside the rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from engine.privacy.unusual import Look, judge, load_unusual
from engine.trial.access import chart_of
from engine.yamlfile import parse

FILE = Path(__file__).parents[3] / "mappings/privacy/unusual.yaml"
RULES = load_unusual(parse(FILE.read_text(), FILE.name))
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
MANY = RULES.rules.volume.patients if RULES.rules.volume is not None else 0
CHARTS = {f"c{number}": structs.replace(chart_of({}), id=f"c{number}") for number in range(MANY)}


def looks(number: int, minutes: float, **more: Any) -> list[Look]:
    """One patient after the other, evenly over so many minutes."""
    step = timedelta(minutes=minutes) / max(1, number - 1)
    made = [Look(seq, NOW + step * (seq - 1), "ann", f"c{seq - 1}") for seq in range(1, number + 1)]
    return [one._replace(**more) for one in made]


def hit(given: Sequence[Look], rule: str) -> int:
    """How many questions name the rule."""
    found = judge(given, CHARTS, {}, RULES, UTC)
    return sum(rule in {one.rule for one in question.rules} for question in found.unexplained)


@pytest.mark.parametrize(
    ("number", "minutes", "hits"), [(MANY, 59, MANY), (MANY - 1, 59, 0), (MANY, 61, 0), (MANY, 0, MANY)]
)
def test_many_patients_in_an_hour_are_many(number: int, minutes: float, hits: int) -> None:
    assert hit(looks(number, minutes), "volume") == hits


def test_the_same_patient_many_times_is_one() -> None:
    assert hit(looks(MANY, 10, chart_id="c0"), "volume") == 0


def test_the_hits_of_one_search_are_one_look() -> None:
    assert hit(looks(MANY, 0, listed=True, seq=7), "volume") == 0


def test_as_many_searches_are_many() -> None:
    assert hit(looks(MANY, 59, listed=True), "volume") == MANY


def test_looks_of_several_accounts_are_nobodys_many() -> None:
    given = [one._replace(actor=f"a{one.seq % 2}") for one in looks(MANY, 59)]
    assert hit(given, "volume") == 0
