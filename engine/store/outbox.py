"""The outbox: deliveries that wait, in order for each patient and destination.

The unfinished (pending or held) deliveries of one ordering key at one destination stand in a line, in the order of
their ids. Only the oldest has its `turn`. The turn is kept as a column, given to the next one when its holder is
finished: so what is due is a range of an index, however many wait behind a patient whose delivery fails, and however
many were delivered before.

Lines of patients that are merged become one (`join_lines`). Who is no longer the oldest then, or because an older one
was put back, keeps its turn while an attempt is noted as under way: how that attempt ended must be found after a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, select, text, update

from engine.domain.delivery import (
    DELIVERY_MOVES,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    Operation,
    QueuedDelivery,
    Stage,
    chart_of_line,
)
from engine.domain.ids import ALIKE_DIGITS
from engine.domain.record import Phi, Record
from engine.errors import KeyMissingError, StoreError, TamperedError
from engine.pipeline.admit import Known
from engine.store import admissions, letters, lives, settlements
from engine.store.facts import FactStore
from engine.store.fresh import Fresh
from engine.store.keys import KeyRing
from engine.store.schema import delivery, delivery_payload, delivery_receipt, from_micros, to_micros, word
from engine.store.statements import Listed, Rows, Statement

_UNFINISHED: Final = text("state IN ('pending', 'held')")
_LOCK: Final = 0x48414E44_4F
BATCH_BYTES_MAX: Final = 8 << 20
"""Of payloads handed out at once, unless a destination is set up otherwise."""
_READ_MAX: Final = 128
"""Deliveries that are read at once, so that few are read in vain when they are large."""
_LINE_LENGTH: Final = 3
"""Deliveries of a patient that wait together, as a rule: a message makes so many. With longer lines some rows are read
in vain, with shorter ones a batch is smaller than it might be."""
_PIECE: Final = 500
"""Rows that are changed at once."""
_OPERATIONS: Final = {one.value: one for one in Operation}
_STATES: Final = {one.value: one for one in DeliveryState}
_PENDING: Final = DeliveryState.PENDING.value
_HELD: Final = text("state = 'held'")
_READY: Final = text("state = 'pending' AND turn = 1")
_READY_OR_BEHIND: Final = text("state = 'pending'")

MOVED_AWAY: Final = "moved-away"
"""Why a delivery was taken back: what it is about is another patient's now."""


class Settled(Record, frozen=True, kw_only=True):
    """What became of an attempt. `next_attempt_at` belongs to pending; error and detail hold no value of a payload."""

    id: int
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None = None
    error: str | None = None
    """A stable code."""
    detail: str = ""
    """In words, for the dead letter."""
    receipt: str | None = None
    """The far end's id of it, or the code of its answer."""
    not_before: datetime | None = None
    """Of a pending one: a rule lets it go from then on (`next_attempt_at` may be earlier: it is asked again)."""
    final: bool = False
    """Of a withheld one: no person can release it."""
    what: str | None = None
    """Of a delivered one, as its courier has read it (`settlements.what`); none: it is read again."""
    disclosed: str | None = None
    """Of a delivered one: what the copy counts as (`disclosure.as` of the destination); none: nobody has said so."""


class WaitingLine(Record, frozen=True, kw_only=True):
    """What waits for one destination of one patient."""

    ordering_key: str
    destination: str
    channel: str | None
    number: int
    oldest_at: datetime
    error: str | None

    @property
    def chart_id(self) -> str:
        return chart_of_line(self.ordering_key)


class Renewed(Phi, frozen=True, kw_only=True):
    """What goes out in the place of a buried or withheld delivery, because what that one said is old news."""

    payload: bytes
    idempotency_key: str
    """Another one: whoever has the old key on record must not take the new content for it."""


