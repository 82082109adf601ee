"""What an event does to the encounter that it speaks of: its fields, its times, its status."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from engine.care.adt.event import Event, Meaning
from engine.care.adt.moves import goes_on
from engine.care.adt.numbers import MERGED, NUMBERED, began_before, read_as_renamed, with_admission
from engine.care.adt.places import place_after
from engine.care.adt.says import ARRIVAL, CLASS_CHANGE, DISCHARGE, ENDED, NOT_THE_CLASS, OPEN, SAYS, STATUS, When
from engine.care.adt.status import Stamps, Verdict, status_after
from engine.care.adt.visit import find_encounter, of_another_patient
from engine.care.dispositions import Dispositions, normalise
from engine.care.event import Applied, implausible
from engine.care.fields import NEVER, merge_fields
from engine.care.plausible import PRESENT, overlap
from engine.care.times import RECEIPT, Claims, is_before
from engine.domain.chart import Chart, Charts, Stamp
from engine.domain.encounter import DOUBTFUL_END, Encounter, EncounterStatus, Location
from engine.domain.hold import Fact, HoldCode
from engine.domain.moment import Moment, to_micros
from engine.domain.outcome import Effect
from engine.domain.quality import QualityKind

_ARRIVED: Final = ARRIVAL | {Meaning.DISCHARGE}
"""Events that say of a patient who was expected that the stay has begun."""

CLASS_CONTRADICTED: Final = "class-contradicts-event"
"""Deviation: PV1-2 of a class change says the class that the event takes away."""

CANCELS_NOTHING: Final = "cancels-nothing"
"""Deviation of a cancel of something that is no status, and was not known."""

_NO_VISITS: Final = PRESENT | {"P"}
"""Classes of stays in the hospital, and of those that are only announced."""

_TIMES: Final = ("admitted_at", "discharged_at")

_BACK_DATED_SECONDS: Final = 7 * 86_400.0
"""A discharge that was cancelled, and is said again, is often dated back over a weekend."""
_CLOCK_SECONDS: Final = 86_400.0

_WITHOUT_BED: Final = frozenset({None, "E", "O", "P", "R"})
"""Classes that an admission ends: A01 is the admission of an inpatient, also when the sender leaves PV1-2 empty."""


def apply_visit(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied) -> Chart:
    """The chart with what the event says of a visit. What a person should know of it goes to `applied`.

    Raises MessageError when the visit is another patient's, or when more than one could be meant.
    """
    if event.meaning in CLASS_CHANGE:
        chart, event = goes_on(chart, charts, event, applied)
    else:
        event = read_as_renamed(chart, event)
    found = find_encounter(chart, charts, event)
    if found is not None and found[1] is None and found[0] in chart.renamed.departed:
        raise of_another_patient()
    if found is None:
        applied.note = "no visit number, and no single encounter that it could mean"
        asserted = STATUS[event.meaning]
        if asserted is not None:
            applied.hold(HoldCode.ENCOUNTER_UNKNOWN, location="PV1-19", asserts=event.assertion(asserted))
        return chart
    key, known = found
    stamps = chart.encounter_stamps.get(key, {})
    if known is None and event.meaning in CLASS_CHANGE:
        stamps = {NUMBERED: event.at}
    before = _numbered(known or Encounter(key=key, account=event.account), event)
    doubtful = _implausible(known, event, chart.patient.birth_date)
    values = _expected(before, event, doubtful, _without(event.encounter, doubtful))
    applied.deviations.extend(implausible(doubtful.values()))
    as_sent = event
    event, early = _after_admission(before, event, values, stamps)
    if "PV1-45" in early:
        applied.quality(QualityKind.DISCHARGE_BEFORE_ADMISSION)
    elif "discharged_at" in values and _went_on_after(before, as_sent, values["discharged_at"], stamps):
        early = [*early, "PV1-45"]
    applied.deviations.extend(implausible(early))
    if "PV1-45" in early:
        values = _without(values, ("discharged_at",))
    place = place_after(before, event, values, stamps)
    values = _settled(before, event, values if place is None else place.values, applied)
    if _cancels_nothing(before, event, values):
        applied.deviate(CANCELS_NOTHING)
        applied.note = "nothing of the kind is known of the stay: nothing to cancel"
    verdict = status_after(before, event, values, stamps, dispositions, created=known is None)
    _tell(verdict, applied)
    values = _without(values, [name for name in _TIMES if _is_vaguer(values.get(name), getattr(before, name))])
    encounter, stamps, stale = _with_values(before, event, values, verdict)
    if place is not None:
        encounter, stamps = place.put(encounter, stamps)
    stamps = _with_doubt(encounter, as_sent, stamps, doubtful=doubtful, early=early, decides=verdict.as_of is not None)
    if stale:
        applied.deviate("stale-event")
    _note_what_came(chart, before, encounter, event, verdict, applied, created=known is None)
    applied.encounter = key
    if known is None:
        encounters = (*chart.encounters, encounter)
    else:  # in its place, so that a stay of which nothing has changed leaves the chart as it was
        encounters = tuple([encounter if e.key == key else e for e in chart.encounters])
    return msgspec.structs.replace(
        chart,
        encounters=encounters,
        encounter_stamps={**chart.encounter_stamps, key: stamps},
    )


def _note_what_came(
    chart: Chart,
    before: Encounter,
    encounter: Encounter,
    event: Event,
    verdict: Verdict,
    applied: Applied,
    *,
    created: bool,
) -> None:
    """Facts that answer what other messages have left open, effects, and a second stay beside this one."""
    key = encounter.key
    changed = created or before.status is not encounter.status
    if verdict.as_of is not None:
        applied.facts.append(
            Fact(
                chart_id=chart.id,
                encounter=key,
                asserts=event.assertion(encounter.status),
                changed=changed,
                surely_after=event.surely_after,
            )
        )
    elif verdict.undone is not None:
        said = msgspec.structs.replace(event.assertion(verdict.undone), clock=verdict.undone_clock)
        applied.facts.append(Fact(chart_id=chart.id, encounter=key, asserts=said, undone=True))
    ends = event.meaning is Meaning.DISCHARGE and verdict.as_of is not None
    if (
        ends
        and encounter.status is EncounterStatus.FINISHED
        and not encounter.disposition
        and encounter.class_ in PRESENT
    ):
        applied.quality(QualityKind.DISPOSITION_MISSING, "PV1-36")
    begins = encounter.status in OPEN and before.status not in OPEN
    if (begins or (encounter.status in ENDED and before.status not in OPEN | ENDED)) and _is_elsewhere(
        chart, encounter
    ):
        applied.quality(QualityKind.STAYS_OVERLAP)
    if created:
        applied.effects.append(Effect(kind="encounter-created", subject=key, detail=encounter.status))
    elif changed:
        applied.effects.append(Effect(kind=f"encounter-{encounter.status}", subject=key))


def _is_elsewhere(chart: Chart, stay: Encounter) -> bool:
    """The patient has another stay at the same time."""
    if stay.class_ not in PRESENT:
        return False
    begin = stay.admitted_at.at if stay.admitted_at is not None else None
    if chart.closed is not None and begin is not None and chart.closed.was_over_after(to_micros(begin)):
        chart.need_whole()
    return any(overlap(stay, one) for one in chart.encounters if one.key != stay.key)


def _tell(verdict: Verdict, applied: Applied) -> None:
    applied.holds.extend(verdict.holds)
    applied.effects.extend(verdict.effects)
    for deviation in verdict.deviations:
        applied.deviate(deviation)
    applied.note = verdict.note or applied.note


# --- what counts of the event


def _numbered(encounter: Encounter, event: Event) -> Encounter:
    """The encounter with its visit number, and who gave it, once a message has said so."""
    number = encounter.visit_number if encounter.visit_number is not None else event.visit_number
    authority = encounter.visit_authority if encounter.visit_authority is not None else event.visit_authority
    if number == encounter.visit_number and authority == encounter.visit_authority:
        return encounter
    return msgspec.structs.replace(encounter, visit_number=number, visit_authority=authority)


def _implausible(known: Encounter | None, event: Event, born: Moment | None) -> dict[str, str]:
    """Times of the stay that can't be true, and their HL7 fields: the event's own time stands in, where it is one."""
    claims = event.claims
    if claims is None:
        return {}
    planned = event.meaning is Meaning.PRE_ADMIT or (
        known is not None and known.status is EncounterStatus.PLANNED and event.meaning not in _ARRIVED
    )
    found: dict[str, str] = {}
    for name, location in (("admitted_at", "PV1-44"), ("discharged_at", "PV1-45")):
        time: Moment | None = event.encounter.get(name)
        if time is None or (planned and name == "admitted_at"):
            continue
        if not claims.plausible(time) or (
            born is not None and is_before(time, born) and not is_before(claims.received_at, born)
        ):
            found[name] = location  # a birth date to come is wrong, and no measure of other times
    return found


def _expected(
    before: Encounter, event: Event, doubtful: Collection[str], values: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The values of a visit that is registered ahead: an admission (PV1-44) that lies ahead is when it is expected."""
    said, claims = event.encounter.get("admitted_at"), event.claims
    if "admitted_at" not in doubtful or said is None or claims is None or said.is_placeholder:
        return values
    if said.earliest <= claims.latest or event.meaning is Meaning.CANCEL_PRE_ADMIT:
        return values
    if event.encounter.get("class_", before.class_) in _NO_VISITS:
        return values
    return values if values.get("expected_admission_at") else {**values, "expected_admission_at": said}


