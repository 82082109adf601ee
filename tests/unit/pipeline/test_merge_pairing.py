"""What a merge never does, however its numbers are written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from heart import Heart, adt
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.message import EntryState

AT = "20260309120000"


def a40(pid3: str, mrg: str) -> bytes:
    return adt("A40", at=AT, pid3=pid3, segments=(mrg,))


def living(heart: Heart) -> set[str]:
    return {chart.patient.key for chart in heart.charts.by_id.values() if chart.merged_into is None}


# --- external and alternate numbers (MRG-4 was PID-2, MRG-2 was PID-4) never pair with those of PID-3


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A39", "A40"])
@pytest.mark.parametrize(("pid", "mrg"), [({2: "E1", 3: "1"}, "MRG||||2"), ({4: "E1", 3: "1"}, "MRG||2")])
def test_a_number_that_was_another_field_s_is_not_taken_for_one_of_pid_3(
    trigger: str, pid: dict[int, str], mrg: str
) -> None:
    heart = Heart()
    for number in ("1", "2"):
        heart.send(adt("A28", pid3=number))
    outcome = heart.send(adt(trigger, at=AT, pid=pid, segments=(mrg,)))
    assert outcome.state is EntryState.DEAD
    assert living(heart) == {"MRN:1", "MRN:2"}


# --- a number of MRG-1 without a type

MR_ONLY = {"authority": "MRN", "types": ["MR"]}


@pytest.mark.parametrize("setting", [{}, {"identity": MR_ONLY}])
@pytest.mark.parametrize(
    "pid3", ["1^^^MRN^MR", "9^^^MRN^SS~1^^^MRN^MR", "1^^^MRN^MR~9^^^MRN^SS", "8^^^MRN^AN~9^^^MRN^SS~1^^^MRN^MR"]
)
def test_the_only_old_number_is_the_patient_s_though_it_has_no_type(pid3: str, setting: dict[str, Any]) -> None:
    heart = Heart(**setting)
    heart.send(adt("A28", pid3="2^^^MRN^MR"))
    assert heart.send(a40(pid3, "MRG|2^^^MRN")).state is EntryState.PROCESSED
    assert living(heart) == {"MRN:1"}


BESIDES = ("1^^^MRN^MR~9^^^MRN^SS", "2^^^MRN^MR~3^^^MRN")
"""The second old number may be the patient's, or the one that the SSN of PID-3 was."""


@pytest.mark.parametrize("known", ["MR", "PI", ""])
@pytest.mark.parametrize(
    ("pid3", "mrg", "place"),
    [(*BESIDES, 2), ("9^^^MRN^AN~1^^^MRN^MR", "3^^^MRN~2^^^MRN^MR", 1),
     ("1^^^MRN^MR~9^^^MRN^SS", "2^^^MRN^MR~7^^^MRN^SS~3^^^MRN", 3)],
)  # fmt: skip
def test_an_old_number_that_may_be_no_patient_s_is_asked_about_when_a_patient_is_known_by_it(
    pid3: str, mrg: str, place: int, known: str
) -> None:
    heart = Heart()
    for number in ("2^^^MRN^MR", f"3^^^MRN^{known}"):
        heart.send(adt("A28", pid3=number))
    outcome = heart.send(a40(pid3, f"MRG|{mrg}"))
    assert [(hold.code, hold.location) for hold in outcome.holds] == [("move-unclear", f"MRG-1[{place}]")]
    assert living(heart) == {"MRN:1", "MRN:3"}
    again = heart.entry(a40(pid3, f"MRG|{mrg}"))
    assert (
        heart.work(msgspec.structs.replace(again, replay_of=1, replay_root=1, decision=outcome.holds[0].key)).holds
        == ()
    )
    assert living(heart) == {"MRN:1"}


def test_an_old_number_that_may_be_no_patient_s_and_is_not_known_stands_on_the_list_of_the_feed() -> None:
    heart = Heart()
    outcome = heart.send(a40(BESIDES[0], f"MRG|{BESIDES[1]}"))
    assert (outcome.holds, living(heart)) == ((), {"MRN:1"})
    assert "old-number-unsure:MRG-1" in outcome.deviations
    assert [item.kind for item in outcome.quality if item.kind == "old_number_unsure"]


