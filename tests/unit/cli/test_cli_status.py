"""`handoff status`: one screen that says what is wrong, and its exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from site_with_store import Site

from engine.cli import status as command
from engine.cli import tables
from engine.domain.standing import ChannelWork, Overview, Standing
from engine.pipeline.trouble import of_work, trouble
from engine.runtime import status as daemon
from engine.runtime.skews import SenderSkew
from engine.runtime.status import ChannelStatus, Status, WorkerStatus

NOW = datetime.now(UTC)
CHANNEL = ChannelStatus(name="west", mode="live", host="0.0.0.0", port=2776, connections=3, per_minute=12.5)
WEST = ChannelWork(name="west", waiting=3, oldest_waiting_at=NOW - timedelta(seconds=40), last_message_at=NOW)
CRM = Standing(
    name="crm", type="salesforce", state="down", since=NOW - timedelta(minutes=18), error="login-invalid-client",
    detail="x", pending=46, oldest_at=NOW - timedelta(minutes=18), next_attempt_at=NOW + timedelta(seconds=30), held=1,
    dead=0,
)  # fmt: skip


def running(work: Overview, *more: str) -> Status:
    status = Status(
        node="main-1", state="running", pid=42, channels=(CHANNEL,), console=None, ready=True, started_at=NOW,
        workers=(WorkerStatus(index=0, pid=43, up=True, restarts=0, partitions=64, destinations=("crm",)),),
        disk_free_bytes=80 << 30,
    )  # fmt: skip
    return status.with_work(work).with_troubles((*map(trouble, more), *of_work(work, NOW)))


FINE = running(Overview(at=NOW, channels=(WEST,)))
BAD = running(
    Overview(at=NOW, channels=(WEST,), destinations=(CRM,), dead=4, oldest_dead_at=NOW, holds={"death-stale": 2})
)


@pytest.mark.parametrize(
    ("status", "code"),
    [(FINE, 0), (BAD, 1), (running(Overview(at=NOW), "worker-keeps-dying"), 1),
     (running(Overview(at=NOW), "reload-refused"), 0)],
    ids=["fine", "bad", "worker", "reload"],
)  # fmt: skip
def test_the_exit_code_says_whether_a_person_is_needed(
    bare: Site, monkeypatch: pytest.MonkeyPatch, status: Status, code: int
) -> None:
    monkeypatch.setattr(daemon, "running_status", lambda _: status)
    done = bare.run("status", "--json")
    assert done.code == code
    assert done.json["trouble"] == list(status.trouble)
    assert [one["code"] for one in done.json["troubles"]] == list(status.trouble)


def test_the_document_has_what_the_contract_names(bare: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "running_status", lambda _: BAD)
    shape = bare.json("status", code=1)
    assert (shape["dead"], shape["held"], shape["waiting"]) == (4, 3, 3)
    assert shape["trouble"] == ["destination-down:crm", "deliveries-held:crm", "dead-letters", "messages-held"]
    (crm,) = shape["destinations"]
    assert (crm["name"], crm["state"], crm["error"], crm["pending"]) == ("crm", "down", "login-invalid-client", 46)
    (west,) = shape["channels"]
    assert (west["waiting"], west["connections"]) == (3, 3)
    assert west["last_message_at"]


def test_the_screen_says_since_when_why_how_much_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    monkeypatch.setattr(command, "terminal_columns", lambda: 80)
    text = command.human_status(BAD, NOW)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80, text
    assert len(lines) <= 24, "one screen"
    for said in ("destination-down:crm since ", " min)", "login-invalid-client, 46 wait",
                 "see: handoff destinations show crm",
                 "west", "4 dead, 3 held (2 messages)", "Safe to restart"):  # fmt: skip
        assert said in " ".join(text.split()) or said in text
    assert "(--wide says what each means and what to do)" in text
    monkeypatch.setattr(command, "terminal_columns", lambda: None)
    assert "a destination takes nothing; its deliveries wait, none is lost. The error" in command.human_status(BAD, NOW)


def test_a_sender_with_a_wrong_clock_is_named_as_it_may_be_shown(
    stocked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    senders = tuple(
        SenderSkew(channel="main-campus", sender=number, skew_seconds=seconds, wrong=wrong, entry=entry)
        for number, seconds, wrong, entry in (
            (1, -18_000, True, 1),
            (2, 7_200, True, 4),
            (3, 10, False, 2),
            (4, 900, True, 99),
        )
    )
    monkeypatch.setattr(daemon, "running_status", lambda _: structs.replace(FINE, senders=senders))
    monkeypatch.setattr(command, "terminal_columns", lambda: 80)
    done = stocked.run("status")
    assert "the clock of EHR/MAIN on main-campus is 5 h ahead\n" in done.out
    assert "the clock of ~" in done.out, "nothing of it was processed: a patient's name may stand there"
    assert "the clock of sender 4 on" in done.out, "its entry is not there any more"
    assert max(map(len, done.out[done.out.index("the clock") :].splitlines())) <= 80
    names = [one["name"] for one in stocked.json("status")["senders"]]
    assert names[0] == "EHR/MAIN"
    assert names[1].startswith("~")
    assert names[2:] == [None, None]


def test_a_broken_file_makes_a_restart_unsafe(bare: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "running_status", lambda _: FINE)
    bare.config.write_text(bare.config.read_text() + "\nnonsense: 1\n")
    done = bare.run("status")
    assert done.code == 0
    assert "Not safe to restart: the files on disk can't be loaded" in done.out
    assert "configuration-broken" in done.out
    assert "Safe to restart" in command.human_status(FINE, NOW)


def test_without_a_daemon_it_says_what_waits_in_the_store(stocked: Site) -> None:
    shape = stocked.json("status", code=69)
    assert (shape["state"], shape["dead"], shape["waiting"]) == ("stopped", 2, 0)
    assert shape["trouble"][:2] == ["not-running", "dead-letters"] or "not-running" in shape["trouble"]
    assert shape["destinations"][0]["pending"] > 0
    text = stocked.run("status").out
    assert "the daemon does not run" in text
    assert "2 dead" in text


def test_without_daemon_and_store_it_still_answers(bare: Site) -> None:
    for file in (bare.folder / "var").glob("*.db*"):
        file.unlink()
    shape = bare.json("status", code=69)
    assert shape["trouble"] == ["not-running"]
    assert json.dumps(shape)
