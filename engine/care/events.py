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
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Annotated, Any, Final, TypeVar

import msgspec
from pydantic import Field

from engine.care.death import FIELDS as DEATH_FIELDS
from engine.care.death import fold_death, merge_contradicts_death, settle_death
from engine.care.dispositions import Action, Dispositions, normalise
from engine.care.person import is_another
from engine.care.times import IMPLAUSIBLE, SAME_SECONDS, Claims, is_before
from engine.domain.chart import Chart, Charts, Stamp, identity
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.hold import Hold, HoldCode, hold_key
from engine.domain.moment import parse_moment
from engine.domain.outcome import Effect
from engine.domain.patient import Doubt, Identifier, Patient
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
    HOLD = "hold"
    """It says something of identities, or deletes, in a way that is not applied here: a person must see to it."""
    RECORD = "record"
    """It leaves the charts alone; such messages are listed and counted."""


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
_CLOSED: Final = _ENDED | {EncounterStatus.CANCELLED}
_OPENING: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER, Meaning.PRE_ADMIT})
_ARRIVAL: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER})
_ARRIVED: Final = _ARRIVAL | {Meaning.DISCHARGE}
"""Events that say of a patient who was expected that the stay has begun."""
_TURNING: Final = frozenset({Meaning.DISCHARGE, Meaning.CANCEL_DISCHARGE})
_REGISTERING: Final = frozenset({Meaning.REGISTER, Meaning.PRE_ADMIT})
_GONE_ON: Final[Mapping[EncounterStatus, frozenset[EncounterStatus]]] = {
    EncounterStatus.PLANNED: _OPEN | _ENDED,
    EncounterStatus.ACTIVE: _ENDED | {EncounterStatus.ON_LEAVE},
}
"""How a stay goes on by itself: an older event that says where it began says nothing else than the chart does."""
_STATUS_QUESTIONS: Final = frozenset(
    {HoldCode.STATUS_EVENT_STALE, HoldCode.NOTHING_TO_CANCEL, HoldCode.DISPOSITION_IS_NO_DISCHARGE}
)
"""Holds whose release means: the status that the event asserts is that of the stay now."""

_STILL_HERE_AFTER_END: Final = (
    "a discharge of a stay that has ended already, whose disposition (PV1-36) says that the patient is still here;"
    " release it if the patient has left, have an A13 sent and dismiss it if not"
)


class _EventsFile(StrictModel):
    """What each ADT trigger event means to the charts."""

    name: str
    """Name of the table."""
    source: str
    """Where the meanings come from."""
    events: dict[Annotated[str, Field(pattern=r"^[A-Z][0-9A-Z]{2}$")], Meaning]
    """Trigger event (MSH-9.2) -> meaning. One that is not listed means `record`."""


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

_WITHOUT_BED: Final = frozenset({None, "E", "O", "P", "R"})
"""Classes that an admission ends: A01 is the admission of an inpatient, also when the sender leaves PV1-2 empty."""

_SAID_AGAIN: Final = timedelta(days=1)
"""A discharge that names no visit, so soon after one, is the same discharge said again."""

IDENTIFIERS_MAX: Final = 500
"""Of one patient, those of merged ones included: each change of the patient carries them all to the destinations."""

_NEVER: Final[Stamp] = (0.0, 0)
_TUPLES: Final = frozenset({"phones", "diagnoses", "procedures", "identifiers"})


class Event(Phi, frozen=True, kw_only=True):
    """An ADT message in the engine's words."""

    meaning: Meaning
    at: Stamp
    """When it was recorded, by the best source that is believed: what is older than what is known is stale."""
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
    visit_authority: str | None = None
    """Of the visit number, as PV1-19 names it; none: it does not, and that in `visit` only stands in."""
    account: str | None = None
    has_visit: bool = False
    """A PV1 segment speaks of a visit."""
    event_time: tuple[str, str] | None = None
    """ISO time of the event itself and the HL7 field it came from: stands in for PV1-44 and PV1-45."""
    claims: Claims | None = None
    """What `at`, `sent` and `event_time` come from; none: they are beyond doubt."""
    sent: float = 0.0
    """When it was sent, by its sender's clock (seconds since 1970)."""
    sender: int = 0
    """Of the events of one sender the order of sending decides; 0: who sent it is not known."""
    unread_death: str | None = None
    """HL7 path of a mark or time of death that is there and can't be read."""
    settled: bool = False
    """A replay of what was applied in its time (`Entry.settled`)."""
    decided_at: Stamp | None = None
    """When a person took it as true; none: nobody has."""
    decision: str | None = None
    """The hold (`Hold.key`) that a person has released: what it asked is true as of `decided_at`."""

    def believed(self, code: HoldCode, location: str | None = None) -> bool:
        """A person has decided that what this hold asks is so."""
        return self.decision == hold_key(code, location)


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
    holds: list[Hold] = field(default_factory=list)
    note: str | None = None
    """Why it left the chart as it was."""

    def hold(
        self, code: HoldCode, *, location: str | None = None, subject: str | None = None, detail: str = ""
    ) -> None:
        """Leave a question to a person; of which chart is filled in by the caller of the rules."""
        self.holds.append(Hold(code=code, location=location, subject=subject, detail=detail))


