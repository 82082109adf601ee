"""Deliveries that were put into the outbox a moment ago, kept in the memory of the process that did it.

The courier of the same process need not read and open them again. The store stays what counts: it says what is due, and
in which state; what is kept here is used only where the store's row is still as it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Final

from engine.domain.delivery import QueuedDelivery

_DELIVERIES_MAX: Final = 2_048
"""Of one destination: what waits behind them is read from the store when its turn comes."""
_PAYLOAD_BYTES_MAX: Final = 4_096


class Fresh:
    """One thread keeps, others take."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, QueuedDelivery]] = {}
        self._taken: dict[str, int] = {}
        """By destination, the highest id that was asked for: those below that are still here were settled elsewhere."""
        self._cleared: dict[str, int] = {}
        """The same, when what is below was last thrown away."""
        self._lock = Lock()

    def keep(self, queued: Iterable[QueuedDelivery]) -> None:
        """Call it when they are on disk, not before."""
        with self._lock:
            for one in queued:
                destination = one.delivery.destination
                kept = self._kept.setdefault(destination, {})
                if len(kept) >= _DELIVERIES_MAX:
                    kept = self._without_old(destination)
                if len(kept) < _DELIVERIES_MAX and len(one.delivery.payload) <= _PAYLOAD_BYTES_MAX:
                    kept[one.id] = one

    def take(self, destination: str, rows: Sequence[Any]) -> list[QueuedDelivery | None]:
        """What is kept of rows that are due, once; none: nothing, or the row is not as it was written any more.

        Since then it may have been tried by another process, discarded and put back with a newer content, merged into
        another patient's line.
        """
        with self._lock:
            kept = self._kept.get(destination)
            if not kept:
                return [None] * len(rows)
            self._taken[destination] = max(row.id for row in rows)
            found = [kept.pop(row.id, None) for row in rows]
        return [one if one and _is_as_written(row, one) else None for row, one in zip(rows, found, strict=True)]

    def _without_old(self, destination: str) -> dict[int, QueuedDelivery]:
        taken = self._taken.get(destination, 0)
        kept = self._kept[destination]
        if taken == self._cleared.get(destination, 0):
            return kept  # nobody takes: the destination is another worker's, or is down
        self._cleared[destination] = taken
        self._kept[destination] = {id_: one for id_, one in kept.items() if id_ > taken}
        return self._kept[destination]


def _is_as_written(row: Any, one: QueuedDelivery) -> bool:
    said = one.delivery
    untried = row.attempts == 0 and row.error is None
    return (
        untried
        and bool(row.marked) == said.marked
        and row.idempotency_key == said.idempotency_key
        and row.ordering_key == said.ordering_key
    )
