"""The life of a task: what people, deadlines and messages make of it. Pure.

`TRANSITIONS` is the whole of it. Some things are not among them, because each undoes one and restores the task as it
was: a readmission that turns out not to have happened (`resume`), a proof that is withdrawn (`unproved`), a person who
takes back what they have just done (`undone`), and what called off a call before anybody was called. A deadline that is
moved on makes a missed task an open one again.

An alert stands for a reason: an entry of `Task.escalations`, of the task that it is about, which names it. When that
task is settled, or not called for any more, or the reason is taken from it, the alert ends; a new reason raises a new
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import count
from typing import Any, Final

import msgspec

from engine.domain.ids import beginning_like
from engine.domain.task import (
    ENGINE,
    ON_CALL_PAGE,
    READMITTED,
    STANDING,
    Alert,
    Attempt,
    Escalation,
    Result,
    Rung,
    Task,
    TaskState,
    Undo,
)
from engine.errors import HandoffError

_ENDS: Final = frozenset({TaskState.DONE, TaskState.CANCELLED, TaskState.RETRACTED})

TRANSITIONS: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.OPEN: _ENDS | {TaskState.IN_PROGRESS, TaskState.MISSED},
    TaskState.IN_PROGRESS: _ENDS | {TaskState.MISSED},
    TaskState.MISSED: _ENDS,
    TaskState.DONE: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.RETRACTED: frozenset(),
}
"""Where a task may go. An ended task stays as it ended, because people and destinations have acted on it: what is
wanted again gets a task of its own."""

ATTEMPTS_MAX: Final = 100
SNOOZE_DAYS_MAX: Final = 90
DEADLINE: Final = "deadline"
"""`Escalation.why` of a rung that was climbed at its time."""
_NOBODY: Final[Mapping[str, Task]] = {}
_ALERT_HOURS: Final = 1
"""An alert that is raised late leaves this much time at least, if it would have had as much at its time."""

MOOT: Final = "what it was about is settled"
UNCALLED: Final = "what it was about is not called for any more"
"""Why an alert ends by itself."""


class TransitionError(HandoffError):
    """A task can't go to this state."""

    def __init__(self, before: TaskState, after: TaskState) -> None:
        super().__init__(f"a task that is {before} can't become {after}")
        self.before = before
        self.after = after


class RefusedError(HandoffError):
    """An act that can't be done on the task as it is. The code is stable, the text is for whoever acts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def _changed(task: Task, **fields: Any) -> Task:
    """The task with something of it changed: what was done before can't be taken back any more."""
    return msgspec.structs.replace(task, undo=None, **fields)


def end(
    task: Task,
    state: TaskState,
    *,
    at: datetime,
    by: str = ENGINE,
    why: str | None = None,
    evidence: str | None = None,
) -> Task:
    """The task, ended: when, by whom and why. Raises TransitionError."""
    if state not in TRANSITIONS[task.state] or state not in _ENDS:
        raise TransitionError(task.state, state)
    return _changed(
        task,
        state=state,
        ended_at=at,
        ended_by=by,
        end_reason=why,
        evidence=evidence,
        stood_as=task.state,
    )


def _standing(task: Task, **fields: Any) -> Task:
    """A task that stands again, in the state in which it stood."""
    begun = TaskState.IN_PROGRESS if task.attempts else TaskState.OPEN
    state = TaskState.MISSED if task.missed_at is not None else task.stood_as or begun
    ended = {"ended_at": None, "ended_by": None, "end_reason": None, "evidence": None, "stood_as": None}
    return _changed(task, state=state, **ended, **fields)


# --- what messages make of it ----------------------------------------------------------------------------------------


def suspend(task: Task, by: str, *, at: datetime, why: str = READMITTED) -> Task:
    """The standing task, set aside for the stay `by`. `resume` puts it back."""
    ended = end(task, TaskState.CANCELLED, at=at, why=why)
    return msgspec.structs.replace(ended, suspended_by=by)


def resume(task: Task) -> Task:
    """The task as it was before a readmission set it aside; any other task stays as it is."""
    return task if task.suspended_by is None else _standing(task, suspended_by=None)


