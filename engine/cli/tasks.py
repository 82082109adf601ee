"""`handoff tasks`: the follow-up that people do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    Said,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    meant,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.cli.times import DUE_TIMES, Due, Range, When
from engine.desk import finding
from engine.desk.desk import Desk
from engine.desk.finding import CANDIDATES_MAX, by_prefix
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.desk.seeing import View
    from engine.domain.cause import Act
    from engine.store.tasks import ListedTask

STATES: Final = ("open", "in_progress", "done", "missed", "cancelled", "retracted")
ENDED: Final = ("done", "cancelled", "retracted")


@click.group("tasks")
@config_option
def tasks() -> None:
    """Follow-up tasks of patients."""


@tasks.command("list", epilog=DUE_TIMES)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="In this state; may be repeated.")
@click.option("--all", "every", is_flag=True, help="In any state.")
@click.option("--kind", metavar="KIND", help="Of this kind.")
@click.option("--assignee", metavar="WHO", help="Of this role or person.")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--due", type=Due(), help="Overdue, due that day, or due before a time (+2d).")
@click.option("--due-before", type=When(ahead=True), help="Due before.")
@limit_option
@reveal_options
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    states: tuple[str, ...],
    every: bool,
    kind: str | None,
    assignee: str | None,
    patient: str | None,
    due: Range | None,
    due_before: datetime | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List tasks, the most urgent first.

    Without --state these are the ones that are still to be done; with --patient all of that patient; with --json, which
    scripts read, all that there are.
    """
    from engine.domain.task import STANDING, TaskState

    if every and states:
        raise click.UsageError("either --all or --state")
    wish = reveal_of(reveal, reason)
    open_only = not (states or every or patient or cli.json)
    damaged: list[str] = []
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient) if patient else None
        finding.check_kind(desk, kind)
        with desk.store.reader() as conn:
            conditions: dict[str, Any] = {
                "states": sorted(STANDING) if open_only else [TaskState(state) for state in states],
                "kind": kind,
                "assignee": assignee,
                "chart_ids": [chart.id] if chart else None,
                "due_from": due.since if due else None,
                "due_before": min(filter(None, (due.until if due else None, due_before)), default=None),
            }
            found = desk.store.tasks.find(conn, **conditions, limit=limit + 1, damaged=damaged.append)
            if len(found) > limit:
                found = found[:limit]
                cli.cut(limit, desk.store.tasks.count(conn, **conditions), narrow="--assignee, --kind, --due")
            ended = (
                desk.store.tasks.count(conn, **conditions | {"states": [TaskState(state) for state in ENDED]})
                if open_only
                else 0
            )
            if assignee is not None and not found:
                near = meant(assignee, desk.store.tasks.assignees(conn))
                cli.say(f"{assignee} has no such task.{near}")
        view = desk.view(wish, (f"chart:{item.chart_id}" for item in found))
        now = desk.now
    for task_id in damaged:
        cli.say(f"Task {task_id} can't be read any more: it, or its patient's chart, is damaged. It is left out.")
    shapes = [_shape(item, view) for item in found]
    rows = [
        (s["id"], s["kind"], "overdue" if _overdue(item, now) else s["state"], clock_time(s["due_at"]), s["assignee"],
         s["patient_key"], reason_told(s)) for item, s in zip(found, shapes, strict=True)
    ]  # fmt: skip
    columns = (
        Column("id", kind="id"), "kind", Column("state", common=True, alarm={"overdue", "missed"}),
        time_column("due"), Column("assignee", least=8, drop=1, common=True), "patient",
        Column("reason", least=8, drop=2),
    )  # fmt: skip
    filtered = any(one is not None for one in (kind, assignee, due, due_before, patient))
    none = f"No {'open tasks' if open_only else 'tasks'}{' that match these options' if filtered else ''}."
    text = table(columns, rows) or none
    cli.print(shapes, text + (f"\n{ended:,} more are not open any more (--all)." if ended else ""))


def _overdue(item: ListedTask, now: datetime) -> bool:
    return item.task.state in {"open", "in_progress"} and item.task.due_at < now


@tasks.command("done")
@click.argument("task_id", metavar="ID")
@json_option
@config_option
@click.pass_obj
def done(cli: Cli, task_id: str) -> None:
    """Say that a task is done. Destinations that have it are told."""
    from engine.domain.cause import TaskDone

    with open_desk(cli) as desk:
        shape = _act(desk, task_id, lambda task, chart: TaskDone(actor=str(desk.actor), chart_id=chart, task=task))
    cli.print(shape, f"{shape['kind']} of {shape['patient_key']} is done.")


@tasks.command("assign")
@click.argument("task_id", metavar="ID")
@click.argument("assignee", metavar="WHO", type=Said())
@json_option
@config_option
@click.pass_obj
def assign(cli: Cli, task_id: str, assignee: str) -> None:
    """Give an open task to a role or a person. Destinations that have it are told."""
    from engine.domain.cause import TaskAssigned

    def give(task: str, chart: str) -> Act:
        return TaskAssigned(actor=str(desk.actor), chart_id=chart, task=task, assignee=assignee)

    with open_desk(cli) as desk:
        shape = _act(desk, task_id, give)
    cli.print(shape, f"{shape['kind']} of {shape['patient_key']} is now with {assignee}.")


def _act(desk: Desk, task_id: str, make: Callable[[str, str], Act]) -> dict[str, Any]:
    """Do it, and return the task as it is after, masked. make: the act, from the ids of task and chart."""
    from engine.desk.acting import perform

    store = desk.store
    with store.reader() as conn:
        task_id = by_prefix("task", task_id, store.tasks.beginning(conn, task_id, CANDIDATES_MAX))
        listed = store.tasks.get(conn, task_id)
    if listed is None:
        raise NotFoundError("there is no such task; `handoff tasks list` shows the ids")
    perform(desk, [make(task_id, listed.chart_id)])
    with store.reader() as conn:
        after = store.tasks.get(conn, task_id)
    return _shape(after or listed, desk.view(None, ()))


def reason_told(shape: dict[str, Any]) -> str:
    """Why a task exists, and when it has ended by whom, when and why."""
    if shape["ended_at"] is None:
        return str(shape["reason"])
    ended = f"{shape['state']} by {shape['ended_by']} {clock_time(shape['ended_at'])}"
    return f"{shape['reason']} — {ended}" + (f": {shape['end_reason']}" if shape["end_reason"] else "")


def _shape(item: ListedTask, view: View) -> dict[str, Any]:
    from engine.domain.shapes import task_shape

    return view.part("task", task_shape(item.task, item.patient_key))
