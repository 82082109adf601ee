"""`handoff resend`: tell a destination how the charts stand, because it was never told, or must be told again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import NO, Cli, Said, complete_destination, config_option, counted, json_option
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk
from engine.cli.destinations import standing
from engine.cli.groups import agree, group_options
from engine.cli.times import TIMES, When
from engine.desk import finding
from engine.desk.desk import Desk
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.store.resend import Resender, Told

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
    from engine.connectors.registry import settings_of
    from engine.store.resend import Resender, Tally

    with open_desk(cli) as desk:
        here = standing(desk, name)
        if here.type is None:
            raise NotFoundError(f"{name} is not in config.yaml any more")
        if not settings_of(here.type).takes - {"message"}:
            raise NotFoundError(
                f"{name} takes messages, and no charts: `handoff replay` forwards those that it never got"
            )
        feeding = desk.configuration.feeding(name)
        if not feeding:
            raise NotFoundError(_nobody_feeds(desk, name))
        compiled = desk.compiled().channels
        resender = Resender(desk.keys, name, {one: compiled[one] for one in sorted(feeding)}, again=again)
        only = finding.chart(desk, patient).id if patient is not None else None
        if only is None and not dry_run:
            whom = "all patients" if every else "all patients that changed since"
            what = "how they stand, again" if again else "what it lacks"
            agree(cli, f"{name} is sent {what}, of {whom}. --dry-run counts it.", yes=yes, unattended=True)
        tally = Tally()
        details: list[dict[str, Any]] = []
        noted = False
        for ids in _pieces(desk, only, since):
            told = _step(desk, resender, ids, dry_run=dry_run, note=None if noted else (name, only, reason))
            noted = True
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
        if not dry_run:
            _count_again(desk, name)
    document = {
        "destination": name,
        "dry_run": dry_run,
        "patients": tally.patients,
        "unchanged": tally.unchanged,
        "not_delivered_there": tally.elsewhere,
        "damaged": tally.damaged,
        "deliveries": dict(tally.deliveries),
    } | ({"details": details} if only is not None else {})
    cli.print(document, _human(document, here.state))
    return NO if tally.damaged else 0


def _pieces(desk: Desk, only: str | None, since: datetime | None) -> Iterator[list[str]]:
    from engine.store.resend import chart_ids

    if only is not None:
        yield [only]
        return
    after = ""
    while True:
        with desk.store.reader() as conn:
            ids = chart_ids(conn, after=after, since=since)
        if not ids:
            return
        yield ids
        after = ids[-1]


def _step(
    desk: Desk,
    resender: Resender,
    ids: list[str],
    *,
    dry_run: bool,
    note: tuple[str, str | None, str | None] | None,
) -> list[Told]:
    if dry_run:
        return desk.store.read_now(partial(resender.look, ids=ids))

    def write(conn: Any) -> list[Told]:
        told = resender.queue(conn, ids, desk.now)
        if note is not None:  # on record with the first, before anything is sent
            name, chart_id, reason = note
            subjects = [f"destination:{name}", *([f"chart:{chart_id}"] if chart_id else [])]
            desk.note(conn, "resend", subjects, reason)
        return told

    return desk.store.charts_ledger.write_now(write)


def _count_again(desk: Desk, name: str) -> None:
    """How many it was never told of, now that it was told."""
    channels = desk.configuration.feeding(name)
    untold = desk.store.read_now(lambda conn: desk.store.destinations.untold(conn, name, channels))
    desk.store.charts_ledger.write_now(lambda conn: desk.store.destinations.fed(conn, name, channels, untold))


def _nobody_feeds(desk: Desk, name: str) -> str:
    shadow = sorted(
        channel
        for channel, one in desk.configuration.channels.items()
        if one.mode == "shadow" and any(deliver.to == name for deliver in one.deliver)
    )
    if shadow:
        return f"channel {', '.join(shadow)} is in shadow: nothing of it leaves before its mode is live"
    return f"no channel delivers charts to {name}: see `deliver` in the channel files"


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
