"""The write path: groups, failures of a unit, and a store that goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import event, func, select, text
from store_builders import NOW, append, outcome, receipt, record

from engine.errors import StoreError, StoreUnavailableError
from engine.store.engines import writer_engine
from engine.store.journal import Append
from engine.store.ledger import Ledger
from engine.store.schema import JOURNAL, entry, link


def insert(name):
    def work(conn):
        conn.execute(link.insert().values(channel=name, sequence_number=1))
        return name

    return work


def names(store):
    with store.reader() as conn:
        return sorted(row.channel for row in conn.execute(select(link.c.channel)))


async def test_a_write_returns_what_its_work_returns_once_others_can_read_it(store):
    assert await store.journal_ledger.write(insert("a")) == "a"
    assert names(store) == ["a"]


async def test_64_writers_at_once_lose_nothing_and_share_transactions(store):
    commits = []
    event.listen(store.journal_ledger._engine, "commit", commits.append)

    async def sender(number):
        ids = []
        for turn in range(20):
            item = Append(receipts=(receipt(store.keys, f"{number}-{turn}"),))
            [stored] = await store.journal_ledger.add(store.journal.append_each, item)
            ids.append(stored.id)
        return ids

    ids = await asyncio.gather(*(sender(number) for number in range(64)))
    assert sorted(number for own in ids for number in own) == list(range(1, 64 * 20 + 1))
    assert all(own == sorted(own) for own in ids)
    assert store.read_now(lambda conn: conn.execute(select(func.count()).select_from(entry)).scalar_one()) == 1280
    assert len(commits) < 1280 / 4


async def test_a_unit_that_fails_does_not_harm_its_group(store):
    ledger = store.journal_ledger
    gate = threading.Event()
    first = asyncio.ensure_future(ledger.write(lambda _conn: gate.wait()))
    await asyncio.sleep(0.05)  # the next ones gather behind it

    def broken(conn):
        insert("broken")(conn)
        raise ZeroDivisionError

    group = [
        asyncio.ensure_future(ledger.write(work))
        for work in (insert("a"), broken, insert("b"), insert("a"), insert("c"))
    ]
    gate.set()
    results = await asyncio.gather(first, *group, return_exceptions=True)
    assert results[1] == "a"
    assert isinstance(results[2], ZeroDivisionError)
    assert results[3] == "b"
    assert isinstance(results[4], StoreError)
    assert not isinstance(results[4], StoreUnavailableError)
    assert results[5] == "c"
    assert names(store) == ["a", "b", "c"]


async def test_one_bad_item_of_a_combined_call_fails_alone(store):
    ledger, journal = store.journal_ledger, store.journal
    gate = threading.Event()
    first = asyncio.ensure_future(ledger.write(lambda _conn: gate.wait()))
    await asyncio.sleep(0.05)
    items = [
        Append(receipts=(receipt(store.keys, "1"),)),
        Append(receipts=(receipt(store.keys, "2", replay_of=99),)),
        Append(receipts=(receipt(store.keys, "3"),)),
    ]
    waiting = [asyncio.ensure_future(ledger.add(journal.append_each, item)) for item in items]
    gate.set()
    one, two, three = await asyncio.gather(*waiting, return_exceptions=True)
    await first
    assert (one[0].id, three[0].id) == (1, 2)
    assert isinstance(two, StoreError)


async def test_a_writer_that_gave_up_waiting_disturbs_nobody(store):
    gate = threading.Event()
    first = asyncio.ensure_future(store.journal_ledger.write(lambda _conn: gate.wait()))
    gone = asyncio.ensure_future(store.journal_ledger.write(insert("a")))
    other = asyncio.ensure_future(store.journal_ledger.write(insert("b")))
    await asyncio.sleep(0.05)
    gone.cancel()
    gate.set()
    assert await other == "b"
    await first
    assert names(store) == ["a", "b"]


def test_threads_without_an_event_loop_write_too(store):
    threads = [
        threading.Thread(target=store.journal_ledger.write_now, args=(insert(f"n{number}"),)) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(store) == [f"n{number}" for number in range(8)]


def test_closing_finishes_what_waits_and_refuses_what_comes_later(store, monkeypatch):
    ledger = store.journal_ledger
    gate = threading.Event()
    waiting = []
    put = ledger._put
    monkeypatch.setattr(ledger, "_put", lambda unit: (put(unit), waiting.append(unit)))
    writers = [threading.Thread(target=ledger.write_now, args=(lambda _conn: gate.wait(),))]
    writers += [threading.Thread(target=ledger.write_now, args=(insert(f"n{number}"),)) for number in range(3)]
    for number, writer in enumerate(writers):
        writer.start()
        while len(waiting) <= number:
            time.sleep(0.01)
    closing = threading.Thread(target=ledger.close)
    closing.start()
    gate.set()
    closing.join()
    with pytest.raises(StoreUnavailableError, match="closed"):
        ledger.write_now(insert("late"))
    assert names(store) == ["n0", "n1", "n2"]


def test_a_process_may_write_its_own_side_only(site):
    main, worker = site.open("main"), site.open("worker")
    main.journal_ledger.write_now(insert("a"))
    worker.charts_ledger.write_now(worker.recorder.cursors)
    with pytest.raises(StoreError, match="main process does not write the charts"):
        _ = main.charts_ledger
    with pytest.raises(StoreError, match="worker process does not write the journal"):
        _ = worker.journal_ledger


def test_a_journal_that_is_older_than_the_charts_stops_the_daemon_but_not_an_inspection(site):
    store = site.open("tool")
    append(store, *(receipt(store.keys, str(number)) for number in range(3)))
    record(store, outcome(1), outcome(2))
    site.open("main")
    store.journal_ledger.write_now(lambda conn: conn.execute(entry.delete().where(entry.c.id > 1)))
    for role in ("main", "worker"):
        with pytest.raises(StoreError, match="older than the charts"):
            site.open(role)
    site.open("tool")


def test_a_reader_cannot_write(store):
    with pytest.raises(StoreError), store.reader() as conn:
        insert("a")(conn)
    assert names(store) == []


def test_readers_go_on_while_a_writer_is_busy(store):
    append(store, receipt(store.keys, "1"))
    begun, gate = threading.Event(), threading.Event()

    def busy(conn):
        store.journal.append(conn, [receipt(store.keys, "2")])
        begun.set()
        gate.wait()

    writer = threading.Thread(target=store.journal_ledger.write_now, args=(busy,))
    writer.start()
    begun.wait()
    try:
        assert len(store.read_now(store.journal.find)) == 1
    finally:
        gate.set()
        writer.join()
    assert len(store.read_now(store.journal.find)) == 2


def test_a_reader_sees_one_moment_of_the_journal(store):
    with store.reader() as conn:
        assert store.journal.find(conn) == []
        append(store, receipt(store.keys, "1"))
        assert store.journal.find(conn) == []
    assert len(store.read_now(store.journal.find)) == 1


async def test_reading_does_not_stop_the_event_loop(store):
    gate = threading.Event()
    reading = asyncio.ensure_future(store.read(lambda _conn: gate.wait(60)))
    await asyncio.sleep(0.02)
    assert not reading.done()
    gate.set()
    assert await reading


def test_a_store_that_is_closed_says_so(store):
    store.close()
    with pytest.raises(StoreError, match="closed"), store.reader():
        pass
    with pytest.raises(StoreError, match="closed"):
        _ = store.journal_ledger


# --- a store that goes away ------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_to_every_sender_and_the_ledger_recovers(sqlite_site):
    """SQLite's page limit stands in for the disk: the same error at the same place."""
    engine = writer_engine(sqlite_site.location, JOURNAL)
    full = threading.Event()

    @event.listens_for(engine, "connect")
    def _limit(connection, _record):
        pages = connection.execute("PRAGMA journal.page_count").fetchone()[0]
        connection.execute(f"PRAGMA journal.max_page_count = {pages + 20 if full.is_set() else 1 << 30}")

    full.set()
    ledger = Ledger(engine, JOURNAL)
    store = sqlite_site.open("worker")
    answered = 0
    failure = None
    while failure is None:
        item = Append(receipts=(receipt(store.keys, str(answered), payload=bytes(4000)),))
        [failure] = await asyncio.gather(ledger.add(store.journal.append_each, item), return_exceptions=True)
        if not isinstance(failure, Exception):
            failure = None
            answered += 1
    assert isinstance(failure, StoreUnavailableError)
    assert "disk is full (SQLITE_FULL)" in str(failure)
    assert answered > 0
    group = [Append(receipts=(receipt(store.keys, f"x{number}", payload=bytes(40000)),)) for number in range(3)]
    waiting = [ledger.add(store.journal.append_each, item) for item in group]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailableError] * 3
    assert len(store.read_now(lambda conn: store.journal.find(conn, limit=None))) == answered
    full.clear()
    results = await asyncio.gather(*(ledger.add(store.journal.append_each, item) for item in group))
    assert [result[0].id for result in results] == [answered + 1, answered + 2, answered + 3]
    ledger.close()


