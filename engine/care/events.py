"""What an ADT event does to the charts.

Pure: charts in, new versions of charts out. The rules are those of HL7 v2.9.1 chapter 3 and of the event table in
`mappings/care/adt-events.yaml`. Two of them hold everywhere:

- An event older than what a chart already holds for a field never turns that field back. Each field carries the time
  of the event that last spoke of it; the status of an encounter is such a field.
- A patient is found by the identifier that the channel names as the key, and by nothing else. A second identifier in
  the message that belongs to somebody else is reported and left where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from pydantic import Field

from engine.care.dispositions import Action, Dispositions, normalise
from engine.domain.chart import Chart, Charts, identity
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import parse_moment
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier, Patient
from engine.domain.record import Phi
from engine.errors import DATA_TYPE, UNKNOWN_KEY, MessageError
from engine.yamlfile import Document, StrictModel, validate

_R = TypeVar("_R", Patient, Encounter)


class Meaning(StrEnum):
    """What a trigger event means to the charts."""

    ADMIT = "admit"
    REGISTER = "register"
    PRE_ADMIT = "pre_admit"
    TRANSFER = "transfer"
    DISCHARGE = "discharge"
    UPDATE = "update"
    CANCEL_ADMIT = "cancel_admit"
    CANCEL_DISCHARGE = "cancel_discharge"
    PERSON = "person"
    MERGE = "merge"
    RECORD = "record"


_STATUS: Final[Mapping[Meaning, EncounterStatus | None]] = {
    Meaning.ADMIT: EncounterStatus.ACTIVE,
    Meaning.REGISTER: EncounterStatus.ACTIVE,
    Meaning.PRE_ADMIT: EncounterStatus.PLANNED,
    Meaning.TRANSFER: None,
    Meaning.DISCHARGE: EncounterStatus.FINISHED,
    Meaning.UPDATE: None,
    Meaning.CANCEL_ADMIT: EncounterStatus.CANCELLED,
    Meaning.CANCEL_DISCHARGE: EncounterStatus.ACTIVE,
}
"""Events of a visit, and the status each asserts; none: it leaves the status of a known encounter."""

_OPEN: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
_ENDED: Final = frozenset({EncounterStatus.FINISHED})
_NOT_ARRIVED: Final = frozenset({EncounterStatus.PLANNED, EncounterStatus.CANCELLED})
_OPENING: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER, Meaning.PRE_ADMIT})
_ARRIVAL: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER})


class _EventsFile(StrictModel):
    name: str
    source: str
    events: dict[Annotated[str, Field(pattern=r"^[A-Z][0-9A-Z]{2}$")], Meaning]


class Events:
    """The table of trigger events (`mappings/care/adt-events.yaml`)."""

    def __init__(self, meanings: Mapping[str, Meaning]) -> None:
        self._meanings = dict(meanings)

    def of(self, trigger: str) -> Meaning:
        return self._meanings.get(trigger, Meaning.RECORD)


def load_events(document: Document) -> Events:
    """Raises SettingsError."""
    return Events(validate(document, _EventsFile).events)


_NO_VISIT_CLASS: Final = "N"
"""PV1-2 `N`, not applicable: the message speaks of no visit (HL7 table 0004)."""

_DISCHARGE: Final = ("discharged_at", "disposition")
"""Fields of an encounter that only one that has ended holds."""

_DEATH: Final = "death"
"""Stamp of an encounter whose disposition marked the patient deceased: the time of the event that said so."""

_TUPLES: Final = frozenset({"phones", "diagnoses", "procedures", "identifiers"})


class Event(Phi, frozen=True, kw_only=True):
    """An ADT message in the engine's words. `at` is when it happened, in seconds since 1970: the time of staleness."""

    meaning: Meaning
    at: float
    chart_id: str
    """The id of the chart, should it have to be created."""
    identifiers: tuple[Identifier, ...]
    """The channel's key first."""
    patient: dict[str, Any]
    """Field -> value; None clears the field, a field that is not here is left."""
    encounter: dict[str, Any]
    visit: str | None = None
    """Encounter key."""
    visit_number: str | None = None
    visit_authority_sent: bool = True
    """PV1-19 names the authority of the visit number; otherwise that in `visit` only stands in."""
    account: str | None = None
    has_visit: bool = False
    """A PV1 segment speaks of a visit."""
    event_time: tuple[str, str] | None = None
    """ISO time of the event itself and the HL7 field it came from: stands in for PV1-44 and PV1-45."""


