"""What an ADT message comes to on the charts: merges and events, or questions to a person."""

from __future__ import annotations

from datetime import datetime

import msgspec

from engine.care.adt.event import Merge
from engine.care.adt.merge import apply_merges, merges_in_doubt
from engine.care.adt.patient import on_its_visit
from engine.care.event import Applied, PatientEvent
from engine.domain.chart import Charts
from engine.domain.hold import Hold, HoldCode
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.events import asked, decide_events
from engine.pipeline.identity import merges_as_known
from engine.pipeline.outcomes import nobody, outcome_of
from engine.pipeline.prepared import Prepared


def decide_adt(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Raises MessageError and MappingError."""
    if prepared.held:
        return _hold(prepared, channel, charts)
    if not prepared.merges:
        return decide_events(prepared, channel, charts, now, on_its_visit)
    merges, events = merges_as_known(prepared.merges, prepared.events, charts, channel)
    merged, holds = _merge(charts, merges, events, prepared.entry, channel)
    return decide_events(prepared, channel, charts, now, on_its_visit, events=events, merged=merged, holds=holds)


def _hold(prepared: Prepared, channel: CompiledChannel, charts: Charts) -> Outcome:
    """The outcome of an event that is for a person to see to."""
    entry = prepared.entry
    owners = [charts.find(key) if key is not None else None for key in prepared.named]
    held = tuple(
        msgspec.structs.replace(
            hold,
            chart_id=owner.id if owner is not None else None,
            patient_key=owner.patient.key if owner is not None else key.key if key is not None else None,
        )
        for hold, key, owner in zip(prepared.held, prepared.named, owners, strict=True)
    )
    first = owners[0]
    forwards = forward_deliveries(entry, first.id if first is not None else nobody(entry), channel)
    return outcome_of(
        entry,
        channel,
        chart=first,
        patient_key=held[0].patient_key,
        deliveries=forwards,
        holds=held,
        changed=("message",) if forwards else (),
        deviations=prepared.deviations,
        charset=prepared.charset,
    )


def _merge(
    charts: Charts, merges: tuple[Merge, ...], events: tuple[PatientEvent, ...], entry: Entry, channel: CompiledChannel
) -> tuple[Applied, list[Hold]]:
    """Apply the merges whose PID does not speak of another person than the chart does; those are held."""
    doubtful = merges_in_doubt(charts, events, merges)
    certain = tuple(one for one in merges if one not in doubtful)
    applied = apply_merges(charts, certain, channel.dispositions, entry.replay_root or entry.id)
    contradicted = [
        Hold(
            code=HoldCode.PERSON_CONTRADICTED,
            location="PID-5",
            subject=chart.id,
            chart_id=chart.id,
            patient_key=chart.patient.key,
            detail=detail,
        )
        for chart, detail in doubtful.values()
    ]
    return applied, [*contradicted, *asked(applied, entry, channel)]
