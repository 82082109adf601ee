"""The PostgreSQL server dies under load and comes back. More of it: tests/acceptance/test_postgresql.py."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from harness import MakeDaemon, Site
from load import SteadyLoad
from peers.postgres_server import PostgresServer
from test_kill import admission
from watch import events, eventually, log, readiness

AA, AR = b"MSA|AA", b"MSA|AR"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of this test alone: it is stopped."""
    server = PostgresServer()
    yield server
    server.start()
    server.close()


def under_load(load: SteadyLoad) -> None:
    before = len(load.acknowledged)
    eventually(lambda: len(load.acknowledged) > before + 50)


def test_a_database_server_that_dies_under_load_costs_a_pause_and_no_message(
    site: Site, make_daemon: MakeDaemon, postgres: PostgresServer
) -> None:
    site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {postgres.url(postgres.new_database())}"))
    daemon = make_daemon(site)
    load = SteadyLoad()
    threads = load.run(daemon)
    for _ in range(2):
        under_load(load)
        postgres.crash()
        answer = daemon.send(admission(1_000_000))[0]
        assert AR in answer
        assert b"207^Application internal error" in answer
        eventually(lambda: readiness(daemon) == (False, ["store-not-writable"]))
        time.sleep(0.5)
        postgres.start()
        eventually(lambda: readiness(daemon) == (True, []))
    under_load(load)
    assert AA in daemon.send(admission(1_000_000))[0]
    assert {"store failed, senders are told to send again", "store works again"} <= events(daemon)
    assert not any("psycopg" in str(line.get("exception_text", "")) for line in log(daemon))
    assert daemon.stop() == 0
    for thread in threads:
        thread.join(timeout=30)

    daemon = make_daemon(site)
    [row] = daemon.settled(seconds=120)
    assert row["balanced"]
    listed = Counter(entry["control_id"] for entry in site.json("messages", "list", "--limit", "1000000"))
    assert not {f"C{number}" for number in load.acknowledged} - set(listed), "acknowledged and lost"
    assert max(listed.values()) == 1
    assert row["processed"] == len(listed)
    assert (row["deliveries"]["dead"], row["deliveries"]["held"]) == (0, 0)
    assert daemon.stop() == 0


def test_a_daemon_does_not_start_without_its_database_and_says_so(site: Site, postgres: PostgresServer) -> None:
    site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {postgres.url(postgres.new_database())}"))
    postgres.crash()
    done = site.run("run", code=69)
    assert "the database can't be reached" in done.stderr
    assert postgres.url("x").partition("host=")[2] not in done.stderr
