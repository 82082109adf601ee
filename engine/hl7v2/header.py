"""One cheap look at MSH: all that intake needs to decide and to answer.

Raw fields stay bytes, as they came, because an answer echoes them byte for byte. (Of a message in UTF-16 or UTF-32,
which is refused, the header is held in UTF-8, to answer it.) MSH is split before its charset is known: in a charset
whose characters may contain the byte of a delimiter (Big5, GB 18030), names of applications are expected to be ASCII.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from engine.domain.record import Phi, Record
from engine.errors import DATA_TYPE, REQUIRED_FIELD_MISSING, SEGMENT_SEQUENCE, MessageError
from engine.hl7v2 import charset
from engine.hl7v2.mllp import is_wide

ENCODING_CHARACTERS_MISSING: Final = "encoding-characters-missing"
ENCODING_CHARACTERS_LONG: Final = "encoding-characters-long"
ESCAPE_DOUBLED: Final = "escape-doubled"
LEADING_BYTES: Final = "bytes-before-header"
SEGMENT_CASE: Final = "segment-name-case"
EVENT_CASE: Final = "event-case"
STRUCTURE_MISSING: Final = "message-structure-missing"
PROCESSING_ID_MISSING: Final = "processing-id-missing"
VERSION_MISSING: Final = "version-missing"
EVENT_FROM_EVN: Final = "event-from-evn"

_BLANK: Final = b"\x00\t\n\r\x0b\x0c \x1c"
_INDENT: Final = b" \t\x00"
_INDENT_MAX: Final = 42
_FIELDS_MAX: Final = 40  # MSH has 25 fields in 2.8; what follows in a segment without end stays one field
_NAMES_BYTES_MAX: Final = 256
_TYPE_BYTES_MAX: Final = 64
_SENDER: Final = (3, 4, 11, 12)
"""Fields that say the same in every message of a sender."""
_SENDER_BYTES_MAX: Final = 256
_ENCODING_BYTES_MAX: Final = 16
_ACKNOWLEDGMENTS: Final = frozenset({"ACK", "MCF"})
_EVENT: Final = re.compile(rb"[A-Z][A-Z0-9]{2}")
_EVN_BYTES_MAX: Final = 64
_WIDE_BYTES_MAX: Final = 16_384
_EVENT_IN_EVN: Final = frozenset({"", "2.1", "2.2"})
"""Versions whose MSH-9 may be the message type alone, and EVN-1 the event (2.1: MSH-9 has one component)."""
_VERSIONS_WITHOUT_STRUCTURE: Final = frozenset({"2.1", "2.2", "2.3"})


class Delimiters(Record, frozen=True, kw_only=True):
    """The characters that MSH-1 and MSH-2 declare. An empty one is not declared: nothing is split or escaped by it."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""
    """Declared from version 2.7 on."""

    @property
    def encoding(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


class Header(Phi, frozen=True, kw_only=True):
    """MSH. `fields[n - 1]` is MSH-n from MSH-2 on, raw. Text properties are trimmed."""

    delimiters: Delimiters
    fields: list[bytes]
    message_code: str
    """MSH-9.1 in upper case: `ADT`."""
    trigger_event: str
    """MSH-9.2 in upper case: `A01`; empty in an acknowledgment."""
    sending_application: str = ""
    sending_facility: str = ""
    processing_id: str = ""
    version_sent: str = ""
    """MSH-12."""
    wide: bool = False
    """The message is in UTF-16 or UTF-32, and refused."""
    version_default: str = ""
    """What the channel takes for the version of a message without one."""
    deviations: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        delimiters: Delimiters,
        fields: list[bytes],
        *,
        message_code: str = "",
        trigger_event: str = "",
        deviations: tuple[str, ...] = (),
        wide: bool = False,
    ) -> Header:
        """MSH from its fields. What a sender says of itself in every message is decoded once for all of them."""
        given = fields if len(fields) >= _SENDER[-1] else fields + [b""] * _SENDER[-1]
        sender = given[2], given[3], given[10], given[11]
        joined = b"".join(sender)
        if len(joined) <= _SENDER_BYTES_MAX and joined.isascii():
            application, facility, processing_id, version = _first_components(delimiters.component, *sender)
            return cls(
                delimiters=delimiters,
                fields=fields,
                message_code=message_code,
                trigger_event=trigger_event,
                sending_application=application,
                sending_facility=facility,
                processing_id=processing_id,
                version_sent=version,
                deviations=deviations,
                wide=wide,
            )
        header = cls(
            delimiters=delimiters,
            fields=fields,
            message_code=message_code,
            trigger_event=trigger_event,
            deviations=deviations,
            wide=wide,
        )
        application, facility, processing_id, version = map(header.text, _SENDER)
        return replace(
            header,
            sending_application=application,
            sending_facility=facility,
            processing_id=processing_id,
            version_sent=version,
        )

    def raw(self, number: int) -> bytes:
        """MSH-`number` as it came; empty when it is absent. From MSH-2 on."""
        return self.fields[number - 1] if number <= len(self.fields) else b""

    def text(self, number: int, component: int = 1) -> str:
        """A component of MSH-`number` as trimmed text, escapes left alone; empty when it is absent."""
        raw = self.raw(number)
        if not raw:
            return ""
        parts = self._decode(raw).split(self.delimiters.component)
        return parts[component - 1].strip() if component <= len(parts) else ""

    @property
    def type(self) -> str:
        """`ADT^A01`, or the message code alone."""
        return f"{self.message_code}^{self.trigger_event}" if self.trigger_event else self.message_code

    @property
    def message_structure(self) -> str:
        return self.text(9, 3).upper()

    @property
    def control_id(self) -> str:
        return self._decode(self.raw(10)).strip()

    @property
    def control_id_raw(self) -> bytes:
        """MSH-10 byte for byte, as MSA-2 must return it."""
        return self.raw(10)

    @property
    def receiving_application(self) -> str:
        return self.text(5)

    @property
    def receiving_facility(self) -> str:
        return self.text(6)

    @property
    def sent_at(self) -> str:
        """MSH-7, as HL7 writes it."""
        return self.text(7)

    @property
    def version(self) -> str:
        """MSH-12, else the channel's `version_default`."""
        return self.version_sent or self.version_default

    @property
    def sequence_number(self) -> int | None:
        text = self.text(13)
        return (
            int(text)
            if len(text) <= 15 and text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()
            else None
        )

    @property
    def accept_ack(self) -> str:
        """MSH-15, HL7 table 0155: AL NE ER SU, or empty."""
        return self._condition(15)

    @property
    def application_ack(self) -> str:
        """MSH-16, HL7 table 0155."""
        return self._condition(16)

    @property
    def charset_names(self) -> tuple[str, ...]:
        """The repetitions of MSH-18; none when it is empty."""
        raw = self.raw(18)
        return _charset_names(raw[:_NAMES_BYTES_MAX], self.delimiters.repetition) if raw else ()

    def _condition(self, number: int) -> str:
        text = self.text(number).upper() if number <= len(self.fields) else ""
        return "" if text == '""' else text

    def _decode(self, raw: bytes) -> str:
        if raw.isascii():
            return raw.decode("ascii")
        codec = None if self.wide else charset.declared_codec(self.charset_names)[0]
        return charset.decode_short(raw, codec)


