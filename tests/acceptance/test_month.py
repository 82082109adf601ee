"""A month of a hospital, driven by the test clock through the real daemon, ends with what the final charts warrant.

`HANDOFF_MONTH_STAYS=10000` is the whole hospital's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

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
        assert site.json("dead", "list", "--unresolved") == []
        assert all(line["balanced"] for line in site.json("ledger"))
        found = {chart.patient.key: faults for chart in charts if (faults := list(warranted.faults(chart)))}
        assert not found
        for name, change in FAULTS.items():
            changed = [one for chart in charts for one in change(chart, month.at)]
            assert changed, f"the month has nothing in which to make the fault {name!r}"
            # A task that was taken back may be wanted now under another stay of the same chart: a few are no faults.
            unseen = [one for one in changed if not list(warranted.faults(one))]
            assert len(unseen) <= len(changed) // 20, (name, [describe(one) for one in unseen])


def describe(chart: Chart) -> list[tuple[str, ...]]:
    return [
        (task.kind, task.state.value, str(task.due_at), str(task.climbed), str([rung.at for rung in task.ladder]))
        for task in chart.tasks
    ]


# --- faults that the re-computation must see, put into charts that have none


def _with(chart: Chart, task: Task) -> Chart:
    return msgspec.structs.replace(chart, tasks=tuple(task if one.id == task.id else one for one in chart.tasks))


def _tasks(chart: Chart) -> Iterator[Task]:
    """Those of home plans: of what a person is asked besides, how often is not told by the chart alone."""
    if not chart.death_stated.doubts and chart.patient.deceased is not True:
        kinds = {"care_coordinator_alert", "on_call_page"}
        yield from (one for one in chart.tasks if one.kind not in kinds and one.raised_for is None)


def _lost(chart: Chart, _at: datetime) -> Iterator[Chart]:
    for task in _tasks(chart):
        if task.stands:
            yield msgspec.structs.replace(chart, tasks=tuple(one for one in chart.tasks if one is not task))


def _left_standing(chart: Chart, _at: datetime) -> Iterator[Chart]:
    for task in _tasks(chart):
        if task.state is TaskState.RETRACTED:
            yield _with(chart, msgspec.structs.replace(task, state=TaskState.OPEN, ended_at=None))


def _not_missed(chart: Chart, at: datetime) -> Iterator[Chart]:
    for task in _tasks(chart):
        by_its_deadline = any(rung.at <= at for rung in task.ladder)
        if task.state is TaskState.MISSED and by_its_deadline:  # and not because the patient has declined
            yield _with(chart, msgspec.structs.replace(task, state=TaskState.OPEN))


def _not_escalated(chart: Chart, at: datetime) -> Iterator[Chart]:
    for task in _tasks(chart):
        if task.state is TaskState.MISSED and task.climbed and any(rung.at <= at for rung in task.ladder):
            yield _with(chart, msgspec.structs.replace(task, climbed=0))


def _twice(chart: Chart, _at: datetime) -> Iterator[Chart]:
    for task in _tasks(chart):
        if task.stands:
            again = msgspec.structs.replace(task, id=f"{task.id}-again")
            yield msgspec.structs.replace(chart, tasks=(*chart.tasks, again))


def _page_goes_on(chart: Chart, _at: datetime) -> Iterator[Chart]:
    ended = {task.id for task in chart.tasks if not task.stands}
    for page in chart.pages:
        if page.task in ended:
            changed: Page = msgspec.structs.replace(page, state=PageState.SENT)
            yield msgspec.structs.replace(chart, pages=(changed,))


FAULTS: dict[str, Callable[[Chart, datetime], Iterator[Chart]]] = {
    "a task is lost": _lost,
    "a task that was taken back stands": _left_standing,
    "a deadline did not ring": _not_missed,
    "a task did not escalate": _not_escalated,
    "a task stands twice": _twice,
    "a page goes on after its task": _page_goes_on,
}
