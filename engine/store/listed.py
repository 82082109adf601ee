"""Tasks, pages and appointments across charts: each with the patient it is of, by its id or by how an id begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store.charts import ChartStore
from engine.store.parts import StoredPart

Damaged = Callable[[str], object]
"""Called with the id of each that can't be read any more, and which is left out then; where there is none, such a one
raises TamperedError."""


class Listed(Phi, frozen=True, kw_only=True):
    """A part of a chart, as a field of that name, with the patient it is of."""

    chart_id: str
    patient_key: str
    test: bool = False
    """The chart is one of test data."""


L = TypeVar("L", bound=Listed)


class ListedStore(Generic[L]):
    """Reading the parts of one kind. They are written by `record` only, with their charts."""

    def __init__(self, charts: ChartStore, stored: StoredPart, table: Table, listed: type[L]) -> None:
        """listed: with a field for the part, by the part's name (`Part.what`)."""
        self._charts = charts
        self._stored = stored
        self._table = table
        self._listed = listed

    @property
    def what(self) -> str:
        """One of them: `task`."""
        return self._stored.part.what

    def get(self, conn: Connection, id_: str) -> L | None:
        return next(iter(self._run(conn, select(self._table).where(self._table.c.id == id_))), None)

    def beginning(self, conn: Connection, prefix: str, limit: int) -> list[str]:
        """Ids that begin so, in order."""
        own = self._table.c.id
        statement = select(own).where(own >= prefix, own < f"{prefix}\U0010ffff")
        return list(conn.execute(statement.order_by(own).limit(limit)).scalars())

    def _count(self, conn: Connection, where: Sequence[ColumnElement[bool]]) -> int:
        return int(conn.execute(select(func.count()).select_from(self._table).where(*where)).scalar_one())

    def _run(self, conn: Connection, statement: Select[Any], damaged: Damaged | None = None) -> list[L]:
        return self._opened(conn, conn.execute(statement).all(), damaged)

    def _opened(self, conn: Connection, rows: Sequence[Any], damaged: Damaged | None) -> list[L]:
        keys = self._charts.patient_keys(conn, [row.chart_id for row in rows])
        tests = self._charts.tests(conn, keys)
        found: list[L] = []
        for row in rows:
            try:
                item = self._stored.open_item(self._charts.keys, row)
                key = keys[row.chart_id]
            except (TamperedError, KeyError):
                if damaged is None:
                    raise TamperedError(f"{self.what}.document:{row.chart_id}/{row.id}") from None
                damaged(row.id)
            else:
                found.append(
                    self._listed(
                        **{self.what: item}, chart_id=row.chart_id, patient_key=key, test=row.chart_id in tests
                    )
                )
        return found
