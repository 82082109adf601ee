"""The report: a folder with README.md and charts, written from the JSON of runs, so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.chart import Bar, Series, bar_chart, line_chart
from benchmarks.tables import STAGES, more_cores, sections
from engine.simulator.bench.site import BenchError
from engine.simulator.bench.tables import Json, closing_line, machine_line, on

_PERCENTILES: Final = {"p50_ms": "p50", "p90_ms": "p90", "p95_ms": "p95", "p99_ms": "p99", "p999_ms": "p99.9",
                       "max_ms": "max"}  # fmt: skip
_SEARCHES: Final = (
    "control id",
    "patient",
    "chart",
    "newest",
    "state processed",
    "state dead",
    "state received",
    "ledger",
)
"""Those that are drawn: no more than there are colours."""
_HEAD: Final = """\
# Benchmarks

This file and its charts are written by `make bench-report` from the JSON beside them; nothing here is typed by hand.
`make bench-all` measures everything anew (an hour or more, on a machine that does nothing else), `make bench` the short
form. What each part does stands in [benchmarks/README.md](../../benchmarks/README.md).

Times belong to the machine. What can be compared are the ratios to the probes of the same run.
"""


def write_report(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write README.md and the charts of some results into a folder; what was written. Raises BenchError.

    Charts are named after the file they are drawn from.
    """
    results = [(file, read_result(file)) for file in files]
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    text = [_HEAD]
    if (folder / "profile.md").exists():
        text.append("Where the time goes, and what is left, is told in [profile.md](profile.md).\n")
    for file, result in results:
        drawn: dict[str, list[tuple[str, str]]] = {}
        for part, name, title, svg in charts(result):
            target = folder / f"{file.stem}-{name}.svg"
            target.write_text(svg, encoding="utf-8")
            written.append(target)
            drawn.setdefault(part, []).append((title, target.name))
        text.append(_chapter(file, folder, result, drawn))
    readme = folder / "README.md"
    readme.write_text("\n".join(text), encoding="utf-8")
    return [readme, *written]


def read_result(file: Path) -> Json:
    """The JSON of a run (`--output`). Raises BenchError."""
    try:
        result = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise BenchError(f"{file}: can't be read: {error.strerror}") from None
    except msgspec.DecodeError:
        result = None
    if not isinstance(result, dict) or result.get("format") != 2:
        raise BenchError(f"{file}: is no result of this version's benchmark (--output)")
    return result


def charts(result: Json) -> Iterator[tuple[str, str, str, str]]:
    """(part of the report, name, title, SVG) of each chart that the result has figures for."""
    for chart in (_throughput_charts, _openloop_chart, _stages_chart, _cores_chart, _growth_charts, _soak_charts):
        yield from chart(result)


