"""What RDE and RDS messages say of prescriptions, and of whose they are.

The words are kept as they were sent: what they mean is read when lists are compared (`engine.care.medications`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from engine.care.medications.prescribed import STATES, MedicationEvent, on_its_prescriptions
from engine.domain.chart import Charts
from engine.domain.medication import Medication, MedicationState
from engine.domain.message import Entry
from engine.domain.moment import Moment
from engine.domain.outcome import Outcome
from engine.errors import REQUIRED_FIELD_MISSING, MessageError
from engine.hl7v2.message import NULL, Message, Segment
from engine.mapping.apply import Reading
from engine.mapping.times import read_time
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.events import decide_events
from engine.pipeline.outcomes import received, recorded_only
from engine.pipeline.person import event_of, prepared_event, read_patient
from engine.pipeline.prepared import Prepared

ORDERED: Final = "RDE"
"""MSH-9.1: a prescription as a pharmacy has it."""
DISPENSED: Final = "RDS"
"""MSH-9.1: what a pharmacy gave out."""
TRIGGERS: Final = frozenset({"O11", "O25", "O13", "O01"})
ORDERS_MAX: Final = 500
"""Of one message."""
_TEXT_MAX: Final = 1_000
"""Characters of one field that is kept."""
_DIRECTIONS_MAX: Final = 20


class _Fields(NamedTuple):
    """Where a segment says what was prescribed or given out."""

    name: str
    drug: int
    strength: int
    form: int
    directions: tuple[int, ...]


_OF: Final = {
    "RXE": _Fields("RXE", 2, 25, 6, (7, 21)),
    "RXO": _Fields("RXO", 1, 18, 5, (7, 6)),
    "RXD": _Fields("RXD", 2, 16, 6, (9,)),
}
"""Segments that name a medicine; the first that is there counts (HL7 v2.9.1 chapter 4A)."""


def read_rx(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading, *, code: str) -> Prepared:
    """What such a message says of charts. Raises MessageError and MappingError."""
    if message.header.trigger_event not in TRIGGERS:
        return recorded_only(entry, channel, message.header)
    mapped = read_patient(channel, message, reading)
    found = tuple(_orders(entry, channel, message, reading))
    orders, fills = (found, ()) if code == ORDERED else ((), found)
    event = event_of(MedicationEvent, entry, channel, message.header, mapped, reading, orders=orders, fills=fills)
    return prepared_event(code, entry, channel, message, mapped, event, reading)


def decide_rx(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """A patient whom nobody has heard of gets a chart: what they take at home is known when they are admitted. Raises
    MessageError and MappingError.
    """
    return decide_events(prepared, channel, charts, now, on_its_prescriptions)


READ_ORDERED: Final = partial(read_rx, code=ORDERED)
READ_DISPENSED: Final = partial(read_rx, code=DISPENSED)


def _orders(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading) -> Iterator[Medication]:
    groups = message.groups("ORC")
    if not groups:
        raise MessageError(
            "order-missing", "the ORC segment is missing", hl7_code=REQUIRED_FIELD_MISSING, location="ORC"
        )
    if len(groups) > ORDERS_MAX:
        raise MessageError("orders-too-many", f"more than {ORDERS_MAX} prescriptions", location="ORC")
    for number, group in enumerate(groups, 1):
        yield _order(entry, channel, group, reading, f"ORC[{number}]" if number > 1 else "ORC")


def _order(entry: Entry, channel: CompiledChannel, group: Message, reading: Reading, place: str) -> Medication:
    order = group.segments("ORC")[0]
    number = next((one for field in ("3", "2") if (one := _entity(order, field))), None)
    if number is None:
        raise MessageError(
            "order-number-missing", "the prescription has no number (ORC-3, ORC-2)",
            hl7_code=REQUIRED_FIELD_MISSING, location=f"{place}-3",
        )  # fmt: skip
    named = next((group.segments(name)[0] for name in ("RXE", "RXO", "RXD") if group.segments(name)), None)
    if named is None:
        raise MessageError(
            "medication-missing", "the prescription names no medicine (RXE)",
            hl7_code=REQUIRED_FIELD_MISSING, location="RXE-2",
        )  # fmt: skip
    fields = _OF[named.name]
    filled = _time(group.segments("RXD")[0].get("3"), reading) if group.segments("RXD") else None
    said_at = _time(order.get("9"), reading) or _time(group.get("MSH-7"), reading) or received(entry)
    code, system, text = _drug(named, fields.drug)
    return Medication(
        id=channel.key("medication", *number),
        text=text,
        written_at=said_at,
        said_at=said_at,
        state=STATES.get((order.get("1") or "").strip().upper(), MedicationState.ACTIVE),
        outpatient={"O": True, "I": False}.get((_value(order, "29.1") or "").upper()),
        code=code,
        system=system,
        strength=_strength(named, fields.strength),
        amount=_amount(named) if named.name == "RXE" else None,
        form=_coded(named, fields.form),
        route=next((found for one in group.segments("RXR") if (found := _coded(one, 1))), None),
        frequency=_frequency(group, named),
        directions=tuple(_directions(group, named, fields.directions))[:_DIRECTIONS_MAX],
        order=number[0],
        filled_at=filled,
        entry=entry.replay_root or entry.id,
        location=f"{named.name}-{fields.drug}",
    )


def _entity(order: Segment, field: str) -> tuple[str, str] | None:
    value = _value(order, f"{field}.1")
    return (value, _value(order, f"{field}.2") or "") if value else None


def _value(segment: Segment, path: str) -> str | None:
    value = segment.get(path)
    return value.strip()[:_TEXT_MAX] or None if value is not None and value != NULL else None


def _coded(segment: Segment, field: int) -> str | None:
    """The words of a coded field; where it has none, its code."""
    return next((found for part in ("2", "9", "5", "1") if (found := _value(segment, f"{field}.{part}"))), None)


def _drug(segment: Segment, field: int) -> tuple[str | None, str | None, str]:
    """Code, its system, and the words: those of the sender first (CWE-9), then those of the code. Epic-like senders
    fill the original text alone.
    """
    code, system = _value(segment, f"{field}.1"), _value(segment, f"{field}.3")
    text = next((found for part in ("2", "9", "5") if (found := _value(segment, f"{field}.{part}"))), None)
    original = _value(segment, f"{field}.9")
    if (
        text is not None
        and original is not None
        and len(original) > len(text)
        and original.lower().startswith(text.lower())
    ):
        text = original
    if text is None:
        if code is None:
            raise MessageError(
                "medication-missing", "the prescription names no medicine",
                hl7_code=REQUIRED_FIELD_MISSING, location=f"{segment.name}-{field}",
            )  # fmt: skip
        text = code
    return code, system, text


def _strength(segment: Segment, field: int) -> str | None:
    number, unit = _value(segment, f"{field}.1"), _coded(segment, field + 1)
    return f"{number} {unit}" if number and unit else None


def _amount(segment: Segment) -> str | None:
    """RXE-3 to RXE-5: `1 tablet`, `1-2 tablet`; of a unit that is a strength (`75 mg` in RXE-5) as many of it."""
    least, most, unit = _value(segment, "3.1"), _value(segment, "4.1"), _coded(segment, 5)
    if least is None:
        return None
    number = least if most in {None, least} else f"{least}-{most}"
    if unit is not None and unit[:1].isdigit():
        return unit if number == "1" else f"{number} {unit} each"
    return f"{number} {unit}" if unit is not None else None


def _frequency(group: Message, named: Segment) -> str | None:
    """TQ1-3, from v2.5; before it the interval of RXE-1 or ORC-7. Several repeat patterns are no frequency."""
    timings = [found for one in group.segments("TQ1") if (found := _value(one, "3.1"))]
    if timings:
        return timings[0] if len(set(timings)) == 1 else " and ".join(timings)
    older = _value(named, "1.2") if named.name == "RXE" else None
    return older or _value(group.segments("ORC")[0], "7.2")


def _directions(group: Message, named: Segment, fields: Sequence[int]) -> Iterator[str]:
    for field in fields:
        for one in named.repetitions(field):
            text = next((found for part in (2, 9, 5, 1) if (found := (one.get(part) or "").strip())), None)
            if text is not None and text != NULL:
                yield text[:_TEXT_MAX]
    for timing in group.segments("TQ1"):
        if (text := _value(timing, "11")) is not None:
            yield text


def _time(text: str | None, reading: Reading) -> datetime | None:
    found = read_time(text, reading.zone) if text else None
    return found.at_in(reading.zone) if isinstance(found, Moment) else None