def test_a_database_that_drops_its_connections_is_reconnected(postgresql_site):
    store = postgresql_site.open("tool")
    append(store, receipt(store.keys, "1"))
    kick = text(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
    )
    store.charts_ledger.write_now(lambda conn: conn.execute(kick).all())
    with pytest.raises(StoreUnavailableError) as caught:
        append(store, receipt(store.keys, "2"))
    assert caught.value.__context__ is None
    [stored] = append(store, receipt(store.keys, "2"))
    assert stored.id == 2
    assert len(store.read_now(store.journal.find)) == 2


def test_a_connection_cut_in_the_middle_of_a_group_leaves_nothing_of_it(postgresql_site):
    store = postgresql_site.open("tool")
    kick = text("SELECT pg_terminate_backend(pg_backend_pid())")

    def cut(conn):
        store.journal.append(conn, [receipt(store.keys, "1")])
        conn.execute(kick)

    with pytest.raises(StoreUnavailableError):
        store.journal_ledger.write_now(cut)
    assert store.read_now(store.journal.find) == []
    assert append(store, receipt(store.keys, "1"))[0].id == 1


def test_a_deadlock_costs_neither_the_work_nor_the_session(postgresql_site):
    """A group takes the locks of its second unit after those of its first: two workers can wait for each other."""
    one, other = (postgresql_site.open("tool").charts_ledger for _ in range(2))
    pid = text("SELECT pg_backend_pid()")
    sessions = [ledger.write_now(lambda conn: conn.execute(pid).scalar_one()) for ledger in (one, other)]
    gate, met = threading.Event(), threading.Barrier(2)

    def lock(conn, number):
        conn.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})

    def meet():
        with contextlib.suppress(threading.BrokenBarrierError):  # whoever comes again waits for nobody
            met.wait(1)

    def outbox_and_then(conn):
        lock(conn, 1)
        meet()
        return conn.execute(pid).scalar_one()

    def chart(conn):
        lock(conn, 2)
        return "chart"

    def chart_and_then_outbox(conn):
        lock(conn, 2)
        meet()
        lock(conn, 1)
        return conn.execute(pid).scalar_one()

    with ThreadPoolExecutor(4) as pool:
        opening = pool.submit(one.write_now, lambda _conn: gate.wait(10))
        time.sleep(0.1)
        group = [pool.submit(one.write_now, outbox_and_then)]
        time.sleep(0.1)
        group.append(pool.submit(one.write_now, chart))
        time.sleep(0.1)
        alone = pool.submit(other.write_now, chart_and_then_outbox)
        gate.set()
        opening.result()
        assert [unit.result() for unit in group] == [sessions[0], "chart"]
        assert alone.result() == sessions[1]


