"""Several nodes on one PostgreSQL with two standbys: nodes and the database are killed in turn, under load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Daemon, Site
from peers.postgres_cluster import PostgresCluster
from rounds import chance
from test_kill import admission

from engine.domain.partition import PARTITIONS

NODES = ("north", "south", "west")
TAKEOVER_SECONDS_MAX = 15
"""Ten are promised; five are for a machine that tests keep busy."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    cluster = PostgresCluster()
    yield cluster
    cluster.close()


class Nodes:
    """Three sites that share a database, its keys, and the folder that deliveries go to."""

    def __init__(self, folder: Path, first: Site, url: str, make_daemon: Callable[..., Daemon]) -> None:
        self.make_daemon = make_daemon
        self.outbox = folder / "shared-outbox"
        self.sites: dict[str, Site] = {}
        for name in NODES:
            site = Site(folder / name)
            shutil.copytree(first.folder, site.folder)
            site.edit(
                "config.yaml",
                (r"url: sqlite:\S+", f'url: "{url}"'),
                (r"path: var/outbox", f"path: {self.outbox}"),
                (r"(?m)^node: .*$", f"node: {name}\nworkers: 1"),
            )
            self.sites[name] = site
        self.daemons: dict[str, Daemon] = {}

    def start(self, name: str) -> Daemon:
        self.daemons[name] = self.make_daemon(self.sites[name])
        return self.daemons[name]

    def start_all(self) -> None:
        for name in NODES:
            self.start(name)

    def wait_for_shares(self) -> None:
        """Until all partitions are shared out, and everybody has some."""
        until = time.monotonic() + 60
        while True:
            shares = [
                sum(worker["partitions"] for worker in self.sites[name].json("status")["workers"]) for name in NODES
            ]
            if sum(shares) == PARTITIONS and min(shares) > 0:
                return
            assert time.monotonic() < until, shares
            time.sleep(0.1)

    def partitions(self, name: str) -> int:
        """How many its worker has, as it has said last."""
        said = [line for line in self.daemons[name].log.read_text().splitlines() if "partitions of this worker" in line]
        return int(json.loads(said[-1])["count"]) if said else 0

    def lines(self) -> list[dict[str, object]]:
        return [
            json.loads(line) for file in sorted(self.outbox.glob("*.ndjson")) for line in file.read_text().splitlines()
        ]


PAUSE_SECONDS = 0.01
"""Of a sender between two messages. At full speed most of a test is spent on working off what came before the kills."""


