"""`python -m benchmarks`: everything that is measured of the engine, and the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import tables
from benchmarks.parts import PARTS, SHORT, Options, check
from benchmarks.report import write_report
from engine.cli.app import run
from engine.cli.bench import given, list_option, load_options, measure, parts_option
from engine.cli.common import Cli, config_option, json_option


@click.group("benchmarks")
def benchmarks() -> None:
    """Measure the engine in sites of its own, beside probes of the same run, and write the report."""


@benchmarks.command("run", short_help="Measure.")
@parts_option(tuple(PARTS), default=SHORT)
@load_options
@list_option(
    "--sizes", click.IntRange(0), metavar="NUMBER,...",
    help="growth: so many stored entries; ten million take 20 GB.  [default: 0,1000000,10000000]",
)  # fmt: skip
@click.option(
    "--stored-bytes", type=click.IntRange(300, 100_000), default=400, show_default=True,
    help="growth: of a stored message.",
)  # fmt: skip
@click.option("--soak-minutes", type=click.FloatRange(0.05), default=30.0, show_default=True, help="soak: its length.")
@click.option(
    "--soak-rate", type=click.FloatRange(1), default=300.0, show_default=True, help="soak: messages a second."
)
@click.option(
    "--salesforce", metavar="URL", envvar="HANDOFF_BENCH_SALESFORCE",
    help="An org on this machine; its client id and secret in HANDOFF_BENCH_SALESFORCE_ID and _SECRET.",
)  # fmt: skip
@click.pass_obj
def measure_all(cli: Cli, /, parts: Sequence[str], output: Path | None, **options: Any) -> int:
    """Measure; `handoff bench` does so for throughput and latency alone."""
    chosen = Options(**given(options))
    check(parts, chosen)
    wanted = {part: PARTS[part] for part in parts}
    return measure(cli, chosen, wanted, sections=tables.sections, output=output)


@benchmarks.command("report", short_help="Write the report from the JSON of runs.")
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
    written = [str(path) for path in write_report(files, folder)]
    cli.print({"written": written}, "\n".join(written))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], benchmarks))
