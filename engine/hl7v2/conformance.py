"""Does a message have the structure that its version of the standard asks for? For people; nothing is refused by it.

The only importer of hl7apy (the optional extra `conformance`), and only of its tables of the standard: its parser drops
segments that do not fit and its validator writes values into reports. Message profiles are never loaded; hl7apy keeps
them as pickles, which run code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from engine.errors import HandoffError
from engine.hl7v2.message import Message, Segment

# HL7 table 0354: the structures of ADT events, for messages that do not name theirs.
_STRUCTURES: Final = {
    **dict.fromkeys(("A01", "A04", "A08", "A13"), "ADT_A01"),
    **dict.fromkeys(("A05", "A14", "A28", "A31"), "ADT_A05"),
    **dict.fromkeys(("A06", "A07"), "ADT_A06"),
    **dict.fromkeys(("A09", "A10", "A11"), "ADT_A09"),
    **dict.fromkeys(("A21", "A22", "A23", "A25", "A26", "A27", "A29", "A32", "A33"), "ADT_A21"),
    **dict.fromkeys(("A39", "A40", "A41", "A42"), "ADT_A39"),
    **dict.fromkeys(("A43", "A44"), "ADT_A43"),
}


class ConformanceUnavailableError(HandoffError):
    """hl7apy is not installed."""

    def __init__(self) -> None:
        super().__init__("checking structures needs hl7apy: install handoff-engine[conformance]")


def problems(payload: bytes, version: str) -> list[str]:
    """What is wrong with the structure of a message, in words and places, without any value of it.

    version: of the standard (`2.5.1`), usually MSH-12. Site-defined segments (Z..) are always allowed. Raises
    HeaderError, ConformanceUnavailableError.
    """
    try:
        from hl7apy import SUPPORTED_LIBRARIES, load_reference
        from hl7apy.exceptions import ChildNotFound
    except ImportError:
        raise ConformanceUnavailableError from None
    if version not in SUPPORTED_LIBRARIES:
        return ["MSH-12: the structures of this version are not known"]
    message = Message.parse(payload)
    found: list[str] = []
    segments: list[Segment] = []
    for segment in message:
        if segment.name.startswith("Z"):
            continue
        try:
            reference = load_reference(segment.name, "Segment", version)
        except ChildNotFound:
            found.append("a segment is none of this version's")
            continue
        segments.append(segment)
        found += _field_problems(segment, reference[1])
    header = message.header
    by_event = f"{header.message_code}_{header.trigger_event}"
    names = [
        header.message_structure,
        _STRUCTURES.get(header.trigger_event, "") if header.message_code == "ADT" else "",
        by_event,
    ]
    for name in names:
        try:
            structure = load_reference(name, "Message", version)
        except ChildNotFound:
            continue
        return _segment_problems([segment.name for segment in segments], structure[1]) + found
    return ["MSH-9: the structure of this message is not known in this version", *found]


def _field_problems(segment: Segment, references: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for number, (_name, _reference, (least, most), _kind) in enumerate(references, 1):
        place = f"{segment.name}-{number}"
        repetitions = segment.repetitions(number)
        if least and not any(repetition.text for repetition in repetitions):
            found.append(f"{place} is required")
        elif 0 < most < len(repetitions):
            found.append(f"{place} repeats more often than allowed")
    if len(segment.fields) - 1 > len(references):
        found.append(f"{segment.name} has more fields than this version knows")
    return found


def _segment_problems(names: list[str], references: Sequence[Any]) -> list[str]:
    """Take out, one by one, what fits nowhere; then what is missing from the rest is missing."""
    found: list[str] = []
    while True:
        missing: list[str] = []
        position = _match(names, 0, references, missing)
        if position == len(names):
            return found + missing
        name = names.pop(position)
        known = "stands in the wrong place" if name in _all_names(references) else "is not part of this structure"
        found.append(f"{name} {known}")


def _match(names: list[str], position: int, references: Sequence[Any], missing: list[str]) -> int:
    """The position behind the longest run of segments that these references take in order."""
    for name, reference, (least, most), kind in references:
        count = 0
        while position < len(names) and (most < 0 or count < most):
            if kind == "SEG":
                if names[position] != name:
                    break
                position += 1
            else:
                if names[position] not in _all_names(reference[1]):
                    break
                lacking: list[str] = []
                behind = _match(names, position, reference[1], lacking)
                if behind == position:
                    break
                position = behind
                missing += lacking
            count += 1
        if count < least:
            missing.append(f"{name} is missing")
    return position


def _all_names(references: Sequence[Any]) -> set[str]:
    names: set[str] = set()
    for name, reference, _cardinality, kind in references:
        names |= {name} if kind == "SEG" else _all_names(reference[1])
    return names
