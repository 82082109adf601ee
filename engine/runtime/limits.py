"""How often somebody may ask: a bucket of tokens each, refilled steadily."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_KEYS_MAX: Final = 10_000
"""Whoever was not seen for longest is forgotten first; a forgotten one begins with a full bucket."""


class Buckets:
    """per_second: how fast a bucket fills. burst: what a full one holds."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until there is a token for this key; 0: there is one. Takes none. now: of a monotonic clock."""
        return max(0.0, (1.0 - self._filled(key, now)) / self._per_second)

    def take(self, key: str, now: float) -> float:
        """Take a token. Seconds to wait before there is one; 0: it was taken."""
        if (seconds := self.wait(key, now)) > 0:
            return seconds
        self._left[key] = (self._filled(key, now) - 1.0, now)
        self._left.move_to_end(key)
        if len(self._left) > _KEYS_MAX:
            self._left.popitem(last=False)
        return 0.0

    def _filled(self, key: str, now: float) -> float:
        left, at = self._left.get(key, (self._burst, now))
        return min(self._burst, left + (now - at) * self._per_second)
