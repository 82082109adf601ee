"""Requests for appointments, where a scheduling system can be asked: they follow their tasks.

A task that stands, of a kind for which the protocol says what to ask for, and for which nothing is booked, has one
request: an appointment of ours that is `requested`, under a number of ours. The answer, or a message of the scheduling
system with that number, makes it one of theirs. It is withdrawn when the task is taken back: unsent it never goes out,
sent it is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.care.appointed import Wanted
from engine.domain.appointment import (
    AHEAD,
    OWN_AUTHORITY,
    OWN_PREFIX,
    Appointment,
    AppointmentStatus,
    Coded,
    RequestState,
)
from engine.domain.cause import Cause, RequestSettled
from engine.domain.chart import Chart
from engine.domain.delivery import AppointmentRequest, AppointmentRequestEnd, Ground, Operation
from engine.domain.moment import Moment
from engine.domain.patient import Identifier
from engine.domain.shapes import AppointmentShape, PatientShape, TaskShape
from engine.domain.task import Escalation, Task, TaskState
from engine.mapping.times import read_time
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.grounds import Planned
from engine.pipeline.rule import Deciding, Rule

WITHDRAWN: Final = "withdrawn"
"""`Appointment.told_by` of one that we do not want any more."""
REQUEST_REFUSED: Final = "request-refused"
"""Word of `Escalation.why`."""
_REQUESTED: Final = "SRM"
"""`Appointment.opened_by` and `told_by` of a request."""
_NUMBER_CHARS: Final = 16

_WITH_THEM: Final = frozenset({RequestState.SENT, RequestState.CONFIRMED})
_BEHIND: Final = frozenset({RequestState.DROPPED, RequestState.WITHDRAWN})


def follow_requests(_before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`, after that of appointments."""
    chart = _without_unwanted(chart)
    channel = deciding.channel
    if channel is None or "request" not in channel.settings.takers or chart.patient.deceased is True:
        return chart
    made: dict[str, Appointment] = {}
    for task in chart.tasks:
        wanted = _wanted(task, chart, channel)
        if wanted is not None:
            made[task.id] = _request(task, chart, channel, wanted, deciding.now)
    if not made:
        return chart
    linked = tuple(
        msgspec.structs.replace(task, appointment=made[task.id].id) if task.id in made else task for task in chart.tasks
    )
    return msgspec.structs.replace(chart, appointments=(*chart.appointments, *made.values()), tasks=linked)


def _wanted(task: Task, chart: Chart, channel: CompiledChannel) -> Wanted | None:
    """What a task asks a scheduling system for; none: nothing, or it has asked before, or something is booked."""
    planner = channel.planners.get(task.protocol)
    if planner is None or not task.stands or task.appointment is not None or task.raised_for is not None:
        return None
    if any(one.requested_for == task.id and one.request not in _BEHIND for one in chart.appointments):
        return None
    return planner.protocol.appointed.wanted(task.kind)


def _request(task: Task, chart: Chart, channel: CompiledChannel, wanted: Wanted, now: datetime) -> Appointment:
    number = 1 + sum(one.requested_for == task.id for one in chart.appointments)
    id_ = channel.key("request", task.id, str(number))
    return Appointment(
        id=id_,
        numbers=(
            Identifier(value=f"{OWN_PREFIX}{id_[:_NUMBER_CHARS].upper()}", authority=OWN_AUTHORITY, type="placer"),
        ),
        status=AppointmentStatus.REQUESTED,
        said=AppointmentStatus.REQUESTED,
        earliest=Moment.of_instant(now),
        latest=Moment.of_instant(task.due_at) if task.due_at > now else None,
        service=Coded(code=wanted.service, text=wanted.text or planner_text(task, channel)),
        clinician=chart.patient.pcp if wanted.clinician == "pcp" else None,
        opened_by=_REQUESTED,
        opened_at=now,
        told_by=_REQUESTED,
        task=task.id,
        request=RequestState.ASKED,
        requested_for=task.id,
    )


def planner_text(task: Task, channel: CompiledChannel) -> str | None:
    """What a kind of task is, for people."""
    planner = channel.planners.get(task.protocol)
    return planner.protocol.kinds.get(task.kind) or None if planner is not None else None


def _without_unwanted(chart: Chart) -> Chart:
    """Requests of tasks that were taken back are not wanted any more, nor are open ones of tasks that are done."""
    if all(one.request is None for one in chart.appointments):
        return chart
    by_id = {task.id: task for task in chart.tasks}
    after = tuple(
        one if one.request is None or _is_wanted(one, by_id, chart) else _given_up(one) for one in chart.appointments
    )
    same = all(one is other for one, other in zip(after, chart.appointments, strict=True))
    return chart if same else msgspec.structs.replace(chart, appointments=after)


def _is_wanted(appointment: Appointment, by_id: Mapping[str, Task], chart: Chart) -> bool:
    if appointment.request in _BEHIND or appointment.said not in AHEAD:
        return True  # nothing is left to give up
    task = by_id.get(appointment.requested_for or "")
    if task is None:
        return chart.closed is not None
    if task.stands:
        return True
    if task.state is TaskState.DONE or task.suspended_by is not None:
        return appointment.said is not AppointmentStatus.REQUESTED
    return False


