"""What messages of a scheduling system say of an appointment (HL7 v2.9.1 chapter 10), by a map for each sender.

Senders differ in what their events and codes mean, and in where the id of an appointment is. The field mapping says
where things stand; the map (`mappings/appointments/<name>.yaml`) says what event, status (SCH-25) and reason (SCH-6)
come to. Where event and status contradict each other the event counts, and the pair is noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field

from engine.care.chains import begun, too_early
from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.fields import merge_fields
from engine.domain.appointment import OWN_AUTHORITY, Appointment, AppointmentStatus, Coded, RequestState
from engine.domain.chart import Chart, Charts
from engine.domain.moment import Moment, Precision
from engine.domain.patient import Identifier
from engine.domain.record import Record
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document, did_you_mean
from engine.yamlmodel import StrictModel, validate

STATUS_UNKNOWN: Final = "appointment-status-unknown"
STATUS_CONTRADICTED: Final = "appointment-status-contradicted"
NOSHOW_TOO_EARLY: Final = "appointment-noshow-before-start"
KEPT_TOO_EARLY: Final = "appointment-kept-before-its-day"
END_BEFORE_START: Final = "appointment-ends-before-start"
EVENT_UNKNOWN: Final = "appointment-event-unknown"

RESOURCES: Final = ("service", "location", "clinician")
"""Fields of an appointment that its resources (AIS, AIL, AIP) fill."""

_Code = Annotated[str, Field(min_length=1, max_length=80)]
_Trigger = Annotated[str, Field(pattern=r"^[A-Z][0-9A-Z]{2}$")]


class _Event(StrictModel):
    """What one trigger event says."""

    status: AppointmentStatus | None = None
    """What it says of the appointment; none: what the status code says, or nothing."""
    or_: Annotated[tuple[AppointmentStatus, ...], Field(alias="or")] = ()
    """What the status code may say in its place. Any other contradicts the event: the event counts, and it is noted."""
    resources: Literal["set", "removed"] | None = None
    """It speaks of place, service and clinician alone, and never of the appointment's own status."""
    nobody: bool = False
    """It speaks of slots, and of no patient: counted, and ignored."""


class _Pair(StrictModel):
    """What certain codes mean in certain events."""

    events: tuple[_Trigger, ...] = ()
    """Trigger events; none: in any."""
    status: _Code | None = None
    """Status code (SCH-25); none: whatever it is."""
    reason: _Code | None = None
    """Event reason (SCH-6); none: whatever it is."""
    is_: Annotated[AppointmentStatus, Field(alias="is")]
    """What has become of the appointment."""


class AppointmentsFile(StrictModel):
    """What the messages of one kind of sender say of appointments."""

    source: Annotated[str, Field(min_length=1)]
    """Where the meanings come from."""
    base: Annotated[str, Field(min_length=1)] | None = None
    """Another file of this folder, without a base of its own: what this one does not say is as there."""
    id: Annotated[tuple[Literal["filler", "placer", "schedule", "visit"], ...], Field(min_length=1)] | None = None
    """Where the number of an appointment is, the best first: the filler's (SCH-2), the placer's (SCH-1), that of the
    schedule (SCH-5), that of the visit (PV1-19). What is not named here is never taken for one: some senders have a
    constant there. None: filler, placer, visit."""
    events: dict[_Trigger, _Event] = {}
    """Trigger event (MSH-9.2) -> what it says. One that is not listed is recorded, and noted."""
    statuses: dict[_Code, AppointmentStatus | None] = {}
    """Status code (SCH-25, its code or its text; case, blanks and signs do not matter) -> status; null: known, and says
    nothing of it. A code that is not listed is noted, and says nothing."""
    reasons: dict[_Code, AppointmentStatus | None] = {}
    """Event reason (SCH-6) -> status, of senders that have it there. Other reasons are free text and say nothing."""
    pairs: tuple[_Pair, ...] = ()
    """What counts before all the rest: the first pair that fits."""
    hours_max: Annotated[int, Field(ge=1, le=8784)] | None = None
    """A start and an end that are further apart are no visit but a range in which one is wanted (a waiting list). None:
    168, a week."""


class Told(Record, frozen=True, kw_only=True):
    """What a message says of an appointment's status."""

    trigger: str
    status: AppointmentStatus | None = None
    """None: nothing."""
    by: str = ""
    """Event, and the field that decided: `S14 SCH-25`."""
    resources: Literal["set", "removed"] | None = None
    notes: tuple[str, ...] = ()
    """What is to be noted: `appointment-status-unknown:SCH-25`."""


