"""`handoff bench`: the benchmark of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli.common import Cli, config_option, json_option, table


@click.command("bench")
@click.option(
    "--senders", type=click.IntRange(1, 4096), multiple=True, metavar="NUMBER",
    help="Stop-and-wait senders; may be given several times.  [default: 1, 8, 64]",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.5, 3600), default=8.0, show_default=True, help="Of each measurement."
)
@click.option(
    "--messages", type=click.IntRange(100), default=12_000, show_default=True, help="Of each measurement to the end."
)
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Make the site here, so measure this disk; it is removed again.  [default: the current folder]",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the JSON to this file too."
)
@json_option
@config_option
@click.pass_obj
def bench(
    cli: Cli, senders: tuple[int, ...], seconds: float, messages: int, folder: Path | None, output: Path | None
) -> int:
    """Measure a real daemon in a site of its own, beside two probes of the same run.

    framer: framing and acknowledging without a store. append: the same bytes, plainly appended to SQLite. The ratios to
    them are the result; the times depend on the machine.
    """
    import msgspec

    from engine.simulator.bench.benchmark import SENDERS, benchmark, table_rows

    result = benchmark(senders=senders or SENDERS, seconds=seconds, messages=messages, folder=folder, say=cli.say)
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    machine, memory = result["machine"], result["memory_mb"]
    disk = f"{machine['file_system']}, fdatasync {machine['fdatasync_ms']['p50']} ms"
    sizes = " + ".join(f"{size:.0f}" for size in memory["resident"])
    cli.print(
        result,
        f"{machine['cpu']}, {machine['cores']} cores; {disk}; "
        f"Python {machine['python']}, SQLite {machine['sqlite']}\n\n"
        f"{table(*table_rows(result))}\n\n"
        f"memory {memory['proportional']:.0f} MB (resident {sizes}); "
        f"port open after {result['start_seconds']['median']:.2f} s; "
        f"the generator alone could send {result['generator']['ceiling_per_second']:,}/s",
    )
    return 0
