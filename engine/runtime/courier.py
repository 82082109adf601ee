"""The courier: takes what is due from the outbox, hands it to the destinations' connectors, records what became of it.

One task a destination, so that one which fails or is slow never holds up another. Order per patient and destination is
the outbox's doing, which gives out only the oldest unfinished delivery of a patient (and those behind it, in order, to
a connector that keeps the order in a batch itself).

| the process is killed | destination is idempotent | it is not |
|---|---|---|
| before an attempt | the delivery is due again | the same |
| during it, or before its record | delivered again under the same idempotency key | found as started, in doubt |
| after its record | nothing is left to do | the same |

Therefore destinations that are not idempotent get one delivery at a time, noted as started before. One that can be
asked what it has (`LooksUp`) is asked about those in doubt: what is not there is sent anew, after its rules were asked
again, and what can't be found out is held.

A failure can be the destination's (it is down, it takes nothing today) or the delivery's, and the far end does not
always say which: a firewall that dislikes one message looks like a destination that is gone. So after a failure of the
destination its deliveries wait a little and pay no attempt, others come first, and one at a time to begin with; one
that fails alone while others are delivered pays after all. Thus nothing dies of an outage, however long, and no
delivery can hold up the others for good.

Right before a delivery is sent it is asked whether it may go (`engine/pipeline/admit.py`); what may not go yet waits in
its line, what never may is withheld.

How the destination stands is on record (`store/destinations.py`), so that commands and the next worker know it: it is
written when a destination fails and when it works again, never for a delivery that was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from msgspec import structs
from sqlalchemy import Connection

from engine import logs
from engine.access.copies import NO_RESTRICTIONS, Copies, Terms
from engine.clock import Clock
from engine.connectors.base import NOT_ATTEMPTED, Connector, LooksUp, Result, delivered, failed, in_doubt
from engine.domain.delivery import NOTHING_SENT, DeliveryState, QueuedDelivery
from engine.domain.standing import ASKED_TO_WAIT
from engine.errors import DeliveryError, DeliveryFailure, LeaseLostError, StoreError, StoreUnavailableError
from engine.pipeline.admit import NOTICES, RULES, Known, Never, NotBefore, Rule, admit
from engine.pipeline.breaker import Breaker, BreakerState
from engine.pipeline.copies import as_it_leaves, judge, rule_of
from engine.pipeline.retry import Bury, Hold, RetryAt, backoff_seconds, decide
from engine.pipeline.testdata import rule_of_test
from engine.settings import DestinationBase
from engine.store import settlements
from engine.store.destinations import DestinationStore, Kept, Trouble
from engine.store.leases import Leases
from engine.store.ledger import Ledger
from engine.store.outbox import Outbox, Settled
from engine.store.requeue import let_out, withheld_after

_log = logs.get_logger()

_PAUSE_SECONDS: Final = 1.0
"""After trouble with the store, or of our own."""
_ASKED_SECONDS_MAX: Final = 3600.0
"""No destination asks to be left alone for longer."""
_PAUSE_TOLD_SECONDS: Final = 60.0
"""A pause that a destination asks for is put on record when it is at least so long."""
_ADMISSION_SECONDS_MAX: Final = 3600.0
"""A delivery that may not go yet is asked about again after so long: what the rule rests on may have changed."""
_RECEIPT_CHARS_MAX: Final = 255
IN_DOUBT: Final = "in-doubt"
"""It may have been done: it is looked up next."""
_LOOK_UPS_MAX: Final = 8
"""When the far end could not be asked so often, a person decides."""
_GATHER_SECONDS: Final = 0.02
"""A hint that comes so soon after the last round waits for others: one round for each message of a busy hour would keep
the worker from the next messages. The first hint is followed at once."""
_LOOK_SECONDS: Final = 1.0
"""The outbox is looked at so often without a hint: for what is to be tried again, and because a hint can be lost."""

T = TypeVar("T")


@dataclass(frozen=True)
class Route:
    """A destination: its connector and how to treat it. channels: those that deliver charts to it."""

    connector: Connector
    settings: DestinationBase
    channels: frozenset[str] = frozenset()
    made_from: tuple[object, ...] = ()
    """What besides the settings the connector was made from."""
    rules: Sequence[Rule] = ()
    """Its own rules of what may go out, besides those for every notice; they follow from the settings."""
    copies: Copies = NO_RESTRICTIONS
    """What of restricted records may leave at all."""
    terms: Terms | None = None
    """What of them it may get."""

    def same(self, other: Route) -> bool:
        """Whether the other's connector would do exactly what this one does."""
        return self.settings == other.settings and self.made_from == other.made_from and self.copies == other.copies


