"""The pure heart, whole: messages in, outcomes out, with the shipped configuration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from heart import NOW, Heart, adt, merge

from engine.care.protocol import tells_of_death
from engine.domain.delivery import Operation, Stage
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.message import AckCode, Entry, EntryState
from engine.domain.moment import Moment
from engine.domain.score import Band
from engine.domain.task import TaskState
from engine.errors import Fault
from engine.pipeline.process import process

CHF = "DG1|1||I50.9^Heart failure^I10|||F"
DIABETES = "DG1|2||E11.9^Diabetes^I10|||F"
ADMITTED = {4: "E", 44: "20260301113000"}
HOME = {**ADMITTED, 36: "01", 45: "20260306114500"}
AGAIN = {4: "E", 19: "V2^^^MRN", 44: "20260308113000"}
"""A second stay."""


@pytest.fixture
def heart() -> Heart:
    return Heart()


def admit(heart: Heart) -> None:
    heart.send(adt("A01", at="20260301120000", pv1=ADMITTED, segments=(CHF, DIABETES)))


def discharge(heart: Heart, at: str = "20260306120000", **pv1: str) -> None:
    heart.send(adt("A03", at=at, pv1=HOME, segments=(CHF, DIABETES)))


def open_kinds(heart: Heart) -> set[str]:
    return {task.kind for task in heart.chart().tasks if task.state is TaskState.OPEN}


def planned_kinds(heart: Heart) -> set[str]:
    """Without what tells of a death."""
    tasks = (task for task in heart.chart().tasks if task.state is TaskState.OPEN and not tells_of_death(task))
    return {task.kind for task in tasks}


def score(heart: Heart, model: str) -> int:
    return next(one.min for one in heart.chart().scores if one.model == model)


def test_a_discharge_gives_patient_encounter_scores_tasks_and_deliveries(heart: Heart) -> None:
    admit(heart)
    outcome = heart.send(adt("A03", pv1=HOME, segments=(CHF, DIABETES)))
    chart = heart.chart()
    assert outcome.state is EntryState.PROCESSED
    assert outcome.patient_key == "MRN:558181838"
    assert chart.encounters[0].status is EncounterStatus.FINISHED
    lace = next(score for score in chart.scores if score.model == "lace")
    assert (lace.value, lace.band) == (10, Band.HIGH)
    assert open_kinds(heart) == {
        "medication_reconciliation", "pcp_follow_up", "specialist_follow_up", "care_coordinator_alert",
        "on_call_page", "tcm_contact",
    }  # fmt: skip
    assert {d.operation for d in outcome.deliveries} == {Operation.UPSERT_ENCOUNTER, Operation.UPSERT_TASK}


def test_the_same_message_again_gives_nothing_new(heart: Heart) -> None:
    admit(heart)
    message = adt("A03", pv1=HOME, segments=(CHF,))
    heart.send(message)
    before = heart.chart()
    outcome = heart.send(message)
    assert (outcome.deliveries, outcome.effects) == ((), ())
    [after] = outcome.charts
    known_since = {"stamps": before.stamps, "encounter_stamps": before.encounter_stamps, "version": before.version}
    assert msgspec.structs.replace(after, **known_since) == before


def test_processing_is_a_function_of_its_arguments(heart: Heart) -> None:
    admit(heart)
    entry = heart.entry(adt("A03", pv1=HOME, segments=(CHF,)))
    first = process(entry, heart.channel, heart.charts, heart.now)
    assert process(entry, heart.channel, heart.charts, heart.now) == first


def test_a_cancelled_discharge_retracts_what_it_caused_and_a_new_one_plans_anew(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    first = {task.id for task in heart.chart().tasks}
    outcome = heart.send(adt("A13", at="20260306130000", pv1=ADMITTED))
    assert {task.state for task in heart.chart().tasks} == {TaskState.RETRACTED}
    assert sum(d.operation is Operation.UPSERT_TASK for d in outcome.deliveries) == len(first)
    discharge(heart, at="20260307120000")
    assert len([t for t in heart.chart().tasks if t.state is TaskState.OPEN and t.id not in first]) == len(first)


def test_diagnoses_that_come_after_the_discharge_score_again_and_plan_again(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME))
    assert open_kinds(heart) == {"pcp_follow_up", "tcm_contact"}  # lace 7..12: moderate is what is proven
    lace = next(score for score in heart.chart().scores if score.model == "lace")
    assert (lace.value, lace.missing) == (None, ("charlson",))
    heart.send(adt("A08", at="20260306150000", pv1=HOME, segments=(CHF, DIABETES)))
    assert "on_call_page" in open_kinds(heart)
    assert len([t for t in heart.chart().tasks if t.kind == "pcp_follow_up" and t.state is TaskState.OPEN]) == 1


@pytest.mark.parametrize(("code", "kinds"), [("02", set()), ("20", set()), ("50", {"care_coordinator_alert"})])
def test_the_disposition_gates_the_plan(heart: Heart, code: str, kinds: set[str]) -> None:
    heart.send(adt("A03", pv1=HOME | {36: code}, segments=(CHF,)))
    assert open_kinds(heart) == kinds


@pytest.mark.parametrize("code", ["", "99"])
def test_a_blank_or_unknown_disposition_is_held_for_a_person_and_never_taken_for_home(heart: Heart, code: str) -> None:
    heart.send(adt("A03", pv1=HOME | {36: code}, segments=(CHF,)))
    assert open_kinds(heart) == {"care_coordinator_alert"}


@pytest.mark.parametrize("patient_class", ["O", "E"])
def test_an_outpatient_or_ed_end_of_visit_makes_no_plan(heart: Heart, patient_class: str) -> None:
    heart.send(adt("A03", pv1=HOME | {2: patient_class}, segments=(CHF,)))
    assert open_kinds(heart) == set()


def test_a_discharge_without_a_patient_class_goes_to_a_person(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME | {2: ""}, segments=(CHF,)))
    assert open_kinds(heart) == {"care_coordinator_alert"}


def test_a_death_cancels_every_task(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A31", at="20260308120000", pid={30: "Y"}))
    assert heart.chart().patient.deceased is True
    tasks = heart.chart().tasks
    assert {task.state for task in tasks if not tells_of_death(task)} == {TaskState.CANCELLED}


def test_a_death_that_was_none_brings_the_plan_back(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    planned = open_kinds(heart)
    heart.now += timedelta(seconds=1)
    heart.ring(heart.chart())  # somebody is called
    heart.send(adt("A31", at="20260308120000", pid={30: "Y"}))
    heart.send(adt("A31", at="20260308130000", pid={30: "N"}))
    assert heart.chart().patient.deceased is False
    assert open_kinds(heart) == planned - {"on_call_page"}  # nobody is called twice


def test_a_readmission_suspends_the_earlier_plan_and_its_cancel_brings_it_back(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    planned = open_kinds(heart)
    before = heart.chart().tasks
    heart.now += timedelta(minutes=1)
    heart.ring(heart.chart())  # somebody is called
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    assert open_kinds(heart) == set()
    assert {(task.ended_at, task.ended_by) for task in heart.chart().tasks} == {(heart.now, "engine")}
    heart.send(adt("A11", at="20260308130000", pv1=AGAIN))
    assert open_kinds(heart) == planned - {"on_call_page"}  # nobody is called twice
    assert [task for task in heart.chart().tasks if task.kind != "on_call_page"] == [
        task for task in before if task.kind != "on_call_page"
    ]


def test_a_task_set_aside_says_since_when_whatever_is_said_of_its_stay_meanwhile(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.now += timedelta(seconds=1)
    heart.ring(heart.chart())  # somebody is called
    heart.now += timedelta(days=2)
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    since = heart.now
    heart.now += timedelta(hours=3)
    outcome = heart.send(adt("A08", at="20260308150000", pv1=HOME | {45: "20260306110000"}, segments=(CHF, DIABETES)))
    assert {task.ended_at for task in heart.chart().tasks} == {since}
    assert "task-cancelled" not in {effect.kind for effect in outcome.effects}


@pytest.mark.parametrize(
    ("trigger", "change", "state", "why"),
    [
        ("A13", {}, TaskState.RETRACTED, "the discharge was cancelled"),
        ("A11", {}, TaskState.RETRACTED, "the admission was cancelled"),
        ("A08", HOME | {36: "02"}, TaskState.RETRACTED, "the discharge data changed: no longer part of the plan"),
        ("A08", HOME | {36: "20"}, TaskState.CANCELLED, "the patient has died"),
    ],
)
def test_a_task_says_when_by_whom_and_why_it_ended_and_its_reason_stays(
    heart: Heart, trigger: str, change: dict[int, str], state: TaskState, why: str
) -> None:
    admit(heart)
    discharge(heart)
    reasons = {task.id: task.reason for task in heart.chart().tasks}
    assert {(task.ended_at, task.ended_by, task.end_reason) for task in heart.chart().tasks} == {(None, None, None)}
    heart.now += timedelta(hours=1)
    heart.send(adt(trigger, at="20260306130000", pv1=ADMITTED | change))
    ended = [task for task in heart.chart().tasks if not tells_of_death(task)]
    assert {(task.state, task.ended_at, task.ended_by, task.end_reason) for task in ended} == {
        (state, heart.now, "engine", why)
    }
    assert {task.id: task.reason for task in ended} == reasons


def test_news_of_an_earlier_stay_plans_nothing_while_the_patient_is_in_hospital_again(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME))
    heart.send(adt("A01", at="20260308120000", pv1={19: "V2^^^MRN", 44: "20260308113000"}))
    heart.send(adt("A08", at="20260308150000", pv1=HOME, segments=(CHF, DIABETES)))
    assert open_kinds(heart) == set()


def test_a_suspended_plan_whose_discharge_is_cancelled_does_not_come_back(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    heart.send(adt("A13", at="20260308123000", pv1=ADMITTED))
    heart.send(adt("A11", at="20260308130000", pv1=AGAIN))
    assert open_kinds(heart) == set()
    states = {task.state for task in heart.chart().tasks if task.kind != "on_call_page"}
    assert states == {TaskState.RETRACTED}


def test_a_plan_stays_suspended_while_another_readmission_stands(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    third = {4: "E", 19: "V3^^^MRN", 44: "20260310113000"}
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    heart.send(adt("A03", at="20260309120000", pv1=AGAIN | {36: "01", 45: "20260309114500"}))
    heart.send(adt("A01", at="20260310120000", pv1=third))
    heart.send(adt("A11", at="20260310130000", pv1=AGAIN))
    assert open_kinds(heart) == set()


def test_a_stay_of_long_ago_that_is_heard_of_late_takes_nobody_s_plan_away(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    planned = open_kinds(heart)
    heart.send(adt("A01", at="20260101120000", pv1={4: "E", 19: "V0^^^MRN", 44: "20260101113000"}))
    assert open_kinds(heart) == planned


def test_a_stay_whose_end_was_never_heard_of_suspends_no_later_plan(heart: Heart) -> None:
    heart.send(adt("A01", at="20260101120000", pv1={4: "E", 19: "V0^^^MRN", 44: "20260101113000"}))
    admit(heart)
    discharge(heart)
    assert "tcm_contact" in open_kinds(heart)


def test_a_discharge_heard_of_after_the_readmission_ended_leaves_the_plan_of_the_later_stay(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    heart.send(adt("A03", at="20260309120000", pv1=AGAIN | {36: "01", 45: "20260309114500"}))
    discharge(heart)
    assert {task.encounter for task in heart.chart().tasks if task.state is TaskState.OPEN} == {"MRN:V2"}


def test_an_emergency_visit_that_becomes_an_admission_suspends_the_earlier_plan(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A04", at="20260308120000", pv1=AGAIN | {2: "E"}))
    assert "tcm_contact" in open_kinds(heart)
    heart.send(adt("A01", at="20260308140000", pv1=AGAIN))
    assert open_kinds(heart) == set()


def test_a_merge_into_a_patient_who_is_in_hospital_suspends_the_plan_that_it_brings(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A01", at="20260308120000", pid3="2^^^MRN^MR", pv1=AGAIN))
    heart.send(merge("2", "558181838"))
    assert {task.suspended_by for task in heart.chart().tasks if task.kind != "on_call_page"} == {"MRN:V2"}
    assert open_kinds(heart) == set()


def test_an_emergency_visit_heard_of_late_scores_the_stay_after_it_again(heart: Heart) -> None:
    heart.send(adt("A01", at="20260301120000", pv1=ADMITTED, segments=(CHF,)))
    before = score(heart, "lace")
    heart.send(adt("A04", at="20260201120000", pv1={2: "E", 19: "V0^^^MRN", 44: "20260201113000"}))
    assert score(heart, "lace") == before + 1


def test_a_death_by_disposition_is_taken_back_with_the_discharge(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A03", pv1=HOME | {36: "20"}))
    assert heart.chart().patient.deceased is True
    heart.send(adt("A13", at="20260306130000", pv1=ADMITTED))
    assert (heart.chart().patient.deceased, heart.chart().patient.deceased_at) == (None, None)
    discharge(heart, at="20260307120000")
    assert "tcm_contact" in open_kinds(heart)


def test_a_death_that_pid_30_states_stands_when_the_discharge_is_cancelled(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A03", pv1=HOME | {36: "20"}, pid={30: "Y"}))
    heart.send(adt("A13", at="20260306130000", pv1=ADMITTED))
    assert heart.chart().patient.deceased is True


def test_a_discharge_whose_disposition_is_corrected_to_death_cancels_every_task(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A08", at="20260306130000", pv1=HOME | {36: "20"}))
    assert heart.chart().patient.deceased is True
    assert planned_kinds(heart) == set()


def test_a_time_of_death_is_a_death(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.now += timedelta(days=2)
    heart.send(adt("A31", at="20260308120000", pid={29: "20260308110000"}))
    assert heart.chart().patient.deceased is True
    assert planned_kinds(heart) == set()


def test_a_discharge_without_visit_number_replayed_is_the_same_discharge(heart: Heart) -> None:
    heart.send(adt("A01", at="20260301120000", pv1={19: ""}))
    message = adt("A03", pv1={19: "", 36: "01"})
    heart.send(message)
    again = heart.send(message)
    assert len(heart.chart().encounters) == 1
    assert again.deliveries == ()


def test_a_visit_number_without_authority_is_the_same_visit_whichever_identifier_leads(heart: Heart) -> None:
    heart.send(adt("A01", at="20260301120000", pid3="1^^^MRN^MR~9^^^EPI^PI", pv1=ADMITTED | {19: "V1"}))
    heart.send(adt("A03", pid3="9^^^EPI^PI", pv1=HOME | {19: "V1"}))
    encounter: Encounter = heart.chart("1").encounters[0]
    assert len(heart.chart("1").encounters) == 1
    assert (encounter.key, encounter.status) == ("MRN:V1", EncounterStatus.FINISHED)


def test_a_visit_without_number_that_a_merge_brought_along_is_known_again(heart: Heart) -> None:
    message = adt("A04", at="20260301120000", pid3="1^^^MRN^MR", pv1={2: "E", 19: ""})
    heart.send(message)
    heart.send(merge("2", "1"))
    assert heart.send(message).deliveries == ()
    assert len(heart.chart("2").encounters) == 1


def test_a40_moves_encounters_tasks_and_identity_and_tells_the_destinations(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    tasks = len(heart.chart().tasks)
    outcome = heart.send(merge("999", "558181838"))
    assert heart.chart().patient.key == "MRN:999"
    assert heart.chart("999").patient.merged_from == ("MRN:558181838",)
    assert len(heart.chart("999").tasks) == tasks
    operations = [d.operation for d in outcome.deliveries]
    assert Operation.MERGE_PATIENT in operations
    assert operations.count(Operation.UPSERT_TASK) == tasks


def test_a40_with_several_groups_merges_each(heart: Heart) -> None:
    message = adt(
        "A40",
        pid3="2^^^MRN^MR",
        segments=("MRG|1^^^MRN^MR", "PID|2||4^^^MRN^MR||Roe^Rich", "MRG|3^^^MRN^MR"),
    )
    heart.send(message)
    assert heart.chart("1").patient.key == "MRN:2"
    assert heart.chart("3").patient.key == "MRN:4"


def test_a40_whose_identifiers_do_not_pair_is_dead_lettered_and_nobody_is_merged(heart: Heart) -> None:
    admit(heart)
    outcome = heart.send(adt("A40", at="20260309120000", pid3="999^^^OTHER^MR", segments=("MRG|558181838^^^MRN^MR",)))
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "merge-pairing"
    assert heart.chart().patient.merged_from == ()


def test_a40_does_not_merge_by_a_shared_social_security_number(heart: Heart) -> None:
    heart.send(adt("A28", pid3="1^^^MRN^MR~123-45-6789^^^USA^SS"))
    heart.send(
        adt(
            "A40",
            at="20260309120000",
            pid3="3^^^MRN^MR~123-45-6789^^^USA^SS",
            segments=("MRG|2^^^MRN^MR~123-45-6789^^^USA^SS",),
        )
    )
    assert heart.chart("1").patient.key == "MRN:1"
    assert heart.chart("2").patient.key == "MRN:3"


def test_a40_tells_destinations_of_every_identity_that_it_merges(heart: Heart) -> None:
    for value in "123":
        heart.send(adt("A28", pid3=f"{value}^^^MRN^MR"))
    chain = adt(
        "A40",
        at="20260309120000",
        pid3="2^^^MRN^MR",
        segments=("MRG|1^^^MRN^MR", "PID|2||3^^^MRN^MR||Roe^Rich", "MRG|2^^^MRN^MR"),
    )
    outcome = heart.send(chain)
    told = [msgspec.json.decode(d.payload) for d in outcome.deliveries if d.operation is Operation.MERGE_PATIENT]
    assert sorted(told, key=lambda one: one["merged"]) == [
        {"survivor": "MRN:3", "merged": "MRN:1"},
        {"survivor": "MRN:3", "merged": "MRN:2"},
    ]
    assert len({d.idempotency_key for d in outcome.deliveries}) == len(outcome.deliveries)


def test_a40_over_several_identifiers_keeps_the_patient_s_key(heart: Heart) -> None:
    heart.send(adt("A28", pid3="1^^^MRN^MR~P1^^^EPI^PI"))
    heart.send(adt("A28", pid3="2^^^MRN^MR"))
    pid3, mrg1 = "2^^^MRN^MR~P2^^^EPI^PI", "1^^^MRN^MR~P1^^^EPI^PI"
    heart.send(adt("A40", at="20260309120000", pid3=pid3, segments=(f"MRG|{mrg1}",)))
    patients = {heart.chart(value, "MRN", "MR").patient.key for value in "12"}
    patients |= {heart.chart(value, "EPI", "PI").patient.key for value in ("P1", "P2")}
    assert patients == {"MRN:2"}


@pytest.mark.parametrize(
    ("pid3", "segments", "error"),
    [
        ("2^^^MRN^MR~P3^^^EPI^PI", ("MRG|1^^^MRN^MR~P1^^^EPI^PI",), "merge-contradiction"),
        ("2^^^MRN^MR", ("MRG|1^^^MRN^MR", "PID|2||3^^^MRN^MR||Roe", "MRG|1^^^MRN^MR"), "merge-contradiction"),
        ("2^^^MRN^MR", ("MRG|1^^^MRN^MR", "PID|2||1^^^MRN^MR||Roe", "MRG|2^^^MRN^MR"), "merge-contradiction"),
        ("2^^^MRN^MR~1^^^MRN^MR", ("MRG|1^^^MRN^MR~2^^^MRN^MR",), "merge-with-itself"),
        ("2^^^MRN^MR", ("MRG|1^^^MRN^MR~3^^^OLD^MR",), "merge-pairing"),
        ("2^^^MRN^MR", ("MRG|1^^^MRN^MR", "PID|2||3^^^MRN^MR||Roe"), "merge-structure"),
    ],
    ids=["survivors-differ", "one-into-two", "circle", "swapped", "missing-partner", "missing-group"],
)
def test_a40_that_contradicts_itself_is_dead_lettered_and_nobody_is_merged(
    heart: Heart, pid3: str, segments: tuple[str, ...], error: str
) -> None:
    heart.send(adt("A28", pid3="1^^^MRN^MR~P1^^^EPI^PI"))
    heart.send(adt("A28", pid3="2^^^MRN^MR"))
    heart.send(adt("A28", pid3="3^^^MRN^MR~P3^^^EPI^PI"))
    outcome = heart.send(adt("A40", at="20260309120000", pid3=pid3, segments=segments))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == error
    assert {heart.chart(value).patient.key for value in "123"} == {"MRN:1", "MRN:2", "MRN:3"}


def test_a40_before_whose_first_pid_an_mrg_stands_merges_nobody_into_two(heart: Heart) -> None:
    merged = "\rMRG|1^^^MRN^MR\rPID|"
    one_too_early = adt("A40", pid3="2^^^MRN^MR", segments=("PID|2||3^^^MRN^MR||Roe",)).decode()
    outcome = heart.send(one_too_early.replace("\rPID|", merged, 1).encode())
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "merge-structure"


def test_a40_of_an_identity_that_was_merged_elsewhere_before_is_for_a_person_to_decide(heart: Heart) -> None:
    for value in "123":
        heart.send(adt("A28", pid3=f"{value}^^^MRN^MR"))
    heart.send(merge("2", "1"))
    outcome = heart.send(merge("3", "1", at="20260310120000"))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "merge-contradiction"
    assert {heart.chart(value).patient.key for value in "123"} == {"MRN:2", "MRN:3"}


def test_a40_merges_by_no_authority_that_may_not_be_the_key() -> None:
    heart = Heart(identity={"authority": "MRN", "authorities": ["MRN"]})
    heart.send(adt("A28", pid3="9^^^MRN^MR~78^^^OTHER^MR"))
    pid3, mrg1 = "2^^^MRN^MR~77^^^OTHER^MR", "1^^^MRN^MR~78^^^OTHER^MR"
    heart.send(adt("A40", at="20260309120000", pid3=pid3, segments=(f"MRG|{mrg1}",)))
    assert heart.chart("9").patient.key == "MRN:9"
    assert heart.chart("1").patient.key == "MRN:2"


def test_what_moves_with_a_merge_is_not_told_as_new(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    kinds = {effect.kind for effect in heart.send(merge("2", "558181838")).effects}
    assert not kinds & {"task-created", "scored"}


def test_a40_with_more_identifiers_than_make_sense_is_dead_lettered(heart: Heart) -> None:
    pid3, mrg1 = ("~".join(f"{letter}{n}^^^MRN^MR" for n in range(501)) for letter in "AB")
    outcome = heart.send(adt("A40", pid3=pid3, segments=(f"MRG|{mrg1}",)))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "merge-structure"


def test_charts_stand_in_the_order_of_the_entries_that_created_them(heart: Heart) -> None:
    """Whichever of a patient's messages comes later, it finds the chart by the identifiers."""
    numbers = [str(number) for number in range(40)]
    for number in numbers:
        heart.send(adt("A01", pid3=f"{number}^^^MRN^MR", pv1=ADMITTED | {19: f"V{number}^^^MRN"}))
    for number in reversed(numbers):
        heart.send(adt("A08", pid3=f"{number}^^^MRN^MR", pv1=ADMITTED | {19: f"V{number}^^^MRN"}))
    created = [heart.chart(number).id for number in numbers]
    assert created == sorted(set(created))