def retract_all(
    tasks: Iterable[Task], *, at: datetime, why: str, state: TaskState = TaskState.RETRACTED
) -> tuple[Task, ...]:
    """End every standing task: retracted when its cause is withdrawn (a cancelled discharge), cancelled at a death."""
    return tuple(end(task, state, at=at, why=why) if task.stands else final(task) for task in tasks)


def reconcile(existing: tuple[Task, ...], wanted: tuple[Task, ...], *, at: datetime, why: str) -> tuple[Task, ...]:
    """The tasks of one encounter, brought into line with the wanted ones.

    Standing ones that are no longer wanted are retracted (`why` says why), those still wanted take the new times and
    the new reason but keep who has them and what was done about them, ended ones stay as they are, missing ones are
    added. A call that ended is wanted only when it was withdrawn before anybody was called: it stands again. Alerts go
    with what they are about, even if a person has cancelled that. Doing it twice changes nothing more.
    """
    by_id = {task.id: task for task in wanted}
    called_for = {task.id: task.id in by_id for task in existing}
    result = []
    for task in existing:
        want = by_id.pop(task.id, None)
        if want is None and task.raised_for is not None:
            result.append(_as_called_for(task, at, called_for=called_for.get(task.raised_for)))
        elif want is not None and task.kind == ON_CALL_PAGE and is_withdrawn(task):
            result.append(_as_wanted(_standing(task, suspended_by=None), want, at))
        elif not task.stands:
            result.append(_as_wanted_if_undone(task, want, at))
        elif want is None:
            result.append(end(task, TaskState.RETRACTED, at=at, why=why))
        else:
            result.append(_as_wanted(task, want, at))
    return (*result, *by_id.values())


def _as_called_for(alert: Task, at: datetime, *, called_for: bool | None) -> Task:
    """called_for: whether what it is about is wanted; none: that is no task of this encounter."""
    if called_for is False and alert.stands:
        return end(alert, TaskState.RETRACTED, at=at, why=UNCALLED)
    if called_for and alert.state is TaskState.RETRACTED and alert.end_reason == UNCALLED:
        return _standing(alert)
    return alert


def is_withdrawn(task: Task) -> bool:
    """A correction has ended it, or a death: whether that was right may read differently later."""
    by_death = task.state is TaskState.CANCELLED and task.suspended_by is None and task.ended_by == ENGINE
    return task.state is TaskState.RETRACTED or by_death


def final(task: Task) -> Task:
    """The task, of which nothing can be taken back any more."""
    return task if task.undo is None else _changed(task)


def _as_wanted_if_undone(task: Task, want: Task | None, at: datetime) -> Task:
    """The ended task; undone, it would be as it is wanted now. What is not wanted any more can't be undone."""
    if task.undo is None or not task.undo.was.stands:
        return task
    if want is None:
        return final(task)
    was = _as_wanted(task.undo.was, want, at)
    if was is task.undo.was:
        return task
    return msgspec.structs.replace(task, undo=msgspec.structs.replace(task.undo, was=was))


def _as_wanted(task: Task, want: Task, at: datetime) -> Task:
    """The standing task as it is wanted now; rungs that lie ahead again are still to be climbed."""
    climbed = min(task.climbed, sum(step.at <= at for step in want.ladder))
    if climbed < task.climbed:
        task = _climbed_down(task, climbed, want.assignee)
    now_wanted = msgspec.structs.replace(
        task,
        due_at=want.due_at,
        escalate_at=_at_of(want.ladder, climbed),
        reason=want.reason,
        ladder=want.ladder,
        page=task.page if any(one.page for one in task.escalations) else want.page,
        attempts_wanted=want.attempts_wanted,
        protocol_version=want.protocol_version,
        protocol_digest=want.protocol_digest,
    )
    if task.missed_at is not None and (_at_of(want.ladder, 0) or want.due_at) > at:
        return _standing(msgspec.structs.replace(now_wanted, missed_at=None))
    return task if now_wanted == task else _changed(now_wanted)


