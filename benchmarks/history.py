"""Years of stored messages in minutes: rows as the daemon would have left them, written by the store's own statements.

Every row is sealed and hashed for real. What is saved is the thinking: one stay goes through the real pipeline, and
what came of it is written again and again with other ids. Two processes write at the same time, one each side of the
store, in transactions of thousands of entries.

A stay is an admission, updates and a discharge (STEPS messages). Of a hundred entries one was filtered, of a thousand
one is a dead letter. Everything was delivered, and each stay was looked at once (the trail). Stored messages are
shorter than live ones, so that ten million fit on a disk: what is stored of them beside the payload is not.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, func, select

from engine.connectors.registry import load
from engine.domain.audit import AuditRecord
from engine.domain.chart import Charts
from engine.domain.codec import decoder, encode
from engine.domain.delivery import DeadLetter, DeliveryState, Stage
from engine.domain.ids import ALIKE_DIGITS, beginning_like, by_entry
from engine.domain.message import AckCode, AckState, Entry, EntryState, Receipt
from engine.domain.outcome import Outcome
from engine.domain.partition import ALL_PARTITIONS
from engine.hl7v2.header import Header, read_header
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import summarize
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.process import process
from engine.runtime.configurations import compile_site
from engine.simulator.bench.site import LIVE, BenchError, Site
from engine.snapshot import Snapshot
from engine.store import Store
from engine.store.keys import KeyRing
from engine.store.opening import open_store
from engine.store.outbox import Settled
from engine.store.schema import delivery, entry

_ROOT: Final = Path(__file__).parents[1]
STEPS: Final = 20
"""Messages of one stay."""
SENDERS: Final = 64
BLOCK: Final = STEPS * SENDERS
"""Entries are made in whole blocks: one stay of each sender, their messages one of each in turn."""
_BLOCKS_A_TRANSACTION: Final = 8
_SECONDS_APART: Final = 0.8
_DISMISSED_AT_ONCE: Final = 8192
_DISMISSED: Final = "acknowledged for the benchmark"
_FILTERED_EACH: Final = 100
_DEAD_EACH: Final = 1000
_HEX_ID: Final = re.compile(rb"\b[0-9a-f]{32}\b")
_MODEL_CHART: Final = by_entry(1).encode()
_MODEL: Final = (9999, 9_999_999)
"""The sender and stay whose messages go through the pipeline; no sender comes so far."""
_ADMITTED: Final = datetime.now(UTC).replace(minute=15, second=0, microsecond=0) - timedelta(hours=24 + STEPS)
"""So the discharge is of yesterday: one of long ago makes no plan, and its stay is closed and loaded no more."""

_HEADER: Final = b"MSH|^~\\&|LOAD|BENCH|HANDOFF|BENCH|%s||ADT^%s^%s|%s|P|2.5.1||||||UNICODE UTF-8\r"
_BODY: Final = (
    b"EVN||%s\rPID|1||%s^^^BENCH^MR||Testerman^Quillon||19510617|M|||77 Granite Way^^Wexcombe^NY^10997\r"
    b"PV1|1|I|4W^12^2^BENCH|U|||||||MED||||1|||||%s^^^BENCH^VN|||||||||||||||||%s||||||||%s|%s\r"
)


@dataclass(frozen=True)
class Ids:
    """Of one message: they look as the load's do (`load.Feed`), in a run of their own."""

    control: bytes
    patient: bytes
    visit: bytes

    @classmethod
    def of(cls, sender: int, number: int) -> Ids:
        stay = number // STEPS
        return cls(b"H%04d%08d" % (sender, number), b"7H%04d%07d" % (sender, stay), b"VH%04d%07d" % (sender, stay))


