"""Part `growth`: the same figures with more and more stored messages, and how quickly something is found among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from time import perf_counter
from typing import Any, Final

from sqlalchemy import Connection

from benchmarks import history
from engine.domain.message import EntryState
from engine.simulator.bench.load import spread
from engine.simulator.bench.measure import WARM_UP_SECONDS, Meter, Say, ledger_line, load, ratio, warm_up
from engine.simulator.bench.openloop import at_rate
from engine.simulator.bench.site import LIVE, STORED, BenchError, Database, Place, Site
from engine.simulator.bench.throughput import to_the_end
from engine.store import Store

SENDERS: Final = 64
_SEARCHES: Final = 40
_REPEATS: Final = 5
_FOUND: Final = ("control id", "patient", "chart", "newest", "state processed")

_Search = Callable[[Connection], Sequence[object]]


def growth(
    place: Place,
    databases: Sequence[Database],
    *,
    sizes: Sequence[int],
    payload_bytes: int,
    seconds: float,
    messages: int,
    rate: float,
    say: Say,
) -> list[dict[str, Any]]:
    """For each store, a step for each number of stored entries, in one site that grows.

    payload_bytes: of a stored message. The other figures are those of `throughput` and `openloop`.
    """
    return [
        _grow(place, database, sorted(sizes), payload_bytes, seconds, messages, rate, say) for database in databases
    ]


def _grow(
    place: Place,
    database: Database,
    sizes: Sequence[int],
    payload_bytes: int,
    seconds: float,
    messages: int,
    rate: float,
    say: Say,
) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    done = 0
    with place.site(database=database) as site:
        site.make_store()
        for number, size in enumerate(sizes):
            say(f"{size:,} stored entries on {database}: making them")
            began, before = perf_counter(), done
            done = history.extend(site, done, size, payload_bytes=payload_bytes)
            made = perf_counter() - began
            site.gather_statistics()
            say(f"{size:,} stored entries on {database}: measuring")
            step = {"entries": done, "made_per_second": round((done - before) / made) if done > before else None}
            steps.append(step | _step(site, number, done, seconds, messages, rate))
    return {
        "store": database,
        "stored_message_bytes": payload_bytes,
        "senders": SENDERS,
        "rate": rate,
        "steps": [step | {"ratios": _ratios(step, steps[0])} for step in steps],
    }


def _step(site: Site, number: int, done: int, seconds: float, messages: int, rate: float) -> dict[str, Any]:
    with site.store() as store:
        stored_bytes = site.stored_bytes()
        found = _searches(store, done) if done else {}
        with site.daemon() as daemon:
            first_seconds = warm_up(daemon, store, name=f"W{number}")
            meter = Meter(daemon)
            acknowledged = load(
                daemon.port(STORED),
                senders=SENDERS,
                name=f"S{number}",
                seconds=seconds,
                warm_up_seconds=WARM_UP_SECONDS,
            )
            acknowledged["cpu_us"] = meter.read(acknowledged["sent"])
            finished = to_the_end(daemon, store, SENDERS, messages, name=f"E{number}", balance=False)
            open_loop = at_rate(daemon, store, LIVE, rate=rate, seconds=seconds, name=f"R{number}")
            memory = daemon.memory().proportional
        history.dismiss(store, STORED)
    return {
        "start_seconds": daemon.start_seconds,
        "first_seconds": first_seconds,
        "stored_bytes": stored_bytes,
        "acknowledged": acknowledged,
        "to_the_end": finished,
        "open_loop": open_loop,
        "memory_mb": memory,
        "searches": found,
    }


def _ratios(step: dict[str, Any], first: dict[str, Any]) -> dict[str, float]:
    """To the first step."""
    return {
        "acknowledged": ratio(step["acknowledged"]["rate"], first["acknowledged"]["rate"]),
        "to_the_end": ratio(step["to_the_end"]["rate"], first["to_the_end"]["rate"]),
        "open_loop_p99": ratio(step["open_loop"]["p99_ms"] or 0.0, first["open_loop"]["p99_ms"] or 0.0),
        "start": ratio(step["start_seconds"], first["start_seconds"]),
        "memory": ratio(step["memory_mb"], first["memory_mb"]),
    }


def _searches(store: Store, done: int) -> dict[str, dict[str, float | None]]:
    """What `handoff messages list`, `patients show` and `ledger` ask the store, without the start of the command.

    Each of them for other ids each time, all over the stored entries.
    """
    random = Random(done)
    ids = [history.ids_of(random.randrange(done)) for _ in range(_SEARCHES)]
    controls = [one.control.decode() for one in ids]
    patients = [f"BENCH:{one.patient.decode()}" for one in ids]
    journal, charts = store.journal, store.charts
    searches: dict[str, list[_Search]] = {
        "control id": [partial(journal.find, control_id=one) for one in controls],
        "patient": [partial(journal.find, patient=one) for one in patients],
        "chart": [partial(charts.by_key, key=one) for one in patients],
        "newest": [partial(journal.find, channel=LIVE)] * _REPEATS,
        **{f"state {state}": [partial(journal.find, state=state)] * _REPEATS for state in EntryState},
    }
    result = {name: spread([_timed(store, search) for search in wanted]) for name, wanted in searches.items()}
    for name in _FOUND:
        if not all(store.read_now(search) for search in searches[name]):
            raise BenchError(f"a search by {name} did not find what is stored")
    began = perf_counter()
    ledger_line(store)
    return result | {"ledger": spread([perf_counter() - began])}


def _timed(store: Store, search: _Search) -> float:
    began = perf_counter()
    store.read_now(search)
    return perf_counter() - began
