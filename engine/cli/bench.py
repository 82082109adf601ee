"""`handoff bench`: throughput and latency on this machine. All that is measured besides stands in `benchmarks/`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from engine.cli.common import Cli, config_option, json_option
from engine.cli.tables import table

if TYPE_CHECKING:
    from engine.simulator.bench.benchmark import Options_, Part
    from engine.simulator.bench.tables import Section

F = TypeVar("F", bound=Callable[..., Any])

DATABASES: Final = ("sqlite", "postgresql")
_PARTS: Final = ("throughput", "openloop", "deadlines")


class _Each(click.ParamType[tuple[Any, ...]]):
    """Values with commas between them."""

    name = "list"

    def __init__(self, item: click.ParamType[Any]) -> None:
        self._item = item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(self._item.convert(part.strip(), param, ctx) for part in str(value).split(","))


def list_option(name: str, item: click.ParamType[Any], **options: Any) -> Callable[[F], F]:
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


def parts_option(parts: Sequence[str], *, default: Sequence[str]) -> Callable[[F], F]:
    """`--parts`: some of them in their own order, or all; given to the command as `parts`."""

    def chosen(_ctx: click.Context, _param: click.Parameter, values: tuple[tuple[str, ...], ...]) -> list[str]:
        asked = {part for given in values for part in given} or set(default)
        return [part for part in parts if "all" in asked or part in asked]

    return click.option(
        "--parts", type=_Each(click.Choice((*parts, "all"))), multiple=True, callback=chosen, metavar="PART,...",
        help=f"What to measure, of {', '.join(parts)}, or all.  [default: {','.join(default)}]",
    )  # fmt: skip


def load_options(command: F) -> F:
    """What all benchmarks can be told: stores, load, peers, settings, and where to do it."""
    options = (
        list_option(
            "--stores", click.Choice(DATABASES), metavar="STORE,...",
            help="On sqlite, postgresql or both.  [default: sqlite]",
        ),
        list_option(
            "--senders", click.IntRange(1, 4096), metavar="NUMBER,...",
            help="throughput: stop-and-wait senders.  [default: 1,8,64,256]",
        ),
        click.option("--tls", is_flag=True, help="throughput: over TLS as well."),
        click.option(
            "--seconds", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True, help="Of each measurement."
        ),
        click.option(
            "--messages", type=click.IntRange(100), default=12_000, show_default=True,
            help="Of each measurement to the end.",
        ),
        list_option(
            "--rates", click.FloatRange(1, 100_000), metavar="NUMBER,...",
            help="openloop: messages a second; deadlines: the least of them.  [default: 200,1000]",
        ),
        click.option(
            "--deadlines", type=click.IntRange(1), default=100_000, show_default=True,
            help="deadlines: patients whose deadlines come at once.",
        ),
        click.option(
            "--postgresql", metavar="URL", envvar="HANDOFF_BENCH_POSTGRESQL",
            help="A server where databases may be made (postgresql+psycopg://...); what is in it is not touched.",
        ),
        click.option(
            "--beside", metavar="NAME=HOST:PORT", multiple=True, envvar="HANDOFF_BENCH_BESIDE", callback=_address,
            help="throughput: another MLLP receiver, measured with the same load.",
        ),
        click.option(
            "--set", "settings", metavar="KEY=VALUE", multiple=True, callback=_settings,
            help="A setting of the measured site's config.yaml.",
        ),
        click.option(
            "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Make the sites here, so measure this disk; they are removed again.  [default: the current folder]",
        ),
        click.option(
            "--output", type=click.Path(dir_okay=False, writable=True, path_type=Path),
            help="Write the JSON to this file too, after each part.",
        ),
        json_option,
        config_option,
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as `Options` names them."""
    named = {"databases" if name == "stores" else name: value for name, value in options.items()}
    return {name: value for name, value in named.items() if value is not None and value != ()}


def measure(
    cli: Cli,
    options: Options_,
    parts: Mapping[str, Part[Options_]],
    *,
    sections: Callable[[Mapping[str, Any]], Iterable[Section]],
    output: Path | None,
) -> int:
    """Run the parts and print the result as tables, or as the JSON document that `output` is given as well."""
    from engine.simulator.bench import tables
    from engine.simulator.bench.benchmark import benchmark

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sites and daemons are put away, as after Ctrl-C
    result = benchmark(options, parts, say=cli.say, keep=lambda so_far: _keep(output, so_far))
    lines = [tables.machine_line(result)]
    for section in sections(result):
        lines += ["", section.title, table(section.headers, section.rows)]
    lines += ["", tables.closing_line(result)]
    cli.print(result, "\n".join(lines).rstrip())
    return 0


@click.command("bench", short_help="Measure what this machine makes of it.")
@parts_option(_PARTS, default=_PARTS)
@load_options
@click.pass_obj
def bench(cli: Cli, /, parts: Sequence[str], output: Path | None, **options: Any) -> int:
    """Measure a real daemon in sites of its own, beside probes of the same run.

    The probes: framing and acknowledging without a store, the same bytes plainly appended to the database, and what is
    given with --beside. The ratios to them are the result; the times depend on the machine.
    """
    from engine.simulator.bench import tables
    from engine.simulator.bench.benchmark import PARTS, Options

    wanted = {part: PARTS[part] for part in parts}
    return measure(cli, Options(**given(options)), wanted, sections=tables.sections, output=output)


def _keep(output: Path | None, result: dict[str, Any]) -> None:
    import msgspec

    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
