"""The way of a cause from a worker into the journal, which the main process alone writes.

A worker that finds something due asks its main process to put it there, and waits until that is on disk. Nothing
remembers what was asked: when either process dies in between, the worker finds the same thing due again, and the
journal takes a cause once by its name (`Cause.once`), also from workers of several nodes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from engine.domain.message import Receipt
from engine.errors import StoreUnavailableError
from engine.runtime import hints

PIECE_MAX: Final = 32
"""Causes in one request, and so in one transaction of the journal: the answers of senders wait for that meanwhile."""
_ANSWER_SECONDS_MAX: Final = 30.0


class CausesToMain:
    """The worker's end. One request at a time is under way, however many services of the worker have causes."""

    def __init__(self, send: Callable[[hints.ToMain], None], answer_seconds_max: float = _ANSWER_SECONDS_MAX) -> None:
        self._send = send
        self._answer_seconds_max = answer_seconds_max
        self._turn = asyncio.Lock()
        self._numbers: Iterator[int] = itertools.count(1)
        self._number = 0
        self._answer: asyncio.Future[tuple[int, ...]] | None = None

    async def put(self, receipts: Sequence[Receipt]) -> list[int]:
        """Have causes put into the journal in this order (`engine.store.causes.receipt_of`); returns their entries.

        An entry may be older: then the cause was there already. Raises StoreUnavailableError when they could not be
        put there now, or when the main process does not answer; some may be there all the same. Look again later.
        """
        if not all(receipt.once for receipt in receipts):
            raise ValueError("a cause of a worker needs a name: it may ask for it twice")
        entries: list[int] = []
        for start in range(0, len(receipts), PIECE_MAX):
            async with self._turn:
                entries += await self._put(tuple(receipts[start : start + PIECE_MAX]))
        return entries

    def hear(self, message: hints.InJournal) -> None:
        if self._answer is None or self._answer.done() or message.number != self._number:
            return  # to a request that nobody waits for any more
        if message.entries is None:
            self._answer.set_exception(StoreUnavailableError("the journal can't be written now"))
        else:
            self._answer.set_result(message.entries)

    async def _put(self, piece: tuple[Receipt, ...]) -> tuple[int, ...]:
        self._number = next(self._numbers)
        self._answer = asyncio.get_running_loop().create_future()
        self._send(hints.PutCauses(number=self._number, receipts=piece))
        try:
            return await asyncio.wait_for(self._answer, self._answer_seconds_max)
        except TimeoutError:
            raise StoreUnavailableError("the main process does not say whether causes are in the journal") from None
        finally:
            self._answer = None
