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
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from pydantic import Field

from engine.care.dispositions import Action, Dispositions, normalise
from engine.domain.chart import Chart, Charts, identity
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier, Patient
from engine.domain.record import Phi
from engine.errors import UNKNOWN_KEY, MessageError
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
    account: str | None = None
    has_visit: bool = False
    """A PV1 segment speaks of a visit."""
    event_time: tuple[str, str] | None = None
    """ISO time of the event itself and the HL7 field it came from: stands in for PV1-44 and PV1-45."""


class Merge(Phi, frozen=True, kw_only=True):
    """One PID/MRG group of a merge: `merged` becomes an alias of `survivor`."""

    survivor: Identifier
    survivor_id: str
    """Chart id, should the survivor have to be created."""
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
    patient, stamps, stale = _merge_fields(patient, event.patient, chart.stamps, event.at)
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


def apply_merges(charts: Charts, merges: tuple[Merge, ...], at: float) -> Applied:
    """A40: the merged identity becomes an alias of the survivor; encounters, scores and tasks follow.

    The result's `chart` is the survivor of the last group; `others` holds every other chart that changed. Raises
    MessageError when a merge would lead in a circle.
    """
    applied = Applied()
    changed: dict[str, Chart] = {}

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
            raise MessageError(
                "merge-with-itself", "the surviving and the merged identifier are the same", location="MRG-1"
            )
        survivor = living(merge.survivor) or _by_id(changed, merge.survivor_id)
        if survivor is None:
            survivor = Chart(id=merge.survivor_id, patient=Patient(identifiers=(merge.survivor,)))
            applied.effects.append(Effect(kind="patient-created", subject=survivor.id))
        merged = living(merge.merged) or _by_id(changed, merge.merged_id)
        if merged is not None and merged.id == survivor.id:
            applied.chart = survivor
            applied.note = "these identities are one patient already"
            changed.setdefault(survivor.id, survivor)
            continue
        if merged is None:
            # Nothing was known of the old identity; from now on it leads to the survivor.
            merged = Chart(id=merge.merged_id, patient=Patient(identifiers=(merge.merged,)))
        survivor, merged = _fold(survivor, merged)
        changed[survivor.id] = survivor
        changed[merged.id] = merged
        applied.chart = survivor
        applied.effects.append(Effect(kind="patient-merged", subject=survivor.id, detail=merged.id))
    survivor_id = applied.chart.id if applied.chart else ""
    applied.chart = changed.get(survivor_id)
    applied.others = [chart for chart in changed.values() if chart.id != survivor_id]
    return applied


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
    for name in Patient.__struct_fields__:
        mine, theirs = getattr(survivor.patient, name), getattr(merged.patient, name)
        if name not in {"identifiers", "merged_from"} and mine in (None, ()) and theirs not in (None, ()):
            filled[name] = theirs
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
        stamps={**merged.stamps, **survivor.stamps},
        encounters=(*survivor.encounters, *merged.encounters),
        encounter_stamps={**merged.encounter_stamps, **survivor.encounter_stamps},
        scores=(*survivor.scores, *merged.scores),
        tasks=(*survivor.tasks, *merged.tasks),
    )
    merged = msgspec.structs.replace(
        merged, merged_into=survivor.id, encounters=(), encounter_stamps={}, scores=(), tasks=()
    )
    return survivor, merged


def _with_identifiers(
    chart: Chart, charts: Charts, identifiers: tuple[Identifier, ...], applied: Applied
) -> Patient:
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
    for name, value in values.items():
        if at < new_stamps.get(name, at):
            stale = True
            continue
        new_stamps[name] = at
        if value is None and name in _TUPLES:
            value = ()
        if value != getattr(record, name):
            changes[name] = value
    return (msgspec.structs.replace(record, **changes) if changes else record), new_stamps, stale


def _apply_visit(
    chart: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied
) -> Chart:
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
    status = _next_status(before, known is None, event, values, stamps, dispositions, applied)
    sources = _complete_times(before, status, event, values, stamps)
    encounter, stamps, stale = _merge_fields(before, values, stamps, event.at)
    if stale and "stale-event" not in applied.deviations:
        applied.deviations.append("stale-event")
    # A stay that we first saw when it had ended (an A08 with PV1-45) has no discharge yet: its A03 counts when it comes.
    discharged = status is EncounterStatus.FINISHED and (
        before.status is not EncounterStatus.FINISHED or before.discharges == 0
    )
    encounter = msgspec.structs.replace(
        encounter,
        status=status,
        time_sources=sources,
        discharges=before.discharges + (1 if discharged and event.meaning is Meaning.DISCHARGE else 0),
    )
    _note_transition(before, encounter, event, applied, created=known is None)
    applied.encounter = key
    if (
        status is EncounterStatus.FINISHED
        and event.meaning is Meaning.DISCHARGE
        and dispositions.of(encounter.disposition).action is Action.DEATH
    ):
        chart = _mark_deceased(chart, encounter, event.at)
    others = tuple(e for e in chart.encounters if e.key != key)
    return msgspec.structs.replace(
        chart,
        encounters=(*others, encounter),
        encounter_stamps={**chart.encounter_stamps, key: stamps},
    )


