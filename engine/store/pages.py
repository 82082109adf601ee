"""Pages across charts: lists for who is on call, and for whoever looks after them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select

from engine.domain.page import UNANSWERED, Page, PageState
from engine.store.charts import ChartStore
from engine.store.listed import Damaged, Listed, ListedStore
from engine.store.parts import PAGES
from engine.store.schema import page, to_micros


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
        after: tuple[bool, datetime, str] | None = None,
    ) -> list[ListedPage]:
        """Pages that meet all conditions: those that nobody has acknowledged first, the oldest of them first.

        states: none: any. after: those that stand behind this place (`key`).
        """
        unanswered = page.c.state.in_(sorted(state.value for state in UNANSWERED))
        statement = select(page).where(*_where(states, chart_ids))
        oldest_first = states and UNANSWERED.issuperset(states)
        if after is not None:
            at, later = to_micros(after[1]), page.c.id > after[2]
            if oldest_first:
                behind = or_(page.c.raised_at > at, and_(page.c.raised_at == at, later))
            else:
                behind = and_(unanswered == after[0], or_(page.c.raised_at < at, and_(page.c.raised_at == at, later)))
                behind = or_(behind, not_(unanswered)) if after[0] else behind
            statement = statement.where(behind)
        if oldest_first:
            statement = statement.order_by(page.c.raised_at, page.c.id)
        else:
            statement = statement.order_by(unanswered.desc(), page.c.raised_at.desc(), page.c.id)
        return self._run(conn, statement if limit is None else statement.limit(limit), damaged)

    def key(self, item: ListedPage) -> tuple[bool, datetime, str]:
        """Where it stands in a list."""
        return item.page.state in UNANSWERED, item.page.raised_at, item.page.id

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
