"""The scheduler: finds charts whose deadline has come, and has a cause put into the journal for each.

It decides nothing and remembers nothing that could be lost: what is due stands beside each chart, and deciding the
cause moves the deadline or takes it away. A cause that was asked for twice (by two workers, after a crash) is known by
its name, and put there once. Of what is on its way only so much is remembered that it is not asked for again and again.

Charts of channels in shadow do not ring: nobody acts on them, so that each of their tasks would be missed, and each
call go unanswered, which says nothing of what would happen were they live.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from engine.clock import Clock
from engine.domain.cause import CLOCK, Due, UrgentDue
from engine.domain.message import Receipt
from engine.errors import StoreError
from engine.logs import get_logger
from engine.runtime.causes import PIECE_MAX
from engine.store.causes import receipt_of
from engine.store.due import DueChart, decided, due
from engine.store.leases import Leases
from engine.store.store import Store

IN_FLIGHT_MAX: Final = 512
"""Charts whose cause is on its way, of those that are urgent and of the others: two batches of the processor."""
_ASKED_AT_ONCE_MAX: Final = 128
"""Charts that are not urgent, of one look: whoever is to be called meanwhile is found by the next one."""
_STUCK_MAX: Final = 10_000
_LOOK_SECONDS: Final = 0.5
"""Between two looks while nothing is due."""
_BUSY_SECONDS: Final = 0.05
"""...and while causes are on their way."""
_PAUSE_SECONDS_MAX: Final = 0.05
_STORE_PAUSE_SECONDS: Final = 1.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for."""

    entry: int
    chart: DueChart


class Scheduler:
    """One service of a worker, for the partitions that are the worker's.

    put: see `WorkerContext.put_causes`.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        leases: Leases,
        put: Callable[[Sequence[Receipt]], Awaitable[Sequence[int]]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._leases = leases
        self._put = put
        self._asked: dict[str, _Asked] = {}
        """By chart: in the journal, and not decided when it was last looked."""
        self._stuck: OrderedDict[str, DueChart] = OrderedDict()
        """By chart: its cause was decided, and it is due as before. To ask again would change nothing: a dead letter,
        or the number of charts that are due, shows it to a person. Any change of the chart ends it."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                seconds = await self.step()
            except StoreError as error:
                _log.warning("clock waits for the store", seconds=_STORE_PAUSE_SECONDS, exc_info=error)
                seconds = _STORE_PAUSE_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._clock.pause(seconds))

    async def step(self) -> float:
        """Look once, and ask for what is due. Returns after how many seconds to look again. Raises StoreError."""
        now = self._clock.now()
        charts = await self._store.read(lambda conn: self._look(conn, now))
        loop = asyncio.get_running_loop()
        for start in range(0, len(charts), PIECE_MAX):
            piece, began = charts[start : start + PIECE_MAX], loop.time()
            entries = await self._put([receipt_of(self._store.keys, _cause(chart), now) for chart in piece])
            for chart, entry in zip(piece, entries, strict=True):
                self._asked[chart.id] = _Asked(entry, chart)
            if not piece[-1].urgent:  # the journal is the senders' at least as long as it was ours
                await asyncio.sleep(min(loop.time() - began, _PAUSE_SECONDS_MAX))
        if len(charts) >= _ASKED_AT_ONCE_MAX:
            return 0.0
        return _BUSY_SECONDS if self._asked else _LOOK_SECONDS

    def _look(self, conn: Connection, now: datetime) -> list[DueChart]:
        """What is due and not on its way, as much as there is room for: urgent ones first, oldest first."""
        over = self._settle(conn)
        found: list[DueChart] = []
        for urgent in (True, False):
            room = IN_FLIGHT_MAX - sum(asked.chart.urgent == urgent for asked in self._asked.values())
            if room <= 0:
                continue
            room = room if urgent else min(room, _ASKED_AT_ONCE_MAX)
            known = len(self._asked) + len(self._stuck) + len(over)
            charts = due(conn, self._leases.partitions, now, room + known, urgent=urgent)
            found += [chart for chart in charts if self._is_new(chart, over)][:room]
        return found

    def _settle(self, conn: Connection) -> dict[str, DueChart]:
        """Forget what was decided; that."""
        by_entry = {asked.entry: asked for asked in self._asked.values()}
        over: dict[str, DueChart] = {}
        for entry in decided(conn, list(by_entry)) if by_entry else ():
            chart = by_entry[entry].chart
            over[chart.id] = self._asked.pop(chart.id).chart
        return over

    def _is_new(self, chart: DueChart, over: dict[str, DueChart]) -> bool:
        if chart.id in self._asked:
            return False
        if over.get(chart.id) == chart:
            _log.error("a chart is due as before after its deadline rang", chart=chart.id)
            self._stuck[chart.id] = chart
            while len(self._stuck) > _STUCK_MAX:
                self._stuck.popitem(last=False)
        return self._stuck.get(chart.id) != chart


def _cause(chart: DueChart) -> Due:
    kind = UrgentDue if chart.urgent else Due
    return kind(actor=CLOCK, chart_id=chart.id, at=chart.at, version=chart.version, since=chart.since)
