"""A time as somebody sent it: what was written, how precise that is, and the instant that it names.

HL7 lets a sender leave off the end of a time, and charts keep exactly what came: `1958`, `2026-03`, `2026-03-02`,
`2026-03-02T14-05:00`. So of two times it can't always be told which was first, and nobody makes up the rest.
`docs/decisions/0025-times-are-a-type.md` says why it is built so.

Where a time came from (PV1-44, EVN-2) is no part of it: the same time from two fields is one time. `Told` has both.
What the engine itself does at a time (receive, deliver, a deadline) is an instant without doubt, and a plain aware
`datetime`.
"""

from __future__ import annotations

import math
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn, Self, TypeVar

M = TypeVar("M")

YEARS: Final = range(1801, 3000)
"""A year outside is what systems write for "no date" (0001-01-01, 1800-01-01, 9999-12-31): it names no instant."""

MOMENTS_REMEMBERED_MAX: Final = 4_096

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NEVER: Final = math.inf
_FIRST_DAY: Final = "-01-01"
_DAY_CHARS: Final = len("2026-03-02")
_BEFORE_CLOCK: Final = ("", "T", " ")
_SIGNS: Final = ("+", "-")
_EASTERNMOST_SECONDS: Final = 14 * 3600
"""A day begins at most this much earlier than in UTC."""


class Precision(IntEnum):
    """How much of a time was sent."""

    YEAR = 1
    MONTH = 2
    DAY = 3
    HOUR = 4
    MINUTE = 5
    SECOND = 6
    FRACTION = 7
    """Of a second, at most six digits."""


_OF_DAY: Final = {4: Precision.YEAR, 7: Precision.MONTH, _DAY_CHARS: Precision.DAY}
_OF_CLOCK: Final = {2: Precision.HOUR, 5: Precision.MINUTE, 8: Precision.SECOND}
_LASTS_SECONDS: Final = {
    Precision.HOUR: 3600.0,
    Precision.MINUTE: 60.0,
    Precision.SECOND: 1.0,
    Precision.FRACTION: 0.0,
}


class Order(Enum):
    """What two times say of which was first."""

    BEFORE = "before"
    AFTER = "after"
    UNTOLD = "untold"
    """They may be the same time, or one of them is too vague."""


