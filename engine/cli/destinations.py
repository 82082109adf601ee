"""`handoff destinations`: how each stands, and what a person can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from engine.cli.common import (
    Cli,
    Said,
    clock_time,
    complete_destination,
    config_option,
    counted,
    json_option,
    list_options,
    meant,
    named_time,
    time_column,
)
from engine.cli.desk import open_desk
from engine.cli.groups import agree, group_options
from engine.cli.tables import Column, table
from engine.cli.times import Span
from engine.desk.desk import Desk
from engine.domain.standing import fresh
from engine.errors import HandoffError, NotFoundError, StoreMissingError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.domain.standing import Standing
    from engine.settings import Configuration

_NAME = click.argument("name", metavar="NAME", shell_complete=complete_destination)


@click.group("destinations")
@config_option
def destinations() -> None:
    """Where deliveries go: what is up, down or paused, and what waits."""


@destinations.command("list")
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli) -> None:
    """List the destinations, those too that are no longer configured and for which something waits (orphans).

    The state is `up`, `down` or `paused`. A destination that is up and has an error answers, and refuses what it is
    sent without a reason.
    """
    try:
        with open_desk(cli) as desk:
            found = standings(desk)
    except StoreMissingError as error:
        configuration, broken = cli.readable_configuration()
        if broken is not None:
            raise
        cli.say(f"{error}. Nothing was ever to be sent.")
        found = [fresh(*one) for one in sorted(configuration.outline.destinations.items())]
    rows = [
        (
            one.name,
            one.type or "-",
            "orphan" if one.orphan else one.state,
            clock_time(one.since),
            one.error,
            one.pending,
            one.held,
            one.dead,
            clock_time(one.next_attempt_at),
        )
        for one in found
    ]
    columns = (
        Column("name", least=8), Column("type", drop=3), Column("state", alarm={"down", "orphan"}),
        time_column("since", drop=2), Column("error", least=10), "pending", "held", "dead",
        time_column("next try", drop=1),
    )  # fmt: skip
    lines = [table(columns, rows) or "No destinations.", *filter(None, map(offer, found))]
    cli.print([shape(one) for one in found], "\n".join(lines))


@destinations.command("show")
@_NAME
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, name: str) -> None:
    """Show one destination: since when and why it is down, what waits, and what to do."""
    with open_desk(cli) as desk:
        _print(cli, desk, standing(desk, name))


@destinations.command("pause")
@_NAME
@click.option("--for", "span", type=Span(), metavar="SPAN", help="Resume by itself after so long: 30m, 2h, 1d.")
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; audited, and shown to all: name no patient.")
@json_option
@config_option
@click.pass_obj
def pause(cli: Cli, name: str, span: timedelta | None, reason: str | None) -> None:
    """Send nothing there until you resume it. What is for it waits and is counted; nothing is lost.

    A batch that is under way is finished. The daemon takes notice within seconds. One that is paused already stays
    paused since then; its end is the new one.
    """

    def work(desk: Desk, conn: Connection) -> None:
        until = None if span is None else desk.now + span
        if not desk.store.destinations.pause(conn, name, desk.now, until=until, by=str(desk.actor)):
            cli.say(f"{name} was paused already.")

    _act(cli, name, "destination-paused", reason, work)


@destinations.command("resume")
@_NAME
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def resume(cli: Cli, name: str, reason: str | None) -> None:
    """End a pause: what waits goes out, in order for each patient."""
    _act(cli, name, "destination-resumed", reason, lambda desk, conn: desk.store.destinations.resume(conn, name))


@destinations.command("retry")
@_NAME
@json_option
@config_option
@click.pass_obj
def retry(cli: Cli, name: str) -> None:
    """Have what waits tried at once, and end the rest that a destination was given after it had failed."""

    def work(desk: Desk, conn: Connection) -> None:
        desk.store.destinations.retry(conn, name, desk.now)

    _act(cli, name, "destination-retried", None, work)


@destinations.command("discard")
@_NAME
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@group_options
@json_option
@config_option
@click.pass_obj
def discard(cli: Cli, name: str, reason: str, dry_run: bool, yes: bool) -> None:
    """Give up what waits for a destination that is no longer configured."""
    from engine.store.destinations import discard_rest

    with open_desk(cli) as desk:
        waiting = _check_orphan(desk, name)
        said = f"{counted(waiting, 'delivery')} to {name} would be given up."
        if dry_run:
            cli.print({"name": name, "dry_run": True, "discarded": waiting}, said)
            return
        agree(cli, said, yes=yes)

        def work(conn: Connection) -> int:
            return discard_rest(conn, desk.store.outbox, name, desk.now)

        done = _in_pieces(desk, "destination-discarded", [f"destination:{name}"], reason, work)
    cli.print({"name": name, "dry_run": False, "discarded": done}, f"{counted(done, 'delivery')} to {name} given up.")


@destinations.command("move")
@_NAME
@click.option("--to", "other", required=True, metavar="OTHER", help="The destination that gets it.")
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the audit.")
@group_options
@json_option
@config_option
@click.pass_obj
def move(cli: Cli, name: str, other: str, reason: str | None, dry_run: bool, yes: bool) -> None:
    """Give what waits for a destination that is no longer configured to another one. Order per patient is kept."""
    from engine.connectors.registry import settings_of
    from engine.store.destinations import move_rest, operations

    with open_desk(cli) as desk:
        number = _check_orphan(desk, name)
        target = desk.outline.destinations.get(other)
        if target is None:
            raise NotFoundError(_unknown(desk, other))
        with desk.store.reader() as conn:
            waiting = {operation.what for operation in operations(conn, name)}
        takes = settings_of(target).takes
        if not waiting <= takes:
            known = ", ".join(sorted(takes))
            raise NotFoundError(f"what waits for {name} is {', '.join(sorted(waiting))}; {other} takes {known}")

        said = f"{counted(number, 'delivery')} to {name} would go to {other}."
        if dry_run:
            cli.print({"name": name, "to": other, "dry_run": True, "moved": number}, said)
            return
        agree(cli, said, yes=yes)

        def work(conn: Connection) -> int:
            return move_rest(conn, desk.store.outbox, name, other, desk.now)

        subjects = [f"destination:{name}", f"destination:{other}"]
        done = _in_pieces(desk, "destination-moved", subjects, reason, work)
    document = {"name": name, "to": other, "dry_run": False, "moved": done}
    cli.print(document, f"{counted(done, 'delivery')} to {name}: to {other} now.")


# --- shared with `handoff status` and `handoff held` -----------------------------------------------------------------


def standings(desk: Desk) -> list[Standing]:
    """The contract's rows of all destinations."""
    configured = desk.destinations()
    with desk.store.reader() as conn:
        return desk.store.destinations.standings(conn, configured, desk.now)


