"""What a compiled mapping makes of a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Records
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from threading import Lock
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from engine.domain.moment import Moment
from engine.domain.patient import Identifier
from engine.domain.record import Phi
from engine.errors import Problem
from engine.hl7v2.message import NULL, Message, Syntax
from engine.hl7v2.path import Path
from engine.mapping.expression import Budget
from engine.mapping.functions import ABSENT, Flaw
from engine.mapping.times import read_time, valid_on


class Reading(list[str]):
    """One message on its way through filter and mapping: what deviates is appended, as `code:location`.

    zone: of times without an offset. received: when the message came; none: nothing that it names is too old.
    """

    __slots__ = ("_budget", "asked", "received", "zone")

    def __init__(self, zone: tzinfo, received: datetime | None = None) -> None:
        self.zone = zone
        self.received = received
        self.asked = False
        """Something was read that hangs on more than the text and the zone."""
        self._budget: Budget | None = None

    @property
    def budget(self) -> Budget:
        """Of the filters, for this message."""
        self.asked = True
        if self._budget is None:
            self._budget = Budget()
        return self._budget

    def valid(self, effective: str, expires: str) -> bool:
        """Whether something with such a first and last day was valid on the day on which the message came."""
        self.asked = True
        return self.received is None or valid_on(effective, expires, self.received.astimezone(self.zone).date())


Read = Callable[[Any, Reading], Any]
"""Reads one target of a Message (or one part of an item, of its Segment): a domain value, None (cleared) or ABSENT."""
Rule = tuple[str, Read, str | None]
"""Field, its reader, and the one segment that it reads, without which it has nothing to say; none: always asked."""

EVENT_TIMES: Final = tuple(Path.parse(text) for text in ("PV1-44", "PV1-45", "EVN-6", "EVN-2", "MSH-7", "PID-29"))
"""Fields that tell when something happened. They are read in every message, whatever the mapping says."""


class Movement(Phi, frozen=True, kw_only=True):
    """A movement of the patient, as IHE PAM (ITI TF-2: 3.31, segment ZBE) describes it."""

    at: Moment | None = None
    """When it began."""
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
    """MRG-5."""
    merged_account: str | None = None
    """MRG-3."""
    account: str | None
    movement: Movement | None = None
    """Where the message speaks of one in a segment of its own (ZBE)."""
    times: dict[str, Moment]
    """HL7 location (of EVENT_TIMES) -> time, where valued and readable."""
    pv1_present: bool
    deviations: tuple[str, ...]
    """`code:location`, such as `invalid-date:PID-7`; never a value."""
    unread: dict[str, str] = {}
    """Field of `Patient` -> HL7 location that is valued and can't be read; a placeholder for "no date" is none."""


_SEGMENTS_REMEMBERED_MAX: Final = 1_024
_SEGMENT_CHARS_MAX: Final = 1_024


class _Said(NamedTuple):
    """What the rules of one segment have read in it."""

    values: dict[str, Any]
    notes: tuple[str, ...]
    unread: dict[str, str]


_Text = tuple[str, Syntax, tzinfo]
_Known = dict[_Text, _Said]