def _climbed_down(task: Task, climbed: int, assignee: str | None) -> Task:
    """The task with so many rungs behind it: the deadlines of the others have not passed after all.

    Whom one of those has given it does not have it any more. assignee: who has it by its protocol.
    """
    gone = [one for one in task.escalations if one.why == DEADLINE][climbed:]
    kept = tuple(one for one in task.escalations if all(one is not other for other in gone))
    task = _changed(task, climbed=climbed, escalations=kept)
    if task.owner is None or all(one.owner != task.owner for one in gone):
        return task
    owner = next((one.owner for one in reversed(kept) if one.owner is not None), None)
    return msgspec.structs.replace(task, owner=owner, assignee=owner or assignee)


# --- what people do --------------------------------------------------------------------------------------------------


def attempted(task: Task, attempt: Attempt, known: Mapping[str, Task] = _NOBODY) -> tuple[Task, tuple[Task, ...]]:
    """An attempt to reach the patient, and the alerts that it raises.

    That the patient was reached by a person is what a task asks for that wants attempts (`attempts_wanted`): it is
    done. An automated text is no contact (CMS on Transitional Care Management, CPT 99495/99496). A patient who declines
    raises the first alert of the task's ladder, before the deadline. known: the chart's tasks by id.
    Raises RefusedError.
    """
    _must_stand(task)
    if len(task.attempts) >= ATTEMPTS_MAX:
        raise RefusedError("too-many-attempts", f"there are {ATTEMPTS_MAX} attempts already: end the task")
    begun = TaskState.IN_PROGRESS if task.state is TaskState.OPEN else task.state
    after = _changed(task, state=begun, attempts=(*task.attempts, attempt))
    raised: tuple[Task, ...] = ()
    if attempt.result is Result.REACHED and attempt.how.is_contact and task.attempts_wanted:
        evidence = f"reached by {attempt.how}"
        after = end(after, TaskState.DONE, at=attempt.at, by=attempt.by, evidence=evidence)
    elif attempt.result is Result.DECLINED:
        after, raised = alerted(after, Escalation(at=attempt.at, why="declined"), known)
    return _undoable(task, after, "attempt", by=attempt.by, at=attempt.at), raised


def done(task: Task, *, by: str, at: datetime, evidence: str | None) -> Task:
    """Raises RefusedError."""
    if task.state is TaskState.DONE and task.attempts and (task.ended_by, task.ended_at) == (by, task.attempts[-1].at):
        # Whoever has just reached the patient, and so ended it, may say so once more, and say more of it.
        if evidence is None:
            return task
        return _undoable(task, _changed(task, evidence=f"{task.evidence}; {evidence}"), "done", by=by, at=at)
    _must_stand(task)
    return _undoable(task, end(task, TaskState.DONE, at=at, by=by, evidence=evidence), "done", by=by, at=at)


def acknowledged(task: Task, *, by: str, actor: str, at: datetime, evidence: str) -> Task:
    """The standing task, done by the acknowledgment of its page. by: who takes it; actor: who has said so, and can take
    that back.
    """
    return _undoable(task, end(task, TaskState.DONE, at=at, by=by, evidence=evidence), "acknowledge", by=actor, at=at)


def cancelled(task: Task, *, by: str, at: datetime, why: str) -> Task:
    """Raises RefusedError."""
    _must_stand(task)
    return _undoable(task, end(task, TaskState.CANCELLED, at=at, by=by, why=why), "cancel", by=by, at=at)


def assigned(task: Task, who: str, *, by: str, at: datetime) -> Task:
    """Raises RefusedError."""
    _must_stand(task)
    return _undoable(task, _changed(task, assignee=who, owner=who), "assign", by=by, at=at)


def snoozed(task: Task, until: datetime, *, by: str, at: datetime) -> Task:
    """Nobody need look at the task before `until`; its deadlines stay, and wake it. Raises RefusedError."""
    _must_stand(task)
    if until <= at:
        raise RefusedError("snooze-in-the-past", "a task can't be snoozed until a time that is past")
    if until > at + timedelta(days=SNOOZE_DAYS_MAX):
        raise RefusedError("snooze-too-long", f"a task can be snoozed for {SNOOZE_DAYS_MAX} days at most")
    return _undoable(task, _changed(task, snoozed_until=until), "snooze", by=by, at=at)


