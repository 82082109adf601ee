"""Holds: what messages left to a person, from the moment it is recorded until it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    TextClause,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
)

from engine.domain.audit import AuditRecord
from engine.domain.chart import Chart, Charts
from engine.domain.codec import decoder, encode
from engine.domain.hold import Assertion, Hold, HoldState, hold_key
from engine.domain.message import EntryState
from engine.domain.outcome import Dismissal, Outcome
from engine.domain.record import Phi
from engine.errors import StoreError, TamperedError
from engine.store import bound
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.schema import from_micros, hold, to_micros, word
from engine.store.statements import Listed, Rows, Statement

_OPEN: Final = text("hold.state = 'open'")


class HoldDocument(Phi, frozen=True, kw_only=True):
    """The sealed part of a hold."""

    subject: str | None = None
    patient_key: str | None = None
    asserts: Assertion | None = None


class Asked(NamedTuple):
    """A question as the outcome that has asked it last vouches for it: its row can't be taken away."""

    root: int
    code: str
    location: str
    chart_id: str | None


class RecordedHolds(NamedTuple):
    """said: what the trail is to say. asked: by entry, the questions that it has opened, or opened again."""

    said: Sequence[AuditRecord]
    asked: Mapping[int, tuple[Asked, ...]]


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
    waits_until: datetime | None
    """Until then it is expected to be answered by itself, and alarms nobody."""
    state: HoldState
    decided_at: datetime | None
    """Of an open one: its release is under way."""
    decided_by: str | None
    decision: str | None
    """Why."""
    answered_by: int | None = None
    """The entry that has ended it: the replay that carried the decision, or what made true what was asked."""
    unreadable: bool = False
    """What is sealed of it was altered behind our back."""


_COLUMNS: Final = (
    "entry_id", "root_id", "channel", "chart_id", "code", "location", "detail", "opened_at", "waits_until", "state",
    "decided_at", "answered_by", "document",
)  # fmt: skip
_INSERT: Final = Rows(hold, (*_COLUMNS, "mac"))
_READ: Final = (
    hold.c.id, hold.c.root_id, hold.c.code, hold.c.location, hold.c.state, hold.c.chart_id, hold.c.decided_by,
    hold.c.waits_until, hold.c.channel, hold.c.detail, hold.c.document,
)  # fmt: skip
_SOME_OPEN: Final = Statement(select(hold.c.id).where(_OPEN).limit(literal_column("1")))
_OF_MESSAGE: Final = Statement(select(hold).where(hold.c.root_id == bindparam("root")).order_by(hold.c.id), ("root",))
_OF_ROOTS: Final = Listed(hold.c.root_id, lambda listed: select(*_READ).where(listed).order_by(hold.c.id))
_OF_CHARTS: Final = Listed(hold.c.chart_id, lambda listed: select(*_READ).where(listed, _OPEN).order_by(hold.c.id))

ASKED: Final = Listed(hold.c.root_id, lambda listed: select(hold.c.root_id).where(listed, _OPEN))
"""The messages that wait for a person."""