def test_the_same_number_of_two_authorities_is_two_patients(heart: Heart) -> None:
    heart.send(adt("A28", pid3="1^^^HOSP-A^MR"))
    heart.send(adt("A28", pid3="1^^^HOSP-B^MR"))
    assert heart.chart("1", "HOSP-A").id != heart.chart("1", "HOSP-B").id


def test_the_same_number_under_another_type_is_not_taken_for_the_same_patient_nor_for_a_new_one(heart: Heart) -> None:
    heart.send(adt("A28", pid3="1^^^MRN^MR"))
    outcome = heart.send(adt("A28", at="20260307120000", pid3="1^^^MRN^PI"))
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "identifier-type"
    assert outcome.charts == ()


def test_without_an_authority_the_channel_names_one(heart: Heart) -> None:
    outcome = heart.send(adt("A28", pid3="77"))
    assert outcome.patient_key == "MRN:77"


def test_without_an_authority_in_message_or_channel_patients_belong_to_the_channel_alone() -> None:
    heart = Heart(identity={})
    assert heart.send(adt("A28", pid3="77")).patient_key == "main-campus:77"


def test_a_message_without_a_usable_identifier_is_dead_lettered(heart: Heart) -> None:
    outcome = heart.send(adt("A01", pid3="123-45-6789^^^USA^SS", pv1=ADMITTED))
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert (outcome.dead_letter.stage, outcome.dead_letter.location) == (Stage.PROCESSING, "PID-3")
    assert (outcome.application_ack, outcome.error_code) == (AckCode.AE, 101)