def undone(task: Task, *, by: str) -> Task:
    """The task before the last act. Raises RefusedError."""
    last = task.undo
    if last is None:
        raise RefusedError(
            "nothing-to-undo",
            "there is nothing to undo: nobody has acted on the task, or something else has happened to it since",
        )
    if last.by != by:
        raise RefusedError("undo-of-another", "only the person who did it last can undo it")
    return last.was


def _undoable(before: Task, after: Task, act: str, *, by: str, at: datetime) -> Task:
    was = msgspec.structs.replace(before, undo=None)
    return msgspec.structs.replace(after, undo=Undo(by=by, at=at, act=act, was=was))


def _must_stand(task: Task) -> None:
    if not task.stands:
        raise RefusedError("task-not-open", f"the task is not open but {task.state}")


# --- what deadlines make of it ---------------------------------------------------------------------------------------


def deadlines(task: Task) -> tuple[datetime, ...]:
    """The moments at which something happens to the task by itself."""
    if task.state not in STANDING:
        return ()
    at = _at_of(task.ladder, task.climbed) or (task.due_at if task.missed_at is None else None)
    return tuple([one for one in (at, task.snoozed_until) if one is not None])


def calls_at(task: Task) -> datetime | None:
    """When the next rung of its ladder is climbed, if that has somebody paged; none: nobody is."""
    if not task.stands or task.climbed >= len(task.ladder):
        return None
    step = task.ladder[task.climbed]
    return step.at if step.page is not None or (step.alert is not None and step.alert.page is not None) else None


def rung(task: Task, now: datetime, known: Mapping[str, Task] = _NOBODY) -> tuple[Task, tuple[Task, ...]]:
    """The task after all its deadlines up to now, and the alerts that were raised.

    The first rung of its ladder, or the due time where it has none, makes it missed. Each rung is climbed once. What
    is done about a task wakes it. known: the chart's tasks by id.
    """
    raised: list[Task] = []
    while task.stands and (at := _at_of(task.ladder, task.climbed)) is not None and at <= now:
        task, alerts = _climb(task, task.ladder[task.climbed], now, known)
        raised += alerts
    if task.stands and (misses := _misses_at(task)) is not None and misses <= now:
        task = _changed(task, state=TaskState.MISSED, missed_at=misses, snoozed_until=None)
    if task.stands and task.snoozed_until is not None and task.snoozed_until <= now:
        task = _changed(task, snoozed_until=None)
    return task, tuple(raised)


def _at_of(ladder: tuple[Rung, ...], climbed: int) -> datetime | None:
    return ladder[climbed].at if climbed < len(ladder) else None


def _misses_at(task: Task) -> datetime | None:
    if task.missed_at is not None:
        return None
    return _at_of(task.ladder, task.climbed) or task.due_at


def _climb(task: Task, step: Rung, now: datetime, known: Mapping[str, Task]) -> tuple[Task, tuple[Task, ...]]:
    number = task.climbed
    escalation = Escalation(at=now, why=DEADLINE, owner=step.owner, page=step.page)
    raised: tuple[Task, ...] = ()
    if step.alert is not None:
        alert, raised = _alert(task, number, step.alert, now, known)
        escalation = msgspec.structs.replace(escalation, alert=alert)
    after = _changed(
        task,
        state=TaskState.MISSED,
        missed_at=task.missed_at or step.at,
        snoozed_until=None,
        climbed=number + 1,
        escalate_at=_at_of(task.ladder, number + 1),
        escalations=(*task.escalations, escalation),
    )
    if step.owner is not None:
        after = msgspec.structs.replace(after, assignee=step.owner, owner=step.owner)
    if step.page is not None:
        after = msgspec.structs.replace(after, page=step.page)
    return after, raised