_decode = decoder(HoldDocument)


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
        after: int = 0,
        limit: int | None = 100,
    ) -> list[ListedHold]:
        """Open ones, oldest first."""
        where: list[ColumnElement[bool] | TextClause] = [_OPEN, hold.c.id > after]
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
        return [self._listed(row) for row in _OF_MESSAGE.rows(conn, root)]

    def of_chart(self, conn: Connection, chart_id: str) -> list[ListedHold]:
        """The open ones of a patient, those of charts that were merged into theirs among them; oldest first."""
        charts = ChartStore(self._keys).family(conn, {chart_id})
        return self._run(conn, select(hold).where(hold.c.chart_id.in_(charts), _OPEN).order_by(hold.c.id))

    def counts(self, conn: Connection, *, asking_at: datetime | None = None) -> dict[str, int]:
        """How many are open, by code. asking_at: without those that may be answered by themselves until later."""
        statement = select(hold.c.code, func.count().label("number")).where(_OPEN).group_by(hold.c.code)
        if asking_at is not None:
            statement = statement.where(asking(asking_at))
        return {row.code: row.number for row in conn.execute(statement)}

    def begin_release(self, conn: Connection, hold_id: int, *, by: str, reason: str, now: datetime) -> None:
        """Note who takes it as true, and why. It stays open until the replay that carries the decision is recorded.

        Raises StoreError when it is not open.
        """
        decided = _decided(self._keys, hold_id, by, reason, to_micros(now))
        if bound.change(conn, self._keys, bound.HOLD, and_(hold.c.id == hold_id, _OPEN), **decided) != 1:
            raise StoreError(f"m{hold_id} is not open: `handoff held show m{hold_id}`")

    def _run(self, conn: Connection, statement: Select[Any]) -> list[ListedHold]:
        return [self._listed(row) for row in conn.execute(statement).all()]

    def _listed(self, row: Row[Any]) -> ListedHold:
        document, decision, unreadable = HoldDocument(), None, False
        try:
            document = _decode(self._keys.open(hold_place(row), row.document))
            if row.decision is not None:
                decision = self._keys.open(
                    decision_place(row.id, row.decided_by, row.decided_at), row.decision
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
            waits_until=None if row.waits_until is None else from_micros(row.waits_until),
            state=word(HoldState, row.state, HoldState.OPEN),
            decided_at=None if row.decided_at is None else from_micros(row.decided_at),
            decided_by=row.decided_by,
            decision=decision,
            answered_by=row.answered_by,
            unreadable=unreadable,
        )


def asking(now: datetime) -> ColumnElement[bool]:
    """Not waiting any more for what may answer it by itself."""
    return or_(hold.c.waits_until.is_(None), hold.c.waits_until <= to_micros(now))


def open_entries() -> Select[tuple[int]]:
    """Ids of the entries that opened a hold which still stands."""
    return select(hold.c.entry_id).where(_OPEN)


def record_holds(
    conn: Connection,
    keys: KeyRing,
    outcomes: Sequence[Outcome],
    channel: str,
    now: int,
    *,
    before: Charts,
    after: Mapping[str, Chart],
) -> RecordedHolds:
    """Open what the outcomes hold, and end what they have answered. Part of the outcomes' transaction.

    An entry and its replays ask a question once. One that a person has decided stays decided; one that a replay ended
    is opened again when a later replay asks it again. before, after: the charts as they were loaded, and as written.
    """
    for one in outcomes:
        for dismissal in one.dismissals:
            _dismiss(conn, keys, dismissal, now)
    asking = [one for one in outcomes if one.holds or one.replay_root is not None]
    questions = _Questions(conn, keys, channel, now)
    questions.load_asked_before(asking)
    questions.load_open(outcomes, before, after)
    for one in outcomes if asking or questions.some_open else ():
        questions.ask(one)
        questions.end_by_replay(one)
        questions.end_by_facts(one)
    return questions.write()


@dataclass(slots=True, eq=False)
class _Question:
    """A hold as it is stored, or will be."""

    root: int
    code: str
    location: str
    chart_id: str | None
    document: HoldDocument
    row: dict[str, Any]
    """Values to write."""
    id: int | None = None
    """None: it is not stored yet."""
    state: str = HoldState.OPEN.value
    releasing: bool = False
    """A person has released it, and the replay that carries the decision is on its way."""

    def set(self, **values: Any) -> None:
        self.row |= values
        self.state = self.row.get("state", self.state)

    def end(self, state: HoldState, entry_id: int, now: int) -> None:
        """entry_id: what has answered it."""
        decided = {} if state is HoldState.RELEASED else _UNDECIDED | {"decided_at": now}
        self.set(state=state.value, answered_by=entry_id, **decided)


