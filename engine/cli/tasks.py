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
    named_time,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import PATIENT_HELP, PatientKey, first_of, open_desk, reveal_of
from engine.cli.tables import Column, alarm, table
from engine.cli.times import DUE_TIMES, Due, Range, When
from engine.desk import finding

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.desk.seeing import View
    from engine.domain.cause import Act
    from engine.store.tasks import ListedTask

STATES: Final = ("open", "in_progress", "done", "missed", "cancelled", "retracted")
ENDED: Final = ("done", "cancelled", "retracted")
HOWS: Final = ("phone", "visit", "video", "text")
RESULTS: Final = ("reached", "no_answer", "left_message", "declined")


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
            narrow = "--assignee, --kind, --due"
            found = first_of(cli, desk, conn, desk.store.tasks, limit, narrow=narrow, **conditions)
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
    shapes = [_shape(item, view.of(item.chart_id)) for item in found]
    rows = [
        (s["id"], s["kind"], _listed_state(item, now), clock_time(s["due_at"]), s["assignee"],
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


def _listed_state(item: ListedTask, now: datetime) -> str:
    if _overdue(item, now):
        return "overdue"
    snoozed = item.task.stands and item.task.snoozed_until is not None and item.task.snoozed_until > now
    return "snoozed" if snoozed else "started" if item.task.state == "in_progress" else item.task.state.value


def _overdue(item: ListedTask, now: datetime) -> bool:
    return item.task.state in {"open", "in_progress"} and item.task.due_at < now


_TASK: Final = click.argument("task_id", metavar="ID")


@tasks.command("show")
@_TASK
@reveal_options
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, task_id: str, reveal: bool, reason: str | None) -> None:
    """Show one task: what it asks for and until when, who has it, what was tried, and what was done about it."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        item = finding.listed(desk, desk.store.tasks, task_id)
        shape = _shape(item, desk.view(wish, (f"chart:{item.chart_id}",)))
        now = desk.now
    cli.print(shape, _details(shape, overdue=_overdue(item, now)))


@tasks.command("attempt")
@_TASK
@click.option("--how", type=click.Choice(HOWS), required=True, help="By what the patient was to be reached.")
@click.option("--result", type=click.Choice(RESULTS), required=True, help="What came of it.")
@click.option(
    "--note", type=Said(), metavar="TEXT", help="What there is to know of it; sealed, shown to --reveal only."
)
@json_option
@config_option
@click.pass_obj
def attempt(cli: Cli, task_id: str, how: str, result: str, note: str | None) -> None:
    """Note an attempt to reach the patient.

    A task that asks for contact (tcm_contact) is done when a person has reached the patient, by phone, visit or video;
    an automated text is no contact. A patient who declines raises the alert of the task's protocol.
    """
    from engine.domain.cause import TaskAttempted
    from engine.domain.task import How, Result

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskAttempted(
            actor=str(desk.actor), chart_id=chart, task=task, how=How(how), result=Result(result), note=note
        )

    shape = _act(cli, task_id, make)
    cli.print(shape, _after_attempt(shape, how))


@tasks.command("assign")
@_TASK
@click.argument("who", metavar="WHO", type=Said())
@json_option
@config_option
@click.pass_obj
def assign(cli: Cli, task_id: str, who: str) -> None:
    """Give a task to a role or a person. Destinations that have it are told."""
    from engine.domain.cause import TaskAssigned

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskAssigned(actor=str(desk.actor), chart_id=chart, task=task, assignee=who)

    shape = _act(cli, task_id, make)
    cli.print(shape, f"{_named(shape)} is now with {who}.")


@tasks.command("snooze", epilog=DUE_TIMES)
@_TASK
@click.argument("until", metavar="TIME", type=When(ahead=True))
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def snooze(cli: Cli, task_id: str, until: datetime, reason: str) -> None:
    """Put a task off: nobody need look at it before TIME.

    Its deadline does not move. What the protocol does about it when it is not done in time is done then, snoozed or
    not, and wakes it.
    """
    from engine.domain.cause import TaskSnoozed

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskSnoozed(actor=str(desk.actor), chart_id=chart, task=task, until=until, reason=reason)

    shape = _act(cli, task_id, make)
    said = f"{_named(shape)} is snoozed until {named_time(shape['snoozed_until'])}."
    next_at = shape["escalate_at"] or (shape["due_at"] if shape["missed_at"] is None else None)
    if next_at is not None and _instant(next_at) < until:
        said += f" It is due {named_time(shape['due_at'])}, before that: it wakes {named_time(next_at)} if not done."
    cli.print(shape, said)


@tasks.command("done")
@_TASK
@click.option("--evidence", type=Said(), metavar="TEXT", help="What shows it; sealed, shown to --reveal only.")
@json_option
@config_option
@click.pass_obj
def done(cli: Cli, task_id: str, evidence: str | None) -> None:
    """Say that a task is done. Destinations that have it are told."""
    from engine.domain.cause import TaskDone

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskDone(actor=str(desk.actor), chart_id=chart, task=task, evidence=evidence)

    shape = _act(cli, task_id, make)
    cli.print(shape, f"{_named(shape)} is done.")


@tasks.command("cancel")
@_TASK
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why it need not be done; on the task.")
@json_option
@config_option
@click.pass_obj
def cancel(cli: Cli, task_id: str, reason: str) -> None:
    """Say that a task need not be done. Destinations that have it are told."""
    from engine.domain.cause import TaskCancelled

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskCancelled(actor=str(desk.actor), chart_id=chart, task=task, reason=reason)

    shape = _act(cli, task_id, make)
    cli.print(shape, f"{_named(shape)} is cancelled.")


@tasks.command("undo")
@_TASK
@json_option
@config_option
@click.pass_obj
def undo(cli: Cli, task_id: str) -> None:
    """Take back what you have just done to a task, and what came of it.

    Only who did it can, only the last act, and only while nothing else has happened to the task.
    """
    from engine.domain.cause import TaskUndone

    def make(desk: Desk, task: str, chart: str) -> Act:
        return TaskUndone(actor=str(desk.actor), chart_id=chart, task=task)

    shape = _act(cli, task_id, make)
    cli.print(shape, f"Undone: {_named(shape)} is {_state_told(shape)} again.")


def _act(cli: Cli, task_id: str, make: Callable[[Desk, str, str], Act]) -> dict[str, Any]:
    """Do it, and return the task as it is after, masked. make: the act, from the ids of task and chart."""
    from engine.desk.acting import perform

    with open_desk(cli) as desk:
        listed = finding.listed(desk, desk.store.tasks, task_id)
        perform(desk, [make(desk, listed.task.id, listed.chart_id)])
        view = desk.view(None, (f"chart:{listed.chart_id}",))
        return _shape(finding.listed(desk, desk.store.tasks, listed.task.id), view)


# --- in words --------------------------------------------------------------------------------------------------------


def _named(shape: dict[str, Any]) -> str:
    return f"{shape['kind']} of {shape['patient_key']}"


def _instant(at: str) -> datetime:
    return datetime.fromisoformat(at)


def _state_told(shape: dict[str, Any]) -> str:
    return str(shape["state"]).replace("_", " ")


def _after_attempt(shape: dict[str, Any], how: str) -> str:
    """How the task stands after an attempt, and what to do next."""
    if shape["state"] == "done":
        return f"{_named(shape)} is done: the patient was reached. Not so? handoff tasks undo {shape['id']}"
    text = " An automated text does not count as contact." if how == "text" and shape["attempts_wanted"] else ""
    if shape["attempts"][-1]["result"] == "reached" and not text:
        text = f" Is that all that it asks for? handoff tasks done {shape['id']}"
    return f"{_named(shape)} is {_state_told(shape)}, {_attempts_told(shape)}.{text}"


def _attempts_told(shape: dict[str, Any]) -> str:
    """`1 of 2 attempts made until it is due`: those that count for what is asked for."""
    made, wanted = len(shape["attempts"]), shape["attempts_wanted"]
    if not wanted:
        return f"{made} attempt{'' if made == 1 else 's'} made"
    due = _instant(shape["due_at"])
    count = sum(one["how"] != "text" and _instant(one["at"]) <= due for one in shape["attempts"])
    return f"{count} of {wanted} attempts made that are asked for until it is due"


def _details(shape: dict[str, Any], *, overdue: bool) -> str:
    state = "overdue" if overdue else _state_told(shape)
    lines: list[tuple[str, object]] = [
        ("task", shape["id"]),
        ("kind", shape["kind"]),
        ("patient", shape["patient_key"]),
        ("encounter", shape["encounter"]),
        ("state", alarm(state) if state in {"overdue", "missed"} else state),
        ("reason", shape["reason"]),
        ("assignee", shape["assignee"]),
        ("owner", shape["owner"]),
        ("due", named_time(shape["due_at"])),
        ("escalates", named_time(shape["escalate_at"]) if shape["ended_at"] is None else None),
        ("snoozed until", named_time(shape["snoozed_until"]) if shape["ended_at"] is None else None),
        ("missed", named_time(shape["missed_at"])),
        ("ended", _ended_told(shape)),
        ("evidence", shape["evidence"]),
        ("appointment", shape["appointment"]),
        ("pages", shape["page"]),
        ("alert about", shape["raised_for"]),
        ("protocol", " ".join(filter(None, (shape["protocol"], shape["protocol_version"])))),
    ]
    if shape["attempts"] or shape["attempts_wanted"]:
        lines.append(("attempts", _attempts_told(shape)))
    lines += [
        ("", f"{named_time(one['at'])} {one['how']}: {one['result'].replace('_', ' ')}, by {one['by']}"
             + (f": {one['note']}" if one["note"] else ""))
        for one in shape["attempts"]
    ]  # fmt: skip
    lines += [(f"{'done about it' if not number else ''}", _escalation_told(one))
              for number, one in enumerate(shape["escalations"])]  # fmt: skip
    return "\n".join(f"{name:<14}{value}" for name, value in lines if value is not None)


ESCALATED: Final = {
    "no-show": "the visit was missed",
    "no-word": "the day of the visit has passed, and nobody has said whether it was kept",
    "request-refused": "the scheduling system did not book it: book it by hand",
}
"""Why something was said about a task where nothing else was done."""


def _escalation_told(one: dict[str, Any]) -> str:
    """`2026-03-05 10:00:00 EST deadline: given to care_manager, alert 9f2c1a`."""
    did = [
        f"given to {one['owner']}" if one["owner"] else "",
        f"alert {one['alert']}" if one["alert"] else "",
        f"paged {one['page']}" if one["page"] else "",
    ]
    said = ", ".join(filter(None, did)) or ESCALATED.get(one["why"], "missed")
    return f"{named_time(one['at'])} {one['why']}: {said}"


def _ended_told(shape: dict[str, Any]) -> str | None:
    if shape["ended_at"] is None:
        return None
    why = f": {shape['end_reason']}" if shape["end_reason"] else ""
    return f"{named_time(shape['ended_at'])} by {shape['ended_by']}{why}"


def reason_told(shape: dict[str, Any]) -> str:
    """Why a task exists, and when it has ended by whom, when and why."""
    if shape["ended_at"] is None:
        return str(shape["reason"])
    ended = f"{shape['state']} by {shape['ended_by']} {clock_time(shape['ended_at'])}"
    return f"{shape['reason']} — {ended}" + (f": {shape['end_reason']}" if shape["end_reason"] else "")


def _shape(item: ListedTask, view: View) -> dict[str, Any]:
    from engine.domain.shapes import task_shape

    return view.part("task", task_shape(item.task, item.patient_key)) | {"test": item.test}
