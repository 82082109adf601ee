"""Destinations beside a running daemon: one that was not fed, a new one, a pause, one that is taken away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from harness import Daemon, Site

FIRST = "channels/examples/first-message.hl7"


def lines(site: Site, folder: str) -> list[dict[str, Any]]:
    """What channels have delivered; who is called by a page goes to the destinations of the people."""
    found = [json.loads(line) for file in (site.folder / folder).glob("*.ndjson") for line in file.open("rb")]
    return [line for line in found if line["operation"] != "notify"]


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def row(site: Site, name: str) -> dict[str, Any]:
    return next(one for one in site.json("destinations", "list") if one["name"] == name)


def test_a_channel_that_begins_to_deliver_a_new_destination_a_pause_and_its_end(
    site: Site, make_daemon: Callable[[Site], Daemon]
) -> None:
    site.edit("channels/main-campus.yaml", (r"deliver:\n  - ", "deliver: []  # "))
    daemon = make_daemon(site)
    site.json("send", f"127.0.0.1:{daemon.port()}", FIRST)
    daemon.settled()
    assert lines(site, "var/outbox") == []

    site.edit(
        "channels/main-campus.yaml",
        (r"deliver: \[\]  # ", "deliver:\n  - {to: crm, what: [task]}\n  - "),
    )
    site.edit("config.yaml", ("destinations:\n", "destinations:\n  crm: {type: file, path: var/crm}\n"))
    said = site.json("reload")
    assert {line.partition(":")[0] for line in said["remarks"]} == {
        "destination crm was never told of 1 patient",
        "destination files was never told of 1 patient",
    }
    until(lambda: row(site, "crm")["untold"] == 1)
    site.json("destinations", "pause", "crm", "--for", "1h", "--reason", "not yet")
    for name in ("crm", "files"):
        assert site.json("resend", "--destination", name, "--all")["patients"] == 1
    until(lambda: row(site, "files")["pending"] == 0)
    waiting = row(site, "crm")
    assert (waiting["state"], waiting["untold"]) == ("paused", 0)
    assert waiting["pending"] > 0
    assert lines(site, "var/crm") == []
    site.json("destinations", "resume", "crm")
    tasks = {task["id"] for task in site.json("tasks", "list")}
    until(lambda: {line["task"]["id"] for line in lines(site, "var/crm")} == tasks)
    told = [line["operation"] for line in lines(site, "var/outbox")]
    assert told[0] == "upsert_patient"
    assert told.count("upsert_task") == len(tasks)
    daemon.settled()
    assert site.json("reload")["remarks"] == []
    daemon.stop()
    assert row(site, "crm")["state"] == "up"  # also without a daemon
