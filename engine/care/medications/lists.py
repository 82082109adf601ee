"""Which prescriptions are on the home list of a stay, and which on its discharge list. Pure.

| prescription | list |
|---|---|
| written before the admission, for out of hospital, not stopped before it | home, as of an earlier discharge |
| written during the stay, ORC-29 `O` (HL7 table 0482) | discharge |
| written after the discharge | discharge |
| written during the stay, ORC-29 `I` or not said | none: a stop in hospital says nothing of home |
| a line that a person has written | the one it was written for |
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from engine.care.plausible import ended_at
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.medication import Medication, MedicationList, MedicationState

AFTER_DISCHARGE: Final = timedelta(days=7)
"""A prescription that is written later belongs to what comes after, and no more to the discharge."""
OLD: Final = timedelta(days=450)
"""A prescription that was written, and last filled, longer before the admission is over: in the US they hold for a
year at most, refills included [K]."""


class Lists(NamedTuple):
    home: tuple[Medication, ...]
    discharge: tuple[Medication, ...]


def stay_of(chart: Chart, key: str | None, zone: tzinfo) -> Encounter | None:
    """The stay whose lists are compared: the one that is named, else the one that was admitted last. Only stays with an
    admission have lists.
    """
    stays = [
        (began, one)
        for one in chart.encounters
        if one.status is not EncounterStatus.CANCELLED and key in {None, one.key} and (began := _began(one, zone))
    ]
    return max(stays, key=lambda one: one[0], default=(None, None))[1]


def lists_of(chart: Chart, stay: Encounter, zone: tzinfo) -> Lists:
    """The two lists of a stay, each in the order in which it was written."""
    began, ended = _began(stay, zone), ended_at(stay, zone)
    if began is None:
        return Lists((), ())
    home: list[Medication] = []
    discharge: list[Medication] = []
    for one in sorted(chart.medications, key=lambda one: (one.written_at, one.id)):
        match _list_of(one, stay.key, began, ended):
            case MedicationList.HOME:
                home.append(one)
            case MedicationList.DISCHARGE:
                discharge.append(one)
    return Lists(tuple(home), tuple(discharge))


def _list_of(one: Medication, stay: str, began: datetime, ended: datetime | None) -> MedicationList | None:
    if one.on is not None:
        return one.on if one.encounter == stay else None
    if one.outpatient is False:
        return None
    if one.written_at < began:
        over = one.state is MedicationState.STOPPED and one.said_at < began
        old = max(one.written_at, one.filled_at or one.written_at) < began - OLD
        return None if over or old else MedicationList.HOME
    if ended is not None and one.written_at > ended + AFTER_DISCHARGE:
        return None
    left = ended is not None and one.written_at >= ended
    return MedicationList.DISCHARGE if one.outpatient or left else None


def _began(stay: Encounter, zone: tzinfo) -> datetime | None:
    return stay.admitted_at.at_in(zone) if stay.admitted_at is not None else None


def bounded(medications: Sequence[Medication], most: int) -> tuple[Medication, ...]:
    """The latest ones, when there are too many: those that a person has written last of all."""
    if len(medications) <= most:
        return tuple(medications)
    kept = sorted(medications, key=lambda one: (one.on is not None, one.written_at, one.id))[-most:]
    ids = {one.id for one in kept}
    return tuple(one for one in medications if one.id in ids)
