"""What became of notifications goes into the journal, so that their pages hear of it.

Nothing remembers what was put there: what is not marked as heard is found again, by whichever worker looks next, and
the journal takes each word once, by the name of its cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from engine.clock import Clock
from engine.connectors.requests import Answer
from engine.domain.cause import COURIER, Cause, NotificationSettled, RequestSettled, TextSettled
from engine.domain.delivery import AppointmentRequest, DeliveryState, Operation
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
        causes = await self._store.read(lambda conn: self._causes(conn, found))
        if causes:
            await self._put([receipt_of(self._store.keys, one, now) for one in causes])
        await self._store.charts_ledger.write(lambda conn: notices.heard(conn, self._store.keys, found))
        return len(found)

    def _causes(self, conn: Connection, found: Sequence[Awaited]) -> list[Cause]:
        asked = [one.delivery_id for one in found if one.operation is not Operation.NOTIFY]
        answers = self._store.outbox.receipts(conn, asked) if asked else {}
        causes: list[Cause] = []
        for one in found:
            if one.operation is Operation.NOTIFY:
                causes.append(cause_of(one))
                continue
            if one.operation is Operation.SEND_TEXT:
                causes.append(word_of_text(one, answers.get(one.delivery_id)))
                continue
            queued = self._store.outbox.get(conn, one.delivery_id)
            said = queued.delivery.content if queued is not None and queued.unreadable is None else None
            if isinstance(said, AppointmentRequest):
                causes.append(answer_of(one, said.id, answers.get(one.delivery_id)))
        return causes


def answer_of(one: Awaited, appointment: str, receipt: str | None) -> RequestSettled:
    """What became of a request for an appointment. One that a person must look at (held) may have been booked."""
    taken = one.state is DeliveryState.DELIVERED
    refused = one.state is DeliveryState.DEAD or one.state is DeliveryState.WITHHELD
    said = Answer.read(receipt) if taken else None
    return RequestSettled(
        actor=COURIER,
        chart_id=one.chart_id,
        appointment=appointment,
        delivery=one.delivery_id,
        result=RequestSettled.TAKEN if taken else RequestSettled.REFUSED if refused else RequestSettled.UNKNOWN,
        detail=None if taken else one.error or one.state.value,
        filler=said.filler if said is not None else None,
        filler_authority=said.authority if said is not None else None,
        status=said.status if said is not None else None,
        starts_at=said.starts_at if said is not None else None,
    )


_OF_TEXT: Final = {
    DeliveryState.DELIVERED: TextSettled.SENT,
    DeliveryState.DEAD: TextSettled.FAILED,
    DeliveryState.WITHHELD: TextSettled.WITHHELD,
}


def word_of_text(one: Awaited, receipt: str | None) -> TextSettled:
    """What became of a text's delivery; of one that waits for a person nobody knows yet."""
    text, _, tries = one.key.rpartition("-")
    taken = one.state is DeliveryState.DELIVERED
    return TextSettled(
        actor=COURIER,
        chart_id=one.chart_id,
        text=text,
        tries=int(tries) if tries.isdecimal() else 0,
        result=_OF_TEXT.get(one.state, TextSettled.HELD),
        detail=None if taken else one.error or one.state.value,
        receipt=receipt if taken else None,
    )


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
