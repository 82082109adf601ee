"""The journal: what arrived, in the order of its commits, and what became of the answers.

Duplicates. `entry.message_key` is an index of 64 bits. Its high 48 bits are keyed hashes of the control id alone, so
that a control id is found by a range of the index: 32 bits of all but its last two characters, then 16 bits of the
whole. Senders count their control ids, so neighbours in time are neighbours in the index, and a group rewrites one of
its pages instead of one for each message. The low 16 bits are a keyed hash of channel, sender and control id (the
receipt's `dedupe_key`); of these and the content for entries whose dedupe key was taken already; and zero for entries
that never are an original (refused ones, replays). So a look-up meets one or two rows, whatever senders do with their
control ids.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypedDict, Unpack

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)

from engine.domain.message import (
    LANES,
    AckCode,
    AckState,
    Entry,
    EntryKind,
    EntryState,
    Receipt,
    Summary,
    kind_of,
)
from engine.domain.outcome import EffectKind
from engine.domain.partition import PARTITIONS
from engine.domain.record import Phi, Record
from engine.errors import INTERNAL_ERROR, Fault, StoreDamagedError, StoreError, TamperedError
from engine.logs import get_logger
from engine.pipeline import faults
from engine.store import schema
from engine.store.engines import translated
from engine.store.holds import ASKED, open_entries
from engine.store.keys import KeyRing
from engine.store.partitions import partitioning
from engine.store.record import OutcomeDocument, of_patient, open_outcome
from engine.store.schema import day_of, entry, from_micros, outcome, payload, repeat, to_micros, word
from engine.store.statements import Listed, Rows, Statement

_NOTHING: Final = frozenset({EffectKind.NOT_DONE, EffectKind.SET_ASIDE, EffectKind.WITHOUT_EFFECT})
_BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
"""A batch of entries ends early when its payloads (as stored) have so many bytes."""

_NODE_SPACE: Final = 0x48414E4E
"""PostgreSQL: the first half of the advisory locks that names of nodes have."""
_IDS_MAX: Final = 500
"""In one question."""
_READ_ENTRIES_MAX: Final = 256
_COUNTED: Final = 2
"""Characters at the end of a control id that differ between neighbours."""
_BEGINNINGS_MAX: Final = 1024
_BEGINNING_CHARACTERS_MAX: Final = 32
"""What control ids begin with: so many, of at most so many characters, are hashed once for all neighbours."""

_APPEND_LOCK: Final = 0x48414E44_4A
"""PostgreSQL: the advisory lock that puts appends, and so their ids, in the order of their commits."""

_DAMAGED: Final = Fault(
    error="entry-damaged",
    text="this message was refused; why can't be read any more, what is stored of it is damaged",
    hl7_code=INTERNAL_ERROR,
)


class Stored(Record, frozen=True, kw_only=True):
    """What became of a receipt, and what is to be answered."""

    arrival: int
    """Names the arrival when its answer was sent (see `append`): the entry's id, or a negative number for a repeat."""
    id: int | None
    """The new entry; none: an exact duplicate, no entry was made."""
    duplicate_of: int | None = None
    """The entry it repeats exactly; `ack`, `received_at` and `wants_application_ack` are then the original's."""
    conflict_with: int | None = None
    """The entry that has the same control id and other content."""
    refused: bool = False
    ack: AckCode | None = None
    ack_state: AckState = AckState.NOT_OWED
    received_at: datetime
    wants_application_ack: bool = False


class Append(Phi, frozen=True, kw_only=True):
    """What one caller has for a group: receipts, and the arrivals whose answers went out or could not.

    answered: arrivals whose answer waited for their outcome, and the code that it came to.
    """

    receipts: tuple[Receipt, ...] = ()
    sent: tuple[int, ...] = ()
    unsent: tuple[int, ...] = ()
    answered: tuple[tuple[int, AckCode], ...] = ()


class EntryConditions(TypedDict, total=False):
    """Which entries; absent, none or false: any."""

    kind: EntryKind | None
    channel: str | None
    """Or the lane of a kind."""
    state: EntryState | None
    patient: str | None
    """A key (`AUTHORITY:ID`); entries of charts that were merged into that patient's are among them, and dead and
    refused ones that name the patient."""
    since: datetime | None
    until: datetime | None
    """Not included."""
    error: str | None
    """They left a dead letter with this code."""
    flagged: bool
    """Their control id had been used for another message."""
    decided: bool
    """They have an outcome."""
    held: bool
    """They left a question which still waits for a person."""


class ListedEntry(Phi, frozen=True, kw_only=True):
    """An entry as lists show it."""

    id: int
    kind: EntryKind
    channel: str
    control_id: str | None
    type: str | None
    received_at: datetime
    state: EntryState
    ack: AckCode | None
    ack_state: AckState
    patient_key: str | None
    replay_of: int | None
    reason: str | None
    flagged_duplicate_of: int | None
    repeats: int
    """How often an exact duplicate came after it."""
    sender: str | None = None
    """MSH-3 and MSH-4, `EPIC/MAIN`."""
    deviations: tuple[str, ...] = ()
    without_effect: bool = False
    """It was processed, and changed nothing."""
    peer: str | None = None
    """Who was connected, also when the message does not say who sent it."""
    test: bool = False
    """It is test data."""


