"""Searching for patients by who they are. All that identifies a patient is encrypted, so charts are opened for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import TamperedError

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.store.charts import ChartDocument

PIECE = 500
"""Charts read at once: a long look would pin the store's log, and hold more in memory than is shown."""


class Terms(NamedTuple):
    """What is known of the patient. Absent: anything."""

    visit: str | None = None
    """Encounter key or visit number."""
    name: str | None = None
    """How the family name begins."""
    birth_date: str | None = None
    """A date, or how one begins (`1958-07`)."""

    @property
    def any(self) -> bool:
        return self != Terms()


class Matches(NamedTuple):
    """What was found."""

    charts: list[Chart]
    cut: bool
    """There are charts that were not looked through."""
    damaged: list[str]
    """Ids of charts that can't be read any more."""


def search(desk: Desk, terms: Terms, *, charts_max: int, most: int) -> Matches:
    """Charts that match, those that changed last first. charts_max: so many are looked through; most: so many found."""
    desk.asked(visit=terms.visit, name=terms.name, birth_date=terms.birth_date)
    damaged: list[str] = []
    chart_ids = _direct(desk, terms.visit)
    cut = False
    if not chart_ids:
        with desk.store.reader() as conn:
            # One more than are looked at tells whether there are more.
            chart_ids = desk.store.charts.latest_ids(conn, charts_max + 1 if terms.any else most)
        if cut := terms.any and len(chart_ids) > charts_max:
            chart_ids.pop()
    some = list(islice(_matching(desk, chart_ids, terms, damaged), most))
    return Matches([chart for piece in _pieces(some) for chart in _charts(desk, piece, damaged)], cut, damaged)


def _direct(desk: Desk, visit: str | None) -> list[str]:
    """The chart that a whole encounter key leads to."""
    if visit is None or ":" not in visit:
        return []
    with desk.store.reader() as conn:
        chart = desk.store.charts.by_visit(conn, visit)
    return [chart.id] if chart is not None else []


def _matching(desk: Desk, chart_ids: Sequence[str], terms: Terms, damaged: list[str]) -> Iterator[str]:
    for piece in _pieces(chart_ids):
        with desk.store.reader() as conn:
            documents = desk.store.charts.documents(conn, piece)
        for chart_id, document in documents:
            if document is None:
                damaged.append(chart_id)
            elif _matches(document, terms):
                yield chart_id


def _charts(desk: Desk, chart_ids: Sequence[str], damaged: list[str]) -> list[Chart]:
    try:
        with desk.store.reader() as conn:
            return desk.store.charts.whole(conn, list(chart_ids))
    except TamperedError:
        if len(chart_ids) == 1:
            damaged.append(chart_ids[0])
            return []
    return [chart for one in chart_ids for chart in _charts(desk, [one], damaged)]


def _pieces(chart_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(chart_ids), PIECE):
        yield chart_ids[at : at + PIECE]


def _matches(document: ChartDocument, terms: Terms) -> bool:
    patient = document.patient
    family = (patient.name.family if patient.name else None) or ""
    visit, name, birth_date = terms
    return (
        (visit is None or any(visit in {key, key.partition(":")[2]} for key in document.keys_of("encounters")))
        and (name is None or family.casefold().startswith(name.casefold()))
        and (birth_date is None or (patient.birth_date is not None and patient.birth_date.text.startswith(birth_date)))
    )