def apply_event(charts: Charts, event: Event, dispositions: Dispositions) -> Applied:
    """The new version of the patient's chart. Raises MessageError when the message can't be put on one patient."""
    applied = Applied()
    key = event.identifiers[0]
    chart = charts.find(key)
    if chart is None:
        chart = Chart(id=event.chart_id, patient=Patient(identifiers=(key,)))
        applied.effects.append(Effect(kind="patient-created", subject=chart.id))
    elif _speaks_of_another(chart, event):
        applied.hold(HoldCode.PERSON_CONTRADICTED, location="PID-5")
        applied.chart = chart
        return applied
    before = chart
    patient = _with_identifiers(chart, charts, event.identifiers, applied)
    event = _after_birth(event, event.patient.get("birth_date") or patient.birth_date, applied)
    person = {name: value for name, value in event.patient.items() if name not in DEATH_FIELDS}
    patient, stamps, stale = _merge_fields(patient, person, chart.stamps, event.at)
    if stale:
        applied.deviations.append("stale-event")
    chart = msgspec.structs.replace(chart, patient=patient, stamps=stamps)
    if event.meaning in _STATUS and event.has_visit and event.encounter.get("class_") != _NO_VISIT_CLASS:
        chart = _apply_visit(chart, charts, event, dispositions, applied)
    elif event.meaning in _STATUS and event.meaning is not Meaning.UPDATE:
        applied.note = "no visit in the message (PV1 missing or class N)"
        # A class of N says that there is no visit: of a registration it is an answer, of all others a contradiction.
        if _STATUS[event.meaning] is not None and not (event.has_visit and event.meaning in _REGISTERING):
            applied.hold(HoldCode.VISIT_MISSING, location="PV1")
    applied.chart = settle_death(before, chart, event, dispositions, applied)
    return applied


def _speaks_of_another(chart: Chart, event: Event) -> bool:
    """The message's name and birth date are both others than the chart's, and nobody has said that it is the same.

    A message of which the chart has something already, sent again, was taken then.
    """
    if not is_another(chart.patient, event.patient) or event.believed(HoldCode.PERSON_CONTRADICTED, "PID-5"):
        return False
    taken = chain(chart.stamps.values(), *(stamps.values() for stamps in chart.encounter_stamps.values()))
    return all(entry != event.at[1] for _, entry in taken)


def _after_birth(event: Event, born: str | None, applied: Applied) -> Event:
    """The event without times from before the patient was born; a birth date to come is no help."""
    claims = event.claims
    if not born or claims is None or not (early := claims.before(born)):
        return event
    return event if is_before(claims.received_at, born) else _without(event, claims, early, applied)


def _without(event: Event, claims: Claims, early: list[str], applied: Applied) -> Event:
    """The event with the next best sources in the place of times that are before what it builds on."""
    applied.deviations.extend(f"{IMPLAUSIBLE}:{source}" for source in early)
    claims = claims.without(early)
    return msgspec.structs.replace(
        event,
        at=(claims.recorded(), event.at[1]),
        sent=claims.sent(),
        event_time=claims.happened(),
        claims=claims,
    )


def merges_in_doubt(charts: Charts, events: tuple[Event, ...], merges: tuple[Merge, ...]) -> dict[Merge, Chart]:
    """Merges whose PID speaks of another person than the chart it leads to: each with that chart.

    That is the chart of the number that survives; where it does not know who it is about, that of the number that goes.
    """
    found: dict[Merge, Chart] = {}
    by_key = {event.identifiers[0]: event for event in events}
    for merge in merges:
        event, survivor, merged = by_key.get(merge.survivor), charts.find(merge.survivor), charts.find(merge.merged)
        known = survivor is not None and survivor.patient.name is not None and survivor.patient.birth_date is not None
        chart = survivor if known else merged
        if event is not None and chart is not None and _speaks_of_another(chart, event):
            found[merge] = chart
    return found


