"""A number that suddenly has another name and another birth date: held, whatever the event."""

from __future__ import annotations

import msgspec
import pytest
from heart import Heart, adt, merge

from engine.domain.encounter import EncounterStatus
from engine.domain.hold import HoldCode
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome

ANNA = {5: "Testcase^Anna", 7: "19450312"}
BOB = {5: "Other^Bob", 7: "19800701"}
HOME = {36: "01", 45: "20260306114500"}


@pytest.fixture
def heart() -> Heart:
    heart = Heart()
    heart.send(adt("A01", at="20260301120000", pid=ANNA, pv1={44: "20260301113000"}))
    return heart


def held(outcome: Outcome) -> list[HoldCode]:
    return [hold.code for hold in outcome.holds]


@pytest.mark.parametrize(
    ("trigger", "pv1"),
    [
        ("A01", {19: "V2^^^MRN", 44: "20260306113000"}),
        ("A01", {44: "20260301113000"}),
        ("A02", {3: "WARD2"}),
        ("A03", HOME),
        ("A04", {2: "E", 19: "V2^^^MRN"}),
        ("A05", {2: "P", 19: "V2^^^MRN"}),
        ("A08", {}),
        ("A11", {}),
        ("A13", {}),
        ("A28", None),
        ("A31", None),
    ],
)
def test_a_message_about_another_person_is_held_and_touches_nothing(
    heart: Heart, trigger: str, pv1: dict[int, str] | None
) -> None:
    before = heart.chart()
    outcome = heart.send(adt(trigger, pid=BOB | {13: "2125550143", 30: "Y"}, pv1=pv1))
    assert (outcome.state, held(outcome)) == (EntryState.PROCESSED, [HoldCode.PERSON_CONTRADICTED])
    (hold,) = outcome.holds
    assert (hold.chart_id, hold.patient_key, hold.location) == (before.id, "MRN:558181838", "PID-5")
    assert heart.chart() == before
    assert outcome.charts == ()
    assert outcome.reason is not None
    assert outcome.reason.startswith("held for a person")
    assert "held" in {effect.kind for effect in outcome.effects}


def test_a_discharge_of_the_other_person_makes_no_plan_from_the_first_ones_stay(heart: Heart) -> None:
    heart.send(adt("A03", pid=BOB, pv1=HOME))
    assert heart.chart().tasks == ()
    assert heart.chart().encounters[0].status is EncounterStatus.ACTIVE


@pytest.mark.parametrize("change", [{5: "Married^Anna"}, {5: "Other^Bob"}, {7: "19540312"}, {7: ""}, {5: ""}])
def test_one_of_the_two_may_change(heart: Heart, change: dict[int, str]) -> None:
    outcome = heart.send(adt("A03", pid=ANNA | change, pv1=HOME))
    assert outcome.holds == ()
    assert heart.chart().tasks != ()


def test_a_new_number_of_the_same_person_in_the_message_goes_nowhere(heart: Heart) -> None:
    heart.send(adt("A31", pid3="558181838^^^MRN^MR~77^^^MRN^PI", pid=BOB))
    assert [identifier.value for identifier in heart.chart().patient.identifiers] == ["558181838"]


def test_a_person_may_say_that_it_is_the_same_and_then_all_of_it_counts(heart: Heart) -> None:
    payload = adt("A03", pid=BOB, pv1=HOME)
    (hold,) = heart.send(payload).holds
    entry = msgspec.structs.replace(heart.entry(payload), replay_of=2, replay_root=2, decision=hold.key)
    outcome = heart.work(entry)
    assert outcome.holds == ()
    chart = heart.chart()
    assert (chart.patient.birth_date.text, chart.encounters[0].status) == ("1980-07-01", EncounterStatus.FINISHED)
    assert chart.tasks != ()
    assert heart.send(adt("A31", at="20260307120000", pid=BOB)).holds == ()


def test_a_replay_asks_again_as_long_as_nobody_has_decided(heart: Heart) -> None:
    payload = adt("A03", pid=BOB, pv1=HOME)
    heart.send(payload)
    entry = msgspec.structs.replace(heart.entry(payload), replay_of=2, replay_root=2)
    assert held(heart.work(entry)) == [HoldCode.PERSON_CONTRADICTED]


def test_a_replay_of_what_was_taken_is_no_question_after_name_and_date_were_corrected_one_by_one(heart: Heart) -> None:
    heart.send(adt("A31", at="20260302120000", pid=ANNA | {5: "Other^Bob"}))
    heart.send(adt("A31", at="20260303120000", pid=BOB))
    before = heart.chart()
    payload = adt("A01", at="20260301120000", pid=ANNA, pv1={44: "20260301113000"})
    outcome = heart.work(msgspec.structs.replace(heart.entry(payload), replay_of=1, replay_root=1))
    assert (outcome.holds, heart.chart()) == ((), before)


def test_a_newborn_is_renamed(heart: Heart) -> None:
    heart.send(adt("A01", pid3="9^^^MRN^MR", pid={5: "Doe^BABY BOY", 7: "20260301"}, pv1={19: "V9^^^MRN"}))
    assert (
        heart.send(adt("A08", pid3="9^^^MRN^MR", pid={5: "Roe^Tom", 7: "20260301"}, pv1={19: "V9^^^MRN"})).holds == ()
    )
    name = heart.chart("9").patient.name
    assert name is not None
    assert name.given == "Tom"