class Head(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """The small part of an entry that is sealed beside its payload."""

    peer: str
    summary: Summary
    deviations: tuple[str, ...] = ()
    refusal: Fault | None = None
    test: bool = False


_ENTRY_COLUMNS: Final = (
    "id", "channel", "received_at", "refused", "ack", "ack_state", "wants_application_ack", "message_key", "digest",
    "replay_of", "replay_root", "config_as_of", "decision", "flagged_duplicate_of", "partition", "node", "day",
)  # fmt: skip
_INSERT_ENTRIES: Final = Rows(entry, _ENTRY_COLUMNS)
_INSERT_PAYLOADS: Final = Rows(payload, ("entry_id", "head", "body", "day"))
_INSERT_REPEATS: Final = Rows(repeat, ("id", "entry_id", "channel", "received_at", "ack", "ack_state", "node"))
_UPSERT_LINKS: Final = Rows(
    schema.link, ("channel", "sequence_number"), conflict=("channel",), replace=("sequence_number",)
)
_LAST_ENTRY: Final = Statement(select(func.coalesce(func.max(entry.c.id), literal_column("0"))))
_LAST_REPEAT: Final = Statement(select(func.coalesce(func.max(repeat.c.id), literal_column("0"))))
_ORIGINALS: Final = Listed(
    entry.c.message_key,
    lambda listed: select(
        entry.c.message_key, entry.c.id, entry.c.channel, entry.c.digest, entry.c.ack, entry.c.received_at,
        entry.c.wants_application_ack,
    ).where(listed, entry.c.refused == literal_column("0"), entry.c.replay_of.is_(None)),
)  # fmt: skip
_REPLAY_ROOTS: Final = Listed(
    entry.c.id,
    lambda listed: select(entry.c.id, func.coalesce(entry.c.replay_root, entry.c.id).label("root")).where(listed),
)
_MARK_ENTRIES: Final = Listed(
    entry.c.id,
    lambda listed: update(entry).where(listed).values(ack_state=bindparam("ack_state")),
    ("ack_state",),
)
_MARK_REPEATS: Final = Listed(
    repeat.c.id,
    lambda listed: update(repeat).where(listed).values(ack_state=bindparam("ack_state")),
    ("ack_state",),
)
_ANSWER_ENTRIES: Final = Listed(
    entry.c.id, lambda listed: update(entry).where(listed).values(ack=bindparam("code")), ("code",)
)
_ANSWER_REPEATS: Final = Listed(
    repeat.c.id, lambda listed: update(repeat).where(listed).values(ack=bindparam("code")), ("code",)
)
_OF_OUTCOME: Final = [column for column in outcome.c if column.name != "channel"]  # that is the entry's too
_OWN_PAYLOAD: Final = and_(payload.c.entry_id == entry.c.id, payload.c.day == entry.c.day)
_JOINED: Final = select(entry, payload.c.head, payload.c.body).outerjoin(payload, _OWN_PAYLOAD)
_AFTER: Final = Statement(
    select(entry.c.id, entry.c.partition)
    .where(entry.c.channel == bindparam("channel"), entry.c.id > bindparam("position"))
    .order_by(entry.c.id)
    .limit(bindparam("count", type_=entry.c.id.type)),
    ("channel", "position", "count"),
)
_BY_IDS: Final = Listed(entry.c.id, lambda listed: _JOINED.where(listed).order_by(entry.c.id))
_NARROW: Final = Listed(entry.c.id, lambda listed: select(entry).where(listed))
_SIZES: Final = Listed(
    entry.c.id,
    lambda listed: (
        select(entry.c.id, func.length(payload.c.body).label("size")).join(payload, _OWN_PAYLOAD).where(listed)
    ),
)
_RECEIVED: Final = Listed(entry.c.id, lambda listed: select(entry.c.id, entry.c.received_at).where(listed))
_STATES: Final = Listed(outcome.c.entry_id, lambda listed: select(outcome.c.entry_id, outcome.c.state).where(listed))
_REPLAYED: Final = Listed(
    schema.dead_letter.c.entry_id,
    lambda listed: select(schema.dead_letter.c.entry_id, schema.dead_letter.c.resolved_by).where(
        listed, schema.dead_letter.c.resolved_by.like("entry:%")
    ),
)
_HEAD: Final = Statement(
    select(entry, payload.c.head)
    .select_from(entry.join(payload, _OWN_PAYLOAD))
    .where(entry.c.id == bindparam("wanted")),
    ("wanted",),
)

_log = get_logger(__name__)
_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(Head).decode


class _Original(msgspec.Struct, frozen=True, gc=False):
    """What is known of the holder of a message key."""

    id: int
    channel: str
    digest: bytes
    ack: AckCode | None
    received_at: datetime
    wants_application_ack: bool
    summary: Summary | None = None
    """Known without a look-up when it came in the same group."""


class Journal:
    """Reading and appending. Methods that write must run in a transaction of the journal's ledger."""

    def __init__(self, keys: KeyRing, node: str = "") -> None:
        """node: whose daemon appends here, and owes the answers; empty for a command."""
        self._keys = keys
        self._hashes = _Hashes(keys)
        self._node = node
        self._claimed: Any = None
        """The database session that has the node's name."""

    def append(
        self, conn: Connection, receipts: Sequence[Receipt], *, sent: Sequence[int] = (), unsent: Sequence[int] = ()
    ) -> list[Stored]:
        """Store what arrived; one result for each receipt, in their order. Re-runnable.

        sent, unsent: the arrivals whose answers have gone out since, and those whose answers could not.
        """
        self._mark(conn, sent, AckState.SENT)
        self._mark(conn, unsent, AckState.UNSENT)
        if not receipts:
            return []
        self.lock(conn)
        return _Group(self._keys, self._hashes, self._node, conn, receipts).append()

    def lock(self, conn: Connection) -> None:
        """On PostgreSQL, have the appends of all nodes wait until this transaction is over (see decision 9)."""
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_APPEND_LOCK,))

    def append_each(self, conn: Connection, items: Sequence[Append]) -> list[list[Stored]]:
        """`append` for many callers at once: what `Ledger.add` wants."""
        for code in AckCode:
            arrivals = [arrival for item in items for arrival, own in item.answered if own is code]
            if arrivals:
                _ANSWER_ENTRIES.write(conn, [arrival for arrival in arrivals if arrival > 0], code.value)
                _ANSWER_REPEATS.write(conn, [-arrival for arrival in arrivals if arrival < 0], code.value)
        stored = self.append(
            conn,
            [receipt for item in items for receipt in item.receipts],
            sent=[arrival for item in items for arrival in item.sent],
            unsent=[arrival for item in items for arrival in item.unsent],
        )
        results: list[list[Stored]] = []
        at = 0
        for item in items:
            results.append(stored[at : at + len(item.receipts)])
            at += len(item.receipts)
        return results

    def claim(self, conn: Connection) -> bool:
        """Become the only daemon of this node's name, or make sure that we still are; false: another one runs.

        To be called again now and then: the claim falls with the database session. On SQLite the status file does it.
        """
        if conn.dialect.name != "postgresql":
            return True
        session = conn.connection.driver_connection
        if session is self._claimed:
            conn.exec_driver_sql("SELECT 1")  # what was asked nothing does not tell that it is gone
            return True
        number = zlib.crc32(self._node.encode()) & 0x7FFFFFFF
        locked = conn.exec_driver_sql("SELECT pg_try_advisory_lock(%s, %s)", (_NODE_SPACE, number)).scalar_one()
        self._claimed = session if locked else None
        return bool(locked)

    def mark_startup_unsent(self, conn: Connection) -> int:
        """At the start of this node: whoever was owed an answer by it did not get it. Returns how many."""
        return sum(
            conn.execute(
                update(table)
                .where(table.c.ack_state == text("'owed'"), table.c.node == self._node)
                .values(ack_state=AckState.UNSENT.value)
            ).rowcount
            for table in (entry, repeat)
        )

    def channels(self, conn: Connection) -> list[str]:
        """Every channel that ever received something, in order of name. One seek in the index for each."""
        return [row.channel for row in _CHANNELS.rows(conn)]

    def after(self, conn: Connection, channel: str, position: int, limit: int) -> list[tuple[int, int]]:
        """The channel's next entries in the order of their commits: (id, partition)."""
        return [(row.id, row.partition) for row in _AFTER.rows(conn, channel, position, limit)]

    def entries(self, conn: Connection, ids: Sequence[int]) -> list[Entry]:
        """These entries, in the order of their ids. Ends early when they hold very many bytes.

        One whose stored bytes can't be read any more comes as damaged: it must not hold up those behind it.
        """
        try:
            found = self._read_entries(conn, ids)
        except StoreDamagedError:
            found = [self._read_alone(conn, wanted) for wanted in ids]
        return self._with_history(conn, found)

    def entry(self, conn: Connection, entry_id: int) -> Entry | None:
        return next(iter(self.entries(conn, [entry_id])), None)

    def first_received(self, conn: Connection, *, decided: bool = False) -> Mapping[str, datetime]:
        """Since when each channel is observed on these charts: the time of its first entry that has changed one, or
        may yet. So what was decided in shadow does not count for the living. decided: of those that have, alone.
        """
        first: dict[str, datetime] = {}
        observed = outcome.c.chart_id.is_not(None)
        for channel in self.channels(conn):
            statement = (
                select(entry.c.received_at)
                .select_from(entry.outerjoin(outcome, outcome.c.entry_id == entry.c.id))
                .where(entry.c.channel == channel, observed if decided else or_(observed, outcome.c.entry_id.is_(None)))
                .order_by(entry.c.id)
                .limit(1)
            )
            micros = conn.execute(statement).scalar_one_or_none()
            if micros is not None:
                first[channel] = from_micros(micros)
        return first

    def sequence_number(self, conn: Connection, channel: str) -> int | None:
        """The last sequence number (MSH-13) that was stored for a channel; `append` keeps it."""
        statement = select(schema.link.c.sequence_number).where(schema.link.c.channel == channel)
        number: int | None = conn.execute(statement).scalar_one_or_none()
        return number

    def forget_sequence_number(self, conn: Connection, channel: str) -> None:
        """The sender resynchronises its link: whatever number comes next is the right one."""
        conn.execute(delete(schema.link).where(schema.link.c.channel == channel))

    def is_repeat(self, conn: Connection, receipt: Receipt) -> bool:
        """Whether `append` would find this receipt to be an exact duplicate."""
        return _Group(self._keys, self._hashes, self._node, conn, [receipt]).is_repeat()

    def find(
        self,
        conn: Connection,
        *,
        ids: Sequence[int] | None = None,
        control_id: str | None = None,
        before: int | None = None,
        limit: int | None = 100,
        **conditions: Unpack[EntryConditions],
    ) -> list[ListedEntry]:
        """Entries that meet all conditions, newest first. Needs a reader: it looks at both sides.

        before: only those with a lower id; so a long list is read piece by piece.
        """
        where, number = self._where(conn, conditions)
        if ids is not None:
            where.append(entry.c.id.in_(ids))
        if control_id is not None:
            where.append(entry.c.message_key.between(*self._hashes.control_range(control_id)))
        if before is not None:
            where.append(number < before)
        repeats = select(func.count()).where(repeat.c.entry_id == entry.c.id).scalar_subquery()
        statement = (
            select(entry, payload.c.head, *_OF_OUTCOME, repeats.label("repeats"))
            .select_from(entry.outerjoin(payload, _OWN_PAYLOAD).outerjoin(outcome, outcome.c.entry_id == entry.c.id))
            .where(*where)
            .order_by(number.desc())
        )
        if limit is not None and control_id is None:
            statement = statement.limit(limit)
        found: list[ListedEntry] = []
        for row in conn.execute(statement):
            listed = self._listed(row)
            if control_id is None or listed.control_id == control_id:  # the index knows only a part of its hash
                found.append(listed)
                if limit is not None and len(found) >= limit:
                    break
        return found

    def listed(self, conn: Connection, ids: Sequence[int]) -> list[ListedEntry]:
        """These entries as lists show them, newest first, but for those that lie in a damaged part of the store."""
        found: list[ListedEntry] = []
        wanted = sorted(set(ids), reverse=True)
        for at in range(0, len(wanted), _IDS_MAX):
            some = wanted[at : at + _IDS_MAX]
            try:
                with translated():
                    found += self.find(conn, ids=some, limit=None)
            except StoreDamagedError:
                for one in some:
                    with contextlib.suppress(StoreDamagedError), translated():
                        found += self.find(conn, ids=[one], limit=None)
        return found

    def count(self, conn: Connection, **conditions: Unpack[EntryConditions]) -> int:
        """How many entries meet the conditions."""
        where, number = self._where(conn, conditions)
        patient, state = conditions.get("patient"), conditions.get("state")
        by_outcome = conditions.get("decided") or patient is not None or state not in {None, EntryState.REFUSED}
        source = entry.outerjoin(outcome, outcome.c.entry_id == entry.c.id) if by_outcome else entry
        return int(conn.execute(select(func.count(number)).select_from(source).where(*where)).scalar_one())

    def originals(self, conn: Connection, **conditions: Unpack[EntryConditions]) -> list[int]:
        """Ids of all messages that meet the conditions and are no replays, oldest first."""
        where, number = self._where(conn, {**conditions, "kind": EntryKind.MESSAGE})
        patient, state = conditions.get("patient"), conditions.get("state")
        if patient is not None and state is None:
            where.append(entry.c.refused == 0)  # what was refused of a patient was never processed
        statement = (
            select(entry.c.id)
            .select_from(entry.outerjoin(outcome, outcome.c.entry_id == entry.c.id))
            .where(*where, entry.c.replay_of.is_(None))
            .order_by(number)
        )
        return list(conn.execute(statement).scalars())

    def replayed(self, conn: Connection, ids: Sequence[int]) -> set[int]:
        """Which of these entries a later replay stands for, that was processed: one of theirs, or of their original."""
        if not ids:
            return set()
        root = func.coalesce(entry.c.replay_root, entry.c.id)
        replays = (
            select(entry.c.replay_root, entry.c.id)
            .select_from(outcome.join(entry, entry.c.id == outcome.c.entry_id))
            .where(outcome.c.state == EntryState.PROCESSED.value, outcome.c.entry_id > min(ids))
            .where(entry.c.replay_root.is_not(None))
        )
        newest: dict[int, int] = {}
        for row in conn.execute(replays):
            newest[row.replay_root] = max(row.id, newest.get(row.replay_root, 0))
        if not newest:
            return set()
        found: set[int] = set()
        for at in range(0, len(ids), _IDS_MAX):
            some = select(entry.c.id, root.label("root")).where(entry.c.id.in_(ids[at : at + _IDS_MAX]))
            found |= {row.id for row in conn.execute(some) if newest.get(row.root, 0) > row.id}
        return found

    def _where(
        self, conn: Connection, conditions: EntryConditions
    ) -> tuple[list[ColumnElement[bool]], ColumnElement[int]]:
        """Also the column of the entry's id to go by: that of the index which leads to these."""
        where: list[ColumnElement[bool]] = []
        number: ColumnElement[int] = entry.c.id
        channel, kind, state = conditions.get("channel"), conditions.get("kind"), conditions.get("state")
        if channel is not None:
            where.append(entry.c.channel == channel)
        if kind is EntryKind.MESSAGE:
            where.append(entry.c.channel.not_in(LANES))
        elif kind is not None:
            where.append(entry.c.channel == kind.lane)
        if state is EntryState.RECEIVED:
            where.extend((outcome.c.entry_id.is_(None), entry.c.refused == 0, _beyond_cursors(conn, channel)))
        elif state is EntryState.REFUSED:
            where.append(entry.c.refused == literal_column("1"))  # as the index on them is written
        elif state is not None:
            where.append(outcome.c.state == state.value)
            number = outcome.c.entry_id
        if conditions.get("decided"):
            where.append(outcome.c.entry_id.is_not(None))
        if (patient := conditions.get("patient")) is not None:
            where.append(of_patient(conn, self._keys, patient))
        if (error := conditions.get("error")) is not None:
            died = select(schema.dead_letter.c.entry_id).where(schema.dead_letter.c.error == error)
            where.append(entry.c.id.in_(died))
        if conditions.get("held"):
            where.append(entry.c.id.in_(open_entries()))
        if conditions.get("flagged"):
            where.append(entry.c.flagged_duplicate_of.is_not(None))
        if (since := conditions.get("since")) is not None:
            where.append(entry.c.received_at >= to_micros(since))
        if (until := conditions.get("until")) is not None:
            where.append(entry.c.received_at < to_micros(until))
        return where, number

    def _mark(self, conn: Connection, arrivals: Sequence[int], state: AckState) -> None:
        entries = [arrival for arrival in arrivals if arrival > 0]
        if entries:
            _MARK_ENTRIES.write(conn, entries, state.value)
        if len(entries) < len(arrivals):
            _MARK_REPEATS.write(conn, [-arrival for arrival in arrivals if arrival < 0], state.value)

    def _read_entries(self, conn: Connection, ids: Sequence[int]) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for at in range(0, len(ids), _READ_ENTRIES_MAX):
            part = ids[at : at + _READ_ENTRIES_MAX]
            with translated():
                sizes = {row.id: row.size or 0 for row in _SIZES.rows(conn, part)} if len(ids) > 1 else {}
            kept: list[int] = []
            for wanted in part:
                kept.append(wanted)
                size += sizes.get(wanted, 0)
                if size > _BATCH_BYTES_MAX:
                    break
            with translated():
                rows = _BY_IDS.rows(conn, kept)
            found.extend(map(self._entry, rows))
            if size > _BATCH_BYTES_MAX:
                break
        return found

    def _read_alone(self, conn: Connection, entry_id: int) -> Entry:
        """One of several of which at least one lies in a damaged page."""
        try:
            return self._read_entries(conn, [entry_id])[0]
        except StoreDamagedError:
            with translated():
                row = _NARROW.rows(conn, [entry_id])[0]
            return self._damaged(row)

    def _with_history(self, conn: Connection, found: list[Entry]) -> list[Entry]:
        """Replays get the time at which their message first came, and whether it was applied before."""
        roots = {one.replay_root for one in found if one.replay_root is not None}
        if not roots:
            return found
        times = {row.id: from_micros(row.received_at) for row in _RECEIVED.rows(conn, sorted(roots))}
        settled = _settled(conn, roots)
        return [
            one
            if one.replay_root is None
            else msgspec.structs.replace(
                one, first_received_at=times.get(one.replay_root), settled=one.replay_root in settled
            )
            for one in found
        ]

    def _entry(self, row: Any) -> Entry:
        if row.head is None and row.day is None:  # swept after its retention; the narrow row stays
            return msgspec.structs.replace(self._damaged(row), erased=True)
        try:
            head = open_head(self._keys, row)
            body = b"" if row.body is None else self._keys.open(body_place(row.id), row.body)
        except TamperedError as error:
            _log.error("a stored entry is damaged", entry=row.id, channel=row.channel, exc_info=error)
            return self._damaged(row)
        return _entry_of(row, head, body)

    @staticmethod
    def _damaged(row: Any) -> Entry:
        """What the narrow row alone says."""
        head = Head(peer="", summary=Summary(), refusal=_DAMAGED if row.refused else None)
        return _entry_of(row, head, b"", damaged=True)

    def _listed(self, row: Any) -> ListedEntry:
        try:
            head = open_head(self._keys, row)
        except TamperedError:
            head = Head(peer="", summary=Summary())
        document = OutcomeDocument()
        if row.document is not None:
            try:
                document = open_outcome(self._keys, row)
            except TamperedError:
                document = OutcomeDocument(
                    reason="what came of this entry can't be read any more: its record is damaged"
                )
        state = (
            EntryState.REFUSED if row.refused else word(EntryState, row.state or EntryState.RECEIVED, EntryState.DEAD)
        )
        return ListedEntry(
            id=row.id,
            kind=kind_of(row.channel),
            channel=row.channel,
            control_id=head.summary.control_id,
            type=head.summary.type,
            received_at=from_micros(row.received_at),
            state=state,
            ack=word(AckCode, row.ack, AckCode.AR) if row.ack else None,
            ack_state=word(AckState, row.ack_state, AckState.UNSENT),
            patient_key=document.patient_key,
            replay_of=row.replay_of,
            reason=head.refusal.text if head.refusal else document.reason,
            flagged_duplicate_of=row.flagged_duplicate_of,
            repeats=row.repeats,
            sender=_sender(head.summary),
            peer=head.peer or None,
            deviations=tuple(dict.fromkeys((*head.deviations, *document.deviations))),
            without_effect=any(effect.kind in _NOTHING for effect in document.effects),
            test=head.test or bool(row.test),
        )


