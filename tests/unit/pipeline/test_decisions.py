"""Decisions about a patient: what was done or withheld, by which rule, on which fields of which messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from heart import Heart, adt, merge
from hypothesis import given, settings
from hypothesis import strategies as st
from test_heart_properties import CHF, DIABETES, HISTORIES, KIDNEY, STAY, event, left

from engine.care.protocol import tells_of_death
from engine.domain.cause import CLOCK, Act, Due, TaskAssigned, TaskCancelled, TaskDone, action_of, written
from engine.domain.chart import Chart
from engine.domain.decision import Decision
from engine.domain.delivery import DeliveryState
from engine.domain.encounter import EncounterStatus
from engine.domain.message import Entry, EntryKind
from engine.domain.outcome import Outcome
from engine.domain.page import PageState
from engine.domain.task import TaskState
from engine.domain.why import MEANINGS, Reason, What, Why
from engine.pipeline.decisions import REASONS, Happened, Place, Rules, Sent, decisions
from engine.pipeline.due import due_at
from engine.pipeline.inputs import with_inputs
from engine.pipeline.process import decide, prepare

RULES = Rules(
    version="cfg1",
    protocol="post-discharge",
    models={"post-discharge": "lace"},
    versions={"post-discharge": "1", "lace": "2", "seed": "1"},
    places={
        "post-discharge": (
            Place(
                path="plans.home_plan.high.pcp_follow_up", kind="pcp_follow_up", reason="High readmission risk: visit"
            ),
            Place(path="plans.home_plan.moderate.pcp_follow_up", kind="pcp_follow_up", reason="Moderate"),
        )
    },
    actions={"01": "home_plan", "02": "transfer"},
    locations={"encounter.disposition": "PV1-36", "encounter.class": "PV1-2", "encounter.admission_type": "PV1-4"},
)


class Told:
    """A patient's messages and acts, and what is told of them."""

    def __init__(self, *payloads: bytes, day: int = 17) -> None:
        self.heart = Heart()
        self.heart.now = datetime(2026, 3, day, tzinfo=UTC)
        self.happened: list[Happened] = []
        for payload in payloads:
            self.send(payload)

    def send(self, payload: bytes, **more: Any) -> Outcome:
        entry = msgspec.structs.replace(self.heart.entry(payload), **more)
        outcome = self.heart.work(entry)
        self._note(entry, outcome, payload.split(b"|")[8].decode())
        return outcome

    def act(self, act: Act) -> None:
        entry = msgspec.structs.replace(self.heart.entry(written(act)), channel=EntryKind.ACT.lane)
        outcome = decide(prepare(entry, None), self.heart.channel, self.heart.charts, self.heart.now)
        for chart in outcome.charts:
            self.heart.charts.add(chart)
        self._note(entry, outcome, action_of(act), by=act.actor, said=act.reason)

    def ring(self) -> None:
        """The next deadline comes."""
        at = due_at(self.chart)
        assert at is not None
        self.heart.now = max(self.heart.now, at)
        payload = written(Due(actor=CLOCK, chart_id=self.chart.id, at=at, since=at, version=self.chart.version))
        entry = msgspec.structs.replace(self.heart.entry(payload), channel=EntryKind.DUE.lane)
        outcome = decide(prepare(entry, None), self.heart.channel, self.heart.charts, self.heart.now)
        for chart in outcome.charts:
            self.heart.charts.add(chart)
        self._note(entry, outcome, "due")

    def _note(self, entry: Entry, outcome: Outcome, what: str, **more: Any) -> None:
        sent = (
            Sent(id=1000 * entry.id + number, destination=one.destination, what=one.operation.what,
                 state=DeliveryState.DELIVERED, error=None, at=self.heart.now, about=about(one.payload))
            for number, one in enumerate(outcome.deliveries)
        )  # fmt: skip
        self.happened.append(
            Happened(
                entry=entry.id, kind=entry.kind, what=what, at=self.heart.now, root=entry.replay_root,
                state=outcome.state, reason=outcome.reason, effects=outcome.effects, why=outcome.why,
                stay=outcome.encounter_key, sent=tuple(sent), rules=RULES, **more,
            )
        )  # fmt: skip

    @property
    def chart(self) -> Chart:
        return self.heart.chart("1")

    def decisions(self, **wanted: object) -> list[Decision]:
        found = decisions(self.chart, self.happened)
        return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]

    def task(self, kind: str) -> str:
        return next(task.id for task in self.chart.tasks if task.kind == kind)


def about(payload: bytes) -> str | None:
    said = msgspec.json.decode(payload)
    task: str | None = said["task"]["id"] if "task" in said else None
    return task


