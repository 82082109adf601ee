"""What people do, decided on the chart as it is when its turn comes."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import msgspec
import pytest
from heart import NOW, Heart, adt, merge

from engine.care.tasks import TRANSITIONS
from engine.domain.cause import (
    CAUSES,
    Act,
    Cause,
    QuestionDismissed,
    TaskAssigned,
    TaskDone,
    TextReceived,
    action_of,
    read,
    written,
)
from engine.domain.chart import Chart
from engine.domain.message import LANES, Entry, EntryKind, EntryState, Summary, kind_of
from engine.domain.outcome import EffectKind, Outcome
from engine.domain.task import TaskState
from engine.pipeline.process import KINDS, channel_of, decide, prepare


@pytest.fixture
def heart() -> Heart:
    """A patient who has gone home, with a plan."""
    made = Heart()
    made.send(adt("A01", pv1={3: "W^1^A"}))
    made.send(adt("A03", at="20260306150000", pv1={36: "01", 45: "20260306150000"}))
    assert made.chart().tasks
    return made


def act(heart: Heart, one: Act | bytes, *, known: bool = True) -> Outcome:
    """Do it, as the processor does: under the channel of the patient's chart."""
    payload = one if isinstance(one, bytes) else written(one)
    entry = msgspec.structs.replace(heart.entry(payload), channel=EntryKind.ACT.lane)
    prepared = prepare(entry, None)
    name = channel_of(prepared, heart.charts)
    outcome = decide(prepared, heart.channel if known and name == "main-campus" else None, heart.charts, heart.now)
    for chart in outcome.charts:
        heart.charts.add(chart)
    return outcome


def done(chart: Chart, number: int = 0) -> TaskDone:
    return TaskDone(actor="anna", chart_id=chart.id, task=chart.tasks[number].id)


def test_a_task_that_is_done_says_by_whom_and_its_destinations_are_told(heart: Heart) -> None:
    before = heart.chart()
    outcome = act(heart, done(before))
    task = heart.chart().tasks[0]
    assert (task.state, task.ended_by, task.ended_at) == (TaskState.DONE, "anna", NOW)
    assert [one.operation for one in outcome.deliveries] == ["upsert_task"]
    assert outcome.effects[0].kind == "task-done"
    (noted,) = outcome.audit
    assert (noted.actor, noted.action, noted.subject) == ("anna", "task-done", f"task:{task.id}")
    assert (outcome.channel, outcome.chart_id, heart.chart().version) == ("main-campus", before.id, before.version + 1)


@pytest.mark.parametrize("state", [state for state in TaskState if not TRANSITIONS[state]])
@pytest.mark.parametrize("what", ["done", "assigned"])
def test_what_has_ended_stays_as_it_ended_and_whoever_acts_is_told(heart: Heart, state: TaskState, what: str) -> None:
    assert TRANSITIONS[state] == frozenset()
    chart = heart.chart()
    ended = msgspec.structs.replace(chart.tasks[0], state=state)
    chart = msgspec.structs.replace(chart, tasks=(ended, *chart.tasks[1:]))
    heart.charts.add(chart)
    one = done(chart) if what == "done" else TaskAssigned(actor="a", chart_id=chart.id, task=ended.id, assignee="b")
    outcome = act(heart, one)
    assert (outcome.state, outcome.charts, outcome.deliveries, outcome.audit) == (EntryState.PROCESSED, (), (), ())
    assert outcome.effects[0].kind == EffectKind.NOT_DONE
    assert outcome.reason == f"the task is not open but {state}"
    assert heart.chart() == chart


def test_a_task_can_be_given_to_somebody(heart: Heart) -> None:
    chart = heart.chart()
    act(heart, TaskAssigned(actor="anna", chart_id=chart.id, task=chart.tasks[1].id, assignee="dr-lee"))
    assert heart.chart().tasks[1].assignee == "dr-lee"
    assert heart.chart().tasks[0] == chart.tasks[0]


def test_an_act_follows_its_patient_in_a_merge(heart: Heart) -> None:
    before = heart.chart()
    heart.send(adt("A04", at="20260307120000", pid3="777^^^MRN^MR", pv1={2: "O", 19: "V7^^^MRN"}))
    heart.send(merge("777", "558181838"))
    outcome = act(heart, done(before))
    survivor = heart.chart("777")
    assert outcome.chart_id == survivor.id != before.id
    assert next(task for task in survivor.tasks if task.id == before.tasks[0].id).state is TaskState.DONE


