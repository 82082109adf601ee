"""What an ADT message comes to on the charts: merges and events, or questions to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from engine.care.adt.event import RENUMBERING, Event, Meaning, Merge
from engine.care.adt.merge import apply_merges, merges_in_doubt
from engine.care.adt.moves import apply_changes
from engine.care.adt.patient import on_its_visit
from engine.care.adt.persons import apply_links
from engine.care.adt.says import OPEN
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.care.forgotten import cleared, forget, is_empty, is_nameless
from engine.care.patient import apply_event, speaks_of_another
from engine.care.person import is_another, is_same, said_of
from engine.domain.chart import Chart, Charts, Stamp, identity
from engine.domain.hold import Hold, HoldCode
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.domain.parts import stamps_of
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.events import asked, decide_events, with_chart, with_newer
from engine.pipeline.identity import changes_as_known, merges_as_known
from engine.pipeline.outcomes import nobody, outcome_of
from engine.pipeline.prepared import Prepared


def decide_adt(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Raises MessageError and MappingError."""
    if prepared.deleted is not None:
        return _delete(prepared, prepared.deleted, channel, charts, now)
    if prepared.held:
        return _hold(prepared, channel, charts)
    events: tuple[PatientEvent, ...] = prepared.events
    if prepared.meaning is Meaning.SWAP:
        return _swap(prepared, channel, charts, now)
    if not (prepared.merges or prepared.changes or prepared.links):
        return decide_events(prepared, channel, charts, now, on_its_visit, events=events)
    applied, holds = Applied(), list[Hold]()
    if prepared.merges:
        merges, events = merges_as_known(prepared.merges, events, charts, channel)
        applied, holds = _merge(charts, merges, events, prepared, channel)
    if prepared.changes:
        changes, events = changes_as_known(prepared.changes, events, charts, channel)
        view = with_newer(charts, applied)
        events = apply_changes(view, changes, events, channel.dispositions, applied)
        holds = [*holds, *asked(applied, prepared.entry, channel)]

    def link(view: Charts) -> Applied:
        return apply_links(view, () if _speak_of_others(view, events) else prepared.links, events[0])

    then = link if prepared.links else None
    return decide_events(
        prepared, channel, charts, now, on_its_visit, events=events, first=applied, holds=holds, then=then
    )


_NO_SWAP: Final = (
    "two patients were to change places, and this can't be told of both: neither was moved; have the event sent again"
    " with both patients, their visits (PV1-19) and places (PV1-3), or put both right by hand, then dismiss it"
)


def _swap(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Both patients change places, or none. Where it is asked of one who they are, the release is for both."""
    events = tuple(one for one in prepared.events if isinstance(one, Event))
    tried = [
        apply_event(charts, with_chart(one, charts, channel, prepared.entry), channel.dispositions, on_its_visit)
        for one in events
    ]
    unclear = _speak_of_others(charts, events)
    if not unclear and _change_places(events, tried):
        return decide_events(prepared, channel, charts, now, on_its_visit)
    holds = [
        Hold(
            code=HoldCode.EVENT_NOT_SUPPORTED,
            location="PID-3" if place == 1 else f"PID[{place}]-3",
            chart_id=one.chart.id,
            patient_key=one.chart.patient.key,
            detail=_NO_SWAP,
        )
        for place, one in enumerate(tried, 1)
        if one.chart is not None and not unclear
    ]
    persons = tuple(msgspec.structs.replace(one, meaning=Meaning.PERSON) for one in events)
    return decide_events(prepared, channel, charts, now, on_its_visit, events=persons, holds=holds)


def _change_places(events: Sequence[Event], tried: Sequence[Applied]) -> bool:
    """Whether each is another patient, in a stay that goes on at the time of the event, with another bed to go to."""
    stays = [stay for event, one in zip(events, tried, strict=True) if (stay := _goes_on(event, one)) is not None]
    beds = [place for one in events if (place := one.encounter.get("location")) is not None and place.bed]
    return len({chart for chart, _ in stays}) == len(events) and len(set(beds)) == len(beds)


def _goes_on(event: Event, tried: Applied) -> tuple[str, str] | None:
    """The chart and the stay of a patient who can change places; none: the patient can't."""
    for chart in (*tried.others, tried.chart):
        stay = chart.encounter(tried.encounter) if chart is not None and tried.encounter is not None else None
        if chart is None or stay is None or event.encounter.get("location") is None:
            continue
        since = chart.encounter_stamps[stay.key].get("status", NEVER)
        return (chart.id, stay.key) if stay.status in OPEN or event.at < since else None
    return None


def _speak_of_others(charts: Charts, events: Iterable[PatientEvent]) -> bool:
    """One of the events speaks of another person than its patient's chart: what is said of two is not said of these."""
    owners = ((charts.find(one.identifiers[0]), one) for one in events)
    return any(chart is not None and speaks_of_another(chart, one) for chart, one in owners)


def _delete(
    prepared: Prepared, event: PatientEvent, channel: CompiledChannel, charts: Charts, now: datetime
) -> Outcome:
    """A person on whom nothing hangs is forgotten but for the numbers; of all others a person is asked.

    Of somebody who is not known it is remembered, for what comes late.
    """
    chart = charts.find(event.identifiers[0])
    if chart is not None and (not is_empty(chart) or speaks_of_another(chart, event)):
        return _hold(prepared, channel, charts)
    return decide_events(prepared, channel, charts, now, forget, events=(cleared(event),))


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
    forwards = forward_deliveries(
        entry, first.id if first is not None else nobody(entry), channel, first, now=entry.received_at
    )
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
    charts: Charts,
    merges: tuple[Merge, ...],
    events: tuple[PatientEvent, ...],
    prepared: Prepared,
    channel: CompiledChannel,
) -> tuple[Applied, list[Hold]]:
    """Apply the merges whose PID does not speak of another person than the chart does; those are held."""
    entry = prepared.entry
    merges, unclear = _sure(charts, merges, events, entry)
    if prepared.meaning in RENUMBERING:
        merges, held = _renumbered(charts, merges, events, prepared)
        unclear += held
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
    return applied, [*unclear, *contradicted, *asked(applied, entry, channel)]


