"""An edited protocol changes no running plan; `handoff plans migrate` shows what it would change, and does it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from site_with_store import Site

from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store.opening import open_store

FILE = "mappings/protocols/post-discharge.yaml"


def edit(site: Site, *changes: tuple[str, str]) -> None:
    file = site.folder / FILE
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def tasks(site: Site) -> dict[str, dict[str, Any]]:
    return {task["kind"]: task for task in site.json("tasks", "list") if task["state"] == "open"}


EDIT = (
    ('version: "2"', 'version: "3"'),
    ("reason: Speak with the patient within", "reason: Call the patient within"),
    ("      - kind: specialist_follow_up\n", "      - kind: education\n        name: leaflet\n"),
)


def test_an_edited_protocol_changes_no_running_plan_not_even_when_the_discharge_is_corrected(stocked: Site) -> None:
    before = tasks(stocked)
    edit(stocked, *EDIT)
    stocked.process()
    assert tasks(stocked) == before
    stocked.receive(corrected(stocked))
    stocked.process()
    after = {task["reason"]: task for task in stocked.json("tasks", "list", "--state", "open")}
    new = {reason.partition(" (heard of")[0] for reason in set(after) - {task["reason"] for task in before.values()}}
    assert new == {"Discharged to home health care: make sure that the agency knows"}, "by the rules of then"
    assert len(after) == len(before) + 1
    assert {task["protocol_version"] for task in after.values()} == {"2"}


def corrected(site: Site) -> bytes:
    """The discharge as a later message puts it right: to home health care."""
    with open_store_of(site) as store, store.reader() as conn:
        entries = [store.journal.entry(conn, number) for number in range(1, 5)]
    told = next(one.payload for one in entries if one is not None and b"ADT^A03" in one.payload)
    segments = [line.split("|") for line in told.decode().split("\r")]
    for fields in segments:
        if fields[0] == "MSH":
            fields[6], fields[8], fields[9] = later(fields[6], 5), fields[8].replace("A03", "A08"), "CORRECTED-1"
        elif fields[0] == "EVN":
            fields[1], fields[2] = "A08", later(fields[2], 5)
        elif fields[0] == "PV1":
            fields[36] = "06"
    return "\r".join("|".join(fields) for fields in segments).encode()


def later(text: str, minutes: int) -> str:
    form = "%Y%m%d%H%M%S" if len(text.partition("-")[0].partition("+")[0]) == 14 else "%Y%m%d%H%M"
    length = 14 if form.endswith("S") else 12
    at = datetime.strptime(text[:length], form)  # noqa: DTZ007 - the zone, if any, stays as it is
    return (at + timedelta(minutes=minutes)).strftime(form) + text[length:]


def open_store_of(site: Site) -> Any:
    return open_store(load(Snapshot.read(site.config)), "tool")


def test_a_migration_is_shown_first_and_then_done_on_record(stocked: Site) -> None:
    before = tasks(stocked)
    assert stocked.json("plans", "migrate", "--dry-run") == []
    edit(stocked, *EDIT)
    (plan,) = stocked.json("plans", "migrate", "--dry-run")
    assert (plan["protocol"], plan["from"], plan["to"]) == ("post-discharge", "2", "3")
    changed = {task["kind"]: task["change"] for task in plan["tasks"]}
    assert changed == {"tcm_contact": "changed", "specialist_follow_up": "retracted", "education": "added"}
    assert tasks(stocked) == before
    text = stocked.run("plans", "migrate", "--dry-run").out
    assert "2 -> 3" in text
    assert "1 running plans would be made anew." in text
    assert stocked.json("plans", "migrate") == [plan]
    after = tasks(stocked)
    assert set(after) == set(before) - {"specialist_follow_up"} | {"education"}
    assert after["tcm_contact"]["reason"].startswith("Call the patient")
    assert {task["protocol_version"] for task in after.values()} == {"3"}
    assert stocked.json("plans", "migrate") == []
    (noted,) = [one for one in stocked.json("audit", "list") if one["action"] == "plan-migrated"]
    assert noted["subject"].startswith("chart:")


def test_what_people_have_done_stays_in_a_migration(stocked: Site) -> None:
    task = tasks(stocked)["tcm_contact"]["id"]
    stocked.run("tasks", "attempt", task, "--how", "phone", "--result", "no_answer")
    stocked.run("tasks", "assign", task, "nurse-lee")
    edit(stocked, *EDIT)
    stocked.json("plans", "migrate")
    after = stocked.json("tasks", "show", task)
    assert (after["owner"], len(after["attempts"]), after["state"]) == ("nurse-lee", 1, "in_progress")


def test_a_text_that_changes_without_its_version_is_another_protocol(stocked: Site) -> None:
    edit(stocked, EDIT[1])
    (plan,) = stocked.json("plans", "migrate", "--dry-run")
    assert (plan["from"], plan["to"]) == ("2", "2")
    edit(stocked, ("# due:      after the discharge", "# due:      (after the discharge)"), EDIT[1][::-1])
    assert stocked.json("plans", "migrate", "--dry-run") == []


@pytest.mark.parametrize(("name", "code"), [("post-discharge", 0), ("other", 1)])
def test_a_migration_may_be_of_one_protocol(stocked: Site, name: str, code: int) -> None:
    edit(stocked, *EDIT)
    done = stocked.run("plans", "migrate", "--dry-run", "--protocol", name)
    assert done.code == code
    assert code == 0 or "there is no protocol other; there are post-discharge" in done.err


def test_without_a_daemon_no_plan_is_migrated(stocked: Site) -> None:
    edit(stocked, *EDIT)
    done = stocked.run_alone("plans", "migrate")
    assert done.code == 69
    assert "nothing was done" in done.err
