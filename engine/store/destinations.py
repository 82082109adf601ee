"""How destinations stand: whether they can be used and since when, whether a person has paused them, what waits.

The courier that has a destination writes how it fails and works; commands write pauses and the wish for an attempt.
What waits is counted from the outbox. A destination that is no longer configured, with something waiting, is an orphan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, literal_column, select, text, update

from engine.domain.delivery import DeliveryState, Operation
from engine.domain.record import Record
from engine.domain.standing import Standing, State
from engine.store import admissions
from engine.store.deadletters import DISCARDED
from engine.store.outbox import Outbox, Settled, change, line_up, take_lock
from engine.store.schema import (
    admission,
    chart,
    dead_letter,
    delivery,
    destination,
    from_micros,
    outcome,
    to_micros,
    word,
)
from engine.store.statements import Rows, Statement

_UNFINISHED: Final = text("delivery.state IN ('pending', 'held')")
_READY: Final = text("delivery.state = 'pending' AND delivery.turn = 1")
_KEPT: Final = Statement(select(destination).where(destination.c.name == bindparam("wanted")), ("wanted",))
_MAKE: Final = Rows(destination, ("name", "down", "failures", "untold"), conflict=("name",))


class Trouble(Record, frozen=True, kw_only=True):
    """Why a destination fails. error: a stable code. detail: a sentence of ours.

    down: it can't be used at all; else it answers, and refuses what it is sent without a reason.
    """

    since: datetime
    error: str
    detail: str
    down: bool
    failures: int = 0
    """In a row."""
    next_attempt_at: datetime | None = None


class Kept(Record, frozen=True, kw_only=True):
    """What is on record of a destination."""

    trouble: Trouble | None = None
    since: datetime | None = None
    """When it last began to fail, or to work again."""
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    """None: until a person resumes it."""
    paused_by: str | None = None
    retry_at: datetime | None = None
    """When a person last asked for an attempt at once."""
    fed_by: tuple[str, ...] | None = None
    """The channels that deliver to it; none: not looked at yet."""
    untold: int = 0
    """How many patients of these channels it was never told of, when that was last counted."""

    def paused(self, now: datetime) -> bool:
        return self.paused_at is not None and (self.paused_until is None or now < self.paused_until)


class DestinationStore:
    """Methods that write must run in a transaction of the charts' ledger."""

    def get(self, conn: Connection, name: str) -> Kept:
        row = _KEPT.first(conn, name)
        return Kept() if row is None else _kept(row)

    def standings(self, conn: Connection, configured: Mapping[str, str | None], now: datetime) -> list[Standing]:
        """Every destination that is configured (name -> type), then the orphans, each in the order of names.

        From indexes that hold unfinished work only: cheap however much was delivered.
        """
        kept = {row.name: _kept(row) for row in conn.execute(select(destination))}
        waiting = _waiting(conn)
        dead = _dead(conn)
        due = _due(conn)
        withheld = admissions.counts(conn)
        put_off = Counter(one.destination for one in admissions.put_off(conn, now))
        behind = _oldest_heads(conn, now) if put_off else {name: one.oldest for name, one in waiting.items()}
        orphans = sorted({name for name in (*waiting, *dead) if name not in configured})
        oldest = {number for one in waiting.values() if (number := one.oldest) is not None}
        oldest |= {number for number in behind.values() if number is not None}
        made = {
            row.id: from_micros(row.created_at)
            for row in conn.execute(select(delivery.c.id, delivery.c.created_at).where(delivery.c.id.in_(oldest)))
        }
        found: list[Standing] = []
        for name in (*sorted(configured), *orphans):
            one, wait, orphan = kept.get(name, Kept()), waiting.get(name, _Waiting()), name not in configured
            paused = one.paused(now) and not orphan
            trouble = one.trouble
            state: State = "paused" if paused else "down" if orphan or (trouble is not None and trouble.down) else "up"
            next_at = due.get(name)
            if paused:
                next_at = one.paused_until if wait.pending else None
            elif orphan:
                next_at = None
            elif trouble is not None and trouble.next_attempt_at is not None and next_at is not None:
                next_at = max(next_at, trouble.next_attempt_at)
            found.append(
                Standing(
                    name=name,
                    type=configured.get(name),
                    state=state,
                    since=one.paused_at if paused else one.since,
                    error=NOT_CONFIGURED if orphan else trouble.error if trouble else None,
                    detail=_ORPHAN if orphan else trouble.detail if trouble else None,
                    pending=wait.pending,
                    oldest_at=made.get(wait.oldest or 0),
                    behind_at=made.get(behind.get(name) or 0),
                    put_off=put_off[name],
                    next_attempt_at=next_at,
                    held=wait.held,
                    dead=dead.get(name, 0),
                    orphan=orphan,
                    failures=trouble.failures if trouble and not orphan else 0,
                    paused_until=one.paused_until if paused else None,
                    paused_by=one.paused_by if paused else None,
                    untold=0 if orphan else one.untold,
                    withheld=withheld.get(name, {}),
                )
            )
        return found

    def orphans(self, conn: Connection, configured: Collection[str]) -> dict[str, int]:
        """Unfinished deliveries (pending and held) by destination, of those that are not among the configured ones."""
        return {name: one.pending + one.held for name, one in sorted(_waiting(conn).items()) if name not in configured}

    def untold(self, conn: Connection, name: str, channels: Collection[str]) -> int:
        """How many patients were heard of on these channels and never told to the destination.

        Looks through all outcomes and deliveries: seconds, where there are millions.
        """
        heard = (
            select(outcome.c.chart_id)
            .join(chart, chart.c.id == outcome.c.chart_id)
            .where(outcome.c.channel.in_(sorted(channels)), chart.c.merged_into.is_(None))
        )
        told = select(delivery.c.ordering_key).where(delivery.c.destination == name)
        never = heard.except_(told).subquery()
        return int(conn.execute(select(func.count()).select_from(never)).scalar_one())

    def fed(self, conn: Connection, name: str, channels: Collection[str], untold: int) -> None:
        """Note which channels deliver to it, and how many of their patients it was never told of."""
        self._set(conn, name, fed_by=",".join(sorted(channels)), untold=untold)

    def failed(self, conn: Connection, name: str, trouble: Trouble) -> None:
        next_at = trouble.next_attempt_at
        self._set(
            conn,
            name,
            since=to_micros(trouble.since),
            error=trouble.error,
            detail=trouble.detail,
            down=int(trouble.down),
            failures=trouble.failures,
            next_attempt_at=None if next_at is None else to_micros(next_at),
        )

    def worked(self, conn: Connection, name: str, now: datetime) -> None:
        """It works again."""
        self._set(
            conn,
            name,
            since=to_micros(now),
            error=None,
            detail=None,
            down=0,
            failures=0,
            next_attempt_at=None,
        )

    def pause(self, conn: Connection, name: str, now: datetime, *, until: datetime | None, by: str) -> bool:
        """Nothing is sent until then, or until `resume`. False: it was paused already, and stays so since then."""
        before = self.get(conn, name)
        since = before.paused_at if before.paused(now) and before.paused_at is not None else now
        ends = None if until is None else to_micros(until)
        self._set(conn, name, paused_at=to_micros(since), paused_until=ends, paused_by=by)
        return since == now

    def resume(self, conn: Connection, name: str) -> None:
        self._set(conn, name, paused_at=None, paused_until=None, paused_by=None)

    def retry(self, conn: Connection, name: str, now: datetime) -> int:
        """Have all that waits for its time tried at once. Returns how many deliveries lead a line there."""
        self._set(conn, name, retry_at=to_micros(now))
        ready = (delivery.c.destination == name, _READY)
        later = update(delivery).where(*ready, delivery.c.next_attempt_at > to_micros(now))
        conn.execute(later.values(next_attempt_at=to_micros(now)))
        return int(conn.execute(select(func.count()).select_from(delivery).where(*ready)).scalar_one())

    @staticmethod
    def _set(conn: Connection, name: str, **values: Any) -> None:
        _MAKE.write(conn, [(name, 0, 0, 0)])
        conn.execute(update(destination).where(destination.c.name == name).values(**values))


