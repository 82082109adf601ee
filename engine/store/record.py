"""Recording what processing came to: charts, scores, tasks, deliveries, dead letters and the cursor, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, literal_column, or_, select

from engine.domain.chart import NOTHING_RENAMED, Chart, Charts, identity
from engine.domain.codec import decoder, encode
from engine.domain.delivery import ADDRESSED, TEST_DATA, Delivery, DeliveryState, Operation, QueuedDelivery
from engine.domain.message import AckCode, EntryState
from engine.domain.outcome import Effect, Outcome
from engine.domain.parts import DELIVERED, PARTS
from engine.domain.quality import QualityItem
from engine.domain.record import Phi, Record
from engine.domain.why import Reason, Why
from engine.errors import CursorMovedError, IdentityTakenError, StaleChartError, StoreError, TamperedError
from engine.pipeline.admit import NOTICES
from engine.pipeline.due import due_at, is_urgent
from engine.pipeline.restored import RESTORED
from engine.store import admissions, letters, lives, notices, numbers, oncall, schema, settlements
from engine.store.audit import AuditStore
from engine.store.charts import (
    ChartDocument,
    ChartStore,
    chart_place,
    closed_place,
    identity_hash,
    key_hash,
)
from engine.store.due import OTHER, URGENT
from engine.store.holds import Asked, record_holds
from engine.store.keys import KeyRing
from engine.store.outbox import Outbox, join_lines, occupied, payload_place, take_lock
from engine.store.partitions import ordering_key_of, partitioning
from engine.store.parts import STORED, Hashes
from engine.store.quality import record_quality
from engine.store.schema import chart, cursor, delivery, from_micros, identifier, outcome, to_micros, word
from engine.store.statements import Listed, Rows, Statement

Move = tuple[int, int]
"""A cursor's positions before and after."""


class Recorded(Record, frozen=True, kw_only=True):
    """What a batch came to."""

    deliveries: int
    """New ones; those that were recorded before (a replay) are not counted."""
    fresh: tuple[QueuedDelivery, ...] = ()
    """The same, for `Outbox.fresh` when they are on disk."""


