from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.care.calendar import BusinessCalendar
from engine.settings import Calendar

NEW_YORK = ZoneInfo("America/New_York")
US = BusinessCalendar(Calendar())


def calendar(**settings: Any) -> BusinessCalendar:
    return BusinessCalendar(Calendar(**settings))


def local(text: str, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("day", "is_open"),
    [
        (date(2026, 3, 6), True),  # Friday
        (date(2026, 3, 7), False),
        (date(2026, 3, 8), False),
        (date(2026, 3, 9), True),
        (date(2026, 1, 1), False),
        (date(2026, 7, 3), False),  # Independence Day, observed on the Friday before
        (date(2026, 11, 26), False),  # Thanksgiving
        (date(2026, 11, 27), True),
        (date(2027, 1, 1), False),
        (date(2024, 2, 29), True),
    ],
)
def test_weekends_and_public_holidays_are_no_business_days(day: date, is_open: bool) -> None:
    assert US.is_business_day(day) is is_open


def test_the_site_may_close_and_open_days_and_choose_its_weekend() -> None:
    site = calendar(closed=(date(2026, 3, 9),), open=(date(2026, 3, 8), date(2026, 1, 1)), weekend=("sun",))
    assert not site.is_business_day(date(2026, 3, 9))
    assert site.is_business_day(date(2026, 3, 8))
    assert site.is_business_day(date(2026, 1, 1))
    assert site.is_business_day(date(2026, 3, 7))


def test_holidays_of_a_subdivision_and_no_holidays_at_all() -> None:
    cesar_chavez_day = date(2026, 3, 31)
    assert US.is_business_day(cesar_chavez_day)
    assert not calendar(holidays="US-CA").is_business_day(cesar_chavez_day)
    assert calendar(holidays=None).is_business_day(date(2026, 12, 25))


@pytest.mark.parametrize("name", ["XX", "US-ZZ", "United States"])
def test_an_unknown_country_is_found_by_the_check(name: str) -> None:
    assert "no table" in (calendar(holidays=name).check() or "")


def test_known_holidays_pass_the_check() -> None:
    assert US.check() is None
    assert calendar(holidays="US-CA").check() is None
    assert calendar(holidays=None).check() is None


def test_a_week_without_business_days_is_refused() -> None:
    with pytest.raises(ValidationError, match="all seven days"):
        Calendar(weekend=("mon", "tue", "wed", "thu", "fri", "sat", "sun"))


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        ("2026-03-02T10:00", 2, "2026-03-04T10:00"),  # Monday to Wednesday
        ("2026-03-06T10:00", 1, "2026-03-09T10:00"),  # Friday to Monday
        ("2026-03-06T10:00", 2, "2026-03-10T10:00"),
        ("2026-03-07T10:00", 1, "2026-03-09T10:00"),  # from a Saturday
        ("2026-03-08T10:00", 2, "2026-03-10T10:00"),
        ("2026-11-25T10:00", 2, "2026-11-30T10:00"),  # over Thanksgiving
        ("2026-12-31T10:00", 2, "2027-01-05T10:00"),  # over New Year and a weekend
        ("2026-03-02T10:00", 0, "2026-03-02T10:00"),
    ],
)
def test_business_days_are_counted_from_the_day_after(start: str, days: int, end: str) -> None:
    assert US.add_business_days(local(start), days) == local(end)


def test_the_day_is_that_of_the_sites_zone() -> None:
    friday_evening = datetime(2026, 3, 7, 2, 0, tzinfo=UTC)  # 21:00 on Friday in New York
    assert US.add_business_days(friday_evening, 1) == local("2026-03-09T21:00")


def test_a_day_later_is_the_same_time_of_day_when_the_clocks_change() -> None:
    assert US.add_days(local("2026-03-07T10:00"), 1).isoformat() == "2026-03-08T10:00:00-04:00"
    assert US.add_days(local("2026-10-31T10:00"), 1).isoformat() == "2026-11-01T10:00:00-05:00"


def test_a_time_that_the_clocks_skip_moves_past_the_gap() -> None:
    assert US.add_days(local("2026-03-07T02:30"), 1).isoformat() == "2026-03-08T03:30:00-04:00"


