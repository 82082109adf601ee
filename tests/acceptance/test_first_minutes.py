"""The README's first minutes: a discharge, its page, the visit that closes a task, and the discharge taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import Daemon, Site, eventually

KEY = "MRN:558181838"


def test_a_discharge_pages_a_visit_closes_and_a_cancel_takes_back(site: Site, daemon: Daemon) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()

    def send(name: str) -> None:
        file = f"channels/examples/{name}.hl7"
        assert f"handoff send 127.0.0.1:2575 {file} --shift-to-now" in readme
        answers = site.json("send", f"127.0.0.1:{daemon.port()}", file, "--shift-to-now")
        assert {answer["ack"]["code"] for answer in answers} == {"AA"}
        daemon.settled()

    def tasks() -> dict[str, dict[str, Any]]:
        return {task["kind"]: task for task in site.json("tasks", "list", "--patient", KEY)}

    send("first-message")
    assert {task["state"] for task in tasks().values()} == {"open"}
    (page,) = eventually(lambda: [one for one in site.json("pages", "list") if one["state"] == "sent"])
    assert (page["level"], page["acknowledged_by"]) == (1, None)
    assert [(step["channel"], step["result"]) for step in page["steps"]] == [("files", "sent")]

    after = site.json("pages", "ack", page["id"], "--as", "example-backup")
    assert (after["state"], after["acknowledged_by"]) == ("acknowledged", "example-backup")
    assert (tasks()["on_call_page"]["state"], tasks()["on_call_page"]["closed_by"]) == ("done", "example-backup")

    send("follow-up-visit")
    visited = tasks()["pcp_follow_up"]
    assert visited["state"] == "done"
    assert visited["evidence"]
    assert tasks()["specialist_follow_up"]["state"] == "open", "what the visit does not prove"

    send("cancelled-discharge")
    states = {kind: task["state"] for kind, task in tasks().items()}
    done = {"on_call_page", "pcp_follow_up"}
    assert states == {kind: "done" if kind in done else "retracted" for kind in states}
    (patient,) = [site.json("patients", "show", KEY, "--reveal", "--reason", "first look")]
    statuses = {stay["visit_number"]: stay["status"] for stay in patient["encounters"]}
    assert statuses["V90001"] == "active"

    decisions = site.json("why", KEY)
    opened = [one for one in decisions if one["action"] == "open" and one["decided"] == "done"]
    taken_back = [one for one in decisions if one["reason"] == "reversed"]
    assert opened
    assert taken_back
    assert all(one["causes"] for one in taken_back)
