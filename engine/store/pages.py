"""Pages across charts: lists for who is on call, and for whoever looks after them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from engine.domain.page import UNANSWERED, Page, PageState
from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store.charts import ChartStore
from engine.store.parts import PAGES
from engine.store.schema import page


class ListedPage(Phi, frozen=True, kw_only=True):
    """A page with the patient it is about."""

    page: Page
    chart_id: str
    patient_key: str


class PageStore:
    """Reading pages. They are written by `record` only, with their charts."""

    def __init__(self, charts: ChartStore) -> None:
        self._charts = charts

    def find(
        self,
        conn: Connection,
        *,
        states: Collection[PageState] = (),
        chart_ids: Sequence[str] | None = None,
        limit: int | None = 100,
        damaged: Callable[[str], object] | None = None,
    ) -> list[ListedPage]:
        """Pages that meet all conditions: those that nobody has acknowledged first, the oldest of them first.

        states: none: any. damaged: called with the id of each that can't be read any more, and which is left out then;
        without it such a one raises TamperedError.
        """
        unanswered = page.c.state.in_(sorted(state.value for state in UNANSWERED))
        statement = select(page).where(*_where(states, chart_ids))
        if states and UNANSWERED.issuperset(states):
            statement = statement.order_by(page.c.raised_at, page.c.id)
        else:
            statement = statement.order_by(unanswered.desc(), page.c.raised_at.desc(), page.c.id)
        return self._run(conn, statement if limit is None else statement.limit(limit), damaged)

    def count(
        self, conn: Connection, *, states: Collection[PageState] = (), chart_ids: Sequence[str] | None = None
    ) -> int:
        statement = select(func.count()).select_from(page).where(*_where(states, chart_ids))
        return int(conn.execute(statement).scalar_one())

    def beginning(self, conn: Connection, prefix: str, limit: int) -> list[str]:
        """Ids that begin so, in order."""
        statement = select(page.c.id).where(page.c.id >= prefix, page.c.id < f"{prefix}\U0010ffff")
        return list(conn.execute(statement.order_by(page.c.id).limit(limit)).scalars())

    def get(self, conn: Connection, page_id: str) -> ListedPage | None:
        return next(iter(self._run(conn, select(page).where(page.c.id == page_id))), None)

    def _run(
        self, conn: Connection, statement: Select[Any], damaged: Callable[[str], object] | None = None
    ) -> list[ListedPage]:
        rows = conn.execute(statement).all()
        keys = self._charts.patient_keys(conn, [row.chart_id for row in rows])
        found: list[ListedPage] = []
        for row in rows:
            try:
                item = PAGES.open(self._charts.keys, row)
                key = keys[row.chart_id]
            except (TamperedError, KeyError):
                if damaged is None:
                    raise TamperedError(f"page.document:{row.chart_id}/{row.id}") from None
                damaged(row.id)
            else:
                found.append(ListedPage(page=item, chart_id=row.chart_id, patient_key=key))
        return found


def _where(states: Collection[PageState], chart_ids: Sequence[str] | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if states:
        where.append(page.c.state.in_(sorted(state.value for state in states)))
    if chart_ids is not None:
        where.append(page.c.chart_id.in_(chart_ids))
    return where
