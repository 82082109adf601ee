"""What people do: one rule for each act, the same for whoever acts from wherever.

An act is decided on the chart as it is when its turn comes. One that can't be done any more changes nothing: whoever
waits is told why, and it stands in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.care.protocol import TransitionError, end
from engine.domain.act import Act, QuestionDismissed, TaskAssigned, TaskDone, action_of, read
from engine.domain.audit import AuditRecord
from engine.domain.chart import Chart, Charts
from engine.domain.message import Entry, EntryState
from engine.domain.outcome import Dismissal, Effect, EffectKind, Outcome
from engine.domain.task import Task, TaskState
from engine.errors import Fault, HandoffError
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.difference import difference
from engine.pipeline.outcomes import undone
from engine.pipeline.plan import decide_death
from engine.pipeline.prepared import Prepared


class ActRefusedError(HandoffError):
    """What is wanted can't be done on the chart as it is."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def read_act(entry: Entry, _channel: CompiledChannel | None) -> Prepared:
    """Read the payload of an act. Never raises for it: a fault becomes a dead letter."""
    try:
        act = read(entry.payload)
    except ValueError as error:
        return Prepared(entry=entry, outcome=undone(entry, Fault(error="act-unreadable", text=str(error))))
    return Prepared(entry=entry, act=act, charts=frozenset((act.chart_id,)) if act.chart_id else frozenset())


def decide_act(prepared: Prepared, channel: CompiledChannel | None, charts: Charts, _now: datetime) -> Outcome:
    """channel: that of the patient's chart; none: the configuration has it no more, and no destination is told."""
    entry, act = prepared.entry, prepared.act
    assert act is not None  # noqa: S101  # else `read_act` has decided
    at = entry.first_received_at or entry.received_at
    before = charts.living(act.chart_id)
    about = _subjects(act, before)
    outcome = Outcome(
        entry_id=entry.id,
        state=EntryState.PROCESSED,
        chart_id=before.id if before is not None else None,
        patient_key=before.patient.key if before is not None else None,
        channel=channel.settings.name if channel is not None else None,
        config_version=channel.version if channel is not None else "",
        replay_root=entry.replay_root,
    )
    try:
        after = _RULES[type(act)](act, before, at)
    except ActRefusedError as refused:
        effect = Effect(kind=EffectKind.ACT_REFUSED, subject=about[0], detail=refused.code)
        return msgspec.structs.replace(outcome, reason=str(refused), effects=(effect,))
    final, effects, deliveries, kinds = difference(charts, (after,) if after is not None else (), {}, channel)
    silent = channel is None or channel.settings.mode == "shadow"  # a paused one has delivered, and will again
    return msgspec.structs.replace(
        outcome,
        charts=tuple(final),
        deliveries=() if silent else tuple(deliveries),
        effects=(Effect(kind=action_of(act), subject=about[0], detail=""), *effects),
        changed=tuple(kinds),
        dismissals=_dismissals(act),
        audit=tuple(
            AuditRecord(at=at, actor=act.actor, action=action_of(act), subject=subject, reason=act.reason)
            for subject in about
        ),
    )


# --- the rules -------------------------------------------------------------------------------------------------------


def _done(act: TaskDone, chart: Chart | None, at: datetime) -> Chart:
    def done(task: Task) -> Task:
        try:
            return end(task, TaskState.DONE, at=at, by=act.actor)
        except TransitionError:
            raise _not_open(task) from None

    return _with_task(chart, act.task, done)


def _assigned(act: TaskAssigned, chart: Chart | None, _at: datetime) -> Chart:
    def assigned(task: Task) -> Task:
        if task.state is not TaskState.OPEN:
            raise _not_open(task)
        return msgspec.structs.replace(task, assignee=act.assignee)

    return _with_task(chart, act.task, assigned)


def _dismissed(act: QuestionDismissed, chart: Chart | None, at: datetime) -> Chart | None:
    if chart is None:
        return None
    return decide_death(chart, act.root, act.code, act.location, by=act.actor, at=at)


_RULES: Final[Mapping[type[Act], Callable[[Any, Chart | None, datetime], Chart | None]]] = {
    TaskDone: _done,
    TaskAssigned: _assigned,
    QuestionDismissed: _dismissed,
}


def _with_task(chart: Chart | None, task_id: str, change: Callable[[Task], Task]) -> Chart:
    if chart is None or all(task.id != task_id for task in chart.tasks):
        raise ActRefusedError("task-unknown", "there is no such task any more")
    tasks = tuple(change(task) if task.id == task_id else task for task in chart.tasks)
    return msgspec.structs.replace(chart, tasks=tasks)


def _not_open(task: Task) -> ActRefusedError:
    return ActRefusedError("task-not-open", f"the task is not open but {task.state}")


def _subjects(act: Act, chart: Chart | None) -> list[str]:
    """What the act is done to, the first of all, by opaque ids."""
    if isinstance(act, QuestionDismissed):
        return [f"hold:m{act.hold}", *([f"chart:{chart.id}"] if chart is not None else [])]
    return [f"task:{act.task}"]


def _dismissals(act: Act) -> tuple[Dismissal, ...]:
    if isinstance(act, QuestionDismissed):
        return (Dismissal(hold=act.hold, by=act.actor, reason=act.reason or ""),)
    return ()
