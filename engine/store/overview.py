"""How the work stands: what waits and since when, how each destination does, what waits for a person.

From indexes of unfinished work and one seek for each channel, so that it can be looked at every second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, select

from engine.domain.page import UNANSWERED, PageState
from engine.domain.standing import ChannelWork, Overview
from engine.store.backup.mark import held_since
from engine.store.counts import oldest_waiting, pending
from engine.store.due import overdue
from engine.store.holds import asking
from engine.store.schema import backup_made, dead_letter, entry, from_micros, hold, page

if TYPE_CHECKING:
    from engine.store.store import Store


_EXHAUSTED: Final = PageState.EXHAUSTED.value
_LAST_BACKUP: Final = select(func.max(backup_made.c.as_of))
_PAGES: Final = (
    select(page.c.state, func.count().label("number"), func.min(page.c.raised_at).label("first"))
    .where(page.c.state.in_(sorted(state.value for state in UNANSWERED)))
    .group_by(page.c.state)
)


def overview(
    store: Store, conn: Connection, channels: Sequence[str], destinations: Mapping[str, str], now: datetime
) -> Overview:
    """channels: those that are configured; others that have received something are shown too. destinations: by type.

    Needs a reader.
    """
    names = list(dict.fromkeys((*channels, *store.journal.channels(conn))))
    waiting = pending(conn, names)
    last = {name: _last(conn, name) for name in names}
    dead, oldest_dead = conn.execute(
        select(func.count(), func.min(dead_letter.c.died_at)).where(dead_letter.c.resolved_by.is_(None))
    ).one()
    due = overdue(conn, now)
    oldest = select(func.min(hold.c.opened_at)).where(hold.c.state == "open", asking(now))
    oldest_hold = conn.execute(oldest).scalar_one()
    pages = conn.execute(_PAGES).all()
    glasses, oldest_glass = store.users.unattested(conn)
    restored_held, restored_at = held_since(conn, now)
    return Overview(
        at=now,
        channels=tuple(
            ChannelWork(
                name=name,
                waiting=waiting[name],
                oldest_waiting_at=oldest_waiting(conn, name) if waiting[name] else None,
                last_message_at=last[name],
            )
            for name in names
        ),
        destinations=tuple(store.destinations.standings(conn, destinations, now)),
        dead=dead,
        oldest_dead_at=_time(oldest_dead),
        holds=store.holds.counts(conn, asking_at=now),
        oldest_hold_at=_time(oldest_hold),
        due=due.charts,
        due_since=due.since,
        quality=store.quality.counts(conn),
        glasses=glasses,
        oldest_glass_at=oldest_glass,
        pages={row.state: row.number for row in pages},
        backup_at=_time(conn.execute(_LAST_BACKUP).scalar_one()),
        restored_at=restored_at,
        restored_held=restored_held,
        oldest_exhausted_at=next((_time(row.first) for row in pages if row.state == _EXHAUSTED), None),
    )


_NEWEST: Final = entry.c.id.desc()


def _last(conn: Connection, channel: str) -> datetime | None:
    statement = select(entry.c.received_at).where(entry.c.channel == channel).order_by(_NEWEST).limit(1)
    return _time(conn.execute(statement).scalar_one_or_none())


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
