"""SIGTERM and SIGHUP under load: a stop drains, a reload is noticed by nobody."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter

from harness import Daemon, MakeDaemon, Sender, Site
from load import SteadyLoad
from test_kill import admission
from watch import events, eventually, log

AA = b"MSA|AA"


class Pipelined:
    """A sender that does not wait for answers before it goes on; it counts what it sent and what was answered."""

    def __init__(self, daemon: Daemon, first: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", daemon.port()), timeout=30)
        self._first = first
        self.sent: set[int] = set()
        self.answers: Counter[str] = Counter()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def _write(self) -> None:
        try:
            for number in range(self._first, self._first + 100_000):
                if number % 20 == 0:
                    time.sleep(0.02)
                self._socket.sendall(b"\x0b" + admission(number) + b"\x1c\r")
                self.sent.add(number)
        except OSError:  # the daemon has closed
            return

    def _read(self) -> None:
        sender = Sender(self._socket)
        try:
            while True:
                code, control_id = sender.read().split(b"\r")[1].decode().split("|")[1:3]
                self.answers[control_id] += 1
                assert code == "AA"
        except OSError:
            return


def journal(site: Site) -> Counter[str]:
    listed = site.json("messages", "list", "--limit", "1000000")
    assert {entry["ack_state"] for entry in listed} <= {"sent", "unsent"}
    return Counter(entry["control_id"] for entry in listed)


def test_a_stop_under_load_answers_what_was_received_and_loses_nothing(site: Site, make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(site)
    load = SteadyLoad()
    waiting = load.run(daemon)
    pipelined = [Pipelined(daemon, 1_000_000 * number) for number in range(1, 4)]
    time.sleep(0.4)
    eventually(lambda: len(load.acknowledged) > 20 and sum(len(one.answers) for one in pipelined) > 100)
    assert daemon.stop() == 0
    for thread in [*waiting, *(thread for one in pipelined for thread in one.threads)]:
        thread.join(timeout=30)
        assert not thread.is_alive()
    [stopped] = [line for line in log(daemon) if line["event"] == "daemon stopped"]
    assert stopped["clean"] is True
    acknowledged = {f"C{number}" for number in load.acknowledged}
    for one in pipelined:
        acknowledged |= one.answers.keys()
    stored = journal(site)
    assert not acknowledged - set(stored), "acknowledged and lost"
    assert max(stored.values()) == 1
    # Whoever reads on to the end has got the answer to everything that was stored.
    assert set(stored) == acknowledged
    assert all(count == 1 for one in pipelined for count in one.answers.values())

    daemon = make_daemon(site)
    [row] = daemon.settled(seconds=120)
    assert (row["processed"], row["balanced"]) == (len(stored), True)
    lines = [
        json.loads(line)
        for file in (site.folder / "var" / "outbox").glob("*.ndjson")
        for line in file.read_text().splitlines()
    ]
    keys = Counter(line["idempotency_key"] for line in lines)
    assert max(keys.values()) == 1
    assert len(keys) == 4 * len(stored)
    assert daemon.stop() == 0


def test_reloads_under_load_are_noticed_by_no_sender(site: Site, daemon: Daemon) -> None:
    """Some change the channel, some change nothing, and some are wrong and refused."""
    assert daemon.process is not None
    load = SteadyLoad()
    threads = load.run(daemon)
    channel = site.folder / "channels" / "main-campus.yaml"
    right = channel.read_text()
    versions = {site.json("status")["config_version"]}

    def refusals() -> int:
        return sum(line["event"] == "configuration refused, the old one stays" for line in log(daemon))

    for round_ in range(8):
        if round_ % 4 == 3:
            channel.write_text(right + "no_such_key: 1\n")
        else:
            channel.write_text(right.replace("risk: [lace, seed]", f"risk: [lace]  # {round_}"))
        before, refused = len(load.acknowledged), refusals()
        daemon.process.send_signal(signal.SIGHUP)
        if round_ % 2:
            time.sleep(0.05)
            daemon.process.send_signal(signal.SIGHUP)  # again, before the first is through
        eventually(lambda before=before: len(load.acknowledged) > before + 20)
        if round_ % 4 != 3:
            eventually(lambda: site.json("status")["config_version"] not in versions)
            versions.add(site.json("status")["config_version"])
        else:  # the file must stay wrong until the daemon has read it
            eventually(lambda refused=refused: refusals() > refused)
    channel.write_text(right)
    assert all(thread.is_alive() for thread in threads), "a sender lost its connection"
    assert site.json("status")["channels"][0]["connections"] == len(threads)
    assert {"configuration loaded", "configuration refused, the old one stays"} <= events(daemon)
    assert daemon.stop() == 0
    for thread in threads:
        thread.join(timeout=30)
    stored = journal(site)
    assert not {f"C{number}" for number in load.acknowledged} - set(stored), "acknowledged and lost"
    assert max(stored.values()) == 1


def test_a_reload_and_a_stop_at_once_end_in_a_clean_stop(site: Site, make_daemon: MakeDaemon) -> None:
    for pause in (0.0, 0.01, 0.05):
        daemon = make_daemon(site)
        load = SteadyLoad()
        threads = load.run(daemon)
        time.sleep(0.3)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(pause)
        assert daemon.stop() == 0
        for thread in threads:
            thread.join(timeout=30)
        stored = journal(site)
        assert not {f"C{number}" for number in load.acknowledged} - set(stored), "acknowledged and lost"
        (site.folder / "var" / "handoff.status.json").unlink(missing_ok=True)
