"""The clock jumps, and the name service goes away."""

from __future__ import annotations

import re

import pytest
from harness import Daemon, MakeDaemon, Site
from machine import Machine
from receiver import Receiver, deliver_to
from test_kill import admission
from watch import events, eventually, metric, readiness

AA = b"MSA|AA"
DAY_SECONDS = 86_400.0


def stamp(answer: bytes) -> int:
    """The year of an answer's MSH-7."""
    found = re.search(rb"\|(\d{4})\d{10}[+-]\d{4}\|", answer)
    assert found, answer
    return int(found[1])


@pytest.mark.parametrize("jump_seconds", [-400 * DAY_SECONDS, 4000 * DAY_SECONDS], ids=["back", "forward"])
def test_a_clock_that_jumps_ends_no_connection_and_holds_up_no_message(
    failing: Daemon, machine: Machine, jump_seconds: float
) -> None:
    site = failing.site
    with failing.connection() as sender:
        assert all(AA in sender.exchange(admission(number)) for number in range(1, 6))
        failing.settled()
        before = stamp(sender.exchange(admission(6)))
        machine.clock_is_ahead(jump_seconds)
        answers = [sender.exchange(admission(number)) for number in range(7, 12)]
        assert all(AA in answer for answer in answers)
        assert abs(stamp(answers[-1]) - before) == pytest.approx(abs(jump_seconds) / DAY_SECONDS / 365.25, abs=1.01)
        [row] = failing.settled()
        assert (row["processed"], row["balanced"]) == (11, True)
        machine.clock_is_ahead(0)
        assert AA in sender.exchange(admission(12))
        assert AA in sender.exchange(admission(1))  # a duplicate, whatever the clock said meanwhile
    [row] = failing.settled()
    assert (row["processed"], row["duplicates"], row["balanced"]) == (12, 1, True)
    assert [entry["id"] for entry in site.json("messages", "list")] == list(range(12, 0, -1))
    assert readiness(failing) == (True, [])
    assert failing.stop() == 0


def test_what_waits_in_the_outbox_does_not_wait_for_a_clock_that_went_back(
    site: Site, make_daemon: MakeDaemon, machine: Machine
) -> None:
    """The next attempt was to be at a time that is now a day away."""
    outbox = site.folder / "var" / "outbox"
    outbox.write_text("a file where the destination wants a folder")
    daemon = make_daemon(site, machine.environment(site.folder / "var"))
    daemon.send(admission(1))
    eventually(lambda: "destination failed" in events(daemon))
    machine.clock_is_ahead(-DAY_SECONDS)
    outbox.unlink()
    [row] = daemon.settled()
    assert (row["deliveries"]["delivered"], row["balanced"]) == (4, True)
    assert daemon.stop() == 0


def test_a_daemon_that_starts_with_an_earlier_clock_delivers_what_waits(
    site: Site, make_daemon: MakeDaemon, machine: Machine
) -> None:
    """A machine whose clock was wrong, and is put right while the daemon is down."""
    outbox = site.folder / "var" / "outbox"
    outbox.write_text("a file where the destination wants a folder")
    machine.clock_is_ahead(DAY_SECONDS)
    daemon = make_daemon(site, machine.environment(site.folder / "var"))
    daemon.send(admission(1))
    eventually(lambda: "destination failed" in events(daemon))
    assert daemon.stop() == 0
    outbox.unlink()
    machine.clock_is_ahead(0)
    daemon = make_daemon(site, machine.environment(site.folder / "var"))
    [row] = daemon.settled()
    assert (row["deliveries"]["delivered"], row["balanced"]) == (4, True)
    assert daemon.stop() == 0


def test_names_that_nobody_knows_hold_up_their_destination_only(
    site: Site, make_daemon: MakeDaemon, machine: Machine
) -> None:
    with Receiver() as lab:
        deliver_to(site, lab.port, host="localhost")
        daemon = make_daemon(site, machine.environment(site.folder / "var"))
        with machine.names_unknown():
            assert all(AA in answer for answer in daemon.send(*map(admission, range(1, 4))))
            eventually(lambda: metric(daemon, "deliveries_total", destination="files", state="delivered") == 12)
            eventually(lambda: "destination failed" in events(daemon))
            assert machine.failed > 0
            assert lab.control_ids() == []
            eventually(lambda: metric(daemon, "outbox", destination="lab", state="pending") == 3)
            eventually(lambda: readiness(daemon) == (True, ["destination-down:lab"]))
        [row] = daemon.settled()
        assert (row["deliveries"]["held"], row["deliveries"]["dead"], row["balanced"]) == (0, 0, True)
        assert lab.control_ids() == ["C1", "C2", "C3"]
        assert daemon.stop() == 0
