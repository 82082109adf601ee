"""Answers: how they are made, and those that have to wait for the outcome of an entry.

An answer is made from the message's header, the entry's id and its time alone. So the stored answer to a duplicate is
made again, byte by byte, without being stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from engine import logs
from engine.clock import Clock
from engine.domain.message import AckCode, AckState, Receipt, Summary
from engine.errors import StoreError
from engine.hl7v2 import batch as batches
from engine.hl7v2 import mllp
from engine.hl7v2.ack import Verdict, acknowledge, owed
from engine.pipeline import faults
from engine.pipeline.acceptance import Judgement, Rules, original_code, verdict
from engine.runtime.metrics import ChannelCounts
from engine.settings import Channel
from engine.store.journal import Stored

_log = logs.get_logger(__name__)

_POLL_SECONDS: Final = 0.25
"""Outcomes are looked for so often without a hint: hints may be lost."""
EXCHANGE_BYTES: Final = 4096
"""What a message costs in memory besides its bytes, until it is answered (measured, and rounded up)."""
_WAITERS_MAX: Final = 20_000
_READ_MAX: Final = 500
_EARLY_MAX: Final = 1024

_fresh = itertools.count()


class Peer(Protocol):
    """A connection, as intake sees it."""

    summary: Summary
    """Of the message that came last on it."""

    @property
    def peer(self) -> str:
        """Where it comes from, for the journal."""
        ...

    def flush(self) -> None:
        """Exchanges are done: send what is ready."""
        ...

    def push(self, answer: bytes, arrivals: list[int]) -> bool:
        """Send out of turn; false: the connection is gone."""
        ...


class Lane:
    """One channel, as intake and its listener share it."""

    __slots__ = ("channel", "commit_blocks", "counts", "rules", "single_batch_answer")

    def __init__(self, channel: Channel, counts: ChannelCounts) -> None:
        self.counts = counts
        self.configure(channel)

    def configure(self, channel: Channel) -> None:
        self.channel = channel
        self.rules = Rules.of(channel)
        self.commit_blocks = channel.listen.commit_blocks
        self.single_batch_answer = channel.ack.batch == "single"


class Exchange:
    """One frame and its answer.

    done: the answer may be sent; when it is none, there is nothing to be said. arrivals: of the messages that the
    answer is for, to record whether it went out. parts: the answers to its messages, missing: how many of them still
    wait for an outcome. size: bytes of memory until it is answered, about. hang_up: the connection is closed instead
    of an answer.
    """

    __slots__ = (
        "answer", "arrivals", "batch", "connection", "done", "hang_up", "judgements", "lane", "missing", "parts",
        "receipts", "size",
    )  # fmt: skip

    def __init__(self, connection: Peer, size: int) -> None:
        self.connection = connection
        self.size = size
        self.done = False
        self.hang_up = False
        self.answer: bytes | None = None
        self.arrivals: list[int] = []
        self.lane: Lane
        self.receipts: tuple[Receipt, ...] = ()
        self.judgements: tuple[Judgement, ...] = ()
        self.batch: batches.Batch | None = None
        self.parts: list[bytes | None] = []
        self.missing = 0

    @property
    def stored(self) -> bool:
        """Its messages are on disk or refused, and their bytes are kept here no longer."""
        return not self.receipts

    def finish(self, clock: Clock, *, block: bytes = mllp.COMMIT_ACK) -> None:
        """All parts are there: put the answer together. block: the commit block, where the channel speaks them."""
        batch, parts, lane = self.batch, self.parts, self.lane
        answer: bytes | None = None
        if batch is not None and lane.single_batch_answer:
            if any(parts):
                whole = [part or b"" for part in parts]
                answer = mllp.wrap(batches.answer(batch, whole, now=clock.now(), control_id=fresh_control_id()))
        elif len(parts) == 1:
            part = parts[0]
            answer = mllp.wrap(part) if part else None
        else:
            answer = b"".join([mllp.wrap(part) for part in parts if part]) or None
        self.answer = block + (answer or b"") if lane.commit_blocks else answer
        self.done = True


def fresh_control_id() -> str:
    """For an answer that belongs to no entry; at most 20 characters, as MSH-10 was long limited to."""
    return f"X{time.time_ns() // 1000:x}.{next(_fresh) % 4096:x}"


def answer_of(judgement: Judgement, stored: Stored, said: Verdict, *, second: bool = False) -> bytes:
    """The answer to a stored message. second: the application ACK that follows an accept ACK."""
    entry = stored.id or stored.duplicate_of
    return _mirror(judgement, said, stored.received_at, f"H{entry}{'A' if second else ''}", entry)


def answer_without_entry(judgement: Judgement, said: Verdict, now: datetime) -> bytes:
    """The answer to a message that was not stored."""
    return _mirror(judgement, said, now, fresh_control_id(), None)


def _mirror(judgement: Judgement, said: Verdict, now: datetime, control_id: str, entry: int | None) -> bytes:
    try:
        return acknowledge(judgement.header, said, now=now, control_id=control_id, msa_text=judgement.msa_text)
    except Exception as error:  # noqa: BLE001 - no header may take the daemon down; the sender is answered all the same
        _log.error("answer could not mirror its message", entry=entry, exc_info=error)
        return acknowledge(None, said, now=now, control_id=control_id)


ReadOutcomes = Callable[[Sequence[int]], Awaitable[Mapping[int, Verdict]]]
"""Reads what the senders of these entries are to be told; entries without outcome are missing."""

ReturnTo = Callable[[Lane, bytes, Callable[[AckState], None]], None]
"""Sends an application ACK (unframed) to the channel's return address, and tells what became of it."""


