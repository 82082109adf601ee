"""Retention: what of each kind is stored, whether its time is over, and how it is erased.

Four sources, each read a page at a time in the order of its numbers: journal payloads, delivered payloads, charts,
sealed parts of the trail. `engine.domain.retention.verdict` decides on each thing; a source says what is so of it, and
erases. What is narrow and holds nothing of a patient stays: entries with their digests (so a message that is sent again
is still a duplicate), outcomes, deliveries with their idempotency keys, the rows of the trail with their hashes.

Nothing is erased that is not on record: the record is written before, or in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, literal_column, or_, select, tuple_, update
from sqlalchemy import bindparam as bind

from engine.domain.appointment import AppointmentStatus
from engine.domain.audit import AuditRecord
from engine.domain.delivery import DeliveryState, chart_of_line
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import HoldState
from engine.domain.message import LANES, AckState, EntryKind
from engine.domain.page import UNANSWERED
from engine.domain.record import Record
from engine.domain.retention import Facts, Kept, Period, Policy
from engine.domain.task import STANDING
from engine.errors import KeyMissingError, TamperedError
from engine.store import erasure, schema
from engine.store.audit import PURGED, RESEALED
from engine.store.charts import key_hash
from engine.store.deadletters import LETTER_SWEPT
from engine.store.erasure import Kind, of_chart, of_number, runs
from engine.store.legalholds import LegalHolds
from engine.store.record import erased_outcome, open_outcome
from engine.store.schema import from_micros, to_micros
from engine.store.statements import Rows

if TYPE_CHECKING:
    from engine.store.keys import KeyRing
    from engine.store.store import Store

PAGE_ROWS: Final = 500
"""Looked at in one reader, and erased in one transaction."""
_FURTHER: Final = (0, *(PAGE_ROWS << n for n in range(22)))
"""How far ahead it is looked for older things, behind what a clock that ran ahead has stamped."""

SWEPT: Final = "swept"
ERASED: Final = "patient-erased"

_COUNT_ERASED: Final = Rows(
    schema.erased, ("channel", "entries"), conflict=("channel",), replace=("channel",), add=("entries",)
)
_UNFINISHED: Final = (DeliveryState.PENDING.value, DeliveryState.HELD.value)
_UPCOMING: Final = (AppointmentStatus.REQUESTED.value, AppointmentStatus.BOOKED.value)
_IN_HOSPITAL: Final = {EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE}
_RECORD_OF_THE_TRAIL: Final = (PURGED, RESEALED)
"""What these say explains gaps: it is read by `verify` as long as there is a trail."""
_STAYING: Final = frozenset(
    one.name for one in (schema.outcome, schema.concerned, schema.audit_patient, schema.glass, schema.legal_hold)
)
"""Tables with a chart's id whose rows stay when it is erased: of the first what is sealed is replaced; the others say
what was done, and for what, or to whom it was told.
"""


def of_charts() -> tuple[Table, ...]:
    """Tables whose rows go with their chart."""
    return tuple(
        table
        for table in schema.metadata.sorted_tables
        if table.schema == schema.CHARTS and "chart_id" in table.c and table.name not in _STAYING
    )


class Item(Record, frozen=True, kw_only=True):
    """One thing of a source. key: where its page goes on. more: what the source needs to erase it."""

    key: tuple[Any, ...]
    facts: Facts
    more: Any = None


Said = Callable[[str, int], AuditRecord]
"""The record of what is erased: which (`entry:1-500`), and how many."""


class Source(Protocol):
    """kept: what it is. Methods with a connection need a reader."""

    kept: Kept

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]: ...

    def older_behind(self, conn: Connection, after: tuple[Any, ...], cutoff: datetime) -> bool:
        """Whether, behind a page on which nothing's time is over, there may be something older than that."""
        ...

    def erase(self, items: Sequence[Item], record: Said) -> int:
        """Returns how many were erased. A thing that has changed since it was read is left."""
        ...


def sources(store: Store) -> tuple[Source, ...]:
    """Charts come after what belongs to them: a dry run then counts as the sweep itself."""
    return (Messages(store), Deliveries(store), Charts(store), Trail(store))