def apply_merges(charts: Charts, merges: tuple[Merge, ...], dispositions: Dispositions, root: int) -> Applied:
    """A40: the merged identity becomes an alias of the survivor; encounters, scores and tasks follow.

    The result's `chart` is the survivor of the last pair; `others` holds every other chart that changed. Raises
    MessageError when the pairs contradict each other or what was merged before: which patient is meant is then for a
    person to say. root: the entry (of a replay: the original).
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
            if identity(merge.merged) == identity(survivor.patient.identifiers[0]):
                # The hospital has turned the merge round. Both identities go on leading to this patient; the key stays,
                # or every destination would have to move all that it holds, once for each change of mind.
                applied.deviations.append("merge-reversed")
                applied.hold(HoldCode.MERGE_WITHOUT_EFFECT, location="MRG-1", subject=survivor.id)
            applied.chart = survivor
            changed.setdefault(survivor.id, survivor)
            continue
        if merged is None:
            # Nothing was known of the old identity; from now on it leads to the survivor.
            merged = Chart(id=merge.merged_id, patient=Patient(identifiers=(merge.merged,)))
        elif merge.merged.key in merged.patient.merged_from:
            raise _contradiction("the identity in MRG-1 was merged into another patient before", "MRG-1")
        contradicted = merge_contradicts_death(survivor, merged, dispositions)
        survivor, merged = _fold(survivor, merged)
        if contradicted:
            survivor = _death_in_doubt(survivor, root)
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


def _death_in_doubt(survivor: Chart, root: int) -> Chart:
    """One of the two is dead, the other one was seen alive after that; `settle_death` asks a person."""
    code, location = HoldCode.DEATH_CONTRADICTED, "MRG-1"
    doubt = Doubt(root=root, code=code, location=location, sender=0)
    stated = survivor.death_stated
    stated = msgspec.structs.replace(stated, doubts=(*stated.doubts, doubt))
    return msgspec.structs.replace(survivor, death_stated=stated)


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
    if len(known) + len(aliases) > IDENTIFIERS_MAX:
        raise _too_many_identifiers("MRG-1")
    filled: dict[str, Any] = {}
    stamps = {**merged.stamps, **survivor.stamps}
    for name in Patient.__struct_fields__:
        mine, theirs = getattr(survivor.patient, name), getattr(merged.patient, name)
        if name in {"identifiers", "merged_from", *DEATH_FIELDS} or mine not in (None, ()) or theirs in (None, ()):
            continue
        if merged.stamps.get(name, _NEVER) < survivor.stamps.get(name, _NEVER):
            continue  # the survivor's was cleared since
        filled[name] = theirs
        stamps[name] = merged.stamps.get(name, _NEVER)
    death, said = fold_death(survivor, merged)
    stamps |= said
    if merged.patient.deceased is True:  # `settle_death` has the last word, on all that is known of the two
        filled |= {name: getattr(merged.patient, name) for name in DEATH_FIELDS}
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
        death_stated=death,
        encounters=(*survivor.encounters, *merged.encounters),
        encounter_stamps={**merged.encounter_stamps, **survivor.encounter_stamps},
        scores=(*survivor.scores, *merged.scores),
        tasks=(*survivor.tasks, *merged.tasks),
    )
    merged = msgspec.structs.replace(
        merged, merged_into=survivor.id, encounters=(), encounter_stamps={}, scores=(), tasks=()
    )
    return survivor, merged


def _too_many_identifiers(location: str) -> MessageError:
    return MessageError(
        "identifiers-too-many",
        f"the patient would have more than {IDENTIFIERS_MAX} identifiers: something is wrong with the sender's numbers",
        hl7_code=DATA_TYPE,
        location=location,
    )


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
    if len(known) > IDENTIFIERS_MAX:
        raise _too_many_identifiers("PID-3")
    return msgspec.structs.replace(chart.patient, identifiers=(*chart.patient.identifiers, *added))


def _merge_fields(
    record: _R, values: Mapping[str, Any], stamps: Mapping[str, Stamp], at: Stamp
) -> tuple[_R, dict[str, Stamp], bool]:
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
        if _STATUS[event.meaning] is not None:
            applied.hold(HoldCode.ENCOUNTER_UNKNOWN, location="PV1-19")
        return chart
    key, known = found
    before = known or Encounter(key=key, visit_number=event.visit_number, account=event.account)
    stamps = dict(chart.encounter_stamps.get(key, {}))
    values = dict(event.encounter)
    _drop_implausible(known, event, values, chart.patient.birth_date, applied)
    event = _after_admission(before, event, values, stamps, applied)
    if values.get("disposition"):
        values["disposition"] = normalise(values["disposition"])
    if event.meaning is Meaning.ADMIT and "class_" not in values and before.class_ in _WITHOUT_BED:
        values["class_"] = "I"
    if event.account and before.account is None:
        values["account"] = event.account
    if event.visit_number is not None and before.visit_number is None:
        before = msgspec.structs.replace(before, visit_number=event.visit_number)
    if event.visit_authority is not None and before.visit_authority is None:
        before = msgspec.structs.replace(before, visit_authority=event.visit_authority)
    status, as_of = _next_status(before, known is None, event, values, stamps, dispositions, applied)
    if as_of is not None:
        _note_status(before, event, values, as_of, stamps)
    if status is EncounterStatus.FINISHED and _still_here(values, dispositions):
        _reject_still_here(before, event, values, stamps, applied)
    ends_at = as_of or event.at  # what it says of the end counts like its status, be it recorded earlier or later
    if status is EncounterStatus.FINISHED and event.meaning in _ARRIVAL and applied.holds:
        values.pop("admitted_at", None)  # not the beginning of this stay
    sources = _complete_times(before, status, event, values, stamps, ends_at)
    ending: dict[str, Any] = {name: values.pop(name) for name in _DISCHARGE if name in values}
    encounter, stamps, stale = _merge_fields(before, values, stamps, event.at)
    if ending:
        encounter, stamps, stale_end = _merge_fields(encounter, ending, stamps, ends_at)
        stale = stale or stale_end
    if stale and "stale-event" not in applied.deviations:
        applied.deviations.append("stale-event")
    if status is not EncounterStatus.FINISHED:
        # Who says that the stay goes on takes back its discharge; what was said of that before is stale from now on.
        encounter = msgspec.structs.replace(encounter, discharged_at=None, disposition=None)
        if as_of is not None:
            stamps |= dict.fromkeys(_DISCHARGE, as_of)
    # A stay first seen when it had ended (an A08 with PV1-45) has no discharge yet: its A03 counts when it comes.
    discharged = (
        as_of is not None
        and event.meaning is Meaning.DISCHARGE
        and (before.status is not EncounterStatus.FINISHED or before.discharges == 0)
    )
    encounter = msgspec.structs.replace(
        encounter, status=status, time_sources=sources, discharges=before.discharges + discharged
    )
    _note_transition(before, encounter, applied, created=known is None)
    applied.encounter = key
    others = tuple(e for e in chart.encounters if e.key != key)
    return msgspec.structs.replace(
        chart,
        encounters=(*others, encounter),
        encounter_stamps={**chart.encounter_stamps, key: stamps},
    )


def _find_encounter(chart: Chart, charts: Charts, event: Event) -> tuple[str, Encounter | None] | None:
    """The encounter that the message means: its key, and what is known of it. None: it can't be told."""
    if event.visit is not None:
        known = _by_number(chart, event, event.visit)
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
        known = _not_numbered_yet(chart, event)
        return (known.key, known) if known is not None else (event.visit, None)
    if event.account is not None:
        same = [e for e in chart.encounters if e.account == event.account]
        living = [e for e in same if e.status is not EncounterStatus.CANCELLED]
        if len(living) > 1:
            raise _ambiguous("PID-18")
        if not living and event.meaning not in _OPENING and len(same) == 1:
            living = same  # more news of a cancelled one; a new one would be opened
        return (living[0].key, living[0]) if living else _made_key(chart, f"acct-{event.account}")
    known = _admitted_then(chart.encounters, event)
    if known is not None:
        return known.key, known
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
        known = _discharged_before(chart, event, event.encounter.get("discharged_at") or event.event_time[0])
        if known is not None:
            return known.key, known
        return _made_key(chart, event.encounter.get("admitted_at") or event.event_time[0])
    return None