class OutcomeDocument(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """The sealed part of an outcome."""

    reason: str | None = None
    patient_key: str | None = None
    encounter_key: str | None = None
    effects: tuple[Effect, ...] = ()
    deviations: tuple[str, ...] = ()
    charset: str | None = None
    why: tuple[Why, ...] = ()
    changed: tuple[str, ...] = ()
    quality: tuple[QualityItem, ...] = ()
    version: int = 0
    """That its chart had after it; 0: it did not change it. What is older was rolled back (see `tallies.py`)."""
    others: dict[str, int] = {}
    """The same of other charts that it was about, changed or not."""
    deliveries: int = 0
    """That it has put into the outbox."""
    asked: tuple[Asked, ...] = ()
    """Questions to a person that it has opened, or opened again."""
    took_back: int = 0
    """Notices whose ground it has taken away."""
    erased: bool = False
    """What it said was erased with its patient."""


class RecordedOutcome(Phi, frozen=True, kw_only=True):
    """An outcome as it was recorded."""

    entry_id: int
    state: EntryState
    reason: str | None
    chart_id: str | None
    patient_key: str | None
    encounter_key: str | None
    effects: tuple[Effect, ...]
    deviations: tuple[str, ...]
    charset: str | None
    why: tuple[Why, ...]
    changed: tuple[str, ...]
    quality: tuple[QualityItem, ...]
    application_ack: AckCode
    error_code: int
    config_version: str
    recorded_at: datetime
    test: bool


_INSERT_OUTCOMES: Final = Rows(
    outcome,
    ("entry_id", "channel", "state", "chart_id", "application_ack", "error_code", "config_version", "recorded_at",
     "test", "document"),
)  # fmt: skip
_OUTCOMES: Final = Listed(outcome.c.entry_id, lambda listed: select(outcome).where(listed))
_CONFIG_VERSIONS: Final = Listed(
    outcome.c.entry_id, lambda listed: select(outcome.c.entry_id, outcome.c.config_version).where(listed)
)
_ANSWERS: Final = Listed(
    outcome.c.entry_id,
    lambda listed: select(outcome.c.entry_id, outcome.c.application_ack, outcome.c.error_code).where(listed),
)
_POSITIONS: Final = Listed(
    cursor.c.partition,
    lambda listed: (
        select(cursor.c.partition, cursor.c.position)
        .where(cursor.c.channel == bindparam("name"), listed)
        .order_by(cursor.c.partition)
        .with_for_update()
    ),
    ("name",),
)
_MOVE_CURSORS: Final = Rows(
    cursor, ("channel", "partition", "position"), conflict=("channel", "partition"), replace=("position",)
)
_VERSIONS: Final = Listed(
    chart.c.id, lambda listed: select(chart.c.id, chart.c.version).where(listed).order_by(chart.c.id).with_for_update()
)
_MERGED: Final = Listed(
    chart.c.id,
    lambda listed: select(chart.c.id, chart.c.merged_into).where(listed, chart.c.merged_into.is_not(None)),
)
_CHART_COLUMNS: Final = (
    "id", "version", "merged_into", "updated_at", "due_at", "due_rank", "partition", "test", "document",
)  # fmt: skip
_INSERT_CHARTS: Final = Rows(chart, _CHART_COLUMNS)
_REPLACE_CHARTS: Final = Rows(chart, _CHART_COLUMNS, conflict=("id",), replace=_CHART_COLUMNS[1:])
_REPLACE_SUMMARIES: Final = Rows(schema.closed, ("chart_id", "document"), conflict=("chart_id",), replace=("document",))
_OWNERS: Final = Listed(
    identifier.c.key_hash,
    lambda listed: (
        select(identifier.c.identity_hash, identifier.c.chart_id, chart.c.merged_into)
        .join(chart, chart.c.id == identifier.c.chart_id)
        .where(listed)
    ),
)
_IDENTIFIER_COLUMNS: Final = ("key_hash", "identity_hash", "chart_id")
_INSERT_IDENTIFIERS: Final = Rows(identifier, _IDENTIFIER_COLUMNS)
_MOVE_IDENTIFIERS: Final = Rows(
    identifier, _IDENTIFIER_COLUMNS, conflict=("key_hash", "identity_hash"), replace=("chart_id",)
)
_BEFORE_OTHERS: Final = timedelta(days=7)
"""A call of a person is due so long before what is told at the same moment: it waits behind no backlog."""
_KNOWN_DELIVERIES: Final = Listed(
    delivery.c.idempotency_key, lambda listed: select(delivery.c.idempotency_key).where(listed)
)
_LAST_DELIVERY: Final = Statement(select(func.coalesce(func.max(delivery.c.id), literal_column("0"))))
_DELIVERY_COLUMNS: Final = (
    "id", "entry_id", "channel", "destination", "operation", "ordering_key", "idempotency_key", "state", "turn",
    "attempts", "next_attempt_at", "created_at", "marked",
)  # fmt: skip
_INSERT_DELIVERIES: Final = Rows(delivery, _DELIVERY_COLUMNS)
_INSERT_LIVED: Final = Rows(delivery, (*_DELIVERY_COLUMNS, "settled_at", "error", "life"))
_HELD_STATE: Final = DeliveryState.HELD.value
_INSERT_BODIES: Final = Rows(schema.delivery_payload, ("delivery_id", "body"))

_CONCERNED: Final = Listed(
    schema.concerned.c.chart_id, lambda listed: select(schema.concerned.c.entry_id).where(listed)
)
_INSERT_CONCERNED: Final = Rows(schema.concerned, ("chart_id", "entry_id"))

_decode_outcome = decoder(OutcomeDocument)


_EARLY_MAX: Final = 1000
"""At most so many dead messages from before a patient had a chart are found, the newest."""


def of_patient(conn: Connection, keys: KeyRing, patient: str) -> ColumnElement[bool]:
    """The condition on outcomes that they are of this patient (`AUTHORITY:ID`), or of one merged with them.

    Among them are messages that died before there was a chart: those are found by the key that they name.
    """
    store = ChartStore(keys)
    charts = store.family_of_key(conn, patient)
    named = {patient, *store.keys_of(conn, charts)}
    hashes = [key_hash(keys, key) for key in sorted(named)]
    found = early_dead(conn, keys, schema.dead_letter.c.key_hash.in_(hashes))
    # The column only leads there: who the patient is stands in the sealed document.
    early = [entry_id for entry_id, key in found if key in named]
    own = outcome.c.chart_id.in_(sorted(charts))
    return or_(own, outcome.c.entry_id.in_(early)) if early else own


def early_dead(conn: Connection, keys: KeyRing, condition: ColumnElement[bool]) -> list[tuple[int, str | None]]:
    """Entry and patient key of messages that died before their patient had a chart, the newest of them."""
    statement = (
        select(outcome)
        .join(schema.dead_letter, schema.dead_letter.c.entry_id == outcome.c.entry_id)
        .where(condition, outcome.c.chart_id.is_(None))
        .order_by(outcome.c.entry_id.desc())
        .limit(_EARLY_MAX)
    )
    found: list[tuple[int, str | None]] = []
    for row in conn.execute(statement):
        with suppress(TamperedError):
            found.append((row.entry_id, open_outcome(keys, row).patient_key))
    return found


class _Caused(NamedTuple):
    """By entry."""

    deliveries: Mapping[int | None, int]
    asked: Mapping[int, tuple[Asked, ...]]
    took_back: Mapping[int, int]


def _as_it_is(chart: Chart) -> Chart:
    return chart


class Recorder:
    """Writes outcomes and changes of charts. Every method runs in one transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing, trail: AuditStore | None = None) -> None:
        self._keys = keys
        self._audit = trail or AuditStore(keys)
        self._outbox = Outbox(keys)

    def record(
        self,
        conn: Connection,
        outcomes: Sequence[Outcome],
        before: Charts,
        *,
        channel: str,
        moves: Mapping[int, Move],
        now: datetime,
        close: Callable[[Chart], Chart] = _as_it_is,
        doubtful: frozenset[int] = frozenset(),
    ) -> Recorded:
        """Record the outcomes of a channel's next entries and move the cursors of their partitions behind them.

        before: the charts as they were loaded, without the outcomes' changes. moves: by partition. close: a chart ->
        the same one without what is to be loaded on demand only from now on (`pipeline.closing.closed_up`).
        doubtful: entries of which what goes out may have gone out before a restore: it is held.
        Raises CursorMovedError, StaleChartError or IdentityTakenError; then nothing is written.
        """
        if not outcomes:
            return Recorded(deliveries=0)
        ids = [min(old for old, _ in moves.values()), *(one.entry_id for one in outcomes)]
        if any(one >= following for one, following in pairwise(ids)):
            raise StoreError("the outcomes of a batch are not in the order of the journal")
        self.move(conn, channel, moves)
        micros = to_micros(now)
        after = {changed.id: changed for one in outcomes for changed in one.charts}
        self._write_charts(conn, after, before, micros, close)
        join_lines(conn, _merges(after, before))
        for chart_id, gone in _moved_away(after, before):
            self._outbox.take_back(conn, chart_id, gone, now)
        _INSERT_CONCERNED.write(
            conn,
            [
                (changed.id, one.entry_id)
                for one in outcomes
                if len(one.charts) > 1
                for changed in one.charts
                if changed.id != one.chart_id
            ],
        )
        letters.write(
            conn,
            self._keys,
            [
                (
                    letters.Letter(
                        one.entry_id, channel, None, letter.stage.value, letter.error, letter.location, letter.detail,
                        micros,
                    ),
                    key_hash(self._keys, one.patient_key) if one.patient_key is not None else None,
                )
                for one in outcomes
                if (letter := one.dead_letter) is not None
            ],
        )  # fmt: skip
        questions = record_holds(conn, self._keys, outcomes, channel, micros, before=before, after=after)
        oncall.record(conn, self._keys, [item for one in outcomes for item in one.overrides])
        made: dict[int | None, int] = {}
        self._keep(conn, [(one.entry_id, item) for one in outcomes for item in one.withheld], channel, micros, made)
        wanted = [(one.entry_id, one.channel or channel, item) for one in outcomes for item in one.deliveries]
        if any(one.marked_anew for one in outcomes):
            from engine.store.requeue import ask_again  # it brings the rules along, which a command does without
        for chart_id in dict.fromkeys(anew for one in outcomes for anew in one.marked_anew):
            ask_again(conn, self._keys, chart_id, now)  # before what is new: that comes behind it
        recorded = self._queue(conn, wanted, after, now, made, doubtful, channel)
        fallen = [(one.entry_id, gone) for one in outcomes for gone in one.fallen]
        taken = notices.take_back(conn, self._keys, fallen, micros) if fallen else {}
        caused = _Caused(made, questions.asked, taken)
        _INSERT_OUTCOMES.write(conn, [self._outcome(one, channel, micros, caused) for one in outcomes])
        if faulty := [one for one in outcomes if one.quality or one.quality_decisions]:
            roots = [one.replay_root for one in faulty if one.replay_root is not None]
            said = {entry_id: known.quality for entry_id, known in self.outcomes(conn, roots).items()} if roots else {}
            record_quality(conn, self._keys, faulty, channel, micros, said=said)
        # Last: on PostgreSQL the trail's head is locked from here to the commit.
        self._audit.append(conn, [*questions.said, *(item for one in outcomes for item in one.audit)])
        return recorded

    def queue(self, conn: Connection, deliveries: Sequence[Delivery], *, channel: str, now: datetime) -> Recorded:
        """Put deliveries into the outbox that no entry has caused: a destination is told again how a chart stands."""
        wanted = [(None, channel, item) for item in deliveries]
        return self._queue(conn, wanted, {}, now, {})

    def move(self, conn: Connection, channel: str, moves: Mapping[int, Move]) -> None:
        """Move cursors of a channel. Raises CursorMovedError when one is not where it is to be moved from."""
        stored = {row.partition: row.position for row in _POSITIONS.rows(conn, sorted(moves), channel)}
        if any(stored.get(partition, 0) != old for partition, (old, _) in moves.items()):
            raise CursorMovedError(f"another processor has recorded outcomes of channel {channel}")
        _MOVE_CURSORS.write(conn, [(channel, partition, new) for partition, (_, new) in sorted(moves.items())])

    def cursors(self, conn: Connection) -> dict[str, dict[int, int]]:
        """How far each channel is processed: channel -> partition -> every entry up to this id has an outcome."""
        found: dict[str, dict[int, int]] = {}
        for row in conn.execute(select(cursor)):
            found.setdefault(row.channel, {})[row.partition] = row.position
        return found

    def outcomes(self, conn: Connection, entry_ids: Sequence[int]) -> dict[int, RecordedOutcome]:
        """The outcomes of those of the entries that have one."""
        found: dict[int, RecordedOutcome] = {}
        for row in _OUTCOMES.rows(conn, entry_ids):
            document = open_outcome(self._keys, row)
            found[row.entry_id] = RecordedOutcome(
                entry_id=row.entry_id,
                state=EntryState(row.state),
                reason=document.reason,
                chart_id=row.chart_id,
                patient_key=document.patient_key,
                encounter_key=document.encounter_key,
                effects=document.effects,
                deviations=document.deviations,
                charset=document.charset,
                why=document.why,
                changed=document.changed,
                quality=document.quality,
                application_ack=word(AckCode, row.application_ack, AckCode.AE),
                error_code=row.error_code,
                config_version=row.config_version,
                recorded_at=from_micros(row.recorded_at),
                test=bool(row.test),
            )
        return found

    def concerned(self, conn: Connection, chart_ids: Sequence[str]) -> list[int]:
        """Entries that were about these charts besides that of their outcome: a merge, a message about several."""
        return sorted({row.entry_id for row in _CONCERNED.rows(conn, chart_ids)})

    def answers(self, conn: Connection, entry_ids: Sequence[int]) -> dict[int, tuple[AckCode, int]]:
        """What the senders of those of the entries that have an outcome are told: code and error, readable or not."""
        return {
            row.entry_id: (word(AckCode, row.application_ack, AckCode.AE), row.error_code)
            for row in _ANSWERS.rows(conn, entry_ids)
        }

    def config_versions(self, conn: Connection, entry_ids: Sequence[int]) -> dict[int, str]:
        """Under which configuration those of the entries were processed that have an outcome, readable or not."""
        return {row.entry_id: row.config_version for row in _CONFIG_VERSIONS.rows(conn, entry_ids)}

    def _outcome(self, one: Outcome, channel: str, now: int, caused: _Caused) -> tuple[Any, ...]:
        version, others = 0, {}
        for changed in one.charts:
            if changed.id == one.chart_id:
                version = changed.version
            else:
                others[changed.id] = changed.version
        document = OutcomeDocument(
            reason=one.reason,
            patient_key=one.patient_key,
            encounter_key=one.encounter_key,
            effects=one.effects,
            deviations=one.deviations,
            charset=one.charset,
            why=one.why,
            changed=one.changed,
            quality=one.quality,
            version=version,
            others=others,
            deliveries=caused.deliveries.get(one.entry_id, 0),
            asked=caused.asked.get(one.entry_id, ()),
            took_back=caused.took_back.get(one.entry_id, 0),
        )
        # `_value_`: what `value` gives by two calls of Python.
        plain = (one.entry_id, channel, one.state._value_, one.chart_id, one.application_ack._value_, one.error_code,
                 one.config_version, now, int(one.test))  # fmt: skip
        return (*plain, self._keys.seal(outcome_place(*plain), encode(document)))

    def _write_charts(
        self, conn: Connection, after: Mapping[str, Chart], before: Charts, now: int, close: Callable[[Chart], Chart]
    ) -> None:
        changed = [new for new in after.values() if before.by_id.get(new.id) is not new]
        if not changed:
            return
        old = {new.id: before.by_id[new.id] for new in changed if new.id in before.by_id}
        self._check_versions(conn, changed, old)
        write = _ChartWriter(self._keys, changed, old)
        write.identifiers(conn)
        hashes = Hashes(self._keys)
        for stored in STORED:
            stored.write(conn, self._keys, hashes, changed, old)
        numbers.note(conn, self._keys, changed, old)
        write.charts(conn, now, close)

    @staticmethod
    def _check_versions(conn: Connection, changed: Sequence[Chart], old: Mapping[str, Chart]) -> None:
        stored = {row.id: row.version for row in _VERSIONS.rows(conn, sorted(new.id for new in changed))}
        expected = {new.id: old[new.id].version if new.id in old else 0 for new in changed}
        after = {new.id: new.merged_into for new in changed}
        stale = tuple(chart_id for chart_id, version in expected.items() if stored.get(chart_id, 0) != version)
        if stale:
            raise StaleChartError(stale)
        if any(was.merged_into is not None and was.merged_into != after[was.id] for was in old.values()):
            # What is on its way to destinations for the two patients stands in one line since the merge.
            raise StoreError("a merged chart never comes back to life, nor does it change its survivor")
        if any(new.version <= expected[new.id] for new in changed):
            raise StoreError("a changed chart does not have a higher version than the one it came from")

    def _queue(
        self,
        conn: Connection,
        wanted: Sequence[tuple[int | None, str, Delivery]],
        after: Mapping[str, Chart],
        now: datetime,
        made: dict[int | None, int],
        doubtful: frozenset[int] = frozenset(),
        of_outcomes: str | None = None,
    ) -> Recorded:
        """Put deliveries into the outbox, in this order; those whose idempotency key is known are left out.

        wanted: what caused each, and whose books count it. after: the charts that this transaction has written.
        made: takes how many each has caused. of_outcomes: the channel of the outcomes, which then vouch for those that
        are of it and wait (`lives.py`).
        """
        if not wanted:
            return Recorded(deliveries=0)
        take_lock(conn)
        micros = to_micros(now)
        ordering_keys = {item.ordering_key for _, _, item in wanted}
        lines = _lines(conn, ordering_keys, after)
        taken = occupied(conn, {lines.get(key, key) for key in ordering_keys})
        known = _known(conn, (item for _, _, item in wanted))
        number: int = _LAST_DELIVERY.scalar(conn)
        pending = DeliveryState.PENDING.value
        rows, lived = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        bodies: list[tuple[int, bytes]] = []
        fresh: list[QueuedDelivery] = []
        said: list[tuple[int, Delivery]] = []
        withholding: list[admissions.Row] = []
        for entry_id, channel, item in wanted:
            if item.idempotency_key in known:
                continue
            known.add(item.idempotency_key)
            number += 1
            made[entry_id] = made.get(entry_id, 0) + 1
            line = lines.get(item.ordering_key, item.ordering_key)
            place_in_line = (line, item.destination)
            in_doubt = entry_id in doubtful
            withheld = item.kept is not None and not in_doubt
            turn = place_in_line not in taken and not withheld
            if not withheld:
                taken.add(place_in_line)
            operation = item.operation._value_
            due = now - _BEFORE_OTHERS if item.operation in ADDRESSED else now
            state = _HELD_STATE if in_doubt else DeliveryState.WITHHELD.value if withheld else pending
            row = (
                number, entry_id, channel, item.destination, operation, line, item.idempotency_key,
                state, int(turn), 0, to_micros(due), micros, int(item.marked),
            )  # fmt: skip
            if in_doubt:
                lived.append((*row, micros, RESTORED))
            elif item.kept is not None:
                lived.append((*row, micros, item.kept))
                withholding.append((number, item.destination, item.kept, None, micros, _final(item.kept)))
            elif channel != of_outcomes:
                lived.append((*row, None, None))
            else:
                rows.append(row)
            bodies.append((number, self._sealed(number, entry_id, item)))
            if item.operation in NOTICES:
                said.append((number, item))
            if line is item.ordering_key and state == pending:
                fresh.append(
                    QueuedDelivery(
                        id=number,
                        entry_id=entry_id,
                        delivery=item,
                        state=DeliveryState.PENDING,
                        attempts=0,
                        next_attempt_at=due,
                        created_at=now,
                    )
                )
        _INSERT_DELIVERIES.write(conn, rows)
        self._write_lived(conn, lived, micros)
        _INSERT_BODIES.write(conn, bodies)
        notices.note(conn, self._keys, said)
        admissions.note(conn, self._keys, withholding)
        return Recorded(deliveries=len(rows) + len(lived), fresh=tuple(fresh))

    def _write_lived(self, conn: Connection, rows: Sequence[tuple[Any, ...]], now: int) -> None:
        """Deliveries for which no outcome vouches by itself. rows: with when they were settled, and why."""
        if not rows:
            return
        written: list[tuple[Any, ...]] = []
        known = [dict(zip(_DELIVERY_COLUMNS, row, strict=False)) for row in rows]
        held = [said["id"] for said in known if said["state"] == _HELD_STATE]
        after = settlements.note(conn, self._keys, {}, now, held)
        for row, said in zip(rows, known, strict=True):
            life = lives.life(
                self._keys, id=said["id"], channel=said["channel"], ordering_key=said["ordering_key"],
                created_at=said["created_at"], state=said["state"], attempts=0, error=row[-1], settled_at=row[-2],
                next_attempt_at=said["next_attempt_at"], after=after,
            )  # fmt: skip
            written.append((*row, life))
        _INSERT_LIVED.write(conn, written)

    def _keep(
        self,
        conn: Connection,
        withheld: Sequence[tuple[int, Delivery]],
        channel: str,
        now: int,
        made: dict[int | None, int],
    ) -> None:
        """Deliveries that never go out: they stand in no line, and no courier finds them. Known keys are left out."""
        if not withheld:
            return
        take_lock(conn)
        known = _known(conn, (item for _, item in withheld))
        number = max(_LAST_DELIVERY.scalar(conn), schema.SHADOW_NUMBERS)
        rows: list[tuple[Any, ...]] = []
        bodies: list[tuple[int, bytes]] = []
        for entry_id, item in withheld:
            if item.idempotency_key in known:
                continue
            known.add(item.idempotency_key)
            number += 1
            made[entry_id] = made.get(entry_id, 0) + 1
            rows.append(
                (number, entry_id, channel, item.destination, item.operation.value, item.ordering_key,
                 item.idempotency_key, DeliveryState.WITHHELD.value, 0, 0, now, now, int(item.marked), now,
                 Reason.SHADOW.value)
            )  # fmt: skip
            bodies.append((number, self._sealed(number, entry_id, item)))
        self._write_lived(conn, rows, now)
        _INSERT_BODIES.write(conn, bodies)

    def _sealed(self, number: int, entry_id: int | None, item: Delivery) -> bytes:
        place = payload_place(
            number, entry_id, item.destination, item.operation._value_, item.idempotency_key, item.marked
        )
        return self._keys.seal(place, item.payload)


def _final(kept: str) -> str | None:
    """Nobody is asked about each delivery of test data."""
    return admissions.FINAL if kept == TEST_DATA else None


def _known(conn: Connection, deliveries: Iterable[Delivery]) -> set[str]:
    """Those of their idempotency keys that the outbox has."""
    keys = {item.idempotency_key for item in deliveries}
    return {row.idempotency_key for row in _KNOWN_DELIVERIES.rows(conn, sorted(keys))}


def _moved_away(
    after: Mapping[str, Chart], before: Charts
) -> Iterator[tuple[str, set[tuple[Operation, tuple[str | None, ...]]]]]:
    """Charts that stays have left for another patient's, and what of them destinations hear of."""
    for new in after.values():
        old = before.by_id.get(new.id)
        left_tests = old is not None and old.test and not new.test
        if old is None or new.merged_into is not None:
            continue
        if new.renamed.departed == old.renamed.departed and not left_tests:
            continue
        key = old.patient.key
        gone: set[tuple[Operation, tuple[str | None, ...]]] = set()
        for part in DELIVERED:
            left = set(map(part.key, part.of(new)))
            gone |= {
                (part.operation, part.content(item, key).about) for item in part.of(old) if part.key(item) not in left
            }
        yield new.id, gone


def _merges(after: Mapping[str, Chart], before: Charts) -> dict[str, str]:
    """Charts that were merged away, with the chart that each has ended in."""
    known = before.by_id
    merged = {one.id: one.merged_into for one in after.values() if one.merged_into is not None}
    return {id_: _end(id_, merged) for id_ in merged if id_ not in known or known[id_].merged_into is None}


def _lines(conn: Connection, ordering_keys: set[str], after: Mapping[str, Chart]) -> dict[str, str]:
    """Ordering keys of charts that are merged away -> that of the survivor.

    Those of this transaction's own charts are known. Any other may have been merged by another worker since it was
    read: a message can be forwarded without changing its chart, and then no version was checked.
    """
    merged = {one.id: one.merged_into for one in after.values() if one.merged_into is not None}
    wanted = ordering_keys - after.keys()
    while wanted:
        found = {row.id: row.merged_into for row in _MERGED.rows(conn, sorted(wanted))}
        merged |= found
        wanted = set(found.values()) - after.keys() - merged.keys()
    return {key: _end(key, merged) for key in ordering_keys if key in merged}


def _end(chart_id: str, merged: Mapping[str, str]) -> str:
    while chart_id in merged:
        chart_id = merged[chart_id]
    return chart_id


class _ChartWriter:
    """Writes what differs between two versions of some charts. `old` has no entry for a new chart."""

    def __init__(self, keys: KeyRing, changed: Sequence[Chart], old: Mapping[str, Chart]) -> None:
        self._keys = keys
        self._changed = changed
        self._old = old
        self._partition = partitioning(keys)

    def identifiers(self, conn: Connection) -> None:
        claims: dict[bytes, tuple[bytes, Chart]] = {}
        for new in self._changed:
            held = self._old[new.id].patient.identifiers if new.id in self._old else ()
            if new.patient.identifiers is held:
                continue
            known = {identity(item) for item in held}
            for item in new.patient.identifiers:
                if identity(item) in known:
                    continue
                hashed = identity_hash(self._keys, *identity(item))
                rival = claims.get(hashed, (b"", new))[1]
                if rival.id != new.id and rival.merged_into is None:
                    if new.merged_into is None:
                        raise IdentityTakenError("two charts of one batch claim the same identifier")
                    continue
                claims[hashed] = (key_hash(self._keys, item.key), new)
        self._give_up(conn)
        if not claims:
            return
        merged = {new.id for new in self._changed if new.merged_into is not None}
        moved: list[tuple[bytes, bytes, str]] = []
        for row in _OWNERS.rows(conn, [hashed_key for hashed_key, _ in claims.values()]):
            if row.identity_hash not in claims:
                continue  # the same number under another type
            hashed_key, claimant = claims.pop(row.identity_hash)
            if row.chart_id == claimant.id or claimant.merged_into is not None:
                continue
            if row.merged_into is None and row.chart_id not in merged:
                raise IdentityTakenError("a chart claims an identifier that belongs to another living chart")
            moved.append((hashed_key, row.identity_hash, claimant.id))
        _MOVE_IDENTIFIERS.write(conn, moved)
        _INSERT_IDENTIFIERS.write(
            conn, [(hashed_key, hashed, claimant.id) for hashed, (hashed_key, claimant) in claims.items()]
        )

    def _give_up(self, conn: Connection) -> None:
        """Numbers that a chart of test data has lost: they lead nowhere, so that whose they are is found anew."""
        for new in self._changed:
            old = self._old.get(new.id)
            if old is None or not old.test or old.patient.identifiers is new.patient.identifiers:
                continue
            left = {identity(item) for item in new.patient.identifiers}
            gone = [
                identity_hash(self._keys, *identity(item))
                for item in old.patient.identifiers
                if identity(item) not in left
            ]
            i = identifier.c
            conn.execute(delete(identifier).where(i.identity_hash.in_(gone), i.chart_id == new.id))

    def charts(self, conn: Connection, now: int, close: Callable[[Chart], Chart]) -> None:
        inserts: list[tuple[Any, ...]] = []
        replaces: list[tuple[Any, ...]] = []
        summaries: list[tuple[str, bytes]] = []
        for new in self._changed:
            left = close(new)
            if left is not new and due_at(left) != due_at(new):
                left = new  # what rings has to be found
            summary = left.closed
            if summary is not None and summary is not new.closed:
                summary = msgspec.structs.replace(summary, version=new.version)
                place = closed_place(new.id, new.version)
                summaries.append((new.id, self._keys.seal(place, encode(summary))))
            document = ChartDocument(
                patient=new.patient,
                stamps=new.stamps,
                death_stated=new.death_stated,
                renamed=None if new.renamed is NOTHING_RENAMED else new.renamed,
                consents=new.consents,
                contact_consents=new.contact_consents,
                parts={part.name: tuple(map(part.key, part.of(left))) for part in PARTS},
                channel=new.channel,
                closed=0 if summary is None else summary.version,
            )
            due = self._due(new)
            test = int(new.test)
            sealed = self._keys.seal(chart_place(new.id, new.version, new.merged_into, *due, test), encode(document))
            row = (new.id, new.version, new.merged_into, now, *due, test, sealed)
            (replaces if new.id in self._old else inserts).append(row)
        _REPLACE_CHARTS.write(conn, replaces)
        _INSERT_CHARTS.write(conn, inserts)
        _REPLACE_SUMMARIES.write(conn, summaries)
        begun_anew = [new.id for new in self._changed if (old := self._old.get(new.id)) and old.test and not new.test]
        if begun_anew:
            conn.execute(delete(schema.closed).where(schema.closed.c.chart_id.in_(begun_anew)))

    def _due(self, chart: Chart) -> tuple[int | None, int | None, int | None]:
        """When what is due next of a chart is, its rank, and the partition of what rings it."""
        at = due_at(chart)
        if at is None:
            return _NEVER
        rank = URGENT if is_urgent(chart) else OTHER
        return to_micros(at), rank, self._partition(ordering_key_of(chart.id))


_NEVER: Final = (None, None, None)


def erased_outcome(keys: KeyRing, row: Any, effects: Iterable[str]) -> bytes:
    """What is left of an outcome whose patient is erased, sealed: states, and the kinds of its effects."""
    left = OutcomeDocument(
        reason="what was stored of this patient was erased",
        effects=tuple(Effect(kind=one, subject="") for one in effects),
        erased=True,
    )
    place = outcome_place(
        row.entry_id, row.channel, row.state, row.chart_id, row.application_ack, row.error_code, row.config_version,
        row.recorded_at, row.test,
    )  # fmt: skip
    return keys.seal(place, encode(left))


def open_outcome(keys: KeyRing, row: Any) -> OutcomeDocument:
    """row: of the table, whole. Raises TamperedError."""
    plain = (row.entry_id, row.channel, row.state, row.chart_id, row.application_ack, row.error_code,
             row.config_version, row.recorded_at, row.test)  # fmt: skip
    return _decode_outcome(keys.open(outcome_place(*plain), row.document))


def outcome_place(
    entry_id: int, channel: str, state: str, chart_id: str | None, ack: str, code: int, config: str, at: int, test: int
) -> str:
    """The whole row, so that an outcome can't be given another state, or be put beside another patient's."""
    return f"outcome.document:{entry_id}/{channel}/{state}/{chart_id}/{ack}/{code}/{config}/{at}/{test}"
