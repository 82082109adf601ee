"""`handoff connections`: who is connected, and who could not connect lately and why."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.common import (
    UNAVAILABLE,
    Cli,
    clock_time,
    complete_channel,
    config_option,
    listing_options,
    time_column,
)
from engine.cli.desk import admit
from engine.cli.tables import Column, table


@click.command("connections")
@click.option("--refused", is_flag=True, help="Only those that were refused.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--peer", metavar="ADDRESS", help="Whose address begins so.")
@listing_options
@config_option
@click.pass_obj
def connections(cli: Cli, refused: bool, channel: str | None, peer: str | None) -> int:
    """Show who is connected, and who could not connect since the daemon started: from where, why, and what to do.

    The daemon keeps the latest hundred of each channel. Exit code 69 when no daemon runs, or its console can't be
    asked.
    """
    admit(cli)
    from engine.desk.finding import check_name
    from engine.runtime.refusals import REASONS
    from engine.runtime.status import running_connections

    found = running_connections(cli.outline() or cli.configuration())
    if found is None:
        cli.fail("no daemon runs on this site, or its console does not answer", hint="`handoff status` tells which.")
        return UNAVAILABLE
    if channel is not None:
        check_name("channel", channel, sorted({*found.channels, *(one.channel for one in found.refused)}))

    def meant(of: str, address: str) -> bool:
        return (channel is None or of == channel) and (peer is None or address.startswith(peer))

    opened = [one for one in found.open if meant(one.channel, one.peer)]
    turned_away = [one for one in found.refused if meant(one.channel, one.peer)]
    shape: dict[str, Any] = {
        "refused": [
            {
                "channel": one.channel,
                "peer": one.peer,
                "reason": one.reason,
                "meaning": REASONS.get(one.reason, ""),
                "count": one.count,
                "first_at": one.first_at,
                "last_at": one.last_at,
            }
            for one in turned_away
        ]
    }
    parts: list[str] = []
    if not refused:
        shape = {"open": [{"channel": one.channel, "peer": one.peer} for one in opened]} | shape
        rows = [(one.channel, one.peer) for one in opened]
        parts.append(table(("channel", "connected"), rows) or "Nobody is connected.")
    lines = [
        (clock_time(one.last_at), one.channel, one.peer, one.count, one.reason, REASONS.get(one.reason))
        for one in turned_away
    ]
    columns = (
        time_column("last"), Column("channel", least=8, common=True), Column("refused"), "count", "reason",
        Column("meaning", least=20, drop=1),
    )  # fmt: skip
    parts.append(table(columns, lines) or "Nobody was refused.")
    if lines:
        parts.append(
            "\n".join(
                f"{reason}: {REASONS[reason]}."
                for reason in dict.fromkeys(row[4] for row in lines)
                if reason in REASONS
            )
        )
    cli.print(shape, "\n\n".join(parts))
    return 0