def _by_number(chart: Chart, event: Event, key: str) -> Encounter | None:
    """The patient's own encounter of this visit number.

    A message that leaves open who gave the number may mean any of them: the authority that stands in is that of the
    patient's key, which need not be the same in every message. One that says so means an encounter of that authority,
    or one of which nobody has said yet.
    """
    said = event.visit_authority
    same = [
        e
        for e in chart.encounters
        if e.visit_number == event.visit_number
        and (said is None or e.visit_authority in {None, said})
        and (e.key == key or said == e.visit_authority or _may_have_begun_then(e, event))
    ]
    found = [e for e in same if said is not None and e.visit_authority == said]
    found = found or [e for e in same if e.key == key] or same
    if len(found) > 1 or (not found and chart.encounter(key) is not None):
        raise _ambiguous("PV1-19")
    return found[0] if found else None


def _may_have_begun_then(encounter: Encounter, event: Event) -> bool:
    begin, said = parse_moment(encounter.admitted_at), parse_moment(event.encounter.get("admitted_at"))
    return begin is None or said is None or abs(begin - said) <= timedelta(days=1)


def _not_numbered_yet(chart: Chart, event: Event) -> Encounter | None:
    """The encounter that was heard of before it had its visit number, by its account or the time of its admission.

    Taken for another one it would stay open for ever, and an open stay sets the plans of earlier ones aside.
    """
    unnumbered = tuple(e for e in chart.encounters if e.visit_number is None)
    if event.account is not None:
        open_ones = [e for e in unnumbered if e.account == event.account and e.status not in _CLOSED]
        if len(open_ones) == 1:
            return open_ones[0]
    return _admitted_then(unnumbered, event)


