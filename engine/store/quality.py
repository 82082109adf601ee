"""The data-quality list: what is wrong with feeds, counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update

from engine.domain.outcome import Outcome, QualityDecision
from engine.domain.quality import DETAILS_MAX, OTHERS, QualityItem, QualityState
from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store.keys import KeyRing
from engine.store.schema import from_micros, quality, word
from engine.store.statements import Listed, Rows


class ListedQuality(Phi, frozen=True, kw_only=True):
    """An item as lists show it. The decision is what somebody typed."""

    id: int
    channel: str
    kind: str
    detail: str
    count: int
    """Messages with it; a replay is the same message."""
    first_at: datetime
    last_at: datetime
    example_entry: int
    """The last message with it."""
    state: QualityState
    decided_at: datetime | None
    """Of an open one: it was done then, and has happened again, or a person opened it."""
    decided_by: str | None
    decision: str | None
    unreadable: bool = False
    """The decision was altered behind our back, or who made it, or when."""


_KNOWN: Final = Listed(
    quality.c.kind,
    lambda listed: select(quality.c.kind, quality.c.detail).where(quality.c.channel == bindparam("name"), listed),
    ("name",),
)
_UPSERT: Final = Rows(
    quality,
    ("channel", "kind", "detail", "messages", "first_at", "last_at", "example_entry", "state"),
    conflict=("channel", "kind", "detail"),
    replace=("last_at", "example_entry", "state"),
    add=("messages",),
)


class Quality:
    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def find(
        self,
        conn: Connection,
        *,
        channel: str | None = None,
        kind: str | None = None,
        state: QualityState | None = None,
        limit: int | None = 100,
    ) -> list[ListedQuality]:
        """Those that happened last come first."""
        wanted = (("channel", channel), ("kind", kind), ("state", None if state is None else state.value))
        where: list[ColumnElement[bool]] = [quality.c[name] == value for name, value in wanted if value is not None]
        statement = select(quality).where(*where).order_by(quality.c.last_at.desc(), quality.c.id)
        return [self._listed(row) for row in conn.execute(statement if limit is None else statement.limit(limit))]

    def get(self, conn: Connection, item: int) -> ListedQuality | None:
        row = conn.execute(select(quality).where(quality.c.id == item)).one_or_none()
        return None if row is None else self._listed(row)

    def counts(self, conn: Connection) -> dict[str, dict[str, int]]:
        """How many are open, by channel and kind."""
        statement = (
            select(quality.c.channel, quality.c.kind, func.count().label("number"))
            .where(quality.c.state == QualityState.OPEN.value)
            .group_by(quality.c.channel, quality.c.kind)
        )
        found: dict[str, dict[str, int]] = {}
        for row in conn.execute(statement):
            found.setdefault(row.channel, {})[row.kind] = row.number
        return found

    def _listed(self, row: Any) -> ListedQuality:
        decision, unreadable = None, False
        if row.decision is not None:
            try:
                place = decision_place(row.id, row.decided_by, row.decided_at)
                decision = self._keys.open(place, row.decision).decode()
            except TamperedError:
                unreadable = True
        return ListedQuality(
            id=row.id,
            channel=row.channel,
            kind=row.kind,
            detail=row.detail,
            count=row.messages,
            first_at=from_micros(row.first_at),
            last_at=from_micros(row.last_at),
            example_entry=row.example_entry,
            state=word(QualityState, row.state, QualityState.OPEN),
            decided_at=None if row.decided_at is None else from_micros(row.decided_at),
            decided_by=row.decided_by,
            decision=decision,
            unreadable=unreadable,
        )


def record_quality(
    conn: Connection,
    keys: KeyRing,
    outcomes: Sequence[Outcome],
    channel: str,
    now: int,
    *,
    said: Mapping[int, tuple[QualityItem, ...]],
) -> None:
    """Count the faults of the outcomes, and note what people have decided. Part of the outcomes' transaction.

    said: the faults that messages had which the outcomes replay, by their entry: those are counted.
    """
    found: dict[tuple[str, str, str], list[int]] = {}
    for one in outcomes:
        known = said.get(one.replay_root, ()) if one.replay_root is not None else ()
        for item in one.quality:
            if item not in known:
                counted = found.setdefault((one.channel or channel, item.kind.value, item.detail), [0, 0])
                counted[0] += 1
                counted[1] = one.entry_id
    if found:
        rows = _bounded(conn, found)
        # In one order, so that two workers never wait for each other's rows.
        _UPSERT.write(
            conn,
            [
                (*place, number, now, now, entry, QualityState.OPEN.value)
                for place, (number, entry) in sorted(rows.items())
            ],
        )
    for one in outcomes:
        for decision in one.quality_decisions:
            _decide(conn, keys, decision, now)


def _bounded(conn: Connection, found: dict[tuple[str, str, str], list[int]]) -> dict[tuple[str, str, str], list[int]]:
    """The same, with `OTHERS` in the place of details beyond those that a channel may have of a kind."""
    rows: dict[tuple[str, str, str], list[int]] = {}
    for channel in sorted({place[0] for place in found}):
        own = {place: counted for place, counted in found.items() if place[0] == channel}
        details: dict[str, set[str]] = {}
        for row in _KNOWN.rows(conn, sorted({kind for _, kind, _ in own}), channel):
            details.setdefault(row.kind, set()).add(row.detail)
        for (_, kind, detail), counted in own.items():
            known = details.setdefault(kind, set())
            place = (channel, kind, detail if detail in known or len(known) < DETAILS_MAX else OTHERS)
            known.add(place[2])
            sum_ = rows.setdefault(place, [0, 0])
            sum_[0] += counted[0]
            sum_[1] = max(sum_[1], counted[1])
    return rows


def _decide(conn: Connection, keys: KeyRing, decision: QualityDecision, now: int) -> None:
    sealed = keys.seal(decision_place(decision.item, decision.by, now), decision.reason.encode())
    conn.execute(
        update(quality)
        .where(quality.c.id == decision.item)
        .values(state=decision.state.value, decided_at=now, decided_by=decision.by, decision=sealed)
    )


def decision_place(item: int, by: str, at: int) -> str:
    """Who decided and when is part of it, so that a decision can't be put into another's mouth."""
    return f"quality.decision:{item}/{by}/{at}"
