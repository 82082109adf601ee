"""`handoff plans`: running plans, when their protocol has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import Cli, config_option, json_option
from engine.cli.desk import open_desk
from engine.cli.groups import agree
from engine.cli.tables import Column, table

if TYPE_CHECKING:
    from engine.desk.migrating import PlanChange
    from engine.desk.seeing import View


@click.group("plans")
@config_option
def plans() -> None:
    """Follow-up plans of patients."""


@plans.command("migrate")
@click.option("--protocol", metavar="NAME", help="Plans of this protocol only.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
@click.pass_obj
def migrate(cli: Cli, protocol: str | None, dry_run: bool, yes: bool) -> None:
    """Make running plans anew by what their protocol says today.

    A plan goes on by the protocol that it was made with, however its file is edited. This is the way to change that:
    what would become of each is shown, then it is done for each patient, on record. What people have done stays: done
    tasks, attempts, owners.
    """
    from engine.desk import migrating

    with open_desk(cli) as desk:
        found = list(migrating.changes(desk, protocol))
        desk.shows(f"chart:{one.chart_id}" for one in found)
        view = desk.view(None, ())
        shapes = [_shape(one, view) for one in found]
        text = _told(shapes)
        if dry_run or not found:
            cli.print(shapes, text)
            return
        agree(cli, text, yes=yes, unattended=True)
        migrating.migrate(desk, found, protocol)
    cli.print(shapes, f"{len(shapes):,} plans are by the protocol of today now.")


def _shape(one: PlanChange, view: View) -> dict[str, Any]:
    return {
        "patient_key": view.key(one.patient_key),
        "encounter": view.key(one.encounter),
        "protocol": one.protocol,
        "from": one.made_with,
        "to": one.version,
        "tasks": [{"id": task.id, "kind": task.kind, "change": word} for word, task in one.tasks],
    }


def _told(shapes: list[dict[str, Any]]) -> str:
    if not shapes:
        return "Every running plan is by the protocol of today."
    rows = [
        (s["patient_key"], s["encounter"], s["protocol"], f"{s['from']} -> {s['to']}",
         ", ".join(f"{task['kind']} {task['change']}" for task in s["tasks"]) or "the version only")
        for s in shapes
    ]  # fmt: skip
    columns = (
        "patient", Column("encounter", drop=2), Column("protocol", common=True), Column("version", common=True),
        Column("tasks", least=12),
    )  # fmt: skip
    return f"{table(columns, rows)}\n{len(shapes):,} running plans would be made anew."
