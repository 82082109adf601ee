"""`handoff status` and `handoff reload`: the running daemon."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, UNAVAILABLE, Cli, config_option, json_option, named_time
from engine.cli.tables import table

if TYPE_CHECKING:
    from engine.errors import SettingsError
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

    configuration, broken = _configuration(cli)
    found = running_status(configuration)
    if broken is not None:
        cli.say(f"{broken}\nThe daemon goes on with the configuration that it loaded before.")
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
    from engine.cli.destinations import remarks
    from engine.domain.shapes import plain
    from engine.runtime.status import request_reload

    configuration = _configuration(cli)[0]
    result = request_reload(configuration)
    if result is None:
        cli.fail("no daemon runs on this site", hint="`handoff run` starts one; it reads the configuration then.")
        return UNAVAILABLE
    problems = "\n".join((*result.problems, "The old configuration stays in force."))
    said = remarks(configuration) if result.ok else []
    cli.print(plain(result) | {"remarks": said}, "\n".join(("Loaded.", *said)) if result.ok else problems)
    return 0 if result.ok else NO


def _configuration(cli: Cli) -> tuple[Configuration, SettingsError | None]:
    """The site's; as much of it as leads to the daemon when it was broken since that has loaded it, and how."""
    from engine.errors import SettingsError
    from engine.runtime.status import running_status
    from engine.settings import Configuration, Site, Snapshot
    from engine.yamlfile import parse

    try:
        return cli.configuration(), None
    except SettingsError as error:
        config = cli.existing_config()
        snapshot, site = Snapshot(config.resolve().parent, config.name, {}), Site()
        # It names no URL, or it is just that which is broken: then the store is where it is without one.
        with contextlib.suppress(SettingsError, OSError, LookupError, TypeError, ValueError):
            url = parse(config.read_text(encoding="utf-8"), config.name).value["store"]["url"]
            site = Site.model_validate({"store": {"url": url}})
        known = Configuration(snapshot, site, {}, {})
        if running_status(known) is None:
            raise
        return known, error


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
    since = f" since {named_time(shown.started_at)}" if shown.started_at else ""
    lines = [f"{shown.node}: {shown.state}" + (f", pid {shown.pid}{since}" if shown.pid else "")]
    if shown.trouble:
        lines.append(f"{'trouble' if shown.ready else 'not ready'}: {', '.join(shown.trouble)}")
    if shown.last_reload is not None and not shown.last_reload.ok:
        lines += ["The last reload was refused, the configuration before it is in force:", *shown.last_reload.problems]
    rows = [(item.name, item.mode, f"{item.host}:{item.port}", item.connections) for item in shown.channels]
    lines += ["", table(("channel", "mode", "mllp", "connections"), rows)]
    if shown.workers:
        workers = [
            (one.index, one.pid, "yes" if one.up else "NO", one.restarts, one.partitions, ", ".join(one.destinations))
            for one in shown.workers
        ]
        lines += ["", table(("worker", "pid", "up", "restarts", "partitions", "delivers to"), workers)]
    if shown.console is not None:
        lines.append(f"\nconsole  http://{shown.console.host}:{shown.console.port}")
    return "\n".join(lines)