class Merge(Phi, frozen=True, kw_only=True):
    """One pair of a merge: `merged` becomes an alias of the patient whose key is `survivor`."""

    survivor: Identifier
    """The patient's key in the message, whichever of the patient's identifiers the pair is about."""
    survivor_id: str
    """Chart id, should the survivor have to be created."""
    partner: Identifier | None = None
    """The identifier of PID-3 that takes the place of `merged`; none: the key."""
    merged: Identifier
    merged_id: str


@dataclass(slots=True)
class Applied:
    """What came of an event."""

    chart: Chart | None = None
    encounter: str | None = None
    """Key of the encounter that the event spoke of."""
    others: list[Chart] = field(default_factory=list)
    """Further charts that changed (the merged ones)."""
    effects: list[Effect] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    note: str | None = None
    """Why it left the chart as it was."""
    discharge_cancelled: bool = False
    admission_cancelled: bool = False
    admitted: bool = False
    died: bool = False


def apply_event(charts: Charts, event: Event, dispositions: Dispositions) -> Applied:
    """The new version of the patient's chart. Raises MessageError when the message can't be put on one patient."""
    applied = Applied()
    key = event.identifiers[0]
    chart = charts.find(key)
    if chart is None:
        chart = Chart(id=event.chart_id, patient=Patient(identifiers=(key,)))
        applied.effects.append(Effect(kind="patient-created", subject=chart.id))
    patient = _with_identifiers(chart, charts, event.identifiers, applied)
    was_deceased = patient.deceased is True
    patient, stamps, stale = _merge_fields(patient, _with_death(event.patient), chart.stamps, event.at)
    if stale:
        applied.deviations.append("stale-event")
    chart = msgspec.structs.replace(chart, patient=patient, stamps=stamps)
    if event.meaning in _STATUS and event.has_visit and event.encounter.get("class_") != _NO_VISIT_CLASS:
        chart = _apply_visit(chart, charts, event, dispositions, applied)
    elif event.meaning in _STATUS and event.meaning is not Meaning.UPDATE:
        applied.note = "no visit in the message (PV1 missing or class N)"
    applied.died = chart.patient.deceased is True and not was_deceased
    if applied.died:
        applied.effects.append(Effect(kind="patient-deceased", subject=chart.id))
    applied.chart = chart
    return applied