class Bell(Protocol):
    """Rings when there are new deliveries."""

    async def wait(self, seconds_max: float) -> None: ...


@dataclass(slots=True)
class Counters:
    """What was done for one destination since the courier started, and how it stands."""

    delivered: int = 0
    retried: int = 0
    held: int = 0
    dead: int = 0
    withheld: int = 0
    put_off: int = 0
    """Times when a delivery might not go out yet."""
    failures: int = 0
    """Times when the destination as a whole could not be used."""
    breaker: BreakerState = BreakerState.CLOSED


class Courier:
    """Runs one task for each destination until it is stopped.

    outbox, ledger, reader: the store's charts side. leases: which destinations are this worker's. random: uniform in
    [0, 1), for jitter. count: told of what became of deliveries (destination, `delivered` `retried` `put_off` `held`
    `withheld` or `dead`, how many).
    """

    def __init__(
        self,
        outbox: Outbox,
        ledger: Ledger,
        reader: Callable[[], AbstractContextManager[Connection]],
        routes: Mapping[str, Route],
        *,
        clock: Clock,
        leases: Leases,
        random: Callable[[], float] = random_module.random,
        count: Callable[[str, str, int], None] = lambda _destination, _what, _number: None,
    ) -> None:
        def rounds(name: str, route: Route) -> _Rounds:
            return _Rounds(name, outbox, ledger, reader, route, clock=clock, leases=leases, random=random, count=count)

        self._make = rounds
        self._routes = dict(routes)
        self._rounds = {name: rounds(name, route) for name, route in routes.items()}
        self._serving: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`; each destination finishes the batch it has in hand."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._begin()
                await self._stopping.wait()
        finally:
            self._tasks = None
            self._serving.clear()

    async def serve(self, bell: Bell, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set; look for new deliveries when it rings."""

        async def ring() -> None:
            while not stopping.is_set():
                await bell.wait(seconds_max=60)
                self.wake()
            self.stop()

        ringing = asyncio.create_task(ring())
        try:
            await self.run()
        finally:
            ringing.cancel()

    def reload(self, routes: Mapping[str, Route]) -> None:
        """Work by these from now on.

        A destination whose route is the same goes on with what it has: its connection, its breaker, what it has learned
        of deliveries that fail alone. Of any other the batch in hand is finished first. Connectors of routes that are
        not needed are never opened.
        """
        new = dict(routes)
        for name, rounds in self._rounds.items():
            if name in new and rounds.route.same(new[name]):
                new[name] = rounds.route = replace(rounds.route, channels=new[name].channels)
                rounds.wake()
            else:
                rounds.stop()
        self._routes = new
        self._begin()

    def _begin(self) -> None:
        if self._tasks is None or self._stopping.is_set():
            return
        for name in [name for name in self._routes if name not in self._serving]:  # in their order: runs are repeated
            self._serving.add(name)
            self._tasks.create_task(self._serve(name), name=f"courier {name}")

    async def _serve(self, name: str) -> None:
        """One destination, by one route after the other: the next begins when the last has let go of what it holds."""
        while (route := self._routes.get(name)) is not None and not self._stopping.is_set():
            rounds = self._rounds.get(name)
            if rounds is None or rounds.route is not route or rounds.ended:
                rounds = self._rounds[name] = self._make(name, route)
            await rounds.run()
        self._serving.discard(name)
        if route is None:
            self._rounds.pop(name, None)

    def wake(self) -> None:
        """There are new deliveries."""
        for rounds in self._rounds.values():
            rounds.wake()

    def stop(self) -> None:
        """Take nothing new. `run` returns when the step in hand is over and recorded."""
        self._stopping.set()
        for rounds in self._rounds.values():
            rounds.stop()

    def counters(self) -> dict[str, Counters]:
        """By destination."""
        return {name: rounds.counters for name, rounds in self._rounds.items()}


class _Rounds:
    """One destination, batch after batch."""

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        ledger: Ledger,
        reader: Callable[[], AbstractContextManager[Connection]],
        route: Route,
        *,
        clock: Clock,
        leases: Leases,
        random: Callable[[], float],
        count: Callable[[str, str, int], None],
    ) -> None:
        self.name = name
        self.route = route
        """Its channels may change while it runs, and nothing else of it."""
        self.ended = False
        self.counters = Counters()
        self._outbox = outbox
        self._ledger = ledger
        self._reader = reader
        self._connector = route.connector
        self._destinations = DestinationStore()
        self._kept = Kept()
        """What is on record of the destination, as it was last read or written here."""
        self._trouble: Trouble | None = None
        """Why it fails now; what is on record follows (`_note`)."""
        self._policy = route.settings.retry
        disclosure = route.settings.disclosure
        self._mark = None if disclosure is None else disclosure.as_
        """What its copies count as when a patient asks who was told."""
        self._of_restrictions: Sequence[Rule] = ()
        if route.terms is not None and route.copies.restrictions:
            self._of_restrictions = (rule_of(route.copies, route.terms),)
        self._of_tests = (rule_of_test(takes=route.terms is not None and route.terms.test_data),)
        self._older = 0
        """Id of the last delivery that was queued before the destination became ours."""
        self._batch_max = route.settings.batch_max if route.connector.idempotent else 1
        self._batch_bytes_max = route.settings.batch_bytes_max
        self._size = self._batch_max
        """Deliveries in the next batch: one after a failure of the destination, then twice as many each time."""
        self._successes = 0
        self._refusals = 0
        """Answers without a reason in a row, while nothing was delivered."""
        self._failed_alone: dict[int, int] = {}
        """Deliveries that failed for reasons of the destination while they were alone; with `_successes` then."""
        self._clock = clock
        self._leases = leases
        self._random = random
        self._count = count
        self._breaker = Breaker(self._policy)
        self._asked_until: datetime | None = None
        """The destination asks for nothing before."""
        self._signal = asyncio.Event()
        self._stopping = False
        self._looked_for_interrupted = False
        self._tenure = 0
        """Of the leases: 0 while the destination is not ours."""
        self._fed_by: frozenset[str] | None = None
        """The channels that are on record as delivering to it, as far as this tenure knows."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"courier-{name}")

    def wake(self) -> None:
        self._signal.set()

    def stop(self) -> None:
        self._stopping = True
        self._connector.stop()
        self._signal.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._stopping:
                self._signal.clear()
                began = loop.time()
                try:
                    with self._leases.destination(self.name) as tenure:
                        if tenure != self._tenure:
                            self._looked_for_interrupted = False  # another worker may have left something
                            if self._tenure:
                                await self._connector.close()  # it may hold what only one may have: a file
                            self._tenure = tenure
                            if tenure:
                                await self._take_over()
                        if tenure and self._fed_by != self.route.channels:
                            await self._note_channels(self.route.channels)
                        wait = await self._round() if tenure else _LOOK_SECONDS
                except StoreError as error:
                    _log.warning("outbox not usable", destination=self.name, exc_info=error)
                    self._looked_for_interrupted = False  # what was begun in this round may have no result
                    wait = _PAUSE_SECONDS
                except Exception as error:  # noqa: BLE001 - the one supervised loop of a destination: it goes on
                    _log.error("courier round failed", destination=self.name, exc_info=error)
                    self._looked_for_interrupted = False  # as above
                    wait = _PAUSE_SECONDS
                if wait and not self._stopping:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._signal.wait(), self._clock.pause(wait))
                    await asyncio.sleep(0 if self._stopping else began + _GATHER_SECONDS - loop.time())
        finally:
            self.ended = True
            self._thread.shutdown(wait=False)
            await self._connector.close()

    async def _round(self) -> float:
        """Deliver one batch; the seconds to wait before the next, none when there may be more."""
        if not self._looked_for_interrupted:
            await self._hold_interrupted()
        now = self._clock.now()
        ready = self._breaker.ready(now)
        self.counters.breaker = self._breaker.state
        rest = self._breaker.resting_until if not ready else self._pause(now)
        if rest is not None:
            if not await self._is_asked_to_retry():
                # A rest may be long, and a person may want an end of it: so it is looked at now and then.
                return min(max((rest - now).total_seconds(), 0.001), _LOOK_SECONDS)
            self._breaker = Breaker(self._policy)
            self._asked_until = None
        limit = 1 if self._breaker.state is BreakerState.HALF_OPEN else self._size

        def look(conn: Connection) -> tuple[Kept, list[QueuedDelivery]]:
            kept = self._destinations.get(conn, self.name)
            if kept.paused(now):
                return kept, []
            due = self._outbox.due(
                conn,
                self.name,
                now,
                limit,
                bytes_max=self._batch_bytes_max,
                ordered_batches=self._connector.ordered_batches,
            )
            return kept, due

        kept, batch = await self._read(look)
        asked, self._kept = kept.retry_at != self._kept.retry_at, kept
        if kept.paused(now):
            return _LOOK_SECONDS
        if not batch:
            if asked and self._trouble is not None:
                await self._probe()
            await self._recall(now)
            return _LOOK_SECONDS
        unreadable = [queued for queued in batch if queued.unreadable is not None]
        if unreadable:
            await self._set_aside(unreadable)
        else:
            await self._attempt(batch)
        await self._note()
        return 0.0

    async def _take_over(self) -> None:
        """The destination has become ours: what is known of it comes from the store."""
        self._kept = await self._read(lambda conn: self._destinations.get(conn, self.name))
        self._trouble = self._kept.trouble
        self._older = await self._read(self._outbox.last_id)
        await self._let_out()
        self._fed_by = None

    async def _let_out(self) -> None:
        """What was withheld by terms, or restrictions, that are others today goes out, if these let it."""
        terms, copies, after = self.route.terms, self.route.copies, 0
        if terms is None:
            return
        now = self._clock.now()
        while queued := await self._read(
            lambda conn: withheld_after(conn, self._outbox.keys, self.name, after)  # noqa: B023 - called at once
        ):
            after = queued[-1].id
            readable = [one for one in queued if one.unreadable is None]
            needs = frozenset({"chart"})
            facts = await self._read(lambda conn: self._outbox.facts_of(conn, readable, needs, now))  # noqa: B023
            free = [
                one.id
                for one, known in zip(readable, facts, strict=True)
                if known.unreadable is None and judge(copies, terms, one, known.chart, now).code is None
            ]
            if free:
                await self._write(lambda conn: let_out(conn, self._outbox.keys, free, now))  # noqa: B023

    async def _note_channels(self, channels: frozenset[str]) -> None:
        """Put on record which channels deliver to it, and how many of their patients it was never told of."""
        if self._kept.fed_by != tuple(sorted(channels)):
            untold = await self._read(lambda conn: self._destinations.untold(conn, self.name, channels))
            await self._write(lambda conn: self._destinations.fed(conn, self.name, channels, untold))
            if untold:  # it is new, or a channel that was in shadow delivers to it now
                _log.warning("destination was never told of patients", destination=self.name, count=untold)
        self._fed_by = channels

    async def _is_asked_to_retry(self) -> bool:
        """A person wants an attempt now, whatever the breaker says."""
        kept = await self._read(lambda conn: self._destinations.get(conn, self.name))
        return kept.retry_at != self._kept.retry_at

    async def _probe(self) -> None:
        """Nothing waits, and a person wants to know whether the destination can be reached again."""
        try:
            await self._connector.connect()
        except DeliveryError as error:
            self._destination_failed(error.error, error.text, error.retry_after_seconds)
        else:
            self._trouble = None
        await self._note()

    async def _note(self) -> None:
        """Put on record how the destination stands, when that has changed."""
        trouble = self._trouble
        if trouble == self._kept.trouble:
            return
        if trouble is None:
            now = self._clock.now()
            await self._write(lambda conn: self._destinations.worked(conn, self.name, now))
            _log.info("destination works again", destination=self.name)
        else:
            await self._write(lambda conn: self._destinations.failed(conn, self.name, trouble))
        self._kept = structs.replace(self._kept, trouble=trouble)

    async def _attempt(self, batch: Sequence[QueuedDelivery]) -> None:
        try:
            await self._connector.connect()
        except DeliveryError as error:
            self._destination_failed(error.error, error.text, error.retry_after_seconds)
            return
        if self._stopping:
            return
        if isinstance(self._connector, LooksUp) and batch[0].error == IN_DOUBT:
            await self._look_up(self._connector, batch[0])
            return
        batch = await self._admitted(batch)
        if not batch:
            return
        if not self._connector.idempotent:
            (queued,) = batch
            if not await self._write(lambda conn: self._outbox.start(conn, queued.id, self._clock.now())):
                return  # another one has the turn now
        if not self._may_act():
            await self._settle(batch, [NOT_ATTEMPTED] * len(batch))
            raise LeaseLostError("this worker has hung, or the store has: the destination may be another's by now")
        try:
            results = await self._deliver(batch)
        except asyncio.CancelledError:
            if not self._connector.idempotent:
                doubt = self._doubt("stopped while it waited for an answer")
                await asyncio.shield(self._settle(batch, [doubt] * len(batch)))
            raise
        await self._settle(batch, results)

    async def _admitted(self, batch: Sequence[QueuedDelivery]) -> Sequence[QueuedDelivery]:
        """Those that may go out now. Of the others it is put on record why not, and until when."""
        own, of_restrictions = self.route.rules, self._of_restrictions
        of_marked = (*of_restrictions, *self._of_tests)
        if of_restrictions:
            batch = [self._to_be_asked(queued) for queued in batch]
        asked = [one for one in batch if own or one.delivery.operation in NOTICES or one.delivery.marked]
        if not asked:
            return batch
        rules = (*RULES, *own, *of_marked)
        needs = frozenset[str]().union(*(rule.needs for rule in rules))
        now = self._clock.now()
        facts = await self._read(lambda conn: self._outbox.facts_of(conn, asked, needs, now))
        of_asked = {queued.id: known for queued, known in zip(asked, facts, strict=True)}
        latest = now + timedelta(seconds=_ADMISSION_SECONDS_MAX)
        going: list[QueuedDelivery] = []
        kept: list[Settled] = []
        waiting: set[str] = set()
        for queued in batch:
            key = queued.delivery.ordering_key
            if key in waiting:
                continue  # behind one that waits: order is kept
            known = of_asked.get(queued.id)
            if known is None:
                going.append(queued)
                continue
            match admit(rules, queued, known, now):
                case NotBefore(at=at, code=code):
                    waiting.add(key)
                    kept.append(
                        Settled(
                            id=queued.id,
                            state=DeliveryState.PENDING,
                            attempts=queued.attempts,
                            next_attempt_at=min(at, latest),
                            error=code,
                            not_before=at,
                        )
                    )
                case Never(code=code, final=final):
                    kept.append(
                        Settled(
                            id=queued.id,
                            state=DeliveryState.WITHHELD,
                            attempts=queued.attempts,
                            error=code,
                            final=final,
                        )
                    )
                case _:
                    going.append(self._as_it_leaves(queued, known, now))
        if kept:
            await self._record(kept, pending_is="put_off")
        return going

    def _to_be_asked(self, queued: QueuedDelivery) -> QueuedDelivery:
        """What waits from before may have been queued by other rules: its chart is asked too."""
        if queued.delivery.marked or queued.id > self._older:
            return queued
        return structs.replace(queued, delivery=structs.replace(queued.delivery, marked=True))

    def _as_it_leaves(self, queued: QueuedDelivery, known: Known, now: datetime) -> QueuedDelivery:
        """The copy of a restricted record, without what the destination may not get and with its notice."""
        terms = self.route.terms
        if terms is None or not queued.delivery.marked:
            return queued
        return as_it_leaves(self.route.copies, terms, queued, known.chart, now)

    def _may_act(self) -> bool:
        return self._leases.may_act(self.name)

    async def _deliver(self, batch: Sequence[QueuedDelivery]) -> Sequence[Result]:
        """One result for each delivery, whatever the connector does."""
        try:
            results = await self._connector.deliver(batch, self._may_act)
            _check(batch, results)
        except DeliveryError as error:
            seconds = error.retry_after_seconds
            asked = None if seconds is None else self._clock.now() + timedelta(seconds=seconds)
            whole = failed(error.kind, error.error, error.text, not_before=asked, of_destination=True)
            results = [whole] * len(batch)
        except Exception as error:  # noqa: BLE001 - a defect of a connector: the culprit is found and buried
            _log.error("connector failed", destination=self.name, batch=len(batch), exc_info=error)
            return await self._after_defect(batch)
        self._learn(results)
        return results

    def _learn(self, results: Sequence[Result]) -> None:
        """Tell the breaker how the destination does, and choose the size of the next batch."""
        attempted = [result for result in results if result.attempted]
        delivered = sum(result.delivered for result in attempted)
        trouble = [
            result
            for result in attempted
            if (result.of_destination and not result.answered) or result.failure is DeliveryFailure.AMBIGUOUS
        ]
        refusals = [result for result in attempted if result.answered]
        self._successes += delivered
        if trouble and not delivered:
            self._size = 1
            asked = max(self._seconds_asked(result) or 0.0 for result in trouble)
            self._destination_failed(trouble[0].error, trouble[0].text, max(asked, self._rest_seconds(trouble)))
        elif attempted:
            self._size = min(self._size * 2, self._batch_max)
            self._breaker.worked()  # it answers; what else it says is about single deliveries
            self._refusals = 0 if delivered else self._refusals + len(refusals)
            # One refusal here and there is the trouble of its patient; nothing else for a while is the destination's.
            if refusals and self._refusals >= self._policy.breaker_failures:
                self._set_trouble(refusals[0].error, refusals[0].text, down=False)
            elif delivered or (self._trouble is not None and self._trouble.down):
                self._trouble = None
            self._rest_if_asked(attempted)
        elif not self._stopping and self._may_act() and not any(result.delivered for result in results):
            self._destination_failed("not-attempted", "the connection was lost before anything was sent", None)

    def _seconds_asked(self, result: Result) -> float | None:
        if result.not_before is None:
            return None
        return max(0.0, (result.not_before - self._clock.now()).total_seconds())

    def _rest_if_asked(self, results: Sequence[Result]) -> None:
        """A destination that works, and asks for a pause, gets one."""
        asked = [one.not_before for one in results if one.not_before and (one.delivered or one.of_destination)]
        now = self._clock.now()
        until = min(max(asked, default=now), now + timedelta(seconds=_ASKED_SECONDS_MAX))
        if until <= now:
            return
        self._asked_until = until
        if (until - now).total_seconds() >= _PAUSE_TOLD_SECONDS:
            text = "it asked for a pause"
            self._set_trouble(ASKED_TO_WAIT, text, down=False, next_attempt_at=until)

    def _pause(self, now: datetime) -> datetime | None:
        """The end of the pause that the destination asked for. A clock that was set back does not make it longer."""
        until = self._asked_until
        if until is None or not now < until <= now + timedelta(seconds=_ASKED_SECONDS_MAX):
            self._asked_until = None
        return self._asked_until

    def _rest_seconds(self, trouble: Sequence[Result]) -> float:
        """Longer from time to time where each try leaves another delivery that a person has to decide on."""
        over = self._breaker.failures + 1 - self._policy.breaker_failures
        doubt = not self._connector.idempotent and any(one.failure is DeliveryFailure.AMBIGUOUS for one in trouble)
        if not doubt or over <= 0:
            return 0.0
        return min(self._policy.breaker_seconds * 2.0 ** min(over, 20), self._policy.seconds_max)

    def _set_trouble(self, error: str, text: str, *, down: bool, next_attempt_at: datetime | None = None) -> None:
        old = self._trouble
        same = old is not None and old.down == down
        self._trouble = Trouble(
            since=old.since if old is not None and same else self._clock.now(),
            error=error,
            detail=text,
            down=down,
            failures=(old.failures if old is not None and same else 0) + 1,
            next_attempt_at=next_attempt_at,
        )

    async def _after_defect(self, batch: Sequence[QueuedDelivery]) -> Sequence[Result]:
        """Who may have got something twice is held; else one by one, so that only the culprit is buried."""
        text = "a defect of the engine: the log shows where"
        if not self._connector.idempotent:
            return [failed(DeliveryFailure.AMBIGUOUS, "connector-defect", text)] * len(batch)
        if len(batch) == 1:
            return [failed(DeliveryFailure.PERMANENT, "connector-defect", text)]
        results: list[Result] = []
        stopped: set[str] = set()
        for queued in batch:
            key = queued.delivery.ordering_key
            resting = self._breaker.state is BreakerState.OPEN
            result = NOT_ATTEMPTED if resting or key in stopped else (await self._deliver([queued]))[0]
            if not result.delivered:
                stopped.add(key)  # those behind it keep their place
            results.append(result)
        return results

    def _destination_failed(self, error: str, text: str, retry_after_seconds: float | None) -> None:
        self._breaker.failed(self._clock.now(), self._random, retry_after_seconds)
        self._set_trouble(error, text, down=True, next_attempt_at=self._breaker.resting_until)
        self.counters.failures += 1
        self.counters.breaker = self._breaker.state
        _log.warning(
            "destination failed",
            destination=self.name,
            error=error,
            state=self._breaker.state.value,
            failure_count=self._breaker.failures,
        )

    async def _settle(self, batch: Sequence[QueuedDelivery], results: Sequence[Result]) -> None:
        """Record the results, however long the store takes to come back: the next batch waits for that."""
        others = any(result.delivered and result.attempted for result in results)
        settled: list[Settled] = []
        for queued, result in zip(batch, results, strict=True):
            pays = others or self._fails_while_others_do_not(queued, alone=len(batch) == 1)
            one = self._settled(queued, result, pays=pays)
            if one is not None:
                settled.append(one)
        if len(batch) == 1 and results[0].of_destination:
            self._failed_alone[batch[0].id] = self._successes
        for one in settled if self._failed_alone else ():
            if one.state is not DeliveryState.PENDING:
                self._failed_alone.pop(one.id, None)
        await self._record(settled)

    async def _record(self, settled: Sequence[Settled], *, pending_is: str = "retried") -> None:
        """pending_is: how those are counted that are to be tried later."""
        now = self._clock.now()
        while settled:
            try:
                await self._write(lambda conn: self._outbox.settle(conn, settled, now))
                break
            except StoreUnavailableError as error:
                _log.warning("results not recorded yet", destination=self.name, batch=len(settled), exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)
        delivered = sum(one.state is DeliveryState.DELIVERED for one in settled)
        if delivered:
            self.counters.delivered += delivered
            self._count(self.name, "delivered", delivered)
        for one in settled:
            self._tell(one, pending_is)

    def _settled(self, queued: QueuedDelivery, result: Result, *, pays: bool) -> Settled | None:
        """What is to be recorded; none: nothing. pays: an attempt, also for what may be the destination's failure."""
        if not result.attempted and not result.delivered:
            if self._connector.idempotent:
                return None
            return Settled(id=queued.id, state=DeliveryState.PENDING, attempts=queued.attempts)  # no longer started
        attempts = queued.attempts + 1
        if result.delivered:
            receipt = result.receipt and result.receipt[:_RECEIPT_CHARS_MAX]
            mark = self._mark if result.attempted else NOTHING_SENT
            what = settlements.what(self.name, queued.delivery.operation, queued.entry_id)
            return Settled(
                id=queued.id,
                state=DeliveryState.DELIVERED,
                attempts=attempts,
                receipt=receipt,
                disclosed=mark,
                what=what,
            )
        if result.in_doubt and isinstance(self._connector, LooksUp):
            return self._in_doubt(queued, queued.attempts)
        if not pays and self._is_of_destination(result):
            return Settled(
                id=queued.id,
                state=DeliveryState.PENDING,
                attempts=queued.attempts,
                next_attempt_at=self._later(attempts, self._seconds_asked(result)),
                error=result.error,
            )
        decision = decide(
            attempts,
            result.failure or DeliveryFailure.PERMANENT,
            self._policy,
            self._clock.now(),
            self._random,
            self._seconds_asked(result),
            idempotent=self._connector.idempotent,
        )
        if isinstance(decision, RetryAt) and attempts >= (result.attempts_max or self._policy.attempts_max):
            decision = Bury()
        next_attempt_at = None
        match decision:
            case RetryAt(at=at):
                state, next_attempt_at = DeliveryState.PENDING, at
            case Hold():
                state = DeliveryState.HELD
            case Bury():
                state = DeliveryState.DEAD
        return Settled(
            id=queued.id,
            state=state,
            attempts=attempts,
            next_attempt_at=next_attempt_at,
            error=result.error,
            detail=result.text,
            receipt=result.receipt and result.receipt[:_RECEIPT_CHARS_MAX],
        )

    def _is_of_destination(self, result: Result) -> bool:
        """The failure is the destination's, as far as can be seen, and to try again does no harm."""
        if result.failure is DeliveryFailure.AMBIGUOUS and not self._connector.idempotent:
            return False
        return result.of_destination and result.failure is not DeliveryFailure.PERMANENT

    def _fails_while_others_do_not(self, queued: QueuedDelivery, *, alone: bool) -> bool:
        return alone and self._failed_alone.get(queued.id, self._successes) != self._successes

    def _later(self, attempt: int, seconds_asked: float | None) -> datetime:
        asked = min(seconds_asked or 0.0, _ASKED_SECONDS_MAX)
        seconds = max(backoff_seconds(attempt, self._policy, self._random), asked)
        return self._clock.now() + timedelta(seconds=seconds)

    def _tell(self, settled: Settled, pending_is: str) -> None:
        match settled.state:
            case DeliveryState.DELIVERED:
                return  # counted by the batch
            case DeliveryState.HELD:
                self.counters.held += 1
                self._count(self.name, "held", 1)
            case DeliveryState.DEAD:
                self.counters.dead += 1
                self._count(self.name, "dead", 1)
            case DeliveryState.WITHHELD:
                self.counters.withheld += 1
                self._count(self.name, "withheld", 1)
            case DeliveryState.PENDING if settled.error is not None:
                self.counters.retried += pending_is == "retried"
                self.counters.put_off += pending_is == "put_off"
                self._count(self.name, pending_is, 1)
            case _:
                return
        if settled.state in {DeliveryState.HELD, DeliveryState.DEAD, DeliveryState.WITHHELD}:
            say = _log.info if settled.state is DeliveryState.WITHHELD else _log.warning
            say(
                "delivery not made",
                destination=self.name,
                delivery=settled.id,
                state=settled.state.value,
                error=settled.error,
                attempts=settled.attempts,
            )

    async def _recall(self, now: datetime) -> None:
        """Make due what was put off by a clock that was wrong then: nothing waits for longer than we let it."""
        limit = now + timedelta(seconds=self._policy.seconds_max + _ASKED_SECONDS_MAX)
        latest = await self._read(lambda conn: self._outbox.last_due_at(conn, self.name))
        if latest is not None and latest > limit:
            _log.warning("deliveries were put off by a clock that was wrong", destination=self.name)
            await self._write(lambda conn: self._outbox.recall(conn, self.name, limit, now))

    async def _set_aside(self, unreadable: Sequence[QueuedDelivery]) -> None:
        """What can't be read is never sent. A key that is missing can come back; what was damaged can't."""
        await self._record(
            [
                Settled(
                    id=queued.id,
                    state=DeliveryState.HELD if queued.unreadable == "key-missing" else DeliveryState.DEAD,
                    attempts=queued.attempts,
                    error=queued.unreadable,
                    detail="the stored payload can't be read: it was altered or damaged",
                )
                for queued in unreadable
            ]
        )

    async def _hold_interrupted(self) -> None:
        """What the last courier had begun when it was killed may have been done: a person decides."""
        if not self._connector.idempotent:
            ids = await self._read(lambda conn: self._outbox.interrupted(conn, self.name))
            for id_ in ids:
                await self._hold(id_)
        self._looked_for_interrupted = True

    async def _hold(self, delivery_id: int) -> None:
        queued = await self._read(lambda conn: self._outbox.get(conn, delivery_id))
        if queued is not None:
            await self._settle([queued], [self._doubt("the engine stopped in the middle of it")])

    def _doubt(self, text: str) -> Result:
        if isinstance(self._connector, LooksUp):
            return in_doubt("interrupted", text)
        return failed(DeliveryFailure.AMBIGUOUS, "interrupted", text)

    async def _look_up(self, connector: LooksUp, queued: QueuedDelivery) -> None:
        """Ask the far end what became of a delivery in doubt. It is not sent here: whether it may go is asked anew."""
        attempts, code = queued.attempts, "connector-defect"
        try:
            found = await connector.look_up(queued)
        except DeliveryError as error:
            if error.kind is DeliveryFailure.TRANSIENT and attempts < _LOOK_UPS_MAX:
                self._destination_failed(error.error, error.text, error.retry_after_seconds)
                await self._record([self._in_doubt(queued, attempts + 1)])
                return
            code = error.error
        except Exception as error:  # noqa: BLE001 - a defect of a connector: a person decides
            _log.error("connector failed", destination=self.name, batch=1, exc_info=error)
        else:
            self._breaker.worked()
            self._trouble = None
            receipt = await self._read(lambda conn: self._unknown(conn, queued.id, found))
            if receipt is not None:
                await self._settle([queued], [delivered(receipt)])
                return
            now = self._clock.now()
            again = Settled(id=queued.id, state=DeliveryState.PENDING, attempts=attempts, next_attempt_at=now)
            await self._record([again])
            return
        await self._record([Settled(id=queued.id, state=DeliveryState.HELD, attempts=attempts, error=code)])

    def _unknown(self, conn: Connection, delivery_id: int, receipts: Sequence[str]) -> str | None:
        """The first receipt that no other delivery has."""
        for receipt in receipts:
            if all(one == delivery_id for one in self._outbox.by_receipt(conn, self.name, receipt)):
                return receipt
        return None

    def _in_doubt(self, queued: QueuedDelivery, attempts: int) -> Settled:
        seconds = self._connector.look_up_seconds if isinstance(self._connector, LooksUp) else 0.0
        at = self._clock.now() + timedelta(seconds=seconds)
        return Settled(id=queued.id, state=DeliveryState.PENDING, attempts=attempts, next_attempt_at=at, error=IN_DOUBT)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Raises LeaseLostError when the destination has become another worker's."""

        def fenced(conn: Connection) -> T:
            self._leases.check_destination(conn, self.name)
            return work(conn)

        return await self._ledger.write(fenced)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._reader() as conn:
                return work(conn)

        # A thread of its own: one that waits for a store that hangs is not missing elsewhere.
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)


def _check(batch: Sequence[QueuedDelivery], results: Sequence[Result]) -> None:
    if len(results) != len(batch):
        raise RuntimeError("a connector must give one result for each delivery")