class AppointmentMap:
    """The map of one kind of sender."""

    def __init__(self, spec: AppointmentsFile, base: AppointmentsFile | None = None) -> None:
        files = (base, spec) if base is not None else (spec,)
        self.id: tuple[str, ...] = next((one.id for one in reversed(files) if one.id), ("filler", "placer", "visit"))
        self._events: dict[str, _Event] = {}
        self._statuses: dict[str, AppointmentStatus | None] = {}
        self._reasons: dict[str, AppointmentStatus | None] = {}
        for one in files:
            self._events |= one.events
            self._statuses |= {_word(code): status for code, status in one.statuses.items()}
            self._reasons |= {_word(code): status for code, status in one.reasons.items()}
        self._pairs = (*spec.pairs, *(base.pairs if base is not None else ()))
        self.longest = timedelta(hours=next((one.hours_max for one in reversed(files) if one.hours_max), 168))

    def knows(self, trigger: str) -> bool:
        return trigger in self._events

    def of_nobody(self, trigger: str) -> bool:
        """It speaks of no patient."""
        return trigger in self._events and self._events[trigger].nobody

    def told(self, trigger: str, status: Coded | None, reason: Coded | None) -> Told:
        """What an event that the map knows says, with its codes (SCH-25, SCH-6) as they were sent."""
        event = self._events[trigger]
        if event.resources is not None:
            return Told(trigger=trigger, by=trigger, resources=event.resources)
        for pair in self._pairs:
            if (not pair.events or trigger in pair.events) and _is(pair.status, status) and _is(pair.reason, reason):
                fields = [name for name, of in (("SCH-25", pair.status), ("SCH-6", pair.reason)) if of is not None]
                return Told(trigger=trigger, status=pair.is_, by=" ".join((trigger, *fields)))
        notes: list[str] = []
        field = "SCH-25"
        said, known = _found(self._statuses, status)
        if not known and _words(status):
            notes.append(f"{STATUS_UNKNOWN}:SCH-25")
        if said is None:
            (said, _), field = _found(self._reasons, reason), "SCH-6"
        if said is not None and (event.status is None or said is event.status or said in event.or_):
            return Told(trigger=trigger, status=said, by=f"{trigger} {field}", notes=tuple(notes))
        if said is not None and field == "SCH-25":
            notes.append(f"{STATUS_CONTRADICTED}:SCH-25")
        return Told(trigger=trigger, status=event.status, by=trigger, notes=tuple(notes))


def load_appointments(documents: Mapping[str, Document], problems: list[Problem]) -> dict[str, AppointmentMap]:
    """The maps by name; those with problems are left out."""
    files: dict[str, AppointmentsFile] = {}
    for name, document in documents.items():
        try:
            files[name] = validate(document, AppointmentsFile)
        except SettingsError as error:
            problems += error.problems
    maps: dict[str, AppointmentMap] = {}
    for name, file in files.items():
        base = files.get(file.base) if file.base is not None else None
        if file.base is not None and (base is None or base.base is not None):
            text = "names no file of this folder that stands by itself"
            problems.append(documents[name].problem(("base",), f"{text}{did_you_mean(file.base, files)}"))
            continue
        if base is None and not file.events:
            problems.append(documents[name].problem((), "says what no event means: it needs events, or a base"))
            continue
        maps[name] = AppointmentMap(file, base)
    return maps


_SIGNS: Final = re.compile(r"[^0-9a-z]+")


def _word(text: str) -> str:
    """`No Show`, `NOSHOW` and `no-show` are one word; a code of signs alone is itself."""
    folded = text.casefold()
    return _SIGNS.sub("", folded) or folded.strip()


def _words(coded: Coded | None) -> list[str]:
    return [_word(text) for text in (coded.code, coded.text) if text] if coded is not None else []


def _is(code: str | None, coded: Coded | None) -> bool:
    return code is None or _word(code) in _words(coded)


def _found(table: Mapping[str, AppointmentStatus | None], coded: Coded | None) -> tuple[AppointmentStatus | None, bool]:
    """The status of a code, else of its text, and whether the table has one of them."""
    for word in _words(coded):
        if word in table:
            return table[word], True
    return None, False


# --- times


def times_of(said: dict[str, Any], longest: timedelta) -> tuple[dict[str, Any], list[str]]:
    """The fields of time that a message says something of, and what is to be noted.

    said: `starts_at`, `ends_at`, `duration` and `duration_unit` as the field mapping has read them; absent is absent,
    None clears. What is longer than `longest`, or less precise than a day, is a range in which a visit is wanted.
    """
    if "starts_at" not in said:
        return {}, []
    start, end = said["starts_at"], said.get("ends_at")
    notes: list[str] = []
    if start is not None and end is not None and end.is_before(start):
        end = None
        notes.append(f"{END_BEFORE_START}:SCH-11")
    if start is not None and end is None:
        end = _after(start, said)
    if start is not None and (start.precision < Precision.DAY or _is_range(start, end, longest)):
        return {"starts_at": None, "ends_at": None, "earliest": start, "latest": end}, notes
    return {"starts_at": start, "ends_at": end, "earliest": None, "latest": None}, notes


_UNIT_SECONDS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "mn": 60, "h": 3600, "hr": 3600, "hour": 3600}
_MINUTES_MAX: Final = 7 * 24 * 60


