"""Times as charts keep them: ISO 8601 texts with the precision that was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def parse_moment(text: str | None, zone: tzinfo = UTC) -> datetime | None:
    """The instant that a chart's time names, aware, with the offset it was sent with.

    zone: of a text without an offset. A text without a time means the start of its day. None: there is no time, it is
    less precise than a day, or it is one of the placeholders that systems send for "no date" (0001-01-01, 9999-12-31).
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1800 < moment.year < 3000:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970 of an aware time: exact, small, and quick to compare."""
    return (at - _EPOCH) // _MICROSECOND


def micros(text: str | None) -> int | None:
    """The moment of a chart's time (`parse_moment`) in microseconds since 1970."""
    moment = parse_moment(text)
    return None if moment is None else to_micros(moment)
