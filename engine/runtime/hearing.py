"""What far ends say to us, as causes: an acknowledged page, a text that came in, what became of one that went out.

Who has said it is known before it comes here. Each is in the journal when a method returns, once however often it is
said.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from msgspec import structs
from sqlalchemy import Connection

from engine.clock import Clock
from engine.connectors.base import Acknowledgment, CarrierWord, Ear, Incoming
from engine.domain.cause import Cause, NotificationSettled, PageAnswered, TextReceived, TextSettled
from engine.domain.delivery import Notice, Notification
from engine.domain.message import Receipt
from engine.domain.page import UNANSWERED, ack_code
from engine.store import numbers
from engine.store.causes import receipt_of
from engine.store.store import Store

_ACK: Final = re.compile(r"\W*ack(?:nowledged?)?\W*([0-9]{4})?\W*", re.IGNORECASE | re.ASCII)
_PAGES_MAX: Final = 1000
_WORDS_MAX: Final = 100
_OF_TEXT: Final = "text"
"""Kind of the ground of a text that a chart expects; others (the answer to STOP) nobody waits to hear of."""


class _Called(NamedTuple):
    chart_id: str
    page: str
    person: str


class Hearing:
    """put: has causes put into the journal (`Daemon._put_causes`)."""

    def __init__(self, store: Store, put: Callable[[Sequence[Receipt]], Awaitable[object]], clock: Clock) -> None:
        self._store = store
        self._put = put
        self._clock = clock

    async def acknowledgment(self, destination: str, said: Acknowledgment) -> bool:
        """False: it is of no page of ours. Raises StoreError."""
        found = await self._store.read(lambda conn: self._store.pages.get(conn, said.page))
        if found is None:
            return False
        answered = PageAnswered(
            actor=_actor(destination), chart_id=found.chart_id, page=said.page, by=said.by, word=said.once
        )
        await self._take([answered])
        return True

    async def carrier_word(self, destination: str, said: CarrierWord) -> bool:
        """False: it is about nothing of ours. Raises StoreError."""
        found = await self._store.read(lambda conn: self._store.outbox.by_keys(conn, destination, [said.key]))
        queued = next((one for one in found if one.unreadable is None), None)
        if queued is None:
            return False
        content, actor, chart_id = queued.delivery.content, _actor(destination), queued.delivery.chart_id
        if isinstance(content, Notification):
            called = NotificationSettled(
                actor=actor,
                chart_id=chart_id,
                page=content.page_id,
                step=content.step,
                delivery=queued.id,
                result=said.result,
                detail=said.detail,
            )
            await self._take([called])
        elif isinstance(content, Notice) and content.ground is not None and content.ground.kind == _OF_TEXT:
            text, _, tries = content.id.rpartition("-")
            settled = TextSettled(
                actor=actor,
                chart_id=chart_id,
                text=text,
                tries=int(tries) if tries.isdecimal() else 0,
                result=said.result,
                detail=said.detail,
                receipt=said.receipt,
            )
            await self._take([settled])
        return True

    async def incoming(self, destination: str, said: Incoming) -> None:
        """Raises StoreError."""
        causes = await self._store.read(lambda conn: self._causes(conn, destination, said))
        await self._take(causes)

    async def ask(self, name: str, ear: Ear) -> int:
        """Take what a far end has to tell us; how much that was. What is not in the journal it tells us again.

        Raises StoreError, HandoffError.
        """
        found = await asyncio.to_thread(ear.hear, self._clock, _WORDS_MAX)
        for one in found:
            if isinstance(one.said, Incoming):
                await self.incoming(name, one.said)
            else:
                await self.carrier_word(name, one.said)
        if found:
            await asyncio.to_thread(ear.heard, [one.id for one in found])
        return len(found)

    def _causes(self, conn: Connection, destination: str, said: Incoming) -> list[Cause]:
        answer = _ACK.fullmatch(said.text)
        called = self._called(conn, destination, said.number, answer[1]) if answer is not None else []
        if len(called) == 1:
            (one,) = called
            return [
                PageAnswered(
                    actor=_actor(destination), chart_id=one.chart_id, page=one.page, by=one.person, word=said.id
                )
            ]
        concerned = numbers.concerned(conn, self._store.keys, self._store.charts, said.number)
        heard = TextReceived(
            actor=_actor(destination),
            chart_id=None,
            id=said.id,
            channel=said.channel,
            number=said.number,
            to=said.to,
            text=said.text,
            at=self._clock.now(),
            answered=said.answered,
            charts=len(concerned),
            open_questions=sum(one.open_questions for one in concerned),
        )
        return [
            structs.replace(heard, chart_id=one.chart_id, speaks=place == 0) for place, one in enumerate(concerned)
        ] or [heard]

    def _called(self, conn: Connection, destination: str, number: str, code: str | None) -> list[_Called]:
        """The pages that wait for whoever has this number; code: of these the one that it names."""
        found: dict[str, _Called] = {}
        for listed in self._store.pages.find(conn, states=UNANSWERED, limit=_PAGES_MAX):
            page = listed.page
            if all(step.channel != destination for step in page.steps) or code not in {None, ack_code(page.id)}:
                continue
            keys = [f"{page.id}-{number}" for number in range(1, len(page.steps) + 1)]
            for queued in self._store.outbox.by_keys(conn, destination, keys):
                said = queued.delivery.content if queued.unreadable is None else None
                if isinstance(said, Notification) and _digits(said.to) == _digits(number):
                    found[page.id] = _Called(listed.chart_id, page.id, said.person)
        return list(found.values())

    async def _take(self, causes: Sequence[Cause]) -> None:
        now = self._clock.now()
        await self._put([receipt_of(self._store.keys, one, now) for one in causes])


def _actor(destination: str) -> str:
    return f"destination:{destination}"


def _digits(number: str | None) -> str:
    return re.sub(r"[^0-9]", "", number or "")
