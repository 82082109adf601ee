"""`handoff why`: the decisions about a patient, a task and an entry."""

from __future__ import annotations

import pytest
from site_with_store import Site, first_messages, seen

from engine.cli import tables

KEY = "MRN:558181838"
FIELDS = {"at", "subject", "action", "decided", "reason", "rule", "version", "inputs", "causes", "effects"}


def version(site: Site) -> str:
    """Of the protocol that the site was made with."""
    text = (site.folder / "mappings/protocols/post-discharge.yaml").read_text()
    return text.partition('version: "')[2].partition('"')[0]


def taken_back(site: Site) -> int:
    """The discharge is cancelled: the entry."""
    discharge = first_messages(site)[1]
    (entry,) = site.receive(discharge.replace(b"ADT^A03", b"ADT^A13", 1).replace(b"|FIRST-2|", b"|FIRST-3|", 1))
    site.process()
    return entry


def test_a_patient_s_decisions_have_the_contract_s_shape(stocked: Site) -> None:
    found = stocked.json("why", KEY)
    assert found
    assert all(one.keys() >= FIELDS for one in found)
    assert {one["decided"] for one in found} == {"done", "withheld"}
    (plan,) = [one for one in found if one["what"] == "plan" and one["stands"]]
    said = {item["name"]: item for item in plan["inputs"]}
    assert (said["disposition"]["value"], said["disposition"]["location"]) == ("01", "PV1-36")
    assert (plan["rule"], plan["version"]) == ("post-discharge: plans.home_plan.high", version(stocked))
    assert plan["causes"] == [said["disposition"]["entry"]]
    tasks = {one["id"] for one in stocked.json("tasks", "list")}
    assert {one["subject"] for one in found if one["what"] == "task"} == tasks == set(plan["effects"])
    deliveries = [one for one in found if one["what"] == "delivery"]
    assert {(one["subject"], one["reason"], one["rule"]) for one in deliveries} == {
        ("files", "queued", "deliver: files")
    }


def test_a_task_leads_to_the_message_that_caused_it_and_on_to_what_took_it_back(stocked: Site) -> None:
    task = stocked.json("tasks", "list")[0]["id"]
    (before,) = [one for one in stocked.json("why", task) if one["what"] == "task"]
    entry = taken_back(stocked)
    opened, ended = [one for one in stocked.json("why", task[:20]) if one["what"] == "task"]
    assert opened["causes"] == before["causes"]
    assert (ended["action"], ended["reason"], ended["causes"], ended["stands"]) == (
        "retract",
        "reversed",
        [entry],
        True,
    )
    assert all(isinstance(one, str | int) for one in ended["effects"])
    assert len(ended["effects"]) == 2  # and the delivery that tells of it
    caused = stocked.json("why", str(entry))
    assert ended in caused
    assert all(entry in one["causes"] for one in caused)
    shown = stocked.json("messages", "show", str(entry))
    assert {one["id"] for one in shown["deliveries"]} >= {one for one in ended["effects"] if isinstance(one, int)}


def test_nothing_of_the_patient_is_seen_unrevealed(stocked: Site) -> None:
    taken_back(stocked)
    task = stocked.json("tasks", "list")[0]["id"]
    for subject in (KEY, task, "1"):
        for more in ([], ["--json"], ["--all"]):
            assert seen(stocked.run("why", subject, *more).out) == []
    assert stocked.run("why", KEY, "--reveal").code == 2
    found = stocked.json("why", KEY, "--reveal", "--reason", "complaint 7")
    assert any("V90001" in one["subject"] for one in found)
    assert [one["reason"] for one in stocked.json("audit", "list", "--action", "reveal", "--reveal", "--reason", "r")]


def test_an_act_names_the_person_and_hides_what_they_typed(stocked: Site) -> None:
    task = stocked.json("tasks", "list")[0]["id"]
    stocked.json("tasks", "assign", task, "Dr. Doe")
    stocked.json("tasks", "done", task)
    story = [one for one in stocked.json("why", task) if one["what"] == "task"]
    assert [one["action"] for one in story] == ["open", "assign", "close"]
    assert story[2]["by"] == story[1]["by"] is not None


def test_the_story_fits_a_terminal_and_marks_how_things_are_today(
    stocked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_back(stocked)
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    text = stocked.run("why", KEY).out
    assert max(map(len, text.splitlines())) <= 80
    assert "ADT^A03 (entry 2)" in text
    assert "disposition 01 (PV1-36, entry 2)" in text
    assert any(line.startswith("* ") for line in text.splitlines())
    assert f"rule post-discharge, version {version(stocked)}" in text


@pytest.mark.parametrize("subject", ["MRN:0", "ffffffffffff", "999"])
def test_what_is_not_known_is_said(stocked: Site, subject: str) -> None:
    done = stocked.run("why", subject)
    assert done.code == 1
    assert done.err


MERGE_WITH_ITSELF = (
    b"MSH|^~\\&|EHR|MAIN|||20261110120000||ADT^A40|M1|P|2.5.1\rEVN|A40|20261110120000\r"
    b"PID|1||4711^^^MRN^MR||DOE^JANE||19470715\rMRG|4711^^^MRN^MR\r"
)


@pytest.mark.parametrize("more", [[], ["--reveal", "--reason", "a question"]])
def test_a_patient_of_whom_all_messages_died_has_a_story_too(stocked: Site, more: list[str]) -> None:
    (entry,) = stocked.receive(MERGE_WITH_ITSELF)
    stocked.process()
    (one,) = stocked.json("why", "MRN:4711", *more)
    assert (one["decided"], one["reason"], one["causes"]) == ("withheld", "dead", [entry])
    assert ("4711" in stocked.run("why", "MRN:4711", *more).out) == bool(more)


def test_the_configuration_of_then_names_the_version(stocked: Site) -> None:
    protocol = stocked.folder / "mappings/protocols/post-discharge.yaml"
    then = version(stocked)
    protocol.write_text(protocol.read_text().replace(f'version: "{then}"', 'version: "99"', 1))
    plans = [one for one in stocked.json("why", KEY) if one["what"] == "plan" and one["decided"] == "done"]
    assert {one["version"] for one in plans} == {then}
