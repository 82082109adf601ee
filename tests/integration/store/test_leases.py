"""Leases: everything is one worker's, whoever dies, hangs, comes or goes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from engine.domain.partition import ALL_PARTITIONS
from engine.errors import LeaseLostError, StoreError, StoreUnavailableError
from engine.store import leases as leases_module
from engine.store.leases import Leases, database_leases, file_leases

SITES = ["lab", "crm", "files"]


@contextmanager
def child_holding(location, index: int, count: int) -> Iterator[int]:
    """Another process that holds its share of a SQLite store until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held = file_leases(location, index, count, SITES)
            held.beat()
            held.take()
            os.write(writing, len(held.partitions).to_bytes())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        yield os.read(reading, 1)[0]
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def taken(leases: Leases) -> frozenset[int]:
    leases.beat()
    leases.take()
    return leases.partitions


class Members:
    """Workers of several nodes on one PostgreSQL database, in one process: a session each, as it would be."""

    def __init__(self, site) -> None:
        self._site = site
        self.leases: dict[str, Leases] = {}
        self.stores = {}

    def join(self, name: str) -> Leases:
        store = self.stores[name] = self._site.open("worker")
        self.leases[name] = database_leases(store.location, store.charts_ledger, name, SITES)
        return self.leases[name]

    def round(self, *names: str) -> None:
        """Everybody looks who lives, lets go, and takes."""
        for step in ("beat", "beat", "take", "take"):
            for name in names or self.leases:
                getattr(self.leases[name], step)()

    def end_session(self, name: str) -> None:
        pid = self.stores[name].charts_ledger.write_now(
            lambda conn: conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        )
        other = self._site.open("tool")
        other.charts_ledger.write_now(
            lambda conn: conn.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid}).scalar_one()
        )


@pytest.fixture
def members(postgresql_site) -> Members:
    return Members(postgresql_site)


def owners(members: Members, name: str) -> list[str]:
    found = []
    for member, leases in members.leases.items():
        with leases.destination(name) as ours:
            if ours:
                found.append(member)
    return found


def test_a_worker_alone_has_everything(sqlite_site):
    alone = file_leases(sqlite_site.location, 0, 1, SITES)
    assert taken(alone) == ALL_PARTITIONS
    for name in SITES:
        with alone.destination(name) as ours:
            assert ours


def test_a_worker_has_nothing_before_it_has_taken_it(sqlite_site):
    leases = file_leases(sqlite_site.location, 0, 1, SITES)
    assert leases.partitions == frozenset()
    with leases.destination("lab") as ours:
        assert not ours


def test_two_workers_of_a_node_share_everything_without_overlap(sqlite_site):
    with child_holding(sqlite_site.location, 1, 2) as others:
        mine = taken(file_leases(sqlite_site.location, 0, 2, SITES))
        assert (len(mine), others) == (32, 32)


def test_what_a_killed_worker_had_is_free(sqlite_site):
    alone = file_leases(sqlite_site.location, 0, 1, SITES)
    with child_holding(sqlite_site.location, 0, 2):
        assert len(taken(alone)) == 32
    assert taken(alone) == ALL_PARTITIONS


def test_workers_of_two_nodes_share_everything_without_overlap(members):
    first, second = members.join("a"), members.join("b")
    members.round("a")
    assert first.partitions == ALL_PARTITIONS
    members.round()
    assert first.partitions | second.partitions == ALL_PARTITIONS
    assert not first.partitions & second.partitions
    assert abs(len(first.partitions) - len(second.partitions)) <= 1
    assert [len(owners(members, name)) for name in SITES] == [1, 1, 1]


def test_nobody_gets_what_another_has_not_let_go_of(members):
    first, second = members.join("a"), members.join("b")
    members.round("a")
    second.beat()
    second.take()
    assert second.partitions == frozenset()
    assert first.partitions == ALL_PARTITIONS


def test_a_worker_that_leaves_is_followed_at_once(members):
    first = members.join("a")
    members.join("b")
    members.round()
    members.leases["b"].leave()
    members.round("a")
    assert first.partitions == ALL_PARTITIONS


def test_a_destination_in_use_is_kept_until_the_use_ends(members):
    first = members.join("a")
    members.round("a")
    name = next(name for name in SITES if leases_module.destination_number(name) % 2 == 1)
    with first.destination(name) as ours:
        assert ours
        second = members.join("b")
        members.round()
        with second.destination(name) as taken_away:
            assert not taken_away
        with first.destination(name) as another_use:
            assert not another_use, "or one that is always in use would never be let go of"
    members.round()
    assert owners(members, name) == ["b"]


def test_a_worker_whose_session_is_gone_can_write_for_nothing_until_it_has_taken_it_again(members):
    first = members.join("a")
    members.round()
    ledger = members.stores["a"].charts_ledger
    ledger.write_now(lambda conn: first.check(conn, {1, 2}))
    members.end_session("a")
    with pytest.raises(StoreUnavailableError):
        ledger.write_now(lambda conn: conn.execute(text("SELECT 1")))
    with pytest.raises(LeaseLostError):
        ledger.write_now(lambda conn: first.check(conn, {1, 2}))
    with pytest.raises(LeaseLostError):
        ledger.write_now(lambda conn: first.check_destination(conn, "lab"))
    members.round()
    ledger.write_now(lambda conn: first.check(conn, {1, 2}))