def _admitted_then(encounters: tuple[Encounter, ...], event: Event) -> Encounter | None:
    """The one encounter that began at the very time, to the minute at least, that the message names in PV1-44."""
    said = event.encounter.get("admitted_at")
    moment = parse_moment(said)
    if said is None or moment is None or ":" not in said:
        return None
    found = [
        e
        for e in encounters
        if e.status is not EncounterStatus.CANCELLED
        and (e.admitted_at == said or parse_moment(e.admitted_at) == moment)
    ]
    return found[0] if len(found) == 1 else None


def _discharged_before(chart: Chart, event: Event, at: str) -> Encounter | None:
    """The one stay that a discharge at that time can have ended: the same discharge, said again."""
    ended = [e for e in chart.encounters if e.status in _ENDED and _may_be_same(e, event)]
    found = [encounter for encounter in ended if encounter.discharged_at == at]
    moment = parse_moment(at)
    if not found and moment is not None:
        found = [e for e in ended if _lasted_over(e, moment)] or _ended_shortly_before(ended, moment)
    return found[0] if len(found) == 1 else None


def _may_be_same(encounter: Encounter, event: Event) -> bool:
    """Nothing that the message says of the stay is against it."""
    admitted = parse_moment(event.encounter.get("admitted_at"))
    if admitted is not None and parse_moment(encounter.admitted_at) not in {None, admitted}:
        return False
    return event.encounter.get("class_") in {None, encounter.class_} or encounter.class_ is None


def _lasted_over(encounter: Encounter, moment: datetime) -> bool:
    begin, end = parse_moment(encounter.admitted_at), parse_moment(encounter.discharged_at)
    return begin is not None and end is not None and begin <= moment <= end


def _ended_shortly_before(ended: list[Encounter], moment: datetime) -> list[Encounter]:
    return [
        encounter
        for encounter in ended
        if (end := parse_moment(encounter.discharged_at)) is not None and end <= moment <= end + _SAID_AGAIN
    ]


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


def _drop_implausible(
    known: Encounter | None, event: Event, values: dict[str, Any], born: str | None, applied: Applied
) -> None:
    """Leave out a PV1-44 or PV1-45 that can't be true: the event's own time stands in, where it is one."""
    claims = event.claims
    if claims is None:
        return
    planned = event.meaning is Meaning.PRE_ADMIT or (
        known is not None and known.status is EncounterStatus.PLANNED and event.meaning not in _ARRIVED
    )
    if born and is_before(claims.received_at, born):
        born = None  # a birth date to come is wrong, and no measure of other times
    for name, location in (("admitted_at", "PV1-44"), ("discharged_at", "PV1-45")):
        text = values.get(name)
        if not text or (planned and name == "admitted_at"):
            continue
        if not claims.plausible(text) or (born and text[:4] <= born[:4] and is_before(text, born)):
            del values[name]
            applied.deviations.append(f"{IMPLAUSIBLE}:{location}")


def _after_admission(
    before: Encounter, event: Event, values: dict[str, Any], stamps: Mapping[str, Stamp], applied: Applied
) -> Event:
    """A discharge is not before the admission of its stay: that which the message names, else that which is known.

    An admission that lies ahead is a plan, or came from a wrong clock: no discharge is measured by it. What the same
    sender sent before that admission stays so: it may be the end of an earlier stay under the number.
    """
    claims = event.claims
    begin = values.get("admitted_at") or before.admitted_at
    if claims is None or not begin:
        return event
    early = claims.before(begin) if event.meaning is Meaning.DISCHARGE else []
    ended = values.get("discharged_at")
    ended_early = ended is not None and is_before(ended, begin)
    if not (early or ended_early) or not claims.plausible(begin):
        return event
    if ended_early:
        del values["discharged_at"]
        applied.deviations.append(f"{IMPLAUSIBLE}:PV1-45")
    if not early:
        return event
    later = _without(event, claims, early, applied)
    sent, sender = stamps.get("status_sent", _NEVER)
    if event.sender and event.sender == sender and event.sent < sent:
        return msgspec.structs.replace(later, sent=event.sent)
    return later


