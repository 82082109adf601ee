"""The engine, broken on purpose: what the simulation has to notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from unittest import mock

from msgspec import structs
from simulation.database import ClusterLocks
from sqlalchemy import literal_column, text, update

from engine.care import pages
from engine.care.oncall import Duty
from engine.domain.page import Page
from engine.errors import StoreUnavailableError
from engine.runtime import scheduler
from engine.runtime.courier import _Rounds
from engine.store import ledger, outbox, record
from engine.store.engines import translated
from engine.store.holds import RecordedHolds, _Questions
from engine.store.journal import _Group
from engine.store.leases import STALE_SECONDS, Leases
from engine.store.ledger import Ledger
from engine.store.outbox import Outbox
from engine.store.record import Recorder
from engine.store.schema import JOURNAL, delivery
from engine.store.statements import Listed

Broken = AbstractContextManager[object]


def answers_before_the_commit() -> Broken:
    """Senders are told AA as soon as the statements have run."""
    right = Ledger._commit

    def commit(self: Any, units: list[Any]) -> None:
        if self._side != JOURNAL:
            right(self, units)
            return
        try:
            with translated():
                self._conn = self._conn or self._engine.connect()
                with self._conn.begin():
                    ledger._settle([(unit, _result(unit, self._conn), None) for unit in units])
        except StoreUnavailableError as error:
            self._disconnect()
            ledger._settle([(unit, None, error) for unit in units if not unit.future.done()])

    return mock.patch.object(Ledger, "_commit", commit)


def _result(unit: Any, conn: Any) -> Any:
    return unit.work(conn) if unit.batch is None else unit.batch(conn, [unit.item])[0]


def does_not_look_for_duplicates() -> Broken:
    """What is sent again is stored again."""
    return mock.patch.object(_Group, "_look_up")


def moves_cursors_without_looking() -> Broken:
    """A worker that has missed something writes on from where it believes to be."""

    def move(_self: object, conn: Any, channel: str, moves: dict[int, tuple[int, int]]) -> None:
        record._MOVE_CURSORS.write(conn, [(channel, partition, new) for partition, (_, new) in sorted(moves.items())])

    return mock.patch.object(Recorder, "move", move)


def does_not_check_leases() -> Broken:
    """A worker believes for ever that what it once had is its own."""
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    return mock.patch.multiple(Leases, check=nothing, check_destination=nothing)


def sends_without_making_sure_that_it_may() -> Broken:
    """A worker that hung, or was cut off from the database, goes on where it was and tells destinations old news."""
    return mock.patch.object(Leases, "may_act", return_value=True)


def lets_leases_time_out() -> Broken:
    """Locks that are taken from a worker which was not heard of, though its session lives: it may only be slow."""
    right = ClusterLocks.take

    def beat(self: Any) -> tuple[int, int]:
        self._process.pause("beat")
        now, workers = self._database.world.now, self._database.workers
        workers[self._name] = (self._session, now)
        living = sorted(name for name, (_, seen_at) in workers.items() if seen_at > now - STALE_SECONDS)
        return living.index(self._name), len(living)

    def take(self: Any, conn: Any, number: int) -> bool:
        now, holders = self._database.world.now, self._database.holders
        holder = holders.get(number)
        for session, seen_at in self._database.workers.values():
            if session is holder and seen_at <= now - STALE_SECONDS:
                holders[number] = conn.session
        return right(self, conn, number)

    return mock.patch.multiple(ClusterLocks, beat=beat, take=take)


def does_not_note_attempts() -> Broken:
    """After a crash nobody knows what was on its way."""

    def start(_self: object, conn: Any, delivery_id: int, _now: object) -> bool:
        found = conn.execute(text("SELECT 1 FROM delivery WHERE id = :id AND turn = 1"), {"id": delivery_id})
        return found.first() is not None

    return mock.patch.object(Outbox, "start", start)


def asks_no_rules() -> Broken:
    """What a rule keeps goes out all the same."""

    async def all_of_them(_self: Any, batch: Sequence[Any]) -> Sequence[Any]:
        return batch

    return mock.patch.object(_Rounds, "_admitted", all_of_them)


def loses_results() -> Broken:
    """What became of an attempt is not recorded when the store was away at that moment."""
    right = _Rounds._record

    async def settle(self: Any, settled: Sequence[Any], **more: Any) -> None:
        with mock.patch.object(self, "_write", write(self)):
            await right(self, settled, **more)

    def write(self: Any) -> Any:
        real = self._write

        async def once(work: Any) -> Any:
            try:
                return await real(work)
            except StoreUnavailableError:
                return None

        return once

    return mock.patch.object(_Rounds, "_record", settle)


def gives_everybody_the_turn() -> Broken:
    """The deliveries of a patient are all due at once."""
    unfinished = text("state IN ('pending', 'held')")
    promote = Listed(
        delivery.c.ordering_key,
        lambda listed: update(delivery).where(listed, unfinished).values(turn=literal_column("1")),
    )
    return mock.patch.object(outbox, "_PROMOTE", promote)


def does_not_join_lines() -> Broken:
    """What waits for a merged patient goes its own way."""
    return mock.patch.object(record, "join_lines")


def forgets_questions() -> Broken:
    """What a message has left to a person is asked nowhere."""
    return mock.patch.object(record, "record_holds", return_value=RecordedHolds((), {}))


def never_ends_questions() -> Broken:
    """What a later event has made true stays a question."""
    return mock.patch.object(_Questions, "end_by_facts")


def never_rings() -> Broken:
    """Deadlines come, and nobody looks."""
    return mock.patch.object(scheduler, "due", return_value=[])


def goes_on_paging() -> Broken:
    """A page calls its people again, though somebody has acknowledged it."""
    right = pages.acknowledged

    def acknowledged(page: Page, by: str, at: datetime, duty: Duty) -> Page:
        return structs.replace(right(page, by, at, duty), next_at=page.next_at)

    return mock.patch.object(pages, "acknowledged", acknowledged)


def pages_for_tasks_that_have_ended() -> Broken:
    """A page goes on when what it was about is over."""
    return mock.patch.object(pages, "called_off", lambda page, _why, _at, **_more: page)
