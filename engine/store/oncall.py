"""Who stands in on a roster: made by acts, read wherever it is asked who is on call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from engine.domain.codec import decoder, encode
from engine.domain.oncall import Override
from engine.errors import TamperedError
from engine.store.keys import KeyRing
from engine.store.schema import oncall_override, to_micros
from engine.store.statements import Rows

_INSERT: Final = Rows(oncall_override, ("entry_id", "ends_at", "document"))
_decode: Final = decoder(Override)


def record(conn: Connection, keys: KeyRing, overrides: Sequence[Override]) -> None:
    rows = [(one.number, to_micros(one.ends)) for one in overrides]
    _INSERT.write(
        conn,
        [(*row, keys.seal(override_place(*row), encode(one))) for row, one in zip(rows, overrides, strict=True)],
    )


def overrides(
    conn: Connection, keys: KeyRing, since: datetime, damaged: Callable[[int], object] | None = None
) -> tuple[Override, ...]:
    """Those that end after a moment, in the order in which they were made.

    damaged: called with the number of each that can't be read any more, and which is left out then: the roster's own
    people are called. Without it such a one raises TamperedError.
    """
    statement = (
        select(oncall_override).where(oncall_override.c.ends_at > to_micros(since)).order_by(oncall_override.c.entry_id)
    )
    found: list[Override] = []
    for row in conn.execute(statement):
        try:
            found.append(_decode(keys.open(override_place(row.entry_id, row.ends_at), row.document)))
        except TamperedError:
            if damaged is None:
                raise
            damaged(row.entry_id)
    return tuple(found)


def override_place(entry_id: int, ends_at: int) -> str:
    return f"oncall_override.document:{entry_id}/{ends_at}"
