"""How far the clocks of senders are from ours: receipt minus MSH-7, by channel and sender.

A message that waited on its way looks like a slow clock, so the least of the last minutes is shown: a queue is empty
now and then, a wrong clock is wrong always. Senders have numbers, in the order in which they were met: what they call
themselves (MSH-3, MSH-4) stands in no metric; `handoff messages show` of the entry named says it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from engine.domain.record import Record

SENDERS_MAX: Final = 64
"""At most this many senders of a channel are measured; one that writes more names has no clock of its own."""
WRONG_SECONDS: Final = 300.0
"""From here on a clock is worth a remark."""
_WINDOW_SECONDS: Final = 600.0


class SenderSkew(Record, frozen=True, kw_only=True):
    """One sender of a channel. skew_seconds: negative when its clock is ahead of ours, to ten seconds."""

    channel: str
    sender: int
    skew_seconds: int
    wrong: bool
    entry: int
    """A message of that sender."""


class _Measure:
    __slots__ = ("entry", "number", "seconds", "since")

    def __init__(self, number: int, seconds: float, entry: int, since: float) -> None:
        self.number, self.seconds, self.entry, self.since = number, seconds, entry, since


class Skews:
    """What the workers have measured."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._channels: dict[str, dict[int, _Measure]] = {}

    def hear(self, channel: str, sender: int, seconds: float, entry: int) -> None:
        senders = self._channels.setdefault(channel, {})
        known = senders.get(sender)
        now = self._clock()
        if known is None:
            if len(senders) < SENDERS_MAX:
                senders[sender] = _Measure(len(senders) + 1, seconds, entry, now)
        elif seconds <= known.seconds or now - known.since > _WINDOW_SECONDS:
            known.seconds, known.entry, known.since = seconds, entry, now

    def all(self) -> Iterator[SenderSkew]:
        for channel, senders in sorted(self._channels.items()):
            for one in senders.values():
                yield SenderSkew(
                    channel=channel,
                    sender=one.number,
                    skew_seconds=round(one.seconds / 10) * 10,
                    wrong=abs(one.seconds) > WRONG_SECONDS,
                    entry=one.entry,
                )
