"""The life of a delivery that has not been delivered, and a keyed hash over it.

A delivery to which nothing has happened is as its outcome made it: pending, never tried, due when it was made. That
needs no hash. What happens to it then (an attempt that failed, a decision, a restore) leaves one in `delivery.life`,
and with it how far it is put off: a row may be made due earlier, by many hands, and never later without a new hash.
What was delivered has its settlement instead (`settlements.py`).

So nobody without the key can say that one is held, withheld or dead, or that it is due in a hundred years.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from engine.domain.delivery import DeliveryState
from engine.store.keys import KeyRing

_FORM: Final = struct.Struct(">qq16s")
_PENDING: Final = DeliveryState.PENDING.value
_ENDED: Final = frozenset({DeliveryState.DEAD.value, DeliveryState.WITHHELD.value, DeliveryState.DELIVERED.value})
"""In these nothing moves it into another patient's line."""


def life(
    keys: KeyRing,
    *,
    id: int,  # noqa: A002 - the column's name
    channel: str,
    ordering_key: str,
    created_at: int,
    state: str,
    attempts: int,
    error: str | None,
    settled_at: int | None,
    next_attempt_at: int,
    after: int,
) -> bytes:
    """next_attempt_at: of a pending one, until when it is put off. after: the last settlement by then, so that an older
    life can't be put back over one that a settlement knows of.
    """
    due = next_attempt_at if state == _PENDING else 0
    line = ordering_key if state in _ENDED else ""
    said = (id, channel, line, created_at, state, attempts, error or "", settled_at or 0)
    hashed = keys.lookup("life", *map(str, said), f"{due}/{after}")
    return _FORM.pack(after, due, hashed)


def after_of(row: Any) -> int:
    """The last settlement when it was written; 0: nothing has happened to it."""
    return int(_FORM.unpack(row.life)[0]) if row.life is not None and len(row.life) == _FORM.size else 0


def fits(keys: KeyRing, row: Any) -> bool:
    """Whether a delivery that was not delivered is as we have left it. row: of the table."""
    if row.life is None:
        untouched = (row.state, row.attempts, row.error, row.settled_at) == (_PENDING, 0, None, None)
        return untouched and row.next_attempt_at <= row.created_at
    if len(row.life) != _FORM.size:
        return False
    after, due, _ = _FORM.unpack(row.life)
    said = life(
        keys, id=row.id, channel=row.channel, ordering_key=row.ordering_key, created_at=row.created_at,
        state=row.state, attempts=row.attempts, error=row.error, settled_at=row.settled_at, next_attempt_at=due,
        after=after,
    )  # fmt: skip
    return said == bytes(row.life) and (row.state != _PENDING or row.next_attempt_at <= due)


def renewed(keys: KeyRing, row: Any, after: int, **new: Any) -> bytes:
    """After a change. row: as it was, of the table; what was altered before is not vouched for."""
    if not fits(keys, row):
        return bytes(row.life or b"altered")
    kept = {
        name: getattr(row, name)
        for name in ("id", "channel", "ordering_key", "created_at", "state", "attempts", "error", "settled_at",
                     "next_attempt_at")
    }  # fmt: skip
    return life(keys, **(kept | new), after=after)