def _sender(summary: Summary) -> str | None:
    return "/".join(filter(None, (summary.sending_application, summary.sending_facility))) or None


class _Hashes:
    """Keyed hashes of what arrives."""

    def __init__(self, keys: KeyRing) -> None:
        self._control = keys.lookup_behind("control")
        self._neighbours = lru_cache(maxsize=_BEGINNINGS_MAX)(self._control)
        self.partition = partitioning(keys)
        self.content = keys.lookup_behind("content")
        """Of a dedupe key and a digest."""

    def control(self, control_id: str) -> bytes:
        beginning = control_id[:-_COUNTED]
        known = self._neighbours if len(beginning) <= _BEGINNING_CHARACTERS_MAX else self._control
        return known(beginning)[:4] + self._control(control_id)[:2]

    def control_range(self, control_id: str) -> tuple[int, int]:
        control = self.control(control_id)
        return _signed(control + bytes(2)), _signed(control + b"\xff" * 2)


class _Group:
    """One append: what it knows while it walks through the receipts."""

    def __init__(
        self, keys: KeyRing, hashes: _Hashes, node: str, conn: Connection, receipts: Sequence[Receipt]
    ) -> None:
        self._keys = keys
        self._hashes = hashes
        self._node = node
        self._conn = conn
        self._receipts = receipts
        self._entries: list[tuple[Any, ...]] = []
        self._payloads: list[tuple[Any, ...]] = []
        self._repeats: list[tuple[Any, ...]] = []
        self._links: dict[str, int] = {}
        self._known: dict[int, list[_Original]] = {}
        self._roots: dict[int, int] = {}
        self._last_repeat: int | None = None
        self._id: int = _LAST_ENTRY.scalar(conn)

    def append(self) -> list[Stored]:
        controls = [self._control(receipt) for receipt in self._receipts]
        first_keys = [
            _signed(control + receipt.dedupe_key[:2])
            if control and receipt.dedupe_key and receipt.refusal is None and receipt.replay_of is None
            else None
            for control, receipt in zip(controls, self._receipts, strict=True)
        ]
        self._look_up([key for key in first_keys if key is not None])
        conflicts = [
            self._content_key(control, receipt)
            for key, control, receipt in zip(first_keys, controls, self._receipts, strict=True)
            if key is not None and any(known.digest != receipt.digest for known in self._known.get(key, ()))
        ]
        self._look_up(conflicts)
        replayed = [receipt.replay_of for receipt in self._receipts if receipt.replay_of is not None]
        if replayed:
            self._roots = {row.id: row.root for row in _REPLAY_ROOTS.rows(self._conn, replayed)}
        stored = [
            self._one(receipt, control, key)
            for receipt, control, key in zip(self._receipts, controls, first_keys, strict=True)
        ]
        _INSERT_ENTRIES.write(self._conn, self._entries)
        _INSERT_PAYLOADS.write(self._conn, self._payloads)
        _INSERT_REPEATS.write(self._conn, self._repeats)
        _UPSERT_LINKS.write(self._conn, sorted(self._links.items()))
        return stored

    def is_repeat(self) -> bool:
        """Of a group of one: whether it holds an exact duplicate. Writes nothing."""
        receipt = self._receipts[0]
        control = self._control(receipt)
        if not control or not receipt.dedupe_key or receipt.refusal is not None or receipt.replay_of is not None:
            return False
        keys = (_signed(control + receipt.dedupe_key[:2]), self._content_key(control, receipt))
        self._look_up(keys)
        return any(
            original.digest == receipt.digest and original.channel == receipt.channel
            for key in keys
            for original in self._known.get(key, ())
        )

    def _control(self, receipt: Receipt) -> bytes:
        control_id = receipt.summary.control_id
        return self._hashes.control(control_id) if control_id else b""

    def _content_key(self, control: bytes, receipt: Receipt) -> int:
        return _signed(control + self._hashes.content(receipt.dedupe_key or b"", receipt.digest)[:2])

    def _look_up(self, message_keys: Sequence[int]) -> None:
        if not message_keys:
            return
        for row in _ORIGINALS.rows(self._conn, sorted(set(message_keys))):
            self._known.setdefault(row.message_key, []).append(
                _Original(
                    row.id,
                    row.channel,
                    row.digest,
                    word(AckCode, row.ack, AckCode.AR) if row.ack else None,
                    from_micros(row.received_at),
                    bool(row.wants_application_ack),
                )
            )

    def _one(self, receipt: Receipt, control: bytes, first_key: int | None) -> Stored:
        if first_key is None:
            return self._add(receipt, _signed(control + bytes(2)) if control else None)
        holders = self._known.get(first_key)
        if not holders:
            return self._add(receipt, first_key)
        content_key = self._content_key(control, receipt)
        for original in (*holders, *self._known.get(content_key, ())):
            if original.digest == receipt.digest and original.channel == receipt.channel:
                return self._repeat(receipt, original)
        conflict = next((original for original in holders if self._same_sender(receipt, original)), None)
        if conflict is None:  # another message whose hash has the same 64 bits
            return self._add(receipt, content_key)
        if receipt.refuse_conflict:
            refused = msgspec.structs.replace(
                receipt,
                refusal=faults.CONFLICT,
                ack=receipt.conflict_ack,
                ack_state=AckState.OWED if receipt.conflict_ack else AckState.NOT_OWED,
                wants_application_ack=False,
            )
            return self._add(refused, _signed(control + bytes(2)), conflict.id)
        return self._add(receipt, content_key, conflict.id)

    def _same_sender(self, receipt: Receipt, original: _Original) -> bool:
        summary = original.summary
        if summary is None:
            row = _HEAD.first(self._conn, original.id)
            try:
                summary = open_head(self._keys, row).summary if row else None
            except TamperedError:  # or swept: nobody can say any more, so it is a message of its own
                return False
            if summary is None:
                return False
        return (
            original.channel == receipt.channel
            and summary.control_id == receipt.summary.control_id
            and summary.sending_application == receipt.summary.sending_application
            and summary.sending_facility == receipt.summary.sending_facility
        )

    def _add(self, receipt: Receipt, message_key: int | None, conflict_with: int | None = None) -> Stored:
        self._id += 1
        number = self._id
        root = None
        if receipt.replay_of is not None:
            root = self._roots.get(receipt.replay_of)
            if root is None:
                raise StoreError(f"entry {receipt.replay_of} is not in the journal: it can't be replayed")
        head = Head(
            peer=receipt.peer,
            summary=receipt.summary,
            deviations=receipt.deviations,
            refusal=receipt.refusal,
            test=receipt.test,
        )
        seal = self._keys.seal
        refused = receipt.refusal is not None
        partition = self._hashes.partition(receipt.ordering_key)
        received_at = to_micros(receipt.received_at)
        day = day_of(receipt.received_at)
        place = _head_place(
            number, receipt.channel, received_at, int(refused), root, receipt.config_as_of, receipt.decision, partition
        )
        self._payloads.append(
            (number, seal(place, _encode(head)), seal(f"payload.body:{number}", receipt.payload), day)
        )
        ack = receipt.ack.value if receipt.ack else None
        self._entries.append(
            (number, receipt.channel, received_at, int(refused), ack, receipt.ack_state.value,
             int(receipt.wants_application_ack), message_key, receipt.digest, receipt.replay_of, root,
             receipt.config_as_of, receipt.decision, conflict_with, partition, self._node, day)
        )  # fmt: skip
        if not refused and receipt.replay_of is None:
            if receipt.sequence_number is not None:
                self._links[receipt.channel] = receipt.sequence_number
            if message_key is not None:
                self._known.setdefault(message_key, []).append(
                    _Original(
                        number,
                        receipt.channel,
                        receipt.digest,
                        receipt.ack,
                        receipt.received_at,
                        receipt.wants_application_ack,
                        receipt.summary,
                    )
                )
        return Stored(
            arrival=number,
            id=number,
            conflict_with=conflict_with,
            refused=refused,
            ack=receipt.ack,
            ack_state=receipt.ack_state,
            received_at=receipt.received_at,
            wants_application_ack=receipt.wants_application_ack,
        )

    def _repeat(self, receipt: Receipt, original: _Original) -> Stored:
        if receipt.once:
            return Stored(arrival=0, id=None, duplicate_of=original.id, received_at=original.received_at)
        if self._last_repeat is None:
            self._last_repeat = _LAST_REPEAT.scalar(self._conn)
        self._last_repeat += 1
        number = self._last_repeat
        ack_state = receipt.ack_state if original.ack else AckState.NOT_OWED
        ack = original.ack.value if original.ack else None
        self._repeats.append(
            (number, original.id, receipt.channel, to_micros(receipt.received_at), ack, ack_state.value, self._node)
        )
        return Stored(
            arrival=-number,
            id=None,
            duplicate_of=original.id,
            ack=original.ack,
            ack_state=ack_state,
            received_at=original.received_at,
            wants_application_ack=original.wants_application_ack,
        )


