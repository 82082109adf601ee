"""`handoff consent`: whether patients may be written to or called, and at which number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.care.texts.consent import CARE, CHANNELS
from engine.cli.common import (
    Cli,
    Private,
    Said,
    clock_time,
    config_option,
    json_option,
    list_options,
    reveal_options,
    time_column,
)
from engine.cli.desk import PatientKey, open_desk, read_input, reveal_of
from engine.cli.tables import Column, table
from engine.desk import finding

if TYPE_CHECKING:
    from engine.care.texts.consent import Standing
    from engine.desk.desk import Desk
    from engine.domain.chart import Chart


@click.group("consent")
@config_option
def consent() -> None:
    """Whether a patient may be written to or called, for what purpose, by what channel and at which number.

    What a patient says to copies of their record that leave is another question: `handoff consents`.
    """


def _place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `patient`, `purpose`, `channel`, `number`."""
    options = (
        click.option(
            "--number", metavar="NUMBER", type=Private(), required=True, help="With its country; - asks for it."
        ),
        click.option("--channel", type=click.Choice(CHANNELS), required=True, help="By what."),
        click.option("--purpose", metavar="NAME", default=CARE, show_default=True, help="What for."),
        click.argument("patient", metavar="KEY", type=PatientKey()),
    )
    for option in options:
        function = option(function)
    return function


@consent.command("give")
@_place
@click.option(
    "--how", metavar="TEXT", type=Said(), required=True, help="How they have agreed: paper form, by phone, portal."
)
@click.option("--wording", metavar="VERSION", help="Version of the words that they have agreed to.")
@click.option("--reason", metavar="TEXT", type=Said(), help="What shows it, as the number of the form; - asks for it.")
@json_option
@config_option
@click.pass_obj
def give(
    cli: Cli,
    patient: str,
    purpose: str,
    channel: str,
    number: str,
    how: str,
    wording: str | None,
    reason: str | None,
) -> None:
    """Put on record that a patient may be written to (or called) at a number.

    KEY is AUTHORITY:ID or a pseudonym; - asks for it. Without consent no text goes out.
    """
    from engine.desk import contacting

    with open_desk(cli) as desk:
        after = contacting.give(
            desk, patient, purpose=purpose, channel=channel, number=number, how=how, wording=wording, reason=reason
        )
        shape = _shape(desk, after)
    cli.print(shape, f"On record: {purpose} by {channel} is {shape['state']}.")


@consent.command("revoke")
@_place
@click.option("--how", metavar="TEXT", type=Said(), default="staff", help="How they have said so: by phone, letter.")
@click.option("--reason", metavar="TEXT", type=Said(), help="What shows it; - asks for it.")
@json_option
@config_option
@click.pass_obj
def revoke(cli: Cli, patient: str, purpose: str, channel: str, number: str, how: str, reason: str | None) -> None:
    """A patient does not want to be written to (or called) at a number. It holds at once, whatever was said before."""
    from engine.desk import contacting

    with open_desk(cli) as desk:
        after = contacting.revoke(
            desk, patient, purpose=purpose, channel=channel, number=number, how=how, reason=reason
        )
        shape = _shape(desk, after)
    cli.print(shape, f"On record: {purpose} by {channel} is {shape['state']}.")


@consent.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--how", metavar="TEXT", type=Said(), default="file", show_default=True, help="Of lines without `how`.")
@click.option("--dry-run", is_flag=True, help="Look at each line, and put nothing on record.")
@json_option
@config_option
@click.pass_obj
def import_(cli: Cli, file: Path, how: str, dry_run: bool) -> None:
    """Put the consents of a CSV file on record, each as an act of yours.

    Columns: patient (KEY), number, state (given or revoked); and, if wanted, purpose, channel, at, how, wording. A line
    that can't be taken is refused with its number, and the others count. Exit code 1: some were refused.
    """
    from engine.desk import consentfile

    content = read_input(file)
    with open_desk(cli) as desk:
        found = consentfile.read(desk, content, how=how, dry_run=dry_run)
    refused = [one for one in found if one.problem is not None]
    shape = {
        "lines": len(found),
        "given": sum(one.state == "given" for one in found),
        "revoked": sum(one.state == "revoked" for one in found),
        "refused": [{"line": one.line, "problem": one.problem} for one in refused],
        "dry_run": dry_run,
    }
    said = "Would be put" if dry_run else "Put"
    rows = [f"{said} on record: {shape['given']} given, {shape['revoked']} revoked. Refused: {len(refused)}."]
    rows += [f"line {one.line}: {one.problem}" for one in refused]
    cli.print(shape, "\n".join(rows))
    if refused:
        raise click.exceptions.Exit(1)


@consent.command("list")
@click.argument("patient", metavar="KEY", type=PatientKey())
@reveal_options
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, patient: str, reveal: bool, reason: str | None) -> None:
    """List what counts for each purpose, channel and number, as people, messages, files and replies have said it.

    --json has what was said before, too.
    """
    from engine.desk import contacting

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient)
        shapes = contacting.listed(chart, desk.view(wish, [f"chart:{chart.id}"]).of(chart.id))
    rows = [
        (s["purpose"], s["channel"], s["number"], s["state"], clock_time(s["at"]), s["how"], s["by"], s["wording"])
        for s in shapes
    ]
    columns = (
        Column("purpose", common=True), "channel", "number", "state", time_column("since"), Column("how", least=8),
        Column("by", least=6, drop=1), Column("wording", drop=2),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "Nothing is on record: nothing is sent to this patient.")


def _shape(desk: Desk, after: tuple[Chart, Standing]) -> dict[str, Any]:
    from engine.desk import contacting

    chart, now = after
    assert now.statement is not None  # noqa: S101 - it was just made
    return contacting.shape(now.statement, desk.view(None, [f"chart:{chart.id}"]).of(chart.id))