def inputs(one: Decision) -> dict[str, tuple[object, int, str]]:
    return {item.name: (item.value, item.entry, item.location) for item in one.inputs}


DISCHARGED = (STAY[0], event("A03", 5, "V1", **left(5)))


def test_a_task_names_its_rule_its_version_and_the_fields_of_the_messages_it_rests_on() -> None:
    told = Told(*DISCHARGED)
    task = told.task("pcp_follow_up")
    (opened,) = told.decisions(subject=task)
    assert (opened.what, opened.action, opened.decided, opened.stands) == ("task", "open", "done", True)
    version = next(one.protocol_version for one in told.chart.tasks if one.id == task)
    assert (opened.rule, opened.version) == ("post-discharge: plans.home_plan.moderate.pcp_follow_up", version)
    assert version
    said = inputs(opened)
    assert said["disposition"] == ("01", 2, "PV1-36")
    assert said["class"] == ("I", 2, "PV1-2")
    assert said["discharged_at"][1:] == (2, "PV1-45")
    assert said["band"][1:] == (2, "lace")  # the stay is longer than at the admission
    assert opened.causes == (2,)
    assert opened.effects[0] == task
    assert len(opened.effects) == 2  # its delivery


def test_an_input_names_the_message_that_said_it_and_not_the_last_one() -> None:
    told = Told(STAY[0], event("A03", 5, "V1", **left(5)), event("A08", 6, "V1", _2="", _36="", _45=""))
    before = told.decisions(what="plan", decided="done")
    assert [inputs(one)["disposition"] for one in before] == [("01", 2, "PV1-36")]


def test_a_time_names_the_field_that_stood_in() -> None:
    told = Told(STAY[0], event("A03", 5, "V1", _36="01"))
    (plan,) = told.decisions(what="plan", decided="done")
    assert inputs(plan)["discharged_at"][1:] == (2, "EVN-2")


@pytest.mark.parametrize(
    ("last", "reason", "state"),
    [
        (event("A13", 6, "V1"), "reversed", TaskState.RETRACTED),
        (event("A11", 6, "V1"), "reversed", TaskState.RETRACTED),
        (event("A31", 6, None, pid={30: "Y"}), "deceased", TaskState.CANCELLED),
        (event("A01", 6, "V2", since=6), "superseded", TaskState.CANCELLED),
        (event("A08", 6, "V1", **left(5, "02")), "disposition", TaskState.RETRACTED),
        (event("A08", 6, "V1", _2="O", **left(5)), "class", TaskState.RETRACTED),
    ],
)
def test_a_task_that_was_taken_back_says_by_what_and_both_ways(last: bytes, reason: str, state: TaskState) -> None:
    told = Told(*DISCHARGED, last)
    task = told.task("pcp_follow_up")
    assert next(one for one in told.chart.tasks if one.id == task).state is state
    opened, ended = told.decisions(subject=task)
    assert (opened.causes, ended.causes) == ((2,), (3,))
    assert (opened.stands, ended.stands) == (False, True)
    assert ended.reason == reason
    assert task in ended.effects
    caused = [one for one in told.decisions() if 3 in one.causes]
    assert ended in caused


@pytest.mark.parametrize(
    ("discharge", "reason", "named", "rule"),
    [
        ({"_36": "02"}, "disposition", ("disposition", "02"), "dispositions: codes.02"),
        ({"_36": "01", "_2": "O"}, "class", ("class", "O"), "post-discharge: classes"),
        ({"_36": "20"}, "deceased", ("disposition", "20"), "post-discharge"),
    ],
)
def test_a_discharge_without_a_plan_says_why_and_by_which_field(
    discharge: dict[str, str], reason: str, named: tuple[str, object], rule: str
) -> None:
    told = Told(STAY[0], event("A03", 5, "V1", _45="20260305110000", **discharge))
    (plan,) = told.decisions(what="plan", stands=True)
    assert (plan.decided, plan.reason, plan.causes) == ("withheld", reason, (2,))
    assert plan.rule == rule
    assert inputs(plan)[named[0]][:2] == (named[1], 2)


def test_a_newborn_has_no_plan_by_its_birth_date() -> None:
    born = {7: "20260301"}
    told = Told(event("A01", 1, pid=born), event("A03", 5, "V1", pid=born, **left(5)))
    (plan,) = told.decisions(what="plan", stands=True)
    assert (plan.decided, plan.rule) == ("withheld", "post-discharge: age_years_min")
    assert inputs(plan)["birth_date"][:2] == ("2026-03-01", 2)


