"""What follows from the appointments of a chart for its tasks, what happens when their day has passed, and effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

import msgspec

from engine.care import tasks
from engine.care.chains import settled
from engine.care.plausible import ended_at
from engine.domain.appointment import AHEAD, Appointment, AppointmentStatus
from engine.domain.chart import Chart
from engine.domain.moment import Moment
from engine.domain.outcome import Effect
from engine.domain.task import Escalation, Task, TaskState
from engine.pipeline.rule import Deciding
from engine.pipeline.tasks import with_raised

if TYPE_CHECKING:
    from engine.care.appointed import Appointed

NO_SHOW: Final = "no-show"
NO_WORD: Final = "no-word"
"""Words of `Escalation.why`."""

_PROVED: Final = "appointment:"
_DAY: Final = timedelta(days=1)
_WESTERNMOST: Final = timezone(timedelta(hours=-12))
"""A mere date has ended everywhere when it has ended here."""


def follow_appointments(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`: chains, and the tasks that appointments are for."""
    if not chart.appointments:
        return chart
    appointments = settled(chart, deciding.channel.calendar.zone if deciding.channel is not None else UTC)
    if appointments is not chart.appointments:
        chart = msgspec.structs.replace(chart, appointments=appointments)
    return _with_tasks(before, chart, deciding) if deciding.channel is not None else chart


# --- tasks