def test_what_another_is_to_have_cannot_be_written_for_while_its_lock_is_still_held(members):
    first, second = members.join("a"), members.join("b")
    members.round("a")
    second.beat()
    first.beat()
    leaving = first._let_go()  # what a write in the same transaction as the release would be checked against
    assert leaving
    with pytest.raises(LeaseLostError):
        members.stores["a"].charts_ledger.write_now(lambda conn: first.check(conn, {min(leaving)}))
    second.beat()
    second.take()
    assert second.partitions == frozenset()


def test_what_is_not_held_cannot_be_written_for(members):
    first = members.join("a")
    members.join("b")
    members.round()
    foreign = min(ALL_PARTITIONS - first.partitions)
    with pytest.raises(LeaseLostError):
        members.stores["a"].charts_ledger.write_now(lambda conn: first.check(conn, {foreign}))


def test_a_worker_that_hangs_is_fenced_and_its_share_taken_over(members, monkeypatch):
    first, second = members.join("a"), members.join("b")
    members.round()
    time.sleep(0.5)
    second.beat()
    monkeypatch.setattr(leases_module, "STALE_SECONDS", 0.4)
    until = time.monotonic() + 60
    while len(second.partitions) < len(ALL_PARTITIONS) and time.monotonic() < until:
        members.round("b")  # a has not been heard of for longer than that; the server ends its session
    monkeypatch.undo()
    assert second.partitions == ALL_PARTITIONS
    with pytest.raises(StoreUnavailableError):  # a wakes up, and writes
        members.stores["a"].charts_ledger.write_now(lambda conn: conn.execute(text("SELECT 1")))
    with pytest.raises(LeaseLostError):
        members.stores["a"].charts_ledger.write_now(lambda conn: first.check(conn, {2}))
    members.round()
    assert first.partitions | second.partitions == ALL_PARTITIONS
    assert not first.partitions & second.partitions


def test_who_was_away_himself_ends_nobodys_session(members, monkeypatch):
    """The database stood still, or was cut off from everybody: all look stale to whoever comes back first."""
    first, second = members.join("a"), members.join("b")
    members.round()
    shares = first.partitions, second.partitions
    time.sleep(0.5)
    monkeypatch.setattr(leases_module, "STALE_SECONDS", 0.4)
    second.beat()
    first.beat()
    second.beat()
    for name, leases in members.leases.items():
        members.stores[name].charts_ledger.write_now(lambda conn, leases=leases: leases.check(conn, leases.partitions))
    monkeypatch.undo()
    members.round()
    assert (first.partitions, second.partitions) == shares


def test_a_clock_that_goes_back_keeps_no_dead_worker_alive(members, monkeypatch):
    """A standby whose clock is an hour behind takes over; worker a has died with its machine meanwhile."""
    members.join("a")
    second = members.join("b")
    members.round()
    members.end_session("a")
    members.stores["b"].charts_ledger.write_now(
        lambda conn: conn.execute(text("UPDATE charts.worker SET seen_at = seen_at + 3600000000"))
    )
    monkeypatch.setattr(leases_module, "STALE_SECONDS", 0.4)
    until = time.monotonic() + 60
    while second.partitions != ALL_PARTITIONS and time.monotonic() < until:
        members.round("b")
        time.sleep(0.05)
    assert second.partitions == ALL_PARTITIONS


def test_a_destination_that_is_no_longer_wanted_is_let_go_of_when_its_use_ends(members):
    leases = members.join("a")
    members.round()
    with leases.destination("lab") as ours:
        assert ours
        leases.wanted_destinations(["crm", "files"])  # a reload took it away while it delivers
        members.round()
        members.stores["a"].charts_ledger.write_now(lambda conn: leases.check_destination(conn, "lab"))
    members.round()
    assert owners(members, "lab") == []
    with pytest.raises(LeaseLostError):
        members.stores["a"].charts_ledger.write_now(lambda conn: leases.check_destination(conn, "lab"))
    leases.wanted_destinations(SITES)
    members.round()
    assert owners(members, "lab") == ["a"]


def test_a_new_destination_waits_for_the_worker_whose_it_is_until_that_knows_it(members):
    """A configuration that is rolled out node by node (see the guide for clusters): nobody else takes it meanwhile."""
    workers = [members.join("a"), members.join("b")]
    members.round()
    owner = leases_module.destination_number("new") % 2
    workers[1 - owner].wanted_destinations([*SITES, "new"])
    members.round()
    assert owners(members, "new") == []
    workers[owner].wanted_destinations([*SITES, "new"])
    members.round()
    assert owners(members, "new") == ["ab"[owner]]


