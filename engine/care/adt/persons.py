"""Patients who have to do with each other, and persons who are to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from engine.care.adt.event import Link
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.domain.chart import Chart, Charts, Renamed
from engine.domain.outcome import Effect
from engine.domain.parts import PARTS
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
    stamp = f"{_LINK}{other.patient.key}"
    if event.at < chart.stamps.get(stamp, NEVER):
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
    return msgspec.structs.replace(chart, patient=patient, stamps={**chart.stamps, stamp: event.at})


_LINK: Final = "link:"
"""Stamp of the patient: when it was last said that another one is linked, or is not."""

# --- deletions


def is_empty(chart: Chart) -> bool:
    """Nothing hangs on the person: no stay, score or task, nobody else's number, no link, no word of a death."""
    patient = chart.patient
    return (
        chart.closed is None
        and not any(part.of(chart) for part in PARTS)
        and not (patient.merged_from or patient.links or patient.deceased or chart.death_stated.in_doubt)
        and chart.renamed == Renamed()
    )


def cleared(event: PatientEvent) -> PatientEvent:
    """The event as one that clears all that is known of the person but the numbers."""
    kept = {"identifiers", "merged_from", "links", "deceased", "deceased_at"}
    fields = {name: None for name in Patient.__struct_fields__ if name not in kept}
    return msgspec.structs.replace(event, patient=fields)
