"""How long things are kept: a pure function of what is so of them, and of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.retention import Facts, Period, verdict

SINCE_1990 = st.timedeltas(timedelta(0), timedelta(days=100 * 365))
TIMES = SINCE_1990.map(lambda since: datetime(1990, 1, 1, tzinfo=UTC) + since)
PERIODS = st.builds(Period, days=st.integers(0, 4_000), years=st.integers(0, 30))
FACTS = st.builds(Facts, at=TIMES, waits_for=st.sampled_from([None, "an open task"]), on_hold=st.booleans())


@given(FACTS, PERIODS, TIMES)
def test_nothing_that_is_waited_for_held_or_young_is_ever_erased(facts: Facts, period: Period, now: datetime) -> None:
    if verdict(facts, period, now).fate == "erase":
        assert facts.waits_for is None
        assert not facts.on_hold
        assert period.after(facts.at) <= now


@given(FACTS, PERIODS, TIMES, TIMES)
def test_a_clock_that_was_set_back_erases_no_more(facts: Facts, period: Period, now: datetime, other: datetime) -> None:
    earlier, later = sorted((now, other))
    if verdict(facts, period, earlier).fate == "erase":
        assert verdict(facts, period, later).fate == "erase"


@given(TIMES, PERIODS, TIMES)
def test_what_is_over_is_found_where_it_is_looked_for(at: datetime, period: Period, now: datetime) -> None:
    """A sweep reads what is older than `before` and a day, and lets the verdict decide."""
    if period.after(at) <= now:
        assert at <= period.before(now) + timedelta(days=1)


@given(FACTS, PERIODS, TIMES)
def test_a_hold_beats_age_and_what_is_waited_for_is_said_first(facts: Facts, period: Period, now: datetime) -> None:
    fate = verdict(facts, period, now)
    assert fate.rule
    if fate.fate == "held":
        assert facts.on_hold
        assert facts.waits_for is None


@pytest.mark.parametrize(
    ("at", "years", "over"),
    [
        ("2024-02-29", 1, "2025-03-01"),
        ("2024-02-29", 4, "2028-02-29"),
        ("2023-02-28", 1, "2024-02-28"),
        ("2019-12-31", 7, "2026-12-31"),
    ],
)
def test_years_are_those_of_the_calendar(at: str, years: int, over: str) -> None:
    assert Period(years=years).after(datetime.fromisoformat(f"{at}T08:30Z")) == datetime.fromisoformat(f"{over}T08:30Z")


def test_what_a_wrong_clock_has_stamped_waits_until_that_time_has_come() -> None:
    facts, now = Facts(at=datetime(2093, 1, 1, tzinfo=UTC)), datetime(2027, 1, 1, tzinfo=UTC)
    assert verdict(facts, Period(days=30), now).fate == "keep"
    assert verdict(facts, Period(years=9_000), now).fate == "keep"


def test_periods_say_themselves() -> None:
    assert (str(Period(days=90)), str(Period(years=7))) == ("90 days", "7 years")