def standing(desk: Desk, name: str) -> Standing:
    """Raises NotFoundError."""
    found = next((one for one in standings(desk) if one.name == name), None)
    if found is None:
        raise NotFoundError(_unknown(desk, name))
    return found


def shape(one: Standing) -> dict[str, Any]:
    from engine.connectors.remedies import remedy
    from engine.domain.shapes import plain

    return plain(one) | {"remedy": remedy(one.error)}  # type: ignore[no-any-return]  # a dict


def offer(one: Standing) -> str | None:
    """What is said of a destination that was never told of patients."""
    if not one.untold:
        return None
    command = f"handoff resend --destination {one.name} --all --dry-run"
    return f"destination {one.name} was never told of {counted(one.untold, 'patient')}: {command}"


def remarks(configuration: Configuration) -> list[str]:
    """What a configuration leaves unsaid or undone: destinations that were never told, and deliveries for none.

    Looks into the store; nothing, where that can't be opened.
    """
    from datetime import UTC, datetime

    from engine.store.opening import open_store

    configured = {name: one.type for name, one in configuration.site.destinations.items()}
    lines: list[str] = []
    with contextlib.suppress(HandoffError), open_store(configuration, "tool") as store, store.reader() as conn:
        for one in store.destinations.standings(conn, configured, datetime.now(UTC)):
            feeding = configuration.feeding(one.name)
            if one.orphan:
                waiting = one.pending + one.held
                if waiting:
                    command = f"handoff destinations show {one.name}"
                    lines.append(f"{one.name} is not in config.yaml, and {waiting} deliveries wait for it: {command}")
                continue
            if store.destinations.get(conn, one.name).fed_by != tuple(sorted(feeding)):  # not counted yet
                one = structs.replace(one, untold=store.destinations.untold(conn, one.name, feeding))  # noqa: PLW2901
            lines += filter(None, [offer(one)])
    return lines