def test_a_filtered_message_is_recorded_with_the_reason_and_answered_aa() -> None:
    heart = Heart(filter="PV1-2 == 'E'")
    outcome = heart.send(adt("A01", pv1=ADMITTED))
    assert outcome.state is EntryState.FILTERED
    assert outcome.application_ack is AckCode.AA
    assert "PV1-2 == 'E'" in (outcome.reason or "")


def test_an_event_that_no_chart_is_concerned_with_is_recorded_and_touches_nothing(heart: Heart) -> None:
    outcome = heart.send(adt("A20", pv1=ADMITTED))
    assert outcome.state is EntryState.PROCESSED
    assert outcome.charts == ()
    assert outcome.reason is not None


def test_shadow_mode_processes_and_sends_nothing() -> None:
    heart = Heart(mode="shadow")
    outcome = heart.send(adt("A01", pv1=ADMITTED))
    assert outcome.charts
    assert outcome.deliveries == ()


def test_a_forwarded_message_has_the_same_key_when_it_is_replayed() -> None:
    heart = Heart(deliver=[{"to": "files", "what": ["message"]}])
    entry = heart.entry(adt("A60", pv1=ADMITTED))
    first = process(entry, heart.channel, heart.charts, NOW)
    replay = msgspec.structs.replace(entry, id=99, replay_of=entry.id, replay_root=entry.id)
    second = process(replay, heart.channel, heart.charts, NOW)
    assert [d.idempotency_key for d in first.deliveries] == [d.idempotency_key for d in second.deliveries]


