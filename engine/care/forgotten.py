"""Persons who are to be forgotten (A29): one on whom nothing hangs is, but for the numbers.

The chart remembers when that was said, so that what comes late of the person does not bring them back. What hangs on
somebody after all (a stay, an appointment that is heard of only then) shows that they are one: then the deletion does
not count, and a person is asked.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.care.event import Applied, PatientEvent
from engine.domain.chart import NOTHING_RENAMED, Chart, Charts, Stamp
from engine.domain.hold import HoldCode
from engine.domain.parts import PARTS
from engine.domain.patient import Patient

DELETED: Final = "deleted"
"""Stamp of the patient: when it was said that they are to be deleted."""

_KEPT: Final = frozenset({"identifiers", "merged_from", "links", "deceased", "deceased_at"})

_IS_SOMEBODY: Final = (
    "the person was deleted (A29) later than what this message tells of them: they stay, with their stay or"
    " appointment; see whether the deletion was right, then dismiss it"
)


def is_empty(chart: Chart) -> bool:
    """Nothing hangs on the person: no stay, score or task, nobody else's number, no link, no word of a death."""
    patient = chart.patient
    return (
        chart.closed is None
        and not any(part.of(chart) for part in PARTS)
        and not (patient.merged_from or patient.links or patient.deceased or chart.death_stated.in_doubt)
        and chart.renamed == NOTHING_RENAMED
    )


def is_nameless(chart: Chart) -> bool:
    """Nothing is known of the person but numbers."""
    return all(getattr(chart.patient, name) in (None, ()) for name in Patient.__struct_fields__ if name not in _KEPT)


def cleared(event: PatientEvent) -> PatientEvent:
    """The event as one that clears all that is known of the person but the numbers."""
    fields = {name: None for name in Patient.__struct_fields__ if name not in _KEPT}
    return msgspec.structs.replace(event, patient=fields)


def forget(chart: Chart, charts: Charts, event: PatientEvent, _dispositions: Any, applied: Applied) -> Chart:
    """The chart of somebody on whom nothing hangs, with the time of the deletion (a `care.patient.Rule`)."""
    if charts.find(event.identifiers[0]) is None:
        applied.note = "nobody is known by the number: that it was deleted is remembered, for what comes late"
    at = max(event.at, chart.stamps.get(DELETED, event.at))
    return msgspec.structs.replace(chart, stamps={**chart.stamps, DELETED: at})


def remembered(chart: Chart) -> Chart:
    """The chart without the deletion: what is said of the person counts again, be it older."""
    deleted = chart.stamps.get(DELETED)
    if deleted is None:
        return chart
    return msgspec.structs.replace(chart, stamps={name: at for name, at in chart.stamps.items() if at != deleted})


def is_somebody(chart: Chart, at: Stamp, applied: Applied) -> bool:
    """Whether something hangs on a person who was deleted: what the message has brought is older than the deletion."""
    deleted = chart.stamps.get(DELETED)
    if deleted is None or is_empty(chart):
        return False
    if at < deleted:
        applied.hold(HoldCode.EVENT_NOT_SUPPORTED, location="PID-3", subject=chart.id, detail=_IS_SOMEBODY)
    return True
