"""Part `throughput`: how many messages a second, by senders, beside what the machine allows.

Senders stop and wait, as HL7 senders do. acknowledged: the daemon answers AA once a message is on disk, encrypted (the
channel is paused: only received). to the end: the daemon also maps, scores, plans, fills the outbox and delivers to
files, measured until nothing is pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from engine.simulator.bench.append import append_rate
from engine.simulator.bench.load import Feed, left_home
from engine.simulator.bench.measure import (
    WARM_UP_SECONDS,
    Meter,
    Say,
    await_,
    ledger_line,
    load,
    pending_entries,
    ratio,
    started,
    unfinished_deliveries,
    warm_up,
)
from engine.simulator.bench.processes import spent
from engine.simulator.bench.site import LIVE, STORED, BenchError, Daemon, Database, Place, Site
from engine.store import Store
from engine.store.counts import LedgerLine


@dataclass(frozen=True)
class Variant:
    """What the daemon is measured on."""

    database: Database = "sqlite"
    tls: bool = False

    def __str__(self) -> str:
        return ("SQLite" if self.database == "sqlite" else "PostgreSQL") + (", TLS" if self.tls else "")


def throughput(
    place: Place,
    variants: Sequence[Variant],
    *,
    senders: Sequence[int],
    seconds: float,
    messages: int,
    beside: Mapping[str, tuple[str, int]],
    say: Say,
) -> list[dict[str, Any]]:
    """One run for each variant and number of senders.

    seconds: of each measurement. messages: sent in each measurement to the end. beside: other receivers (host, port)
    that the same load is sent to, by name.
    """
    return [
        _run(place, variant, count, seconds, messages, {} if variant.tls else beside, say)
        for variant in variants
        for count in senders
    ]


def _run(
    place: Place,
    variant: Variant,
    senders: int,
    seconds: float,
    messages: int,
    beside: Mapping[str, tuple[str, int]],
    say: Say,
) -> dict[str, Any]:
    what = f"{senders} sender(s), {variant}"
    half, half_warm_up = seconds / 2, WARM_UP_SECONDS / 2
    others: dict[str, Any] = {}
    for number, (name, (host, port)) in enumerate(beside.items()):
        say(f"{what}: {name}")
        others[name] = load(
            port,
            host=host,
            senders=senders,
            name=f"R{number}",
            seconds=half,
            warm_up_seconds=half_warm_up,
        )
    with place.site(database=variant.database, tls=variant.tls) as site:
        say(f"{what}: the bare framer")
        framer = _framer(site, senders, half, half_warm_up)
        say(f"{what}: the plain append")
        append = append_rate(
            place.folder,
            bytes(Feed("A", 0, left_home()).next()),
            group=senders,
            seconds=half,
            postgresql=site.store_url if variant.database == "postgresql" else None,
        )
        say(f"{what}: acknowledged")
        with site.daemon() as daemon, site.store() as store:
            starts, memory = [(daemon.start_seconds, warm_up(daemon, store))], []
            meter = Meter(daemon)
            acknowledged = load(
                daemon.port(STORED),
                senders=senders,
                name="S",
                certificate=site.certificate,
                seconds=seconds,
                warm_up_seconds=WARM_UP_SECONDS,
            )
            acknowledged["cpu_us"] = meter.read(acknowledged["sent"])
            memory.append(daemon.memory())
    say(f"{what}: to the end")
    with place.site(database=variant.database, tls=variant.tls) as site, site.daemon() as daemon:
        with site.store() as store:
            starts.append((daemon.start_seconds, warm_up(daemon, store)))
            finished = to_the_end(daemon, store, senders, messages)
        memory.append(daemon.memory())
    return {
        "senders": senders,
        "store": variant.database,
        "tls": variant.tls,
        "framer": framer,
        "append": {"group": senders, "rate": round(append, 1)},
        "beside": others,
        "acknowledged": acknowledged,
        "to_the_end": finished,
        "ratios": {
            "acknowledged_of_framer": ratio(acknowledged["rate"], framer["rate"]),
            "acknowledged_of_append": ratio(acknowledged["rate"], append),
            "to_the_end_of_acknowledged": ratio(finished["rate"], acknowledged["rate"]),
            **{f"acknowledged_of_{name}": ratio(acknowledged["rate"], other["rate"]) for name, other in others.items()},
        },
        "start_seconds": starts,
        "memory_mb": [{"proportional": one.proportional, "resident": one.resident, "peak": one.peak} for one in memory],
    }


def to_the_end(
    daemon: Daemon, store: Store, senders: int, messages: int, *, name: str = "E", balance: bool = True
) -> dict[str, Any]:
    """Send messages on the live channel and wait until all are processed and delivered.

    balance: look whether the ledger has all of them (which counts every row of the store). Raises BenchError.
    """
    before = ledger_line(store) if balance else None
    meter = Meter(daemon)
    began = perf_counter()
    sent = load(
        daemon.port(LIVE), senders=senders, certificate=daemon.site.certificate, messages=messages, name=name
    )  # fmt: skip
    await_(daemon, lambda: pending_entries(store), "processed")
    seconds = perf_counter() - began
    await_(daemon, lambda: unfinished_deliveries(store), "delivered")
    delivered_seconds = perf_counter() - began
    result = {
        "messages": messages,
        "seconds": round(seconds, 3),
        "rate": round(messages / seconds, 1),
        "acknowledged_rate": sent["rate"],
        **{key: sent[key] for key in ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms")},
        "generator_us": sent["generator_us"],
        "delivered_seconds": round(delivered_seconds, 3),
        "delivered_rate": round(messages / delivered_seconds, 1),
        "cpu_us": meter.read(messages),
    }
    if before is not None:
        result |= _balanced(daemon, store, before, messages)
    return result


def _balanced(daemon: Daemon, store: Store, before: LedgerLine, messages: int) -> dict[str, int]:
    wanted = before.received + messages
    await_(daemon, lambda: wanted - ledger_line(store).acked, "noted as answered")
    line = ledger_line(store)
    if not line.balanced or line.received != wanted:
        raise BenchError("the ledger does not hold what was sent")
    deliveries = line.deliveries.delivered - before.deliveries.delivered
    return {"deliveries": deliveries, "dead": line.dead + line.deliveries.dead}


def _framer(site: Site, senders: int, seconds: float, warm_up_seconds: float) -> dict[str, Any]:
    arguments = [] if site.certificate is None else ["--certificate", str(site.certificate)]
    with started("engine.simulator.bench.framer", *arguments) as (process, port):
        before = spent(process.pid)[process.pid]
        result = load(
            port,
            senders=senders,
            name="F",
            certificate=site.certificate,
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
        )
        after = spent(process.pid)[process.pid]
    seconds = after.first + after.others - before.first - before.others
    return {**result, "cpu_us": {"all": round(seconds / max(result["sent"], 1) * 1e6, 1)}}
