"""Core statements, compiled once and run many times.

SQLAlchemy's own execution works through every row of parameters in Python. The hot paths of the store hand over
hundreds of rows, so they compile a Core statement once for each dialect and size, and run its text with a flat tuple.
One statement for many rows also means one step of the database for all of them: on SQLite each step gives up the
interpreter lock, and a busy event loop may take 5 ms to give it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    CursorResult,
    Delete,
    Insert,
    Row,
    Select,
    Table,
    Update,
)
from sqlalchemy import bindparam as bind
from sqlalchemy.dialects import postgresql, sqlite

ROWS_MAX: Final = 128
"""Rows in one INSERT. At most 15 columns each: far below the 32,766 parameters that PostgreSQL takes."""

VALUES_MAX: Final = 512
"""Values in one IN list."""

_VALUE: Final = "v"


class Rows:
    """INSERT of many rows. On a conflict the row that is there takes over the `replace` columns, or stays as it is."""

    def __init__(
        self, table: Table, columns: Sequence[str], *, conflict: Sequence[str] = (), replace: Sequence[str] = ()
    ) -> None:
        self._table = table
        self._columns = tuple(columns)
        self._conflict = tuple(conflict)
        self._replace = tuple(replace)
        self._texts: dict[tuple[str, int], str] = {}

    def run(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Write the rows, in order. Returns how many were written."""
        written = at = 0
        left = len(rows)
        while left:
            count = min(ROWS_MAX, 1 << (left.bit_length() - 1))  # few sizes, so that the statements stay prepared
            flat = [value for row in rows[at : at + count] for value in row]
            written += conn.exec_driver_sql(self._text(conn, count), tuple(flat)).rowcount
            at += count
            left -= count
        return written

    def _text(self, conn: Connection, count: int) -> str:
        name = conn.dialect.name
        text = self._texts.get((name, count))
        if text is None:
            text = self._texts[name, count] = self._compile(conn, count)
        return text

    def _compile(self, conn: Connection, count: int) -> str:
        dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(self._table).values(
            [{column: bind(f"{column}_{row}") for column in self._columns} for row in range(count)]
        )
        if self._replace:
            statement = statement.on_conflict_do_update(
                index_elements=self._conflict,
                set_={column: statement.excluded[column] for column in self._replace},
            )
        elif self._conflict:
            statement = statement.on_conflict_do_nothing(index_elements=self._conflict)
        wanted = [f"{column}_{row}" for row in range(count) for column in self._columns]
        return _compiled(conn, statement, wanted)


class Prepared:
    """A statement with fixed parameters, given in the order of `names`."""

    def __init__(self, statement: Select[Any] | Update | Delete | Insert, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, _Compiled] = {}

    def run(self, conn: Connection, *values: Any) -> CursorResult[Any]:
        found = self._compiled.get(conn.dialect.name)
        if found is None:
            found = self._compiled[conn.dialect.name] = _Compiled(conn, self._statement, self._names)
        return conn.exec_driver_sql(found.text, found.arrange(values))


class Listed:
    """A statement with an IN list of any length, after fixed parameters given in the order of `names`.

    It is run once for every VALUES_MAX values; the last value is repeated to fill a list up to the next power of two.
    """

    def __init__(
        self,
        column: ColumnElement[Any],
        build: Callable[[ColumnElement[bool]], Select[Any] | Update | Delete],
        names: Sequence[str] = (),
    ) -> None:
        self._column = column
        self._build = build
        self._names = tuple(names)
        self._compiled: dict[tuple[str, int], _Compiled] = {}

    def rows(self, conn: Connection, values: Sequence[Any], *fixed: Any) -> list[Row[Any]]:
        found: list[Row[Any]] = []
        for text, parameters in self._calls(conn, values, fixed):
            found.extend(conn.exec_driver_sql(text, parameters).all())
        return found

    def run(self, conn: Connection, values: Sequence[Any], *fixed: Any) -> int:
        """For statements that write; returns how many rows were touched."""
        return sum(
            conn.exec_driver_sql(text, parameters).rowcount for text, parameters in self._calls(conn, values, fixed)
        )

    def _calls(
        self, conn: Connection, values: Sequence[Any], fixed: tuple[Any, ...]
    ) -> list[tuple[str, tuple[Any, ...]]]:
        calls = []
        for at in range(0, len(values), VALUES_MAX):
            part = list(values[at : at + VALUES_MAX])
            count = 1 << (len(part) - 1).bit_length()
            part += part[-1:] * (count - len(part))
            key = (conn.dialect.name, count)
            found = self._compiled.get(key)
            if found is None:
                found = self._compiled[key] = self._compile(conn, count)
            calls.append((found.text, found.arrange((*fixed, *part))))
        return calls

    def _compile(self, conn: Connection, count: int) -> _Compiled:
        names = [f"{_VALUE}{index}" for index in range(count)]
        binds: list[BindParameter[Any]] = [bind(name, type_=self._column.type) for name in names]
        return _Compiled(conn, self._build(self._column.in_(binds)), (*self._names, *names))


class _Compiled:
    """The text of a statement, and how what is given becomes its parameters."""

    __slots__ = ("_constants", "_positions", "text")

    def __init__(
        self, conn: Connection, statement: Select[Any] | Update | Delete | Insert, names: Sequence[str]
    ) -> None:
        compiled = statement.compile(dialect=conn.dialect)
        order = compiled.positiontup or ()
        given = {name: position for position, name in enumerate(names)}
        # What is not given is a constant that SQLAlchemy made a parameter of (a NULL, SQLite's OFFSET 0).
        constants = [name for name in order if name not in given]
        self.text = str(compiled)
        self._constants = tuple(compiled.params[name] for name in constants)
        self._positions = tuple(given[name] if name in given else len(names) + constants.index(name) for name in order)

    def arrange(self, values: Sequence[Any]) -> tuple[Any, ...]:
        given = (*values, *self._constants)
        return tuple(given[position] for position in self._positions)


def _compiled(conn: Connection, statement: Insert, wanted: list[str]) -> str:
    compiled = statement.compile(dialect=conn.dialect)
    if list(compiled.positiontup or ()) != wanted:  # the flat tuples of Rows rely on it
        raise AssertionError(f"columns of {statement.table.name} are not in the order of the table")
    return str(compiled)
