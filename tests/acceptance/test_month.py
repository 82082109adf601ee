"""A month of a hospital, driven by the test clock through the real daemon, ends with what the final charts warrant.

`HANDOFF_MONTH_STAYS=10000` is the whole hospital's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import msgspec
from harness import MakeDaemon, Site
from month.drive import lived
from month.warranted import Warranted

from engine.domain.chart import Chart
from engine.domain.page import Page, PageState
from engine.domain.task import Task, TaskState

SOAK = "HANDOFF_SOAK" in os.environ
STAYS = int(os.environ.get("HANDOFF_MONTH_STAYS", "1500" if SOAK else "60"))
SLICE = timedelta(hours=6 if SOAK else 24)
SEED = int(os.environ.get("HANDOFF_TEST_SEED", "1"))


def test_a_month_ends_with_what_the_final_charts_warrant(site: Site, make_daemon: MakeDaemon) -> None:
    with lived(site, make_daemon, stays=STAYS, seed=SEED, slice_length=SLICE) as month:
        charts = month.charts()
        warranted = Warranted(site.folder / "mappings", month.at)
        assert month.seen.answers == {"AA": month.seen.messages}
        assert site.json("dead", "list") == []
        assert all(line["balanced"] for line in site.json("ledger"))
        found = {chart.patient.key: faults for chart in charts if (faults := list(warranted.faults(chart)))}
        assert not found
        for name, change in FAULTS.items():
            changed = [one for chart in charts for one in change(chart)]
            assert changed, f"the month has nothing in which to make the fault {name!r}"
            assert all(list(warranted.faults(one)) for one in changed), f"{name!r} is not seen"


# --- faults that the re-computation must see, put into charts that have none


def _with(chart: Chart, task: Task) -> Chart:
    return msgspec.structs.replace(chart, tasks=tuple(task if one.id == task.id else one for one in chart.tasks))


def _lost(chart: Chart) -> Iterator[Chart]:
    for task in chart.tasks:
        if task.stands and task.raised_for is None and task.encounter is not None:
            yield msgspec.structs.replace(chart, tasks=tuple(one for one in chart.tasks if one is not task))


def _left_standing(chart: Chart) -> Iterator[Chart]:
    for task in chart.tasks:
        if task.state is TaskState.RETRACTED and task.raised_for is None:
            yield _with(chart, msgspec.structs.replace(task, state=TaskState.OPEN, ended_at=None))


def _not_missed(chart: Chart) -> Iterator[Chart]:
    for task in chart.tasks:
        if task.state is TaskState.MISSED and task.ladder:
            yield _with(chart, msgspec.structs.replace(task, state=TaskState.OPEN))


def _not_escalated(chart: Chart) -> Iterator[Chart]:
    for task in chart.tasks:
        if task.state is TaskState.MISSED and task.climbed:
            yield _with(chart, msgspec.structs.replace(task, climbed=0))


def _twice(chart: Chart) -> Iterator[Chart]:
    for task in chart.tasks:
        if task.stands and task.raised_for is None and task.encounter is not None:
            yield msgspec.structs.replace(
                chart, tasks=(*chart.tasks, msgspec.structs.replace(task, id=f"{task.id}-again"))
            )


def _page_goes_on(chart: Chart) -> Iterator[Chart]:
    ended = {task.id for task in chart.tasks if not task.stands}
    for page in chart.pages:
        if page.task in ended:
            changed: Page = msgspec.structs.replace(page, state=PageState.SENT)
            yield msgspec.structs.replace(chart, pages=(changed,))


FAULTS: dict[str, Callable[[Chart], Iterator[Chart]]] = {
    "a task is lost": _lost,
    "a task that was taken back stands": _left_standing,
    "a deadline did not ring": _not_missed,
    "a task did not escalate": _not_escalated,
    "a task stands twice": _twice,
    "a page goes on after its task": _page_goes_on,
}
