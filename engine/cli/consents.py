"""`handoff consents`: what patients say to copies of their record that leave."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import Cli, Said, config_option, json_option, list_options, reveal_options, time_column
from engine.cli.desk import PatientKey, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.desk import finding
from engine.domain.consent import ConsentKind

if TYPE_CHECKING:
    from engine.domain.consent import Consent


@click.group("consents")
@config_option
def consents() -> None:
    """Consents to copies of 42 CFR Part 2 records, and refusals of notices of events.

    Whether a patient may be written to or called at a number is another question: `handoff consent`.
    """


@consents.command("add", epilog=f"{TIMES} A span without a sign lies ahead.")
@click.argument("patient", metavar="PATIENT", type=PatientKey())
@click.option("--kind", type=click.Choice([one.value for one in ConsentKind]), required=True, help="What is said.")
@click.option("--to", metavar="DESTINATION", multiple=True, help="Of part2_specific: whom for; may be repeated.")
@click.option("--until", "ends", type=When(ahead=True), help="When it ends; none: when it is taken back.")
@click.option("--reason", metavar="TEXT", type=Said(), required=True, help="What shows it, as the form; - asks for it.")
@json_option
@config_option
@click.pass_obj
def add(cli: Cli, patient: str, kind: str, to: tuple[str, ...], ends: datetime | None, reason: str) -> None:
    r"""Put on record what a patient has said. What was withheld for want of it goes out.

    PATIENT is AUTHORITY:ID or a pseudonym; - asks for it.

    \b
    part2_tpo        one consent for treatment, payment and operations (42 CFR 2.31)
    part2_specific   consent to copies for the destinations named with --to
    notices_refused  no notices of events to other providers (42 CFR 482.24(d))
    """
    from engine.desk.consents import give

    with open_desk(cli) as desk:
        made = give(desk, patient, ConsentKind(kind), reason, to=to, ends=ends)
        shape = _shape(made, desk.now)
    cli.print(shape, f"On record as {made.id}.")


@consents.command("revoke")
@click.argument("patient", metavar="PATIENT", type=PatientKey())
@click.argument("consent_id", metavar="ID")
@click.option("--reason", metavar="TEXT", type=Said(), required=True, help="What shows it; - asks for it.")
@json_option
@config_option
@click.pass_obj
def revoke(cli: Cli, patient: str, consent_id: str, reason: str) -> None:
    """A patient takes back what they said. It holds for every copy that has not gone out yet."""
    from engine.desk.consents import revoke as revoked

    with open_desk(cli) as desk:
        shape = _shape(revoked(desk, patient, consent_id, reason), desk.now)
    cli.print(shape, f"{consent_id} is taken back.")


@consents.command("list")
@click.argument("patient", metavar="PATIENT", type=PatientKey())
@reveal_options
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, patient: str, reveal: bool, reason: str | None) -> None:
    """List what a patient has said, as people have put it on record and as messages say it (CON)."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient)
        view = desk.view(wish, [f"chart:{chart.id}"])
        shapes = [_shape(one, desk.now) | {"because": view.text(one.because)} for one in chart.consents]
    rows = [
        (s["id"], s["kind"], ", ".join(s["to"]), s["begins_at"], s["ends_at"], s["revoked_at"], s["by"], s["because"])
        for s in shapes
    ]
    columns = (
        "id", "kind", Column("to", drop=2), time_column("since"), time_column("until"), time_column("taken back"),
        Column("by", least=6), Column("because", least=8, drop=1),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "Nothing is on record.")


def _shape(one: Consent, now: datetime) -> dict[str, Any]:
    from engine.domain.shapes import plain

    return {
        "id": one.id,
        "kind": one.kind.value,
        "to": list(one.to),
        "begins_at": plain(one.begins),
        "ends_at": plain(one.ends),
        "revoked_at": plain(one.revoked_at),
        "holds": one.holds(now),
        "by": one.by,
    }
