"""What an SIU message says of an appointment, and of whose it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from engine.care.appointments import (
    EVENT_UNKNOWN,
    RESOURCES,
    AppointmentEvent,
    Told,
    on_its_appointment,
    times_of,
)
from engine.domain.appointment import OFF, OWN_PREFIX
from engine.domain.chart import Charts
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.domain.patient import Identifier
from engine.errors import REQUIRED_FIELD_MISSING, MessageError
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Reading
from engine.mapping.targets import CODED, ENTITY, INTEGER, LOCATION, PROVIDER, TEXT, TIME, Targets, record
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.events import decide_events
from engine.pipeline.identity import visit_authority_of
from engine.pipeline.outcomes import belonging, recorded_only
from engine.pipeline.person import event_of, prepared_event, read_patient
from engine.pipeline.prepared import Prepared

CODE: Final = "SIU"
"""MSH-9.1."""

PATIENTS_MAX: Final = 100
"""Of one message: a group's session has a PID for each of them."""

SIU_TARGETS: Final[Targets] = record(
    "appointment",
    filler=ENTITY,
    placer=ENTITY,
    schedule=ENTITY,
    filler_status=CODED,
    event_reason=CODED,
    starts_at=TIME,
    ends_at=TIME,
    duration=INTEGER,
    duration_unit=TEXT,
    type=CODED,
    reason=CODED,
    service=CODED,
    location=LOCATION,
    clinician=PROVIDER,
    removed_service=CODED,
    removed_location=LOCATION,
    removed_clinician=PROVIDER,
)
"""What field mappings can fill."""

_OWN: Final = ("type", "reason", *RESOURCES)


def read_siu(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading) -> Prepared:
    """What an SIU message says of charts. Raises MessageError and MappingError."""
    trigger, rules = message.header.trigger_event, channel.appointments
    if rules is None or not rules.knows(trigger):
        noted = msgspec.structs.replace(entry, deviations=(*entry.deviations, f"{EVENT_UNKNOWN}:MSH-9"))
        return belonging(
            recorded_only(noted if rules is not None else entry, channel, message.header), channel, message
        )
    if rules.of_nobody(trigger):
        return recorded_only(entry, channel, message.header)
    groups = message.groups("PID")
    if len(groups) > PATIENTS_MAX:
        text = f"more than {PATIENTS_MAX} patients in one message"
        raise MessageError("segment-repeated", text, location="PID")
    mapped = [read_patient(channel, group, reading) for group in groups or [message]]
    said = channel.mapping.read("appointment", message, reading)
    told = rules.told(trigger, said.get("filler_status"), said.get("event_reason"))
    times, noted_times = times_of(said, rules.longest)
    reading += (*told.notes, *noted_times)
    fields = {} if told.resources is not None else times
    fields |= {name: said[name] for name in _OWN if name in said}
    if told.status in OFF:  # then its resources are cancelled with it, and are its own all the same
        fields = {name: said[f"removed_{name}"] for name in RESOURCES if f"removed_{name}" in said} | fields
    removed = _removed(said, told, fields)
    events = [
        _event(entry, channel, message, one, reading, said, told=told, fields=fields, removed=removed) for one in mapped
    ]
    found = [
        prepared_event(CODE, entry, channel, message, one, event, reading)
        for one, event in zip(mapped, events, strict=True)
    ]
    identities = frozenset().union(*(one.identities for one in found))
    return msgspec.structs.replace(found[0], events=tuple(events), identities=identities)


def decide_siu(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Raises MessageError and MappingError."""
    return decide_events(prepared, channel, charts, now, on_its_appointment)


def _numbers(said: dict[str, Any], mapped: Mapped, places: tuple[str, ...]) -> tuple[Identifier, ...]:
    visit = Identifier(value=mapped.visit.value, authority="") if mapped.visit is not None else None
    named = {name: said.get(name) for name in ("filler", "placer", "schedule")} | {"visit": visit}
    known = {
        name: Identifier(value=one.value, authority=one.authority, type=name) for name, one in named.items() if one
    }
    found = tuple(known[place] for place in places if place in known)
    placer = known.get("placer")
    if placer is not None and placer.value.startswith(OWN_PREFIX) and placer not in found:
        found = (*found, placer)  # it answers a request of ours
    if not found:
        raise MessageError(
            "appointment-number-missing",
            f"the appointment has no number: the channel's map looks for it at {', '.join(places)}",
            hl7_code=REQUIRED_FIELD_MISSING,
            location="SCH-2",
        )
    return found


def _removed(said: dict[str, Any], told: Told, fields: dict[str, Any]) -> dict[str, Any]:
    """The resources that an event takes away: those that are marked so, else all that it names."""
    if told.resources is None:
        return {}
    marked = {name: said[f"removed_{name}"] for name in RESOURCES if f"removed_{name}" in said}
    if marked or told.resources == "set":
        return marked
    return {name: fields.pop(name) for name in RESOURCES if name in fields}


def _event(
    entry: Entry,
    channel: CompiledChannel,
    message: Message,
    mapped: Mapped,
    reading: Reading,
    said: dict[str, Any],
    **own: Any,
) -> AppointmentEvent:
    assert channel.appointments is not None  # noqa: S101  # as the caller has seen
    numbers = _numbers(said, mapped, channel.appointments.id)
    authority = numbers[0].authority or channel.settings.default_authority
    event = event_of(
        AppointmentEvent,
        entry,
        channel,
        message.header,
        mapped,
        reading,
        numbers=numbers,
        new_id=channel.key("appointment", numbers[0].type, authority, numbers[0].value),
        **own,
    )
    if mapped.visit is None or not mapped.visit.value:
        return event
    visit = (
        f"{visit_authority_of(mapped.visit, channel, reading) or event.identifiers[0].authority}:{mapped.visit.value}"
    )
    return msgspec.structs.replace(event, fields={**event.fields, "visit": visit})
