"""Which charts have to do with a telephone number: those with a text to it, or a consent to be written to at it.

A row says where to look, by a keyed hash of the number; the chart that it leads to is opened, merges followed, and must
itself have the number. A number that a chart once had to do with stays: a reply to a text of then is still its.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, select

from engine.domain.chart import Chart
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.schema import contact_number
from engine.store.statements import Rows, Statement

_CHARTS_MAX: Final = 50
"""Of one number. A family has few; more are a number that stands in for none (a clinic's own)."""
_NOTE: Final = Rows(contact_number, ("found_by", "chart_id"), conflict=("found_by", "chart_id"))
_OF_NUMBER: Final = Statement(
    select(contact_number.c.chart_id)
    .where(contact_number.c.found_by == bindparam("wanted"))
    .order_by(contact_number.c.chart_id.desc())
    .limit(bindparam("count", type_=BigInteger)),
    ("wanted", "count"),
)


class Concerned(NamedTuple):
    """A chart that has to do with a number. open_questions: what its texts to the number ask, and wait for."""

    chart_id: str
    open_questions: int


def note(conn: Connection, keys: KeyRing, changed: Sequence[Chart], old: Mapping[str, Chart]) -> None:
    """Put on record which numbers changed charts have to do with now."""
    rows: list[tuple[Any, ...]] = []
    for chart in changed:
        if chart.texts or chart.contact_consents:
            was = old.get(chart.id)
            new = _numbers(chart) - (_numbers(was) if was is not None else frozenset())
            rows.extend((_hash(keys, number), chart.id) for number in sorted(new))
    _NOTE.write(conn, rows)


def concerned(conn: Connection, keys: KeyRing, charts: ChartStore, number: str) -> list[Concerned]:
    """The living charts that have to do with a number, those first that were made last."""
    found: dict[str, Concerned] = {}
    for row in _OF_NUMBER.rows(conn, _hash(keys, number), _CHARTS_MAX):
        chart = charts.living(conn, row.chart_id)
        if chart is not None and chart.id not in found and number in _numbers(chart):
            waiting = sum(text.number == number and text.is_open for text in chart.texts)
            found[chart.id] = Concerned(chart.id, waiting)
    return list(found.values())


def _numbers(chart: Chart) -> frozenset[str]:
    texted = {text.number for text in chart.texts if text.number is not None}
    return frozenset(texted | {one.number for one in chart.contact_consents})


def _hash(keys: KeyRing, number: str) -> bytes:
    return keys.lookup("number", number)