class _Waiter:
    __slots__ = ("exchange", "index", "since", "stored")

    def __init__(self, exchange: Exchange, index: int, stored: Stored, since: float) -> None:
        self.exchange = exchange
        self.index = index
        self.stored = stored
        self.since = since

    @property
    def judgement(self) -> Judgement:
        return self.exchange.judgements[self.index]

    @property
    def holds(self) -> bool:
        # With commit blocks the block answers the frame, and every HL7 answer is a frame of its own.
        return self.judgement.holds and not self.exchange.lane.commit_blocks

    def is_overdue(self, now: float) -> bool:
        return self.holds and self.since + self.exchange.lane.channel.ack.processed_seconds_max <= now


class LateAnswers:
    """Application answers: sent when their entry is processed.

    outcomes, return_to: see there. answered(arrival, code): called for each first answer whose code was not known when
    its message was stored. sent, unsent: called with the arrivals whose first answer went out otherwise than over their
    connection, or could not.
    """

    def __init__(
        self, clock: Clock, *, outcomes: ReadOutcomes, return_to: ReturnTo, answered: Callable[[int, AckCode], None],
        sent: Callable[[list[int]], None], unsent: Callable[[Lane, list[int]], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._outcomes = outcomes
        self._return_to = return_to
        self._answered = answered
        self._sent = sent
        self._unsent = unsent
        self._waiting: dict[int, list[_Waiter]] = {}
        self._count = 0
        self._early: dict[int, bool] = {}
        """Accepted before we knew that somebody waits: a busy worker finds an entry as soon as it is on disk."""
        self._wake = asyncio.Event()

    def expect(self, exchange: Exchange, index: int, stored: Stored) -> None:
        """The application answer to this message has to wait."""
        waiter = _Waiter(exchange, index, stored, asyncio.get_running_loop().time())
        if waiter.holds:
            exchange.missing += 1
        elif self._count >= _WAITERS_MAX:
            # Memory has its limit; nothing is lost, the sender only never hears how the processing ended.
            self._not_sent(waiter)
            return
        entry = stored.id or stored.duplicate_of or 0
        self._waiting.setdefault(entry, []).append(waiter)
        self._count += 1
        if self._early.pop(entry, False):
            asyncio.get_running_loop().call_soon(self.have_outcomes, (entry,), ())
        elif stored.duplicate_of is not None:
            self._wake.set()  # the original's outcome may be there already

    def have_outcomes(self, accepted: Sequence[int], failed: Sequence[int]) -> None:
        """The worker says that these entries have their outcome. failed: what they are told has to be read."""
        said = verdict(AckCode.AA, None)
        for entry in accepted:
            if entry in self._waiting:
                self._settle(self._take(entry), said)
            else:
                self._early[entry] = True
                if len(self._early) > _EARLY_MAX:
                    del self._early[next(iter(self._early))]
        if any(entry in self._waiting for entry in failed):
            self._wake.set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
            self._wake.clear()
            if self._waiting:
                await self._look()

    async def _look(self) -> None:
        wanted = list(self._waiting)
        for at in range(0, len(wanted), _READ_MAX):
            try:
                found = await self._outcomes(wanted[at : at + _READ_MAX])
            except StoreError:
                break  # looked at again in a moment; whoever waits too long is told to send again
            for entry, said in found.items():
                self._settle(self._take(entry), said)
        now = asyncio.get_running_loop().time()
        late = verdict(original_code(faults.NOT_PROCESSED_YET), faults.NOT_PROCESSED_YET)
        for entry, waiters in list(self._waiting.items()):
            overdue = [waiter for waiter in waiters if waiter.is_overdue(now)]
            if overdue:
                kept = [waiter for waiter in waiters if not waiter.is_overdue(now)]
                self._waiting[entry] = kept
                if not kept:
                    del self._waiting[entry]
                self._count -= len(overdue)
                self._overdue(overdue, late)

    def _take(self, entry: int) -> list[_Waiter]:
        waiters = self._waiting.pop(entry, [])
        self._count -= len(waiters)
        return waiters

    def _settle(self, waiters: list[_Waiter], said: Verdict) -> None:
        for waiter in waiters:
            exchange, judgement, stored = waiter.exchange, waiter.judgement, waiter.stored
            first = judgement.code is None
            answer: bytes | None = None
            if owed(judgement.plan.application, success=said.code is AckCode.AA):
                answer = answer_of(judgement, stored, said, second=not first)
                exchange.lane.counts.answers[said.code.value] += 1
                if first and judgement.ack_state is AckState.OWED:
                    self._answered(stored.arrival, said.code)
            if waiter.holds:
                exchange.parts[waiter.index] = answer
                exchange.arrivals.append(stored.arrival)
                exchange.missing -= 1
                if not exchange.missing:
                    exchange.finish(self._clock)
                    exchange.connection.flush()
            elif answer is not None:
                self._send(waiter, answer)

    def _overdue(self, waiters: list[_Waiter], late: Verdict) -> None:
        """Who waited too long is told to send again, or finds its connection closed."""
        close = [waiter for waiter in waiters if waiter.exchange.lane.rules.close_when_unavailable]
        self._settle([waiter for waiter in waiters if waiter not in close], late)
        for waiter in close:
            exchange = waiter.exchange
            exchange.hang_up = True
            self._not_sent(waiter)
            exchange.missing -= 1
            if not exchange.missing:
                exchange.finish(self._clock)
                exchange.connection.flush()

    def _send(self, waiter: _Waiter, answer: bytes) -> None:
        """A separate exchange: to the return address, else on the same connection."""
        exchange = waiter.exchange
        first = waiter.judgement.code is None
        if exchange.lane.channel.ack.return_to is not None:
            self._return_to(exchange.lane, answer, partial(self._returned, waiter))
        elif not exchange.connection.push(mllp.wrap(answer), [waiter.stored.arrival] if first else []):
            self._not_sent(waiter)

    def _returned(self, waiter: _Waiter, state: AckState) -> None:
        if state is AckState.UNSENT:
            self._not_sent(waiter)
        elif waiter.judgement.code is None:
            self._sent([waiter.stored.arrival])

    def _not_sent(self, waiter: _Waiter) -> None:
        first = waiter.judgement.code is None
        if first:
            self._unsent(waiter.exchange.lane, [waiter.stored.arrival])
        else:
            waiter.exchange.lane.counts.unsent += 1
