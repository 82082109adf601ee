"""Bad senders and bad networks before the listener: half open, slow, too many, too large, too small, cut and corrupted.

Whatever they do, the good sender beside them is served, memory stays where it was, and what was acknowledged is there.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import Daemon, MakeDaemon, Sender, Site
from load import SteadyLoad
from peers.fault_proxy import FaultProxy
from rounds import SOAK, chance
from test_kill import admission
from watch import eventually, memory_bytes, metric, readiness

AA, AR = b"MSA|AA", b"MSA|AR"
MIB = 1 << 20


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def connections(daemon: Daemon) -> int:
    return int(metric(daemon, "connections"))


@contextmanager
def opened(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port()), timeout=30))
            for _ in range(count)
        ]


def test_senders_that_are_half_open_or_drip_are_dropped_and_the_good_one_is_served(
    site: Site, make_daemon: MakeDaemon
) -> None:
    """A third of them never says anything, a third stops in a frame, a third sends a byte now and then."""
    site.edit(
        "channels/main-campus.yaml",
        (r"(?m)^listen:\n", "listen:\n  idle_seconds_max: 8\n  frame_seconds_max: 2\n  connections_max: 100\n"),
    )
    daemon = make_daemon(site)
    raw = b"\x0b" + admission(999)
    number = 0
    with opened(daemon, 99) as bad, daemon.connection() as good:
        for one in bad[33:66]:
            one.sendall(raw[:100])

        def only_the_good_one_is_left() -> bool:
            nonlocal number
            for one in bad[66:]:
                with contextlib.suppress(OSError):  # dropped at last
                    one.sendall(raw[number : number + 1])
            number += 1
            assert AA in good.exchange(admission(number))
            return connections(daemon) == 1

        eventually(only_the_good_one_is_left)
    assert metric(daemon, "connections_closed_total", reason="idle") == 33
    assert metric(daemon, "connections_closed_total", reason="slow-frame") == 66
    assert metric(daemon, "partial_frames_total") == 66
    [row] = daemon.settled()
    assert (row["received"], row["balanced"]) == (number, True)  # nothing of a frame that never ended
    assert daemon.stop() == 0


def test_a_network_that_goes_silent_frees_its_places_and_loses_nothing_that_was_acknowledged(
    site: Site, make_daemon: MakeDaemon
) -> None:
    """No FIN, no reset: the sender's side is simply not there any more."""
    site.edit(
        "channels/main-campus.yaml",
        (r"(?m)^listen:\n", "listen:\n  idle_seconds_max: 3\n  connections_max: 8\n"),
    )
    daemon = make_daemon(site)
    with FaultProxy("127.0.0.1", daemon.port()) as network, ExitStack() as stack:
        for number in range(1, 9):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", network.port), timeout=30))
            assert AA in Sender(raw).exchange(admission(number))
        network.frozen = True
        eventually(lambda: connections(daemon) == 0)
    assert metric(daemon, "connections_closed_total", reason="idle") == 8
    assert AA in daemon.send(admission(9))[0]
    [row] = daemon.settled()
    assert (row["received"], row["balanced"]) == (9, True)
    assert daemon.stop() == 0


def test_a_flood_of_connections_is_turned_away_and_leaves_nothing_open(site: Site, make_daemon: MakeDaemon) -> None:
    """Those beyond the limit are told why as far as that costs little; none is left waiting."""
    site.edit("channels/main-campus.yaml", (r"(?m)^listen:\n", "listen:\n  connections_max: 32\n"))
    daemon = make_daemon(site)
    before = descriptors(daemon)
    told = closed = 0
    with daemon.connection() as good:
        assert AA in good.exchange(admission(1))
        for wave in range(10):
            eventually(lambda: connections(daemon) == 1)  # or one of the next wave gets a place that becomes free
            with opened(daemon, 200) as flood:
                for one in flood[32:]:
                    try:
                        assert AR in Sender(one).read()
                        told += 1
                    except ConnectionError:
                        closed += 1
                assert AA in good.exchange(admission(2 + wave))
                assert connections(daemon) <= 32
        eventually(lambda: connections(daemon) == 1)
    assert told > 0
    assert told + closed == 10 * (200 - 32)
    assert metric(daemon, "connections_refused_total") >= told + closed
    eventually(lambda: descriptors(daemon) <= before + 4)
    assert all(AA in answer for answer in daemon.send(*map(admission, range(20, 30))))
    [row] = daemon.settled()
    assert (row["received"], row["balanced"]) == (21, True)
    assert daemon.stop() == 0


def test_connections_that_are_reset_as_soon_as_they_are_made_are_nothing_to_the_daemon(daemon: Daemon) -> None:
    before = descriptors(daemon)
    with daemon.connection() as good:
        for number in range(1, 301):
            raw = socket.create_connection(("127.0.0.1", daemon.port()), timeout=30)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
            if number % 50 == 0:
                assert AA in good.exchange(admission(number))
    eventually(lambda: connections(daemon) == 0)
    eventually(lambda: descriptors(daemon) <= before + 4)
    assert readiness(daemon) == (True, [])


def test_a_frame_of_a_gigabyte_is_refused_in_little_memory_and_its_connection_goes_on(daemon: Daemon) -> None:
    daemon.send(admission(1))
    daemon.settled()
    _, before = memory_bytes(daemon.pid)
    chunk = b"OBX|1|TX|||" + b"x" * (MIB - 12) + b"\r"
    head = admission(2)
    with daemon.connection() as good, daemon.connection() as bad:
        bad.socket.settimeout(120)
        bad.socket.sendall(b"\x0b" + head)
        for number in range(1024):
            bad.socket.sendall(chunk)
            if number % 256 == 0:
                assert AA in good.exchange(admission(1000 + number))
        bad.socket.sendall(b"\x1c\r")
        answer = bad.read()
        assert AR in answer
        assert b"MSA|AR|C2" in answer
        assert b"104^Value too long" in answer
        assert AA in bad.exchange(admission(3))
    _, after = memory_bytes(daemon.pid)
    assert after - before < 16 * MIB
    [row] = daemon.settled()
    assert (row["received"], row["refused"], row["balanced"]) == (7, 1, True)
    [letter] = daemon.site.json("dead", "list")
    assert letter["error"] == "frame-too-long"
    assert daemon.stop() == 0