# --- merges ----------------------------------------------------------------------------------------------------------


def a40(survivor: str, merged: str, pid: dict[int, str]) -> bytes:
    return adt("A40", at="20260309120000", pid3=f"{survivor}^^^MRN^MR", pid=pid, segments=(f"MRG|{merged}^^^MRN^MR",))


def test_a_merge_whose_pid_is_another_person_than_the_survivor_is_held_whole(heart: Heart) -> None:
    heart.send(adt("A28", pid3="2^^^MRN^MR", pid=BOB))
    before = heart.chart(), heart.chart("2")
    outcome = heart.send(a40("558181838", "2", BOB))
    assert held(outcome) == [HoldCode.PERSON_CONTRADICTED]
    assert (heart.chart(), heart.chart("2")) == before


def test_a_merge_into_an_unknown_number_whose_pid_is_another_person_than_the_old_one_is_held(heart: Heart) -> None:
    before = heart.chart()
    outcome = heart.send(a40("2", "558181838", BOB))
    assert held(outcome) == [HoldCode.PERSON_CONTRADICTED]
    assert outcome.holds[0].chart_id == before.id
    assert heart.chart() == before
    entry = msgspec.structs.replace(
        heart.entry(a40("2", "558181838", BOB)), replay_of=2, replay_root=2, decision=outcome.holds[0].key
    )
    assert heart.work(entry).holds == ()
    assert heart.chart("2").id == heart.chart().id


def test_a_merge_of_the_same_person_is_applied(heart: Heart) -> None:
    heart.send(adt("A28", pid3="2^^^MRN^MR", pid=ANNA | {5: "Maiden^Anna"}))
    assert heart.send(a40("558181838", "2", ANNA)).holds == ()
    assert heart.chart("2").id == heart.chart().id


def test_another_group_of_the_same_merge_is_applied(heart: Heart) -> None:
    heart.send(adt("A28", pid3="2^^^MRN^MR", pid=ANNA))
    heart.send(adt("A28", pid3="4^^^MRN^MR", pid=ANNA))
    second = "PID|1||3^^^MRN^MR||Testcase^Anna||19450312"
    both = adt("A40", at="20260309120000", pid=BOB, segments=("MRG|2^^^MRN^MR", second, "MRG|4^^^MRN^MR"))
    assert held(heart.send(both)) == [HoldCode.PERSON_CONTRADICTED]
    assert heart.chart("2").id != heart.chart().id
    assert heart.chart("4").id == heart.chart("3").id


def test_where_the_surviving_number_knows_nobody_the_old_number_is_compared(heart: Heart) -> None:
    heart.send(adt("A31", at="20260302120000", pid3="2^^^MRN^MR", pid={5: "", 7: ""}))
    assert heart.send(merge("2", "558181838")).holds != ()  # the PID of `merge` is Jane Doe, the old number's is Anna


# --- a merge of two people -------------------------------------------------------------------------------------------


def merged(first: dict[int, str], second: dict[int, str], pid: dict[int, str]) -> tuple[Heart, bytes, Outcome]:
    """Two known patients, and the message that merges the second one into the first."""
    heart = Heart()
    heart.send(adt("A28", pid3="1^^^MRN^MR", pid=first))
    heart.send(adt("A28", pid3="2^^^MRN^MR", pid=second))
    payload = adt("A40", at="20260309120000", pid3="1^^^MRN^MR", pid=pid, segments=("MRG|2^^^MRN^MR",))
    return heart, payload, heart.send(payload)


@pytest.mark.parametrize("pid", [ANNA | {8: "F"}, {5: "", 7: "", 8: ""}])
def test_a_merge_of_two_clearly_different_people_is_held_and_merges_when_it_is_released(pid: dict[int, str]) -> None:
    heart, payload, outcome = merged(ANNA | {8: "F"}, BOB | {8: "M"}, pid)
    assert held(outcome) == [HoldCode.PERSON_CONTRADICTED]
    assert "the merge is of two patients" in outcome.holds[0].detail
    assert heart.chart("1").id != heart.chart("2").id
    again = msgspec.structs.replace(
        heart.entry(payload), replay_of=3, replay_root=3, decision="person-contradicted@PID-5"
    )
    assert held(heart.work(again)) == []
    assert heart.chart("1").id == heart.chart("2").id


@pytest.mark.parametrize(
    "second",
    [
        BOB | {8: "F"},
        BOB | {8: ""},
        BOB | {8: "U"},
        BOB | {7: "", 8: "M"},
        BOB | {7: "19450312", 8: "M"},
        BOB | {5: "Testcase^Anna", 8: "M"},
        {5: "", 7: "", 8: "M"},
    ],
)
def test_a_merge_of_two_charts_that_may_be_of_one_person_merges(second: dict[int, str]) -> None:
    heart, _, outcome = merged(ANNA | {8: "F"}, second, ANNA | {8: "F"})
    assert held(outcome) == []
    assert heart.chart("1").id == heart.chart("2").id