def _find_encounter(chart: Chart, charts: Charts, event: Event) -> tuple[str, Encounter | None] | None:
    """The encounter that the message means: its key, and what is known of it. None: it can't be told."""
    if event.visit is not None:
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
        return event.visit, chart.encounter(event.visit)
    if event.account is not None:
        same = [
            e for e in chart.encounters if e.account == event.account and e.status is not EncounterStatus.CANCELLED
        ]
        if len(same) == 1:
            return same[0].key, same[0]
        if len(same) > 1:
            raise _ambiguous("PID-18")
        return _made_key(chart, f"acct-{event.account}")
    if event.meaning in _OPENING:
        started = event.encounter.get("admitted_at") or (event.event_time[0] if event.event_time else None)
        return _made_key(chart, started) if started else None
    wanted = {EncounterStatus.FINISHED} if event.meaning is Meaning.CANCEL_DISCHARGE else {EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE}
    open_ones = [e for e in chart.encounters if e.status in wanted]
    if len(open_ones) > 1:
        raise _ambiguous("PV1-19")
    if open_ones:
        return open_ones[0].key, open_ones[0]
    if event.meaning is Meaning.DISCHARGE and event.event_time:
        return _made_key(chart, event.encounter.get("admitted_at") or event.event_time[0])
    return None


def _made_key(chart: Chart, what: str) -> tuple[str, Encounter | None]:
    key = f"{chart.patient.key}@{what}"
    return key, chart.encounter(key)


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
) -> EncounterStatus:
    """The status after the event. Notes the time of the status in `stamps`."""
    asserted = _STATUS[event.meaning]
    if asserted is None:  # A02, A08 for a stay whose admission we did not see
        if not created:
            return before.status
        asserted = EncounterStatus.FINISHED if values.get("discharged_at") else EncounterStatus.ACTIVE
    if event.at < stamps.get("status", event.at):
        applied.deviations.append("stale-event")
        return before.status
    if event.meaning is Meaning.DISCHARGE:
        disposition = values.get("disposition", before.disposition)
        if dispositions.of(disposition).action is Action.NOT_A_DISCHARGE:
            applied.deviations.append("disposition-is-no-discharge")
            applied.effects.append(Effect(kind="data-quality", subject=before.key, detail="PV1-36 says still a patient"))
            applied.note = "PV1-36 says that the patient is still here: not taken as a discharge"
            values.pop("disposition", None)
            return EncounterStatus.ACTIVE if created else before.status
    if not created:
        if event.meaning is Meaning.PRE_ADMIT and before.status not in {EncounterStatus.PLANNED, EncounterStatus.CANCELLED}:
            return before.status
        if event.meaning is Meaning.CANCEL_DISCHARGE and before.status is EncounterStatus.ACTIVE:
            applied.note = "the encounter is not discharged: nothing to cancel"
        if event.meaning in _ARRIVAL and before.status is EncounterStatus.FINISHED and _restates(before, values):
            applied.note = "the admission of a stay that has ended already: not taken as a new one"
            applied.deviations.append("admission-after-discharge")
            return before.status
    stamps["status"] = event.at
    return asserted


def _restates(before: Encounter, values: Mapping[str, Any]) -> bool:
    """An admission that only says again what is known: same class, same time."""
    known = (before.admitted_at, before.class_)
    return known == (values.get("admitted_at", before.admitted_at), values.get("class_", before.class_))


def _complete_times(
    before: Encounter, status: EncounterStatus, event: Event, values: dict[str, Any], stamps: Mapping[str, float]
) -> dict[str, str]:
    """Fill admission and discharge times from the event where PV1-44/45 are empty; say where each came from."""
    sources = dict(before.time_sources)
    if event.meaning in _ARRIVAL and not values.get("admitted_at") and before.admitted_at is None:
        _from_event("admitted_at", event, values, sources)
    elif values.get("admitted_at") and event.at >= stamps.get("admitted_at", event.at):
        sources["admitted_at"] = "PV1-44"
    if status is not EncounterStatus.FINISHED:
        values.pop("discharged_at", None)
        values.pop("disposition", None)
        if event.meaning is Meaning.CANCEL_DISCHARGE and event.at >= stamps.get("status", event.at):
            # Stamped even when there was nothing to clear, so that a late A03 does not discharge again.
            values["discharged_at"] = values["disposition"] = None
            sources.pop("discharged_at", None)
    elif values.get("discharged_at"):
        if event.at >= stamps.get("discharged_at", event.at):
            sources["discharged_at"] = "PV1-45"
    elif event.meaning is Meaning.DISCHARGE and (before.discharged_at is None or before.status is not EncounterStatus.FINISHED):
        _from_event("discharged_at", event, values, sources)
    return sources


def _from_event(name: str, event: Event, values: dict[str, Any], sources: dict[str, str]) -> None:
    if event.event_time is not None:
        values[name], sources[name] = event.event_time


def _mark_deceased(chart: Chart, encounter: Encounter, at: float) -> Chart:
    if chart.patient.deceased is True or at < chart.stamps.get("deceased", at):
        return chart
    patient = msgspec.structs.replace(
        chart.patient, deceased=True, deceased_at=chart.patient.deceased_at or encounter.discharged_at
    )
    return msgspec.structs.replace(chart, patient=patient, stamps={**chart.stamps, "deceased": at})


def _note_transition(
    before: Encounter, after: Encounter, event: Event, applied: Applied, *, created: bool
) -> None:
    if created:
        applied.effects.append(Effect(kind="encounter-created", subject=after.key, detail=after.status))
    elif before.status is not after.status:
        applied.effects.append(Effect(kind=f"encounter-{after.status}", subject=after.key))
    was, now = before.status, after.status
    applied.admitted = event.meaning is Meaning.ADMIT and now is EncounterStatus.ACTIVE and (created or was is not now)
    applied.discharge_cancelled = was is EncounterStatus.FINISHED and now is EncounterStatus.ACTIVE
    applied.admission_cancelled = now is EncounterStatus.CANCELLED and (created or was is not now)
