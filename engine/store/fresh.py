"""Deliveries that were put into the outbox a moment ago, kept in the memory of the process that did it.

The courier of the same process need not read and open them again. The store stays what counts: it says what is due, and
in which state; what is kept here is used only where the store's row is still as it was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from engine.domain.delivery import QueuedDelivery

_DELIVERIES_MAX: Final = 2_048
"""Of one destination: what waits behind them is read from the store when its turn comes."""
_PAYLOAD_BYTES_MAX: Final = 4_096


class Fresh:
    """One thread keeps, others take."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, QueuedDelivery]] = {}

    def keep(self, queued: Iterable[QueuedDelivery]) -> None:
        """Call it when they are on disk, not before."""
        for one in queued:
            kept = self._kept.setdefault(one.delivery.destination, {})
            if len(kept) < _DELIVERIES_MAX and len(one.delivery.payload) <= _PAYLOAD_BYTES_MAX:
                kept[one.id] = one

    def take(self, destination: str, row: Any) -> QueuedDelivery | None:
        """What is kept of a row that is due, once; none: nothing, or the row is not as it was written any more.

        Since then it may have been tried by another process, discarded and put back with a newer content, merged into
        another patient's line.
        """
        kept = self._kept.get(destination)
        one = kept.pop(row.id, None) if kept else None
        if one is None or row.attempts or row.error is not None:
            return None
        said = one.delivery
        same = said.idempotency_key == row.idempotency_key and said.ordering_key == row.ordering_key
        return one if same else None