def _is_decided(event: Event) -> bool:
    """A person has said that the status that the event asserts is that of the stay now."""
    return event.decided_at is not None and any(event.believed(code) for code in _STATUS_QUESTIONS)


def _as_of(event: Event, stamps: Mapping[str, Stamp]) -> Stamp | None:
    """As of when a status event counts; none: it is older than the one that the stay has its status from.

    Of two events of one sender the one that was sent later is the later one, whatever time it claims: an A03 after an
    A13 is often back-dated to the true end. Between senders, whose clocks differ, the time of the event decides.
    """
    if _is_decided(event):
        return event.decided_at
    last = stamps.get("status")
    if last is None:
        return event.at
    sent, sender = stamps.get("status_sent", _NEVER)
    if not event.sender or event.sender != sender:
        if event.at[1] > last[1] and event.at[0] > last[0] - SAME_SECONDS:  # as good as at once: arrival decides
            return (max(event.at[0], last[0]), event.at[1])
        return event.at if event.at >= last else None
    within = _TICK_SECONDS if event.at[1] > last[1] else 0.0
    if (event.sent + within, event.at[1]) < (sent, last[1]):
        return None
    return event.at if event.at >= last else (max(last[0], event.sent), event.at[1])


_TICK_SECONDS: Final = 0.999
"""MSH-7 gives whole seconds as a rule, a receipt that stands in for it has fractions: within one, arrival decides."""


def _note_status(
    before: Encounter, event: Event, values: Mapping[str, Any], as_of: Stamp, stamps: dict[str, Stamp]
) -> None:
    """Stamps of the event that the stay has its status from.

    `status`: as of when. `status_sent`: when it was sent, and by whom. `arrival`: the first admission that was seen.
    `taken_back`: it took a discharge back, or is a second admission, before which there must have been one.
    """
    decided = as_of == event.decided_at
    stamps["status"] = as_of
    stamps["status_sent"] = (as_of[0] if decided else event.sent, event.sender)
    if event.meaning is Meaning.DISCHARGE:
        stamps.pop("taken_back", None)
    elif (
        event.meaning is Meaning.CANCEL_DISCHARGE
        or before.status in _ENDED
        or (event.meaning in _ARRIVAL and _is_another_admission(before, values, stamps))
    ):
        stamps["taken_back"] = as_of
    if event.meaning in _ARRIVAL:
        stamps.setdefault("arrival", as_of)
    if event.meaning is Meaning.DISCHARGE or "taken_back" in stamps:
        if decided:  # whatever was said before it
            for name in [name for name in stamps if name.startswith(_TURNED)]:
                del stamps[name]
            stamps[f"{_TURNED}{event.sender}"] = (as_of[0], 0)
        else:
            _note_turn(event, stamps)


_TURNED: Final = "turned:"
_TURNED_MAX: Final = 8
"""Senders that are remembered of a stay."""


def _note_turn(event: Event, stamps: dict[str, Stamp]) -> None:
    """Stamp `turned:SENDER`: when a sender's last word on the end of the stay was received, and its clock then."""
    if event.claims is None:
        return
    place = f"{_TURNED}{event.sender}"
    received, clock = stamps.pop(place, _NEVER)
    stamps[place] = (max(received, event.claims.received), max(clock, event.claims.clock))
    turned = [name for name in stamps if name.startswith(_TURNED)]
    for name in turned[:-_TURNED_MAX]:
        del stamps[name]


def _is_certain(event: Event, stamps: Mapping[str, Stamp]) -> bool:
    """Whether it was surely said after all that was said of the end of the stay until now.

    What takes a discharge back, or ends a stay again after that, is believed only when no wrong clock can have turned
    the two round: by the clock of the one sender that said both, however wrong that is; of two senders when it was
    recorded after the other one's message had come here.
    """
    claims = event.claims
    if claims is None or _is_decided(event):
        return True
    own = f"{_TURNED}{event.sender}" if event.sender else None
    for name, (received, clock) in stamps.items():
        if not name.startswith(_TURNED):
            continue
        if name == own:
            if clock and claims.clock and claims.clock < clock:
                return False
        elif not claims.surely_after(received):
            return False
    return True


def _was_sent_before(event: Event, stamps: Mapping[str, Stamp]) -> bool:
    """Whether the sender's own clock says that this was before its last word on the end of the stay."""
    _, clock = stamps.get(f"{_TURNED}{event.sender}", _NEVER)
    return event.claims is None or 0 < event.claims.clock < clock