def test_a_sender_whose_clock_is_far_ahead_does_not_freeze_the_chart(heart: Heart) -> None:
    heart.send(adt("A31", at="20990101000000", pid={8: "M"}))
    heart.now = NOW + timedelta(days=1)
    heart.send(adt("A31", at="20260307180000", pid={8: "F"}))
    assert heart.chart().patient.sex == "F"


def replay(heart: Heart, entry: Entry) -> None:
    again = msgspec.structs.replace(
        entry, id=99, received_at=heart.now, first_received_at=entry.received_at, replay_of=entry.id
    )
    for chart in process(again, heart.channel, heart.charts, heart.now).charts:
        heart.charts.add(chart)


@pytest.mark.parametrize("clock", ["", "2026", "20990101000000"])
def test_a_replay_is_no_newer_than_its_message_was(heart: Heart, clock: str) -> None:
    old = heart.entry(adt("A31", at=clock, pid={8: "M"}))
    heart.now = NOW + timedelta(hours=2)
    heart.send(adt("A31", at=clock, pid={8: "F"}))
    heart.now = NOW + timedelta(days=3)
    replay(heart, old)
    assert heart.chart().patient.sex == "F"


AUTUMN = datetime(2026, 11, 1, 5, 0, tzinfo=UTC)
"""01:00 in New York, daylight saving time; an hour later it is 01:00 again."""