class _Held:
    """What legal holds cover, as of one reader."""

    def __init__(self, store: Store, conn: Connection) -> None:
        self.charts = LegalHolds(store.keys).held(conn)
        self._store = store
        self._conn = conn
        self._keys: set[str] | None = None

    def covers(self, charts: Iterable[str]) -> bool:
        return not self.charts.isdisjoint(charts)

    def may_cover(self, key: str | None) -> bool:
        """Of what hangs on no chart. None: nobody can say whose it is, so it may be anybody's."""
        if not self.charts:
            return False
        if self._keys is None:
            self._keys = self._store.charts.keys_of(self._conn, self.charts)
        return key is None or key in self._keys


class Messages:
    """Payloads of the journal. The table holds those alone that are not erased yet."""

    kept = Kept.MESSAGES

    def __init__(self, store: Store) -> None:
        self._store = store

    def _rows(self, conn: Connection, after: int) -> Sequence[Any]:
        e, p = schema.entry.c, schema.payload.c
        return conn.execute(
            select(e.id, e.channel, e.received_at, e.refused, p.day)
            .select_from(schema.payload.join(schema.entry, e.id == p.entry_id))
            .where(p.entry_id > after)
            .order_by(p.entry_id)
            .limit(PAGE_ROWS)
        ).all()

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]:  # noqa: ARG002 - of charts
        rows = self._rows(conn, after[0] if after else 0)
        old = [row for row in rows if from_micros(row.received_at) <= cutoff]
        waits = self.waits(conn, [row.id for row in old])
        held = _Held(self._store, conn)
        charts = charts_of(conn, [row.id for row in old])
        loose = [row.id for row in old if not charts.get(row.id)] if held.charts else []
        named = self._named(conn, loose)
        items: list[Item] = []
        for row in rows:
            why = waits.get(row.id)
            if row.refused and why == _UNDECIDED:
                why = None
            own = charts.get(row.id, ())
            on_hold = held.covers(own) or (row.id in loose and held.may_cover(named.get(row.id)))
            facts = Facts(at=from_micros(row.received_at), waits_for=why, on_hold=on_hold)
            items.append(Item(key=(row.id,), facts=facts, more=(row.channel, row.day)))
        return items

    def waits(self, conn: Connection, ids: Sequence[int]) -> dict[int, str]:
        """Entry -> what somebody still waits for because of it."""
        if not ids:
            return {}
        found: dict[int, str] = {}
        charts = charts_of(conn, ids)
        waiting = busy_charts(conn, {one for several in charts.values() for one in several})
        for entry_id, several in charts.items():
            for one in several & waiting.keys():
                found[entry_id] = waiting[one]
        done = set(conn.execute(select(schema.outcome.c.entry_id).where(schema.outcome.c.entry_id.in_(ids))).scalars())
        found |= {one: _UNDECIDED for one in ids if one not in done}
        d, letter, hold = schema.delivery.c, schema.dead_letter.c, schema.hold.c
        for one in conn.execute(select(d.entry_id).where(d.entry_id.in_(ids), _unsettled())).scalars():
            found[one] = "a delivery"
        open_letters = select(letter.entry_id).where(letter.entry_id.in_(ids), letter.resolved_by.is_(None))
        for one in conn.execute(open_letters).scalars():
            found[one] = "a dead letter"
        asked = select(hold.entry_id, hold.root_id).where(
            hold.state == HoldState.OPEN.value, or_(hold.root_id.in_(ids), hold.entry_id.in_(ids))
        )
        for row in conn.execute(asked):
            found |= dict.fromkeys((row.entry_id, row.root_id), "a question to a person")
        e = schema.entry.c
        owed = select(e.id).where(e.id.in_(ids), e.ack_state == AckState.OWED.value)
        return found | dict.fromkeys(conn.execute(owed).scalars(), "an answer that is owed")

    def _named(self, conn: Connection, ids: Collection[int]) -> dict[int, str | None]:
        """The patients that entries name which hang on no chart."""
        found: dict[int, str | None] = {}
        if ids:
            for row in conn.execute(select(schema.outcome).where(schema.outcome.c.entry_id.in_(ids))):
                try:
                    found[row.entry_id] = open_outcome(self._store.keys, row).patient_key
                except (TamperedError, KeyMissingError):
                    found[row.entry_id] = None
        return found

    def older_behind(self, conn: Connection, after: tuple[Any, ...], cutoff: datetime) -> bool:
        e = schema.entry.c
        return _older(conn, e.id, e.received_at, after[0], cutoff)

    def erase(self, items: Sequence[Item], record: Said) -> int:
        """The record is on the other side of the store, so it is written before."""
        store = self._store
        said = record(f"entry:{items[0].key[0]}-{items[-1].key[0]}", len(items))
        rows = [(item.key[0], *item.more) for item in items]

        def begin(conn: Connection) -> None:
            store.audit.append(conn, [said])
            erasure.intend(conn, [row[0] for row in rows])

        store.charts_ledger.write_now(begin)
        count = store.journal_ledger.write_now(lambda conn: _erase_payloads(conn, rows))
        erasure.finish(store)
        return count