def _after_admission(
    before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps
) -> tuple[Event, list[str]]:
    """The event without times before the admission of its stay, and the HL7 fields of these.

    A discharge is not before the admission: that which the message names, else that which is known. An admission that
    lies ahead is a plan, or came from a wrong clock: no discharge is measured by it. What the same sender sent before
    that admission stays so: it may be the end of an earlier stay under the number.
    """
    claims = event.claims
    begin: Moment | None = values.get("admitted_at") or before.admitted_at
    if claims is None or begin is None:
        return event, []
    early = claims.before(begin) if event.meaning is Meaning.DISCHARGE else []
    ended: Moment | None = values.get("discharged_at")
    ended_early = ["PV1-45"] if ended is not None and is_before(ended, begin) else []
    if not (early or ended_early) or not claims.plausible(begin):
        return event, []
    if not early:
        return event, ended_early
    later = event.without_times(claims, early)
    sent, sender = stamps.get("status_sent", NEVER)
    if event.sender and event.sender == sender and event.sent < sent:
        later = msgspec.structs.replace(later, sent=event.sent)
    return later, [*ended_early, *early]


def _went_on_after(before: Encounter, event: Event, ended: Moment | None, stamps: Stamps) -> bool:
    """A discharge claims a time that the stay was seen to go on after, by more than the back-dating of an end explains.

    Taken at its word it would be too old for a plan, and nobody would look.
    """
    seen = stamps.get("status", NEVER)
    if event.meaning is not Meaning.DISCHARGE or ended is None or before.status not in OPEN:
        return False
    return seen != NEVER and ended.seconds + _BACK_DATED_SECONDS < seen[0]