def _chapter(file: Path, folder: Path, result: Json, drawn: dict[str, list[tuple[str, str]]]) -> str:
    source = f"[{file.name}]({file.name})" if file.resolve().parent == folder.resolve() else f"`{file.name}`"
    machine = result["machine"]
    stolen = f"{machine['stolen_share']:.1%} of the processors' time taken by the host"
    state = f"load average {machine['load_average']} at the start, {stolen}"
    lines = [
        f"## {file.stem}",
        "",
        f"{machine_line(result)}. Handoff {result['version']}, {result['at'][:10]}; {state}. Data: {source}.",
        "",
    ]
    if result["settings"]:
        named = ", ".join(f"`{key}: {value}`" for key, value in result["settings"].items())
        lines += [f"Settings other than the default: {named}.", ""]
    if closing_line(result):
        lines += [f"In all: {closing_line(result)}.", ""]
    for section in sections(result):
        lines += [f"### {section.title}", ""]
        if section.text:
            lines += [" ".join(section.text.split()), ""]
        lines += [f"![{title}]({name})" for title, name in drawn.get(section.part, ())]
        lines += [""] if drawn.get(section.part) else []
        lines += [_row(section.headers), _row(["---"] * len(section.headers)), *map(_row, section.rows), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- charts ----------------------------------------------------------------------------------------------------------


def _throughput_charts(result: Json) -> Iterator[tuple[str, str, str, str]]:
    runs = result["runs"]
    if not runs:
        return
    counts = list(dict.fromkeys(run["senders"] for run in runs))
    labels = [f"{count}" for count in counts]
    variants = list(dict.fromkeys(map(on, runs)))

    def line(name: str, variant: str, *keys: str) -> Series:
        points = [(float(counts.index(run["senders"])), _at(run, keys)) for run in runs if on(run) == variant]
        return Series(name, points)

    first = variants[0]
    others = list(dict.fromkeys(name for run in runs for name in run["beside"]))
    beside = [line(name, first, "beside", name, "rate") for name in others]
    title = f"Messages a second, {first}"
    series = [
        line("framer, no store", first, "framer", "rate"),
        line("bare append", first, "append", "rate"),
        line("acknowledged", first, "acknowledged", "rate"),
        line("to the end", first, "to_the_end", "rate"),
        *beside,
    ]
    yield "throughput", "throughput", title, line_chart(
        title=title, x_title="senders that wait for each answer", y_title="messages/s", series=series,
        x_labels=labels, logarithmic=True,
    )  # fmt: skip
    if len(variants) > 1:
        title = "Messages a second, by store and transport"
        series = [
            line(f"{variant}: {name}", variant, part, "rate")
            for part, name in (("acknowledged", "ack"), ("to_the_end", "end"))
            for variant in variants
        ]
        yield "throughput", "variants", title, line_chart(
            title=title, x_title="senders that wait for each answer", y_title="messages/s", series=series,
            x_labels=labels, logarithmic=True,
        )  # fmt: skip
    title = f"Latency of the AA at full load, {first}"
    series = [
        line(f"{name}, {_PERCENTILES[key]}", first, part, key)
        for part, name in (("acknowledged", "ack only"), ("to_the_end", "processing"))
        for key in ("p50_ms", "p99_ms", "max_ms")
    ]
    yield "latency", "latency", title, line_chart(
        title=title, x_title="senders that wait for each answer", y_title="milliseconds", series=series,
        x_labels=labels, logarithmic=True,
    )  # fmt: skip


def _at(value: Any, keys: Sequence[str]) -> float | None:
    """What stands below the keys; none: one of them is not there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value  # type: ignore[no-any-return]  # a number, by how results are made


def _openloop_chart(result: Json) -> Iterator[tuple[str, str, str, str]]:
    runs = result.get("openloop") or []
    if not runs:
        return
    title = "Latency at a fixed rate, from when a message was due"
    stores = {run["store"] for run in runs}
    series = [
        Series(
            f"{run['rate']:,.0f}/s {until}" + (f", {on(run)}" if len(stores) > 1 else ""),
            [(float(index), run[until][key]) for index, key in enumerate(_PERCENTILES)],
        )
        for run in runs
        for until in ("stored", "processed")
    ]
    yield "openloop", "openloop", title, line_chart(
        title=title, x_title="percentile of the messages", y_title="milliseconds", series=series,
        x_labels=list(_PERCENTILES.values()), logarithmic=True,
    )  # fmt: skip


def _stages_chart(result: Json) -> Iterator[tuple[str, str, str, str]]:
    if not result.get("cpu"):
        return
    names = {"main": "main process", "worker": "workers"}
    bars = [Bar(name, [(names[STAGES[name][0]], spent)]) for name, spent in result["cpu"]["stages_us"].items()]
    title = "Processor time a message, by stage"
    yield "cpu", "cpu", title, bar_chart(title=title, x_title="microseconds", bars=bars)


def _cores_chart(result: Json) -> Iterator[tuple[str, str, str, str]]:
    more = more_cores(result)
    if not more:
        return
    best = {one.cores: one for one in more}  # the last of each: as many workers as cores
    series = [
        Series("to the end", [(float(index), one.rate) for index, one in enumerate(best.values())]),
        Series("acknowledged meanwhile", [(float(index), one.acknowledged) for index, one in enumerate(best.values())]),
    ]
    title = "Messages a second by cores, in simulation"
    yield "cores", "cores", title, line_chart(
        title=title, x_title="cores, each with a worker", y_title="messages/s", series=series,
        x_labels=[f"{cores}" for cores in best],
    )  # fmt: skip


def _growth_charts(result: Json) -> Iterator[tuple[str, str, str, str]]:
    for grown in result.get("growth") or []:
        steps, store = grown["steps"], grown["store"]
        labels = [f"{step['entries']:,}" for step in steps]
        title = f"With more and more stored entries, {on(grown)}"
        names = {"acknowledged": "acknowledged/s", "to_the_end": "to the end/s", "open_loop_p99": "p99, open loop",
                 "start": "start", "memory": "memory"}  # fmt: skip
        series = [
            Series(name, [(float(index), step["ratios"][key] * 100) for index, step in enumerate(steps)])
            for key, name in names.items()
        ]
        yield (
            "growth",
            f"growth-{store}",
            title,
            line_chart(
                title=title, x_title="stored entries", y_title="percent of the first", series=series, x_labels=labels
            ),
        )
        steps = [step for step in steps if step["searches"]]
        if not steps:
            continue
        labels = [f"{step['entries']:,}" for step in steps]
        searched = [name for name in _SEARCHES if all(name in step["searches"] for step in steps)]
        title = f"Searches among stored entries, {on(grown)}"
        series = [
            Series(name, [(float(index), step["searches"][name]["p50_ms"]) for index, step in enumerate(steps)])
            for name in searched
        ]
        yield "searches", f"searches-{store}", title, line_chart(
            title=title, x_title="stored entries", y_title="milliseconds (median)", series=series,
            x_labels=labels, logarithmic=True,
        )  # fmt: skip


def _soak_charts(result: Json) -> Iterator[tuple[str, str, str, str]]:
    soak = result.get("soak")
    if not soak:
        return
    samples = soak["samples"]
    minutes = [sample["seconds"] / 60 for sample in samples]
    title = f"Memory at {soak['asked_rate']:,.0f} messages/s"
    whole = [sample["proportional_mb"] for sample in samples]
    series = [Series("all processes", list(zip(minutes, whole, strict=True)))]
    memory = soak["memory_mb"]
    settled = [(x, y) for x, y in zip(minutes, whole, strict=True) if x * 60 >= memory["settled_after_seconds"]]
    if memory["slope_mb_per_hour"] is not None and settled:
        middle = [sum(values) / len(settled) for values in zip(*settled, strict=True)]
        a_minute = memory["slope_mb_per_hour"] / 60
        fitted = [(x, middle[1] + (x - middle[0]) * a_minute) for x in (settled[0][0], settled[-1][0])]
        series.append(Series(f"{memory['slope_mb_per_hour']:+.1f} MB/h", fitted, dashed=True))
    processes = min((len(sample["resident_mb"]) for sample in samples), default=0)
    series += [
        Series(
            f"worker {index}" if index else "main process",
            [(at, sample["resident_mb"][index]) for at, sample in zip(minutes, samples, strict=True)],
        )
        for index in range(processes)
    ]
    yield "soak", "soak-memory", title, line_chart(
        title=title, x_title="minutes", y_title="MB", series=series
    )  # fmt: skip
    title = f"Latency of the AA at {soak['asked_rate']:,.0f} messages/s"
    series = [
        Series(_PERCENTILES[key], [(part["seconds"] / 60, part[key]) for part in soak["series"]])
        for key in ("p50_ms", "p99_ms", "max_ms")
    ]
    yield (
        "soak",
        "soak-latency",
        title,
        line_chart(
            title=title,
            x_title="minutes",
            y_title="milliseconds, from when it was due",
            series=series,
            logarithmic=True,
        ),
    )
