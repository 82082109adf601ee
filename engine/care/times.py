"""When an event was: which of the times that a message claims are believed, and what stands in for the others.

A sender's clock can be hours ahead, hours behind, or set back to the year of its making. So a claimed time counts only
inside a window around the receipt of its message, and never before what the event builds on: a discharge is not before
the admission of its stay, nothing is before the patient's birth. Where one does not count, the next source does (ZBE-2,
EVN-6, EVN-2, MSH-7), and in the end the receipt.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from engine.domain.moment import Moment, Told
from engine.domain.record import Phi

RECEIPT: Final = "receipt"
"""Source of a time that no field of the message gave."""

IMPLAUSIBLE: Final = "event-time-implausible"
"""Deviation; the field follows (`event-time-implausible:EVN-2`)."""

_HAPPENED: Final = ("ZBE-2", "EVN-6", "EVN-2", "MSH-7")
"""When it happened, the best source first."""
_RECORDED: Final = ("EVN-2", "MSH-7")
"""When it was written down."""
_DAY_SECONDS: Final = 86_400
_FIRST_MESSAGES: Final = datetime(1987, 1, 1, tzinfo=UTC).timestamp()
"""HL7 was first published in 1987: a message that is older comes from a clock that was reset (1970, 1980, 1904)."""
SAME_SECONDS: Final = 60
"""Many senders give times to the minute: what is earlier by less is not earlier."""


class Claims(Phi, frozen=True, kw_only=True):
    """The times of a message that are believed so far. Instants are seconds since 1970.

    said: HL7 field -> time. earliest, latest: what any time of this message may be.
    """

    said: dict[str, Moment]
    received: float
    earliest: float
    latest: float
    clock: int = 0
    """What the sender's clock showed (MSH-7), believed or not, to the second; 0: it did not say."""

    def happened(self) -> Told:
        """When the event was, and where that comes from; with a time of day, if any source has it."""
        said, found = self.said, None
        for source in _HAPPENED:
            time = said.get(source)
            if time is None:
                continue
            if time.timed:
                return Told(time, source)
            found = found or Told(time, source)
        return found or Told(self.received_at, RECEIPT)

    @property
    def received_at(self) -> Moment:
        return Moment.of_instant(datetime.fromtimestamp(self.received, UTC))

    def _recorded(self) -> float | None:
        for source in _RECORDED:
            time = self.said.get(source)
            if time is not None and time.timed:
                return time.seconds
        return None

    def recorded(self) -> float:
        """When it was written down (EVN-2, else MSH-7): of two messages about a field, the later one is the newer.

        Never after the receipt, however far ahead the sender's clock may be.
        """
        recorded = self._recorded()
        return self.received if recorded is None or recorded > self.received else recorded

    def sent(self) -> float:
        """By the sender's own clock: it is compared only with times of the same clock."""
        time = self.said.get("MSH-7")
        return time.seconds if time is not None and time.timed else self.received

    @property
    def surely_after(self) -> float:
        """What was received before this instant was said before the message, whatever the clock of its sender shows.

        Only of a message that came at once by its own clock: one that is late may as well come from a clock ahead.
        """
        recorded = self._recorded()
        margin = self.latest - self.received
        at_once = recorded is not None and self.received - recorded <= margin
        return recorded - margin if recorded is not None and at_once else -math.inf

    def plausible(self, time: Moment) -> bool:
        """Whether a time can be that of something that has happened when the message came.

        What an old message says of its stay may be as old as the message; no message is older than HL7.
        """
        if time.seconds < self.earliest:
            return not self.said and time.seconds >= _FIRST_MESSAGES
        return time.earliest <= self.latest

    def before(self, bound: Moment) -> list[str]:
        """The sources whose time is before this one."""
        if bound.seconds + _DAY_SECONDS < self.earliest:
            return []  # as a rule, of the patient's birth: nothing that is believed is as early
        return [source for source, time in self.said.items() if is_before(time, bound)]

    def without(self, sources: Collection[str]) -> Claims:
        said = {source: time for source, time in self.said.items() if source not in sources}
        return msgspec.structs.replace(self, said=said)


def believed(
    said: Mapping[str, Moment], received: datetime, *, ahead_seconds: int, behind_seconds: int, notes: list[str]
) -> Claims:
    """The claims that lie inside the window around the receipt. notes: where the deviations of the others go."""
    at = received.timestamp()
    earliest, latest = at - behind_seconds, at + ahead_seconds
    kept: dict[str, Moment] = {}
    clock = 0
    for source in _HAPPENED:
        time = said.get(source)
        if time is None:
            continue
        if time.timed and source == "MSH-7" and not time.is_placeholder:
            clock = int(time.seconds)
        if earliest <= time.seconds and time.earliest <= latest:
            kept[source] = time
        else:
            notes.append(f"{IMPLAUSIBLE}:{source}")
    return Claims(said=kept, received=at, earliest=earliest, latest=latest, clock=clock)


def is_before(time: Moment, bound: Moment) -> bool:
    """Whether one time is before another, by more than senders' clocks and fields differ (`SAME_SECONDS`)."""
    return time.is_before(bound, SAME_SECONDS)