def test_what_came_later_at_the_same_time_stands_when_the_earlier_is_replayed(heart: Heart) -> None:
    """Many senders give times to the minute. A replay of all of it changes nothing and tells nobody anything."""
    messages = [
        adt("A01", pid={5: "Doe^Jane"}, pv1=ADMITTED),
        adt("A08", pid={5: "Roe^Jane"}, pv1=ADMITTED),
        adt("A03", pid={5: "Roe^Jane"}, pv1=HOME, segments=(CHF,)),
    ]
    entries = [heart.entry(message) for message in messages]
    for entry in entries:
        heart.work(entry)
    before = heart.chart()
    assert before.patient.name is not None
    assert (before.patient.name.family, before.encounters[0].status) == ("Roe", EncounterStatus.FINISHED)
    for entry, message in zip(entries, messages, strict=True):
        again = msgspec.structs.replace(heart.entry(message), replay_of=entry.id, replay_root=entry.id)
        outcome = heart.work(again)
        assert (outcome.charts, outcome.deliveries) == ((), ())
    assert heart.chart() == before


def test_a_message_that_is_read_better_when_it_is_replayed_counts_anew(heart: Heart) -> None:
    """It was the last one to say something of this."""
    entry = heart.entry(adt("A08", pid={5: "Doe^Jane"}, pv1=ADMITTED))
    heart.work(entry)
    better = heart.entry(adt("A08", pid={5: "Roe^Jane"}, pv1=ADMITTED))
    heart.work(msgspec.structs.replace(better, replay_of=entry.id, replay_root=entry.id))
    name = heart.chart().patient.name
    assert name is not None
    assert name.family == "Roe"


