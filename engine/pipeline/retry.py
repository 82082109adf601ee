"""What becomes of a delivery that failed: tried again later, held for a person, or buried. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from tenacity import RetryCallState, Retrying, wait_exponential

from engine.domain.record import Record
from engine.errors import DeliveryFailure
from engine.settings import RetrySettings


class RetryAt(Record, frozen=True, kw_only=True):
    at: datetime


class Hold(Record, frozen=True, kw_only=True):
    """A person decides: it may have been done and doing it twice would harm, or the site has it so."""


class Bury(Record, frozen=True, kw_only=True):
    """It is a dead letter."""


Decision = RetryAt | Hold | Bury


def decide(
    attempt: int,
    failure: DeliveryFailure,
    policy: RetrySettings,
    now: datetime,
    random: Callable[[], float],
    retry_after: float | None = None,
    *,
    idempotent: bool,
) -> Decision:
    """What to do after a failed attempt.

    attempt: the number of the attempt that failed, from 1. random: uniform in [0, 1). retry_after: seconds the
    destination asked for. idempotent: the destination takes the same delivery twice without acting twice.
    """
    if failure is DeliveryFailure.PERMANENT:
        return Bury()
    if failure is DeliveryFailure.UNDECIDED or (failure is DeliveryFailure.AMBIGUOUS and not idempotent):
        return Hold()
    if attempt >= policy.attempts_max:
        return Bury()
    return RetryAt(at=now + timedelta(seconds=max(backoff_seconds(attempt, policy, random), retry_after or 0.0)))


def backoff_seconds(attempt: int, policy: RetrySettings, random: Callable[[], float]) -> float:
    """A random part of first_seconds doubled attempt - 1 times, at most of seconds_max ("full jitter").

    The whole interval is drawn from, so that what failed together does not come back together.
    """
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    ceiling = wait_exponential(multiplier=policy.first_seconds, max=policy.seconds_max)(state)
    return random() * ceiling