_UNDECIDED: Final = "its processing"


def _erase_payloads(conn: Connection, rows: Sequence[tuple[int, str, int]]) -> int:
    """rows: entry, channel, day. Returns how many were there, and counts them by channel."""
    p = schema.payload.c
    there = set(
        conn.execute(
            select(p.entry_id).where(p.entry_id.in_([row[0] for row in rows]), p.day.in_({row[2] for row in rows}))
        ).scalars()
    )
    counts: dict[str, int] = {}
    for entry_id, channel, _ in rows:
        if entry_id in there:
            counts[channel] = counts.get(channel, 0) + 1
    conn.execute(delete(schema.payload).where(p.entry_id.in_(there), p.day.in_({row[2] for row in rows})))
    conn.execute(update(schema.entry).where(schema.entry.c.id.in_(there)).values(day=None))
    count_erased(conn, counts)
    return len(there)


def count_erased(conn: Connection, by_channel: Mapping[str, int]) -> None:
    """So that the books say how many entries have no payload any more."""
    _COUNT_ERASED.write(conn, sorted(by_channel.items()))


class Deliveries:
    """What was sent, as it was sent, and what the far end called it. The table holds those that are not erased yet."""

    kept = Kept.DELIVERIES

    def __init__(self, store: Store) -> None:
        self._store = store

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]:  # noqa: ARG002 - of charts
        d, b = schema.delivery.c, schema.delivery_payload.c
        settled = func.coalesce(d.settled_at, d.created_at).label("at")
        rows = conn.execute(
            select(d.id, d.entry_id, d.ordering_key, settled, _unsettled().label("waits"))
            .select_from(schema.delivery_payload.join(schema.delivery, d.id == b.delivery_id))
            .where(b.delivery_id > (after[0] if after else 0))
            .order_by(b.delivery_id)
            .limit(PAGE_ROWS)
        ).all()
        old = [row.id for row in rows if from_micros(row.at) <= cutoff]
        letter, n = schema.dead_letter.c, schema.notice.c
        dead = set(
            conn.execute(
                select(letter.delivery_id).where(letter.delivery_id.in_(old), letter.resolved_by.is_(None))
            ).scalars()
        )
        unsaid = set(conn.execute(select(n.delivery_id).where(n.delivery_id.in_(old), n.awaits > 0)).scalars())
        held = _Held(self._store, conn)
        owners = survivors(conn, {chart_of_line(row.ordering_key) for row in rows}) if held.charts else {}
        items: list[Item] = []
        for row in rows:
            why = "a delivery" if row.waits else "a dead letter" if row.id in dead else None
            why = why or ("what became of it" if row.id in unsaid else None)
            chart = chart_of_line(row.ordering_key)
            on_hold = held.covers({chart, owners.get(chart, chart)}) if chart else held.may_cover(None)
            facts = Facts(at=from_micros(row.at), waits_for=why, on_hold=on_hold)
            items.append(Item(key=(row.id,), facts=facts, more=chart))
        return items

    def older_behind(self, conn: Connection, after: tuple[Any, ...], cutoff: datetime) -> bool:
        d = schema.delivery.c
        return _older(conn, d.id, d.created_at, after[0], cutoff)

    def erase(self, items: Sequence[Item], record: Said) -> int:
        ids = [item.key[0] for item in items]

        def work(conn: Connection) -> int:
            d = schema.delivery.c  # a person may have put one back into the outbox meanwhile, or placed a hold
            busy = set(conn.execute(select(d.id).where(d.id.in_(ids), _unsettled())).scalars())
            held = LegalHolds(self._store.keys).held(conn)
            gone = [item.key[0] for item in items if item.key[0] not in busy and item.more not in held]
            if gone:
                self._store.audit.append(conn, [record(f"delivery:{gone[0]}-{gone[-1]}", len(gone))])
                _erase_delivered(conn, self._store.keys, gone)
            return len(gone)

        return self._store.charts_ledger.write_now(work)


