"""`handoff status` and `handoff reload`: the running daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, UNAVAILABLE, Cli, clock_time, config_option, json_option, table

if TYPE_CHECKING:
    from engine.runtime.status import Status
    from engine.settings import Configuration


@click.command("status")
@json_option
@config_option
@click.pass_obj
def status(cli: Cli) -> int:
    """Show how the daemon stands, and where it listens.

    Ports are the ones that are open, also when the configuration says 0. Exit code 69 when no daemon runs.
    """
    from engine.domain.shapes import plain
    from engine.runtime.status import running_status

    configuration = cli.configuration()
    found = running_status(configuration)
    shown = found or _stopped(configuration)
    cli.print(plain(shown), human_status(shown))
    return 0 if found is not None else UNAVAILABLE


@click.command("reload")
@json_option
@config_option
@click.pass_obj
def reload(cli: Cli) -> int:
    """Have the daemon load its configuration again, all or nothing.

    Open connections stay. Exit code 1 when the new configuration is refused (the old one stays in force), 69 when no
    daemon runs.
    """
    from engine.domain.shapes import plain
    from engine.runtime.status import request_reload

    result = request_reload(cli.configuration())
    if result is None:
        cli.fail("no daemon runs on this site", hint="`handoff run` starts one; it reads the configuration then.")
        return UNAVAILABLE
    problems = "\n".join((*result.problems, "The old configuration stays in force."))
    cli.print(plain(result), "Loaded." if result.ok else problems)
    return 0 if result.ok else NO


def _stopped(configuration: Configuration) -> Status:
    from engine.runtime.status import ChannelStatus, ConsoleStatus, Status

    return Status(
        node=configuration.site.node,
        state="stopped",
        pid=None,
        channels=tuple(
            ChannelStatus(
                name=channel.name,
                mode=channel.mode,
                host=channel.listen.host,
                port=channel.listen.port,
                connections=0,
            )
            for channel in configuration.channels.values()
        ),
        console=ConsoleStatus(host=configuration.site.console.host, port=configuration.site.console.port),
    )


def human_status(shown: Status) -> str:
    since = f" since {clock_time(shown.started_at)}" if shown.started_at else ""
    lines = [f"{shown.node}: {shown.state}" + (f", pid {shown.pid}{since}" if shown.pid else "")]
    if shown.trouble:
        lines.append(f"not ready: {', '.join(shown.trouble)}")
    rows = [(item.name, item.mode, f"{item.host}:{item.port}", item.connections) for item in shown.channels]
    lines += ["", table(("channel", "mode", "mllp", "connections"), rows)]
    if shown.console is not None:
        lines.append(f"\nconsole  http://{shown.console.host}:{shown.console.port}")
    return "\n".join(lines)
