"""The disk under the store: full, dying, read-only, locked by another program, slow.

What holds for each: nobody is told AA for what is not on disk, everybody is told something, and when the disk works
again so does the daemon, by itself.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from chamber import Chamber
from harness import Daemon, MakeDaemon, Site
from machine import Machine
from test_kill import admission
from watch import events, eventually, log, metric, readiness

AA, AR = b"MSA|AA", b"MSA|AR"


def codes(answers: list[bytes]) -> set[bytes]:
    return {answer.split(b"\r")[1][:6] for answer in answers}


def refused_for_now(answer: bytes) -> bool:
    """AR, with 207 and no reason that names the machine."""
    return AR in answer and b"207^Application internal error" in answer and b"send it again later" in answer


def send_until_refused(daemon: Daemon, first: int) -> list[int]:
    """Send until the store says no; the numbers of what was accepted."""
    accepted = []
    with daemon.connection() as sender:
        for number in range(first, first + 5000):
            answer = sender.exchange(admission(number))
            if AA not in answer:
                assert refused_for_now(answer), answer
                return accepted
            accepted.append(number)
    raise AssertionError("the store never said no")


def all_there_once(daemon: Daemon, numbers: set[int]) -> None:
    """Everything acknowledged is in the journal once, and went out once; the books balance."""
    ledger = daemon.settled()
    assert all(row["balanced"] for row in ledger), ledger
    listed = Counter(entry["control_id"] for entry in daemon.site.json("messages", "list", "--limit", "100000"))
    assert not {f"C{number}" for number in numbers} - set(listed), "acknowledged and lost"
    assert max(listed.values()) == 1
    assert ledger[0]["deliveries"]["dead"] == ledger[0]["deliveries"]["held"] == 0


def test_a_full_disk_is_said_to_senders_and_to_ops_and_is_recovered_from(
    site: Site, make_daemon: MakeDaemon, chamber: Chamber
) -> None:
    var, kept = site.folder / "var", site.folder / "kept"
    shutil.copytree(var, kept)
    chamber.run("mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(var))
    chamber.run("cp", "-a", f"{kept}/.", str(var))
    site.prefix = chamber.prefix(site.folder)
    daemon = make_daemon(site)
    assert AA in daemon.send(admission(1))[0]
    assert eventually(lambda: readiness(daemon) == (True, []))

    chamber.run("sh", "-c", f"cat /dev/zero > {var}/filler 2>/dev/null || true")
    accepted = send_until_refused(daemon, 2)
    ready, trouble = readiness(daemon)
    assert not ready
    assert set(trouble) == {"store-not-writable", "disk-almost-full"}
    assert metric(daemon, "store_writable") == 0
    assert metric(daemon, "store_failures_total") > 0
    assert "store failed, senders are told to send again" in events(daemon)
    assert any("SQLITE_FULL" in line.get("exception_text", "") for line in log(daemon))
    assert AR in codes(daemon.send(*map(admission, range(9000, 9040))))  # some may fit into a log that was emptied

    chamber.run("rm", f"{var}/filler")
    eventually(lambda: readiness(daemon) == (True, []))
    assert "store works again" in events(daemon)
    assert codes(daemon.send(*map(admission, range(9000, 9040)))) == {AA}
    all_there_once(daemon, {1, *accepted, *range(9000, 9040)})
    assert daemon.stop() == 0


def test_a_failed_sync_is_never_acknowledged_and_the_message_is_taken_when_it_is_sent_again(
    failing: Daemon, machine: Machine
) -> None:
    assert AA in failing.send(admission(1))[0]
    failing.settled()
    with machine.syncs_fail():
        answers = failing.send(*map(admission, range(2, 12)))
        assert all(map(refused_for_now, answers))
        assert machine.failed > 0
        assert readiness(failing) == (False, ["store-not-writable"])
        assert any("SQLITE_IOERR" in line.get("exception_text", "") for line in log(failing))
        assert metric(failing, "answers_sent_total", code="AR") == 10
    eventually(lambda: readiness(failing) == (True, []))
    assert codes(failing.send(*map(admission, range(2, 12)))) == {AA}
    all_there_once(failing, set(range(1, 12)))
    assert failing.stop() == 0


def test_a_crash_after_a_failed_sync_leaves_each_message_once(
    site: Site, failing: Daemon, machine: Machine, make_daemon: MakeDaemon
) -> None:
    """What could not be synced may be in the file all the same. Its sender was told to send it again, and does."""
    assert AA in failing.send(admission(1))[0]
    with machine.syncs_fail():
        assert codes(failing.send(admission(2), admission(3))) == {AR}
        failing.kill()
    daemon = make_daemon(site, machine.environment(site.folder / "var"))
    assert codes(daemon.send(admission(2), admission(3), admission(1))) == {AA}
    all_there_once(daemon, {1, 2, 3})
    assert daemon.stop() == 0


def test_processing_waits_for_a_disk_that_fails_and_goes_on(
    site: Site, make_daemon: MakeDaemon, machine: Machine
) -> None:
    """Here the disk of the charts fails alone: the sender notices nothing."""
    charts = site.folder / "var" / "handoff.db"
    daemon = make_daemon(site, machine.environment(charts))
    eventually(lambda: "worker ready" in events(daemon))
    with machine.syncs_fail():
        assert codes(daemon.send(*map(admission, range(1, 9)))) == {AA}
        eventually(lambda: "store not available, processing waits" in events(daemon))
        [row] = daemon.site.json("ledger", code=None)
        assert (row["received"], row["pending"], row["balanced"]) == (8, 8, True)
    all_there_once(daemon, set(range(1, 9)))
    assert daemon.stop() == 0


def test_a_store_that_becomes_read_only_is_said_to_senders_and_can_still_be_read(
    site: Site, failing: Daemon, machine: Machine
) -> None:
    """As the kernel does with a file system on which it met an error."""
    assert AA in failing.send(admission(1))[0]
    failing.settled()
    with machine.writes_fail(errno.EROFS):
        assert all(map(refused_for_now, failing.send(*map(admission, range(2, 12)))))
        assert readiness(failing) == (False, ["store-not-writable"])
        assert [entry["control_id"] for entry in site.json("messages", "list")] == ["C1"]
    eventually(lambda: readiness(failing) == (True, []))
    assert codes(failing.send(*map(admission, range(2, 12)))) == {AA}
    all_there_once(failing, set(range(1, 12)))
    assert failing.stop() == 0


def test_a_daemon_does_not_start_on_a_store_that_it_cannot_write(
    site: Site, make_daemon: MakeDaemon, chamber: Chamber
) -> None:
    daemon = make_daemon(site)
    assert AA in daemon.send(admission(1))[0]
    daemon.settled()
    assert daemon.stop() == 0
    var = str(site.folder / "var")
    chamber.run("mount", "--bind", var, var)
    chamber.run("mount", "-o", "remount,bind,ro", var)
    site.prefix = chamber.prefix(site.folder)
    assert "the store can't be used now" in site.run("run", code=69).stderr


def test_a_locked_store_makes_senders_wait_and_tells_them_to_send_again_when_it_takes_too_long(
    site: Site, daemon: Daemon
) -> None:
    """Somebody has opened the journal with a tool and has begun to write. The writer waits ten seconds for that."""
    assert AA in daemon.send(admission(1))[0]
    daemon.settled()
    other = sqlite3.connect(site.folder / "var" / "handoff-journal.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with daemon.connection() as early, daemon.connection() as late:
        early.write(admission(2))
        assert refused_for_now(early.read())
        assert any("SQLITE_BUSY" in line.get("exception_text", "") for line in log(daemon))
        late.write(admission(3))
        threading.Timer(1.0, other.rollback).start()
        assert AA in late.read()
        assert AA in early.exchange(admission(2))
    other.close()
    all_there_once(daemon, {1, 2, 3})


def test_locked_charts_hold_up_processing_only(site: Site, daemon: Daemon) -> None:
    other = sqlite3.connect(site.folder / "var" / "handoff.db", isolation_level=None)
    eventually(lambda: "worker ready" in events(daemon))
    other.execute("BEGIN IMMEDIATE")
    assert codes(daemon.send(*map(admission, range(1, 9)))) == {AA}
    [row] = site.json("ledger", code=None)
    assert (row["received"], row["pending"]) == (8, 8)
    other.rollback()
    other.close()
    all_there_once(daemon, set(range(1, 9)))


def test_a_slow_disk_makes_many_senders_share_one_sync_and_blocks_nothing_else(
    failing: Daemon, machine: Machine
) -> None:
    eventually(lambda: "worker ready" in events(failing))
    before = machine.syncs
    with ExitStack() as stack:
        senders = [stack.enter_context(failing.connection()) for _ in range(40)]
        stack.enter_context(machine.syncs_take(0.4))
        for number, sender in enumerate(senders, 1):
            sender.write(admission(number))
        assert readiness(failing) == (True, [])  # slow is not broken, and the rest of the daemon goes on
        answers = [sender.read() for sender in senders]
        assert machine.syncs - before < 40
    assert codes(answers) == {AA}
    assert metric(failing, "commit_seconds_sum") > 0.4
    all_there_once(failing, set(range(1, 41)))
    assert failing.stop() == 0


def test_files_that_the_daemon_makes_are_for_its_owner_only(site: Site, daemon: Daemon) -> None:
    daemon.send(admission(1))
    files = list(Path(site.folder / "var").glob("handoff*.db*"))
    assert files
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
