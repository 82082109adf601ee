"""What an event had caused is taken back everywhere, and any order of messages comes to the plan of the final chart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan_rules import DAY, HIGH, HOME, HOUR, SICK, Ward

from engine.care.tasks import end
from engine.domain.delivery import Operation
from engine.domain.encounter import EncounterStatus
from engine.domain.outcome import Outcome
from engine.domain.page import PageState
from engine.domain.score import Band
from engine.domain.task import STANDING, Task, TaskState

SINCE = HOME - 5 * DAY


class Told:
    """What a destination holds that takes every delivery at its word."""

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.scores: dict[str, bool] = {}

    def take(self, outcome: Outcome) -> None:
        for one in outcome.deliveries:
            body = msgspec.json.decode(one.payload)
            if one.operation is Operation.UPSERT_TASK:
                self.tasks[body["task"]["id"]] = body["task"]["state"]
            elif one.operation is Operation.UPSERT_SCORE:
                self.scores[f"{body['score']['encounter']}/{body['score']['model']}"] = not body["withdrawn"]


UNDOING: dict[str, tuple[Callable[[Ward], Outcome], bool]] = {
    "A11": (lambda ward: ward.event("A11", HOME + HOUR, since=SINCE), False),
    "A13": (lambda ward: ward.event("A13", HOME + HOUR, since=SINCE), True),
    "A08 to a transfer": (lambda ward: ward.event("A08", HOME + HOUR, since=SINCE, left=HOME, code="02"), True),
    "A08 to an outpatient": (
        lambda ward: ward.event("A08", HOME + HOUR, since=SINCE, left=HOME, code="01", _2="O"), False,
    ),
    "A08 to death": (lambda ward: ward.event("A08", HOME + HOUR, since=SINCE, left=HOME, code="20"), False),
    "PID-30": (lambda ward: ward.person(HOME + HOUR, {30: "Y"}), False),
    "A01 again": (lambda ward: ward.event("A01", HOME + HOUR, "V2", since=HOME + HOUR), True),
}  # fmt: skip
"""Event after a high-risk discharge -> whether the scores of that stay stand after it."""


@pytest.mark.parametrize("name", UNDOING)
def test_what_an_event_takes_back_is_taken_back_at_every_destination(name: str) -> None:
    event, scored = UNDOING[name]
    ward, told = Ward(), Told()
    ward.now = datetime(2026, 2, 1, tzinfo=UTC)
    told.take(ward.event("A01", SINCE, since=SINCE))
    told.take(ward.event("A03", HOME, since=SINCE, left=HOME, code="01", dg1=SICK))
    ward.called()
    (page,) = ward.chart("1").pages
    assert page.next_at is not None, "somebody is being called"
    planned = {task.id for task in ward.chart("1").tasks}
    assert len(planned) == len(HIGH)
    assert all(told.tasks[task] == "open" for task in planned)
    told.take(event(ward))
    assert {told.tasks[task] for task in planned} <= {"retracted", "cancelled"}
    assert told.tasks == {task.id: task.state for task in ward.chart("1").tasks}
    assert told.scores["MRN:V1/lace"] is scored
    assert [(page.state, page.next_at) for page in ward.chart("1").pages] == [(PageState.RESOLVED, None)]


def alerts(ward: Ward) -> list[Task]:
    return [task for task in ward.chart("1").tasks if task.raised_for is not None]


def missed(ward: Ward, *, until: timedelta = 4 * DAY) -> None:
    """All deadlines of the first days have rung: contact and visit were missed, and somebody was alerted."""
    ward.stay()
    ward.now = HOME + until
    ward.ring(ward.chart("1"))
    assert len([task for task in alerts(ward) if task.kind == "pcp_alert" and task.stands]) == 2


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("name", ["A11", "A13", "A08 to a transfer", "A08 to an outpatient", "A08 to death"])
def test_an_alert_ends_with_the_plan_though_a_person_has_cancelled_its_task(name: str, cancelled: bool) -> None:
    ward = Ward()
    missed(ward)
    if cancelled:
        tasks = tuple(
            end(task, TaskState.CANCELLED, at=ward.now, by="anna") if task.escalations and task.stands else task
            for task in ward.chart("1").tasks
        )
        ward.charts.add(msgspec.structs.replace(ward.chart("1"), tasks=tasks))
        ward.person(ward.now, {13: "5185550100"})
        assert all(task.stands for task in alerts(ward) if task.kind == "pcp_alert")
    UNDOING[name][0](ward)
    assert not [task for task in alerts(ward) if task.stands]


@pytest.mark.parametrize("moved", [3 * DAY, 3 * DAY + 23 * HOUR])
def test_an_end_that_is_moved_on_takes_back_what_was_missed_and_misses_it_anew(moved: timedelta) -> None:
    ward = Ward()
    missed(ward)
    since, left = HOME - 5 * DAY, HOME + moved
    ward.event("A08", ward.now, since=since, left=left, code="01", dg1=SICK)
    assert not [task for task in alerts(ward) if task.stands and task.kind == "pcp_alert"]
    contact, visit = ward.tasks()["tcm_contact"], ward.tasks()["pcp_follow_up"]
    assert {contact.state, visit.state} == {TaskState.OPEN}
    assert (contact.escalations, visit.escalations) == ((), ())
    ward.now = max(contact.due_at, visit.due_at)
    ward.ring(ward.chart("1"))
    again = [task for task in alerts(ward) if task.stands and task.kind == "pcp_alert"]
    assert {task.raised_for for task in again} == {contact.id, visit.id}


STEPS = {
    Band.HIGH: HIGH - {"on_call_page"},
    Band.MODERATE: {"tcm_contact", "pcp_follow_up"},
    Band.LOW: {"tcm_contact", "medication_reconciliation", "education"},
}


def warranted(ward: Ward) -> set[tuple[str, str]]:
    """A plain re-computation from the final chart: stay, step. Nobody is called: all is heard of a day late."""
    chart = ward.chart("1")
    stays = [stay for stay in chart.encounters if stay.status is not EncounterStatus.CANCELLED]
    stays.sort(key=lambda stay: stay.admitted_at.seconds if stay.admitted_at else 0)
    if not stays or stays[-1].status is not EncounterStatus.FINISHED:
        return set()
    last = stays[-1]
    if last.disposition not in {"01", "03"}:
        return set()
    goes_on = any(stay.status is EncounterStatus.ACTIVE for stay in stays)
    asked = {(last.key, "decide")} if goes_on else set()
    if last.disposition == "03":
        return asked | {(last.key, "notify_facility")}
    order = [Band.LOW, Band.MODERATE, Band.HIGH]
    bands = {score.encounter: score.band for score in chart.scores if score.model == "lace"}
    over = [stay for stay in stays if stay.status is EncounterStatus.FINISHED]
    home = [stay for stay in over if stay.disposition == "01"]  # all within the shortest plan of each other
    band = max((bands[stay.key] for stay in home), key=order.index)
    return asked | {(last.key, step) for step in STEPS[band]}


@given(data=st.data())
@settings(max_examples=80)
def test_any_order_of_messages_comes_to_the_plan_that_the_final_chart_warrants(data: st.DataObject) -> None:
    """Admissions, discharges, corrections, their cancels, and a merge of the two numbers, repeated and in any order."""
    again = HOME + DAY
    codes, maybe = st.sampled_from(["01", "01", "02", "03"]), st.booleans()
    first, second = data.draw(codes), data.draw(codes)
    messages: list[dict[str, Any]] = [
        {"trigger": "A01", "at": SINCE, "since": SINCE},
        {"trigger": "A03", "at": HOME, "since": SINCE, "left": HOME, "code": first},
        {"trigger": "A08", "at": HOME + HOUR, "since": SINCE, "left": HOME, "code": first, "dg1": SICK},
    ]
    if data.draw(maybe):
        messages.append({"trigger": "A13", "at": HOME + 2 * HOUR, "since": SINCE})
        if data.draw(maybe):
            left = HOME + 3 * HOUR
            messages.append({"trigger": "A03", "at": left, "since": SINCE, "left": left, "code": data.draw(codes)})
    if data.draw(maybe):
        other = {"visit": "V2", "since": again, "mrn": data.draw(st.sampled_from(["1", "2"]))}
        messages.append({"trigger": "A01", "at": again, **other})
        if data.draw(maybe):
            left = again + 6 * HOUR
            messages.append({"trigger": "A03", "at": left, **other, "left": left, "code": second})
        elif data.draw(maybe):
            messages.append({"trigger": "A11", "at": again + HOUR, **other})
        if other["mrn"] == "2":
            messages.append({"trigger": "A40", "at": again + 8 * HOUR})
    repeats = data.draw(st.lists(st.sampled_from(messages), max_size=3))
    ward = Ward()
    ward.now = HOME + timedelta(days=2, hours=12)
    for message in data.draw(st.permutations([*messages, *repeats])):
        if message["trigger"] == "A40":
            ward.merged("1", "2", message["at"])
        else:
            ward.event(**message)
    standing = {(task.encounter or "", task.step) for task in ward.chart("1").tasks if task.state in STANDING}
    assert standing == warranted(ward)
