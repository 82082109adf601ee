"""`handoff audit`: the trail seen, checked, written down elsewhere and taken out; each event that can be on record."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from site_with_store import Site, seen, without_destination

from engine.domain.audit import EVENTS

TESTS = Path(__file__).parents[2]
REVEAL = ("--reveal", "--reason", "audit")
KEY = "MRN:558181838"
BECAUSE = ("--reason", "because of MARK")
PLACE = "var/trail/checkpoints.ndjson"


def looked(site: Site) -> None:
    assert site.run("patients", "find", "--reveal", "--reason", "asked by MARK").code == 0


def behind(site: Site, *statements: str) -> None:
    """Somebody who may write the file."""
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        made = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in made:
            conn.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            conn.execute(statement)
        for _, sql in made:
            conn.execute(sql)


def kinds(site: Site) -> list[str]:
    found = site.json("audit", "verify", code=1)
    assert found["ok"] is False
    return [one["kind"] for one in found["problems"]]


# --- the commands ----------------------------------------------------------------------------------------------------


def test_a_whole_trail_is_said_to_be_whole_and_that_it_was_looked_at(stocked: Site) -> None:
    looked(stocked)
    found = stocked.json("audit", "verify")
    assert found["ok"] is True
    assert found["problems"] == []
    assert (found["from"], found["to"], found["checkpoints"], found["purged"]) == (1, found["records"], 1, 0)
    assert stocked.json("audit", "list")[0]["action"] == "trail-verified"
    assert "All is as it was written" in stocked.run("audit", "verify").out


def test_a_record_says_from_where_it_was_done_and_no_argument(stocked: Site) -> None:
    looked(stocked)
    record = stocked.json("audit", "list", "--action", "reveal")[0]
    assert record["whence"]["command"].endswith("patients find")
    assert record["whence"]["host"]
    assert (record["result"], record["damaged"]) == ("allowed", None)
    assert record["patients"] == [record["subject"].removeprefix("chart:")]
    assert "MARK" not in str(record)


def test_an_altered_record_is_found_and_blinds_nobody(stocked: Site) -> None:
    looked(stocked)
    stocked.json("destinations", "pause", "files", *BECAUSE)
    behind(stocked, "UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    assert kinds(stocked) == ["altered"]
    listed = {one["seq"]: one["damaged"] for one in stocked.json("audit", "list")}
    assert listed[1] == "altered"
    assert [seq for seq, damaged in listed.items() if damaged] == [1]
    assert "damaged: altered" in stocked.run("audit", "list").out
    assert "altered" in stocked.run("audit", "verify").out


def test_a_checkpoint_is_written_outside_and_finds_what_is_cut_off(stocked: Site) -> None:
    looked(stocked)
    made = stocked.json("audit", "checkpoint")
    assert [one["error"] for one in made["places"]] == [None]
    line = json.loads((stocked.folder / PLACE).read_text().splitlines()[-1])
    assert {name: line[name] for name in ("chain", "seq", "mac", "signature")} == {
        name: made[name] for name in ("chain", "seq", "mac", "signature")
    }
    assert stocked.json("audit", "verify")["checkpoints"] == 2  # the command that looked has made one, too
    behind(
        stocked, "DELETE FROM audit", "DELETE FROM audit_payload", "DELETE FROM audit_patient",
        "UPDATE audit_head SET seq = 0, mac = x''",
    )  # fmt: skip
    assert "rolled-back" in kinds(stocked)


@pytest.mark.parametrize("behind_it", ["the last records", "all of it"])
def test_what_matters_can_not_be_cut_off_without_a_word_where_no_daemon_runs(stocked: Site, behind_it: str) -> None:
    looked(stocked)
    assert stocked.run("users", "add", "ada", "--role", "nurse").code == 0
    mac = "x''" if behind_it == "all of it" else "(SELECT mac FROM audit WHERE seq = 1)"
    seq = 0 if behind_it == "all of it" else 1
    tables = ("audit", "audit_payload", "audit_patient")
    behind(
        stocked, f"UPDATE audit_head SET mac = {mac}, seq = {seq}",
        *(f"DELETE FROM {table} WHERE seq > {seq}" for table in tables),
    )  # fmt: skip
    assert "rolled-back" in kinds(stocked)
    done = stocked.run("patients", "find", "--reveal", "--reason", "asked again")
    assert done.code == 0  # nobody is kept from looking
    assert "ends before what a checkpoint has seen" in done.err
    assert "checkpoint" in kinds(stocked)  # and the trail does not pass for whole from there on


def test_acts_of_less_weight_are_witnessed_once_there_are_many(stocked: Site) -> None:
    stocked.config.write_text(stocked.config.read_text() + "\ntrail: {checkpoint_rows: 2}\n")
    place = stocked.folder / PLACE
    stocked.json("destinations", "pause", "files", *BECAUSE)
    assert not place.exists()
    stocked.json("destinations", "resume", "files")
    assert [json.loads(line)["seq"] for line in place.read_text().splitlines()] == [2]


def test_a_place_that_takes_none_is_said_and_keeps_nobody_from_working(stocked: Site) -> None:
    (stocked.folder / "var/trail").write_text("a file in the place of the folder")
    done = stocked.run("patients", "find", "--reveal", "--reason", "asked")
    assert done.code == 0
    assert "there is no checkpoint of it" in done.err
    assert seen(done.err) == []


def test_a_signature_can_be_checked_by_others_with_the_public_key_alone(stocked: Site) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from engine.domain.checkpoint import read

    made = stocked.json("audit", "checkpoint")
    line = read((stocked.folder / PLACE).read_bytes())
    assert line is not None
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(made["public_key"]))
    key.verify(bytes.fromhex(line.signature), line.signed_text)


SYSLOG = "<109>1 2026-03-01T12:00:00Z h handoff - trail-checkpoint [trail@32473 seq='1'] %s"
CALL = '{"type": "trail_checkpoint", "timestamp": "2026-03-01T12:00:00Z", "data": %s}'


@pytest.mark.parametrize(("option", "form"), [("--with", SYSLOG), ("--checkpoint", CALL), ("--checkpoint", SYSLOG)])
def test_what_a_receiver_has_kept_is_compared_too(stocked: Site, option: str, form: str) -> None:
    looked(stocked)
    stocked.json("audit", "checkpoint")
    place = stocked.folder / PLACE
    kept = stocked.folder / "from-syslog"
    kept.write_text("".join(f"{form % line}\n" for line in place.read_text().splitlines()))
    place.unlink()
    assert stocked.json("audit", "verify", option, str(kept))["checkpoints"] == 2
    behind(
        stocked, "DELETE FROM audit", "DELETE FROM audit_payload", "DELETE FROM audit_patient",
        "UPDATE audit_head SET seq = 0, mac = x''",
    )  # fmt: skip
    assert stocked.json("audit", "verify")["ok"] is True  # nobody has told it
    found = stocked.json("audit", "verify", option, str(kept), code=1)
    assert {one["kind"] for one in found["problems"]} == {"checkpoint", "rolled-back"}


def test_a_restore_is_a_roll_back_until_it_is_owned_to(stocked: Site) -> None:
    looked(stocked)
    old = stocked.folder / "old.db"
    shutil.copy(stocked.folder / "var/handoff.db", old)
    looked(stocked)
    stocked.json("audit", "checkpoint")
    for path in (stocked.folder / "var").glob("handoff.db-*"):
        path.unlink()
    shutil.copy(old, stocked.folder / "var/handoff.db")
    assert stocked.run("audit", "verify").code == 1
    owned = stocked.json("audit", "reseal", "--reason", "the disk died")
    assert owned["lost_from"] <= owned["lost_to"]
    found = stocked.json("audit", "verify")
    assert (found["ok"], found["restores"]) == (True, 1)
    assert stocked.run("audit", "reseal", "--reason", "again").code == 1  # nothing is behind now


def test_a_place_that_cannot_be_written_is_said(stocked: Site) -> None:
    (stocked.folder / "var/trail").write_text("a file in the place of the folder")
    done = stocked.run("audit", "checkpoint")
    assert done.code == 1
    assert "checkpoints.ndjson" in done.out


def test_checkpoints_that_somebody_has_altered_are_said(stocked: Site) -> None:
    stocked.json("audit", "checkpoint")
    place = stocked.folder / PLACE
    whole = place.read_text()
    place.write_text(whole.replace('"seq":', '"seq":1'))
    assert kinds(stocked) == ["checkpoint-forged"]
    place.write_text("nothing of ours\n" + whole)
    assert kinds(stocked) == ["checkpoints-unreadable"]
    place.write_text(whole + whole[:20])  # a crash has cut the last one off
    assert stocked.json("audit", "verify")["ok"] is True


def test_a_store_that_swallows_records_shows_nobody_a_patient(stocked: Site) -> None:
    with sqlite3.connect(stocked.folder / "var/handoff.db") as conn:
        conn.execute("CREATE TRIGGER x BEFORE INSERT ON audit BEGIN SELECT RAISE(IGNORE); END")
    done = stocked.run("patients", "find", "--reveal", "--reason", "asked")
    assert done.code == 69
    assert seen(done.out + done.err) == []
    assert "trigger x is not ours" in done.err
    found = stocked.json("audit", "verify", code=1)
    assert [one["kind"] for one in found["problems"]] == ["schema"]


# --- taken out -------------------------------------------------------------------------------------------------------

REQUIRED = {
    "": {"resourceType", "type", "recorded", "agent", "source"},
    "agent": {"requestor"},
    "source": {"observer"},
}
"""Elements that AuditEvent of FHIR R4 must have."""


def test_records_are_taken_out_as_audit_events(stocked: Site) -> None:
    looked(stocked)
    stocked.json("destinations", "pause", "files", *BECAUSE)
    done = stocked.run("audit", "export", "--format", "fhir")
    assert done.code == 0
    assert "MARK" not in done.out
    assert seen(done.out) == []
    events = [one["resource"] for one in done.json["entry"]]
    assert done.json["resourceType"] == "Bundle"
    assert len({one["id"] for one in events}) == len(events)
    assert [one["subtype"][0]["code"] for one in events] == ["reveal", "destination-paused"]
    assert stocked.json("audit", "list")[0]["action"] == "trail-exported"
    for one in events:
        assert one.keys() >= REQUIRED[""]
        assert one["action"] in set("CRUDE")
        assert one["outcome"] in {"0", "4", "8", "12"}
        assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", one["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)", one["recorded"])
        assert all(agent.keys() >= REQUIRED["agent"] for agent in one["agent"])
        assert sum(agent["requestor"] for agent in one["agent"]) == 1
        assert one["source"].keys() >= REQUIRED["source"]
        assert all(entity["type"]["code"] in {"1", "2"} for entity in one["entity"])
    (first, *_) = events
    patients = [entity for entity in first["entity"] if entity["role"]["code"] == "1"]
    assert len(patients) == 1
    shown = stocked.run("audit", "export", "--format", "fhir", *REVEAL)
    assert "asked by MARK" in shown.out


def test_records_are_taken_out_as_syslog(stocked: Site) -> None:
    looked(stocked)
    stocked.json("destinations", "pause", "files", "--reason", 'a "quote] and \\ more')
    lines = stocked.run("audit", "export", "--format", "rfc5424", *REVEAL).out.splitlines()
    shape = re.compile(r"<10[6-9]>1 \S+ \S+ handoff - [a-z-]{1,32} \[audit@32473( [a-z_]+=\"(\\.|[^\"\\\]])*\")+\] .+")
    assert all(shape.fullmatch(line) for line in lines), lines
    assert any('reason="a \\"quote\\] and \\\\ more"' in line for line in lines)
    assert stocked.json("audit", "export", "--format", "rfc5424")[0].startswith("<109>1 ")


# --- the catalogue ---------------------------------------------------------------------------------------------------


def _task(site: Site, *command: str) -> None:
    task = next(one["id"] for one in site.json("tasks", "list") if one["state"] == "open")
    assert site.run("tasks", command[0], task, *command[1:]).code == 0


def _undone(site: Site) -> None:
    task = next(one["id"] for one in site.json("tasks", "list") if one["state"] == "open")
    assert site.run("tasks", "done", task).code == 0
    assert site.run("tasks", "undo", task).code == 0


def _held(site: Site, *command: str) -> None:
    number = str(site.hold_first_delivery())
    assert site.run("held", command[0], number, *command[1:]).code == 0


def _moved(site: Site) -> None:
    without_destination(site)
    assert site.run("destinations", "move", "files", "--to", "other", *BECAUSE, "--yes").code == 0


def _resealed(site: Site) -> None:
    test_a_restore_is_a_roll_back_until_it_is_owned_to(site)


def _runs(*commands: Sequence[str]) -> Callable[[Site], None]:
    def run(site: Site) -> None:
        for command in commands:
            done = site.run(*command)
            assert done.code == 0, done

    return run


def _no_daemon(site: Site, *command: str) -> None:
    assert site.run(*command).code == 69


def _purged(site: Site) -> None:
    from engine.domain.audit import AuditRecord
    from engine.outline import outline
    from engine.snapshot import Snapshot
    from engine.store.opening import open_store

    looked(site)
    place = outline(Snapshot.read(site.config))
    assert place is not None
    with open_store(place, "tool") as store:
        note = AuditRecord(at=site.clock.now(), actor="system", action="trail-purged", subject="audit", reason="MARK")
        store.charts_ledger.write_now(lambda conn: store.audit.purge(conn, note, [(1, 1)]))


def _rehearsed(site: Site) -> None:
    backup, there = str(site.folder / "one.backup"), str(site.folder / "there")
    _runs(("backup", backup), ("restore", backup, there, "--rehearse"))(site)


BREACH = ("breach", "open", "--what", "MARK", "--known", "today")
ASSESSED = (
    "breach", "assess", "1", "--low",
    *("--nature", "MARK", "--person", "MARK", "--acquired", "MARK", "--mitigated", "MARK"),
)  # fmt: skip
AT_NUMBER = ("--purpose", "care", "--channel", "sms", "--number", "+12125550143")
CAUSED: dict[str, Callable[[Site], None]] = {
    "reveal": looked,
    "searched": _runs(("patients", "show", KEY, *BECAUSE)),
    "looked": _runs(("tasks", "list")),
    "site-read": _runs(("config", "list")),
    "trail-read": _runs(("audit", "list")),
    "keys-rotated": _runs(("keys", "rotate")),
    "keys-resealed": _runs(("keys", "reseal")),
    "keys-retired": _runs(("keys", "rotate"), ("keys", "reseal"), ("keys", "retire", "1")),
    "config-asked": lambda site: _no_daemon(site, "reload"),
    "task-done": lambda site: _task(site, "done", "--evidence", "MARK"),
    "task-assigned": lambda site: _task(site, "assign", "MARK"),
    "task-attempted": lambda site: _task(site, "attempt", "--how", "phone", "--result", "no_answer", "--note", "MARK"),
    "task-snoozed": lambda site: _task(site, "snooze", "2h", *BECAUSE),
    "task-cancelled": lambda site: _task(site, "cancel", *BECAUSE),
    "task-undone": _undone,
    "contact-given": _runs(("consent", "give", KEY, *AT_NUMBER, "--how", "MARK", *BECAUSE)),
    "contact-revoked": _runs(("consent", "revoke", KEY, *AT_NUMBER, "--how", "MARK", *BECAUSE)),
    "evidence-noted": _runs(("audit", "note", "hipaa-scans", "--because", "MARK")),
    "inventory-made": _runs(("inventory",)),
    "patient-exported": _runs(("patients", "export", KEY, *BECAUSE)),
    "sharing-refused": _runs(
        ("audit", "refuse", KEY, "--asked-by", "MARK", "--exception", "privacy", "--because", "MARK")
    ),
    "accounting-suspended": _runs(("audit", "suspend", KEY, "--recipient", "MARK", "--by", "MARK", "--until", "9d")),
    "breach-opened": _runs(BREACH),
    "breach-changed": _runs(BREACH, ("breach", "add", "1", "--patient", KEY)),
    "breach-assessed": _runs(BREACH, ASSESSED),
    "breach-notified": _runs(BREACH, ("breach", "notified", "1", "--whom", "log", "--on", "today", "--note", "MARK")),
    "breach-closed": _runs(BREACH, ASSESSED, ("breach", "close", "1", "--because", "MARK")),
    "replay": _runs(("replay", "--channel", "main-campus", "--yes")),
    "discard": _runs(("dead", "discard", "1", *BECAUSE)),
    "release": lambda site: _held(site, "release"),
    "confirm": lambda site: _held(site, "confirm"),
    "bury": lambda site: _held(site, "bury", *BECAUSE),
    "resend": _runs(("resend", "--destination", "files", "--all", *BECAUSE, "--yes")),
    "destination-paused": _runs(("destinations", "pause", "files", *BECAUSE)),
    "destination-resumed": _runs(("destinations", "resume", "files")),
    "destination-retried": _runs(("destinations", "retry", "files")),
    "destination-moved": _moved,
    "trail-checkpoint": _runs(("audit", "checkpoint")),
    "trail-verified": _runs(("audit", "verify")),
    "trail-exported": _runs(("audit", "export", "--format", "fhir")),
    "trail-resealed": _resealed,
    "trail-purged": _purged,
    "hold-placed": _runs(("legal-hold", "add", KEY, *BECAUSE)),
    "hold-lifted": _runs(("legal-hold", "add", KEY, *BECAUSE), ("legal-hold", "remove", KEY, *BECAUSE)),
    "backup": lambda site: _runs(("backup", str(site.folder / "one.backup")))(site),
    "restore-rehearsed": _rehearsed,
}
SHOWN_BY: dict[str, str] = {
    "page-ack": "unit/pipeline/test_paged_charts.py::"
                "test_an_acknowledgment_does_the_task_and_takes_queued_notifications_back_with_it",
    "page-answered": "acceptance/test_hooks.py::test_an_acknowledgment_at_pagerduty_is_one_here",
    "text-received": "unit/pipeline/test_replies.py::test_each_reply_is_on_record_with_nothing_of_its_words",
    "oncall-override": "unit/cli/test_cli_oncall.py::"
                       "test_whoever_stands_in_is_shown_at_once_and_the_reason_is_on_record_and_masked",
    **dict.fromkeys(
        ("consent-given", "consent-revoked"),
        "unit/cli/test_cli_copies.py::test_a_part_2_record_waits_for_a_consent_and_goes_with_its_scope",
    ),
    "plan-migrated": "unit/cli/test_cli_plans.py::test_a_migration_is_shown_first_and_then_done_on_record",
    "dismiss": "unit/cli/test_cli_deaths.py::test_dismissed_the_task_ends_and_the_plan_goes_on",
    "supersede": "integration/store/test_store_holds.py::"
                 "test_an_event_that_makes_it_true_supersedes_a_question_and_is_named",
    "quality-resolved": "unit/cli/test_cli_quality.py::test_resolve_and_reopen_are_acts_with_a_reason",
    "quality-reopened": "unit/cli/test_cli_quality.py::test_resolve_and_reopen_are_acts_with_a_reason",
    "destination-discarded": "unit/cli/test_cli_destinations.py::"
                             "test_what_waits_for_a_destination_that_is_gone_can_be_given_up",
    **dict.fromkeys(
        ("account-added", "account-changed", "account-disabled", "account-enabled", "password-set", "factor-set",
         "factor-removed", "token-made", "token-revoked"),
        "integration/store/test_accounts.py::test_every_change_is_on_the_trail",
    ),
    **dict.fromkeys(("logged-in", "logged-out"), "integration/store/test_accounts.py::test_who_logs_out_is_out"),
    "login-failed": "integration/store/test_accounts.py::test_nobody_learns_which_accounts_there_are",
    "denied": "unit/cli/test_cli_access.py::test_who_has_no_account_is_refused_and_it_is_on_record",
    **dict.fromkeys(
        ("glass-broken", "glass-attested"),
        "unit/cli/test_cli_glass.py::test_it_is_attested_by_somebody_else_and_counted",
    ),
    "disclosures-accounted": "unit/cli/test_cli_disclosures.py::"
                             "test_it_is_on_the_trail_whose_accounting_was_made",
    "unusual-reviewed": "unit/cli/test_cli_unusual.py::"
                        "test_a_namesake_is_above_the_line_and_trouble_until_somebody_has_asked",
    "restore": "integration/store/test_backup.py::test_everything_comes_back",
    "holds-confirmed": "unit/cli/test_cli_retention.py::"
                       "test_after_a_restore_nothing_is_erased_until_somebody_says_that_the_legal_holds_are_right",
    "swept": "integration/store/test_sweeping.py::test_the_sealed_part_of_old_records_goes_and_the_trail_is_whole",
    "patient-erased": "integration/store/test_sweeping.py::"
                      "test_a_chart_goes_after_its_years_with_all_that_belongs_to_it",
    "config-run": "unit/cli/test_cli_config.py::test_each_loading_is_on_record_with_who_when_where_and_how",
    "config-reload": "unit/cli/test_cli_config.py::test_each_loading_is_on_record_with_who_when_where_and_how",
}  # fmt: skip
"""Events that need more than a command: the test that causes them and looks at the record."""


@pytest.mark.parametrize("event", CAUSED)
def test_each_event_is_on_record_when_it_is_caused(stocked: Site, event: str) -> None:
    CAUSED[event](stocked)
    found: list[dict[str, Any]] = stocked.json("audit", "list", "--action", event)
    assert found
    assert all(one["actor"] and one["at"] and one["damaged"] is None for one in found)
    assert "MARK" not in str(found)
    assert EVENTS[event].discloses == (event in {"reveal", "searched", "patient-exported"})
    verified = stocked.run("audit", "verify", "--json").json
    assert [one for one in verified["problems"] if one["kind"] in {"unrecorded", "unfounded"}] == []


@pytest.mark.parametrize("event", SHOWN_BY)
def test_each_other_event_has_a_test_that_is_there(event: str) -> None:
    file, _, name = SHOWN_BY[event].partition("::")
    text = (TESTS / file).read_text(encoding="utf-8")
    body = re.search(rf"^(async )?def {name}\(.*?(?=^(?:async )?def |\Z)", text, re.DOTALL | re.MULTILINE)
    assert body is not None
    assert event in body.group(0) or re.search("audit|trail|denials", body.group(0))


def test_every_event_of_the_catalogue_has_a_test_and_none_is_tested_that_is_not_in_it() -> None:
    assert CAUSED.keys() | SHOWN_BY.keys() == EVENTS.keys()
    assert CAUSED.keys() & SHOWN_BY.keys() == set()
