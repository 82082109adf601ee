"""Whether the trail is whole: its chain, the checkpoints of it outside the database, and the books that it stands for.

Nothing is believed because a table says so. Gaps are explained by records of the chain alone: `trail-purged`,
`trail-resealed`. What is found is listed by number and kind; docs/guides/audit.md says what each kind means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Text, cast, func, literal, select

from engine.domain.cause import OF_PEOPLE
from engine.domain.checkpoint import Checkpoint
from engine.domain.message import EntryKind
from engine.domain.record import Record
from engine.errors import KeyMissingError, TamperedError
from engine.store import fence, tallies
from engine.store.audit import PURGED, RESEALED, Head, Payload
from engine.store.deadletters import DISCARDED, LETTER_SWEPT
from engine.store.record import open_outcome
from engine.store.schema import (
    account,
    admission,
    audit,
    audit_head,
    audit_patient,
    audit_payload,
    config_load,
    dead_letter,
    delivery,
    destination,
    from_micros,
    glass,
    hold,
    legal_hold,
    outcome,
)

if TYPE_CHECKING:
    from engine.store.store import Store

_ROWS: Final = 1_000
"""Read at a time."""
BOOKS_BACK: Final = "books-rolled-back"
RESTORED: Final = "restore"
"""Of the trail: the store was set back to a backup."""
PROBLEMS_MAX: Final = 1_000
"""Listed; of a chain that is nothing but damage the first ones say enough."""


class TrailProblem(Record, frozen=True, kw_only=True):
    """seq: the record's number; none: it is about no single one."""

    seq: int | None
    kind: str
    detail: str


class Verified(Record, frozen=True, kw_only=True):
    """The contract's shape, and more. `from` is `first`, `to` is `last` there."""

    ok: bool
    first: int
    last: int
    checkpoints: int
    """How many were compared."""
    purged: int
    """Records that are lawfully gone, or whose sealed part is."""
    problems: tuple[TrailProblem, ...]
    records: int
    """How many are there."""
    restores: int
    """How often the store was set back to an earlier point, and somebody has said so."""
    checkpoint_at: datetime | None
    """Of the newest one that was compared."""


def verify(
    store: Store, conn: Connection, checkpoints: Sequence[Checkpoint] = (), *, unreadable: Sequence[str] = ()
) -> Verified:
    """All of it. conn: a reader. checkpoints: of the places outside. unreadable: places that could not be read."""
    found = _Found()
    for breach in fence.all_breaches(conn):
        found.add(None, "schema", str(breach))
    for place in unreadable:
        found.add(None, "checkpoints-unreadable", place)
    chain = _Chain(store, conn, found)
    compared = chain.checked(checkpoints)
    chain.walk({one.seq for one in compared})
    chain.compare(compared)
    for problem in _books(store, conn):
        found.add(*problem)
    for problem in tallies.problems(store.keys, conn):
        found.add(*problem)
    return Verified(
        ok=not found.problems,
        first=chain.first,
        last=chain.last,
        checkpoints=len(compared),
        purged=chain.purged,
        problems=tuple(found.problems),
        records=chain.records,
        restores=len(chain.reseals),
        checkpoint_at=max((one.at for one in compared), default=None),
    )


def verify_tail(store: Store, conn: Connection, since: int) -> tuple[Head | None, list[TrailProblem]]:
    """The records after a number, and whether the head is their end: what a daemon looks at again and again."""
    found = _Found()
    for breach in fence.all_breaches(conn):
        found.add(None, "schema", str(breach))
    chain = _Chain(store, conn, found)
    chain.walk(set(), since=since)
    head = chain.head
    return head, found.problems


def is_ours(store: Store, one: Checkpoint) -> bool:
    """Whether we have signed it."""
    try:
        return store.keys.trail.is_signed(one.key, one.signed_text, bytes.fromhex(one.signature))
    except ValueError:
        return False


def is_behind(store: Store, conn: Connection, seen: Checkpoint) -> bool:
    """Whether the trail is not what this checkpoint has seen any more, and nobody has said why."""
    head = store.audit.head(conn)
    row = conn.execute(select(audit.c.mac).where(audit.c.seq == seen.seq)).scalar_one_or_none()
    if head.chain == seen.chain and head.seq >= seen.seq and (row is None or bytes(row).hex() == seen.mac):
        return False  # a record that is not there is seen elsewhere
    return not any(one.explains(seen) for one in _reseals(store, conn))