_UNSURE: Final = (
    "a number of MRG-1 has no type and may be no patient's (an SSN, an account), but a patient is known by it;"
    " release it if that patient is merged too, dismiss it if not"
)


def _sure(
    charts: Charts, merges: tuple[Merge, ...], events: tuple[PatientEvent, ...], entry: Entry
) -> tuple[tuple[Merge, ...], list[Hold]]:
    """The pairs whose old number is surely a patient's, or is believed to be; a question for each of the others.

    Nobody is found by the number, or the patient who survives: then there is nothing to ask.
    """
    kept: list[Merge] = []
    holds: list[Hold] = []
    for merge in merges:
        old = charts.find(merge.merged) if merge.unsure else None
        location = f"MRG-1[{merge.place + 1}]"
        if not merge.unsure or any(event.believed(HoldCode.MOVE_UNCLEAR, location) for event in events):
            kept.append(merge)
        elif old is not None and old is not charts.find(merge.survivor) and not entry.settled:
            holds.append(_unclear(old, location, _UNSURE))
    return tuple(kept), holds


def _unclear(chart: Chart, location: str, detail: str) -> Hold:
    return Hold(
        code=HoldCode.MOVE_UNCLEAR,
        location=location,
        subject=chart.id,
        chart_id=chart.id,
        patient_key=chart.patient.key,
        detail=detail,
    )


_TAKEN: Final = (
    "the number that another one becomes is a patient's already, and the event says nothing of a merge; release it if"
    " the two are one patient, dismiss it if not"
)
_IN_PART: Final = (
    "the number that is moved is not the only one of its patient: which of the stays go with it can't be told; move"
    " them by hand where the patient is kept (A44, A45), then dismiss it, or release it if the two are one patient"
)


def _renumbered(
    charts: Charts, merges: tuple[Merge, ...], events: tuple[PatientEvent, ...], prepared: Prepared
) -> tuple[tuple[Merge, ...], list[Hold]]:
    """Of numbers that become others (A43, A46 to A48) those that do not fold one known patient into another.

    A change is no merge: where the new number is another patient's already, or a number is moved away from a patient
    who has others, a person is asked. Not twice: where it is unclear whom PID speaks of, that is asked of the merge,
    and who says that it is the same person has said this too.
    """
    kept: list[Merge] = []
    holds: list[Hold] = []
    named = {identity(one.merged) for one in merges}
    believed = any(event.believed(HoldCode.MOVE_UNCLEAR, "MRG-1") for event in events)
    same = any(event.believed(HoldCode.PERSON_CONTRADICTED, "PID-5") for event in events)
    doubtful = merges_in_doubt(charts, events, merges)
    at = events[0].at
    for merge in merges:
        old, new = charts.find(merge.merged), charts.find(merge.survivor)
        detail = ""
        if old is not None and old is not new:
            others = [one for one in old.patient.identifiers if identity(one) not in named]
            if new is not None and not (same or merge in doubtful or _may_be_one(old, new, at)):
                detail = _TAKEN
            if prepared.meaning is Meaning.MOVE_IDENTIFIERS and any(
                one.authority == merge.merged.authority for one in others
            ):
                detail = _IN_PART
        if old is None or not detail or believed:
            kept.append(merge)
        elif not prepared.entry.settled:
            holds.append(_unclear(old, "MRG-1", detail))
    return tuple(kept), holds


def _may_be_one(old: Chart, new: Chart, at: Stamp) -> bool:
    """Whether nothing is against it that the new number of a patient is on a chart already: nobody is known by one of
    the two, both say the same of the person and only one has stays, or all under the new number was said since.
    """
    for chart in (old, new):
        chart.need_whole()
    if any(is_empty(chart) and is_nameless(chart) for chart in (old, new)):
        return True
    if (is_empty(old) or is_empty(new)) and is_same(old.patient, new.patient):
        return True
    return all(stamp >= at for stamp in stamps_of(new)) and not is_another(old.patient, said_of(new.patient))
