"""Dates and times: generous in what is read, exact in what is kept, and every odd notation noted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.common import clock_time
from engine.domain.moment import Moment, instant
from engine.mapping.functions import ABSENT, Flaw
from engine.mapping.times import read_date, read_time

NEW_YORK = ZoneInfo("America/New_York")


def noted(read: Moment | Flaw) -> tuple[object, set[str]]:
    """The text and all codes."""
    return (read.value.text, {read.code, *read.also}) if isinstance(read, Flaw) else (read.text, set())


def value_of(read: Moment | Flaw) -> Moment | None:
    value = read.value if isinstance(read, Flaw) else read
    return value if isinstance(value, Moment) else None


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("1958", "1958"),
        ("195807", "1958-07"),
        ("19580715", "1958-07-15"),
        ("195807151430", "1958-07-15"),
        ("19580715143000.1234+0100", "1958-07-15"),
        ("20000229", "2000-02-29"),
        ("18010101", "1801-01-01"),
    ],
)
def test_a_date_keeps_the_precision_that_was_sent(text: str, iso: str) -> None:
    assert noted(read_date(text)) == (iso, set())


@pytest.mark.parametrize(
    "text",
    ["195", "19587", "1958071", "19580230", "19581301", "1958-02-30", "19580015", "19581300", "00010101", "18000101",
     "99991231",
     "15.07.1958", "07/15/1958", "1958/07/15", "N", "١٩٥٨", "18991", "1958-7-15", "19580715" * 9],
)  # fmt: skip
def test_a_date_that_does_not_exist_is_a_flaw_and_never_a_guess(text: str) -> None:
    assert read_date(text) == Flaw("invalid-date", ABSENT)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026", "2026"),
        ("20260715", "2026-07-15"),
        ("2026071514", "2026-07-15T14-04:00"),
        ("202607151430", "2026-07-15T14:30-04:00"),
        ("20260715143005", "2026-07-15T14:30:05-04:00"),
        ("20260715143005.25", "2026-07-15T14:30:05.25-04:00"),
        ("20260115143005", "2026-01-15T14:30:05-05:00"),
        ("20260715143005+0200", "2026-07-15T14:30:05+02:00"),
        ("20260715143005-0500", "2026-07-15T14:30:05-05:00"),
        ("202607151430+0545", "2026-07-15T14:30+05:45"),
        ("20260715-0500", "2026-07-15"),
    ],
)
def test_a_time_keeps_its_digits_and_gets_the_offset_of_the_channel(text: str, iso: str) -> None:
    assert noted(read_time(text, NEW_YORK)) == (iso, set())


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("202611010130", "2026-11-01T01:30-04:00"),  # twice: the clock goes back at 2
        ("202603080230", "2026-03-08T02:30-05:00"),  # never: the clock goes forward at 2
    ],
)
def test_a_local_time_that_is_not_one_moment_is_noted(text: str, iso: str) -> None:
    assert read_time(text, NEW_YORK) == Flaw("ambiguous-local-time", Moment.of(iso))
    assert read_time(f"{text}-0500", NEW_YORK) == Moment.of(f"{iso[:-6]}-05:00")


@pytest.mark.parametrize(
    "text",
    ["now", "99991231235959", "00010101000000", "20260230120000", "2026023012", "20261315T1430", "2026-02-30T12:00Z",
     "15.07.2026 14:30", "7/15/2026", "202607+", "2026-07-1", "20260015120000"],
)  # fmt: skip
def test_a_time_that_does_not_exist_is_a_flaw(text: str) -> None:
    assert read_time(text, NEW_YORK) == Flaw("invalid-time", ABSENT)


@given(st.dates(date(1801, 1, 1), date(2999, 12, 31)))
def test_every_day_is_read_back_as_itself(day: date) -> None:
    assert read_date(day.strftime("%Y%m%d").rjust(8, "0")) == Moment.of(day.isoformat())


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 30)),  # noqa: DTZ001  # hypothesis adds the zone
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
)
def test_a_local_time_names_the_same_instant_as_its_result(local: datetime, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    result = read_time(local.strftime("%Y%m%d%H%M%S"), zone)
    moment = instant(value_of(result))
    expected = local.replace(microsecond=0, tzinfo=zone)
    assert moment is not None
    assert moment.astimezone(UTC) == expected.astimezone(UTC)
    once = expected.replace(fold=0).utcoffset() == expected.replace(fold=1).utcoffset()
    assert isinstance(result, Flaw) is not once


@given(st.text(max_size=30) | st.text(alphabet="0123456789+-.", max_size=26))
def test_any_text_is_a_time_that_can_be_used_or_a_flaw(text: str) -> None:
    result = read_time(text, NEW_YORK)
    if isinstance(result, Flaw):
        assert result.value is not ABSENT or result.code in {"invalid-time", "time-unknown"}
    time, day = value_of(result), value_of(read_date(text))
    if time is not None and time.timed:
        moment = datetime.fromisoformat(time.text)
        assert moment.utcoffset() is not None
        assert moment.astimezone(UTC) + timedelta(0) == moment
    assert day is None or len(day.text) in {4, 7, 10}


@pytest.mark.parametrize(
    ("text", "iso", "codes"),
    [
        ("20261120083000.123456-0500", "2026-11-20T08:30:00.123456-05:00", {"time-fraction-long"}),
        ("20260715143005.12345", "2026-07-15T14:30:05.12345-04:00", {"time-fraction-long"}),
        ("20260715143005.123456789", "2026-07-15T14:30:05.123456-04:00", {"time-fraction-long"}),
        ("20260715143005.123456789Z", "2026-07-15T14:30:05.123456+00:00", {"time-fraction-long", "time-notation"}),
        ("20260715143005.", "2026-07-15T14:30:05-04:00", set()),
        ("20260715143005Z", "2026-07-15T14:30:05+00:00", {"time-notation"}),
        ("20260715T1430", "2026-07-15T14:30-04:00", {"time-notation"}),
        ("20260715 143005", "2026-07-15T14:30:05-04:00", {"time-notation"}),
        ("2026-07-15", "2026-07-15", {"time-notation"}),
        ("2026-07", "2026-07", {"time-notation"}),
        ("2026-07-15T14:30:05", "2026-07-15T14:30:05-04:00", {"time-notation"}),
        ("2026-07-15 14:30", "2026-07-15T14:30-04:00", {"time-notation"}),
        ("2026-07-15t14:30:05,25+02:00", "2026-07-15T14:30:05.25+02:00", {"time-notation"}),
        ("20260715143005-04:00", "2026-07-15T14:30:05-04:00", {"time-notation"}),
        ("20260715143005+02", "2026-07-15T14:30:05+02:00", {"time-notation"}),
        ("2026-07-15 02:30 PM", "2026-07-15T14:30-04:00", {"time-notation"}),
        ("2026-07-15 12:30 a.m.", "2026-07-15T00:30-04:00", {"time-notation"}),
        ("20260700", "2026-07", {"time-zero-parts"}),
        ("20260000", "2026", {"time-zero-parts"}),
        ("202600", "2026", {"time-zero-parts"}),
        ("20260000000000", "2026", {"time-zero-parts"}),
        ("2026-07-00", "2026-07", {"time-notation", "time-zero-parts"}),
        ("20260715240000", "2026-07-16T00:00:00-04:00", {"hour-24"}),
        ("202612312400", "2027-01-01T00:00-05:00", {"hour-24"}),
        ("2026071524", "2026-07-16T00-04:00", {"hour-24"}),
        ("20260715143060", "2026-07-15T14:31:00-04:00", {"second-60"}),
        ("20261231235960Z", "2027-01-01T00:00:00+00:00", {"second-60", "time-notation"}),
        ("20260715256000", "2026-07-15", {"time-cut"}),
        ("20260715146000", "2026-07-15T14-04:00", {"time-cut"}),
        ("20260715143061", "2026-07-15T14:30-04:00", {"time-cut"}),
        ("20260715143005123", "2026-07-15T14:30:05-04:00", {"time-cut"}),
        ("2026071514300", "2026-07-15T14:30-04:00", {"time-cut"}),
        ("20260715143005 EST", "2026-07-15T14:30:05-04:00", {"time-cut"}),
        ("20260715143005+1500", "2026-07-15T14:30:05-04:00", {"offset-unreadable"}),
        ("20260715143005+0060", "2026-07-15T14:30:05-04:00", {"offset-unreadable"}),
        ("20260715143005-05000", "2026-07-15T14:30:05-04:00", {"offset-unreadable"}),
        ("2026-11-01 01:30", "2026-11-01T01:30-04:00", {"ambiguous-local-time", "time-notation"}),
    ],
)
def test_what_is_not_as_the_standard_writes_it_is_read_and_noted(text: str, iso: str, codes: set[str]) -> None:
    assert noted(read_time(text, NEW_YORK)) == (iso, codes)


@pytest.mark.parametrize(
    ("text", "iso", "codes"),
    [
        ("19580700", "1958-07", {"time-zero-parts"}),
        ("19580000", "1958", {"time-zero-parts"}),
        ("195800", "1958", {"time-zero-parts"}),
        ("19580000000000", "1958", {"time-zero-parts"}),
        ("1958-07-15", "1958-07-15", {"time-notation"}),
        ("1958-07", "1958-07", {"time-notation"}),
        ("1958-07-15T00:00:00Z", "1958-07-15", {"time-notation"}),
        ("19580715143000.123456", "1958-07-15", {"time-fraction-long"}),
        ("1958071525", "1958-07-15", {"time-cut"}),
        ("195807152400", "1958-07-15", {"hour-24"}),
        ("19580715+", "1958-07-15", {"offset-unreadable"}),
    ],
)
def test_a_birth_date_is_read_as_generously(text: str, iso: str, codes: set[str]) -> None:
    assert noted(read_date(text)) == (iso, codes)


@pytest.mark.parametrize("text", ["0000", "00000000", "99999999", "00000000000000", "99999999999999", "0000-00-00"])
def test_zeros_or_nines_alone_say_that_nothing_is_known(text: str) -> None:
    assert read_date(text) == read_time(text, NEW_YORK) == Flaw("time-unknown", ABSENT)


@given(
    st.datetimes(datetime(1801, 1, 2), datetime(2998, 12, 30)),  # noqa: DTZ001  # as senders write it
    st.integers(4, 26),
    st.sampled_from(["", "Z", "-0500", "+05:45"]),
)
def test_a_time_of_any_precision_that_is_kept_can_be_shown_and_compared(at: datetime, digits: int, offset: str) -> None:
    text = at.strftime("%Y%m%d%H%M%S.%f")[:digits]
    for written in (text + offset, f"{at.isoformat(' ')[:digits]}{offset}"):
        kept = value_of(read_time(written, NEW_YORK))
        if kept is None:
            continue
        shown = clock_time(kept.text)
        assert shown == kept.text or (shown is not None and len(shown) == len("2026-07-15 14:30:05"))
        assert (kept.at is None) is (len(kept.text) < len("2026-07-15"))


@pytest.mark.parametrize(
    "kept", ["2013", "2013-02", "2013-02-28", "2013-02-28T10-05:00", "2013-02-28T10:15:20.5+01:00"]
)
def test_every_precision_that_charts_keep_has_a_form_for_tables(kept: str) -> None:
    assert clock_time(kept) is not None
    assert clock_time(kept) == kept or "T" in kept
