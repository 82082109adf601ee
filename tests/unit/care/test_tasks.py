"""The life of a task: the table of its transitions, acts and how they are taken back, deadlines and their ladder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec
import pytest

from engine.care.tasks import (
    ATTEMPTS_MAX,
    MOOT,
    SNOOZE_DAYS_MAX,
    TRANSITIONS,
    UNCALLED,
    RefusedError,
    TransitionError,
    alerted,
    alerts_follow,
    assigned,
    attempted,
    cancelled,
    deadlines,
    done,
    end,
    proved,
    reconcile,
    resume,
    retract_all,
    rung,
    snoozed,
    suspend,
    undone,
    unproved,
    without_reason,
)
from engine.domain.task import ENGINE, STANDING, Alert, Attempt, Escalation, How, Result, Rung, Task, TaskState

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DUE = NOW + 24 * HOUR
LADDER = (
    Rung(at=DUE, alert=Alert(kind="pcp_alert", assignee="pcp", due_at=DUE + 24 * HOUR, reason="it was missed")),
    Rung(at=DUE + 2 * HOUR, owner="care_manager"),
    Rung(at=DUE + 4 * HOUR, page="nursing"),
)


def task(**fields: Any) -> Task:
    usual = {
        "id": "0123456789abcdef0123456789abcdef",
        "kind": "pcp_follow_up",
        "encounter": "ADT1:VN-77",
        "due_at": DUE,
        "escalate_at": DUE,
        "state": TaskState.OPEN,
        "assignee": "care_coordinator",
        "reason": "visit within 3 days",
        "protocol": "post-discharge",
        "discharge": 1,
        "created_at": NOW,
        "ladder": LADDER,
    }
    return Task(**{**usual, **fields})


def attempt(how: How = How.PHONE, result: Result = Result.NO_ANSWER, by: str = "anna") -> Attempt:
    return Attempt(at=NOW, by=by, how=how, result=result)


def in_state(state: TaskState) -> Task:
    """A task that got there by what happens to tasks."""
    one = task()
    match state:
        case TaskState.OPEN:
            return one
        case TaskState.IN_PROGRESS:
            return attempted(one, attempt())[0]
        case TaskState.MISSED:
            return rung(one, DUE)[0]
        case _:
            return end(one, state, at=NOW)


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), list(product(TaskState, TaskState)))
def test_a_task_that_stands_ends_once_and_an_ended_one_never_changes(before: TaskState, after: TaskState) -> None:
    one = in_state(before)
    assert one.state is before
    ends = after not in STANDING
    assert (after in TRANSITIONS[before]) is (before in STANDING and ends) or after in STANDING
    if before in STANDING and ends:
        ended = end(one, after, at=NOW, by="anna", why="because")
        assert (ended.state, ended.ended_at, ended.ended_by, ended.end_reason) == (after, NOW, "anna", "because")
        assert ended.reason == one.reason
    else:
        with pytest.raises(TransitionError, match=f"{before} can't become {after}"):
            end(one, after, at=NOW)


def test_a_task_goes_back_to_open_by_no_transition() -> None:
    assert all(TaskState.OPEN not in after for after in TRANSITIONS.values())
    assert {state for state, after in TRANSITIONS.items() if after} == set(STANDING)


def test_retract_all_ends_what_stands_and_leaves_the_others() -> None:
    tasks = (end(task(), TaskState.DONE, at=NOW, by="anna"), task(), in_state(TaskState.MISSED))
    retracted = retract_all(tasks, at=NOW + HOUR, why="the discharge was cancelled")
    assert [one.state for one in retracted] == [TaskState.DONE] + [TaskState.RETRACTED] * 2
    assert retract_all(retracted, at=NOW + HOUR * 2, why="again") == retracted
    assert {one.ended_by for one in retracted} == {"anna", ENGINE}
    died = retract_all(tasks, at=NOW, why="the patient has died", state=TaskState.CANCELLED)
    assert [one.state for one in died[1:]] == [TaskState.CANCELLED] * 2


@pytest.mark.parametrize("state", sorted(STANDING))
def test_what_was_set_aside_is_put_back_as_it_was(state: TaskState) -> None:
    one = msgspec.structs.replace(in_state(state), undo=None, snoozed_until=NOW + HOUR, owner="anna")
    assert resume(suspend(one, "ADT1:VN-78", at=NOW)) == one


@pytest.mark.parametrize("state", sorted(STANDING))
def test_a_proof_that_is_withdrawn_leaves_the_task_as_it_was(state: TaskState) -> None:
    one = msgspec.structs.replace(in_state(state), undo=None, owner="anna")
    shown = proved(one, "encounter:ADT1:VN-79", at=NOW, evidence="entry 12: PV1-2, PV1-10")
    assert (shown.state, shown.ended_by, shown.evidence) == (TaskState.DONE, ENGINE, "entry 12: PV1-2, PV1-10")
    assert unproved(shown) == one
    by_a_person = done(one, by="anna", at=NOW, evidence=None)
    assert unproved(by_a_person) is by_a_person


# --- acts and how they are taken back --------------------------------------------------------------------------------

ACTS = {
    "attempt": lambda one: attempted(one, attempt())[0],
    "declined": lambda one: attempted(one, attempt(result=Result.DECLINED))[0],
    "reached": lambda one: attempted(one, attempt(result=Result.REACHED))[0],
    "assign": lambda one: assigned(one, "bea", by="anna", at=NOW),
    "snooze": lambda one: snoozed(one, NOW + HOUR, by="anna", at=NOW),
    "done": lambda one: done(one, by="anna", at=NOW, evidence="letter of the practice"),
    "cancel": lambda one: cancelled(one, by="anna", at=NOW, why="moved away"),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", sorted(STANDING))
@pytest.mark.parametrize("wanted", [0, 2])
def test_undo_restores_the_task_exactly(act: str, state: TaskState, wanted: int) -> None:
    before = msgspec.structs.replace(in_state(state), undo=None, attempts_wanted=wanted)
    after = ACTS[act](before)
    assert after != before
    assert undone(after, by="anna") == before


@pytest.mark.parametrize("act", ACTS)
def test_undo_is_for_who_acted_last_and_once(act: str) -> None:
    after = ACTS[act](task())
    with pytest.raises(RefusedError, match="only the person who did it last"):
        undone(after, by="bea")
    with pytest.raises(RefusedError, match="nothing to undo"):
        undone(undone(after, by="anna"), by="anna")


@pytest.mark.parametrize("act", ["attempt", "assign", "snooze"])
def test_undo_is_over_when_something_else_has_happened_to_the_task(act: str) -> None:
    after = ACTS[act](task())
    later = [
        rung(after, DUE)[0],
        retract_all([after], at=NOW, why="the discharge was cancelled")[0],
        resume(suspend(after, "ADT1:VN-78", at=NOW)),
        reconcile((after,), (task(due_at=DUE + HOUR),), at=NOW, why="")[0],
        unproved(proved(after, "encounter:x", at=NOW, evidence="entry 1")),
    ]
    for one in later:
        with pytest.raises(RefusedError, match="nothing to undo"):
            undone(one, by="anna")
    unchanged = reconcile((after,), (task(),), at=NOW, why="")[0]
    assert undone(unchanged, by="anna") == task()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", [state for state in TaskState if not TRANSITIONS[state]])
def test_nobody_acts_on_what_has_ended(act: str, state: TaskState) -> None:
    with pytest.raises(RefusedError, match=f"not open but {state}"):
        ACTS[act](in_state(state))


@pytest.mark.parametrize("how", [How.PHONE, How.VISIT, How.VIDEO])
def test_tcm_who_was_reached_by_a_person_was_contacted(how: How) -> None:
    after, raised = attempted(task(attempts_wanted=2), attempt(how, Result.REACHED))
    assert (after.state, after.ended_by, after.evidence, raised) == (TaskState.DONE, "anna", f"reached by {how}", ())
    more = done(after, by="anna", at=NOW, evidence="spoke with the daughter")
    assert more.evidence == f"reached by {how}; spoke with the daughter"
    assert done(after, by="anna", at=NOW, evidence=None) is after
    with pytest.raises(RefusedError):
        done(after, by="bea", at=NOW, evidence=None)


@pytest.mark.parametrize("result", list(Result))
def test_tcm_an_automated_text_is_no_contact(result: Result) -> None:
    after, _ = attempted(task(attempts_wanted=2), attempt(How.TEXT, result))
    assert after.state is TaskState.IN_PROGRESS
    assert after.contacts_tried == 0


def test_tcm_attempts_count_until_the_task_is_due() -> None:
    one = task(attempts_wanted=2)
    for how in (How.PHONE, How.TEXT, How.VIDEO):
        one, _ = attempted(one, attempt(how))
    one, _ = attempted(one, msgspec.structs.replace(attempt(), at=DUE + HOUR))
    assert (len(one.attempts), one.contacts_tried, one.state) == (4, 2, TaskState.IN_PROGRESS)


def test_a_task_that_asks_for_something_else_is_not_done_by_reaching_the_patient() -> None:
    after, _ = attempted(task(), attempt(result=Result.REACHED))
    assert after.state is TaskState.IN_PROGRESS


def test_attempts_have_a_limit() -> None:
    full = task(attempts=(attempt(),) * ATTEMPTS_MAX, state=TaskState.IN_PROGRESS)
    with pytest.raises(RefusedError, match="100 attempts"):
        attempted(full, attempt())


def test_a_patient_who_declines_raises_the_alert_before_the_deadline_and_once() -> None:
    after, (alert,) = attempted(task(), attempt(result=Result.DECLINED))
    assert (alert.kind, alert.assignee, alert.raised_for, alert.state) == ("pcp_alert", "pcp", after.id, TaskState.OPEN)
    assert after.escalations[0].why == "declined"
    assert attempted(after, attempt(result=Result.DECLINED))[1] == ()
    missed, again = rung(after, DUE)
    assert (missed.state, again) == (TaskState.MISSED, ())
    assert missed.escalations[-1].alert == alert.id
    again, raised = alerted(missed, Escalation(at=DUE, why="no-show"))
    assert (raised, {one.alert for one in again.escalations}) == ((), {alert.id})


def test_a_snooze_leaves_the_deadlines_and_they_wake_the_task() -> None:
    one = snoozed(task(), DUE + 48 * HOUR, by="anna", at=NOW)
    assert (one.due_at, one.escalate_at, one.state) == (DUE, DUE, TaskState.OPEN)
    woken, alerts = rung(one, DUE)
    assert (woken.state, woken.snoozed_until, len(alerts)) == (TaskState.MISSED, None, 1)


def test_a_snooze_ends_by_itself() -> None:
    one = snoozed(task(), NOW + HOUR, by="anna", at=NOW)
    assert min(deadlines(one)) == NOW + HOUR
    assert rung(one, NOW + HOUR - timedelta(microseconds=1))[0] is one
    woken, _ = rung(one, NOW + HOUR)
    assert (woken.snoozed_until, woken.state) == (None, TaskState.OPEN)


@pytest.mark.parametrize("until", [NOW, NOW - HOUR, NOW + timedelta(days=SNOOZE_DAYS_MAX, seconds=1)])
def test_a_snooze_ends_within_its_limits(until: datetime) -> None:
    with pytest.raises(RefusedError, match="snoozed"):
        snoozed(task(), until, by="anna", at=NOW)


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_an_overdue_task_climbs_its_ladder_one_rung_at_a_time() -> None:
    one, (alert,) = rung(task(), DUE)
    assert (one.state, one.missed_at, one.escalate_at, one.assignee) == (
        TaskState.MISSED, DUE, DUE + 2 * HOUR, "care_coordinator",
    )  # fmt: skip
    assert alert.due_at == DUE + 24 * HOUR
    one, alerts = rung(one, DUE + 2 * HOUR)
    assert (one.assignee, one.owner, one.page, alerts) == ("care_manager", "care_manager", None, ())
    one, alerts = rung(one, DUE + 4 * HOUR)
    assert (one.page, one.escalate_at, alerts) == ("nursing", None, ())
    assert [(two.why, two.owner, bool(two.alert), two.page) for two in one.escalations] == [
        ("deadline", None, True, None), ("deadline", "care_manager", False, None), ("deadline", None, False, "nursing"),
    ]  # fmt: skip
    assert deadlines(one) == ()


def test_after_a_stop_all_rungs_ring_at_once_and_no_alert_is_born_overdue() -> None:
    late = DUE + 100 * HOUR
    one, (alert,) = rung(task(), late)
    assert (one.climbed, one.page, one.owner) == (3, "nursing", "care_manager")
    assert alert.due_at == late + HOUR
    assert rung(one, late + HOUR) == (one, ())


@pytest.mark.parametrize(
    ("ladder", "missed_at"), [((), DUE), ((Rung(at=DUE),), DUE), ((Rung(at=DUE + HOUR),), DUE + HOUR)]
)
def test_a_task_is_missed_at_its_first_rung_or_else_when_it_is_due(
    ladder: tuple[Rung, ...], missed_at: datetime
) -> None:
    one = task(ladder=ladder)
    assert rung(one, missed_at - timedelta(microseconds=1)) == (one, ())
    after, raised = rung(one, missed_at)
    assert (after.state, after.missed_at, raised) == (TaskState.MISSED, missed_at, ())


@pytest.mark.parametrize("state", [state for state in TaskState if not TRANSITIONS[state]])
def test_nothing_rings_for_what_has_ended(state: TaskState) -> None:
    one = in_state(state)
    assert deadlines(one) == ()
    assert rung(one, DUE + 99 * HOUR) == (one, ())


@pytest.mark.parametrize("climbed", range(4))
def test_every_deadline_is_later_after_it_rang_or_gone(climbed: int) -> None:
    one = task()
    for _ in range(climbed):
        at = min(deadlines(one))
        one, _ = rung(one, at)
        assert all(later > at for later in deadlines(one))


@pytest.mark.parametrize(("rang", "kept"), [(0, 0), (2, 0), (4, 0), (2, 1), (4, 1), (4, 2)])
def test_a_deadline_that_is_moved_on_takes_back_what_was_done_about_it_and_rings_anew(rang: int, kept: int) -> None:
    """rang: hours after the first deadline; kept: rungs that are behind it all the same."""
    missed, (alert,) = rung(task(), DUE + rang * HOUR)
    now = DUE + rang * HOUR
    moved = tuple(
        msgspec.structs.replace(step, at=step.at if number < kept else step.at + 72 * HOUR)
        for number, step in enumerate(LADDER)
    )
    due = moved[0].at
    again, about = reconcile(
        (missed, alert), (task(due_at=due, ladder=moved, escalate_at=due, assignee="care_coordinator"),), at=now, why=""
    )
    again, about = alerts_follow((again, about), at=now)
    assert (again.climbed, again.escalate_at, len(again.escalations)) == (kept, moved[kept].at, kept)
    assert (again.state is TaskState.MISSED, about.stands) == (bool(kept), bool(kept))
    assert (again.owner, again.page) == (("care_manager" if kept > 1 else None), None)
    assert again.assignee == ("care_manager" if kept > 1 else "care_coordinator")
    after, raised = rung(again, moved[-1].at, {alert.id: alert})
    assert (after.state, after.page, len(after.escalations)) == (TaskState.MISSED, "nursing", 3)
    assert [one.id == alert.id for one in raised] == ([] if kept else [False])


def test_who_took_an_overdue_task_keeps_it_when_its_deadline_is_moved_on() -> None:
    missed, _ = rung(task(), DUE + 2 * HOUR)
    taken = assigned(missed, "anna", by="anna", at=DUE + 2 * HOUR)
    moved = tuple(msgspec.structs.replace(step, at=step.at + 72 * HOUR) for step in LADDER)
    (again,) = reconcile((taken,), (task(due_at=moved[0].at, ladder=moved),), at=DUE + 2 * HOUR, why="")
    assert (again.owner, again.assignee, again.climbed) == ("anna", "anna", 0)


# --- alerts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "alert_stands"),
    [(TaskState.DONE, False), (TaskState.RETRACTED, False), (TaskState.CANCELLED, True)],
)
def test_an_alert_ends_with_what_it_is_about_unless_a_person_has_cancelled_that(
    ends: TaskState, alert_stands: bool
) -> None:
    missed, (alert,) = rung(task(), DUE)
    ended, after = alerts_follow((end(missed, ends, at=DUE), alert), at=DUE)
    assert after.stands is alert_stands
    if not alert_stands:
        assert (after.state, after.end_reason) == (TaskState.RETRACTED, MOOT)
        assert alerts_follow((missed, after), at=DUE)[1] == alert
    assert alerts_follow((ended, after), at=DUE + HOUR) == (ended, after)


def test_an_alert_whose_cause_was_undone_ends_and_stands_again_with_it() -> None:
    declined, (alert,) = attempted(task(), attempt(result=Result.DECLINED))
    before = undone(declined, by="anna")
    _, moot = alerts_follow((before, alert), at=NOW)
    assert moot.state is TaskState.RETRACTED
    again, _ = attempted(before, attempt(result=Result.DECLINED))
    assert alerts_follow((again, moot), at=NOW)[1] == alert


@pytest.mark.parametrize("ended", [None, TaskState.CANCELLED])
def test_an_alert_ends_with_what_calls_for_its_task_and_stands_again_with_that(ended: TaskState | None) -> None:
    missed, (alert,) = rung(task(), DUE)
    about = missed if ended is None else end(missed, ended, at=DUE, by="anna")
    _, gone = reconcile((about, alert), (), at=DUE, why="the discharge was cancelled")
    assert (gone.state, gone.end_reason) == (TaskState.RETRACTED, UNCALLED)
    _, again = reconcile((about, gone), (task(),), at=DUE, why="")
    assert again == alert


@pytest.mark.parametrize("ended", [TaskState.DONE, TaskState.CANCELLED])
def test_a_new_reason_raises_a_new_alert_when_the_last_one_was_answered_and_its_reason_taken_back(
    ended: TaskState,
) -> None:
    declined, (first,) = attempted(task(), attempt(result=Result.DECLINED))
    answered = end(first, ended, at=NOW, by="pcp")
    missed, (second,) = rung(undone(declined, by="anna"), DUE, {first.id: first})
    assert (second.id != first.id, second.stands, second.raised_for) == (True, True, missed.id)
    assert alerts_follow((missed, answered, second), at=DUE) == (missed, answered, second)


def test_an_alert_with_two_reasons_ends_with_the_last_of_them() -> None:
    declined, (alert,) = attempted(task(), attempt(result=Result.DECLINED))
    missed, _ = rung(declined, DUE)
    one = without_reason(missed, missed.escalations[0])
    assert alerts_follow((one, alert), at=DUE)[1].stands
    none = without_reason(one, one.escalations[0])
    assert not alerts_follow((none, alert), at=DUE)[1].stands


def test_a_plan_that_is_made_anew_leaves_its_alerts_alone() -> None:
    missed, (alert,) = rung(task(), DUE)
    assert reconcile((missed, alert), (task(),), at=DUE, why="") == (missed, alert)


@pytest.mark.parametrize("state", [TaskState.DONE, TaskState.CANCELLED])
def test_a_reason_after_an_alert_that_a_person_has_ended_raises_a_new_one(state: TaskState) -> None:
    declined, (first,) = attempted(task(), attempt(result=Result.DECLINED))
    ended = end(first, state, at=NOW, by="dr")
    again, (second,) = attempted(declined, attempt(result=Result.DECLINED), {first.id: ended})
    assert second.id != first.id
    assert [one.alert for one in again.escalations] == [first.id, second.id]
    missed, third = rung(again, DUE, {first.id: ended, second.id: second})
    assert (third, missed.escalations[-1].alert) == ((), second.id)


def test_an_alert_that_is_set_aside_was_answered_by_nobody() -> None:
    declined, (first,) = attempted(task(), attempt(result=Result.DECLINED))
    aside = suspend(first, "MRN:V2", at=NOW)
    assert attempted(declined, attempt(result=Result.DECLINED), {first.id: aside})[1] == ()
