"""How often a worker counts what waits: a count of millions must not become its work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.worker import REPORT_SECONDS, count_pause_seconds


def test_a_quick_count_goes_with_every_report() -> None:
    assert count_pause_seconds(0.001) == REPORT_SECONDS


@given(st.floats(0.05, 3))
def test_a_slow_count_takes_a_twentieth_of_the_time(taken_seconds: float) -> None:
    share = taken_seconds / (taken_seconds + count_pause_seconds(taken_seconds))
    assert share <= 0.05


def test_a_count_that_waited_for_a_store_that_hung_is_tried_again_within_a_minute() -> None:
    assert count_pause_seconds(3600) == 60
