"""Part `deadlines`: many patients whose deadlines come at the same moment, beside the load of senders.

The charts are one patient of the load, as the pipeline made it, written again and again with other ids. The site has a
clock of its own, which is put forward by a day: then all of them are due at once. The same load at the same rate is
measured before and while they ring, so that what that costs the acknowledgments is seen; then until none is left.

Some more patients have a page whose call is due at a moment of its own while the others ring: how late it goes out
counts from that moment to the line in the file of the person on call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from time import perf_counter
from typing import Any, Final

from msgspec.structs import replace as replaced
from sqlalchemy import Connection

from engine.care.tasks import end
from engine.domain.chart import Chart, Charts
from engine.domain.codec import decoder, encode
from engine.domain.message import Entry, EntryState, Receipt, Summary
from engine.domain.outcome import Outcome
from engine.domain.partition import PARTITIONS
from engine.domain.task import TaskState
from engine.pipeline.due import due_at
from engine.pipeline.process import process
from engine.runtime.configurations import compile_site
from engine.simulator.bench.load import STAY, Feed, left_home
from engine.simulator.bench.measure import Say, await_, ratio, warm_up
from engine.simulator.bench.openloop import at_rate
from engine.simulator.bench.site import LIVE, BenchError, Database, Place, Site
from engine.store import Store
from engine.store.due import overdue

CALL_SECONDS_MAX: Final = 5.0
"""How late a call may go out."""
P99_TIMES_MAX: Final = 1.25
"""Of acknowledgments beside the deadlines, in times of those without: nothing, but for what differs from run to run."""

_DUE: Final = timedelta(days=1, hours=1)
_AHEAD: Final = "var/ahead"
_CALLS: Final = "var/calls"
_SETTINGS: Final = {
    "purpose": "test",
    "clock.offset_seconds_file": _AHEAD,
    "destinations.files": {"type": "file", "path": _CALLS},  # where the people of the shipped roster are called
}
_PAGES: Final = 50
_CHARTS_AT_ONCE: Final = 500
_HEX_ID: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_MODEL: Final = b"M00000000000"
"""What the load names its first patient and stay by."""

_decode: Final = decoder(Chart)


def deadlines(
    place: Place, databases: Sequence[Database], *, patients: int, rate: float, seconds: float, say: Say
) -> list[dict[str, Any]]:
    """One run for each store. rate: of the load, in messages a second; seconds: of each of its measurements."""
    place = replace(place, settings={**place.settings, **_SETTINGS})
    return [_run(place, database, patients, rate, seconds, say) for database in databases]


def _run(place: Place, database: Database, patients: int, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    what = f"{patients:,} deadlines on {database}"
    with place.site(database=database) as site:
        site.make_store()
        home = datetime.now(UTC)
        say(f"{what}: making the patients")
        with site.store() as store:
            calls = _fill(site, store, patients, home, seconds)
        site.gather_statistics()
        with site.daemon() as daemon, site.store() as store:
            warm_up(daemon, store)
            say(f"{what}: the load without them")
            without = at_rate(daemon, store, LIVE, rate=rate, seconds=seconds, name="L")
            say(f"{what}: the load beside them")
            then = home + _DUE
            _put_clock(site, then)
            began = perf_counter()
            beside = at_rate(daemon, store, LIVE, rate=rate, seconds=seconds, name="M")
            waiting = _overdue(store, then)
            await_(daemon, lambda: _overdue(store, then), "rung")
            took = perf_counter() - began
            await_(daemon, lambda: len(calls) - len(_late_seconds(site, calls)), "called")
            late = sorted(_late_seconds(site, calls).values())
    return {
        "store": database,
        "patients": patients,
        "rate": rate,
        "without": without,
        "beside": beside,
        "ratios": {name: ratio(beside[f"{name}_ms"], without[f"{name}_ms"]) for name in ("p50", "p99")},
        "left_after_load": waiting,
        "seconds": round(took, 3),
        "per_second": round(patients / took, 1),
        "pages": {"count": len(late), "late_p50_seconds": late[len(late) // 2], "late_max_seconds": late[-1]},
    }


def _overdue(store: Store, now: datetime) -> int:
    return store.read_now(lambda conn: overdue(conn, now)).charts


def _put_clock(site: Site, at: datetime) -> None:
    file = site.folder / _AHEAD
    new = file.with_suffix(".new")
    new.write_text(str((at - datetime.now(UTC)).total_seconds()))
    new.replace(file)


def _late_seconds(site: Site, calls: Mapping[str, datetime]) -> dict[str, float]:
    """How late the first call of each page went out, by page; of those that went out."""
    late: dict[str, float] = {}
    for file in sorted((site.folder / _CALLS).glob("*.ndjson")):
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                said = json.loads(line)
                page = said["page_id"]
                if page in calls and page not in late:
                    at = datetime.fromisoformat(said["delivered_at"])
                    late[page] = round((at - calls[page]).total_seconds(), 3)
    return late


def _fill(site: Site, store: Store, patients: int, home: datetime, seconds: float) -> dict[str, datetime]:
    """Write the charts, some hundreds for each entry of the journal. When which page is to go out, within `seconds`."""
    model = _model(site, store, home)
    [page] = model.pages
    done = tuple(end(task, TaskState.DONE, at=home, by="bench") if task.ladder else task for task in model.tasks)
    plain = replaced(model, tasks=done, pages=())
    at = due_at(plain)
    if at is None or at > home + _DUE:
        raise BenchError("the patients of the load have no deadline within a day")
    calls: dict[str, datetime] = {}
    charts: list[Chart] = []
    for number in range(_PAGES):
        at = home + _DUE + timedelta(seconds=seconds * (number + 1) / _PAGES)
        chart = _copy(encode(replaced(model, pages=(replaced(page, next_at=at),))), patients + number)
        charts.append(chart)
        calls[chart.pages[0].id] = at
    last = _write(store, _receipt(store, patients, home), tuple(charts), 0)
    text = encode(plain)
    for first in range(0, patients, _CHARTS_AT_ONCE):
        more = tuple(_copy(text, number) for number in range(first, min(first + _CHARTS_AT_ONCE, patients)))
        last = _write(store, _receipt(store, first, home), more, last)
    return calls


def _receipt(store: Store, number: int, home: datetime) -> Receipt:
    return Receipt(
        channel=LIVE, peer="127.0.0.1:50000", received_at=home, payload=b"", summary=Summary(), dedupe_key=None,
        digest=store.keys.lookup(str(number).encode()),
    )  # fmt: skip


def _write(store: Store, receipt: Receipt, charts: tuple[Chart, ...], last: int) -> int:
    """An entry that made these charts; its number. last: of the one before."""

    def append(conn: Connection) -> int:
        return store.journal.append(conn, [receipt])[0].arrival

    def record(conn: Connection) -> None:
        outcome = Outcome(entry_id=entry, state=EntryState.PROCESSED, charts=charts, config_version="bench")
        moves = dict.fromkeys(range(PARTITIONS), (last, entry))
        store.recorder.record(conn, [outcome], Charts(), channel=LIVE, moves=moves, now=receipt.received_at)

    entry = store.journal_ledger.write_now(append)
    store.charts_ledger.write_now(record)
    return entry


def _model(site: Site, store: Store, home: datetime) -> Chart:
    """The first patient of the load after its stay."""
    channel = compile_site(site.configuration(), store.keys).channels[LIVE]
    charts, feed = Charts(), Feed("M", 0, left_home(home))
    for step in range(STAY):
        payload = bytes(feed.next())[1:-2]
        entry = Entry(
            id=step + 1, channel=LIVE, peer="127.0.0.1:50000", received_at=home, payload=payload, summary=Summary()
        )
        for chart in process(entry, channel, charts, home).charts:
            charts.add(chart)
    [found] = charts.by_id.values()
    own = tuple(one for one in found.patient.identifiers if _MODEL.decode() in one.value)
    return replaced(found, version=1, patient=replaced(found.patient, identifiers=own))


def _copy(text: bytes, number: int) -> Chart:
    """The model with the ids of another patient; no sender of the load comes so far."""
    key = b"%d" % number
    text = _HEX_ID.sub(lambda found: blake2b(found[0], digest_size=16, key=key).hexdigest().encode(), text)
    return _decode(text.replace(_MODEL, b"M9%010d" % number))
