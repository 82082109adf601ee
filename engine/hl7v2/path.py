"""Places in a message: `PID-3[type=MR].1`, `PV1-7.1`, `DG1[*]-3.1`, `PID-3[2].4.2`.

    SEGMENT[n]-FIELD[r].COMPONENT.SUBCOMPONENT

All numbers count from 1. `[n]` is the n-th segment of that name, `[r]` the r-th repetition; without them the first is
meant, and `[*]` means all. `[type=MR]` selects repetitions by the value of a component, `[4.1=HOSP]` by its number,
`[type=MR,authority=HOSP]` by both; a value may stand in quotes. The names are those of the field's data type: id,
authority (its namespace id), type and so on; a type is compared without case.

A path that ends above the primitive values means the first one below (PID-5 is PID-5.1.1), as HL7's rule for later
versions asks.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from engine.domain.record import Record
from engine.errors import HandoffError

ALL: Final = 0
"""As an index: every one."""

_SEGMENT: Final = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\*|[1-9][0-9]{0,3})\])?-")
_FIELD: Final = re.compile(r"([1-9][0-9]{0,2})")
_INDEX: Final = re.compile(r"\[(\*|[1-9][0-9]{0,3})\]")
_CONDITION: Final = re.compile(
    r"""\s*(?:([1-9][0-9]?)(?:\.([1-9][0-9]?))?|([a-z_]+))\s*=\s*(?:'([^']*)'|"([^"]*)"|([^\],'"]*))\s*"""
)
_COMPONENT: Final = re.compile(r"\.([1-9][0-9]?)(?:\.([1-9][0-9]?))?")

# The components that a selection may name, by data type (HL7 v2.5.1, chapter 2A).
_CX: Final = {"id": (1, 1), "authority": (4, 1), "type": (5, 1), "facility": (6, 1)}
_XCN: Final = {"id": (1, 1), "authority": (9, 1), "type": (13, 1), "facility": (14, 1)}
_XPN: Final = {"type": (7, 1)}
_XAD: Final = {"type": (7, 1)}
_XTN: Final = {"use": (2, 1), "equipment": (3, 1)}
_NAMES: Final = {
    **dict.fromkeys(("PID-2", "PID-3", "PID-4", "PID-18", "PID-20", "PID-21", "PV1-5", "PV1-19", "PV1-50"), _CX),
    **dict.fromkeys((f"MRG-{field}" for field in range(1, 7)), _CX),
    **dict.fromkeys(("PV1-7", "PV1-8", "PV1-9", "PV1-17", "PV1-52", "PD1-4", "DG1-16", "PR1-11", "EVN-5"), _XCN),
    **dict.fromkeys(("PID-5", "PID-6", "PID-9", "MRG-7", "NK1-2", "NK1-30", "GT1-3", "IN1-16"), _XPN),
    **dict.fromkeys(("PID-11", "NK1-4", "GT1-5", "IN1-19"), _XAD),
    **dict.fromkeys(("PID-13", "PID-14", "NK1-5", "NK1-6", "NK1-31", "GT1-6", "GT1-7"), _XTN),
}