def _with_tasks(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    after: list[Task] = []
    raised: list[Task] = []
    serves: dict[str, str] = {}
    was = before.appointments if before is not None else ()
    missed_before = {one.id for one in was if one.status is AppointmentStatus.NOSHOW}
    for task in chart.tasks:
        appointed = _appointed(task, deciding)
        if appointed is not None:
            fitting = [one for one in chart.appointments if _fits(one, task, chart, appointed)]
            task, alerts = _followed(task, fitting, missed_before, chart, deciding)  # noqa: PLW2901
            raised += alerts
        if task.appointment is not None and (task.stands or task.state is TaskState.DONE):
            serves.setdefault(task.appointment, task.id)
        after.append(task)
    if any(one is not other for one, other in zip(after, chart.tasks, strict=True)):
        chart = msgspec.structs.replace(chart, tasks=tuple(after))
    appointments = tuple(
        one if one.task == serves.get(one.id) else msgspec.structs.replace(one, task=serves.get(one.id))
        for one in chart.appointments
    )
    if appointments != chart.appointments:
        chart = msgspec.structs.replace(chart, appointments=appointments)
    return with_raised(chart, raised)


def _appointed(task: Task, deciding: Deciding) -> Appointed | None:
    """What its protocol says of the visits that a task waits for; none: nothing."""
    channel = deciding.channel
    planner = channel.planner_of(task) if channel is not None else None
    if planner is None or task.kind not in planner.protocol.appointed or task.raised_for is not None:
        return None
    return planner.protocol.appointed


def _fits(appointment: Appointment, task: Task, chart: Chart, appointed: Appointed) -> bool:
    """It is the follow-up that the task is about, and after the discharge."""
    if appointment.requested_for == task.id:
        return True
    if not any(_is_for(one, task.kind, chart, appointed) for one in _and_before(appointment, chart)):
        return False
    start = appointment.starts_at
    if start is None:
        return appointment.said is AppointmentStatus.REQUESTED
    stay = chart.encounter(task.encounter) if task.encounter is not None else None
    since = stay.discharged_at if stay is not None and stay.discharged_at is not None else None
    return not start.is_before(since if since is not None else Moment.of_instant(task.created_at))


def _is_surely_after(appointment: Appointment, task: Task, chart: Chart, deciding: Deciding) -> bool:
    """Whether it began after the discharge was over for certain: on the same day, where one of the two is a mere date,
    nobody can tell, and it proves nothing.
    """
    start, channel = appointment.starts_at, deciding.channel
    if appointment.requested_for == task.id or start is None or channel is None:
        return True
    stay = chart.encounter(task.encounter) if task.encounter is not None else None
    ended = ended_at(stay, channel.calendar.zone) if stay is not None else None
    began = start.at_in(channel.calendar.zone)
    return began is None or began > (ended or task.created_at)


def _and_before(appointment: Appointment, chart: Chart) -> Iterator[Appointment]:
    """The appointment, and those that it is the new time of: what they are for is the same."""
    by_id = {one.id: one for one in chart.appointments}
    one: Appointment | None = appointment
    while one is not None:
        yield one
        one = by_id.pop(one.replaces, None) if one.replaces is not None else None


def _is_for(appointment: Appointment, kind: str, chart: Chart, appointed: Appointed) -> bool:
    what = (appointment.service, appointment.type)
    texts = [text for one in what if one is not None for text in (one.code, one.text)]
    if appointment.location is not None:
        texts += [appointment.location.point_of_care, appointment.location.facility]
    return appointed.fits(kind, chart.patient, clinician=appointment.clinician, texts=texts)


def _followed(
    task: Task, fitting: Sequence[Appointment], missed_before: set[str], chart: Chart, deciding: Deciding
) -> tuple[Task, tuple[Task, ...]]:
    """The task after what its appointments say, and the alerts that this raises."""
    over = [one for one in fitting if _is_surely_after(one, task, chart, deciding)]
    missed = [one.id for one in over if one.status is AppointmentStatus.NOSHOW]
    task = _still_missed(task, missed, chart)
    if task.proved_by is not None and task.proved_by.startswith(_PROVED):
        shown = task.proved_by.removeprefix(_PROVED)
        if any(one.id == shown and one.status is AppointmentStatus.KEPT for one in over):
            return task, ()
        if all(one.id != shown for one in chart.appointments):
            return task, ()  # it is closed, and stays as it was
        task = tasks.unproved(task)  # what it was done by was taken back
    if not task.stands:
        return task, ()
    kept = min((one for one in over if one.status is AppointmentStatus.KEPT), key=_order, default=None)
    if kept is not None:
        evidence = _evidence(kept, chart)
        task = tasks.proved(task, f"{_PROVED}{kept.id}", at=deciding.now, evidence=evidence)
        return msgspec.structs.replace(task, appointment=kept.id), ()
    ahead = [one for one in fitting if one.status in AHEAD]
    booked = [one for one in ahead if one.status is not AppointmentStatus.REQUESTED] or ahead
    chosen = next((one for one in booked if one.id == task.appointment), None)
    chosen = chosen or min(booked, key=_order, default=None)
    raised: tuple[Task, ...] = ()
    said = [one for one in task.escalations if one.why == NO_SHOW]
    new = [one for one in missed if all(one != other.appointment for other in said)]
    known = {one.id: one for one in chart.tasks}
    if said and tasks.is_answered(known.get(said[-1].alert or "")):
        new = [one for one in new if one not in missed_before]  # what was missed before the answer is answered
    elif said:
        new = []
    if new:  # said once, until a person has answered that
        reason = Escalation(at=deciding.now, why=NO_SHOW, appointment=new[0])
        task, raised = tasks.alerted(task, reason, known)
    linked = chosen.id if chosen is not None else None
    return (task if task.appointment == linked else msgspec.structs.replace(task, appointment=linked)), raised


def _still_missed(task: Task, missed: Sequence[str], chart: Chart) -> Task:
    """The task without missed visits that turned out to be none: moved, kept, cancelled or entered in error."""
    gone = {one.id for one in chart.appointments}.difference(missed)  # one that is closed stays as it was
    named = {one.appointment for one in task.escalations if one.why == NO_SHOW}
    others = iter([one for one in missed if one not in named])
    for said in task.escalations:
        if said.why != NO_SHOW or said.appointment not in gone:
            continue
        if (other := next(others, None)) is None:
            task = tasks.without_reason(task, said)
        else:
            now = msgspec.structs.replace(said, appointment=other)
            escalations = tuple(now if one is said else one for one in task.escalations)
            task = msgspec.structs.replace(task, escalations=escalations)
    return task


def _order(appointment: Appointment) -> tuple[bool, float, str]:
    """The next one first; those without a time last."""
    start = appointment.starts_at
    return (start is None, 0.0 if start is None else start.seconds, appointment.id)


def _evidence(appointment: Appointment, chart: Chart) -> str:
    """The entry and the fields that say it, without any value of them."""
    if appointment.kept_by is not None:
        stay = chart.encounter_stamps.get(appointment.kept_by, {}).get("status")
        return f"visit registered (entry {stay[1]}, PV1)" if stay is not None else "visit registered (PV1)"
    stamp = chart.appointment_stamps.get(appointment.id, {}).get("said")
    entry = f"entry {stamp[1]}, " if stamp is not None else ""
    return f"appointment kept ({entry}{appointment.told_by})"


# --- the day has passed


def deadlines(chart: Chart) -> Iterator[datetime]:
    """A source of `engine.pipeline.due`: when the day of an appointment has passed that a task waits for."""
    for _, ends in _waited_for(chart):
        yield ends


def ring(chart: Chart, deciding: Deciding) -> Chart:
    """Nobody has said whether the visit was kept: the task says so, and is woken."""
    unheard = {one.id for one, ends in _waited_for(chart) if ends <= deciding.now}
    if not unheard:
        return chart
    appointments = tuple(
        msgspec.structs.replace(one, unheard_at=deciding.now) if one.id in unheard else one
        for one in chart.appointments
    )
    after = tuple(
        msgspec.structs.replace(
            task,
            snoozed_until=None,
            undo=None,
            escalations=(*task.escalations, Escalation(at=deciding.now, why=NO_WORD)),
        )
        if task.stands and task.appointment in unheard
        else task
        for task in chart.tasks
    )
    return msgspec.structs.replace(chart, appointments=appointments, tasks=after)


def _waited_for(chart: Chart) -> Iterator[tuple[Appointment, datetime]]:
    """The appointments that a task waits for, and when the day of each has passed."""
    if not chart.appointments:
        return
    waited = {task.appointment for task in chart.tasks if task.stands}
    for one in chart.appointments:
        if one.id in waited and (ends := _passes_at(one)) is not None:
            yield one, ends


def _passes_at(appointment: Appointment) -> datetime | None:
    """When its day has ended, where it was; none: it has no time, is over, or that was noted."""
    start = appointment.starts_at
    if appointment.status not in AHEAD or appointment.unheard_at is not None:
        return None
    if start is None or start.at is None:
        return None
    at = start.at if start.timed else start.at.replace(tzinfo=_WESTERNMOST)
    return at.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


# --- effects


def appointment_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    """An effect for each appointment that has another status or another time."""
    if not chart.appointments or (before is not None and before.appointments is chart.appointments):
        return []
    old = {one.id: one for one in before.appointments} if before is not None else {}
    effects = []
    for one in chart.appointments:
        was = old.get(one.id)
        if was is None or was.status is not one.status:
            effects.append(Effect(kind=f"appointment-{one.status}", subject=one.id, detail=one.told_by or ""))
        elif was.starts_at != one.starts_at:
            effects.append(Effect(kind="appointment-moved", subject=one.id))
        if one.unheard_at is not None and (was is None or was.unheard_at is None):
            effects.append(Effect(kind="appointment-unheard", subject=one.id))
    return effects