def _erase_delivered(conn: Connection, keys: KeyRing, ids: Sequence[int]) -> None:
    erasure.destroy(conn, keys, [of_number(Kind.DELIVERY, *run) for run in runs(ids)])
    for table in (schema.delivery_payload, schema.delivery_receipt):
        conn.execute(delete(table).where(table.c.delivery_id.in_(ids)))


def erased_mark(keys: KeyRing, key: str) -> str:
    """What the record of an erased patient is found by, of each number (`AUTHORITY:ID`): what was disclosed of them has
    to be accounted for, for six years (45 CFR 164.528).
    """
    return f"key:{key_hash(keys, key).hex()}"


def erased_charts(store: Store, conn: Connection, keys: Iterable[str]) -> dict[str, datetime]:
    """Ids of the charts of erased patients who had one of these numbers -> when they were erased."""
    found: dict[str, datetime] = {}
    for key in keys:
        for one in store.audit.find(conn, action=ERASED, patient=erased_mark(store.keys, key), limit=None):
            found |= dict.fromkeys((one.subject.removeprefix("chart:"), *one.facts.get("versions", ())), one.at)
    return found


class Charts:
    """Living charts of which nothing was changed for so long, with those that were merged into them."""

    kept = Kept.CHARTS

    def __init__(self, store: Store) -> None:
        self._store = store
        self._messages = Messages(store)

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]:
        c = schema.chart.c
        statement = select(c.id, c.updated_at).where(c.updated_at <= to_micros(cutoff), c.merged_into.is_(None))
        if after is not None:
            statement = statement.where(tuple_(c.updated_at, c.id) > tuple_(*after))
        rows = conn.execute(statement.order_by(c.updated_at, c.id).limit(PAGE_ROWS // 10)).all()
        held = _Held(self._store, conn)
        return [self.item(conn, row.id, now, held) for row in rows]

    def item(self, conn: Connection, chart_id: str, now: datetime, held: _Held | None = None) -> Item:
        """chart_id: of a living one."""
        c, held = schema.chart.c, held or _Held(self._store, conn)
        family = sorted(self._store.charts.family(conn, {chart_id}))
        rows = conn.execute(select(c.id, c.version, c.updated_at).where(c.id.in_(family))).all()
        facts = Facts(
            at=from_micros(max(row.updated_at for row in rows)),
            waits_for=self._waits(conn, family, now),
            on_hold=held.covers(family),
        )
        own = next(row for row in rows if row.id == chart_id)
        return Item(key=(own.updated_at, chart_id), facts=facts, more=(chart_id, {row.id: row.version for row in rows}))

    def _waits(self, conn: Connection, family: Sequence[str], now: datetime) -> str | None:
        found = busy_charts(conn, family)
        if found:
            return next(iter(found.values()))
        a = schema.appointment.c
        coming = or_(a.starts_at.is_(None), a.starts_at > to_micros(now))
        if conn.execute(select(a.id).where(a.chart_id.in_(family), a.status.in_(_UPCOMING), coming).limit(1)).first():
            return "an appointment"
        h = schema.hold.c
        if conn.execute(select(h.id).where(h.chart_id.in_(family), h.state == HoldState.OPEN.value).limit(1)).first():
            return "a question to a person"
        d = schema.delivery.c
        if conn.execute(select(d.id).where(d.state.in_(_UNFINISHED), d.ordering_key.in_(family)).limit(1)).first():
            return "a delivery"
        for some in _pieces(entries_of(conn, family)):
            if waits := self._messages.waits(conn, some):
                return next(iter(waits.values()))
        try:
            whole = self._store.charts.whole(conn, family)
        except (TamperedError, KeyMissingError):
            return "somebody to see why it can't be read"
        if any(stay.status in _IN_HOSPITAL for one in whole for stay in one.encounters):
            return "the end of a stay"
        c = schema.chart.c
        due = conn.execute(select(c.id).where(c.id.in_(family), c.due_at.is_not(None)).limit(1)).first()
        return "a deadline" if due else None

    def older_behind(self, conn: Connection, after: tuple[Any, ...], cutoff: datetime) -> bool:  # noqa: ARG002
        """They are read oldest first, and only those that are old."""
        return True

    def erase(self, items: Sequence[Item], record: Said) -> int:
        return sum(self.erase_one(item, record("", 1)) for item in items)

    def erase_one(self, item: Item, record: AuditRecord) -> bool:
        """Erase a patient: what came of them, what was sent of them, and their charts last, so that it can be begun
        again. False: something has changed since they were looked at.
        """
        store = self._store
        chart_id, versions = item.more
        family = sorted(versions)
        about = AuditRecord(
            at=record.at, actor=record.actor, action=ERASED, subject=f"chart:{chart_id}", reason=record.reason,
            whence=record.whence, facts={"versions": dict(versions)},
        )  # fmt: skip

        def begin(conn: Connection) -> bool:
            if not self._same(conn, versions):
                return False
            marks = sorted(erased_mark(store.keys, key) for key in store.charts.keys_of(conn, family))
            store.audit.append(conn, [replace(about, patients=(*family, *marks))])
            return True

        if not store.charts_ledger.write_now(begin):
            return False
        with store.reader() as conn:
            entries = entries_of(conn, family)
        for some in _pieces(entries):
            with store.reader() as conn:  # a message about several patients: one of them may be on hold
                held, about_ = LegalHolds(store.keys).held(conn), charts_of(conn, some)
            free = [one for one in some if held.isdisjoint(about_.get(one, ()))]
            store.charts_ledger.write_now(partial(erasure.intend, entry_ids=free))
            store.journal_ledger.write_now(partial(self._erase_entries, ids=free))
            store.charts_ledger.write_now(partial(self._erase_outcomes, ids=some, family=family))
        erasure.finish(store)
        return store.charts_ledger.write_now(lambda conn: self._erase_charts(conn, versions))

    def finish(self, now: datetime, going: Callable[[], bool] = lambda: True, *, after: int = 0) -> int:
        """Erase to the end those whose erasing a crash has broken off; returns how many. after: by records behind that
        one alone.

        They are those that are there although a record says that they are erased: an id is given once. One of which
        something new has come since is left: whoever erased it was told so. So is one that is on hold.
        """
        c, a = schema.chart.c, schema.audit.c
        own = func.substr(a.subject, len("chart:") + 1)
        with self._store.reader() as conn:
            begun = select(c.id).join(schema.audit, own == c.id).where(a.action == ERASED, a.seq > after)
            ids = conn.execute(begun.distinct()).scalars().all()
        count = 0
        for chart_id in ids:
            if not going():
                break
            with self._store.reader() as conn:
                (said, *_) = self._store.audit.find(conn, action=ERASED, subject=f"chart:{chart_id}", limit=1)
            versions = said.facts.get("versions") if said.damaged is None else None
            if versions:
                item = Item(key=(), facts=Facts(at=now), more=(chart_id, versions))
                again = AuditRecord(at=now, actor="system", action=ERASED, subject=said.subject, reason=said.reason)
                count += self.erase_one(item, again)
        return count

    def _same(self, conn: Connection, versions: Mapping[str, int]) -> bool:
        c = schema.chart.c
        now = {row.id: row.version for row in conn.execute(select(c.id, c.version).where(c.id.in_(list(versions))))}
        merged = conn.execute(select(c.id).where(c.merged_into.in_(list(versions)))).scalars()
        holds = LegalHolds(self._store.keys).held(conn)
        return now == dict(versions) and set(merged) <= versions.keys() and holds.isdisjoint(versions)

    def _erase_entries(self, conn: Connection, ids: Sequence[int]) -> None:
        e = schema.entry.c
        rows = conn.execute(select(e.id, e.channel, e.day).where(e.id.in_(ids), e.day.is_not(None))).all()
        if rows:
            _erase_payloads(conn, [(row.id, row.channel, row.day) for row in rows])

    def _erase_outcomes(self, conn: Connection, ids: Sequence[int], family: Sequence[str]) -> None:
        """What came of entries is left as far as it is counted: states, and for acts what was done."""
        table, keys = schema.outcome, self._store.keys
        fresh: list[dict[str, Any]] = []
        own = select(table).where(table.c.entry_id.in_(ids), table.c.chart_id.in_(family))
        for row in conn.execute(own):
            try:
                effects = open_outcome(keys, row).effects
            except (TamperedError, KeyMissingError):
                effects = ()
            sealed = erased_outcome(keys, row, [one.kind for one in effects])
            fresh.append({"id_": row.entry_id, "new": sealed})
        if fresh:
            conn.execute(update(table).where(table.c.entry_id == bind("id_")).values(document=bind("new")), fresh)
        d = schema.delivery.c
        sent = conn.execute(select(d.id, d.ordering_key).where(d.entry_id.in_(ids))).all()
        _erase_delivered(conn, keys, [row.id for row in sent if chart_of_line(row.ordering_key) in family])

    def _erase_charts(self, conn: Connection, versions: Mapping[str, int]) -> bool:
        if not self._same(conn, versions):
            return False
        family = sorted(versions)
        erasure.destroy(conn, self._store.keys, map(of_chart, family))
        d, letter, own = schema.delivery.c, schema.dead_letter.c, schema.identifier.c
        told_again = and_(d.entry_id.is_(None), d.ordering_key.in_(family))
        for some in _pieces(list(conn.execute(select(d.id).where(told_again)).scalars())):
            _erase_delivered(conn, self._store.keys, some)
        hashes = list(conn.execute(select(own.key_hash).where(own.chart_id.in_(family))).scalars())
        conn.execute(update(schema.dead_letter).where(letter.key_hash.in_(hashes)).values(key_hash=None))
        for table in of_charts():
            conn.execute(delete(table).where(table.c.chart_id.in_(family)))
        conn.execute(delete(schema.chart).where(schema.chart.c.id.in_(family)))
        return True


class Trail:
    """Sealed parts of the trail's records; the rows stay, so that the chain and the books hold."""

    kept = Kept.TRAIL

    def __init__(self, store: Store) -> None:
        self._store = store

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]:  # noqa: ARG002 - of charts
        a, b, who = schema.audit.c, schema.audit_payload.c, schema.audit_patient.c
        rows = conn.execute(
            select(a.seq, a.at, a.action)
            .select_from(schema.audit_payload.join(schema.audit, a.seq == b.seq))
            .where(b.seq > (after[0] if after else 0), a.action.not_in(_RECORD_OF_THE_TRAIL))
            .order_by(b.seq)
            .limit(PAGE_ROWS)
        ).all()
        held = _Held(self._store, conn)
        on_hold: set[int] = set()
        if held.charts:
            listed = select(who.seq).where(who.seq.in_([row.seq for row in rows]), who.chart_id.in_(held.charts))
            on_hold = set(conn.execute(listed).scalars())
        return [Item(key=(row.seq,), facts=Facts(at=from_micros(row.at), on_hold=row.seq in on_hold)) for row in rows]

    def older_behind(self, conn: Connection, after: tuple[Any, ...], cutoff: datetime) -> bool:
        a = schema.audit.c
        return _older(conn, a.seq, a.at, after[0], cutoff)

    def erase(self, items: Sequence[Item], record: Said) -> int:
        numbers = [item.key[0] for item in items]
        ranges = list(runs(numbers))
        said = record("", len(numbers))
        purge = AuditRecord(at=said.at, actor=said.actor, action=PURGED, subject="trail", count=len(numbers))

        def work(conn: Connection) -> None:
            self._store.audit.purge(conn, purge, ranges)
            erasure.destroy(conn, self._store.keys, [of_number(Kind.TRAIL, *one) for one in ranges])

        self._store.charts_ledger.write_now(work)
        return len(numbers)


# --- test data -------------------------------------------------------------------------------------------------------

TEST_DATA: Final = Policy(messages=Period(), deliveries=Period(), charts=Period(), trail=Period())
"""Of it nothing is kept for a time."""
_UNREADABLE: Final = "somebody to see why it can't be read"
_LONG_AGO: Final = from_micros(0)


def test_sources(store: Store) -> tuple[Source, ...]:
    """All test data: charts before messages, so that what was asked of them is gone by then."""
    return (ChartsOfTest(store), MessagesOfTest(store))


class MessagesOfTest(Messages):
    """Entries that came as test data (`Entry.test`), and what was done to charts of test data.

    That they are is read from what is sealed, once at intake and once when they were decided: the column only leads
    there. What waits for them is what would break: an answer, a delivery under way, a question about a living patient.
    """

    def _rows(self, conn: Connection, after: int) -> Sequence[Any]:
        e, p, o = schema.entry.c, schema.payload.c, schema.outcome
        own = and_(p.entry_id == e.id, p.day == e.day)
        return conn.execute(
            select(e.id, e.channel, literal_column("0").label("received_at"), e.refused, p.day)
            .select_from(o.join(schema.entry, e.id == o.c.entry_id).join(schema.payload, own))
            .where(o.c.test == literal_column("1"), o.c.entry_id > after)
            .order_by(o.c.entry_id)
            .limit(PAGE_ROWS)
        ).all()

    def waits(self, conn: Connection, ids: Sequence[int]) -> dict[int, str]:
        if not ids:
            return {}
        found = dict.fromkeys(set(ids) - self.marked(conn, ids), _UNREADABLE)
        d, e, h, c = schema.delivery.c, schema.entry.c, schema.hold.c, schema.chart.c
        for one in conn.execute(select(d.entry_id).where(d.entry_id.in_(ids), d.state.in_(_UNFINISHED))).scalars():
            found[one] = "a delivery"
        asked = select(h.entry_id, h.root_id).where(
            h.state == HoldState.OPEN.value,
            or_(h.root_id.in_(ids), h.entry_id.in_(ids)),
            ~select(c.id).where(c.id == h.chart_id, c.test == 1).correlate(schema.hold).exists(),
        )
        for row in conn.execute(asked):
            found |= {one: "a question to a person" for one in (row.entry_id, row.root_id) if one in ids}
        owed = select(e.id).where(e.id.in_(ids), e.ack_state == AckState.OWED.value)
        return found | dict.fromkeys(conn.execute(owed).scalars(), "an answer that is owed")

    def marked(self, conn: Connection, ids: Sequence[int]) -> set[int]:
        """Those of which all that is sealed says that they are test data."""
        o = schema.outcome
        sound: set[int] = set()
        for row in conn.execute(select(o).where(o.c.entry_id.in_(ids), o.c.test == 1)):
            with suppress(TamperedError, KeyMissingError):
                open_outcome(self._store.keys, row)
                sound.add(row.entry_id)
        entries = {one.id: one for one in self._store.journal.entries(conn, sorted(sound))} if sound else {}
        return {
            one
            for one in sound
            if (entry := entries.get(one)) is not None
            and (entry.erased or entry.test or (entry.kind is not EntryKind.MESSAGE and not entry.damaged))
        }

    def erase(self, items: Sequence[Item], record: Said) -> int:
        count = super().erase(items, record)
        ids, now = [item.key[0] for item in items], record("", 0).at
        self._store.charts_ledger.write_now(lambda conn: settle_test_entries(conn, self._store.keys, ids, now))
        return count


def settle_test_entries(conn: Connection, keys: KeyRing, ids: Sequence[int], now: datetime) -> None:
    """What was sent of them goes, and nobody is asked any more about those that died."""
    d, letter = schema.delivery.c, schema.dead_letter.c
    sent = select(d.id).where(d.entry_id.in_(ids), d.state.not_in(_UNFINISHED))
    _erase_delivered(conn, keys, list(conn.execute(sent).scalars()))
    own = update(schema.dead_letter).where(letter.entry_id.in_(ids), letter.resolved_by.is_(None))
    conn.execute(own.values(resolved_by=LETTER_SWEPT, resolved_at=to_micros(now)))


class ChartsOfTest(Charts):
    """Charts that test data alone has made, whatever is open of them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._tests = MessagesOfTest(store)
        self._now = _LONG_AGO
        """When what is erased now is."""

    def page(self, conn: Connection, after: tuple[Any, ...] | None, cutoff: datetime, now: datetime) -> list[Item]:  # noqa: ARG002 - of all sources
        c = schema.chart.c
        statement = select(c.id).where(c.test == literal_column("1"), c.merged_into.is_(None))
        if after is not None:
            statement = statement.where(c.id > after[0])
        held = _Held(self._store, conn)
        ids = conn.execute(statement.order_by(c.id).limit(PAGE_ROWS // 10)).scalars().all()
        found = [self.item(conn, one, now, held) for one in ids]
        # Whatever its clock has stamped, its time is over.
        return [replace(one, key=one.key[1:], facts=replace(one.facts, at=_LONG_AGO)) for one in found]

    def _waits(self, conn: Connection, family: Sequence[str], now: datetime) -> str | None:  # noqa: ARG002
        try:
            if not all(one.test for one in self._store.charts.whole(conn, family)):
                return "what is known of a living patient"
        except (TamperedError, KeyMissingError):
            return _UNREADABLE
        d, e = schema.delivery.c, schema.entry.c
        if conn.execute(select(d.id).where(d.state.in_(_UNFINISHED), d.ordering_key.in_(family)).limit(1)).first():
            return "a delivery"
        for some in _pieces(entries_of(conn, family)):
            messages = list(conn.execute(select(e.id).where(e.id.in_(some), e.channel.not_in(LANES))).scalars())
            if messages and self._tests.marked(conn, messages) != set(messages):
                return "a message that is no test"
            if waits := self._tests.waits(conn, some):
                return next(iter(waits.values()))
        return None

    def erase(self, items: Sequence[Item], record: Said) -> int:
        self._now = record("", 0).at
        return super().erase(items, record)

    def _erase_outcomes(self, conn: Connection, ids: Sequence[int], family: Sequence[str]) -> None:
        super()._erase_outcomes(conn, ids, family)
        settle_test_entries(conn, self._store.keys, ids, self._now)


# --- what hangs on what ----------------------------------------------------------------------------------------------


def survivors(conn: Connection, ids: Collection[str]) -> dict[str, str]:
    """Chart -> the one that it has ended in."""
    c = schema.chart.c
    into: dict[str, str] = {}
    wanted = set(ids)
    while wanted:
        rows = conn.execute(select(c.id, c.merged_into).where(c.id.in_(sorted(wanted)), c.merged_into.is_not(None)))
        found = {row.id: row.merged_into for row in rows}
        into |= found
        wanted = set(found.values()) - into.keys()
    ends: dict[str, str] = {}
    for one in ids:
        end, steps = one, 0
        while end in into and steps <= len(into):
            end, steps = into[end], steps + 1
        ends[one] = end
    return ends


def charts_of(conn: Connection, entry_ids: Sequence[int]) -> dict[int, frozenset[str]]:
    """Entry -> the charts that it is about, with those that these have ended in."""
    o, k = schema.outcome.c, schema.concerned.c
    found: dict[int, set[str]] = {}
    for row in conn.execute(select(o.entry_id, o.chart_id).where(o.entry_id.in_(entry_ids), o.chart_id.is_not(None))):
        found.setdefault(row.entry_id, set()).add(row.chart_id)
    if entry_ids:
        between = k.entry_id.between(min(entry_ids), max(entry_ids))
        for row in conn.execute(select(k.entry_id, k.chart_id).where(between, k.entry_id.in_(entry_ids))):
            found.setdefault(row.entry_id, set()).add(row.chart_id)
    ends = survivors(conn, {one for several in found.values() for one in several})
    return {entry_id: frozenset(several | {ends[one] for one in several}) for entry_id, several in found.items()}


def busy_charts(conn: Connection, ids: Collection[str]) -> dict[str, str]:
    """Those of the charts of which a task or a page is open, and which of the two."""
    found: dict[str, str] = {}
    for some in _pieces(sorted(ids)):
        for table, what, states in (
            (schema.task, "an open task", [one.value for one in STANDING]),
            (schema.page, "a page", [one.value for one in UNANSWERED]),
        ):
            statement = select(table.c.chart_id).where(table.c.chart_id.in_(some), table.c.state.in_(states))
            found |= dict.fromkeys(conn.execute(statement.distinct()).scalars(), what)
    return found


def entries_of(conn: Connection, charts: Collection[str]) -> list[int]:
    """All entries that are about one of the charts, in order."""
    o, k = schema.outcome.c, schema.concerned.c
    found = set(conn.execute(select(o.entry_id).where(o.chart_id.in_(charts))).scalars())
    return sorted(found | set(conn.execute(select(k.entry_id).where(k.chart_id.in_(charts))).scalars()))


def _unsettled() -> ColumnElement[bool]:
    """A delivery that is to be sent, or that a person has to decide on."""
    d, said = schema.delivery.c, schema.admission.c
    undecided = ~(
        select(said.delivery_id).where(said.delivery_id == d.id, said.decision.is_not(None)).correlate(schema.delivery)
    ).exists()
    return or_(d.state.in_(_UNFINISHED), and_(d.state == DeliveryState.WITHHELD.value, undecided))


def _older(conn: Connection, number: ColumnElement[int], at: ColumnElement[int], after: int, cutoff: datetime) -> bool:
    """Numbers are given in the order of time, but for clocks that were set: it is looked at further and further on.

    What lies between two looks is found once more of it is old.
    """
    limit = to_micros(cutoff)
    for ahead in _FURTHER:
        found = conn.execute(select(at).where(number > after + ahead).order_by(number).limit(1)).scalar_one_or_none()
        if found is None:
            break
        if found <= limit:
            return True
    last = conn.execute(select(at).order_by(number.desc()).limit(1)).scalar_one_or_none()
    return last is not None and last <= limit


def _pieces(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for at in range(0, len(values), PAGE_ROWS):
        yield values[at : at + PAGE_ROWS]
