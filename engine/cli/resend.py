"""`handoff resend`: tell a destination how the charts stand, because it was never told, or must be told again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import NO, Cli, Said, complete_destination, config_option, counted, json_option
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk
from engine.cli.groups import agree, group_options
from engine.cli.times import TIMES, When
from engine.desk import finding, resending
from engine.desk.destinations import standing

if TYPE_CHECKING:
    pass

_PROGRESS_PATIENTS: Final = 10_000


@click.command("resend", epilog=TIMES)
@click.option(
    "--destination",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=complete_destination,
    help="Who is to be told.",
)
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--since", type=When(), help="Of the patients that changed at or after.")
@click.option("--all", "every", is_flag=True, help="Of all patients.")
@click.option("--again", is_flag=True, help="Also what the destination has already, as it is now.")
@group_options
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def resend(
    cli: Cli,
    name: str,
    patient: str | None,
    since: datetime | None,
    every: bool,
    again: bool,
    dry_run: bool,
    yes: bool,
    reason: str | None,
) -> int:
    """Send the state of charts as it is now to a destination that was never told of it.

    That is patient, encounters, scores and tasks: what the channels on which a patient was heard of deliver there.
    What the destination has, or will have from what waits, is not sent again without --again, so that a run which was
    interrupted is simply run again. A channel in shadow delivers nothing, so its patients are left out. Messages that
    are forwarded are no state: `handoff replay` forwards those that a destination never got.

    Exit code 1 when charts could not be read.
    """
    if sum((patient is not None, since is not None, every)) != 1:
        raise click.UsageError("say of whom: --patient KEY, --since TIME or --all")
    from engine.store.resend import Tally

    with open_desk(cli) as desk:
        sender = resending.resender(desk, name, again=again)
        state = standing(desk, name).state
        only = finding.chart(desk, patient).id if patient is not None else None
        if only is None and not dry_run:
            whom = "all patients" if every else "all patients that changed since"
            what = "how they stand, again" if again else "what it lacks"
            agree(cli, f"{name} is sent {what}, of {whom}. --dry-run counts it.", yes=yes, unattended=True)
        tally = Tally()
        details: list[dict[str, Any]] = []
        for told in resending.resend(desk, name, sender, only=only, since=since, dry_run=dry_run, reason=reason):
            before, tally = _seen(tally), tally.plus(told)
            if only is not None:
                view = desk.view(None, ())
                details = [
                    {
                        "operation": item.operation,
                        "idempotency_key": item.idempotency_key,
                        "payload": view.payload(_decoded(item.payload)),
                    }
                    for one in told
                    for item in one.deliveries
                ]
            elif before // _PROGRESS_PATIENTS != _seen(tally) // _PROGRESS_PATIENTS:
                cli.say(f"{_seen(tally)} patients looked at")
    document = {
        "destination": name,
        "dry_run": dry_run,
        "patients": tally.patients,
        "unchanged": tally.unchanged,
        "not_delivered_there": tally.elsewhere,
        "damaged": tally.damaged,
        "deliveries": dict(tally.deliveries),
    } | ({"details": details} if only is not None else {})
    cli.print(document, _human(document, state))
    return NO if tally.damaged else 0


def _decoded(payload: bytes) -> dict[str, Any]:
    import msgspec

    return msgspec.json.decode(payload, type=dict[str, Any])


def _seen(tally: Any) -> int:
    return int(tally.patients + tally.unchanged + tally.elsewhere + tally.damaged)


def _human(document: dict[str, Any], state: str) -> str:
    from engine.cli.messages import told

    name, total = document["destination"], sum(document["deliveries"].values())
    would = "would be" if document["dry_run"] else "are"
    parts = ", ".join(f"{number} {operation}" for operation, number in sorted(document["deliveries"].items()))
    parts = f" ({parts})" if parts else ""
    lines = [
        f"{counted(document['patients'], 'patient')}: {counted(total, 'delivery')} to {name} {would} queued{parts}."
    ]
    if document["unchanged"]:
        lines.append(
            f"{counted(document['unchanged'], 'patient')}: {name} has this very state, or will have it from what waits."
        )
    if document["not_delivered_there"]:
        lines.append(f"{document['not_delivered_there']} patients were heard of on no channel that delivers to {name}.")
    if document["damaged"]:
        lines.append(f"{document['damaged']} patients can't be read any more: their charts are damaged.")
    lines += [f"  {told(item | {'unreadable': None})}" for item in document.get("details", ())]
    if state != "up" and total and not document["dry_run"]:
        lines.append(f"{name} is {state}: they wait; `handoff destinations show {name}`.")
    return "\n".join(lines)
