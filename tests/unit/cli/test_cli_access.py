"""Commands on a site with `access`: who sits there is an account or refused, and sees what their roles show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from site_with_store import Done, Site, first_messages, seen

from engine.desk.local import local_user

ME = local_user().name
KEY = "MRN:558181838"
THEIRS = ("--role", "doctor", "--provider", "1043210987")
ADMIT = (
    "MSH|^~\\&|EHR|MAIN|||20261101||ADT^A01^ADT_A01|OTHER-{n}|P|2.5.1\rEVN|A01|20261101\r"
    "PID|1||{mrn}^^^MRN^MR||ROE^RICHARD||1950\r{more}PV1|1|I|{unit}^1^1||||{attending}|||||||||||I|V{mrn}^^^MRN\r"
)


def admit(mrn: str, *, unit: str = "4E", attending: str = "77", more: str = "", n: str = "1") -> bytes:
    return ADMIT.format(mrn=mrn, unit=unit, attending=attending, more=more, n=n).encode()


def fill_in(site: Site) -> None:
    """The site says which of its units is a program of 42 CFR Part 2."""
    roles = site.folder / "mappings/access/roles.yaml"
    empty = "when: {units: [], facilities: [], services: []}"
    roles.write_text(roles.read_text().replace(empty, "when: {units: [PART2], facilities: [], services: []}"))


def configure(site: Site, access: str = "") -> None:
    fill_in(site)
    text = site.config.read_text()
    keys = f"provider: local, roles: mappings/access/roles.yaml, grace_days: 366{access}"
    site.config.write_text(f"{text}\naccess: {{{keys}}}\n")


def sit(site: Site, *options: str) -> None:
    """Whoever runs the tests has an account of these options."""
    assert site.run("users", "add", ME, *options).code == 0


def denials(site: Site) -> list[dict[str, Any]]:
    """What the trail says, read by who may."""
    text = site.config.read_text()
    site.config.write_text(text.partition("\naccess:")[0] + "\n")
    found: list[dict[str, Any]] = site.json("audit", "list", "--action", "denied", "--reveal", "--reason", "test")
    site.config.write_text(text)
    return found


@pytest.fixture
def guarded(stocked: Site) -> Site:
    configure(stocked)
    return stocked


def refused(done: Done, word: str) -> None:
    assert done.code == 1, done
    assert done.out == ""
    assert word in done.err
    assert not seen(done.err)


READS = (
    ("patients", "show", KEY), ("patients", "find"), ("tasks", "list"), ("appointments", "list"), ("pages", "list"),
    ("messages", "list"), ("messages", "show", "1"), ("dead", "list"), ("held", "list"), ("ledger",), ("why", KEY),
    ("audit", "list"), ("quality", "list"), ("gaps",), ("senders",), ("destinations", "list"), ("oncall", "who", "x"),
    ("config", "list"),
)  # fmt: skip


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_who_has_no_account_is_refused_and_it_is_on_record(guarded: Site, command: tuple[str, ...]) -> None:
    refused(guarded.run(*command), f"no account belongs to the user {ME}")
    assert [one["actor"] for one in denials(guarded)] == [ME]


def test_what_the_environment_says_counts_for_nothing(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guarded.run("users", "add", "boss", "--role", "admin").code == 0
    for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME"):
        monkeypatch.setenv(name, "boss")
    refused(guarded.run("tasks", "list"), "no account")


def test_without_access_the_command_line_may_do_everything(stocked: Site) -> None:
    assert stocked.run("patients", "show", KEY).code == 0
    assert stocked.run("users", "list").code == 0


@pytest.mark.parametrize(
    "text", ["access:\n  provider: lokal\n", "access: [1]\n", "access: {roles: 5}\n", "access: x\n"]
)
def test_a_typing_error_in_access_lets_nobody_in(stocked: Site, text: str) -> None:
    stocked.config.write_text(stocked.config.read_text() + "\n" + text)
    done = stocked.run("patients", "show", KEY)
    assert done.code == 78, done
    assert done.out == ""


def test_a_file_of_roles_that_is_gone_lets_nobody_in(guarded: Site) -> None:
    (guarded.folder / "mappings/access/roles.yaml").unlink()
    assert guarded.run("tasks", "list").code == 78


def test_a_broken_channel_keeps_nobody_out_who_may_look(guarded: Site) -> None:
    sit(guarded, "--role", "admin")
    (guarded.folder / "channels/main-campus.yaml").write_text("name: [\n")
    assert guarded.run("tasks", "list").code == 0


def test_a_doctor_sees_their_patient_and_nobody_else(guarded: Site) -> None:
    guarded.receive(admit("900001"))
    guarded.process()
    chart = attending_of(guarded)
    sit(guarded, "--role", "doctor", "--provider", chart)
    assert guarded.run("patients", "show", KEY).code == 0
    refused(guarded.run("patients", "show", "MRN:900001"), "the patient is none of yours")
    found = guarded.json("patients", "find", "--reveal", "--reason", "test")
    assert [one["key"] for one in found] == [KEY]
    assert {task["patient_key"] for task in guarded.json("tasks", "list", "--reveal", "--reason", "test")} == {KEY}
    assert "1 more" in guarded.run("patients", "find").err


def attending_of(site: Site) -> str:
    message = first_messages(site)[0].decode()
    pv1 = next(line for line in message.split("\r") if line.startswith("PV1"))
    return pv1.split("|")[7].split("^")[0]


def test_billing_gets_nothing_clinical_in_its_answer(guarded: Site) -> None:
    sit(guarded, "--role", "billing")
    shape = guarded.json("patients", "show", KEY, "--reveal", "--reason", "a bill")
    assert shape["name"]["family"] == "DOE"
    stay = shape["encounters"][0]
    assert (stay["diagnoses"], stay["procedures"], stay["disposition"], stay["location"]) == ([], [], None, None)
    assert (shape["scores"], shape["tasks"], shape["pages"], shape["held"], shape["dead"]) == ([], [], [], [], [])
    assert shape["not_shown"] == ["clinical", "metadata", "plan", "stay"]
    assert "I50" not in json.dumps(shape)
    assert guarded.run("patients", "show", KEY).code == 0
    refused(guarded.run("why", KEY), "what you do not see of the patient")
    refused(guarded.run("tasks", "list"), "may not see tasks")


def test_ops_sees_the_engine_and_no_patient(guarded: Site) -> None:
    sit(guarded, "--role", "ops")
    for command in (("ledger",), ("messages", "list"), ("dead", "list"), ("held", "list"), ("destinations", "list")):
        done = guarded.run(*command)
        assert done.code in {0, 1}, done
        assert done.out
        assert not seen(done.out)
    refused(guarded.run("patients", "show", KEY), "ops may not look at a patient")
    refused(guarded.run("messages", "show", "1"), "ops may not look at a message")
    refused(guarded.run("messages", "list", "--reveal", "--reason", "curious"), "ops may not see patient data unmasked")


def test_a_nurse_works_on_tasks_of_their_unit_only(guarded: Site) -> None:
    unit = first_messages(guarded)[0].decode().partition("PV1|")[2].split("|")[2].split("^")[0]
    sit(guarded, "--role", "nurse", "--unit", unit)
    task = guarded.json("tasks", "list")[0]["id"]
    assert guarded.json("tasks", "done", task)["state"] == "done"
    assert guarded.run("users", "change", ME, "--unit", "4E").code == 0
    refused(guarded.run("tasks", "undo", task), "none of yours")
    refused(guarded.run("tasks", "show", task), "none of yours")
    assert guarded.json("tasks", "list") == []
    assert {one["subject"].partition(":")[0] for one in denials(guarded)} == {"chart"}


@pytest.mark.parametrize("mark", ["PD1||||||||||||Y\r", "ARV|1|A|ALL\r", "CON|1|001|||||||||R\r"])
def test_a_restricted_record_is_not_there_for_who_does_not_treat_them(guarded: Site, mark: str) -> None:
    guarded.receive(admit("900002", more=mark).replace(b"|2.5.1", b"|2.7"))
    guarded.process()
    sit(guarded, "--role", "billing")
    refused(guarded.run("patients", "show", "MRN:900002"), "the record is restricted")
    assert "MRN:900002" not in guarded.run("patients", "find", "--reveal", "--reason", "a bill").out


def test_a_stay_of_a_part_2_unit_is_left_out_with_all_that_hangs_on_it(guarded: Site) -> None:
    guarded.receive(admit("900003", unit="3W", attending="55", n="1"))
    second = admit("900003", unit="PART2", attending="66", n="2").replace(b"V900003", b"V900004")
    guarded.receive(second.replace(b"||20261101||ADT", b"||20261102||ADT"))
    guarded.process()
    sit(guarded, "--role", "doctor", "--provider", "55")
    shape = guarded.json("patients", "show", "MRN:900003", "--reveal", "--reason", "rounds")
    assert [stay["key"] for stay in shape["encounters"]] == ["MRN:V900003"]
    assert "PART2" not in json.dumps(shape)
    assert guarded.run("users", "change", ME, "--provider", "66").code == 0
    shape = guarded.json("patients", "show", "MRN:900003", "--reveal", "--reason", "rounds")
    assert "MRN:V900004" in [stay["key"] for stay in shape["encounters"]]


def test_who_is_disabled_is_out_with_the_next_command(guarded: Site) -> None:
    sit(guarded, "--role", "admin")
    assert guarded.run("tasks", "list").code == 0
    assert guarded.run("users", "disable", ME).code == 0
    refused(guarded.run("tasks", "list"), "no account")


def test_a_service_does_not_sit_at_the_command_line(guarded: Site) -> None:
    sit(guarded, "--role", "admin", "--service")
    refused(guarded.run("tasks", "list"), "no account")


def test_config_gives_users_of_the_machine_accounts_of_other_names(stocked: Site) -> None:
    configure(stocked, f", local_users: {{{ME}: dana}}")
    assert stocked.run("users", "add", "dana", "--role", "admin").code == 0
    assert stocked.run("tasks", "list").code == 0
    actors = {one["action"]: one["actor"] for one in stocked.json("audit", "list")}
    assert (actors["account-added"], actors["looked"]) == (ME, "dana")


def test_why_somebody_may_is_said_with_the_line_of_the_roles(guarded: Site) -> None:
    sit(guarded, "--role", "admin")
    assert guarded.run("users", "add", "dana", "--role", "nurse", "--unit", "4E").code == 0
    said = guarded.json("users", "may", "dana", "patient.read", "--patient", KEY, code=1)
    assert (said["allowed"], said["rule"]) == (False, "roles.nurse.patients")
    assert guarded.run("users", "may", ME, "patient.read", "--patient", KEY).code == 0
    assert guarded.run("users", "may", "dana", "patient.rea").code == 2


def test_the_trail_says_where_somebody_sat(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from engine.connectors.registry import load
    from engine.snapshot import Snapshot
    from engine.store.opening import open_store

    monkeypatch.setenv("SUDO_UID", "1001")
    guarded.run("patients", "show", KEY)
    sit(guarded, "--role", "admin")
    with open_store(load(Snapshot.read(guarded.config)), "look") as store, store.reader() as conn:
        found = store.audit.find(conn)
    made, denied = (next(one for one in found if one.action == name) for name in ("account-added", "denied"))
    assert (made.action, denied.action, denied.result) == ("account-added", "denied", "denied")
    for record in (made, denied):
        assert record.whence is not None
        assert (record.whence.uid, record.whence.sudo_uid) == (os.geteuid(), 1001)
        assert record.whence.host
    assert denied.whence is not None
    assert denied.whence.command == "handoff patients show"


def test_a_list_that_is_too_long_to_be_looked_through_says_so(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.desk.desk.SEEN_THROUGH_MAX", 2)
    sit(guarded, "--role", "nurse", "--unit", "9Z")
    assert "narrow the list" in guarded.run("tasks", "list", "--limit", "1").err


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("provider: local, roles: mappings/access/rolez.yaml", "there is no mappings/access/rolez.yaml"),
        ("provider: oidc", "there is no oidc"),
        ("provider: local, oidc: {issuer: 'https://x.example', client_id: c}", "the provider is local"),
        ("provider: local+oidc, oidc: {issuer: 'http://x.example', client_id: c}", "must be https"),
        (
            "provider: local+oidc, oidc: {issuer: 'https://x.example', client_id: c, client_secret: abc}",
            "client_secret",
        ),
        ("provider: local, grace_days: -1", "grace_days"),
    ],
)
def test_check_says_what_is_wrong_with_access(stocked: Site, keys: str, told: str) -> None:
    stocked.config.write_text(f"{stocked.config.read_text()}\naccess: {{{keys}}}\n")
    problems = stocked.json("check", code=1)["problems"]
    assert any(told in f"{one['key']} {one['message']}" for one in problems), problems


def test_check_runs_the_tests_of_the_roles(stocked: Site) -> None:
    roles = stocked.folder / "mappings/access/roles.yaml"
    roles.write_text(roles.read_text().replace("patients: [unit, team, page]", "patients: any"))
    problems = stocked.json("check", code=1)["problems"]
    assert any("not those of another" in one["message"] for one in problems)


def test_a_search_does_not_tell_that_somebody_of_that_name_is_a_patient(guarded: Site) -> None:
    sit(guarded, "--role", "nurse", "--unit", "9Z")
    found, none = (guarded.run("patients", "find", "--name", name) for name in ("DOE", "NOBODY"))
    assert (found.out, found.err) == (none.out, none.err)


@pytest.mark.parametrize(
    ("unit", "more", "role", "listed"),
    [
        ("PART2", "", "care_coordinator", True),  # a task of theirs, and restrictions.part2 has no `team`
        ("4E", "", "care_coordinator", False),
        ("4E", "PD1||||||||||||Y\r", "care_coordinator", False),  # protected: who has a task of the patient sees them
        ("PART2", "", "ops", False),  # nobody has the role that the task is of
    ],
)
def test_a_task_that_nobody_whom_it_is_for_sees_is_a_gap(
    bare: Site, unit: str, more: str, role: str, listed: bool
) -> None:
    configure(bare)
    left = ADMIT.replace("ADT^A01^ADT_A01|OTHER", "ADT^A03^ADT_A03|LEFT").replace("EVN|A01", "EVN|A03")
    left = left.replace("V{mrn}^^^MRN\r", "V{mrn}^^^MRN" + "|" * 17 + "01" + "|" * 9 + "20261101\r")
    bare.receive(admit("900001", unit=unit, more=more), left.format(
        mrn="900001", unit=unit, attending="77", more=more, n="2").encode())  # fmt: skip
    bare.process()
    sit(bare, "--role", "admin")
    assert bare.run("users", "add", "carl", "--role", role).code == 0
    tasks = bare.json("tasks", "list", "--assignee", "care_coordinator")
    assert tasks
    found = [one for one in bare.json("gaps", "--since", "366d") if one["what"] == "unseen"]
    assert bool(found) is listed, found
    if listed:
        assert "care_coordinator" in found[0]["reason"]
        assert "restrictions.part2" in found[0]["reason"]
        assert found[0]["patient_key"].startswith("MRN:~")
        assert bare.json("tasks", "show", found[0]["see"].split()[-1])["id"] in {one["id"] for one in tasks}