_PAYLOAD: Final = delivery_payload.c.delivery_id == delivery.c.id
_JOINED: Final = select(
    delivery.c.id,
    delivery.c.entry_id,
    delivery.c.destination,
    delivery.c.operation,
    delivery.c.ordering_key,
    delivery.c.idempotency_key,
    delivery.c.state,
    delivery.c.attempts,
    delivery.c.next_attempt_at,
    delivery.c.created_at,
    delivery.c.settled_at,
    delivery.c.error,
    delivery.c.marked,
    delivery_payload.c.body,
).outerjoin(delivery_payload, _PAYLOAD)
_AS_WRITTEN: Final = (
    delivery.c.id,
    delivery.c.ordering_key,
    delivery.c.idempotency_key,
    delivery.c.attempts,
    delivery.c.error,
    delivery.c.marked,
)
"""What `Fresh.take` looks at."""
_HEADS: Final = Statement(
    select(*_AS_WRITTEN)
    .where(delivery.c.destination == bindparam("destination"), _READY, delivery.c.next_attempt_at <= bindparam("now"))
    .order_by(delivery.c.next_attempt_at, delivery.c.id)
    .limit(bindparam("count", type_=delivery.c.id.type)),
    ("destination", "now", "count"),
)
_UNMARKED: Final = Statement(
    _JOINED.where(
        _UNFINISHED,
        delivery.c.marked == literal_column("0"),
        delivery.c.ordering_key >= bindparam("chart"),
        delivery.c.ordering_key < bindparam("behind"),
    ).order_by(delivery.c.id),
    ("chart", "behind"),
)
_LAST_ID: Final = Statement(select(func.max(delivery.c.id)))
_LAST_DUE: Final = Statement(
    select(func.max(delivery.c.next_attempt_at)).where(delivery.c.destination == bindparam("destination"), _READY),
    ("destination",),
)
_IN_LINE: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: (
        select(*_AS_WRITTEN, delivery.c.state, delivery.c.next_attempt_at)
        .where(listed, delivery.c.destination == bindparam("destination"), _UNFINISHED)
        .order_by(delivery.c.id)
        .limit(bindparam("count", type_=delivery.c.id.type))
    ),
    ("destination", "count"),
)
_IN_LINES: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: select(delivery.c.id, delivery.c.ordering_key, delivery.c.destination).where(listed, _UNFINISHED),
)
_BY_ENTRIES: Final = Listed(delivery.c.entry_id, lambda listed: _JOINED.where(listed).order_by(delivery.c.id))
_BY_KEYS: Final = Listed(delivery.c.idempotency_key, _JOINED.where)
_BY_IDS: Final = Listed(delivery.c.id, _JOINED.where)
_TOLD: Final = Statement(
    _JOINED.where(
        delivery.c.idempotency_key >= bindparam("first"),
        delivery.c.idempotency_key < bindparam("behind"),
        delivery.c.destination == bindparam("wanted"),
        delivery.c.operation != literal_column(f"'{Operation.FORWARD.value}'"),
    ).order_by(delivery.c.id),
    ("first", "behind", "wanted"),
)
_OPEN: Final = Listed(delivery.c.id, lambda listed: select(delivery).where(listed, _UNFINISHED).with_for_update())
_PROMOTE: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: (
        update(delivery)
        .where(
            delivery.c.turn == literal_column("0"),
            delivery.c.id.in_(
                select(func.min(delivery.c.id))
                .where(listed, _UNFINISHED)
                .group_by(delivery.c.ordering_key, delivery.c.destination)
                .scalar_subquery()
            ),
        )
        .values(turn=literal_column("1"))
    ),
)
_JOIN_LINE: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: update(delivery).where(listed, _UNFINISHED).values(ordering_key=bindparam("survivor")),
    ("survivor",),
)
_SIT_DOWN: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: (
        update(delivery)
        .where(listed, _UNFINISHED, delivery.c.turn == literal_column("1"), delivery.c.started_at.is_(None))
        .values(turn=literal_column("0"))
    ),
)
_OCCUPIED: Final = Listed(
    delivery.c.ordering_key,
    lambda listed: select(delivery.c.ordering_key, delivery.c.destination).where(listed, _UNFINISHED).distinct(),
)
_DELIVERED: Final = Listed(
    delivery.c.id,
    lambda listed: (
        update(delivery)
        .where(listed, _UNFINISHED)
        .values(
            state=literal_column("'delivered'"),
            turn=literal_column("0"),
            error=None,
            started_at=None,
            attempts=bindparam("tries"),
            settled_at=bindparam("at"),
            disclosed=bindparam("mark"),
            life=None,
        )
        .returning(delivery.c.id, delivery.c.ordering_key)
    ),
    ("tries", "at", "mark"),
)
_STARTED: Final = Listed(
    delivery.c.id, lambda listed: update(delivery).where(listed, _READY).values(started_at=bindparam("at")), ("at",)
)
_CHANGED: Final = Statement(
    update(delivery)
    .where(delivery.c.id == bindparam("wanted"))
    .values(
        state=bindparam("new_state"),
        turn=delivery.c.turn * bindparam("keeps_turn", type_=delivery.c.turn.type),
        attempts=bindparam("tries"),
        next_attempt_at=bindparam("due"),
        error=bindparam("code"),
        started_at=None,
        settled_at=bindparam("at"),
        life=bindparam("new_life"),
    ),
    ("wanted", "new_state", "keeps_turn", "tries", "due", "code", "at", "new_life"),
)
_RECEIPTS: Final = Rows(
    delivery_receipt,
    ("delivery_id", "found_by", "body"),
    conflict=("delivery_id",),
    replace=("found_by", "body"),
)


