"""What a patient's death does to plans: tasks end, somebody is told, and a death that is in doubt asks a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from engine.care.death import without_doubt
from engine.care.protocol import tells_of_death
from engine.care.tasks import end, reconcile, retract_all
from engine.domain.chart import Chart
from engine.domain.outcome import Effect
from engine.domain.task import Task, TaskState

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel, Planner

DECIDED: Final = "it is decided whether the patient has died"
"""Why the task ends that asks whether the patient has died."""

_ASKED_ONCE: Final = "another task asks the same"
"""Why one of two such tasks ends, when their patients are one."""

DIED: Final = "the patient has died"
ALIVE: Final = "the patient has not died"
TOLD: Final = "another task tells of the death"
"""Why tasks end at a death, and why what told of it ends when it was none, or was told already."""


def is_dead(chart: Chart) -> bool:
    """The patient has died, and nobody doubts it."""
    return chart.patient.deceased is True and not chart.death_stated.in_doubt


def ask_of_death(chart: Chart, channel: CompiledChannel, now: datetime) -> Chart:
    """While it is uncertain whether the patient has died there is one task for a person; then it goes."""
    asked = tuple([task for task in chart.tasks if task.encounter is None]) if chart.tasks else ()
    if not asked and not chart.death_stated.in_doubt:
        return chart
    wanted: tuple[Task, ...] = ()
    if channel.planner is not None:
        wanted = channel.planner.protocol.ask_of_death(chart, calendar=channel.calendar, now=now, key=channel.key)
    tasks = {task.id: task for task in chart.tasks}
    why = _ASKED_ONCE if chart.death_stated.in_doubt else DECIDED
    tasks |= {task.id: task for task in reconcile(asked, wanted, at=now, why=why)}
    return with_tasks(chart, tasks)


def decide_death(
    chart: Chart,
    root: int,
    code: str,
    location: str | None,
    *,
    by: str,
    at: datetime,
    channel: CompiledChannel | None = None,
) -> Chart:
    """A person says of a question on the patient's death that it is not so; the last such word ends the task.

    root: the entry that asked. A patient who is dead by what is certain has no plan and no score any more. channel: by
    whose protocol somebody is told then.
    """
    stated = without_doubt(chart.death_stated, root, code, location)
    if stated == chart.death_stated:
        return chart
    before, chart = chart, msgspec.structs.replace(chart, death_stated=stated)
    if stated.in_doubt:
        return chart
    asked = (task for task in chart.tasks if task.encounter is None and task.stands)
    ended = {task.id: end(task, TaskState.RETRACTED, at=at, by=by, why=DECIDED) for task in asked}
    chart = msgspec.structs.replace(chart, tasks=tuple(ended.get(task.id, task) for task in chart.tasks))
    if chart.patient.deceased is True:
        chart = msgspec.structs.replace(ended_by_death(before, chart, channel, at), scores=())
    return chart


def ended_by_death(before: Chart | None, chart: Chart, channel: CompiledChannel | None, now: datetime) -> Chart:
    """Nothing is left to do for a patient who has died; somebody is told of it, and can say that it is wrong."""
    ended = retract_all(
        (task for task in chart.tasks if not tells_of_death(task)), at=now, why=DIED, state=TaskState.CANCELLED
    )
    known = {task.id: task for task in chart.tasks}
    lost = [task for task in ended if known[task.id] is not task and task.encounter is not None]
    if channel is not None and (before is None or not is_dead(before)):
        lost += _waiting_for_the_end(chart, channel)
    tasks = {task.id: task for task in chart.tasks} | {task.id: task for task in ended}
    told = [task for task in chart.tasks if tells_of_death(task) and task.stands]
    for again in told[1:]:  # two charts, both dead, that are one patient
        tasks[again.id] = end(again, TaskState.RETRACTED, at=now, why=TOLD)
    if lost and channel is not None and not told:
        protocols = {task.protocol for task in lost}
        own = channel.planner is not None and channel.planner.protocol.name in protocols
        planner = channel.planner if own else _first_of(channel.planners, protocols) or channel.planner
        stays = {task.encounter for task in lost}
        stay = next((one for one in reversed(chart.encounters) if one.key in stays), None)
        if planner is not None and stay is not None:
            news = planner.protocol.tell_of_death(
                chart, stay, len(lost), calendar=channel.calendar, now=now, key=channel.key
            )
            tasks |= {task.id: task for task in news}
    return with_tasks(chart, tasks)


def _first_of(planners: Mapping[str, Planner], names: Iterable[str]) -> Planner | None:
    return next((planners[name] for name in sorted(names) if name in planners), None)


def _waiting_for_the_end(chart: Chart, channel: CompiledChannel) -> list[Task]:
    """Tasks that waited for the end of the stay in which the patient has died."""
    alive = channel.dispositions.left_alive
    died_in = {stay.key for stay in chart.encounters if stay.disposition not in alive}
    return [task for task in chart.tasks if task.suspended_by is not None and task.suspended_by in died_in]


def not_told_of_death(chart: Chart, now: datetime) -> Chart:
    """What told of a death that was none is withdrawn."""
    if not any(tells_of_death(task) and task.stands for task in chart.tasks):
        return chart
    told = (task for task in chart.tasks if tells_of_death(task))
    ended = {task.id: task for task in retract_all(told, at=now, why=ALIVE)}
    return msgspec.structs.replace(chart, tasks=tuple(ended.get(task.id, task) for task in chart.tasks))


def with_tasks(chart: Chart, tasks: dict[str, Task]) -> Chart:
    after = tuple(tasks.values())
    return chart if after == chart.tasks else msgspec.structs.replace(chart, tasks=after)


def death_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    was, now = before is not None and before.patient.deceased is True, chart.patient.deceased is True
    if was == now:
        return []
    return [Effect(kind="patient-deceased" if now else "patient-not-deceased", subject=chart.id)]
