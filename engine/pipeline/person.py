"""Reading whose a message is: the same for all codes.

A reader of a code says what else its messages say (`care.event.PatientEvent` with more fields), and leaves the rest to
these: which number is the patient's key, what is said of the person, when it was said, and what has to be loaded for
it. A message that can't be put on one patient is refused here, by a MessageError with the reason. Who the patient then
is, the charts say: `care.patient.whose`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, timedelta
from typing import Any, Final, TypeVar
from zlib import crc32

from engine.care.event import PatientEvent
from engine.care.times import believed
from engine.domain.message import Entry
from engine.domain.moment import Moment
from engine.domain.patient import Identifier
from engine.errors import SEGMENT_SEQUENCE, MessageError
from engine.hl7v2.header import Header
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Reading
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.identity import ordered, with_namesakes
from engine.pipeline.outcomes import received
from engine.pipeline.prepared import Prepared

E = TypeVar("E", bound=PatientEvent)

ONCE: Final = ("EVN", "PID", "PV1", "MRG")
"""Segments that a message has once, or once for each patient of a merge (HL7 v2.9.1 chapter 3, message structures)."""


def read_patient(channel: CompiledChannel, message: Message, reading: Reading) -> Mapped:
    """What the field mapping makes of a message that speaks of one patient. Raises MessageError and MappingError."""
    if not message.segments("PID"):
        raise MessageError("pid-missing", "the PID segment is missing", hl7_code=SEGMENT_SEQUENCE, location="PID")
    check_single(message)
    reading.zone = channel.zones.choose(message, reading)
    return channel.mapping.apply(message, reading)


def event_of(
    kind: type[E],
    entry: Entry,
    channel: CompiledChannel,
    header: Header,
    mapped: Mapped,
    reading: Reading,
    *,
    identifiers: tuple[Identifier, ...] | None = None,
    times: Mapping[str, Moment] | None = None,
    **own: Any,
) -> E:
    """A message in the engine's words. Raises MessageError when it names nobody who may be its patient.

    identifiers: as `identity.ordered` has put them; none: those of PID-3. times: of the event, where the message has
    better ones than `event_times` gives. own: the fields that `kind` adds.
    """
    if identifiers is None:
        identifiers = ordered(mapped.identifiers, channel, reading)
    order = channel.settings.order
    claims = believed(
        event_times(entry, channel, mapped, reading) if times is None else times,
        received(entry),
        ahead_seconds=order.ahead_seconds_max,
        behind_seconds=order.behind_days_max * 86_400,
        notes=reading,
    )
    return kind(
        at=(claims.recorded(), entry.replay_root or entry.id),
        identifiers=identifiers,
        patient=mapped.patient,
        event_time=claims.happened(),
        claims=claims,
        sent=claims.sent(),
        sender=_sender(entry, header),
        unread_death=mapped.unread.get("deceased_at") or mapped.unread.get("deceased"),
        settled=entry.settled,
        decided_at=(entry.received_at.timestamp(), entry.id) if entry.decision else None,
        decision=entry.decision,
        **own,
    )


def prepared_event(
    code: str,
    entry: Entry,
    channel: CompiledChannel,
    message: Message,
    mapped: Mapped,
    event: PatientEvent,
    reading: Reading,
    *,
    visits: Collection[str] = (),
) -> Prepared:
    """A message that speaks of one patient, and what has to be loaded to decide on it.

    code: MSH-9.1. visits: keys of the stays that it names.
    """
    return Prepared(
        entry=entry,
        code=code,
        events=(event,),
        identities=with_namesakes(event.identifiers, channel),
        visits=frozenset(visits),
        deviations=(*entry.deviations, *message.deviations, *dict.fromkeys(reading)),
        charset=message.charset,
        clock=_clock(entry, mapped, event),
    )


def check_single(message: Message, names: tuple[str, ...] = ONCE) -> None:
    """Raises MessageError for a second patient or visit in a message that speaks of one: nobody is left out."""
    present = message.present
    for name in names:
        if name in present and len(present[name]) > 1:
            raise MessageError(
                "segment-repeated",
                f"a second {name} segment: a message of this event speaks of one patient and one visit",
                hl7_code=SEGMENT_SEQUENCE,
                location=f"{name}[2]",
            )


def event_times(entry: Entry, channel: CompiledChannel, mapped: Mapped, reading: Reading) -> Mapping[str, Moment]:
    """When the event was.

    A local time that may mean two moments, because the clock was turned back between them, is the later one if that had
    come when the message was received: the first one would make it older than what was sent before it.
    """
    ambiguous = [source for source in ("EVN-6", "EVN-2", "MSH-7") if f"ambiguous-local-time:{source}" in reading]
    if not ambiguous:
        return mapped.times
    times = dict(mapped.times)
    latest = received(entry) + timedelta(seconds=channel.settings.order.ahead_seconds_max)
    for source in ambiguous:
        first = times[source].at
        second = first.replace(tzinfo=reading.zone, fold=1) if first is not None else None
        if first is not None and second is not None and first < second.astimezone(UTC) <= latest:
            times[source] = Moment.of_instant(second)
    return times


def _clock(entry: Entry, mapped: Mapped, event: PatientEvent) -> tuple[int, float] | None:
    claims, sent = event.claims, mapped.times.get("MSH-7")  # believed or not: all the more is it measured
    if claims is None or sent is None or sent.at is None or not sent.timed or entry.replay_of is not None:
        return None
    return event.sender, claims.received - sent.seconds


def _sender(entry: Entry, header: Header) -> int:
    """Names MSH-3 and MSH-4 of a channel among the senders of a patient's messages; never 0."""
    return crc32(b"|".join(header.fields[2:4]), crc32(entry.channel.encode())) or 1
