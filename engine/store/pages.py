"""Pages across charts: lists for who is on call, and for whoever looks after them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, select

from engine.domain.page import UNANSWERED, Page, PageState
from engine.store.charts import ChartStore
from engine.store.listed import Damaged, Listed, ListedStore
from engine.store.parts import PAGES
from engine.store.schema import page


class ListedPage(Listed, frozen=True, kw_only=True):
    """A page with the patient it is about."""

    page: Page


class PageStore(ListedStore[ListedPage]):
    """Reading pages."""

    def __init__(self, charts: ChartStore) -> None:
        super().__init__(charts, PAGES, page, ListedPage)

    def find(
        self,
        conn: Connection,
        *,
        states: Collection[PageState] = (),
        chart_ids: Sequence[str] | None = None,
        limit: int | None = 100,
        damaged: Damaged | None = None,
    ) -> list[ListedPage]:
        """Pages that meet all conditions: those that nobody has acknowledged first, the oldest of them first.

        states: none: any.
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
        """How many meet the conditions (see `find`)."""
        return self._count(conn, _where(states, chart_ids))


def _where(states: Collection[PageState], chart_ids: Sequence[str] | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if states:
        where.append(page.c.state.in_(sorted(state.value for state in states)))
    if chart_ids is not None:
        where.append(page.c.chart_id.in_(chart_ids))
    return where
