"""The trail: who did what, when, to what, and why. Rows are only ever added, each chained to the one before it.

`AuditStore.append` runs in the transaction of what it records: when the record can't be made, nothing is done. A row's
MAC covers the version of what goes in, the chain's name, every column, and the MAC of the row before; what is sealed
goes in as a salted hash, so that it can be erased and the chain still holds. How all of it is checked:
`engine.store.verify`. Why it is so: docs/decisions/0035-the-trail.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy import bindparam as bind

from engine.domain.audit import EVENTS, AuditRecord, Recorded, Result, Whence
from engine.domain.record import Phi
from engine.errors import KeyMissingError, TamperedError, UnrecordedError
from engine.store import fence
from engine.store.keys import KeyRing
from engine.store.schema import (
    audit,
    audit_head,
    audit_patient,
    audit_payload,
    audit_purge,
    from_micros,
    to_micros,
)
from engine.store.statements import Listed, Rows, Statement

VERSION: Final = 1
"""Of what goes into a row's MAC."""
_BOUND: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("at", "actor", "action", "subject", "result", "purpose", "entry_id", "payload_hash"),
}
"""Columns that go in by the row's version, besides version, chain, key, number and the MAC before. A version is never
changed: a later one is added."""
_SALT_BYTES: Final = 16
PURGED: Final = "trail-purged"
RESEALED: Final = "trail-resealed"

_COLUMNS: Final = tuple(column.name for column in audit.c)
_INSERT: Final = Rows(audit, _COLUMNS)
_INSERT_PAYLOAD: Final = Rows(audit_payload, ("seq", "body"))
_INSERT_PATIENT: Final = Rows(audit_patient, ("chart_id", "seq"), conflict=("chart_id", "seq"))
_HEAD: Final = Statement(select(audit_head).with_for_update())
_MOVE_HEAD: Final = Statement(
    update(audit_head)
    .where(audit_head.c.chain == bind("which"), audit_head.c.seq == bind("before"))
    .values(seq=bind("new"), mac=bind("last")),
    ("which", "before", "new", "last"),
)
_ADDED: Final = Statement(
    select(audit.c.seq, audit.c.mac).where(audit.c.seq > bind("after")).order_by(audit.c.seq), ("after",)
)
_PAYLOADS: Final = Listed(
    audit_payload.c.seq, lambda listed: select(audit_payload.c.seq, audit_payload.c.body).where(listed)
)


class Payload(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """What of a record is sealed. Written in the form of RFC 8785: names in order, no space."""

    reason: str | None = None
    patients: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    terms: str | None = None
    count: int | None = None
    address: str | None = None
    host: str | None = None
    tty: str | None = None
    loginuid: int | None = None
    session: int | None = None
    sudo_uid: int | None = None
    uid: int | None = None
    command: str | None = None
    facts: dict[str, Any] = {}
    """`AuditRecord.facts`; of a record about the trail itself: what is gone, from where on it was restored."""

    @property
    def whence(self) -> Whence | None:
        found = {name: getattr(self, name) for name in Whence.__struct_fields__}
        return Whence(**found) if any(value is not None for value in found.values()) else None


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Payload).decode
_NOTHING: Final = Payload()


class Added(msgspec.Struct):
    """What was added by this process: numbers of the first and the last record; 0: none. actions: all of them."""

    first: int = 0
    last: int = 0
    actions: set[str] = set()


class Head(msgspec.Struct, frozen=True):
    """The end of a chain."""

    chain: str
    """Its random name."""
    seq: int
    mac: bytes


