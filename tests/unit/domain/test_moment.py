from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from engine.domain.moment import parse_moment


def test_the_offset_that_was_sent_is_kept() -> None:
    moment = parse_moment("2026-03-02T10:00-05:00")
    assert moment == datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
    assert moment is not None
    assert moment.hour == 10


def test_a_text_without_an_offset_takes_the_zone_and_one_without_a_time_is_the_start_of_its_day() -> None:
    zone = ZoneInfo("America/New_York")
    assert parse_moment("2026-07-02T10:00", zone) == datetime(2026, 7, 2, 14, 0, tzinfo=UTC)
    assert parse_moment("2026-07-02", zone) == datetime(2026, 7, 2, 4, 0, tzinfo=UTC)
    assert parse_moment("2026-07-02") == datetime(2026, 7, 2, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "2026", "2026-03", "soon", "0001-01-01", "9999-12-31T00:00+00:00"])
def test_what_names_no_day_and_what_stands_for_no_date_is_no_moment(text: str | None) -> None:
    assert parse_moment(text) is None