def test_who_is_not_in_a_rollout_yet_is_told_by_the_unit_and_the_message_that_named_it() -> None:
    told = Told(event("A01", 1, _3="4W^1^A"), event("A03", 5, "V1", _3="4W^1^A", **left(5)))
    said = Why(what=What.PLAN, reason=Reason.NOT_IN_ROLLOUT)
    found = {item.name: item for item in with_inputs(said, told.chart, "MRN:V1").inputs}
    assert (found["unit"].value, found["unit"].location) == ("4W", "PV1-3")
    assert found["unit"].entry in {1, 2}


def test_what_a_person_did_names_the_person_and_what_they_said() -> None:
    told = Told(*DISCHARGED)
    task = told.task("pcp_follow_up")
    told.act(TaskAssigned(actor="anna", chart_id=told.chart.id, task=task, assignee="ben"))
    told.act(TaskDone(actor="ben", chart_id=told.chart.id, task=task, reason="seen on Monday"))
    story = told.decisions(subject=task)
    assert [(one.action, one.by, one.causes) for one in story] == [
        ("open", None, (2,)), ("assign", "anna", (3,)), ("close", "ben", (4,)),
    ]  # fmt: skip
    assert (story[-1].said, story[-1].stands, story[-1].reason) == ("seen on Monday", True, "person")
    told.act(TaskDone(actor="cleo", chart_id=told.chart.id, task=task))
    (refused,) = told.decisions(action="task-done")
    assert (refused.decided, refused.by) == ("withheld", "cleo")


def test_a_task_that_was_missed_says_by_which_deadline_and_what_was_done_about_it() -> None:
    told = Told(*DISCHARGED, day=6)
    task = told.task("pcp_follow_up")
    while all(one.state is not TaskState.MISSED for one in told.chart.tasks if one.id == task):
        told.ring()
    story = told.decisions(subject=task)
    assert [one.action for one in story] == ["open", "miss", "escalate"]
    missed, escalated = story[1:]
    assert (missed.reason, missed.stands, missed.causes) == ("missed", True, (told.happened[-1].entry,))
    assert next(one.kind for one in told.happened if one.entry == missed.causes[0]) is EntryKind.DUE
    assert inputs(missed)["due_at"]
    assert (escalated.rule, escalated.stands) == (f"{story[0].rule}.escalate", False)


def test_a_page_follows_its_task_and_names_ladder_and_level() -> None:
    told = Told(day=5)
    told.heart.now += timedelta(hours=17)
    for payload in (STAY[0], event("A03", 5, "V1", CHF, DIABETES, KIDNEY, **left(5))):
        told.send(payload)
    assert told.chart.pages
    page = told.chart.pages[0]
    told.ring()
    raised, called = told.decisions(what="page", subject=page.id)
    assert (raised.action, raised.reason, raised.stands) == ("page", "planned", True)
    assert (called.action, called.rule) == ("call", f"{page.policy.ladder}: levels[0]")
    assert raised.version == page.policy.version
    assert inputs(raised)["task"] == (page.task, 2, "")
    told.send(event("A13", 6, "V1"))
    ended = told.decisions(what="page", subject=page.id)[-1]
    assert (ended.action, ended.reason, ended.causes, ended.stands) == ("call_off", "reversed", (4,), True)


def test_a_score_names_model_version_factors_and_their_fields() -> None:
    told = Told(STAY[0])
    (lace,) = told.decisions(what="score", rule="lace")
    assert (lace.action, lace.decided, lace.version) == ("score", "done", "2")
    assert inputs(lace)["acute"] == ("acute admission", 1, "PV1-4")
    assert told.decisions(what="score", rule="seed")[0].reason == "missing_inputs"


def test_an_update_that_changes_nothing_tells_no_new_story() -> None:
    told = Told(*DISCHARGED, event("A08", 6, "V1", **left(5)), event("A08", 7, "V1", **left(5)))
    assert [one.causes for one in told.decisions(what="plan")] == [(1,), (2,)]
    assert not [one for one in told.decisions(what="task") if one.causes != (2,)]


def test_a_message_that_was_held_stale_or_dead_says_so() -> None:
    told = Told(*DISCHARGED)
    told.send(event("A13", 3, "V1"))
    (held,) = told.decisions(what="message")
    assert (held.decided, held.reason, held.rule) == ("withheld", "stale", "status-event-stale")


def test_a_replay_names_the_original_besides() -> None:
    told = Told(STAY[0])
    told.send(event("A03", 5, "V1", **left(5)), replay_of=1, replay_root=1)
    (plan,) = told.decisions(what="plan", decided="done")
    assert plan.causes == (2, 1)


