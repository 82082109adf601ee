"""What services of workers count: a new counter is one line here, and a call of `Tally.count`.

Labels come from fixed vocabularies only (see `engine.runtime.metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from engine.domain.record import Record

Name = Literal["deliveries", "deviations", "entries_processed", "events_without_effect"]

Counts = tuple[tuple[tuple[str, ...], int], ...]
"""Labels and how often."""


class CounterOfServices(Record, frozen=True, kw_only=True):
    text: str
    labels: tuple[str, ...]


COUNTERS: Final[Mapping[Name, CounterOfServices]] = {
    "entries_processed": CounterOfServices(text="Outcomes.", labels=("channel", "state")),
    "events_without_effect": CounterOfServices(
        text="Messages whose event means nothing here.", labels=("channel", "event")
    ),
    "deliveries": CounterOfServices(text="Deliveries settled.", labels=("destination", "state")),
    "deviations": CounterOfServices(text="Deviations.", labels=("channel", "deviation")),
}
"""By the name in /metrics, less `handoff_`. Deviations are counted by the listeners too."""
