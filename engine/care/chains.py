"""What appointments are to each other, and to the visits that are known: it follows from the chart alone.

Some schedulers move a visit under one number (S13). Others, Epic among them, cancel the old one (S15) and book a new
one under another number (S13 of a number that nobody has heard of), in either order of arrival. The two are put
together by what they are and by how near the two messages are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Final

import msgspec

from engine.care.plausible import is_before_its_day
from engine.domain.appointment import AHEAD, Appointment, AppointmentStatus
from engine.domain.chart import Chart, Stamp
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment

MOVED_HOURS_MAX: Final = 24
"""A cancellation and a new number are one move only when they were written so near each other."""
_UNLIKE_SECONDS_MAX: Final = 600
"""So near, where neither says what it is for."""

_SAME_SECONDS: Final = 60
"""Many senders give times to the minute."""
_RESCHEDULED: Final = "S13"
_CAME: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.FINISHED, EncounterStatus.ON_LEAVE})
_NO_VISITS: Final = frozenset({"I", "OBS", "P", "N"})
"""Classes of stays that are no visit to a clinic."""


def settled(chart: Chart, zone: tzinfo) -> tuple[Appointment, ...]:
    """The appointments with what follows for them: kept by a visit that came, and which is the new time of which."""
    found = chart.appointments
    if not found:
        return found
    closed = chart.closed.keys if chart.closed is not None else ()
    came = [
        stay
        for stay in chart.encounters
        if stay.status in _CAME and stay.admitted_at is not None and not is_before_its_day(chart, stay, zone)
    ]
    after = [one if one.kept_by in closed else _as_it_is(one, came) for one in found]
    after = _chained(after, chart.appointment_stamps)
    same = all(one is other or one == other for one, other in zip(after, found, strict=True))
    return found if same else tuple(after)


# --- kept, or missed


def _as_it_is(appointment: Appointment, came: Sequence[Encounter]) -> Appointment:
    """The status that follows from what was said, and from the visits that came.

    A patient who was registered at that clinic on that day has kept a visit that the scheduler still takes to lie
    ahead; when that registration is cancelled, it is again as the scheduler says. Nobody has missed a visit that had
    not begun: it was cancelled. Nor kept one before its day: it lies ahead.
    """
    kept_by, status = None, appointment.said
    if status is AppointmentStatus.KEPT and too_early(appointment.said_at, appointment.starts_at):
        status = AppointmentStatus.BOOKED
    if status in AHEAD:
        kept_by = next((stay.key for stay in came if is_visit_of(stay, appointment)), None)
    if kept_by is not None:
        status = AppointmentStatus.KEPT
    elif status is AppointmentStatus.NOSHOW and not begun(appointment.said_at, appointment.starts_at):
        status = AppointmentStatus.CANCELLED
    if (kept_by, status) == (appointment.kept_by, appointment.status):
        return appointment
    return msgspec.structs.replace(appointment, kept_by=kept_by, status=status)


def begun(said_at: Moment | None, start: Moment | None) -> bool:
    """Whether a visit's time had come when something was said of it; of a mere date, its day."""
    return said_at is not None and start is not None and not said_at.is_before(start)


def too_early(at: Moment | None, start: Moment | None) -> bool:
    """Whether something was before the day of a visit."""
    return at is not None and start is not None and at.is_before(start) and not _on_one_day(start, at)


def is_visit_of(stay: Encounter, appointment: Appointment) -> bool:
    """Whether a visit that came (A04, A10, A01 of a day case) is the one that was booked."""
    start, came = appointment.starts_at, stay.admitted_at
    if stay.status not in _CAME or came is None or too_early(came, start):
        return False
    if is_under_number(stay, appointment):
        return True
    if stay.class_ in _NO_VISITS or start is None or not _on_one_day(start, came):
        return False
    return _same_place(stay, appointment) or (
        appointment.clinician is not None
        and stay.attending is not None
        and stay.attending.is_same(appointment.clinician)
    )