def _what(conn: Connection, ids: Sequence[int]) -> dict[int, str | None]:
    return {
        row.id: settlements.what(row.destination, row.operation, row.entry_id)
        for row in _BY_IDS.rows(conn, sorted(ids))
    }


def _may_become(row: Any, state: DeliveryState) -> bool:
    """By an attempt's end."""
    return state in DELIVERY_MOVES[word(DeliveryState, row.state, DeliveryState.HELD), DeliveryEvent.SETTLED]


def change(
    conn: Connection, keys: KeyRing, where: Sequence[ColumnElement[bool]], new: Mapping[str, Any], **more: Any
) -> int:
    """Change deliveries that are not delivered, with what vouches for their life. new: columns of that; more: others.
    Returns how many there are.
    """
    statement = select(delivery).where(*where).order_by(delivery.c.id).limit(_PIECE).with_for_update()
    write = update(delivery).where(delivery.c.id == bindparam("wanted")).values(**new, **more, life=bindparam("its"))
    found, last = 0, 0
    while rows := conn.execute(statement.where(delivery.c.id > last)).all():
        held = [row.id for row in rows] if new.get("state") == DeliveryState.HELD.value else []
        after = settlements.note(conn, keys, {}, new.get("settled_at") or 0, held)
        conn.execute(write, [{"wanted": row.id, "its": lives.renewed(keys, row, after, **new)} for row in rows])
        found, last = found + len(rows), rows[-1].id
    return found


def _from(event: DeliveryEvent) -> ColumnElement[bool]:
    """The states in which this can happen to a delivery."""
    return delivery.c.state.in_([state.value for state, one in DELIVERY_MOVES if one is event])