class HeaderError(MessageError):
    """MSH cannot be read, or lacks what nobody can do without.

    header: what could be read, to build the answer with; none when nothing could.
    """

    def __init__(self, error: str, text: str, *, hl7_code: int, location: str, header: Header | None = None) -> None:
        super().__init__(error, text, hl7_code=hl7_code, location=location)
        self.header = header


def read_header(payload: bytes) -> Header:
    """MSH of a message.

    Raises HeaderError: no MSH (100), unusable delimiters (102), MSH-9 or MSH-10 missing (101), a second MSH in the same
    payload (100), bytes in UTF-16 or UTF-32 (102).
    """
    deviations: tuple[str, ...] = ()
    start = 0
    if payload[:3] != b"MSH":
        if is_wide(payload):
            raise _refused_as_wide(payload)
        start, deviations = _find_header(payload)
    end = payload.find(b"\r", start)
    line_end = payload.find(b"\n", start, end if end >= 0 else len(payload))
    if line_end >= 0:
        end = line_end
    separator = payload[start + 3 : start + 4]
    if not _usable(separator):
        raise HeaderError("field-separator", "MSH-1 is no usable separator", hl7_code=DATA_TYPE, location="MSH-1")
    fields = payload[start : end if end >= 0 else len(payload)].split(separator, _FIELDS_MAX)
    try:
        delimiters, component, found = _delimiters(
            separator, fields[1][:_ENCODING_BYTES_MAX] if len(fields) > 1 else b""
        )
        broken = None
    except HeaderError as error:
        (delimiters, component), found = _usual(separator), ()
        broken = error
    raw_type = fields[8] if len(fields) > 8 else b""
    code, event, found_in_type = (_type if len(raw_type) <= _TYPE_BYTES_MAX else _type.__wrapped__)(raw_type, component)
    deviations += found + found_in_type
    header = Header.of(delimiters, fields, message_code=code, trigger_event=event, deviations=deviations)
    if not event and code not in _ACKNOWLEDGMENTS and end >= 0 and header.version in _EVENT_IN_EVN:
        event = _event_of_evn(payload, end, separator, component)
        if event:
            header = replace(header, trigger_event=event, deviations=(*header.deviations, EVENT_FROM_EVN))
    if STRUCTURE_MISSING in found_in_type and header.version in _VERSIONS_WITHOUT_STRUCTURE:
        header = replace(header, deviations=tuple(name for name in deviations if name != STRUCTURE_MISSING))
    if not header.processing_id:
        header = replace(header, deviations=(*header.deviations, PROCESSING_ID_MISSING))
    if not header.version:
        header = replace(header, deviations=(*header.deviations, VERSION_MISSING))
    if broken is not None:
        broken.header = header
        raise broken
    if not code:
        raise HeaderError(
            "message-type-missing",
            "the message type is missing",
            hl7_code=REQUIRED_FIELD_MISSING,
            location="MSH-9",
            header=header,
        )
    if len(fields) < 10 or not fields[9].strip():
        raise HeaderError(
            "control-id-missing",
            "the control id is missing",
            hl7_code=REQUIRED_FIELD_MISSING,
            location="MSH-10",
            header=header,
        )
    if end >= 0 and _another_header(payload, end):
        raise several_headers(header)
    return header


