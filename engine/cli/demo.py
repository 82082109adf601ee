"""`handoff demo`: all of it alive on a site of its own: a simulated hospital, the daemon, and what comes of it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import click

from engine.cli.common import NO, Cli, called, config_option
from engine.cli.tables import table

if TYPE_CHECKING:
    from engine.desk.desk import Desk

_START_SECONDS_MAX = 60.0
_SETTLE_SECONDS_MAX = 300.0
_STOP_SECONDS_MAX = 60.0


@click.command("demo")
@click.option("--messages", type=click.IntRange(1), metavar="N", default=5_000, show_default=True, help="How many.")
@click.option(
    "--rate", type=click.FloatRange(0), metavar="N", default=250.0, show_default=True,
    help="Messages per second; 0: as fast as the daemon acknowledges.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Of the simulated day.  [default: another each time]"
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/demo"),
    show_default=True,
    help="The demo's site; it stays, to look around in.",
)
@config_option
@click.pass_obj
def demo(cli: Cli, messages: int, rate: float, seed: int | None, folder: Path) -> int:
    """Show the daemon at work on a simulated hospital's day.

    It runs in a site of its own on free ports. All people in it are invented. Exit code 1 when the books do not balance
    at the end.
    """
    from engine.cli.desk import open_desk

    config = _make_site(folder)
    site = Cli()
    site.config = config
    log = folder / "daemon.log"
    with log.open("ab") as stream, _Processes() as processes:
        daemon = processes.start("run", config, output=stream)
        address = _listening(site, daemon, log)
        cli.say(f"The daemon runs (pid {daemon.pid}) and takes MLLP at {address}. Ctrl-C ends the demo.\n")
        number = int(time.time()) % 1_000_000 if seed is None else seed
        feed = ("--messages", str(messages), "--rate", str(rate), "--seed", str(number))
        sender = processes.start("simulate", config, address, *feed, output=stream)
        with open_desk(site) as opened:
            line = _watch(cli, opened, sender, daemon)
            cli.print(None, _summary(opened, line))
        processes.stop()
    commands = (f"  {called()} {command} --config {config}" for command in ("tasks list", "messages list", "ledger"))
    cli.say("\n".join(("\nLook around:", *commands)))
    cli.say(f"What was delivered is in {folder / 'var/outbox'}, the daemon's log in {log}.")
    return 0 if line["balanced"] and not line["pending"] else NO


def _make_site(folder: Path) -> Path:
    """A site on free ports; an earlier demo's is used again."""
    from engine.cli.init import make_site

    config = folder / "config.yaml"
    if not config.exists():
        make_site(folder)
        for file in (config, *sorted((folder / "channels").glob("*.yaml"))):
            file.write_text(re.sub(r"\bport: [0-9]+", "port: 0", file.read_text(encoding="utf-8")), encoding="utf-8")
    return config


class _Processes:
    """The demo's own commands, ended with it whatever happens."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: str, config: Path, *arguments: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-P", "-m", "engine", command, *arguments, "--config", str(config)]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603 - ourselves
        self._started.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
        self._started.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listening(site: Cli, daemon: subprocess.Popen[bytes], log: Path) -> str:
    """HOST:PORT of the first channel, as soon as it is open."""
    from engine.errors import HandoffError
    from engine.runtime.status import running_status

    configuration = site.configuration()
    until = time.monotonic() + _START_SECONDS_MAX
    while time.monotonic() < until and daemon.poll() is None:
        status = running_status(configuration)
        if status is not None and status.pid == daemon.pid and status.ready and status.channels:
            return f"{status.channels[0].host}:{status.channels[0].port}"
        time.sleep(0.1)
    raise HandoffError(f"the daemon did not start; see {log}")


def _watch(cli: Cli, desk: Desk, sender: subprocess.Popen[bytes], daemon: subprocess.Popen[bytes]) -> Any:
    """Show the ledger until all that was sent is processed and delivered; its last line."""
    live = sys.stderr.isatty()
    until = None
    while True:
        line = _ledger(desk)
        text = (
            f"{line['acked']:>9,} acknowledged  {line['processed']:>9,} processed  {line['pending']:>6,} pending  "
            f"{line['deliveries']['delivered']:>9,} delivered  {line['dead']:>4,} dead"
        )
        click.echo(f"\r{text}" if live else text, err=True, nl=not live)
        if sender.poll() is not None:
            until = until or time.monotonic() + _SETTLE_SECONDS_MAX
            waiting = line["pending"] + line["deliveries"]["pending"]
            if not waiting or daemon.poll() is not None or time.monotonic() > until:
                break
        time.sleep(1.0)
    cli.say("")
    return line


def _ledger(desk: Desk) -> Any:
    from engine.domain.shapes import plain
    from engine.store.counts import ledger

    with desk.store.reader() as conn:
        return plain(ledger(conn, desk.configuration.channels)[0])


def _summary(desk: Desk, line: Any) -> str:
    """What came of the day, for the care team: tasks by kind."""
    from collections import Counter

    from engine.domain.task import TaskState

    with desk.store.reader() as conn:
        tasks = [item.task for item in desk.store.tasks.find(conn, limit=None)]
    kinds = sorted({task.kind for task in tasks})
    count = Counter((task.kind, task.state.value) for task in tasks)
    states = tuple(TaskState)
    rows = [(kind, *(count[kind, state] or None for state in states)) for kind in kinds]
    books = "The books balance" if line["balanced"] else "THE BOOKS DO NOT BALANCE"
    return (
        f"{books}: {line['received']:,} received = {line['processed']:,} processed + {line['filtered']:,} filtered + "
        f"{line['refused']:,} refused + {line['dead']:,} dead + {line['duplicates']:,} duplicates + "
        f"{line['pending']:,} pending\n\n" + table(("follow-up task", *states), rows)
    )
