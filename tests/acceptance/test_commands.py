"""The commands against a real daemon: what the README promises, and what scripts rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Daemon, Site, eventually

FIRST = "channels/examples/first-message.hl7"
KEY = "MRN:558181838"
REVEAL = ("--reveal", "--reason", "first look")


def test_the_readmes_first_message_shows_its_patient_scores_tasks_and_delivery(site: Site, daemon: Daemon) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"handoff send 127.0.0.1:2575 {FIRST}" in readme
    assert f"handoff patients show {KEY} --reveal" in readme
    answers = site.json("send", f"127.0.0.1:{daemon.port()}", FIRST)
    assert [answer["ack"]["code"] for answer in answers] == ["AA", "AA"]
    line, *_ = daemon.settled()
    assert (line["balanced"], line["processed"], line["acked"]) == (True, 2, 2)
    patient = site.json("patients", "show", KEY, *REVEAL)
    assert patient["name"]["family"] == "DOE"
    assert {score["model"]: score["band"] for score in patient["scores"]} == {"lace": "high", "seed": "high"}
    assert {task["kind"] for task in site.json("tasks", "list")} == {
        "medication_reconciliation", "pcp_follow_up", "specialist_follow_up", "care_coordinator_alert", "on_call_page",
        "tcm_contact",
    }  # fmt: skip
    outbox = site.folder / "var/outbox"
    eventually(lambda: any(b'"notify"' in file.read_bytes() for file in outbox.glob("*.ndjson")))  # once the clock rang
    line, *_ = daemon.settled()
    delivered = [json.loads(line) for file in outbox.glob("*.ndjson") for line in file.open("rb")]
    assert {item["operation"] for item in delivered} == {
        "upsert_patient", "upsert_encounter", "upsert_score", "upsert_task", "notify",
    }  # fmt: skip
    assert len({item["idempotency_key"] for item in delivered}) == len(delivered) == line["deliveries"]["delivered"]


def test_run_says_where_it_listens_and_how_to_send_a_first_message(site: Site, daemon: Daemon) -> None:
    said = daemon.log.read_text()
    assert f"127.0.0.1:{daemon.port()}" in said
    assert daemon.console in said
    command = re.search(r" send (127\.0\.0\.1:\d+) (\S+)", said)
    assert command
    assert [item["ack"]["code"] for item in site.json("send", *command.groups())] == ["AA", "AA"]


def test_status_tells_a_running_daemon_from_none(site: Site, daemon: Daemon) -> None:
    status = site.json("status")
    assert (status["node"], status["state"], status["pid"]) == ("main-1", "running", daemon.pid)
    (channel,) = status["channels"]
    assert channel.keys() >= {"name", "mode", "host", "port", "connections"}
    assert channel["port"] > 0
    with daemon.connection() as sender:
        sender.exchange(_message("HELLO"))
        assert site.json("status")["channels"][0]["connections"] == 1
    assert daemon.stop() == 0
    assert site.json("status", code=69)["state"] == "stopped"


def test_status_shows_the_workers_of_the_node_and_what_is_theirs(site: Site, daemon: Daemon) -> None:
    deadline = time.monotonic() + 60
    while sum(worker["partitions"] for worker in site.json("status")["workers"]) < 64:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    workers = site.json("status")["workers"]
    assert [worker["index"] for worker in workers] == list(range(len(workers)))
    assert all(worker["up"] and worker["pid"] and worker["restarts"] == 0 for worker in workers)
    assert [name for worker in workers for name in worker["destinations"]] == ["files"]
    with urllib.request.urlopen(daemon.console + "/metrics", timeout=30) as answer:
        text = answer.read()
    assert b"\nhandoff_partitions 64.0\n" in text
    assert b'\nhandoff_destination_owned{destination="files"} 1.0\n' in text


@pytest.mark.parametrize("change", [("node: .*", "noode: x"), ("node: .*", "node: ["), ("store:", "store: x\\nx:")])
def test_the_daemon_is_found_when_its_configuration_was_broken_since(
    site: Site, daemon: Daemon, change: tuple[str, str]
) -> None:
    site.edit("config.yaml", change)
    done = site.run("status", "--json")
    assert json.loads(done.stdout)["pid"] == daemon.pid
    assert "goes on with the configuration that it loaded before" in done.stderr
    refused = site.json("reload", code=1)
    assert (refused["ok"], bool(refused["problems"])) == (False, True)
    assert "The last reload was refused" in site.run("status").stdout
    daemon.stop()
    site.json("status", code=78)


def test_after_a_kill_status_says_that_no_daemon_runs_and_another_one_starts(
    site: Site, daemon: Daemon, make_daemon: Callable[[Site], Daemon]
) -> None:
    daemon.kill()
    assert site.json("status", code=69)["pid"] is None
    assert make_daemon(site).status["state"] == "running"


def test_reading_commands_work_with_and_without_the_daemon(site: Site, daemon: Daemon) -> None:
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST)
    daemon.settled()
    commands = [("messages", "list"), ("patients", "show", KEY), ("tasks", "list"), ("dead", "list"), ("ledger",)]
    running = [site.json(*command) for command in commands]
    daemon.stop()
    assert [site.json(*command) for command in commands] == running


def test_a_person_acts_through_the_daemon_and_without_it_nothing_is_done(site: Site, daemon: Daemon) -> None:
    site.json("send", f"127.0.0.1:{daemon.port()}", FIRST)
    daemon.settled()
    tasks = site.json("tasks", "list")
    first, second = tasks[0]["id"], tasks[1]["id"]
    assert site.json("tasks", "done", first)["state"] == "done"
    assert site.json("tasks", "assign", second, "nurse.kim")["assignee"] == "nurse.kim"
    assert site.run("tasks", "done", first, code=1).stderr.strip().endswith("the task is not open but done")
    (refused, given, done) = site.json("messages", "list", "--kind", "act")
    assert [one["type"] for one in (done, given, refused)] == ["task-done", "task-assigned", "task-done"]
    assert (refused["without_effect"], refused["reason"]) == (True, "the task is not open but done")
    effect = site.json("messages", "show", str(done["id"]))["effects"][0]
    assert (effect["kind"], effect["subject"]) == ("task-done", first)
    assert {one["kind"] for one in site.json("messages", "list")} == {"message"}
    lines = site.json("ledger")
    assert [(one["channel"], one["kind"]) for one in lines[:2]] == [("main-campus", "message"), ("@act", "act")]
    assert (lines[1]["received"], lines[1]["processed"], lines[1]["balanced"]) == (3, 3, True)
    daemon.kill()
    out = site.run("tasks", "done", second, code=69)
    assert "nothing was done" in out.stderr
    assert [one["state"] for one in site.json("tasks", "list") if one["id"] == second] == ["open"]
    assert site.json("ledger")[1]["received"] == 3


def test_a_page_is_called_acknowledged_and_seen_and_without_the_daemon_nothing_is_done(
    site: Site, daemon: Daemon
) -> None:
    until = "2099-01-01T00:00"
    swapped = site.json(
        "oncall", "override", "on-call", "example-backup", "--until", until, "--reason", "a swap", code=0
    )
    assert (swapped["person"], swapped["role"]) == ("example-backup", "primary")
    first, second = site.json("oncall", "who", "on-call")["level"]
    assert (first["person"], first["stands_in"], second["person"]) == ("example-backup", True, "example-backup")
    site.json("send", f"127.0.0.1:{daemon.port()}", FIRST)
    daemon.settled()
    eventually(lambda: [one["state"] for one in site.json("pages", "list")] == ["sent"])  # once the clock rang
    (page,) = site.json("pages", "list")
    assert (page["state"], page["level"], page["roster"], page["acknowledged_by"]) == ("sent", 1, "on-call", None)
    assert [(step["person"], step["result"]) for step in page["steps"]] == [("example-backup", "sent")]
    lines = [line for file in (site.folder / "var/outbox").glob("*.ndjson") for line in file.open("rb")]
    (notified,) = [line for line in lines if json.loads(line)["operation"] == "notify"]
    assert not [name for name in (b"DOE", b"JANE", b"558181838", b"V90001") if name in notified]

    after = site.json("pages", "ack", page["id"][:8], "--as", "a-stranger")
    assert (after["state"], after["acknowledged_by"], after["on_ladder"]) == ("acknowledged", "a-stranger", False)
    (task,) = [one for one in site.json("tasks", "list") if one["kind"] == "on_call_page"]
    assert (task["state"], task["closed_by"]) == ("done", "a-stranger")
    again = site.run("pages", "ack", page["id"], code=1)
    assert "acknowledged by a-stranger, not on call" in again.stderr
    assert site.json("pages", "show", page["id"]) == after
    daemon.kill()
    assert "nothing was done" in site.run("pages", "ack", page["id"], code=69).stderr
    override = ("oncall", "override", "on-call", "example-night", "--until", until, "--reason", "x")
    assert "nothing was done" in site.run(*override, code=69).stderr
    assert site.json("oncall", "who", "on-call")["level"][0]["person"] == "example-backup"
    assert len(site.json("oncall", "overrides")) == 1


def test_a_dead_letter_is_replayed_by_the_running_daemon_after_a_reload(site: Site, daemon: Daemon) -> None:
    mapping = site.folder / "mappings/fields/adt.yaml"
    good = mapping.read_text()
    mapping.write_text(
        good.replace("patient.sex: {from: PID-8, table: sex}", "patient.sex: {from: PID-37, required: true}")
    )
    assert site.json("reload")["ok"] is True
    daemon.send(_message("NEEDS-FIX"))
    daemon.settled()
    (letter,) = site.json("dead", "list")
    assert letter["stage"] == "processing"
    mapping.write_text(good)
    assert site.json("reload")["ok"] is True
    (result,) = site.json("dead", "replay", str(letter["id"]))
    line, *_ = daemon.settled()
    assert (line["balanced"], line["dead"], line["processed"]) == (True, 1, 1)
    replayed = site.json("messages", "show", str(result["entry"]))
    assert (replayed["state"], replayed["replay_of"]) == ("processed", letter["entry"])
    assert replayed["deliveries"]


def test_a_wrong_configuration_is_refused_by_reload_and_the_daemon_goes_on(site: Site, daemon: Daemon) -> None:
    site.edit("channels/main-campus.yaml", (r"mapping: adt\b", "mapping: nothing"))
    with daemon.connection() as sender:
        assert site.json("reload", code=1)["problems"]
        assert b"MSA|AA|STILL-HERE" in sender.exchange(_message("STILL-HERE"))
    assert site.json("status")["state"] == "running"


def test_a_reload_opens_a_new_channel_and_leaves_open_connections_alone(site: Site, daemon: Daemon) -> None:
    channel = (site.folder / "channels/main-campus.yaml").read_text()
    (site.folder / "channels/east.yaml").write_text(channel.replace("name: main-campus", "name: east"))
    with daemon.connection() as sender:
        sender.exchange(_message("BEFORE"))
        assert site.json("reload")["ok"] is True
        assert b"MSA|AA|AFTER" in sender.exchange(_message("AFTER"))
    daemon.status = site.json("status")
    assert b"MSA|AA|EAST" in daemon.send(_message("EAST"), channel="east")[0]


def test_sighup_reloads_and_sigterm_stops_with_0(site: Site, daemon: Daemon) -> None:
    before = site.json("status")["config_version"]
    site.edit("channels/main-campus.yaml", ("# The ADT feed", "# The changed ADT feed"))
    os.kill(daemon.pid, signal.SIGHUP)
    deadline = time.monotonic() + 60
    while site.json("status")["config_version"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert daemon.stop() == 0


def test_a_second_daemon_on_the_same_store_is_refused(site: Site, daemon: Daemon) -> None:
    second = site.run("run", code=None)
    assert second.returncode == 1
    assert "another daemon" in second.stderr
    assert site.json("status")["pid"] == daemon.pid


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        ("config.yaml", ("node: main-1", "noode: main-1"), 78),
        ("channels/main-campus.yaml", (r"mapping: adt\b", "mapping: nothing"), 78),
        ("config.yaml", (r"sqlite:///var/handoff.db", "postgresql+psycopg://nobody@127.0.0.1:1/none"), 69),
    ],
)
def test_run_ends_with_the_code_that_says_why_it_cannot_start(
    site: Site, file: str, change: tuple[str, str], code: int
) -> None:
    site.edit(file, change)
    assert site.run("run", code=code).stderr


def test_run_without_its_keys_ends_with_78_and_says_which_file(site: Site) -> None:
    (site.folder / "var/keys.json").unlink()
    assert "keys.json" in site.run("run", code=78).stderr


def test_health_readiness_and_metrics_are_served_on_the_consoles_port(daemon: Daemon) -> None:
    daemon.send(_message("COUNTED"))
    for path in ("/healthz", "/readyz", "/metrics"):
        with urllib.request.urlopen(daemon.console + path, timeout=30) as answer:
            assert answer.status == 200
            body = answer.read()
    assert b"handoff" in body


def test_output_that_nobody_reads_any_more_ends_quietly(site: Site) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "engine", "schema", "channel"], cwd=site.folder, stdout=writing,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""


def test_the_demo_ends_with_balanced_books(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    site = Site(tmp_path)
    done = site.run("demo", "--folder", str(folder), "--messages", "300", "--rate", "0", "--seed", "1")
    assert "The books balance: 300 received" in done.stdout
    assert site.json("status", "--config", str(folder / "config.yaml"), code=69)["state"] == "stopped"


def _message(control_id: str) -> str:
    return (
        f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|20261104081500-0500||ADT^A01^ADT_A01|{control_id}|P|2.5.1\r"
        "EVN|A01|20261104081500-0500\rPID|1||7001^^^MRN^MR||ROE^RICHARD||19600101|M\rPV1|1|I|4EAST^1|E|||||||||||||||V7001\r"
    )
