"""`handoff audit`: the trail of who did what, when, to what."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from engine.cli.common import (
    Cli,
    Said,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    reveal_options,
    time_column,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.disclosures import disclosures, given_options, refusals, refuse, suspend
from engine.cli.evidence import note
from engine.cli.glass import attest, glasses
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.cli.unusual import review, unusual
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
    """List the records, newest first. Reasons are free text that may name a patient: they need --reveal.

    What was altered is listed all the same, as damaged.
    """
    from engine.domain.shapes import plain

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        finding.check_action(desk, action)
        with desk.store.reader() as conn:
            found = desk.store.audit.find(conn, since=since, action=action, limit=limit + 1)
        if len(found) > limit:
            found = found[:limit]
            with desk.store.reader() as conn:
                cli.cut(limit, desk.store.audit.count(conn, since=since, action=action))
        view = desk.view(wish, ["audit"])
    shapes = [
        {name: value for name, value in plain(record).items() if name != "facts"}
        | {"reason": view.text(record.reason), "terms": view.text(record.terms)}
        for record in found
    ]
    rows = [
        (s["seq"], clock_time(s["at"]), s["actor"], s["action"], s["subject"], s["reason"], _remark(s)) for s in shapes
    ]
    columns = (
        Column("seq", drop=2), time_column("at"), Column("who", least=6), "did", Column("to", least=8),
        Column("why", least=8, drop=1), "",
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No records.")


def _remark(shape: dict[str, object]) -> str:
    if shape["damaged"] is not None:
        return f"damaged: {shape['damaged']}"
    return "" if shape["result"] == "allowed" else str(shape["result"])


@audit.command("verify")
@click.option(
    "--checkpoint",
    "--with",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A file with more checkpoints, one a line, as a receiver of syslog or a destination has kept them.",
)
@json_option
@config_option
@click.pass_obj
def verify(cli: Cli, files: tuple[Path, ...]) -> None:
    """Check the trail: its chain, the checkpoints outside of the database, and what was done against what is on record.

    Lawful gaps (a purge, a restore that somebody has owned to) are explained. Exit code 1: something is wrong.
    """
    from engine.desk.trail import shape, verified

    with open_desk(cli) as desk:
        checked, unrecorded = verified(desk, files)
    if unrecorded is not None:
        cli.say(f"That it was checked is not on record: {unrecorded}")
    said = shape(checked)
    if checked.records:
        first = f"Records {checked.first:,} to {checked.last:,}, {checked.checkpoints:,} checkpoint(s)"
        last = f", the newest of {clock_time(said['checkpoint_at'])}" if checked.checkpoint_at is not None else ""
        text = f"{first}{last}; {checked.purged:,} purged, {checked.restores:,} restore(s).\n"
    else:
        text = "No records.\n"
    rows = [(one["seq"], one["kind"], one["detail"]) for one in said["problems"]]
    problems = table(("seq", "what", Column("detail", least=20)), rows)
    cli.print(said, text + (problems if problems else "All is as it was written."))
    if not checked.ok:
        raise click.exceptions.Exit(1)


@audit.command("checkpoint")
@json_option
@config_option
@click.pass_obj
def checkpoint(cli: Cli) -> None:
    """Write down, signed, where the trail ends, at the places that `trail.checkpoints` names."""
    from engine.desk.trail import make_checkpoint
    from engine.domain.shapes import plain

    with open_desk(cli) as desk:
        made, written = make_checkpoint(desk)
        public = desk.keys.trail.public_key(made.key).hex()
    rows = [(one.place, one.error or "written") for one in written]
    text = f"Record {made.seq:,} of chain {made.chain}, signed with key {made.key} ({public}).\n"
    cli.print(
        plain(made) | {"public_key": public, "places": plain(written)},
        text + table((Column("place", least=12), ""), rows),
    )
    if any(one.error is not None for one in written):
        raise click.exceptions.Exit(1)


@audit.command("reseal")
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why it was set back; written to the audit.")
@json_option
@config_option
@click.pass_obj
def reseal(cli: Cli, reason: str) -> None:
    """Say that the store was restored to an earlier point, so that `verify` no longer calls it rolled back.

    Records of the time that is lost stay lost, and the trail says which.
    """
    from engine.desk.trail import make_checkpoint, reseal

    with open_desk(cli) as desk:
        first, last = reseal(desk, reason)
        make_checkpoint(desk)
    cli.print({"lost_from": first, "lost_to": last}, f"Records {first:,} to {last:,} are lost, and the trail says so.")


@audit.command("export", epilog=TIMES)
@click.option("--format", "form", type=click.Choice(["fhir", "rfc5424"]), required=True, help="Form of the records.")
@click.option("--since", type=When(), help="At or after.")
@click.option("--until", type=When(), help="Before.")
@given_options
@reveal_options
@json_option
@config_option
@click.pass_obj
def export(
    cli: Cli,
    /,
    form: str,
    since: datetime | None,
    until: datetime | None,
    reveal: bool,
    reason: str | None,
    **given: str | None,
) -> None:
    """Print the records for others: a Bundle of AuditEvents (FHIR R4, IHE BALP), or messages of RFC 5424.

    Oldest first. Reasons and terms of searches need --reveal. That it was done is on record; with --to it is in the
    accounting of each patient who appears, by what it counts as.
    """
    from engine.desk.auditevents import audit_event, bundle, syslog_line
    from engine.desk.disclosures import rules_of
    from engine.desk.exporting import given_to
    from engine.desk.trail import taken_out

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        said = given_to(rules_of(desk), **given) if any(given.values()) else {}
        desk.view(wish, ["audit"])
        node = desk.outline.node
        records = taken_out(desk, reason, since=since, until=until, reveal=wish is not None, given=said)
        if form == "fhir":
            with desk.store.reader() as conn:
                chain = desk.store.audit.head(conn).chain
            document = bundle(audit_event(record, node, chain) for record in records)
            cli.json = True
            cli.print(document, "")
            return
        lines = [syslog_line(record, node) for record in records]
        cli.print(lines, "\n".join(lines))


audit.add_command(glasses)
audit.add_command(attest)
audit.add_command(disclosures)
audit.add_command(suspend)
audit.add_command(note)
audit.add_command(refuse)
audit.add_command(refusals)
audit.add_command(unusual)
audit.add_command(review)