def _print(cli: Cli, desk: Desk, one: Standing) -> None:
    from engine.connectors.remedies import remedy

    why = _why_paused(desk, one)

    said = "an orphan" if one.orphan else one.state
    since = f" since {named_time(one.since)}" if one.since else ""
    lines = [f"{one.name} ({one.type or 'not configured'}): {said}{since}"]
    if one.state == "paused":
        ends = f"until {named_time(one.paused_until)}" if one.paused_until else "until `handoff destinations resume`"
        lines.append(f"  paused    {ends}, by {one.paused_by}" + (f": {why}" if why else ""))
    if one.error is not None:
        times = f" ({one.failures} times in a row)" if one.failures > 1 else ""
        lines.append(f"  error     {one.error}: {one.detail}{times}")
    if (text := remedy(one.error)) is not None:
        lines.append(f"  remedy    {text}")
    oldest = f", the oldest since {named_time(one.oldest_at)}" if one.oldest_at else ""
    lines.append(f"  waiting   {one.pending} pending{oldest}, {one.held} held, {one.dead} dead")
    if one.next_attempt_at is not None:
        lines.append(f"  next try  {named_time(one.next_attempt_at)}")
    if (text := offer(one)) is not None:
        lines.append(f"  {text}")
    cli.print(shape(one) | {"paused_reason": why}, "\n".join(lines))


def _why_paused(desk: Desk, one: Standing) -> str | None:
    """The reason that was given last for the pause which is in force; the audit has it."""
    if one.state != "paused":
        return None
    with desk.store.reader() as conn:
        acts = desk.store.audit.find(
            conn, since=one.since, action="destination-paused", subject=f"destination:{one.name}"
        )
    return next((act.reason for act in acts if act.reason), None)


def _act(cli: Cli, name: str, action: str, reason: str | None, work: Callable[[Desk, Connection], None]) -> None:
    with open_desk(cli) as desk:
        if name not in desk.destinations():
            raise NotFoundError(_unknown(desk, name))

        def write(conn: Connection) -> None:
            work(desk, conn)
            desk.note(conn, action, [f"destination:{name}"], reason)

        desk.store.charts_ledger.write_now(write)
        _print(cli, desk, standing(desk, name))


def _in_pieces(
    desk: Desk, action: str, subjects: list[str], reason: str | None, work: Callable[[Connection], int]
) -> int:
    """All that waits, some in each transaction; on record with the first."""
    noted = False

    def write(conn: Connection) -> int:
        done = work(conn)
        if done and not noted:
            desk.note(conn, action, subjects, reason)
        return done

    total = 0
    while done := desk.store.charts_ledger.write_now(write):
        total, noted = total + done, True
    return total


def _check_orphan(desk: Desk, name: str) -> int:
    """How many deliveries wait for a destination that is no longer configured. Raises NotFoundError, SettingsError."""
    if desk.broken is not None:  # nobody can say that it is no longer configured
        raise desk.broken
    if name in desk.outline.destinations:
        raise NotFoundError(f"{name} is in config.yaml: this is for destinations that no longer are")
    one = standing(desk, name)
    return one.pending + one.held


def _unknown(desk: Desk, name: str) -> str:
    known = sorted(desk.destinations())
    return f"there is no destination {name}; there are {', '.join(known) or 'none'}.{meant(name, known)}"
