"""What rules said of deliveries that they keep (`engine.pipeline.admit`), and what people decided on the withheld ones.

One row for each delivery that was ever kept, with what was said last; of all others there is none. Withheld ones are
open until a person has released or dismissed them. What was released stays on record: the rule that a person has set
aside is not asked again for that delivery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal_column, select, text

from engine.domain.record import Record
from engine.store import bound
from engine.store.keys import KeyRing
from engine.store.schema import admission, delivery, from_micros, to_micros
from engine.store.statements import Listed, Rows

Decision = Literal["released", "dismissed"]
FINAL: Final = "final"
"""In place of a decision: there is none to make."""
LIFTED: Final = "lifted"
"""In place of a decision: what the rule rests on has changed, and it is asked again."""

_NOTE: Final = Rows(
    admission,
    ("delivery_id", "destination", "code", "not_before", "said_at", "decision", "mac"),
    conflict=("delivery_id",),
    replace=("destination", "code", "not_before", "said_at", "decision", "decided_at", "decided_by", "mac"),
)
_SAID: Final = Listed(admission.c.delivery_id, lambda listed: select(admission).where(listed))
_RELEASED: Final = Listed(
    admission.c.delivery_id,
    lambda listed: select(admission.c.delivery_id, admission.c.released).where(
        listed, admission.c.released.is_not(None)
    ),
)
_PENDING: Final = Listed(
    delivery.c.id,
    lambda listed: (
        select(delivery.c.id, delivery.c.destination, delivery.c.ordering_key, delivery.c.error)
        .where(listed, delivery.c.state == literal_column("'pending'"))
        .order_by(delivery.c.id)
    ),
)
_OPEN: Final = text("not_before IS NULL AND decision IS NULL")
_IS_OPEN: Final = and_(admission.c.not_before.is_(None), admission.c.decision.is_(None))


class Withheld(Record, frozen=True, kw_only=True):
    """A delivery that a rule does not let go. decision: none: it is open."""

    delivery_id: int
    destination: str
    code: str
    at: datetime
    decision: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None


class PutOff(Record, frozen=True, kw_only=True):
    """A delivery that a rule lets go from a time on, and with it the line behind it."""

    delivery_id: int
    destination: str
    ordering_key: str
    code: str
    not_before: datetime


_BOUND: Final = bound.ADMISSION
_NOTED: Final = ("delivery_id", "destination", "code", "not_before", "said_at", "decision")
Row = tuple[int, str, str, int | None, int, str | None]
"""Delivery, destination, the rule's code, until when in microseconds (none: withheld), when it was said, FINAL."""


def note(conn: Connection, keys: KeyRing, rows: Sequence[Row]) -> None:
    if not rows:
        return
    before = {row.delivery_id: row for row in _SAID.rows(conn, sorted(row[0] for row in rows))}
    written: list[tuple[Any, ...]] = []
    for row in rows:
        values = dict(zip(_NOTED, row, strict=True)) | {"decided_at": None, "decided_by": None}
        was = before.get(row[0])
        mac = bound.mac(keys, _BOUND, values) if was is None else bound.renewed(keys, _BOUND, was, values)
        written.append((*row, mac))
    _NOTE.write(conn, written)


def find(
    conn: Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    destination: str | None = None,
    limit: int | None = None,
) -> list[Withheld]:
    """The open ones, the oldest first."""
    where: list[ColumnElement[bool]] = []
    if since is not None:
        where.append(admission.c.said_at >= to_micros(since))
    if until is not None:
        where.append(admission.c.said_at < to_micros(until))
    if destination is not None:
        where.append(admission.c.destination == destination)
    statement = select(admission).where(_OPEN, *where).order_by(admission.c.said_at, admission.c.delivery_id)
    return _withheld(conn, statement if limit is None else statement.limit(limit))


def get(conn: Connection, delivery_ids: Sequence[int]) -> dict[int, Withheld]:
    """Those of the deliveries that are, or were, withheld, by id."""
    statement = select(admission).where(admission.c.delivery_id.in_(delivery_ids), admission.c.not_before.is_(None))
    return {one.delivery_id: one for one in _withheld(conn, statement)}


def counts(conn: Connection) -> dict[str, dict[str, int]]:
    """How many are open, by destination and code; from an index of them alone."""
    found: dict[str, dict[str, int]] = {}
    columns = (admission.c.destination, admission.c.code)
    for row in conn.execute(select(*columns, func.count().label("number")).where(_OPEN).group_by(*columns)):
        found.setdefault(row.destination, {})[row.code] = row.number
    return found


def put_off(conn: Connection, now: datetime) -> list[PutOff]:
    """Deliveries that wait because a rule puts them off; not those that wait behind them, nor for something else."""
    columns = (admission.c.delivery_id, admission.c.code, admission.c.not_before)
    later = conn.execute(select(*columns).where(admission.c.not_before > to_micros(now))).all()
    if not later:
        return []
    said = {row.delivery_id: row for row in later}
    return [
        PutOff(
            delivery_id=row.id,
            destination=row.destination,
            ordering_key=row.ordering_key,
            code=row.error,
            not_before=from_micros(said[row.id].not_before),
        )
        for row in _PENDING.rows(conn, sorted(said))
        if row.error == said[row.id].code
    ]


def released(conn: Connection, delivery_ids: Sequence[int]) -> Mapping[int, frozenset[str]]:
    """By delivery, the codes of the rules that a person has set aside for it."""
    return {row.delivery_id: frozenset(row.released.split()) for row in _RELEASED.rows(conn, delivery_ids)}


def decide(conn: Connection, keys: KeyRing, delivery_id: int, decision: Decision, *, by: str, now: datetime) -> bool:
    """Put a person's decision on an open one on record. False: it is not open."""
    values: dict[str, object] = {"decision": decision, "decided_at": to_micros(now), "decided_by": by}
    if decision == "released":
        row = next(iter(_SAID.rows(conn, [delivery_id])), None)
        values["released"] = " ".join(filter(None, (row.released, row.code))) if row is not None else None
    where = and_(admission.c.delivery_id == delivery_id, _IS_OPEN)
    return bound.change(conn, keys, _BOUND, where, **values) == 1


def close(conn: Connection, keys: KeyRing, delivery_ids: Sequence[int]) -> None:
    """Nothing is left to decide of those that are open: what they were for is gone."""
    bound.change(conn, keys, _BOUND, and_(admission.c.delivery_id.in_(delivery_ids), _IS_OPEN), decision=FINAL)


def lift(conn: Connection, keys: KeyRing, delivery_ids: Sequence[int], now: datetime) -> None:
    """What they were withheld for has changed: they are asked again."""
    where = and_(admission.c.delivery_id.in_(delivery_ids), _IS_OPEN)
    bound.change(conn, keys, _BOUND, where, decision=LIFTED, decided_at=to_micros(now))


def _withheld(conn: Connection, statement: Select[tuple[object, ...]]) -> list[Withheld]:
    return [
        Withheld(
            delivery_id=row.delivery_id,
            destination=row.destination,
            code=row.code,
            at=from_micros(row.said_at),
            decision=row.decision,
            decided_at=None if row.decided_at is None else from_micros(row.decided_at),
            decided_by=row.decided_by,
        )
        for row in conn.execute(statement)
    ]