_UNCERTAIN: Final = (
    "whether the event or the one that the chart goes by came last can't be told from their clocks;"
    " release it if it is true now, dismiss it if it is old news"
)
_UNSEEN: Final = (
    "an admission of a stay that has ended, and whose beginning was not seen: it may be that beginning, or a new stay;"
    " release it if the patient is in the hospital now, dismiss it if not"
)


def _next_status(
    before: Encounter,
    created: bool,  # noqa: FBT001
    event: Event,
    values: dict[str, Any],
    stamps: dict[str, Stamp],
    dispositions: Dispositions,
    applied: Applied,
) -> tuple[EncounterStatus, Stamp | None]:
    """The status after the event; and as of when, if the event decided it."""
    asserted = _STATUS[event.meaning]
    if (
        asserted is None
    ):  # A02, A08: they assert nothing, but of a stay whose admission we did not see they tell as much
        if not created:
            return before.status, None
        ended = values.get("discharged_at") and not _still_here(values, dispositions)
        return (EncounterStatus.FINISHED if ended else EncounterStatus.ACTIVE), None
    as_of = _as_of(event, stamps)
    still_here = event.meaning is Meaning.DISCHARGE and _still_here(values, dispositions)
    if as_of is None:
        applied.deviations.append("stale-event")
        gone_on = event.meaning in _OPENING and before.status in _GONE_ON[asserted]
        if gone_on and event.meaning in _ARRIVAL and before.status in _ENDED:
            gone_on = _was_sent_before(event, stamps) or _is_beginning(before, values, stamps)
        if asserted is not before.status and not gone_on and not still_here:
            applied.hold(HoldCode.STATUS_EVENT_STALE, subject=before.key)
        elif _cancels_nothing(before, event):
            applied.hold(HoldCode.NOTHING_TO_CANCEL, subject=before.key)
        elif event.meaning in _TURNING:
            _note_turn(event, stamps)
        elif event.meaning in _ARRIVAL and before.status in _OPEN and _is_another_admission(before, values, stamps):
            stamps["taken_back"] = event.at
            _note_turn(event, stamps)
        return before.status, None
    if still_here and event.believed(HoldCode.DISPOSITION_IS_NO_DISCHARGE):
        del values["disposition"]
    elif still_here:
        ended = before.status is EncounterStatus.FINISHED
        applied.hold(
            HoldCode.DISPOSITION_IS_NO_DISCHARGE, subject=before.key, detail=_STILL_HERE_AFTER_END if ended else ""
        )
        _note_still_here(before, applied, "PV1-36 says that the patient is still here: not taken as a discharge")
        for name in _DISCHARGE:
            values.pop(name, None)
        return (EncounterStatus.ACTIVE if created else before.status), None
    if not created:
        if event.meaning is Meaning.PRE_ADMIT and before.status not in _NOT_ARRIVED:
            return before.status, None
        if event.meaning is Meaning.CANCEL_DISCHARGE and before.status is EncounterStatus.ACTIVE:
            applied.note = "the encounter is not discharged: nothing to cancel"
            if _cancels_nothing(before, event) and not event.believed(HoldCode.NOTHING_TO_CANCEL):
                applied.hold(HoldCode.NOTHING_TO_CANCEL, subject=before.key)
        if (
            not _is_decided(event)
            and event.meaning in _ARRIVAL
            and before.status in _ENDED
            and _is_beginning(before, values, stamps)
        ):
            applied.note = "the admission of a stay that has ended already: not taken as a new one"
            applied.deviations.append("admission-after-discharge")
            return before.status, None
        unseen = event.claims is not None and "arrival" not in stamps
        if before.status in _ENDED and event.meaning in _ARRIVAL and unseen:
            return _leave_open(before, event, applied, _UNSEEN) or (asserted, as_of)
        turned = asserted is not before.status and (
            before.status in _ENDED or (event.meaning is Meaning.DISCHARGE and "taken_back" in stamps)
        )
        in_doubt = event.meaning in _ARRIVAL and before.status in _ENDED and _same_stay(before, values)
        if turned and (in_doubt or not _is_certain(event, stamps)):
            return _leave_open(before, event, applied, _UNCERTAIN) or (asserted, as_of)
    return asserted, as_of


def _cancels_nothing(before: Encounter, event: Event) -> bool:
    """The cancel of a discharge that was not seen.

    A stay that was discharged, and is not any more, had its discharge cancelled: this says so again.
    """
    return (
        event.meaning is Meaning.CANCEL_DISCHARGE and before.status is EncounterStatus.ACTIVE and before.discharges == 0
    )


def _leave_open(before: Encounter, event: Event, applied: Applied, detail: str) -> tuple[EncounterStatus, None] | None:
    """Leave to a person what the status is; none: one has decided it."""
    if _is_decided(event):
        return None
    applied.deviations.append("status-order-uncertain")
    applied.hold(HoldCode.STATUS_EVENT_STALE, subject=before.key, detail=detail)
    return before.status, None


