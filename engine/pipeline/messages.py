"""Reading messages: refusals, the filter, and then the reader of the message's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from engine.domain.chart import Charts
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import Entry, EntryState
from engine.domain.outcome import Outcome
from engine.errors import MappingError, MessageError
from engine.hl7v2.message import Message
from engine.mapping import targets
from engine.mapping.apply import Reading
from engine.mapping.targets import Targets
from engine.pipeline.adt.deciding import decide_adt
from engine.pipeline.adt.reading import CODE as ADT
from engine.pipeline.adt.reading import read_adt
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.oru.reading import CODE as ORU
from engine.pipeline.oru.reading import decide_oru, read_oru
from engine.pipeline.outcomes import belonging, dead, reading_of, recorded_only, set_aside, unknown_channel
from engine.pipeline.prepared import Prepared
from engine.pipeline.rx.reading import DISPENSED, ORDERED, READ_DISPENSED, READ_ORDERED, decide_rx
from engine.pipeline.siu.reading import CODE as SIU
from engine.pipeline.siu.reading import SIU_TARGETS, decide_siu, read_siu
from engine.pipeline.testdata import decided


def read_message(entry: Entry, channel: CompiledChannel | None) -> Prepared:
    """Read the message, apply filter and mapping."""
    if channel is None:
        return Prepared(entry=entry, outcome=unknown_channel(entry))
    if entry.refusal is not None:
        letter = DeadLetter.of(Stage.INTAKE, entry.refusal)
        return belonging(set_aside(entry, channel, EntryState.REFUSED, letter.detail, letter), channel)
    try:
        return _read(entry, channel)
    except (MessageError, MappingError) as error:
        return belonging(dead(entry, channel, error), channel)


def _read(entry: Entry, channel: CompiledChannel) -> Prepared:
    settings = channel.settings
    charset = settings.charset
    message = Message.parse(entry.payload, default=charset.default, fallback=charset.fallback, force=charset.force)
    reading = reading_of(entry, channel)
    if channel.filter is not None and not channel.filter(message, reading.budget):
        return set_aside(entry, channel, EntryState.FILTERED, f"the channel's filter: {settings.filter}")
    known = CODES.get(message.header.message_code)
    if known is None:
        return recorded_only(entry, channel, message.header)
    return known.read(entry, channel, message, reading)


def decide_message(prepared: Prepared, channel: CompiledChannel | None, charts: Charts, now: datetime) -> Outcome:
    """Work on the charts, as the message's code wants it. Raises MessageError and MappingError."""
    if channel is None:
        return unknown_channel(prepared.entry)
    rule = CODES[prepared.code].decide
    return decided(prepared, channel, charts, lambda view: rule(prepared, channel, view, now))


class Code(NamedTuple):
    """How messages of one code are read and decided. Both raise MessageError and MappingError.

    What is read says in `Prepared.code` by whose rules it is decided.
    """

    read: Callable[[Entry, CompiledChannel, Message, Reading], Prepared]
    decide: Callable[[Prepared, CompiledChannel, Charts, datetime], Outcome]
    targets: Targets = {}
    """What field mappings can fill for it, beyond what any message may say of its patient and visit."""


CODES: Final[Mapping[str, Code]] = {
    ADT: Code(read_adt, decide_adt),
    SIU: Code(read_siu, decide_siu, SIU_TARGETS),
    ORU: Code(read_oru, decide_oru),
    ORDERED: Code(READ_ORDERED, decide_rx),
    DISPENSED: Code(READ_DISPENSED, decide_rx),
}
"""By MSH-9.1. Messages of other codes are recorded, and leave the charts alone."""

TARGETS: Final[Targets] = {
    **targets.TARGETS,
    **{name: target for code in CODES.values() for name, target in code.targets.items()},
}
"""All that a field mapping can fill."""
