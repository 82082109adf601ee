"""`handoff phone`: the phones of a simulated network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from engine.cli.common import Cli, config_option, json_option, list_options, time_column
from engine.cli.tables import table

if TYPE_CHECKING:
    from engine.connectors.phones import Phones

_NUMBER = "NUMBER"


@click.group("phone")
@config_option
def phone() -> None:
    """The phones of a destination of type `simulated_phone`: nobody outside gets anything."""


@phone.command("reply")
@click.argument("number", metavar=_NUMBER)
@click.argument("text", metavar="TEXT")
@click.option("--destination", metavar="NAME", help="Which network; needed when there are several.")
@json_option
@config_option
@click.pass_obj
def reply(cli: Cli, number: str, text: str, destination: str | None) -> None:
    """Write with a phone, as a patient would.

    The running daemon hears of it as of a carrier's call. STOP alone is taken by the network itself, as carriers do.
    """
    _, phones = _network(cli, destination)
    sid = phones.reply(_e164(number), text, cli.clock.now())
    cli.print({"id": sid}, "It is on its way.")


@phone.command("transcript")
@click.argument("number", metavar=_NUMBER)
@click.option("--destination", metavar="NAME", help="Which network; needed when there are several.")
@list_options
@config_option
@click.pass_obj
def transcript(cli: Cli, number: str, destination: str | None) -> None:
    """Show what was said to and from a phone, the oldest first."""
    from engine.cli.desk import open_desk
    from engine.domain.shapes import plain

    with open_desk(cli):
        _, phones = _network(cli, destination)
        said = phones.transcript(_e164(number), cli.clock.now())
    shapes = [{"at": plain(one.at), "direction": one.direction, "text": one.text} for one in said]
    rows = [(s["at"], "to the phone" if s["direction"] == "out" else "from it", s["text"]) for s in shapes]
    cli.print(shapes, table((time_column("at"), "direction", "text"), rows) or "Nothing was said.")


def _network(cli: Cli, destination: str | None) -> tuple[str, Phones]:
    from engine.connectors.registry import destination_settings
    from engine.connectors.simulated_phone import SimulatedPhoneDestination
    from engine.errors import NotFoundError

    configuration = cli.configuration()
    every = {name: destination_settings(name, configuration) for name in configuration.site.destinations}
    found = {name: one for name, one in every.items() if isinstance(one, SimulatedPhoneDestination)}
    if not found:
        raise NotFoundError("no destination of config.yaml is of type simulated_phone")
    if destination is None and len(found) > 1:
        raise click.UsageError(f"say which network with --destination: {', '.join(sorted(found))}")
    name = destination or next(iter(found))
    if name not in found:
        raise NotFoundError(f"{name} is no destination of type simulated_phone")
    return name, found[name].phones(name, configuration)


def _e164(text: str) -> str:
    """A number as people write it. One of ten digits is of North America."""
    digits = re.sub(r"[^0-9]", "", text)
    if not 7 <= len(digits) <= 15 or re.fullmatch(r"[0-9 ()+./-]+", text) is None:
        raise click.BadParameter("must be a number, like +15185550123", param_hint=_NUMBER)
    return f"+1{digits}" if len(digits) == 10 and not text.strip().startswith("+") else f"+{digits}"
