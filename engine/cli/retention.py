"""`handoff sweep` and `handoff legal-hold`: how long what is stored is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import NO, Cli, Said, clock_time, config_option, json_option, reveal_options, time_column
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.desk import finding, keeping
from engine.desk.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.desk.seeing import View
    from engine.store.legalholds import ListedLegalHold


@click.command("sweep")
@click.option("--dry-run", is_flag=True, help="Only show what would be erased, and what is kept and why.")
@click.option("--test-data", is_flag=True, help="Erase all test data, whatever its age, and nothing else.")
@json_option
@config_option
@click.pass_obj
def sweep(cli: Cli, dry_run: bool, test_data: bool) -> None:
    """Erase what was kept as long as `retention` of config.yaml says.

    Messages as they came, what was delivered, charts of patients of whom nothing was heard for years, and the sealed
    part of old records of the audit. The daemon does the same once a day.

    Nothing goes that somebody still waits for: what is not processed, delivered or decided yet, and what belongs to a
    patient with an open task or a page that nobody has answered. Nothing goes that a legal hold covers (`held`); under
    a hold, what can't be told to be another patient's is kept too. Ids, states and counts stay, so that the ledger
    balances and a message that is sent again is still known.

    With --test-data go the charts that test messages alone have made, with their open tasks and stays, and all test
    messages (MSH-11 T or D, or of a channel that is for tests). A legal hold keeps them too, and so does a delivery
    under way, an answer that is owed, or an open question about a living patient. Look with --dry-run first.
    """
    from engine.domain.shapes import plain

    with open_desk(cli) as desk:
        done = keeping.sweep(desk, dry_run=dry_run, test_data=test_data)
        if not dry_run:
            say_missed(cli, keeping.renew_erasure_keys(desk))
    columns = (
        "what", "kept for", Column("to erase" if dry_run else "erased"), "held", "waiting",
        Column("for", least=8, drop=1),
    )  # fmt: skip
    rows = [
        (one.what, one.policy, f"{one.count:,}", f"{one.held:,}", f"{one.waiting:,}",
         ", ".join(f"{number:,} {why}" for why, number in one.why.items())) for one in done
    ]  # fmt: skip
    cli.print([plain(one) for one in done], table(columns, rows))


def say_missed(cli: Cli, folders: Sequence[str]) -> None:
    """What was erased can be read in backups still, as long as an old file of erasure keys stands beside them."""
    for folder in folders:
        cli.say(
            f"{folder}: the file of erasure keys of the backups there could not be replaced, so what was erased can be"
            " read in them until the next backup into that folder. Destroy other copies of the file yourself."
        )


@click.group("legal-hold")
@config_option
def legal_hold() -> None:
    """Patients of whom nothing is erased, whatever its age."""


_key = click.argument("key", type=PatientKey())


@legal_hold.command("add", epilog=PATIENT_HELP)
@_key
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; sealed, and written to the audit.")
@json_option
@config_option
@click.pass_obj
def add(cli: Cli, key: str, reason: str) -> None:
    """Keep everything of a patient until the hold is removed, also what comes by a merge."""
    with open_desk(cli) as desk:
        chart = finding.chart(desk, key)
        shape = _shape(desk, keeping.place_hold(desk, chart, reason), desk.view(None, ()))
    cli.print(shape, f"Hold {shape['id']}: nothing of {shape['patient_key'] or 'this patient'} is erased.")


@legal_hold.command("remove", epilog=PATIENT_HELP)
@_key
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def remove(cli: Cli, key: str, reason: str | None) -> int:
    """Remove all holds on a patient. What is old enough goes with the next sweep."""
    with open_desk(cli) as desk:
        chart = finding.chart(desk, key)
        lifted = keeping.lift_holds(desk, chart, reason)
    cli.print({"removed": lifted}, f"Removed {len(lifted)} hold(s)." if lifted else "There is no hold on this patient.")
    return 0 if lifted else NO


@legal_hold.command("confirm")
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="How you know; written to the audit.")
@json_option
@config_option
@click.pass_obj
def confirm(cli: Cli, reason: str) -> int:
    """Say after a restore that the holds are right: those placed since the backup are placed again, those removed since
    are removed. Until somebody does, nothing is swept or erased.
    """
    with open_desk(cli) as desk:
        standing = keeping.confirm_holds(desk, reason)
    said = "Nobody has to: the store was not set back." if standing is None else f"{standing} hold(s) stand."
    cli.print({"confirmed": standing is not None, "holds": standing}, said)
    return NO if standing is None else 0


@legal_hold.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that were removed.")
@reveal_options
@json_option
@config_option
@click.pass_obj
def list_(cli: Cli, every: bool, reveal: bool, reason: str | None) -> None:
    """List the holds, oldest first. Reasons are free text: they need --reveal."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        found = keeping.holds(desk, every=every)
        view = desk.view(wish, [f"chart:{one.chart_id}" for one in found])
        shapes = [_shape(desk, one, view) for one in found]
    rows = [
        (
            s["id"],
            s["patient_key"],
            clock_time(s["placed_at"]),
            s["placed_by"],
            clock_time(s["removed_at"]),
            s["reason"],
        )
        for s in shapes
    ]
    columns = ("id", Column("patient", least=8), time_column("since"), Column("by", least=6), time_column("removed"),
               Column("why", least=8, drop=1))  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No legal holds.")


def _shape(desk: Desk, one: ListedLegalHold, view: View) -> dict[str, Any]:
    from engine.domain.shapes import plain

    with desk.store.reader() as conn:
        chart = desk.store.charts.living(conn, one.chart_id)
    return {
        "id": one.id,
        "patient_key": view.key(chart.patient.key) if chart is not None else None,
        "placed_at": plain(one.placed_at),
        "placed_by": one.placed_by,
        "removed_at": plain(one.lifted_at),
        "reason": view.text(one.reason),
        "unreadable": one.unreadable,
    }
