"""The ten questions of whoever is on call, each answered by one command, of one daemon after a bad night."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Sender, Site

DESTINATION = "lab"


def eventually(look: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.3)
    return found


def message(control_id: str, patient: str, *, sender: str = "EHR", event: str = "A01", left: str = "") -> str:
    now = f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"
    pid = f"PID|1||{patient}^^^MRN^MR||DOE^JANE||19470715|F" if patient else "PID|1||||DOE^JANE"
    visit = f"PV1|1|I|4W^401^A||||||||||||||||V{control_id}^^^MRN" + "|" * 17
    msh = f"MSH|^~\\&|{sender}|MAIN|||{now}||ADT^{event}|{control_id}|P|2.5.1"
    visit += f"{'01' if left else ''}||||||||{now}|{left}"
    return "\r".join((msh, f"EVN|{event}|{now}", pid, visit)) + "\r"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Daemon]]:
    """One daemon: a destination that is down, a message that died, one refused, a discharge without a plan."""
    folder: Path = tmp_path_factory.mktemp("night") / "site"
    folder.mkdir()
    site = Site(folder)
    site.run("init", ".")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    lab = f"destinations:\n  lab: {{type: mllp, host: 127.0.0.1, port: {nobody}}}"
    site.edit("config.yaml", (r"port: 8080", "port: 0"), (r"(?m)^destinations:", lab))
    site.edit("channels/main-campus.yaml", (r"port: 2575", "port: 0"), (r"(?m)^protocol: .*\n", ""),
              (r"(?m)^deliver:$", "deliver:\n  - {to: lab, what: [message]}"))  # fmt: skip
    daemon = Daemon(site).start()
    now = f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"
    daemon.send(
        message("M1", "7001"), message("M2", "7001", event="A03", left=now).replace("VM2", "VM1"),
        message("M3", "", event="A08"), message("M4", "7002", sender="NOISE").replace("ADT^A01", "ORU^R01"),
    )  # fmt: skip
    eventually(lambda: not site.json("ledger", code=None)[0]["pending"])
    yield site, daemon
    daemon.kill()


@pytest.fixture
def site(night: tuple[Site, Daemon]) -> Site:
    return night[0]


@pytest.fixture
def daemon(night: tuple[Site, Daemon]) -> Daemon:
    return night[1]


def test_1_did_message_x_arrive(site: Site) -> None:
    (found,) = site.json("messages", "list", "--control-id", "M1")
    assert (found["state"], found["ack"], found["ack_state"]) == ("processed", "AA", "sent")


def test_2_which_patients_got_no_follow_up(site: Site) -> None:
    rows = site.json("gaps", "--since", "1d")
    kinds = {row["what"] for row in rows}
    assert {"dead", "refused", "no-plan"} <= kinds, rows
    (no_plan,) = [row for row in rows if row["what"] == "no-plan"]
    assert "no protocol" in no_plan["reason"]
    assert all(row["reason"] and row["see"] for row in rows)


def test_3_what_changed_since_last_week(site: Site) -> None:
    """What was loaded when, and by whom; and what differs from what is there now."""
    (first, *_) = site.json("config", "list")
    assert first["who"]
    before = (site.folder / "channels/main-campus.yaml").read_text()
    site.edit("channels/main-campus.yaml", (r"(?m)^name: .*$", r"\g<0>\nsenders: [EHR, MAIN]"))
    document = site.json("config", "diff", first["version"], code=1)
    assert [one["file"] for one in document["files"]] == ["channels/main-campus.yaml"]
    assert "+senders: [EHR, MAIN]" in document["files"][0]["diff"]
    (site.folder / "channels/main-campus.yaml").write_text(before)
    assert site.json("config", "diff", first["version"])["same"]
    assert all(row["at"] and row["actor"] for row in site.json("audit", "list", "--since", "7d"))


def test_4_which_sender_sends_garbage(site: Site) -> None:
    """A name of which nothing was processed could be a patient's: it is hidden, the address is not."""
    worst, *others = site.json("senders")
    assert (worst["received"], worst["refused"], worst["peers"]) == (1, 1, ["127.0.0.1"])
    assert "NOISE" not in worst["sender"]
    revealed, *_ = site.json("senders", "--reveal", "--reason", "who is it?")
    assert revealed["sender"] == "NOISE/MAIN"
    listed = site.json("messages", "list", "--sender", worst["sender"])
    assert [row["id"] for row in listed] == [worst["example"]]
    (other,) = others
    assert (other["sender"], other["received"], other["dead"]) == ("EHR/MAIN", 3, 1)


def test_5_how_far_behind_are_we(site: Site) -> None:
    status = eventually(
        lambda: next(
            (one for one in [site.json("status", code=None)] if "destination-down:lab" in one["trouble"]), None
        )
    )
    assert status["waiting"] == 0
    assert (status["dead"], status["channels"][0]["last_message_at"] is not None) == (2, True)
    lab = next(one for one in status["destinations"] if one["name"] == DESTINATION)
    assert (lab["state"], lab["pending"] > 0, lab["oldest_at"] is not None) == ("down", True, True)
    assert site.run("status", code=1).stdout.count("destination-down:lab") == 1


def test_6_replay_an_hour_of_a_channel(site: Site) -> None:
    begin = (datetime.now(UTC) - timedelta(minutes=30)).isoformat(timespec="minutes")
    document = site.json("replay", "--channel", "main-campus", "--since", begin, "--until", "tomorrow", "--dry-run")
    assert len(document["selected"]) == 4
    assert [one["state"] for one in document["would"]] == ["processed", "processed", "dead", "refused"]
    none = site.json("replay", "--channel", "main-campus", "--since", "yesterday 14:00", "--until", "yesterday 15:00")
    assert none["replayed"] == 0


def test_8_why_is_a_destination_down(site: Site) -> None:
    shape = eventually(lambda: next((s for s in [site.json("destinations", "show", DESTINATION)] if s["error"]), None))
    assert (shape["state"], shape["error"]) == ("down", "unreachable")
    assert shape["remedy"]
    assert shape["since"]


def test_9_why_can_a_sender_not_connect(site: Site, daemon: Daemon) -> None:
    site.edit("channels/main-campus.yaml", (r"allow: \[127.0.0.0/8\]", "allow: [10.99.0.0/16]"))
    site.run("reload")
    with socket.create_connection(("127.0.0.1", daemon.port()), timeout=30) as raw, pytest.raises(ConnectionError):
        Sender(raw).exchange(message("NO", "1"))
    (refused,) = eventually(lambda: site.json("connections", "--refused")["refused"])
    assert (refused["peer"], refused["reason"]) == ("127.0.0.1", "not-in-allow-list")
    assert "listen.allow" in refused["meaning"]
    assert "not-in-allow-list" in site.run("connections").stdout


def test_10_is_it_safe_to_restart(site: Site) -> None:
    assert "Safe to restart" in site.run("status", code=1).stdout
    site.edit("config.yaml", (r"(?m)^node:", "noode:"))
    assert "Not safe to restart" in site.run("status", code=1).stdout
    site.edit("config.yaml", (r"(?m)^noode:", "node:"))


def test_7_discard_all_of_a_kind(site: Site) -> None:
    assert len(site.json("dead", "discard", "--error", "type-not-accepted", "--reason", "noise", "--dry-run")) == 1
    (letter,) = site.json("dead", "discard", "--error", "type-not-accepted", "--reason", "noise")
    assert letter["resolved_by"] == "discarded"
    assert site.json("dead", "summary")[0]["error"] == "identifier-missing"
