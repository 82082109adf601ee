"""Part `cpu`: processor time a message by stage, in one process with nothing else going on.

The stages are the daemon's own functions, called as the daemon calls them, in groups and batches of its sizes, on a
real store. What the daemon spends beyond their sum goes to sockets, to threads that fight for the interpreter, to hints
and waking up; `cpu_us` of the other parts says how much that is, by process, while all of it works together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from time import process_time
from typing import Any, Final

from sqlalchemy import Connection

from benchmarks.history import receipt
from engine.bootstrap import settle_memory
from engine.clock import SystemClock
from engine.connectors.registry import build_connector
from engine.domain.delivery import DeliveryState
from engine.domain.message import AckCode
from engine.domain.outcome import Outcome
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.pipeline.acceptance import Rules, judge
from engine.pipeline.closing import closed_up
from engine.pipeline.process import decide, prepare
from engine.runtime.configurations import compile_site
from engine.runtime.processor import BATCH_MAX
from engine.simulator.bench.load import Feed, left_home
from engine.simulator.bench.measure import Say
from engine.simulator.bench.site import LIVE, Place, Site
from engine.store import Store, settlements
from engine.store.engines import writer_engine
from engine.store.journal import Append
from engine.store.outbox import Settled
from engine.store.schema import CHARTS, JOURNAL

GROUP: Final = 64
"""Messages of one commit of the journal."""

STAGES: Final = (
    "frame",
    "judge",
    "receipt",
    "answer",
    "append",
    "read",
    "prepare",
    "load",
    "decide",
    "record",
    "courier",
)
"""In the order of a message's way. The first five are the main process's, the others the workers'."""


def cpu(place: Place, *, messages: int, say: Say) -> dict[str, Any]:
    """Take messages the whole way, stage by stage."""
    say(f"{messages:,} messages, stage by stage in one process")
    with place.site() as site:
        site.make_store()
        with site.store() as store:
            settle_memory()  # as the daemon does
            spent, deliveries = _Heart(site, store).run(messages)
    stages = {name: round(spent[name] / messages * 1e6, 1) for name in STAGES}
    return {"messages": messages, "deliveries": deliveries, "group": GROUP, "batch": BATCH_MAX, "stages_us": stages,
            "all_us": round(sum(stages.values()), 1)}  # fmt: skip


class _Heart:
    def __init__(self, site: Site, store: Store) -> None:
        configuration = site.configuration()
        self._store = store
        self._channel = compile_site(configuration, store.keys).channels[LIVE]
        self._rules = Rules.of(self._channel.settings)
        self._connector = build_connector("out", configuration, clock=SystemClock())
        self._batch_max = configuration.site.destinations["out"].batch_max
        self._spent: defaultdict[str, float] = defaultdict(float)

    def run(self, messages: int) -> tuple[dict[str, float], int]:
        """Seconds by stage, and how many deliveries there were."""
        self._take_in(messages)
        with self._writer(CHARTS) as conn, asyncio.Runner() as runner:
            # As in the daemon, what was queued is delivered while the next messages are processed.
            deliveries = sum(self._deliver(conn, runner) for _ in self._batches(conn))
            runner.run(self._connector.close())
        return self._spent, deliveries

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = process_time()
        yield
        self._spent[name] += process_time() - began

    @contextlib.contextmanager
    def _writer(self, side: str) -> Iterator[Connection]:
        engine = writer_engine(self._store.location, side)
        try:
            with engine.connect() as conn:
                yield conn
        finally:
            engine.dispose()

    def _take_in(self, messages: int) -> None:
        frames = _frames(messages)
        decoders = [FrameDecoder(1 << 20) for _ in range(GROUP)]
        sent: list[int] = []
        accepted = Verdict(code=AckCode.AA)
        with self._writer(JOURNAL) as conn:
            while group := list(islice(frames, GROUP)):
                now = datetime.now(UTC)
                with self._stage("frame"):
                    payloads = [
                        frame.payload
                        for decoder, data in zip(decoders, group, strict=False)
                        for frame in decoder.feed(data)
                    ]
                with self._stage("judge"):
                    judgements = [judge(self._rules, payload) for payload in payloads]
                with self._stage("receipt"):
                    receipts = [
                        receipt(self._store.keys, LIVE, payload, now, judgement.header)
                        for payload, judgement in zip(payloads, judgements, strict=True)
                    ]
                with self._stage("append"):
                    append = Append(receipts=tuple(receipts), sent=tuple(sent))
                    with conn.begin():
                        [stored] = self._store.journal.append_each(conn, [append])
                    sent = [one.arrival for one in stored]
                with self._stage("answer"):
                    for number, judgement in enumerate(judgements):
                        wrap(acknowledge(judgement.header, accepted, now=now, control_id=f"B{number}"))

    def _batches(self, conn: Connection) -> Iterator[None]:
        """Comes back after each batch that was recorded."""
        store, channel = self._store, self._channel
        positions: dict[int, int] = {}
        done = 0
        while True:
            now = datetime.now(UTC)
            with self._stage("read"), store.reader() as reader:
                ids = [one for one, _ in store.journal.after(reader, LIVE, done, BATCH_MAX)]
                entries = store.journal.entries(reader, ids) if ids else []
            if not entries:
                return
            with self._stage("prepare"):
                prepared = [prepare(entry, channel) for entry in entries]
                identities = {identity for one in prepared for identity in one.identities}
                visits = {visit for one in prepared for visit in one.visits}
            with self._stage("load"), store.reader() as reader:
                before = store.charts.load(reader, identities, visits, bounded=True)
            with self._stage("decide"):
                charts = before.copy()
                outcomes: list[Outcome] = []
                for one in prepared:
                    outcome = decide(one, channel, charts, now)
                    for chart in outcome.charts:
                        charts.add(chart)
                    outcomes.append(outcome)
            last = {entry.partition: entry.id for entry in entries}
            moves = {partition: (positions.get(partition, 0), to) for partition, to in last.items()}
            with self._stage("record"), conn.begin():
                recorded = store.recorder.record(
                    conn, outcomes, before, channel=LIVE, moves=moves, now=now, close=closed_up
                )
            store.outbox.fresh.keep(recorded.fresh)
            positions |= last
            done = entries[-1].id
            yield

    def _deliver(self, conn: Connection, runner: asyncio.Runner) -> int:
        """Deliver all that is due."""
        store, connector = self._store, self._connector
        count = 0
        while True:
            now = datetime.now(UTC)
            with self._stage("courier"):
                with store.reader() as reader:
                    batch = store.outbox.due(
                        reader, "out", now, self._batch_max, ordered_batches=connector.ordered_batches
                    )
                if not batch:
                    return count
                runner.run(connector.connect())
                results = runner.run(connector.deliver(batch))
                settled = [
                    Settled(
                        id=queued.id,
                        state=DeliveryState.DELIVERED,
                        attempts=1,
                        what=settlements.what("out", queued.delivery.operation, queued.entry_id),
                    )
                    for queued, result in zip(batch, results, strict=True)
                    if result.delivered
                ]
                with conn.begin():
                    store.outbox.settle(conn, settled, now)
            count += len(settled)


def _frames(messages: int) -> Iterator[bytes]:
    """What GROUP senders send in turn."""
    left = left_home()
    feeds = [Feed("C", sender, left) for sender in range(GROUP)]
    for number in range(messages):
        yield bytes(feeds[number % GROUP].next())
