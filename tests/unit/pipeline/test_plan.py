"""Scores and plans as events come and are taken back: what must not stay, and what must not get lost."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from heart import ROOT, Heart, adt, merge

from engine.care.protocol import load_protocol
from engine.domain.delivery import Operation
from engine.domain.moment import Moment
from engine.domain.outcome import Outcome
from engine.domain.task import SIDE_BY_SIDE, Task, TaskState
from engine.pipeline.channel import Planner
from engine.yamlfile import parse

CHF = "DG1|1||I50.9^Heart failure^I10|||F"
DIABETES = "DG1|2||E11.9^Diabetes^I10|||F"
PROTOCOL = ROOT / "mappings/protocols/post-discharge.yaml"
STAY = {4: "E", 44: "20260301113000"}
HOME = {**STAY, 36: "01", 45: "20260306114500"}
AGAIN = {4: "E", 19: "V2^^^MRN", 44: "20260308113000"}
"""A second stay."""


class Live(Heart):
    """Messages come when they are sent, unless they are late."""

    def send(self, payload: bytes) -> Outcome:
        sent = datetime.strptime(payload.split(b"|")[6].decode(), "%Y%m%d%H%M%S").replace(tzinfo=self.channel.zone)
        self.now = max(self.now, sent.astimezone(UTC))
        return super().send(payload)


@pytest.fixture
def heart() -> Heart:
    heart = Live()
    heart.now = datetime(2026, 3, 1, tzinfo=UTC)
    return heart


def admit(heart: Heart) -> Outcome:
    return heart.send(adt("A01", at="20260301120000", pv1=STAY, segments=(CHF, DIABETES)))


def discharge(heart: Heart) -> Outcome:
    return heart.send(adt("A03", pv1=HOME, segments=(CHF, DIABETES)))


def open_tasks(heart: Heart) -> dict[str, Task]:
    return {task.kind: task for task in heart.chart().tasks if task.state is TaskState.OPEN}


def kinds_of(outcome: Outcome) -> list[str]:
    return [effect.kind for effect in outcome.effects]


def scores_sent(outcome: Outcome) -> list[dict[str, Any]]:
    return [msgspec.json.decode(d.payload) for d in outcome.deliveries if d.operation is Operation.UPSERT_SCORE]


def deciding(outcome: Outcome) -> list[tuple[str, str | None, bool]]:
    """Whose score takes the one place that a destination may have for a patient's risk."""
    return [
        (sent["score"]["encounter"], sent["score"]["model"], sent["withdrawn"])
        for sent in scores_sent(outcome)
        if sent["decides"]
    ]


# --- scores that go ---------------------------------------------------------------------------------------------------


def test_a_cancelled_admission_takes_its_scores_back_here_and_at_the_destinations(heart: Heart) -> None:
    admit(heart)
    assert {score.model for score in heart.chart().scores} == {"lace", "seed"}
    outcome = heart.send(adt("A11", at="20260302120000", pv1=STAY))
    assert heart.chart().scores == ()
    assert kinds_of(outcome).count("score-withdrawn") == 2
    sent = scores_sent(outcome)
    assert [(one["score"]["model"], one["withdrawn"], one["decides"]) for one in sent] == [
        ("lace", True, True),
        ("seed", True, True),
    ]
    assert all((one["score"]["value"], one["score"]["max"], one["score"]["band"]) == (None, 0, "low") for one in sent)


def test_a_stay_that_was_admitted_after_all_is_scored_again(heart: Heart) -> None:
    admit(heart)
    heart.send(adt("A11", at="20260302120000", pv1=STAY))
    heart.send(adt("A01", at="20260302130000", pv1=STAY))
    assert [score.model for score in heart.chart().scores] == ["lace", "seed"]


@pytest.mark.parametrize("class_", ["O", "E", '""'])
def test_a_stay_that_is_no_inpatient_s_any_more_loses_its_scores(heart: Heart, class_: str) -> None:
    admit(heart)
    outcome = heart.send(adt("A08", at="20260302120000", pv1=STAY | {2: class_}))
    assert heart.chart().scores == ()
    assert {one["withdrawn"] for one in scores_sent(outcome)} == {True}


def test_a_channel_without_models_takes_scores_back_too(heart: Heart) -> None:
    admit(heart)
    heart.channel = dataclasses.replace(heart.channel, models=())
    outcome = heart.send(adt("A11", at="20260302120000", pv1=STAY))
    assert heart.chart().scores == ()
    assert {(one["withdrawn"], one["decides"]) for one in scores_sent(outcome)} == {(True, True)}