NOT_CONFIGURED: Final = "not-configured"
_ORPHAN: Final = "it is not in config.yaml any more, so nobody sends what waits for it"


class _Waiting(Record, frozen=True, kw_only=True):
    pending: int = 0
    held: int = 0
    oldest: int | None = None
    """Id of the oldest pending delivery."""


def _waiting(conn: Connection) -> dict[str, _Waiting]:
    statement = (
        select(
            delivery.c.destination,
            delivery.c.state,
            func.count().label("number"),
            func.min(delivery.c.id).label("oldest"),
        )
        .where(_UNFINISHED)
        .group_by(delivery.c.destination, delivery.c.state)
    )
    found: dict[str, dict[str, Any]] = {}
    for row in conn.execute(statement):
        one = found.setdefault(row.destination, {})
        one[row.state] = row.number
        if row.state == DeliveryState.PENDING.value:
            one["oldest"] = row.oldest
    return {name: _Waiting(**one) for name, one in found.items()}


def _dead(conn: Connection) -> dict[str, int]:
    statement = (
        select(delivery.c.destination, func.count().label("number"))
        .select_from(dead_letter)
        .join(delivery, delivery.c.id == dead_letter.c.delivery_id)
        .where(dead_letter.c.resolved_by.is_(None))
        .group_by(delivery.c.destination)
    )
    return {row.destination: row.number for row in conn.execute(statement)}


