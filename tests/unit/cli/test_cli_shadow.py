"""`--shadow`: what channels in shadow would have done, for looking; nothing can be done there."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_with_store import UNREADABLE, Site, first_messages

from engine.bootstrap import _check_shadow, drop_shadow, make_store
from engine.connectors.registry import load
from engine.snapshot import Snapshot

CHANNEL = "channels/main-campus.yaml"
KEY = "MRN:558181838"
FAMILY = "DOE"


def mode(site: Site, new: str) -> None:
    path = site.folder / CHANNEL
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"mode: {new}" if line.startswith("mode:") else line for line in lines) + "\n")


def old_cancellation(site: Site) -> bytes:
    """Older than what is known of the stay: a person has to look."""
    admission = first_messages(site)[0].replace(b"A01", b"A11").replace(b"FIRST-0001", b"OLD")
    return re.sub(rb"\bEVN\|A11\|\d+", b"EVN|A11|20200101000000", admission)


def file(site: Site) -> Path:
    return site.folder / "var/handoff-shadow.db"


@pytest.fixture
def shadow(bare: Site) -> Site:
    """A site whose only channel is in shadow, and has heard of an admission, a discharge and two that go wrong."""
    mode(bare, "shadow")
    bare.receive(*first_messages(bare), UNREADABLE, old_cancellation(bare))
    bare.process()
    return bare


def test_the_living_side_says_what_became_of_a_message_and_where_to_look(shadow: Site) -> None:
    assert [one["state"] for one in shadow.json("messages", "list")] == ["processed", "dead", "processed", "processed"]
    shown = shadow.json("messages", "show", "2")
    assert (shown["state"], shown["reason"]) == ("processed", "in shadow")
    assert [shown[name] for name in ("effects", "deliveries", "dead_letters", "held")] == [[], [], [], []]
    assert {one["what"] for one in shown["why"] if one["reason"].startswith("shadow: ")} == {
        "plan",
        "score",
        "delivery",
    }
    assert all(one["decided"] == "withheld" for one in shown["why"])
    assert "--shadow" in shadow.run("messages", "show", "2").out
    dead = shadow.json("messages", "show", "3")
    assert dead["reason"]
    assert dead["dead_letters"] == []
    assert shadow.json("tasks", "list", "--all") == []
    assert shadow.json("dead", "list") == []
    assert shadow.json("held", "list") == []
    assert shadow.json("gaps") == []
    assert shadow.run("patients", "show", KEY).code == 1
    [line] = shadow.json("ledger")
    assert (line["processed"], line["dead"], line["pending"], line["balanced"]) == (3, 1, 0, True)


def test_the_other_side_has_all_of_it_masked(shadow: Site) -> None:
    shown = shadow.json("messages", "show", "2", "--shadow")
    assert {one["state"] for one in shown["deliveries"]} == {"withheld"}
    assert {"upsert_task", "upsert_score"} <= {one["operation"] for one in shown["deliveries"]}
    assert any(effect["kind"] == "task-created" for effect in shown["effects"])
    assert {one["decided"] for one in shown["why"] if one["what"] in {"plan", "score"}} == {"done"}
    told = [one["reason"] for one in shown["why"] if one["what"] == "delivery"]
    assert any(reason.startswith("shadow: the channel is in shadow mode; else would go: ") for reason in told)
    assert shown["config_version"]
    tasks = shadow.json("tasks", "list", "--shadow")
    assert {task["state"] for task in tasks} == {"open"}
    patient = shadow.json("patients", "show", KEY, "--shadow")
    assert {task["id"] for task in patient["tasks"]} == {task["id"] for task in tasks}
    assert [one["status"] for one in patient["encounters"]] == ["finished"]
    assert len(shadow.json("patients", "find", "--name", FAMILY, "--shadow")) <= 1
    assert [one["id"] for one in shadow.json("messages", "list", "--patient", KEY, "--shadow")] == [4, 2, 1]
    assert [one["id"] for one in shadow.json("messages", "list", "--shadow", "--state", "dead")] == [3]
    [letter] = shadow.json("dead", "list", "--shadow")
    assert letter["entry"] == 3
    assert shadow.json("dead", "show", str(letter["id"]), "--shadow")["entry"] == 3
    [held] = shadow.json("held", "list", "--shadow")
    assert shadow.json("held", "show", held["id"], "--shadow")["entry"] == 4
    [line] = shadow.json("ledger", "--shadow")
    assert (line["received"], line["processed"], line["dead"], line["balanced"]) == (4, 3, 1, True)
    assert line["deliveries"]["withheld"] >= len(shown["deliveries"])
    for command in (["messages", "show", "2"], ["patients", "show", KEY], ["tasks", "list"], ["messages", "list"]):
        done = shadow.run(*command, "--shadow")
        assert "In shadow" in done.err
        assert FAMILY not in done.out.upper()


def test_who_looks_at_a_patient_in_shadow_stands_in_the_audit_of_the_living(shadow: Site) -> None:
    shown = shadow.json("patients", "show", KEY, "--shadow", "--reveal", "--reason", "comparing")
    assert shown["key"] == KEY
    assert shadow.json("audit", "list")[0]["action"] == "reveal"
    mode(shadow, "live")
    shadow.process()  # drops the other side
    assert "reveal" in {one["action"] for one in shadow.json("audit", "list")}


def acts(site: Site) -> Iterator[tuple[str, ...]]:
    [letter], [held] = site.json("dead", "list", "--shadow"), site.json("held", "list", "--shadow")
    task = site.json("tasks", "list", "--shadow")[0]["id"]
    yield "dead", "replay", str(letter["id"])
    yield "dead", "discard", str(letter["id"]), "--reason", "seen"
    yield "held", "release", held["id"], "--reason", "seen"
    yield "held", "dismiss", held["id"], "--reason", "seen"
    yield "tasks", "done", task
    yield "tasks", "assign", task, "anna"


def test_nothing_in_shadow_can_be_acted_on_nor_taken_for_one_of_the_living(shadow: Site) -> None:
    """Also when the living have dead letters, held messages and tasks of their own: the numbers are never theirs."""
    wanted = list(acts(shadow))
    mode(shadow, "live")
    shadow.receive(*(one.replace(b"|NO-ID|", b"|NO-ID-2|") for one in (UNREADABLE, *first_messages(shadow)[:1])))
    shadow.process()
    assert shadow.json("dead", "list")
    before = shadow.json("dead", "list"), shadow.json("tasks", "list"), shadow.json("held", "list")
    for command in wanted:
        done = shadow.run(*command)
        assert done.code == 1, command
        assert "there is no" in done.err
    assert (shadow.json("dead", "list"), shadow.json("tasks", "list"), shadow.json("held", "list")) == before
    assert shadow.run("tasks", "done", "x", "--shadow").code == 2


def test_without_a_channel_in_shadow_there_is_no_other_side(stocked: Site) -> None:
    done = stocked.run("messages", "show", "1", "--shadow")
    assert done.code == 1
    assert "nothing is kept of a channel in shadow" in done.err
    assert not file(stocked).exists()


def test_a_message_of_the_living_is_not_in_shadow(stocked: Site) -> None:
    mode(stocked, "shadow")
    stocked.receive(first_messages(stocked)[0].replace(b"FIRST-0001", b"LATER"))
    stocked.process()
    done = stocked.run("messages", "show", "1", "--shadow")
    assert (done.code, done.err.splitlines()[-1]) == (1, "handoff: entry 1 was not processed in shadow")
    [line] = stocked.json("ledger", "--shadow")
    assert line["received"] == 1
    assert len(stocked.json("messages", "list", "--shadow")) == 1


def test_the_file_is_its_owners_alone_and_goes_when_the_last_channel_is_live(shadow: Site) -> None:
    assert stat.S_IMODE(file(shadow).stat().st_mode) == 0o600
    assert shadow.json("db", "status")["revisions"].keys() == {"journal", "charts", "shadow"}
    mode(shadow, "live")
    shadow.process()
    assert list(file(shadow).parent.glob("*shadow*")) == []
    assert shadow.json("db", "status")["revisions"].keys() == {"journal", "charts"}


def test_keys_that_were_rotated_read_both_sides(shadow: Site) -> None:
    assert shadow.run("keys", "rotate").code == 0
    shadow.receive(first_messages(shadow)[1].replace(b"|P|", b"|P|", 1).replace(b"ADT^A03", b"ADT^A08"))
    shadow.process()
    assert shadow.json("patients", "show", KEY, "--shadow")["tasks"]
    assert len(shadow.json("messages", "list", "--shadow")) == 5


def test_charts_in_shadow_are_sealed_anew_before_a_key_is_retired(shadow: Site) -> None:
    assert shadow.run("keys", "rotate").code == 0
    assert shadow.run("keys", "reseal").code == 0
    assert shadow.run("keys", "retire", "1").code == 0
    assert shadow.json("patients", "show", KEY, "--shadow")["tasks"]


def test_db_migrate_makes_the_other_side_where_a_channel_is_in_shadow(bare: Site) -> None:
    mode(bare, "shadow")
    assert not bare.json("db", "status", code=1)["ready"]
    assert bare.json("db", "migrate")["changed"]
    assert file(bare).exists()
    assert bare.json("db", "status")["ready"]


def test_what_waits_for_a_person_from_before_is_not_passed_off_as_done_by_a_replay_in_shadow(bare: Site) -> None:
    bare.receive(*first_messages(bare), UNREADABLE, old_cancellation(bare))
    bare.process()
    mode(bare, "shadow")
    [letter], [held] = bare.json("dead", "list"), bare.json("held", "list")
    for command in (["dead", "replay", str(letter["id"])], ["held", "release", held["id"], "--reason", "so it is"]):
        done = bare.run(*command)
        assert done.code == 1, command
        assert "channel main-campus is in shadow" in done.out + done.err
    bare.process()
    assert [one["id"] for one in bare.json("dead", "list")] == [letter["id"]]
    assert [(one["id"], one["state"]) for one in bare.json("held", "list")] == [(held["id"], "open")]
    mode(bare, "live")
    assert bare.run("held", "release", held["id"], "--reason", "so it is").code == 0
    bare.process()
    assert bare.json("held", "list") == []


def test_a_dry_replay_in_shadow_promises_the_living_nothing(shadow: Site) -> None:
    tried = shadow.json("replay", "--all", "--dry-run")["would"]
    assert tried
    assert all(one["tasks"] == one["deliveries"] == [] for one in tried)
    assert "Messages of main-campus go to charts in shadow" in shadow.run("replay", "--all", "--dry-run").out


@pytest.mark.parametrize(("then", "kept"), [("shadow", True), ("paused", True), ("live", False)])
def test_what_was_kept_in_shadow_outlives_a_pause(shadow: Site, then: str, kept: bool) -> None:
    mode(shadow, then)
    drop_shadow(load(Snapshot.read(shadow.config)))
    assert file(shadow).exists() == kept


def test_a_shadow_of_a_later_journal_than_this_one_begins_anew(shadow: Site) -> None:
    """The store was restored from a backup that was made before: its ids will be given again."""
    configuration = load(Snapshot.read(shadow.config))
    kept = shadow.json("messages", "list", "--shadow")
    _check_shadow(configuration)
    assert shadow.json("messages", "list", "--shadow") == kept
    for name in ("handoff.db", "handoff-journal.db"):
        (shadow.folder / "var" / name).unlink()
    make_store(configuration)
    _check_shadow(configuration)
    shadow.receive(first_messages(shadow)[0])
    shadow.process()
    assert [one["control_id"] for one in shadow.json("messages", "list", "--shadow")] == ["FIRST-0001"]
    assert shadow.json("messages", "list")[0]["state"] == "processed"
