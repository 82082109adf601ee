"""A death that is left to a person: seen, released, dismissed."""

from __future__ import annotations

import pytest
from site_with_store import Site

KEY = "MRN:558181838"
DEATH = (
    b"MSH|^~\\&|EHR|MAIN|||20261110120000||ADT^A31|DEATH|P|2.5.1\rEVN|A31|20261110120000\r"
    b"PID|1||558181838^^^MRN^MR||DOE^JANE||19470715|||||||||||||||||||||||YES\r"
)


@pytest.fixture
def held(stocked: Site) -> str:
    """The id of the question that a mark of death leaves which is not of the table."""
    stocked.receive(DEATH)
    stocked.process()
    (hold,) = stocked.json("held", "list", "--what", "message")
    assert (hold["code"], hold["location"], hold["state"]) == ("death-unreadable", "PID-30", "open")
    return str(hold["id"])


def questions(site: Site) -> list[str]:
    tasks = site.json("tasks", "list", "--patient", KEY)
    return [task["reason"] for task in tasks if task["state"] == "open" and task["encounter"] is None]


def open_kinds(site: Site) -> set[str]:
    tasks = site.json("tasks", "list", "--patient", KEY)
    return {task["kind"] for task in tasks if task["state"] == "open" and task["encounter"] is not None}


def test_while_it_is_open_the_plan_stays_and_one_task_asks(stocked: Site, held: str) -> None:
    assert "tcm_contact" in open_kinds(stocked)
    assert questions(stocked) == ["A death is reported but not certain: find out before anybody contacts the patient"]
    patient = stocked.json("patients", "show", KEY)
    assert patient["deceased"] is not True
    assert [hold["id"] for hold in patient["held"]] == [held]


def test_dismissed_the_task_ends_and_the_plan_goes_on(stocked: Site, held: str) -> None:
    plan = open_kinds(stocked)
    pending = stocked.json("ledger")[0]["deliveries"]["pending"]
    assert stocked.json("held", "dismiss", held, "--reason", "spoke with her")["state"] == "dismissed"
    assert (questions(stocked), open_kinds(stocked)) == ([], plan)
    (task,) = stocked.json("tasks", "list", "--patient", KEY, "--state", "retracted")
    assert task["closed_by"] == stocked.json("audit", "list")[0]["actor"]
    assert stocked.json("ledger")[0]["deliveries"]["pending"] > pending
    assert stocked.json("patients", "show", KEY)["held"] == []


def test_released_the_patient_is_dead_and_only_who_is_told_of_it_is_open(stocked: Site, held: str) -> None:
    stocked.run("held", "release", held, "--reason", "the family called")
    stocked.process()
    assert stocked.json("patients", "show", KEY)["deceased"] is True
    assert (questions(stocked), open_kinds(stocked)) == ([], {"care_coordinator_alert"})  # who tells of it
    assert stocked.json("held", "list") == []


def test_the_task_can_be_done_by_itself(stocked: Site, held: str) -> None:
    (task,) = [one for one in stocked.json("tasks", "list", "--patient", KEY) if one["encounter"] is None]
    assert stocked.json("tasks", "done", task["id"])["state"] == "done"
    assert stocked.json("held", "dismiss", held, "--reason", "spoke with her")["state"] == "dismissed"
    assert "tcm_contact" in open_kinds(stocked)