def _settled(conn: Connection, roots: Collection[int]) -> set[int]:
    """Those of the messages that were applied, and left no question open. One that died may have been so by a replay.

    Needs a reader: what became of them stands on the other side.
    """
    standing = {root: root for root in roots}  # root -> the entry of its chain to look at
    applied: set[int] = set()
    while standing:
        states = {row.entry_id: row.state for row in _STATES.rows(conn, sorted(standing.values()))}
        applied |= {root for root, one in standing.items() if states.get(one) == EntryState.PROCESSED}
        dead = {one: root for root, one in standing.items() if states.get(one) == EntryState.DEAD}
        replays = _REPLAYED.rows(conn, sorted(dead)) if dead else []
        standing = {dead[row.entry_id]: int(row.resolved_by.partition(":")[2]) for row in replays}
    return applied - {row.root_id for row in ASKED.rows(conn, sorted(applied))} if applied else applied


def _entry_of(row: Any, head: Head, body: bytes, *, damaged: bool = False) -> Entry:
    return Entry(
        id=row.id,
        channel=row.channel,
        peer=head.peer,
        received_at=from_micros(row.received_at),
        payload=body,
        summary=head.summary,
        deviations=head.deviations,
        refusal=head.refusal,
        partition=row.partition,
        test=head.test,
        ack=word(AckCode, row.ack, AckCode.AR) if row.ack else None,
        ack_state=word(AckState, row.ack_state, AckState.UNSENT),
        wants_application_ack=bool(row.wants_application_ack),
        replay_of=row.replay_of,
        replay_root=row.replay_root,
        config_as_of=row.config_as_of,
        decision=row.decision,
        flagged_duplicate_of=row.flagged_duplicate_of,
        damaged=damaged,
    )