def _is_beginning(before: Encounter, values: Mapping[str, Any], stamps: Mapping[str, Stamp]) -> bool:
    """Whether an admission is the beginning of a stay that has ended, beyond doubt: it names no other one than ours."""
    return not _is_another_admission(before, values, stamps) and _same_stay(before, values)


def _is_another_admission(before: Encounter, values: Mapping[str, Any], stamps: Mapping[str, Stamp]) -> bool:
    """Whether an admission of the same class was seen already, at another time."""
    if "arrival" not in stamps or values.get("class_", before.class_) != before.class_:
        return False
    said, known = parse_moment(values.get("admitted_at")), parse_moment(before.admitted_at)
    return said is not None and known is not None and said != known


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
    before: Encounter,
    status: EncounterStatus,
    event: Event,
    values: dict[str, Any],
    stamps: Mapping[str, Stamp],
    ends_at: Stamp,
) -> dict[str, str]:
    """Fill admission and discharge times from the event where PV1-44/45 are empty; say where each came from."""
    sources = dict(before.time_sources)
    if event.meaning in _ARRIVAL and not values.get("admitted_at"):
        values.pop("admitted_at", None)  # an arrival has a time: a null would only make way for that of the event
        known = before.admitted_at
        if (known is None or _lies_ahead(known, event)) and not _ends_before(before, status, event):
            _from_event("admitted_at", event, values, sources)
    else:
        _note_source("admitted_at", "PV1-44", event.at, values, stamps, sources)
    if status is not EncounterStatus.FINISHED:
        for name in _DISCHARGE:
            values.pop(name, None)
        sources.pop("discharged_at", None)
    elif event.meaning is Meaning.DISCHARGE and not values.get("discharged_at"):
        values.pop("discharged_at", None)  # as above
        if before.discharged_at is None or before.status is not EncounterStatus.FINISHED:
            _from_event("discharged_at", event, values, sources)
    else:
        _note_source("discharged_at", "PV1-45", ends_at, values, stamps, sources)
    return sources


def _ends_before(before: Encounter, status: EncounterStatus, event: Event) -> bool:
    """The event was after the end of a stay that has ended."""
    if status is not EncounterStatus.FINISHED or before.discharged_at is None or event.event_time is None:
        return False
    return is_before(before.discharged_at, event.event_time[0])


def _lies_ahead(text: str, event: Event) -> bool:
    """A planned admission that has come to pass before its time."""
    return event.claims is not None and is_before(event.claims.received_at, text)


def _note_source(
    name: str,
    location: str,
    at: Stamp,
    values: Mapping[str, Any],
    stamps: Mapping[str, Stamp],
    sources: dict[str, str],
) -> None:
    """Say where a time comes from that the event sets or clears."""
    if name not in values or at < stamps.get(name, at):
        return
    if values[name]:
        sources[name] = location
    else:
        sources.pop(name, None)


def _from_event(name: str, event: Event, values: dict[str, Any], sources: dict[str, str]) -> None:
    if event.event_time is not None:
        values[name], sources[name] = event.event_time


def _still_here(values: Mapping[str, Any], dispositions: Dispositions) -> bool:
    return bool(values.get("disposition")) and dispositions.of(values["disposition"]).action is Action.NOT_A_DISCHARGE


def _reject_still_here(
    before: Encounter, event: Event, values: dict[str, Any], stamps: Mapping[str, Stamp], applied: Applied
) -> None:
    """PV1-36 of a stay that has ended says that the patient is still there.

    An end is taken back by its cancel (A13), never by an update: the plan that rests on it would go without a trace.
    """
    for name in _DISCHARGE:
        values.pop(name, None)
    if event.at < max(stamps.get("status", event.at), stamps.get("disposition", event.at)):
        return  # it was true then
    _note_still_here(before, applied, "PV1-36 says that the patient is still here: the discharge stands until an A13")


def _note_still_here(encounter: Encounter, applied: Applied, note: str) -> None:
    applied.deviations.append("disposition-is-no-discharge")
    applied.effects.append(Effect(kind="data-quality", subject=encounter.key, detail="PV1-36: still a patient"))
    applied.note = note


def _note_transition(before: Encounter, after: Encounter, applied: Applied, *, created: bool) -> None:
    if created:
        applied.effects.append(Effect(kind="encounter-created", subject=after.key, detail=after.status))
    elif before.status is not after.status:
        applied.effects.append(Effect(kind=f"encounter-{after.status}", subject=after.key))