@pytest.mark.parametrize("chart_id", [None, "nobody"])
def test_a_task_of_nobody_is_refused(heart: Heart, chart_id: str | None) -> None:
    outcome = act(heart, TaskDone(actor="anna", chart_id=chart_id, task="t1"))
    assert (outcome.reason, outcome.charts) == ("there is no such task any more", ())


def test_a_patient_of_a_channel_that_is_gone_is_still_cared_for_and_nobody_is_told(heart: Heart) -> None:
    outcome = act(heart, done(heart.chart()), known=False)
    assert heart.chart().tasks[0].state is TaskState.DONE
    assert (outcome.deliveries, outcome.channel, heart.chart().channel) == ((), None, "main-campus")


@pytest.mark.parametrize(("mode", "told"), [("live", True), ("paused", True), ("shadow", False)])
def test_a_shadow_channel_tells_nobody(heart: Heart, mode: str, told: bool) -> None:
    heart.channel = Heart(mode=mode).channel
    assert bool(act(heart, done(heart.chart())).deliveries) is told


def test_a_question_that_is_dismissed_is_ended_with_who_and_why(heart: Heart) -> None:
    chart = heart.chart()
    one = QuestionDismissed(
        actor="anna", chart_id=chart.id, reason="seen to", hold=12, root=3, code="death-stale", location="PID-30"
    )
    outcome = act(heart, one)
    (ended,) = outcome.dismissals
    assert (ended.hold, ended.by, ended.reason) == (12, "anna", "seen to")
    assert {noted.subject for noted in outcome.audit} == {"hold:m12", f"chart:{chart.id}"}
    assert outcome.charts == ()


def test_a_question_about_nobody_known_can_be_dismissed(heart: Heart) -> None:
    one = QuestionDismissed(
        actor="a", chart_id=None, reason="x", hold=1, root=1, code="event-not-supported", location=None
    )
    outcome = act(heart, one)
    assert len(outcome.dismissals) == 1
    assert (outcome.chart_id, outcome.charts) == (None, ())


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b'{"cause":"task-eaten"}', b'{"cause":"task-done"}', b"\xff\xfe", b"MSH|^~\\&|"]
)
def test_what_is_no_act_dies_and_the_dead_letter_holds_nothing_of_it(heart: Heart, payload: bytes) -> None:
    outcome = act(heart, payload)
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "act-unreadable"


def test_doing_it_twice_changes_nothing_twice(heart: Heart) -> None:
    one = done(heart.chart())
    act(heart, one)
    after = heart.chart()
    heart.now += timedelta(hours=1)
    assert act(heart, one).charts == ()
    assert heart.chart() == after


def test_every_cause_has_its_name_and_is_read_as_it_was_written() -> None:
    assert set(CAUSES.values()) == set(get_args(Cause))
    for name, kind in CAUSES.items():
        values = {"task": "t", "assignee": "b", "hold": 1, "root": 1, "code": "c", "location": None, "at": NOW,
                  "item": 1, "result": "reached", "until": NOW, "version": 3, "since": NOW,
                  "page": "p", "by": "b", "roster": "r", "role": "x", "person": "y", "begins": NOW, "ends": NOW,
                  "step": 1, "delivery": 1, "word": "w",
                  "consent": "part2_tpo", "id": "c1", "appointment": "a",
                  "text": "x", "tries": 1,
                  "purpose": "care", "channel": "sms", "number": "+1", "how": "phone",
                  "to": "+1" if kind is TextReceived else ("b",)}  # fmt: skip
        one = kind(actor="a", chart_id="c", **{k: v for k, v in values.items() if k in kind.__struct_fields__})
        assert action_of(one) == name
        assert read(written(one)) == one


def test_every_kind_of_entry_has_its_reader_and_its_lane() -> None:
    assert set(KINDS) == set(EntryKind)
    for kind in EntryKind:
        if kind is not EntryKind.MESSAGE:
            assert kind.lane in LANES
            assert kind_of(kind.lane) is kind
    assert kind_of("main-campus") is EntryKind.MESSAGE


def test_an_act_shows_nothing_when_it_is_formatted() -> None:
    one = TaskAssigned(actor="anna", chart_id="c", task="t", assignee="Jane Doe")
    assert "Jane" not in repr(one)
    with pytest.raises(TypeError):
        str(one)
    assert Entry(id=1, channel="@act", peer="", received_at=NOW, payload=b"", summary=Summary()).kind is EntryKind.ACT