class PathError(HandoffError):
    """A path cannot be read. column: where in the text, from 1."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(f"column {column}: {text}")
        self.text = text
        self.column = column


class Condition(NamedTuple):
    component: int
    subcomponent: int
    value: str
    folded: bool = False
    """A type: compared without case."""

    def holds(self, text: str | None) -> bool:
        text = (text or "").strip()
        return text == self.value or (self.folded and text.upper() == self.value.upper())


class Path(Record, frozen=True, kw_only=True):
    """A compiled place. segment is empty in a path relative to a segment (`3.1`); indexes may be ALL."""

    segment: str
    index: int = 1
    field: int
    repetition: int = 1
    """ALL when there are conditions."""
    conditions: tuple[Condition, ...] = ()
    component: int = 1
    subcomponent: int = 1
    text: str
    """As it was written."""

    def __str__(self) -> str:
        return self.text

    @staticmethod
    def parse(text: str) -> Path:
        """Raises PathError."""
        segment, index, position = "", 1, 0
        if match := _SEGMENT.match(text):
            segment, position = match[1], match.end()
            index = _index(match[2])
        field = _FIELD.match(text, position)
        if field is None and (meant := elsewhere(text)) is not None:
            raise PathError(f"a segment and a field are expected: write {meant}", 1)
        if field is None:
            raise PathError("a segment and a field are expected, as in PID-3.1", position + 1)
        number, position = int(field[1]), field.end()
        repetition = 1
        conditions: tuple[Condition, ...] = ()
        if match := _INDEX.match(text, position):
            repetition, position = _index(match[1]), match.end()
        elif text.startswith("[", position):
            conditions, position = _conditions(text, position + 1, f"{segment}-{number}" if segment else str(number))
            repetition = ALL
        component = subcomponent = 1
        if match := _COMPONENT.match(text, position):
            component, position = int(match[1]), match.end()
            subcomponent = int(match[2] or 1)
        if position != len(text) and (meant := elsewhere(text)) is not None:
            raise PathError(f"write {meant}", position + 1)
        if position != len(text):
            raise PathError("this does not belong to a path", position + 1)
        return Path(
            segment=segment, index=index, field=number, repetition=repetition, conditions=conditions,
            component=component, subcomponent=subcomponent, text=text,
        )  # fmt: skip


_ELSEWHERE: Final = (
    re.compile(r"(?P<segment>[A-Z][A-Z0-9]{2})[.-](?P<field>[1-9][0-9]{0,2})(?:[.-](?P<component>[0-9]{1,2}))?"
               r"(?:[.-](?P<subcomponent>[0-9]{1,2}))?(?![0-9.-])"),
    re.compile(r"""(?:msg|tmp)\[?.?['"]?(?P<segment>[A-Z][A-Z0-9]{2})['"]?\]?\[['"][A-Z0-9]{3}\.(?P<field>[0-9]{1,3})['"]\]"""
               r"""(?:\[['"][A-Z0-9]{3}\.[0-9]{1,3}\.(?P<component>[0-9]{1,2})['"]\])?(?P<subcomponent>(?!))?"""),
)  # fmt: skip
"""How other engines write a path: `PID.5.1`, `PID-5-1`, `msg['PID']['PID.5']['PID.5.1']`."""


def elsewhere(text: str) -> str | None:
    """The path that a text in the notation of another engine begins with, as it is written here (`PID-5.1`)."""
    for notation in _ELSEWHERE:
        if found := notation.match(text):
            parts = ".".join(part for part in (found["component"], found["subcomponent"]) if part)
            return f"{found['segment']}-{found['field']}" + (f".{parts}" if parts else "")
    return None


@lru_cache(maxsize=4096)
def compiled(text: str) -> Path:
    """`Path.parse`, remembered. For paths of ours, never for texts that come out of messages."""
    return Path.parse(text)


def _index(text: str | None) -> int:
    return 1 if text is None else ALL if text == "*" else int(text)


def _conditions(text: str, position: int, field: str) -> tuple[tuple[Condition, ...], int]:
    """The conditions from behind the opening bracket on, and the position behind the closing one."""
    conditions: list[Condition] = []
    while True:
        match = _CONDITION.match(text, position)
        if match is None:
            raise PathError("a number, * or a condition such as type=MR is expected", position + 1)
        if match[3]:
            names = _NAMES.get(field, {})
            if match[3] not in names:
                known = ", ".join(names) if names else "only component numbers, as in [5=MR]"
                raise PathError(f"field {field} has no component of that name; it has {known}", match.start(3) + 1)
            component, subcomponent = names[match[3]]
        else:
            component, subcomponent = int(match[1]), int(match[2] or 1)
        value = next(group for group in match.group(4, 5, 6) if group is not None).strip()
        conditions.append(Condition(component, subcomponent, value, folded=match[3] == "type"))
        position = match.end()
        if text.startswith(",", position):
            position += 1
            continue
        if not text.startswith("]", position):
            raise PathError("] is expected", position + 1)
        return tuple(conditions), position + 1
