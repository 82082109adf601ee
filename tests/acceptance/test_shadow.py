"""A channel in shadow beside a running daemon: kill -9 between its two commits, and going live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crashing.sitecustomize import IN_SHADOW
from harness import Daemon, Site
from peers.postgres_server import PostgresServer
from test_crash_points import CRASHING
from test_kill import Load, admission

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=DATABASES)
def shadow(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site with two workers and one channel, which is in shadow."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {postgres.url(postgres.new_database())}"))
    site.edit("channels/main-campus.yaml", ("mode: live", "mode: shadow"))
    site.edit("config.yaml", (r"(?m)^node:", "workers: 2\nnode:"))
    return site


@pytest.mark.parametrize("point", IN_SHADOW)
def test_a_crash_in_shadow_loses_nothing_repeats_nothing_and_touches_none_of_the_living(
    point: str, shadow: Site, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    load = Load(pause_seconds=0.02)
    for round_ in range(2):
        told = tmp_path / f"died-{round_}"
        daemon = make_daemon(
            shadow, {"PYTHONPATH": str(CRASHING), "HANDOFF_TEST_CRASH": f"{point}:{5 + 4 * round_}:{told}"}
        )
        threads = load.run(daemon)
        until = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < until, "the point was not passed"
            time.sleep(0.02)
        load.wait_for(len(load.acknowledged) + 5)
        daemon.kill()
        for thread in threads:
            thread.join(timeout=30)
    daemon = make_daemon(shadow)
    [line] = daemon.settled(seconds=120)
    listed = shadow.json("messages", "list", "--limit", "1000000")
    assert {one["state"] for one in listed} == {"processed"}
    numbers = {int(one["control_id"][1:]) for one in listed}
    assert load.acknowledged <= numbers
    assert len(numbers) == len(listed)
    assert (line["balanced"], line["deliveries"]) == (True, dict.fromkeys(line["deliveries"], 0))
    [beside] = shadow.json("ledger", "--shadow")
    assert (beside["balanced"], beside["processed"]) == (True, len(listed))
    shown = shadow.json("messages", "show", str(listed[0]["id"]), "--shadow")
    assert beside["deliveries"] == dict.fromkeys(line["deliveries"], 0) | {
        "withheld": len(listed) * len(shown["deliveries"])
    }
    assert len(shadow.json("patients", "find", "--name", "doe", "--limit", "1000000", "--shadow")) == len(listed)
    assert shadow.json("patients", "find", "--name", "doe") == []
    assert list((shadow.folder / "var/outbox").glob("*")) == []
    assert daemon.stop() == 0


def test_going_live_drops_the_shadow_and_going_back_begins_it_anew(
    shadow: Site, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(shadow)
    assert [one["mode"] for one in daemon.status["channels"]] == ["shadow"]
    daemon.send(admission(1))
    daemon.settled()
    assert shadow.json("patients", "show", "MRN:1", "--shadow")["key"]
    shadow.edit("channels/main-campus.yaml", ("mode: shadow", "mode: live"))
    assert shadow.json("reload")["remarks"] == []  # nothing of it is among the living, so nobody has missed anything
    assert shadow.run("patients", "show", "MRN:1", "--shadow", code=1)
    assert list((shadow.folder / "var").glob("*shadow*")) == []
    daemon.send(admission(2))
    daemon.settled()
    assert shadow.run("patients", "show", "MRN:1", code=1)
    assert shadow.json("patients", "show", "MRN:2")["key"]
    shadow.edit("channels/main-campus.yaml", ("mode: live", "mode: shadow"))
    assert shadow.json("reload")["ok"]
    daemon.send(admission(3))
    daemon.settled()
    assert shadow.json("patients", "show", "MRN:3", "--shadow")["key"]
    assert shadow.run("patients", "show", "MRN:2", "--shadow", code=1)
    assert shadow.run("patients", "show", "MRN:3", code=1)
    assert daemon.stop() == 0
