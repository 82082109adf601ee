from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.pipeline.breaker import TRANSITIONS, Breaker, BreakerEvent, BreakerState
from engine.settings import RetrySettings

NOW = datetime(2026, 3, 5, tzinfo=UTC)
POLICY = RetrySettings(first_seconds=1.0, seconds_max=60.0, breaker_failures=3, breaker_seconds=30.0)


def half() -> float:
    return 0.5


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened() -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.breaker_failures):
        breaker.failed(NOW, half)
    return breaker


IMPOSSIBLE = {
    # Nothing is sent while it is open, so nothing can work or fail; rest has an end only where it has a beginning.
    (BreakerState.OPEN, BreakerEvent.WORKED),
    (BreakerState.OPEN, BreakerEvent.FAILED),
    (BreakerState.OPEN, BreakerEvent.FAILED_TOO_OFTEN),
    (BreakerState.CLOSED, BreakerEvent.RESTED),
    (BreakerState.HALF_OPEN, BreakerEvent.RESTED),
}


@pytest.mark.parametrize("state", BreakerState)
@pytest.mark.parametrize("event", BreakerEvent)
def test_each_event_in_each_state_has_a_transition_or_cannot_happen(state: BreakerState, event: BreakerEvent):
    assert ((state, event) in TRANSITIONS) != ((state, event) in IMPOSSIBLE)


def test_every_state_is_reached_and_left():
    assert set(TRANSITIONS.values()) == set(BreakerState)
    assert {state for state, _ in TRANSITIONS} == set(BreakerState)


def test_failures_in_a_row_open_it_and_it_rests():
    breaker = opened()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.ready(after(29.9))
    assert breaker.ready(after(30))
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_success_in_between_starts_the_count_again():
    breaker = Breaker(POLICY)
    breaker.failed(NOW, half)
    breaker.failed(NOW, half)
    breaker.worked()
    breaker.failed(NOW, half)
    breaker.failed(NOW, half)
    assert breaker.state is BreakerState.CLOSED


def test_the_first_failures_are_followed_by_growing_pauses():
    breaker = Breaker(POLICY)
    breaker.failed(NOW, half)
    assert breaker.resting_until == after(0.5)
    breaker.failed(NOW, half)
    assert breaker.resting_until == after(1.0)


def test_the_one_try_after_the_rest_closes_it_or_opens_it_again():
    breaker = opened()
    assert breaker.ready(after(30))
    breaker.failed(after(30), half)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.ready(after(59))
    assert breaker.ready(after(60))
    breaker.worked()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.ready(after(60))


def test_a_rest_that_the_destination_asks_for_is_kept_to():
    breaker = Breaker(POLICY)
    breaker.failed(NOW, half, 900.0)
    assert not breaker.ready(after(899))
    assert breaker.ready(after(900))


def test_a_clock_that_is_set_back_does_not_make_a_rest_longer():
    breaker = opened()
    assert not breaker.ready(after(29))
    assert breaker.ready(after(-86_400))
