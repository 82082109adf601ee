"""Events that mean nothing to the charts: listed and counted; those about identities and deletions are held."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from heart import Heart, adt, merge

from engine.care.adt.event import Events, Meaning
from engine.domain.message import AckCode, EntryState


@pytest.fixture
def heart() -> Heart:
    return Heart()


@pytest.mark.parametrize("trigger", ["A20", "A56", "A63", "A99", "Z01", "ZZ9"])
def test_an_event_without_a_meaning_is_recorded_without_effect(heart: Heart, trigger: str) -> None:
    outcome = heart.send(adt(trigger, pv1={}))
    assert outcome.state is EntryState.PROCESSED
    assert [(effect.kind, effect.detail) for effect in outcome.effects] == [("recorded-without-effect", trigger)]
    assert (outcome.charts, outcome.holds) == ((), ())


@pytest.mark.parametrize("trigger", ["A20", "A56", "A99", "Z01"])
@pytest.mark.parametrize(
    ("pid", "is_dead", "asked"),
    [
        ({30: "Y"}, True, []),
        ({29: "20260309080000"}, True, []),
        ({30: "JA"}, False, ["death-unreadable"]),
        ({29: "20991231"}, False, ["death-in-future"]),
    ],
)
def test_a_death_that_an_event_without_a_meaning_tells_is_heard(
    heart: Heart, trigger: str, pid: dict[int, str], is_dead: bool, asked: list[str]
) -> None:
    heart.send(adt("A01", pv1={}))
    heart.now += timedelta(days=4)
    outcome = heart.send(adt(trigger, pid=pid, pv1={}, at="20260309120000"))
    assert (heart.chart().patient.deceased is True, [hold.code for hold in outcome.holds]) == (is_dead, asked)


@pytest.mark.parametrize("pid", [{30: "N"}, {30: '""'}, {29: '""'}, {29: "99991231"}])
def test_that_nobody_has_died_gives_an_event_no_meaning(heart: Heart, pid: dict[int, str]) -> None:
    outcome = heart.send(adt("A56", pid=pid, pv1={}))
    assert [effect.kind for effect in outcome.effects] == ["recorded-without-effect"]


def test_a_message_that_is_no_adt_is_recorded_without_effect(heart: Heart) -> None:
    outcome = heart.send(adt("A01", pv1={}).replace(b"ADT^A01", b"ORU^R01"))
    assert [(effect.kind, effect.detail) for effect in outcome.effects] == [("recorded-without-effect", "ORU^R01")]


@pytest.mark.parametrize("trigger", ["A17", "A24", "A29", "A37", "A41", "A44", "A45", "A47", "A49", "A51"])
def test_an_event_about_identities_that_lacks_the_other_side_is_held_on_the_patient_and_changes_nothing(
    heart: Heart, trigger: str
) -> None:
    heart.send(adt("A01", pv1={}))
    before = heart.chart()
    outcome = heart.send(adt(trigger, pid={5: "Roe^Other"}, pv1={}))
    (hold,) = outcome.holds
    assert (hold.code, hold.location) == ("event-not-supported", "PID-3")
    assert (hold.chart_id, hold.patient_key) == (before.id, "MRN:558181838")
    assert hold.detail.startswith(f"{trigger}: ")
    assert (outcome.chart_id, outcome.patient_key) == (before.id, "MRN:558181838")
    assert ("held", "event-not-supported") in {(effect.kind, effect.detail) for effect in outcome.effects}
    assert outcome.reason is not None
    assert outcome.reason.startswith("held for a person: ")
    assert heart.chart() == before


def test_each_patient_of_a_held_event_has_a_question(heart: Heart) -> None:
    heart.send(adt("A01", pv1={}))
    heart.send(adt("A01", pid3="2^^^MRN^MR", pv1={19: "V2^^^MRN"}))
    outcome = heart.send(adt("A17", pv1={}, segments=("PID|2||2^^^MRN^MR",)))
    assert [(hold.location, hold.patient_key) for hold in outcome.holds] == [
        ("PID-3", "MRN:558181838"),
        ("PID[2]-3", "MRN:2"),
    ]


@pytest.mark.parametrize("trigger", ["A24", "A45", "A47"])
@pytest.mark.parametrize(
    ("message", "mentioned"),
    [
        ({"pid": {30: "Y"}}, True),
        ({"pid": {29: "20260302080000"}}, True),
        ({"pv1": {36: "20"}}, True),  # expired
        ({"pid": {30: "JA"}}, True),  # it can't be read, and is for the same person to see to
        ({"pid": {30: "N"}}, False),
        ({"pid": {29: "99991231"}}, False),
        ({"pv1": {36: "01"}}, False),
        ({}, False),
    ],
)
def test_the_question_of_a_held_event_mentions_a_death(
    heart: Heart, trigger: str, message: dict[str, dict[int, str]], mentioned: bool
) -> None:
    (hold,) = heart.send(adt(trigger, **message)).holds
    assert ("says besides that the patient has died" in hold.detail) is mentioned


def test_the_death_of_the_second_patient_of_a_held_event_is_mentioned_to_them_alone(heart: Heart) -> None:
    death = "PID|2||2^^^MRN^MR" + 27 * "|" + "Y"
    one, other = heart.send(adt("A17", pv1={}, segments=(death,))).holds
    assert ["has died" in hold.detail for hold in (one, other)] == [False, True]


@pytest.mark.parametrize(("pid3", "key"), [("77^^^MRN^MR", "MRN:77"), ("", None), ("123-45-6789^^^USA^SS", None)])
def test_a_held_event_of_nobody_known_is_held_all_the_same(heart: Heart, pid3: str, key: str | None) -> None:
    outcome = heart.send(adt("A45", pid3=pid3))
    assert [(hold.chart_id, hold.patient_key) for hold in outcome.holds] == [(None, key)]
    assert outcome.charts == ()


def test_a_replay_of_a_held_event_asks_the_same_question(heart: Heart) -> None:
    first, second = heart.send(adt("A45")), heart.send(adt("A45"))
    assert [hold.key for hold in first.holds] == [hold.key for hold in second.holds]


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A36", "A39"])
def test_the_merges_of_older_versions_merge(heart: Heart, trigger: str) -> None:
    heart.send(adt("A01", pid3="2^^^MRN^MR", pv1={}))
    outcome = heart.send(merge("1", "2").replace(b"A40", trigger.encode()))
    assert outcome.holds == ()
    assert heart.chart("2").id == heart.chart("1").id
    assert heart.chart("1").patient.merged_from == ("MRN:2",)


def test_whether_an_event_without_a_meaning_is_held_is_the_sites_choice() -> None:
    heart = Heart()
    heart.channel = dataclasses.replace(
        heart.channel, events=Events({"A06": Meaning.HOLD, "A45": Meaning.RECORD, "Z01": Meaning.HOLD})
    )
    assert [len(heart.send(adt(trigger)).holds) for trigger in ("A06", "A45", "Z01")] == [1, 0, 1]


@pytest.mark.parametrize("trigger", ["A20", "A56", "Z01"])
def test_an_event_without_a_meaning_belongs_to_the_patient_it_names(heart: Heart, trigger: str) -> None:
    heart.send(adt("A01", pv1={}))
    outcome = heart.send(adt(trigger, pv1={}))
    assert (outcome.chart_id, outcome.patient_key) == (heart.chart().id, "MRN:558181838")
    assert outcome.charts == ()
    unknown = heart.send(adt(trigger, pid3="77^^^MRN^MR"))
    assert (unknown.chart_id, unknown.patient_key) == (None, "MRN:77")
    assert heart.send(adt(trigger, pid3="")).patient_key is None


@pytest.mark.parametrize("trigger", ["A1", "A001", "03", "A-3", "ADT_A01", "\u0410\u0033"])
def test_an_event_whose_code_is_none_is_recorded_without_effect_and_listed_with_the_patient(
    heart: Heart, trigger: str
) -> None:
    outcome = heart.send(adt(trigger, pv1={}))
    assert (outcome.state, outcome.application_ack, outcome.charts) == (EntryState.PROCESSED, AckCode.AA, ())
    assert [effect.kind for effect in outcome.effects] == ["recorded-without-effect"]
    assert outcome.patient_key == "MRN:558181838"
