"""The processor: takes the next entries of the journal in order, works on them, records what came of them.

The batch is the unit of IO, the message the unit of thought: every chart that a batch touches is loaded in one go, the
entries are worked on one after the other against the charts in memory, all outcomes are recorded in one transaction.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Final, TypeVar

import msgspec
from sqlalchemy import Connection

from engine.clock import Clock
from engine.domain.cause import Due, UrgentDue
from engine.domain.chart import Chart, Charts
from engine.domain.message import AckCode, Entry, EntryKind, EntryState
from engine.domain.outcome import EffectKind, Outcome
from engine.errors import (
    ChartNotWholeError,
    CursorMovedError,
    Fault,
    HandoffError,
    IdentityTakenError,
    LeaseLostError,
    RowTakenError,
    StaleChartError,
    StoreDamagedError,
    StoreError,
    StoreUnavailableError,
    TamperedError,
)
from engine.logs import get_logger
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration
from engine.pipeline.closing import closed_up, reopened
from engine.pipeline.outcomes import beside, internal_failure, undone
from engine.pipeline.prepared import Prepared
from engine.pipeline.process import channel_of, decide, of_patient, prepare
from engine.pipeline.restored import Mark, may_be_sent
from engine.pipeline.unsaid import count_unsaid
from engine.runtime.backwards import Backwards, Sent
from engine.runtime.metrics import event_label
from engine.runtime.shadow import Shadow
from engine.runtime.worker import Tally, Wake
from engine.store import oncall
from engine.store.backup.mark import last_mark
from engine.store.leases import Leases
from engine.store.store import Store

BATCH_MAX: Final = 256
_TURN_SECONDS: Final = 0.5
"""A channel's batch ends after this time, and the next channel has its turn: half of it is for reading messages, half
for deciding on them. One message is always done, however long it takes."""
_HURRIED_SECONDS: Final = 0.03
"""...or this, while a sender or a person waits for the outcome of what another channel or lane has."""
_POLL_SECONDS: Final = 0.5
"""A hint may be lost; the journal is then looked at so much later."""
_POLL_BUSY_SECONDS: Final = 0.02
"""...or this, after something was found: other nodes send no hints of what they have taken for us."""
_STORE_PAUSE_SECONDS: Final = 1.0
_STALE_ATTEMPTS_MAX: Final = 10
_TAKEN_ATTEMPTS_MAX: Final = 3
_RECORDED_CONFIGURATIONS_MAX: Final = 8
_LOOK_MAX: Final = 1024
"""Entries that are looked at for those of our partitions, by their ids alone."""
_LIFT_ENTRIES: Final = 4096
_LIFT_SECONDS: Final = 10.0

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(slots=True)
class _Reading:
    """How far this worker is with a channel.

    positions: by partition of ours, every entry up to there has an outcome, and the store knows it. scanned: the same,
    over all our partitions; the store is told now and then (see `Processor._lift`).
    """

    positions: dict[int, int]
    scanned: int
    lifted_at: float = 0.0
    batch_max: int = BATCH_MAX
    """Entries of the next batch: fewer after a turn that ended before its batch did."""


class Processor:
    """Not thread-safe: one thread calls `step` again and again.

    leases: the partitions whose entries are this worker's. shadow: opens the store with the charts of channels in
    shadow, on which those are decided. recompile: gives the configuration that was recorded under a version, for
    replays that ask for it. on_outcomes: told after the commit, with the outcomes whose senders wait for an answer.
    """

    def __init__(
        self,
        store: Store,
        configuration: CompiledConfiguration,
        clock: Clock,
        leases: Leases,
        *,
        shadow: Callable[[], Store],
        recompile: Callable[[str], CompiledConfiguration | None],
        on_outcomes: Callable[[Sequence[int], Sequence[int]], None],
        tally: Tally,
    ) -> None:
        self._store = store
        self._configuration = self._wanted = configuration
        self._clock = clock
        self._leases = leases
        self._shadow = Shadow(shadow)
        self._backwards = Backwards()
        self._unsaid: dict[int, frozenset[str]] = {}
        """The stays in a row that each sender has ended without a disposition, up to what was recorded last."""
        self._counted = self._unsaid
        """...with the batch that is being worked out."""
        self._recompile = recompile
        self._on_outcomes = on_outcomes
        self._tally = tally
        self._recorded: OrderedDict[str, CompiledConfiguration | None] = OrderedDict()
        self._observed: dict[str, datetime] = {}
        self._ready: dict[tuple[str, str], CompiledChannel] = {}
        """Channels with the time since when they are observed, by configuration version and name."""
        self._share: frozenset[int] = frozenset()
        self._mark: Mark | None = None
        """The store was set back, before this process began."""
        self._readings: dict[str, _Reading] = {}
        self._turn_began = 0.0
        self._turn_seconds = _TURN_SECONDS
        self._more = False
        """The last step did not see the end of every channel."""
        self._recorded_some: Callable[[], object] = lambda: None

    def reload(self, configuration: CompiledConfiguration) -> None:
        """Work with another configuration from the next step on."""
        self._wanted = configuration

    async def run(self, work: Wake, written: Wake, stopping: asyncio.Event) -> None:
        """Work until told to stop; the batch in hand is finished first. `work` wakes it, `written` wakes couriers."""
        loop = asyncio.get_running_loop()
        self._recorded_some = lambda: loop.call_soon_threadsafe(written.ring)
        while not stopping.is_set():
            try:
                done = await asyncio.to_thread(self.step)
            except StoreUnavailableError as error:
                log.warning("store not available, processing waits", seconds=_STORE_PAUSE_SECONDS, exc_info=error)
                await work.wait(_STORE_PAUSE_SECONDS)
                continue
            except (CursorMovedError, LeaseLostError) as error:
                log.info("another worker has taken over, looking again at what is ours", exc_info=error)
                self._share = frozenset()
                await work.wait(_POLL_SECONDS)
                continue
            if not self._more:  # of what this node took meanwhile there is a hint, or there will be
                await work.wait(_POLL_BUSY_SECONDS if done else _POLL_SECONDS)

    def close(self) -> None:
        """After its last step."""
        self._shadow.close()

    def step(self) -> int:
        """One batch of every channel that is not paused. Returns how many entries were recorded; 0: nothing waits.

        Raises StoreUnavailableError when the store can't be used now, CursorMovedError or LeaseLostError when what was
        ours is another worker's now. Nothing is lost, call again later.
        """
        if self._configuration is not self._wanted:
            self._configuration = self._wanted
            self._ready.clear()
            self._observed.clear()
            self._shadow.close()
        share = self._leases.partitions
        self._more = False
        if not share:
            self._share = share
            return 0
        batches: list[tuple[str, list[Entry], int]] = []
        with self._store.reader() as conn:
            if share is not self._share:  # also when the same ones were lost and taken again in between
                self._begin(conn, share)
            for name in self._store.journal.channels(conn):
                if not self._waits(name):
                    entries, scanned = self._next(conn, name)
                    batches.append((name, entries, scanned))
                    if entries and name not in self._observed and not self._in_shadow(name):
                        self._observed.update(self._store.journal.first_received(conn))
        busy = [(name, entries) for name, entries, _ in batches if entries]
        awaited = {name for name, entries in busy if any(map(_is_awaited, entries))} if len(busy) > 1 else set()
        done = 0
        for name, entries, scanned in sorted(batches, key=lambda batch: batch[0] not in awaited):
            self._turn_seconds = _TURN_SECONDS if name in awaited or not awaited else _HURRIED_SECONDS
            try:
                done += self._turn(name, entries, scanned)
            except StoreUnavailableError as error:
                if not self._in_shadow(name):
                    raise
                self._shadow.rest(error)
        return done

    def _turn(self, name: str, entries: Sequence[Entry], scanned: int) -> int:
        """Record the next entries of a channel, for as long as its turn lasts. Returns how many."""
        if entries and self._in_shadow(name) and not self._shadow.is_usable():
            return 0
        reading = self._readings[name]
        self._turn_began = time.monotonic()
        done = self._batch(name, entries) if entries else 0
        if done:
            self._recorded_some()
        if done < len(entries):
            self._more = True
            reading.scanned, reading.batch_max = entries[done - 1].id, min(BATCH_MAX, 2 * done)
        else:
            reading.scanned, reading.batch_max = scanned, min(BATCH_MAX, 2 * reading.batch_max)
        self._lift(name, idle=not entries)
        return done

    def _over(self, share: float) -> bool:
        """Whether a share of the channel's turn is over."""
        return time.monotonic() - self._turn_began > share * self._turn_seconds

    def _begin(self, conn: Connection, share: frozenset[int]) -> None:
        """Read on where whoever had these partitions before has stopped."""
        self._readings = {}
        self._shadow.forget()
        self._mark = last_mark(conn)
        for name, cursors in self._store.recorder.cursors(conn).items():
            self._readings[name] = _reading({partition: cursors.get(partition, 0) for partition in share})
        self._share = share

    def _next(self, conn: Connection, name: str) -> tuple[list[Entry], int]:
        """The next entries of a channel that are ours, and how far the journal was looked through for them."""
        reading = self._readings.get(name)
        if reading is None:
            reading = self._readings[name] = _reading(dict.fromkeys(self._share, 0))
        position = reading.scanned
        ids: list[int] = []
        while True:
            look = self._store.journal.after(conn, name, position, _LOOK_MAX)
            for entry_id, partition in look:
                if partition in self._share and entry_id > reading.positions[partition]:
                    ids.append(entry_id)
                    if len(ids) == reading.batch_max:
                        break
            if ids or len(look) < _LOOK_MAX:
                break
            position = look[-1][0]
        if not ids:
            return [], look[-1][0] if look else position
        entries = self._store.journal.entries(conn, ids)
        whole = len(entries) == len(ids) < reading.batch_max
        self._more = self._more or not whole or len(look) == _LOOK_MAX
        return entries, look[-1][0] if whole else entries[-1].id

    def _lift(self, name: str, *, idle: bool) -> None:
        """Tell the store how far we have looked, for partitions that had nothing: others need not look there again."""
        reading = self._readings[name]
        behind = {p: (old, reading.scanned) for p, old in reading.positions.items() if old < reading.scanned}
        if not behind:
            return
        far = reading.scanned - min(reading.positions.values()) >= _LIFT_ENTRIES
        if far or (idle and time.monotonic() - reading.lifted_at > _LIFT_SECONDS):
            self._write(lambda conn: self._store.recorder.move(conn, name, behind))
            reading.positions.update((partition, new) for partition, (_, new) in behind.items())
            reading.lifted_at = time.monotonic()

    def _write(self, work: Callable[[Connection], T]) -> T:
        def fenced(conn: Connection) -> T:
            self._leases.check(conn, self._share)
            return work(conn)

        return self._store.charts_ledger.write_now(fenced)

    def _waits(self, channel: str) -> bool:
        """Whether nothing of the channel is worked on now."""
        return self._paused(channel) or (self._shadow.rests and self._in_shadow(channel))

    def _paused(self, channel: str) -> bool:
        compiled = self._configuration.channels.get(channel)
        return compiled is not None and compiled.settings.mode == "paused"

    def _in_shadow(self, channel: str) -> bool:
        compiled = self._configuration.channels.get(channel)
        return compiled is not None and compiled.settings.mode == "shadow"

    def _batch(self, name: str, entries: Sequence[Entry]) -> int:
        """Record the entries; when that fails for a reason of theirs, halve until the culprit stands alone.

        Returns how many of the first: not all when the turn is over.
        """
        for attempt in range(_STALE_ATTEMPTS_MAX):
            try:
                return self._record(name, entries)
            except StaleChartError:
                log.info("charts changed meanwhile, working on the batch again", channel=name, attempt=attempt)
                continue
            except (CursorMovedError, LeaseLostError):
                raise
            except Exception as error:
                if isinstance(error, StoreUnavailableError) and not isinstance(error, StoreDamagedError):
                    raise
                if isinstance(error, IdentityTakenError | RowTakenError) and attempt < _TAKEN_ATTEMPTS_MAX:
                    # Another worker made a chart of this patient since ours were loaded: load again, then it is there.
                    log.info("a chart was made meanwhile, working on the batch again", channel=name, attempt=attempt)
                    continue
                if len(entries) > 1:
                    middle = len(entries) // 2
                    done = self._batch(name, entries[:middle])
                    over = done < middle or self._over(1)
                    return done if over else done + self._batch(name, entries[middle:])
                if isinstance(error, TamperedError):
                    log.exception("a stored chart is damaged or was altered", channel=name, entry=entries[0].id)
                else:
                    log.exception("an entry could not be recorded", channel=name, entry=entries[0].id)
                self._bury(name, entries[0], error)
                return 1
        raise StoreUnavailableError(f"the charts of a batch of {name} kept changing; trying again later")

    def _record(self, name: str, entries: Sequence[Entry]) -> int:
        """The first entries, as many as the turn allows, one in any case. Returns how many."""
        if self._in_shadow(name):
            return self._record_in_shadow(name, entries)
        now = self._clock.now()
        prepared, before, outcomes = self._work_out(self._store, entries, now)
        outcomes, sent = self._backwards.look(name, prepared, outcomes)
        doubtful = frozenset[int]()
        if (mark := self._mark) is not None:
            doubtful = frozenset(one.entry.id for one in prepared if may_be_sent(mark, one))
        self._commit(name, entries[: len(outcomes)], outcomes, before, now, doubtful)
        self._keep(sent)
        self._note_clocks(name, prepared[: len(outcomes)])
        return len(outcomes)

    def _record_in_shadow(self, name: str, entries: Sequence[Entry]) -> int:
        """As `_record`: in shadow all that they come to, and then on the living side what became of them.

        What a crash between the two has left is recorded there: it is not decided again.
        """
        now = self._clock.now()
        known = self._shadow.knows(entries[0])
        alike = list(takewhile(lambda entry: self._shadow.knows(entry) == known, entries))
        if known:
            self._commit(name, alike, list(map(beside, self._shadow.recorded(alike))), Charts(), now)
            return len(alike)
        self._observed[name] = self._shadow.observed_since(name) or entries[0].received_at
        prepared, before, outcomes = self._work_out(self._shadow.store, alike, now)
        outcomes, sent = self._backwards.look(name, prepared, outcomes)
        done = alike[: len(outcomes)]
        self._commit_in_shadow(name, done, outcomes, before, now)
        self._commit(name, done, list(map(beside, outcomes)), Charts(), now)
        self._keep(sent)
        self._note_clocks(name, prepared[: len(outcomes)])
        return len(outcomes)

    def _keep(self, sent: Sent) -> None:
        """What was seen of senders counts from now on: it is recorded."""
        self._backwards.keep(sent)
        self._unsaid = self._counted

    def _work_out(
        self, store: Store, entries: Sequence[Entry], now: datetime
    ) -> tuple[list[Prepared], Charts, list[Outcome]]:
        """What the first entries come to on the charts of a store, as many as the turn allows, one in any case.

        Also all that were read, and the charts as they were loaded.
        """
        prepared: list[Prepared] = []
        for entry in entries:
            prepared.append(self._prepare(entry))
            if self._over(1 / 2):
                break
        identities = {identity for one in prepared for identity in one.identities}
        visits = {visit for one in prepared for visit in one.visits}
        named = {chart_id for one in prepared for chart_id in one.charts if not one.bounded}
        due = {chart_id for one in prepared for chart_id in one.charts if one.bounded}
        with store.reader() as conn:
            before = store.charts.load(conn, identities, visits, named, bounded=True, bounded_ids=due)
            if any(one.cause is not None for one in prepared):
                before.overrides = oncall.overrides(conn, store.keys, now, _override_damaged)
        before.unsaid = dict(self._unsaid)
        charts = before.copy()
        outcomes: list[Outcome] = []
        for one in prepared:
            outcome = self._decide(store, one, charts, before, now)
            count_unsaid(one, outcome, charts)
            for chart in outcome.charts:
                charts.add(chart)
            outcomes.append(outcome)
            if self._over(1):
                break
        self._counted = charts.unsaid
        return prepared, before, outcomes

    def _note_clocks(self, name: str, prepared: Sequence[Prepared]) -> None:
        """How far senders' clocks are off, and how late what was due has rung."""
        now, late = self._clock.now(), []
        for one in prepared:
            if one.clock is not None:
                self._tally.clock(name, *one.clock, one.entry.id)
            elif isinstance(one.cause, Due) and one.entry.replay_of is None:
                late.append(max(0.0, (now - one.cause.since).total_seconds()))
        if late:
            self._tally.rang(late)

    def _close(self, chart: Chart) -> Chart:
        return closed_up(chart, copies=self._configuration.copies)

    def _commit_in_shadow(
        self, name: str, entries: Sequence[Entry], outcomes: Sequence[Outcome], before: Charts, now: datetime
    ) -> None:
        """Not fenced: a worker that has lost its lease moves no cursor which its successor has moved, and nothing that
        it leaves here reaches the living.
        """
        store = self._shadow.store
        last = {entry.partition: entry.id for entry in entries}
        moves = {partition: (self._shadow.position(name, partition), id_) for partition, id_ in last.items()}
        store.charts_ledger.write_now(
            lambda conn: store.recorder.record(
                conn, outcomes, before, channel=name, moves=moves, now=now, close=self._close
            )
        )
        self._shadow.moved(name, last)
        for outcome in outcomes:
            if (letter := outcome.dead_letter) is not None and outcome.state is EntryState.DEAD:
                log.info("message died in shadow", channel=name, entry=outcome.entry_id, error=letter.error)

    def _commit(
        self,
        name: str,
        entries: Sequence[Entry],
        outcomes: list[Outcome],
        before: Charts,
        now: datetime,
        doubtful: frozenset[int] = frozenset(),
    ) -> None:
        positions = self._readings[name].positions
        last = {entry.partition: entry.id for entry in entries}
        moves = {partition: (positions[partition], id_) for partition, id_ in last.items()}
        recorded = self._write(
            lambda conn: self._store.recorder.record(
                conn, outcomes, before, channel=name, moves=moves, now=now, close=self._close, doubtful=doubtful
            )
        )
        self._store.outbox.fresh.keep(recorded.fresh)
        positions.update(last)
        for state, number in Counter([outcome.state for outcome in outcomes]).items():
            self._tally.count("entries_processed", name, state.value, by=number)
        for outcome in outcomes:
            if outcome.state is EntryState.DEAD and (letter := outcome.dead_letter) is not None:
                log.warning(
                    "message died", channel=name, entry=outcome.entry_id, error=letter.error, location=letter.location
                )
            if outcome.effects and outcome.effects[0].kind == EffectKind.WITHOUT_EFFECT:
                self._tally.count("events_without_effect", name, event_label(outcome.effects[0].detail))
            for deviation in outcome.deviations:
                self._tally.count("deviations", name, deviation.partition(":")[0])
        accepted: list[int] = []
        failed: list[int] = []
        for entry, outcome in zip(entries, outcomes, strict=True):
            if entry.wants_application_ack:
                (accepted if outcome.application_ack is AckCode.AA else failed).append(entry.id)
        self._on_outcomes(accepted, failed)

    def _prepare(self, entry: Entry) -> Prepared:
        if entry.damaged and entry.refusal is None:
            return Prepared(entry=entry, outcome=undone(entry, _ENTRY_DAMAGED))
        channel = self._channel(entry, entry.channel)
        try:
            return prepare(entry, channel)
        except Exception as error:  # one message never stops the others: it is buried and the log says where it broke
            log.exception("an entry broke the processing", channel=entry.channel, entry=entry.id)
            return Prepared(entry=entry, outcome=internal_failure(entry, _version(channel), error))

    def _decide(self, store: Store, prepared: Prepared, charts: Charts, before: Charts, now: datetime) -> Outcome:
        """before: the charts as they were loaded; what has to be loaded now goes there, too."""
        entry = prepared.entry
        channel = self._channel(entry, channel_of(prepared, charts))
        try:
            while True:
                try:
                    return decide(prepared, channel, charts, now)
                except ChartNotWholeError as error:
                    self._reopen(store, error.chart_id, charts, before)
        except StoreError:
            raise
        except Exception as error:  # as above
            log.exception("an entry broke the processing", channel=entry.channel, entry=entry.id)
            return of_patient(internal_failure(entry, _version(channel), error), prepared, charts)

    @staticmethod
    def _reopen(store: Store, chart_id: str, charts: Charts, before: Charts) -> None:
        """Load what is closed of a chart, or one that no message of the batch names, with that which it has ended in.

        Raises StaleChartError when the chart is not the same any more.
        """
        was = before.by_id.get(chart_id)
        if was is None:
            with store.reader() as conn:
                found = store.charts.load(conn, (), (), {chart_id}).by_id
            if chart_id not in found:
                raise StaleChartError((chart_id,))
            for chart in found.values():
                if chart.id not in before.by_id:
                    before.add(chart)
                    charts.add(chart)
            return
        with store.reader() as conn:
            stored = store.charts.by_id(conn, chart_id)
        if stored is None or stored.version != was.version:
            raise StaleChartError((chart_id,))
        charts.add(reopened(charts.by_id[chart_id], stored))
        before.add(stored)

    def _bury(self, name: str, entry: Entry, error: Exception) -> None:
        if isinstance(error, TamperedError):
            outcome = _damaged_chart(entry)
        else:
            outcome = internal_failure(entry, self._configuration.version, error)
        outcome = of_patient(outcome, self._prepare(entry), Charts())  # by the number: the chart may be another's
        now = self._clock.now()
        if self._in_shadow(name):
            self._bury_in_shadow(name, entry, outcome, now)
            outcome = beside(outcome)
        self._commit(name, [entry], [outcome], Charts(), now)

    def _bury_in_shadow(self, name: str, entry: Entry, outcome: Outcome, now: datetime) -> None:
        """Where that can't be done, because its charts are damaged, the living side tells of it alone."""
        if self._shadow.knows(entry):
            return
        try:
            self._commit_in_shadow(name, [entry], [outcome], Charts(), now)
        except CursorMovedError:
            raise
        except StoreError as error:
            if isinstance(error, StoreUnavailableError) and not isinstance(error, StoreDamagedError):
                raise
            log.warning("an entry could not be recorded in shadow", channel=name, entry=entry.id, exc_info=error)

    def _channel(self, entry: Entry, name: str) -> CompiledChannel | None:
        """The channel of this name as it is to be applied to this entry; none: there is no such channel."""
        configuration: CompiledConfiguration | None = self._configuration
        if entry.config_as_of is not None and entry.config_as_of != self._configuration.version:
            configuration = self._recorded_configuration(entry.config_as_of)
        channel = configuration.channels.get(name) if configuration is not None else None
        if channel is None:
            return None
        observed = self._observed.get(name)
        known = self._ready.get((channel.version, name))
        if known is None or known.observed_since != observed:
            known = dataclasses.replace(self._in_mode_of_today(channel), observed_since=observed)
            self._ready[channel.version, name] = known
        return known

    def _in_mode_of_today(self, channel: CompiledChannel) -> CompiledChannel:
        """A recorded channel, on whichever side it is now: what it was live for then must not leave in shadow."""
        today = self._configuration.channels.get(channel.settings.name)
        if today is None or today.settings.mode == channel.settings.mode:
            return channel
        settings = channel.settings.model_copy(update={"mode": today.settings.mode})
        return dataclasses.replace(channel, settings=settings)

    def _recorded_configuration(self, version: str) -> CompiledConfiguration | None:
        if version not in self._recorded:
            try:
                self._recorded[version] = self._recompile(version)
            except StoreError:
                raise
            except HandoffError:
                log.exception("a recorded configuration can't be compiled", version=version)
                self._recorded[version] = None
            while len(self._recorded) > _RECORDED_CONFIGURATIONS_MAX:
                self._recorded.popitem(last=False)
        return self._recorded[version]


