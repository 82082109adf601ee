"""Making checkpoints of the trail."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection

from engine.domain.checkpoint import Checkpoint
from engine.store.tallies import last_numbers

if TYPE_CHECKING:
    from engine.store.store import Store


def checkpoint(store: Store, conn: Connection, now: datetime) -> Checkpoint:
    """Of the trail's end and the last numbers as the database says they are, signed.

    conn: a reader. Raises UnrecordedError when the end is gone.
    """
    head, trail = store.audit.head(conn), store.keys.trail
    last = last_numbers(conn)
    made = Checkpoint(chain=head.chain, seq=head.seq, mac=head.mac.hex(), at=now, key=trail.number, last=last)
    return msgspec.structs.replace(made, signature=trail.sign(made.signed_text).hex())
