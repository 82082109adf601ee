"""Outcomes of messages that no chart is concerned with, or that could not be worked on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from engine.domain.delivery import DeadLetter, Delivery, Stage
from engine.domain.message import AckCode, Entry, EntryState
from engine.domain.outcome import Effect, EffectKind, Outcome
from engine.domain.why import Reason, What, Why
from engine.errors import Fault, MappingError, MessageError
from engine.hl7v2.header import Header
from engine.hl7v2.message import Message
from engine.mapping.apply import Reading
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.identity import identities, ordered
from engine.pipeline.prepared import Prepared

WITHHELD_BY_MODE: Final[Mapping[str, tuple[Why, ...]]] = {
    "live": (),
    "shadow": (Why(what=What.DELIVERY, reason=Reason.SHADOW),),
    "paused": (Why(what=What.DELIVERY, reason=Reason.PAUSED),),
}


def nobody(entry: Entry) -> str:
    """Ordering key of what is forwarded for no known patient."""
    return f"entry-{entry.replay_root or entry.id}"


def recorded_only(entry: Entry, channel: CompiledChannel, header: Header) -> Prepared:
    """An event that no chart is concerned with: recorded, and forwarded where a destination wants the messages."""
    forwards = forward_deliveries(entry, nobody(entry), channel)
    event = header.trigger_event if header.message_code == "ADT" else header.type
    return decided(
        entry,
        channel,
        EntryState.PROCESSED,
        reason="recorded: this event leaves the charts alone",
        deliveries=tuple(forwards) if channel.settings.mode == "live" else (),
        why=WITHHELD_BY_MODE[channel.settings.mode],
        changed=("message",) if forwards else (),
        effect=Effect(kind=EffectKind.WITHOUT_EFFECT, subject=f"entry-{entry.id}", detail=event),
    )


def belonging(prepared: Prepared, channel: CompiledChannel, message: Message | None = None) -> Prepared:
    """With the patient's key, whatever else of the message could not be read. message: if it has been read."""
    charset = channel.settings.charset
    try:
        if message is None:
            message = Message.parse(
                prepared.entry.payload, default=charset.default, fallback=charset.fallback, force=charset.force
            )
        key = ordered(channel.mapping.identifiers(message), channel, reading_of(prepared.entry, channel))[0]
    except (MessageError, MappingError):
        return prepared
    return msgspec.structs.replace(prepared, key=key, identities=identities((key,)))


def reading_of(entry: Entry, channel: CompiledChannel) -> Reading:
    return Reading(channel.zones.default, received(entry))


def received(entry: Entry) -> datetime:
    """When the message came: a replay makes it no newer."""
    return entry.first_received_at or entry.received_at


def dead(entry: Entry, channel: CompiledChannel, error: MessageError | MappingError) -> Prepared:
    return Prepared(entry=entry, outcome=failed(entry, channel, error))


def failed(entry: Entry, channel: CompiledChannel | None, error: MessageError | MappingError) -> Outcome:
    """The outcome of an entry that dies of a fault of its own, or of a rule of ours."""
    version = channel.version if channel is not None else ""
    return undone(entry, error.fault, version=version)


def decided(
    entry: Entry,
    channel: CompiledChannel,
    state: EntryState,
    *,
    reason: str | None = None,
    letter: DeadLetter | None = None,
    deliveries: tuple[Delivery, ...] = (),
    effect: Effect | None = None,
    why: tuple[Why, ...] = (),
    changed: tuple[str, ...] = (),
) -> Prepared:
    outcome = Outcome(
        entry_id=entry.id,
        state=state,
        reason=reason if reason is not None else letter.detail if letter else None,
        deliveries=deliveries,
        dead_letter=letter,
        deviations=entry.deviations,
        config_version=channel.version,
        replay_root=entry.replay_root,
        decision=entry.decision,
        effects=(effect or Effect(kind=state, subject=f"entry-{entry.id}"),),
        why=why,
        changed=changed,
    )
    return Prepared(entry=entry, outcome=outcome)


def unknown_channel(entry: Entry) -> Outcome:
    """The channel (or the recorded configuration that a replay asked for) is gone."""
    text = "the configuration has no such channel; replay this entry when it has"
    return undone(entry, Fault(error="channel-unknown", text=text))


def internal_failure(entry: Entry, channel_version: str, error: BaseException) -> Outcome:
    """The outcome of an entry whose processing broke unexpectedly: its bytes stay, a person looks at it."""
    text = f"processing broke with {type(error).__name__}; see the log of that time"
    return undone(entry, Fault(error="internal", text=text), version=channel_version)


def undone(entry: Entry, fault: Fault, *, version: str = "") -> Outcome:
    """The outcome of an entry that could not be worked on."""
    letter = DeadLetter.of(Stage.PROCESSING, fault)
    return Outcome(
        entry_id=entry.id,
        state=EntryState.DEAD,
        reason=letter.detail,
        dead_letter=letter,
        deviations=entry.deviations,
        effects=(Effect(kind=EntryState.DEAD, subject=f"entry-{entry.id}"),),
        application_ack=AckCode.AE,
        error_code=fault.hl7_code,
        config_version=version,
        replay_root=entry.replay_root,
        decision=entry.decision,
    )
