"""What a restore leaves out because it was erased since the backup. The rest of the store takes it as if it had been
erased in this one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from engine.domain.audit import AuditRecord
from engine.store import schema
from engine.store.audit import PURGED
from engine.store.backup.rows import columns_of
from engine.store.backup.wrapping import Row
from engine.store.erasure import runs
from engine.store.record import erased_outcome
from engine.store.retention import count_erased
from engine.store.store import Store

_PIECE: Final = 500
_NAMES: Final = {
    schema.chart.fullname: "charts",
    schema.payload.fullname: "messages",
    schema.delivery_payload.fullname: "deliveries",
    schema.audit_payload.fullname: "trail",
}
"""Tables with a row for each thing that can be erased -> what `counts` calls it."""
_OUTCOME: Final = schema.outcome.fullname
_ENTRY_OF_OUTCOME: Final = columns_of(schema.outcome).index("entry_id")
_DOCUMENT: Final = columns_of(schema.outcome).index("document")


class LeftOut:
    """counts: by what it is."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.entries: list[int] = []
        """Whose payloads are gone."""
        self.records: list[int] = []
        self.outcomes: list[int] = []
        """Entries whose outcomes say nothing of the patient any more."""

    def sorted_out(self, table: str, rows: Iterable[Row]) -> tuple[int, list[tuple[Any, ...]]]:
        """How many rows there were, and those that are to be written."""
        total, kept = 0, list[tuple[Any, ...]]()
        for row in rows:
            total += 1
            if row.values is None:
                self._note(table, row.gone)
            elif row.gone is None:
                kept.append(row.values)
            else:
                self.outcomes.append(row.values[_ENTRY_OF_OUTCOME])
                kept.append((*row.values[:_DOCUMENT], b"", *row.values[_DOCUMENT + 1 :]))  # `settle` says what is left
        return total, kept

    def _note(self, table: str, owner: int | str | None) -> None:
        if table in _NAMES:
            self.counts[_NAMES[table]] = self.counts.get(_NAMES[table], 0) + 1
        if isinstance(owner, int):
            if table == schema.payload.fullname:
                self.entries.append(owner)
            elif table == schema.audit_payload.fullname:
                self.records.append(owner)

    def explained(self, reason: str | None) -> str | None:
        """For the record of the restore."""
        if not self.counts:
            return reason
        what = ", ".join(f"{number:,} of {name}" for name, number in sorted(self.counts.items()))
        return f"{reason or ''}; left out, because erased since: {what}"


def settle(store: Store, left: LeftOut, said: AuditRecord) -> None:
    """Bring the books in line with what was left out. said: the record of the restore, by whom and when."""
    for entries in _pieces(sorted(left.entries)):
        store.journal_ledger.write_now(lambda conn, some=entries: _entries(conn, some))  # type: ignore[misc]
    for entries in _pieces(sorted(left.outcomes)):
        store.charts_ledger.write_now(lambda conn, some=entries: _outcomes(store, conn, some))  # type: ignore[misc]
    if left.records:
        purged = AuditRecord(
            at=said.at, actor=said.actor, action=PURGED, subject="trail", count=len(left.records),
            reason="erased since the backup that was restored",
        )  # fmt: skip
        ranges = list(runs(left.records))
        store.charts_ledger.write_now(lambda conn: store.audit.purge(conn, purged, ranges))


def _entries(conn: Connection, ids: Sequence[int]) -> None:
    e = schema.entry.c
    channels = conn.execute(select(e.channel).where(e.id.in_(ids), e.day.is_not(None))).scalars()
    count_erased(conn, Counter(channels))
    conn.execute(update(schema.entry).where(e.id.in_(ids)).values(day=None))


def _outcomes(store: Store, conn: Connection, ids: Sequence[int]) -> None:
    """What people did is known from the trail."""
    acts: dict[int, list[str]] = {}
    a, table = schema.audit.c, schema.outcome
    for row in conn.execute(select(a.entry_id, a.action).where(a.entry_id.in_(ids)).order_by(a.seq)):
        acts.setdefault(row.entry_id, []).append(row.action)
    rows = conn.execute(select(table).where(table.c.entry_id.in_(ids))).all()
    fresh = [{"id_": row.entry_id, "new": erased_outcome(store.keys, row, acts.get(row.entry_id, ()))} for row in rows]
    conn.execute(update(table).where(table.c.entry_id == bindparam("id_")).values(document=bindparam("new")), fresh)


def _pieces(values: Sequence[int]) -> Iterator[Sequence[int]]:
    for at in range(0, len(values), _PIECE):
        yield values[at : at + _PIECE]
