"""The hospital's data: read strictly, and what is wrong with it is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SettingsError
from engine.simulator.pathways import PATHWAYS, load_book


def test_the_shipped_hospital_is_valid() -> None:
    book = load_book()
    assert {step.event for pathway in book.pathways for step in pathway.steps} >= {"A01", "A03", "A05", "A13", "A40"}
    assert len(book.pathways) > 10


@pytest.mark.parametrize(
    ("good", "bad", "key", "message"),
    [
        ("unit: oncology\n", "unit: marsh\n", "pathways[4].unit", "no such entry"),
        ("reasons: [surgery]", "reasons: [sugery]", "pathways[3].reasons[0]", "no such entry"),
        ("disposition: elective", "disposition: electiv", "pathways[3].steps[5].disposition", "no such entry"),
        ("after_minutes: [3, 90]", "after_minutes: [90, 3]", "pathways[7].steps[1]", "the least is more"),
        ("after_minutes: [3, 90]", "after_minutes: [1, 90]", "pathways[7].steps[1]", "at least 2 minutes"),
        ("  child: [1, 17]\n", "", "ages", "child is missing"),
        ("{event: A11,", "{event: A99,", "pathways[7].steps[1].event", "must be"),
        ("facility: MAIN\n", "facility: MA|IN\n", "hospital.facility", "delimiter"),
        ("quirks:\n", "quirks:\n  typos: 0.1\n", "quirks.typos", "unknown key"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, good: str, bad: str, key: str, message: str) -> None:
    text = PATHWAYS.read_text(encoding="utf-8")
    assert text.count(good) == 1
    file = tmp_path / "pathways.yaml"
    file.write_text(text.replace(good, bad), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_book(file)
    [problem] = caught.value.problems
    assert problem.key == key
    assert message in problem.message
    assert problem.line > 1
