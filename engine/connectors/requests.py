"""Messages that are made here: requests for appointments (SRM), and what is read of their answers (SRR).

What stands where in a message says `mappings/destinations/<name>.yaml`, strictly: an unknown key, a value that no
request has, a field that no segment can have are problems with file, line and column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import Field, model_validator

from engine.connectors.fieldmap import place_problems, steps_of, values_at
from engine.domain.delivery import CONTENTS, Delivery, Operation
from engine.domain.moment import Moment, Precision
from engine.domain.record import Phi
from engine.errors import MessageError, Problem, SettingsError
from engine.hl7v2.escape import escape
from engine.hl7v2.header import Delimiters
from engine.hl7v2.message import Message
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

OPERATIONS: Final = (Operation.REQUEST_APPOINTMENT, Operation.CANCEL_APPOINTMENT)
_OPERATIONS: Final = {operation.value: operation for operation in OPERATIONS}
CONTROL_ID_CHARS: Final = 20
"""The longest MSH-10 that receivers of all versions take."""

_Place = Annotated[str, Field(pattern=r"^[1-9][0-9]?(\.[1-9][0-9]?)?$")]


class ValueRule(StrictModel):
    """What a field or component holds."""

    source: Annotated[str | None, Field(alias="from")] = None
    """Place in the request: `patient.name.family`, `patient.identifiers[0].value`."""
    value: Annotated[str, Field(max_length=200)] | None = None
    """A fixed text."""
    now: bool = False
    """The time of the delivery."""
    kind: Annotated[Literal["text", "date", "time"], Field(alias="as")] = "text"
    """date, time: as HL7 writes them (YYYYMMDD, YYYYMMDDHHMMSS with the offset); what is less precise is left out."""
    table: dict[str, str] | None = None
    """Value -> what is sent for it; for a value that is not listed, `default`."""
    default: Annotated[str, Field(max_length=200)] | None = None
    """Sent when there is no value; none: the field stays empty."""

    @model_validator(mode="after")
    def _one_source(self) -> ValueRule:
        if (self.source is not None) + (self.value is not None) + self.now != 1:
            raise ValueError("needs exactly one of: from, value, now")
        return self


class SegmentRule(StrictModel):
    """One segment of a message."""

    segment: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}$")]
    """Its name. Of MSH what is not given is filled in: delimiters, time, type, control id, processing id, version."""
    needs: Annotated[str, Field(min_length=1)] | None = None
    """Place in the request without a value of which the segment is left out; none: it is always there."""
    fields: dict[_Place, ValueRule] = {}
    """Field, or field and component (`3.1`) -> its value."""


class MessageRule(StrictModel):
    """The message that one operation becomes."""

    on: Literal["request_appointment", "cancel_appointment"]
    """Operation."""
    type: Annotated[str, Field(pattern=r"^[A-Z]{3}\^[A-Z][A-Z0-9]{2}(\^[A-Z0-9_]+)?$")]
    """MSH-9: `SRM^S01^SRM_S01`."""
    segments: Annotated[tuple[SegmentRule, ...], Field(min_length=1)]
    """Its segments, in order; the first is MSH."""


class RequestsFile(StrictModel):
    """How requests for appointments are written for a scheduling system."""

    version: Annotated[str, Field(pattern=r"^2\.[1-9](\.[1-9])?$")]
    """MSH-12."""
    processing_id: Annotated[str, Field(pattern=r"^[PTD]$")] = "P"
    """MSH-11."""
    messages: Annotated[tuple[MessageRule, ...], Field(min_length=1)]
    """One message for each operation."""


_PLAIN: Final = Delimiters()


class RequestMap:
    """A checked file."""

    def __init__(self, file: RequestsFile, zone: ZoneInfo) -> None:
        self._file = file
        self._zone = zone
        self._rules = {_OPERATIONS[rule.on]: rule for rule in file.messages}

    def write(self, delivery: Delivery, now: datetime) -> bytes | None:
        """The message of a delivery; none: the file has none for its operation."""
        rule = self._rules.get(delivery.operation)
        if rule is None:
            return None
        payload = msgspec.json.decode(delivery.payload)
        lines = [self._segment(one, rule, delivery, payload, now) for one in rule.segments]
        return "\r".join([*filter(None, lines), ""]).encode()

    def _segment(
        self, rule: SegmentRule, message: MessageRule, delivery: Delivery, payload: Mapping[str, Any], now: datetime
    ) -> str | None:
        if rule.needs is not None and not _value(payload, rule.needs):
            return None
        fields: dict[int, dict[int, str]] = {}
        for place, one in rule.fields.items():
            field, _, component = place.partition(".")
            text = self._text(one, payload, now)
            if text:
                fields.setdefault(int(field), {})[int(component or 1)] = escape(text, _PLAIN)
        written = {field: _components(parts) for field, parts in fields.items()}
        if rule.segment != "MSH":
            return "|".join([rule.segment, *(written.get(n, "") for n in range(1, max(written, default=0) + 1))])
        written = {
            7: _hl7(now.astimezone(self._zone)),
            9: message.type,
            10: control_id(delivery),
            11: self._file.processing_id,
            12: self._file.version,
            18: "UNICODE UTF-8",
        } | written
        return "|".join(["MSH", "^~\\&", *(written.get(n, "") for n in range(3, max(written) + 1))])

    def _text(self, rule: ValueRule, payload: Mapping[str, Any], now: datetime) -> str | None:
        if rule.now:
            return _hl7(now.astimezone(self._zone))
        if rule.source is None:
            return rule.value
        found = _value(payload, rule.source)
        text: str | None = None
        if rule.kind == "text":
            text = str(found) if found not in {None, ""} else None
        elif isinstance(found, str) and (time := Moment.read(found)) is not None:
            text = self._time(time, rule.kind)
        if rule.table is not None:
            text = rule.table.get(text or "")
        return text if text is not None else rule.default

    def _time(self, time: Moment, kind: str) -> str | None:
        if kind == "date":
            return time.text[:10].replace("-", "") if time.precision >= Precision.DAY else None
        return _hl7(time.at.astimezone(self._zone)) if time.timed and time.at is not None else None


def control_id(delivery: Delivery) -> str:
    """The same at every attempt, so that a receiver that has it already notices."""
    return blake2b(delivery.idempotency_key.encode(), digest_size=CONTROL_ID_CHARS // 2).hexdigest().upper()


def _components(parts: Mapping[int, str]) -> str:
    return "^".join(parts.get(number, "") for number in range(1, max(parts) + 1))


def _hl7(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S%z")


def _value(payload: Any, place: str) -> Any:
    return next((one for one in values_at(payload, steps_of(place) or ()) if one is not None), None)


def compile_requests(document: Document, *, zone: ZoneInfo) -> RequestMap:
    """zone: that times are written in. Raises SettingsError with every problem."""
    file = validate(document, RequestsFile)
    problems = list(_problems(document, file))
    if problems:
        raise SettingsError(tuple(problems))
    return RequestMap(file, zone)


def _problems(document: Document, file: RequestsFile) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, message in enumerate(file.messages):
        at: tuple[str | int, ...] = ("messages", index)
        if message.on in seen:
            yield document.problem((*at, "on"), "another message is for this operation")
        seen.add(message.on)
        if message.segments[0].segment != "MSH":
            yield document.problem((*at, "segments", 0, "segment"), "a message begins with MSH")
        payload: type[Phi] = CONTENTS[_OPERATIONS[message.on]]
        for number, segment in enumerate(message.segments):
            here = (*at, "segments", number)
            if segment.needs is not None:
                yield from place_problems(document, (*here, "needs"), segment.needs, payload)
            for place, rule in segment.fields.items():
                if segment.segment == "MSH" and place.partition(".")[0] in {"1", "2"}:
                    yield document.problem((*here, "fields", place), "the delimiters are given")
                if rule.source is not None:
                    yield from place_problems(document, (*here, "fields", place, "from"), rule.source, payload)
    for operation in OPERATIONS:
        if operation not in seen:
            yield document.problem(("messages",), f"has no message for {operation}")


# --- the answer


class Answer(Phi, frozen=True, kw_only=True):
    """What an answer to a request (SRR) says of the appointment, as it was sent."""

    filler: str | None = None
    authority: str | None = None
    status: str | None = None
    starts_at: str | None = None

    @classmethod
    def of(cls, payload: bytes) -> Answer:
        """Of an answer without SCH nothing."""
        try:
            message = Message.parse(payload)
            said = [_said(message, path) for path in ("SCH-2.1", "SCH-2.2", "SCH-25.1", "SCH-11.4", "TQ1-7")]
        except MessageError:
            return cls()
        filler, authority, status, start, timing = said
        return cls(filler=filler, authority=authority, status=status, starts_at=start or timing)

    def written(self) -> str:
        """As a receipt."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, receipt: str | None) -> Answer | None:
        """None: the receipt is of something else."""
        try:
            return msgspec.json.decode(receipt or "", type=cls)
        except msgspec.MsgspecError:
            return None


def _said(message: Message, path: str) -> str | None:
    text = (message.get(path) or "").strip()
    return text if text and text != '""' else None
