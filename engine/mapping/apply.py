"""What a compiled mapping makes of a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from engine.domain.patient import Identifier
from engine.domain.record import Phi
from engine.errors import Problem
from engine.hl7v2.message import NULL, Message
from engine.hl7v2.path import Path
from engine.mapping.expression import Budget
from engine.mapping.functions import ABSENT, Flaw
from engine.mapping.times import iso_time, valid_on


class Reading(list[str]):
    """One message on its way through filter and mapping: what deviates is appended, as `code:location`.

    zone: of times without an offset. received: when the message came; none: nothing that it names is too old.
    """

    __slots__ = ("_budget", "received", "zone")

    def __init__(self, zone: tzinfo, received: datetime | None = None) -> None:
        self.zone = zone
        self.received = received
        self._budget: Budget | None = None

    @property
    def budget(self) -> Budget:
        """Of the filters, for this message."""
        if self._budget is None:
            self._budget = Budget()
        return self._budget

    def valid(self, effective: str, expires: str) -> bool:
        """Whether something with such a first and last day was valid on the day on which the message came."""
        return self.received is None or valid_on(effective, expires, self.received.astimezone(self.zone).date())


Read = Callable[[Any, Reading], Any]
"""Reads one target of a Message (or one part of an item, of its Segment): a domain value, None (cleared) or ABSENT."""
Rule = tuple[str, Read, str | None]
"""Field, its reader, and the segment without which the reader has nothing to say; none: it is always asked."""

EVENT_TIMES: Final = tuple(Path.parse(text) for text in ("PV1-44", "PV1-45", "EVN-6", "EVN-2", "MSH-7", "PID-29"))
"""Fields that tell when something happened. They are read in every message, whatever the mapping says."""


class Movement(Phi, frozen=True, kw_only=True):
    """A movement of the patient, as IHE PAM (ITI TF-2: 3.31, segment ZBE) describes it."""

    at: str | None = None
    """When it began, ISO 8601."""
    action: str | None = None
    """INSERT, UPDATE, CANCEL, in upper case."""
    historic: bool | None = None

    @property
    def is_current(self) -> bool:
        """Whether it says where the patient is now."""
        return not self.historic and self.action not in {"CANCEL", "UPDATE", "DELETE"}


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
    movement: Movement | None = None
    """Where the message speaks of one in a segment of its own (ZBE)."""
    times: dict[str, str]
    """HL7 location (of EVENT_TIMES) -> ISO 8601, where valued and readable."""
    pv1_present: bool
    deviations: tuple[str, ...]
    """`code:location`, such as `invalid-date:PID-7`; never a value."""
    unread: dict[str, str] = {}
    """Field of `Patient` -> HL7 location that is valued and can't be read; a placeholder for "no date" is none."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A compiled mapping: closures, shared by all messages of a channel."""

    file: str
    zone: ZoneInfo
    patient: tuple[Rule, ...]
    encounter: tuple[Rule, ...]
    own: tuple[Rule, ...]
    """Fields of Mapped itself: `identifiers`, `merged`, `visit`, `merged_visit`, `account`."""
    movement: tuple[Rule, ...]
    """Fields of Movement."""
    doubts: tuple[Problem, ...] = ()
    """Paths that lead beyond the segments of the standard: `handoff check` refuses them, a daemon works by them."""

    def apply(self, message: Message, reading: Reading | None = None) -> Mapped:
        """Map the first patient of a message; when it may hold several (A40), map each of `message.groups("PID")`.

        reading: of the message; none: in the mapping's own zone.
        Raises MessageError when a required field is missing or can't be read, and MappingError when the mapping asks
        for a dead letter (`on_error: dead`, a table with `unknown: error`).
        """
        if len(message.segments("PID")) > 1:
            message = message.groups("PID")[0]
        notes = reading if reading is not None else Reading(self.zone)
        unread: dict[str, str] = {}
        patient = _read_all(self.patient, message, notes, unread)
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
            movement=self._movement(message, notes) if self.movement else None,
            times=times,
            pv1_present=bool(message.segments("PV1")),
            deviations=tuple(dict.fromkeys(notes)) if notes else (),
            unread=_without_placeholders(unread, message) if unread else unread,
        )

    def identifiers(self, message: Message) -> tuple[Identifier, ...]:
        """The patient's identifiers alone: of a message that can't be mapped as a whole. Raises like `apply`."""
        if len(message.segments("PID")) > 1:
            message = message.groups("PID")[0]
        found = _read_all(tuple(rule for rule in self.own if rule[0] == "identifiers"), message, Reading(self.zone))
        return tuple(identifier for identifier in found.get("identifiers") or () if identifier is not None)

    def _movement(self, message: Message, notes: Reading) -> Movement | None:
        said = _read_all(self.movement, message, notes)
        if action := said.get("action"):
            said["action"] = action.upper()
        return Movement(**said) if said else None

    def _times(self, message: Message, notes: Reading) -> dict[str, str]:
        times: dict[str, str] = {}
        for path in EVENT_TIMES:
            text = message.get(path)
            if not text or text == NULL or not (text := text.strip()):
                continue
            time = iso_time(text, notes.zone)
            if isinstance(time, Flaw):
                time.note(path.text, notes)
                time = time.value
            if time is not ABSENT:
                times[path.text] = time
        return times


def _read_all(
    rules: tuple[Rule, ...], message: Message, notes: Reading, unread: dict[str, str] | None = None
) -> dict[str, Any]:
    """unread: takes the location of each field that is there and could not be read."""
    values: dict[str, Any] = {}
    present = message.present
    if unread is None:
        for field, read, segment in rules:
            if segment is None or segment in present:
                value = read(message, notes)
                if value is not ABSENT:
                    values[field] = value
        return values
    for field, read, segment in rules:
        if segment is not None and segment not in present:
            continue
        noted = len(notes)
        value = read(message, notes)
        if value is not ABSENT:
            values[field] = value
        elif len(notes) > noted:
            unread[field] = notes[-1].partition(":")[2]
    return values


_NO_DATE: Final = re.compile(r"0{4}[0\s:.T-]*|9{4}.*|0001.*|1753-?01-?01.*")
"""What systems write for a date that there is not."""


def _without_placeholders(unread: dict[str, str], message: Message) -> dict[str, str]:
    return {field: location for field, location in unread.items() if not _placeholder(message, location)}


def _placeholder(message: Message, location: str) -> bool:
    text = message.get(Path.parse(location))
    return text is None or _NO_DATE.fullmatch(text.strip()) is not None
