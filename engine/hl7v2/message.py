"""The reader: lazy, immutable, and never at odds with the bytes that came.

Three answers are three things: None is absent, an empty text is present without a value, `""` (two quotation marks) is
HL7's explicit null, which asks to delete. Values are unescaped and otherwise as they came, not trimmed.

The text is decoded once, whole (in Big5, GB 18030 and others a delimiter's byte may be half of a character), and split
where somebody looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Final, NoReturn

from msgspec import Struct

from engine.errors import SEGMENT_SEQUENCE, VALUE_TOO_LONG, MessageError
from engine.hl7v2 import charset as charsets
from engine.hl7v2.escape import CONTROL, unescaper
from engine.hl7v2.header import SEGMENT_CASE, Delimiters, Header, read_header, several_headers
from engine.hl7v2.path import ALL, Path, compiled

NULL: Final = '""'
"""HL7's explicit null."""

LINE_FEED: Final = "line-feed-terminator"
LINE_FEED_IN_TEXT: Final = "line-feed-in-text"
LINE_FEED_DOUBTFUL: Final = "line-feed-doubtful"
CONTROL_CHARACTER: Final = "control-character"
FINAL_CR_MISSING: Final = "final-cr-missing"
SEGMENT_UNREADABLE: Final = "segment-unreadable"

SEGMENTS_MAX: Final = 10_000
"""Of one message; more are refused, because every look for one would take long."""
REPETITIONS_MAX: Final = 1_000
"""Of a field that is read."""

_HEADERS: Final = frozenset({"MSH", "FHS", "BHS"})
_COMMON: Final = frozenset({
    "SFT", "UAC", "EVN", "PID", "PD1", "ARV", "ROL", "NK1", "PV1", "PV2", "DB1", "OBX", "AL1",
    "DG1", "DRG", "PR1", "GT1", "IN1", "IN2", "IN3", "ACC", "UB1", "UB2", "PDA", "MRG", "OBR", "ORC",
    "NTE", "NPU", "AUT", "CON", "ZBE",
})  # fmt: skip
_BLANK: Final = "\t\n \ufeff"
_CONTROL_BYTES: Final = bytes({*range(32), 127} - set(b"\t\n\r"))
_SOFT_RETURNS: Final = {0x0B: " ", 0x0C: " "}
"""A line break inside a line, as word processors write it, keeps two words apart."""
_OF_TEXT: Final = frozenset({"NTE", "OBX"})
"""Segments that hold whole texts, with whatever stands in them."""


class Syntax:
    """What is needed to read values of one kind of message; shared by all messages of that kind."""

    __slots__ = ("component", "escape", "field", "known", "repetition", "subcomponent", "unescape")

    def __init__(self, delimiters: Delimiters, charset: str) -> None:
        self.field = delimiters.field
        self.known = {name + delimiters.field: name for name in _COMMON}
        # an undeclared delimiter never occurs in a text that was split at terminators
        self.component = delimiters.component or "\r"
        self.repetition = delimiters.repetition or "\r"
        self.escape = delimiters.escape or "\r"
        self.subcomponent = delimiters.subcomponent or "\r"
        self.unescape = unescaper(delimiters, charset)


@lru_cache(maxsize=64)
def _syntax(delimiters: Delimiters, charset: str) -> Syntax:
    return Syntax(delimiters, charset)


class Repetition(Struct, eq=False, gc=False):  # a Struct, as a segment is
    """One repetition of a field. `text` is as it came, escapes and delimiters included."""

    text: str
    syntax: Syntax
    _components: list[str] | None = None

    @property
    def components(self) -> list[str]:
        """Raw components: `components[n - 1]` is component n; a null has none. Not to be changed."""
        components = self._components
        if components is None:
            text = self.text
            components = self._components = [] if text == NULL else text.split(self.syntax.component)
        return components

    def get(self, component: int = 1, subcomponent: int = 1) -> str | None:
        components = self.components
        if component > len(components):
            return NULL if self.text == NULL else None
        return _primitive(components[component - 1], subcomponent, self.syntax)

    def valued(self, component: int, subcomponent: int = 1) -> str | None:
        """A valued component, trimmed; none when it is absent, empty or null."""
        components = self._components
        if components is None:
            components = self.components
        if component > len(components):
            return None
        text = components[component - 1]
        if not text:
            return None
        syntax = self.syntax
        if subcomponent > 1 or syntax.subcomponent in text or syntax.escape in text:
            text = _primitive(text, subcomponent, syntax) or ""
        text = text.strip()
        return text if text and text != NULL else None

    def __repr__(self) -> str:
        return "<Repetition: PHI withheld>"

    def __str__(self) -> NoReturn:
        raise TypeError("a repetition holds PHI and has no text form")


