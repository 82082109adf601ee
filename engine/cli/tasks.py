"""`handoff tasks`: the follow-up that people do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import (
    Cli,
    Said,
    When,
    clock_time,
    config_option,
    json_option,
    limit_option,
    reveal_options,
    table,
)
from engine.cli.site import NotFoundError, OpenSite, actor, open_site, reveal_of
from engine.errors import StaleChartError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.cli.show import View
    from engine.domain.task import Task
    from engine.store.tasks import ListedTask

_ATTEMPTS_MAX = 5


@click.group("tasks")
@config_option
def tasks() -> None:
    """Follow-up tasks of patients."""


@tasks.command("list")
@click.option("--state", type=click.Choice(["open", "done", "missed", "cancelled", "retracted"]), help="In this state.")
@click.option("--kind", metavar="KIND", help="Of this kind.")
@click.option("--assignee", metavar="WHO", help="Of this role or person.")
@click.option("--patient", metavar="KEY", help="Of this patient: AUTHORITY:ID, or a pseudonym.")
@click.option("--due-before", type=When(), help="Due before.")
@limit_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    state: str | None,
    kind: str | None,
    assignee: str | None,
    patient: str | None,
    due_before: datetime | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List tasks, the most urgent first."""
    from engine.domain.task import TaskState

    wish = reveal_of(reveal, reason)
    damaged: list[str] = []
    with open_site(cli) as site:
        chart = site.chart(patient) if patient else None
        with site.store.reader() as conn:
            found = site.store.tasks.find(
                conn,
                state=TaskState(state) if state else None,
                kind=kind,
                assignee=assignee,
                chart_ids=[chart.id] if chart else None,
                due_before=due_before,
                limit=limit,
                damaged=damaged.append,
            )
        view = site.view(wish, (f"chart:{item.chart_id}" for item in found))
    for task_id in damaged:
        cli.say(f"Task {task_id} can't be read any more: it, or its patient's chart, is damaged. It is left out.")
    shapes = [_shape(item, view) for item in found]
    rows = [
        (s["id"], s["kind"], s["state"], clock_time(s["due_at"]), s["assignee"], s["patient_key"], reason_told(s))
        for s in shapes
    ]
    headers = ("id", "kind", "state", "due", "assignee", "patient", "reason")
    cli.print(shapes, table(headers, rows) or "No tasks.")


@tasks.command("done")
@click.argument("task_id", metavar="ID")
@json_option
@config_option
@click.pass_obj
def done(cli: Cli, task_id: str) -> None:
    """Say that a task is done. Destinations that have it are told."""
    from engine.store.tasks import done as as_done

    with open_site(cli) as site:
        shape = _change(site, task_id, as_done(actor(), site.now), "task-done")
    cli.print(shape, f"{shape['kind']} of {shape['patient_key']} is done.")


@tasks.command("assign")
@click.argument("task_id", metavar="ID")
@click.argument("assignee", metavar="WHO", type=Said())
@json_option
@config_option
@click.pass_obj
def assign(cli: Cli, task_id: str, assignee: str) -> None:
    """Give an open task to a role or a person. Destinations that have it are told."""
    from engine.domain.task import TaskState
    from engine.store.tasks import assigned

    def give(task: Task) -> Task:
        if task.state is not TaskState.OPEN:
            raise NotFoundError(f"the task is not open but {task.state}")
        return assigned(assignee)(task)

    with open_site(cli) as site:
        shape = _change(site, task_id, give, "task-assigned")
    cli.print(shape, f"{shape['kind']} of {shape['patient_key']} is now with {assignee}.")


def _change(site: OpenSite, task_id: str, change: Callable[[Task], Task], action: str) -> dict[str, Any]:
    """Change a task, send the change where the task went, and return its new shape, masked."""
    from engine.domain.chart import Chart
    from engine.domain.delivery import Delivery
    from engine.pipeline.deliver import chart_deliveries

    store = site.store
    with store.reader() as conn:
        listed = store.tasks.get(conn, task_id)
        entries = store.journal.find(conn, patient=listed.patient_key, limit=1) if listed else []
    if listed is None:
        raise NotFoundError("there is no such task; `handoff tasks list` shows the ids")
    # A task goes where the channel delivers to that its patient was last heard of on.
    name = entries[0].channel if entries else ""
    channel = site.compiled().channels.get(name)

    def deliveries(before: Chart, after: Chart) -> list[Delivery]:
        # One that is paused has delivered, and will again; one in shadow delivers nothing.
        heard = channel is not None and channel.settings.mode != "shadow"
        return chart_deliveries(before, after, channel) if heard and channel is not None else []

    def work(conn: Connection) -> Chart:
        changed = store.tasks.change(conn, task_id, change, now=site.now, deliveries=deliveries, channel=name)
        site.note(conn, action, [f"task:{task_id}"])
        return changed

    for attempt in range(_ATTEMPTS_MAX):
        try:
            store.charts_ledger.write_now(work)
            break
        except StaleChartError:  # a message of this patient came in between
            if attempt == _ATTEMPTS_MAX - 1:
                raise
    with store.reader() as conn:
        after = store.tasks.get(conn, task_id)
    return _shape(after or listed, site.view(None, ()))


def reason_told(shape: dict[str, Any]) -> str:
    """Why a task exists, and when it has ended by whom, when and why."""
    if shape["ended_at"] is None:
        return str(shape["reason"])
    ended = f"{shape['state']} by {shape['ended_by']} {clock_time(shape['ended_at'])}"
    return f"{shape['reason']} — {ended}" + (f": {shape['end_reason']}" if shape["end_reason"] else "")


def _shape(item: ListedTask, view: View) -> dict[str, Any]:
    from engine.domain.shapes import task_shape

    return view.task(task_shape(item.task, item.patient_key))
