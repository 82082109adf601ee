"""`handoff destinations`: what the one on call sees of them and can do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from site_with_store import Site, seen, without_destination

from engine.connectors.registry import load
from engine.domain.delivery import DeliveryState
from engine.snapshot import Snapshot
from engine.store.destinations import Trouble
from engine.store.opening import open_store
from engine.store.outbox import Settled


def row(site: Site, name: str = "files") -> dict[str, object]:
    return next(one for one in site.json("destinations", "list") if one["name"] == name)


def fails(site: Site, *, down: bool = True, error: str = "disk-full") -> datetime:
    since = datetime.now(UTC) - timedelta(minutes=15)
    trouble = Trouble(since=since, error=error, detail="there is no space left", down=down, failures=7)
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        store.charts_ledger.write_now(lambda conn: store.destinations.failed(conn, "files", trouble))
    return since


def test_list_has_the_contract_s_fields_whether_or_not_a_daemon_runs(stocked: Site):
    one = row(stocked)
    assert one.keys() >= {
        "name", "type", "state", "since", "error", "pending", "oldest_at", "next_attempt_at", "held", "dead",
    }  # fmt: skip
    assert (one["type"], one["state"], one["error"], one["held"], one["dead"]) == ("file", "up", None, 0, 0)
    assert one["pending"]
    assert one["oldest_at"]


def test_show_says_since_when_why_and_what_to_do(stocked: Site):
    since = fails(stocked)
    one = row(stocked)
    assert (one["state"], one["error"], one["since"]) == ("down", "disk-full", since.isoformat().replace("+00:00", "Z"))
    text = stocked.run("destinations", "show", "files").out
    assert "down since" in text
    assert "disk-full" in text
    assert "make room" in text
    assert "pending" in text


def test_a_destination_that_answers_and_refuses_is_up_and_has_an_error(stocked: Site):
    fails(stocked, down=False, error="answer-ar")
    one = row(stocked)
    assert (one["state"], one["error"]) == ("up", "answer-ar")


@pytest.mark.parametrize(("span", "hours"), [("2h", 2), ("90m", 1.5), ("1d", 24), (None, None)])
def test_pause_and_resume(stocked: Site, span: str | None, hours: float | None):
    more = () if span is None else ("--for", span)
    paused = stocked.json("destinations", "pause", "files", "--reason", "moving the server", *more)
    assert paused["state"] == "paused"
    if hours is None:
        assert paused["next_attempt_at"] is None
    else:
        left = datetime.fromisoformat(paused["next_attempt_at"]) - datetime.now(UTC)
        assert timedelta(hours=hours) - timedelta(minutes=5) < left <= timedelta(hours=hours)
    assert "paused" in stocked.run("destinations", "show", "files").out
    assert stocked.json("destinations", "resume", "files")["state"] == "up"
    acts = [one["action"] for one in stocked.json("audit", "list")]
    assert acts[:2] == ["destination-resumed", "destination-paused"]


def test_a_pause_says_why_and_a_second_one_keeps_since_when(stocked: Site):
    first = stocked.json("destinations", "pause", "files", "--reason", "moving the server", "--for", "1h")
    assert first["paused_reason"] == "moving the server"
    assert f"by {first['paused_by']}: moving the server" in stocked.run("destinations", "show", "files").out
    again = stocked.run("destinations", "pause", "files", "--for", "3h", "--json")
    assert "was paused already" in again.err
    assert (again.json["since"], again.json["paused_reason"]) == (first["since"], "moving the server")
    assert again.json["paused_until"] > first["paused_until"]
    assert (
        stocked.json("destinations", "pause", "files", "--reason", "it takes longer")["paused_reason"]
        == "it takes longer"
    )
    assert stocked.json("destinations", "resume", "files")["paused_reason"] is None
    anew = stocked.run("destinations", "pause", "files", "--json")
    assert "already" not in anew.err
    assert (anew.json["paused_reason"], anew.json["since"] > first["since"]) == (None, True), "of the pause before"


def test_what_would_be_moved_or_given_up_is_counted_first(stocked: Site):
    waiting = row(stocked)["pending"]
    without_destination(stocked)
    would = stocked.json("destinations", "move", "files", "--to", "other", "--dry-run")
    assert (would["moved"], would["dry_run"]) == (waiting, True)
    would = stocked.json("destinations", "discard", "files", "--reason", "x", "--dry-run")
    assert (would["discarded"], would["dry_run"]) == (waiting, True)
    assert row(stocked)["pending"] == waiting
    assert "destination-discarded" not in {one["action"] for one in stocked.json("audit", "list")}


def test_without_a_store_those_that_are_configured_are_listed(bare: Site):
    for file in (bare.folder / "var").glob("*.db*"):
        file.unlink()
    one = row(bare)
    assert (one["type"], one["state"], one["pending"], one["orphan"]) == ("file", "up", 0, False)
    assert "not there yet" in bare.run("destinations", "list").err
    assert [one["name"] for one in bare.json("status", code=69)["destinations"]] == ["files"]
    bare.config.write_text(bare.config.read_text() + "\nnonsense: 1\n")
    assert bare.run("destinations", "list").code == 69, "which are configured can't be known then"


def test_retry_makes_due_what_waits_for_its_time(stocked: Site):
    fails(stocked)
    after = stocked.json("destinations", "retry", "files")
    assert datetime.fromisoformat(after["next_attempt_at"]) <= datetime.now(UTC)


@pytest.mark.parametrize("command", ["show", "pause", "resume", "retry"])
def test_a_wrong_name_is_said_with_those_that_exist(stocked: Site, command: str):
    done = stocked.run("destinations", command, "nosuch")
    assert done.code == 1
    assert "there are files" in done.err


@pytest.mark.parametrize("span", ["2", "h", "-1h", "0h", "2026-11-30", "9999999d", "400d"])
def test_a_pause_needs_a_length_of_time(stocked: Site, span: str):
    assert stocked.run("destinations", "pause", "files", "--for", span).code == 2


def test_what_waits_for_a_destination_that_is_gone_is_an_orphan_until_moved(stocked: Site):
    waiting = row(stocked)["pending"]
    stocked.json("destinations", "pause", "files")
    without_destination(stocked)
    one = row(stocked)
    assert (one["orphan"], one["state"], one["error"], one["pending"]) == (True, "down", "not-configured", waiting)
    assert "orphan" in stocked.run("destinations", "list").out
    done = stocked.json("destinations", "move", "files", "--to", "other", "--reason", "renamed", "--yes")
    assert done["moved"] == waiting
    assert row(stocked, "other")["pending"] == waiting
    assert [one["name"] for one in stocked.json("destinations", "list")] == ["other"]


def test_what_waits_for_a_destination_that_is_gone_can_be_given_up(stocked: Site):
    waiting = row(stocked)["pending"]
    without_destination(stocked)
    assert stocked.run("destinations", "discard", "files").code == 2  # it needs a reason
    assert stocked.json("destinations", "discard", "files", "--reason", "old test", "--yes")["discarded"] == waiting
    assert [one["name"] for one in stocked.json("destinations", "list")] == ["other"]
    assert "destination-discarded" in [one["action"] for one in stocked.json("audit", "list")]
    assert stocked.json("ledger", code=0)[0]["deliveries"]["pending"] == 0


@pytest.mark.parametrize("act", [("discard", "files", "--reason", "x"), ("move", "files", "--to", "files")])
def test_what_waits_for_a_destination_that_is_there_is_left_alone(stocked: Site, act: tuple[str, ...]):
    before = row(stocked)["pending"]
    assert stocked.run("destinations", *act).code == 1
    assert row(stocked)["pending"] == before


def test_what_waits_can_only_go_where_it_can_be_taken(stocked: Site):
    without_destination(stocked)
    text = stocked.config.read_text()
    stocked.config.write_text(text.replace("destinations:", "destinations:\n  lab: {type: mllp, host: h, port: 1}", 1))
    done = stocked.run("destinations", "move", "files", "--to", "lab")
    assert done.code == 1
    assert "lab takes message" in done.err


def test_a_held_delivery_says_why_whose_since_when_and_what_waits_behind_it(stocked: Site):
    made = stocked.hold_first_delivery()
    fails(stocked, error="no-answer")
    [one] = stocked.json("held", "list", "--what", "delivery")
    waiting = row(stocked)["pending"]
    assert (one["id"], one["last_error"], one["waiting_behind"]) == (made, "timeout", waiting)
    assert (one["destination_state"], one["destination_error"]) == ("down", "no-answer")
    assert one["patient_key"].startswith("MRN:~")
    assert one["held_at"] == stocked.clock.now().isoformat().replace("+00:00", "Z")
    text = stocked.run("held", "show", str(made)).out
    assert f"{waiting} deliveries of this patient wait" in text
    assert "files is down: no-answer" in text
    assert seen(text + str(one)) == []
    stocked.json("held", "release", str(made))
    assert stocked.json("held", "list") == []


def test_a_message_says_what_became_of_each_delivery_and_why_it_waits(stocked: Site):
    fails(stocked)
    entry = stocked.json("messages", "list", "--state", "processed")[-1]["id"]
    waiting = stocked.json("messages", "show", str(entry))["deliveries"]
    assert {one["destination_error"] for one in waiting} == {"disk-full"}
    assert {one["delivered_at"] for one in waiting} == {None}
    assert "files: disk-full" in stocked.run("messages", "show", str(entry)).out
    at = datetime.now(UTC)
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        results = [
            Settled(id=waiting[0]["id"], state=DeliveryState.DELIVERED, attempts=1),
            Settled(
                id=waiting[1]["id"], state=DeliveryState.PENDING, attempts=3, error="no-answer", next_attempt_at=at
            ),
        ]
        store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, results, at))
    first, second, *_ = stocked.json("messages", "show", str(entry))["deliveries"]
    assert (first["state"], first["delivered_at"]) == ("delivered", at.isoformat().replace("+00:00", "Z"))
    assert (second["state"], second["attempts"], second["last_error"]) == ("pending", 3, "no-answer")


@pytest.mark.parametrize(("receipt", "masked"), [("AA", "AA"), ("001xx000003DGb2AAG", "***"), ("1234", "***")])
def test_what_the_far_end_called_a_delivery_is_shown_masked(stocked: Site, receipt: str, masked: str):
    entry = stocked.json("messages", "list", "--state", "processed")[-1]["id"]
    first, second, *_ = stocked.json("messages", "show", str(entry))["deliveries"]
    assert first["receipt"] is None
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        results = [
            Settled(id=first["id"], state=DeliveryState.DELIVERED, attempts=1, receipt=receipt),
            Settled(id=second["id"], state=DeliveryState.WITHHELD, attempts=0, error="too-late"),
        ]
        store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, results, datetime.now(UTC)))
    shown = stocked.json("messages", "show", str(entry))["deliveries"]
    assert (shown[0]["receipt"], shown[1]["receipt"]) == (masked, None)
    assert (shown[1]["state"], shown[1]["last_error"], shown[1]["withheld_at"] is not None) == (
        "withheld",
        "too-late",
        True,
    )
    reveal = ("--reveal", "--reason", "to find it there")
    assert stocked.json("messages", "show", str(entry), *reveal)["deliveries"][0]["receipt"] == receipt
    text = stocked.run("messages", "show", str(entry)).out
    assert f"receipt {masked}" in text
    assert "withheld (too-late, since " in text
    (files,) = [one for one in stocked.json("destinations", "list") if one["name"] == first["destination"]]
    assert files["withheld"] == {"too-late": 1}
    assert "withheld  1 too-late" in stocked.run("destinations", "show", first["destination"]).out
    (line,) = [one for one in stocked.json("ledger") if one["deliveries"]["withheld"]]
    assert line["balanced"]
    assert "WITHHELD OUT" in stocked.run("ledger").out
