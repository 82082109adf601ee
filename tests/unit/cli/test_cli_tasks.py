"""`handoff tasks`: what people do to a task, what it looks like after, and what is refused."""

from __future__ import annotations

import pytest
from site_with_store import Site

PHI = "Jane Doe's daughter"


def task_of(site: Site, kind: str = "tcm_contact") -> str:
    return str(site.json("tasks", "list", "--kind", kind)[0]["id"])


def test_show_says_what_the_contract_says_and_what_was_done(stocked: Site) -> None:
    task = task_of(stocked)
    shape = stocked.json("tasks", "show", task)
    assert {"id", "kind", "patient_key", "encounter", "due_at", "escalate_at", "state", "assignee", "reason", "owner",
            "snoozed_until", "attempts", "evidence", "closed_by", "appointment"} <= set(shape)  # fmt: skip
    assert (shape["state"], shape["owner"], shape["attempts"], shape["evidence"]) == ("open", None, [], None)
    assert not {"undo", "ladder", "climbed", "proved_by", "protocol_digest"} & set(shape)
    text = stocked.run("tasks", "show", task[:-4]).out
    assert "0 of 2 attempts made that are asked for until it is due" in text
    assert "post-discharge 2" in text


def test_an_attempt_begins_a_task_and_is_kept(stocked: Site) -> None:
    task = task_of(stocked)
    one = stocked.json("tasks", "attempt", task, "--how", "phone", "--result", "no_answer", "--note", PHI)
    assert one["state"] == "in_progress"
    (attempt,) = one["attempts"]
    assert (attempt["how"], attempt["result"]) == ("phone", "no_answer")
    assert attempt["by"]
    assert attempt["at"]
    text = stocked.run("tasks", "attempt", task, "--how", "text", "--result", "reached").out
    assert "in progress, 1 of 2 attempts made" in text
    assert "An automated text does not count as contact." in text
    assert len(stocked.json("tasks", "show", task)["attempts"]) == 2
    assert "started" in stocked.run("tasks", "list", "--state", "in_progress").out


def test_tcm_a_patient_who_was_reached_was_contacted_and_the_reply_says_how_to_take_it_back(stocked: Site) -> None:
    task = task_of(stocked)
    text = stocked.run("tasks", "attempt", task, "--how", "phone", "--result", "reached").out
    assert "is done: the patient was reached. Not so? handoff tasks undo" in text
    shape = stocked.json("tasks", "show", task)
    assert (shape["state"], shape["closed_by"] is not None) == ("done", True)
    more = stocked.json("tasks", "done", task, "--evidence", "spoke for ten minutes")
    assert more["state"] == "done"


def test_tcm_a_contact_that_was_none_can_be_taken_back(stocked: Site) -> None:
    task = task_of(stocked)
    stocked.run("tasks", "attempt", task, "--how", "phone", "--result", "reached")
    again = stocked.json("tasks", "undo", task)
    assert (again["state"], again["attempts"], again["evidence"], again["closed_by"]) == ("open", [], None, None)


def test_a_task_that_asks_for_more_than_contact_says_how_it_is_done(stocked: Site) -> None:
    task = task_of(stocked, "pcp_follow_up")
    text = stocked.run("tasks", "attempt", task, "--how", "video", "--result", "reached").out
    assert "is in progress, 1 attempt made." in text
    assert f"Is that all that it asks for? handoff tasks done {task}" in text


def test_a_task_is_given_snoozed_cancelled_and_each_can_be_taken_back(stocked: Site) -> None:
    task = task_of(stocked, "pcp_follow_up")
    before = stocked.json("tasks", "show", task)
    for act, field in (
        (("assign", task, "nurse-lee"), "owner"),
        (("snooze", task, "1h", "--reason", PHI), "snoozed_until"),
        (("cancel", task, "--reason", PHI), "closed_by"),
        (("done", task, "--evidence", PHI), "closed_by"),
    ):
        after = stocked.json("tasks", *act)
        assert after[field], act
        assert after["due_at"] == before["due_at"]
        assert stocked.json("tasks", "undo", task) == before
    assert stocked.json("tasks", "assign", task, "nurse-lee")["assignee"] == "nurse-lee"


