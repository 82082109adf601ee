"""What a discharge, a death, a readmission and a merge mean to plans, scores and calls."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from heart import ROOT, Heart, adt, merge

from engine.care.protocol import load_protocol, tells_of_death
from engine.care.tasks import end
from engine.domain.delivery import Operation
from engine.domain.outcome import Outcome
from engine.domain.page import PageState, StepResult
from engine.domain.quality import QualityKind
from engine.domain.score import Band
from engine.domain.task import Task, TaskState
from engine.domain.why import Reason, What
from engine.errors import SettingsError
from engine.pipeline.channel import Planner
from engine.pipeline.death import decide_death
from engine.pipeline.pages import settle, with_page
from engine.yamlfile import parse

PROTOCOL = ROOT / "mappings/protocols/post-discharge.yaml"
CHF = "DG1|1||I50.9^Heart failure^I10|||F"
DIABETES = "DG1|2||E11.9^Diabetes^I10|||F"
SICK = (CHF, DIABETES)
"""With a stay of five days, a high band."""
MILD = ("DG1|1||J06.9^Common cold^I10|||F",)


NEW_YORK = ZoneInfo("America/New_York")


def hl7(at: datetime) -> str:
    return at.astimezone(NEW_YORK).strftime("%Y%m%d%H%M%S%z")


HOME = datetime(2026, 3, 6, 15, 0, tzinfo=UTC)
"""10:00 in New York, a Friday."""
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Ward(Heart):
    """Messages come when their event is, unless said otherwise."""

    def event(
        self,
        trigger: str,
        at: datetime,
        visit: str = "V1",
        *,
        mrn: str = "1",
        since: datetime | None = None,
        left: datetime | None = None,
        code: str = "",
        heard: datetime | None = None,
        dg1: tuple[str, ...] = (),
        pid: dict[int, str] | None = None,
        **pv1: str,
    ) -> Outcome:
        self.now = max(self.now, heard or at)
        fields = {4: "E", 19: f"{visit}^^^MRN", 36: code}
        fields[44] = hl7(since) if since is not None else ""
        fields[45] = hl7(left) if left is not None else ""
        fields |= {int(name[1:]): value for name, value in pv1.items()}
        return self.send(adt(trigger, at=hl7(at), pid3=f"{mrn}^^^MRN^MR", pv1=fields, segments=dg1, pid=pid))

    def called(self, mrn: str = "1") -> None:
        """The clock has rung: somebody is being called, if anybody is to be."""
        self.now += timedelta(seconds=1)
        self.ring(self.chart(mrn))

    def person(self, at: datetime, pid: dict[int, str], mrn: str = "1") -> Outcome:
        self.now = max(self.now, at)
        return self.send(adt("A31", at=hl7(at), pid3=f"{mrn}^^^MRN^MR", pid=pid))

    def stay(self, visit: str = "V1", *, mrn: str = "1", left: datetime = HOME, days: int = 5, **more: Any) -> Outcome:
        since = left - days * DAY
        self.event("A01", since, visit, mrn=mrn, since=since)
        return self.event("A03", left, visit, mrn=mrn, since=since, left=left, **({"code": "01", "dg1": SICK} | more))

    def merged(self, survivor: str, gone: str, at: datetime) -> Outcome:
        self.now = max(self.now, at)
        return self.send(merge(survivor, gone, at=hl7(at)))

    def tasks(self, visit: str | None = None, mrn: str = "1") -> dict[str, Task]:
        return {
            task.step: task
            for task in self.chart(mrn).tasks
            if task.stands and (visit is None or task.encounter == f"MRN:{visit}")
        }

    def done(self, step: str, mrn: str = "1", visit: str = "V1") -> None:
        chart = self.chart(mrn)
        tasks = tuple(
            end(task, TaskState.DONE, at=self.now, by="anna")
            if task.step == step and task.stands and task.encounter == f"MRN:{visit}"
            else task
            for task in chart.tasks
        )
        assert tasks != chart.tasks
        self.charts.add(msgspec.structs.replace(chart, tasks=tasks, version=chart.version + 1))

    def pages(self, mrn: str = "1") -> list[Task]:
        return [task for task in self.chart(mrn).tasks if task.kind == "on_call_page"]

    def said(self, outcome: Outcome) -> list[Reason]:
        return [why.reason for why in outcome.why if why.what is What.PLAN]

    def protocol(self, **changes: str) -> Ward:
        """With lines of the protocol that begin like a key replaced."""
        text = PROTOCOL.read_text(encoding="utf-8")
        for name, value in changes.items():
            said = f"{name}:{value}" if value.startswith("\n") else f"{name}: {value}\n"
            text = (
                text.replace(f"{name}:\n", said, 1)
                if f"\n{name}:\n" in text
                else text.replace("plans:\n", f"{said}plans:\n", 1)
            )
        protocol = load_protocol(parse(text, PROTOCOL.name))
        planner = Planner(protocol, "lace")
        self.channel = dataclasses.replace(self.channel, planner=planner, planners={protocol.name: planner})
        return self


@pytest.fixture
def ward() -> Ward:
    ward = Ward()
    ward.now = datetime(2026, 2, 1, tzinfo=UTC)
    return ward


HIGH = {
    "tcm_contact", "medication_reconciliation", "pcp_follow_up", "specialist_follow_up", "care_coordinator_alert",
    "on_call_page",
}  # fmt: skip


def scores_told(outcome: Outcome) -> list[tuple[str, bool, bool]]:
    """Model, whether it is withdrawn, whether it speaks for the patient."""
    bodies = [msgspec.json.decode(one.payload) for one in outcome.deliveries if one.operation is Operation.UPSERT_SCORE]
    return sorted((body["score"]["model"], body["withdrawn"], body["decides"]) for body in bodies)


# --- F5: a death tells the team --------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", [{30: "Y"}, {29: "20260307093000"}])
@pytest.mark.parametrize("code", ["01", "03", "07", "50", ""])
def test_f5_a_death_tells_the_team_how_many_tasks_it_has_ended(ward: Ward, code: str, death: dict[int, str]) -> None:
    ward.stay(code=code)
    open_before = len(ward.tasks())
    outcome = ward.person(HOME + DAY, death)
    ((step, told),) = ward.tasks().items()
    assert (step, told.kind, told.assignee) == ("death/patient_died", "care_coordinator_alert", "care_coordinator")
    assert f"open tasks that ended: {open_before}." in told.reason
    assert "if the patient is alive, say so" in told.reason
    assert [effect.detail for effect in outcome.effects if effect.kind == "task-created"] == ["care_coordinator_alert"]
    ward.person(HOME + DAY + HOUR, death)  # said again
    assert len(ward.tasks()) == 1


def test_f5_a_correction_of_the_disposition_to_death_tells_the_team(ward: Ward) -> None:
    ward.stay()
    ward.event("A08", HOME + HOUR, since=HOME - 5 * DAY, left=HOME, code="20")
    assert list(ward.tasks()) == ["death/patient_died"]


def test_f5_a_death_in_the_readmission_tells_who_waited_for_its_end(ward: Ward) -> None:
    ward.stay()
    ward.called()
    ward.event("A01", HOME + DAY, "V2", since=HOME + DAY)
    ward.event("A03", HOME + 2 * DAY, "V2", since=HOME + DAY, left=HOME + 2 * DAY, code="20")
    ((step, told),) = ward.tasks().items()
    assert step == "death/patient_died"
    assert "ended: 5." in told.reason  # all but the call, which is over


def test_f5_a_death_without_a_plan_tells_nobody(ward: Ward) -> None:
    ward.event("A01", HOME, since=HOME)
    ward.event("A03", HOME + DAY, since=HOME, left=HOME + DAY, code="20")
    assert ward.chart("1").tasks == ()


@pytest.mark.parametrize(("survivor", "gone"), [("1", "2"), ("2", "1")])
def test_f5_a_merge_with_a_dead_chart_tells_the_team_once(ward: Ward, survivor: str, gone: str) -> None:
    ward.stay(mrn="1")
    ward.person(HOME + HOUR, {30: "Y"}, mrn="2")
    ward.merged(survivor, gone, HOME + DAY)
    assert ward.chart(survivor).patient.deceased is True
    assert list(ward.tasks(mrn=survivor)) == ["death/patient_died"]


def test_f5_two_dead_charts_that_are_one_patient_have_one_alert(ward: Ward) -> None:
    for mrn, visit in (("1", "V1"), ("2", "V2")):
        ward.stay(visit, mrn=mrn)
    for mrn in ("1", "2"):
        ward.person(HOME + DAY, {30: "Y"}, mrn=mrn)
    ward.merged("1", "2", HOME + 2 * DAY)
    assert sum(task.stands for task in ward.chart("1").tasks) == 1


def test_f5_a_death_that_was_none_withdraws_what_told_of_it_and_a_second_one_tells_again(ward: Ward) -> None:
    ward.stay()
    ward.called()
    planned = set(ward.tasks())
    for day, mark in enumerate("YNYN", start=1):
        ward.person(HOME + day * HOUR, {30: mark})
        assert set(ward.tasks()) == ({"death/patient_died"} if mark == "Y" else planned - {"on_call_page"})
    told = [task for task in ward.chart("1").tasks if tells_of_death(task)]
    assert [(task.state, task.end_reason) for task in told] == [
        (TaskState.RETRACTED, "the patient has not died"),
        (TaskState.RETRACTED, "the patient has not died"),
    ]


def test_f5_a_person_who_settles_a_doubt_tells_the_team(ward: Ward) -> None:
    ward.stay()
    ward.event("A03", HOME + HOUR, "V0", since=HOME - 9 * DAY, left=HOME - 8 * DAY, code="20")
    doubts = ward.chart("1").death_stated.doubts
    assert doubts
    chart = ward.chart("1")
    dead = msgspec.structs.replace(chart, patient=msgspec.structs.replace(chart.patient, deceased=True))
    (doubt,) = doubts
    after = decide_death(dead, doubt.root, doubt.code, doubt.location, by="anna", at=ward.now, channel=ward.channel)
    assert [task.step for task in after.tasks if task.stands] == ["death/patient_died"]
    assert after.scores == ()


# --- F6: scores and flags of the dead --------------------------------------------------------------------------------

DEATHS = {
    "PID-30": lambda ward: ward.person(HOME + DAY, {30: "Y"}),
    "A08 20": lambda ward: ward.event("A08", HOME + DAY, since=HOME - 5 * DAY, left=HOME, code="20", dg1=SICK),
}


@pytest.mark.parametrize("how", DEATHS)
def test_f6_the_scores_of_the_dead_are_withdrawn_and_come_back_when_the_death_is_undone(ward: Ward, how: str) -> None:
    ward.stay()
    before = {(score.model, score.min, score.band) for score in ward.chart("1").scores}
    died = DEATHS[how](ward)
    assert ward.chart("1").scores == ()
    assert [one[:2] for one in scores_told(died)] == [("lace", True), ("seed", True)]
    assert ("lace", True, True) in scores_told(died), "the flag goes"
    assert {effect.detail for effect in died.effects if effect.kind == "score-withdrawn"} == {"lace", "seed"}
    undone = (
        ward.person(HOME + 2 * DAY, {30: "N"})
        if how == "PID-30"
        else ward.event("A08", HOME + 2 * DAY, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    )
    assert {(score.model, score.min, score.band) for score in ward.chart("1").scores} == before
    assert ("lace", False, True) in scores_told(undone)


def test_f6_who_dies_in_the_stay_gets_no_score_from_its_discharge(ward: Ward) -> None:
    ward.event("A01", HOME - DAY, since=HOME - DAY)
    outcome = ward.event("A03", HOME, since=HOME - DAY, left=HOME, code="20", dg1=SICK)
    assert ward.chart("1").scores == ()
    assert all(withdrawn for _, withdrawn, _ in scores_told(outcome))
    assert [why.reason for why in outcome.why if why.what is What.SCORE] == [Reason.DECEASED]


def test_f6_a_merge_with_a_dead_chart_withdraws_the_scores_of_both(ward: Ward) -> None:
    ward.stay(mrn="1")
    ward.person(HOME + HOUR, {30: "Y"}, mrn="2")
    outcome = ward.merged("2", "1", HOME + DAY)
    assert ward.chart("2").scores == ()
    assert [one[:2] for one in scores_told(outcome)] == [("lace", True), ("seed", True)]


# --- F8: back within the hour ----------------------------------------------------------------------------------------


def back(ward: Ward, after: timedelta, hours: float = 2, **more: Any) -> Outcome:
    """Again in the hospital so long after the discharge, and home again."""
    came = HOME + after
    ward.event("A01", came, "V2", since=came)
    left = came + hours * HOUR
    return ward.event("A03", left, "V2", since=came, left=left, **({"code": "01"} | more))


@pytest.mark.parametrize("after", [HOUR / 2, DAY, 6 * DAY])
def test_f8_who_comes_back_while_a_plan_runs_never_gets_the_weaker_one(ward: Ward, after: timedelta) -> None:
    ward.stay()
    assert set(ward.tasks()) == HIGH
    outcome = back(ward, after)
    assert next(one for one in ward.chart("1").scores if one.encounter == "MRN:V2").band is not Band.HIGH
    assert set(ward.tasks()) == HIGH
    assert {task.encounter for task in ward.tasks().values()} == {"MRN:V2"}
    assert Reason.EARLIER_BAND in ward.said(outcome)


def test_f8_who_had_left_against_advice_never_gets_the_weaker_plan_either(ward: Ward) -> None:
    ward.stay(code="07")
    outcome = back(ward, DAY)
    assert set(ward.tasks("V2")) == HIGH
    assert Reason.EARLIER_BAND in ward.said(outcome)


def test_f8_a_plan_that_would_be_over_says_nothing_of_the_next_one(ward: Ward) -> None:
    ward.stay()
    back(ward, 8 * DAY)
    assert {"tcm_contact"} < set(ward.tasks())
    assert "specialist_follow_up" not in ward.tasks()


def test_f8_a_condition_of_the_stay_before_counts_too() -> None:
    text = PROTOCOL.read_text(encoding="utf-8")
    text = text.replace("conditions:\n", "conditions:\n  heart: {diagnoses: [I50]}\n", 1)
    step = "{kind: education, name: weigh, due: {days: 1}, assignee: nurse, reason: Weigh daily, when: [heart]}"
    text = text.replace("    every:\n", f"    every:\n      - {step}\n", 1)
    ward = Ward()
    ward.channel = dataclasses.replace(ward.channel, planner=Planner(load_protocol(parse(text, "p.yaml")), "lace"))
    ward.stay()
    assert "weigh" in ward.tasks()
    back(ward, HOUR / 2)
    assert "weigh" in ward.tasks("V2")


@pytest.mark.parametrize("code", ["03", "02", "50"])
def test_f8_the_second_stay_decides_where_the_patient_is(ward: Ward, code: str) -> None:
    ward.stay()
    back(ward, HOUR / 2, code=code)
    assert HIGH.isdisjoint(set(ward.tasks()) - {"care_coordinator_alert"})


def test_f8_the_plan_follows_what_is_heard_of_the_first_stay_later(ward: Ward) -> None:
    ward.stay(dg1=())
    back(ward, HOUR / 2)
    assert "specialist_follow_up" not in ward.tasks()
    ward.event("A08", HOME + 4 * HOUR, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    assert "specialist_follow_up" in ward.tasks("V2")


# --- F9: an emergency visit that becomes a stay ----------------------------------------------------------------------


def test_f9_an_emergency_visit_that_becomes_a_stay_sets_the_plan_aside_and_gets_its_own(ward: Ward) -> None:
    ward.stay()
    came = HOME + 3 * DAY
    ward.event("A04", came, "V2", since=came, _2="E")
    assert set(ward.tasks()) == HIGH, "a visit sets nothing aside"
    ward.event("A06", came + HOUR, "V2", since=came)
    assert ward.tasks() == {}
    ward.event("A03", came + DAY, "V2", since=came, left=came + DAY, code="01", _2="")
    assert {task.encounter for task in ward.tasks().values()} == {"MRN:V2"}
    assert set(ward.tasks()) == HIGH


def test_f9_a_stay_that_becomes_an_outpatient_s_gives_the_plan_back(ward: Ward) -> None:
    ward.stay()
    came = HOME + 3 * DAY
    ward.event("A01", came, "V2", since=came)
    assert ward.tasks() == {}
    ward.event("A07", came + HOUR, "V2", since=came, _2="O")
    assert set(ward.tasks()) == HIGH - {"on_call_page"}


# --- F11: one stay under two numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [timedelta(), timedelta(minutes=3), -HOUR])
@pytest.mark.parametrize(("survivor", "gone"), [("1", "2"), ("2", "1")])
def test_f11_two_registrations_of_one_stay_have_one_plan_after_their_merge(
    ward: Ward, survivor: str, gone: str, apart: timedelta
) -> None:
    ward.stay("V1", mrn="1")
    ward.stay("V2", mrn="2", left=HOME + apart)
    ward.merged(survivor, gone, HOME + 2 * HOUR)
    standing = [task for task in ward.chart(survivor).tasks if task.stands]
    assert sorted(task.step for task in standing) == sorted(HIGH)
    assert len({task.encounter for task in standing}) == 1
    assert sum(page.stands for page in ward.pages(survivor)) == 1


@pytest.mark.parametrize("done_under", ["1", "2"])
def test_f11_what_was_done_under_one_number_is_not_done_again_under_the_other(ward: Ward, done_under: str) -> None:
    ward.stay("V1", mrn="1")
    ward.stay("V2", mrn="2")
    ward.done("tcm_contact", done_under, f"V{done_under}")
    ward.done("on_call_page", done_under, f"V{done_under}")
    ward.merged("1", "2", HOME + 2 * HOUR)
    standing = [task.step for task in ward.chart("1").tasks if task.stands]
    assert sorted(standing) == sorted(HIGH - {"tcm_contact", "on_call_page"})


def test_f11_a_stay_after_another_is_a_readmission_and_no_second_registration(ward: Ward) -> None:
    ward.stay("V1", mrn="1")
    ward.done("tcm_contact")
    later = HOME + 2 * HOUR
    ward.event("A01", later, "V2", mrn="2", since=later)
    ward.event("A03", later + DAY, "V2", mrn="2", since=later, left=later + DAY, code="01")
    ward.merged("1", "2", later + DAY + HOUR)
    assert "tcm_contact" in ward.tasks("V2")


# --- F17, F18: a call is for what is fresh, and once -----------------------------------------------------------------


@pytest.mark.parametrize(("late", "called"), [(timedelta(), True), (12 * HOUR, True), (13 * HOUR, False)])
def test_f17_somebody_is_called_only_while_the_discharge_is_fresh(ward: Ward, late: timedelta, called: bool) -> None:
    ward.event("A01", HOME - 5 * DAY, since=HOME - 5 * DAY)
    outcome = ward.event("A03", HOME, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK, heard=HOME + late)
    assert bool(ward.pages()) is called
    assert HIGH - {"on_call_page"} <= set(ward.tasks())
    assert (Reason.PAGE_TOO_LATE in ward.said(outcome)) is not called
    withheld = [effect.detail for effect in outcome.effects if effect.kind == "plan-withheld"]
    assert withheld == ([] if called else ["discharged more than 12 hours ago: no task on_call_page"])


def test_f17_the_protocol_says_how_fresh(ward: Ward) -> None:
    text = PROTOCOL.read_text(encoding="utf-8").replace("page_fresh: {hours: 12}", "page_fresh: {minutes: 30}")
    planner = Planner(load_protocol(parse(text, PROTOCOL.name)), "lace")
    ward.channel = dataclasses.replace(ward.channel, planner=planner)
    ward.event("A03", HOME, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK, heard=HOME + HOUR)
    assert ward.pages() == []


@pytest.mark.parametrize("after", [DAY + 4 * HOUR, 10 * DAY])
def test_f17_final_coding_calls_nobody(ward: Ward, after: timedelta) -> None:
    ward.stay(dg1=())
    assert "on_call_page" not in ward.tasks()
    ward.event("A08", HOME + after, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    assert ward.pages() == []
    assert "specialist_follow_up" in ward.tasks()


def test_f17_final_coding_of_weeks_ago_opens_nothing_new(ward: Ward) -> None:
    ward.stay(dg1=())
    before = set(ward.tasks())
    outcome = ward.event("A08", HOME + 40 * DAY, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    assert set(ward.tasks()) <= before
    assert Reason.TOO_LATE in ward.said(outcome)


CORRECTED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "to a facility": ({"code": "03"}, {"notify_facility"}),
    "to a hospice": ({"code": "50"}, {"notify_team"}),
    "left against advice": ({"code": "07"}, {"urgent_call"}),
    "to what a person must decide": ({"code": "21"}, {"decide"}),
    "to an unknown code": ({"code": "77"}, {"decide"}),
    "to an unknown class": ({"code": "01", "_2": "ZZ"}, {"decide"}),
    "to a transfer": ({"code": "02"}, set()),
    "to an outpatient": ({"code": "01", "_2": "O"}, set()),
    "to home with an agency": ({"code": "06"}, HIGH - {"on_call_page"}),
    "to a lower band": ({"code": "01", "dg1": MILD}, HIGH - {"on_call_page"}),
}


@pytest.mark.parametrize("days", [15, 100])
@pytest.mark.parametrize("name", CORRECTED)
def test_a_correction_of_weeks_ago_leaves_what_it_calls_for_and_never_nothing_in_its_place(
    ward: Ward, name: str, days: int
) -> None:
    """Nobody is called, and what only the band has changed neither adds a task nor takes one away."""
    ward.stay()
    ward.called()
    ward.done("on_call_page")
    change, left = CORRECTED[name]
    at = HOME + days * DAY
    ward.event("A08", at, since=HOME - 5 * DAY, left=HOME, **({"dg1": SICK} | change))
    assert set(ward.tasks()) == left
    ward.event("A08", at + HOUR, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK, _2="I")
    assert set(ward.tasks()) == (HIGH - {"on_call_page"} if left else set())
    assert [page.stands for page in ward.pages()] == [False]


def test_what_was_asked_in_time_is_planned_when_the_answer_comes_after_weeks(ward: Ward) -> None:
    ward.stay(code="")
    assert set(ward.tasks()) == {"decide"}
    ward.event("A08", HOME + 20 * DAY, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    assert set(ward.tasks()) == HIGH - {"on_call_page"}
    assert ward.pages() == []


FLIPS = {
    "to a facility and back": [("A08", {"code": "03"}), ("A08", {"code": "01"})],
    "a lower band and back": [("A08", {"code": "01", "dg1": MILD}), ("A08", {"code": "01", "dg1": SICK})],
    "no inpatient, and one after all": [("A08", {"code": "01", "_2": "O"}), ("A08", {"code": "01", "_2": "I"})],
    "unknown and back": [("A08", {"code": "77"}), ("A08", {"code": "01"})],
    "said again": [("A03", {"code": "01", "dg1": SICK}), ("A03", {"code": "01", "dg1": SICK})],
}


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("flip", FLIPS)
def test_f18_no_correction_calls_a_second_time(ward: Ward, flip: str, answered: bool) -> None:
    ward.stay()
    ward.called()
    if answered:
        ward.done("on_call_page")
    before = ward.chart("1").pages[0].steps
    for number, (trigger, change) in enumerate(FLIPS[flip], start=1):
        ward.event(trigger, HOME + number * HOUR / 4, since=HOME - 5 * DAY, left=HOME, **({"dg1": SICK} | change))  # type: ignore[arg-type]
    ward.called()
    assert len(ward.pages()) == 1
    assert [page.steps[: len(before)] for page in ward.chart("1").pages] == [before]
    assert flip == "said again" or [page.steps for page in ward.chart("1").pages] == [before]
    assert HIGH - {"on_call_page"} <= set(ward.tasks())


AWAY_AND_BACK: dict[str, list[dict[str, Any]]] = {
    **{
        name: [{"trigger": trigger, "since": HOME - 5 * DAY, "left": HOME, **change} for trigger, change in flip]
        for name, flip in FLIPS.items()
        if name != "said again"
    },
    "a readmission that was none": [
        {"trigger": "A01", "visit": "V2", "since": HOME + HOUR / 4},
        {"trigger": "A11", "visit": "V2", "since": HOME + HOUR / 4},
    ],
    "a death that was none": [{"trigger": "A31", "pid": {30: "Y"}}, {"trigger": "A31", "pid": {30: "N"}}],
}


@pytest.mark.parametrize("late", [timedelta(), DAY])
@pytest.mark.parametrize("name", AWAY_AND_BACK)
def test_a_call_that_was_called_off_before_anybody_was_called_is_made_once_while_it_is_fresh(
    ward: Ward, name: str, late: timedelta
) -> None:
    ward.stay()
    for number, change in enumerate(AWAY_AND_BACK[name], start=1):
        at = HOME + number * HOUR / 4 + (late if number > 1 else timedelta())
        ward.event(at=at, **({"dg1": SICK} | change))
    ward.called()
    (page,) = ward.chart("1").pages
    assert len(ward.pages()) == 1
    assert (ward.pages()[0].stands, page.has_called) == (not late, not late)


@pytest.mark.parametrize(
    ("result", "again"),
    [(result, result is StepResult.FAILED) for result in (StepResult.QUEUED, StepResult.SENT, StepResult.FAILED)],
)
@pytest.mark.parametrize("name", AWAY_AND_BACK)
def test_a_call_that_was_taken_back_before_it_has_reached_anybody_is_made_after_all(
    ward: Ward, name: str, result: StepResult, again: bool
) -> None:
    """Whether the courier or the correction is first is chance: a patient whom nobody was called about is not lost."""
    ward.stay()
    ward.called()
    for number, change in enumerate(AWAY_AND_BACK[name], start=1):
        ward.event(at=HOME + number * HOUR / 4, **({"dg1": SICK} | change))
        if number == 1:
            chart = ward.chart("1")
            (page,) = chart.pages
            assert page.state is PageState.RESOLVED
            for step in range(1, len(page.steps) + 1):
                page = settle(page, step, result, ward.now, None)
            ward.charts.add(msgspec.structs.replace(with_page(chart, page), version=chart.version + 1))
    ward.called()
    (page,) = ward.chart("1").pages
    rounds = [0, 1] if again else [0]
    assert sorted({step.round for step in page.steps}) == rounds
    assert [task.stands for task in ward.pages()] == [again]


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("after", [HOUR / 4, 5 * DAY])
def test_f18_an_undone_readmission_calls_nobody_again(ward: Ward, after: timedelta, answered: bool) -> None:
    ward.stay()
    ward.called()
    if answered:
        ward.done("on_call_page")
    came = HOME + after
    ward.event("A01", came, "V2", since=came)
    ward.event("A11", came + HOUR / 4, "V2", since=came)
    assert len(ward.pages()) == 1
    assert not ward.pages()[0].stands
    assert set(ward.tasks()) == HIGH - {"on_call_page"}


def test_f18_a_call_that_was_never_made_is_made_when_the_readmission_was_none(ward: Ward) -> None:
    came = HOME + HOUR
    ward.event("A01", HOME - 5 * DAY, since=HOME - 5 * DAY)
    ward.event("A01", came, "V2", since=came)
    ward.event("A03", HOME, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK, heard=came)  # heard of late
    assert ward.pages() == []
    ward.event("A11", came + HOUR, "V2", since=came)
    assert [page.stands for page in ward.pages()] == [True]


def test_f18_a_discharge_that_was_taken_back_and_said_again_is_another_one(ward: Ward) -> None:
    ward.stay()
    ward.event("A13", HOME + HOUR, since=HOME - 5 * DAY)
    ward.event("A03", HOME + 3 * HOUR, since=HOME - 5 * DAY, left=HOME + 3 * HOUR, code="01", dg1=SICK)
    assert [page.stands for page in ward.pages()] == [False, True]


# --- F19: a date without a time --------------------------------------------------------------------------------------


def due(ward: Ward, step: str) -> str:
    return ward.tasks()[step].due_at.astimezone(ward.channel.zone).strftime("%m-%d %H:%M:%S")


def test_f19_a_mere_date_takes_the_time_of_day_from_the_event_of_that_day(ward: Ward) -> None:
    ward.event("A01", HOME - 5 * DAY, since=HOME - 5 * DAY)
    ward.event("A03", HOME, since=HOME - 5 * DAY, code="01", dg1=SICK, _45="20260306")
    assert due(ward, "medication_reconciliation") == "03-07 10:00:00"
    assert due(ward, "tcm_contact") == "03-10 10:00:00"
    assert ward.chart("1").encounters[0].time_sources["discharged_at"] == "EVN-2"


def test_f19_a_mere_date_counts_to_its_end_when_the_event_is_of_another_day(ward: Ward) -> None:
    ward.event("A01", HOME - 5 * DAY, since=HOME - 5 * DAY)
    ward.event("A03", HOME + DAY, since=HOME - 5 * DAY, code="01", dg1=SICK, _45="20260306")
    assert due(ward, "medication_reconciliation") == "03-07 23:59:59"
    assert due(ward, "tcm_contact") == "03-10 23:59:59"


def test_f19_a_mere_date_said_later_takes_no_time_of_day_away(ward: Ward) -> None:
    ward.stay()
    before = {step: task.due_at for step, task in ward.tasks().items()}
    ward.event("A08", HOME + HOUR, since=HOME - 5 * DAY, code="01", dg1=SICK, _45="20260306", _44="20260301")
    stay = ward.chart("1").encounters[0]
    assert (stay.admitted_at and stay.admitted_at.timed, stay.discharged_at and stay.discharged_at.timed) == (
        True,
        True,
    )
    assert {step: task.due_at for step, task in ward.tasks().items()} == before


def test_f19_another_date_said_later_is_taken(ward: Ward) -> None:
    ward.stay()
    ward.event("A08", HOME + DAY, since=HOME - 5 * DAY, code="01", dg1=SICK, _45="20260307")
    stay = ward.chart("1").encounters[0]
    assert stay.discharged_at is not None
    assert stay.discharged_at.text == "2026-03-07"


# --- F20: still there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["30", "09", "31", "39"])
@pytest.mark.parametrize("trigger", ["A03", "A08"])
def test_f20_a_disposition_of_who_is_still_there_stands_on_the_quality_list(
    ward: Ward, trigger: str, code: str
) -> None:
    ward.stay() if trigger == "A08" else ward.event("A01", HOME - DAY, since=HOME - DAY)
    outcome = ward.event(trigger, HOME + HOUR, since=HOME - 5 * DAY, left=HOME + HOUR, code=code)
    assert [item.kind for item in outcome.quality] == [QualityKind.DISPOSITION_NO_DISCHARGE]


# --- what can't be right ---------------------------------------------------------------------------------------------


def asked(ward: Ward) -> str:
    """The reason of the one open task, which asks a person."""
    ((step, task),) = ward.tasks().items()
    assert step == "decide"
    return task.reason


@pytest.mark.parametrize("before", [HOUR, DAY, 400 * DAY])
def test_a_discharge_before_its_admission_is_planned_by_a_person(ward: Ward, before: timedelta) -> None:
    ward.event("A01", HOME - DAY, since=HOME - DAY)
    outcome = ward.event("A03", HOME, since=HOME - DAY, left=HOME - DAY - before, code="01", dg1=SICK)
    assert "the time of discharge that was sent can't be right" in asked(ward)
    assert QualityKind.DISCHARGE_BEFORE_ADMISSION in {item.kind for item in outcome.quality}
    assert Reason.DOUBT_ASKED in ward.said(outcome)
    ward.event("A08", HOME + HOUR, since=HOME - DAY, left=HOME, code="01", dg1=SICK)  # put right
    assert "decide" not in ward.tasks()
    assert "tcm_contact" in ward.tasks()


def test_an_admission_that_turns_out_to_be_after_the_discharge_takes_the_plan_to_a_person(ward: Ward) -> None:
    ward.stay()
    ward.event("A08", HOME + HOUR, since=HOME + HOUR / 2, code="01", dg1=SICK)
    assert "the discharge lies before the admission" in asked(ward)


@pytest.mark.parametrize("ahead", [30 * DAY, 400 * DAY])
def test_a_discharge_far_ahead_is_planned_by_a_person(ward: Ward, ahead: timedelta) -> None:
    ward.event("A01", HOME - DAY, since=HOME - DAY)
    outcome = ward.event("A03", HOME, since=HOME - DAY, left=HOME + ahead, code="01", dg1=SICK)
    assert "can't be right" in asked(ward)
    assert QualityKind.TIME_IMPLAUSIBLE in {item.kind for item in outcome.quality}


def test_a_discharge_some_hours_ahead_comes_from_a_clock_and_gets_its_plan(ward: Ward) -> None:
    ward.stay(left=HOME)
    ward.event("A01", HOME + DAY, "V2", since=HOME + DAY)
    ward.event("A03", HOME + 2 * DAY, "V2", since=HOME + DAY, left=HOME + 2 * DAY + 5 * HOUR, code="01")
    assert "decide" not in ward.tasks()
    assert "tcm_contact" in ward.tasks()


@pytest.mark.parametrize("born", ["20260401", "2027", "20260401120000"])
def test_a_patient_who_is_born_tomorrow_is_planned_by_a_person(ward: Ward, born: str) -> None:
    ward.event("A01", HOME - DAY, since=HOME - DAY, pid={7: born})
    outcome = ward.event("A03", HOME, since=HOME - DAY, left=HOME, code="01", dg1=SICK, pid={7: born})
    assert "the birth date lies after the stay" in asked(ward)
    assert QualityKind.BIRTH_IN_FUTURE in {item.kind for item in outcome.quality}
    ward.person(HOME + HOUR, {7: "19480312"})
    assert "decide" not in ward.tasks()
    assert "tcm_contact" in ward.tasks()


def test_two_open_stays_are_on_the_list_and_the_plan_of_one_is_not_built_in_silence(ward: Ward) -> None:
    ward.event("A01", HOME - 9 * DAY, "V0", since=HOME - 9 * DAY)
    outcome = ward.event("A01", HOME - 5 * DAY, since=HOME - 5 * DAY)
    assert [item.kind for item in outcome.quality] == [QualityKind.STAYS_OVERLAP]
    ward.event("A03", HOME, since=HOME - 5 * DAY, left=HOME, code="01", dg1=SICK)
    assert set(ward.tasks()) == HIGH | {"decide"}
    assert "another stay of the patient has not ended" in ward.tasks()["decide"].reason
    ward.event("A03", HOME + HOUR, "V0", since=HOME - 9 * DAY, left=HOME - 8 * DAY, code="02")
    assert set(ward.tasks()) == HIGH


def test_a_visit_beside_a_stay_is_no_second_stay(ward: Ward) -> None:
    ward.event("A01", HOME - DAY, since=HOME - DAY)
    outcome = ward.event("A04", HOME, "V2", since=HOME, _2="E")
    assert outcome.quality == ()


def test_a_stay_that_is_seen_to_go_on_after_its_discharge_is_not_taken_for_a_history(ward: Ward) -> None:
    ward.event("A01", HOME - DAY, since=HOME - 40 * DAY)
    ward.event("A03", HOME, since=HOME - 40 * DAY, left=HOME - 20 * DAY, code="01", dg1=SICK)
    assert "can't be right" in asked(ward)


def test_a_history_that_is_loaded_opens_nothing_whatever_its_dates(ward: Ward) -> None:
    ward.now = HOME + 400 * DAY
    for trigger, more in (("A01", {}), ("A03", {"left": HOME, "code": "01"}), ("A03", {"left": HOME, "code": ""})):
        outcome = ward.event(trigger, HOME, since=HOME - DAY, **more)  # type: ignore[arg-type]
        assert all(delivery.operation is not Operation.UPSERT_TASK for delivery in outcome.deliveries)
    assert ward.chart("1").tasks == ()


# --- staged rollout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rollout", "in_it"),
    [
        ("{units: [4W]}", True), ("{units: [5E]}", False), ("{percent: 100}", True), ("{percent: 0.0001}", False),
        ("{units: [4W, 5E], percent: 100}", True), ("{units: [4W], percent: 0.0001}", False),
    ],
)  # fmt: skip
def test_a_protocol_acts_for_whom_its_rollout_names(ward: Ward, rollout: str, in_it: bool) -> None:
    outcome = ward.protocol(rollout=rollout).stay(_3="4W^1^A")
    assert bool(ward.chart("1").tasks) is in_it
    assert ward.chart("1").scores
    assert (ward.said(outcome) == [Reason.NOT_IN_ROLLOUT]) is not in_it
    noted = [effect.subject for effect in outcome.effects if effect.kind == "not-in-rollout"]
    assert noted == ([] if in_it else ["MRN:V1"])


@pytest.mark.parametrize(("dg1", "in_it"), [(SICK, True), ((DIABETES,), False)])
def test_a_rollout_names_cohorts_by_the_conditions_of_the_protocol(
    ward: Ward, dg1: tuple[str, ...], in_it: bool
) -> None:
    ward.protocol(rollout="{cohorts: [heart]}", conditions="\n  heart: {diagnoses: [I50]}\n").stay(dg1=dg1)
    assert bool(ward.chart("1").tasks) is in_it


def test_a_plan_that_was_made_goes_on_when_the_rollout_no_longer_names_the_patient(ward: Ward) -> None:
    ward.stay(_3="4W^1^A")
    ward.protocol(rollout="{units: [5E]}")
    ward.event("A08", HOME + HOUR, since=HOME - 5 * DAY, left=HOME, code="06", dg1=SICK, _3="4W^1^A")
    assert set(ward.tasks()) == HIGH | {"home_health_agency"}


def test_the_share_of_a_rollout_is_stable_by_patient_and_a_higher_one_throws_nobody_out() -> None:
    def chosen(percent: float, mrns: list[int]) -> set[int]:
        found = set()
        ward = Ward().protocol(rollout=f"{{percent: {percent}}}")
        for mrn in mrns:
            ward.event("A03", HOME, f"V{mrn}", mrn=str(mrn), since=HOME - DAY, left=HOME, code="01")
            if ward.chart(str(mrn)).tasks:
                found.add(mrn)
        return found

    patients = list(range(1000, 1200))
    few, more = chosen(10, patients), chosen(40, list(reversed(patients)))
    assert few < more
    assert 8 <= len(few) <= 35
    assert 55 <= len(more) <= 105


def test_a_merge_leaves_the_plan_of_who_was_in_the_rollout(ward: Ward) -> None:
    ward.protocol(rollout="{percent: 40}")
    mrns = [str(number) for number in range(20)]
    for mrn in mrns:
        ward.stay(f"V{mrn}", mrn=mrn)
    inside = next(mrn for mrn in mrns if ward.chart(mrn).tasks)
    outside = next(mrn for mrn in mrns if not ward.chart(mrn).tasks)
    ward.merged(outside, inside, HOME + HOUR)
    assert {task.step for task in ward.chart(outside).tasks if task.stands} == HIGH


@pytest.mark.parametrize(
    ("rollout", "text"),
    [
        ("{}", "names nobody"), ("{units: []}", "units"), ("{cohorts: []}", "cohorts"), ("{percent: 0}", "percent"),
        ("{percent: 101}", "percent"), ("{cohorts: [hart]}", "did you mean heart"),
        ("{cohorts: [emergency]}", "is nobody"), ("{units: [9Z], cohorts: [west]}", "is nobody"),
    ],
)  # fmt: skip
def test_a_rollout_that_names_nobody_is_refused(ward: Ward, rollout: str, text: str) -> None:
    conditions = "  heart: {diagnoses: [I50]}\n  emergency: {classes: [E]}\n  west: {units: [4W]}\n"
    cohorts = PROTOCOL.read_text(encoding="utf-8")
    steps = "".join(
        f"    - {{kind: education, name: {name}, due: {{days: 1}}, assignee: nurse, reason: R, when: [{name}]}}\n"
        for name in ("heart", "emergency", "west")
    )
    cohorts = cohorts.replace("  facility:\n", f"  facility:\n{steps}", 1)
    cohorts = cohorts.replace("conditions:\n", f"conditions:\n{conditions}", 1)
    cohorts = cohorts.replace("plans:\n", f"rollout: {rollout}\nplans:\n", 1)
    with pytest.raises(SettingsError) as refused:
        load_protocol(parse(cohorts, "p.yaml"))
    assert text in str([(problem.key, problem.message) for problem in refused.value.problems])


# --- a sender that never fills PV1-36 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "steps"), [("hold", {"decide"}), ("home", HIGH), ("none", set())], ids=["hold", "home", "none"]
)
def test_the_channel_says_what_a_blank_disposition_means(means: str, steps: set[str]) -> None:
    ward = Ward(blank_disposition=means)
    outcome = ward.stay(code="")
    assert set(ward.tasks()) == steps
    assert [(item.kind, item.detail) for item in outcome.quality] == [(QualityKind.DISPOSITION_MISSING, "PV1-36")]
    ward.event("A08", HOME + HOUR, since=HOME - 5 * DAY, left=HOME, code="03", dg1=SICK)
    assert set(ward.tasks()) == {"notify_facility"}


@pytest.mark.parametrize("code", ["77", "21"])
@pytest.mark.parametrize("means", ["home", "none"])
def test_what_is_sent_and_unknown_is_never_taken_for_blank(means: str, code: str) -> None:
    ward = Ward(blank_disposition=means)
    ward.stay(code=code)
    assert set(ward.tasks()) == {"decide"}