_URGENT: Final = str(UrgentDue.__struct_config__.tag)


def _override_damaged(entry_id: int) -> None:
    log.error("who stands in on a roster is not readable, its own people are called", entry=entry_id)


def _is_awaited(entry: Entry) -> bool:
    """Whether a sender or a person waits for its outcome."""
    return entry.wants_application_ack or entry.kind is EntryKind.ACT or entry.summary.type == _URGENT


def _reading(positions: dict[int, int]) -> _Reading:
    return _Reading(positions=positions, scanned=min(positions.values()))


def _version(channel: CompiledChannel | None) -> str:
    return channel.version if channel is not None else ""


_ENTRY_DAMAGED: Final = Fault(
    error="entry-damaged",
    text="what the store holds of this message was altered or damaged and can't be read: restore it from a backup, or"
    " have the sender send it again",
)
_CHART_DAMAGED: Final = Fault(
    error="chart-damaged",
    text="what the store holds of this patient was altered or damaged, so nothing was changed; the log of that time"
    " names the row: restore it from a backup, then replay this entry",
)


def _damaged_chart(entry: Entry) -> Outcome:
    """The patient's chart is left as it is. The deviation counts it in the metrics."""
    outcome = undone(entry, _CHART_DAMAGED)
    return msgspec.structs.replace(outcome, deviations=(*outcome.deviations, "chart-damaged"))