def _reseals(store: Store, conn: Connection) -> Iterator[_Reseal]:
    chain = store.audit.head(conn).chain
    bodies = select(audit, audit_payload.c.body).join(audit_payload, audit_payload.c.seq == audit.c.seq)
    for row in conn.execute(bodies.where(audit.c.action == RESEALED)):
        with contextlib.suppress(TamperedError, KeyMissingError):
            if store.audit.mac(chain, row) == bytes(row.mac):
                yield _Reseal.of(store.audit.payload(row, bytes(row.body)), row.at)


class _Found:
    def __init__(self) -> None:
        self.problems: list[TrailProblem] = []

    def add(self, seq: int | None, kind: str, detail: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(TrailProblem(seq=seq, kind=kind, detail=detail))


class _Reseal(Record, frozen=True, kw_only=True):
    after: int
    lost: int
    at: datetime

    @classmethod
    def of(cls, payload: Payload, at: int) -> _Reseal:
        return cls(after=payload.facts["after"], lost=payload.facts["lost"], at=from_micros(at))

    def explains(self, one: Checkpoint) -> bool:
        """It is of records that are lost by a restore, and somebody has said so."""
        return self.after < one.seq <= self.lost and one.at <= self.at


class _Chain:
    def __init__(self, store: Store, conn: Connection, found: _Found) -> None:
        self._store = store
        self._conn = conn
        self._found = found
        self.head: Head | None = self._read_head()
        self.first = 1
        self.last = 0
        self.records = 0
        self.purged = 0
        self.reseals: list[_Reseal] = []
        self._set_back: list[datetime] = []
        """When the store was set back to an earlier point, and somebody has said so."""
        self._macs: dict[int, str] = {}
        """Of the records that a checkpoint was made of."""
        self._gaps: list[tuple[int, int]] = []
        self._links: dict[int, bytes] = {}
        """By the last number of a gap, the MAC that the record after it names."""
        self._bare: list[tuple[int, int]] = []
        """Records whose sealed part is gone, as ranges."""
        self._purges: list[tuple[int, int, bool, bytes | None]] = []

    def _read_head(self) -> Head | None:
        rows = self._conn.execute(select(audit_head)).all()
        if len(rows) != 1:
            self._found.add(None, "head", "the row that says the end of the chain is gone, or there are several")
            return None
        return Head(rows[0].chain, rows[0].seq, bytes(rows[0].mac))

    def walk(self, wanted: set[int], *, since: int = 0) -> None:
        """Every row after a number; wanted: those whose MAC is to be remembered."""
        chain = self.head.chain if self.head is not None else ""
        expected, prev = since + 1, None if since else b""
        if since:
            before = self._conn.execute(select(audit.c.mac).where(audit.c.seq == since)).scalar_one_or_none()
            prev = None if before is None else bytes(before)
            self.first, self.last = since + 1, since
        for row, body, patients in self._rows(since):
            self.records += 1
            if row.seq != expected:
                self._gaps.append((expected, row.seq - 1))
            if prev is not None and row.seq == expected and bytes(row.prev) != prev:
                self._found.add(row.seq, "link", "it does not follow the record before it")
            if row.seq != expected:
                self._after_gap(row)
            self._check(chain, row, body, patients)
            if row.seq in wanted:
                self._macs[row.seq] = bytes(row.mac).hex()
            expected, prev, self.last = row.seq + 1, bytes(row.mac), row.seq
        self._end(prev)
        self._explain()

    def _rows(self, since: int) -> Iterator[tuple[Any, bytes | None, set[str]]]:
        while True:
            rows = self._conn.execute(select(audit).where(audit.c.seq > since).order_by(audit.c.seq).limit(_ROWS)).all()
            if not rows:
                return
            between = (rows[0].seq, rows[-1].seq)
            bodies = {
                one.seq: bytes(one.body)
                for one in self._conn.execute(select(audit_payload).where(audit_payload.c.seq.between(*between)))
            }
            patients: dict[int, set[str]] = {}
            for one in self._conn.execute(select(audit_patient).where(audit_patient.c.seq.between(*between))):
                patients.setdefault(one.seq, set()).add(one.chart_id)
            for row in rows:
                yield row, bodies.get(row.seq), patients.get(row.seq, set())
            since = rows[-1].seq

    def _after_gap(self, row: Any) -> None:
        """What follows a gap says what the MAC before it was; a purge that explains it must say the same."""
        self._links[row.seq - 1] = bytes(row.prev)

    def _check(self, chain: str, row: Any, body: bytes | None, patients: set[str]) -> None:
        try:
            if self._store.audit.mac(chain, row) != bytes(row.mac):
                self._found.add(
                    row.seq, "altered", "its MAC does not fit: a column was altered, or it was not made here"
                )
                return
        except KeyMissingError:
            self._found.add(row.seq, "key", "it names a key that the key file does not hold")
            return
        except TamperedError:
            self._found.add(row.seq, "version", "it is of a version that this program does not know")
            return
        if body is None and row.payload_hash is not None:
            self._note(self._bare, row.seq)
            return
        try:
            payload = self._store.audit.payload(row, body)
        except (KeyMissingError, TamperedError):
            self._found.add(row.seq, "payload", "its sealed part was altered, or is another record's")
            return
        if patients != set(payload.patients):
            self._found.add(row.seq, "patients", "the index of patients does not say what the record says")
        if row.action == PURGED:
            self._learn_purge(payload)
        elif row.action == RESEALED:
            self.reseals.append(_Reseal.of(payload, row.at))
        if row.action in {RESEALED, RESTORED}:
            self._set_back.append(from_micros(row.at))

    def _learn_purge(self, payload: Payload) -> None:
        mac = payload.facts["mac"]
        for first, last in payload.facts["ranges"]:
            end = bytes.fromhex(mac) if mac is not None else None
            self._purges.append((first, last, payload.facts["whole"], end))

    def _note(self, ranges: list[tuple[int, int]], seq: int) -> None:
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))

    def _end(self, prev: bytes | None) -> None:
        for table in (audit_payload, audit_patient):
            behind = self._conn.execute(select(func.max(table.c.seq))).scalar_one()
            if behind is not None and behind > max(self.last, self.head.seq if self.head is not None else 0):
                self._found.add(behind, "payload", "there is a sealed part or a patient of a record that is not there")
        if self.head is None:
            return
        if self.head.seq > self.last:
            self._gaps.append((self.last + 1, self.head.seq))
        elif self.head.seq < self.last:
            self._found.add(
                self.last, "head", f"the chain's end is said to be {self.head.seq}; there are records after it"
            )
        elif prev is not None and self.head.mac != prev:
            self._found.add(self.last, "head", "the MAC that the chain's end is said to have is not the last record's")

    def _explain(self) -> None:
        """Gaps that a purge explains are none."""
        for first, last in self._gaps:
            at = first
            for begin, end, whole, mac in sorted(self._purges, key=lambda one: one[:2]):
                # The next record says what the MAC of the last one that is gone was.
                if whole and begin <= at <= end and (end < last or self._links.get(end) == mac):
                    self.purged += min(end, last) - at + 1
                    at = end + 1
            if at <= last:
                self._missing(at, last)
            elif first <= self.first:
                self.first = last + 1
        for first, last in self._bare:
            at = first
            for begin, end, _, _ in sorted(self._purges, key=lambda one: one[:2]):
                if begin <= at <= end:
                    gone = min(end, last)
                    self.purged += gone - at + 1
                    at = gone + 1
            if at <= last:
                self._found.add(
                    at, "payload-missing", f"the sealed part of {_range(at, last)} is gone, and no record says why"
                )

    def _missing(self, first: int, last: int) -> None:
        self._found.add(first, "missing", f"{_range(first, last)} gone, and no record says why")

    # --- checkpoints ---

    def checked(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Those that we have signed, of our chain; the others are problems."""
        kept: list[Checkpoint] = []
        for one in checkpoints:
            if not is_ours(self._store, one):
                self._found.add(one.seq, "checkpoint-forged", "a checkpoint is not signed by us")
            elif self.head is not None and one.chain != self.head.chain:
                detail = "a checkpoint is of another chain: the store was made anew, or taken for another"
                self._found.add(one.seq, "other-chain", detail)
            else:
                kept.append(one)
        return kept

    def compare(self, checkpoints: Sequence[Checkpoint]) -> None:
        """After `walk`."""
        beyond: Checkpoint | None = None
        self._compare_books(checkpoints)
        for one in checkpoints:
            if any(said.explains(one) for said in self.reseals):
                continue
            if one.seq > self.last:
                beyond = one if beyond is None or one.seq > beyond.seq else beyond
            elif one.seq in self._macs and self._macs[one.seq] != one.mac:
                self._found.add(
                    one.seq, "checkpoint", f"it is not the record that was seen on {one.at:%Y-%m-%d %H:%M} UTC"
                )
        if beyond is not None:
            self._found.add(
                beyond.seq, "rolled-back",
                f"the chain ends at {self.last}; on {beyond.at:%Y-%m-%d %H:%M} UTC it had {beyond.seq} records. It was"
                " cut, or the store was set back: `handoff audit reseal` says so if that was lawful",
            )  # fmt: skip

    def _compare_books(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Numbers that were given once are given for ever, unless the store was set back."""
        last = tallies.last_numbers(self._conn)
        for name, number in last.items():
            said = [one for one in checkpoints if not any(at >= one.at for at in self._set_back)]
            most = max(said, key=lambda one: one.last.get(name, 0), default=None)
            if most is not None and most.last.get(name, 0) > number:
                self._found.add(
                    most.seq, BOOKS_BACK,
                    f"there are {number:,} {name}; on {most.at:%Y-%m-%d %H:%M} UTC there were {most.last[name]:,}. They"
                    " were taken away, or the store was set back: `handoff audit reseal` says so if that was lawful",
                )  # fmt: skip


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


# --- the books -------------------------------------------------------------------------------------------------------

_Problem = tuple[int | None, str, str]
_LANES: Final = tuple(kind.lane for kind in (EntryKind.ACT, EntryKind.REPLY))


def _books(store: Store, conn: Connection) -> Iterator[_Problem]:
    """What was done without a record, and what is on record and was not done."""
    yield from _acts(store, conn)
    yield from _loads(conn)
    yield from _decisions(conn)


def unrecorded_acts(store: Store, conn: Connection, since: int, most: int) -> tuple[int, list[str]]:
    """What people did by entries after one, and no record says so; and up to which entry was looked, from the newest
    `most` on: what a daemon looks at again and again. conn: a reader.
    """
    newest = conn.execute(select(func.max(outcome.c.entry_id))).scalar_one() or 0
    found = _acts(store, conn, max(since, newest - most))
    return newest, [detail for _, kind, detail in found if kind == "unrecorded"]


def _acts(store: Store, conn: Connection, since: int = 0) -> Iterator[_Problem]:
    """Acts in the journal that came about, and their records. since: those of later entries."""
    said: dict[tuple[int, str], int] = {}
    statement = select(audit.c.seq, audit.c.entry_id, audit.c.action)
    for row in conn.execute(statement.where(audit.c.entry_id > since, audit.c.action.in_(sorted(OF_PEOPLE)))):
        said[row.entry_id, row.action] = row.seq
    done: set[tuple[int, str]] = set()
    after = since
    while True:
        one = select(outcome).where(outcome.c.channel.in_(_LANES), outcome.c.entry_id > after)
        rows = conn.execute(one.order_by(outcome.c.entry_id).limit(_ROWS)).all()
        if not rows:
            break
        after = rows[-1].entry_id
        for row in rows:
            try:
                effects = open_outcome(store.keys, row).effects
            except (TamperedError, KeyMissingError):
                yield None, "act-unreadable", f"what became of entry {row.entry_id} was altered"
                done.update((row.entry_id, action) for action in OF_PEOPLE)
                continue
            for effect in effects[:1]:
                if effect.kind in OF_PEOPLE:
                    done.add((row.entry_id, effect.kind))
                    if (row.entry_id, effect.kind) not in said:
                        yield (
                            None,
                            "unrecorded",
                            f"entry {row.entry_id} ({effect.kind}) was done, and no record says so",
                        )
    for (entry, action), seq in said.items():
        if (entry, action) not in done:
            yield seq, "unfounded", f"it says that entry {entry} did {action}, and that entry has not"


def _loads(conn: Connection) -> Iterator[_Problem]:
    """Configurations that were loaded, and their records."""
    said: dict[tuple[Any, ...], list[int]] = {}
    actions = ("config-run", "config-reload")
    columns = (audit.c.seq, audit.c.action, audit.c.subject, audit.c.actor, audit.c.at)
    for row in conn.execute(select(*columns).where(audit.c.action.in_(actions)).order_by(audit.c.seq.desc())):
        said.setdefault((row.action, row.subject, row.actor, row.at), []).append(row.seq)
    for row in conn.execute(select(config_load)):
        records = said.get((f"config-{row.by}", f"config:{row.version}", row.who, row.at), [])
        if not records:
            yield None, "unrecorded", f"a configuration was loaded at {from_micros(row.at)}, and no record says so"
        else:
            records.pop()
    for (action, _, _, _), seqs in said.items():
        for seq in seqs:
            yield seq, "unfounded", f"it says {action}, and nothing else knows of it"


def _named(kind: str, number: ColumnElement[Any]) -> ColumnElement[str]:
    return literal(kind) + cast(number, Text)


_LETTER: Final = _named("dead-letter:", dead_letter.c.id)
_OF_LETTER: Final = dead_letter.outerjoin(delivery, delivery.c.id == dead_letter.c.delivery_id)
_DECIDED: Final[Sequence[tuple[frozenset[str], Select[*tuple[Any, ...]]]]] = (
    (
        frozenset({"discard", "destination-discarded"}),
        select(_LETTER.label("subject"), _named("destination:", delivery.c.destination).label("also"))
        .select_from(_OF_LETTER)
        .where(dead_letter.c.resolved_by == DISCARDED),
    ),
    (
        frozenset({"swept", "patient-erased"}),  # of test data: what stands on record is the sweep
        select(literal("messages").label("subject"), _named("chart:", outcome.c.chart_id).label("also"))
        .select_from(dead_letter.outerjoin(outcome, outcome.c.entry_id == dead_letter.c.entry_id))
        .where(dead_letter.c.resolved_by == LETTER_SWEPT),
    ),
    (
        frozenset({"replay"}),
        select(_LETTER.label("subject"))
        .where(dead_letter.c.resolved_by.like("entry:%") | dead_letter.c.resolved_by.like("delivery:%")),
    ),
    (
        frozenset({"bury"}),
        select(_named("delivery:", dead_letter.c.delivery_id).label("subject"))
        .where(dead_letter.c.error == "buried"),
    ),
    (
        frozenset({"release", "dismiss"}),
        select(_named("delivery:", admission.c.delivery_id).label("subject"))
        .where(admission.c.decided_by.is_not(None)),
    ),
    (
        frozenset({"release", "dismiss"}),
        select(_named("hold:m", hold.c.id).label("subject")).where(hold.c.decided_by.is_not(None)),
    ),
    (frozenset({"account-added"}), select(_named("account:", account.c.name).label("subject"))),
    (frozenset({"glass-broken"}), select(_named("chart:", glass.c.chart_id).label("subject"))),
    (
        frozenset({"hold-placed"}),
        select(_named("legal-hold:", legal_hold.c.id).label("subject")),
    ),
    (
        frozenset({"hold-lifted"}),
        select(_named("legal-hold:", legal_hold.c.id).label("subject")).where(legal_hold.c.lifted_at.is_not(None)),
    ),
    (
        frozenset({"destination-paused"}),
        select(_named("destination:", destination.c.name).label("subject"))
        .where(destination.c.paused_by.is_not(None)),
    ),
)  # fmt: skip
"""What a person decides and a table shows: by which actions, and what the record is about: one of these."""


def _decisions(conn: Connection) -> Iterator[_Problem]:
    """Decisions of people that tables show, and their records."""
    actions = frozenset[str]().union(*(one for one, _ in _DECIDED))
    said: dict[tuple[str, str], int] = {}
    for row in conn.execute(
        select(audit.c.action, audit.c.subject, func.min(audit.c.seq).label("seq"))
        .where(audit.c.action.in_(sorted(actions)))
        .group_by(audit.c.action, audit.c.subject)
    ):
        said[row.action, row.subject] = row.seq
    lasting: dict[str, set[str]] = {one: set() for one in ("discard", "account-added", "hold-placed", "hold-lifted")}
    """Actions whose work is there for ever -> what it shows."""
    for by, statement in _DECIDED:
        for row in conn.execute(statement):
            for action in by & lasting.keys():
                lasting[action].add(row.subject)
            if not any((action, subject) in said for action in by for subject in row):
                detail = f"{row.subject} was decided by a person ({' or '.join(sorted(by))}), and no record says so"
                yield None, "unrecorded", detail
    for (action, subject), seq in said.items():
        if action in lasting and subject not in lasting[action]:
            yield seq, "unfounded", f"it says {action} of {subject}, which was not done"
