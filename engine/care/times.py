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
from functools import lru_cache
from typing import Final

import msgspec

from engine.domain.moment import parse_moment
from engine.domain.record import Phi

RECEIPT: Final = "receipt"
"""Source of a time that no field of the message gave."""

IMPLAUSIBLE: Final = "event-time-implausible"
"""Deviation; the field follows (`event-time-implausible:EVN-2`)."""

_HAPPENED: Final = ("ZBE-2", "EVN-6", "EVN-2", "MSH-7")
"""When it happened, the best source first."""
_WHOLE: Final = "0001-01-01"
"""A year or a month means its beginning."""
_EASTERNMOST_SECONDS: Final = 14 * 3600
"""A day begins at most this much earlier than in UTC."""
_NEVER: Final = math.inf
SAME_SECONDS: Final = 60
"""Many senders give times to the minute: what is earlier by less is not earlier."""


class Claims(Phi, frozen=True, kw_only=True):
    """The times of a message that are believed so far. Instants are seconds since 1970.

    said: HL7 field -> ISO time. moments: the instants of those that have a time of day. earliest, latest: what any time
    of this message may be.
    """

    said: dict[str, str]
    moments: dict[str, float]
    received: float
    earliest: float
    latest: float
    clock: int = 0
    """What the sender's clock showed (MSH-7), believed or not, to the second; 0: it did not say."""

    def happened(self) -> tuple[str, str]:
        """ISO time of the event and where it comes from; with a time of day, if any source has it."""
        said, found = self.said, None
        for source in _HAPPENED:
            text = said.get(source)
            if text is None:
                continue
            if source in self.moments:
                return text, source
            found = found or (text, source)
        return found or (self.received_at, RECEIPT)

    @property
    def received_at(self) -> str:
        return datetime.fromtimestamp(self.received, UTC).isoformat()

    def recorded(self) -> float:
        """When it was written down (EVN-2, else MSH-7): of two messages about a field, the later one is the newer.

        Never after the receipt, however far ahead the sender's clock may be.
        """
        moment = self.moments.get("EVN-2") or self.moments.get("MSH-7")
        return self.received if moment is None or moment > self.received else moment

    def sent(self) -> float:
        """By the sender's own clock: it is compared only with times of the same clock."""
        return self.moments.get("MSH-7", self.received)

    @property
    def surely_after(self) -> float:
        """What was received before this instant was said before the message, whatever the clock of its sender shows.

        Only of a message that came at once by its own clock: one that is late may as well come from a clock ahead.
        """
        moment = self.moments.get("EVN-2") or self.moments.get("MSH-7")
        margin = self.latest - self.received
        at_once = moment is not None and self.received - moment <= margin
        return moment - margin if moment is not None and at_once else -_NEVER

    def plausible(self, text: str) -> bool:
        """Whether a time can be that of something that has happened when the message came.

        What an old message says of its stay may be as old as the message.
        """
        moment = _instant(text)
        if moment < self.earliest:
            return not self.said
        return moment <= (self.latest if "T" in text else self.latest + _EASTERNMOST_SECONDS)

    def before(self, bound: str) -> list[str]:
        """The sources whose time is before this one."""
        limit = _instant(bound) - SAME_SECONDS if "T" in bound else None
        early: list[str] = []
        if limit is None and (not self.said or min(self.said.values())[:4] > bound[:4]):
            return early  # as a rule: in a later year than the patient's birth
        for source, text in self.said.items():
            moment = self.moments.get(source) if limit is not None else None
            if _day_before(text, bound) if moment is None or limit is None else moment < limit:
                early.append(source)
        return early

    def without(self, sources: Collection[str]) -> Claims:
        return msgspec.structs.replace(
            self,
            said={source: text for source, text in self.said.items() if source not in sources},
            moments={source: moment for source, moment in self.moments.items() if source not in sources},
        )


def believed(
    said: Mapping[str, str], received: datetime, *, ahead_seconds: int, behind_seconds: int, notes: list[str]
) -> Claims:
    """The claims that lie inside the window around the receipt. notes: where the deviations of the others go."""
    at = received.timestamp()
    earliest, latest = at - behind_seconds, at + ahead_seconds
    kept: dict[str, str] = {}
    moments: dict[str, float] = {}
    clock = 0.0
    for source in _HAPPENED:
        text = said.get(source)
        if text is None:
            continue
        moment = _instant(text)
        timed = "T" in text
        if timed and source == "MSH-7" and math.isfinite(moment):
            clock = moment
        if earliest <= moment <= (latest if timed else latest + _EASTERNMOST_SECONDS):
            kept[source] = text
            if timed:
                moments[source] = moment
        else:
            notes.append(f"{IMPLAUSIBLE}:{source}")
    return Claims(said=kept, moments=moments, received=at, earliest=earliest, latest=latest, clock=int(clock))


def is_before(text: str, bound: str) -> bool:
    """Whether one ISO time is before another, as far as the precision of both tells."""
    if "T" in text and "T" in bound:
        return _instant(text) < _instant(bound) - SAME_SECONDS
    return _day_before(text, bound)


@lru_cache(maxsize=1024)
def _instant(text: str) -> float:
    """The beginning, of a year, a month or a day; a placeholder for no date (9999-12-31) lies ahead of everything."""
    moment = parse_moment(text if len(text) >= len(_WHOLE) else text + _WHOLE[len(text) :])
    return _NEVER if moment is None else moment.timestamp()


def _day_before(text: str, bound: str) -> bool:
    """By day, month or year: what both texts tell."""
    size = min(len(text), len(bound), len(_WHOLE))
    return text[:size] < bound[:size]
