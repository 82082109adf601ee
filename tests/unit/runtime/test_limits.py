"""Buckets: what is taken comes back with time, and nobody's is another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.runtime import limits
from engine.runtime.limits import Buckets


def test_a_bucket_empties_and_fills() -> None:
    buckets = Buckets(per_second=2.0, burst=3.0)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 0.0) == 0.5
    assert buckets.wait("b", 0.0) == 0.0
    assert buckets.take("a", 0.5) == 0.0


@given(st.lists(st.floats(0, 5), max_size=100))
def test_no_more_is_taken_than_was_there_and_came(pauses: list[float]) -> None:
    buckets, now, taken = Buckets(per_second=1.0, burst=5.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("a", now) == 0.0
    assert taken <= 5 + now + 1e-6


def test_who_was_not_seen_for_longest_is_forgotten() -> None:
    buckets = Buckets(per_second=1.0, burst=1.0)
    for number in range(limits._KEYS_MAX + 10):
        buckets.take(str(number), 0.0)
    assert len(buckets._left) == limits._KEYS_MAX
    assert buckets.wait("0", 0.0) == 0.0
    assert buckets.wait(str(limits._KEYS_MAX), 0.0) > 0.0
