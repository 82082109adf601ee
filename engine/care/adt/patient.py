"""The way of an event through a patient's chart, and what it says of the patient."""

from __future__ import annotations

from typing import Final

import msgspec

from engine.care.adt.death import FIELDS as DEATH_FIELDS
from engine.care.adt.death import settle_death
from engine.care.adt.event import REGISTERING, STATUS, Applied, Event, Meaning, implausible
from engine.care.adt.fields import merge_fields
from engine.care.adt.stay import apply_visit
from engine.care.dispositions import Dispositions
from engine.care.person import is_another
from engine.care.times import is_before
from engine.domain.chart import Chart, Charts, identity
from engine.domain.hold import HoldCode
from engine.domain.outcome import Effect
from engine.domain.parts import stamps_of
from engine.domain.patient import Identifier, Patient
from engine.errors import DATA_TYPE, MessageError

IDENTIFIERS_MAX: Final = 500
"""Of one patient, those of merged ones included: each change of the patient carries them all to the destinations."""

_NO_VISIT_CLASS: Final = "N"
"""PV1-2 `N`, not applicable: the message speaks of no visit (HL7 table 0004)."""


def apply_event(charts: Charts, event: Event, dispositions: Dispositions) -> Applied:
    """The new version of the patient's chart. Raises MessageError when the message can't be put on one patient."""
    applied = Applied()
    key = event.identifiers[0]
    chart = charts.find(key)
    if chart is None:
        chart = Chart(id=event.chart_id, patient=Patient(identifiers=(key,)))
        applied.effects.append(Effect(kind="patient-created", subject=chart.id))
    elif speaks_of_another(chart, event):
        applied.hold(HoldCode.PERSON_CONTRADICTED, location="PID-5")
        applied.chart = chart
        return applied
    before = chart
    patient, foreign = _with_identifiers(chart, charts, event.identifiers)
    applied.deviations.extend(foreign)
    event, early = _after_birth(event, event.patient.get("birth_date") or patient.birth_date)
    applied.deviations.extend(implausible(early))
    person = event.patient
    if any(name in person for name in DEATH_FIELDS):
        person = {name: value for name, value in person.items() if name not in DEATH_FIELDS}
    patient, stamps, stale = merge_fields(patient, person, chart.stamps, event.at)
    if stale:
        applied.deviate("stale-event")
    chart = msgspec.structs.replace(chart, patient=patient, stamps=stamps)
    if event.meaning in STATUS:
        chart = _on_its_visit(chart, charts, event, dispositions, applied)
    applied.chart = settle_death(before, chart, event, dispositions, applied)
    return applied


def _on_its_visit(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied) -> Chart:
    """The chart with what the event says of the visit that it speaks of, if of any."""
    if event.has_visit and event.encounter.get("class_") != _NO_VISIT_CLASS:
        return apply_visit(chart, charts, event, dispositions, applied)
    if event.meaning is not Meaning.UPDATE:
        applied.note = "no visit in the message (PV1 missing or class N)"
        # A class of N says that there is no visit: of a registration it is an answer, of all others a contradiction.
        asserted = STATUS[event.meaning]
        if asserted is not None and not (event.has_visit and event.meaning in REGISTERING):
            applied.hold(HoldCode.VISIT_MISSING, location="PV1", asserts=event.assertion(asserted))
    return chart


def speaks_of_another(chart: Chart, event: Event) -> bool:
    """The message's name and birth date are both others than the chart's, and nobody has said that it is the same.

    A message of which the chart has something already, sent again, was taken then.
    """
    if not is_another(chart.patient, event.patient) or event.believed(HoldCode.PERSON_CONTRADICTED, "PID-5"):
        return False
    chart.need_whole()
    return all(entry != event.at[1] for _, entry in stamps_of(chart))


def too_many_identifiers(location: str) -> MessageError:
    return MessageError(
        "identifiers-too-many",
        f"the patient would have more than {IDENTIFIERS_MAX} identifiers: something is wrong with the sender's numbers",
        hl7_code=DATA_TYPE,
        location=location,
    )


def _after_birth(event: Event, born: str | None) -> tuple[Event, list[str]]:
    """The event without times from before the patient was born, and these; a birth date to come is no help."""
    claims = event.claims
    if not born or claims is None or not (early := claims.before(born)) or is_before(claims.received_at, born):
        return event, []
    return event.without_times(claims, early), early


def _with_identifiers(chart: Chart, charts: Charts, identifiers: tuple[Identifier, ...]) -> tuple[Patient, list[str]]:
    """The patient with the message's identifiers; a deviation for each that is another patient's."""
    known = {identity(identifier) for identifier in chart.patient.identifiers}
    added: list[Identifier] = []
    foreign: list[str] = []
    for identifier in identifiers:
        if identity(identifier) in known:
            continue
        owner = charts.find(identifier)
        if owner is not None and owner.id != chart.id:
            foreign.append("identifier-of-another-patient")
            continue
        known.add(identity(identifier))
        added.append(identifier)
    if not added:
        return chart.patient, foreign
    if len(known) > IDENTIFIERS_MAX:
        raise too_many_identifiers("PID-3")
    return msgspec.structs.replace(chart.patient, identifiers=(*chart.patient.identifiers, *added)), foreign
