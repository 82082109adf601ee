"""Dead letters: whatever ended unsuccessfully and waits for a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from engine.domain.delivery import Stage
from engine.domain.record import Record
from engine.errors import StoreError
from engine.store.charts import key_hash
from engine.store.keys import KeyRing
from engine.store.record import early_dead, of_patient
from engine.store.schema import dead_letter, from_micros, outcome, to_micros, word

DISCARDED: Final = "discarded"
"""`resolved_by` of a dead letter that nobody will replay; why stands in the audit."""
SUPERSEDED: Final = "superseded"
"""`resolved_by` of a delivery's dead letter whose object is gone: there was nothing left to send at its replay."""
LETTER_SWEPT: Final = "swept"
"""`resolved_by` of one of test data that was swept."""


class ListedDeadLetter(Record, frozen=True, kw_only=True):
    """A dead letter as lists show it."""

    id: int
    entry: int | None
    """None: a delivery that no entry caused."""
    channel: str
    delivery: int | None
    stage: Stage
    error: str
    location: str | None
    detail: str
    died_at: datetime
    resolved_by: str | None
    """`entry:17` (its replay), `delivery:5` (put back into the outbox), `discarded`, `superseded`."""
    resolved_at: datetime | None


class DeadGroup(Record, frozen=True, kw_only=True):
    """Dead letters that still wait and have stage, error and channel in common."""

    stage: Stage
    error: str
    channel: str
    count: int
    first_at: datetime
    last_at: datetime
    example: int
    """The id of the newest."""


class DeadLetters:
    """Methods that write must run in a transaction of the charts' ledger."""

    def find(
        self,
        conn: Connection,
        *,
        stage: Stage | None = None,
        error: str | None = None,
        channel: str | None = None,
        resolved: bool | None = False,
        limit: int = 100,
        before: int | None = None,
    ) -> list[ListedDeadLetter]:
        """Those that still wait first, newest first.

        resolved: only those (true), only those that still wait (false), or all (none). before: with lower numbers.
        """
        where = _conditions(error, channel, stage, resolved=resolved)
        if before is not None:
            where = [*where, dead_letter.c.id < before]
        newest = [dead_letter.c.id.desc()]
        order = newest if resolved is not None else [dead_letter.c.resolved_by.is_not(None), *newest]
        statement = select(dead_letter).where(*where).order_by(*order).limit(limit)
        return [_listed(row) for row in conn.execute(statement)]

    def unresolved(
        self, conn: Connection, *, error: str | None = None, channel: str | None = None, stage: Stage | None = None
    ) -> list[int]:
        """Ids of all that still wait, in the order they died."""
        where = _conditions(error, channel, stage, resolved=False)
        return list(conn.execute(select(dead_letter.c.id).where(*where).order_by(dead_letter.c.id)).scalars())

    def count(
        self,
        conn: Connection,
        *,
        stage: Stage | None = None,
        error: str | None = None,
        channel: str | None = None,
        resolved: bool | None = False,
    ) -> int:
        """How many meet the conditions (see `find`)."""
        where = _conditions(error, channel, stage, resolved=resolved)
        return int(conn.execute(select(func.count()).select_from(dead_letter).where(*where)).scalar_one())

    def errors(self, conn: Connection) -> list[str]:
        """The codes of all that ever died, in order."""
        statement = select(dead_letter.c.error).distinct().order_by(dead_letter.c.error)
        return list(conn.execute(statement).scalars())

    def groups(
        self, conn: Connection, *, stage: Stage | None = None, error: str | None = None, channel: str | None = None
    ) -> list[DeadGroup]:
        """Those that still wait, by what they have in common; the largest group first."""
        columns = (dead_letter.c.stage, dead_letter.c.error, dead_letter.c.channel)
        number = func.count().label("number")
        statement = (
            select(
                *columns,
                number,
                func.min(dead_letter.c.died_at).label("first"),
                func.max(dead_letter.c.died_at).label("last"),
                func.max(dead_letter.c.id).label("example"),
            )
            .where(*_conditions(error, channel, stage, resolved=False))
            .group_by(*columns)
            .order_by(number.desc(), *columns)
        )
        return [
            DeadGroup(
                stage=Stage(row.stage),
                error=row.error,
                channel=row.channel,
                count=row.number,
                first_at=from_micros(row.first),
                last_at=from_micros(row.last),
                example=row.example,
            )
            for row in conn.execute(statement)
        ]

    def get(self, conn: Connection, letter_id: int) -> ListedDeadLetter | None:
        row = conn.execute(select(dead_letter).where(dead_letter.c.id == letter_id)).one_or_none()
        return None if row is None else _listed(row)

    def of_entry(self, conn: Connection, entry_id: int) -> Sequence[ListedDeadLetter]:
        statement = select(dead_letter).where(dead_letter.c.entry_id == entry_id).order_by(dead_letter.c.id)
        return [_listed(row) for row in conn.execute(statement)]

    def of_patient(self, conn: Connection, keys: KeyRing, patient: str, limit: int = 100) -> list[ListedDeadLetter]:
        """Those that wait for somebody and are about this patient (`AUTHORITY:ID`), newest first."""
        statement = (
            select(dead_letter)
            .join(outcome, outcome.c.entry_id == dead_letter.c.entry_id)
            .where(of_patient(conn, keys, patient), dead_letter.c.resolved_by.is_(None))
            .order_by(dead_letter.c.id.desc())
            .limit(limit)
        )
        return [_listed(row) for row in conn.execute(statement)]

    def patients(self, conn: Connection, keys: KeyRing, prefix: bytes) -> set[str]:
        """Keys whose hash begins so (see `ChartStore.by_key_hash`) of messages that died before there was a chart."""
        condition = dead_letter.c.key_hash.between(prefix.ljust(16, b"\x00"), prefix.ljust(16, b"\xff"))
        found = {key for _, key in early_dead(conn, keys, condition) if key is not None}
        return {key for key in found if key_hash(keys, key).startswith(prefix)}

    def resolve(self, conn: Connection, letter_id: int, resolved_by: str, now: datetime) -> None:
        """Note what became of a dead letter. Raises StoreError when it is not there or was resolved before."""
        changed = conn.execute(
            update(dead_letter)
            .where(dead_letter.c.id == letter_id, dead_letter.c.resolved_by.is_(None))
            .values(resolved_by=resolved_by, resolved_at=to_micros(now))
        )
        if changed.rowcount != 1:
            raise StoreError(f"dead letter {letter_id} is not there, or was resolved before")


def _conditions(
    error: str | None, channel: str | None, stage: Stage | None, *, resolved: bool | None
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if error is not None:
        where.append(dead_letter.c.error == error)
    if channel is not None:
        where.append(dead_letter.c.channel == channel)
    if stage is not None:
        where.append(dead_letter.c.stage == stage.value)
    if resolved is not None:
        where.append(dead_letter.c.resolved_by.is_not(None) if resolved else dead_letter.c.resolved_by.is_(None))
    return where


def _listed(row: Row[Any]) -> ListedDeadLetter:
    return ListedDeadLetter(
        id=row.id,
        entry=row.entry_id,
        channel=row.channel,
        delivery=row.delivery_id,
        stage=word(Stage, row.stage, Stage.PROCESSING),
        error=row.error,
        location=row.location,
        detail=row.detail,
        died_at=from_micros(row.died_at),
        resolved_by=row.resolved_by,
        resolved_at=None if row.resolved_at is None else from_micros(row.resolved_at),
    )
