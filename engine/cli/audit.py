"""`handoff audit`: who did what, when, to what."""

from __future__ import annotations

from datetime import datetime

import click

from engine.cli.common import Cli, When, clock_time, config_option, json_option, limit_option, reveal_options, table
from engine.cli.site import open_site, reveal_of


@click.group("audit")
@config_option
def audit() -> None:
    """Who looked at or changed what, when and why."""


@audit.command("list")
@click.option("--since", type=When(), help="At or after.")
@click.option("--action", metavar="VERB", help="reveal, replay, discard, task-done, ...")
@limit_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def list_(cli: Cli, since: datetime | None, action: str | None, limit: int, reveal: bool, reason: str | None) -> None:
    """List the records, newest first. Reasons are free text that may name a patient: they need --reveal."""
    from engine.domain.shapes import plain

    wish = reveal_of(reveal, reason)
    with open_site(cli) as site:
        with site.store.reader() as conn:
            found = site.store.audit.find(conn, since=since, action=action, limit=limit)
        view = site.view(wish, ["audit"])
    shapes = [plain(record) | {"reason": view.text(record.reason)} for record in found]
    rows = [(clock_time(s["at"]), s["actor"], s["action"], s["subject"], s["reason"]) for s in shapes]
    cli.print(shapes, table(("at", "who", "did", "to", "why"), rows) or "No records.")
