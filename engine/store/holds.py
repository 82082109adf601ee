"""Holds: what messages left to a person, from the moment it is recorded until it is decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, TextClause, func, select, text, update

from engine.domain.hold import Hold, HoldState, hold_key
from engine.domain.message import EntryState
from engine.domain.outcome import Dismissal, Outcome
from engine.domain.record import Phi
from engine.errors import StoreError, TamperedError
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.schema import from_micros, hold, to_micros, word
from engine.store.statements import Listed, Rows

_OPEN: Final = text("hold.state = 'open'")


class HoldDocument(Phi, frozen=True, kw_only=True):
    """The sealed part of a hold."""

    subject: str | None = None
    patient_key: str | None = None


class ListedHold(Phi, frozen=True, kw_only=True):
    """A hold as lists show it."""

    id: int
    entry: int
    """That opened it."""
    root: int
    """The first entry of the chain of replays: that of the message itself."""
    channel: str
    code: str
    location: str | None
    detail: str
    chart_id: str | None
    subject: str | None
    patient_key: str | None
    opened_at: datetime
    state: HoldState
    decided_at: datetime | None
    """Of an open one: its release is under way."""
    decided_by: str | None
    decision: str | None
    """Why."""
    unreadable: bool = False
    """What is sealed of it was altered behind our back."""


_COLUMNS: Final = (
    "entry_id", "root_id", "channel", "chart_id", "code", "location", "detail", "opened_at", "state", "document"
)  # fmt: skip
_INSERT: Final = Rows(hold, _COLUMNS)
_OF_ROOTS: Final = Listed(
    hold.c.root_id,
    lambda listed: select(hold.c.id, hold.c.root_id, hold.c.code, hold.c.location, hold.c.state).where(listed),
)

ASKED: Final = Listed(hold.c.root_id, lambda listed: select(hold.c.root_id).where(listed, _OPEN))
"""The messages that wait for a person."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(HoldDocument).decode


