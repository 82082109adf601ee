"""The hours in which patients may be written to: on the clock on the wall where the patient lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from engine.errors import Problem
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_State = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
_Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS_MAX: Final = 8
"""Within them a window begins."""


class HoursSpec(StrictModel):
    """From when until when, on the clock on the wall."""

    from_: Annotated[_Clock, Field(alias="from")]
    """Beginning."""
    until: _Clock
    """End: a text that is there at this minute does not go any more."""

    @model_validator(mode="after")
    def _in_order(self) -> HoursSpec:
        if self.from_ >= self.until:
            raise ValueError("ends before it begins: hours lie within one day")
        return self


class WindowSpec(HoursSpec):
    """The hours of a week."""

    sat: HoursSpec | None = None
    """Of Saturdays; none: the same."""
    sun: HoursSpec | None = None
    """Of Sundays; none: the same."""


class QuietFile(StrictModel):
    """The hours in which patients are written to, and narrower ones of some states. Both must allow it."""

    quiet_hours: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the table."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the hours come from."""
    checked: date
    """When somebody last compared them with the law."""
    default: WindowSpec
    """Of everybody."""
    states: dict[_State, WindowSpec] = {}
    """State of the patient's address -> its hours; what is outside of the default does not count."""


_Hours = tuple[time, time]


@dataclass(frozen=True, slots=True)
class Quiet:
    default: tuple[_Hours, ...]
    """Of each day of the week, Monday first."""
    states: Mapping[str, tuple[_Hours, ...]]

    def window(self, at: datetime, zone: ZoneInfo, state: str | None) -> tuple[datetime, datetime]:
        """The hours that hold a moment, else the next ones, in UTC; the end is not of them."""
        week = self.states.get((state or "").strip().upper(), self.default)
        today = at.astimezone(zone).date()
        for days in range(_DAYS_MAX):
            day = today + timedelta(days=days)
            begins, ends = (datetime.combine(day, one, zone).astimezone(UTC) for one in week[day.weekday()])
            if at < ends and begins < ends:
                return begins, ends
        raise AssertionError("a week without hours")  # pragma: no cover - the file is checked

    def allows(self, at: datetime, zone: ZoneInfo, state: str | None) -> bool:
        return self.window(at, zone, state)[0] <= at


EVERYBODY: Final = Quiet(default=((time(9), time(20)),) * 7, states={})
"""Where a site has no table."""


def load_quiet(document: Document, problems: list[Problem]) -> Quiet:
    """Raises SettingsError."""
    spec = validate(document, QuietFile)
    default = _week(spec.default)
    states: dict[str, tuple[_Hours, ...]] = {}
    for state, window in spec.states.items():
        both = tuple(
            (max(first[0], second[0]), min(first[1], second[1]))
            for first, second in zip(default, _week(window), strict=True)
        )
        if all(begins >= ends for begins, ends in both):
            text = "leaves no hour of the week: it lies outside of the default"
            problems.append(document.problem(("states", state), text))
        states[state] = both
    return Quiet(default, states)


def _week(window: WindowSpec) -> tuple[_Hours, ...]:
    days = {"sat": window.sat, "sun": window.sun}
    each = [days.get(day) or window for day in _WEEKDAYS]
    return tuple((time.fromisoformat(one.from_), time.fromisoformat(one.until)) for one in each)