def test_a_discharge_in_the_repeated_hour_of_autumn_is_not_older_than_what_was_before_it(heart: Heart) -> None:
    heart.now = AUTUMN + timedelta(minutes=50)
    heart.send(adt("A01", at="20261101015000", pv1={4: "E"}))
    heart.now = AUTUMN + timedelta(hours=1, minutes=10)
    outcome = heart.send(adt("A03", at="20261101011000", pv1={36: "01"}))
    encounter = heart.chart().encounters[0]
    assert encounter.status is EncounterStatus.FINISHED
    assert (encounter.admitted_at.text, encounter.discharged_at.text) == (
        "2026-11-01T01:50:00-04:00",
        "2026-11-01T01:10:00-05:00",
    )
    assert "stale-event" not in outcome.deviations


def test_in_the_first_of_the_two_hours_of_autumn_nothing_is_taken_for_the_second(heart: Heart) -> None:
    heart.now = AUTUMN + timedelta(minutes=50)
    heart.send(adt("A01", at="20261101014959", pv1={4: "E"}))
    heart.now = AUTUMN + timedelta(hours=2)
    heart.send(adt("A03", at="20261101020000-0500", pv1={36: "01"}))
    assert heart.chart().encounters[0].admitted_at == Moment.of("2026-11-01T01:49:59-04:00")
    assert heart.chart().encounters[0].status is EncounterStatus.FINISHED