def test_the_score_of_the_stay_before_decides_again_when_the_readmission_was_none(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    readmitted = heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    assert deciding(readmitted) == [("MRN:V2", "lace", False)]
    cancelled = heart.send(adt("A11", at="20260309120000", pv1=AGAIN))
    assert deciding(cancelled) == [("MRN:V1", "lace", False)]
    assert [one["withdrawn"] for one in scores_sent(cancelled)] == [True, True, False]


def test_a_correction_of_an_earlier_stay_leaves_the_risk_of_the_present_one(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME))
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    corrected = heart.send(adt("A08", at="20260308130000", pv1=HOME, segments=(CHF, DIABETES)))
    assert [one["score"]["encounter"] for one in scores_sent(corrected)] == ["MRN:V1", "MRN:V1"]
    assert deciding(corrected) == []


# --- a disposition that says still here -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["30", "09", "9"])
@pytest.mark.parametrize("trigger", ["A08", "A01", "A02"])
def test_a_disposition_that_is_no_discharge_leaves_the_plan_of_a_discharge_that_was(
    heart: Heart, trigger: str, code: str
) -> None:
    admit(heart)
    discharge(heart)
    planned = open_tasks(heart)
    outcome = heart.send(adt(trigger, at="20260307120000", pv1=HOME | {36: code}))
    assert open_tasks(heart) == planned
    assert heart.chart().encounters[0].disposition == "01"
    assert "disposition-is-no-discharge" in outcome.deviations
    assert "disposition_no_discharge" in {one.kind for one in outcome.quality}
    assert outcome.reason == "PV1-36 says that the patient is still here: the discharge stands until an A13"