def open_head(keys: KeyRing, row: Any) -> Head:
    """row: of the entry, with the `head` of its payload. Raises TamperedError."""
    return _decode_head(keys.open(head_place(row), row.head or b""))


def head_place(row: Any) -> str:
    """row: of the entry."""
    return _head_place(
        row.id, row.channel, row.received_at, row.refused, row.replay_root, row.config_as_of, row.decision,
        row.partition
    )  # fmt: skip


def body_place(entry_id: int) -> str:
    return f"payload.body:{entry_id}"


def _head_place(
    entry_id: int,
    channel: str,
    received_at: int,
    refused: int,
    replay_root: int | None,
    config_as_of: str | None,
    decision: str | None,
    partition: int,
) -> str:
    """With the plain columns that decide how an entry is read: a channel has authorities and a mapping of its own."""
    return (
        f"payload.head:{entry_id}/{channel}/{received_at}/{refused}/{replay_root}/{config_as_of}/{decision}/{partition}"
    )


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, signed=True)


def _beyond_cursors(conn: Connection, channel: str | None) -> ColumnElement[bool]:
    """Entries that may have no outcome yet: of each channel those behind the lowest of its cursors."""
    numbers = func.count(schema.cursor.c.partition).label("number")
    statement = select(schema.cursor.c.channel, numbers, func.min(schema.cursor.c.position).label("lowest")).group_by(
        schema.cursor.c.channel
    )
    lowest = {row.channel: row.lowest if row.number == PARTITIONS else 0 for row in conn.execute(statement)}
    channels = [channel] if channel is not None else [row.channel for row in _CHANNELS.rows(conn)]
    return or_(false(), *(and_(entry.c.channel == name, entry.c.id > lowest.get(name, 0)) for name in channels))


def _loose_channels() -> Any:
    """Distinct channels by one index seek each; DISTINCT would walk through every entry."""
    smallest = select(func.min(entry.c.channel).label("channel")).cte("known", recursive=True)
    following = select(func.min(entry.c.channel)).where(entry.c.channel > smallest.c.channel).scalar_subquery()
    known = smallest.union_all(select(following).where(smallest.c.channel.is_not(None)))
    return select(known.c.channel).where(known.c.channel.is_not(None)).order_by(known.c.channel)


_CHANNELS: Final = Statement(_loose_channels())