def test_tiny_frames_without_end_are_all_answered_in_order_in_little_memory(
    site: Site, make_daemon: MakeDaemon
) -> None:
    """Twenty thousand of them; with HANDOFF_SOAK a million. Each is kept, as everything is that arrives in a frame."""
    count = 1_000_000 if SOAK else 20_000
    daemon = make_daemon(site)
    with daemon.connection() as good, daemon.connection() as bad:
        assert AA in good.exchange(admission(1))
        bad.socket.settimeout(120)
        writer = threading.Thread(
            target=lambda: [bad.socket.sendall(b"\x0bMSH|^~\\&|||||||ADT|%d\x1c\r" % n) for n in range(count)]
        )
        before, _ = memory_bytes(daemon.pid)
        writer.start()
        for number in range(count):
            answer = bad.read()
            assert answer.split(b"\r")[1].startswith(b"MSA|AR|%d" % number), answer
            if number % (count // 8) == 0:
                assert AA in good.exchange(admission(2 + number))
        writer.join()
        after, _ = memory_bytes(daemon.pid)
        assert after - before < 64 * MIB
    [row] = daemon.settled(seconds=120)
    assert (row["received"], row["refused"], row["processed"], row["balanced"]) == (count + 9, count, 9, True)
    assert daemon.stop() == 0


def test_connections_that_are_cut_anywhere_lose_nothing_and_repeat_nothing(site: Site, daemon: Daemon) -> None:
    """Senders whose connection is reset send the message again until it is acknowledged, on a new one."""
    dice = chance("cuts")
    with FaultProxy("127.0.0.1", daemon.port()) as network:
        network.chunk_bytes = 64
        for number in range(1, 41):
            while True:
                network.cut_after_bytes = dice.randrange(1, 700)  # a message and its answer have 360
                try:
                    with socket.create_connection(("127.0.0.1", network.port), timeout=30) as raw:
                        answer = Sender(raw).exchange(admission(number))
                except OSError:
                    continue
                assert AA in answer
                break
        assert network.connections > 40
    [row] = daemon.settled()
    assert row["balanced"]
    listed = Counter(entry["control_id"] for entry in site.json("messages", "list"))
    assert listed == {f"C{number}": 1 for number in range(1, 41)}
    assert row["received"] == 40 + row["duplicates"]
    assert daemon.stop() == 0


def test_a_network_that_alters_bytes_breaks_nothing_and_what_was_sent_whole_is_served(
    site: Site, daemon: Daemon
) -> None:
    """TCP's checksum lets one altered segment in some billions through. Here it is every other one."""
    with FaultProxy("127.0.0.1", daemon.port(), seed=chance("alters").randrange(1 << 32)) as network:
        network.corrupt_share = 0.5
        network.chunk_bytes = 200
        for number in range(1, 151):
            with socket.create_connection(("127.0.0.1", network.port), timeout=0.5) as raw:
                sender = Sender(raw)
                try:
                    sender.write(admission(number))
                    sender.read()
                except (OSError, AssertionError):  # an altered frame may have no end, an altered answer no start
                    continue
    assert all(AA in answer for answer in daemon.send(*map(admission, range(200, 210))))
    [row] = daemon.settled()
    assert row["balanced"]
    assert row["processed"] >= 10
    ready, trouble = readiness(daemon)
    assert ready
    assert set(trouble) <= {"dead-letters", "messages-held"}  # of what was altered
    assert daemon.stop() == 0


def test_a_slow_network_only_makes_things_slow(site: Site, daemon: Daemon) -> None:
    with FaultProxy("127.0.0.1", daemon.port()) as network:
        network.chunk_bytes = 7
        network.delay_seconds = 0.002
        with socket.create_connection(("127.0.0.1", network.port), timeout=30) as raw:
            sender = Sender(raw)
            assert all(AA in sender.exchange(admission(number)) for number in range(1, 4))
    [row] = daemon.settled()
    assert (row["received"], row["processed"], row["balanced"]) == (3, 3, True)


def test_load_through_a_network_that_is_reset_again_and_again_loses_nothing(daemon: Daemon) -> None:
    load = SteadyLoad()
    real = daemon.port
    with FaultProxy("127.0.0.1", daemon.port()) as network:
        daemon.port = lambda channel="main-campus": network.port  # type: ignore[method-assign]  # senders come this way
        threads = load.run(daemon)
        for _ in range(6):
            time.sleep(0.2)
            network.reset_all()
            threads += load.run(daemon)
        time.sleep(0.3)
        eventually(lambda: len(load.acknowledged) > 50)  # or the load was no load
    for thread in threads:  # the network is gone for good, also for those that had only begun to connect
        thread.join(timeout=30)
        assert not thread.is_alive()
    daemon.port = real  # type: ignore[method-assign]  # as above
    [row] = daemon.settled(seconds=120)
    assert row["balanced"]
    listed = Counter(entry["control_id"] for entry in daemon.site.json("messages", "list", "--limit", "1000000"))
    assert not {f"C{number}" for number in load.acknowledged} - set(listed)
    assert max(listed.values()) == 1
    assert daemon.stop() == 0
