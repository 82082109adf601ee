"""What a compiled mapping makes of a message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from engine.domain.patient import Identifier
from engine.domain.record import Phi
from engine.hl7v2.message import NULL, Message
from engine.hl7v2.path import Path
from engine.mapping.functions import ABSENT, Flaw
from engine.mapping.times import iso_time
from engine.yamlfile import Problem

Read = Callable[[Any, list[str]], Any]
"""Reads one target of a Message (or one part of an item, of its Segment): a domain value, None (cleared) or ABSENT.
Deviations are added to the list."""

EVENT_TIMES: Final = tuple(Path.parse(text) for text in ("PV1-44", "PV1-45", "EVN-6", "EVN-2", "MSH-7", "PID-29"))
"""Fields that tell when something happened. They are read in every message, whatever the mapping says."""


class Mapped(Phi, frozen=True, kw_only=True):
    """What a message says, in the words of the domain.

    In `patient` and `encounter` a field that is missing is left as the chart has it, None clears it, and anything else
    is its new value. `identifiers`, `visit` and `account` find the chart and the encounter and are not repeated there.
    """

    patient: dict[str, Any]
    """By field names of `Patient`."""
    encounter: dict[str, Any]
    """By field names of `Encounter` (`class_`)."""
    identifiers: tuple[Identifier, ...]
    """An authority that the message does not name is empty."""
    merged: tuple[Identifier, ...]
    """MRG-1: the identifiers that the merge takes away. In a merge both lists are as they were sent, place by place,
    repeated ones included, because PID-3 and MRG-1 pair by position."""
    gap: str | None = None
    """In a merge: the field in which an empty repetition stands before a valued one, so that places mean nothing."""
    visit: Identifier | None
    merged_visit: Identifier | None
    account: str | None
    times: dict[str, str]
    """HL7 location (of EVENT_TIMES) -> ISO 8601, where valued and readable."""
    pv1_present: bool
    deviations: tuple[str, ...]
    """`code:location`, such as `invalid-date:PID-7`; never a value."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A compiled mapping: closures, shared by all messages of a channel."""

    file: str
    zone: ZoneInfo
    patient: tuple[tuple[str, Read], ...]
    encounter: tuple[tuple[str, Read], ...]
    own: tuple[tuple[str, Read], ...]
    """Fields of Mapped itself: `identifiers`, `merged`, `visit`, `merged_visit`, `account`."""
    doubts: tuple[Problem, ...] = ()
    """Paths that lead beyond the segments of the standard: `handoff check` refuses them, a daemon works by them."""

    def apply(self, message: Message) -> Mapped:
        """Map the first patient of a message; when it may hold several (A40), map each of `message.groups("PID")`.

        Raises MessageError when a required field is missing or can't be read, and MappingError when the mapping asks
        for a dead letter (`on_error: dead`, a table with `unknown: error`).
        """
        if len(message.segments("PID")) > 1:
            message = message.groups("PID")[0]
        notes: list[str] = []
        patient = _read_all(self.patient, message, notes)
        encounter = _read_all(self.encounter, message, notes)
        own = _read_all(self.own, message, notes)
        identifiers, merged = own.get("identifiers") or (), own.get("merged") or ()
        gap = None
        if merged and (None in identifiers or None in merged):
            gap = "MRG-1" if None in merged else "PID-3"
            merged = tuple(identifier for identifier in merged if identifier is not None)
        times = self._times(message, notes)
        return Mapped(
            patient=patient,
            encounter=encounter,
            identifiers=tuple(identifier for identifier in identifiers if identifier is not None),
            merged=merged,
            gap=gap,
            visit=own.get("visit"),
            merged_visit=own.get("merged_visit"),
            account=own.get("account"),
            times=times,
            pv1_present=bool(message.segments("PV1")),
            deviations=tuple(dict.fromkeys(notes)) if notes else (),
        )

    def identifiers(self, message: Message) -> tuple[Identifier, ...]:
        """The patient's identifiers alone: of a message that can't be mapped as a whole. Raises like `apply`."""
        if len(message.segments("PID")) > 1:
            message = message.groups("PID")[0]
        found = _read_all(tuple(rule for rule in self.own if rule[0] == "identifiers"), message, [])
        return tuple(identifier for identifier in found.get("identifiers") or () if identifier is not None)

    def _times(self, message: Message, notes: list[str]) -> dict[str, str]:
        times: dict[str, str] = {}
        for path in EVENT_TIMES:
            text = message.get(path)
            if not text or text == NULL or not (text := text.strip()):
                continue
            time = iso_time(text, self.zone)
            if isinstance(time, Flaw):
                time.note(path.text, notes)
                time = time.value
            if time is not ABSENT:
                times[path.text] = time
        return times


def _read_all(rules: tuple[tuple[str, Read], ...], message: Message, notes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, read in rules:
        value = read(message, notes)
        if value is not ABSENT:
            values[field] = value
    return values
