"""Acknowledgments: which are owed, what they look like, and what a received one says (HL7 v2.9.1, chapter 2)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from operator import itemgetter
from typing import Final

from engine.domain.message import AckCode
from engine.domain.record import Phi, Record
from engine.errors import SEGMENT_SEQUENCE, TABLE_VALUE, Fault, MessageError
from engine.hl7v2 import charset
from engine.hl7v2.escape import escape, unescaper
from engine.hl7v2.header import Delimiters, Header, HeaderError, is_ack, read_header

CONDITION_UNKNOWN: Final = "ack-condition-unknown"

# HL7 table 0357.
ERROR_TEXTS: Final = {
    0: "Message accepted",
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    104: "Value too long",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application internal error",
}

_MSA_TEXT_CHARACTERS_MAX: Final = 80  # MSA-3 is ST with length 80 up to 2.6
_CONDITIONS: Final = frozenset({"AL", "NE", "ER", "SU"})
_TEMPLATE_BYTES_MAX: Final = 1024  # what echoes more is put together anew each time, and takes no memory
_VERSION: Final = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})")
_LOCATION: Final = re.compile(
    r"([A-Z][A-Z0-9]{2})(?:\[([0-9]+)\])?(?:-([0-9]+)(?:\[(?:([0-9]+)|[^\]]*)\])?(?:\.([0-9]+)(?:\.([0-9]+))?)?)?"
)
_DEFAULT_PROCESSING_ID: Final = b"P"
_DEFAULT_VERSION: Final = b"2.5.1"


class Verdict(Record, frozen=True, kw_only=True):
    """What a sender is told.

    hl7_code: of table 0357, 0 without an error. error: our own code, for ERR-5. location: in HL7 notation (`PID-3.1`).
    text: for people, without any value of the message. expected_sequence: for MSA-4.
    """

    code: AckCode
    hl7_code: int = 0
    error: str = ""
    location: str | None = None
    text: str = ""
    expected_sequence: int | None = None

    @classmethod
    def of(cls, code: AckCode, fault: Fault, *, expected_sequence: int | None = None) -> Verdict:
        return cls(
            code=code,
            hl7_code=fault.hl7_code,
            error=fault.error,
            location=fault.location,
            text=fault.text,
            expected_sequence=expected_sequence,
        )


class AckPlan(Record, frozen=True, kw_only=True):
    """Which answers are owed. Conditions are those of HL7 table 0155 (AL NE ER SU), see `owed`.

    original: one answer (AA, AE, AR) for all; `application` says when, and `accept` is NE. Otherwise enhanced mode:
    accept answers (CA, CE, CR) and application answers are owed each by itself.
    """

    original: bool
    accept: str
    application: str
    deviations: tuple[str, ...] = ()


class Ack(Phi, frozen=True, kw_only=True):
    """What an acknowledgment that we received says."""

    code: AckCode
    control_id: bytes
    """MSA-2, raw: of the message that is answered."""
    text: str = ""
    """MSA-3, else ERR-8. The peer wrote it: it may hold anything."""
    hl7_code: int = 0
    location: str | None = None
    """ERR-2 or ERR-1 as it came."""
    expected_sequence: int | None = None

    @property
    def accepted(self) -> bool:
        return self.code in {AckCode.AA, AckCode.CA}


def modes(header: Header | None, ack_mode: str) -> AckPlan:
    """The answers that the sender of a message is owed.

    ack_mode: `auto` (enhanced if MSH-15 or MSH-16 has a value), `original`, `enhanced` (where neither has a value, an
    accept answer always and no application answer), `none`. Without a readable header one answer is owed in any mode
    but `none`; an unknown condition is read as AL, with a deviation.
    """
    if ack_mode == "none":
        return _NOTHING
    accept = header.accept_ack if header is not None else ""
    application = header.application_ack if header is not None else ""
    if not accept and not application:
        return _ENHANCED if ack_mode == "enhanced" else _ORIGINAL
    if ack_mode == "original":
        return _ORIGINAL
    unknown = ({accept, application} - _CONDITIONS) - {""}
    return AckPlan(
        original=False,
        accept=_condition(accept),
        application=_condition(application),
        deviations=(CONDITION_UNKNOWN,) if unknown else (),
    )


def owed(condition: str, *, success: bool) -> bool:
    """Whether an answer is owed under a condition of table 0155 for a message that went well, or did not."""
    return condition in {"AL", "SU" if success else "ER"}


def acknowledge(
    header: Header | None, verdict: Verdict, *, now: datetime, control_id: str, msa_text: bool = False
) -> bytes:
    """The acknowledgment of a message, unframed.

    header: the message's, none (or a partial one) when it could not be read. now: aware. control_id: our own, unique.
    msa_text: MSA-3 holds the verdict's text for senders of 2.7 and later too, who have it in ERR-8. Raises ValueError
    for the header of an acknowledgment: those are never answered.
    """
    if header is None:
        header = _UNREADABLE
    elif is_ack(header):
        raise ValueError("an acknowledgment is never acknowledged")
    time, own_id, their_id = _stamp(int(now.timestamp()), now.utcoffset()), control_id.encode(), header.raw(10)
    if verdict == _PLAIN.get(verdict.code) and control_id.isalnum() and their_id.isascii() and not header.wide:
        fields = header.fields
        echoed = list(_echoed(fields)) if len(fields) >= _ECHOED[-1] else [header.raw(number) for number in _ECHOED]
        echoed[_VERSION_ECHOED] = echoed[_VERSION_ECHOED] or header.version_default.encode()
        small = len(header.trigger_event) + sum(map(len, echoed)) <= _TEMPLATE_BYTES_MAX
        made = _template(header.delimiters, header.trigger_event, verdict.code, *echoed) if small else None
        if made is not None:
            return made[0] + time + made[1] + own_id + made[2] + their_id.translate(None, _NEVER_IN_A_FRAME) + made[3]
    return _compose(header, verdict, time, _encoded(control_id, header.delimiters), their_id, msa_text=msa_text)


@lru_cache(maxsize=1024)
def _template(
    delimiters: Delimiters, trigger_event: str, code: AckCode, *echoed: bytes
) -> tuple[bytes, bytes, bytes, bytes] | None:
    """A plain answer with its three gaps (time, our id, theirs); none: something in it depends on what fills them.

    A sender says the same about itself in every message, and putting an answer together is much of what one costs.
    """
    fields = [b"MSH"] + [b""] * max(_ECHOED)
    for number, value in zip(_ECHOED, echoed, strict=True):
        fields[number - 1] = value
    header = Header.of(delimiters, fields, trigger_event=trigger_event)
    whole = _compose(header, _PLAIN[code], b"\x01", b"\x02", b"\x03")
    if not whole.isascii() or not whole.count(b"\x01") == whole.count(b"\x02") == whole.count(b"\x03") == 1:
        return None
    before, _, rest = whole.partition(b"\x01")
    between, _, rest = rest.partition(b"\x02")
    after, _, end = rest.partition(b"\x03")
    return before, between, after, end


@lru_cache(maxsize=64)
def _stamp(second: int, offset: timedelta | None) -> bytes:
    """MSH-7 of a second since 1970, with the offset."""
    return datetime.fromtimestamp(second, timezone(offset or timedelta())).strftime("%Y%m%d%H%M%S%z").encode()


def _compose(
    header: Header, verdict: Verdict, time: bytes, own_id: bytes, their_id: bytes, *, msa_text: bool = False
) -> bytes:
    delimiters = header.delimiters
    field = delimiters.field.encode()
    component = delimiters.component.encode()
    type_ = (
        component.join((b"ACK", header.trigger_event.encode("ascii", "replace"), b"ACK"))
        if header.trigger_event
        else b"ACK"
    )
    parts = [
        b"MSH", delimiters.encoding.encode(), header.raw(5), header.raw(6), header.raw(3), header.raw(4),
        time, b"", type_, own_id,
        header.raw(11) or _DEFAULT_PROCESSING_ID, header.raw(12) or header.version_default.encode() or _DEFAULT_VERSION,
    ]  # fmt: skip
    version = _version(header)
    msa = [b"MSA", verdict.code.value.encode(), their_id]
    text = verdict.text if msa_text or version < (2, 7) else ""
    if text:
        msa.append(_encoded(text[:_MSA_TEXT_CHARACTERS_MAX], delimiters))
    if verdict.expected_sequence is not None:
        msa += [b""] * (4 - len(msa)) + [str(verdict.expected_sequence).encode()]
    lines = [msa]
    if verdict.hl7_code or verdict.error:
        lines.append(_err(verdict, version, delimiters))
    reply_charset = _reply_charset(header, parts + msa)
    if reply_charset:
        parts += [b""] * 5 + [reply_charset]
    return b"".join(_line(line, field) for line in (parts, *lines))


def parse_ack(payload: bytes) -> Ack:
    """Read an acknowledgment that a peer sent.

    Raises MessageError when the payload is none: no MSH, no MSA or several, no known code in MSA-1. Whether MSA-2 names
    the message in flight is for the caller to check.
    """
    try:
        header = read_header(payload)
    except HeaderError as error:
        if error.header is None or error.error in {"several-headers", "charset-not-accepted"}:
            raise
        header = error.header
    separator = header.delimiters.field.encode()
    lines = [line.split(separator) for line in re.split(rb"[\r\n]+", payload)]
    answers = [line for line in lines if line[0] == b"MSA"]
    if len(answers) != 1:
        raise MessageError(
            "ack-without-msa" if not answers else "ack-with-several-msa",
            "the answer has not one MSA segment",
            hl7_code=SEGMENT_SEQUENCE,
            location="MSA",
        )
    msa = answers[0] + [b""] * 5
    err = next((line for line in lines if line[0] == b"ERR"), []) + [b""] * 9
    try:
        code = AckCode(msa[1].strip().decode("ascii", "replace").upper())
    except ValueError:
        raise MessageError(
            "ack-code-unknown", "the answer has no known code", hl7_code=TABLE_VALUE, location="MSA-1"
        ) from None
    codec = charset.declared_codec(header.charset_names)[0]
    unescape = unescaper(header.delimiters, "utf-8")
    sequence = msa[4].strip()
    hl7_code, location = _reported(err, header.delimiters)
    return Ack(
        code=code,
        control_id=msa[2],
        text=unescape(charset.decode_short(msa[3] or err[8], codec)),
        hl7_code=hl7_code,
        location=location,
        expected_sequence=int(sequence) if re.fullmatch(rb"-?[0-9]{1,15}", sequence) else None,
    )


_NEVER_IN_A_FRAME: Final = b"\x0b\x1c"
_PLAIN: Final = {code: Verdict(code=code) for code in AckCode}
_ECHOED: Final = (3, 4, 5, 6, 11, 12, 18)
"""Fields of the message's MSH that an answer depends on, besides its event and control id."""
_VERSION_ECHOED: Final = _ECHOED.index(12)
_echoed: Final = itemgetter(*(number - 1 for number in _ECHOED))
_NOTHING: Final = AckPlan(original=False, accept="NE", application="NE")
_ORIGINAL: Final = AckPlan(original=True, accept="NE", application="AL")
_ENHANCED: Final = AckPlan(original=False, accept="AL", application="NE")
_UNREADABLE: Final = Header(delimiters=Delimiters(), fields=[b"MSH"], message_code="", trigger_event="")


