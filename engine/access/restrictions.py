"""Marks that a record came with, and what of it they restrict: PD1-12, PV1-16, ARV, CON, and 42 CFR Part 2 by where a
stay was. What a mark means says the file of roles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus

if TYPE_CHECKING:
    from engine.access.roles import Marks, Restriction

ANY: Final = "*"
_SAYS_NO: Final = frozenset({"N", "NO", "0", "F", "FALSE"})
"""Codes of PV1-16 (a table of each site) that say that the person is none."""


def restricted(chart: Chart, known: Iterable[Restriction]) -> list[tuple[Restriction, frozenset[str]]]:
    """The restrictions that hold for a chart, each with the keys of the stays that are marked by it.

    One that covers the patient holds as soon as anything is marked that is not cancelled; a stay is covered also when
    it was cancelled.
    """
    found: list[tuple[Restriction, frozenset[str]]] = []
    for one in known:
        marked = [stay for stay in chart.encounters if _marks_stay(stay, one.when)]
        if one.covers == "stay":
            holds = bool(marked)
        else:
            real = (stay.status is not EncounterStatus.CANCELLED for stay in marked)
            holds = any(real) or _marks_patient(chart, one.when)
        if holds:
            found.append((one, frozenset(stay.key for stay in marked)))
    return found


def _marks_patient(chart: Chart, marks: Marks) -> bool:
    patient = chart.patient
    if marks.protection and patient.protection:
        return True
    if any(one.code in marks.access for one in patient.restrictions):
        return True
    return any(
        said.status in mark.status and (not mark.type or said.code in mark.type)
        for said in patient.consent_statements
        for mark in marks.consent
    )


def _marks_stay(stay: Encounter, marks: Marks) -> bool:
    places = [place for place in (stay.location, stay.prior_location, stay.temporary_location) if place is not None]
    return (
        _is_vip(stay.vip, marks.vip)
        or stay.hospital_service in marks.services
        or stay.sending_facility in marks.facilities
        or any(place.facility in marks.facilities or place.point_of_care in marks.units for place in places)
    )


def _is_vip(code: str | None, codes: tuple[str, ...]) -> bool:
    if code is None or code.upper() in _SAYS_NO:
        return code is not None and code in codes
    return ANY in codes or code in codes
