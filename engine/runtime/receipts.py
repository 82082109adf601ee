"""What became of notifications goes into the journal, so that their pages hear of it.

Nothing remembers what was put there: what is not marked as heard is found again, by whichever worker looks next, and
the journal takes each word once, by the name of its cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from engine.clock import Clock
from engine.domain.cause import COURIER, NotificationSettled
from engine.domain.delivery import DeliveryState
from engine.domain.message import Receipt
from engine.domain.page import StepResult
from engine.errors import StoreUnavailableError
from engine.logs import get_logger
from engine.runtime.worker import Tally, Wake
from engine.store import notices
from engine.store.causes import receipt_of
from engine.store.notices import Awaited
from engine.store.store import Store

_LIMIT: Final = 256
_LOOK_SECONDS: Final = 1.0
"""Without a hint: it may be lost."""

log = get_logger(__name__)


class Receipts:
    """put: has causes put into the journal (`WorkerContext.put_causes`)."""

    def __init__(
        self, store: Store, put: Callable[[Sequence[Receipt]], Awaitable[Sequence[int]]], clock: Clock
    ) -> None:
        self._store = store
        self._put = put
        self._clock = clock
        self._settled = Wake()

    def counting(self, tally: Tally) -> Callable[[str, str, int], None]:
        """For a courier: counts what became of deliveries, and has them looked at."""

        def count(destination: str, what: str, number: int) -> None:
            tally.count("deliveries", destination, what, by=number)
            self._settled.ring()

        return count

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                done = await self.step()
            except StoreUnavailableError as error:
                log.warning("what became of notifications is not in the journal yet", exc_info=error)
                done = 0
            if done < _LIMIT:
                await self._settled.wait(_LOOK_SECONDS)

    async def step(self) -> int:
        """Put what has become of notifications into the journal. Returns of how many. Raises StoreUnavailableError."""
        found = await self._store.read(lambda conn: notices.awaited(conn, _LIMIT))
        if not found:
            return 0
        now = self._clock.now()
        await self._put([receipt_of(self._store.keys, cause_of(one), now) for one in found])
        ids = [one.delivery_id for one in found]
        await self._store.charts_ledger.write(lambda conn: notices.heard(conn, ids))
        return len(found)


def cause_of(one: Awaited) -> NotificationSettled:
    """A delivery that waits for a person (held, withheld) will reach nobody in time: for the page it has failed."""
    page, _, step = one.key.rpartition("-")
    taken = one.state is DeliveryState.DELIVERED
    return NotificationSettled(
        actor=COURIER,
        chart_id=one.chart_id,
        page=page,
        step=int(step) if step.isdecimal() else 0,
        delivery=one.delivery_id,
        result=(StepResult.SENT if taken else StepResult.FAILED).value,
        detail=None if taken else one.error or one.state.value,
    )
