"""A message on its way in: what arrived, what became of it, and what became of its answer."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi
from engine.errors import Fault


class EntryKind(StrEnum):
    """What an entry is: whatever happens to a patient is one."""

    MESSAGE = "message"
    ACT = "act"
    """What a person does: see `engine.domain.cause`."""
    DUE = "due"
    """What the clock lets happen: a deadline of a chart has come."""
    REPLY = "reply"
    """What became of something that went out, or what was answered to it."""

    @property
    def lane(self) -> str:
        """`Entry.channel` of all that are no messages: no channel's name begins so."""
        return f"@{self.value}"


LANES: Final = tuple(kind.lane for kind in EntryKind if kind is not EntryKind.MESSAGE)


def kind_of(channel: str) -> EntryKind:
    """channel: `Entry.channel`."""
    return EntryKind(channel[1:]) if channel.startswith("@") else EntryKind.MESSAGE


class EntryState(StrEnum):
    """The message's leg: what became of the message."""

    RECEIVED = "received"
    PROCESSED = "processed"
    FILTERED = "filtered"
    DEAD = "dead"
    REFUSED = "refused"


class AckState(StrEnum):
    """The answer's leg: what became of its answer."""

    NOT_OWED = "not_owed"
    OWED = "owed"
    SENT = "sent"
    UNSENT = "unsent"


class AckCode(StrEnum):
    """HL7 table 0008."""

    AA = "AA"
    AE = "AE"
    AR = "AR"
    CA = "CA"
    CE = "CE"
    CR = "CR"


class Summary(Phi, frozen=True, kw_only=True):
    """What the journal's list shows of a message, read from MSH at intake (sealed at rest)."""

    control_id: str | None = None
    type: str | None = None
    """`ADT^A01`."""
    version: str | None = None
    sending_application: str | None = None
    sending_facility: str | None = None


class Receipt(Phi, frozen=True, kw_only=True):
    """One arrived frame (or one message of a batch), or another cause, before it is stored."""

    channel: str
    """Of another cause than a message: the lane of its kind."""
    peer: str
    """Address, and the client certificate's name when there is one: `10.0.0.4:51022 CN=epic-prod`."""
    received_at: datetime
    payload: bytes
    summary: Summary
    dedupe_key: bytes | None
    """Keyed hash of channel, MSH-3, MSH-4 and MSH-10; none when there is no control id."""
    digest: bytes
    """Keyed hash of the payload."""
    ordering_key: bytes = b""
    """What decides the partition (`hl7v2.ordering`): receipts that share it are processed in their order."""
    deviations: tuple[str, ...] = ()
    refusal: Fault | None = None
    ack: AckCode | None = None
    """The code that will be answered once this receipt is on disk."""
    ack_state: AckState = AckState.NOT_OWED
    wants_application_ack: bool = False
    """An application ACK is owed after processing."""
    replay_of: int | None = None
    config_as_of: str | None = None
    """The configuration version to process with; none: today's."""
    decision: str | None = None
    """Of a replay: the hold (`Hold.key`) that a person has released, to be taken as true now."""
    sequence_number: int | None = None
    """MSH-13, where the channel speaks the sequence number protocol."""
    refuse_conflict: bool = False
    """Refuse it (205) when its control id is known with other content; else such a one is processed and flagged."""
    test: bool = False
    """It is test data: MSH-11 says so, or its channel is for tests."""
    once: bool = False
    """A cause that is known by name: when the journal has it, nothing is written."""
    conflict_ack: AckCode | None = None
    """The code that will be answered when it is refused for that; none: no answer is owed then."""


class Entry(Phi, frozen=True, kw_only=True):
    """A receipt in the journal."""

    id: int
    channel: str
    """Of another cause than a message: the lane of its kind."""
    peer: str
    received_at: datetime
    payload: bytes
    summary: Summary
    deviations: tuple[str, ...] = ()
    refusal: Fault | None = None
    ack: AckCode | None = None
    ack_state: AckState = AckState.NOT_OWED
    wants_application_ack: bool = False
    replay_of: int | None = None
    replay_root: int | None = None
    """The first entry of a chain of replays: effect keys are made from it."""
    config_as_of: str | None = None
    decision: str | None = None
    """The hold (`Hold.key`) that a person has released: it is true as of this replay."""
    flagged_duplicate_of: int | None = None
    """An earlier entry with the same control id and other content."""
    first_received_at: datetime | None = None
    """Of a replay: when its message first came."""
    settled: bool = False
    """Of a replay: the message was applied before. What came since is then no reason to ask a person about it."""
    partition: int = 0
    test: bool = False
    """It came as test data: no living patient is touched by it."""
    damaged: bool = False
    """What is stored of it can't be read any more (altered, cut off, lost): payload and summary are empty."""
    erased: bool = False
    """There is nothing to read any more: it was kept long enough. It is `damaged` too, for whoever needs its bytes."""

    @property
    def kind(self) -> EntryKind:
        return kind_of(self.channel)