def several_headers(header: Header) -> HeaderError:
    """The refusal of a payload with a second MSH: messages merged by a sender or a broken frame.

    They must never be read as one patient's.
    """
    return HeaderError(
        "several-headers",
        "one payload holds several messages",
        hl7_code=SEGMENT_SEQUENCE,
        location="MSH[2]",
        header=header,
    )


def _another_header(payload: bytes, start: int) -> bool:
    """Whether a further MSH starts a line, indented or not. The reader, which sees every segment, makes sure."""
    found = payload.find(b"MSH", start)
    while found >= 0:
        before = payload[max(start, found - _INDENT_MAX) : found].rstrip(_INDENT)
        if before.endswith((b"\r", b"\n")) and _usable(payload[found + 3 : found + 4]):
            return True
        found = payload.find(b"MSH", found + 3)
    return False


def _refused_as_wide(payload: bytes) -> HeaderError:
    """The refusal of bytes that MLLP can't carry, with as much of the header as its answer needs."""
    text = charset.wide_text(payload, _WIDE_BYTES_MAX) or ""
    header: Header | None
    try:
        header = read_header(text.encode("utf-8", "replace"))
    except HeaderError as error:
        header = error.header
    if header is not None:
        header = Header.of(
            header.delimiters,
            header.fields,
            message_code=header.message_code,
            trigger_event=header.trigger_event,
            deviations=header.deviations,
            wide=True,
        )
    return HeaderError(
        "charset-not-accepted",
        "MLLP can't carry UTF-16 or UTF-32: send UTF-8",
        hl7_code=DATA_TYPE,
        location="MSH-18",
        header=header,
    )


def _event_of_evn(payload: bytes, start: int, separator: bytes, component: bytes) -> str:
    """EVN-1 in upper case; empty when there is none."""
    for name in (b"EVN", b"evn"):
        found = payload.find(name + separator, start)
        if found > 0 and payload[found - 1 : found] in {b"\r", b"\n"}:
            line = re.split(rb"[\r\n]", payload[found : found + _EVN_BYTES_MAX], maxsplit=1)[0]
            event = line.split(separator)[1].split(component)[0].strip().upper()
            return event.decode("ascii") if _EVENT.fullmatch(event) else ""
    return ""


def _find_header(payload: bytes) -> tuple[int, tuple[str, ...]]:
    """Where MSH starts behind a byte order mark and blank bytes."""
    deviations: tuple[str, ...] = ()
    start = 0
    mark = "\ufeff".encode()
    if payload.startswith(mark):
        deviations += (charset.BYTE_ORDER_MARK,)
        start = len(mark)
    behind_blanks = len(payload) - len(payload[start:].lstrip(_BLANK))
    if behind_blanks > start:
        deviations += (LEADING_BYTES,)
        start = behind_blanks
    name = payload[start : start + 3]
    if name.upper() != b"MSH":
        raise HeaderError(
            "header-missing", "the message does not start with MSH", hl7_code=SEGMENT_SEQUENCE, location="MSH"
        )
    if name != b"MSH":
        deviations += (SEGMENT_CASE,)
    return start, deviations


