"""A backup beside a running daemon, a store that is set back, everything sent again: nobody is told twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import MakeDaemon, Site, eventually
from peers.postgres_server import PostgresServer


def admission(number: int, at: datetime) -> bytes:
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at:%Y%m%d%H%M%S}+0000||ADT^A01^ADT_A01|C{number}|P|2.5.1\r"
        f"EVN|A01|{at:%Y%m%d%H%M%S}+0000\r"
        f"PID|1||{number}^^^MRN^MR||Doe^Jane||19480312|F\r"
        f"PV1|1|I|3W^301^A||||||||||||||||V{number}^^^MRN|||||||||||||||||||||||||{at:%Y%m%d%H%M%S}+0000\r"
    ).encode()


def killed(site: Site, *arguments: str, after: float) -> None:
    """A command that is killed in the middle, or was quicker."""
    command = [sys.executable, "-P", "-m", "engine", *arguments]
    with subprocess.Popen(command, cwd=site.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(after)
        process.kill()


def told(site: Site) -> Counter[str]:
    """What has gone out, by idempotency key."""
    lines = [line for file in (site.folder / "var/outbox").glob("*.ndjson") for line in file.read_text().splitlines()]
    return Counter(json.loads(line)["idempotency_key"] for line in lines)


class Places(NamedTuple):
    """Where stores are: urls of new ones, and what a restore is told instead."""

    first: str
    targets: Iterator[tuple[str, str]]


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    if request.param == "sqlite":
        folders = (tmp_path / f"restored-{number}" for number in range(9))
        yield Places("sqlite:///var/handoff.db", ((str(one), f"sqlite:///{one}/handoff.db") for one in folders))
        return
    server = PostgresServer()
    urls = (server.url(server.new_database()) for _ in range(9))
    try:
        yield Places(next(urls), ((url, url) for url in urls))
    finally:
        server.close()


def test_nobody_is_told_twice_after_a_restore(
    site: Site, make_daemon: MakeDaemon, tmp_path: Path, places: Places
) -> None:
    site.edit("config.yaml", (r"url: sqlite:\S+", f"url: {places.first}"))
    daemon = make_daemon(site)
    began = datetime.now(UTC)
    backups = tmp_path / "backups"
    backups.mkdir()
    before = [admission(number, began) for number in range(1, 31)]
    after = [admission(number, began) for number in range(31, 51)]
    assert all(b"|AA|" in answer for answer in daemon.send(*before))
    for seconds in (0.4, 0.6, 0.8):
        killed(site, "backup", str(backups), after=seconds)
    made = site.json("backup", str(backups))
    assert made["entries"] >= 30
    assert all(b"|AA|" in answer for answer in daemon.send(*after))
    daemon.settled()
    first = told(site)
    assert set(first.values()) == {1}
    daemon.kill()

    for seconds in (0.5, 0.9):
        killed(site, "restore", str(backups), next(places.targets)[0], after=seconds)
    target, url = next(places.targets)
    done = site.json("restore", str(backups), target)
    assert (done["ok"], done["problems"], done["entries"]) == (True, [], made["entries"])
    site.edit("config.yaml", (r"url: \S+", f"url: {url}"))

    again = make_daemon(site)
    assert all(b"|AA|" in answer for answer in again.send(*before, *after))
    since = datetime.now(UTC)
    time.sleep(max(0.0, 1.1 - (since - since.replace(microsecond=0)).total_seconds()))  # MSH-7 has seconds
    assert b"|AA|" in again.send(admission(99, datetime.now(UTC)))[0]
    ledger = again.settled()
    assert all(line["balanced"] for line in ledger)
    second = told(site)
    assert set(second.values()) == {1}, "something went out twice"
    assert len(second) > len(first), "what is new goes out"
    assert {one["last_error"] for one in site.json("held", "list", "--what", "delivery")} == {"restored"}
    assert eventually(lambda: "store-restored" in site.json("status", code=None)["trouble"])
    for number in (1, 31, 50, 99):
        assert site.json("patients", "show", f"MRN:{number}")["encounters"]
