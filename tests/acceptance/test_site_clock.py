"""Time in the real daemon: a test site has a clock of its own, in all of its processes."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Daemon, MakeDaemon, Site, eventually
from peers.postgres_server import PostgresServer

FIRST = "channels/examples/first-message.hl7"
DAY = timedelta(days=1)
PATIENTS = 12


class Hands:
    """Of the clock of a test site."""

    def __init__(self, site: Site) -> None:
        self._file = site.folder / "var/ahead"
        site.edit("config.yaml", (r"(?m)^node:", "purpose: test\nclock: {offset_seconds_file: var/ahead}\nnode:"))

    def put(self, ahead: timedelta) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead.total_seconds():.0f}\n")
        new.replace(self._file)


@pytest.fixture
def hands(site: Site) -> Hands:
    return Hands(site)


def ask(daemon: Daemon, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(daemon.console + path, timeout=10) as answer:
        return json.load(answer)


def overdue(site: Site) -> list[Any]:
    """Tasks whose time has come and that nothing has happened to."""
    return site.json("tasks", "list", "--state", "open", "--due", "overdue")


def about(text: str, ahead: timedelta) -> bool:
    return abs(datetime.fromisoformat(text) - datetime.now(UTC) - ahead) < timedelta(minutes=2)


def test_all_processes_of_a_test_site_go_by_its_clock_and_say_so(
    site: Site, hands: Hands, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon(site)
    assert "clock is not the real one" in daemon.log.read_text()
    assert "NOT THE REAL TIME" in daemon.log.read_text()
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    daemon.settled()
    assert site.json("tasks", "list", "--due", "overdue") == []
    hands.put(40 * DAY)
    status = eventually(lambda: (one := site.json("status", code=None))["clock"]["offset_seconds"] and one)
    assert (status["purpose"], status["clock"]["real"], status["clock"]["offset_seconds"]) == (
        "test", False, 40 * 86_400
    )  # fmt: skip
    assert "NOT THE REAL TIME: a test site, its clock is 40 d ahead" in site.run("status", code=None).stdout
    for path in ("/healthz", "/readyz"):
        assert "not the real one" in ask(daemon, path)["warning"]
    # Commands, the main process (what it stores) and a worker (what it decides) are all there.
    assert site.json("tasks", "list", "--due", "overdue")
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    daemon.settled()
    newest = site.json("messages", "list")[0]
    assert about(newest["received_at"], 40 * DAY)
    shown = site.json("messages", "show", str(newest["id"]))
    times = [text for text in json.dumps(shown).split('"') if text[:2] == "20" and "T" in text]
    assert times, shown
    assert site.run("status", code=None).returncode in {0, 1}
    assert daemon.stop() == 0
    stopped = site.json("status", code=69)
    assert (stopped["state"], stopped["clock"]["offset_seconds"]) == ("stopped", 40 * 86_400)


def test_what_is_to_be_tried_later_is_tried_when_the_test_clock_comes_there(
    site: Site, hands: Hands, make_daemon: MakeDaemon
) -> None:
    outbox = site.folder / "var/outbox"
    outbox.parent.mkdir(exist_ok=True)
    outbox.write_text("no folder")
    site.edit("config.yaml", (r"type: file,", "type: file, retry: {first_seconds: 3600, breaker_seconds: 7200},"))
    daemon = make_daemon(site)
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")

    def standing() -> dict[str, Any]:
        return next(iter(site.json("status", code=None)["destinations"]), {})

    eventually(lambda: standing().get("next_attempt_at"))
    outbox.unlink()
    assert standing()["pending"]
    hands.put(3 * DAY)
    began = time.monotonic()
    eventually(lambda: standing()["pending"] == 0)
    assert time.monotonic() - began < 10


def test_a_production_site_is_given_no_other_clock(site: Site) -> None:
    site.edit("config.yaml", (r"(?m)^node:", "clock: {offset_seconds_file: var/ahead}\nnode:"))
    (problem,) = site.json("check", code=1)["problems"]
    assert problem["file"].endswith("config.yaml")
    line = site.config.read_text().splitlines()[problem["line"] - 1]
    assert line.startswith("clock:")
    assert "purpose: test" in problem["message"]
    assert site.run("run", code=78).stderr


def test_deadlines_ring_at_their_time_and_after_a_stop_all_at_once_with_their_lateness(
    site: Site, hands: Hands, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon(site)
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    daemon.settled()

    def states() -> dict[str, str]:
        return {
            task["kind"]: task["state"] for task in site.json("tasks", "list", "--state", "open", "--state", "missed")
        }

    assert set(states().values()) == {"open"}
    hands.put(timedelta(minutes=10))
    began = time.monotonic()
    eventually(lambda: states()["on_call_page"] == "missed")
    assert time.monotonic() - began < 10
    assert states()["pcp_follow_up"] == "open", "each at its own time"
    daemon.kill()
    hands.put(10 * DAY)
    stopped = site.json("status", code=69)["clock"]
    assert (stopped["due"], stopped["late_seconds"] > 6 * 86_400) == (1, True)
    daemon = make_daemon(site)
    eventually(lambda: not overdue(site))
    assert states()["pcp_follow_up"] == "missed"
    eventually(lambda: (site.json("status", code=None)["clock"]["rung_late_seconds"] or 0) > 6 * 86_400)
    eventually(lambda: site.json("status", code=None)["clock"]["due"] == 0)
    with urllib.request.urlopen(daemon.console + "/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert "handoff_deadline_late_seconds_bucket" in metrics
    rung = site.json("messages", "list", "--kind", "due")
    assert len(rung) == len({one["control_id"] for one in rung}) >= 2
    assert {(one["channel"], one["state"]) for one in rung} == {("@due", "processed")}
    assert site.json("messages", "show", str(rung[0]["id"]))["kind"] == "due"
    (line,) = [one for one in daemon.settled() if one["channel"] == "@due"]
    assert (line["received"], line["balanced"]) == (len(rung), True)
    assert not [one for one in site.json("audit", "list") if one["actor"] == "clock"], "nobody did that"


def test_on_two_nodes_each_deadline_rings_once_though_one_is_killed_while_they_ring(
    site: Site, hands: Hands, make_daemon: MakeDaemon
) -> None:
    with contextlib.closing(PostgresServer()) as postgres:
        url = postgres.url(postgres.new_database())
        ahead = site.folder / "var/ahead"
        site.edit(
            "config.yaml",
            (r"url: sqlite:\S+", f'url: "{url}"'),
            (r"offset_seconds_file: [^}]*", f"offset_seconds_file: {ahead}"),
        )
        south = Site(site.folder.parent / "south")
        shutil.copytree(site.folder, south.folder)
        south.edit(
            "config.yaml", (r"(?m)^node: .*$", "node: south"), (r"path: var/outbox", f"path: {site.folder}/var/outbox")
        )
        first = (site.folder / FIRST).read_text()
        patients = [
            first.replace("558181838", f"5581{number:05}")
            .replace("V90001", f"V9{number:04}")
            .replace("FIRST-", f"F{number}-")
            for number in range(PATIENTS)
        ]
        (site.folder / "patients.hl7").write_text("".join(patients))
        one, two = make_daemon(site), make_daemon(south)
        site.run("send", f"127.0.0.1:{one.port()}", "patients.hl7", "--shift-to-now")
        one.settled()

        def tasks() -> list[dict[str, Any]]:
            return site.json("tasks", "list", "--limit", "1000", "--state", "open", "--state", "missed")

        assert len(tasks()) >= 6 * PATIENTS
        hands.put(timedelta(minutes=10))
        hands.put(DAY)
        eventually(lambda: any(task["state"] == "missed" for task in tasks()))
        two.kill()
        hands.put(20 * DAY)
        eventually(lambda: not overdue(site), 60)
        kinds: dict[str, list[tuple[str, str]]] = {}
        for task in tasks():
            kinds.setdefault(task["patient_key"], []).append((task["kind"], task["reason"]))
        assert len(kinds) == PATIENTS
        assert len({tuple(sorted(found)) for found in kinds.values()}) == 1, "to each patient happened the same"
        rung = site.json("messages", "list", "--kind", "due", "--limit", "10000")
        assert len(rung) == len({entry["control_id"] for entry in rung}) >= PATIENTS
        assert {entry["state"] for entry in rung} == {"processed"}
        site.run("ledger")


def test_a_deadline_of_a_patient_whose_channel_is_gone_is_a_dead_letter_that_rings_when_it_is_replayed(
    site: Site, hands: Hands, make_daemon: MakeDaemon
) -> None:
    daemon = make_daemon(site)
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    daemon.settled()
    channel = site.folder / "channels/main-campus.yaml"
    text = channel.read_text()
    channel.write_text(text.replace("name: main-campus", "name: another"))
    site.run("reload", "--allow-remove")
    hands.put(timedelta(minutes=10))
    (letter,) = eventually(lambda: site.json("dead", "list"))
    assert (letter["error"], letter["location"]) == ("channel-unknown", None)
    shown = site.json("messages", "show", str(letter["entry"]))
    assert (shown["kind"], shown["state"]) == ("due", "dead")
    assert site.run("dead", "list").stdout
    (task,) = [one for one in site.json("tasks", "list") if one["kind"] == "on_call_page"]
    assert task["state"] == "open"
    dead = site.json("messages", "list", "--kind", "due", "--state", "dead")
    time.sleep(1.0)
    assert site.json("messages", "list", "--kind", "due", "--state", "dead") == dead, "it does not spin"
    assert len(dead) == 1
    channel.write_text(text)
    site.run("reload", "--allow-remove")
    site.run("dead", "replay", "--yes", "--all")
    eventually(
        lambda: [one["state"] for one in site.json("tasks", "list") if one["kind"] == "on_call_page"] == ["missed"]
    )
    assert site.json("dead", "list", code=None) == [] or site.json("dead", "list")[0]["resolved_by"]
