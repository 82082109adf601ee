"""Every sealed column, and what its values are sealed for: so that they can be sealed anew with another key.

After `handoff keys rotate` the values of before are opened by the old key. `look` finds those of one page of rows and
seals them anew, `replace` writes them where nobody has written in between; a page is never looked at in a transaction
that writes, so writers wait for the writing alone. All that is remembered stands in the values themselves: who begins
anew skips what is done.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    func,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy import bindparam as bind

from engine.errors import KeyMissingError, TamperedError
from engine.store import (
    audit,
    charts,
    configs,
    erasure,
    holds,
    journal,
    legalholds,
    oncall,
    outbox,
    quality,
    record,
    schema,
    users,
)
from engine.store.keys import KeyRing, key_number
from engine.store.parts import STORED, StoredPart

if TYPE_CHECKING:
    from engine.store.store import Store

Place = Callable[[KeyRing, Row[Any]], str]


class SealedColumn(NamedTuple):
    """column: what is sealed. place: what a row's value is sealed for. beside: a table with columns that the place
    needs, and how it is joined.
    """

    column: Column[Any]
    place: Place
    beside: tuple[Table, ColumnElement[bool]] | None = None

    @property
    def table(self) -> Table:
        table: Table = self.column.table
        return table

    @property
    def side(self) -> str:
        return str(self.table.schema)

    def __str__(self) -> str:
        return f"{self.table.name}.{self.column.name}"


class Fresh(NamedTuple):
    """A value that was sealed anew: the row's key, the value that is there, the one that takes its place."""

    key: tuple[Any, ...]
    old: bytes
    new: bytes


class Page(NamedTuple):
    """Some rows of a column. last: where the next page begins; none: there is none. damaged: values that don't open."""

    fresh: Sequence[Fresh]
    last: tuple[Any, ...] | None
    damaged: int


def _of_part(stored: StoredPart) -> Place:
    return lambda _, row: stored.place(*(getattr(row, name) for name in stored.columns[:-1]))


def _of_chart(_: KeyRing, row: Row[Any]) -> str:
    return charts.chart_place(row.id, row.version, row.merged_into, row.due_at, row.due_rank, row.partition, row.test)


def _of_closed(keys: KeyRing, row: Row[Any]) -> str:
    """The chart says which version of its summary is the right one."""
    return charts.closed_place(row.chart_id, charts.decode_chart(keys.open(_of_chart(keys, row), row.of_chart)).closed)


_DELIVERY: Final = (schema.delivery, schema.delivery.c.id == schema.delivery_payload.c.delivery_id)

SEALED: Final = (
    SealedColumn(
        schema.payload.c.head,
        lambda _, row: journal.head_place(row),
        (schema.entry, schema.entry.c.id == schema.payload.c.entry_id),
    ),
    SealedColumn(schema.payload.c.body, lambda _, row: journal.body_place(row.entry_id)),
    SealedColumn(
        schema.outcome.c.document,
        lambda _, row: record.outcome_place(
            row.entry_id, row.channel, row.state, row.chart_id, row.application_ack, row.error_code, row.config_version,
            row.recorded_at, row.test
        ),
    ),
    SealedColumn(schema.chart.c.document, _of_chart),
    SealedColumn(schema.closed.c.document, _of_closed, (schema.chart, schema.chart.c.id == schema.closed.c.chart_id)),
    *(SealedColumn(stored.table.c.document, _of_part(stored)) for stored in STORED),
    SealedColumn(schema.oncall_override.c.document, lambda _, row: oncall.override_place(row.entry_id, row.ends_at)),
    SealedColumn(
        schema.delivery_payload.c.body,
        lambda _, row: outbox.payload_place(
            row.delivery_id, row.entry_id, row.destination, row.operation, row.idempotency_key, row.marked
        ),
        _DELIVERY,
    ),
    SealedColumn(schema.delivery_receipt.c.body, lambda _, row: outbox.receipt_place(row.delivery_id)),
    SealedColumn(schema.hold.c.document, lambda _, row: holds.hold_place(row)),
    SealedColumn(
        schema.hold.c.decision, lambda _, row: holds.decision_place(row.id, row.decided_by, row.decided_at)
    ),
    SealedColumn(
        schema.quality.c.decision, lambda _, row: quality.decision_place(row.id, row.decided_by, row.decided_at)
    ),
    SealedColumn(schema.audit_payload.c.body, lambda _, row: audit.payload_place(row.seq)),
    SealedColumn(schema.account.c.document, lambda _, row: users.account_place(row.name, row.version)),
    SealedColumn(
        schema.ticket.c.document,
        lambda _, row: users.ticket_place(bytes(row.secret_hash), row.id, row.account, row.ends_at),
    ),
    SealedColumn(
        schema.glass.c.document,
        lambda _, row: users.glass_place({name: getattr(row, name) for name in users.GLASS_COLUMNS}),
    ),
    SealedColumn(schema.legal_hold.c.document, lambda _, row: legalholds.hold_place(row)),
    SealedColumn(
        schema.erasure_key.c.key, lambda _, row: erasure.node_place(row.tree, bytes(row.first), row.depth)
    ),
    SealedColumn(schema.config_version.c.files, lambda _, row: configs.files_place(row.version)),
)  # fmt: skip
"""A new sealed column has its line here; a test compares them with the schema."""