class Segment(Struct, eq=False, gc=False):  # a Struct because it is made in half the time, eleven times a message
    """One segment. `name` is in upper case; `text` is as it came, without its terminator."""

    name: str
    text: str
    syntax: Syntax
    _fields: list[str] | None = None

    def __repr__(self) -> str:
        return f"<Segment {self.name}: PHI withheld>" if self.name.isalnum() and len(self.name) == 3 else "<Segment>"

    def __str__(self) -> NoReturn:
        raise TypeError("a segment holds PHI and has no text form")

    @property
    def fields(self) -> list[str]:
        """Raw fields: `fields[n]` is field n (field 0 is the segment's name). Not to be changed."""
        fields = self._fields
        if fields is None:
            fields = self.text.split(self.syntax.field)
            if self.name in _HEADERS:
                fields.insert(1, self.syntax.field)
            self._fields = fields
        return fields

    def get(self, path: Path | str | int) -> str | None:
        """The value at a place inside this segment (a field number, `3.1`, `PID-3[type=MR].1`); none if absent.

        A segment's name and index in the path are not looked at.
        """
        return self.at(path if isinstance(path, Path) else compiled(str(path)))

    def all(self, path: Path | str | int) -> list[str]:
        """Every value at a place, in order; more than one only when the path says `[*]` or selects by a condition."""
        if not isinstance(path, Path):
            path = compiled(str(path))
        if path.repetition != ALL:
            value = self.at(path)
            return [] if value is None else [value]
        values = (_value(text, path.component, path.subcomponent, self.syntax) for text in self._selected(path))
        return [value for value in values if value is not None]

    def at(self, path: Path) -> str | None:
        """`get` for a compiled path: the hot way."""
        fields = self._fields
        if fields is None:
            fields = self.fields
        number = path.field
        repetition = path.repetition
        if repetition == ALL:
            for text in self._selected(path):
                value = _value(text, path.component, path.subcomponent, self.syntax)
                if value is not None:
                    return value
            return None
        if number >= len(fields):
            return None
        text = fields[number]
        if (
            not text or text.isalnum()
        ):  # no delimiter in it, as a rule: the text is the first primitive, and the only one
            return text if repetition == path.component == path.subcomponent == 1 else None
        syntax = self.syntax
        if number <= 2 and self.name in _HEADERS:
            return text if repetition == path.component == path.subcomponent == 1 else None
        if repetition > 1 or syntax.repetition in text:
            parts = text.split(syntax.repetition, repetition)
            if repetition > len(parts):
                return None
            text = parts[repetition - 1]
        return _value(text, path.component, path.subcomponent, syntax)

    def repetitions(self, field: int) -> list[Repetition]:
        """The repetitions of a field in order; none when the field is absent or empty.

        Raises MessageError for more than REPETITIONS_MAX, as every reading of all repetitions does.
        """
        return [Repetition(text, self.syntax) for text in self.texts(field)]

    def texts(self, field: int) -> list[str]:
        """The texts of `repetitions`."""
        fields = self._fields
        if fields is None:
            fields = self.fields
        text = fields[field] if field < len(fields) else ""
        if not text:
            return []
        return self._split(text, field) if self.syntax.repetition in text else [text]

    def _split(self, text: str, field: int) -> list[str]:
        if field <= 2 and self.name in _HEADERS:
            return [text]
        parts = text.split(self.syntax.repetition)
        if len(parts) > REPETITIONS_MAX:
            raise MessageError(
                "repetitions-too-many",
                f"a field that is read repeats more than {REPETITIONS_MAX} times",
                hl7_code=VALUE_TOO_LONG,
                location=f"{self.name}-{field}",
            )
        return parts

    def _selected(self, path: Path) -> Iterator[str]:
        """The repetitions that a path with ALL means."""
        fields = self.fields
        if path.field >= len(fields):
            return
        syntax = self.syntax
        for text in self._split(fields[path.field], path.field):
            for condition in path.conditions:
                if not condition.holds(_value(text, condition.component, condition.subcomponent, syntax)):
                    break
            else:
                yield text


def _value(text: str, component: int, subcomponent: int, syntax: Syntax) -> str | None:
    """The primitive at a place inside one repetition. The null of a whole field is the null of its parts."""
    if text == NULL:
        return NULL
    if component > 1 or syntax.component in text:
        parts = text.split(syntax.component, component)
        if component > len(parts):
            return None
        text = parts[component - 1]
    if subcomponent == 1 and syntax.subcomponent not in text and syntax.escape not in text:
        return text
    return _primitive(text, subcomponent, syntax)


def _primitive(text: str, subcomponent: int, syntax: Syntax) -> str | None:
    """The primitive at a place inside one component. The null of a whole component is the null of its parts."""
    if text == NULL:
        return NULL
    if subcomponent > 1 or syntax.subcomponent in text:
        parts = text.split(syntax.subcomponent, subcomponent)
        if subcomponent > len(parts):
            return None
        text = parts[subcomponent - 1]
    return syntax.unescape(text) if syntax.escape in text else text