class Moment:
    """A time of a chart or message, immutable. Two are equal when they are written alike.

    It is PHI and has no text form by itself: `text` is for what stores or shows it.
    """

    __slots__ = ("at", "precision", "seconds", "text", "timed")

    text: Final[str]
    """ISO 8601 with the precision that was sent. A time of day has an offset; without one it is taken for UTC."""
    precision: Final[Precision]
    timed: Final[bool]
    """It has a time of day, if only the hour."""
    at: Final[datetime | None]
    """The instant, with the offset that was sent; of a day its beginning in UTC. None: less precise than a day, or a
    placeholder."""
    seconds: Final[float]
    """The first instant that it can mean, since 1970, a day, month or year taken for one in UTC (what orders the times
    of a patient asks `chart.Days`); of a placeholder infinite."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no ISO 8601 time; the message does not repeat the text."""
        size = len(text)
        day = _OF_DAY.get(size)
        whole = text if size >= _DAY_CHARS or day is None else text + _FIRST_DAY[size - 4 :]
        try:
            begin = datetime.fromisoformat(whole)
        except ValueError:
            raise ValueError(_NO_TIME) from None
        if whole[7] != "-" or whole[_DAY_CHARS : _DAY_CHARS + 1] not in _BEFORE_CLOCK:
            raise ValueError(_NO_TIME)  # a notation that charts do not keep: 20260302, 2026-W10-1
        self.text = text
        self.timed = day is None
        self.precision = day if day is not None else _precision_of_clock(text)
        if begin.tzinfo is None:
            begin = begin.replace(tzinfo=UTC)
        real = begin.year in YEARS
        self.at = begin if real and size >= _DAY_CHARS else None
        self.seconds = begin.timestamp() if real else _NEVER

    @classmethod
    def of(cls, text: str) -> Self:
        """The same as a new one, remembered: a stay repeats its times in each message. Raises ValueError."""
        return made(cls, text)  # type: ignore[no-any-return]  # one of `cls`

    @classmethod
    def read(cls, value: object) -> Self | None:
        """The same of what need not be a time; none: it is not."""
        try:
            return made(cls, value) if isinstance(value, str) else None
        except ValueError:
            return None

    @classmethod
    def of_instant(cls, at: datetime) -> Self:
        """An instant of ours, in the place of a time that nobody sent."""
        return cls(at.isoformat())

    # --- which was first

    def is_before(self, other: Moment, slack_seconds: float = 0) -> bool:
        """Whether it was surely before the other, and by more than the slack, as far as the precision of both tells.

        Two times of day are compared as instants, a time to the hour or minute as the span that it can mean. With a
        mere date the calendar days are compared as they were written: a day of the same hospital, whatever its zone.
        """
        if self.timed and other.timed:
            gap = other.seconds - self.seconds
            return gap > slack_seconds and gap >= _LASTS_SECONDS[self.precision]
        size = min(len(self.text), len(other.text), _DAY_CHARS)
        return self.text[:size] < other.text[:size]

    def order(self, other: Moment) -> Order:
        """Which of the two was first, if that can be told."""
        if self.is_before(other):
            return Order.BEFORE
        return Order.AFTER if other.is_before(self) else Order.UNTOLD

    def same_day(self, other: Moment) -> bool:
        """Whether both name the same calendar day, as far as both tell (1958 and 1958-07-15 do)."""
        size = min(len(self.text), len(other.text), _DAY_CHARS)
        return self.text[:size] == other.text[:size]

    # --- as an instant

    @property
    def earliest(self) -> float:
        """The first instant that it can mean in any zone, in seconds since 1970."""
        return self.seconds if self.timed else self.seconds - _EASTERNMOST_SECONDS

    @property
    def micros(self) -> int | None:
        """`at` in microseconds since 1970."""
        return None if self.at is None else to_micros(self.at)

    @property
    def is_placeholder(self) -> bool:
        return self.seconds == _NEVER

    @property
    def has_offset(self) -> bool:
        """Its instant is the sender's word, and no assumption of ours."""
        return self.timed and _offset_chars(self.text) > 0

    def at_in(self, zone: tzinfo) -> datetime | None:
        """`at`, of a text without an offset in this zone: a day begins at its midnight."""
        return self.at if self.at is None or self.has_offset else self.at.replace(tzinfo=zone)

    # --- as days

    @property
    def days(self) -> tuple[date, date] | None:
        """The first and the last calendar day that it can mean, as written; none: a placeholder."""
        if self.is_placeholder:
            return None
        year, month = int(self.text[:4]), int(self.text[5:7] or 0)
        if self.precision >= Precision.DAY:
            day = date(year, month, int(self.text[8:10]))
            return day, day
        last = month or 12
        return date(year, month or 1, 1), date(year, last, monthrange(year, last)[1])

    # --- as a value

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Moment) and self.text == other.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return type(self), (self.text,)

    def __repr__(self) -> str:
        return "<Moment: PHI withheld>"

    def __str__(self) -> NoReturn:
        raise TypeError("Moment holds PHI and has no text form")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("Moment holds PHI and cannot be formatted")


_NO_TIME: Final = "no time in ISO 8601, like 2026-03-02 or 2026-03-02T10:00-05:00"


def _offset_chars(text: str) -> int:
    """How many characters at the end of a time of day say its offset."""
    return 6 if text[_DAY_CHARS:][-6:-5] in _SIGNS else 1 if text[-1] == "Z" else 0


def _precision_of_clock(text: str) -> Precision:
    offset = _offset_chars(text)
    return _OF_CLOCK.get(len(text) - offset - _DAY_CHARS - 1, Precision.FRACTION)


def _made(kind: Callable[[str], M], text: str) -> M:
    return kind(text)


made: Final[Callable[[Any, Any], Any]] = lru_cache(maxsize=MOMENTS_REMEMBERED_MAX)(_made)
"""Kind, text -> one of that kind, remembered: what decoders call (`domain.codec`)."""


class Told(NamedTuple):
    """A time, and what told it."""

    at: Moment
    source: str
    """HL7 field, or `receipt`."""


def instant(moment: Moment | None) -> datetime | None:
    """The instant of a time that may not be there."""
    return None if moment is None else moment.at


def to_micros(at: datetime) -> int:
    """Microseconds since 1970 of an aware time: exact, small, and quick to compare."""
    return (at - _EPOCH) // _MICROSECOND
