"""Clocks of senders that run backwards: a later message of a sender was sent earlier, by its own clock.

What was seen counts once it is recorded (`keep`): a batch that is worked on again is looked at as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from engine.domain.outcome import Outcome
from engine.domain.quality import QualityItem, QualityKind
from engine.pipeline.prepared import Prepared
from engine.runtime.skews import SENDERS_MAX

BACK_SECONDS: Final = 60.0
"""Senders work with several threads, and many write the minute only: what is earlier by less is not earlier."""
_BACKWARDS: Final = QualityItem.of(QualityKind.CLOCK_BACKWARDS)

Sent = dict[tuple[str, int], float]
"""By channel and sender: when its last message was sent, by its own clock, in seconds since 1970."""


class Backwards:
    def __init__(self) -> None:
        self._sent: Sent = {}
        self._senders: dict[str, int] = {}

    def look(
        self, channel: str, prepared: Sequence[Prepared], outcomes: Sequence[Outcome]
    ) -> tuple[list[Outcome], Sent]:
        """The outcomes with what clocks have done, and what to `keep` once they are recorded."""
        heard: Sent = {}
        found = list(outcomes)
        for place, (one, outcome) in enumerate(zip(prepared, outcomes, strict=False)):
            if one.clock is None:
                continue
            sender, late = one.clock
            sent = one.entry.received_at.timestamp() - late
            last = heard.get((channel, sender), self._sent.get((channel, sender)))
            if last is not None and sent < last - BACK_SECONDS:
                found[place] = msgspec.structs.replace(outcome, quality=(*outcome.quality, _BACKWARDS))
            heard[channel, sender] = sent
        return found, heard

    def keep(self, heard: Sent) -> None:
        for place, sent in heard.items():
            if place not in self._sent:
                if self._senders.get(place[0], 0) >= SENDERS_MAX:
                    continue
                self._senders[place[0]] = self._senders.get(place[0], 0) + 1
            self._sent[place] = sent