def test_a_merge_of_which_no_old_number_is_surely_a_patient_s_is_dead_lettered() -> None:
    outcome = Heart().send(a40("9^^^MRN^SS~8^^^MRN^AN~1^^^MRN^MR", "MRG|2^^^MRN~3^^^MRN"))
    assert outcome.dead_letter is not None
    assert (outcome.dead_letter.error, outcome.dead_letter.location) == ("merge-pairing", "MRG-1[1]")


def test_a_number_without_a_type_and_without_a_partner_is_not_left_out() -> None:
    outcome = Heart(identity=MR_ONLY).send(a40("1^^^WEST^MR", "MRG|3^^^MRN~2^^^WEST^MR"))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "merge-pairing"


def test_a_key_without_a_type_does_not_take_that_of_a_number_that_is_none() -> None:
    heart = Heart()
    heart.send(adt("A28", pid3="1^^^MRN^MR"))
    heart.send(a40("1^^^MRN", "MRG|8^^^MRN^SS~2^^^MRN^MR"))
    assert living(heart) == {"MRN:1"}


@pytest.mark.parametrize("trigger", ["A43", "A46", "A47", "A48"])
def test_a_number_that_becomes_another_one_may_lack_its_type(trigger: str) -> None:
    heart = Heart(identity=MR_ONLY)
    heart.send(adt("A28", pid3="1^^^MRN^MR"))
    heart.send(adt(trigger, at=AT, pid3="9^^^MRN^MR", segments=("MRG|1^^^MRN",)))
    assert heart.chart("1").id == heart.chart("9").id


@pytest.mark.parametrize("trigger", ["A44", "A45"])
def test_a_move_names_whose_a_stay_was_also_by_a_number_without_a_type(trigger: str) -> None:
    heart = Heart(identity=MR_ONLY)
    heart.send(adt("A01", pid3="1^^^MRN^MR", pid={18: "A1"}, pv1={}))
    move = adt(
        trigger, at=AT, pid3="2^^^MRN^MR", pid={5: "Roe^Jay", 18: "A1"}, pv1={}, segments=("MRG|1^^^MRN||A1||V1",)
    )
    assert heart.send(move).holds == ()
    assert (len(heart.chart("1").encounters), len(heart.chart("2").encounters)) == (0, 1)


# --- what a merge never does

_CX = st.tuples(st.sampled_from("1234"), st.sampled_from(["MRN", "WEST", ""]), st.sampled_from(["MR", "PI", "", "SS"]))
_LISTS = st.lists(_CX, min_size=1, max_size=3)


def _written(numbers: list[tuple[str, str, str]]) -> str:
    return "~".join(f"{value}^^^{authority}^{type_}" for value, authority, type_ in numbers)


def _key(number: tuple[str, str, str]) -> tuple[str, str, str]:
    return number[0], number[1] or "MRN", number[2]


@settings(max_examples=300, deadline=None)
@given(_LISTS, _LISTS, st.lists(_LISTS, max_size=5))
def test_a_merge_never_goes_across_authorities_and_touches_nobody_whom_it_does_not_name(
    pid3: list[tuple[str, str, str]], mrg: list[tuple[str, str, str]], known: list[list[tuple[str, str, str]]]
) -> None:
    heart = Heart()
    for numbers in known:
        heart.send(adt("A28", pid3=_written(numbers)))
    before = dict(heart.charts.by_id)
    heart.send(a40(_written(pid3), f"MRG|{_written(mrg)}"))

    def leads(number: tuple[str, str, str]) -> set[str]:
        """The charts that a number leads to; a type that the message or the chart lacks is no difference."""
        value, authority, type_ = _key(number)
        return {
            id_
            for id_, chart in before.items()
            for known in chart.patient.identifiers
            if (known.value, known.authority) == (value, authority)
            and ("" in {type_, known.type} or known.type == type_)
        }

    named = {id_ for number in (*pid3, *mrg) for id_ in leads(number)}
    changed = {id_ for id_, chart in before.items() if heart.charts.by_id[id_] != chart}
    assert changed <= named
    authorities = {_key(number)[1] for number in pid3}
    for id_ in changed:
        if heart.charts.by_id[id_].merged_into is not None:
            assert any(id_ in leads(number) and _key(number)[1] in authorities for number in mrg)
