"""Pages on charts: they follow their tasks, the clock calls people, and an acknowledgment or a safety event ends it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from heart import ROOT, Heart, adt, key, merge

from engine.care.oncall import NO_ROSTERS
from engine.care.pages import raised
from engine.connectors.registry import load
from engine.domain.cause import (
    Cause,
    Due,
    NotificationSettled,
    OnCallOverridden,
    PageAcknowledged,
    TaskAssigned,
    TaskAttempted,
    TaskCancelled,
    TaskDone,
    TaskSnoozed,
    TaskUndone,
    written,
)
from engine.domain.delivery import Gone, Notification, NotificationEnd, Operation
from engine.domain.message import AckCode
from engine.domain.oncall import Override
from engine.domain.outcome import EffectKind, Outcome
from engine.domain.page import Page, PageState, StepResult
from engine.domain.task import Escalation, TaskState
from engine.errors import SettingsError
from engine.pipeline.compiling import compile_configuration
from engine.pipeline.due import due_at, is_urgent
from engine.pipeline.pages import NOT_PAGED
from engine.pipeline.process import channel_of, decide, prepare
from engine.snapshot import Snapshot

MINUTE = timedelta(minutes=1)
HIGH = {36: "01", 45: "20260306130000", 44: "20260220080000", 4: "E"}


class Duty(Heart):
    """The heart, with people who act and a clock that rings."""

    def do(self, cause: Cause) -> Outcome:
        entry = msgspec.structs.replace(self.entry(written(cause)), channel=cause.kind.lane)
        prepared = prepare(entry, None)
        assert channel_of(prepared, self.charts) in {"main-campus", ""}
        outcome = decide(prepared, self.channel if cause.chart_id else None, self.charts, self.now)
        for chart in outcome.charts:
            self.charts.add(chart)
        self.charts.overrides += outcome.overrides
        return outcome

    def ring(self) -> list[Outcome]:
        """All that is due by now."""
        rung: list[Outcome] = []
        while (at := due_at(self.chart())) is not None and at <= self.now + timedelta(microseconds=1):
            self.now = max(self.now, at)
            chart = self.chart()
            rung.append(self.do(Due(actor="clock", chart_id=chart.id, at=at, version=chart.version, since=at)))
            assert len(rung) < 50
        return rung

    def later(self, minutes: float) -> list[Outcome]:
        """Let time pass, ringing whenever something is due."""
        end, rung = self.now + minutes * MINUTE, []
        while (at := due_at(self.chart())) is not None and at <= end:
            self.now = max(self.now, at)
            rung += self.ring()
        self.now = end
        return rung

    @property
    def page(self) -> Page:
        (page,) = self.chart().pages
        return page


def ack(duty: Duty, by: str = "example-day-1") -> Outcome:
    return duty.do(PageAcknowledged(actor="anna", chart_id=duty.chart().id, page=duty.page.id, by=by))


def settled(duty: Duty, result: StepResult, step: int = 1, detail: str | None = None) -> Outcome:
    return duty.do(
        NotificationSettled(
            actor="courier",
            chart_id=duty.chart().id,
            page=duty.page.id,
            step=step,
            delivery=step,
            result=result.value,
            detail=detail,
        )
    )


def notified(outcomes: list[Outcome]) -> list[Notification]:
    found = [one.content for outcome in outcomes for one in outcome.deliveries if one.operation is Operation.NOTIFY]
    return [one for one in found if isinstance(one, Notification)]


@pytest.fixture
def duty() -> Duty:
    """A patient at high risk who has just gone home; NOW is 13:00 in New York, when example-day-1 or -2 is on call."""
    made = Duty()
    made.send(adt("A01", pv1={3: "W^1^A", 4: "E", 44: "20260220080000"}))
    made.send(adt("A03", at="20260306130000", pv1=HIGH))
    return made


def test_a_discharge_with_a_page_calls_somebody_at_once_and_says_nothing_of_the_patient(duty: Duty) -> None:
    assert duty.page.state is PageState.QUEUED
    assert is_urgent(duty.chart())
    (said,) = notified(duty.ring())
    page = duty.page
    assert (said.page_id, said.person, said.level, said.step) == (page.id, page.steps[0].person, 1, 1)
    assert said.link == f"/pages/{page.id}"
    assert said.acknowledge_by == duty.now + 5 * MINUTE == page.next_at
    for value in ("558181838", "Doe", "Jane", "1948", "MRN"):
        assert value.encode() not in said.encoded()


def test_a_task_has_one_page_for_ever(duty: Duty) -> None:
    duty.ring()
    before = duty.page
    duty.send(adt("A08", at="20260306131000", pv1=HIGH, pid={13: "5185550100"}))
    assert duty.page == before
    ack(duty)
    duty.send(adt("A08", at="20260306132000", pv1=HIGH, pid={13: "5185550101"}))
    assert [page.id for page in duty.chart().pages] == [before.id]
    assert duty.page.state is PageState.ACKNOWLEDGED


def test_an_acknowledgment_does_the_task_and_takes_queued_notifications_back_with_it(duty: Duty) -> None:
    """Complaint: texts keep coming after the acknowledgment."""
    (rung,) = duty.ring()
    (queued,) = [one for one in rung.deliveries if one.operation is Operation.NOTIFY]
    outcome = ack(duty)
    page, task = duty.page, next(one for one in duty.chart().tasks if one.kind == "on_call_page")
    assert (page.state, page.acknowledged_by, page.acknowledged_at) == (
        PageState.ACKNOWLEDGED,
        "example-day-1",
        duty.now,
    )
    assert (task.state, task.ended_by, task.evidence) == (
        TaskState.DONE,
        "example-day-1",
        f"page {page.id} acknowledged",
    )
    (fallen,) = outcome.fallen
    said = queued.content
    assert isinstance(said, Notification)
    assert fallen.code is Gone.GROUND
    assert said.ground in (fallen.grounds or ())
    assert [one.subject for one in outcome.audit] == [f"page:{page.id}"]
    assert due_at(duty.chart()) is None or not notified(duty.later(24 * 60))


def test_a_page_that_is_over_stays_so_when_another_one_of_the_patient_rings(duty: Duty) -> None:
    duty.ring()
    ack(duty)
    over = duty.page
    another = raised("another", "on_call_page", over.policy, duty.now + MINUTE)
    duty.charts.add(msgspec.structs.replace(duty.chart(), pages=(over, another)))
    calls = notified(duty.later(120))
    assert calls
    assert over.id not in {said.page_id for said in calls}
    assert over in duty.chart().pages


@pytest.mark.parametrize("again", ["example-day-1", "stranger"])
def test_a_second_acknowledgment_says_plainly_who_was_first_and_changes_nothing(duty: Duty, again: str) -> None:
    ack(duty, "stranger")
    before = duty.chart()
    outcome = ack(duty, again)
    assert outcome.reason is not None
    assert "acknowledged by stranger, not on call" in outcome.reason
    assert outcome.effects[0].kind == EffectKind.NOT_DONE
    assert duty.chart() is before


@pytest.mark.parametrize(
    ("message", "state"),
    [
        (adt("A13", at="20260306140000", pv1={3: "W^1^A"}), TaskState.RETRACTED),
        (adt("A31", at="20260306140000", pid={30: "Y", 29: "20260306133000"}), TaskState.CANCELLED),
        (adt("A08", at="20260306140000", pv1=HIGH | {36: "03"}), TaskState.RETRACTED),
        (adt("A01", at="20260306140000", pv1={3: "W^1^A", 19: "V2^^^MRN"}), TaskState.CANCELLED),
    ],
    ids=["discharge cancelled", "death", "another disposition", "readmission"],
)
def test_a_page_is_called_off_with_its_task(duty: Duty, message: bytes, state: TaskState) -> None:
    duty.ring()
    duty.now += timedelta(hours=2)
    outcome = duty.send(message)
    assert outcome.application_ack is AckCode.AA
    task = next(one for one in duty.chart().tasks if one.id == duty.page.task)
    assert task.state is state
    assert (duty.page.state, duty.page.next_at) == (PageState.RESOLVED, None)
    assert duty.page.end_reason == task.end_reason
    assert outcome.fallen
    assert not notified(duty.later(60))


def test_a_task_that_somebody_has_done_calls_its_page_off(duty: Duty) -> None:
    duty.ring()
    duty.do(TaskDone(actor="anna", chart_id=duty.chart().id, task=duty.page.task))
    assert duty.page.state is PageState.RESOLVED
    outcome = ack(duty)
    assert outcome.reason is not None
    assert outcome.reason.startswith("the page is resolved")


def test_a_page_that_was_called_off_is_not_raised_again_when_its_task_stands_again(duty: Duty) -> None:
    duty.ring()
    duty.send(adt("A01", at="20260306140000", pv1={3: "W^1^A", 19: "V2^^^MRN"}))
    outcome = duty.send(adt("A11", at="20260306150000", pv1={3: "W^1^A", 19: "V2^^^MRN"}))
    assert duty.page.state is PageState.RESOLVED
    assert not notified([outcome, *duty.later(60)])


def test_nobody_acknowledges_so_the_supervisor_is_told_and_a_safety_event_stays(duty: Duty) -> None:
    people = [one.person for one in notified(duty.later(60))]
    assert people[-1] == "example-supervisor"
    page, chart = duty.page, duty.chart()
    assert page.state is PageState.EXHAUSTED
    task = next(one for one in chart.tasks if one.id == page.task)
    assert task.state is TaskState.MISSED
    (alert,) = [one for one in chart.tasks if one.kind == "safety_event"]
    assert (alert.assignee, alert.stands, alert.raised_for) == ("house_supervisor", True, page.id)
    duty.send(adt("A08", at="20260306141000", pv1=HIGH, pid={13: "5185550100"}))  # planned anew: it stays
    assert alert.id in {one.id for one in duty.chart().tasks if one.stands}
    ack(duty)
    assert duty.page.state is PageState.ACKNOWLEDGED
    assert next(one for one in duty.chart().tasks if one.id == page.task).state is TaskState.DONE


def test_a_safety_event_goes_when_the_discharge_is_cancelled(duty: Duty) -> None:
    duty.later(60)
    duty.send(adt("A13", at="20260306150000", pv1={3: "W^1^A"}))
    assert duty.page.state is PageState.RESOLVED
    assert not [one for one in duty.chart().tasks if one.stands]


def test_a_permanent_failure_escalates_at_once(duty: Duty) -> None:
    duty.ring()
    duty.now += MINUTE
    settled(duty, StepResult.FAILED, detail="refused")
    assert due_at(duty.chart()) is not None
    called = [one.person for one in notified(duty.ring())]
    assert "example-backup" in called
    assert duty.page.steps[0].detail == "refused"


def test_what_a_destination_says_is_on_record_and_what_was_taken_back_has_not_failed(duty: Duty) -> None:
    duty.ring()
    settled(duty, StepResult.SENT)
    assert (duty.page.state, duty.page.steps[0].result) == (PageState.SENT, StepResult.SENT)
    called = len(duty.page.steps)
    duty.later(5.1)
    ack(duty)
    settled(duty, StepResult.FAILED, step=called + 1, detail="ground-gone")
    assert duty.page.steps[called].result is StepResult.WITHDRAWN
    assert duty.page.state is PageState.ACKNOWLEDGED


def test_who_stands_in_is_called(duty: Duty) -> None:
    """Complaint: the roster shows the scheduled person, the page goes to another."""
    outcome = duty.do(
        OnCallOverridden(
            actor="anna",
            chart_id=None,
            reason="swap",
            roster="on-call",
            role="primary",
            person="example-backup",
            begins=duty.now - MINUTE,
            ends=duty.now + 60 * MINUTE,
        )
    )
    (stands_in,) = outcome.overrides
    assert isinstance(stands_in, Override)
    assert [one.subject for one in outcome.audit] == ["roster:on-call/primary"]
    assert [one.person for one in notified(duty.ring())] == ["example-backup"]


def test_the_same_entry_again_sends_no_second_notification(duty: Duty) -> None:
    (first,) = duty.ring()
    assert {one.idempotency_key for one in first.deliveries if one.operation is Operation.NOTIFY} == {
        f"{duty.page.id}-1"
    }


def test_a_page_moves_with_its_patient_at_a_merge_and_goes_on(duty: Duty) -> None:
    duty.ring()
    page = duty.page
    duty.send(adt("A28", at="20260306131000", pid3="77^^^MRN^MR"))
    outcome = duty.send(merge("77", "558181838", at="20260306132000"))
    moved = duty.chart("77")
    assert [one.id for one in moved.pages] == [page.id]
    assert not notified([outcome])
    assert moved.pages[0].next_at == page.next_at


def test_a_clock_that_rings_late_goes_on_where_it_was(duty: Duty) -> None:
    """Complaint: a chain that was paused never resumed after a restart."""
    duty.ring()
    duty.now += timedelta(hours=3)
    called = notified(duty.ring())
    assert {one.level for one in called} == {2}
    assert duty.page.next_at == duty.now + 5 * MINUTE


def test_a_page_that_is_about_a_task_that_remains_is_taken_and_raised_again_when_nothing_follows(duty: Duty) -> None:
    chart = duty.chart()
    task = next(one for one in chart.tasks if one.kind == "care_coordinator_alert")
    paged = tuple(msgspec.structs.replace(one, page="on-call") if one is task else one for one in chart.tasks)
    duty.charts.add(msgspec.structs.replace(chart, tasks=paged))
    duty.do(TaskDone(actor="anna", chart_id=chart.id, task=duty.page.task))  # the other page of the plan
    page = next(one for one in duty.chart().pages if one.task == task.id)
    duty.ring()
    duty.do(PageAcknowledged(actor="anna", chart_id=chart.id, page=page.id, by="lee"))
    taken = next(one for one in duty.chart().tasks if one.id == task.id)
    assert (taken.state, taken.owner) == (TaskState.IN_PROGRESS, "lee")
    again = notified(duty.later(31))
    assert {(one.page_id, one.round) for one in again} == {(page.id, 1)}
    duty.do(TaskDone(actor="anna", chart_id=chart.id, task=task.id))
    ended = next(one for one in duty.chart().pages if one.id == page.id)
    assert ended.state is PageState.RESOLVED
    assert not notified(duty.later(120))


@pytest.mark.parametrize("act", ["attempt", "snooze", "assign"])
def test_what_is_done_about_the_task_keeps_an_acknowledged_page_quiet(duty: Duty, act: str) -> None:
    chart = duty.chart()
    task = next(one for one in chart.tasks if one.kind == "tcm_contact")
    paged = tuple(msgspec.structs.replace(one, page="on-call") if one is task else one for one in chart.tasks)
    duty.charts.add(msgspec.structs.replace(chart, tasks=paged))
    duty.do(TaskDone(actor="anna", chart_id=chart.id, task=duty.page.task))  # the other page of the plan
    page = next(one for one in duty.chart().pages if one.task == task.id)
    duty.ring()
    duty.do(PageAcknowledged(actor="anna", chart_id=chart.id, page=page.id, by="lee"))
    duty.later(20)
    who = {"actor": "lee", "chart_id": chart.id, "task": task.id}
    acts: dict[str, Cause] = {
        "attempt": TaskAttempted(**who, how="phone", result="no_answer"),
        "snooze": TaskSnoozed(**who, until=duty.now + 30 * MINUTE, reason="x"),
        "assign": TaskAssigned(**who, assignee="kim"),
    }
    duty.do(acts[act])
    assert not notified(duty.later(29))
    assert notified(duty.later(2))


def test_a_task_whose_ladder_the_site_leaves_out_stays_a_task() -> None:
    """The shipped example in a site without its destination."""
    other = Duty()
    other.channel = dataclasses.replace(other.channel, rosters=NO_ROSTERS)
    other.send(adt("A03", at="20260306130000", pv1={3: "W^1^A"} | HIGH))
    assert "on_call_page" in {one.kind for one in other.chart().tasks if one.stands}
    assert other.chart().pages == ()


def test_a_person_who_falls_ill_between_two_levels_is_not_called(duty: Duty) -> None:
    duty.ring()
    duty.do(
        OnCallOverridden(
            actor="anna",
            chart_id=None,
            reason="ill",
            roster="on-call",
            role="backup",
            person="example-night",
            begins=duty.now,
            ends=duty.now + 60 * MINUTE,
        )
    )
    assert "example-backup" not in {one.person for one in notified(duty.later(5.1))}


def test_destinations_that_call_by_themselves_are_told_of_the_end(duty: Duty) -> None:
    rosters = dataclasses.replace(duty.channel.rosters, ends=frozenset({"files"}))
    duty.channel = dataclasses.replace(duty.channel, rosters=rosters)
    duty.ring()
    outcome = ack(duty)
    (end,) = [one.content for one in outcome.deliveries if one.operation is Operation.NOTIFY_END]
    assert isinstance(end, NotificationEnd)
    # The acknowledgment was all that was wanted: the far end must not wake anybody again.
    assert (end.page_id, end.state, end.by, end.round) == (duty.page.id, "resolved", "example-day-1", 0)
    assert end.to in {"pager-1", "pager-2"}


@pytest.mark.parametrize("near", ["on-cal", "nobody"])
def test_a_protocol_that_names_no_ladder_is_refused_with_its_line(tmp_path: Path, near: str) -> None:
    shipped = Snapshot.read(ROOT / "config.yaml")
    file = "mappings/protocols/post-discharge.yaml"
    text = shipped.files[file].replace("page: on-call ", f"page: {near} ")
    with pytest.raises(SettingsError) as caught:
        compile_configuration(load(Snapshot(ROOT, "config.yaml", {**shipped.files, file: text})), key)
    (problem,) = caught.value.problems
    assert problem.file == file
    assert problem.line == 1 + next(n for n, line in enumerate(text.splitlines()) if f"page: {near} " in line)
    assert "no such ladder" in problem.message
    assert ("did you mean on-call" in problem.message) == (near == "on-cal")


def test_a_discharge_that_was_cancelled_and_came_again_calls_again(duty: Duty) -> None:
    duty.later(1)
    ack(duty)
    duty.later(10)
    duty.send(adt("A13", at="20260306131100", pv1=HIGH | {36: "", 45: ""}))
    duty.later(60)
    duty.send(adt("A03", at="20260306141100", pv1=HIGH | {45: "20260306141100"}))
    assert len(notified(duty.later(1))) == 1
    first, second = duty.chart().pages
    assert (first.state, second.state) == (PageState.ACKNOWLEDGED, PageState.QUEUED)


PCP = "PD1||||77^Welby^Marcus"
VISIT = {2: "O", 19: "V9^^^MRN", 10: "FAM", 44: "20260307100000"}


def paged(duty: Duty, kind: str) -> Page:
    """Its task calls somebody, and nobody else is called any more."""
    chart = duty.chart()
    (task,) = [one for one in chart.tasks if one.kind == kind]
    tasks = tuple(msgspec.structs.replace(one, page="on-call") if one is task else one for one in chart.tasks)
    duty.charts.add(msgspec.structs.replace(chart, tasks=tasks))
    duty.do(TaskDone(actor="anna", chart_id=chart.id, task=duty.page.task))
    duty.ring()
    return page_of(duty, task.id)


def page_of(duty: Duty, task: str) -> Page:
    (page,) = [one for one in duty.chart().pages if one.task == task]
    return page


def undo(duty: Duty, task: str, actor: str = "anna") -> Outcome:
    return duty.do(TaskUndone(actor=actor, chart_id=duty.chart().id, task=task))


@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("way", ["a visit", "a person", "a readmission"])
def test_a_page_whose_task_stands_again_calls_again_unless_somebody_has_it(
    duty: Duty, way: str, acknowledged: bool
) -> None:
    page = paged(duty, "pcp_follow_up")
    if way == "a readmission":  # what is paged for because it was missed: no call of the discharge
        chart = duty.chart()
        tasks = tuple(
            msgspec.structs.replace(one, escalations=(Escalation(at=duty.now, why="deadline", page="on-call"),))
            if one.id == page.task
            else one
            for one in chart.tasks
        )
        duty.charts.add(msgspec.structs.replace(chart, tasks=tasks))
    if acknowledged:
        duty.do(PageAcknowledged(actor="anna", chart_id=duty.chart().id, page=page.id, by="lee"))
    duty.now += timedelta(hours=22)
    if way == "a person":
        duty.do(TaskDone(actor="anna", chart_id=duty.chart().id, task=page.task))
    else:
        visit = VISIT if way == "a visit" else {3: "W^1^A", 19: "V2^^^MRN", 44: "20260307100000"}
        trigger = "A04" if way == "a visit" else "A01"
        duty.send(adt(trigger, at="20260307100000", pv1=visit))
    assert page_of(duty, page.task).state is PageState.RESOLVED
    assert not notified(duty.later(60))
    if way == "a person":
        undo(duty, page.task)
    else:
        duty.send(adt("A11", at="20260307110000", pv1=visit))
    again = page_of(duty, page.task)
    assert again.state is (PageState.ACKNOWLEDGED if acknowledged else PageState.QUEUED)
    assert bool(notified(duty.later(29))) is not acknowledged
    assert bool(notified(duty.later(2))) is acknowledged  # it is raised again when nothing is done about it


def test_a_mistaken_acknowledgment_is_undone_by_who_said_it_and_the_page_calls_again(duty: Duty) -> None:
    duty.ring()
    ack(duty)
    task = duty.page.task
    undo(duty, task, actor="bea")
    assert duty.page.state is PageState.ACKNOWLEDGED
    undo(duty, task)
    assert (duty.page.state, duty.page.acknowledged_by, duty.page.on_ladder) == (PageState.QUEUED, None, None)
    assert next(one for one in duty.chart().tasks if one.id == task).stands
    assert notified(duty.later(1))
    ack(duty)
    assert duty.page.state is PageState.ACKNOWLEDGED


def test_a_page_for_what_is_not_overdue_any_more_is_called_off_and_calls_anew_at_the_new_deadline(duty: Duty) -> None:
    page = paged(duty, "pcp_follow_up")
    duty.do(PageAcknowledged(actor="anna", chart_id=duty.chart().id, page=page.id, by="lee"))
    chart = duty.chart()
    unpaged = tuple(msgspec.structs.replace(one, page=None) if one.id == page.task else one for one in chart.tasks)
    duty.charts.add(msgspec.structs.replace(chart, tasks=unpaged))
    duty.ring()
    duty.send(adt("A08", at="20260306131000", pv1=HIGH, pid={13: "5185550100"}))
    assert (page_of(duty, page.task).state, page_of(duty, page.task).end_reason) == (PageState.RESOLVED, NOT_PAGED)
    assert not notified(duty.later(60))
    duty.charts.add(msgspec.structs.replace(chart, version=duty.chart().version))
    duty.send(adt("A08", at="20260306132000", pv1=HIGH, pid={13: "5185550101"}))
    assert notified(duty.later(1)), "an old acknowledgment is none of a new deadline"


def test_a_page_that_nobody_answers_a_second_time_leaves_a_safety_event_again(duty: Duty) -> None:
    page = paged(duty, "pcp_follow_up")
    duty.later(60)
    (first,) = [one for one in duty.chart().tasks if one.raised_for == page.id]
    duty.do(PageAcknowledged(actor="anna", chart_id=duty.chart().id, page=page.id, by="lee"))
    duty.do(TaskDone(actor="anna", chart_id=duty.chart().id, task=first.id))
    duty.later(120)
    assert page_of(duty, page.task).state is PageState.EXHAUSTED
    assert [one.stands for one in duty.chart().tasks if one.raised_for == page.id] == [False, True]


def test_what_a_person_types_stays_with_the_task_and_comes_to_no_page(duty: Duty) -> None:
    duty.ring()
    (task,) = [one for one in duty.chart().tasks if one.page is not None]
    typed = "Mrs Doe is my aunt"
    cancel = TaskCancelled(actor="anna", chart_id=duty.chart().id, task=task.id, reason=typed)
    outcome = duty.do(cancel)
    assert (duty.page.state, duty.page.end_reason) == (PageState.RESOLVED, "its task is cancelled")
    assert all(typed not in effect.detail for effect in outcome.effects)
    told = [one.payload for one in outcome.deliveries if one.operation is not Operation.UPSERT_TASK]
    assert all(typed.encode() not in payload for payload in told)
    late = ack(duty)
    assert late.reason is not None
    assert typed not in late.reason


def test_a_safety_event_is_looked_into_whatever_becomes_of_the_patient(duty: Duty) -> None:
    duty.later(60)
    assert duty.page.state is PageState.EXHAUSTED
    duty.send(adt("A01", at="20260306143000", pv1={3: "W^1^A", 19: "V2^^^MRN", 44: "20260306143000"}))
    (event,) = [one for one in duty.chart().tasks if one.raised_for == duty.page.id]
    assert event.stands


def test_a_page_that_moves_with_its_stay_while_a_call_is_on_its_way_calls_the_next_one_at_once(duty: Duty) -> None:
    """What becomes of the call would be heard under the patient of before."""
    duty.ring()
    sent = duty.page
    move = adt("A45", at="20260306130500", pid3="7^^^MRN^MR", pv1={}, segments=("MRG|558181838^^^MRN^MR||||V1^^^MRN",))
    duty.send(move)
    (page,) = duty.chart("7").pages
    assert (page.id, page.steps[0].result, page.steps[0].detail) == (sent.id, StepResult.FAILED, "patient-moved")
    assert page.next_at == duty.now
    assert duty.chart().pages == ()


def test_a_call_that_has_arrived_before_its_page_moves_is_not_made_again(duty: Duty) -> None:
    duty.ring()
    settled(duty, StepResult.SENT)
    before = duty.page
    move = adt("A45", at="20260306130500", pid3="7^^^MRN^MR", pv1={}, segments=("MRG|558181838^^^MRN^MR||||V1^^^MRN",))
    duty.send(move)
    assert duty.chart("7").pages == (before,)


@pytest.mark.parametrize(
    "more", [{45: "20260306131000"}, {36: "06"}, {3: "4WEST^401^A"}], ids=["time", "disposition", "place"]
)
@pytest.mark.parametrize("by", ["acknowledgment", "cancel", "done"])
def test_what_ended_a_call_by_mistake_is_undone_after_a_correction_and_the_page_calls_again(
    duty: Duty, by: str, more: dict[int, str]
) -> None:
    duty.ring()
    task, chart_id = duty.page.task, duty.chart().id
    if by == "acknowledgment":
        ack(duty)
    elif by == "cancel":
        duty.do(TaskCancelled(actor="anna", chart_id=chart_id, task=task, reason="x"))
    else:
        duty.do(TaskDone(actor="anna", chart_id=chart_id, task=task))
    duty.send(adt("A08", at="20260306131000", pv1=HIGH | more))
    assert not notified(duty.later(20)), "a correction by itself calls nobody again"
    undo(duty, task)
    assert next(one for one in duty.chart().tasks if one.id == task).stands
    assert notified(duty.later(1))


def test_an_acknowledgment_of_what_is_not_called_for_any_more_is_not_undone(duty: Duty) -> None:
    duty.ring()
    ack(duty)
    duty.send(adt("A08", at="20260306131000", pv1=HIGH | {36: "03"}))
    outcome = undo(duty, duty.page.task)
    assert "not-done" in {effect.kind for effect in outcome.effects}
    assert not notified(duty.later(20))
