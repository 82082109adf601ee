"""`handoff destinations`: how each stands, and what a person can do about it."""

from __future__ import annotations

import contextlib
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
    limit_option,
    list_options,
    named_time,
    time_column,
)
from engine.cli.desk import open_desk
from engine.cli.groups import agree, group_options
from engine.cli.tables import Column, table
from engine.cli.times import Span
from engine.desk import destinations as steering
from engine.desk.desk import Desk
from engine.desk.destinations import orphan, standing, standings, why_paused
from engine.domain.standing import fresh
from engine.errors import HandoffError, StoreMissingError

if TYPE_CHECKING:
    from engine.domain.standing import Standing
    from engine.settings import Configuration

_NAME = click.argument("name", metavar="NAME", shell_complete=complete_destination)


@click.group("destinations")
@config_option
def destinations() -> None:
    """Where deliveries go: what is up, down or paused, and what waits."""


@destinations.command("list")
@limit_option
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, limit: int) -> None:
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
    if len(found) > limit:
        cli.cut(limit, len(found))
        found = found[:limit]
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
    with open_desk(cli) as desk:
        if not steering.pause(desk, name, span, reason):
            cli.say(f"{name} was paused already.")
        _print(cli, desk, standing(desk, name))


@destinations.command("resume")
@_NAME
@click.option("--reason", type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def resume(cli: Cli, name: str, reason: str | None) -> None:
    """End a pause: what waits goes out, in order for each patient."""
    with open_desk(cli) as desk:
        steering.resume(desk, name, reason)
        _print(cli, desk, standing(desk, name))


@destinations.command("retry")
@_NAME
@json_option
@config_option
@click.pass_obj
def retry(cli: Cli, name: str) -> None:
    """Have what waits tried at once, and end the rest that a destination was given after it had failed."""
    with open_desk(cli) as desk:
        steering.retry(desk, name)
        _print(cli, desk, standing(desk, name))


@destinations.command("discard")
@_NAME
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@group_options
@json_option
@config_option
@click.pass_obj
def discard(cli: Cli, name: str, reason: str, dry_run: bool, yes: bool) -> None:
    """Give up what waits for a destination that is no longer configured."""
    with open_desk(cli) as desk:
        waiting = orphan(desk, name)
        said = f"{counted(waiting, 'delivery')} to {name} would be given up."
        if dry_run:
            cli.print({"name": name, "dry_run": True, "discarded": waiting}, said)
            return
        agree(cli, said, yes=yes)
        done = steering.discard(desk, name, reason)
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
    with open_desk(cli) as desk:
        number = orphan(desk, name)
        steering.check_move(desk, name, other)
        said = f"{counted(number, 'delivery')} to {name} would go to {other}."
        if dry_run:
            cli.print({"name": name, "to": other, "dry_run": True, "moved": number}, said)
            return
        agree(cli, said, yes=yes)
        done = steering.move(desk, name, other, reason)
    document = {"name": name, "to": other, "dry_run": False, "moved": done}
    cli.print(document, f"{counted(done, 'delivery')} to {name}: to {other} now.")


# --- shared with `handoff status` and `handoff held` -----------------------------------------------------------------


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
    from engine.clock import site_clock
    from engine.store.opening import open_store

    configured = {name: one.type for name, one in configuration.site.destinations.items()}
    lines: list[str] = []
    with contextlib.suppress(HandoffError), open_store(configuration, "tool") as store, store.reader() as conn:
        for one in store.destinations.standings(conn, configured, site_clock(configuration.clock_file).now()):
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

    why = why_paused(desk, one)

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
    if one.withheld:
        counts = ", ".join(f"{number:,} {code}" for code, number in sorted(one.withheld.items()))
        lines.append(f"  withheld  {counts} (`handoff held list --what withheld`)")
    if one.put_off:
        lines.append(f"  put off   {one.put_off:,}: a rule lets them go later")
    if one.next_attempt_at is not None:
        lines.append(f"  next try  {named_time(one.next_attempt_at)}")
    if (text := offer(one)) is not None:
        lines.append(f"  {text}")
    cli.print(shape(one) | {"paused_reason": why}, "\n".join(lines))