def _given_up(appointment: Appointment) -> Appointment:
    state = RequestState.WITHDRAWN if appointment.request in _WITH_THEM else RequestState.DROPPED
    gone = AppointmentStatus.CANCELLED
    return msgspec.structs.replace(appointment, request=state, said=gone, status=gone, told_by=WITHDRAWN)


# --- what goes out


def plan_requests(before: Chart | None, chart: Chart, channel: CompiledChannel, _now: datetime) -> Iterator[Planned]:
    """A planner of `engine.pipeline.notices`: new requests, and those that are withdrawn."""
    if not chart.appointments or (before is not None and before.appointments is chart.appointments):
        return
    was = {one.id: one.request for one in before.appointments} if before is not None else {}
    changed = [one for one in chart.appointments if one.request is not None and was.get(one.id) is not one.request]
    if not changed:
        return
    key = chart.patient.key
    patient = msgspec.convert(chart.patient, PatientShape, from_attributes=True)
    for one in changed:
        shape = AppointmentShape.of(one, key)
        task = next((task for task in chart.tasks if task.id == one.requested_for), None)
        if one.request is RequestState.ASKED and task is not None:
            planner = channel.planners.get(task.protocol)
            wanted = planner.protocol.appointed.wanted(task.kind) if planner is not None else None
            yield Planned(
                Operation.REQUEST_APPOINTMENT,
                AppointmentRequest(
                    id=one.id,
                    ground=Ground(kind="request", key=one.id),
                    patient=patient,
                    appointment=shape,
                    task=TaskShape.of(task, key),
                    minutes=wanted.minutes if wanted is not None else None,
                ),
            )
        elif one.request is RequestState.WITHDRAWN:
            said = AppointmentRequestEnd(id=one.id, patient=patient, appointment=shape)
            yield Planned(Operation.CANCEL_APPOINTMENT, said)


# --- what was answered


def _settled(reply: RequestSettled, chart: Chart | None, deciding: Deciding) -> Chart | None:
    found = None if chart is None else next((one for one in chart.appointments if one.id == reply.appointment), None)
    if chart is None or found is None:
        return chart
    after = _answered(found, reply, deciding)
    if after is found:
        return chart
    if after.request is RequestState.REFUSED:
        return refused(chart, found, after.told_by or REQUEST_REFUSED, deciding.now)
    appointments = tuple(after if one is found else one for one in chart.appointments)
    return msgspec.structs.replace(chart, appointments=appointments)


def refused(chart: Chart, found: Appointment, why: str, now: datetime) -> Chart:
    """The chart after a request that was not taken: its task is people's again, and says so."""
    after = _refused(found, why)
    said = Escalation(at=now, why=REQUEST_REFUSED)
    return msgspec.structs.replace(
        chart,
        appointments=tuple(after if one is found else one for one in chart.appointments),
        tasks=tuple(
            msgspec.structs.replace(task, undo=None, snoozed_until=None, escalations=(*task.escalations, said))
            if task.id == after.requested_for and task.stands
            else task
            for task in chart.tasks
        ),
    )


def _refused(one: Appointment, why: str) -> Appointment:
    gone = AppointmentStatus.CANCELLED
    return msgspec.structs.replace(one, request=RequestState.REFUSED, said=gone, status=gone, told_by=why)


def _answered(one: Appointment, reply: RequestSettled, deciding: Deciding) -> Appointment:
    if one.request is RequestState.DROPPED:
        # It had gone out before anybody could stop it: the scheduling system is told (`plan_requests`).
        taken = reply.result == RequestSettled.TAKEN
        return msgspec.structs.replace(one, request=RequestState.WITHDRAWN) if taken else one
    if one.request is not RequestState.ASKED:
        return one
    if reply.result == RequestSettled.REFUSED:
        return _refused(one, reply.detail or REQUEST_REFUSED)
    if reply.result != RequestSettled.TAKEN:
        return one
    if reply.filler is None:
        return msgspec.structs.replace(one, request=RequestState.SENT)
    return msgspec.structs.replace(one, request=RequestState.CONFIRMED, **_booked(one, reply, deciding))


def _booked(one: Appointment, reply: RequestSettled, deciding: Deciding) -> dict[str, Any]:
    """What the answer (SRR) says of the appointment."""
    filler = Identifier(value=reply.filler or "", authority=reply.filler_authority or "", type="filler")
    said: dict[str, Any] = {"numbers": (*one.numbers, filler), "told_by": "SRR"}
    channel = deciding.channel
    start = read_time(reply.starts_at, channel.zone) if reply.starts_at and channel is not None else None
    if isinstance(start, Moment):
        said |= {"starts_at": start, "earliest": None, "latest": None}
    rules = channel.appointments if channel is not None else None
    code = Coded(code=reply.status) if reply.status else None
    told = rules.told("S12", code, None).status if rules is not None and rules.knows("S12") else None
    status = told if reply.status or isinstance(start, Moment) else None
    return said | {"said": status or AppointmentStatus.REQUESTED, "status": status or AppointmentStatus.REQUESTED}


def _of_appointment(reply: RequestSettled, _chart: Chart | None) -> list[str]:
    return [f"appointment:{reply.appointment}"]


REQUEST_RULES: Final[Mapping[type[Cause], Rule]] = {
    RequestSettled: Rule(_settled, _of_appointment, audited=False, needs_channel=True)
}
"""Part of `engine.pipeline.receipts.RECEIPT_RULES`."""