def is_under_number(stay: Encounter, appointment: Appointment) -> bool:
    """Whether the scheduler names the visit: as that of the appointment, or by the appointment's own number."""
    return stay.key == appointment.visit or stay.key in {f"{one.authority}:{one.value}" for one in appointment.numbers}


def _on_one_day(start: Moment, came: Moment) -> bool:
    if start.timed and came.timed and start.at is not None and came.at is not None:
        return came.at.astimezone(start.at.tzinfo).date() == start.at.date()
    return start.same_day(came)


def _same_place(stay: Encounter, appointment: Appointment) -> bool:
    here, there = stay.location, appointment.location
    if here is None or there is None or not here.point_of_care or not there.point_of_care:
        return False
    if here.facility and there.facility and here.facility != there.facility:
        return False
    return here.point_of_care.casefold() == there.point_of_care.casefold()


# --- chains


def _chained(appointments: list[Appointment], stamps: Mapping[str, Mapping[str, Stamp]]) -> list[Appointment]:
    pairs = sorted(_pairs(appointments, stamps))
    new_of: dict[str, str] = {}
    old_of: dict[str, str] = {}
    for _, old, new in pairs:
        if old not in new_of and new not in old_of and old not in _from(new, new_of):
            new_of[old], old_of[new] = new, old
    return [
        one
        if (one.replaced_by, one.replaces) == (new_of.get(one.id), old_of.get(one.id))
        else msgspec.structs.replace(one, replaced_by=new_of.get(one.id), replaces=old_of.get(one.id))
        for one in appointments
    ]


def _opened(appointment: Appointment) -> float:
    return appointment.opened_at.timestamp() if appointment.opened_at is not None else 0.0


def _from(start: str, new_of: Mapping[str, str]) -> set[str]:
    """The appointments that this one has led to."""
    found: set[str] = set()
    while (following := new_of.get(start)) is not None and following not in found:
        found.add(following)
        start = following
    return found


def _pairs(
    appointments: list[Appointment], stamps: Mapping[str, Mapping[str, Stamp]]
) -> Iterator[tuple[tuple[int, float], str, str]]:
    """How good each pair is (less is better), the old one, the new one."""
    moved = [one for one in appointments if one.opened_by == _RESCHEDULED]
    if not moved:
        return
    gone = [one for one in appointments if one.status is AppointmentStatus.CANCELLED]
    for new in moved:
        for old in gone:
            if old.id == new.id or _opened(old) > _opened(new) + _SAME_SECONDS:
                continue
            stamp = stamps.get(old.id, {}).get("said")
            apart = abs(_opened(new) - stamp[0]) if stamp is not None else float("inf")
            likeness = _likeness(old, new)
            near = MOVED_HOURS_MAX * 3600 if likeness != _UNLIKE else _UNLIKE_SECONDS_MAX
            if likeness is not None and apart <= near:
                yield (likeness, apart), old.id, new.id


_UNLIKE: Final = 4


def _likeness(old: Appointment, new: Appointment) -> int | None:
    """0: service and clinician, 1 and 2: one of them, 3: the place alone, 4: nothing is said; none: they are not for
    the same thing.
    """
    service = _agree(_called(old), _called(new))
    clinician = None if old.clinician is None or new.clinician is None else old.clinician.is_same(new.clinician)
    if service and clinician:
        return 0
    if service:
        return 1
    if clinician:
        return None if service is False else 2
    if service is False or clinician is False:
        return None
    place = _agree(_where(old), _where(new))
    return _UNLIKE if place is None else _UNLIKE - 1 if place else None


def _called(appointment: Appointment) -> str | None:
    """What it is: the service, else the type."""
    what = appointment.service or appointment.type
    return (what.code or what.text) if what is not None else None


def _where(appointment: Appointment) -> str | None:
    return appointment.location.point_of_care if appointment.location is not None else None


def _agree(one: str | None, other: str | None) -> bool | None:
    return None if one is None or other is None else one.casefold() == other.casefold()