@lru_cache(maxsize=64)
def _delimiters(separator: bytes, encoding: bytes) -> tuple[Delimiters, bytes, tuple[str, ...]]:
    r"""The delimiters, the component separator as a byte, and what was strange about them.

    Accepted beyond the standard: nothing declared (the usual ones are meant); fewer than four; more characters than
    can be delimiters, of which the first four count (`^~\&amp;` out of XML); the escape character doubled as
    programmers write it (`^~\\&`), where the escape is a backslash and the subcomponent separator what follows.

    Not accepted: fewer than four with one of the usual ones out of its place (`^~&`). By its place the `&` would
    escape; the sender means that it separates, and read so or so the same number would be two patients (ch. 2, MSH-2:
    the escape may be left out only when there are no subcomponents).
    """
    if not encoding:
        return (*_usual(separator), (ENCODING_CHARACTERS_MISSING,))
    deviations: tuple[str, ...] = ()
    if len(encoding) >= 4 and encoding[2] == encoding[3]:
        encoding = encoding[:3] + encoding[4:]
        deviations += (ESCAPE_DOUBLED,)
    if len(encoding) > 5 or (len(encoding) == 5 and not (_usable(encoding[4:]) and encoding[4] not in encoding[:4])):
        encoding = encoding[:4]
        deviations += (ENCODING_CHARACTERS_LONG,)
    characters = [bytes((byte,)) for byte in encoding]
    misplaced = len(encoding) < 4 and any(_USUAL.find(one) not in {-1, place} for place, one in enumerate(characters))
    if misplaced or not all(map(_usable, characters)) or len({separator, *characters}) <= len(characters):
        raise HeaderError(
            "encoding-characters", "MSH-2 holds unusable delimiters", hl7_code=DATA_TYPE, location="MSH-2"
        )
    if len(characters) < 4:
        deviations += (ENCODING_CHARACTERS_MISSING,)
    names = ("component", "repetition", "escape", "subcomponent", "truncation")
    declared = dict.fromkeys(names, "") | dict(zip(names, encoding.decode("ascii"), strict=False))
    return Delimiters(field=separator.decode("ascii"), **declared), characters[0], deviations


_USUAL: Final = b"^~\\&"


def _usual(separator: bytes) -> tuple[Delimiters, bytes]:
    """The delimiters that nearly everybody uses, for who declared none; with the bar in place of one that is taken."""
    field = separator.decode("ascii")
    free = [character if character != field else "|" for character in "^~\\&"]
    delimiters = Delimiters(field=field, component=free[0], repetition=free[1], escape=free[2], subcomponent=free[3])
    return delimiters, free[0].encode()


def _usable(character: bytes) -> bool:
    """A graphic ASCII character that is neither letter nor digit."""
    return b" " < character < b"\x7f" and not character.isalnum()


@lru_cache(maxsize=256)
def _type(raw: bytes, component: bytes) -> tuple[str, str, tuple[str, ...]]:
    """MSH-9.1 and .2 in upper case, and what was strange about them."""
    parts = [part.strip() for part in raw.split(component)]
    code, event = parts[0], parts[1] if len(parts) > 1 and parts[1] != b'""' else b""
    deviations: tuple[str, ...] = ()
    if (code + event).upper() != code + event:
        deviations += (EVENT_CASE,)
    if event and not (len(parts) > 2 and parts[2]):
        deviations += (STRUCTURE_MISSING,)
    names = [name.upper().decode("ascii", "replace") for name in (code, event)]
    return ("" if names[0] == '""' else names[0]), names[1], deviations


@lru_cache(maxsize=256)
def _first_components(component: str, *fields: bytes) -> tuple[str, ...]:
    return tuple(raw.decode("ascii").split(component)[0].strip() for raw in fields)


@lru_cache(maxsize=64)
def _charset_names(raw: bytes, repetition: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in raw.decode("ascii", "replace").split(repetition or "~"))
    return names if any(names) else ()


def is_ack(header: Header) -> bool:
    """Whether the message is itself an acknowledgment, which is never answered."""
    return header.message_code in _ACKNOWLEDGMENTS