def test_nothing_is_held_by_a_session_that_the_others_do_not_know(members, monkeypatch):
    leases = members.join("a")
    beat, events = leases._locks.beat, []

    def fails_once():
        events.append("beat")
        if events == ["beat"]:
            raise StoreUnavailableError("the network dropped it")
        return beat()

    def take(conn, number):
        if events[-1] != "take":
            events.append("take")
        return True

    monkeypatch.setattr(leases._locks, "beat", fails_once)
    monkeypatch.setattr(leases._locks, "take", take)
    with pytest.raises(StoreUnavailableError):
        leases.take()
    assert leases.partitions == frozenset()
    leases.take()
    assert events == ["beat", "beat", "take"]


def test_who_hung_may_not_act_at_a_destination_until_it_has_looked_at_its_locks_again(members, monkeypatch):
    first = members.join("a")
    members.round()
    assert first.may_act("lab")
    monkeypatch.setattr(leases_module, "_FRESH_SECONDS", 0.2)
    time.sleep(0.3)
    assert not first.may_act("lab")
    first.take()
    assert not first.may_act("lab"), "the others have not heard of it"
    first.beat()
    first.take()
    assert first.may_act("lab")
    assert not first.may_act("a destination of nobody")


def test_a_worker_that_hung_on_one_machine_may_act_for_nobody_has_taken_what_it_holds(sqlite_site, monkeypatch):
    alone = file_leases(sqlite_site.location, 0, 1, SITES)
    taken(alone)
    monkeypatch.setattr(leases_module, "_FRESH_SECONDS", 0.0)
    assert alone.may_act("lab")


def test_a_release_that_is_run_again_with_its_group_costs_no_session(members):
    """PostgreSQL warns of a lock that is released twice, and a warning could be one about the standbys."""
    first, second = members.join("a"), members.join("b")
    members.round("a")
    second.beat()
    first.beat()
    leaving, gate = first._let_go(), threading.Event()
    assert leaving
    ledger, session = members.stores["a"].charts_ledger, first._session

    def broken(_conn):
        raise ZeroDivisionError

    with ThreadPoolExecutor(3) as pool:
        opening = pool.submit(ledger.write_now, lambda _conn: gate.wait(10))
        time.sleep(0.1)
        releasing = pool.submit(ledger.write_now, lambda conn: first._take(conn, leaving))
        time.sleep(0.1)
        breaking = pool.submit(ledger.write_now, broken)
        time.sleep(0.1)
        gate.set()
        opening.result()
        releasing.result()
        with pytest.raises(ZeroDivisionError):
            breaking.result()
    ledger.write_now(lambda conn: first.check(conn, first.partitions))
    assert first._session is session
    second.take()
    assert first.partitions | second.partitions == ALL_PARTITIONS


async def test_leases_go_on_after_whatever_the_store_says(sqlite_site, monkeypatch):
    monkeypatch.setattr(leases_module, "TICK_SECONDS", 0.01)
    leases = file_leases(sqlite_site.location, 0, 1, SITES)
    take, refusals = leases._locks.take, iter(range(2))

    def refuses_at_first(conn, number):
        if next(refusals, None) is not None:
            raise StoreError("the store refused what was asked")
        return take(conn, number)

    monkeypatch.setattr(leases._locks, "take", refuses_at_first)
    stopping = asyncio.Event()
    running = asyncio.create_task(leases.run(stopping))
    async with asyncio.timeout(60):
        while leases.partitions != ALL_PARTITIONS:
            await asyncio.sleep(0.01)
    stopping.set()
    await running


async def test_a_database_that_stands_still_for_a_while_costs_nobody_his_session(
    postgresql_site, postgres, monkeypatch
):
    monkeypatch.setattr(leases_module, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(leases_module, "STALE_SECONDS", 2.0)
    members = Members(postgresql_site)
    stopping = asyncio.Event()
    running = [asyncio.create_task(members.join(name).run(stopping)) for name in "ab"]

    def shares():
        return [members.leases[name].partitions for name in "ab"]

    async with asyncio.timeout(60):
        while sorted(map(len, shares())) != [32, 32]:
            await asyncio.sleep(0.05)
    before = shares(), [members.leases[name]._session for name in "ab"]
    with postgres.frozen():
        await asyncio.sleep(2.7)
    await asyncio.sleep(1.0)
    assert (shares(), [members.leases[name]._session for name in "ab"]) == before
    stopping.set()
    await asyncio.gather(*running)


async def test_running_leases_take_over_by_themselves(postgresql_site):
    members = Members(postgresql_site)
    stopping = {name: asyncio.Event() for name in "ab"}
    tasks = {name: asyncio.create_task(members.join(name).run(stopping[name])) for name in "ab"}

    async def shared(*names: str) -> None:
        async with asyncio.timeout(60):
            while True:
                held = [members.leases[name].partitions for name in names]
                if frozenset().union(*held) == ALL_PARTITIONS and sum(map(len, held)) == len(ALL_PARTITIONS):
                    return
                await asyncio.sleep(0.05)

    await shared("a", "b")
    stopping["a"].set()
    await tasks["a"]
    members.leases["a"].leave()
    await shared("b")
    stopping["b"].set()
    await tasks["b"]
