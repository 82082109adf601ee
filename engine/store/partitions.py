"""Which partition an entry is in: a keyed hash of what says first who the patient is (`Receipt.ordering_key`)."""

from __future__ import annotations

from collections.abc import Callable

from engine.domain.partition import PARTITIONS
from engine.store.keys import KeyRing


def partitioning(keys: KeyRing) -> Callable[[bytes], int]:
    """Ordering key -> partition."""
    hashed = keys.lookup_behind("partition")
    return lambda ordering_key: hashed(ordering_key)[0] % PARTITIONS


def ordering_key_of(chart_id: str | None) -> bytes:
    """Of what happens to a chart by no message. None: to nobody known."""
    return (chart_id or "").encode()