@given(st.integers(0, 10 * 365 * 24), st.integers(1, 15))
def test_the_result_is_a_business_day_with_that_many_business_days_up_to_it(hours: int, days: int) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    end = US.add_business_days(start, days)
    first, last = start.astimezone(NEW_YORK).date().toordinal() + 1, end.date().toordinal()
    assert US.is_business_day(end.date())
    assert sum(US.is_business_day(date.fromordinal(day)) for day in range(first, last + 1)) == days


ZONES = ["America/New_York", "Europe/Berlin", "Europe/London", "America/St_Johns", "Australia/Lord_Howe",
         "Africa/Cairo", "America/Santiago", "Asia/Beirut", "Asia/Kolkata", "Pacific/Chatham",
         "America/Phoenix"]  # fmt: skip
"""With changes of an hour and of half an hour, in both halves of the year, at 02:00, at 24:00, and none."""
NEAR_A_CHANGE = [datetime(2026, month, day, tzinfo=UTC) for month in (3, 4, 9, 10, 11) for day in range(1, 29, 3)]


def a_moment() -> st.SearchStrategy[datetime]:
    return st.builds(
        lambda day, minutes: day + timedelta(minutes=minutes), st.sampled_from(NEAR_A_CHANGE), st.integers(0, 3 * 1440)
    )


def wall_minutes(moment: datetime) -> int:
    return moment.hour * 60 + moment.minute


@given(st.sampled_from(ZONES), a_moment(), st.integers(0, 40))
def test_so_many_days_later_the_clock_on_the_wall_shows_the_same_but_for_what_it_skips(
    zone: str, start: datetime, days: int
) -> None:
    site = calendar(timezone=zone, holidays=None)
    here, end = start.astimezone(site.zone), site.add_days(start, days)
    wanted = here.replace(tzinfo=None) + timedelta(days=days)
    exists = wanted.replace(tzinfo=site.zone).astimezone(UTC).astimezone(site.zone).replace(tzinfo=None) == wanted
    assert (end.replace(tzinfo=None) == wanted) is exists
    if not exists:
        assert timedelta() < end.replace(tzinfo=None) - wanted <= timedelta(hours=1), "just after what is skipped"
    assert end.astimezone(UTC) >= start, "never before it begins"
    assert end.utcoffset() == end.astimezone(UTC).astimezone(site.zone).utcoffset()
    assert abs((end - start) - timedelta(days=days)) <= timedelta(hours=1)


@given(st.sampled_from(ZONES), a_moment(), st.integers(0, 40))
def test_a_day_more_is_never_earlier(zone: str, start: datetime, days: int) -> None:
    site = calendar(timezone=zone, holidays=None)
    assert site.add_days(start, days).astimezone(UTC) < site.add_days(start, days + 1).astimezone(UTC)
    assert site.add_business_days(start, days).astimezone(UTC) < site.add_business_days(start, days + 1).astimezone(UTC)


@given(st.sampled_from(ZONES), a_moment(), st.integers(1, 20))
def test_business_days_are_those_of_the_zone_right_through_both_changes(zone: str, start: datetime, days: int) -> None:
    site = calendar(timezone=zone, holidays=None)
    end = site.add_business_days(start, days)
    first, last = start.astimezone(site.zone).date().toordinal() + 1, end.date().toordinal()
    assert sum(site.is_business_day(date.fromordinal(day)) for day in range(first, last + 1)) == days
    skipped = wall_minutes(end) - wall_minutes(start.astimezone(site.zone))
    assert 0 <= skipped <= 60, "the same time of day"


def test_no_days_later_is_the_same_moment_in_the_hour_that_comes_twice() -> None:
    second = datetime(2026, 11, 1, 6, 30, tzinfo=UTC)  # 01:30 for the second time
    assert US.add_days(second, 0) == US.add_business_days(second, 0) == second


@given(st.sampled_from(ZONES), a_moment(), st.integers(-180, 180), st.integers(0, 3), st.integers(0, 3))
def test_deadlines_are_compared_and_moved_as_instants(
    zone: str, start: datetime, apart: int, days: int, other_days: int
) -> None:
    site = calendar(timezone=zone, holidays=None)
    one, two = site.add_days(start, days), site.add_days(start + timedelta(minutes=apart), other_days)
    assert (one < two) is (one.astimezone(UTC) < two.astimezone(UTC))
    assert (one == two) is (one.astimezone(UTC) == two.astimezone(UTC))
    assert (one + timedelta(hours=2)).astimezone(UTC) == one.astimezone(UTC) + timedelta(hours=2)