def test_an_offset_that_was_sent_is_taken_at_its_word_in_the_repeated_hour(heart: Heart) -> None:
    heart.now = AUTUMN + timedelta(hours=5)
    heart.send(adt("A01", at="20261101015000-0400", pv1={4: "E"}))
    assert heart.chart().encounters[0].admitted_at == Moment.of("2026-11-01T01:50:00-04:00")


def test_a40_the_other_way_round_leaves_the_key_that_destinations_know(heart: Heart) -> None:
    heart.send(adt("A31", at="20260301120000", pid3="1^^^MRN^MR"))
    heart.send(merge("1", "2"))
    outcome = heart.send(merge("2", "1", at="20260310120000"))
    assert outcome.patient_key == "MRN:1"
    assert heart.chart("2").id == heart.chart("1").id
    assert "merge-reversed" in outcome.deviations


def test_a_refused_entry_becomes_a_dead_letter_of_the_intake(heart: Heart) -> None:
    refusal = Fault(error="version-not-accepted", text="version", hl7_code=203, location="MSH-12")
    entry: Entry = msgspec.structs.replace(heart.entry(b"x"), refusal=refusal)
    outcome = process(entry, heart.channel, heart.charts, NOW)
    assert outcome.state is EntryState.REFUSED
    assert outcome.dead_letter is not None
    assert (outcome.dead_letter.stage, outcome.dead_letter.error) == (Stage.INTAKE, "version-not-accepted")


@pytest.mark.parametrize(
    "payload", [b"", b"MSH", b"MSH|^~\\&|", b"\x00\xff" * 50, b"MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5\r"]
)
def test_no_bytes_break_processing(heart: Heart, payload: bytes) -> None:
    outcome = heart.send(payload)
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None


# --- patient classes that no table knows -----------------------------------------------------------------------------


@pytest.mark.parametrize("class_", ["INPATIENT", "U", "STAT", "i p", "99"])
def test_a_discharge_of_a_class_that_nobody_knows_asks_a_person(heart: Heart, class_: str) -> None:
    heart.send(adt("A01", at="20260301120000", pv1=ADMITTED | {2: class_}, segments=(CHF, DIABETES)))
    outcome = heart.send(adt("A03", pv1=HOME | {2: class_}, segments=(CHF, DIABETES)))
    (task,) = heart.chart().tasks
    assert (task.kind, task.state, task.assignee) == ("care_coordinator_alert", TaskState.OPEN, "care_coordinator")
    assert "A person must decide" in task.reason
    assert "PV1-2" in task.reason
    assert class_ not in task.reason
    assert "class-unknown:PV1-2" in outcome.deviations
    assert outcome.reason is not None
    assert "class" in outcome.reason
    assert {delivery.operation for delivery in outcome.deliveries} >= {Operation.UPSERT_TASK}


def test_a_discharge_whose_class_was_never_said_asks_a_person(heart: Heart) -> None:
    outcome = heart.send(adt("A03", pv1=HOME | {2: ""}))
    (task,) = heart.chart().tasks
    assert (task.kind, "PV1-2" in task.reason) == ("care_coordinator_alert", True)
    assert "class-unknown:PV1-2" in outcome.deviations


@pytest.mark.parametrize("class_", ["E", "O", "P", "R", "B", "C"])
def test_a_discharge_of_a_class_that_gets_no_plan_asks_nobody(heart: Heart, class_: str) -> None:
    heart.send(adt("A04", at="20260301120000", pv1=ADMITTED | {2: class_}))
    outcome = heart.send(adt("A03", pv1=HOME | {2: class_}))
    assert heart.chart().tasks == ()
    assert "class-unknown:PV1-2" not in outcome.deviations