class Message:
    """One message. `raw` are its bytes as they came; `charset` is the Python codec it was read with.

    `deviations` are what is strange about the header, the charset and the segments, by name.
    """

    __slots__ = ("_by_name", "_segments", "charset", "deviations", "header", "raw")

    def __init__(
        self, raw: bytes, header: Header, charset: str, segments: tuple[Segment, ...], deviations: tuple[str, ...]
    ) -> None:
        self.raw = raw
        self.header = header
        self.charset = charset
        self.deviations = deviations
        self._segments = segments
        self._by_name: dict[str, list[Segment]] | None = None

    @staticmethod
    def parse(
        payload: bytes,
        *,
        default: str | None = None,
        fallback: str = "windows-1252",
        force: str | None = None,
        header: Header | None = None,
    ) -> Message:
        """Read a message.

        default, fallback, force: the channel's charset, the one of last resort, and the one that takes the place of
        what the message says, as Python codec names. header: when it was read already (a HeaderError's partial one
        too). Raises HeaderError, also for a second MSH that `read_header` overlooked, and
        MessageError for more segments than SEGMENTS_MAX.
        """
        if header is None:
            header = read_header(payload)
        decoded = charsets.decode(payload, header.charset_names, default=default, fallback=fallback, force=force)
        text = decoded.text
        deviations = header.deviations + decoded.deviations
        if _holds_control(payload, text, decoded.charset):
            text = CONTROL.sub("", text.translate(_SOFT_RETURNS))
            deviations += (CONTROL_CHARACTER,)
        syntax = _syntax(header.delimiters, decoded.charset)
        if "\n" in text:
            text, found = _without_line_feeds(text, header.delimiters)
            deviations += found
        if not text.endswith("\r"):
            deviations += (FINAL_CR_MISSING,)
        segments: list[Segment] = []
        known = syntax.known.get
        lines = text.split("\r")
        if len(lines) > SEGMENTS_MAX + (not lines[-1]):
            raise MessageError(
                "segments-too-many",
                f"the message has more than {SEGMENTS_MAX} segments",
                hl7_code=SEGMENT_SEQUENCE,
                location="MSH",
            )
        for line in lines:
            name = known(line[:4])
            if name is not None:
                segments.append(Segment(name, line, syntax))
            elif line[:3] == "MSH" and not segments:
                segments.append(Segment("MSH", line, syntax))
            elif line.strip(_BLANK):
                segment, deviation = _other_segment(line, syntax)
                if segment.name == "MSH" and segments:
                    raise several_headers(header)
                segments.append(segment)
                if deviation and deviation not in deviations:
                    deviations += (deviation,)
        return Message(payload, header, decoded.charset, tuple(segments), tuple(dict.fromkeys(deviations)))

    def __repr__(self) -> str:
        return "<Message: PHI withheld>"

    def __str__(self) -> NoReturn:
        raise TypeError("a message holds PHI and has no text form")

    @property
    def syntax(self) -> Syntax:
        """Of all its segments."""
        return self._segments[0].syntax

    def __iter__(self) -> Iterator[Segment]:
        """All segments in order, MSH included."""
        return iter(self._segments)

    def segments(self, name: str) -> list[Segment]:
        """The segments of that name, in order. Not to be changed."""
        return (self._by_name or self._named()).get(name) or []

    @property
    def present(self) -> Mapping[str, list[Segment]]:
        """The segments by their names."""
        return self._by_name or self._named()

    def _named(self) -> dict[str, list[Segment]]:
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = {}
            for segment in self._segments:
                by_name.setdefault(segment.name, []).append(segment)
        return by_name

    def get(self, path: Path | str) -> str | None:
        """The value at a place: None absent, empty without a value, `""` null; the first where several are meant."""
        if isinstance(path, str):
            path = compiled(path)
        segments = (self._by_name or self._named()).get(path.segment)
        if segments is None:
            return None
        index = path.index
        if index == 1:
            return segments[0].at(path)
        if index == ALL:
            for segment in segments:
                value = segment.at(path)
                if value is not None:
                    return value
            return None
        return segments[index - 1].at(path) if index <= len(segments) else None

    def all(self, path: Path | str) -> list[str]:
        """Every value at a place, in order; more than one only when the path says `[*]` or selects by a condition."""
        if isinstance(path, str):
            path = compiled(path)
        segments = self.segments(path.segment)
        if path.index != ALL:
            segments = segments[path.index - 1 : path.index]
        return [value for segment in segments for value in segment.all(path)]

    def only(self, segments: Iterable[Segment]) -> Message:
        """A message of this one's MSH and the given segments. Its `raw` is the whole message's."""
        chosen = (*self._segments[:1], *(segment for segment in segments if segment is not self._segments[0]))
        return Message(self.raw, self.header, self.charset, chosen, self.deviations)

    def groups(self, name: str) -> list[Message]:
        """The message cut at each segment of that name; what comes before the first (MSH, EVN) belongs to each.

        For messages that repeat a patient (A40: PID, PD1, MRG; again). None when there is no such segment.
        """
        starts = [index for index, segment in enumerate(self._segments) if segment.name == name]
        if not starts:
            return []
        common = self._segments[: starts[0]]
        bounds = pairwise((*starts, len(self._segments)))
        return [self.only((*common, *self._segments[start:end])) for start, end in bounds]