class Holds:
    """Methods that write must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def find(
        self,
        conn: Connection,
        *,
        code: str | None = None,
        channel: str | None = None,
        limit: int | None = 100,
    ) -> list[ListedHold]:
        """Open ones, oldest first."""
        where: list[ColumnElement[bool] | TextClause] = [_OPEN]
        if code is not None:
            where.append(hold.c.code == code)
        if channel is not None:
            where.append(hold.c.channel == channel)
        statement = select(hold).where(*where).order_by(hold.c.id)
        return self._run(conn, statement if limit is None else statement.limit(limit))

    def get(self, conn: Connection, hold_id: int) -> ListedHold | None:
        return next(iter(self._run(conn, select(hold).where(hold.c.id == hold_id))), None)

    def of_message(self, conn: Connection, root: int) -> list[ListedHold]:
        """All that a message and its replays ever left to a person. root: the first entry of the chain."""
        return self._run(conn, select(hold).where(hold.c.root_id == root).order_by(hold.c.id))

    def of_chart(self, conn: Connection, chart_id: str) -> list[ListedHold]:
        """The open ones of a patient, those of charts that were merged into theirs among them; oldest first."""
        charts = ChartStore(self._keys).family(conn, {chart_id})
        return self._run(conn, select(hold).where(hold.c.chart_id.in_(charts), _OPEN).order_by(hold.c.id))

    def counts(self, conn: Connection) -> dict[str, int]:
        """How many are open, by code."""
        statement = select(hold.c.code, func.count().label("number")).where(_OPEN).group_by(hold.c.code)
        return {row.code: row.number for row in conn.execute(statement)}

    def begin_release(self, conn: Connection, hold_id: int, *, by: str, reason: str, now: datetime) -> None:
        """Note who takes it as true, and why. It stays open until the replay that carries the decision is recorded.

        Raises StoreError when it is not open.
        """
        changed = conn.execute(
            update(hold)
            .where(hold.c.id == hold_id, _OPEN)
            .values(**_decided(self._keys, hold_id, by, reason, to_micros(now)))
        )
        if changed.rowcount != 1:
            raise StoreError(f"m{hold_id} is not open: `handoff held show m{hold_id}`")

    def _run(self, conn: Connection, statement: Select[Any]) -> list[ListedHold]:
        return [self._listed(row) for row in conn.execute(statement).all()]

    def _listed(self, row: Row[Any]) -> ListedHold:
        document, decision, unreadable = HoldDocument(), None, False
        try:
            document = _decode(self._keys.open(_place(row.root_id, row.code, row.location, row.chart_id), row.document))
            if row.decision is not None:
                decision = self._keys.open(
                    _decision_place(row.id, row.decided_by, row.decided_at), row.decision
                ).decode()
        except TamperedError:
            unreadable = True
        return ListedHold(
            id=row.id,
            entry=row.entry_id,
            root=row.root_id,
            channel=row.channel,
            code=row.code,
            location=row.location or None,
            detail=row.detail,
            chart_id=row.chart_id,
            subject=document.subject,
            patient_key=document.patient_key,
            opened_at=from_micros(row.opened_at),
            state=word(HoldState, row.state, HoldState.OPEN),
            decided_at=None if row.decided_at is None else from_micros(row.decided_at),
            decided_by=row.decided_by,
            decision=decision,
            unreadable=unreadable,
        )


def open_entries() -> Select[tuple[int]]:
    """Ids of the entries that opened a hold which still stands."""
    return select(hold.c.entry_id).where(_OPEN)


def record_holds(conn: Connection, keys: KeyRing, outcomes: Sequence[Outcome], channel: str, now: int) -> None:
    """Open what the outcomes hold, and end what their replays have answered. Part of the outcomes' transaction.

    An entry and its replays ask a question once. One that a person has decided stays decided; one that a replay ended
    is opened again when a later replay asks it again.
    """
    for one in outcomes:
        for dismissal in one.dismissals:
            _dismiss(conn, keys, dismissal, now)
    concerned = [one for one in outcomes if one.holds or one.replay_root is not None]
    if not concerned:
        return
    roots = sorted({one.replay_root or one.entry_id for one in concerned})
    stored = {(row.root_id, row.code, row.location): (row.id, row.state) for row in _OF_ROOTS.rows(conn, roots)}
    fresh: dict[tuple[int, str, str], tuple[Any, ...]] = {}
    for one in concerned:
        root = one.replay_root or one.entry_id
        asked = {(root, held.code.value, held.location or ""): held for held in one.holds}
        for place, held in asked.items():
            if place in stored:
                stored[place] = (stored[place][0], _ask_again(conn, *stored[place], one, now))
            elif place not in fresh:
                fresh[place] = _row(keys, place, held, one, channel, now)
        if one.replay_root is None:
            continue
        for place in [place for place in fresh if place[0] == root and place not in asked]:
            if _answers(one):
                del fresh[place]  # asked and answered in one batch: nobody has seen it
        for place, (hold_id, state) in stored.items():
            if place[0] == root and state == HoldState.OPEN and place not in asked:
                decided = one.decision == hold_key(place[1], place[2] or None)
                if _answers(one):
                    ended = HoldState.RELEASED if decided else HoldState.SUPERSEDED
                    _change(conn, hold_id, state=ended.value, **({} if decided else {"decided_at": now}))
                    stored[place] = (hold_id, ended.value)
                elif decided:
                    _change(conn, hold_id, **_UNDECIDED)
    _INSERT.write(conn, list(fresh.values()))


_UNDECIDED: Final[dict[str, Any]] = {"decided_at": None, "decided_by": None, "decision": None}


def _answers(one: Outcome) -> bool:
    """Whether the outcome says what became of the message: one that died leaves its questions open."""
    return one.state in {EntryState.PROCESSED, EntryState.FILTERED}


def _ask_again(conn: Connection, hold_id: int, state: str, one: Outcome, now: int) -> str:
    """The state after it."""
    if state == HoldState.SUPERSEDED:
        _change(conn, hold_id, state=HoldState.OPEN.value, opened_at=now, entry_id=one.entry_id, **_UNDECIDED)
        return HoldState.OPEN.value
    if state == HoldState.OPEN and one.decision is not None:
        _change(conn, hold_id, **_UNDECIDED)  # it was to be released, and could not
    return state


def _dismiss(conn: Connection, keys: KeyRing, dismissal: Dismissal, now: int) -> None:
    """One that is decided by now, or is being released, stays as it is: whoever dismisses it looks at it after."""
    conn.execute(
        update(hold)
        .where(hold.c.id == dismissal.hold, _OPEN, hold.c.decided_at.is_(None))
        .values(state=HoldState.DISMISSED.value, **_decided(keys, dismissal.hold, dismissal.by, dismissal.reason, now))
    )


def _decided(keys: KeyRing, hold_id: int, by: str, reason: str, now: int) -> dict[str, Any]:
    decision = keys.seal(_decision_place(hold_id, by, now), reason.encode())
    return {"decided_at": now, "decided_by": by, "decision": decision}


def _change(conn: Connection, hold_id: int, **values: Any) -> None:
    conn.execute(update(hold).where(hold.c.id == hold_id).values(**values))


def _row(
    keys: KeyRing, place: tuple[int, str, str], held: Hold, one: Outcome, channel: str, now: int
) -> tuple[Any, ...]:
    root, code, location = place
    document = _encode(HoldDocument(subject=held.subject, patient_key=held.patient_key))
    sealed = keys.seal(_place(root, code, location, held.chart_id), document)
    return (one.entry_id, root, channel, held.chart_id, code, location, held.text, now, HoldState.OPEN.value, sealed)


def _place(root: int, code: str, location: str, chart_id: str | None) -> str:
    # The patient is part of it, so that a row which is moved to another chart behind our back does not open.
    return f"hold.document:{chart_id or ''}/{root}/{code}/{location}"


def _decision_place(hold_id: int, by: str, at: int) -> str:
    """Who decided and when is part of it, so that a decision can't be put into another's mouth."""
    return f"hold.decision:{hold_id}/{by}/{at}"
