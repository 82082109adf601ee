"""`handoff audit`: who did what, when, to what."""

from __future__ import annotations

from datetime import datetime

import click

from engine.cli.common import (
    Cli,
    clock_time,
    config_option,
    limit_option,
    list_options,
    reveal_options,
    time_column,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.glass import attest, glasses
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.desk import finding


@click.group("audit")
@config_option
def audit() -> None:
    """Who looked at or changed what, when and why."""


@audit.command("list", epilog=TIMES)
@click.option("--since", type=When(), help="At or after.")
@click.option("--action", metavar="VERB", help="reveal, replay, discard, task-done, ...")
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, since: datetime | None, action: str | None, limit: int, reveal: bool, reason: str | None) -> None:
    """List the records, newest first. Reasons are free text that may name a patient: they need --reveal."""
    from engine.domain.shapes import plain

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        finding.check_action(desk, action)
        with desk.store.reader() as conn:
            read = desk.store.audit.find(conn, since=since, action=action, limit=limit + 1)
            found = cli.first(read, limit, lambda: desk.store.audit.count(conn, since=since, action=action))
        view = desk.view(wish, ["audit"])
    shapes = [plain(record) | {"reason": view.text(record.reason)} for record in found]
    rows = [(clock_time(s["at"]), s["actor"], s["action"], s["subject"], s["reason"]) for s in shapes]
    columns = (time_column("at"), Column("who", least=6), "did", Column("to", least=8), Column("why", least=8, drop=1))
    cli.print(shapes, table(columns, rows) or "No records.")


audit.add_command(glasses)
audit.add_command(attest)