def test_a_disposition_still_here_from_before_the_discharge_is_no_news(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    planned = open_tasks(heart)
    outcome = heart.send(adt("A08", at="20260305120000", pv1=STAY | {36: "30"}))
    assert open_tasks(heart) == planned
    assert outcome.quality == ()


def test_a_disposition_still_here_during_the_stay_is_what_it_says(heart: Heart) -> None:
    admit(heart)
    outcome = heart.send(adt("A08", at="20260302120000", pv1=STAY | {36: "30"}))
    assert "disposition-is-no-discharge" not in outcome.deviations
    assert heart.chart().encounters[0].disposition is None


# --- death ------------------------------------------------------------------------------------------------------------


def test_a_sender_that_always_says_not_deceased_does_not_undo_a_death_by_disposition(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.send(adt("A08", at="20260307120000", pv1=HOME | {36: "20"}, pid={30: "N"}))
    outcome = heart.send(adt("A08", at="20260308120000", pv1=HOME | {36: "20"}, pid={30: "N"}))
    heart.send(adt("A31", at="20260309120000", pid={30: "N"}))
    assert heart.chart().patient.deceased is True
    assert heart.chart().patient.deceased_at == Moment.of("2026-03-06T11:45:00-05:00")
    assert [task.step for task in open_tasks(heart).values()] == ["death/patient_died"]
    assert "alive-against-disposition" in outcome.deviations


def test_a_death_by_disposition_is_taken_back_by_another_disposition(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    planned = set(open_tasks(heart))
    dead = heart.send(adt("A08", at="20260307120000", pv1=HOME | {36: "20"}, pid={30: "N"}))
    alive = heart.send(adt("A08", at="20260308120000", pv1=HOME, pid={30: "N"}))
    assert (heart.chart().patient.deceased, heart.chart().patient.deceased_at) == (False, None)
    assert set(open_tasks(heart)) == planned - {"on_call_page"}  # nobody is called twice
    assert "patient-deceased" in kinds_of(dead)
    assert "patient-not-deceased" in kinds_of(alive)


def test_a_later_stay_that_the_patient_left_alive_leaves_the_death_to_a_person(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME | {36: "20"}))
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    assert heart.chart().patient.deceased is True  # organ donors are admitted too
    outcome = heart.send(adt("A03", at="20260310120000", pv1=AGAIN | {36: "01", 45: "20260310110000"}))
    assert [hold.code for hold in outcome.holds] == ["death-contradicted"]
    assert heart.chart().patient.deceased is True
    assert set(open_tasks(heart)) == {"care_coordinator_alert"}


def test_an_earlier_stay_of_the_day_of_a_death_disproves_it_not(heart: Heart) -> None:
    emergency = {2: "E", 19: "V0^^^MRN", 36: "01", 44: "20260306080000", 45: "20260306090000"}
    heart.send(adt("A03", at="20260306100000", pv1=emergency))
    heart.send(adt("A03", pv1=HOME | {36: "20", 45: "20260306"}))
    assert heart.chart().patient.deceased is True


def test_an_account_that_a_clerk_closes_later_disproves_no_death(heart: Heart) -> None:
    heart.send(adt("A03", pv1=HOME | {36: "20"}))
    clinic = {2: "O", 19: "V7^^^MRN", 36: "01", 44: "20260310110000", 45: "20260331110000"}
    heart.send(adt("A03", at="20260331120000", pv1=clinic))
    assert heart.chart().patient.deceased is True


def test_a_discharge_of_a_patient_who_is_recorded_as_deceased_is_not_lost_without_a_word(heart: Heart) -> None:
    heart.send(adt("A31", at="20260302120000", pid={30: "Y"}))
    outcome = discharge(heart)
    assert set(open_tasks(heart)) == {"care_coordinator_alert"}  # whether the patient has died is for a person to say
    assert "plan-withheld" in kinds_of(outcome)
    assert outcome.reason is not None
    assert outcome.reason.startswith("held for a person: the patient is recorded as dead")


@pytest.mark.parametrize(("survivor", "merged"), [("1", "2"), ("2", "1")])
@pytest.mark.parametrize(("first", "last", "deceased"), [("Y", "N", False), ("N", "Y", True)])
def test_of_two_merged_charts_the_last_word_on_death_counts_whichever_survives(
    heart: Heart, survivor: str, merged: str, first: str, last: str, deceased: bool
) -> None:
    heart.send(adt("A31", at="20260302120000", pid3="1^^^MRN^MR", pid={30: first}))
    heart.send(adt("A31", at="20260303120000", pid3="2^^^MRN^MR", pid={30: last}))
    heart.send(merge(survivor, merged))
    assert heart.chart("1").patient.deceased is deceased
    heart.send(adt("A31", at="20260302130000", pid3="1^^^MRN^MR", pid={30: first}))
    assert heart.chart("1").patient.deceased is deceased  # older than the last word


@pytest.mark.parametrize(("survivor", "merged"), [("1", "2"), ("2", "1")])
def test_a_death_by_disposition_outlives_a_merge_with_a_chart_that_says_no(
    heart: Heart, survivor: str, merged: str
) -> None:
    heart.send(adt("A03", pid3="1^^^MRN^MR", pv1=HOME | {36: "20"}))
    heart.send(adt("A31", at="20260307120000", pid3="2^^^MRN^MR", pid={30: "N"}))
    heart.send(merge(survivor, merged))
    assert heart.chart("1").patient.deceased is True


def test_a_time_of_death_counts_beside_a_pid_30_that_is_filled_by_default(heart: Heart) -> None:
    outcome = heart.send(adt("A31", at="20260302120000", pid={29: "20260302100000", 30: "N"}))
    assert heart.chart().patient.deceased is True
    assert "death-contradicted" in outcome.deviations


# --- discharges of long ago -------------------------------------------------------------------------------------------


@pytest.fixture
def recent(heart: Heart) -> Heart:
    """With a protocol that plans no discharge of more than 30 days ago."""
    text = PROTOCOL.read_text().replace("# discharge_age_days_max: 30", "discharge_age_days_max: 30")
    protocol = load_protocol(parse(text, PROTOCOL.name))
    heart.channel = dataclasses.replace(heart.channel, planner=Planner(protocol, "lace"))
    return heart


def test_a_discharge_of_long_ago_opens_no_task_and_says_so(recent: Heart) -> None:
    heart = recent
    heart.now = datetime(2029, 3, 6, tzinfo=UTC)
    outcome = discharge(heart)
    assert heart.chart().tasks == ()
    assert not [d for d in outcome.deliveries if d.operation is Operation.UPSERT_TASK]
    withheld = next(effect for effect in outcome.effects if effect.kind == "plan-withheld")
    assert withheld.subject == "MRN:V1"
    assert withheld.detail.startswith("discharged more than 30 days ago: no task ")
    assert "on_call_page" in withheld.detail
    assert outcome.reason == withheld.detail


@pytest.mark.parametrize(("days", "planned"), [(30, True), (31, False)])
def test_the_protocol_says_how_old_a_discharge_may_be(recent: Heart, days: int, planned: bool) -> None:
    heart = recent
    heart.now = datetime(2026, 3, 6, 16, 45, tzinfo=UTC) + timedelta(days=days)
    discharge(heart)
    assert bool(heart.chart().tasks) is planned


def test_a_plan_that_was_made_in_time_stays_when_more_is_heard_of_it_later(recent: Heart) -> None:
    heart = recent
    admit(heart)
    discharge(heart)
    planned = open_tasks(heart)
    heart.now += timedelta(days=60)
    heart.send(adt("A08", at="20260501120000", pv1=HOME | {36: "06"}, segments=(CHF, DIABETES)))
    assert open_tasks(heart).keys() == planned.keys()


# --- tasks that were set aside ----------------------------------------------------------------------------------------


def test_a_task_that_ran_out_while_it_was_set_aside_comes_back_with_a_time_that_can_be_kept(heart: Heart) -> None:
    admit(heart)
    discharge(heart)
    heart.now += timedelta(seconds=1)
    heart.ring(heart.chart())  # somebody is called
    before = open_tasks(heart)
    heart.send(adt("A01", at="20260308120000", pv1=AGAIN))
    heart.now = datetime(2026, 3, 11, 12, tzinfo=UTC)
    heart.send(adt("A11", at="20260311080000", pv1=AGAIN))
    after = open_tasks(heart)
    page = before.pop("on_call_page")
    assert {task.id for task in after.values()} == {task.id for task in before.values()}
    assert next(task for task in heart.chart().tasks if task.id == page.id).state is TaskState.CANCELLED
    assert after["specialist_follow_up"].due_at == before["specialist_follow_up"].due_at  # still ahead
    assert after["medication_reconciliation"].due_at == heart.now + timedelta(hours=4)
    assert after["medication_reconciliation"].escalate_at == heart.now + timedelta(hours=4)


def test_a_stay_admitted_after_its_own_discharge_keeps_no_later_plan_waiting(heart: Heart) -> None:
    wrong = {4: "E", 19: "V0^^^MRN", 36: "01", 44: "20990101000000", 45: "20260101120000"}
    heart.send(adt("A03", at="20260101120000", pv1=wrong))
    admit(heart)
    discharge(heart)
    assert {task.encounter for task in heart.chart().tasks if task.suspended_by is None} == {"MRN:V1"}
    assert "tcm_contact" in open_tasks(heart)


@pytest.mark.parametrize("came", ["20260301113000", "20260301120000", "20260302080000"])
def test_a_plan_beside_a_stay_that_began_before_the_discharge_says_that_it_waits_for_that_one(
    heart: Heart, came: str
) -> None:
    admit(heart)
    heart.send(adt("A01", at="20260302120000", pv1=AGAIN | {19: "V9^^^MRN", 44: came}))
    discharge(heart)
    waiting = [task for task in heart.chart().tasks if task.suspended_by == "MRN:V9"]
    assert waiting
    assert {task.end_reason for task in waiting} == {SIDE_BY_SIDE}
    heart.send(adt("A11", at="20260307120000", pv1=AGAIN | {19: "V9^^^MRN", 44: came}))
    assert not [task for task in heart.chart().tasks if task.suspended_by is not None]


@pytest.mark.parametrize(
    ("first", "end", "second"),
    [
        ("20261129193000-0500", "20261129230000-0500", "20261130"),
        ("20261129213000-0800", "20261129234500-0800", "20261130"),
        ("20261129", "20261129230000-0500", "20261129233000-0500"),
        ("20261129", "20261130020000+0900", "20261130003000+0900"),
        ("20261128", "20261129230000-0500", "20261130"),
        ("20261130060000-0500", "20261130063000-0500", "20261130"),
        ("20261130", "20261130063000-0500", "20261130"),
        ("20261129193000-0500", "20261129", "20261130"),
        ("20261130060000-0500", "20261130", "20261130080000-0500"),
    ],
)
def test_the_plan_of_the_stay_before_waits_also_where_a_day_is_all_that_was_sent(
    heart: Heart, first: str, end: str, second: str
) -> None:
    stay, again = {4: "E", 44: first}, {4: "E", 19: "V2^^^MRN", 44: second}
    heart.send(adt("A01", at="20261129200000", pv1=stay, segments=(CHF,)))
    heart.send(adt("A03", at="20261129230000", pv1=stay | {36: "01", 45: end}, segments=(CHF,)))
    heart.send(adt("A01", at="20261130070000", pv1=again, segments=(CHF,)))
    assert {task.suspended_by for task in heart.chart().tasks if task.encounter == "MRN:V1"} == {"MRN:V2"}
    heart.send(adt("A03", at="20261130100000", pv1=again | {36: "01", 45: "20261130100000-0500"}, segments=(CHF,)))
    assert {task.encounter for task in open_tasks(heart).values()} == {"MRN:V2"}
    assert [stay.key for stay in heart.chart().encounters] == ["MRN:V1", "MRN:V2"]


# --- two channels -----------------------------------------------------------------------------------------------------


def other_channel(heart: Heart) -> Heart:
    """The same charts, by way of a channel with another protocol and another first model."""
    other = Live()
    other.charts = heart.charts
    text = PROTOCOL.read_text().replace("protocol: post-discharge", "protocol: b")
    protocol = load_protocol(parse(text, "b.yaml"))
    seed = tuple(model for model in other.channel.models if model.name == "seed")
    planners = {**heart.channel.planners, "b": Planner(protocol, "seed")}
    heart.channel = dataclasses.replace(heart.channel, planners=planners)
    other.channel = dataclasses.replace(other.channel, models=seed, planner=planners["b"], planners=planners)
    return other


def test_a_plan_goes_on_as_it_was_made_when_another_channel_speaks_of_the_stay(heart: Heart) -> None:
    other = other_channel(heart)
    admit(heart)
    discharge(heart)
    planned = heart.chart().tasks
    other.send(adt("A08", at="20260307120000", pv1=HOME, segments=(CHF, DIABETES)))
    other.send(adt("A31", at="20260307130000", pid={13: "2125550100"}))
    assert heart.chart().tasks == planned
    other.send(adt("A08", at="20260307140000", pv1=HOME | {36: "50"}, segments=(CHF, DIABETES)))
    assert {(task.kind, task.protocol) for task in open_tasks(heart).values()} == {
        ("care_coordinator_alert", "post-discharge")
    }
    heart.send(adt("A08", at="20260307150000", pv1=HOME | {36: "50"}, segments=(CHF, DIABETES)))
    assert len(open_tasks(heart)) == 1


def test_another_channel_takes_back_a_plan_whose_cause_is_gone(heart: Heart) -> None:
    other = other_channel(heart)
    admit(heart)
    discharge(heart)
    other.send(adt("A13", at="20260307120000", pv1=STAY))
    assert open_tasks(heart) == {}


def test_a_death_that_was_none_brings_back_each_plan_by_its_own_protocol(heart: Heart) -> None:
    other = other_channel(heart)
    admit(heart)
    discharge(heart)
    planned = set(open_tasks(heart))
    other.send(adt("A31", at="20260307120000", pid={30: "Y"}))
    other.send(adt("A31", at="20260307130000", pid={30: "N"}))
    assert set(open_tasks(heart)) == planned - {"on_call_page"}
    assert {task.protocol for task in open_tasks(heart).values()} == {"post-discharge"}


def test_a_stay_gets_its_first_scores_from_the_channel_that_speaks_of_it(heart: Heart) -> None:
    heart.channel = dataclasses.replace(heart.channel, models=heart.channel.models[:1])
    other = other_channel(heart)
    admit(heart)
    other.send(adt("A31", at="20260302120000", pid={13: "2125550100"}))
    assert {score.model for score in heart.chart().scores} == {"lace"}


# --- transfers --------------------------------------------------------------------------------------------------------


def test_an_admission_by_transfer_scores_the_stay_before_as_no_earlier_admission(heart: Heart) -> None:
    for number, (begin, end) in enumerate([("0210", "0214"), ("0214", "0220"), ("0220", "0228")]):
        visit = {19: f"T{number}^^^MRN", 44: f"2026{begin}100000", 45: f"2026{end}100000", 36: "02"}
        heart.send(adt("A03", at=f"2026{end}100000", pv1=visit))
    heart.send(adt("A01", at="20260228110000", pv1=STAY | {44: "20260228105500"}))
    seed = next(score for score in heart.chart().scores if (score.encounter, score.model) == ("MRN:V1", "seed"))
    assert "admissions_12m" not in {factor.name for factor in seed.factors}
    assert "admissions_12m" not in seed.missing
