"""Retention: how long what is stored is kept, and what becomes of a thing when its time is over. Pure.

What somebody still waits for is kept whatever its age, and so is what a legal hold covers. Everything else is erased
once its time is over, by the clock of the site: what a clock that ran ahead has stamped waits until that time has come.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

from engine.domain.record import Record


class Kept(StrEnum):
    """What retention knows apart."""

    MESSAGES = "messages"
    """The journal's entries as they came: messages, acts, replies."""
    DELIVERIES = "deliveries"
    """What was sent to destinations."""
    CHARTS = "charts"
    """Charts of patients of whom nothing was heard for so long, with all that belongs to them."""
    TRAIL = "trail"
    """The sealed part of the trail's records."""


class Period(Record, frozen=True, kw_only=True):
    """How long. Years are those of the calendar: 29 February plus one year is 1 March."""

    days: int = 0
    years: int = 0

    def __str__(self) -> str:
        return " ".join(f"{n} {word}" for n, word in ((self.years, "years"), (self.days, "days")) if n) or "0 days"

    def after(self, at: datetime) -> datetime:
        """When the time of what is from then is over; the end of time when there is no such date."""
        try:
            return _of_year(at.astimezone(UTC), self.years) + timedelta(days=self.days)
        except (OverflowError, ValueError):
            return datetime.max.replace(tzinfo=UTC)

    def before(self, now: datetime) -> datetime:
        """What is younger than this is not over yet; of what is older, `after` says it exactly."""
        try:
            return _of_year(now.astimezone(UTC), -self.years) - timedelta(days=self.days)
        except (OverflowError, ValueError):
            return datetime.min.replace(tzinfo=UTC)


def _of_year(at: datetime, years: int) -> datetime:
    try:
        return at.replace(year=at.year + years)
    except ValueError:
        if (at.month, at.day) != (2, 29):
            raise
        return at.replace(year=at.year + years, month=3, day=1)


class Facts(Record, frozen=True, kw_only=True):
    """What decides about one thing."""

    at: datetime
    """When it came, was settled, or was last changed."""
    waits_for: str | None = None
    """Why it is not over: a word for people (`open task`); none: nobody waits for anything of it."""
    on_hold: bool = False
    """A legal hold covers it, or may."""


Fate = Literal["keep", "erase", "held"]


class Verdict(Record, frozen=True, kw_only=True):
    """held: its time is over, and a legal hold keeps it. rule: what has decided, in words."""

    fate: Fate
    rule: str


def verdict(facts: Facts, period: Period, now: datetime) -> Verdict:
    """What becomes of one thing."""
    if period.after(facts.at) > now:
        return Verdict(fate="keep", rule=f"kept for {period}")
    if facts.waits_for is not None:
        return Verdict(fate="keep", rule=facts.waits_for)
    if facts.on_hold:
        return Verdict(fate="held", rule="legal hold")
    return Verdict(fate="erase", rule=f"older than {period}")


class Policy(Record, frozen=True, kw_only=True):
    """How long each kind is kept."""

    messages: Period
    deliveries: Period
    charts: Period
    trail: Period

    def of(self, kept: Kept) -> Period:
        found: Period = getattr(self, kept.value)
        return found


class Swept(Record, frozen=True, kw_only=True):
    """What a sweep did, or would do, with one kind."""

    what: str
    policy: str
    count: int
    """Erased."""
    held: int
    """Kept by a legal hold alone."""
    waiting: int
    """Kept because somebody waits for something of it."""
    why: dict[str, int] = {}
    """The same, by what they wait for."""
