"""Deaths that are certain, and those that are left to a person, with the plan as it is."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from heart import Heart, adt

from engine.care.protocol import tells_of_death
from engine.domain.chart import Chart
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import HoldCode
from engine.domain.moment import Moment
from engine.domain.outcome import Outcome
from engine.domain.task import TaskState
from engine.pipeline.death import decide_death

CHF = "DG1|1||I50.9^Heart failure^I10|||F"
DIABETES = "DG1|2||E11.9^Diabetes^I10|||F"
ADMITTED = {4: "E", 44: "20260301113000"}
HOME = {**ADMITTED, 36: "01", 45: "20260306114500"}
DEAD = {**ADMITTED, 36: "20", 45: "20260306114500"}
LATER = {4: "E", 19: "V2^^^MRN", 44: "20260308113000"}
EVENTS = [
    ("A01", LATER),
    ("A03", HOME),
    ("A04", {2: "E", 19: "V3^^^MRN", 44: "20260309090000"}),
    ("A08", HOME),
    ("A28", None),
    ("A31", None),
    ("A40", None),
]
"""Messages after the discharge that may speak of a death."""


@pytest.fixture
def heart() -> Heart:
    """A patient at home with a plan, on the tenth of March."""
    heart = Heart()
    heart.send(adt("A01", at="20260301120000", pv1=ADMITTED, segments=(CHF, DIABETES)))
    heart.send(adt("A03", at="20260306120000", pv1=HOME, segments=(CHF, DIABETES)))
    heart.now += timedelta(days=4)
    return heart


def says(
    trigger: str,
    pid: dict[int, str],
    pv1: dict[int, str] | None = None,
    at: str = "20260310120000",
    sender: str = "EPIC",
) -> bytes:
    segments = (CHF, DIABETES, *(("MRG|77^^^MRN^MR",) if trigger == "A40" else ()))
    payload = adt(trigger, at=at, pid=pid, pv1=pv1, segments=segments)
    return payload.replace(b"|EPIC|", f"|{sender}|".encode(), 1)


def codes(outcome: Outcome) -> list[str]:
    return [hold.key for hold in outcome.holds]


def planned(heart: Heart) -> set[str]:
    """Open tasks of a discharge; without those that tell of a death."""
    tasks = (task for task in heart.chart().tasks if task.state is TaskState.OPEN and not tells_of_death(task))
    return {task.kind for task in tasks if task.encounter is not None}


def questions(heart: Heart) -> list[str]:
    """Reasons of the open tasks that ask about the death."""
    return [task.reason for task in heart.chart().tasks if task.state is TaskState.OPEN and task.encounter is None]


def dead(heart: Heart) -> bool:
    return heart.chart().patient.deceased is True


def decided(heart: Heart, payload: bytes, first: Outcome, key: str) -> Outcome:
    """The replay that `handoff held release` makes."""
    root = first.replay_root or first.entry_id
    heart.now += timedelta(hours=1)
    return heart.work(msgspec.structs.replace(heart.entry(payload), replay_of=root, replay_root=root, decision=key))


def turned_down(heart: Heart, outcome: Outcome) -> Chart:
    """What `handoff held dismiss` makes of the chart."""
    (hold,) = outcome.holds
    root = outcome.replay_root or outcome.entry_id
    return decide_death(heart.chart(), root, hold.code, hold.location, by="anna", at=heart.now)


def in_doubt(heart: Heart, outcome: Outcome, code: str, plan: set[str], *, was_dead: bool = False) -> None:
    assert codes(outcome) == [code]
    assert outcome.reason is not None
    assert outcome.reason.startswith("held for a person")
    assert dead(heart) is was_dead
    assert planned(heart) == plan
    assert len(questions(heart)) == 1
    assert "A death is reported but not certain" in questions(heart)[0]


# --- what is certain -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pid", [{30: "Y"}, {30: "y"}, {29: "20260310110000"}, {29: "20260310", 30: "Y"}, {29: "202603"}]
)
@pytest.mark.parametrize(("trigger", "pv1"), EVENTS)
def test_a_death_that_is_certain_ends_everything(
    heart: Heart, trigger: str, pv1: dict[int, str] | None, pid: dict[int, str]
) -> None:
    outcome = heart.send(says(trigger, pid, None if trigger in {"A01", "A04"} else pv1))
    assert [code for code in codes(outcome) if code.startswith("death")] == []
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


@pytest.mark.parametrize(
    "pid",
    [
        {30: "N"},
        {30: ""},
        {29: ""},
        {29: "99991231"},
        {29: "00010101"},
        {29: "00000000"},
        {29: "18000101"},
        {29: "180001010000"},
        {29: "18000101", 30: "N"},
        {29: "17530101"},
        {7: "", 29: "18000101"},
    ],
)
def test_no_death_and_a_placeholder_for_none_change_nothing(heart: Heart, pid: dict[int, str]) -> None:
    before = planned(heart)
    outcome = heart.send(says("A31", pid))
    assert (codes(outcome), dead(heart), planned(heart), questions(heart)) == ([], False, before, [])


def test_a_death_is_taken_back_by_the_sender_that_said_it(heart: Heart) -> None:
    before = planned(heart)
    heart.send(says("A31", {30: "Y"}, at="20260310100000"))
    outcome = heart.send(says("A31", {30: "N"}, at="20260310110000"))
    assert (codes(outcome), dead(heart), planned(heart)) == ([], False, before - {"on_call_page"})  # called once


# --- late (F1) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pid", "location"),
    [({30: "Y"}, "PID-30"), ({29: "20260310105000", 30: "Y"}, "PID-29"), ({29: "20260310105000"}, "PID-29")],
)
@pytest.mark.parametrize(("trigger", "pv1"), EVENTS)
@pytest.mark.parametrize("other", ["EPIC", "LAB"])
def test_a_death_behind_a_newer_no_is_held(
    heart: Heart, trigger: str, pv1: dict[int, str] | None, pid: dict[int, str], location: str, other: str
) -> None:
    plan = planned(heart)
    heart.send(says("A31", {30: "N"}, at="20260310130000", sender=other))
    payload = says(trigger, pid, None if trigger in {"A01", "A04"} else pv1, at="20260310110000")
    outcome = heart.send(payload)
    death = [code for code in codes(outcome) if code.startswith("death")]
    assert death == [f"death-stale@{location}"]
    assert (dead(heart), planned(heart), len(questions(heart))) == (False, plan, 1)
    released = decided(heart, payload, outcome, death[0])
    assert [code for code in codes(released) if code.startswith("death")] == []
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


def test_a_death_that_is_certain_is_told_to_what_was_asked_before_and_one_in_doubt_is_not(heart: Heart) -> None:
    heart.send(says("A31", {30: "N"}, at="20260310130000"))
    doubtful = heart.send(says("A31", {30: "Y"}, at="20260310110000"))
    assert (codes(doubtful), doubtful.facts) == (["death-stale@PID-30"], ())
    certain = heart.send(says("A31", {30: "Y"}, at="20260310140000"))
    assert [(fact.chart_id, fact.encounter) for fact in certain.facts] == [(heart.chart().id, None)]
    assert heart.send(says("A31", {30: "Y"}, at="20260310150000")).facts == ()


@pytest.mark.parametrize(("trigger", "sender"), [("A31", "EPIC"), ("A08", "EPIC"), ("A31", "LAB")])
def test_a_later_no_of_a_sender_that_did_not_say_so_before_is_asked_after_a_death_by_disposition(
    heart: Heart, trigger: str, sender: str
) -> None:
    heart.send(says("A08", {}, DEAD, at="20260306130000"))
    assert dead(heart)
    payload = says(trigger, {30: "N"}, HOME if trigger == "A08" and sender == "LAB" else None, sender=sender)
    outcome = heart.send(payload)
    assert codes(outcome) == ["death-contradicted@PID-30"]
    assert (dead(heart), len(questions(heart))) == (True, 1)
    again = heart.send(says("A31", {30: "N"}, at="20260310130000", sender=sender))
    assert codes(again) == []  # one question a sender
    decided(heart, payload, outcome, "death-contradicted@PID-30")
    assert (dead(heart), questions(heart)) == (False, [])


def test_a_sender_that_says_no_in_the_message_of_the_death_is_not_asked(heart: Heart) -> None:
    assert codes(heart.send(says("A08", {30: "N"}, DEAD, at="20260306130000"))) == []
    assert codes(heart.send(says("A31", {30: "N"}))) == []
    assert dead(heart)
    assert codes(heart.send(says("A31", {30: "N"}, at="20260310130000", sender="LAB"))) == ["death-contradicted@PID-30"]


def test_a_disposition_of_death_behind_a_newer_discharge_is_held(heart: Heart) -> None:
    plan = planned(heart)
    payload = says("A08", {}, DEAD, at="20260306110000")
    outcome = heart.send(payload)
    in_doubt(heart, outcome, "death-stale@PV1-36", plan)
    assert heart.chart().encounters[0].disposition == "01"
    decided(heart, payload, outcome, "death-stale@PV1-36")
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


@pytest.mark.parametrize("disposition", ["20", "41", "42"])
@pytest.mark.parametrize("trigger", ["A01", "A02", "A08"])
def test_a_disposition_of_death_of_a_stay_that_nobody_has_ended_is_held(
    heart: Heart, trigger: str, disposition: str
) -> None:
    heart.send(says("A01", {}, LATER, at="20260308120000"))
    plan = planned(heart)
    payload = says(trigger, {}, LATER | {36: disposition})
    outcome = heart.send(payload)
    in_doubt(heart, outcome, "death-contradicted@PV1-36", plan)
    assert heart.chart().encounters[-1].status is EncounterStatus.ACTIVE
    decided(heart, payload, outcome, "death-contradicted@PV1-36")
    assert (dead(heart), questions(heart)) == (True, [])


def test_the_discharge_answers_a_death_that_an_update_told_before_it(heart: Heart) -> None:
    heart.send(says("A01", {}, LATER, at="20260308120000"))
    first = heart.send(says("A08", {}, LATER | {36: "20"}, at="20260310100000"))
    again = heart.send(says("A08", {}, LATER | {36: "20"}, at="20260310101500"))
    assert (codes(first), codes(again)) == (["death-contradicted@PV1-36"], [])
    assert "death-without-discharge" in again.deviations
    end = heart.send(says("A03", {}, LATER | {36: "20", 45: "20260310110000"}, at="20260310110000"))
    assert (codes(end), dead(heart), questions(heart)) == ([], True, [])
    assert end.facts, "what was asked is answered"


def test_a_cancel_that_repeats_the_disposition_it_takes_back_asks_nothing(heart: Heart) -> None:
    heart.send(says("A08", {}, DEAD, at="20260310100000"))
    outcome = heart.send(says("A13", {}, DEAD, at="20260310110000"))
    assert (codes(outcome), dead(heart)) == ([], False)


def test_a_replay_of_a_death_that_was_taken_back_is_no_question(heart: Heart) -> None:
    payload = says("A31", {30: "Y"}, at="20260310100000")
    first = heart.send(payload)
    heart.send(says("A31", {30: "N"}, at="20260310110000"))
    root = first.entry_id
    again = heart.work(msgspec.structs.replace(heart.entry(payload), replay_of=root, replay_root=root))
    assert (codes(again), dead(heart)) == ([], False)


def test_a_replay_of_a_disposition_that_was_corrected_is_no_question(heart: Heart) -> None:
    payload = says("A08", {}, DEAD, at="20260310100000")
    first = heart.send(payload)
    heart.send(says("A08", {}, HOME, at="20260310110000"))
    again = heart.work(
        msgspec.structs.replace(heart.entry(payload), replay_of=first.entry_id, replay_root=first.entry_id)
    )
    assert (codes(again), dead(heart)) == ([], False)


# --- contradicted (F2) -----------------------------------------------------------------------------------------------


def test_another_senders_no_undoes_no_death(heart: Heart) -> None:
    heart.send(says("A31", {30: "Y"}, at="20260310100000"))
    payload = says("A31", {30: "N"}, at="20260310110000", sender="LAB")
    outcome = heart.send(payload)
    in_doubt(heart, outcome, "death-contradicted@PID-30", set(), was_dead=True)
    decided(heart, payload, outcome, "death-contradicted@PID-30")
    assert (dead(heart), questions(heart)) == (False, [])
    assert "tcm_contact" in planned(heart)


@pytest.mark.parametrize(("trigger", "pv1"), EVENTS)
def test_a_default_no_of_another_sender_is_one_question_and_not_one_a_message(
    heart: Heart, trigger: str, pv1: dict[int, str] | None
) -> None:
    heart.send(says("A31", {29: "20260310090000"}, at="20260310100000"))
    first = heart.send(says("A31", {30: "N"}, at="20260310110000", sender="LAB"))
    again = heart.send(says(trigger, {30: "N"}, pv1, at="20260310120000", sender="LAB"))
    assert codes(first) == ["death-contradicted@PID-30"]
    assert "death-contradicted@PID-30" not in codes(again)
    assert "alive-against-death" in again.deviations
    third = heart.send(says("A31", {30: "N"}, at="20260310130000", sender="RAD"))
    assert codes(third) == ["death-contradicted@PID-30"]
    assert (dead(heart), len(questions(heart))) == (True, 1)


def test_of_two_senders_that_said_yes_one_alone_takes_it_not_back(heart: Heart) -> None:
    heart.send(says("A31", {30: "Y"}, at="20260310100000"))
    heart.send(says("A31", {30: "Y"}, at="20260310101000", sender="LAB"))
    outcome = heart.send(says("A31", {30: "N"}, at="20260310110000", sender="LAB"))
    in_doubt(heart, outcome, "death-contradicted@PID-30", set(), was_dead=True)


@pytest.mark.parametrize(
    "death", [says("A08", {}, DEAD, at="20260307110000"), says("A31", {30: "Y"}, at="20260307110000")]
)
@pytest.mark.parametrize("disposition", ["01", "03", "06", "07", "1"])
def test_a_later_account_that_the_patient_left_alive_undoes_no_death(
    heart: Heart, death: bytes, disposition: str
) -> None:
    heart.send(death)
    assert dead(heart)
    assert codes(heart.send(says("A01", {}, LATER, at="20260308120000"))) == []
    payload = says("A03", {}, LATER | {36: disposition, 45: "20260310090000"})
    outcome = heart.send(payload)
    in_doubt(heart, outcome, "death-contradicted@PV1-36", set(), was_dead=True)
    again = heart.send(says("A08", {}, LATER | {36: disposition, 45: "20260310090000"}, at="20260310123000"))
    assert codes(again) == []
    decided(heart, payload, outcome, "death-contradicted@PV1-36")
    assert (dead(heart), questions(heart)) == (False, [])
    assert heart.chart().encounter("MRN:V2") is not None
    assert any(task.encounter == "MRN:V2" and task.state is TaskState.OPEN for task in heart.chart().tasks)


def test_a_death_by_disposition_heard_of_after_a_later_stay_was_left_alive_is_held(heart: Heart) -> None:
    heart.send(says("A01", {}, LATER, at="20260308120000"))
    heart.send(says("A03", {}, LATER | {36: "01", 45: "20260310090000"}))
    plan = planned(heart)
    payload = says("A08", {}, DEAD, at="20260310130000")
    outcome = heart.send(payload)
    in_doubt(heart, outcome, "death-contradicted@PV1-36", plan)
    decided(heart, payload, outcome, "death-contradicted@PV1-36")
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])
    heart.send(says("A31", {13: "2125550143"}, at="20260310150000"))
    assert dead(heart)


@pytest.mark.parametrize("class_", ["O", "P", "R", "B"])
def test_an_account_of_another_class_says_nothing_against_a_death(heart: Heart, class_: str) -> None:
    heart.send(says("A31", {30: "Y"}, at="20260307110000"))
    account = {2: class_, 19: "V5^^^MRN", 44: "20260308113000", 36: "01", 45: "20260310090000"}
    outcome = heart.send(says("A03", {}, account))
    assert (codes(outcome), dead(heart), questions(heart)) == ([], True, [])


def test_news_of_the_stay_before_the_death_say_nothing_against_it(heart: Heart) -> None:
    heart.send(says("A31", {29: "20260309080000"}, at="20260309110000"))
    outcome = heart.send(says("A08", {13: "2125550143"}, HOME | {36: "06"}))
    assert (codes(outcome), dead(heart), questions(heart)) == ([], True, [])


# --- unreadable (F3) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["YES", "1", "T", "true", "D", "0", "X", "J", "deceased", "Y?"])
@pytest.mark.parametrize(("trigger", "pv1"), EVENTS)
def test_a_mark_of_death_that_is_not_of_the_table_is_held(
    heart: Heart, trigger: str, pv1: dict[int, str] | None, mark: str
) -> None:
    plan = planned(heart)
    payload = says(trigger, {30: mark}, None if trigger in {"A01", "A04"} else pv1)
    outcome = heart.send(payload)
    assert [code for code in codes(outcome) if code.startswith("death")] == ["death-unreadable@PID-30"]
    assert (dead(heart), planned(heart), len(questions(heart))) == (False, plan, 1)
    decided(heart, payload, outcome, "death-unreadable@PID-30")
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


@pytest.mark.parametrize("pid", [{29: "yesterday"}, {29: "20260230"}, {29: "03/10/2026"}, {29: "20261301", 30: "N"}])
def test_a_time_of_death_that_can_not_be_read_is_held(heart: Heart, pid: dict[int, str]) -> None:
    in_doubt(heart, heart.send(says("A31", pid)), "death-unreadable@PID-29", planned(heart))


@pytest.mark.parametrize("pid", [{29: "20260310090000", 30: "YES"}, {29: "yesterday", 30: "Y"}])
def test_a_death_that_the_other_field_says_clearly_is_certain(heart: Heart, pid: dict[int, str]) -> None:
    outcome = heart.send(says("A31", pid))
    assert (codes(outcome), dead(heart)) == ([], True)


def test_an_unreadable_mark_of_a_patient_who_is_dead_is_no_question(heart: Heart) -> None:
    heart.send(says("A31", {30: "Y"}, at="20260310100000"))
    assert codes(heart.send(says("A31", {30: "YES"}))) == []
    assert dead(heart)


def test_several_doubts_are_several_questions_and_one_task(heart: Heart) -> None:
    for minute, mark in enumerate(("YES", "1", "D")):
        assert codes(heart.send(says("A31", {30: mark}, at=f"2026031012{minute:02}00"))) == ["death-unreadable@PID-30"]
    assert len(questions(heart)) == 1


# --- times that can't be (F4) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("20991231", "death-in-future"),
        ("20260320", "death-in-future"),
        ("20260311180000", "death-in-future"),
        ("2027", "death-in-future"),
        ("19470101", "death-contradicted"),
        ("1948", ""),
        ("19000101", "death-contradicted"),
        ("20250310", "death-contradicted"),
        ("20260228235900", "death-contradicted"),
    ],
)
@pytest.mark.parametrize("mark", ["", "Y"])
def test_a_time_of_death_that_can_not_be_is_held(heart: Heart, at: str, code: str, mark: str) -> None:
    plan = planned(heart)
    payload = says("A31", {29: at, 30: mark})
    outcome = heart.send(payload)
    if not code:  # the year of birth: before the stay, too
        code = "death-contradicted"
    in_doubt(heart, outcome, f"{code}@PID-29", plan)
    decided(heart, payload, outcome, f"{code}@PID-29")
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])
    assert heart.chart().patient.deceased_at is None  # it was not then


def test_a_time_that_can_not_be_changes_no_death_that_is_certain(heart: Heart) -> None:
    heart.send(says("A08", {}, DEAD, at="20260310100000"))
    outcome = heart.send(says("A31", {29: "20991231"}))
    assert (codes(outcome), dead(heart)) == ([], True)
    assert "death-in-future:PID-29" in outcome.deviations
    assert heart.chart().patient.deceased_at == Moment.of("2026-03-06T11:45:00-05:00")


def test_an_admission_after_the_time_of_death_in_the_same_message_is_held() -> None:
    heart = Heart()
    outcome = heart.send(adt("A01", pid={29: "20260201"}, pv1={44: "20260306113000"}))
    assert codes(outcome) == ["death-contradicted@PID-29"]
    assert heart.chart().encounters[0].status is EncounterStatus.ACTIVE


@pytest.mark.parametrize(
    ("died", "admitted", "code"),
    [
        ("20260306", "20260306203000", ""),  # 7 March in UTC, and the same day where the patient lay
        ("20260306", "20260306", ""),
        ("20260306", "20260307", "death-contradicted@PID-29"),
        ("20260306", "20260307000000", "death-contradicted@PID-29"),
        ("202603", "20260306113000", ""),
        ("202602", "20260306113000", "death-contradicted@PID-29"),
        ("2026030611", "20260306113000", ""),  # within the hour
        ("2026030610", "20260306113000", "death-contradicted@PID-29"),
        ("202603061130", "20260306113030", ""),  # within the minute
    ],
)
def test_a_death_is_before_an_admission_as_far_as_both_times_tell(died: str, admitted: str, code: str) -> None:
    heart = Heart()
    heart.now += timedelta(days=4)
    assert codes(heart.send(adt("A01", pid={29: died}, pv1={44: admitted}))) == ([code] if code else [])


# --- merges ----------------------------------------------------------------------------------------------------------


def old_record(heart: Heart, pid: dict[int, str], at: str, sender: str = "EPIC") -> None:
    heart.send(says("A31", pid, at=at, sender=sender).replace(b"558181838^^^MRN", b"77^^^MRN"))


def test_a_dead_and_a_living_chart_that_fit_are_a_dead_patient(heart: Heart) -> None:
    old_record(heart, {30: "Y"}, "20260310100000")
    outcome = heart.send(says("A40", {}))
    assert (codes(outcome), dead(heart), planned(heart)) == ([], True, set())


def test_a_merge_of_a_dead_chart_with_one_that_was_seen_alive_after_that_is_a_question(heart: Heart) -> None:
    plan = planned(heart)
    old_record(heart, {29: "20260115", 30: "Y"}, "20260120100000")
    payload = says("A40", {})
    outcome = heart.send(payload)
    assert codes(outcome) == ["death-contradicted@MRG-1"]
    assert (planned(heart), len(questions(heart))) == (plan, 1)
    root = outcome.entry_id
    again = heart.work(msgspec.structs.replace(heart.entry(payload), replay_of=root, replay_root=root))
    assert codes(again) == ["death-contradicted@MRG-1"]
    decided(heart, payload, outcome, "death-contradicted@MRG-1")
    assert (dead(heart), planned(heart), questions(heart)) == (False, plan, [])


@pytest.mark.parametrize("said", [{30: "Y"}, {29: "20260305080000"}, {29: "20260305", 30: "Y"}], ids=str)
@pytest.mark.parametrize("into_the_dead", [False, True])
def test_a_merge_of_a_death_that_was_said_before_the_other_one_went_home_is_a_question(
    heart: Heart, said: dict[int, str], *, into_the_dead: bool
) -> None:
    plan = planned(heart)
    old_record(heart, said, "20260305100000")
    payload = says("A40", {})
    if into_the_dead:
        payload = payload.replace(b"77^^^MRN", b"88^^^MRN").replace(b"558181838^^^MRN", b"77^^^MRN")
        payload = payload.replace(b"88^^^MRN", b"558181838^^^MRN")
    outcome = heart.send(payload)
    assert codes(outcome) == ["death-contradicted@MRG-1"]
    chart = next(chart for chart in heart.charts.by_id.values() if chart.merged_into is None)
    assert {task.kind for task in chart.tasks if task.state is TaskState.OPEN and task.encounter} == plan
    assert len([task for task in chart.tasks if task.state is TaskState.OPEN and not task.encounter]) == 1


def test_a_merge_with_a_newer_no_of_another_sender_is_a_question(heart: Heart) -> None:
    heart.send(says("A31", {30: "N"}, at="20260310110000", sender="LAB"))
    plan = planned(heart)
    old_record(heart, {30: "Y"}, "20260310100000")
    outcome = heart.send(says("A40", {}))
    assert codes(outcome) == ["death-contradicted@MRG-1"]
    assert (planned(heart), len(questions(heart))) == (plan, 1)


# --- decided ---------------------------------------------------------------------------------------------------------


def test_when_a_death_is_turned_down_the_task_goes_and_the_plan_goes_on(heart: Heart) -> None:
    plan = planned(heart)
    payload = says("A31", {30: "YES"})
    outcome = heart.send(payload)
    chart = turned_down(heart, outcome)
    heart.charts.add(chart)
    assert (dead(heart), planned(heart), questions(heart)) == (False, plan, [])
    (task,) = [task for task in chart.tasks if task.encounter is None]
    assert (task.state, task.ended_by, task.ended_at) == (TaskState.RETRACTED, "anna", heart.now)
    assert turned_down(heart, outcome) is chart
    root = outcome.entry_id
    heart.work(msgspec.structs.replace(heart.entry(payload), replay_of=root, replay_root=root))
    assert (dead(heart), planned(heart), questions(heart)) == (False, plan, [])


def test_the_task_stays_as_long_as_another_message_is_in_doubt(heart: Heart) -> None:
    first = heart.send(says("A31", {30: "YES"}, at="20260310100000"))
    heart.send(says("A31", {29: "20991231"}, at="20260310110000"))
    heart.charts.add(turned_down(heart, first))
    assert len(questions(heart)) == 1


def test_when_the_no_to_a_death_is_turned_down_its_sender_asks_no_more(heart: Heart) -> None:
    heart.send(says("A31", {30: "Y"}, at="20260310100000"))
    outcome = heart.send(says("A31", {30: "N"}, at="20260310110000", sender="LAB"))
    heart.charts.add(turned_down(heart, outcome))
    assert questions(heart) == []
    again = heart.send(says("A31", {30: "N"}, sender="LAB"))
    assert (codes(again), dead(heart), questions(heart)) == ([], True, [])


def test_when_a_merge_is_turned_down_as_proof_of_life_the_plan_ends(heart: Heart) -> None:
    old_record(heart, {29: "20260115", 30: "Y"}, "20260120100000")
    outcome = heart.send(says("A40", {}))
    heart.charts.add(turned_down(heart, outcome))
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


def test_a_task_that_a_person_has_closed_is_not_asked_for_again_until_there_is_a_new_doubt(heart: Heart) -> None:
    heart.send(says("A31", {30: "YES"}, at="20260310100000"))
    chart = heart.chart()
    done = tuple(
        msgspec.structs.replace(task, state=TaskState.DONE) if task.encounter is None else task for task in chart.tasks
    )
    heart.charts.add(msgspec.structs.replace(chart, tasks=done))
    heart.send(says("A31", {13: "2125550143"}, at="20260310110000"))
    assert questions(heart) == []
    heart.send(says("A31", {30: "YES"}, at="20260310120000"))
    assert len(questions(heart)) == 1


def test_a_clear_death_ends_the_question(heart: Heart) -> None:
    heart.send(says("A31", {30: "YES"}, at="20260310100000"))
    heart.send(says("A31", {30: "Y"}, at="20260310110000"))
    assert (dead(heart), planned(heart), questions(heart)) == (True, set(), [])


def test_every_code_has_a_sentence_for_a_person(heart: Heart) -> None:
    outcome = heart.send(says("A31", {29: "20250310"}))
    (hold,) = outcome.holds
    assert hold.code is HoldCode.DEATH_CONTRADICTED
    assert "before the admission" in hold.detail
    assert "2025" not in hold.detail