def _holds_control(payload: bytes, text: str, charset: str) -> bool:
    """Whether the text holds control characters. Asked of every message: bytes are looked through much faster."""
    if charset != "utf-8" and not text.isascii():
        return CONTROL.search(text) is not None
    if len(payload.translate(None, _CONTROL_BYTES)) < len(payload):
        return True
    return b"\xc2" in payload and CONTROL.search(text) is not None  # what C1 begins with in UTF-8


def _without_line_feeds(text: str, delimiters: Delimiters) -> tuple[str, tuple[str, ...]]:
    """The text with CR as its only terminator, and what was found.

    A message whose segments end in LF or CRLF is taken so; of one that mixes CR and LF, what ends most segments counts.
    Where segments end in CR, a line feed ends nothing: senders put whole paragraphs into a value. What follows it may
    look like a segment all the same. In a segment of text (NTE, OBX) that is text, to the segment's end; in any other
    segment both may be meant, and the doubtful part is read as neither.
    """
    crlf = text.count("\r\n")
    if "\r" not in text:
        return text.replace("\n", "\r"), (LINE_FEED,)
    mixed = text.replace("\r\n", "\r") if crlf else text
    if "\n" not in mixed:
        return mixed, (LINE_FEED,)
    segment = _line_feed_and_segment(delimiters.field)
    lines = mixed.strip("\r\n").split("\r")
    ended = sum(len(segment.findall(line)) for line in lines if "\n" in line and line[:3].upper() not in _OF_TEXT)
    if ended > (len(lines) - 1 if text.count("\r") > crlf else 0):
        return _ends_of_lines(delimiters.field).sub("\r", mixed), (LINE_FEED,)
    found: list[str] = [LINE_FEED] if crlf else []
    for index, line in enumerate(lines):
        if "\n" not in line:
            continue
        value = line.strip("\n")  # what stands at the end of a line is in no value
        if "\n" not in value:
            found.append(LINE_FEED)
        elif (doubt := segment.search(value)) is None:
            found.append(LINE_FEED_IN_TEXT)
        elif value[:3].upper() in _OF_TEXT and delimiters.escape:
            found.append(LINE_FEED_IN_TEXT)
            value = value[: doubt.start()] + _as_text(value[doubt.start() :], delimiters)
        else:
            found.append(LINE_FEED_DOUBTFUL)
            value = value[: doubt.start()]
        lines[index] = value
    end = "\r" if mixed.endswith(("\r", "\n")) else ""
    return "\r".join(lines) + end, tuple(dict.fromkeys(found))


@lru_cache(maxsize=64)
def _line_feed_and_segment(field: str) -> re.Pattern[str]:
    """A line feed before what can be a segment: a name and the field separator."""
    return re.compile(rf"\n[ \t]{{0,40}}[A-Za-z][A-Za-z0-9]{{2}}{re.escape(field)}")


@lru_cache(maxsize=64)
def _ends_of_lines(field: str) -> re.Pattern[str]:
    """A line feed before what can be a segment or before nothing; any other is part of a value."""
    return re.compile(rf"\n(?=[ \t]{{0,40}}(?:[A-Za-z][A-Za-z0-9]{{2}}(?:{re.escape(field)}|[\r\n])|[\r\n]|\Z))")


def _as_text(part: str, delimiters: Delimiters) -> str:
    """The part with every delimiter but the escape character escaped."""
    names = {delimiters.field: "F", delimiters.component: "S", delimiters.repetition: "R", delimiters.subcomponent: "T"}
    escaped = {ord(one): f"{delimiters.escape}{name}{delimiters.escape}" for one, name in names.items() if one}
    return part.translate(escaped)


def _other_segment(line: str, syntax: Syntax) -> tuple[Segment, str]:
    """A segment that is not among the common ones, or whose name is in lower case, indented, or no name at all."""
    text = line.lstrip(_BLANK)
    name = text.split(syntax.field, 1)[0].rstrip()
    if len(name) == 3 and name.isascii() and name.isalnum():
        return Segment(name.upper(), text, syntax), SEGMENT_CASE if name != name.upper() else ""
    return Segment(name, text, syntax), SEGMENT_UNREADABLE
