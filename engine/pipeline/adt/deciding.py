"""What an ADT message comes to on the charts: merges, events, scores, plans, deliveries, questions to a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from engine.care.adt.event import Applied, Event, Merge
from engine.care.adt.merge import apply_merges, merges_in_doubt
from engine.care.adt.patient import apply_event
from engine.domain.chart import Chart, Charts, as_it_happened
from engine.domain.hold import QUESTIONS, Fact, Hold, HoldCode
from engine.domain.message import Entry
from engine.domain.outcome import Effect, Outcome
from engine.domain.why import Why
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.difference import difference, together
from engine.pipeline.identity import check_namesakes, merges_as_known
from engine.pipeline.outcomes import nobody, outcome_of
from engine.pipeline.plan import CLASS_UNKNOWN, replan, rescore
from engine.pipeline.prepared import Prepared


def decide_adt(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Raises MessageError and MappingError."""
    if prepared.held:
        return _hold(prepared, channel, charts)
    entry = prepared.entry
    view = charts
    merges, events = prepared.merges, prepared.events
    last = Applied()
    holds: list[Hold] = []
    changed: dict[str, Chart] = {}
    if merges:
        merges, events = merges_as_known(merges, events, charts, channel)
        last, holds = _merge(charts, merges, events, entry, channel)
        changed = {chart.id: chart for chart in [*last.others, *([last.chart] if last.chart else [])]}
        view = _overlay(charts, changed.values())
    folded = _folded(changed)
    effects = list(last.effects)
    deviations = [*prepared.deviations, *last.deviations]
    facts: list[Fact] = []
    note = last.note
    subjects: dict[str, str | None] = {}
    whys: list[Why] = []
    for event in events:
        check_namesakes(event.identifiers[0], view, channel)
        last = apply_event(view, event, channel.dispositions)
        effects.extend(last.effects)
        deviations.extend(last.deviations)
        facts.extend(last.facts)
        holds.extend(_asked(last, entry))
        note = note or last.note
        if last.chart is None:  # pragma: no cover - apply_event always gives a chart
            continue
        changed[last.chart.id] = last.chart
        subjects[last.chart.id] = last.encounter
        if len(events) > 1:
            view = _overlay(view, [last.chart])
    for chart_id, subject in subjects.items():
        before = together(charts, chart_id, folded)
        changed[chart_id], withheld, found = _follow_up(before, changed[chart_id], subject, channel, now)
        whys.extend(found if not whys else [why for why in found if why not in whys])
        if withheld:
            effects.extend(withheld)
            if any(effect.kind == CLASS_UNKNOWN for effect in withheld):
                deviations.append(f"{CLASS_UNKNOWN}:PV1-2")
            note = note or withheld[0].detail
    final, result, deliveries, kinds = difference(charts, changed.values(), folded, channel)
    effects.extend(result)
    spoken_of = changed.get(last.chart.id) if last.chart is not None else None
    if spoken_of is not None and (forwards := forward_deliveries(entry, spoken_of.id, channel)):
        deliveries.extend(forwards)
        kinds["message"] = None
    return outcome_of(
        entry,
        channel,
        reason=note,
        chart=spoken_of,
        encounter_key=last.encounter,
        charts=tuple(final),
        deliveries=deliveries,
        effects=effects,
        holds=holds,
        facts=tuple(facts),
        why=whys,
        changed=tuple(kinds),
        deviations=deviations,
        charset=prepared.charset,
    )


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
    charts: Charts, merges: tuple[Merge, ...], events: tuple[Event, ...], entry: Entry, channel: CompiledChannel
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
    return applied, [*contradicted, *_asked(applied, entry)]


def _asked(applied: Applied, entry: Entry) -> list[Hold]:
    """What the rules left to a person, with the patient it is about."""
    if not applied.holds:
        return []
    chart = applied.chart
    holds = [one for one in applied.holds if not (entry.settled and QUESTIONS[one.code].of_its_time)]
    if chart is None or not holds:
        return holds
    return [msgspec.structs.replace(one, chart_id=chart.id, patient_key=chart.patient.key) for one in holds]


def _folded(changed: Mapping[str, Chart]) -> dict[str, list[Chart]]:
    """The charts that a merge has folded away, by the id of the chart that each ended in, chains followed."""
    folded: dict[str, list[Chart]] = {}
    for chart in changed.values():
        survivor = chart
        while survivor.merged_into is not None:
            survivor = changed[survivor.merged_into]
        if survivor is not chart:
            folded.setdefault(survivor.id, []).append(chart)
    return folded


def _follow_up(
    before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime
) -> tuple[Chart, list[Effect], list[Why]]:
    """Scores and tasks; skipped when nothing but the time of the last word has changed.

    Also what was withheld, and why there are new ones or none.
    """
    if (
        before is not None
        and before.patient == chart.patient
        and before.encounters == chart.encounters
        and before.death_stated.doubts == chart.death_stated.doubts
    ):
        return chart, [], []
    chart = _ordered_encounters(chart)
    chart, scored = rescore(before, chart, subject, channel, now)
    chart, withheld, planned = replan(before, chart, subject, channel, now)
    return chart, withheld, planned + scored


def _ordered_encounters(chart: Chart) -> Chart:
    """A chart reads as it happened."""
    encounters = tuple(sorted(chart.encounters, key=as_it_happened))
    return chart if encounters == chart.encounters else msgspec.structs.replace(chart, encounters=encounters)


def _overlay(charts: Charts, changed: Iterable[Chart]) -> Charts:
    """The charts with newer versions on top, the original left as it is."""
    view = charts.copy()
    for chart in changed:
        view.add(chart)
    return view
