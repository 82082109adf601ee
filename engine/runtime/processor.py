"""The processor: takes the next entries of the journal in order, works on them, records what came of them.

The batch is the unit of IO, the message the unit of thought: every chart that a batch touches is loaded in one go, the
entries are worked on one after the other against the charts in memory, all outcomes are recorded in one transaction.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from engine.clock import Clock
from engine.domain.chart import Charts
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import AckCode, Entry, EntryState
from engine.domain.outcome import Outcome
from engine.errors import (
    INTERNAL_ERROR,
    CursorMovedError,
    HandoffError,
    StaleChartError,
    StoreError,
    StoreUnavailableError,
)
from engine.logs import get_logger
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration
from engine.pipeline.process import Prepared, decide, internal_failure, prepare
from engine.runtime.worker import Tally, Wake
from engine.store.store import Store

BATCH_MAX: Final = 256
_POLL_SECONDS: Final = 0.5
"""A hint may be lost; the journal is then looked at so much later."""
_STORE_PAUSE_SECONDS: Final = 1.0
_STALE_ATTEMPTS_MAX: Final = 10
_RECORDED_CONFIGURATIONS_MAX: Final = 8

log = get_logger(__name__)


class Processor:
    """Not thread-safe: one thread calls `step` again and again.

    recompile: gives the configuration that was recorded under a version, for replays that ask for it.
    on_outcomes: told after the commit, with the outcomes whose senders wait for an answer.
    """

    def __init__(
        self,
        store: Store,
        configuration: CompiledConfiguration,
        clock: Clock,
        *,
        recompile: Callable[[str], CompiledConfiguration | None],
        on_outcomes: Callable[[Sequence[int]], None],
        tally: Tally,
    ) -> None:
        self._store = store
        self._configuration = configuration
        self._clock = clock
        self._recompile = recompile
        self._on_outcomes = on_outcomes
        self._tally = tally
        self._recorded: OrderedDict[str, CompiledConfiguration | None] = OrderedDict()
        self._observed: dict[str, datetime] = {}
        self._ready: dict[tuple[str, str], CompiledChannel] = {}
        """Channels with the time since when they are observed, by configuration version and name."""

    def reload(self, configuration: CompiledConfiguration) -> None:
        """Work with another configuration from the next batch on."""
        self._configuration = configuration
        self._ready.clear()

    async def run(self, work: Wake, written: Wake, stopping: asyncio.Event) -> None:
        """Work until told to stop; the batch in hand is finished first. `work` wakes it, `written` wakes couriers."""
        while not stopping.is_set():
            try:
                count = await asyncio.to_thread(self.step)
            except StoreUnavailableError as error:
                log.warning("store not available, processing waits", seconds=_STORE_PAUSE_SECONDS, exc_info=error)
                await work.wait(_STORE_PAUSE_SECONDS)
                continue
            if count:
                written.ring()
            else:
                await work.wait(_POLL_SECONDS)

    def step(self) -> int:
        """One batch of every channel that is not paused. Returns how many entries were recorded; 0: nothing waits.

        Raises StoreUnavailableError when the store can't be used now; nothing is lost, call again later.
        """
        with self._store.reader() as conn:
            cursors = self._store.recorder.cursors(conn)
            if not self._observed:
                self._observed = dict(self._store.journal.first_received(conn))
            batches = [
                (name, entries)
                for name in self._store.journal.channels(conn)
                if not self._paused(name)
                and (entries := self._store.journal.after(conn, name, cursors.get(name, 0), BATCH_MAX))
            ]
        for name, entries in batches:
            self._batch(name, entries, cursors.get(name, 0))
        return sum(len(entries) for _, entries in batches)

    def _paused(self, channel: str) -> bool:
        compiled = self._configuration.channels.get(channel)
        return compiled is not None and compiled.settings.mode == "paused"

    def _batch(self, name: str, entries: Sequence[Entry], cursor: int) -> None:
        """Record all entries; when that fails for a reason of theirs, halve until the culprit stands alone."""
        for attempt in range(_STALE_ATTEMPTS_MAX):
            try:
                self._record(name, entries, cursor)
            except StaleChartError:
                log.info("charts changed meanwhile, working on the batch again", channel=name, attempt=attempt)
                continue
            except (StoreUnavailableError, CursorMovedError):
                raise
            except Exception as error:
                if len(entries) > 1:
                    middle = len(entries) // 2
                    self._batch(name, entries[:middle], cursor)
                    self._batch(name, entries[middle:], entries[middle - 1].id)
                    return
                log.exception("an entry could not be recorded", channel=name, entry=entries[0].id)
                self._bury(name, entries[0], cursor, error)
            return
        raise StoreUnavailableError(f"the charts of a batch of {name} kept changing; trying again later")

    def _record(self, name: str, entries: Sequence[Entry], cursor: int) -> None:
        now = self._clock.now()
        self._observed.setdefault(name, entries[0].received_at)
        prepared = [(entry, channel := self._channel(entry), self._prepare(entry, channel)) for entry in entries]
        identities = {identity for _, _, one in prepared for identity in one.identities}
        visits = {visit for _, _, one in prepared for visit in one.visits}
        with self._store.reader() as conn:
            before = self._store.charts.load(conn, identities, visits)
        charts = before.copy()
        outcomes: list[Outcome] = []
        for entry, channel, one in prepared:
            outcome = self._decide(entry, channel, one, charts, now)
            for chart in outcome.charts:
                charts.add(chart)
            outcomes.append(outcome)
        self._commit(name, outcomes, before, cursor, now)
        self._on_outcomes([entry.id for entry in entries if entry.wants_application_ack])

    def _commit(self, name: str, outcomes: list[Outcome], before: Charts, cursor: int, now: datetime) -> None:
        self._store.charts_ledger.write_now(
            lambda conn: self._store.recorder.record(conn, outcomes, before, channel=name, cursor=cursor, now=now)
        )
        for outcome in outcomes:
            self._tally.processed(name, outcome.state.value)
            for deviation in outcome.deviations:
                self._tally.deviation(name, deviation.partition(":")[0])

    def _prepare(self, entry: Entry, channel: CompiledChannel | None) -> Prepared:
        if channel is None:
            return Prepared(entry=entry, outcome=_unknown_channel(entry))
        try:
            return prepare(entry, channel)
        except Exception as error:  # one message never stops the others: it is buried and the log says where it broke
            log.exception("an entry broke the processing", channel=entry.channel, entry=entry.id)
            return Prepared(entry=entry, outcome=internal_failure(entry, channel.version, error))

    def _decide(
        self, entry: Entry, channel: CompiledChannel | None, prepared: Prepared, charts: Charts, now: datetime
    ) -> Outcome:
        if channel is None or prepared.outcome is not None:
            assert prepared.outcome is not None  # noqa: S101  # _prepare decides for an unknown channel
            return prepared.outcome
        try:
            return decide(prepared, channel, charts, now)
        except Exception as error:  # as above
            log.exception("an entry broke the processing", channel=entry.channel, entry=entry.id)
            return internal_failure(entry, channel.version, error)

    def _bury(self, name: str, entry: Entry, cursor: int, error: Exception) -> None:
        outcome = internal_failure(entry, self._configuration.version, error)
        self._commit(name, [outcome], Charts(), cursor, self._clock.now())
        self._on_outcomes([entry.id] if entry.wants_application_ack else [])

    def _channel(self, entry: Entry) -> CompiledChannel | None:
        """The channel as it is to be applied to this entry."""
        configuration: CompiledConfiguration | None = self._configuration
        if entry.config_as_of is not None and entry.config_as_of != self._configuration.version:
            configuration = self._recorded_configuration(entry.config_as_of)
        channel = configuration.channels.get(entry.channel) if configuration is not None else None
        if channel is None:
            return None
        observed = self._observed.get(entry.channel)
        known = self._ready.get((channel.version, entry.channel))
        if known is None or known.observed_since != observed:
            known = dataclasses.replace(channel, observed_since=observed)
            self._ready[channel.version, entry.channel] = known
        return known

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


def _unknown_channel(entry: Entry) -> Outcome:
    """The channel (or the recorded configuration that a replay asked for) is gone."""
    letter = DeadLetter(
        stage=Stage.PROCESSING,
        error="channel-unknown",
        location=None,
        detail="the configuration has no such channel; replay this entry when it has",
    )
    return Outcome(
        entry_id=entry.id,
        state=EntryState.DEAD,
        reason=letter.detail,
        dead_letter=letter,
        deviations=entry.deviations,
        application_ack=AckCode.AE,
        error_code=INTERNAL_ERROR,
    )