def _condition(text: str) -> str:
    return "NE" if not text else text if text in _CONDITIONS else "AL"


def _version(header: Header) -> tuple[int, int]:
    """Unknown versions are answered as 2.5, whose parsers know both MSA-3 and the long ERR."""
    match = _VERSION.match(header.version)
    return (int(match[1]), int(match[2])) if match else (2, 5)


def _encoded(text: str, delimiters: Delimiters) -> bytes:
    return escape(text, delimiters).encode("ascii", "replace")


def _err(verdict: Verdict, version: tuple[int, int], delimiters: Delimiters) -> list[bytes]:
    component = delimiters.component.encode()
    code = [str(verdict.hl7_code).encode(), _encoded(ERROR_TEXTS.get(verdict.hl7_code, ""), delimiters), b"HL70357"]
    location = _place(verdict.location)
    if version < (2, 5):
        nested = delimiters.subcomponent.encode()
        coded = nested.join(code) if nested else code[0]
        return [b"ERR", component.join([*(location + [b""] * 3)[:3], coded])]
    severity = b"E" if verdict.code not in {AckCode.AA, AckCode.CA} else b"W" if verdict.hl7_code else b"I"
    own = component.join((_encoded(verdict.error, delimiters), b"", b"L")) if verdict.error else b""
    fields = [b"ERR", b"", component.join(location), component.join(code), severity]
    if verdict.text:
        return [*fields, own, b"", b"", _encoded(verdict.text, delimiters)]
    return [*fields, own] if own else fields


