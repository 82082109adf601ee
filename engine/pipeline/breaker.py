"""A circuit breaker: a destination that fails again and again is left alone for a while. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from engine.pipeline.retry import backoff_seconds
from engine.settings import RetrySettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    """It works, as far as is known."""
    OPEN = "open"
    """It rests: nothing is sent."""
    HALF_OPEN = "half_open"
    """One delivery is sent to find out."""


class BreakerEvent(StrEnum):
    WORKED = "worked"
    FAILED = "failed"
    FAILED_TOO_OFTEN = "failed_too_often"
    RESTED = "rested"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerEvent], BreakerState]] = {
    (BreakerState.CLOSED, BreakerEvent.WORKED): BreakerState.CLOSED,
    (BreakerState.CLOSED, BreakerEvent.FAILED): BreakerState.CLOSED,
    (BreakerState.CLOSED, BreakerEvent.FAILED_TOO_OFTEN): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerEvent.RESTED): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.WORKED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerEvent.FAILED_TOO_OFTEN): BreakerState.OPEN,
}
"""All there is: nothing is sent while it is open, so only the end of the rest can happen then."""


class Breaker:
    """One destination's breaker. `failures` are those in a row.

    Failures are those of the destination as a whole (unreachable, no answer, "not now"), never those of one delivery:
    one patient whose record is locked must not stop the others.
    """

    def __init__(self, policy: RetrySettings) -> None:
        self._policy = policy
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.resting_until: datetime | None = None
        self._resting_since: datetime | None = None

    def ready(self, now: datetime) -> bool:
        """Whether the destination may be tried now. A clock that was set back does not make a rest longer."""
        since, until = self._resting_since, self.resting_until
        if since is not None and until is not None and since <= now < until:
            return False
        self.resting_until = None
        if self.state is BreakerState.OPEN:
            self._move(BreakerEvent.RESTED)
        return True

    def worked(self) -> None:
        self.failures = 0
        self._move(BreakerEvent.WORKED)

    def failed(self, now: datetime, random: Callable[[], float], retry_after: float | None = None) -> None:
        """retry_after: seconds the destination asked for; kept to even before it has failed too often."""
        self.failures += 1
        too_often = self.failures >= self._policy.breaker_failures
        self._move(BreakerEvent.FAILED_TOO_OFTEN if too_often else BreakerEvent.FAILED)
        if self.state is BreakerState.OPEN:
            rest = self._policy.breaker_seconds
        else:
            rest = backoff_seconds(self.failures, self._policy, random)
        self._resting_since = now
        self.resting_until = now + timedelta(seconds=max(rest, retry_after or 0.0))

    def _move(self, event: BreakerEvent) -> None:
        self.state = TRANSITIONS[self.state, event]