def ids_of(index: int) -> Ids:
    """Of the entry at this index of the history."""
    return Ids.of(index % SENDERS, index // SENDERS)


def _written(at: datetime) -> bytes:
    return at.strftime("%Y%m%d%H%M%S%z").encode()


def payload(step: int, ids: Ids, size: int) -> bytes:
    """A short message of a stay, filled up to `size` bytes with a note when it is shorter."""
    event, structure, disposition, discharged = b"A08", b"ADT_A01", b"", b""
    at = _written(_ADMITTED + timedelta(hours=step))
    if step == 0:
        event = b"A01"
    elif step == STEPS - 1:
        event, structure, disposition, discharged = b"A03", b"ADT_A03", b"01", at
    message = _HEADER % (at, event, structure, ids.control)
    message += _BODY % (at, ids.patient, ids.visit, disposition, _written(_ADMITTED), discharged)
    missing = size - len(message) - len(b"NTE|1||\r")
    return message + b"NTE|1||%s\r" % (b"x" * missing) if missing > 0 else message


def receipt(keys: KeyRing, channel: str, message: bytes, at: datetime, header: Header | None = None) -> Receipt:
    """What intake makes of a message that it accepts, its answer already sent. header: what was read of it already."""
    header = header or read_header(message)
    return Receipt(
        channel=channel,
        peer="127.0.0.1:50000",
        received_at=at,
        payload=message,
        summary=summarize(header),
        dedupe_key=keys.lookup(channel, header.raw(3), header.raw(4), header.raw(10)),
        digest=keys.lookup(message),
        ordering_key=ordering_key(message, header),
        ack=AckCode.AA,
        ack_state=AckState.SENT,
    )


class Model:
    """One stay as the pipeline judged it, to be written again for other patients."""

    def __init__(self, channel: CompiledChannel, keys: KeyRing) -> None:
        charts, now = Charts(), datetime.now(UTC)
        outcomes: list[Outcome] = []
        sender, stay = _MODEL
        for step in range(STEPS):
            ids = Ids.of(sender, stay * STEPS + step)
            taken = receipt(keys, channel.settings.name, payload(step, ids, 0), now)
            outcome = process(
                Entry(
                    id=step + 1,
                    channel=taken.channel,
                    peer=taken.peer,
                    received_at=now,
                    payload=taken.payload,
                    summary=taken.summary,
                ),
                channel,
                charts,
                now,
            )
            if outcome.state is not EntryState.PROCESSED:
                raise BenchError("the stored messages are not such as the pipeline takes")
            for chart in outcome.charts:
                charts.add(chart)
            outcomes.append(outcome)
        # Only the last version of a chart is in the store when the stay is over.
        kept = [msgspec.structs.replace(one, charts=(), facts=()) for one in outcomes[:-1]]
        self._json = encode([*kept, msgspec.structs.replace(outcomes[-1], facts=())])
        self._ids = Ids.of(sender, stay * STEPS)
        self._decode = decoder(list[Outcome])

    def stay(self, sender: int, stay: int, first_entry_id: int) -> list[Outcome]:
        """The outcomes of another patient's stay, admitted by the entry; their entry ids are still the model's."""
        ids = Ids.of(sender, stay * STEPS)
        seed = ids.patient
        text = self._json.replace(self._ids.patient, ids.patient).replace(self._ids.visit, ids.visit)
        return self._decode(_HEX_ID.sub(lambda found: _other_id(found[0], seed, first_entry_id), text))


def _other_id(known: bytes, seed: bytes, first_entry_id: int) -> bytes:
    """Ids that begin alike still do, and the chart's begin with the entry that made it: it matters to indexes."""
    group, own = (blake2b(part, digest_size=16, key=seed).hexdigest() for part in (known[:ALIKE_DIGITS], known))
    if known.startswith(_MODEL_CHART):
        group = by_entry(first_entry_id)
    return beginning_like(group, own).encode()


def extend(site: Site, done: int, wanted: int, *, payload_bytes: int) -> int:
    """Bring the history of a site that no daemon runs on from `done` to `wanted` entries (whole blocks).

    Returns how many there are now. Raises BenchError.
    """
    count = -(-wanted // BLOCK) * BLOCK - done
    if count <= 0:
        return done
    with site.store() as store, store.reader() as conn:
        first = (conn.execute(select(func.max(entry.c.id))).scalar_one() or 0) + 1
    arguments = ["--first-id", str(first), "--done", str(done), "--count", str(count), "--bytes", str(payload_bytes)]
    module = [sys.executable, "-m", "benchmarks.history"]
    with contextlib.ExitStack() as stack:
        writers = []
        for side in _WRITERS:
            command = [*module, str(site.config.resolve()), side, *arguments]
            writers.append(stack.enter_context(subprocess.Popen(command, cwd=_ROOT)))
            stack.callback(writers[-1].kill)
        if any(writer.wait() for writer in writers):
            raise BenchError("the stored entries could not be made")
    return done + count


def dismiss(store: Store, channel: str) -> None:
    """Give what waits on a paused channel an outcome, so that nobody has to look at it again and again."""
    now = datetime.now(UTC)
    while True:
        with store.reader() as conn:
            positions = store.recorder.cursors(conn).get(channel, {})
            look = store.journal.after(conn, channel, max(positions.values(), default=0), _DISMISSED_AT_ONCE)
        if not look:
            return
        outcomes = [Outcome(entry_id=one, state=EntryState.FILTERED, reason=_DISMISSED) for one, _ in look]
        _record(store, channel, outcomes, positions, now)


def _record(
    store: Store, channel: str, outcomes: Sequence[Outcome], positions: Mapping[int, int], now: datetime
) -> None:
    """Record outcomes, all that comes of them delivered, and move all partitions behind the last of them."""
    moves = {partition: (positions.get(partition, 0), outcomes[-1].entry_id) for partition in ALL_PARTITIONS}

    def write(conn: Connection) -> None:
        last = conn.execute(select(func.max(delivery.c.id))).scalar_one() or 0
        recorded = store.recorder.record(conn, outcomes, Charts(), channel=channel, moves=moves, now=now)
        new = range(last + 1, last + 1 + recorded.deliveries)
        if new:
            settled = [Settled(id=one, state=DeliveryState.DELIVERED, attempts=1) for one in new]
            store.outbox.settle(conn, settled, now)

    store.charts_ledger.write_now(write)


def _write_journal(store: Store, _channel: CompiledChannel, options: argparse.Namespace) -> None:
    began = datetime.now(UTC) - timedelta(days=100) + timedelta(seconds=options.done * _SECONDS_APART)
    for part in _parts(options):
        receipts = [
            receipt(
                store.keys,
                LIVE,
                payload(index // SENDERS % STEPS, ids_of(index), options.bytes),
                began + timedelta(seconds=(index - options.done) * _SECONDS_APART),
            )
            for index in part
        ]
        stored = store.journal_ledger.write_now(partial(store.journal.append, receipts=receipts))
        if stored[-1].id != options.first_id + part[-1] - options.done:
            raise BenchError("somebody else writes to the journal")


def _write_charts(store: Store, channel: CompiledChannel, options: argparse.Namespace) -> None:
    model = Model(channel, store.keys)
    with store.reader() as conn:
        positions = store.recorder.cursors(conn).get(LIVE, {})
    for part in _parts(options):
        outcomes: list[Outcome] = []
        for at in range(part[0], part[-1], BLOCK):
            first = options.first_id + at - options.done
            stays = [model.stay(sender, at // BLOCK, first + sender) for sender in range(SENDERS)]
            for index in range(at, at + BLOCK):
                step = index // SENDERS % STEPS
                one = (
                    _fate(index, stays[index % SENDERS][step]) if 0 < step < STEPS - 1 else stays[index % SENDERS][step]
                )
                outcomes.append(msgspec.structs.replace(one, entry_id=options.first_id + index - options.done))
        _record(store, LIVE, outcomes, positions, datetime.now(UTC))
        store.charts_ledger.write_now(partial(store.audit.append, records=_looks(outcomes)))
        positions = dict.fromkeys(ALL_PARTITIONS, outcomes[-1].entry_id)


def _looks(outcomes: Sequence[Outcome]) -> list[AuditRecord]:
    """One on each chart that a stay ended on, as the trail keeps it."""
    now = datetime.now(UTC)
    return [
        AuditRecord(at=now, actor="user:bench", action="reveal", subject=f"chart:{chart.id}", patients=(chart.id,))
        for outcome in outcomes
        for chart in outcome.charts
    ]


def _fate(index: int, one: Outcome) -> Outcome:
    """Some updates were filtered, a few could not be processed."""
    if index % _DEAD_EACH == _DEAD_EACH - 1:
        letter = DeadLetter(stage=Stage.PROCESSING, error="mapping", location="PV1-3", detail="made for the benchmark")
        return Outcome(entry_id=0, state=EntryState.DEAD, reason=letter.detail, dead_letter=letter)
    if index % _FILTERED_EACH == _FILTERED_EACH - 1:
        return Outcome(entry_id=0, state=EntryState.FILTERED, reason="the channel's filter")
    return one


def _parts(options: argparse.Namespace) -> Iterator[range]:
    end = options.done + options.count
    for at in range(options.done, end, _BLOCKS_A_TRANSACTION * BLOCK):
        yield range(at, min(at + _BLOCKS_A_TRANSACTION * BLOCK, end))


_WRITERS: Final = {"journal": _write_journal, "charts": _write_charts}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("side", choices=tuple(_WRITERS))
    parser.add_argument("--first-id", type=int, required=True, help="that the journal will give")
    parser.add_argument("--done", type=int, required=True, help="so many entries there are")
    parser.add_argument("--count", type=int, required=True, help="so many more")
    parser.add_argument("--bytes", type=int, required=True, help="of a message")
    options = parser.parse_args()
    configuration = load(Snapshot.read(options.config))
    with open_store(configuration, "tool") as store:
        channel = compile_site(configuration, store.keys).channels[LIVE]
        _WRITERS[options.side](store, channel, options)


if __name__ == "__main__":
    main()
