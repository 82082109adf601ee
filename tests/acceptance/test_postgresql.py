"""The real daemon on PostgreSQL: the same promises as on SQLite."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Daemon, Site
from peers.postgres_server import PostgresServer
from test_kill import Load

ROUNDS = 4


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


def test_kill_9_on_postgresql_loses_nothing_and_repeats_nothing(
    site: Site, make_daemon: Callable[[Site], Daemon], postgres: PostgresServer
) -> None:
    site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {postgres.url(postgres.new_database())}"))
    moments = random.Random(4)
    load = Load()
    for round_ in range(ROUNDS):
        daemon = make_daemon(site)
        threads = load.run(daemon)
        time.sleep(moments.uniform(0.2, 1.0))
        if round_ == ROUNDS - 1:
            load.wait_for(ROUNDS * 5)
        daemon.kill()
        for thread in threads:
            thread.join(timeout=30)

    daemon = make_daemon(site)
    ledger = daemon.settled(seconds=120)
    assert all(row["balanced"] for row in ledger), ledger
    listed = site.json("messages", "list", "--limit", "1000000")
    by_control = Counter(message["control_id"] for message in listed)
    assert not {number for number in load.acknowledged if f"C{number}" not in by_control}, "acknowledged and lost"
    assert max(by_control.values()) == 1
    assert {message["state"] for message in listed} == {"processed"}
    site.run("ledger")
    assert daemon.stop() == 0


def test_the_database_goes_away_and_comes_back(
    site: Site, make_daemon: Callable[[Site], Daemon], postgres: PostgresServer
) -> None:
    name = postgres.new_database()
    site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {postgres.url(name)}"))
    daemon = make_daemon(site)
    load = Load()
    threads = load.run(daemon)
    time.sleep(0.5)
    load.wait_for(0)
    for _ in range(3):  # every connection is cut, under load
        with contextlib.suppress(psycopg.Error):  # the server may close ours first
            postgres.execute(
                "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
        time.sleep(0.3)
    time.sleep(1)
    load.wait_for(len(load.acknowledged))  # the daemon has found its way back
    answer = daemon.send(
        "MSH|^~\\&|A|B|C|D|20260301120000||ADT^A28^ADT_A05|AFTER|P|2.5.1\rEVN|A28|20260301120000\rPID|1||77^^^MRN^MR\r"
    )[0]
    assert b"MSA|AA|AFTER" in answer
    daemon.kill()
    for thread in threads:
        thread.join(timeout=30)
    daemon = make_daemon(site)
    assert all(row["balanced"] for row in daemon.settled())
    control_ids = Counter(message["control_id"] for message in site.json("messages", "list", "--limit", "1000000"))
    assert not {number for number in load.acknowledged if f"C{number}" not in control_ids}, "acknowledged and lost"
    assert max(control_ids.values()) == 1
