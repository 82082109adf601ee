"""What holds of the tasks of a patient whatever people do, whatever is due, and whatever messages say, in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from heart import Heart, adt
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.care.tasks import MOOT, TRANSITIONS, UNCALLED
from engine.domain.cause import (
    Act,
    Due,
    TaskAssigned,
    TaskAttempted,
    TaskCancelled,
    TaskDone,
    TaskSnoozed,
    TaskUndone,
    written,
)
from engine.domain.chart import Chart
from engine.domain.message import EntryKind, EntryState
from engine.domain.outcome import EffectKind, Outcome
from engine.domain.page import PageState
from engine.domain.task import ENGINE, How, Result, Task, TaskState
from engine.pipeline.due import due_at
from engine.pipeline.process import decide, prepare

CODES = ("DG1|1||I50.9^Heart failure^I10|||F", "DG1|2||E11.9^Diabetes^I10|||F")
STAY = {2: "I", 4: "E", 44: "20260220120000"}
LEFT = STAY | {36: "01", 45: "20260306100000"}
AGAIN = {2: "I", 4: "E", 19: "V2^^^MRN", 44: "20260310120000"}
VISIT = {2: "O", 19: "V9^^^MRN", 10: "FAM", 44: "20260309100000"}
MESSAGES = (
    ("A13", STAY, {}),
    ("A03", LEFT, {}),
    ("A08", LEFT | {4: "C"}, {}),
    ("A08", LEFT | {36: "03"}, {}),
    ("A01", AGAIN, {}),
    ("A11", AGAIN, {}),
    ("A04", VISIT, {}),
    ("A11", VISIT, {}),
    ("A31", None, {30: "Y"}),
    ("A31", None, {30: "N"}),
)
_TASK = st.integers(0, 20)
_WHO = st.sampled_from(["anna", "bea"])
_STEPS = st.one_of(
    st.tuples(st.just("message"), st.integers(0, len(MESSAGES) - 1), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from([1, 3, 20, 30, 100, 1000]), st.just("")),
    st.tuples(st.just("ring"), st.just(0), st.just("")),
    *(
        st.tuples(st.just(act), _TASK, _WHO)
        for act in ("done", "assign", "phone", "reached", "declined", "snooze", "cancel", "undo")
    ),
)


class Ward:
    """A patient who has gone home with a plan, and those who work on it."""

    def __init__(self) -> None:
        self.heart = Heart()
        self.heart.now = datetime(2026, 3, 6, 16, tzinfo=UTC)
        for trigger, stay in (("A01", STAY), ("A03", LEFT)):
            self.heart.send(adt(trigger, at="20260306100000", pv1=stay, segments=CODES))

    @property
    def chart(self) -> Chart:
        return self.heart.chart()

    def send(self, number: int) -> Outcome:
        trigger, stay, pid = MESSAGES[number]
        at = (self.heart.now - timedelta(hours=5)).strftime("%Y%m%d%H%M%S")
        return self.heart.send(adt(trigger, at=at, pv1=stay, pid=pid, segments=CODES if stay else ()))

    def cause(self, cause: Act | Due, kind: EntryKind) -> Outcome:
        entry = msgspec.structs.replace(self.heart.entry(written(cause)), channel=kind.lane)
        outcome = decide(prepare(entry, None), self.heart.channel, self.heart.charts, self.heart.now)
        for chart in outcome.charts:
            self.heart.charts.add(chart)
        return outcome

    def ring(self) -> Outcome:
        now, chart = self.heart.now, self.chart
        due = Due(actor="clock", chart_id=chart.id, at=now, version=chart.version, since=now)
        return self.cause(due, EntryKind.DUE)

    def act(self, name: str, task: str, who: str) -> Outcome:
        usual = {"actor": who, "chart_id": self.chart.id, "task": task}
        acts: dict[str, Act] = {
            "done": TaskDone(**usual, evidence="seen"),
            "assign": TaskAssigned(**usual, assignee="nurse"),
            "phone": TaskAttempted(**usual, how=How.PHONE, result=Result.NO_ANSWER),
            "reached": TaskAttempted(**usual, how=How.VIDEO, result=Result.REACHED),
            "declined": TaskAttempted(**usual, how=How.PHONE, result=Result.DECLINED),
            "snooze": TaskSnoozed(**usual, until=self.heart.now + timedelta(hours=10), reason="later"),
            "cancel": TaskCancelled(**usual, reason="moved"),
            "undo": TaskUndone(**usual),
        }
        return self.cause(acts[name], EntryKind.ACT)


def bare(task: Task) -> Task:
    return msgspec.structs.replace(task, undo=None)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_STEPS, min_size=1, max_size=14))
def test_a_task_is_never_both_done_and_open_and_nothing_is_done_about_it_twice(
    steps: list[tuple[str, int, str]],
) -> None:
    ward = Ward()
    for what, number, who in steps:
        before = {task.id: task for task in ward.chart.tasks}
        outcome = None
        if what == "message":
            outcome = ward.send(number)
        elif what == "wait":
            ward.heart.now += timedelta(hours=number)
        elif what == "ring":
            outcome = ward.ring()
            nxt = due_at(ward.chart)
            assert nxt is None or nxt > ward.heart.now
            assert ward.ring().charts == ()
        else:
            outcome = ward.act(what, list(before)[number % len(before)], who)
        assert outcome is None or outcome.state is EntryState.PROCESSED
        tasks = ward.chart.tasks
        assert len({task.id for task in tasks}) == len(tasks)
        assert set(before) <= {task.id for task in tasks}, "no task is ever lost"
        for task in tasks:
            _sound(task)
            if (was := before.get(task.id)) is not None:
                _went_by_the_table(was, task, undone=what == "undo")
        _alerts_have_reasons(tasks)
        _pages_are_as_their_tasks(ward.chart)


def _sound(task: Task) -> None:
    assert task.stands is (task.ended_at is None) is (task.ended_by is None)
    assert (task.state is TaskState.MISSED) <= (task.missed_at is not None)
    assert (task.state is TaskState.IN_PROGRESS) <= bool(task.attempts)
    assert (task.state is TaskState.OPEN) <= (not task.attempts and task.missed_at is None)
    assert (task.suspended_by is not None) <= (task.state is TaskState.CANCELLED)
    assert (task.proved_by is not None) <= (task.state is TaskState.DONE and task.ended_by == ENGINE)
    assert task.evidence is None or task.state is TaskState.DONE
    assert sum(one.why == "deadline" for one in task.escalations) == task.climbed <= len(task.ladder)


def _alerts_have_reasons(tasks: tuple[Task, ...]) -> None:
    by_id = {task.id: task for task in tasks}
    for task in tasks:
        assert all(one.alert in by_id for one in task.escalations if one.alert)
        about = [one for one in tasks if one.raised_for == task.id]
        assert sum(one.stands for one in about) <= 1, "one alert of a ladder that has one"
        for alert in about:
            named = any(one.alert == alert.id for one in task.escalations)
            settled = task.state in {TaskState.DONE, TaskState.RETRACTED}
            assert not alert.stands or (named and not settled)
            assert alert.end_reason != MOOT or not named or settled


def _pages_are_as_their_tasks(chart: Chart) -> None:
    by_id = {task.id: task for task in chart.tasks}
    for page in chart.pages:
        task = by_id[page.task]
        if not task.stands:
            acknowledged = page.closes and page.state is PageState.ACKNOWLEDGED
            assert page.state is PageState.RESOLVED or (acknowledged and task.state is TaskState.DONE)
        elif task.page is not None:
            assert page.state is not PageState.RESOLVED, "who has to be called is called"
            assert page.next_at is not None or page.state in {PageState.EXHAUSTED, PageState.ACKNOWLEDGED}


def _went_by_the_table(was: Task, task: Task, *, undone: bool) -> None:
    if was.state is task.state or task.state in TRANSITIONS[was.state] or undone:
        return
    resumed, unproved = was.suspended_by is not None, was.proved_by is not None
    again = was.raised_for is not None and was.end_reason == MOOT
    again = again or (was.raised_for is not None and was.end_reason == UNCALLED)
    moved = was.state is TaskState.MISSED and task.due_at > was.due_at
    called_after_all = was.kind == "on_call_page" and was.state is TaskState.RETRACTED
    assert resumed or unproved or again or moved or called_after_all, (was.state, task.state)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(_STEPS, max_size=8),
    act=st.sampled_from(["done", "assign", "phone", "reached", "declined", "snooze", "cancel"]),
    number=_TASK,
)
def test_undo_restores_exactly_what_was_and_what_came_of_it_is_taken_back(
    steps: list[tuple[str, int, str]], act: str, number: int
) -> None:
    ward = Ward()
    for what, step_number, who in steps:
        if what == "message":
            ward.send(step_number)
        elif what == "wait":
            ward.heart.now += timedelta(hours=step_number)
        elif what == "ring":
            ward.ring()
        else:
            ward.act(what, ward.chart.tasks[step_number % len(ward.chart.tasks)].id, who)
    before = ward.chart.tasks
    chosen = before[number % len(before)]
    done = ward.act(act, chosen.id, "anna")
    assert ward.act("undo", chosen.id, "bea").effects[0].kind == EffectKind.NOT_DONE or not done.charts
    if done.charts:
        assert ward.act("undo", chosen.id, "anna").effects[0].kind == "task-undone"
        after = {task.id: task for task in ward.chart.tasks}
        for task in before:
            assert after.pop(task.id) == (bare(task) if task.id == chosen.id else task)
        assert all(new.raised_for == chosen.id and new.end_reason == MOOT for new in after.values())
        assert ward.act("undo", chosen.id, "anna").charts == ()


def test_a_page_that_was_called_off_by_mistake_calls_again_and_one_that_was_not_does_not() -> None:
    ward = Ward()
    task = next(task for task in ward.chart.tasks if task.kind == "on_call_page")
    (page,) = ward.chart.pages
    ward.act("done", task.id, "anna")
    assert ward.chart.pages[0].state is PageState.RESOLVED
    ward.act("undo", task.id, "anna")
    (again,) = ward.chart.pages
    assert (again.id, again.state, again.round) == (page.id, PageState.QUEUED, page.round + 1)
    ward.heart.now += timedelta(minutes=1)
    ward.ring()
    (called,) = ward.chart.pages
    assert called.level == 1
    ward.act("assign", task.id, "anna")
    ward.act("undo", task.id, "anna")
    assert ward.chart.pages == (called,)


def test_what_a_person_has_cancelled_is_not_asked_for_again_whatever_the_plan_is_made_for() -> None:
    ward = Ward()
    task = next(task for task in ward.chart.tasks if task.kind == "specialist_follow_up")
    ward.act("cancel", task.id, "anna")
    kinds = {task.kind for task in ward.chart.tasks} - {task.kind, "on_call_page"}  # nobody is called twice
    for number in (2, 1, 4, 5):  # another type of admission; the same discharge again; a readmission that was none
        ward.heart.now += timedelta(hours=1)
        ward.send(number)
    assert [task.kind for task in ward.chart.tasks if task.kind == "specialist_follow_up"] == ["specialist_follow_up"]
    assert {task.kind for task in ward.chart.tasks if task.stands} >= kinds


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(_STEPS, max_size=5),
    act=st.sampled_from(["done", "assign", "phone", "reached", "declined", "snooze", "cancel"]),
    number=_TASK,
    between=st.integers(0, len(MESSAGES)),
)
def test_what_came_between_an_act_and_its_undo_counts_as_if_there_had_been_no_act(
    steps: list[tuple[str, int, str]], act: str, number: int, between: int
) -> None:
    without, ward = Ward(), Ward()
    for one in (without, ward):
        for what, step_number, who in steps:
            if what == "message":
                one.send(step_number)
            elif what == "wait":
                one.heart.now += timedelta(hours=step_number)
            elif what == "ring":
                one.ring()
            else:
                one.act(what, one.chart.tasks[step_number % len(one.chart.tasks)].id, who)
    chosen = ward.chart.tasks[number % len(ward.chart.tasks)].id
    if not ward.act(act, chosen, "anna").charts:
        return
    for one in (without, ward):
        if between < len(MESSAGES):
            one.send(between)
        else:
            one.heart.now += timedelta(hours=30)
            one.ring()
    if not ward.act("undo", chosen, "anna").charts:
        return  # something has happened to the task: it is for people to see to
    for one in (without, ward):
        one.ring()
    expected = {task.id: told(task) for task in without.chart.tasks}
    found = {task.id: told(task) for task in ward.chart.tasks if task.end_reason != MOOT or task.id in expected}
    assert found == expected


def told(task: Task) -> Task:
    """A task without the numbers of entries, and what can be undone."""
    return msgspec.structs.replace(task, undo=None, evidence=task.evidence and task.evidence.partition(": ")[2])
