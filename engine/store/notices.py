"""Notices in the outbox: what each hangs on, and what became of that.

The one place where a notice is taken back: in the transaction of the outcome that took its ground away it is noted so,
and made due at once, so that admission withholds it (`engine.pipeline.admit.ground_is_there`). One that is under way,
or was sent, or is held, is noted the same: whoever looks at it sees that its ground has gone since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, literal_column, or_, select, text, update

from engine.domain.delivery import Delivery, DeliveryState, Fallen, Gone, Ground, Operation, Spoken
from engine.domain.record import Record
from engine.store import admissions, bound
from engine.store.keys import KeyRing
from engine.store.schema import delivery, from_micros, notice, word
from engine.store.statements import Listed, Rows, Statement

AWAITED: Final = frozenset({Operation.NOTIFY, Operation.REQUEST_APPOINTMENT, Operation.SEND_TEXT})
"""What becomes of these is put into the journal: see `awaited`."""

_INSERT: Final = Rows(notice, ("delivery_id", "chart_id", "ground", "awaits", "mac"))
_OF_CHARTS: Final = Listed(
    notice.c.chart_id,
    lambda listed: (
        select(notice.c.delivery_id, notice.c.chart_id, notice.c.ground, delivery.c.entry_id)
        .join(delivery, delivery.c.id == notice.c.delivery_id)
        .where(listed, notice.c.gone.is_(None))
    ),
)
_DUE: Final = Listed(
    delivery.c.id,
    lambda listed: (
        update(delivery)
        .where(
            listed, delivery.c.state == literal_column("'pending'"), delivery.c.next_attempt_at > bindparam("behind")
        )
        .values(next_attempt_at=bindparam("at"))
    ),
    ("behind", "at"),
)
_AWAITED: Final = Statement(
    select(
        notice.c.delivery_id,
        notice.c.chart_id,
        delivery.c.idempotency_key,
        delivery.c.operation,
        delivery.c.state,
        delivery.c.error,
    )
    .join(delivery, delivery.c.id == notice.c.delivery_id)
    .where(
        text("awaits > 0"),
        delivery.c.state != literal_column("'pending'"),
        or_(notice.c.awaits == literal_column("1"), delivery.c.state != literal_column("'held'")),
    )
    .order_by(notice.c.delivery_id)
    .limit(bindparam("count", type_=delivery.c.id.type)),
    ("count",),
)


class WithoutGround(Record, frozen=True, kw_only=True):
    """A notice whose ground has gone."""

    delivery_id: int
    code: Gone
    at: datetime
    entry: int
    """The entry that took it away."""


def note(conn: Connection, keys: KeyRing, queued: Sequence[tuple[int, Delivery]]) -> None:
    """Put on record what new notices hang on: id and delivery of each."""
    rows: list[tuple[int, str, bytes | None, int, bytes]] = []
    for number, item in queued:
        said = item.content
        ground = said.ground if isinstance(said, Spoken) else None
        awaits = int(item.operation in AWAITED)
        hangs_on = None if ground is None else _hash(keys, ground)
        row = {"delivery_id": number, "chart_id": item.chart_id, "ground": hangs_on, "awaits": awaits}
        rows.append((number, item.chart_id, hangs_on, awaits, bound.mac(keys, bound.NOTICE, row)))
    _INSERT.write(conn, rows)


def take_back(conn: Connection, keys: KeyRing, fallen: Iterable[tuple[int, Fallen]], now: int) -> dict[int, int]:
    """fallen: what each entry has taken away. Only notices of earlier entries hung on that. Returns how many each entry
    has taken back.
    """
    by_chart: dict[str, list[tuple[int, Fallen]]] = {}
    for entry_id, one in fallen:
        by_chart.setdefault(one.chart_id, []).append((entry_id, one))
    gone: dict[tuple[int, Gone], list[int]] = {}
    for row in _OF_CHARTS.rows(conn, sorted(by_chart)):
        for entry_id, one in by_chart[row.chart_id]:
            hashes = None if one.grounds is None else {_hash(keys, ground) for ground in one.grounds}
            if (row.entry_id or 0) < entry_id and (hashes is None or row.ground in hashes):
                gone.setdefault((entry_id, one.code), []).append(row.delivery_id)
                break
    for (entry_id, code), ids in gone.items():
        wanted = notice.c.delivery_id.in_(ids)
        bound.change(conn, keys, bound.NOTICE, wanted, gone=code.value, gone_at=now, gone_by=entry_id)
        _DUE.write(conn, ids, now, now)
        if code.final:
            admissions.close(conn, keys, ids)
    taken: dict[int, int] = {}
    for (entry_id, _), ids in gone.items():
        taken[entry_id] = taken.get(entry_id, 0) + len(ids)
    return taken


class Awaited(Record, frozen=True, kw_only=True):
    """What has become of a notice, and is not in the journal yet."""

    delivery_id: int
    chart_id: str
    key: str
    """Its idempotency key."""
    operation: Operation
    state: DeliveryState
    error: str | None


def awaited(conn: Connection, limit: int) -> list[Awaited]:
    """Notices of `AWAITED` of which something has become, the oldest first."""
    return [
        Awaited(
            delivery_id=row.delivery_id,
            chart_id=row.chart_id,
            key=row.idempotency_key,
            operation=word(Operation, row.operation, Operation.NOTIFY),
            state=word(DeliveryState, row.state, DeliveryState.HELD),
            error=row.error,
        )
        for row in _AWAITED.rows(conn, limit)
    ]


def heard(conn: Connection, keys: KeyRing, found: Iterable[Awaited]) -> None:
    """What has become of these is in the journal. Of a text that is held, a second word is awaited: a person's."""
    ids: dict[bool, list[int]] = {False: [], True: []}
    for one in found:
        ids[one.operation is Operation.SEND_TEXT and one.state is DeliveryState.HELD].append(one.delivery_id)
    for held, some in ids.items():
        bound.change(conn, keys, bound.NOTICE, notice.c.delivery_id.in_(some), awaits=2 if held else 0)


def without_ground(conn: Connection, delivery_ids: Sequence[int]) -> dict[int, WithoutGround]:
    """Those of the deliveries that are notices whose ground has gone, by id."""
    statement = select(notice).where(notice.c.delivery_id.in_(delivery_ids), notice.c.gone.is_not(None))
    return {row.delivery_id: _of(row) for row in conn.execute(statement)}


def taken_back_by(conn: Connection, entry_id: int) -> list[WithoutGround]:
    """The notices whose ground an entry has taken away."""
    statement = select(notice).where(notice.c.gone_by == entry_id).order_by(notice.c.delivery_id)
    return [_of(row) for row in conn.execute(statement)]


def _of(row: Any) -> WithoutGround:
    code = word(Gone, row.gone, Gone.GROUND)
    return WithoutGround(delivery_id=row.delivery_id, code=code, at=from_micros(row.gone_at), entry=row.gone_by)


def _hash(keys: KeyRing, ground: Ground) -> bytes:
    return keys.lookup("ground", ground.kind, ground.key)
