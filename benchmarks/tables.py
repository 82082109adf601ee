"""The figures of all parts as tables; those of throughput and latency are the engine's own (`handoff bench`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from benchmarks.cores import SWEEP, Costs, Simulated, simulate
from benchmarks.heart import GROUP
from benchmarks.stays import TIMES_MAX
from engine.simulator.bench import tables
from engine.simulator.bench.deadlines import CALL_SECONDS_MAX, P99_TIMES_MAX
from engine.simulator.bench.tables import STORES, Json, Section, count, number, on, share

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


def sections(result: Json) -> Iterator[Section]:
    """What a result holds, in the order in which it is best read."""
    aims = list(targets(result))
    if aims:
        yield Section("targets", "Targets", "", ("target", "measured", "met"), aims)
    yield from tables.sections(result)
    if result.get("cpu"):
        yield _stages(result["cpu"])
    if result.get("stays"):
        yield _stays(result["stays"])
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
            yield judged(what, p99, f"{number(p99)} ms", met=p99 is not None and p99 < 10)
    for one in result.get("deadlines") or []:
        if one["store"] == "sqlite":
            beside = f"beside {one['patients']:,} deadlines at {one['rate']:,.0f}/s, SQLite"
            times, late = one["ratios"]["p99"], one["pages"]["late_max_seconds"]
            what = f"{beside}: acknowledged (p99) at most {P99_TIMES_MAX:g} times as late as without"
            yield judged(what, times, f"{times:.2f} times", met=times <= P99_TIMES_MAX)
            what = f"{beside}: a call goes out within {CALL_SECONDS_MAX:g} s"
            yield judged(what, late, f"{late:.1f} s", met=late <= CALL_SECONDS_MAX)
    for one in (result.get("stays") or [])[-1:]:
        what = f"loading and deciding for a patient of {one['stays']} stays: at most {TIMES_MAX:g} times one of 1 stay"
        yield judged(what, one["times"], f"{one['times']:.1f} times", met=one["times"] <= TIMES_MAX)
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
        yield judged(what, most, f"{number(most)} MB, {number(slope)} MB/h", met=most is not None and most < 250)


def _stages(result: Json) -> Section:
    whole = result["all_us"] or 1.0
    rows = [
        (name, STAGES[name][0], STAGES[name][1], number(spent), f"{spent / whole:.0%}")
        for name, spent in result["stages_us"].items()
    ]
    text = f"""
        Processor microseconds a message in one process, with nothing else going on: {result["messages"]:,} messages
        in groups of {result["group"]} and batches of {result["batch"]}, {result["deliveries"]:,} deliveries;
        {result["all_us"]:,.0f} us in all. What the daemon spends beyond that (see above) goes to sockets, threads
        and waking up.
    """
    return Section("cpu", "Processor time by stage", text, ("stage", "process", "what", "us", "share"), rows)


def _stays(result: Sequence[Json]) -> Section:
    rows = [
        (
            f"{one['stays']}", f"{one['tasks']}", f"{one['scores']}", f"{one['loaded']}", number(one["load_us"]),
            number(one["decide_us"]), f"{one['times']:.1f}",
        )
        for one in result
    ]  # fmt: skip
    text = """
        Processor microseconds for the discharge of a patient who was in the hospital before, all tasks of earlier stays
        done: stays that are over are loaded on demand only. Times: loading and deciding together, beside one stay.
    """
    columns = ("stays", "tasks", "scores", "stays loaded", "load us", "decide us", "times")
    return Section("stays", "Patients with many stays", text, columns, rows)


def _salesforce(result: Json) -> Section:
    rows = [(
        f"{result['messages']:,}", count(result["rate"]), count(result["delivered_rate"]),
        f"{result['deliveries']:,}", count(result["deliveries_rate"]), f"{result['dead']}",
        number(result["cpu_us"]["all"]), number(result["cpu_us"]["machine"]),
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
            count(step["made_per_second"]),
            count(step["stored_bytes"] / step["entries"] if step["entries"] else None),
            f"{step['start_seconds']:.2f}",
            count(step["acknowledged"]["rate"]),
            share(step["ratios"]["acknowledged"]),
            count(step["to_the_end"]["rate"]),
            share(step["ratios"]["to_the_end"]),
            number(step["open_loop"]["p99_ms"]),
            number(step["memory_mb"]),
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
        (name, *(number(step["searches"][name][value]) for value in ("p50_ms", "max_ms") for step in steps))
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
        (f"{one.cores}", f"{one.workers}", count(one.rate), count(one.acknowledged), f"{one.cores_share:.0%}",
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
        number(soak["p50_ms"]), number(soak["p99_ms"]), number(soak["max_ms"]), number(memory["first"]),
        number(memory["last"]), number(memory["max"]), number(memory["slope_mb_per_hour"]),
        count(soak["pending_max"]),
    )]  # fmt: skip
    text = f"""
        A fixed rate, everything processed and delivered; the books balanced at the end. Memory in MB of all
        processes with shared pages counted once; MB/h: least squares over the samples after
        {memory["settled_after_seconds"]:,.0f} s.
    """
    return Section("soak", "Soak", text, headers, rows)
