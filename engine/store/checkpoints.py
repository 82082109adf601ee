"""Making checkpoints of the trail."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection

from engine.domain.checkpoint import Checkpoint

if TYPE_CHECKING:
    from engine.store.store import Store


def checkpoint(store: Store, conn: Connection, now: datetime) -> Checkpoint:
    """Of the trail's end as the database says it is, signed. Raises UnrecordedError when the end is gone."""
    head, trail = store.audit.head(conn), store.keys.trail
    made = Checkpoint(chain=head.chain, seq=head.seq, mac=head.mac.hex(), at=now, key=trail.number)
    return msgspec.structs.replace(made, signature=trail.sign(made.signed_text).hex())