def alerted(task: Task, reason: Escalation, known: Mapping[str, Task] = _NOBODY) -> tuple[Task, tuple[Task, ...]]:
    """The task with a reason (`declined`, `no-show`) for the first alert of its ladder, before its time.

    Also the alert, if none was raised for an earlier reason. known: the chart's tasks by id.
    """
    raised: tuple[Task, ...] = ()
    for number, step in enumerate(task.ladder):
        if step.alert is not None:
            alert, raised = _alert(task, number, step.alert, reason.at, known)
            reason = msgspec.structs.replace(reason, alert=alert)
            break
    return _changed(task, escalations=(*task.escalations, reason)), raised


def without_reason(task: Task, reason: Escalation) -> Task:
    """The task without a reason that was none."""
    return _changed(task, escalations=tuple(one for one in task.escalations if one is not reason))


def _alert(
    task: Task, number: int, alert: Alert, now: datetime, known: Mapping[str, Task]
) -> tuple[str, tuple[Task, ...]]:
    """The id of the task that a rung raises, and that task if it is new.

    One that another reason of the task has raised stands for this reason, too, until a person has answered it: what
    comes later is said anew. One whose reasons were taken back has ended for good.
    """
    named = {one.alert for one in task.escalations}
    for turn in count():
        own = f"{task.id}/alert/{number}/{turn}" if turn else f"{task.id}/alert/{number}"
        alert_id = beginning_like(task.id, blake2b(own.encode(), digest_size=16).hexdigest())
        if alert_id in named and not is_answered(known.get(alert_id)):
            return alert_id, ()
        if alert_id not in known:
            break
    left = alert.due_at - task.ladder[number].at
    raised = Task(
        id=alert_id,
        kind=alert.kind,
        encounter=task.encounter,
        due_at=max(alert.due_at if alert.due_at > now else now, now + min(left, timedelta(hours=_ALERT_HOURS))),
        escalate_at=None,
        state=TaskState.OPEN,
        assignee=alert.assignee,
        reason=alert.reason,
        protocol=task.protocol,
        discharge=task.discharge,
        created_at=now,
        page=alert.page,
        protocol_version=task.protocol_version,
        protocol_digest=task.protocol_digest,
        raised_for=task.id,
    )
    return alert_id, (raised,)


def is_answered(alert: Task | None) -> bool:
    """Whether a person has ended an alert: what it said has been heard."""
    ended = alert is not None and alert.state in {TaskState.DONE, TaskState.CANCELLED}
    return ended and alert is not None and alert.suspended_by is None and alert.ended_by != ENGINE


def alerts_follow(tasks: tuple[Task, ...], *, at: datetime) -> tuple[Task, ...]:
    """Alerts end with what they are about: when that is done or retracted, or no reason of it names them any more.

    They stand again when that is undone in turn. One about a task that a person has cancelled stays, as long as the
    task is called for (`reconcile`).
    """
    if all(task.raised_for is None for task in tasks):
        return tasks
    by_id = {task.id: task for task in tasks}
    return tuple(_following(task, by_id, at) if task.raised_for is not None else task for task in tasks)


def _following(alert: Task, by_id: Mapping[str, Task], at: datetime) -> Task:
    about = by_id.get(alert.raised_for or "")
    if about is None:
        return alert
    named = any(one.alert == alert.id for one in about.escalations)
    moot = not named or about.state in {TaskState.DONE, TaskState.RETRACTED}
    if moot and alert.stands:
        return end(alert, TaskState.RETRACTED, at=at, why=MOOT)
    if about.stands and not moot and alert.state is TaskState.RETRACTED and alert.end_reason == MOOT:
        return _standing(alert)
    return alert


# --- what proves it --------------------------------------------------------------------------------------------------


def proved(task: Task, by: str, *, at: datetime, evidence: str, written: float = 0.0) -> Task:
    """The standing task, done: a message shows it. by: what shows it (`encounter:ADT1:VN-77`, `appointment:...`).

    evidence: the entry and the fields, without any of their values. written: see `Task.proof_written`.
    """
    ended = end(task, TaskState.DONE, at=at, evidence=evidence)
    return msgspec.structs.replace(ended, proved_by=by, proof_written=written)


def unproved(task: Task) -> Task:
    """The task as it was before it was proved done; any other task stays as it is."""
    return task if task.proved_by is None else _standing(task, proved_by=None, proof_written=0.0)