def _with_death(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A time of death (PID-29) says that the patient has died, unless the message says otherwise (PID-30)."""
    return {**values, "deceased": True} if values.get("deceased_at") and "deceased" not in values else values


def apply_merges(charts: Charts, merges: tuple[Merge, ...]) -> Applied:
    """A40: the merged identity becomes an alias of the survivor; encounters, scores and tasks follow.

    The result's `chart` is the survivor of the last pair; `others` holds every other chart that changed. Raises
    MessageError when the pairs contradict each other or what was merged before: which patient is meant is then for a
    person to say.
    """
    applied = Applied()
    changed: dict[str, Chart] = {}
    retired: set[tuple[str, str, str]] = set()

    def living(identifier: Identifier) -> Chart | None:
        chart = charts.find(identifier)
        while chart is not None:
            chart = changed.get(chart.id, chart)
            if chart.merged_into is None:
                return chart
            chart = changed.get(chart.merged_into) or charts.by_id.get(chart.merged_into)
        return None

    for merge in merges:
        if identity(merge.survivor) == identity(merge.merged):
            raise MessageError("merge-with-itself", "MRG-1 names the patient's own key in PID-3", location="MRG-1")
        survivor = living(merge.survivor) or _by_id(changed, merge.survivor_id)
        if survivor is None:
            survivor = Chart(id=merge.survivor_id, patient=Patient(identifiers=(merge.survivor,)))
            applied.effects.append(Effect(kind="patient-created", subject=survivor.id))
        partner = living(merge.partner) if merge.partner is not None else None
        if partner is not None and partner.id != survivor.id:
            raise _contradiction("two identifiers of PID-3 belong to two patients: which one survives?", "PID-3")
        merged = living(merge.merged) or _by_id(changed, merge.merged_id)
        if merged is not None and merged.id == survivor.id:
            if identity(merge.survivor) in retired and identity(merge.merged) not in retired:
                raise _contradiction("the groups of the message merge in a circle", "MRG-1")
            retired.add(identity(merge.merged))
            applied.chart = survivor
            changed.setdefault(survivor.id, survivor)
            continue
        if merged is None:
            # Nothing was known of the old identity; from now on it leads to the survivor.
            merged = Chart(id=merge.merged_id, patient=Patient(identifiers=(merge.merged,)))
        elif merge.merged.key in merged.patient.merged_from:
            raise _contradiction("the identity in MRG-1 was merged into another patient before", "MRG-1")
        survivor, merged = _fold(survivor, merged)
        changed[survivor.id] = survivor
        changed[merged.id] = merged
        retired.add(identity(merge.merged))
        applied.chart = survivor
        applied.effects.append(Effect(kind="patient-merged", subject=survivor.id, detail=merged.id))
    if merges and not any(chart.merged_into for chart in changed.values()):
        applied.note = "these identities are one patient already"
    survivor_id = applied.chart.id if applied.chart else ""
    applied.chart = changed.get(survivor_id)
    applied.others = [chart for chart in changed.values() if chart.id != survivor_id]
    return applied


def _contradiction(text: str, location: str) -> MessageError:
    return MessageError("merge-contradiction", text, hl7_code=DATA_TYPE, location=location)


def _by_id(changed: Mapping[str, Chart], chart_id: str) -> Chart | None:
    """A chart that an earlier group of the same message made; an identity is not in `charts` yet then."""
    chart = changed.get(chart_id)
    while chart is not None and chart.merged_into is not None:
        chart = changed.get(chart.merged_into)
    return chart


def _fold(survivor: Chart, merged: Chart) -> tuple[Chart, Chart]:
    known = {identity(identifier) for identifier in survivor.patient.identifiers}
    aliases = tuple(i for i in merged.patient.identifiers if identity(i) not in known)
    filled: dict[str, Any] = {}
    stamps = {**merged.stamps, **survivor.stamps}
    for name in Patient.__struct_fields__:
        mine, theirs = getattr(survivor.patient, name), getattr(merged.patient, name)
        if name in {"identifiers", "merged_from"} or mine not in (None, ()) or theirs in (None, ()):
            continue
        if merged.stamps.get(name, 0.0) < survivor.stamps.get(name, 0.0):
            continue  # the survivor's was cleared since
        filled[name] = theirs
        stamps[name] = merged.stamps.get(name, 0.0)
    if merged.patient.deceased:
        filled["deceased"] = True
    former = dict.fromkeys((*survivor.patient.merged_from, merged.patient.key, *merged.patient.merged_from))
    patient = msgspec.structs.replace(
        survivor.patient,
        identifiers=(*survivor.patient.identifiers, *aliases),
        merged_from=tuple(former),
        **filled,
    )
    survivor = msgspec.structs.replace(
        survivor,
        patient=patient,
        stamps=stamps,
        encounters=(*survivor.encounters, *merged.encounters),
        encounter_stamps={**merged.encounter_stamps, **survivor.encounter_stamps},
        scores=(*survivor.scores, *merged.scores),
        tasks=(*survivor.tasks, *merged.tasks),
    )
    merged = msgspec.structs.replace(
        merged, merged_into=survivor.id, encounters=(), encounter_stamps={}, scores=(), tasks=()
    )
    return survivor, merged


def _with_identifiers(chart: Chart, charts: Charts, identifiers: tuple[Identifier, ...], applied: Applied) -> Patient:
    known = {identity(identifier) for identifier in chart.patient.identifiers}
    added: list[Identifier] = []
    for identifier in identifiers:
        if identity(identifier) in known:
            continue
        owner = charts.find(identifier)
        if owner is not None and owner.id != chart.id:
            applied.deviations.append("identifier-of-another-patient")
            continue
        known.add(identity(identifier))
        added.append(identifier)
    if not added:
        return chart.patient
    return msgspec.structs.replace(chart.patient, identifiers=(*chart.patient.identifiers, *added))


def _merge_fields(
    record: _R, values: Mapping[str, Any], stamps: Mapping[str, float], at: float
) -> tuple[_R, dict[str, float], bool]:
    changes: dict[str, Any] = {}
    new_stamps = dict(stamps)
    stale = False
    for name, said in values.items():
        if at < new_stamps.get(name, at):
            stale = True
            continue
        new_stamps[name] = at
        value = () if said is None and name in _TUPLES else said
        if value != getattr(record, name):
            changes[name] = value
    return (msgspec.structs.replace(record, **changes) if changes else record), new_stamps, stale


def _apply_visit(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied) -> Chart:
    found = _find_encounter(chart, charts, event)
    if found is None:
        applied.note = "no visit number, and no single encounter that it could mean"
        return chart
    key, known = found
    before = known or Encounter(key=key, visit_number=event.visit_number, account=event.account)
    stamps = dict(chart.encounter_stamps.get(key, {}))
    values = dict(event.encounter)
    if values.get("disposition"):
        values["disposition"] = normalise(values["disposition"])
    if event.meaning is Meaning.ADMIT and "class_" not in values and before.class_ is None:
        values["class_"] = "I"  # A01 is the admission of an inpatient; the sender left PV1-2 empty
    if event.account and before.account is None:
        values["account"] = event.account
    status, taken = _next_status(before, known is None, event, values, stamps, dispositions, applied)
    sources = _complete_times(before, status, event, values, stamps)
    encounter, stamps, stale = _merge_fields(before, values, stamps, event.at)
    if stale and "stale-event" not in applied.deviations:
        applied.deviations.append("stale-event")
    if status is not EncounterStatus.FINISHED:
        # Who says that the stay goes on takes back its discharge; what was said of that before is stale from now on.
        encounter = msgspec.structs.replace(encounter, discharged_at=None, disposition=None)
        if taken:
            stamps |= dict.fromkeys(_DISCHARGE, event.at)
    # A stay first seen when it had ended (an A08 with PV1-45) has no discharge yet: its A03 counts when it comes.
    discharged = (
        taken
        and event.meaning is Meaning.DISCHARGE
        and (before.status is not EncounterStatus.FINISHED or before.discharges == 0)
    )
    encounter = msgspec.structs.replace(
        encounter, status=status, time_sources=sources, discharges=before.discharges + discharged
    )
    _note_transition(before, encounter, event, applied, created=known is None)
    applied.encounter = key
    chart = _follow_death(chart, before, encounter, stamps, event.at, dispositions)
    others = tuple(e for e in chart.encounters if e.key != key)
    return msgspec.structs.replace(
        chart,
        encounters=(*others, encounter),
        encounter_stamps={**chart.encounter_stamps, key: stamps},
    )


def _find_encounter(chart: Chart, charts: Charts, event: Event) -> tuple[str, Encounter | None] | None:
    """The encounter that the message means: its key, and what is known of it. None: it can't be told."""
    if event.visit is not None:
        known = chart.encounter(event.visit) or _same_number(chart, event)
        if known is not None:
            return known.key, known
        owner = charts.visits.get(event.visit)
        while owner is not None and (other := charts.by_id.get(owner)) is not None and other.merged_into is not None:
            owner = other.merged_into
        if owner is not None and owner != chart.id:
            raise MessageError(
                "visit-of-another-patient",
                "this visit number belongs to another patient's encounter; a person must decide",
                hl7_code=UNKNOWN_KEY,
                location="PV1-19",
            )
        return event.visit, None
    if event.account is not None:
        same = [e for e in chart.encounters if e.account == event.account]
        living = [e for e in same if e.status is not EncounterStatus.CANCELLED]
        if len(living) > 1:
            raise _ambiguous("PID-18")
        if not living and event.meaning not in _OPENING and len(same) == 1:
            living = same  # more news of a cancelled one; a new one would be opened
        return (living[0].key, living[0]) if living else _made_key(chart, f"acct-{event.account}")
    if event.meaning in _OPENING:
        started = event.encounter.get("admitted_at") or (event.event_time[0] if event.event_time else None)
        return _made_key(chart, started) if started else None
    wanted = _ENDED if event.meaning is Meaning.CANCEL_DISCHARGE else _OPEN
    open_ones = [e for e in chart.encounters if e.status in wanted]
    if len(open_ones) > 1:
        raise _ambiguous("PV1-19")
    if open_ones:
        return open_ones[0].key, open_ones[0]
    if event.meaning is Meaning.DISCHARGE and event.event_time:
        return _discharged_before(chart, event.encounter.get("discharged_at") or event.event_time[0]) or _made_key(
            chart, event.encounter.get("admitted_at") or event.event_time[0]
        )
    return None


def _same_number(chart: Chart, event: Event) -> Encounter | None:
    """The patient's own encounter of this number, when the message leaves open who gave it.

    The authority that stands in then is that of the patient's key, which need not be the same in every message.
    """
    if event.visit_authority_sent:
        return None
    same = [e for e in chart.encounters if e.visit_number is not None and e.visit_number == event.visit_number]
    return same[0] if len(same) == 1 else None


def _discharged_before(chart: Chart, at: str) -> tuple[str, Encounter] | None:
    """The one stay that a discharge at that time can have ended: the same discharge, said again."""
    ended = [encounter for encounter in chart.encounters if encounter.status in _ENDED]
    found = [encounter for encounter in ended if encounter.discharged_at == at]
    moment = parse_moment(at)
    if not found and moment is not None:
        found = [encounter for encounter in ended if _lasted_over(encounter, moment)]
    return (found[0].key, found[0]) if len(found) == 1 else None


def _lasted_over(encounter: Encounter, moment: datetime) -> bool:
    begin, end = parse_moment(encounter.admitted_at), parse_moment(encounter.discharged_at)
    return begin is not None and end is not None and begin <= moment <= end


def _made_key(chart: Chart, what: str) -> tuple[str, Encounter | None]:
    """The key of an encounter without a visit number; one that a merged patient brought along keeps its own.

    The type is part of it: the same number of another type is another patient's.
    """
    keys = [f"{i.key}^{i.type}@{what}" if i.type else f"{i.key}@{what}" for i in chart.patient.identifiers]
    for key in keys:
        known = chart.encounter(key)
        if known is not None:
            return key, known
    return keys[0], None


def _ambiguous(location: str) -> MessageError:
    return MessageError(
        "encounter-ambiguous",
        "more than one encounter of the patient could be meant; send the visit number in PV1-19",
        hl7_code=UNKNOWN_KEY,
        location=location,
    )


def _next_status(
    before: Encounter,
    created: bool,  # noqa: FBT001
    event: Event,
    values: dict[str, Any],
    stamps: dict[str, float],
    dispositions: Dispositions,
    applied: Applied,
) -> tuple[EncounterStatus, bool]:
    """The status after the event, and whether the event decided it. If it did, notes its time in `stamps`."""
    asserted = _STATUS[event.meaning]
    if (
        asserted is None
    ):  # A02, A08: they assert nothing, but of a stay whose admission we did not see they tell as much
        if not created:
            return before.status, False
        return (EncounterStatus.FINISHED if values.get("discharged_at") else EncounterStatus.ACTIVE), False
    if event.at < stamps.get("status", event.at):
        applied.deviations.append("stale-event")
        return before.status, False
    if event.meaning is Meaning.DISCHARGE:
        disposition = values.get("disposition", before.disposition)
        if dispositions.of(disposition).action is Action.NOT_A_DISCHARGE:
            applied.deviations.append("disposition-is-no-discharge")
            applied.effects.append(Effect(kind="data-quality", subject=before.key, detail="PV1-36: still a patient"))
            applied.note = "PV1-36 says that the patient is still here: not taken as a discharge"
            for name in _DISCHARGE:
                values.pop(name, None)
            return (EncounterStatus.ACTIVE if created else before.status), False
    if not created:
        if event.meaning is Meaning.PRE_ADMIT and before.status not in _NOT_ARRIVED:
            return before.status, False
        if event.meaning is Meaning.CANCEL_DISCHARGE and before.status is EncounterStatus.ACTIVE:
            applied.note = "the encounter is not discharged: nothing to cancel"
        if event.meaning in _ARRIVAL and before.status is EncounterStatus.FINISHED and _same_stay(before, values):
            applied.note = "the admission of a stay that has ended already: not taken as a new one"
            applied.deviations.append("admission-after-discharge")
            return before.status, False
    stamps["status"] = event.at
    return asserted, True


def _same_stay(before: Encounter, values: Mapping[str, Any]) -> bool:
    """Whether an admission that was recorded after the end of a stay is the beginning of that stay.

    It is when the class is the same and it was not after that end; what was not known until now is no difference.
    """
    if before.class_ not in {None, values.get("class_", before.class_)}:
        return False
    admitted = values.get("admitted_at") or before.admitted_at
    if admitted == before.admitted_at:
        return True
    begin, end = parse_moment(admitted), parse_moment(before.discharged_at)
    return before.admitted_at is None if begin is None or end is None else begin <= end


def _complete_times(
    before: Encounter, status: EncounterStatus, event: Event, values: dict[str, Any], stamps: Mapping[str, float]
) -> dict[str, str]:
    """Fill admission and discharge times from the event where PV1-44/45 are empty; say where each came from."""
    sources = dict(before.time_sources)
    if event.meaning in _ARRIVAL and not values.get("admitted_at"):
        values.pop("admitted_at", None)  # an arrival has a time: a null would only make way for that of the event
        if before.admitted_at is None:
            _from_event("admitted_at", event, values, sources)
    else:
        _note_source("admitted_at", "PV1-44", event, values, stamps, sources)
    if status is not EncounterStatus.FINISHED:
        for name in _DISCHARGE:
            values.pop(name, None)
        sources.pop("discharged_at", None)
    elif event.meaning is Meaning.DISCHARGE and not values.get("discharged_at"):
        values.pop("discharged_at", None)  # as above
        if before.discharged_at is None or before.status is not EncounterStatus.FINISHED:
            _from_event("discharged_at", event, values, sources)
    else:
        _note_source("discharged_at", "PV1-45", event, values, stamps, sources)
    return sources


def _note_source(
    name: str,
    location: str,
    event: Event,
    values: Mapping[str, Any],
    stamps: Mapping[str, float],
    sources: dict[str, str],
) -> None:
    """Say where a time comes from that the event sets or clears."""
    if name not in values or event.at < stamps.get(name, event.at):
        return
    if values[name]:
        sources[name] = location
    else:
        sources.pop(name, None)


def _from_event(name: str, event: Event, values: dict[str, Any], sources: dict[str, str]) -> None:
    if event.event_time is not None:
        values[name], sources[name] = event.event_time


def _follow_death(
    chart: Chart,
    before: Encounter,
    after: Encounter,
    stamps: dict[str, float],
    at: float,
    dispositions: Dispositions,
) -> Chart:
    """A stay that ended in death marks the patient deceased; when that is taken back, so is the mark.

    `stamps` remember that the mark is this stay's: it is taken back only while nobody else has spoken of it.
    """
    patient = chart.patient
    died = _ended_in_death(after, dispositions)
    if died and (not _ended_in_death(before, dispositions) or stamps.get(_DEATH) == at):
        if patient.deceased is True or at < chart.stamps.get("deceased", at):
            return chart
        stamps[_DEATH] = at
        own_time = after.discharged_at if "deceased_at" not in chart.stamps else None
        patient = msgspec.structs.replace(patient, deceased=True, deceased_at=patient.deceased_at or own_time)
    elif not died and _DEATH in stamps:
        if chart.stamps.get("deceased") != stamps.pop(_DEATH):
            return chart
        deceased_at = patient.deceased_at if "deceased_at" in chart.stamps else None
        patient = msgspec.structs.replace(patient, deceased=None, deceased_at=deceased_at)
    else:
        return chart
    return msgspec.structs.replace(chart, patient=patient, stamps={**chart.stamps, "deceased": at})


def _ended_in_death(encounter: Encounter, dispositions: Dispositions) -> bool:
    return (
        encounter.status is EncounterStatus.FINISHED and dispositions.of(encounter.disposition).action is Action.DEATH
    )


def _note_transition(before: Encounter, after: Encounter, event: Event, applied: Applied, *, created: bool) -> None:
    if created:
        applied.effects.append(Effect(kind="encounter-created", subject=after.key, detail=after.status))
    elif before.status is not after.status:
        applied.effects.append(Effect(kind=f"encounter-{after.status}", subject=after.key))
    was, now = before.status, after.status
    applied.admitted = event.meaning is Meaning.ADMIT and now is EncounterStatus.ACTIVE and (created or was is not now)
    applied.discharge_cancelled = was is EncounterStatus.FINISHED and now is EncounterStatus.ACTIVE
    applied.admission_cancelled = now is EncounterStatus.CANCELLED and (created or was is not now)
