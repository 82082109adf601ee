"""The figures as tables, the same for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from engine.simulator.bench.cores import SWEEP, Costs, Simulated, simulate
from engine.simulator.bench.heart import GROUP

Json = Mapping[str, Any]

STORES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
STAGES: Final = {
    "frame": ("main", "finding the frame in the bytes"),
    "judge": ("main", "reading MSH, deciding on the answer"),
    "receipt": ("main", "keyed hashes: duplicate, content, partition"),
    "append": ("main", "sealing, the journal's transaction"),
    "answer": ("main", "writing the acknowledgment"),
    "read": ("worker", "reading and unsealing entries"),
    "prepare": ("worker", "parsing, filter, mapping"),
    "load": ("worker", "loading charts"),
    "decide": ("worker", "event, scores, plan, deliveries"),
    "record": ("worker", "sealing, the charts' transaction"),
    "courier": ("worker", "delivering to files, settling"),
}
"""Of the part `cpu`: which process, and what it does."""


@dataclass(frozen=True)
class Section:
    """text: what the columns mean, in lines of any length."""

    part: str
    title: str
    text: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(result: Json) -> Iterator[Section]:
    """What a result holds, in the order in which it is best read."""
    aims = list(targets(result))
    if aims:
        yield Section("targets", "Targets", "", ("target", "measured", "met"), aims)
    runs = result.get("runs") or []
    if runs:
        yield _throughput(runs)
        yield _latency(runs)
        yield _processor_time(runs)
    if result.get("openloop"):
        yield _openloop(result["openloop"])
    if result.get("cpu"):
        yield _stages(result["cpu"])
    if more := more_cores(result):
        yield _cores(more)
    if result.get("salesforce"):
        yield _salesforce(result["salesforce"])
    for grown in result.get("growth") or []:
        yield _growth(grown)
        if any(step["searches"] for step in grown["steps"]):
            yield _searches(grown)
    if result.get("soak"):
        yield _soak(result["soak"])


def targets(result: Json) -> Iterator[tuple[str, str, str]]:
    """The aims that can be judged by what was measured: (target, measured, yes or no)."""

    def judged(target: str, value: float | None, text: str, *, met: bool) -> tuple[str, str, str]:
        return target, "nothing" if value is None else text, "yes" if met else "no"

    plain = [run for run in result.get("runs") or [] if run["store"] == "sqlite" and not run["tls"]]
    for run in plain:
        if run["senders"] == 64:
            share, rate = run["ratios"]["acknowledged_of_append"], run["to_the_end"]["rate"]
            what = "64 senders, SQLite: acknowledged at least 0.4 of the append probe"
            yield judged(what, share, f"{share:.2f} ({run['acknowledged']['rate']:,.0f}/s)", met=share >= 0.4)
            yield judged("64 senders, SQLite: to the end at least 4,000/s", rate, f"{rate:,.0f}/s", met=rate >= 4000)
    for run in result.get("openloop") or []:
        if run["rate"] == 1000 and run["store"] == "sqlite":
            p99 = run["stored"]["p99_ms"]
            what = "open loop at 1,000/s while processing: acknowledged within 10 ms (p99)"
            yield judged(what, p99, f"{_number(p99)} ms", met=p99 is not None and p99 < 10)
    for grown in result.get("growth") or []:
        last = grown["steps"][-1]
        if grown["store"] == "sqlite" and last["entries"] >= 10_000_000:
            worst = min(last["ratios"]["acknowledged"], last["ratios"]["to_the_end"])
            what = "10 million stored entries: both rates within 15 % of those with none"
            yield judged(what, worst, f"{worst:.2f} of them", met=worst >= 0.85)
    soak = result.get("soak")
    if soak:
        most, slope = soak["memory_mb"]["max"], soak["memory_mb"]["slope_mb_per_hour"]
        what = f"soak of {soak['seconds'] / 60:g} minutes: under 250 MB in all"
        yield judged(what, most, f"{_number(most)} MB, {_number(slope)} MB/h", met=most is not None and most < 250)


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
            _count(run["framer"]["rate"]),
            _count(run["append"]["rate"]),
            *(_count(run["beside"].get(name, {}).get("rate")) for name in others),
            _count(run["acknowledged"]["rate"]),
            _ratio(ratios["acknowledged_of_framer"]),
            _ratio(ratios["acknowledged_of_append"]),
            *(_ratio(ratios.get(f"acknowledged_of_{name}")) for name in others),
            _count(run["to_the_end"]["rate"]),
            _ratio(ratios["to_the_end_of_acknowledged"]),
            _count(run["to_the_end"]["delivered_rate"]),
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
         *(_number(run[part][name]) for part in ("acknowledged", "to_the_end") for name in names))
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
            _number(run["acknowledged"]["generator_us"]),
            _number(run["framer"]["cpu_us"]["all"]),
            _number(run["acknowledged"]["cpu_us"]["main_loop"]),
            _number(run["acknowledged"]["cpu_us"]["main_writer"]),
            *(_number(run["to_the_end"]["cpu_us"][part]) for part in parts),
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
            *(_number(run[until][name]) for name in names),
            _number(run[until]["from_sending"]["p99_ms"]),
            _number(run[until]["late"]["p99_ms"]),
            _count(run[until]["pending_max"]),
            _number(run[until]["cpu_us"]["all"]),
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


def _stages(result: Json) -> Section:
    whole = result["all_us"] or 1.0
    rows = [
        (name, STAGES[name][0], STAGES[name][1], _number(spent), f"{spent / whole:.0%}")
        for name, spent in result["stages_us"].items()
    ]
    text = f"""
        Processor microseconds a message in one process, with nothing else going on: {result["messages"]:,} messages
        in groups of {result["group"]} and batches of {result["batch"]}, {result["deliveries"]:,} deliveries;
        {result["all_us"]:,.0f} us in all. What the daemon spends beyond that (see above) goes to sockets, threads
        and waking up.
    """
    return Section("cpu", "Processor time by stage", text, ("stage", "process", "what", "us", "share"), rows)


def _salesforce(result: Json) -> Section:
    rows = [(
        f"{result['messages']:,}", _count(result["rate"]), _count(result["delivered_rate"]),
        f"{result['deliveries']:,}", _count(result["deliveries_rate"]), f"{result['dead']}",
        _number(result["cpu_us"]["all"]), _number(result["cpu_us"]["machine"]),
    )]  # fmt: skip
    headers = ("messages", "processed/s", "delivered/s", "records", "records/s", "dead", "daemon us", "machine us")
    text = """
        Into an org on this machine (a stand-in with the documented REST API, on the same cores; what it takes is in
        `machine`).
    """
    return Section("salesforce", "Delivery to Salesforce", text, headers, rows)


def _growth(grown: Json) -> Section:
    headers = ("stored", "made/s", "bytes an entry", "start s", "acknowledged/s", "of none", "to the end/s", "of none",
               f"p99 at {grown['rate']:,.0f}/s, ms", "memory MB")  # fmt: skip
    rows = [
        (
            f"{step['entries']:,}",
            _count(step["made_per_second"]),
            _count(step["stored_bytes"] / step["entries"] if step["entries"] else None),
            f"{step['start_seconds']:.2f}",
            _count(step["acknowledged"]["rate"]),
            _ratio(step["ratios"]["acknowledged"]),
            _count(step["to_the_end"]["rate"]),
            _ratio(step["ratios"]["to_the_end"]),
            _number(step["open_loop"]["p99_ms"]),
            _number(step["memory_mb"]),
        )
        for step in grown["steps"]
    ]
    text = f"""
        {STORES[grown["store"]]}, {grown["senders"]} senders. The stored messages were made by the store's own
        statements, sealed, in stays of 20 messages, and have {grown["stored_message_bytes"]} bytes each (the live
        ones 1.2 kB).
    """
    return Section("growth", f"Growth on {STORES[grown['store']]}", text, headers, rows)


def _searches(grown: Json) -> Section:
    steps = [step for step in grown["steps"] if step["searches"]]
    names = list(dict.fromkeys(name for step in steps for name in step["searches"]))
    headers = (
        "search",
        *(f"{step['entries']:,}: p50 ms" for step in steps),
        *(f"{step['entries']:,}: max ms" for step in steps),
    )
    rows = [
        (name, *(_number(step["searches"][name][value]) for value in ("p50_ms", "max_ms") for step in steps))
        for name in names
    ]
    text = """
        How long the store takes for what the commands ask it, by the number of stored entries: `messages list` by
        control id, patient, state or none (the newest 100), `patients show` (chart), `ledger`.
    """
    return Section("searches", f"Searches on {STORES[grown['store']]}", text, headers, rows)


def more_cores(result: Json) -> Sequence[Simulated]:
    """The sweep over cores in simulation; nothing without the figures that it rests on."""
    runs = result.get("runs") or []
    run = next((run for run in runs if run["senders"] == GROUP and on(run) == STORES["sqlite"]), None)
    if run is None or not result.get("cpu"):
        return ()
    return _sweep(Costs.measured(run, result["cpu"]["stages_us"]))


@lru_cache(maxsize=4)
def _sweep(costs: Costs) -> tuple[Simulated, ...]:
    """Remembered, because a report has both a table and a chart of it."""
    return tuple(simulate(costs, cores=cores, workers=workers) for cores, workers in SWEEP)


def _cores(more: Sequence[Simulated]) -> Section:
    headers = ("cores", "workers", "to the end/s", "acknowledged/s meanwhile", "cores busy", "main process busy",
               "busiest worker", "somebody writes charts")  # fmt: skip
    rows = [
        (f"{one.cores}", f"{one.workers}", _count(one.rate), _count(one.acknowledged), f"{one.cores_share:.0%}",
         f"{one.main_share:.0%}", f"{one.worker_share:.0%}", f"{one.charts_share:.0%}") for one in more
    ]  # fmt: skip
    text = f"""
        Simulated, with the processor time that was measured here: {GROUP} senders, SQLite, threads that wait for a
        core, workers that wait for messages of their partitions and (busy all the same) for the charts' one writer.
        What is busy nearly all of the time is where the machine ends. Compare the lines of this machine's cores with
        what was measured.
    """
    return Section("cores", "More cores, in simulation", text, headers, rows)


def _soak(soak: Json) -> Section:
    memory = soak["memory_mb"]
    headers = ("minutes", "rate", "on", "messages", "p50 ms", "p99 ms", "max ms", "memory first", "last", "most",
               "MB/h", "most waiting")  # fmt: skip
    rows = [(
        f"{soak['seconds'] / 60:,.1f}", f"{soak['asked_rate']:,.0f}/s", on(soak), f"{soak['sent']:,}",
        _number(soak["p50_ms"]), _number(soak["p99_ms"]), _number(soak["max_ms"]), _number(memory["first"]),
        _number(memory["last"]), _number(memory["max"]), _number(memory["slope_mb_per_hour"]),
        _count(soak["pending_max"]),
    )]  # fmt: skip
    text = f"""
        A fixed rate, everything processed and delivered; the books balanced at the end. Memory in MB of all
        processes with shared pages counted once; MB/h: least squares over the samples after
        {memory["settled_after_seconds"]:,.0f} s.
    """
    return Section("soak", "Soak", text, headers, rows)


def _percentile(name: str) -> str:
    return {"p999_ms": "p99.9", "max_ms": "max"}.get(name, name[:-3])


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    """Three significant digits or so."""
    if value is None:
        return "-"
    size = abs(value)
    digits: Callable[[float], str] = (
        "{:,.2f}".format if size < 10 else "{:,.1f}".format if size < 100 else "{:,.0f}".format
    )
    return digits(value)
