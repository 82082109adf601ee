"""`handoff break-glass`, and what is done about it: `handoff audit glasses`, `handoff audit attest`."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from engine.cli.common import (
    Cli,
    Said,
    asked_for,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    named_time,
    reveal_options,
    time_column,
)
from engine.cli.desk import PatientKey, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.glass import Glass


@click.command("break-glass", short_help="Look at a patient who is none of yours, and say why.")
@click.argument("patient", metavar="PATIENT", type=PatientKey())
@click.option("--reason", metavar="CODE", required=True, help="emergency, called, covering, handover, other, ...")
@click.option("--because", metavar="TEXT", type=Said(), required=True, help="Why, in words; - asks for it.")
@json_option
@config_option
@click.pass_obj
def break_glass(cli: Cli, patient: str, reason: str, because: str) -> None:
    """Look at a patient who is none of yours, for some hours, to look only. The privacy officer is told at once, and
    asks about it later.

    PATIENT is AUTHORITY:ID or a pseudonym; - asks for it. An account that has a password is asked for it again, and
    for the code of its second factor: on a terminal, or as further lines of standard input.
    """
    from engine.desk.glass import break_glass as broken
    from engine.desk.glass import ways

    with open_desk(cli) as desk:
        password, factor = ways(desk) if desk.gate is not None else (False, False)
        made = broken(
            desk,
            patient,
            reason,
            because,
            password=asked_for("Your password") if password else None,
            code=asked_for("Code of your second factor") if password and factor else None,
        )
        shape = _shape(made, desk) | {"because": made.because}
    told = (
        f" {', '.join(made.told)} will see it." if made.told else " Nobody of the roles that are told has an account!"
    )
    cli.print(shape, f"You see this patient until {named_time(made.ends)}.{told}")


@click.command("glasses", epilog=TIMES)
@click.option("--since", type=When(), help="Broken at or after.")
@click.option("--open", "unattested", is_flag=True, help="Only those that nobody has attested yet.")
@click.option("--by-person", is_flag=True, help="How often each person has broken it.")
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def glasses(
    cli: Cli,
    since: datetime | None,
    unattested: bool,
    by_person: bool,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List glasses that were broken, the newest first. What people wrote needs --reveal."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        with desk.store.reader() as conn:
            read = desk.store.users.glasses(conn, since)
        found = [one for one in read if not unattested or one.verdict is None]
        if by_person:
            _count(cli, found)
            return
        found = list(cli.first(found, limit, lambda: len(found)))
        view = desk.view(wish, ["audit"])
        shapes = [
            _shape(one, desk) | {"because": view.text(one.because), "words": view.text(one.words)} for one in found
        ]
    rows = [
        (s["id"], clock_time(s["begins_at"]), s["actor"], s["patient"], s["reason"], s["because"],
         s["verdict"] or "to be attested") for s in shapes
    ]  # fmt: skip
    columns = (
        "id", time_column("broken"), Column("who", least=6), Column("patient", least=8), "reason",
        Column("because", least=8, drop=1), Column("attested", alarm={"to be attested", "wrong"}),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No glass was broken.")


def _count(cli: Cli, found: list[Glass]) -> None:
    counts = Counter(one.actor for one in found)
    wrong = Counter(one.actor for one in found if one.verdict == "wrong")
    shapes = [{"name": name, "broken": count, "wrong": wrong[name]} for name, count in counts.most_common()]
    rows = [(s["name"], s["broken"], s["wrong"]) for s in shapes]
    cli.print(shapes, table(("who", "broken", "wrong"), rows) or "No glass was broken.")


@click.command("attest")
@click.argument("glass_id", metavar="ID")
@click.option("--right", "verdict", flag_value="right", help="It was right to look.")
@click.option("--wrong", "verdict", flag_value="wrong", help="It was wrong: a breach is presumed.")
@click.option("--because", metavar="TEXT", type=Said(), required=True, help="What was found out; - asks for it.")
@json_option
@config_option
@click.pass_obj
def attest(cli: Cli, glass_id: str, verdict: Literal["right", "wrong"] | None, because: str) -> None:
    """Say whether breaking the glass was right, once it was looked into. Not by who broke it."""
    from engine.desk.glass import attest as attested

    if verdict is None:
        raise click.UsageError("say --right or --wrong")
    with open_desk(cli) as desk:
        shape = _shape(attested(desk, glass_id, verdict, because), desk)
    cli.print(shape, f"Glass {glass_id} of {shape['actor']} is attested: {verdict}.")


def _shape(one: Glass, desk: Desk) -> dict[str, Any]:
    from engine.domain.shapes import plain

    with desk.store.reader() as conn:
        keys = desk.store.charts.patient_keys(conn, [one.chart_id])
    key = keys.get(one.chart_id)
    return {
        "id": one.id,
        "actor": one.actor,
        "patient": None if key is None else desk.pseudonym(key),
        "chart": one.chart_id,
        "reason": one.reason,
        "begins_at": plain(one.begins),
        "ends_at": plain(one.ends),
        "told": list(one.told),
        "proved": one.proved,
        "verdict": one.verdict,
        "attested_by": one.attested_by,
        "attested_at": plain(one.attested_at),
    }
