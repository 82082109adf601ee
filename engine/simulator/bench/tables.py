"""The figures as tables, the same for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]

STORES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True)
class Section:
    """text: what the columns mean, in lines of any length."""

    part: str
    title: str
    text: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(result: Json) -> Iterator[Section]:
    """What a result holds of throughput and latency, in the order in which it is best read."""
    runs = result.get("runs") or []
    if runs:
        yield _throughput(runs)
        yield _latency(runs)
        yield _processor_time(runs)
    if result.get("openloop"):
        yield _openloop(result["openloop"])
    if result.get("deadlines"):
        yield _deadlines(result["deadlines"])


def machine_line(result: Json) -> str:
    machine = result["machine"]
    database = f", PostgreSQL {machine['postgresql']}" if machine.get("postgresql") else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {machine['file_system']}, fdatasync"
        f" {machine['fdatasync_ms']['p50']} ms (p99 {machine['fdatasync_ms']['p99']} ms); {machine['system']};"
        f" Python {machine['python']}, SQLite {machine['sqlite']}{database}"
    )


def closing_line(result: Json) -> str:
    """Memory, start and what the generator could do; empty without the part `throughput`."""
    memory, start, generator = result.get("memory_mb"), result.get("start_seconds"), result.get("generator")
    if memory is None or start is None or generator is None:
        return ""
    sizes = " + ".join(f"{size:.0f}" for size in memory["resident"])
    return (
        f"memory {memory['proportional']:.0f} MB (resident {sizes}); port open after {start['median']:.2f} s, a first"
        f" message processed after {start['first_processed']:.2f} s;"
        f" the generator alone could send {generator['ceiling_per_second']:,}/s"
    )


def on(run: Json) -> str:
    """What a run was on."""
    return STORES[run["store"]] + (", TLS" if run.get("tls") else "")


def _throughput(runs: Sequence[Json]) -> Section:
    others = list(dict.fromkeys(name for run in runs for name in run["beside"]))
    headers = ["senders", "on", "framer/s", "append/s", *(f"{name}/s" for name in others), "acknowledged/s",
               "of framer", "of append", *(f"of {name}" for name in others), "to the end/s", "of acknowledged",
               "delivered/s"]  # fmt: skip
    rows = []
    for run in runs:
        ratios = run["ratios"]
        rows.append([
            f"{run['senders']}",
            on(run),
            count(run["framer"]["rate"]),
            count(run["append"]["rate"]),
            *(count(run["beside"].get(name, {}).get("rate")) for name in others),
            count(run["acknowledged"]["rate"]),
            share(ratios["acknowledged_of_framer"]),
            share(ratios["acknowledged_of_append"]),
            *(share(ratios.get(f"acknowledged_of_{name}")) for name in others),
            count(run["to_the_end"]["rate"]),
            share(ratios["to_the_end_of_acknowledged"]),
            count(run["to_the_end"]["delivered_rate"]),
        ])  # fmt: skip
    text = """
        Messages a second, senders that wait for each answer. framer: framing and acknowledging without a store.
        append: the same bytes into the bare database, a transaction for as many as there are senders. acknowledged:
        the daemon, on disk and encrypted before the AA. to the end: mapped, scored, planned and in the outbox;
        delivered: to files.
    """
    return Section("throughput", "Throughput", text, headers, rows)


def _latency(runs: Sequence[Json]) -> Section:
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    headers = ("senders", "on", *(f"ack only, {name[:-3]} ms" for name in names),
               *(f"processing, {name[:-3]} ms" for name in names))  # fmt: skip
    rows = [
        (f"{run['senders']}", on(run),
         *(number(run[part][name]) for part in ("acknowledged", "to_the_end") for name in names))
        for run in runs
    ]  # fmt: skip
    text = """
        From sending a message until its AA, at the greatest rate that the senders reach (see the open loop for a
        rate that is given). ack only: nothing else is done. processing: the same messages are processed meanwhile.
    """
    return Section("latency", "Latency at full load", text, headers, rows)


def _processor_time(runs: Sequence[Json]) -> Section:
    parts = ("main_loop", "main_writer", "worker_loops", "worker_threads", "all", "machine")
    headers = ("senders", "on", "generator", "framer", "ack only: listener", "journal", "to the end: listener",
               "journal", "worker loops", "worker threads", "daemon in all", "machine")  # fmt: skip
    rows = [
        (
            f"{run['senders']}",
            on(run),
            number(run["acknowledged"]["generator_us"]),
            number(run["framer"]["cpu_us"]["all"]),
            number(run["acknowledged"]["cpu_us"]["main_loop"]),
            number(run["acknowledged"]["cpu_us"]["main_writer"]),
            *(number(run["to_the_end"]["cpu_us"][part]) for part in parts),
        )
        for run in runs
    ]
    text = """
        Processor microseconds a message, from /proc. listener: the main process's event loop. journal: its other
        threads. worker loops: what holds the workers together, connectors. worker threads: reading, prepare, decide,
        record, the couriers' statements. machine: everything that ran, the generator and the database server too.
    """
    return Section("processor", "Processor time at full load", text, headers, rows)


def _openloop(runs: Sequence[Json]) -> Section:
    names = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms")
    headers = ("rate", "on", "until", *(f"{_percentile(name)} ms" for name in names), "p99 from sending",
               "generator late p99", "most waiting", "daemon us")  # fmt: skip
    rows = [
        (
            f"{run['rate']:,.0f}/s",
            on(run),
            until,
            *(number(run[until][name]) for name in names),
            number(run[until]["from_sending"]["p99_ms"]),
            number(run[until]["late"]["p99_ms"]),
            count(run[until]["pending_max"]),
            number(run[until]["cpu_us"]["all"]),
        )
        for run in runs
        for until in ("stored", "processed")
    ]
    text = """
        A message is due at its time whatever the daemon does, and its latency counts from then (no coordinated
        omission), while all of them are processed and delivered. until stored: the AA of a channel that answers
        when the message is on disk. until processed: of one that answers when it is processed. most waiting:
        entries behind the processor.
    """
    return Section("openloop", "Latency at a fixed rate (open loop)", text, headers, rows)


def _deadlines(runs: Sequence[Json]) -> Section:
    names = ("p50_ms", "p99_ms", "max_ms")
    headers = ("patients", "on", "load", *(f"without, {_percentile(name)} ms" for name in names),
               *(f"beside, {_percentile(name)} ms" for name in names), "rung/s",
               "call late p50 s", "max s")  # fmt: skip
    rows = [
        (f"{run['patients']:,}", on(run), f"{run['rate']:,.0f}/s",
         *(number(run[part][name]) for part in ("without", "beside") for name in names), count(run["per_second"]),
         number(run["pages"]["late_p50_seconds"]), number(run["pages"]["late_max_seconds"]))
        for run in runs
    ]  # fmt: skip
    text = """
        So many patients are due at the same moment. The latency of acknowledgments at a fixed rate (open loop) without
        them and while they ring, and how many rang in a second, until none was left. call late: of pages whose call is
        due meanwhile, from then until it stands in the file of the person on call.
    """
    return Section("deadlines", "Deadlines", text, headers, rows)


def _percentile(name: str) -> str:
    return {"p999_ms": "p99.9", "max_ms": "max"}.get(name, name[:-3])


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def number(value: float | None) -> str:
    """Three significant digits or so."""
    if value is None:
        return "-"
    size = abs(value)
    digits: Callable[[float], str] = (
        "{:,.2f}".format if size < 10 else "{:,.1f}".format if size < 100 else "{:,.0f}".format
    )
    return digits(value)