def take_lock(conn: Connection) -> None:
    """PostgreSQL: one transaction at a time queues or settles; SQLite's writers are alone anyway.

    Without it one could queue a delivery behind a head that another is just settling, and none would have the turn. It
    comes after locks of charts and before locks of deliveries, so that no two transactions wait for each other.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def occupied(conn: Connection, ordering_keys: Collection[str]) -> set[tuple[str, str]]:
    """The lines, by ordering key and destination, in which something waits: whoever comes next stands behind it."""
    return {(row.ordering_key, row.destination) for row in _OCCUPIED.rows(conn, sorted(ordering_keys))}


def promote(conn: Connection, ordering_keys: Collection[str]) -> None:
    """Give the turn to the oldest unfinished delivery of each of the ordering keys, at each destination."""
    if ordering_keys:
        take_lock(conn)
        _PROMOTE.write(conn, sorted(ordering_keys))


def join_lines(conn: Connection, merged: Mapping[str, str]) -> None:
    """Put what waits for merged patients into the lines of their survivors: ordering key -> that of the survivor.

    A delivery of the old patient must not come after the one that tells of the merge. All keep their order by id, and
    whatever the transaction queues after this comes behind them.
    """
    if not merged:
        return
    take_lock(conn)
    by_survivor: dict[str, list[str]] = {}
    for ordering_key, survivor in merged.items():
        by_survivor.setdefault(survivor, []).append(ordering_key)
    for survivor, ordering_keys in by_survivor.items():
        _JOIN_LINE.write(conn, sorted(ordering_keys), survivor)
    line_up(conn, by_survivor)


def line_up(conn: Connection, ordering_keys: Collection[str]) -> None:
    """Give the turns of these lines anew, after something was put in among what waits there."""
    take_lock(conn)
    _SIT_DOWN.write(conn, sorted(ordering_keys))
    promote(conn, ordering_keys)


class Outbox:
    """Reading the outbox, and writing what became of attempts (in a transaction of the charts' ledger)."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = self.keys = keys
        self._facts = FactStore(keys)
        self.fresh = Fresh()

    def facts_of(
        self, conn: Connection, batch: Sequence[QueuedDelivery], needs: frozenset[str], now: datetime
    ) -> list[Known]:
        """What rules of admission need to know of each delivery of a batch to one destination."""
        return self._facts.read(conn, batch, needs, now)

    def due(
        self,
        conn: Connection,
        destination: str,
        now: datetime,
        limit: int,
        *,
        bytes_max: int = BATCH_BYTES_MAX,
        ordered_batches: bool = False,
    ) -> list[QueuedDelivery]:
        """What may be sent to a destination now: at most `limit`, of `bytes_max` (but one in any case).

        At most one delivery of each ordering key; with `ordered_batches` also those that follow it, in order, as far as
        they are due themselves.
        """
        at = to_micros(now)
        heads = -(-limit // _LINE_LENGTH) if ordered_batches else limit
        rows: Sequence[Any] = _HEADS.rows(conn, destination, at, heads)
        if ordered_batches and rows:
            rows = _with_followers(conn, destination, at, limit, rows)
        return self._fitting(conn, destination, rows, bytes_max)

    def _fitting(self, conn: Connection, destination: str, rows: Sequence[Any], bytes_max: int) -> list[QueuedDelivery]:
        """The first of them, as many as fit; one in any case."""
        fitting: list[QueuedDelivery] = []
        for at in range(0, len(rows), _READ_MAX):
            part = rows[at : at + _READ_MAX]
            fresh = self.fresh.take(destination, part)
            wanted = [row.id for row, known in zip(part, fresh, strict=True) if known is None]
            found = {row.id: row for row in _BY_IDS.rows(conn, wanted)}
            for row, known in zip(part, fresh, strict=True):
                queued = self._queued(found[row.id]) if known is None else known
                bytes_max -= len(queued.delivery.payload)
                if fitting and bytes_max < 0:
                    return fitting
                fitting.append(queued)
        return fitting

    def last_id(self, conn: Connection) -> int:
        """Of all deliveries of the living; 0: there is none."""
        return int(_LAST_ID.scalar(conn) or 0)

    def last_due_at(self, conn: Connection, destination: str) -> datetime | None:
        """When the last of those is due that wait for nothing but their time."""
        last = _LAST_DUE.scalar(conn, destination)
        return None if last is None else from_micros(last)

    def recall(self, conn: Connection, destination: str, limit: datetime, now: datetime) -> None:
        """Make due now what would be due after a limit."""
        conn.execute(
            update(delivery)
            .where(delivery.c.destination == destination, _READY, delivery.c.next_attempt_at > to_micros(limit))
            .values(next_attempt_at=to_micros(now))
        )

    def start(self, conn: Connection, delivery_id: int, now: datetime) -> bool:
        """Note that an attempt is under way; for destinations that must not get anything twice (see `interrupted`).

        False: it has lost its turn since it was read, to another one of its line; then it must not be sent now.
        """
        return _STARTED.write(conn, [delivery_id], to_micros(now)) == 1

    def interrupted(self, conn: Connection, destination: str) -> list[int]:
        """Ids of the attempts that were under way when the last courier stopped without settling them."""
        statement = select(delivery.c.id).where(
            delivery.c.destination == destination, _READY, delivery.c.started_at.is_not(None)
        )
        return sorted(row.id for row in conn.execute(statement))

    def settle(self, conn: Connection, results: Sequence[Settled], now: datetime) -> None:
        """Write what became of attempts. A buried one leaves a dead letter; the next of its patient gets the turn.

        A delivery that is finished already (settled twice, or discarded meanwhile) stays as it is, and so does one that
        can't come into that state (`DELIVERY_MOVES`).
        """
        at = to_micros(now)
        take_lock(conn)
        delivered: dict[tuple[int, str | None], dict[int, str | None]] = {}
        others: list[Settled] = []
        for result in results:
            if result.state is DeliveryState.DELIVERED:
                delivered.setdefault((result.attempts, result.disclosed), {})[result.id] = result.what
            else:
                others.append(result)
        freed: set[str] = set()
        settled: dict[str | None, dict[int, str]] = {}
        for (tries, mark), said in delivered.items():
            what = said if None not in said.values() else _what(conn, list(said))
            vouched = settled.setdefault(mark, {})
            for number, line in _DELIVERED.rows(conn, list(said), tries, at, mark):
                freed.add(line)
                vouched[number] = f"{what[number]}{line}"
        rows = {row.id: row for row in _OPEN.rows(conn, [other.id for other in others])}
        changed = [(rows[one.id], one) for one in others if one.id in rows and _may_become(rows[one.id], one.state)]
        held = [one.id for _, one in changed if one.state is DeliveryState.HELD]
        after = settlements.note(conn, self._keys, settled, at, held) if settled or changed else 0
        dead_letters: list[tuple[letters.Letter, bytes | None]] = []
        kept: list[admissions.Row] = []
        stayed: set[str] = set()
        for row, result in changed:
            dead = result.state is DeliveryState.DEAD
            ended = dead or result.state is DeliveryState.WITHHELD
            due = row.next_attempt_at if result.next_attempt_at is None else to_micros(result.next_attempt_at)
            settled_at = None if result.state is DeliveryState.PENDING else at
            state = result.state.value
            life = lives.renewed(
                self._keys, row, after, state=state, attempts=result.attempts, error=result.error,
                settled_at=settled_at, next_attempt_at=due,
            )  # fmt: skip
            _CHANGED.write(
                conn, result.id, state, 0 if ended else 1, result.attempts, due, result.error, settled_at, life
            )
            if not ended and row.started_at is not None:
                stayed.add(row.ordering_key)  # it may have kept its turn only for the time of the attempt
            if ended:
                freed.add(row.ordering_key)
            code = result.error or "undeliverable"
            if dead:
                stage = Stage.DELIVERY.value
                letter = letters.Letter(row.entry_id, row.channel, row.id, stage, code, None, result.detail, at)
                dead_letters.append((letter, None))
            if result.state is DeliveryState.WITHHELD:
                kept.append((row.id, row.destination, code, None, at, admissions.FINAL if result.final else None))
            elif result.not_before is not None:
                kept.append((row.id, row.destination, code, to_micros(result.not_before), at, None))
        letters.write(conn, self._keys, dead_letters)
        admissions.note(conn, self._keys, kept)
        self._note_receipts(conn, results)
        promote(conn, freed)
        if stayed:
            line_up(conn, stayed)

    def _note_receipts(self, conn: Connection, results: Sequence[Settled]) -> None:
        rows = [
            (one.id, self._keys.lookup("receipt", text), self._keys.seal(receipt_place(one.id), text.encode()))
            for one in results
            if (text := one.receipt)
        ]
        _RECEIPTS.write(conn, rows)

    def receipts(self, conn: Connection, ids: Sequence[int]) -> dict[int, str | None]:
        """The far end's receipts of the deliveries that have one; None: it can't be read any more."""
        found: dict[int, str | None] = {}
        for row in conn.execute(select(delivery_receipt).where(delivery_receipt.c.delivery_id.in_(ids))):
            found[row.delivery_id] = None
            with contextlib.suppress(TamperedError, KeyMissingError):
                text = self._keys.open(receipt_place(row.delivery_id), row.body).decode()
                if self._keys.lookup("receipt", text) == row.found_by:
                    found[row.delivery_id] = text
        return found

    def by_keys(self, conn: Connection, destination: str, keys: Sequence[str]) -> list[QueuedDelivery]:
        """The deliveries that a destination knows by these idempotency keys."""
        return [self._queued(row) for row in _BY_KEYS.rows(conn, keys) if row.destination == destination]

    def by_receipt(self, conn: Connection, destination: str, receipt: str) -> list[int]:
        """Ids of the deliveries that a destination speaks of when it names this receipt."""
        statement = (
            select(delivery.c.id)
            .join(delivery_receipt, delivery_receipt.c.delivery_id == delivery.c.id)
            .where(
                delivery_receipt.c.found_by == self._keys.lookup("receipt", receipt),
                delivery.c.destination == destination,
            )
            .order_by(delivery.c.id)
        )
        return list(conn.execute(statement).scalars())

    def release(self, conn: Connection, delivery_id: int, now: datetime) -> None:
        """Try a held delivery again. Raises StoreError when it is not held."""
        new = {"state": _PENDING, "next_attempt_at": to_micros(now), "error": None, "settled_at": None}
        if change(conn, self._keys, [delivery.c.id == delivery_id, _from(DeliveryEvent.RELEASED)], new) != 1:
            raise StoreError(f"delivery {delivery_id} is not held")

    def put_back(
        self, conn: Connection, delivery_id: int, now: datetime, *, ordering_key: str, renewed: Renewed | None = None
    ) -> None:
        """Put a buried or withheld delivery back, in its old place in the order. Raises StoreError when it is neither.

        What it says may be old news: that is for `engine.store.requeue` to decide. ordering_key: that of its patient
        today.
        """
        take_lock(conn)
        new = {
            "state": _PENDING, "ordering_key": ordering_key, "attempts": 0, "next_attempt_at": to_micros(now),
            "settled_at": None, "error": None,
        }  # fmt: skip
        more = {} if renewed is None else {"idempotency_key": renewed.idempotency_key}
        if change(conn, self._keys, [delivery.c.id == delivery_id, _from(DeliveryEvent.PUT_BACK)], new, **more) != 1:
            raise StoreError(f"delivery {delivery_id} is not a dead or withheld one")
        if renewed is not None:
            known = _BY_IDS.rows(conn, [delivery_id])[0]
            place = _place(known, known.destination)
            body = self._keys.seal(place, renewed.payload)
            conn.execute(
                update(delivery_payload).where(delivery_payload.c.delivery_id == delivery_id).values(body=body)
            )
        line_up(conn, [ordering_key])

    def seal_for(self, conn: Connection, delivery_ids: Sequence[int], destination: str) -> None:
        """Seal payloads anew for another destination, which the caller puts into their rows. Damaged ones stay so."""
        for row in _BY_IDS.rows(conn, delivery_ids):
            queued = self._queued(row)
            if queued.unreadable is None:
                place = _place(row, destination)
                body = self._keys.seal(place, queued.delivery.payload)
                conn.execute(update(delivery_payload).where(delivery_payload.c.delivery_id == row.id).values(body=body))

    def mark(self, conn: Connection, chart_id: str) -> None:
        """The chart is to be asked of all that waits of its patient, notices included."""
        for row in _UNMARKED.rows(conn, *lines_of(chart_id)):
            queued = self._queued(row)
            conn.execute(update(delivery).where(delivery.c.id == row.id).values(marked=1))
            if queued.unreadable is None:
                place = payload_place(
                    row.id, row.entry_id, row.destination, row.operation, row.idempotency_key, marked=1
                )
                body = self._keys.seal(place, queued.delivery.payload)
                conn.execute(update(delivery_payload).where(delivery_payload.c.delivery_id == row.id).values(body=body))

    def waiting_behind(
        self, conn: Connection, delivery_id: int, destination: str, ordering_key: str
    ) -> Iterable[QueuedDelivery]:
        """The unfinished deliveries of a line that come after this one, in order."""
        statement = _JOINED.where(
            delivery.c.ordering_key == ordering_key,
            delivery.c.destination == destination,
            delivery.c.id > delivery_id,
            _UNFINISHED,
        )
        for row in conn.execute(statement.order_by(delivery.c.id)):
            yield self._queued(row)

    def take_back(
        self,
        conn: Connection,
        ordering_key: str,
        gone: Collection[tuple[Operation, tuple[str | None, ...]]],
        now: datetime,
    ) -> None:
        """Withhold what waits in a line and is about objects that are another patient's now.

        It would come after what is told of that patient, in another line, and take the objects back. What is under way
        or held may have arrived already, and stays. gone: operation and `Content.about`.
        """
        statement = _JOINED.where(
            delivery.c.ordering_key == ordering_key, _READY_OR_BEHIND, delivery.c.started_at.is_(None)
        )
        queued = [self._queued(row) for row in conn.execute(statement.order_by(delivery.c.id))]
        old = [
            Settled(id=one.id, state=DeliveryState.WITHHELD, attempts=one.attempts, error=MOVED_AWAY, final=True)
            for one in queued
            if one.unreadable is None and (one.delivery.operation, one.delivery.content.about) in gone
        ]
        if old:
            self.settle(conn, old, now)

    def get(self, conn: Connection, delivery_id: int) -> QueuedDelivery | None:
        rows = _BY_IDS.rows(conn, [delivery_id])
        return self._queued(rows[0]) if rows else None

    def lines(self, conn: Connection, before: datetime, limit: int) -> list[WaitingLine]:
        """Patients of whom a destination was to hear before then and has not, the oldest first."""
        oldest = func.min(delivery.c.created_at)
        statement = (
            select(
                delivery.c.ordering_key,
                delivery.c.destination,
                func.min(delivery.c.channel).label("channel"),
                func.count().label("number"),
                oldest.label("oldest"),
                func.max(delivery.c.error).label("error"),
            )
            .where(_UNFINISHED)
            .group_by(delivery.c.ordering_key, delivery.c.destination)
            .having(oldest < to_micros(before))
            .order_by(oldest)
            .limit(limit)
        )
        return [
            WaitingLine(
                ordering_key=row.ordering_key,
                destination=row.destination,
                channel=row.channel or None,
                number=row.number,
                oldest_at=from_micros(row.oldest),
                error=row.error,
            )
            for row in conn.execute(statement)
        ]

    def known(self, conn: Connection, idempotency_keys: Sequence[str]) -> set[str]:
        """Those that something was put into the outbox under before: nothing is again."""
        statement = select(delivery.c.idempotency_key).where(delivery.c.idempotency_key.in_(idempotency_keys))
        return set(conn.execute(statement).scalars())

    def of_entry(self, conn: Connection, entry_id: int) -> list[QueuedDelivery]:
        """What an entry has caused to be sent."""
        rows = conn.execute(_JOINED.where(delivery.c.entry_id == entry_id).order_by(delivery.c.id))
        return [self._queued(row) for row in rows]

    def of_entries(self, conn: Connection, entry_ids: Sequence[int]) -> dict[int, list[QueuedDelivery]]:
        """The same of many, by entry."""
        found: dict[int, list[QueuedDelivery]] = {}
        for row in _BY_ENTRIES.rows(conn, entry_ids):
            found.setdefault(row.entry_id, []).append(self._queued(row))
        return found

    def behind(self, conn: Connection, queued: Sequence[QueuedDelivery]) -> dict[int, int]:
        """How many deliveries of its patient, to its destination, wait behind each."""
        lines = sorted({one.delivery.ordering_key for one in queued})
        waiting: dict[tuple[str, str], list[int]] = {}
        for row in _IN_LINES.rows(conn, lines):
            waiting.setdefault((row.ordering_key, row.destination), []).append(row.id)
        return {
            one.id: sum(id_ > one.id for id_ in waiting.get((one.delivery.ordering_key, one.delivery.destination), ()))
            for one in queued
        }

    def told(
        self, conn: Connection, destination: str, chart_id: str, ordering_keys: Collection[str]
    ) -> list[QueuedDelivery]:
        """What a destination was, or will be, told of a chart, the oldest first; messages are no part of it.

        Found by the beginning that the idempotency keys of a chart's deliveries have in common. ordering_keys: in whose
        lines it may stand: the chart's own, or that of the one it was merged into.
        """
        first = chart_id[:ALIKE_DIGITS]
        rows = _TOLD.rows(conn, first, f"{first}g", destination)  # `g` comes behind every hexadecimal digit
        return [self._queued(row) for row in rows if row.ordering_key in ordering_keys]

    def unfinished(self, conn: Connection) -> Mapping[str, Mapping[DeliveryState, int]]:
        """How many are pending and held at each destination. Cheap: finished ones are not looked at."""
        statement = (
            select(delivery.c.destination, delivery.c.state, func.count().label("number"))
            .where(_UNFINISHED)
            .group_by(delivery.c.destination, delivery.c.state)
        )
        found: dict[str, dict[DeliveryState, int]] = {}
        for row in conn.execute(statement):
            found.setdefault(row.destination, {})[DeliveryState(row.state)] = row.number
        return found

    def held(
        self, conn: Connection, limit: int | None = 100, *, destination: str | None = None, after: int = 0
    ) -> list[QueuedDelivery]:
        """What waits for a person's decision, oldest first."""
        statement = _JOINED.where(_HELD, delivery.c.id > after, *_to(destination)).order_by(delivery.c.id)
        return [self._queued(row) for row in conn.execute(statement if limit is None else statement.limit(limit))]

    def held_count(self, conn: Connection, destination: str | None = None) -> int:
        statement = select(func.count()).select_from(delivery).where(_HELD, *_to(destination))
        return int(conn.execute(statement).scalar_one())

    def _queued(self, row: Any) -> QueuedDelivery:
        payload, unreadable = b"", None
        try:
            place = _place(row, row.destination)
            payload = self._keys.open(place, row.body or b"")
        except TamperedError:
            unreadable = "payload-damaged"
        except KeyMissingError:
            unreadable = "key-missing"
        return QueuedDelivery(
            id=row.id,
            entry_id=row.entry_id,
            delivery=Delivery(
                destination=row.destination,
                operation=_OPERATIONS.get(row.operation, Operation.FORWARD),
                ordering_key=row.ordering_key,
                idempotency_key=row.idempotency_key,
                payload=payload,
                marked=bool(row.marked),
            ),
            state=_STATES.get(row.state, DeliveryState.HELD),
            attempts=row.attempts,
            next_attempt_at=from_micros(row.next_attempt_at),
            created_at=from_micros(row.created_at),
            error=row.error,
            settled_at=None if row.settled_at is None else from_micros(row.settled_at),
            unreadable=unreadable,
        )


def _to(destination: str | None) -> list[ColumnElement[bool]]:
    return [] if destination is None else [delivery.c.destination == destination]


def lines_of(chart_id: str) -> tuple[str, str]:
    """Where the lines of a chart begin and end: its own, and those of its notices (`line_of_notice`)."""
    return chart_id, f"{chart_id}0"  # `0` comes behind the stroke


def receipt_place(delivery_id: int) -> str:
    return f"delivery_receipt.body:{delivery_id}"


def payload_place(
    delivery_id: int, entry_id: int | None, destination: str, operation: str, idempotency_key: str, marked: int
) -> str:
    """What a payload is for is part of where it is sealed: it can't be led to another destination behind our back, nor
    be said to be free of restrictions.
    """
    place = f"delivery_payload.body:{delivery_id}/{entry_id or 0}/{destination}/{operation}/{idempotency_key}"
    return f"{place}/marked" if marked else place


def _place(row: Any, destination: str) -> str:
    return payload_place(row.id, row.entry_id, destination, row.operation, row.idempotency_key, row.marked)


def _with_followers(conn: Connection, destination: str, now: int, limit: int, heads: Sequence[Any]) -> list[Any]:
    """Heads of lines and those behind them, in order; where there are too many, the lines of the first heads."""
    lines = {head.ordering_key: place for place, head in enumerate(heads)}
    in_line = sorted(_IN_LINE.rows(conn, sorted(lines), destination, limit), key=_id)
    known = {row.id for row in in_line}
    rows: list[Any] = [head for head in heads if head.id not in known]
    stopped: set[str] = set()
    for row in in_line:
        if row.state != _PENDING or row.next_attempt_at > now:
            stopped.add(row.ordering_key)
        elif row.ordering_key not in stopped:
            rows.append(row)
    first = sorted(rows, key=lambda row: (lines[row.ordering_key], row.id))[:limit]
    return sorted(first, key=_id)


def _id(row: Any) -> int:
    return int(row.id)
