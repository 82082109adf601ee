"""Core statements, compiled once and run many times.

They are written in SQLAlchemy's expression language and compiled by its dialects, but run by the driver itself:
SQLAlchemy's own execution costs more than the databases do for small statements, and works through every row of
parameters in Python for large ones. One statement for many rows also means one step of the database for all of them: on
SQLite each step gives up the interpreter lock, and a busy event loop may take 5 ms to give it back.

A transaction must be open on the connection (`Ledger`, `Store.reader`): the driver is not told to begin one.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    any_,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql  # takes long to load: only where the store is PostgreSQL

ROWS_MAX: Final = 128
"""Rows in one INSERT on SQLite. PostgreSQL gets one array a column, of any length: its driver would read the text of a
long statement through at each run."""

VALUES_MAX: Final = 512
"""Values in one IN list on SQLite."""

_VALUE: Final = "v"
_LIST: Final = "the_list"

_Statement = Select[Any] | Update | Delete | Insert


_ELSEWHERE: Final = "schema_translate_map"
"""The option of a connection to PostgreSQL whose tables stand in other schemas (`engines.Location.schema`)."""


class Rows:
    """INSERT of many rows. On a conflict the row that is there takes over the `replace` columns, and the sum of the
    `add` columns, or stays as it is.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[str],
        *,
        conflict: Sequence[str] = (),
        replace: Sequence[str] = (),
        add: Sequence[str] = (),
    ) -> None:
        self._table = table
        self._columns = tuple(columns)
        self._conflict = tuple(conflict)
        self._replace = tuple(replace)
        self._add = tuple(add)
        self._texts: dict[int, str] = {}
        self._parts: tuple[str, str, str] | None = None
        """Of a text on SQLite: what comes before the rows, a row, what comes after them."""
        self._texts_of_arrays: dict[str, str] = {}

    def write(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the rows, in order."""
        if not rows:
            return
        if conn.dialect.name == "postgresql":
            kind = _kind(conn)
            if kind not in self._texts_of_arrays:
                self._texts_of_arrays[kind] = self._compile_arrays(conn)
            _driver(conn).execute(self._texts_of_arrays[kind], [list(values) for values in zip(*rows, strict=True)])
            return
        at = 0
        left = len(rows)
        while left:
            count = min(ROWS_MAX, 1 << (left.bit_length() - 1))  # few sizes, so that the statements stay prepared
            text = self._texts.get(count)
            if text is None:
                text = self._texts[count] = self._compile_rows(conn, count)
            _driver(conn).execute(text, list(chain.from_iterable(rows[at : at + count])))
            at += count
            left -= count

    def _compile_rows(self, conn: Connection, count: int) -> str:
        # SQLAlchemy makes the text for one row: for each number of rows it would take longer than to write them.
        if self._parts is None:
            one: list[dict[str, Any]] = [{column: bind(f"{column}_0") for column in self._columns}]
            # A row that fails leaves those before it: the transaction is rolled back in any case. Without it SQLite
            # copies every page before it is changed, to take back the statement alone.
            statement = sqlite.insert(self._table).prefix_with("OR FAIL").values(one)
            text = self._compile(conn, statement, [f"{column}_0" for column in self._columns])
            row = f"({', '.join('?' * len(self._columns))})"
            head, tail = text.split(f" VALUES {row}")
            self._parts = (f"{head} VALUES ", row, tail)
        head, row, tail = self._parts
        return head + ", ".join([row] * count) + tail

    def _compile_arrays(self, conn: Connection) -> str:
        from sqlalchemy.dialects import postgresql

        arrays = [cast(bind(name), postgresql.ARRAY(self._table.c[name].type)) for name in self._columns]
        given = func.unnest(*arrays).table_valued(*self._columns).render_derived(name="given")
        source = select(*(given.c[name] for name in self._columns))
        return self._compile(conn, postgresql.insert(self._table).from_select(self._columns, source), self._columns)

    def _compile(self, conn: Connection, statement: sqlite.Insert | postgresql.Insert, wanted: Sequence[str]) -> str:
        if self._replace:
            statement = statement.on_conflict_do_update(
                index_elements=self._conflict,
                set_={
                    **{column: statement.excluded[column] for column in self._replace},
                    **{column: self._table.c[column] + statement.excluded[column] for column in self._add},
                },
            )
        elif self._conflict:
            statement = statement.on_conflict_do_nothing(index_elements=self._conflict)
        compiled = _compile(conn, statement)
        if list(compiled.positiontup or ()) != list(wanted):  # what is handed over relies on it
            raise AssertionError(f"columns of {self._table.name} are not in the order of the table")
        return str(compiled)


class Statement:
    """A statement with fixed parameters, given in the order of `names`. Rows have the columns as attributes."""

    def __init__(self, statement: _Statement, names: Sequence[str] = ()) -> None:
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, conn: Connection, *values: Any) -> list[Any]:
        return self._of(conn).rows(conn, values)

    def first(self, conn: Connection, *values: Any) -> Any:
        """The first row; none: there is none."""
        rows = self._of(conn).rows(conn, values)
        return rows[0] if rows else None

    def scalar(self, conn: Connection, *values: Any) -> Any:
        """The first column of the only row."""
        return self._of(conn).rows(conn, values)[0][0]

    def write(self, conn: Connection, *values: Any) -> int:
        """Returns how many rows were touched."""
        return self._of(conn).write(conn, values)

    def _of(self, conn: Connection) -> _Compiled:
        kind = _kind(conn)
        found = self._compiled.get(kind)
        if found is None:
            found = self._compiled[kind] = _Compiled(conn, self._statement, self._names)
        return found


class Listed:
    """A statement with a list of any number of values, after fixed parameters given in the order of `names`.

    On SQLite it is run once for every VALUES_MAX values, and a list is filled up to the next power of two by repeating
    the last value.
    """

    def __init__(
        self,
        column: ColumnElement[Any],
        build: Callable[[ColumnElement[bool]], _Statement],
        names: Sequence[str] = (),
    ) -> None:
        self._column = column
        self._build = build
        self._names = tuple(names)
        self._compiled: dict[int | str, _Compiled] = {}
        """By the length of the list; on PostgreSQL, where it is an array, by the kind of connection."""
        self._any: _Compiled | None = None
        """On SQLite: the statement with a mark where its list is to stand."""

    def rows(self, conn: Connection, values: Sequence[Any], *fixed: Any) -> list[Any]:
        found: list[Any] = []
        for compiled, part in self._parts(conn, values):
            found.extend(compiled.rows(conn, (*fixed, *part)))
        return found

    def write(self, conn: Connection, values: Sequence[Any], *fixed: Any) -> int:
        """Returns how many rows were touched."""
        return sum(compiled.write(conn, (*fixed, *part)) for compiled, part in self._parts(conn, values))

    def _parts(self, conn: Connection, values: Sequence[Any]) -> Iterator[tuple[_Compiled, Sequence[Any]]]:
        if conn.dialect.name == "postgresql":
            if values:
                yield self._of(conn, _kind(conn)), [list(values)]
            return
        for at in range(0, len(values), VALUES_MAX):
            part = values[at : at + VALUES_MAX]
            count = 1 << (len(part) - 1).bit_length()
            yield self._of(conn, count), [*part, *[part[-1]] * (count - len(part))]

    def _of(self, conn: Connection, count: int | str) -> _Compiled:
        """For so many values; a kind of connection: for an array of them."""
        found = self._compiled.get(count)
        if found is None:
            found = self._compiled[count] = self._compile(conn, count)
        return found

    def _compile(self, conn: Connection, count: int | str) -> _Compiled:
        if isinstance(count, str):
            from sqlalchemy.dialects import postgresql

            array = cast(bind(_VALUE), postgresql.ARRAY(self._column.type))
            return _Compiled(conn, self._build(self._column == any_(array)), (*self._names, _VALUE))
        if self._any is None:
            self._any = _Compiled(conn, self._build(self._column.in_([literal_column(_LIST)])), self._names)
        return self._any.with_list(count)


class _Compiled:
    """The text of a statement, how what is given becomes its parameters, and what its rows look like."""

    __slots__ = ("_constants", "_in_order", "_names", "_positions", "_row", "_text")

    def __init__(self, conn: Connection, statement: _Statement, names: Sequence[str]) -> None:
        compiled = _compile(conn, statement)
        order = compiled.positiontup or ()
        given = {name: position for position, name in enumerate(names)}
        # What is not given is a constant that SQLAlchemy made a parameter of (a NULL, SQLite's OFFSET 0).
        constants = [name for name in order if name not in given]
        self._text = str(compiled)
        self._names = len(names)
        self._constants = tuple(compiled.params[name] for name in constants)
        self._positions = tuple(given[name] if name in given else len(names) + constants.index(name) for name in order)
        self._in_order = not constants and list(order) == list(names)
        columns = statement.exported_columns.keys()
        make: Any = namedtuple  # noqa: PYI024 - the columns are known at run time only, which mypy can't follow
        # What `_make` does, without a call of Python for each row.
        self._row: Callable[[Any], Any] = partial(tuple.__new__, make("Row", columns))

    def with_list(self, count: int) -> _Compiled:
        """The same statement with a list of so many values in the place of its mark; they are given behind the others.

        SQLAlchemy would make a text for each length of the list, which takes longer than to run it.
        """
        before, after = self._text.split(_LIST)
        at = before.count("?")
        behind = [place if place < self._names else place + count for place in self._positions]
        made = copy(self)
        made._text = f"{before}{', '.join('?' * count)}{after}"  # noqa: SLF001
        made._positions = (*behind[:at], *range(self._names, self._names + count), *behind[at:])  # noqa: SLF001
        made._in_order = not self._constants and made._positions == tuple(range(len(made._positions)))  # noqa: SLF001
        return made

    def rows(self, conn: Connection, values: Sequence[Any]) -> list[Any]:
        return list(map(self._row, _driver(conn).execute(self._text, self._arrange(values)).fetchall()))

    def write(self, conn: Connection, values: Sequence[Any]) -> int:
        return int(_driver(conn).execute(self._text, self._arrange(values)).rowcount)

    def _arrange(self, values: Sequence[Any]) -> Sequence[Any]:
        if self._in_order:
            return values
        given = (*values, *self._constants)
        return [given[position] for position in self._positions]


def _compile(conn: Connection, statement: _Statement) -> SQLCompiler:
    schemas = conn.get_execution_options().get(_ELSEWHERE)
    if schemas is None:
        return statement.compile(dialect=conn.dialect)
    return statement.compile(dialect=conn.dialect, schema_translate_map=schemas, render_schema_translate=True)


def _kind(conn: Connection) -> str:
    """What the text of a statement depends on."""
    name = conn.dialect.name
    if name == "sqlite":  # another file there, under the same name
        return name
    return f"{name} elsewhere" if _ELSEWHERE in conn.get_execution_options() else name


def _driver(conn: Connection) -> Any:
    return conn.connection.driver_connection
