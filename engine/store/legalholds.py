"""Legal holds: patients of whom nothing is erased, whatever its age, until the hold is lifted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from engine.domain.record import Phi
from engine.errors import KeyMissingError, StoreError, TamperedError
from engine.store import schema
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.schema import from_micros, legal_hold, to_micros


class ListedLegalHold(Phi, frozen=True, kw_only=True):
    """A hold as lists show it. The reason is what somebody typed."""

    id: int
    chart_id: str
    """As it was when the hold was placed."""
    placed_at: datetime
    lifted_at: datetime | None
    placed_by: str | None
    reason: str | None
    unreadable: bool = False
    """It was altered behind our back. It holds all the same."""

    @property
    def stands(self) -> bool:
        return self.lifted_at is None or self.unreadable


class _Document(Phi, frozen=True, kw_only=True):
    placed_by: str
    reason: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Document).decode


CONFIRMED: Final = "holds-confirmed"
_RESTORE: Final = "restore"


def in_doubt_since(conn: Connection) -> datetime | None:
    """When the store was set back to a backup, if nobody has said since that its legal holds are right: those that were
    placed between are not in it, and nothing may be erased that they cover. None: they are what they are.
    """
    a = schema.audit.c
    newest = select(a.action, a.at).where(a.action.in_((_RESTORE, CONFIRMED))).order_by(a.seq.desc()).limit(1)
    row = conn.execute(newest).first()
    return from_micros(row.at) if row is not None and row.action == _RESTORE else None


class LegalHolds:
    """What writes must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._charts = ChartStore(keys)

    def place(self, conn: Connection, chart_id: str, *, by: str, reason: str, now: datetime) -> int:
        """Returns its number."""
        number = int(conn.execute(select(func.coalesce(func.max(legal_hold.c.id), 0))).scalar_one()) + 1
        at = to_micros(now)
        place = _place(number, chart_id, at, None)
        document = self._keys.seal(place, _encode(_Document(placed_by=by, reason=reason)))
        conn.execute(insert(legal_hold).values(id=number, chart_id=chart_id, placed_at=at, document=document))
        return number

    def lift(self, conn: Connection, number: int, now: datetime) -> None:
        """Raises StoreError when there is no such hold, or it was lifted before; TamperedError."""
        row = conn.execute(select(legal_hold).where(legal_hold.c.id == number)).one_or_none()
        if row is None or row.lifted_at is not None:
            raise StoreError("somebody has lifted this hold meanwhile")
        plain, at = self._keys.open(hold_place(row), row.document), to_micros(now)
        document = self._keys.seal(_place(row.id, row.chart_id, row.placed_at, at), plain)
        conn.execute(update(legal_hold).where(legal_hold.c.id == number).values(lifted_at=at, document=document))

    def find(self, conn: Connection, *, every: bool = False) -> list[ListedLegalHold]:
        """Those that stand, oldest first; every: also those that were lifted."""
        found = [self._listed(row) for row in conn.execute(select(legal_hold).order_by(legal_hold.c.id))]
        return [one for one in found if every or one.stands]

    def held(self, conn: Connection) -> frozenset[str]:
        """Ids of all charts that holds cover: those named, what they were merged into, and what into these."""
        named: Collection[str] = {one.chart_id for one in self.find(conn)}
        return frozenset(self._charts.family(conn, named)) if named else frozenset()

    def _listed(self, row: Any) -> ListedLegalHold:
        document, unreadable = None, False
        try:
            document = _decode(self._keys.open(hold_place(row), row.document))
        except (TamperedError, KeyMissingError, msgspec.MsgspecError):
            unreadable = True
        return ListedLegalHold(
            id=row.id,
            chart_id=row.chart_id,
            placed_at=from_micros(row.placed_at),
            lifted_at=None if row.lifted_at is None else from_micros(row.lifted_at),
            placed_by=document.placed_by if document is not None else None,
            reason=document.reason if document is not None else None,
            unreadable=unreadable,
        )


def hold_place(row: Any) -> str:
    """The whole row, so that a hold can't be lifted, or put on another patient, behind our back."""
    return _place(row.id, row.chart_id, row.placed_at, row.lifted_at)


def _place(number: int, chart_id: str, placed_at: int, lifted_at: int | None) -> str:
    return f"legal_hold.document:{number}/{chart_id}/{placed_at}/{lifted_at}"
