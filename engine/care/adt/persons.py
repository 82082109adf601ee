"""Patients who have to do with each other, and stay two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from engine.care.adt.event import Link
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.domain.chart import Chart, Charts, Stamp
from engine.domain.outcome import Effect
from engine.domain.patient import Patient
from engine.errors import DATA_TYPE, MessageError

LINKS_MAX: Final = 100
"""Patients whom one has to do with; more are a fault of the sender."""


def apply_links(charts: Charts, links: Iterable[Link], event: PatientEvent) -> Applied:
    """Note on both charts that two patients have to do with each other, or no longer do.

    Never more than that: who is linked is not the same person. Of two messages about the same two the later counts.
    Raises MessageError when one has too many links.
    """
    applied = Applied()
    for link in links:
        one, other = charts.find(link.one), charts.find(link.other)
        if one is None or other is None or one.id == other.id:
            applied.note = "both numbers are one patient's: nobody to link"
            continue
        applied.others += [
            _linked(one, other, event, applied, linked=link.linked),
            _linked(other, one, event, applied, linked=link.linked),
        ]
    return applied


def _linked(chart: Chart, other: Chart, event: PatientEvent, applied: Applied, *, linked: bool) -> Chart:
    if event.at < max(linked_at(chart, identifier.key) for identifier in other.patient.identifiers):
        applied.deviate("stale-event")
        return chart
    known = {identifier.key for identifier in other.patient.identifiers}
    left = tuple(key for key in chart.patient.links if key not in known)
    links = (*left, other.patient.key) if linked else left
    if len(links) > LINKS_MAX:
        raise MessageError(
            "links-too-many",
            f"the patient would be linked with more than {LINKS_MAX} others: something is wrong with that",
            hl7_code=DATA_TYPE,
            location="PID-3",
        )
    patient = chart.patient
    if set(links) != set(patient.links):
        kind = "patient-linked" if linked else "patient-unlinked"
        applied.effects.append(Effect(kind=kind, subject=chart.id, detail=other.id))
        patient = msgspec.structs.replace(patient, links=links)
    return msgspec.structs.replace(
        chart, patient=patient, stamps={**chart.stamps, f"{_LINK}{other.patient.key}": event.at}
    )


_LINK: Final = "link:"
"""Stamp of the patient: when it was last said that another one is linked, or is not."""


def linked_at(chart: Chart, key: str) -> Stamp:
    """When it was last said that the patient of this key is linked, or is not."""
    return chart.stamps.get(f"{_LINK}{key}", NEVER)


def united_links(one: Chart, other: Chart, patient: Patient) -> tuple[str, ...]:
    """The links of a patient that two charts were of: of each of the others, what was said last counts.

    patient: with the numbers of both.
    """
    own = {identifier.key for identifier in patient.identifiers}
    return tuple(
        key
        for key in dict.fromkeys((*one.patient.links, *other.patient.links))
        if key not in own
        and (key in one.patient.links if linked_at(one, key) >= linked_at(other, key) else key in other.patient.links)
    )