def _after(start: Moment, said: Mapping[str, Any]) -> Moment | None:
    """The end, where the sender gives a duration (SCH-9, SCH-10; minutes, unless it names another unit)."""
    duration, unit = said.get("duration"), _word(said.get("duration_unit") or "min")
    seconds = _UNIT_SECONDS.get(unit) or _UNIT_SECONDS.get(unit.removesuffix("s")) or _UNIT_SECONDS.get(unit[:3])
    if not duration or seconds is None or not start.timed or start.at is None:
        return None
    if not 0 < duration * seconds <= _MINUTES_MAX * 60:
        return None
    return Moment.of_instant(start.at + timedelta(seconds=duration * seconds))


def _is_range(start: Moment, end: Moment | None, longest: timedelta) -> bool:
    return end is not None and start.at is not None and (end.at is None or end.at - start.at > longest)


# --- the event


class AppointmentEvent(PatientEvent, frozen=True, kw_only=True):
    """A message of a scheduling system in the engine's words."""

    numbers: tuple[Identifier, ...]
    """What it calls the appointment, the best number first. An authority that it does not name is empty."""
    new_id: str
    """The id of the appointment, should nobody have heard of it."""
    told: Told
    fields: dict[str, Any]
    """Field of `Appointment` -> value; None clears the field, a field that is not here is left."""
    removed: dict[str, Any] = {}
    """Of an event that takes resources away: field -> the one that goes."""


def on_its_appointment(
    chart: Chart, _charts: Charts, event: AppointmentEvent, _dispositions: Dispositions, applied: Applied
) -> Chart:
    """The chart with what the event says of its appointment. An event of an unknown one creates it."""
    known = find(chart, event.numbers)
    if (
        known is None
        and chart.closed is not None
        and any(one.value in chart.closed.appointments for one in event.numbers)
    ):
        chart.need_whole()
    written = datetime.fromtimestamp(event.at[0], UTC)
    was = known or Appointment(id=event.new_id, opened_by=event.told.trigger, opened_at=written)
    stamps = chart.appointment_stamps.get(was.id, {})
    values = dict(event.fields)
    for name, gone in event.removed.items():
        if name not in values and gone is not None and getattr(was, name) == gone:
            values[name] = None
    now, stamps, stale = merge_fields(was, values, stamps, event.at)
    if event.told.status is not None:
        said = {
            "said": event.told.status,
            "told_by": event.told.by,
            "said_at": event.event_time and event.event_time.at,
        }
        now, stamps, older = merge_fields(now, said, stamps, event.at)
        if now.request in {RequestState.ASKED, RequestState.SENT} and not older:
            now = msgspec.structs.replace(now, request=RequestState.CONFIRMED)
        stale = stale or older
    if event.told.status is AppointmentStatus.NOSHOW and not begun(now.said_at, now.starts_at):
        applied.deviate(f"{NOSHOW_TOO_EARLY}:SCH-11")
    if event.told.status is AppointmentStatus.KEPT and too_early(now.said_at, now.starts_at):
        applied.deviate(f"{KEPT_TOO_EARLY}:SCH-11")
    if stale:
        applied.deviate("stale-event")
    if now.opened_at is None or (written < now.opened_at and now.request is None):
        now = msgspec.structs.replace(now, opened_by=event.told.trigger, opened_at=written)
    now = _with_numbers(now, event.numbers)
    if now.unheard_at is not None and (now.said, now.starts_at) != (was.said, was.starts_at):
        now = msgspec.structs.replace(now, unheard_at=None)
    others = [one for one in chart.appointments if one.id != now.id]
    every = tuple(sorted((*others, now), key=_place)) if known is None or now != known else chart.appointments
    return msgspec.structs.replace(
        chart, appointments=every, appointment_stamps={**chart.appointment_stamps, now.id: stamps}
    )


def find(chart: Chart, numbers: tuple[Identifier, ...]) -> Appointment | None:
    """The appointment that schedulers call so: by the message's best number, else by the next.

    A number of the filler is none of the placer's, though they be alike: some senders have a constant in one of them.
    An authority that one side does not name is no contradiction.
    """
    for number in numbers:
        for one in chart.appointments:
            if any(_same(number, other) for other in one.numbers):
                return one
    return None


def _same(number: Identifier, other: Identifier) -> bool:
    if number.value != other.value or number.type != other.type:
        return False
    if OWN_AUTHORITY in {number.authority, other.authority}:
        return True  # our own numbers are like no other, whatever namespace they come back with
    return number.authority == other.authority or not number.authority or not other.authority


def _with_numbers(appointment: Appointment, numbers: tuple[Identifier, ...]) -> Appointment:
    """By which numbers it is found from now on: by the best of each message."""
    number = numbers[0]
    if any(_same(number, one) for one in appointment.numbers):
        return appointment
    return msgspec.structs.replace(appointment, numbers=(*appointment.numbers, number))


def _place(appointment: Appointment) -> tuple[bool, float, str]:
    """A chart reads by time; those without one come last."""
    start = appointment.starts_at
    return (start is None, 0.0 if start is None else start.seconds, appointment.id)
