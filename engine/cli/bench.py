"""`handoff bench`: the benchmark of this machine, and its report."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from engine.cli.common import Cli, config_option, json_option, table

F = TypeVar("F", bound=Callable[..., Any])

PARTS: Final = ("throughput", "openloop", "cpu", "salesforce", "growth", "soak")
DATABASES: Final = ("sqlite", "postgresql")


class _Each(click.ParamType[tuple[Any, ...]]):
    """Values with commas between them."""

    name = "list"

    def __init__(self, item: click.ParamType[Any]) -> None:
        self._item = item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(self._item.convert(part.strip(), param, ctx) for part in str(value).split(","))


def _list_option(name: str, item: click.ParamType[Any], **options: Any) -> Callable[[F], F]:
    """An option that takes several values with commas between them, may be given several times, and has no default."""
    return click.option(
        name,
        type=_Each(item),
        multiple=True,
        callback=lambda _ctx, _param, values: tuple(one for given in values for one in given),
        **options,
    )


def _address(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """NAME=HOST:PORT."""
    found: dict[str, tuple[str, int]] = {}
    for value in values:
        name, _, where = value.partition("=")
        host, _, port = where.rpartition(":")
        if not (name and host and port.isascii() and port.isdigit()):
            raise click.BadParameter("must be NAME=HOST:PORT")
        found[name] = host.strip("[]"), int(port)
    return found


def _settings(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, the value as YAML has it."""
    import yaml

    found: dict[str, Any] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (key and equals):
            raise click.BadParameter("must be KEY=VALUE")
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise click.BadParameter(f"{key}: is not YAML") from None
    return found


@click.group("bench", invoke_without_command=True, short_help="Measure what this machine makes of it.")
@_list_option(
    "--parts", click.Choice((*PARTS, "all")), metavar="PART,...",
    help=f"What to measure, of {', '.join(PARTS)}, or all.  [default: throughput,openloop,cpu]",
)  # fmt: skip
@_list_option(
    "--stores", click.Choice(DATABASES), metavar="STORE,...",
    help="On sqlite, postgresql or both.  [default: sqlite]",
)  # fmt: skip
@_list_option(
    "--senders", click.IntRange(1, 4096), metavar="NUMBER,...",
    help="throughput: stop-and-wait senders.  [default: 1,8,64,256]",
)  # fmt: skip
@click.option("--tls", is_flag=True, help="throughput: over TLS as well.")
@click.option(
    "--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True, help="Of each measurement."
)
@click.option(
    "--messages", type=click.IntRange(100), default=12_000, show_default=True, help="Of each measurement to the end."
)
@_list_option(
    "--rates", click.FloatRange(1, 100_000), metavar="NUMBER,...",
    help="openloop: messages a second; growth uses the highest.  [default: 200,1000]",
)  # fmt: skip
@_list_option(
    "--sizes", click.IntRange(0), metavar="NUMBER,...",
    help="growth: so many stored entries; ten million take 20 GB.  [default: 0,1000000,10000000]",
)  # fmt: skip
@click.option(
    "--stored-bytes", type=click.IntRange(300, 100_000), default=400, show_default=True,
    help="growth: of a stored message.",
)  # fmt: skip
@click.option("--soak-minutes", type=click.FloatRange(0.05), default=30.0, show_default=True, help="soak: so long.")
@click.option(
    "--soak-rate", type=click.FloatRange(1), default=300.0, show_default=True, help="soak: messages a second."
)
@click.option(
    "--postgresql", metavar="URL", envvar="HANDOFF_BENCH_POSTGRESQL",
    help="A server where databases may be made (postgresql+psycopg://...); what is in it is not touched.",
)  # fmt: skip
@click.option(
    "--salesforce", metavar="URL", envvar="HANDOFF_BENCH_SALESFORCE",
    help="An org on this machine; its client id and secret in HANDOFF_BENCH_SALESFORCE_ID and _SECRET.",
)  # fmt: skip
@click.option(
    "--beside", metavar="NAME=HOST:PORT", multiple=True, envvar="HANDOFF_BENCH_BESIDE", callback=_address,
    help="throughput: another MLLP receiver, measured with the same load.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, callback=_settings,
    help="A setting of the measured site's config.yaml.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Make the sites here, so measure this disk; they are removed again.  [default: the current folder]",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the JSON to this file too, after each part.",
)  # fmt: skip
@json_option
@config_option
@click.pass_context
def bench(ctx: click.Context, /, output: Path | None, **options: Any) -> int:
    """Measure a real daemon in sites of its own, beside probes of the same run.

    The probes: framing and acknowledging without a store, the same bytes plainly appended to the database, and what is
    given with --beside. The ratios to them are the result; the times depend on the machine.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from engine.simulator.bench import tables
    from engine.simulator.bench.benchmark import Options, benchmark

    cli: Cli = ctx.obj
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sites and daemons are put away, as after Ctrl-C
    options["databases"] = options.pop("stores")
    if "all" in options["parts"]:
        options["parts"] = PARTS
    chosen = Options(**{name: value for name, value in options.items() if value is not None and value != ()})
    result = benchmark(chosen, say=cli.say, keep=lambda so_far: _keep(output, so_far))
    lines = [tables.machine_line(result)]
    for section in tables.sections(result):
        lines += ["", section.title, table(section.headers, section.rows)]
    lines += ["", tables.closing_line(result)]
    cli.print(result, "\n".join(lines).rstrip())
    return 0


@bench.command("report", short_help="Write the report from the JSON of runs.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("docs/benchmarks"),
    show_default=True, help="The folder that is written.",
)  # fmt: skip
@json_option
@config_option
@click.pass_obj
def report(cli: Cli, files: tuple[Path, ...], folder: Path) -> int:
    """Write README.md and charts from the JSON of runs (--output), a chapter for each file."""
    from engine.simulator.bench.report import write_report

    written = [str(path) for path in write_report(files, folder)]
    cli.print({"written": written}, "\n".join(written))
    return 0


def _keep(output: Path | None, result: dict[str, Any]) -> None:
    import msgspec

    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
