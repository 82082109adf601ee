"""The site's calendar: which days are business days, and what time it is so many of them later.

All that depends on the clock on the wall stands here, and both its changes with it: aware datetimes come in and go out.
A time of a chart comes by `Moment.at_in(zone)`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from engine.settings import Calendar

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = timedelta(days=1)
_REMEMBERED_MAX: Final = 4096


class BusinessCalendar:
    """Days are those of the site's time zone; a day later is the same time of day, also when the clocks change."""

    def __init__(self, settings: Calendar) -> None:
        self.zone = ZoneInfo(settings.timezone)
        self._weekend = frozenset(map(_WEEKDAYS.index, settings.weekend))
        self._closed = frozenset(settings.closed)
        self._open = frozenset(settings.open)
        self._named = settings.holidays or ""
        self._country, _, self._subdivision = self._named.partition("-")
        self._holidays: dict[int, frozenset[date]] = {}
        # One discharge is asked about many times: by each task, each look at it, each plan beside it.
        self._added = lru_cache(maxsize=_REMEMBERED_MAX)(self._add)

    def check(self) -> str | None:
        """What is wrong with `holidays`, if anything. Loads the holiday tables, which takes a tenth of a second."""
        if self._named in {"", "US"}:  # none, and the default, which every start would wait for
            return None
        try:
            known = bool(self._holidays_of(2026)) and not self._named.endswith("-")
        except (NotImplementedError, AttributeError, LookupError, TypeError, ValueError):  # as the name is taken there
            known = False
        return (
            None if known else f"no table for {self._named!r}: a country, or country and subdivision (US, US-CA, DE-BY)"
        )

    def is_business_day(self, day: date) -> bool:
        if day in self._open:
            return True
        return day.weekday() not in self._weekend and day not in self._closed and day not in self._holidays_of(day.year)

    def add_days(self, moment: datetime, days: int) -> datetime:
        """The same time of day so many days later. A time that the change to summer time skips moves past the gap; of
        one that the change back brings twice it is the first.
        """
        return self._added(moment, days, business=False)

    def _add(self, moment: datetime, days: int, *, business: bool) -> datetime:
        """By the instant alone, whatever zone it is written in."""
        local = moment.astimezone(self.zone)
        if business:
            days = self._calendar_days(local.date(), days)
        return self.here(local + timedelta(days=days) if days else local)

    def here(self, moment: datetime) -> datetime:
        """The instant, with the offset that the zone has then.

        With the zone itself Python would compare and add what the clock on the wall shows: in the hour that comes
        twice the later of two deadlines would pass for the earlier one.
        """
        local = moment.astimezone(UTC).astimezone(self.zone)
        return local.replace(tzinfo=timezone(local.utcoffset() or timedelta()), fold=0)

    def add_business_days(self, moment: datetime, days: int) -> datetime:
        """The same time of day so many business days later; the day of `moment` itself is not counted."""
        return self._added(moment, days, business=True)

    def _calendar_days(self, start: date, days: int) -> int:
        day, left = start, days
        while left > 0:
            day += _DAY
            left -= self.is_business_day(day)
        return (day - start).days

    def _holidays_of(self, year: int) -> frozenset[date]:
        if year not in self._holidays:
            days: frozenset[date] = frozenset()
            if self._country:
                from holidays import country_holidays  # it takes long to import, and most processes never need it

                days = frozenset(country_holidays(self._country, subdiv=self._subdivision or None, years=year))
            self._holidays[year] = days
        return self._holidays[year]