class Load:
    """Senders that go on for ever, and to the next node when theirs does not answer."""

    def __init__(self, nodes: Nodes, senders: int = 6) -> None:
        self._nodes = nodes
        self._lock = threading.Lock()
        self._next = 0
        self._again: list[int] = []
        self._stop = threading.Event()
        self.acknowledged: set[int] = set()
        self.refused = 0
        self._threads = [threading.Thread(target=self._send, args=(index,), daemon=True) for index in range(senders)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until more than so many are acknowledged, or it was no load."""
        until = time.monotonic() + 60
        while len(self.acknowledged) <= count:
            assert time.monotonic() < until, "the load was no load"
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _send(self, turn: int) -> None:
        while not self._stop.is_set():
            turn += 1
            number = 0
            try:
                with self._nodes.daemons[NODES[turn % len(NODES)]].connection() as sender:
                    sender.socket.settimeout(30)
                    while not self._stop.is_set():
                        with self._lock:
                            if self._again:
                                number = self._again.pop()
                            else:
                                self._next += 1
                                number = self._next
                        answer = sender.exchange(admission(number))
                        with self._lock:
                            if f"MSA|AA|C{number}".encode() in answer:
                                self.acknowledged.add(number)
                            else:
                                assert f"MSA|AR|C{number}".encode() in answer, answer
                                self.refused += 1
                                self._again.append(number)
                        number = 0
                        time.sleep(PAUSE_SECONDS)
            except OSError:
                if number:
                    with self._lock:
                        self._again.append(number)
                time.sleep(0.1)


@pytest.fixture
def nodes(tmp_path: Path, site: Site, make_daemon: Callable[..., Daemon], cluster: PostgresCluster) -> Nodes:
    return Nodes(tmp_path, site, cluster.url(cluster.new_database()), make_daemon)


def check_nothing_lost_nothing_twice(nodes: Nodes, load: Load) -> None:
    name = next(iter(nodes.daemons))
    ledger = nodes.daemons[name].settled(seconds=120)
    assert all(row["balanced"] for row in ledger), ledger
    listed = nodes.sites[name].json("messages", "list", "--limit", "1000000")
    by_control = Counter(message["control_id"] for message in listed)
    missing = {number for number in load.acknowledged if f"C{number}" not in by_control}
    assert not missing, "acknowledged and lost"
    assert max(by_control.values()) == 1, "the same message is in the journal twice"
    assert {message["state"] for message in listed} == {"processed"}
    keys = Counter(line["idempotency_key"] for line in nodes.lines())
    assert max(keys.values()) == 1, "delivered twice under one idempotency key"
    patients = Counter(
        line["patient"]["key"]
        for line in nodes.lines()
        if line["operation"] == "upsert_patient"  # type: ignore[index]
    )
    assert set(patients) == {f"MRN:{message['control_id'][1:]}" for message in listed}
    assert max(patients.values()) == 1


def test_three_nodes_share_the_work_and_each_may_be_killed(
    nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    nodes.start_all()
    load = Load(nodes)
    moments = chance("nodes")
    for name in NODES:
        time.sleep(moments.uniform(1.0, 2.0))
        nodes.daemons[name].kill()
        time.sleep(moments.uniform(1.0, 2.0))
        nodes.start(name)
    time.sleep(1)
    load.wait_for(200)
    load.stop()
    record_property("kills", len(NODES))
    record_property("acknowledged", len(load.acknowledged))
    check_nothing_lost_nothing_twice(nodes, load)
    for daemon in nodes.daemons.values():
        assert daemon.stop() == 0


def update(patient: int, turn: int) -> bytes:
    """News of a patient, sent by one who waits for each answer."""
    at = f"20260301{12 + turn // 3600:02}{turn // 60 % 60:02}{turn % 60:02}"
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||ADT^A31^ADT_A05|U{patient}-{turn}|P|2.5.1\rEVN|A31|{at}\r"
        f"PID|1||{patient}^^^MRN^MR||Doe{turn}^Jane||19480312|F\r"
    ).encode()


def test_news_of_a_patient_arrives_in_order_whichever_node_took_it_and_died(nodes: Nodes) -> None:
    nodes.start_all()
    stop, turns = threading.Event(), dict.fromkeys(range(1, 7), 0)

    def send(patient: int) -> None:
        tries = patient
        while not stop.is_set():
            tries += 1
            with contextlib.suppress(OSError):
                answer = nodes.daemons[NODES[tries % len(NODES)]].send(update(patient, turns[patient] + 1))[0]
                turns[patient] += b"MSA|AA" in answer
            time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=send, args=(patient,), daemon=True) for patient in turns]
    for thread in threads:
        thread.start()
    moments = chance("order")
    for name in NODES:
        time.sleep(moments.uniform(1.0, 2.0))
        nodes.daemons[name].kill()
        time.sleep(moments.uniform(1.0, 2.0))
        nodes.start(name)
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert min(turns.values()) > 10, "the load was no load"
    assert all(row["balanced"] for row in nodes.daemons["north"].settled(seconds=120))
    told: dict[str, list[int]] = {}
    for line in nodes.lines():
        patient = line["patient"]
        told.setdefault(patient["key"], []).append(int(patient["name"]["family"].removeprefix("Doe")))  # type: ignore[index]
    assert {key: heard[-1] for key, heard in told.items()} == {f"MRN:{one}": last for one, last in turns.items()}
    for key, heard in told.items():
        assert heard == sorted(set(heard)), f"{key} was told old news after new"


def test_a_duplicate_sent_to_another_node_is_a_duplicate(nodes: Nodes) -> None:
    nodes.start_all()
    answers = [nodes.daemons[name].send(admission(1))[0] for name in NODES]
    assert all(b"MSA|AA|C1" in answer for answer in answers)
    [row] = nodes.daemons["north"].settled()
    assert (row["received"], row["processed"], row["duplicates"]) == (3, 1, 2)


@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_the_work_of_a_node_that_stops_is_taken_over_within_seconds(nodes: Nodes, how: str) -> None:
    nodes.start_all()
    nodes.wait_for_shares()
    for pid in [*nodes.daemons["north"].workers(), nodes.daemons["north"].pid]:
        os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    began = time.monotonic()
    try:
        while sum(nodes.partitions(name) for name in ("south", "west")) < PARTITIONS:
            assert time.monotonic() - began < TAKEOVER_SECONDS_MAX, "not taken over"
            time.sleep(0.1)
        # Enough patients that some are in partitions that were the stopped node's.
        answers = nodes.daemons["south"].send(*[admission(number) for number in range(1, 61)])
        assert all(b"MSA|AA|" in answer for answer in answers)
        [row] = nodes.daemons["south"].settled(seconds=60)
        assert row["processed"] == 60  # `settled` has waited for a minute at most
    finally:
        for pid in [*nodes.daemons["north"].workers(), nodes.daemons["north"].pid] if how == "hangs" else []:
            os.kill(pid, signal.SIGCONT)
    if how == "hangs":  # it wakes up, finds that it owns nothing, and takes its part again
        nodes.wait_for_shares()
        answers = nodes.daemons["north"].send(*[admission(number) for number in range(61, 91)])
        assert all(b"MSA|AA|" in answer for answer in answers)
        [row] = nodes.daemons["north"].settled(seconds=60)
        assert row["processed"] == 90
        assert max(Counter(line["idempotency_key"] for line in nodes.lines()).values()) == 1


def test_two_daemons_of_one_name_are_not_allowed(nodes: Nodes) -> None:
    nodes.start("north")
    nodes.sites["south"].edit("config.yaml", (r"node: south", "node: north"))
    done = nodes.sites["south"].run("run", code=None)
    assert done.returncode != 0
    assert "node name north" in done.stderr


def test_standbys_are_killed_and_nothing_is_acknowledged_that_one_machine_alone_has(
    nodes: Nodes, cluster: PostgresCluster
) -> None:
    nodes.start_all()
    load = Load(nodes)

    def goes_on(count: int = 50) -> None:
        before, until = len(load.acknowledged), time.monotonic() + 60
        while len(load.acknowledged) < before + count:
            assert time.monotonic() < until, (before, len(load.acknowledged), load.refused)
            time.sleep(0.1)

    goes_on()
    first, second = cluster.standbys
    first.kill()
    goes_on()
    second.kill()
    time.sleep(2)  # answers to what the second one still had are on their way
    before = len(load.acknowledged)
    time.sleep(12)  # longer than a node waits for a lock, and than its health does for the store
    assert len(load.acknowledged) == before
    for name in NODES:
        assert "store-not-writable" in nodes.sites[name].json("status", code=None)["trouble"]
    second.start()
    goes_on()
    first.start()
    load.stop()
    check_nothing_lost_nothing_twice(nodes, load)


def test_the_primary_is_killed_and_a_standby_takes_over(
    nodes: Nodes, cluster: PostgresCluster, record_property: Callable[[str, object], None]
) -> None:
    nodes.start_all()
    load = Load(nodes)
    time.sleep(chance("primary").uniform(1.5, 3.0))
    load.wait_for(50)
    before = len(load.acknowledged)
    lost = cluster.primary.name
    cluster.fail_over()
    until = time.monotonic() + 60
    while len(load.acknowledged) < before + 100:  # they go on by themselves
        assert time.monotonic() < until, (before, len(load.acknowledged), load.refused)
        time.sleep(0.2)
    load.stop()
    record_property("kills", 1)
    record_property("acknowledged", len(load.acknowledged))
    check_nothing_lost_nothing_twice(nodes, load)
    cluster.rejoin(lost)
