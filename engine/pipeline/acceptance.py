"""What intake decides about one message before it is stored: whether it is accepted, and which answers are owed.

Pure, and the same for the daemon and for `handoff try`. Codes: HL7 v2.9.1 chapter 2.9 (original mode 2.9.2, enhanced
mode 2.9.3, sequence number protocol 2.10.1) and table 0357.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from engine.domain.message import AckCode, AckState, Summary
from engine.domain.record import Phi, Record
from engine.errors import Fault
from engine.hl7v2 import charset
from engine.hl7v2.ack import AckPlan, Verdict, modes, owed
from engine.hl7v2.header import Header, HeaderError, is_ack, read_header
from engine.pipeline import faults
from engine.settings import Accept, Channel

LINK_RESTART: Final = 0
"""MSH-13: the sender (re)starts the link and asks for the number that we expect."""
LINK_RESYNC: Final = -1
"""MSH-13: the sender begins to count anew; in MSA-4: we take whatever number comes first."""

_UNACCEPTABLE: Final = {
    fault.error
    for fault in (
        faults.VERSION, faults.PROCESSING_ID, faults.TYPE, faults.EVENT, faults.EVENT_MISSING, faults.CHARSET,
        faults.OVERSIZE, faults.BATCH_TOO_LONG, faults.TOO_MANY_CONNECTIONS,
    )
} | {"message-type-missing"}  # fmt: skip
"""Not to be taken whatever the content: CR in enhanced mode, where all other refusals are CE."""

_REJECTED: Final = _UNACCEPTABLE | {
    "header-missing", "field-separator", "encoding-characters",  # nothing of it can be read
    faults.STORE_UNAVAILABLE.error, faults.NOT_PROCESSED_YET.error, faults.BROKEN.error,  # our fault, not the content's
}  # fmt: skip
"""AR in original mode, where all other refusals are AE."""


_TYPES_OF_EVENTS: Final = frozenset({"ADT", "BAR", "DFT", "MDM", "RAS", "RDE", "SIU", "SRM"})
"""Types whose messages mean nothing without their event (HL7 v2.9.1, chapters 3, 4, 6, 9 and 10)."""
_TYPE_CHARACTERS_MAX: Final = 64
"""A longer message type is nobody's, and is not remembered."""


class Rules(Record, frozen=True, kw_only=True):
    """What a channel accepts, in the form that is quick to ask."""

    channel: str
    ack_mode: str
    wait_for_processing: bool
    refuse_conflict: bool
    sequence_numbers: bool
    one_answer: bool
    close_when_unavailable: bool
    msa_text: bool
    types: frozenset[tuple[str, str]]
    versions: frozenset[str]
    version_default: str
    charset_forced: bool
    processing_ids: frozenset[str]
    test: bool

    @classmethod
    def of(cls, channel: Channel) -> Rules:
        return cls(
            channel=channel.name,
            ack_mode=channel.ack.mode,
            wait_for_processing=channel.ack.when == "processed",
            refuse_conflict=channel.ack.duplicate_conflict == "refuse",
            sequence_numbers=channel.ack.sequence_numbers,
            one_answer=channel.ack.answers == "one",
            close_when_unavailable=channel.ack.unavailable == "close",
            msa_text=channel.ack.msa_text == "always",
            types=_types(channel.accept),
            versions=frozenset(channel.accept.versions),
            version_default=channel.accept.version_default,
            charset_forced=channel.charset.force is not None,
            processing_ids=frozenset(channel.accept.processing_ids),
            test=channel.test,
        )


class Judgement(Phi, frozen=True, kw_only=True):
    """What is to become of a message, if it can be stored.

    header: none (or partial) when it could not be read. code: answered as soon as the message is stored; none: nothing
    is, then. awaits_outcome: an answer may be owed once it is processed; holds: that answer takes the place of the
    first one, so the sender waits for it (original mode). conflict_code: answered instead when its control id turns out
    to be taken by other content, on a channel that refuses those. expected_sequence: for MSA-4. msa_text: its answers
    have their text in MSA-3 whatever the sender's version.
    """

    header: Header | None
    plan: AckPlan
    refusal: Fault | None
    code: AckCode | None
    awaits_outcome: bool = False
    holds: bool = False
    conflict_code: AckCode | None = None
    sequence_number: int | None = None
    expected_sequence: int | None = None
    msa_text: bool = False

    @property
    def ack_state(self) -> AckState:
        """Of the one answer that the journal keeps track of: the first."""
        first_is_later = self.awaits_outcome and self.code is None and self.plan.application == "AL"
        return AckState.OWED if self.code is not None or first_is_later else AckState.NOT_OWED


def judge(rules: Rules, payload: bytes, *, oversize: bool = False) -> Judgement:
    """Read MSH and decide. Never raises for a message."""
    refusal: Fault | None
    header: Header | None
    try:
        header = read_header(payload)
        if not header.version:
            header = replace(header, version_default=rules.version_default)
        refusal = check(rules, header)
    except HeaderError as error:
        header = error.header
        refusal = error.fault
    return plan_answers(rules, header, faults.OVERSIZE if oversize else refusal)


