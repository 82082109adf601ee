"""What a later visit proves: a protocol says for each kind of task which visits show that it is done.

What is not said is not proved: a visit without a service is no visit to a family doctor.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from engine.care.chains import begun, is_under_number
from engine.care.fields import NEVER
from engine.care.plausible import ended_at, is_before_its_day
from engine.domain.appointment import AppointmentStatus
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment
from engine.domain.task import Task

if TYPE_CHECKING:
    from engine.care.calendar import BusinessCalendar
    from engine.care.visits import Visit

KEPT: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE, EncounterStatus.FINISHED})
"""The patient has come."""

_OWN: Final = "encounter:"


def kept_visit(
    task: Task, visits: tuple[Visit, ...], chart: Chart, *, calendar: BusinessCalendar
) -> tuple[str, str] | None:
    """The visit that shows that a task is done, and the evidence (its entry and fields); none: there is none.

    It came after the discharge that the task belongs to, and is not the stay itself. One that was registered ahead
    shows nothing before its day, and one that the patient has missed shows nothing at all.
    """
    stay = chart.encounter(task.encounter) if task.encounter is not None else None
    since = (ended_at(stay, calendar.zone) if stay is not None else None) or task.created_at
    for encounter in chart.encounters:
        if encounter.key == task.encounter or encounter.status not in KEPT or encounter.admitted_at is None:
            continue
        came = _came(encounter.admitted_at, calendar)
        if came is None or came <= since or not _has_come(encounter, chart, calendar):
            continue
        for visit in visits:
            if visit.is_one(encounter, chart) and (visit.within is None or came <= visit.within.after(since, calendar)):
                return _OWN + encounter.key, _evidence(encounter, visit, chart)
    return None


def _came(admitted: Moment, calendar: BusinessCalendar) -> datetime | None:
    """A visit on a mere date came when that day began: so one on the day of the discharge proves nothing."""
    return admitted.at_in(calendar.zone)


def _has_come(visit: Encounter, chart: Chart, calendar: BusinessCalendar) -> bool:
    """And nobody has said since that the patient did not."""
    if visit.status not in KEPT or is_before_its_day(chart, visit, calendar.zone):
        return False
    arrived = chart.encounter_stamps.get(visit.key, {}).get("status", NEVER)
    return all(
        chart.appointment_stamps.get(one.id, {}).get("said", NEVER) < arrived
        for one in chart.appointments
        if one.said is AppointmentStatus.NOSHOW and is_under_number(visit, one) and begun(one.said_at, one.starts_at)
    )


def _evidence(encounter: Encounter, visit: Visit, chart: Chart) -> str:
    """`entry 42: PV1-2, PV1-10, PV1-44`."""
    stamps = chart.encounter_stamps.get(encounter.key, {})
    fields = visit.fields
    entries = [stamps[name][1] for name in (*fields, "admitted_at", "status") if name in stamps]
    said = [*fields.values(), encounter.time_sources.get("admitted_at", "PV1-44")]
    return f"{f'entry {max(entries)}: ' if entries else ''}{', '.join(said)}"


def still_shown(task: Task, visits: tuple[Visit, ...] | None, chart: Chart, calendar: BusinessCalendar | None) -> bool:
    """Whether the visit that has proved a task still does. visits, calendar: none when nobody knows the protocol any
    more.
    """
    proof = task.proved_by or ""
    if not proof.startswith(_OWN):
        return True  # by something else, which sees to it
    key = proof.removeprefix(_OWN)
    encounter = chart.encounter(key)
    if encounter is None:
        return chart.closed is not None and key in chart.closed.keys
    if visits is None or calendar is None:
        return encounter.status in KEPT
    return _has_come(encounter, chart, calendar) and any(visit.is_one(encounter, chart) for visit in visits)
