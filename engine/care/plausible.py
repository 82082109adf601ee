"""What of a stay can't be right: a plan that is built on it needs a person.

Times that a message claims and that can't be true don't get into the chart (`care.times`, `care.adt.stay`). Here is
what several messages, each believable, come to together, and a time that stands in for one that was left out.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from engine.care.times import is_before
from engine.domain.chart import Chart
from engine.domain.encounter import DOUBTFUL_END, Encounter, EncounterStatus
from engine.domain.moment import Moment

PRESENT: Final = frozenset({"I", "OBS"})
"""Classes of stays of which a patient has one at a time."""

AHEAD_MAX: Final = timedelta(days=1)
"""Clocks and zones differ by less: a discharge that lies further ahead is an error of the sender."""

_OPEN: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
_END_DOUBTFUL: Final = "the time of discharge that was sent can't be right"
_END_FIRST: Final = "the discharge lies before the admission"
_END_AHEAD: Final = "the discharge lies ahead"
_BORN_LATER: Final = "the birth date lies after the stay"
_TWO_OPEN: Final = "another stay of the patient has not ended: is the patient still in the hospital?"
TWO_ENDS: Final = (
    "another stay of the patient was at the same time, and ended at another time or otherwise: which is right?"
)


def dates_in_doubt(chart: Chart, encounter: Encounter, now: datetime) -> str | None:
    """Why the dates of a stay that has ended can't be right, in words for the care team; none: nothing is known."""
    admitted, discharged = encounter.admitted_at, encounter.discharged_at
    if DOUBTFUL_END in chart.encounter_stamps.get(encounter.key, {}):
        return _END_DOUBTFUL
    if discharged is None:
        return None
    if admitted is not None and is_before(discharged, admitted):
        return _END_FIRST
    if discharged.at is not None and discharged.earliest > (now + AHEAD_MAX).timestamp():
        return _END_AHEAD
    born = chart.patient.birth_date
    return _BORN_LATER if born is not None and not born.is_placeholder and discharged.is_before(born) else None


def open_besides(chart: Chart, encounter: Encounter) -> str | None:
    """Why it is not certain that the patient has left, in words for the care team: an earlier stay goes on.

    A stay whose discharge was lost looks like one that goes on; so it takes no plan away, but somebody must look.
    """
    left = encounter.discharged_at
    for other in chart.encounters:
        if other.status in _OPEN and other.class_ in PRESENT and other.key != encounter.key:
            came = other.admitted_at
            if left is None or came is None or not left.is_before(came):
                return _TWO_OPEN
    return None


def overlap(one: Encounter, other: Encounter) -> bool:
    """Whether two stays in a hospital were surely at one time, though a patient has one at a time.

    One may begin an hour before the other is over: between two wards that register stays of their own nobody keeps
    the minute.
    """
    if one.class_ not in PRESENT or other.class_ not in PRESENT:
        return False
    return _goes_on_after(one, other.admitted_at) and _goes_on_after(other, one.admitted_at)


def _goes_on_after(stay: Encounter, moment: Moment | None) -> bool:
    """Whether a stay was surely not over then. moment: none: nobody knows when."""
    if stay.status in _OPEN:
        return True
    left = stay.discharged_at
    if stay.status is not EncounterStatus.FINISHED or left is None or moment is None:
        return False
    return moment.is_before(left, _HANDOVER_SECONDS)


_HANDOVER_SECONDS: Final = 3600.0


def is_same_stay(one: Encounter, other: Encounter, zone: tzinfo) -> bool:
    """Whether two stays that have ended are one that was registered twice: at the same time, over within a day."""
    first, second = _span(one, zone), _span(other, zone)
    if first is None or second is None or abs(first[1] - second[1]) > _SAME_END_SECONDS:
        return False
    both = min(first[1], second[1]) - max(first[0], second[0])
    return both > 0 and 2 * both > min(first[1] - first[0], second[1] - second[0])


_SAME_END_SECONDS: Final = 24 * 3600.0


def _span(stay: Encounter, zone: tzinfo) -> tuple[float, float] | None:
    begin = stay.admitted_at.at_in(zone) if stay.admitted_at is not None else None
    end = ended_at(stay, zone)
    return None if begin is None or end is None else (begin.timestamp(), end.timestamp())


def is_before_its_day(chart: Chart, visit: Encounter, zone: tzinfo) -> bool:
    """Whether nobody has spoken of a visit since its day began, in the zone: it was registered ahead, and nobody knows
    yet whether the patient has come.

    Its day is that of PV1-44. One that can't be believed, because it lies ahead, is an expected time like PV2-8.
    """
    said = [visit.admitted_at]
    if visit.time_sources.get("admitted_at") != "PV1-44":
        said.append(visit.expected_admission_at)
    days = [at for one in said if one is not None and (at := one.at_in(zone)) is not None]
    stamps = chart.encounter_stamps.get(visit.key, {})
    words = [at[0] for name, at in stamps.items() if name in _FIELDS]
    if not days or not words:
        return False
    last = datetime.fromtimestamp(max(words), UTC) + _CLOCKS
    return last.astimezone(zone).date() < max(day.astimezone(zone).date() for day in days)


_FIELDS: Final = frozenset(Encounter.__struct_fields__)
_CLOCKS: Final = timedelta(minutes=5)
"""Senders' clocks differ by less: just before midnight a visit may be one of the next day."""


def ended_at(encounter: Encounter, zone: tzinfo) -> datetime | None:
    """When a stay was over for certain, in the zone: a mere date counts to its end. None: nobody knows."""
    said = encounter.discharged_at
    begin = said.at_in(zone) if said is not None else None
    if said is None or begin is None or said.timed:
        return begin
    return begin.replace(hour=23, minute=59, second=59)