class AuditStore:
    """What writes must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._looked = False
        self.added = Added()

    def append(self, conn: Connection, records: Sequence[AuditRecord]) -> None:
        """Add records. Raises UnrecordedError, or AlteredSchemaError when what is written may be swallowed."""
        self._append(conn, [(record, _payload(record)) for record in records])

    def purge(
        self, conn: Connection, record: AuditRecord, ranges: Iterable[tuple[int, int]], *, whole: bool = False
    ) -> None:
        """Erase the sealed parts of records, by first and last number; whole: the oldest records, from number 1 or the
        last such purge on. The record (action `trail-purged`) names them, and their hashes or last MAC stay.
        """
        gone = sorted(ranges)
        if not gone:
            return
        before = None
        if whole:
            found = conn.execute(select(audit.c.mac).where(audit.c.seq == gone[-1][1])).scalar_one_or_none()
            before = None if found is None else bytes(found).hex()
        facts = {"ranges": [list(one) for one in gone], "whole": whole, "mac": before}
        (event,) = self._append(conn, [(record, msgspec.structs.replace(_payload(record), facts=facts))])
        conn.execute(
            audit_purge.insert(),
            [{"event": event, "first": first, "last": last, "whole": int(whole)} for first, last in gone],
        )
        for first, last in gone:
            for table in (audit_payload, audit_patient, *((audit,) if whole else ())):
                conn.execute(delete(table).where(table.c.seq.between(first, last)))

    def reseal(self, conn: Connection, record: AuditRecord, *, lost: int, after: int | None = None) -> None:
        """The store was restored to an earlier point, and somebody says so (action `trail-resealed`).

        after: the last record that was restored; none: the last there is. lost: the highest number that a checkpoint
        has seen. Those between are gone; by now others may have their numbers.
        """
        head = self.head(conn)
        facts = {"after": head.seq if after is None else after, "mac": head.mac.hex(), "lost": lost}
        self._append(conn, [(record, msgspec.structs.replace(_payload(record), facts=facts))])

    def head(self, conn: Connection) -> Head:
        """The end of the chain. Raises UnrecordedError when it is gone."""
        row = _HEAD_SEEN.first(conn)
        if row is None:
            raise UnrecordedError("the trail's head is gone: `handoff audit verify` says more; nothing can be recorded")
        return Head(row.chain, row.seq, bytes(row.mac))

    def find(
        self,
        conn: Connection,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        action: str | None = None,
        subject: str | None = None,
        patient: str | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 100,
    ) -> list[Recorded]:
        """Newest first; after: those with higher numbers, oldest first; before: those with lower ones.

        What was altered is among them, as damaged.
        """
        statement = select(audit).where(*_conditions(since, action, until)).order_by(audit.c.seq.desc())
        if subject is not None:
            statement = statement.where(audit.c.subject == subject)
        if patient is not None:
            listed = select(audit_patient.c.seq).where(audit_patient.c.chart_id == patient)
            statement = statement.where(audit.c.seq.in_(listed))
        if after is not None:
            statement = statement.where(audit.c.seq > after).order_by(None).order_by(audit.c.seq)
        if before is not None:
            statement = statement.where(audit.c.seq < before)
        if limit is not None:
            statement = statement.limit(limit)
        rows = conn.execute(statement).all()
        chain = _chain(conn)
        bodies = {row.seq: row.body for row in _PAYLOADS.rows(conn, [row.seq for row in rows])} if rows else {}
        return [self._recorded(chain, row, bodies.get(row.seq)) for row in rows]

    def count(
        self, conn: Connection, *, since: datetime | None = None, action: str | None = None, actor: str | None = None
    ) -> int:
        statement = select(func.count()).select_from(audit).where(*_conditions(since, action))
        if actor is not None:
            statement = statement.where(audit.c.actor == actor)
        return int(conn.execute(statement).scalar_one())

    def actions(self, conn: Connection) -> list[str]:
        """All that was ever done, in order."""
        return list(conn.execute(select(audit.c.action).distinct().order_by(audit.c.action)).scalars())

    def actions_after(self, conn: Connection, seq: int) -> set[str]:
        """What was done since a record."""
        return set(conn.execute(select(audit.c.action).where(audit.c.seq > seq).distinct()).scalars())

    # --- what a row is bound to ---

    def mac(self, chain: str, row: Any) -> bytes:
        """What its MAC must be. Raises KeyMissingError, or TamperedError when its version is none of ours."""
        names = _BOUND.get(row.version)
        if names is None:
            raise TamperedError(f"audit.version:{row.seq}")
        fixed = (row.version, chain, row.key_id, row.seq, row.prev)
        data = b"".join(map(_fed, (*fixed, *(getattr(row, name) for name in names))))
        return self._keys.trail_with(row.key_id).mac(row.key_id, data)

    def payload(self, row: Any, body: bytes | None) -> Payload:
        """What is sealed of a row. Raises TamperedError when it is not what the row was written with, or is gone."""
        if row.payload_hash is None and body is None:
            return _NOTHING
        place = payload_place(row.seq)
        if row.payload_hash is None or body is None:
            raise TamperedError(place)
        plain = self._keys.open(place, body)
        if hashlib.sha256(plain).digest() != bytes(row.payload_hash):
            raise TamperedError(place)
        try:
            return _decode(plain[_SALT_BYTES:])
        except msgspec.MsgspecError:
            raise TamperedError(place) from None

    def _recorded(self, chain: str, row: Any, body: bytes | None) -> Recorded:
        damaged, payload = None, _NOTHING
        try:
            if self.mac(chain, row) != bytes(row.mac):
                damaged = "altered"
        except (KeyMissingError, TamperedError):
            damaged = "can't be checked"
        try:
            payload = self.payload(row, body)
        except (KeyMissingError, TamperedError):
            damaged = damaged or ("its sealed part is gone" if body is None else "its sealed part can't be read")
        return Recorded(
            at=from_micros(row.at),
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            reason=payload.reason,
            result=_result(row.result),
            purpose=row.purpose,
            patients=payload.patients,
            others=payload.others,
            entry=row.entry_id,
            terms=payload.terms,
            count=payload.count,
            whence=payload.whence,
            facts=payload.facts,
            seq=row.seq,
            damaged=damaged,
        )

    def _append(self, conn: Connection, records: Sequence[tuple[AuditRecord, Payload]]) -> list[int]:
        """Returns their numbers."""
        if not records:
            return []
        if not self._looked:
            fence.check(one for one in fence.breaches(conn) if one.table in fence.OF_THE_TRAIL)
            self._looked = True
        row = _HEAD.first(conn)
        if row is None:
            raise UnrecordedError("the trail's head is gone: `handoff audit verify` says more; nothing can be recorded")
        head, keys = Head(row.chain, row.seq, bytes(row.mac)), self._keys.trail
        seq, prev = head.seq, head.mac
        rows: list[_Row] = []
        bodies: list[tuple[int, bytes]] = []
        patients: list[tuple[str, int]] = []
        for record, payload in records:
            if record.action not in EVENTS:
                raise UnrecordedError(f"{record.action} is not in the catalogue of what can be on record")
            seq += 1
            digest = None
            if payload != _NOTHING:
                plain = os.urandom(_SALT_BYTES) + _encode(payload)
                digest = hashlib.sha256(plain).digest()
                bodies.append((seq, self._keys.seal(payload_place(seq), plain)))
            new = _Row(
                seq, VERSION, to_micros(record.at), record.actor, record.action, record.subject, record.result,
                record.purpose, record.entry, digest, prev, b"", keys.number,
            )  # fmt: skip
            prev = self.mac(head.chain, new)
            rows.append(msgspec.structs.replace(new, mac=prev))
            patients.extend((one, seq) for one in dict.fromkeys(payload.patients))
        _INSERT.write(conn, [msgspec.structs.astuple(one) for one in rows])
        _INSERT_PAYLOAD.write(conn, bodies)
        _INSERT_PATIENT.write(conn, patients)
        moved = _MOVE_HEAD.write(conn, head.chain, head.seq, seq, prev)
        # A trigger may take away what we write, without a word: what can't be read back is not on record.
        added = [(one.seq, bytes(one.mac)) for one in _ADDED.rows(conn, head.seq)]
        if moved != 1 or added != [(one.seq, one.mac) for one in rows]:
            raise UnrecordedError("the trail did not keep the record, so nothing was done: `handoff audit verify`")
        self.added.first = self.added.first or rows[0].seq
        self.added.last = rows[-1].seq
        self.added.actions.update(one.action for one in rows)
        return [one.seq for one in rows]


class _Row(msgspec.Struct, frozen=True):
    """A row of the table, in the order of its columns."""

    seq: int
    version: int
    at: int
    actor: str
    action: str
    subject: str
    result: str
    purpose: str | None
    entry_id: int | None
    payload_hash: bytes | None
    prev: bytes
    mac: bytes
    key_id: int


_HEAD_SEEN: Final = Statement(select(audit_head))
_RESULTS: Final[Mapping[str, Result]] = {"allowed": "allowed", "denied": "denied", "failed": "failed"}


def _result(stored: str) -> Result:
    return _RESULTS.get(stored, "failed")


def _chain(conn: Connection) -> str:
    row = _HEAD_SEEN.first(conn)
    return row.chain if row is not None else ""


def _payload(record: AuditRecord) -> Payload:
    whence = {} if record.whence is None else msgspec.structs.asdict(record.whence)
    chart = record.subject.removeprefix("chart:")
    about = record.patients or ((chart,) if chart != record.subject else ())
    return Payload(
        reason=record.reason,
        patients=about,
        others=record.others,
        terms=record.terms,
        count=record.count,
        facts=record.facts,
        **whence,
    )


def _fed(value: Any) -> bytes:
    """A value with its length, so that no two rows come to the same bytes."""
    if value is None:
        return b"-:"
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    raw = b"%d" % raw if isinstance(raw, int) else bytes(raw)
    return b"%d:%b" % (len(raw), raw)


def _conditions(since: datetime | None, action: str | None, until: datetime | None = None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if since is not None:
        where.append(audit.c.at >= to_micros(since))
    if until is not None:
        where.append(audit.c.at < to_micros(until))
    if action is not None:
        where.append(audit.c.action == action)
    return where


def payload_place(seq: int) -> str:
    """The row's hash says the rest."""
    return f"audit_payload.body:{seq}"
