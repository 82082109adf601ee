"""The sweeper: erases what was kept long enough, a page at a time, beside everything else that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import func, select

from engine.clock import Clock
from engine.domain.audit import AuditRecord, Whence
from engine.domain.retention import Period, Policy, Swept, verdict
from engine.errors import StoreError
from engine.logs import get_logger
from engine.store import erasure
from engine.store.backup.companion import renew
from engine.store.days import drop_swept_days
from engine.store.legalholds import in_doubt_since
from engine.store.retention import SWEPT, TEST_DATA, Charts, Item, Source, sources, test_sources
from engine.store.schema import audit, entry, from_micros
from engine.store.store import Store

BETWEEN: Final = timedelta(days=1)
_LOOK_SECONDS: Final = 60.0
_TURN_SECONDS: Final = 5.0
"""Between two looks whether it is its turn."""
_REST_SECONDS: Final = 0.05
AHEAD_MAX: Final = timedelta(days=31)
"""A clock that is further ahead of the newest entry may be wrong: then only a person may say that time is over."""

_log = get_logger(__name__)


class Sweep:
    """One sweep. actor: who is on record. test_data: of that alone, whatever its age. going: false when it is to end
    early.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        now: datetime,
        actor: str,
        *,
        dry_run: bool = False,
        test_data: bool = False,
        whence: Whence | None = None,
        rest: Callable[[], None] = lambda: None,
        going: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._policy = TEST_DATA if test_data else policy
        self._now = now
        self._actor = actor
        self._dry_run = dry_run
        self._test_data = test_data
        self._whence = whence
        self._rest = rest
        self._going = going

    def run(self) -> list[Swept]:
        """What was erased, or would be, of each kind, and what was kept although its time is over."""
        if not self._dry_run:
            finish(self._store, self._now, self._going)
        wanted = test_sources if self._test_data else sources
        done = [self._source(one) for one in wanted(self._store)]
        if not self._dry_run and not self._test_data:
            drop_swept_days(self._store.location, self._policy.messages.before(self._now))
        return done

    def _source(self, source: Source) -> Swept:
        period = self._policy.of(source.kept)
        cutoff = period.before(self._now) + timedelta(days=1)  # `verdict` says it exactly
        after: tuple[object, ...] | None = None
        count = held = 0
        waiting: Counter[str] = Counter()
        while self._going():
            with self._store.reader() as conn:
                page = source.page(conn, after, cutoff, self._now)
                verdicts = [(item, verdict(item.facts, period, self._now)) for item in page]
                over = [one for one in verdicts if period.after(one[0].facts.at) <= self._now]
                if not page or (not over and not source.older_behind(conn, page[-1].key, cutoff)):
                    break
            gone: list[Item] = []
            for item, said in over:
                if said.fate == "erase":
                    gone.append(item)
                elif said.fate == "held":
                    held += 1
                else:
                    waiting[said.rule] += 1
            if gone:
                count += len(gone) if self._dry_run else source.erase(gone, self._record(source, period))
                self._rest()
            after = page[-1].key
        return Swept(
            what=source.kept.value, policy=self._said(period), count=count, held=held, waiting=waiting.total(),
            why=dict(sorted(waiting.items())),
        )  # fmt: skip

    def _said(self, period: Period) -> str:
        return "test data" if self._test_data else str(period)

    def _record(self, source: Source, period: Period) -> Callable[[str, int], AuditRecord]:
        why = self._said(period) if self._test_data else f"kept for {period}"

        def record(which: str, count: int) -> AuditRecord:
            return AuditRecord(
                at=self._now, actor=self._actor, action=SWEPT, subject=source.kept.value, terms=which or None,
                count=count, reason=why, whence=self._whence,
            )  # fmt: skip

        return record


def finish(store: Store, now: datetime, going: Callable[[], bool] = lambda: True, *, after: int = 0) -> int:
    """Erase what a crash has left of what was to be erased. Returns how many patients that were. after: a record."""
    erasure.finish(store)
    return Charts(store).finish(now, going, after=after)


def believable(store: Store, now: datetime) -> bool:
    """Whether the clock can be right: something came lately, or nothing ever did."""
    with store.reader() as conn:
        newest = conn.execute(select(entry.c.received_at).order_by(entry.c.id.desc()).limit(1)).scalar_one_or_none()
        oldest = conn.execute(select(func.min(entry.c.id))).scalar_one_or_none()
    return oldest is None or newest is None or now - from_micros(newest) <= AHEAD_MAX


def _rest(halt: threading.Event) -> None:
    halt.wait(_REST_SECONDS)


class Sweeper:
    """A service: sweeps once a day. open_store: in the role of a tool, because it erases on both sides; ours: whether
    it is this one's turn, of several that could. policy: none: it is left to people.

    First, and each minute, it finishes what a crash has left of what was to be erased, whoever was at it.

    Whether the clock can be right is asked once, before anything has come in this life: what a wrong clock has stamped
    proves nothing.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        policy: Callable[[], Policy | None],
        clock: Clock,
        *,
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._open = open_store
        self._policy = policy
        self._clock = clock
        self._ours = ours
        self._next: datetime | None = None
        self._believed: bool | None = None
        self._finished = 0
        """Up to which record of the trail nothing is left that was broken off."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            policy, now = self._policy(), self._clock.now()
            # A clock that was set back must not make it wait for what it had been.
            due = self._next is None or now >= self._next or self._next - now > BETWEEN
            ours = self._ours()
            if ours:
                halt = threading.Event()
                work = asyncio.create_task(asyncio.to_thread(self._look, policy if due else None, now, halt))
                stop = asyncio.create_task(stopping.wait())
                await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
                halt.set() if stop.done() else stop.cancel()
                try:
                    await work
                    if due:  # also when it may not: it is said once a day
                        self._next = now + BETWEEN
                except StoreError as error:
                    _log.warning("the sweep waits for the store", seconds=_LOOK_SECONDS, exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS if ours else _TURN_SECONDS)

    def _look(self, policy: Policy | None, now: datetime, halt: threading.Event) -> None:
        """policy: none: it is not time to sweep, or that is left to people."""
        store = self._open()
        try:
            if store.read_now(in_doubt_since) is not None:
                if policy is not None:
                    _log.warning("nothing is swept, legal holds are not confirmed since a restore")
                return
            last = store.read_now(lambda conn: conn.execute(select(func.max(audit.c.seq))).scalar_one()) or 0
            if left := finish(store, now, lambda: not halt.is_set(), after=self._finished):
                _log.info("erased to the end what was begun", count=left)
                renew(store)
            if not halt.is_set():
                self._finished = last
            if policy is None:
                return
            if self._believed is None:
                self._believed = believable(store, now)
            if not self._believed:
                _log.warning("nothing is swept, the clock is far ahead of what came last")
                return
            sweep = Sweep(
                store, policy, now, "system",
                rest=partial(_rest, halt), going=lambda: not halt.is_set(),
            )  # fmt: skip
            swept = [done for done in sweep.run() if done.count]
            for done in swept:
                _log.info("swept what was kept long enough", kind=done.what, count=done.count)
            missed = renew(store)
            for folder in missed if swept else ():
                _log.warning("erasure keys beside backups can't be replaced", path=folder)
        finally:
            store.close()
