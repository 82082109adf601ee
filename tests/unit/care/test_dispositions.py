"""Each code's action is in mappings/care/dispositions.test.yaml; here is what holds for every table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.dispositions import Action, load_dispositions
from engine.errors import SettingsError
from engine.yamlfile import parse

TEXT = (Path(__file__).parents[3] / "mappings/care/dispositions.yaml").read_text(encoding="utf-8")
TABLE = load_dispositions(parse(TEXT, "dispositions.yaml"))
LISTED = {
    *("01", "02", "03", "04", "05", "06", "07", "09", "20", "21", "30", "40", "41", "42", "43", "50", "51"),
    *("61", "62", "63", "64", "65", "66", "69", "70"),
    *(str(code) for code in range(31, 40)),
    *(str(code) for code in range(81, 96)),
}


@given(st.text(max_size=4))
def test_home_is_never_assumed(code: str) -> None:
    disposition = TABLE.of(code)
    assert (disposition.action is Action.HOME_PLAN) == (code.strip().zfill(2) in {"01", "06", "81", "86"})


@given(st.one_of(st.none(), st.text(max_size=4)))
def test_what_is_not_listed_is_held_with_a_reason(code: str | None) -> None:
    disposition = TABLE.of(code)
    if disposition.code not in LISTED:
        assert disposition.action is Action.UNKNOWN
        assert disposition.hold_reason


@given(st.text(min_size=1, max_size=20))
def test_the_reason_of_a_hold_does_not_repeat_what_was_sent(code: str) -> None:
    assert (
        TABLE.of(code).hold_reason in {TABLE.of("").hold_reason, TABLE.of("77").hold_reason, None}
        or code.strip() in LISTED
    )


def test_every_planned_readmission_code_acts_as_its_twin() -> None:
    for code in map(str, range(81, 96)):
        planned = TABLE.of(code)
        twin = TABLE.of(planned.acts_as)
        assert planned.planned_readmission
        assert not twin.planned_readmission
        assert (planned.action, planned.hold_reason) == (twin.action, twin.hold_reason)


def test_a_site_may_decide_what_a_conflicting_code_means() -> None:
    decided = TEXT.replace(
        "action: conflict\n    hold: code 21 means law enforcement to some senders and death to others", "action: death"
    )
    assert decided != TEXT
    table = load_dispositions(parse(decided, "dispositions.yaml"))
    assert table.of("21").action is Action.DEATH
    assert table.of("87").action is Action.DEATH


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("action: home_plan}", "action: home}", "codes.01.action"),
        ("  01: {", "  1: {", "codes.1"),
        ('81: {twin: "01"}', '81: {twin: "00"}', "codes.81.twin"),
        ('82: {twin: "02"}', '82: {twin: "81"}', "codes.82.twin"),
        ('81: {twin: "01"}', '81: {twin: "01", action: home_plan}', "codes.81"),
        ('81: {twin: "01"}', "81: {meaning: Home}", "codes.81"),
        ("    hold: code 21 means law enforcement to some senders and death to others\n", "", "codes.21"),
        ("action: transfer}", "action: transfer, hold: why}", "codes.02"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place_of_what_is_wrong(old: str, new: str, key: str) -> None:
    wrong = TEXT.replace(old, new, 1)
    assert wrong != TEXT
    with pytest.raises(SettingsError) as caught:
        load_dispositions(parse(wrong, "dispositions.yaml"))
    assert key in [problem.key for problem in caught.value.problems]
    assert all(problem.line > 1 for problem in caught.value.problems)