class _Questions:
    """The questions that the outcomes of a batch ask, and may answer."""

    def __init__(self, conn: Connection, keys: KeyRing, channel: str, now: int) -> None:
        self._conn = conn
        self._keys = keys
        self._channel = channel
        self._now = now
        self._of_root: dict[int, dict[tuple[str, str], _Question]] = {}
        self._open: list[_Question] = []
        """Those that facts may answer, in the order in which they were asked."""

    @property
    def some_open(self) -> bool:
        return bool(self._open)

    def load_asked_before(self, asking: Sequence[Outcome]) -> None:
        """What the messages and their replays have asked before."""
        for row in _OF_ROOTS.rows(self._conn, sorted({one.replay_root or one.entry_id for one in asking})):
            self._add(row)

    def load_open(self, outcomes: Sequence[Outcome], before: Charts, after: Mapping[str, Chart]) -> None:
        """What stands open of the charts of which something has become true."""
        if _SOME_OPEN.first(self._conn) is None:
            return
        known = {fact.chart_id for one in outcomes for fact in one.facts if fact.chart_id in before.by_id}
        merged = {id_ for id_ in known if (after.get(id_) or before.by_id[id_]).patient.merged_from}
        if merged:
            known |= ChartStore(self._keys).family(self._conn, merged)
        for row in _OF_CHARTS.rows(self._conn, sorted(known)):
            if (row.code, row.location) not in self._of_root.get(row.root_id, ()):
                self._add(row)

    def _add(self, row: Row[Any]) -> None:
        try:
            document = _decode(self._keys.open(hold_place(row), row.document))
        except TamperedError:  # nobody knows what it asks: a person ends it
            document = HoldDocument()
        question = _Question(
            root=row.root_id,
            code=row.code,
            location=row.location,
            chart_id=row.chart_id,
            document=document,
            row={},
            id=row.id,
            state=row.state,
            releasing=row.decided_by is not None,
        )
        self._of_root.setdefault(question.root, {})[question.code, question.location] = question
        self._open.append(question)

    def ask(self, one: Outcome) -> None:
        root = one.replay_root or one.entry_id
        asked = self._of_root.setdefault(root, {}) if one.holds else {}
        for held in one.holds:
            place = (held.code.value, held.location or "")
            known = asked.get(place)
            if known is None:
                asked[place] = self._new(root, held, one)
                self._open.append(asked[place])
            elif known.state == HoldState.SUPERSEDED:
                state, entry_id = HoldState.OPEN.value, one.entry_id
                known.set(state=state, opened_at=self._now, entry_id=entry_id, answered_by=None, **_UNDECIDED)
            elif known.state == HoldState.OPEN and one.decision is not None:
                known.set(**_UNDECIDED)  # it was to be released, and could not
                known.releasing = False

    def end_by_replay(self, one: Outcome) -> None:
        """End what the message has asked before, and does not ask any more."""
        if one.replay_root is None:
            return
        questions = self._of_root.get(one.replay_root, {})
        asked = {(held.code.value, held.location or "") for held in one.holds}
        for place, question in list(questions.items()):
            if place in asked or question.state != HoldState.OPEN:
                continue
            decided = one.decision == hold_key(question.code, question.location or None)
            if _answers(one) and question.id is None:
                del questions[place]  # asked and answered in one batch: nobody has seen it
                self._open.remove(question)
            elif _answers(one):
                question.end(HoldState.RELEASED if decided else HoldState.SUPERSEDED, one.entry_id, self._now)
            elif decided:
                question.set(**_UNDECIDED)
                question.releasing = False

    def end_by_facts(self, one: Outcome) -> None:
        """End what other messages have asked, and this one has made true."""
        if not self._open:
            return
        root = one.replay_root or one.entry_id
        for fact in one.facts:
            family: set[str] | None = None
            for question in self._open:
                if question.root == root or question.state != HoldState.OPEN or question.releasing:
                    continue
                said = question.document
                if not fact.answers(question.code, said.subject, said.asserts):
                    continue
                if question.chart_id != fact.chart_id:
                    family = family or ChartStore(self._keys).family(self._conn, {fact.chart_id})
                    if question.chart_id not in family:
                        continue
                question.end(HoldState.SUPERSEDED, one.entry_id, self._now)

    def write(self) -> RecordedHolds:
        fresh: list[tuple[Any, ...]] = []
        asked: dict[int, list[Asked]] = {}
        for questions in self._of_root.values():
            for question in questions.values():
                if question.id is None:
                    mac = bound.mac(self._keys, bound.HOLD, question.row)
                    fresh.append((*(question.row.get(name) for name in _COLUMNS), mac))
                elif question.row:
                    bound.change(self._conn, self._keys, bound.HOLD, hold.c.id == question.id, **question.row)
                if (entry_id := question.row.get("entry_id")) is not None:
                    one = Asked(question.root, question.code, question.location, question.chart_id)
                    asked.setdefault(entry_id, []).append(one)
        _INSERT.write(self._conn, fresh)
        return RecordedHolds(self._superseded(), {entry_id: tuple(some) for entry_id, some in asked.items()})

    def _superseded(self) -> list[AuditRecord]:
        """The auditors see the whole life of a question that waited for a person."""
        return [
            AuditRecord(
                at=from_micros(self._now),
                actor="system",
                action="supersede",
                subject=f"hold:m{question.id}",
                reason=f"entry {question.row['answered_by']} has answered it",
                patients=(question.chart_id,) if question.chart_id else (),
                entry=question.row["answered_by"],
            )
            for question in self._open
            if question.id is not None and question.row.get("state") == HoldState.SUPERSEDED
        ]

    def _new(self, root: int, held: Hold, one: Outcome) -> _Question:
        code, location = held.code.value, held.location or ""
        document = HoldDocument(
            subject=held.subject,
            patient_key=held.patient_key,
            asserts=held.asserts,
        )
        waits_until = None if held.waits_until is None else to_micros(held.waits_until)
        place = _place(root, code, location, held.chart_id, waits_until, self._channel, held.text)
        sealed = self._keys.seal(place, encode(document))
        row = {
            "entry_id": one.entry_id,
            "root_id": root,
            "channel": self._channel,
            "chart_id": held.chart_id,
            "code": code,
            "location": location,
            "detail": held.text,
            "opened_at": self._now,
            "waits_until": waits_until,
            "state": HoldState.OPEN.value,
            "document": sealed,
        }
        return _Question(root=root, code=code, location=location, chart_id=held.chart_id, document=document, row=row)


