"""The auditors' record: who did what, when, to what, and why. Rows are only ever added."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, select

from engine.domain.audit import AuditRecord
from engine.store.keys import KeyRing
from engine.store.schema import audit, from_micros, to_micros
from engine.store.statements import Rows

_INSERT: Final = Rows(audit, ("at", "actor", "action", "subject", "reason"))


class AuditStore:
    """`append` must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def append(self, conn: Connection, records: Sequence[AuditRecord]) -> None:
        _INSERT.write(conn, [self._row(record) for record in records])

    def find(
        self,
        conn: Connection,
        *,
        since: datetime | None = None,
        action: str | None = None,
        subject: str | None = None,
        limit: int | None = 100,
    ) -> list[AuditRecord]:
        """Newest first."""
        statement = select(audit).where(*_conditions(since, action)).order_by(audit.c.id.desc())
        if subject is not None:
            statement = statement.where(audit.c.subject == subject)
        if limit is not None:
            statement = statement.limit(limit)
        found: list[AuditRecord] = []
        for row in conn.execute(statement):
            place = reason_place(row.at, row.actor, row.action, row.subject)
            reason = None if row.reason is None else self._keys.open(place, row.reason).decode()
            found.append(
                AuditRecord(
                    at=from_micros(row.at), actor=row.actor, action=row.action, subject=row.subject, reason=reason
                )
            )
        return found

    def count(self, conn: Connection, *, since: datetime | None = None, action: str | None = None) -> int:
        statement = select(func.count()).select_from(audit).where(*_conditions(since, action))
        return int(conn.execute(statement).scalar_one())

    def actions(self, conn: Connection) -> list[str]:
        """All that was ever done, in order."""
        return list(conn.execute(select(audit.c.action).distinct().order_by(audit.c.action)).scalars())

    def _row(self, record: AuditRecord) -> tuple[int, str, str, str, bytes | None]:
        at = to_micros(record.at)
        reason = None
        if record.reason is not None:
            place = reason_place(at, record.actor, record.action, record.subject)
            reason = self._keys.seal(place, record.reason.encode())
        return (at, record.actor, record.action, record.subject, reason)


def _conditions(since: datetime | None, action: str | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if since is not None:
        where.append(audit.c.at >= to_micros(since))
    if action is not None:
        where.append(audit.c.action == action)
    return where


def reason_place(at: int, actor: str, action: str, subject: str) -> str:
    """The whole row, so that the reason of one act can't be put beside another."""
    return f"audit.reason:{at}/{actor}/{action}/{subject}"
