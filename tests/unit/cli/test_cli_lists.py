"""Lists: what they show first, that they never end in silence, and keys that stay out of the history."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from site_with_store import Site, first_messages

KEY = "MRN:558181838"


@pytest.mark.parametrize(
    ("command", "total"),
    [
        (("messages", "list"), 4), (("messages", "list", "--state", "processed"), 2),
        (("messages", "list", "--channel", "main-campus", "--since", "1d"), 4),
        (("dead", "list"), 2), (("dead", "list", "--each"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)  # fmt: skip
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "table"])
def test_a_list_that_is_cut_says_how_many_there_are(
    stocked: Site, command: tuple[str, ...], total: int, as_json: bool
) -> None:
    if command == ("dead", "list") and not as_json:
        return  # groups, never cut
    more = ["--json"] if as_json else []
    assert f"1 of {total} shown; --limit N shows more" in stocked.run(*command, "--limit", "1", *more).err
    assert stocked.run(*command, "--limit", str(total), *more).err == ""


def test_a_list_that_is_looked_through_says_that_there_are_more(stocked: Site) -> None:
    said = stocked.run("messages", "list", "--sender", "MAIN", "--limit", "3").err
    assert said == "the first 3 shown, there are more; --limit N shows more\n"


def test_a_list_shows_a_hundred_unless_told_and_says_that_it_is_cut(stocked: Site) -> None:
    every = len(stocked.json("tasks", "list"))
    assert f"2 of {every} shown" in stocked.run("tasks", "list", "--limit", "2").err
    assert stocked.run("tasks", "list").err == ""
    for command in ("tasks", "messages", "dead", "held", "audit"):
        assert "default: 100" in " ".join(stocked.run(command, "list", "--help").out.split()), command


LISTS = ("messages list", "tasks list", "dead list", "held list", "destinations list", "patients find")


@pytest.mark.parametrize("command", LISTS)
def test_the_ids_of_a_list_are_printed_alone_and_lead_to_its_things(stocked: Site, command: str) -> None:
    stocked.hold_first_delivery()
    ids = stocked.run(*command.split(), "-o", "id").out.splitlines()
    assert ids
    assert all(" " not in one for one in ids)
    if command != "tasks list":
        for one in ids:
            assert stocked.run(command.split(maxsplit=1)[0], "show", one).code == 0
    listed = stocked.json(*command.split())
    assert ids == [str(one.get("id", one.get("key", one.get("name")))) for one in listed]
    assert stocked.run(*command.split(), "--output", "json").out == stocked.run(*command.split(), "--json").out


def test_a_list_of_nothing_has_no_ids_and_what_has_none_says_so(stocked: Site) -> None:
    assert stocked.run("held", "list", "-o", "id").out == ""
    assert stocked.run("messages", "list", "--state", "filtered", "-o", "id").out == ""
    assert stocked.run("senders", "-o", "id").code == 2


def test_a_table_has_the_columns_that_were_asked_for(stocked: Site) -> None:
    lines = stocked.run("messages", "list", "--columns", "control-id,ID, state").out.splitlines()
    assert lines[0].split("  ")[0] == "CONTROL ID"
    assert lines[0].split() == ["CONTROL", "ID", "ID", "STATE"]
    assert lines[-1].split() == ["FIRST-0001", "1", "processed"]
    assert stocked.run("messages", "list", "--columns", "received").out.startswith("RECEIVED (")
    wrong = stocked.run("tasks", "list", "--columns", "id,colour")
    assert (wrong.code, "no column colour" in wrong.err, "assignee" in wrong.err) == (2, True, True)
    assert stocked.json("messages", "list", "--columns", "id")[0]["state"], "a document is whole"


@pytest.mark.parametrize("command", ["senders", "gaps", "audit list", "destinations list", "held list"])
def test_every_list_takes_columns_and_has_no_other(stocked: Site, command: str) -> None:
    stocked.hold_first_delivery()
    stocked.run("destinations", "retry", "files")
    assert "there are" in stocked.run(*command.split(), "--columns", "nosuch").err


@pytest.mark.parametrize("command", ["senders", "destinations list", "messages list", "tasks list", "gaps"])
def test_a_list_that_is_cut_says_of_how_many(stocked: Site, command: str) -> None:
    site = (stocked.folder / "config.yaml").read_text()
    lab = "destinations:\n  lab: {type: mllp, host: 127.0.0.1, port: 2}\n"
    (stocked.folder / "config.yaml").write_text(site.replace("destinations:\n", lab))
    stocked.receive(first_messages(stocked)[0].replace(b"|EHR|", b"|LAB|"))
    whole = stocked.json(*command.split())
    assert len(whole) > 1
    assert "shown" not in stocked.run(*command.split(), "--limit", str(len(whole)), "--json").err
    for form in ((), ("--json",)):
        done = stocked.run(*command.split(), "--limit", "1", *form)
        assert f"1 of {len(whole)} shown; --limit N shows more" in done.err
    assert done.json == whole[:1]


@pytest.mark.parametrize("word", ["FIRST-0001", "abc", "0", "-1", "1.5", "\u0661", "9" * 30])
def test_what_is_no_id_is_said_as_that(stocked: Site, word: str) -> None:
    done = stocked.run("messages", "show", "--", word)
    assert done.code == 2
    assert "is not the id of an entry: that is a number, see `handoff messages list`" in done.err
    assert f"--control-id {word}`" in done.err or not word.isascii()
    assert "is not the id of a dead letter" in stocked.run("dead", "show", "--", word).err
    assert "integer" not in done.err


def test_tasks_shows_open_ones_and_says_how_many_have_ended(stocked: Site) -> None:
    task = stocked.json("tasks", "list", "--kind", "pcp_follow_up")[0]
    stocked.run("tasks", "done", task["id"])
    shown = stocked.run("tasks", "list")
    assert task["id"] not in shown.out
    assert "1 more are not open any more (--all)." in shown.out
    assert task["id"] in stocked.run("tasks", "list", "--all").out
    assert task["id"] in stocked.run("tasks", "list", "--patient", KEY).out
    assert stocked.json("tasks", "list")[-1]["id"] == task["id"], "a script sees all, open ones first"
    states = stocked.json("tasks", "list", "--state", "done", "--state", "missed")
    assert [t["id"] for t in states] == [task["id"]]
    assert stocked.run("tasks", "list", "--all", "--state", "done").code == 2


def test_tasks_are_found_by_when_they_are_due(stocked: Site) -> None:
    every = stocked.json("tasks", "list")
    now = datetime.now(UTC)
    overdue = [t["id"] for t in every if datetime.fromisoformat(t["due_at"]) < now]
    assert [t["id"] for t in stocked.json("tasks", "list", "--due", "overdue")] == overdue
    in_a_year = [t["id"] for t in stocked.json("tasks", "list", "--due", "+52w")]
    assert in_a_year == [t["id"] for t in stocked.json("tasks", "list", "--due-before", "365d")]
    assert len(in_a_year) == len(every), "a span lies ahead: nothing of it is lost to a date in the past"
    for word in ("today", "tomorrow", "+2d", "23:59"):
        assert stocked.run("tasks", "list", "--due", word).code == 0
    done = stocked.run("tasks", "list", "--due", "someday")
    assert (done.code, "overdue, today, tomorrow" in done.err) == (2, True)


def test_an_id_may_be_shortened_as_long_as_it_is_one_tasks(stocked: Site) -> None:
    every = [task["id"] for task in stocked.json("tasks", "list")]
    one = every[0]
    assert stocked.json("tasks", "assign", one[:20], "nurse.kim")["id"] == one
    done = stocked.run("tasks", "done", "")
    assert done.code == 2
    assert all(task_id in done.err for task_id in every[:3])
    assert stocked.run("tasks", "done", "zzzz").code == 1


def test_a_dead_letter_that_waits_comes_before_one_that_is_resolved(stocked: Site) -> None:
    newest, other = stocked.json("dead", "list")
    stocked.run("dead", "discard", str(newest["id"]), "--reason", "x")
    assert [letter["id"] for letter in stocked.json("dead", "list")] == [other["id"], newest["id"]]
    assert [letter["id"] for letter in stocked.json("dead", "list", "--unresolved")] == [other["id"]]
    assert [letter["id"] for letter in stocked.json("dead", "list", "--resolved")] == [newest["id"]]
    assert "1 more are resolved (--resolved)." in stocked.run("dead", "list").out


def test_dead_letters_are_shown_in_groups_with_their_sender_and_remedy(stocked: Site) -> None:
    channel = stocked.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text() + "\nsenders: [EHR, MAIN]\n")
    stocked.run("replay", "--state", "dead", "--all")
    stocked.process()
    groups = stocked.json("dead", "summary")
    (missing,) = [group for group in groups if group["error"] == "identifier-missing"]
    assert (missing["stage"], missing["channel"], missing["count"]) == ("processing", "main-campus", 2)
    assert missing["senders"] == ["EHR/MAIN"]
    assert missing["first_at"] <= missing["last_at"]
    assert missing["remedy"]
    shown = stocked.run("dead", "list").out
    assert "EHR/MAIN" in shown
    assert missing["remedy"] in shown


def test_the_sender_and_what_is_odd_stand_in_the_list(stocked: Site) -> None:
    shown = stocked.run("messages", "list").out
    assert "SENDER" in shown
    assert "EHR/MAIN" in shown


@pytest.mark.parametrize("given", [KEY, f"{KEY}\n", f" {KEY} \nmore"])
def test_a_key_may_come_from_standard_input(stocked: Site, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    for command in (
        ("messages", "list", "--patient", "-"),
        ("tasks", "list", "--patient", "-"),
        ("patients", "show", "-"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        assert stocked.run(*command, "--json").code == 0


@pytest.mark.parametrize("given", ["", "\n"])
def test_no_key_on_standard_input_is_a_usage_error(stocked: Site, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert stocked.run("messages", "list", "--patient", "-").code == 2


def test_a_span_of_the_future_is_no_way_to_say_since(stocked: Site) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    assert (
        stocked.json("messages", "list", "--since", later) == stocked.json("messages", "list", "--since", "+1h") == []
    )
