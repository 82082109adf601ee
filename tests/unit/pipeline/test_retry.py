from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DeliveryFailure
from engine.pipeline.retry import Bury, Hold, RetryAt, backoff_seconds, decide
from engine.settings import RetrySettings

NOW = datetime(2026, 3, 5, tzinfo=UTC)
POLICY = RetrySettings(first_seconds=1.0, seconds_max=60.0, attempts_max=10)


def always(value: float):
    return lambda: value


def test_a_permanent_failure_is_buried_at_the_first_attempt():
    assert decide(1, DeliveryFailure.PERMANENT, POLICY, NOW, always(0.5), idempotent=True) == Bury()


def test_an_ambiguous_failure_is_held_unless_the_destination_is_idempotent():
    ambiguous = DeliveryFailure.AMBIGUOUS
    assert decide(1, ambiguous, POLICY, NOW, always(0.5), idempotent=False) == Hold()
    assert isinstance(decide(1, ambiguous, POLICY, NOW, always(0.5), idempotent=True), RetryAt)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("attempt", [1, 10, 1000])
def test_what_the_site_leaves_to_a_person_is_held_whatever_the_destination_is(attempt: int, idempotent: bool):
    undecided = DeliveryFailure.UNDECIDED
    assert decide(attempt, undecided, POLICY, NOW, always(0.5), idempotent=idempotent) == Hold()


def test_a_transient_failure_is_tried_again_until_the_attempts_are_used_up():
    transient = DeliveryFailure.TRANSIENT
    assert isinstance(decide(9, transient, POLICY, NOW, always(0.5), idempotent=False), RetryAt)
    assert decide(10, transient, POLICY, NOW, always(0.5), idempotent=False) == Bury()


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (5000, 60.0)])
def test_the_wait_doubles_with_each_attempt_up_to_the_limit(attempt: int, ceiling: float):
    assert backoff_seconds(attempt, POLICY, always(1.0)) == ceiling


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_drawn_from_the_whole_interval_and_never_beyond_the_limit(attempt: int, drawn: float):
    seconds = backoff_seconds(attempt, POLICY, always(drawn))
    assert 0 <= seconds <= POLICY.seconds_max
    assert seconds == pytest.approx(drawn * backoff_seconds(attempt, POLICY, always(1.0)))


def test_what_the_destination_asks_for_is_a_lower_bound():
    transient = DeliveryFailure.TRANSIENT
    asked = decide(1, transient, POLICY, NOW, always(0.5), retry_after=900.0, idempotent=True)
    assert asked == RetryAt(at=NOW + timedelta(seconds=900))
    short = decide(5, transient, POLICY, NOW, always(0.5), retry_after=1.0, idempotent=True)
    assert short == RetryAt(at=NOW + timedelta(seconds=8))
