"""Lengths of time as files say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field, model_validator

from engine.care.calendar import BusinessCalendar
from engine.yamlmodel import StrictModel

_Count = Annotated[int, Field(ge=0, le=10_000)]


class Span(StrictModel):
    """A length of time. Minutes and hours are absolute, days keep the time of day of the site's zone."""

    minutes: _Count | None = None
    """Minutes."""
    hours: _Count | None = None
    """Hours."""
    days: _Count | None = None
    """Days: the same time of day, that many dates later."""
    business_days: _Count | None = None
    """Days of the site's calendar: the same time of day."""

    @model_validator(mode="after")
    def _one_unit(self) -> Span:
        if sum(unit is not None for unit in (self.minutes, self.hours, self.days, self.business_days)) != 1:
            raise ValueError("needs one of minutes, hours, days, business_days")
        return self

    @property
    def text(self) -> str:
        """In words: `12 hours`."""
        for unit in ("minutes", "hours", "days", "business_days"):
            if (number := getattr(self, unit)) is not None:
                words = unit.replace("_", " ")
                return f"{number} {words if number != 1 else words[:-1]}"
        raise AssertionError  # pragma: no cover - one of them is given

    def after(self, moment: datetime, calendar: BusinessCalendar) -> datetime:
        if self.business_days is not None:
            return calendar.add_business_days(moment, self.business_days)
        if self.days is not None:
            return calendar.add_days(moment, self.days)
        passed = timedelta(hours=self.hours or 0, minutes=self.minutes or 0)
        return calendar.here(moment.astimezone(UTC) + passed)

    @property
    def days_max(self) -> float:
        """At most so long, in days: business days with the weekends and holidays that can lie between them."""
        return self.business_days * 1.5 + 4 if self.business_days else self._days

    @property
    def days_min(self) -> float:
        """At least so long, in days."""
        return float(self.business_days) if self.business_days else self._days

    @property
    def _days(self) -> float:
        return (self.days or 0) + (self.hours or 0) / 24 + (self.minutes or 0) / 1440
