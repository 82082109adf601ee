"""Telling a privacy officer of broken glasses by deliveries: when one is broken, and again until it is attested."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from engine.domain.delivery import Delivery, GlassNotice, Operation
from engine.domain.glass import Glass

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.store.store import Store

REMINDERS_MAX: Final = 30
"""Of one glass; it stays trouble of the site (`glass-broken`) all the same."""


def tell(store: Store, conn: Connection, glass: Glass, to: Sequence[str], now: datetime, *, reminder: int = 0) -> None:
    """Put a notice for each destination into the outbox; one that was put there before is left out. No PHI is in it:
    the patient is neither named nor numbered, nor is what was said in words.

    reminder: 0: that it was broken; else which reminder it is.
    """
    said = GlassNotice(
        id=glass.id,
        actor=glass.actor,
        reason=glass.reason,
        broken_at=glass.begins,
        ends_at=glass.ends,
        told=glass.told,
        reminder=reminder,
    ).encoded()
    wanted = [
        Delivery(
            destination=name,
            operation=Operation.NOTIFY_GLASS,
            ordering_key=f"glass-{glass.id}",
            idempotency_key=store.keys.lookup("glass", name, glass.id, str(reminder)).hex(),
            payload=said,
        )
        for name in to
    ]
    store.recorder.queue(conn, wanted, channel="", now=now)


def overdue(store: Store, conn: Connection, now: datetime, hours: float) -> list[tuple[Glass, int]]:
    """Glasses that nobody has attested, each with the reminder that is due."""
    found = []
    for one in store.users.glasses(conn, now - timedelta(hours=hours * (REMINDERS_MAX + 1))):
        number = int((now - one.begins) / timedelta(hours=hours))
        if one.verdict is None and 1 <= number <= REMINDERS_MAX:
            found.append((one, number))
    return found


def remind(store: Store, to: Sequence[str], now: datetime, hours: float) -> None:
    """Told again of each glass that waits to be attested; of one reminder each destination is told once."""
    with store.reader() as conn:
        due = overdue(store, conn, now, hours)
    if due and to:

        def work(conn: Connection) -> None:
            for glass, number in due:
                tell(store, conn, glass, to, now, reminder=number)

        store.charts_ledger.write_now(work)