_UNDECIDED: Final[dict[str, Any]] = {"decided_at": None, "decided_by": None, "decision": None}


def _answers(one: Outcome) -> bool:
    """Whether the outcome says what became of the message: one that died leaves its questions open."""
    return one.state in {EntryState.PROCESSED, EntryState.FILTERED}


def _dismiss(conn: Connection, keys: KeyRing, dismissal: Dismissal, now: int) -> None:
    """One that is decided by now, or is being released, stays as it is: whoever dismisses it looks at it after."""
    decided = _decided(keys, dismissal.hold, dismissal.by, dismissal.reason, now)
    where = and_(hold.c.id == dismissal.hold, _OPEN, hold.c.decided_at.is_(None))
    bound.change(conn, keys, bound.HOLD, where, state=HoldState.DISMISSED.value, **decided)


def _decided(keys: KeyRing, hold_id: int, by: str, reason: str, now: int) -> dict[str, Any]:
    decision = keys.seal(decision_place(hold_id, by, now), reason.encode())
    return {"decided_at": now, "decided_by": by, "decision": decision}


def _place(
    root: int, code: str, location: str, chart_id: str | None, waits_until: int | None, channel: str, detail: str
) -> str:
    # The patient is part of it, so that a row which is moved to another chart behind our back does not open; until
    # when it waits, so that none is put off without notice; and what a person reads who decides.
    until = "" if waits_until is None else waits_until
    return f"hold.document:{chart_id or ''}/{root}/{code}/{location}/{until}/{channel}/{detail}"


def hold_place(row: Row[Any]) -> str:
    return _place(row.root_id, row.code, row.location, row.chart_id, row.waits_until, row.channel, row.detail)


def decision_place(hold_id: int, by: str, at: int) -> str:
    """Who decided and when is part of it, so that a decision can't be put into another's mouth."""
    return f"hold.decision:{hold_id}/{by}/{at}"
