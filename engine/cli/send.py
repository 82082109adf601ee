"""`handoff send`: an MLLP client for trying a channel, or anything else that speaks MLLP."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import NO, UNAVAILABLE, Cli, config_option, json_option
from engine.cli.desk import read_input
from engine.cli.tables import table
from engine.errors import NotFoundError

if TYPE_CHECKING:
    import ssl

    from engine.hl7v2.capture import Captured
    from engine.simulator.sender import Reply, Sender


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            self.fail("must be HOST:PORT, like 127.0.0.1:2575", param, ctx)
        return host, int(port)


_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_PEM = click.Path(exists=True, dir_okay=False)


@click.command("send", short_help="Send the messages of files over MLLP, and show the answers.")
@click.argument("address", metavar="HOST:PORT", type=Address())
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option("--tls", is_flag=True, help="Speak TLS.")
@click.option("--ca", type=_PEM, help="PEM file of the authorities that signed the server's certificate.")
@click.option("--cert", type=_PEM, help="PEM file of your own certificate, for a server that asks for one.")
@click.option("--key", type=_PEM, help="PEM file of your own key.")
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(0, 3600, min_open=True), metavar="SECONDS", default=30.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)  # fmt: skip
@click.option(
    "--shift-to-now", is_flag=True, help="Move the times of the messages, so that the last was sent just now."
)
@json_option
@config_option
@click.pass_obj
def send(
    cli: Cli,
    address: tuple[str, int],
    files: tuple[Path, ...],
    tls: bool,
    ca: str | None,
    cert: str | None,
    key: str | None,
    timeout_seconds: float,
    shift_to_now: bool,
) -> int:
    """Send every message in the files (also batches, also MLLP captures; - is standard input), and print each answer.

    Exit code 1 when a message was not accepted, 69 when nobody listens.
    """
    from engine.hl7v2.capture import read_capture
    from engine.simulator.sender import Sender, run

    units: list[tuple[str, int, Captured]] = []
    for file in files:
        found = list(enumerate(read_capture(read_input(file))))
        if not found:
            raise NotFoundError(f"{'standard input' if str(file) == '-' else file} holds no message")
        units += ((str(file), index, unit) for index, unit in found)
    if shift_to_now:
        from msgspec import structs

        from engine.simulator.shift import shift

        moved = shift([unit.payload for _, _, unit in units], cli.clock.now())
        units = [
            (file, index, structs.replace(unit, payload=payload))
            for (file, index, unit), payload in zip(units, moved, strict=True)
        ]
    sender = Sender(*address, tls=tls_context(tls, ca, cert, key), timeout_seconds=timeout_seconds)
    results: list[dict[str, Any]] = []
    try:
        code = run(_send_all(sender, units, results))
    except KeyboardInterrupt:
        cli.say(f"Stopped after {len(results)} answers.")
        code = NO
    cli.print(results, _human(results))
    return code


async def _send_all(sender: Sender, units: list[tuple[str, int, Captured]], results: list[dict[str, Any]]) -> int:
    """The exit code."""
    from engine.errors import DeliveryError

    code = 0
    try:
        for file, index, unit in units:
            began = perf_counter()
            try:
                replies = await sender.send_batch(unit.payload) if unit.batch else [await sender.send(unit.payload)]
            except DeliveryError as error:
                results.append(_result(file, index, None, began) | {"problem": f"{error.error}: {error.text}"})
                code = NO
                if error.error in {"unreachable", "tls"}:
                    return UNAVAILABLE
                continue
            results += (_result(file, index, reply, began) for reply in replies)
            if not all(reply.accepted for reply in replies):
                code = NO
    finally:
        await sender.close()
    return code


def _result(file: str, index: int, reply: Reply | None, began: float) -> dict[str, Any]:
    """One message's answer. index: of the message (or of the batch it came in) in its file, from 0."""
    return {
        "file": file,
        "index": index,
        "control_id": reply.control_id.decode("utf-8", "replace") if reply is not None else None,
        "ack": _ack(reply) if reply is not None else None,
        "application_ack": reply.application.code if reply is not None and reply.accept and reply.application else None,
        "seconds": round(perf_counter() - began, 6),
        "problem": None,
    }


def _ack(reply: Reply) -> dict[str, Any] | None:
    """error: the receiver's own code (ERR-5), else the one of HL7 table 0357."""
    from engine.hl7v2.message import Message

    ack = reply.ack
    if ack is None:
        return None
    error = Message.parse(reply.payload).get("ERR-5.1") or (str(ack.hl7_code) if ack.hl7_code else None)
    return {"code": ack.code, "error": error, "text": ack.text or None, "location": ack.location}


def _human(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        ack = result["ack"] or {}
        said = " ".join(filter(None, (ack.get("error"), ack.get("text"), result["problem"])))
        milliseconds = f"{result['seconds'] * 1000:.1f}"
        rows.append(
            (result["file"], result["index"], result["control_id"], ack.get("code"), milliseconds, said or None)
        )
    return table(("file", "index", "control id", "ack", "ms", "said"), rows)


def tls_context(tls: bool, ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """The TLS that the options ask for, or None. Raises UsageError."""
    import ssl

    from engine.simulator.sender import Tls

    if not tls:
        if ca or cert or key:
            raise click.UsageError("--ca, --cert and --key need --tls")
        return None
    try:
        return Tls(ca=ca, cert=cert, key=key).context()
    except OSError as error:
        said = error.strerror if not isinstance(error, ssl.SSLError) else "they must be PEM files that belong together"
        raise click.UsageError(f"the TLS files can't be used: {said}") from None
