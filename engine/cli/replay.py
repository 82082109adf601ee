"""`handoff replay`: entries of the journal, processed again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import NO, Cli, complete_channel, config_option, json_option
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk
from engine.cli.groups import agree, counted, group_options
from engine.cli.messages import STATES
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.desk import finding, replaying
from engine.desk.desk import Desk
from engine.desk.replaying import AsOf, try_out

if TYPE_CHECKING:
    pass

_LOOK_ENTRIES_MAX: Final = 1000
"""Entries that a preview looks at and tries."""


def as_of_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--config-as-of",
        "as_of",
        type=click.Choice(["now", "then"]),
        default="now",
        show_default=True,
        help="Under today's configuration, or the one that processed the entry.",
    )(function)


@click.command("replay", epilog=TIMES)
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--since", type=When(), help="Received at or after.")
@click.option("--until", type=When(), help="Received before.")
@click.option("--state", type=click.Choice(STATES), help="With this state now.")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--all", "every", is_flag=True, help="The whole journal.")
@as_of_option
@group_options
@click.option("-v", "--verbose", is_flag=True, help="With --dry-run: entry by entry.")
@json_option
@config_option
@click.pass_obj
def replay(
    cli: Cli,
    channel: str | None,
    since: datetime | None,
    until: datetime | None,
    state: str | None,
    patient: str | None,
    every: bool,
    as_of: AsOf,
    dry_run: bool,
    yes: bool,
    verbose: bool,
) -> int:
    """Process entries of the journal again, oldest first. What was sent is not sent a second time.

    Of a chain of replays, its first entry is replayed. Replay as many as you like, and rerun an interrupted replay:
    processing an entry twice has no further effect. Exit code 1 when an entry can't be replayed because what is stored
    of it is damaged.

    --dry-run shows which entries these are and what they would change now: their outcomes, new tasks, and what would be
    sent that was not sent.
    """
    from engine.domain.message import EntryState

    if not every and not any((channel, since, until, state, patient)):
        raise click.UsageError(
            "say which: --channel, --since, --until, --state, --patient, or --all for the whole journal"
        )

    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        key = finding.patient_key(desk, patient) if patient else None
        with desk.store.reader() as conn:
            chosen = desk.store.journal.originals(
                conn,
                channel=channel,
                state=EntryState(state) if state else None,
                patient=key,
                since=since,
                until=until,
            )
        if dry_run:
            cli.print(*_preview(desk, chosen, as_of, channel=channel, verbose=verbose))
            return 0
        if len(chosen) > 1:
            agree(cli, f"{len(chosen):,} entries would be replayed: {_kinds(desk, chosen)}.", yes=yes, unattended=True)
        made: list[int] = []
        problems: list[dict[str, Any]] = []
        for one in replaying.replay(desk, chosen, as_of):
            if one.new is not None:
                made.append(one.new)
            else:
                problems.append({"entry": one.old, "problem": one.problem})
    lines = [f"{len(made)} entries replayed." + (f" New: {made[0]} to {made[-1]}." if made else "")]
    lines += [f"Not replayed: entry {problem['entry']}: {problem['problem']}" for problem in problems]
    document = {"dry_run": False, "config_as_of": as_of, "selected": chosen, "replayed": len(made), "entries": made}
    cli.print(document | {"problems": problems}, "\n".join(lines))
    return NO if problems else 0


def _kinds(desk: Desk, chosen: Sequence[int]) -> str:
    """`12 ADT^A01 processed (main)`: what the first entries of a group are."""
    with desk.store.reader() as conn:
        found = desk.store.journal.listed(conn, chosen[:_LOOK_ENTRIES_MAX])
    said = counted(f"{one.type or 'unreadable'} {one.state} ({one.channel})" for one in found)
    return said + (f", and {len(chosen) - len(found):,} more" if len(chosen) > len(found) else "")


def _preview(
    desk: Desk, chosen: Sequence[int], as_of: AsOf, *, channel: str | None, verbose: bool
) -> tuple[dict[str, Any], str]:
    """What a replay would do, as a document and in words. The first entries are tried; nothing is written."""
    document: dict[str, Any] = {
        "dry_run": True, "config_as_of": as_of, "selected": list(chosen), "replayed": 0, "entries": [], "problems": [],
        "would": None,
    }  # fmt: skip
    if not chosen:
        return document, "0 entries would be replayed."
    lines = [f"{len(chosen):,} entries would be replayed: {_kinds(desk, chosen)}."]
    if as_of == "then":
        lines.append("What they would change is only tried under today's configuration.")
        return document, "\n".join(lines)
    desk.shows(f"entry:{number}" for number in chosen[:_LOOK_ENTRIES_MAX])
    tried = list(try_out(desk, chosen[:_LOOK_ENTRIES_MAX]))
    document["would"] = tried
    if len(tried) < len(chosen):
        lines.append(f"Tried were the first {len(tried):,} of them:")
    shadows = sorted(desk.outline.in_shadow)
    if channel in shadows or (channel is None and shadows):
        lines.append(f"Messages of {', '.join(shadows)} go to charts in shadow: they change nothing of the living.")
    lines += [
        f"  outcome     {counted(one['state'] + (': ' + one['error'] if one['error'] else '') for one in tried)}",
        f"  tasks       {counted(task for one in tried for task in one['tasks']) or 'none'}",
        f"  deliveries  {counted(what for one in tried for what in one['deliveries']) or 'none'}",
    ]
    if verbose:
        rows = [
            (one["entry"], one["type"], one["state"], one["error"], counted(one["tasks"]) or None,
             counted(one["deliveries"]) or None) for one in tried
        ]  # fmt: skip
        columns = (
            "entry", "type", Column("state", alarm={"dead", "refused"}), Column("error", least=8, common=True),
            Column("tasks", least=12), Column("deliveries", least=12),
        )  # fmt: skip
        lines += ["", table(columns, rows)]
    return document, "\n".join(lines)
