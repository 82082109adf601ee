"""What messages of pharmacies do to a chart: prescriptions begin, change, are held, stopped and filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.medications.lists import bounded
from engine.domain.chart import Chart, Charts
from engine.domain.medication import Medication, MedicationState
from engine.domain.outcome import Effect
from engine.domain.quality import QualityKind

MEDICATIONS_MAX: Final = 500
"""Of one patient: of more the latest stay, and the data-quality list says so."""

STATES: Final[Mapping[str, MedicationState]] = {
    **dict.fromkeys(("NW", "OK", "RE", "RF", "XO", "XX", "XR", "RO", "SC", "SN", "SR", "OE", "RL", "OR", "RU"),
                    MedicationState.ACTIVE),
    **dict.fromkeys(("HD", "OH", "HR"), MedicationState.HELD),
    **dict.fromkeys(("CA", "OC", "CR", "DC", "OD", "DR", "RP", "DE"), MedicationState.STOPPED),
}  # fmt: skip
"""ORC-1 (HL7 table 0119) -> what the order is then."""


class MedicationEvent(PatientEvent, frozen=True, kw_only=True):
    """A message of a pharmacy in the engine's words."""

    orders: tuple[Medication, ...] = ()
    fills: tuple[Medication, ...] = ()
    """What was given out: only `filled_at` counts of an order that is known."""


def on_its_prescriptions(
    chart: Chart, _charts: Charts, event: MedicationEvent, _dispositions: Dispositions, applied: Applied
) -> Chart:
    """A rule of `engine.care.patient`."""
    known = {one.id: one for one in chart.medications}
    before = dict(known)
    for one in event.orders:
        was = known.get(one.id)
        known[one.id] = one if was is None else _later(was, one)
    for one in event.fills:
        was = known.get(one.id)
        known[one.id] = one if was is None else _filled(was, one)
    changed = [one for one in known.values() if before.get(one.id) != one]
    for one in changed:
        applied.effects.append(Effect(kind=f"medication-{one.state}", subject=one.id))
    if len(known) > MEDICATIONS_MAX:
        applied.quality(QualityKind.MEDICATIONS_TOO_MANY)
    return (
        msgspec.structs.replace(chart, medications=bounded(tuple(known.values()), MEDICATIONS_MAX))
        if changed
        else chart
    )


def _later(was: Medication, said: Medication) -> Medication:
    """What was said last of an order, and its first time: a change is no new prescription."""
    if said.said_at < was.said_at:
        return msgspec.structs.replace(was, written_at=min(was.written_at, said.written_at))
    return msgspec.structs.replace(
        said, written_at=min(was.written_at, said.written_at), filled_at=was.filled_at,
        outpatient=said.outpatient if said.outpatient is not None else was.outpatient,
    )  # fmt: skip


def _filled(was: Medication, fill: Medication) -> Medication:
    latest = max((one for one in (was.filled_at, fill.filled_at) if one is not None), default=None)
    return msgspec.structs.replace(was, filled_at=latest)