def test_deliveries_say_what_became_of_them() -> None:
    told = Told(*DISCHARGED)
    found = told.decisions(what="delivery")
    assert {(one.subject, one.decided, one.reason) for one in found} == {("files", "done", "sent")}
    assert all(one.effects for one in found)


def test_a_merge_is_told_with_what_it_moved() -> None:
    told = Told(*DISCHARGED)
    told.send(merge("1", "2"))
    (merged,) = told.decisions(action="merge")
    assert (merged.reason, merged.decided) == ("merged", "done")


WORDS = {meaning.word for meaning in MEANINGS.values()} | REASONS.keys()
_DID = {
    TaskState.OPEN: {"open", "reopen"},
    TaskState.IN_PROGRESS: {"begin"},
    TaskState.MISSED: {"miss"},
    TaskState.DONE: {"close"},
}
_PAGED = {
    PageState.QUEUED: "page", PageState.SENT: "page", PageState.DELIVERED: "page",
    PageState.ACKNOWLEDGED: "acknowledge", PageState.RESOLVED: "call_off", PageState.EXHAUSTED: "exhaust",
}  # fmt: skip
_GONE = {TaskState.CANCELLED, TaskState.RETRACTED}


def check_today(told: Told) -> None:
    """Every task, and the plan of every stay, has exactly one decision that explains how it is today."""
    chart, found = told.chart, told.decisions()
    for task in chart.tasks:
        (one,) = [each for each in found if each.what == "task" and each.subject == task.id and each.stands]
        if task.suspended_by is not None:
            assert one.reason == "superseded"
            assert one.action == "cancel" or one.decided == "withheld"
        elif task.state in _GONE:
            assert one.decided == "done"
            assert one.action in {"cancel", "retract"}, task.kind
            assert one.reason in {"reversed", "deceased", "superseded", "disposition", "class", "merged", "hold",
                                  "too_late", "stale", "person"}  # fmt: skip
        else:
            assert (one.action, one.decided) in {(action, "done") for action in _DID[task.state]}, task.state
    for page in chart.pages:
        (one,) = [each for each in found if each.what == "page" and each.subject == page.id and each.stands]
        assert one.action == _PAGED[page.state]
        assert one.version == page.policy.version
    for stay in chart.encounters:
        (plan,) = [each for each in found if each.what == "plan" and each.subject == stay.key and each.stands]
        planned = any(
            task.encounter == stay.key and task.state is TaskState.OPEN and not tells_of_death(task)
            for task in chart.tasks
        )
        assert plan.decided == "done" or not planned
        if stay.status is EncounterStatus.CANCELLED and chart.patient.deceased is not True:
            assert plan.reason == "reversed"
        if chart.patient.deceased is True and not chart.death_stated.in_doubt:
            assert plan.reason == "deceased"
    for one in found:
        assert one.reason in WORDS or one.what in {"message", "appointment"}
        assert one.text
        assert set(one.causes) <= {each.entry for each in told.happened}
        assert one.at is not None


@pytest.mark.parametrize("name", HISTORIES)
def test_each_history_explains_how_it_ended(name: str) -> None:
    check_today(Told(*HISTORIES[name]))


@pytest.mark.parametrize("name", HISTORIES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_whatever_came_in_whatever_order_every_task_and_plan_has_one_reason(name: str, data: st.DataObject) -> None:
    history: Sequence[bytes] = HISTORIES[name]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=3))
    shuffled = data.draw(st.permutations([*history, *repeats]))
    check_today(Told(*shuffled))


@pytest.mark.parametrize("name", HISTORIES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_whatever_people_do_and_deadlines_bring_every_task_has_one_reason(name: str, data: st.DataObject) -> None:
    told = Told(day=1)
    for payload in data.draw(st.permutations(HISTORIES[name])):
        told.heart.now += timedelta(days=1)
        told.send(payload)
        for did in data.draw(st.lists(st.sampled_from(["done", "assign", "cancel", "ring"]), max_size=2)):
            tasks = told.chart.tasks
            if did == "ring" and due_at(told.chart) is not None:
                told.ring()
            elif did != "ring" and tasks:
                told.act(_act(did, told.chart, data.draw(st.sampled_from(tasks)).id))
        check_today(told)


def _act(did: str, chart: Chart, task: str) -> Act:
    if did == "done":
        return TaskDone(actor="anna", chart_id=chart.id, task=task)
    if did == "assign":
        return TaskAssigned(actor="anna", chart_id=chart.id, task=task, assignee="ben")
    return TaskCancelled(actor="anna", chart_id=chart.id, task=task, reason="moved away")


def test_the_message_type_is_read_from_the_message() -> None:
    assert Told(adt("A01", pid3="1^^^MRN^MR", pv1={})).happened[0].what == "ADT^A01"
