"""Times as people write and read them: one notation for all options, and the site's zone wherever none is written."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

if TYPE_CHECKING:
    from engine.clock import Clock

TIMES: Final = (
    "A TIME is today, yesterday 14:00, 14:00, 2026-11-29T14:00 or a while ago (30m, 2h, 7d), in the site's zone"
    " (calendar.timezone of config.yaml) unless it has an offset."
)
"""For the end of a command's help."""
DUE_TIMES: Final = f"{TIMES} What is due lies ahead: there 2h is in two hours."

_SPAN: Final = re.compile(r"(?P<sign>[+-]?)(?P<number>[0-9]{1,6})(?P<unit>[wdhms])")
_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_CLOCK: Final = re.compile(r"(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])(:(?P<second>[0-5][0-9]))?")


class Range(NamedTuple):
    """From `since`, before `until`; none: without limit."""

    since: datetime | None
    until: datetime | None


def read_time(text: str, now: datetime, zone: tzinfo, *, ahead: bool = False) -> datetime:
    """A time in UTC. ahead: a span without a sign lies in the future. Raises ValueError.

    A time of the hour that the end of summer time brings twice is the first of the two.
    """
    text = text.strip()
    if text == "now":
        return now
    span = _SPAN.fullmatch(text)
    if span is not None:
        length = timedelta(**{_UNITS[span["unit"]]: int(span["number"])})
        return now + length if span["sign"] == "+" or (ahead and not span["sign"]) else now - length
    today = now.astimezone(zone).date()
    day, _, clock = text.partition(" ")
    if day in _DAYS:
        return _at(today + timedelta(days=_DAYS[day]), _clock(clock.strip()) if clock else time(), zone)
    if _CLOCK.fullmatch(text) is not None:
        return _at(today, _clock(text), zone)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)


def read_due(text: str, now: datetime, zone: tzinfo) -> Range:
    """`overdue`, `today`, `tomorrow` (that day), or until a time ahead: `+2d`, `14:00`. Raises ValueError."""
    text = text.strip()
    if text == "overdue":
        return Range(None, now)
    if text in _DAYS:
        day = now.astimezone(zone).date() + timedelta(days=_DAYS[text])
        return Range(_at(day, time(), zone), _at(day + timedelta(days=1), time(), zone))
    return Range(None, read_time(text, now, zone, ahead=True))


def _clock(text: str) -> time:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError("no time of day")
    return time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0))


def _at(day: date, clock: time, zone: tzinfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)


def shown(at: datetime, zone: tzinfo) -> str:
    """To the second."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def zone_name(at: datetime, zone: tzinfo) -> str:
    """`EST`; `+03` where the zone has no letters."""
    return at.astimezone(zone).tzname() or "UTC"


def length(seconds: float) -> str:
    """A span in its two largest units at most: `12 s`, `18 min`, `3 h 5 min`, `12 d`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {minutes} min" if minutes else "")
    hours = whole % 86400 // 3600
    return f"{whole // 86400} d" + (f" {hours} h" if hours and whole < 10 * 86400 else "")


class When(click.ParamType[datetime]):
    """A time of `read_time`. ahead: see there."""

    name = "time"

    def __init__(self, *, ahead: bool = False) -> None:
        self._ahead = ahead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        now = now_of(ctx)
        try:
            found = read_time(str(value), now, _zone(ctx), ahead=self._ahead)
        except (ValueError, OverflowError):
            self.fail(_SAID, param, ctx)
        if param is not None and param.name in {"since", "until"}:
            self._check_range(found, now, param, ctx)
        return found

    def _check_range(self, found: datetime, now: datetime, param: click.Parameter, ctx: click.Context | None) -> None:
        """An empty range must not read as good news."""
        if param.name == "since" and found > now:
            click.echo("--since lies in the future: nothing can have come since then.", err=True)
        given = dict(ctx.params) if ctx is not None else {}
        since, until = (found if param.name == name else given.get(name) for name in ("since", "until"))
        if since is not None and until is not None and since >= until:
            self.fail("--since must be before --until", param, ctx)


class Span(click.ParamType[timedelta]):
    """A length of time: `30m`, `2h`, `1d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        span = _SPAN.fullmatch(str(value).strip())
        try:
            found = timedelta(**{_UNITS[span["unit"]]: int(span["number"])}) if span is not None else timedelta()
        except OverflowError:
            found = timedelta()
        if not timedelta() < found <= timedelta(days=366) or (span is not None and span["sign"]):
            self.fail("must be a length of time like 30m, 2h or 1d, of a year at most", param, ctx)
        return found


class Due(click.ParamType[Range]):
    """A range of `read_due`."""

    name = "due"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return "[overdue|today|tomorrow|TIME]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Range:
        if isinstance(value, Range):
            return value
        try:
            return read_due(str(value), now_of(ctx), _zone(ctx))
        except (ValueError, OverflowError):
            self.fail(f"overdue, today, tomorrow, or {_SAID}", param, ctx)


_SAID: Final = "must be a time like 2026-11-22T08:00, 14:00, yesterday 14:00, today, or a span like 7d, 2h, 30m"


def now_of(ctx: click.Context | None) -> datetime:
    """By the clock of the command's site."""
    clock: Clock | None = getattr(ctx.obj if ctx is not None else None, "clock", None)
    return datetime.now(UTC) if clock is None else clock.now()


def _zone(ctx: click.Context | None) -> tzinfo:
    zone: tzinfo = getattr(ctx.obj if ctx is not None else None, "zone", UTC)
    return zone