def test_a_snooze_beyond_the_deadline_says_when_the_task_wakes(stocked: Site) -> None:
    task = task_of(stocked, "pcp_follow_up")
    text = stocked.run("tasks", "snooze", task, "+60d", "--reason", "the practice is closed").out
    assert "is snoozed until" in text
    assert "before that: it wakes" in text
    assert "snoozed" in stocked.run("tasks", "list", "--kind", "pcp_follow_up").out


@pytest.mark.parametrize(
    ("acts", "told", "code"),
    [
        ([("done",), ("done",)], "the task is not open but done", 1),
        ([("cancel", "--reason", "x"), ("attempt", "--how", "phone", "--result", "reached")], "not open but", 1),
        ([("undo",)], "there is nothing to undo", 1),
        ([("done",), ("undo",), ("undo",)], "there is nothing to undo", 1),
        ([("snooze", "-1h", "--reason", "x")], "", 2),
        ([("snooze", "2020-01-01", "--reason", "x")], "a time that is past", 1),
        ([("snooze", "+91d", "--reason", "x")], "90 days at most", 1),
        ([("snooze", "1h")], "--reason", 2),
        ([("cancel",)], "--reason", 2),
        ([("attempt", "--how", "fax", "--result", "reached")], "fax", 2),
        ([("attempt", "--how", "phone", "--result", "maybe")], "maybe", 2),
    ],
)
def test_what_can_t_be_done_is_said_and_changes_nothing(
    stocked: Site, acts: list[tuple[str, ...]], told: str, code: int
) -> None:
    task = task_of(stocked, "pcp_follow_up")
    *first, last = acts
    for act, *rest in first:
        assert stocked.run("tasks", act, task, *rest).code == 0
    before = stocked.json("tasks", "show", task)
    done = stocked.run("tasks", last[0], task, *last[1:])
    assert (done.code, told in done.err) == (code, True), done
    assert stocked.json("tasks", "show", task) == before


@pytest.mark.parametrize(
    "act",
    [
        ("done",), ("cancel", "--reason", "x"), ("assign", "a"), ("snooze", "1h", "--reason", "x"), ("undo",),
        ("attempt", "--how", "phone", "--result", "reached"),
    ],
)  # fmt: skip
def test_without_a_daemon_nothing_is_done(stocked: Site, act: tuple[str, ...]) -> None:
    task = task_of(stocked)
    before = stocked.json("tasks", "show", task)
    done = stocked.run_alone("tasks", act[0], task, *act[1:])
    assert done.code == 69
    assert "nothing was done" in done.err
    assert stocked.json("tasks", "show", task) == before
    assert stocked.run_alone("tasks", act[0], "nothing-such", *act[1:]).code == 1


def test_what_people_type_is_sealed_and_shown_only_when_revealed(stocked: Site) -> None:
    called, visited = task_of(stocked), task_of(stocked, "pcp_follow_up")
    stocked.run("tasks", "attempt", called, "--how", "phone", "--result", "no_answer", "--note", PHI)
    stocked.run("tasks", "done", visited, "--evidence", PHI)
    for task in (called, visited):
        for command in (("tasks", "show", task), ("tasks", "list", "--all"), ("tasks", "show", task, "--json")):
            assert PHI not in stocked.run(*command).out
        shown = stocked.run("tasks", "show", task, "--reveal", "--reason", "the patient asks")
        assert PHI in shown.out
    assert PHI.encode() not in b"".join(
        file.read_bytes() for file in stocked.folder.rglob("*") if file.is_file() and "db" in file.name
    )
    assert PHI not in stocked.run("patients", "show", "MRN:558181838").out


def test_a_cancelled_task_says_why_to_who_may_see_it(stocked: Site) -> None:
    task = task_of(stocked, "pcp_follow_up")
    stocked.run("tasks", "cancel", task, "--reason", PHI)
    assert PHI not in stocked.run("tasks", "list", "--all").out
    assert PHI in stocked.run("tasks", "show", task, "--reveal", "--reason", "x").out


def test_tasks_fit_a_narrow_terminal(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stocked.run("tasks", "attempt", task_of(stocked), "--how", "phone", "--result", "left_message")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("engine.cli.tables.terminal_columns", lambda: 80)
    for command in (("tasks", "list", "--all"), ("tasks", "list")):
        assert max(map(len, stocked.run(*command).out.splitlines())) <= 80
