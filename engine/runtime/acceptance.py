"""What intake decides about one message before it is stored: whether it is accepted, and which answers are owed.

Pure, and the same for the daemon and for `handoff try`. Codes: HL7 v2.9.1 chapter 2.9 (original mode 2.9.2, enhanced mode
2.9.3) and table 0357.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from engine.domain.message import AckCode, AckState, Refusal, Summary
from engine.domain.record import Phi, Record
from engine.errors import (
    INTERNAL_ERROR,
    REQUIRED_FIELD_MISSING,
    UNSUPPORTED_EVENT,
    UNSUPPORTED_PROCESSING_ID,
    UNSUPPORTED_TYPE,
    UNSUPPORTED_VERSION,
    VALUE_TOO_LONG,
)
from engine.hl7v2.ack import AckPlan, Verdict, modes, owed
from engine.hl7v2.header import Header, HeaderError, is_ack, read_header
from engine.settings import Accept, Channel

OVERSIZE: Final = Refusal(
    error="frame-too-long", text="the frame is over this channel's limit", hl7_code=VALUE_TOO_LONG
)
STORE_UNAVAILABLE: Final = Refusal(
    error="store-unavailable", text="could not be stored, send it again later", hl7_code=INTERNAL_ERROR
)
TOO_MANY_CONNECTIONS: Final = Refusal(
    error="too-many-connections", text="too many connections", hl7_code=INTERNAL_ERROR
)
NOT_PROCESSED_YET: Final = Refusal(
    error="not-processed-yet", text="stored, but not processed in time, send it again later", hl7_code=INTERNAL_ERROR
)
CONTENT_CONFLICT: Final = "control-id-conflict"
SEQUENCE_NUMBER_MISSING: Final = Refusal(
    error="sequence-number-missing",
    text="this channel needs a sequence number",
    hl7_code=REQUIRED_FIELD_MISSING,
    location="MSH-13",
)

_REJECTED: Final = frozenset({
    "version-not-accepted", "processing-id-not-accepted", "type-not-accepted", "event-not-accepted",
    "message-type-missing", "header-missing", "field-separator", "encoding-characters", OVERSIZE.error,
    STORE_UNAVAILABLE.error, TOO_MANY_CONNECTIONS.error, NOT_PROCESSED_YET.error,
})  # fmt: skip
"""Refusals that original mode answers with AR; all others are faults of the content, AE."""

_REJECTED_AT_COMMIT: Final = frozenset({
    "version-not-accepted", "processing-id-not-accepted", "type-not-accepted", "event-not-accepted",
    "message-type-missing", OVERSIZE.error, TOO_MANY_CONNECTIONS.error,
})  # fmt: skip
"""Refusals that enhanced mode answers with CR; all others CE."""


class Rules(Record, frozen=True, kw_only=True):
    """What a channel accepts, in the form that is quick to ask."""

    channel: str
    ack_mode: str
    wait_for_processing: bool
    sequence_numbers: bool
    types: frozenset[tuple[str, str]]
    codes: frozenset[str]
    versions: frozenset[str]
    processing_ids: frozenset[str]

    @classmethod
    def of(cls, channel: Channel) -> Rules:
        types = _types(channel.accept)
        return cls(
            channel=channel.name,
            ack_mode=channel.ack.mode,
            wait_for_processing=channel.ack.when == "processed",
            sequence_numbers=channel.ack.sequence_numbers,
            types=types,
            codes=frozenset(code for code, _ in types),
            versions=frozenset(channel.accept.versions),
            processing_ids=frozenset(channel.accept.processing_ids),
        )


class Judgement(Phi, frozen=True, kw_only=True):
    """header: none (or partial) when it could not be read.

    code: what is answered as soon as the message is stored, none when nothing is (yet). later: an application answer may
    be owed once the message is processed. first_later: that answer is the only one (nothing is sent before it).
    """

    header: Header | None
    plan: AckPlan
    refusal: Refusal | None
    code: AckCode | None
    later: bool = False
    first_later: bool = False

    @property
    def ack_state(self) -> AckState:
        return AckState.OWED if self.code is not None or self.first_later else AckState.NOT_OWED


def judge(rules: Rules, payload: bytes, *, oversize: bool = False) -> Judgement:
    """Read MSH and decide. Never raises for a message."""
    refusal: Refusal | None
    header: Header | None
    try:
        header = read_header(payload)
        refusal = check(rules, header)
    except HeaderError as error:
        header = error.header
        refusal = Refusal(error=error.error, text=error.text, hl7_code=error.hl7_code, location=error.location)
    return plan_answers(rules, header, OVERSIZE if oversize else refusal)


def plan_answers(rules: Rules, header: Header | None, refusal: Refusal | None) -> Judgement:
    """Which answers are owed for a message that is refused, or accepted when `refusal` is none."""
    plan = modes(header, rules.ack_mode)
    if header is not None and is_ack(header):  # an acknowledgment is never acknowledged
        return Judgement(header=header, plan=plan, refusal=refusal, code=None)
    success = refusal is None
    if plan.original:
        if success and rules.wait_for_processing:
            return Judgement(header=header, plan=plan, refusal=None, code=None, later=True, first_later=True)
        return Judgement(header=header, plan=plan, refusal=refusal, code=original_code(refusal))
    code = enhanced_code(refusal) if owed(plan.accept, success=success) else None
    if success:
        later = plan.application != "NE"
        return Judgement(
            header=header, plan=plan, refusal=None, code=code, later=later, first_later=later and code is None
        )
    if code is None and owed(plan.application, success=False):
        code = original_code(refusal)  # only the application answer was asked for, so the refusal travels in that
    return Judgement(header=header, plan=plan, refusal=refusal, code=code)


def check(rules: Rules, header: Header) -> Refusal | None:
    """The tests of MSH-9, MSH-11 and MSH-12 that precede storing for processing."""
    if header.version not in rules.versions:
        return _VERSION
    if header.processing_id not in rules.processing_ids:
        return _PROCESSING_ID
    return _check_type(rules.types, rules.codes, header.message_code, header.trigger_event)


def original_code(refusal: Refusal | None) -> AckCode:
    if refusal is None:
        return AckCode.AA
    return AckCode.AR if refusal.error in _REJECTED else AckCode.AE


def enhanced_code(refusal: Refusal | None) -> AckCode:
    if refusal is None:
        return AckCode.CA
    return AckCode.CR if refusal.error in _REJECTED_AT_COMMIT else AckCode.CE


def verdict(code: AckCode, refusal: Refusal | None, *, expected_sequence: int | None = None) -> Verdict:
    if refusal is None:
        return Verdict(code=code, expected_sequence=expected_sequence)
    return Verdict(
        code=code,
        hl7_code=refusal.hl7_code,
        error=refusal.error,
        location=refusal.location,
        text=refusal.text,
        expected_sequence=expected_sequence,
    )


def summarize(header: Header | None) -> Summary:
    if header is None:
        return _NO_SUMMARY
    return Summary(
        control_id=header.control_id or None,
        type=header.type or None,
        version=header.version or None,
        sending_application=header.sending_application or None,
        sending_facility=header.sending_facility or None,
    )


@lru_cache(maxsize=1024)
def _check_type(types: frozenset[tuple[str, str]], codes: frozenset[str], code: str, event: str) -> Refusal | None:
    if (code, event) in types or (code, "*") in types or ("*", "*") in types or ("*", event) in types:
        return None
    return _EVENT if code in codes or "*" in codes else _TYPE


def _types(accept: Accept) -> frozenset[tuple[str, str]]:
    """`ADT^A01`, `ADT^*`, `ADT` (any event) and `*`."""
    pairs: set[tuple[str, str]] = set()
    for pattern in accept.types:
        code, _, event = pattern.upper().partition("^")
        pairs.add((code, event.partition("^")[0] or "*"))
    return frozenset(pairs)


_NO_SUMMARY: Final = Summary()
_VERSION: Final = Refusal(
    error="version-not-accepted",
    text="this channel does not accept this HL7 version",
    hl7_code=UNSUPPORTED_VERSION,
    location="MSH-12",
)
_PROCESSING_ID: Final = Refusal(
    error="processing-id-not-accepted",
    text="this channel does not accept this processing id",
    hl7_code=UNSUPPORTED_PROCESSING_ID,
    location="MSH-11",
)
_TYPE: Final = Refusal(
    error="type-not-accepted",
    text="this channel does not accept this message type",
    hl7_code=UNSUPPORTED_TYPE,
    location="MSH-9.1",
)
_EVENT: Final = Refusal(
    error="event-not-accepted",
    text="this channel does not accept this event",
    hl7_code=UNSUPPORTED_EVENT,
    location="MSH-9.2",
)