_COLUMNS: Final = frozenset(one.column for one in SEALED)


def of_side(side: str) -> tuple[SealedColumn, ...]:
    return tuple(one for one in SEALED if one.side == side)


def _number_in(column: Column[Any]) -> ColumnElement[bytes]:
    """`key_number` of a column's values, as two bytes."""
    return func.substr(column, literal_column("2"), literal_column("2"))


def count_by_key(conn: Connection, columns: Sequence[SealedColumn] = SEALED) -> Counter[int]:
    """How many values are sealed with each key. Reads every value: minutes, where there are millions."""
    found: Counter[int] = Counter()
    for one in columns:
        number = _number_in(one.column)
        statement = select(number, func.count()).where(one.column.is_not(None)).group_by(number)
        for raw, count in conn.execute(statement):
            found[int.from_bytes(raw)] += count
    return found


def count_with(
    conn: Connection, keys: KeyRing, number: int, columns: Sequence[SealedColumn] = SEALED, *, damaged: bool
) -> int:
    """How many values are sealed with a key. damaged: with those that don't open."""
    if damaged:
        return count_by_key(conn, columns)[number]
    found = 0
    for one in columns:
        with_it = _number_in(one.column) == number.to_bytes(2)
        for row in conn.execute(_select(one, None, None).where(with_it)):
            with contextlib.suppress(TamperedError):
                keys.open(one.place(keys, row), bytes(row.sealed))
                found += 1
    return found


def look(conn: Connection, keys: KeyRing, one: SealedColumn, after: tuple[Any, ...] | None, limit: int) -> Page:
    """The next rows of a column; of their values, those of other keys than the active one, sealed anew with that."""
    rows = conn.execute(_select(one, after, limit)).all()
    key = one.table.primary_key.columns
    fresh: list[Fresh] = []
    damaged = 0
    for row in rows:
        sealed = row.sealed
        if sealed is None or key_number(sealed) == keys.active:
            continue
        old = bytes(sealed)
        try:
            place = one.place(keys, row)
            new = keys.seal(place, keys.open(place, old))
        except (TamperedError, KeyMissingError):
            damaged += 1
        else:
            fresh.append(Fresh(tuple(getattr(row, column.name) for column in key), old, new))
    last = tuple(getattr(rows[-1], column.name) for column in key) if len(rows) == limit else None
    return Page(fresh, last, damaged)


def rows(conn: Connection, one: SealedColumn) -> Iterator[Row[Any]]:
    """All of a column, each with what its place needs and the value as `sealed`; few at a time in memory."""
    statement = _select(one, None, None).execution_options(yield_per=PAGE_ROWS)
    yield from conn.execute(statement)


def replace(conn: Connection, one: SealedColumn, fresh: Sequence[Fresh]) -> None:
    """Write what was sealed anew, except where another value stands by now: that is newer."""
    names = [column.name for column in one.table.primary_key.columns]
    same = and_(*(one.table.c[name] == bind(f"k_{name}") for name in names), one.column == bind("old"))
    statement = update(one.table).where(same).values({one.column.name: bind("new")})
    conn.execute(
        statement,
        [{f"k_{name}": value for name, value in zip(names, it.key, strict=True)} | {"old": it.old, "new": it.new}
         for it in fresh],
    )  # fmt: skip


def _select(one: SealedColumn, after: tuple[Any, ...] | None, limit: int | None) -> Select[Any]:
    table, key = one.table, list(one.table.primary_key.columns)
    columns: dict[str, ColumnElement[Any]] = {
        column.name: column
        for place in ((one.beside[0], table) if one.beside is not None else (table,))
        for column in place.columns
        if column not in _COLUMNS
    }
    if one.beside is not None:
        other = one.beside[0]
        if other is schema.chart:
            columns["of_chart"] = other.c.document.label("of_chart")
    statement = select(*columns.values(), one.column.label("sealed")).order_by(*key).limit(limit)
    if one.beside is not None:
        statement = statement.join(one.beside[0], one.beside[1])
    if after is not None:
        statement = statement.where(tuple_(*key) > tuple_(*after) if len(key) > 1 else key[0] > after[0])
    return statement


PAGE_ROWS: Final = 200


def reseal_page(store: Store, one: SealedColumn, after: tuple[Any, ...] | None) -> Page:
    """`look` and `replace` on a store. Raises StoreError."""
    page = store.read_now(lambda conn: look(conn, store.keys, one, after, PAGE_ROWS))
    if page.fresh:
        ledger = store.journal_ledger if one.side == schema.JOURNAL else store.charts_ledger
        ledger.write_now(lambda conn: replace(conn, one, page.fresh))
    return page
