"""`handoff try`: a dry run. The code of the daemon, less the write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import NO, Cli, complete_channel, config_option, json_option, reveal_options
from engine.cli.desk import open_desk, read_input, reveal_of
from engine.cli.messages import fault_lines, told, why_lines
from engine.cli.patients import human_chart
from engine.cli.tables import table
from engine.errors import NotFoundError
from engine.printable import singles

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel


@click.command("try")
@click.argument("channel", metavar="CHANNEL", shell_complete=complete_channel)
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--charts", is_flag=True, help="Against the stored charts (read only); masked without --reveal.")
@reveal_options
@json_option
@config_option
@click.pass_obj
def try_(cli: Cli, channel: str, files: tuple[Path, ...], charts: bool, reveal: bool, reason: str | None) -> int:
    """Show what would become of messages; writes nothing.

    FILE holds one message or several, also batches, also MLLP captures; - is standard input. Without --charts it begins
    with no chart at all, and each message finds what those before it left. What the files hold is shown as it is. Exit
    code 1 when a message would be refused or become a dead letter.
    """
    from engine.desk.seeing import View
    from engine.errors import KeyFileError, KeyMissingError
    from engine.pipeline.compiling import compile_configuration
    from engine.runtime.configurations import compile_site
    from engine.store.opening import open_keys
    from engine.trial.dryrun import Trial

    wish = reveal_of(reveal, reason)
    if wish is not None and not charts:
        raise click.UsageError("--reveal goes with --charts: what the files hold is not masked")
    frames = [frame for file in files for frame in _frames(file)]
    if charts:
        with open_desk(cli) as desk:
            desk.asked(messages=", ".join(map(_named, files)))
            compiled = desk.compiled()
            trial = Trial(_channel(compiled.channels, channel), desk.now)
            with desk.store.reader() as conn:
                since = desk.store.journal.first_received(conn).get(channel)
                trial.prepare(frames, since)
                trial.charts = desk.store.charts.load_to_try(conn, trial.identities, trial.visits)
            desk.found(trial.charts.by_id)
            view = desk.view(wish, (f"chart:{chart_id}" for chart_id in trial.charts.by_id))
    else:
        configuration = cli.configuration()
        try:
            compiled = compile_site(configuration, open_keys(configuration))
        except (KeyMissingError, KeyFileError):  # then only ids and idempotency keys differ from the daemon's
            compiled = compile_configuration(configuration, _unkeyed)
        trial = Trial(_channel(compiled.channels, channel), cli.clock.now())
        trial.prepare(frames)
        view = View(str, revealed=True)
    results = trial.run(view)
    for name in trial.authorities_unseen:
        cli.say(f"identity.authorities: no message here names {name}, in CX-4 of a number that may be the key")
    cli.print(results[0] if len(results) == 1 else results, "\n\n".join(_human(result) for result in results))
    return NO if any(result["state"] in {"refused", "dead"} for result in results) else 0


def _frames(file: Path) -> list[bytes]:
    """What a file holds, as it would be sent: each message or batch in a frame of its own."""
    from engine.hl7v2.capture import read_capture

    frames = [unit.payload for unit in read_capture(read_input(file))]
    if not frames:
        raise NotFoundError(f"{_named(file)} holds no message")
    return frames


def _named(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _channel(channels: Any, name: str) -> CompiledChannel:
    channel: CompiledChannel | None = channels.get(name)
    if channel is None:
        raise NotFoundError(f"there is no such channel; there are {', '.join(sorted(channels)) or 'none'}")
    return channel


def _unkeyed(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _human(result: dict[str, Any]) -> str:
    result = singles(result)
    header, ack = result["header"] or {}, result["ack"]
    lines = [
        f"{header.get('type') or 'unreadable'} {header.get('control_id') or ''}: {result['state']}"
        + (f" ({result['reason']})" if result["reason"] else ""),
        f"answer: {ack['code'] or 'none'}" + (f" {ack['error']}: {ack['text']}" if ack["error"] else ""),
    ]
    if result["deviations"]:
        lines.append(f"deviations: {', '.join(result['deviations'])}")
    lines += fault_lines(result["quality"])
    lines += why_lines(result["why"])
    if result["patient"]:
        encounters = [result["encounter"]] if result["encounter"] else []
        lines += ["", human_chart(result | result["patient"] | {"encounters": encounters})]
    deliveries = [(item["destination"], told(item), item["idempotency_key"]) for item in result["deliveries"]]
    if deliveries:
        lines += ["", table(("delivery to", "what", "idempotency key"), deliveries)]
    return "\n".join(lines)