def test_a_unit_that_is_always_in_the_way_of_others_fails_in_the_end_and_alone(postgresql_site):
    ledger = postgresql_site.open("tool").charts_ledger
    tries = []

    def loses(conn):
        tries.append(1)
        conn.execute(text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(StoreUnavailableError):
        ledger.write_now(loses)
    assert len(tries) == 5
    assert ledger.write_now(lambda conn: conn.execute(text("SELECT 1")).scalar_one()) == 1


def test_whoever_waits_for_a_lock_sees_what_its_holder_wrote_whatever_the_servers_default_is(postgresql_site):
    store = postgresql_site.open("tool")
    strict = text("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
    try:
        store.charts_ledger.write_now(lambda conn: conn.execute(strict))
        stores = [postgresql_site.open("tool") for _ in range(4)]

        def run(number):
            for turn in range(10):
                append(stores[number], receipt(stores[number].keys, f"{number}-{turn}"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, range(4)))
        assert len(store.read_now(lambda conn: store.journal.find(conn, limit=None))) == 40
    finally:
        reset = text("ALTER ROLE postgres RESET default_transaction_isolation")
        store.charts_ledger.write_now(lambda conn: conn.execute(reset))


def test_a_server_that_would_answer_before_the_disk_has_it_is_overruled(postgresql_site):
    store = postgresql_site.open("tool")
    off = text("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        store.charts_ledger.write_now(lambda conn: conn.execute(off))
        value = store.journal_ledger.write_now(lambda conn: conn.execute(text("SHOW synchronous_commit")).scalar_one())
        assert value == "on"
    finally:
        reset = text("ALTER ROLE postgres RESET synchronous_commit")
        store.charts_ledger.write_now(lambda conn: conn.execute(reset))


def test_a_commit_whose_wait_for_the_standbys_was_cancelled_is_not_acknowledged(postgresql_site):
    """PostgreSQL calls such a commit a success, and warns: a standby that takes over then would not have it."""
    store = postgresql_site.open("tool")
    numbers: list[str] = []

    def append_until_one_waits() -> None:
        """The server takes its new settings when it comes to it; until then commits wait for nobody."""
        while True:
            numbers.append(str(len(numbers)))
            append(store, receipt(store.keys, numbers[-1]))

    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'"
    with psycopg.connect(postgresql_site.url.replace("+psycopg", ""), autocommit=True) as operator:
        try:
            operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'")
            operator.execute("SELECT pg_reload_conf()")
            with ThreadPoolExecutor(1) as pool:
                appending = pool.submit(append_until_one_waits)
                while (row := operator.execute(waiting).fetchone()) is None:
                    assert not appending.done()
                    time.sleep(0.05)
                operator.execute("SELECT pg_cancel_backend(%s)", row)
                with pytest.raises(StoreUnavailableError, match="standbys"):
                    appending.result()
        finally:
            operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
            operator.execute("SELECT pg_reload_conf()")
    assert append(store, receipt(store.keys, numbers[-1]))[0].duplicate_of == len(numbers)


def test_two_processes_can_append_at_once_without_a_gap(site):
    stores = [site.open("tool"), site.open("tool")]

    def run(number):
        for turn in range(30):
            append(stores[number], receipt(stores[number].keys, f"{number}-{turn}"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = stores[0].read_now(lambda conn: stores[0].journal.find(conn, limit=None))
    assert [one.id for one in listed] == list(range(60, 0, -1))


def test_two_processes_that_get_the_same_message_at_once_keep_one_entry(site):
    stores = [site.open("tool") for _ in range(4)]
    stored = []

    def run(store):
        stored.extend(append(store, receipt(store.keys, "same")))

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(one.duplicate_of) for one in stored) == ["1", "1", "1", "None"]


def test_the_log_is_brought_into_the_file_when_there_is_nothing_to_do(sqlite_site):
    with sqlite_site.open("tool") as store:
        append(store, receipt(store.keys, "1", payload=bytes(1_000_000)))
        file = sqlite_site.location.file(JOURNAL)
        deadline = time.monotonic() + 60
        while file.stat().st_size < 1_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert file.stat().st_size > 1_000_000


def test_the_log_does_not_grow_without_end_under_load(sqlite_site, monkeypatch):
    monkeypatch.setattr("engine.store.ledger._WAL_FRAMES_MAX", 100)
    monkeypatch.setattr("engine.store.ledger._GROUPS_BETWEEN_LOOKS", 1)
    with sqlite_site.open("tool") as store:
        for number in range(200):
            append(store, receipt(store.keys, str(number), payload=bytes(20_000)))
        log = sqlite_site.location.file(JOURNAL)
        assert log.with_name(f"{log.name}-wal").stat().st_size < 200 * 20_000 / 2


def test_a_writer_outlives_an_error_that_nobody_expected(sqlite_site, monkeypatch):
    with sqlite_site.open("tool") as store:
        broken = threading.Event()

        def fail(_ledger, _mode):
            broken.set()
            raise RuntimeError

        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "_frames", fail)
            store.journal_ledger.write_now(insert("a"))
            assert broken.wait(60)
        store.journal_ledger.write_now(insert("b"))
        assert names(store) == ["a", "b"]


def writing_thread(store, work=lambda conn: None):
    """The thread that a unit of ours runs in."""

    def unit(conn):
        work(conn)
        return threading.current_thread()

    return store.charts_ledger.write_now(unit)


def write_without_the_thread(store):
    """Write until nobody else does; the ledger's own thread takes the first turn, because it has to clear up."""
    deadline = time.monotonic() + 60
    while writing_thread(store) is not threading.current_thread():
        assert time.monotonic() < deadline


def test_who_finds_nobody_writing_is_the_writer(sqlite_site):
    with sqlite_site.open("tool") as store:
        assert writing_thread(store) is not threading.current_thread()
        write_without_the_thread(store)
        with pytest.raises(ZeroDivisionError):
            writing_thread(store, lambda conn: 1 / 0)
        write_without_the_thread(store)


def test_who_finds_another_one_writing_waits_for_its_turn(sqlite_site):
    with sqlite_site.open("tool") as store, ThreadPoolExecutor(2) as threads:
        write_without_the_thread(store)
        begun, done = threading.Event(), []

        def hold(_conn):
            begun.set()
            time.sleep(0.05)
            done.append("first")

        first = threads.submit(store.charts_ledger.write_now, hold)
        assert begun.wait(60)
        second = threads.submit(store.charts_ledger.write_now, lambda _conn: done.append("second"))
        first.result(60)
        second.result(60)
        assert done == ["first", "second"]


def test_the_log_is_brought_into_the_file_after_those_who_wrote_without_the_thread(sqlite_site):
    with sqlite_site.open("tool") as store:
        write_without_the_thread(store)
        deadline = time.monotonic() + 60
        while store.charts_ledger._dirty and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not store.charts_ledger._dirty


async def test_a_combined_call_that_forgets_a_result_fails_its_callers_only(store):
    with pytest.raises(ValueError, match="shorter"):
        await store.journal_ledger.add(lambda _conn, _items: [], 1)
    assert await store.journal_ledger.write(insert("a")) == "a"


def test_sqlite_writers_sync_fully_and_readers_cannot_write(sqlite_site):
    store = sqlite_site.open("tool")
    pragmas = ("journal_mode", "synchronous", "page_size")
    work = lambda conn: {name: conn.exec_driver_sql(f"PRAGMA journal.{name}").scalar() for name in pragmas}  # noqa: E731
    assert store.journal_ledger.write_now(work) == {"journal_mode": "wal", "synchronous": 2, "page_size": 4096}
    plain = ("foreign_keys", "wal_autocheckpoint", "query_only")
    work = lambda conn: [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in plain]  # noqa: E731
    assert store.journal_ledger.write_now(work) == [1, 0, 0]
    with store.reader() as conn:
        assert conn.exec_driver_sql("PRAGMA query_only").scalar() == 1


def test_a_killed_process_leaves_whole_groups_only(sqlite_site):
    """While it appends groups of three: whatever was acknowledged is there, and no part of a group."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store = sqlite_site.open("main")
            number = 0
            while True:
                append(store, *(receipt(store.keys, f"{number}-{part}") for part in range(3)))
                os.write(writing, b"x")
                number += 1
        finally:
            os._exit(1)
    os.close(writing)
    acknowledged = 0
    while acknowledged < 20:
        acknowledged += len(os.read(reading, 4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 4096):
        acknowledged += len(more)
    os.close(reading)
    store = sqlite_site.open("tool")
    listed = store.read_now(lambda conn: store.journal.find(conn, limit=None))
    assert len(listed) % 3 == 0
    assert acknowledged <= len(listed) // 3 <= acknowledged + 1
    assert append(store, receipt(store.keys, "next"))[0].id == len(listed) + 1
    assert listed[0].received_at == NOW