def _place(location: str | None) -> list[bytes]:
    """`PID-3.1` as ERL has it: PID, 1, 3, 1, 1."""
    match = _LOCATION.fullmatch(location or "")
    if match is None:
        return []
    segment, index, field, repetition, component, subcomponent = match.groups()
    parts = [segment, index or "1"]
    if field:
        parts.append(field)
    if repetition or component:
        parts.append(repetition or "1")
    parts += [number for number in (component, subcomponent) if number]
    return [part.encode() for part in parts]


def _reply_charset(header: Header, parts: list[bytes]) -> bytes:
    """MSH-18 of the answer, which echoes the sender's bytes: the sender's, if those are in it."""
    if header.wide:
        return b"" if all(part.isascii() for part in parts) else b"UNICODE UTF-8"
    codec = charset.declared_codec(header.charset_names)[0]
    if codec is not None and charset.decodes(b"".join(parts), codec):
        return header.raw(18)
    if all(part.isascii() for part in parts) or not charset.decodes(b"".join(parts), "utf-8"):
        return b""
    return b"UNICODE UTF-8"


def _line(fields: list[bytes], separator: bytes) -> bytes:
    """A segment, less the two bytes that MLLP itself uses and that can't travel in a frame."""
    return separator.join(fields).translate(None, _NEVER_IN_A_FRAME) + b"\r"


def _reported(err: list[bytes], delimiters: Delimiters) -> tuple[int, str | None]:
    """The code of table 0357 and the place that an ERR segment reports, of either form."""
    component = delimiters.component.encode()
    place, code = err[2], err[3].split(component)[0]
    if not err[3] and err[1]:
        *location, coded = err[1].split(component)[:4]
        nested = delimiters.subcomponent.encode()
        place, code = component.join(location), coded.split(nested)[0] if nested else coded
    return int(code) if re.fullmatch(rb"[0-9]{1,5}", code) else 0, place.decode("ascii", "replace") or None