def _with_doubt(
    after: Encounter,
    event: Event,
    stamps: dict[str, Stamp],
    *,
    doubtful: Collection[str],
    early: Collection[str],
    decides: bool,
) -> dict[str, Stamp]:
    """The stamps with `DOUBTFUL_END` while the end of the stay stands in for one that can't be true.

    A time that lies ahead by a day at most is one of a wrong clock, and the next best one is as good.
    """
    claims, ended = event.claims, event.encounter.get("discharged_at")
    known = DOUBTFUL_END in stamps
    if after.status is not EncounterStatus.FINISHED:
        doubt = False
    elif ended is None or claims is None:
        doubt = known and not decides
    else:
        ahead = "discharged_at" in doubtful and ended.earliest > claims.latest
        wrong = "PV1-45" in early or ("discharged_at" in doubtful and not (ahead and _is_clock(ended, claims)))
        doubt = wrong if event.meaning is Meaning.DISCHARGE and decides else known and wrong
    if doubt == known:
        return stamps
    if doubt:
        return {**stamps, DOUBTFUL_END: event.at}
    return {name: stamp for name, stamp in stamps.items() if name != DOUBTFUL_END}


def _is_clock(time: Moment, claims: Claims) -> bool:
    return time.earliest <= claims.received + _CLOCK_SECONDS