def is_test(rules: Rules, header: Header | None) -> bool:
    """Whether a message is test data: by its channel, or by MSH-11.1 (HL7 table 0103: D debugging, T training)."""
    return rules.test or (header is not None and header.processing_id.upper() in _TEST_IDS)


_TEST_IDS: Final = frozenset({"D", "T"})


def check(rules: Rules, header: Header) -> Fault | None:
    """The tests of MSH-9, MSH-11, MSH-12 and MSH-18 that precede storing for processing."""
    if header.version not in rules.versions:
        return faults.VERSION
    processing_id = header.processing_id
    if processing_id and processing_id not in rules.processing_ids:  # none: a deviation, see the header
        return faults.PROCESSING_ID
    if header.fields[17:] and not rules.charset_forced and charset.names_wide(header.charset_names):
        return faults.CHARSET
    remembered = len(header.message_code) + len(header.trigger_event) <= _TYPE_CHARACTERS_MAX
    refusal = (_check_type if remembered else _check_type.__wrapped__)(
        rules.types, header.message_code, header.trigger_event
    )
    if refusal is None and not header.trigger_event and header.message_code in _TYPES_OF_EVENTS:
        return faults.EVENT_MISSING
    if refusal is None and rules.sequence_numbers and header.sequence_number is None:
        return faults.SEQUENCE_NUMBER_MISSING
    return refusal


def plan_answers(rules: Rules, header: Header | None, refusal: Fault | None) -> Judgement:
    """Which answers are owed for a message that is refused, or accepted when `refusal` is none."""
    plan = modes(header, rules.ack_mode)
    if header is not None and is_ack(header):  # an acknowledgment is never acknowledged
        return Judgement(header=header, plan=plan, refusal=refusal, code=None)
    if refusal is not None:
        code = _refused_code(plan, refusal)
        return Judgement(header=header, plan=plan, refusal=refusal, code=code, msa_text=rules.msa_text)
    conflict_code = _refused_code(plan, faults.CONFLICT) if rules.refuse_conflict else None
    sequence_number = header.sequence_number if rules.sequence_numbers and header is not None else None
    if plan.original:
        code = None if rules.wait_for_processing else AckCode.AA
        awaits_outcome = holds = rules.wait_for_processing
    else:
        code = AckCode.CA if owed(plan.accept, success=True) else None
        awaits_outcome, holds = plan.application != "NE" and not (rules.one_answer and code is not None), False
    return Judgement(
        header=header,
        plan=plan,
        refusal=None,
        code=code,
        awaits_outcome=awaits_outcome,
        holds=holds,
        conflict_code=conflict_code,
        sequence_number=sequence_number,
        msa_text=rules.msa_text,
    )


def rest_of_message(rules: Rules) -> Judgement:
    """What follows a message that its bytes cut: kept, and not answered, or the next message would get that answer."""
    return replace(plan_answers(rules, None, faults.FRAME_REST), code=None)


def original_code(refusal: Fault) -> AckCode:
    return AckCode.AR if refusal.error in _REJECTED else AckCode.AE


def enhanced_code(refusal: Fault) -> AckCode:
    return AckCode.CR if refusal.error in _UNACCEPTABLE else AckCode.CE


def verdict(code: AckCode, refusal: Fault | None, *, expected_sequence: int | None = None) -> Verdict:
    if refusal is None:
        return _ACCEPTED[code] if expected_sequence is None else Verdict(code=code, expected_sequence=expected_sequence)
    return Verdict.of(code, refusal, expected_sequence=expected_sequence)


def summarize(header: Header | None) -> Summary:
    if header is None:
        return NO_SUMMARY
    return Summary(
        control_id=header.control_id or None,
        type=header.type or None,
        version=header.version_sent or None,
        sending_application=header.sending_application or None,
        sending_facility=header.sending_facility or None,
    )


def _refused_code(plan: AckPlan, refusal: Fault) -> AckCode | None:
    if plan.original:
        return original_code(refusal)
    if owed(plan.accept, success=False):
        return enhanced_code(refusal)
    # Only the application answer was asked for: the refusal travels in that, or the sender would wait for ever.
    return original_code(refusal) if owed(plan.application, success=False) else None


@lru_cache(maxsize=1024)
def _check_type(types: frozenset[tuple[str, str]], code: str, event: str) -> Fault | None:
    if types & {(code, event), (code, "*"), ("*", "*"), ("*", event)}:
        return None
    return faults.EVENT if any(known in {code, "*"} for known, _ in types) else faults.TYPE


def _types(accept: Accept) -> frozenset[tuple[str, str]]:
    """`ADT^A01`, `ADT^*`, `ADT` (any event) and `*`."""
    pairs: set[tuple[str, str]] = set()
    for pattern in accept.types:
        code, event, *_ = *pattern.upper().split("^"), ""
        pairs.add((code, event or "*"))
    return frozenset(pairs)


NO_SUMMARY: Final = Summary()
_ACCEPTED: Final = {code: Verdict(code=code) for code in AckCode}
