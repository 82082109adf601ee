"""Migrating: running plans are made anew by what their protocols say today. Looked at first, then done, on record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from engine.domain.task import STANDING, Task
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.pipeline.channel import CompiledChannel

_PAGE: Final = 100
"""Patients that are read, and whose plans are made anew, at a time."""


class PlanChange(NamedTuple):
    """What becomes of the plan of one stay."""

    chart_id: str
    patient_key: str
    encounter: str
    protocol: str
    made_with: str | None
    """Version of the protocol that it was made with."""
    version: str
    """Of today."""
    tasks: tuple[tuple[str, Task], ...]
    """`added`, `changed` or `retracted`; the task as it is after."""


def changes(desk: Desk, protocol: str | None) -> Iterator[PlanChange]:
    """What a migration would change, plan by plan; also of plans that only take the version.

    protocol: plans of this one only. Raises NotFoundError when there is no such protocol.
    """
    from engine.pipeline.plan import outdated

    compiled = desk.compiled()
    if protocol is not None and protocol not in (known := {one.name for one in compiled.rules.protocols.values()}):
        raise NotFoundError(f"there is no protocol {protocol}; there are {', '.join(sorted(known))}")
    today = {(one.name, one.digest) for one in compiled.rules.protocols.values()}
    with desk.store.reader() as conn:
        found = desk.store.tasks.find(conn, states=sorted(STANDING), limit=None)
    ids = dict.fromkeys(
        item.chart_id
        for item in found
        if (item.task.protocol, item.task.protocol_digest) not in today and protocol in {None, item.task.protocol}
    )
    for page in _pages(list(ids)):
        with desk.store.reader() as conn:
            charts = desk.store.charts.load(conn, (), (), page).by_id
        for chart_id in page:
            chart = charts.get(chart_id)
            channel = compiled.channels.get(chart.channel) if chart is not None else None
            if chart is not None and channel is not None and (stays := outdated(chart, channel, protocol)):
                yield from _changes(chart, channel, desk.now, stays, protocol)


def _changes(
    chart: Chart, channel: CompiledChannel, now: datetime, stays: frozenset[str], protocol: str | None
) -> Iterator[PlanChange]:
    from engine.pipeline.plan import migrated

    before = {task.id: task for task in chart.tasks}
    after = migrated(chart, channel, now, protocol)
    for stay in sorted(stays):
        own = [task for task in after.tasks if task.encounter == stay]
        was = next(task for task in chart.tasks if task.encounter == stay and not task.raised_for and _runs(task))
        told = [(word, task) for task in own if (word := _word(before.get(task.id), task)) is not None]
        yield PlanChange(
            chart_id=chart.id,
            patient_key=chart.patient.key,
            encounter=stay,
            protocol=was.protocol,
            made_with=was.protocol_version,
            version=channel.planners[was.protocol].protocol.version,
            tasks=tuple(told),
        )


def _runs(task: Task) -> bool:
    return task.stands or task.suspended_by is not None


def _word(before: Task | None, task: Task) -> str | None:
    if before is None:
        return "added"
    if before.state is not task.state:
        return str(task.state)
    same = (before.due_at, before.reason, before.ladder, before.page) == (
        task.due_at, task.reason, task.ladder, task.page,
    )  # fmt: skip
    return None if same else "changed"


def migrate(desk: Desk, plans: Sequence[PlanChange], protocol: str | None) -> None:
    """Do it, patient by patient. Raises as `engine.desk.acting.perform`; what was done before that stays done."""
    from engine.desk.acting import perform
    from engine.domain.cause import PlanMigrated

    for page in _pages(list(dict.fromkeys(one.chart_id for one in plans))):
        perform(desk, [PlanMigrated(actor=str(desk.actor), chart_id=one, protocol=protocol) for one in page])


def _pages(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _PAGE):
        yield ids[start : start + _PAGE]