class Rules:
    """Rules whose values go into one dictionary.

    Message after message of a patient has the same PID, and of a stay the same PV1 for a while: what is read in a
    segment is remembered, as long as it hangs on nothing but the segment's text and the zone.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        by_segment: dict[str | None, list[Rule]] = {}
        for rule in rules:
            by_segment.setdefault(rule[2], []).append(rule)
        self._groups: tuple[tuple[str | None, tuple[Rule, ...], _Known | None], ...] = tuple(
            (segment, tuple(group), {} if segment is not None and len(group) > 1 else None)
            for segment, group in by_segment.items()
        )
        self._full = Lock()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def only(self, field: str) -> Rules:
        return Rules(rule for _, group, _ in self._groups for rule in group if rule[0] == field)

    def read(self, message: Message, notes: Reading) -> tuple[dict[str, Any], dict[str, str]]:
        """The values by field, and the location of each field that is there and could not be read."""
        values: dict[str, Any] = {}
        unread: dict[str, str] = {}
        present = message.present
        for name, rules, known in self._groups:
            if name is not None and (segments := present.get(name)) is not None:
                segment = segments[0]
                if known is None or len(segments) > 1 or len(segment.text) > _SEGMENT_CHARS_MAX:
                    _read_all(rules, message, notes, values, unread)
                    continue
                key = (segment.text, segment.syntax, notes.zone)
                said = known.get(key)
                if said is None:
                    said = self._first_read(rules, message, notes, known, key)
                else:
                    notes += said.notes
                values |= said.values
                unread |= said.unread
            elif name is None:
                _read_all(rules, message, notes, values, unread)
        return values, unread

    def _first_read(
        self, rules: tuple[Rule, ...], message: Message, notes: Reading, known: _Known, key: _Text
    ) -> _Said:
        before, asked, notes.asked = len(notes), notes.asked, False
        said = _Said({}, (), {})
        _read_all(rules, message, notes, said.values, said.unread)
        if not notes.asked:
            with self._full:
                if len(known) >= _SEGMENTS_REMEMBERED_MAX:
                    del known[next(iter(known))]
                known[key] = said._replace(notes=tuple(notes[before:]))
        notes.asked = notes.asked or asked
        return said


@dataclass(frozen=True, slots=True)
class Mapping:
    """A compiled mapping: closures, shared by all messages of a channel."""

    file: str
    zone: ZoneInfo
    patient: Rules
    encounter: Rules
    own: Rules
    """Fields of Mapped itself: `identifiers`, `merged`, `visit`, `merged_visit`, `merged_account`, `account`."""
    movement: Rules
    """Fields of Movement."""
    records: Records[str, Rules] = field(default_factory=dict)
    """Of all other records, by name (`mapping.targets.record`)."""
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
        patient, unread = self.patient.read(message, notes)
        encounter, _ = self.encounter.read(message, notes)
        own, _ = self.own.read(message, notes)
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
            merged_account=own.get("merged_account"),
            account=own.get("account"),
            movement=self._movement(message, notes) if self.movement else None,
            times=times,
            pv1_present=bool(message.segments("PV1")),
            deviations=tuple(dict.fromkeys(notes)) if notes else (),
            unread=_without_placeholders(unread, message) if unread else unread,
        )

    def read(self, record: str, message: Message, reading: Reading) -> dict[str, Any]:
        """The fields of a record of its own that a message says something of, as in `Mapped`. Raises like `apply`."""
        rules = self.records.get(record)
        return rules.read(message, reading)[0] if rules is not None else {}

    def identifiers(self, message: Message) -> tuple[Identifier, ...]:
        """The patient's identifiers alone: of a message that can't be mapped as a whole. Raises like `apply`."""
        if len(message.segments("PID")) > 1:
            message = message.groups("PID")[0]
        found, _ = self.own.only("identifiers").read(message, Reading(self.zone))
        return tuple(identifier for identifier in found.get("identifiers") or () if identifier is not None)

    def _movement(self, message: Message, notes: Reading) -> Movement | None:
        said, _ = self.movement.read(message, notes)
        if action := said.get("action"):
            said["action"] = action.upper()
        return Movement(**said) if said else None

    def _times(self, message: Message, notes: Reading) -> dict[str, Moment]:
        times: dict[str, Moment] = {}
        for path in EVENT_TIMES:
            text = message.get(path)
            if not text or text == NULL or not (text := text.strip()):
                continue
            time = read_time(text, notes.zone)
            if isinstance(time, Flaw):
                time.note(path.text, notes)
                time = time.value
            if isinstance(time, Moment):
                times[path.text] = time
        return times


def _read_all(
    rules: tuple[Rule, ...], message: Message, notes: Reading, values: dict[str, Any], unread: dict[str, str]
) -> None:
    for name, read, _ in rules:
        noted = len(notes)
        value = read(message, notes)
        if value is not ABSENT:
            values[name] = value
        elif len(notes) > noted:
            unread[name] = notes[-1].partition(":")[2]


_NO_DATE: Final = re.compile(r"0{4}[0\s:.T-]*|9{4}.*|0001.*|(?:1753|1800)-?01-?01.*")
"""What systems write for a date that there is not."""


def _without_placeholders(unread: dict[str, str], message: Message) -> dict[str, str]:
    return {field: location for field, location in unread.items() if not _placeholder(message, location)}


def _placeholder(message: Message, location: str) -> bool:
    text = message.get(Path.parse(location))
    return text is None or _NO_DATE.fullmatch(text.strip()) is not None
