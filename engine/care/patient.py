"""Whose a message is, and its way through that patient's chart: the same for messages of all codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from engine.care.death import FIELDS as DEATH_FIELDS
from engine.care.death import settle_death
from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent, implausible
from engine.care.fields import merge_fields
from engine.care.forgotten import DELETED, is_somebody, remembered
from engine.care.person import is_another
from engine.care.times import is_before
from engine.domain.chart import Chart, Charts, identity
from engine.domain.hold import Hold, HoldCode
from engine.domain.moment import Moment
from engine.domain.outcome import Effect
from engine.domain.parts import stamps_of
from engine.domain.patient import Identifier, Patient
from engine.domain.quality import QualityKind
from engine.domain.record import Phi
from engine.errors import DATA_TYPE, MessageError

IDENTIFIERS_MAX: Final = 500
"""Of one patient, those of merged ones included: each change of the patient carries them all to the destinations."""

E = TypeVar("E", bound=PatientEvent)


class Known(Phi, frozen=True, kw_only=True):
    """The number leads to this chart, merges followed, and the message speaks of the same person."""

    chart: Chart


class New(Phi, frozen=True, kw_only=True):
    """Nobody has the number yet: a chart with nothing else in it."""

    chart: Chart


class Asked(Phi, frozen=True, kw_only=True):
    """The number leads to this chart, but the message seems to speak of somebody else: a person must say."""

    chart: Chart
    hold: Hold


Whose = Known | New | Asked
"""Whose a message is. One that can't be put on one patient is refused by its reader: it never gets here."""


def whose(charts: Charts, event: PatientEvent) -> Whose:
    """Who the patient is (decision 3)."""
    key = event.identifiers[0]
    chart = charts.find(key)
    if chart is None:
        return New(chart=Chart(id=event.chart_id, patient=Patient(identifiers=(key,))))
    if speaks_of_another(chart, event):
        return Asked(chart=chart, hold=Hold(code=HoldCode.PERSON_CONTRADICTED, location="PID-5"))
    return Known(chart=chart)


Rule = Callable[[Chart, Charts, E, Dispositions, Applied], Chart]
"""What messages of one code do to a chart beyond what they say of the person: a stay, an appointment.

What else comes of it (effects, deviations, holds, a note) goes to `Applied`. May raise MessageError: the message is
refused.
"""


def apply_event(charts: Charts, event: E, dispositions: Dispositions, rule: Rule[E]) -> Applied:
    """The new version of the patient's chart. Raises MessageError when the message can't be put on one patient."""
    applied = Applied()
    found = whose(charts, event)
    before = chart = found.chart
    if isinstance(found, Asked):
        applied.holds.append(found.hold)
        applied.chart = chart
        return applied
    if isinstance(found, New):
        applied.effects.append(Effect(kind="patient-created", subject=chart.id))
    patient, foreign = _with_identifiers(chart, charts, event.identifiers)
    applied.deviations.extend(foreign)
    born: Moment | None = event.patient.get("birth_date")
    if born is not None and event.claims is not None and is_before(event.claims.received_at, born):
        applied.quality(QualityKind.BIRTH_IN_FUTURE)
    event, early = _after_birth(event, event.patient.get("birth_date") or patient.birth_date)
    applied.deviations.extend(implausible(early))
    person = event.patient
    if any(name in person for name in DEATH_FIELDS):
        person = {name: value for name, value in person.items() if name not in DEATH_FIELDS}
    patient, stamps, stale = merge_fields(patient, person, chart.stamps, event.at)
    if stale:
        applied.deviate("stale-event")
    chart = rule(msgspec.structs.replace(chart, patient=patient, stamps=stamps), charts, event, dispositions, applied)
    if DELETED in chart.stamps and is_somebody(chart, event.at, applied):
        chart = remembered(chart)
        patient, stamps, _ = merge_fields(chart.patient, person, chart.stamps, event.at)
        chart = msgspec.structs.replace(chart, patient=patient, stamps=stamps)
    applied.chart = settle_death(before, chart, event, dispositions, applied)
    return applied


def speaks_of_another(chart: Chart, event: PatientEvent) -> bool:
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


def _after_birth(event: E, born: Moment | None) -> tuple[E, list[str]]:
    """The event without times from before the patient was born, and these; a birth date to come is no help."""
    claims = event.claims
    if born is None or claims is None or not (early := claims.before(born)) or is_before(claims.received_at, born):
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
