"""Intake: judges each frame, has it stored, and only then gives its answer to the connection that it came from.

Group commit: while groups are on their way to the disk the next ones gather, and the writer makes one transaction of
all that wait. Nothing is answered AA or CA that is not on disk. If the store fails, every message of the group is
answered AR or CE, with 207, and the next group tries again: the daemon recovers by itself when the store does.

All of it happens in callbacks of the event loop: what a round of the loop brings is judged while the writer waits for
the disk, and a task for each message, or even for each group, would cost more than the judging.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import Connection as StoreConnection

from engine import logs
from engine.clock import Clock
from engine.domain.message import AckCode, Receipt
from engine.errors import StoreUnavailableError
from engine.hl7v2 import batch as batches
from engine.hl7v2 import mllp
from engine.hl7v2.ack import acknowledge
from engine.hl7v2.ordering import ordering_key
from engine.pipeline import faults
from engine.pipeline.acceptance import (
    LINK_RESTART,
    LINK_RESYNC,
    Judgement,
    enhanced_code,
    is_test,
    judge,
    original_code,
    plan_answers,
    rest_of_message,
    summarize,
    verdict,
)
from engine.runtime.answers import (
    Exchange,
    Lane,
    LateAnswers,
    Peer,
    ReadOutcomes,
    ReturnTo,
    answer_of,
    answer_without_entry,
    fresh_control_id,
)
from engine.runtime.background import start_task
from engine.runtime.metrics import REPEATS_TROUBLE, Metrics, event_label
from engine.store.journal import Append, Journal, Stored
from engine.store.keys import KeyRing
from engine.store.ledger import Ledger

_log = logs.get_logger(__name__)

_GROUP_EXCHANGES_MAX: Final = 1024
_GROUP_BYTES_MAX: Final = 16 << 20
_GROUPS_MAX: Final = 4
"""At most this many groups are with the writer at once; later messages gather into the next one."""
_EARLY_EXCHANGES: Final = 64
"""This many frames make a group before the round of the loop is over: the disk works while the rest is judged."""
_MARKS_SECONDS: Final = 0.05
"""How long the states of answers wait for a group to ride on: with so little to do, a commit for them alone is cheap,
and `handoff ledger` says at once what was answered."""
_PROBE_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 10.0
"""A store that fails is logged at once, then so often."""


@dataclass(frozen=True)
class _InSequence:
    """What storing with sequence numbers came to; none: a frame that only restarts the link is not stored."""

    judgements: list[Judgement]
    stored: list[Stored | None]


class Intake:
    """All channels' intake.

    stored(awaited): called after each group that holds new entries to be processed, and whether somebody waits for the
    outcome of one. outcomes, return_to: see `answers`.
    """

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        keys: KeyRing,
        clock: Clock,
        metrics: Metrics,
        *,
        outcomes: ReadOutcomes,
        stored: Callable[[bool], None],
        return_to: ReturnTo,
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._stored = stored
        self._pending: OrderedDict[Peer, deque[Exchange]] = OrderedDict()
        """In order for each connection, which take turns: who sends much at once does not hold up the others."""
        self._waiting = 0
        """Exchanges that are pending."""
        self._on_way = 0
        """Groups that the writer has."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._scheduled = False
        self._one_at_a_time = False
        """A channel with sequence numbers was heard: each group then has to see what the one before it stored."""
        self._sent: list[int] = []
        self._unsent: list[int] = []
        self._answered: list[tuple[int, AckCode]] = []
        self._loop = asyncio.get_running_loop()
        self._marks_timer: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None
        self._closing = False
        self._logged_at = 0.0
        self.late = LateAnswers(
            clock,
            outcomes=outcomes,
            return_to=return_to,
            answered=self._note_answer,
            sent=self.sent,
            unsent=self.unsent,
        )

    def now(self) -> datetime:
        """By the engine's clock, as what it stores."""
        return self._clock.now()

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._late = start_task(self.late.run(), "late-answers")

    async def close(self) -> None:
        """Store what is waiting and the last states of answers. To be called when the listeners are drained."""
        self._closing = True
        if self._marks_timer is not None:
            self._marks_timer.cancel()
        self._send_groups()
        await self._idle.wait()
        if self._has_marks:
            self._send([])
            await self._idle.wait()
        if self._late is not None:
            self._late.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._late

    # --- called by listeners -----------------------------------------------------------------------------------------

    def receive(self, lane: Lane, exchange: Exchange, frame: mllp.Frame) -> None:
        """Judge a frame and queue it for the next group. Its exchange is done when its answer may be sent."""
        exchange.lane = lane
        payload = frame.payload
        messages: tuple[bytes, ...] = (payload,)
        whole: Judgement | None = None
        deviations = frame.deviations
        if not frame.oversize and payload[:3] != b"MSH":
            if lane.commit_blocks and payload in {mllp.COMMIT_ACK_PAYLOAD, mllp.COMMIT_NAK_PAYLOAD}:
                exchange.done = True  # the sender's commit block for an answer of ours: no message
                exchange.connection.flush()
                return
            try:
                batch = batches.split(payload, messages_max=lane.channel.listen.batch_messages_max)
            except batches.BatchTooLongError:
                whole = plan_answers(lane.rules, None, faults.BATCH_TOO_LONG)
            else:
                if batch is not None and batch.messages:
                    exchange.batch = batch
                    messages = batch.messages
                    deviations += batch.deviations
                    if len(messages) > 1 and "batch" not in lane.channel.ack.model_fields_set:
                        _log.warning(
                            "batch answered message by message",
                            channel=lane.channel.name,
                            setting="ack.batch",
                            messages=len(messages),
                        )
        now = self._clock.now()
        judgements, receipts = [], []
        for message in messages:
            judgement = (rest_of_message(lane.rules) if frame.rest else whole) or self._judge(
                lane, message, oversize=frame.oversize
            )
            if frame.cut and message is messages[-1] and judgement.refusal is None:
                judgement = plan_answers(lane.rules, judgement.header, faults.FRAME_CUT)
            judgements.append(judgement)
            receipts.append(self._receipt(lane, exchange, message, judgement, deviations, now))
        exchange.judgements = tuple(judgements)
        if frame.rest:  # it is found with the message that it belongs to
            receipts = [replace(one, summary=exchange.connection.summary) for one in receipts]
        else:
            exchange.connection.summary = receipts[-1].summary
        exchange.receipts = tuple(receipts)
        if lane.rules.sequence_numbers:
            self._one_at_a_time = True
        own = self._pending.get(exchange.connection)
        if own is None:
            self._pending[exchange.connection] = deque((exchange,))
        else:
            own.append(exchange)
        self._waiting += 1
        if self._waiting >= _EARLY_EXCHANGES:
            self._send_groups()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._gathered)

    def too_many_connections(self, lane: Lane) -> bytes:
        """What a connection over the limit is told before it is closed; empty when this channel answers nothing."""
        refusal = faults.TOO_MANY_CONNECTIONS
        if lane.rules.ack_mode == "none" or lane.rules.close_when_unavailable:
            return b""
        code = enhanced_code(refusal) if lane.rules.ack_mode == "enhanced" else original_code(refusal)
        said = verdict(code, refusal)
        return mllp.wrap(acknowledge(None, said, now=self._clock.now(), control_id=fresh_control_id()))

    def sent(self, arrivals: list[int]) -> None:
        """The answers to these arrivals have gone out."""
        self._sent += arrivals
        self._marks_soon()

    def unsent(self, lane: Lane, arrivals: list[int]) -> None:
        """The answers to these arrivals could not go out: their sender is gone."""
        lane.counts.unsent += len(arrivals)
        self._unsent += arrivals
        self._marks_soon()

    # --- judging -----------------------------------------------------------------------------------------------------

    def _judge(self, lane: Lane, payload: bytes, *, oversize: bool) -> Judgement:
        try:
            return judge(lane.rules, payload, oversize=oversize)
        except Exception as error:  # noqa: BLE001 - no bytes may take the daemon down; they are kept and answered
            _log.error("message broke the intake", channel=lane.channel.name, exc_info=error)
            return plan_answers(lane.rules, None, faults.BROKEN)

    def _receipt(
        self,
        lane: Lane,
        exchange: Exchange,
        payload: bytes,
        judgement: Judgement,
        deviations: tuple[str, ...],
        now: datetime,
    ) -> Receipt:
        header, counts, channel = judgement.header, lane.counts, lane.rules.channel
        dedupe_key = None
        if header is None:
            counts.received[event_label("")] += 1
        else:
            counts.received[event_label(header.trigger_event)] += 1
            deviations += header.deviations + judgement.plan.deviations
            control_id = header.raw(10)
            if control_id:
                dedupe_key = self._keys.lookup(channel, header.raw(3), header.raw(4), control_id)
        for deviation in deviations:
            counts.deviate(deviation)
        return Receipt(
            channel=channel,
            peer=exchange.connection.peer,
            received_at=now,
            payload=payload,
            summary=summarize(header),
            dedupe_key=dedupe_key,
            digest=self._keys.lookup(payload),
            ordering_key=ordering_key(payload, header),
            deviations=deviations,
            refusal=judgement.refusal,
            ack=judgement.code,
            ack_state=judgement.ack_state,
            wants_application_ack=judgement.awaits_outcome,
            sequence_number=judgement.sequence_number,
            refuse_conflict=lane.rules.refuse_conflict,
            conflict_ack=judgement.conflict_code,
            test=is_test(lane.rules, header),
        )

    # --- storing -----------------------------------------------------------------------------------------------------

    def _gathered(self) -> None:
        """All that this round of the event loop brought is here."""
        self._scheduled = False
        self._send_groups()

    def _send_groups(self) -> None:
        groups_max = 1 if self._one_at_a_time else _GROUPS_MAX
        while self._pending and self._on_way < groups_max:
            self._send(self._next_group())

    def _next_group(self) -> list[Exchange]:
        pending = self._pending
        group: list[Exchange] = []
        size = 0
        while pending and len(group) < _GROUP_EXCHANGES_MAX and size < _GROUP_BYTES_MAX:
            connection, own = pending.popitem(last=False)
            exchange = own.popleft()
            if own:
                pending[connection] = own
            size += exchange.size
            group.append(exchange)
        self._waiting -= len(group)
        return group

    def _send(self, group: list[Exchange]) -> None:
        """Hand a group and the marks that are due to the journal's writer; `_returned` is called when they are on disk.

        The writer makes one transaction of all groups that wait for it.
        """
        append = Append(
            receipts=tuple([receipt for exchange in group for receipt in exchange.receipts]),
            sent=tuple(self._sent),
            unsent=tuple(self._unsent),
            answered=tuple(self._answered),
        )
        self._sent, self._unsent, self._answered = [], [], []
        self._on_way += 1
        self._idle.clear()
        future: asyncio.Future[Any]
        if self._one_at_a_time:
            future = self._ledger.submit(lambda conn: self._append_in_sequence(conn, group, append))
        else:
            future = self._ledger.submit_item(self._journal.append_each, append)
        started = time.perf_counter()
        future.add_done_callback(lambda future: self._returned(group, append, started, future))

    def _returned(self, group: list[Exchange], append: Append, started: float, future: asyncio.Future[Any]) -> None:
        """A group is on disk, or could not be stored: answer, and send what has gathered meanwhile."""
        self._on_way -= 1
        error = future.exception()
        if error is not None:
            self._not_stored(group, append, error)
        else:
            if append.receipts:
                self._metrics.commit_seconds.add(time.perf_counter() - started)
                self._metrics.group_size.add(len(append.receipts))
            if not self._metrics.store_writable:
                self._metrics.store_writable = True
                _log.info("store works again")
            stored = future.result()
            if isinstance(stored, _InSequence):
                _replace_judgements(group, stored.judgements)
                stored = stored.stored
            self._answer(group, stored)
        self._send_groups()
        if not self._on_way:
            self._idle.set()

    def _not_stored(self, group: list[Exchange], append: Append, error: BaseException) -> None:
        self._sent[:0], self._unsent[:0], self._answered[:0] = append.sent, append.unsent, append.answered
        self._metrics.store_failures += 1
        now = time.monotonic()
        if self._metrics.store_writable or now - self._logged_at > _LOG_SECONDS:
            self._logged_at = now
            _log.error("store failed, senders are told to send again", exc_info=error)
        if self._metrics.store_writable:
            self._metrics.store_writable = False
            self._loop.call_later(_PROBE_SECONDS, self._probe)
        if len(group) > 1 and not isinstance(error, StoreUnavailableError):
            for exchange in group:  # one of them is to blame: it must not take the others with it
                self._send([exchange])
        else:
            self._answer_unstored(group)

    def _probe(self) -> None:
        """With or without traffic, find out when the store works again."""
        if not self._metrics.store_writable and not self._closing:
            if not self._on_way:
                self._send([])
            self._loop.call_later(_PROBE_SECONDS, self._probe)

    def _append_in_sequence(self, conn: StoreConnection, group: list[Exchange], append: Append) -> _InSequence:
        """Append with the sequence number protocol (HL7 v2.9.1, 2.10.1) where the channel speaks it.

        The number that is expected is known only here, in the transaction that also stores the new one. A frame that
        only restarts or resynchronises the link (MSH alone) is no message and makes no entry.
        """
        self._journal.lock(conn)  # another node may hear the same sender
        links: dict[str, int | None] = {}
        judgements: list[Judgement] = []
        receipts: list[Receipt | None] = []
        for exchange in group:
            rules = exchange.lane.rules
            for judgement, receipt in zip(exchange.judgements, exchange.receipts, strict=True):
                number = judgement.sequence_number
                if number is None:
                    judgements.append(judgement)
                    receipts.append(receipt)
                    continue
                if rules.channel not in links:
                    links[rules.channel] = self._journal.sequence_number(conn, rules.channel)
                last = links[rules.channel]
                following = LINK_RESYNC if last is None else last + 1
                if number in {LINK_RESTART, LINK_RESYNC}:
                    if number == LINK_RESYNC:
                        links[rules.channel] = None
                        following = LINK_RESYNC
                    judgements.append(replace(judgement, expected_sequence=following))
                    receipts.append(replace(receipt, sequence_number=None) if _has_content(receipt.payload) else None)
                elif number > 0 and (last is None or number == last + 1):
                    links[rules.channel] = number
                    judgements.append(replace(judgement, expected_sequence=number))
                    receipts.append(receipt)
                elif self._journal.is_repeat(conn, receipt):  # its answer was lost: it gets the same again
                    judgements.append(replace(judgement, expected_sequence=number))
                    receipts.append(receipt)
                else:
                    refusal = faults.SEQUENCE_NUMBER_HIGH if number >= following else faults.SEQUENCE_NUMBER_LOW
                    refused = replace(plan_answers(rules, judgement.header, refusal), expected_sequence=following)
                    judgements.append(refused)
                    receipts.append(
                        replace(
                            receipt,
                            refusal=refusal,
                            ack=refused.code,
                            ack_state=refused.ack_state,
                            wants_application_ack=False,
                            sequence_number=None,
                        )
                    )
        kept = replace(append, receipts=tuple(receipt for receipt in receipts if receipt is not None))
        stored = iter(self._journal.append_each(conn, [kept])[0])
        for channel, last in links.items():
            if last is None:  # it was resynchronised, perhaps behind a number that the append has just kept
                self._journal.forget_sequence_number(conn, channel)
        return _InSequence(judgements, [None if receipt is None else next(stored) for receipt in receipts])

    def _note_answer(self, arrival: int, code: AckCode) -> None:
        self._answered.append((arrival, code))
        self._marks_soon()

    def _marks_soon(self) -> None:
        if self._marks_timer is None and not self._closing:
            self._marks_timer = self._loop.call_later(_MARKS_SECONDS, self._marks_due)

    def _marks_due(self) -> None:
        self._marks_timer = None
        if self._on_way:
            self._marks_soon()
        elif self._has_marks:
            self._send([])

    @property
    def _has_marks(self) -> bool:
        return bool(self._sent or self._unsent or self._answered)

    # --- answering ---------------------------------------------------------------------------------------------------

    def _answer(self, group: list[Exchange], stored: Sequence[Stored | None]) -> None:
        new = awaited = False
        results = iter(stored)
        connections: dict[Peer, None] = {}
        for exchange in group:
            exchange.receipts = ()  # the payload is on disk: no need to keep it in memory
            exchange.parts = [None] * len(exchange.judgements)
            for index, judgement in enumerate(exchange.judgements):
                result = next(results)
                if result is None:
                    exchange.parts[index] = self._link_answer(judgement)
                    continue
                exchange.parts[index] = self._part(exchange, index, judgement, result)
                if result.id is not None and exchange.lane.channel.mode != "paused":
                    new = True
                    awaited = awaited or judgement.awaits_outcome
            if not exchange.missing:
                exchange.finish(self._clock)
            connections[exchange.connection] = None
        for connection in connections:
            connection.flush()
        if new:
            self._stored(awaited)

    def _part(self, exchange: Exchange, index: int, judgement: Judgement, stored: Stored) -> bytes | None:
        """The answer to one stored message; none when there is none, or none yet."""
        counts = exchange.lane.counts
        refusal, code = judgement.refusal, judgement.code
        if stored.conflict_with is not None:
            counts.conflicts += 1
        if stored.duplicate_of is not None:
            self._count_repeat(exchange, stored.duplicate_of)
        elif stored.refused:
            if refusal is None:
                refusal, code = faults.CONFLICT, judgement.conflict_code
            counts.refused[refusal.error] += 1
            host = exchange.connection.peer.partition(" ")[0]
            _log.warning(
                "message refused",
                channel=exchange.lane.channel.name,
                entry=stored.id,
                error=refusal.error,
                peer=host,
            )
        if judgement.awaits_outcome and refusal is None:
            self.late.expect(exchange, index, stored)
        if code is None:
            return None
        counts.answers[code.value] += 1
        exchange.arrivals.append(stored.arrival)
        return answer_of(judgement, stored, verdict(code, refusal, expected_sequence=judgement.expected_sequence))

    def _count_repeat(self, exchange: Exchange, entry: int) -> None:
        """A sender that sends the same again and again does not understand our answers, or gets none."""
        counts = exchange.lane.counts
        counts.duplicates += 1
        repeats = counts.repeats.count(entry, time.monotonic())
        if repeats in {REPEATS_TROUBLE, 10 * REPEATS_TROUBLE}:
            host = exchange.connection.peer.partition(" ")[0]
            _log.warning(
                "sender repeats one message", channel=exchange.lane.channel.name, entry=entry, count=repeats, peer=host
            )

    def _link_answer(self, judgement: Judgement) -> bytes | None:
        if judgement.code is None:
            return None
        said = verdict(judgement.code, None, expected_sequence=judgement.expected_sequence)
        return answer_without_entry(judgement, said, self._clock.now())

    def _answer_unstored(self, group: list[Exchange]) -> None:
        """The store did not take them: nobody is told that it did, and nobody is left waiting."""
        for exchange in group:
            exchange.receipts = ()
            exchange.parts = [None] * len(exchange.judgements)
            if exchange.lane.rules.close_when_unavailable:
                exchange.done = exchange.hang_up = True
                continue
            for index, judgement in enumerate(exchange.judgements):
                code = plan_answers(exchange.lane.rules, judgement.header, faults.STORE_UNAVAILABLE).code
                if code is not None and not exchange.lane.commit_blocks:  # the block says it all, and first
                    exchange.lane.counts.answers[code.value] += 1
                    said = verdict(code, faults.STORE_UNAVAILABLE)
                    exchange.parts[index] = answer_without_entry(judgement, said, self._clock.now())
            exchange.finish(self._clock, block=mllp.COMMIT_NAK)
        for connection in dict.fromkeys(exchange.connection for exchange in group):
            connection.flush()


def _has_content(payload: bytes) -> bool:
    """Whether there is anything behind MSH, whatever ends its line."""
    return len(payload.replace(b"\n", b"\r").strip().split(b"\r", 1)) > 1


def _replace_judgements(group: list[Exchange], judgements: list[Judgement]) -> None:
    at = 0
    for exchange in group:
        count = len(exchange.judgements)
        exchange.judgements = tuple(judgements[at : at + count])
        at += count