def _oldest_heads(conn: Connection, now: datetime) -> dict[str, int | None]:
    """By destination, the id of the oldest delivery whose turn it is, unless a rule puts it off.

    What waits behind another one is younger, and waits for that.
    """
    kept = select(admission.c.delivery_id).where(
        admission.c.delivery_id == delivery.c.id,
        admission.c.not_before > to_micros(now),
        admission.c.code == delivery.c.error,
    )
    statement = (
        select(delivery.c.destination, func.min(delivery.c.id).label("oldest"))
        .where(_READY, ~kept.exists())
        .group_by(delivery.c.destination)
    )
    return {row.destination: row.oldest for row in conn.execute(statement)}


def _due(conn: Connection) -> dict[str, datetime]:
    """When the next delivery of each destination is due."""
    statement = (
        select(delivery.c.destination, func.min(delivery.c.next_attempt_at).label("at"))
        .where(_READY)
        .group_by(delivery.c.destination)
    )
    return {row.destination: from_micros(row.at) for row in conn.execute(statement)}


def _kept(row: Any) -> Kept:
    def at(micros: int | None) -> datetime | None:
        return None if micros is None else from_micros(micros)

    trouble = None
    if row.error is not None:
        trouble = Trouble(
            since=from_micros(row.since),
            error=row.error,
            detail=row.detail or "",
            down=bool(row.down),
            failures=row.failures,
            next_attempt_at=at(row.next_attempt_at),
        )
    return Kept(
        trouble=trouble,
        since=at(row.since),
        paused_at=at(row.paused_at),
        paused_until=at(row.paused_until),
        paused_by=row.paused_by,
        retry_at=at(row.retry_at),
        fed_by=None if row.fed_by is None else tuple(filter(None, row.fed_by.split(","))),
        untold=row.untold,
    )


# --- what an orphan leaves behind ------------------------------------------------------------------------------------

_PIECE: Final = 500
_REST: Final = Statement(
    select(delivery.c.id, delivery.c.ordering_key, delivery.c.attempts)
    .where(delivery.c.destination == bindparam("wanted"), _UNFINISHED)
    .order_by(delivery.c.id)
    .limit(literal_column(str(_PIECE))),
    ("wanted",),
)


def operations(conn: Connection, name: str) -> set[Operation]:
    """What the unfinished deliveries of a destination are."""
    statement = select(delivery.c.operation).where(delivery.c.destination == name, _UNFINISHED).distinct()
    return {word(Operation, row.operation, Operation.FORWARD) for row in conn.execute(statement)}


def discard_rest(conn: Connection, outbox: Outbox, name: str, now: datetime) -> int:
    """Give up some of what waits for a destination; again until it returns 0. Each leaves a resolved dead letter."""
    rows = _REST.rows(conn, name)
    detail = "its destination was taken out of the configuration, and a person gave up what waited for it"
    outbox.settle(
        conn,
        [
            Settled(
                id=row.id, state=DeliveryState.DEAD, attempts=row.attempts, error="destination-discarded", detail=detail
            )
            for row in rows
        ],
        now,
    )
    conn.execute(
        update(dead_letter)
        .where(dead_letter.c.delivery_id.in_([row.id for row in rows]), dead_letter.c.resolved_by.is_(None))
        .values(resolved_by=DISCARDED, resolved_at=to_micros(now))
    )
    return len(rows)


def move_rest(conn: Connection, outbox: Outbox, name: str, to: str, now: datetime) -> int:
    """Have another destination get some of what waits for one; again until it returns 0. Order per patient is kept."""
    take_lock(conn)
    rows = _REST.rows(conn, name)
    ids = [row.id for row in rows]
    outbox.seal_for(conn, ids, to)
    new = {
        "state": DeliveryState.PENDING.value, "attempts": 0, "error": None, "settled_at": None,
        "next_attempt_at": to_micros(now),
    }  # fmt: skip
    change(conn, outbox.keys, [delivery.c.id.in_(ids)], new, destination=to, turn=0, started_at=None)
    line_up(conn, {row.ordering_key for row in rows})
    return len(rows)
