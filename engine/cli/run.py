"""`handoff run`: the daemon, in the foreground."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.common import Cli, called, config_option
from engine.cli.init import FIRST_MESSAGE

if TYPE_CHECKING:
    from engine.runtime.status import Status


@click.command("run")
@config_option
@click.pass_obj
def run(cli: Cli) -> int:
    """Run the daemon in the foreground.

    SIGTERM (or Ctrl-C) answers what was received and stops, SIGHUP loads the configuration again. Logs go to stderr.
    """
    from engine.bootstrap import run_daemon

    path = cli.existing_config()
    fresh = _is_fresh(path)
    return run_daemon(path, announce=lambda status: click.echo(_welcome(path, status, fresh=fresh)))


@click.command("worker", hidden=True)
@click.option("--fd", type=int, required=True)
@click.option("--parent", type=int, required=True)
@config_option
def worker(fd: int, parent: int) -> int:
    """The daemon's second process; it starts it by itself."""
    from engine.bootstrap import run_worker

    return run_worker(fd, parent)


@click.command("console", hidden=True)
@click.option("--fd", type=int, required=True)
@click.option("--listen-fd", type=int, required=True)
@click.option("--parent", type=int, required=True)
@config_option
def console(fd: int, listen_fd: int, parent: int) -> int:
    """The process that serves people; the daemon starts it by itself."""
    from engine.console.process import run_console

    return run_console(fd, listen_fd, parent)


def _is_fresh(config: Path) -> bool:
    """Whether no daemon has ever run on this site: then a person is trying it out."""
    from engine.errors import SettingsError
    from engine.runtime.status import status_path
    from engine.settings import store_only

    try:
        return not status_path(store_only(config)).with_suffix(".lock").exists()
    except SettingsError:  # said when it is loaded
        return False


def _welcome(config: Path, status: Status, *, fresh: bool) -> str:
    """Where it listens; on a site that has only just been made, how to send a first message too."""
    width = max((len(channel.name) for channel in status.channels), default=0)
    lines = ["Handoff is running."]
    if not status.clock.real:
        lines.append("  NOT THE REAL TIME: this is a test site, with a clock of its own (handoff status)")
    lines += [f"  MLLP     {item.name:<{width}}  {_address(item.host, item.port)}" for item in status.channels]
    if status.console is not None:
        scheme = "https" if status.console.tls else "http"
        lines.append(f"  console  {scheme}://{_address(status.console.host, status.console.port)}/readyz")
    example = config.parent / FIRST_MESSAGE
    if fresh and status.channels and example.exists():
        first = status.channels[0]
        at = _address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(first.host, first.host), first.port)
        command, where = called(), f"--config {shlex.quote(str(config))} " if config != Path("config.yaml") else ""
        lines += [
            "Send a first message from another terminal, and see its patient:",
            f"  {command} send {at} {shlex.quote(str(example))} --shift-to-now",
            f'  {command} patients show {where}MRN:558181838 --reveal --reason "first look"',
        ]
    return "\n".join([*lines, "Ctrl-C stops it.", ""])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
