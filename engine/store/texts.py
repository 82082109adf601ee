"""Texts across charts: lists for the care team."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from engine.domain.text import Text, TextState
from engine.store.charts import ChartStore
from engine.store.listed import Damaged, Listed, ListedStore
from engine.store.parts import TEXTS
from engine.store.schema import patient_text, to_micros


class ListedText(Listed, frozen=True, kw_only=True):
    """A text with the patient it is for."""

    text: Text


class TextStore(ListedStore[ListedText]):
    """Reading texts."""

    def __init__(self, charts: ChartStore) -> None:
        super().__init__(charts, TEXTS, patient_text, ListedText)

    def find(
        self,
        conn: Connection,
        *,
        states: Collection[TextState] = (),
        chart_ids: Sequence[str] | None = None,
        limit: int | None = 100,
        damaged: Damaged | None = None,
        after: tuple[datetime, str] | None = None,
    ) -> list[ListedText]:
        """Texts that meet all conditions, by when their series wants them, the latest first.

        states: none: any. after: those that stand behind this place (`key`).
        """
        statement = select(patient_text).where(*_where(states, chart_ids))
        if after is not None:
            at = to_micros(after[0])
            later = and_(patient_text.c.planned_for == at, patient_text.c.id > after[1])
            statement = statement.where(or_(patient_text.c.planned_for < at, later))
        statement = statement.order_by(patient_text.c.planned_for.desc(), patient_text.c.id)
        return self._run(conn, statement if limit is None else statement.limit(limit), damaged)

    def key(self, item: ListedText) -> tuple[datetime, str]:
        """Where it stands in a list."""
        return item.text.planned_for, item.text.id

    def count(
        self, conn: Connection, *, states: Collection[TextState] = (), chart_ids: Sequence[str] | None = None
    ) -> int:
        """How many meet the conditions (see `find`)."""
        return self._count(conn, _where(states, chart_ids))


def _where(states: Collection[TextState], chart_ids: Sequence[str] | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = []
    if states:
        where.append(patient_text.c.state.in_(sorted(state.value for state in states)))
    if chart_ids is not None:
        where.append(patient_text.c.chart_id.in_(chart_ids))
    return where
