"""What the events of a message come to on the charts: who it is, the rule of the code, scores, plans, deliveries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from engine.care.event import Applied, PatientEvent
from engine.care.patient import Rule, apply_event
from engine.domain.chart import Chart, Charts, as_it_happened
from engine.domain.hold import QUESTIONS, Hold
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.difference import difference, together
from engine.pipeline.follow import follow
from engine.pipeline.identity import check_namesakes, new_chart_id
from engine.pipeline.inputs import with_inputs
from engine.pipeline.outcomes import outcome_of, received
from engine.pipeline.plan import replan, rescore
from engine.pipeline.prepared import Prepared
from engine.pipeline.rule import Deciding
from engine.pipeline.unsaid import nobody_is_asked


def decide_events(
    prepared: Prepared,
    channel: CompiledChannel,
    charts: Charts,
    now: datetime,
    rule: Rule[Any],
    *,
    events: Sequence[PatientEvent] | None = None,
    first: Applied | None = None,
    holds: Sequence[Hold] = (),
    then: Callable[[Charts], Applied] | None = None,
) -> Outcome:
    """The outcome of a message that speaks of patients. Raises MessageError and MappingError.

    rule: what messages of this code do to a chart beyond what they say of the person. events: those of `prepared` as
    they are to be applied; none: as they are. first: what the message has brought before them (a merge, a move of a
    stay); holds: what that asks. then: what it brings after them, on the charts as they are then.
    """
    entry = prepared.entry
    view = charts
    changed: dict[str, Chart] = {}
    folded: Mapping[str, list[Chart]] = {}
    asked_for = [*holds]
    heard = last = first
    subjects: dict[str, str | None] = {}
    moved = dict(first.moved) if first is not None else {}
    if first is not None:
        changed = _changed(first)
        view = _overlay(charts, changed.values())
        folded = _folded(changed)
        subjects = dict.fromkeys(moved)
    events = prepared.events if events is None else events
    for event in events:
        last = apply_event(view, with_chart(event, view, channel, entry), channel.dispositions, rule)
        if heard is None:  # as a rule there is one event, and what came of it is all
            heard = last
        else:
            heard.take_in(last)
        asked_for.extend(asked(last, entry, channel))
        moved = last.moved | moved
        if last.chart is None:  # pragma: no cover - apply_event always gives a chart
            continue
        for chart in (*last.others, last.chart):
            changed[chart.id] = chart
            subjects[chart.id] = last.encounter
        if len(events) > 1:
            view = _overlay(view, [*last.others, last.chart])
    heard = heard or Applied()
    if then is not None:
        brought = then(_overlay(view, changed.values()))
        heard.take_in(brought)
        changed |= _changed(brought)
    heard.unasked = nobody_is_asked(prepared, charts)
    if entry.test:
        changed = {key: msgspec.structs.replace(chart, test=True) for key, chart in changed.items()}
    deciding = Deciding(received(entry), now, entry, channel, heard)
    for chart_id, subject in subjects.items():
        before = together(charts, chart_id, folded)
        told = heard if subject is not None or chart_id not in moved else Applied()
        chart = _follow_up(before, changed[chart_id], subject, channel, now, told)
        if told is not heard:  # why it has no plan or score: the message does not speak of a stay of this patient
            told.whys = ()
            heard.take_in(told)
        changed[chart_id] = follow(before, chart, deciding)
    final, result, deliveries, kinds, fallen, anew = difference(charts, changed.values(), folded, channel, now, moved)
    heard.effects.extend(result)
    spoken_of = changed.get(last.chart.id) if last is not None and last.chart is not None else None
    if spoken_of is not None and (
        forwards := forward_deliveries(entry, spoken_of.id, channel, spoken_of, last.encounter if last else None, now)
    ):
        deliveries.extend(forwards)
        kinds["message"] = None
    return outcome_of(
        entry,
        channel,
        reason=heard.note,
        chart=spoken_of,
        encounter_key=last.encounter if last is not None else None,
        charts=final,
        deliveries=deliveries,
        effects=heard.effects,
        holds=asked_for,
        fallen=fallen,
        marked_anew=anew,
        facts=heard.facts,
        why=heard.whys,
        changed=kinds,
        deviations=(*prepared.deviations, *heard.deviations),
        quality=heard.faults,
        charset=prepared.charset,
    )


E = TypeVar("E", bound=PatientEvent)


def with_chart(event: E, charts: Charts, channel: CompiledChannel, entry: Entry) -> E:
    """The event with the id of the chart that a new patient gets. Raises MessageError when it can't get one."""
    key = event.identifiers[0]
    if charts.find(key) is not None:
        return event
    check_namesakes(key, charts, channel)
    return msgspec.structs.replace(event, chart_id=new_chart_id(entry, key, channel))


def asked(applied: Applied, entry: Entry, channel: CompiledChannel) -> list[Hold]:
    """What the rules left to a person, with the patient it is about."""
    if not applied.holds:
        return []
    chart = applied.chart
    holds = [
        _waiting(one, entry, channel) if QUESTIONS[one.code].waits else one
        for one in applied.holds
        if not (entry.settled and QUESTIONS[one.code].of_its_time)
    ]
    if chart is None or not holds:
        return holds
    return [
        msgspec.structs.replace(one, chart_id=chart.id, patient_key=chart.patient.key)
        if one.patient_key is None
        else one
        for one in holds
    ]


def _changed(applied: Applied) -> dict[str, Chart]:
    return {chart.id: chart for chart in (*applied.others, applied.chart) if chart is not None}


def with_newer(charts: Charts, applied: Applied) -> Charts:
    """The charts with the versions that a part of the message has brought."""
    return _overlay(charts, _changed(applied).values())


def _waiting(hold: Hold, entry: Entry, channel: CompiledChannel) -> Hold:
    patience = timedelta(minutes=channel.settings.order.cancel_waits_minutes_max)
    return msgspec.structs.replace(hold, waits_until=entry.received_at + patience)


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
    before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime, heard: Applied
) -> Chart:
    """Scores and tasks; skipped when nothing but the time of the last word has changed.

    What was withheld, and why there are new ones or none, goes to `heard`.
    """
    if (
        before is not None
        and before.patient == chart.patient
        and before.encounters == chart.encounters
        and before.death_stated.doubts == chart.death_stated.doubts
    ):
        return chart
    chart = _ordered_encounters(chart)
    chart, scored = rescore(before, chart, subject, channel, now)
    chart, withheld, planned = replan(before, chart, subject, channel, now, heard)
    heard.why(*[with_inputs(why, chart, subject) for why in planned], *scored)
    if withheld:
        heard.effects.extend(withheld)
        heard.note = heard.note or withheld[0].detail
    return chart


def _ordered_encounters(chart: Chart) -> Chart:
    """A chart reads as it happened."""
    if len(chart.encounters) < 2:
        return chart
    encounters = as_it_happened(chart.encounters)
    return chart if encounters == chart.encounters else msgspec.structs.replace(chart, encounters=encounters)


def _overlay(charts: Charts, changed: Iterable[Chart]) -> Charts:
    """The charts with newer versions on top, the original left as it is."""
    view = charts.copy()
    for chart in changed:
        view.add(chart)
    return view