def _without(values: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if name not in names} if names else values


def _settled(before: Encounter, event: Event, said: Mapping[str, Any], applied: Applied) -> dict[str, Any]:
    """What the event says of the stay, in the words of the engine."""
    values = dict(said)
    says = SAYS[event.meaning]
    if values.get("disposition"):
        values["disposition"] = normalise(values["disposition"])
    if event.meaning is Meaning.ADMIT and "class_" not in values and before.class_ in _WITHOUT_BED:
        values["class_"] = "I"
    if says.class_ is not None:
        if "class_" in values and values["class_"] in NOT_THE_CLASS[says.class_]:
            applied.deviate(CLASS_CONTRADICTED)
            del values["class_"]
        values.setdefault("class_", says.class_)
    if event.account and before.account is None:
        values["account"] = event.account
    if says.sets:
        happened = event.event_time.at if event.event_time is not None else None
        values |= {name: happened if value is When.HAPPENED else value for name, value in says.sets.items()}
    return values


def _cancels_nothing(before: Encounter, event: Event, values: Mapping[str, Any]) -> bool:
    """A cancel that moves no status, and all that it sets back is so already."""
    says = SAYS[event.meaning]
    if not says.undoes or says.status is not None:
        return False
    back = ("location",) if says.goes_back else tuple(says.sets)
    return all(values.get(name, getattr(before, name)) == getattr(before, name) for name in back)


def _is_vaguer(said: Moment | None, known: Moment | None) -> bool:
    """A mere date of a time of day that is known says nothing new."""
    return said is not None and known is not None and not said.timed and known.timed and said.same_day(known)


# --- what the encounter is then


def _with_values(
    before: Encounter, event: Event, said: Mapping[str, Any], verdict: Verdict
) -> tuple[Encounter, dict[str, Stamp], bool]:
    """The encounter after the event, the stamps of its fields, and whether something that was said was old news."""
    status, as_of = verdict.status, verdict.as_of
    finished = status is EncounterStatus.FINISHED
    said = _without(said, verdict.without)
    if finished and event.meaning in ARRIVAL and verdict.holds:
        said = _without(said, ("admitted_at",))  # it is not the beginning of this stay
    ends_at = as_of or event.at  # what it says of the end counts like its status, be it recorded earlier or later
    values, sources = _with_times(before, event, said, verdict, ends_at)
    ending: dict[str, Any] = {name: values.pop(name) for name in DISCHARGE if name in values}
    encounter, stamps, stale = merge_fields(before, values, verdict.stamps, event.at)
    if "location" in values and not (values["location"] == before.location == encounter.location):
        encounter = _with_prior(before, encounter, values["location"], verdict.stamps, stamps, event.at)
    if ending:
        encounter, stamps, stale_end = merge_fields(encounter, ending, stamps, ends_at)
        stale = stale or stale_end
    if not finished:
        # Who says that the stay goes on takes back its discharge; what was said of that before is stale from now on.
        if encounter.discharged_at is not None or encounter.disposition is not None:
            encounter = msgspec.structs.replace(encounter, discharged_at=None, disposition=None)
        if as_of is not None:
            stamps |= dict.fromkeys(DISCHARGE, as_of)
    # A stay first seen when it had ended (an A08 with PV1-45) has no discharge yet: its A03 counts when it comes.
    # One whose beginning lies after the end that is known is of another stay under the number.
    discharged = (
        as_of is not None
        and event.meaning is Meaning.DISCHARGE
        and (
            before.status is not EncounterStatus.FINISHED
            or before.discharges == 0
            or _begins_after(before, values.get("admitted_at"))
        )
    )
    if discharged or status is not encounter.status or sources != encounter.time_sources:
        discharges = before.discharges + discharged
        encounter = msgspec.structs.replace(encounter, status=status, time_sources=sources, discharges=discharges)
    return *_began_first(before, encounter, event, said, verdict, stamps), stale


