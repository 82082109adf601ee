"""What is due: the deadlines that a chart waits for, and what happens when they have come.

What is due next follows from the chart alone, and stands beside it (`chart.due_at`), written in the same transaction:
there is no second list of timers that could say something else. The worker that owns the patient finds it and puts a
cause into the journal; deciding that cause lets everything happen that is due by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from engine.domain.cause import Cause, Due, UrgentDue
from engine.domain.chart import Chart
from engine.pipeline import appointments, pages, tasks, texts
from engine.pipeline.rule import Deciding, Rule


class Source(NamedTuple):
    """One kind of deadline."""

    next_at: Callable[[Chart], Iterable[datetime]]
    """The deadlines that the chart, as it is, still waits for: by the chart alone, and by no configuration."""
    ring: Callable[[Chart, Deciding], Chart]
    """The chart after what is due at `Deciding.now` has happened: each deadline is later then, or gone."""
    urgent: Callable[[Chart], bool] = lambda _chart: False
    """Somebody is to be called at once, or soon: such charts come before all others that are due."""


SOURCES: Final[tuple[Source, ...]] = (
    Source(tasks.deadlines, tasks.ring, tasks.calls),
    Source(pages.deadlines, pages.ring, pages.is_open),
    Source(appointments.deadlines, appointments.ring),
    Source(texts.deadlines, texts.ring),
)


def due_at(chart: Chart) -> datetime | None:
    """When the next deadline of a chart comes; none: it waits for nothing."""
    if chart.merged_into is not None:
        return None
    found = [at for source in SOURCES for at in source.next_at(chart)]
    return min(found, key=_instant) if found else None


_instant: Final = datetime.timestamp
"""What deadlines are compared by: of two in one zone Python would compare what the clock on the wall shows."""


def is_urgent(chart: Chart) -> bool:
    return any(source.urgent(chart) for source in SOURCES)


def _ring(_due: Due, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None:
        return None
    for source in SOURCES:
        chart = source.ring(chart, deciding)
    return chart


def _subjects(due: Due, chart: Chart | None) -> list[str]:
    return [f"chart:{chart.id if chart is not None else due.chart_id}"]


DUE_RULES: Final[Mapping[type[Cause], Rule]] = dict.fromkeys(
    (Due, UrgentDue), Rule(_ring, _subjects, audited=False, needs_channel=True)
)
