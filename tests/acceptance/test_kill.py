"""kill -9 at random moments under load: what was acknowledged is there, once, and goes out once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from harness import Daemon, Site
from rounds import SOAK, chance

ROUNDS = 20 if SOAK else 8
"""Of one worker; half as many of three. In every fourth a worker is killed first."""
SENDERS = 6


def admission(number: int) -> bytes:
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|20260301120000||ADT^A01^ADT_A01|C{number}|P|2.5.1\r"
        f"EVN|A01|20260301120000\r"
        f"PID|1||{number}^^^MRN^MR||Doe^Jane||19480312|F\r"
        f"PV1|1|I|3W^301^A||||||||||||||||V{number}^^^MRN|||||||||||||||||||||||||20260301113000\r"
    ).encode()


class Load:
    """Stop-and-wait senders. What is not acknowledged is sent again in the next round, as real senders do.

    pause_seconds: of each sender after each answer. All that was acknowledged has to be settled at the end.
    """

    def __init__(self, pause_seconds: float = 0.0) -> None:
        self._pause_seconds = pause_seconds
        self._lock = threading.Lock()
        self._next = 0
        self._again: list[int] = []
        self.acknowledged: set[int] = set()

    def run(self, daemon: Daemon) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._send, args=(daemon,), daemon=True) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        return threads

    def wait_for(self, count: int) -> None:
        """Wait until more than so many are acknowledged, or it was no load."""
        until = time.monotonic() + 60
        while len(self.acknowledged) <= count:
            assert time.monotonic() < until, "the load was no load"
            time.sleep(0.02)

    def _take(self) -> int:
        with self._lock:
            if self._again:
                return self._again.pop()
            self._next += 1
            return self._next

    def _send(self, daemon: Daemon) -> None:
        number = 0
        try:
            with daemon.connection() as sender:
                while True:
                    number = self._take()
                    answer = sender.exchange(admission(number))
                    with self._lock:
                        if f"MSA|AA|C{number}".encode() in answer:
                            self.acknowledged.add(number)
                        else:  # the store was away: the sender is told to send it again later
                            assert f"MSA|AR|C{number}".encode() in answer
                            self._again.append(number)
                    number = 0
                    time.sleep(self._pause_seconds)
        except OSError:  # the daemon was killed
            if number:
                with self._lock:
                    self._again.append(number)


@pytest.mark.parametrize(("workers", "rounds"), [(1, ROUNDS), (3, ROUNDS // 2)])
def test_kill_9_at_random_moments_loses_nothing_and_repeats_nothing(
    site: Site,
    make_daemon: Callable[[Site], Daemon],
    record_property: Callable[[str, object], None],
    workers: int,
    rounds: int,
) -> None:
    site.edit("config.yaml", (r"(?m)^node:", f"workers: {workers}\nnode:"))
    moments = chance("kill")
    load = Load()
    for round_ in range(rounds):
        daemon = make_daemon(site)
        threads = load.run(daemon)
        time.sleep(moments.uniform(0.05, 1.2))
        if round_ == rounds - 1:
            load.wait_for(rounds * 10)
        if round_ % 4 == 3:  # now and then the worker dies first, and is started again under load
            os.kill(daemon.workers()[0], signal.SIGKILL)
            time.sleep(moments.uniform(0.05, 0.8))
        daemon.kill()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
    record_property("kills", rounds + rounds // 4)
    record_property("acknowledged", len(load.acknowledged))

    check_nothing_lost_nothing_twice(site, make_daemon(site), load)


def check_nothing_lost_nothing_twice(site: Site, daemon: Daemon, load: Load) -> None:
    """All that was acknowledged is in the journal, processed once, and went out once."""
    ledger = daemon.settled(seconds=120)
    assert all(row["balanced"] for row in ledger), ledger
    listed = site.json("messages", "list", "--limit", "1000000")
    by_control = Counter(message["control_id"] for message in listed)
    missing = {number for number in load.acknowledged if f"C{number}" not in by_control}
    assert not missing, "acknowledged and lost"
    assert max(by_control.values()) == 1, "the same message is in the journal twice"
    assert {message["state"] for message in listed} == {"processed"}
    site.run("ledger")  # exit 0: it balances

    lines = [
        json.loads(line)
        for file in sorted((site.folder / "var" / "outbox").glob("*.ndjson"))
        for line in file.read_text().splitlines()
    ]
    keys = Counter(line["idempotency_key"] for line in lines)
    assert max(keys.values()) == 1, "delivered twice under one idempotency key"
    patients = Counter(line["patient"]["key"] for line in lines if line["operation"] == "upsert_patient")
    assert set(patients) == {f"MRN:{message['control_id'][1:]}" for message in listed}
    assert max(patients.values()) == 1
    assert daemon.stop() == 0