@pytest.mark.parametrize(("known", "wanted"), [("I", {"tcm_contact", "pcp_follow_up"}), ("E", set()), ("O", set())])
def test_the_question_goes_when_the_class_becomes_known(heart: Heart, known: str, wanted: set[str]) -> None:
    heart.send(adt("A01", at="20260301120000", pv1=ADMITTED | {2: "INPATIENT"}))
    heart.send(adt("A03", pv1=HOME | {2: "INPATIENT"}))
    outcome = heart.send(adt("A08", at="20260306130000", pv1=HOME | {2: known}))
    assert open_kinds(heart) >= wanted
    assert bool(open_kinds(heart)) is bool(wanted)
    (question,) = [task for task in heart.chart().tasks if task.kind == "care_coordinator_alert"]
    assert (question.state, question.ended_by) == (TaskState.RETRACTED, "engine")
    assert "class-unknown:PV1-2" not in outcome.deviations


def test_a_class_that_becomes_unknown_after_the_discharge_asks_a_person(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A08", at="20260306130000", pv1=HOME | {2: "STAT"}))
    assert open_kinds(heart) == {"care_coordinator_alert"}
    heart.send(adt("A08", at="20260306140000", pv1=HOME, segments=(CHF, DIABETES)))
    assert "medication_reconciliation" in open_kinds(heart)


def test_an_update_that_says_nothing_of_the_class_asks_no_second_time(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME | {2: "STAT"}))
    outcome = heart.send(adt("A08", at="20260306130000", pv1=HOME | {2: ""}, pid={13: "2125550143"}))
    assert len(heart.chart().tasks) == 1
    assert "class-unknown:PV1-2" not in outcome.deviations


def test_the_question_of_a_dead_patient_ends(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME | {2: "STAT"}))
    heart.send(adt("A31", at="20260306130000", pid={30: "Y"}))
    assert planned_kinds(heart) == set()


# --- a dead message belongs to its patient ---------------------------------------------------------------------------

REFUSAL = Fault(error="type-not-accepted", text="no", hl7_code=200, location="MSH-9.1")
BROKEN = {
    "a filter or segment behind PID fails": adt("A40", segments=("MRG|2^^^MRN^MR", "MRG|3^^^MRN^MR")),
    "the merge does not pair": adt("A40", segments=("MRG|2^^^OTHER^MR",)),
    "the merge is with itself": adt("A40", segments=("MRG|558181838^^^MRN^MR",)),
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
def test_a_dead_message_is_its_patients_whatever_failed(heart: Heart, payload: bytes) -> None:
    unknown = heart.send(payload)
    assert (unknown.state, unknown.chart_id, unknown.patient_key) == (EntryState.DEAD, None, "MRN:558181838")
    admit(heart)
    known = heart.send(payload)
    assert (known.state, known.chart_id, known.patient_key) == (EntryState.DEAD, heart.chart().id, "MRN:558181838")
    assert known.charts == ()


def test_a_message_that_died_on_the_charts_is_its_patients(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A01", pid3="2^^^MRN^MR", pv1={19: "V2^^^MRN"}))
    outcome = heart.send(adt("A03", pid3="2^^^MRN^MR", pv1=HOME))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "visit-of-another-patient"
    assert (outcome.chart_id, outcome.patient_key) == (heart.chart("2").id, "MRN:2")


def test_a_dead_message_of_a_merged_number_is_the_survivors(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A31", pid3="2^^^MRN^MR"))
    heart.send(merge("558181838", "2"))
    outcome = heart.send(adt("A40", pid3="2^^^MRN^MR", segments=("MRG|3^^^OTHER^MR",)))
    assert (outcome.chart_id, outcome.patient_key) == (heart.chart().id, "MRN:558181838")


@pytest.mark.parametrize("known", [True, False])
def test_a_refused_message_is_its_patients_when_pid_3_can_be_read(heart: Heart, known: bool) -> None:
    if known:
        admit(heart)
    entry = msgspec.structs.replace(heart.entry(adt("R01", pv1=HOME)), refusal=REFUSAL)
    outcome = heart.work(entry)
    assert (outcome.state, outcome.patient_key) == (EntryState.REFUSED, "MRN:558181838")
    assert outcome.chart_id == (heart.chart().id if known else None)


@pytest.mark.parametrize(
    "payload",
    [
        b"hello",
        b"",
        b"MSH|^~\\&|EPIC|MAIN|||20260306||ADT^A01|1|P|2.5.1\r",
        adt("A01", pid3=""),
        adt("A01", pid3="558181838^^^MRN^SS"),
    ],
)
def test_a_message_whose_patient_can_not_be_read_is_nobodys(heart: Heart, payload: bytes) -> None:
    outcome = heart.work(msgspec.structs.replace(heart.entry(payload), refusal=REFUSAL))
    assert (outcome.state, outcome.chart_id, outcome.patient_key) == (EntryState.REFUSED, None, None)
