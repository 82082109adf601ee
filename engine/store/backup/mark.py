"""The mark of a restore in the store, and what is held because of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, insert, select, text

from engine.domain.delivery import DeliveryState
from engine.pipeline.restored import RESTORED, Mark
from engine.store.keys import KeyRing
from engine.store.outbox import change
from engine.store.schema import delivery, from_micros, restored, to_micros


def set_back(conn: Connection, keys: KeyRing, backup: str, mark: Mark) -> int:
    """Note the restore, and hold all that waits: it may have gone out since. Returns how many deliveries."""
    conn.execute(
        insert(restored).values(
            at=to_micros(mark.at), backup=backup, as_of=to_micros(mark.as_of), last_entry=mark.last_entry
        )
    )
    new = {"state": DeliveryState.HELD.value, "error": RESTORED, "settled_at": to_micros(mark.at)}
    return change(conn, keys, [delivery.c.state == DeliveryState.PENDING.value], new, started_at=None)


def last_mark(conn: Connection) -> Mark | None:
    """Of the last restore; none: there was none."""
    row = conn.execute(select(restored).order_by(restored.c.at.desc()).limit(1)).first()
    if row is None:
        return None
    return Mark(at=from_micros(row.at), as_of=from_micros(row.as_of), last_entry=row.last_entry)


def held_since(conn: Connection, now: datetime) -> tuple[int, datetime | None]:
    """How many deliveries wait for a person because of a restore, and when that was."""
    mark = last_mark(conn)
    if mark is None or mark.at > now:
        return 0, None
    found = select(func.count()).select_from(delivery).where(text("state = 'held'"), delivery.c.error == RESTORED)
    number: int = conn.execute(found).scalar_one()
    return number, mark.at if number else None