def _began_first(
    before: Encounter,
    after: Encounter,
    event: Event,
    said: Mapping[str, Any],
    verdict: Verdict,
    stamps: dict[str, Stamp],
) -> tuple[Encounter, dict[str, Stamp]]:
    """Of two stays that were merged (A42) the earlier admission counts, in whatever order what was said of them before
    comes.
    """
    known = verdict.stamps.get("admitted_at", NEVER)
    merged = verdict.stamps.get(MERGED, NEVER)
    if event.at >= merged or known >= merged or verdict.holds:
        return after, stamps
    began: Moment | None = said.get("admitted_at") or (_happened(event) if event.meaning in ARRIVAL else None)
    if began is None:
        return after, stamps
    if began_before(began, before.admitted_at):
        source = "PV1-44" if said.get("admitted_at") else event.event_time.source if event.event_time else None
        after = with_admission(after, began, source)
    else:
        after = with_admission(after, before.admitted_at, before.time_sources.get("admitted_at"))
    return after, {**stamps, "admitted_at": max(known, event.at)}


def _with_prior(
    before: Encounter, after: Encounter, said: Location | None, known: Stamps, stamps: dict[str, Stamp], at: Stamp
) -> Encounter:
    """With the place before the present one: the last one that was said and is another, in whatever order they came."""
    counts = at >= known.get("location", at)
    place, since = (before.location, known.get("location")) if counts else (said, at)
    if place is None or since is None or place == after.location or since <= stamps.get("prior_location", NEVER):
        return after
    stamps["prior_location"] = since
    return msgspec.structs.replace(after, prior_location=place)


def _with_times(
    before: Encounter, event: Event, said: Mapping[str, Any], verdict: Verdict, ends_at: Stamp
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values with admission and discharge times from the event where PV1-44/45 are empty; where each came from."""
    values, sources = dict(said), dict(before.time_sources)
    status, stamps = verdict.status, verdict.stamps
    if event.meaning in ARRIVAL and not values.get("admitted_at"):
        values.pop("admitted_at", None)  # an arrival has a time: a null would only make way for that of the event
        known = before.admitted_at
        if (known is None or _lies_ahead(known, event)) and not _ends_before(before, status, event):
            _from_event("admitted_at", event, values, sources)
    else:
        _note_source("admitted_at", "PV1-44", event.at, values, stamps, sources)
    if status is not EncounterStatus.FINISHED:
        for name in DISCHARGE:
            values.pop(name, None)
        sources.pop("discharged_at", None)
    elif event.meaning is Meaning.DISCHARGE and _is_vaguer(values.get("discharged_at"), _happened(event)):
        _from_event("discharged_at", event, values, sources)  # of the same day, and with a time of day
    elif event.meaning is Meaning.DISCHARGE and not values.get("discharged_at"):
        values.pop("discharged_at", None)  # as above
        if before.discharged_at is None or before.status is not EncounterStatus.FINISHED:
            _from_event("discharged_at", event, values, sources)
    else:
        _note_source("discharged_at", "PV1-45", ends_at, values, stamps, sources)
    return values, sources


def _begins_after(before: Encounter, admitted: Moment | None) -> bool:
    """The admission that is named lies after the end of the stay as it is known."""
    end = before.discharged_at
    return admitted is not None and end is not None and is_before(end, admitted)


def _ends_before(before: Encounter, status: EncounterStatus, event: Event) -> bool:
    """The event was after the end of a stay that has ended."""
    if status is not EncounterStatus.FINISHED or before.discharged_at is None or event.event_time is None:
        return False
    return is_before(before.discharged_at, event.event_time.at)


def _lies_ahead(time: Moment, event: Event) -> bool:
    """A planned admission that has come to pass before its time."""
    return event.claims is not None and is_before(event.claims.received_at, time)


def _note_source(
    name: str,
    location: str,
    at: Stamp,
    values: Mapping[str, Any],
    stamps: Stamps,
    sources: dict[str, str],
) -> None:
    """Say where a time comes from that the event sets or clears."""
    if name not in values or at < stamps.get(name, at):
        return
    if values[name]:
        sources[name] = location
    else:
        sources.pop(name, None)


def _happened(event: Event) -> Moment | None:
    return event.event_time.at if event.event_time is not None and event.event_time.source != RECEIPT else None


def _from_event(name: str, event: Event, values: dict[str, Any], sources: dict[str, str]) -> None:
    if event.event_time is not None:
        values[name], sources[name] = event.event_time
