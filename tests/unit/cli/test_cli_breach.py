"""The worksheet of a breach: what is known, the clock, the assessment, who was told; all of it on the trail."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from site_with_store import Site, seen
from test_cli_access import admit, configure, refused, sit

from engine.connectors.registry import load
from engine.domain.audit import AuditRecord
from engine.snapshot import Snapshot
from engine.store.opening import open_store

KEY = "MRN:558181838"
TODAY = datetime.now(UTC).date()
REVEAL = ("--reveal", "--reason", "the letters")
FACTORS = (
    "--nature", "name and diagnosis", "--person", "a neighbour", "--acquired", "read on paper",
    "--mitigated", "given back",
)  # fmt: skip


def opened(site: Site, *more: str, known: str = "2d") -> dict[str, Any]:
    found: dict[str, Any] = site.json("breach", "open", "--what", "a list left on a bus MARK", "--known", known, *more)
    return found


def due(found: dict[str, Any]) -> dict[str, str]:
    return {one["whom"] + (f" {one['state']}" if one["state"] else ""): one["due"] for one in found["duties"]}


def test_a_worksheet_goes_from_open_to_closed_and_each_step_is_on_the_trail(stocked: Site) -> None:
    made = opened(stocked, "--patient", KEY, "--to", "a stranger MARK")
    known = date.fromisoformat(made["known_on"])
    assert (made["id"], made["state"], made["people"], made["presumed"]) == (1, "open", 1, True)
    assert due(made)["patients"] == made["next_due"] == str(known + timedelta(days=60))
    done = stocked.run("breach", "close", "1", "--because", "x")
    assert (done.code, "no assessment" in done.err) == (1, True)
    assert stocked.json("breach", "assess", "1", *FACTORS, "--breach")["state"] == "assessed"
    done = stocked.run("breach", "close", "1", "--because", "x")
    assert (done.code, "have not been told" in done.err) == (1, True)
    stocked.json("breach", "notified", "1", "--whom", "patients", "--on", "1d", "--note", "by post")
    assert stocked.json("breach", "notified", "1", "--whom", "log", "--on", "1d")["state"] == "notified"
    closed = stocked.json("breach", "close", "1", "--because", "lists stay in the house")
    assert (closed["state"], closed["next_due"], closed["missing"]) == ("closed", None, [])
    assert closed["keep_until"][:4] == str(TODAY.year + 6)
    assert stocked.run("breach", "notified", "1", "--whom", "log", "--on", "today").code == 1
    actions = [one["action"] for one in stocked.json("audit", "list") if one["subject"] == "breach:1"]
    assert actions[::-1] == ["breach-opened", "breach-assessed", "breach-notified", "breach-notified", "breach-closed"]
    assert stocked.json("audit", "verify")["ok"] is True


def test_words_and_patients_are_masked_unless_revealed(stocked: Site) -> None:
    opened(stocked, "--patient", KEY)
    stocked.json("breach", "assess", "1", *FACTORS, "--breach")
    for command in (
        ("breach", "show", "1"),
        ("breach", "list"),
        ("audit", "list"),
        ("audit", "export", "--format", "fhir"),
    ):
        masked = stocked.run(*command)
        assert seen(masked.out + masked.err) == []
        assert "MARK" not in masked.out
        assert "neighbour" not in masked.out
    shown = stocked.json("breach", "show", "1", *REVEAL)
    assert shown["what"].endswith("MARK")
    assert shown["patients"][0]["key"] == KEY
    assert shown["patients"][0]["address"]["state"]
    assert stocked.json("audit", "list", "--action", "reveal")[0]["patients"]


def test_the_patients_come_from_keys_files_and_what_somebody_saw(stocked: Site) -> None:
    stocked.receive(admit("900001"))
    stocked.process()
    keys = stocked.folder / "keys"
    keys.write_text(f"{KEY}\n\nMRN:900001\n")
    stocked.run("patients", "show", KEY, "--reveal", "--reason", "curious")
    who = stocked.json("audit", "list", "--action", "reveal")[0]["actor"]
    first = opened(stocked, "--looks-of", who)
    assert (first["id"], first["people"]) == (1, 1)
    assert opened(stocked, "--patients", str(keys))["people"] == 2
    assert stocked.json("breach", "add", "1", "--patient", "MRN:900001", "--patient", KEY)["people"] == 2
    keys.write_text("MRN:900001\nMRN:nobody\n")
    done = stocked.run("breach", "add", "2", "--patients", str(keys))
    assert (done.code, "patient 2 of those given" in done.err, "nobody" in done.err) == (1, True, False)
    done = stocked.run("breach", "open", "--what", "x", "--known", "today", "--looks-of", "ghost")
    assert (done.code, "knows no look of ghost" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("more", "whom"),
    [
        (("--others", "12"), {"patients", "log"}),
        (("--others", "NY=500"), {"patients", "hhs"}),
        (("--others", "ny=501", "--others", "NJ=3"), {"patients", "hhs", "media NY"}),
        (("--others", "NY=251", "--others", "NY=250"), {"patients", "hhs", "media NY"}),
        (("--others", "NY=501", "--business-associate"), {"covered_entity"}),
    ],
)
def test_who_has_to_be_told_follows_from_how_many(stocked: Site, more: tuple[str, ...], whom: set[str]) -> None:
    assert due(opened(stocked, *more)).keys() == whom


@pytest.mark.parametrize("verdict", [("--low",), ("--exception", "workforce"), ("--exception", "secured")])
def test_what_is_no_breach_after_all_owes_no_notice_and_is_kept(stocked: Site, verdict: tuple[str, ...]) -> None:
    opened(stocked, "--patient", KEY)
    found = stocked.json("breach", "assess", "1", *FACTORS, *verdict)
    assert (found["duties"], found["next_due"]) == ([], None)
    assert stocked.json("breach", "close", "1", "--because", "nothing came of it")["state"] == "closed"
    assert [one["id"] for one in stocked.json("breach", "list")] == [1]
    assert stocked.json("breach", "list", "--open") == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("open", "--what", "x", "--known", "2999-01-01"), "in the future"),
        (("open", "--what", "x", "--known", "3d", "--happened", "1d"), "before it happened"),
        (("assess", "1", *FACTORS, "--exception", "nothing"), "there is no exception nothing"),
        (("notified", "1", "--whom", "media", "--on", "today", "--state", "NY"), "there are to be told: patients, log"),
        (("notified", "1", "--whom", "patients", "--on", "2999-01-01"), "in the future"),
        (("notified", "1", "--whom", "patients", "--on", "9d"), "before it was known"),
        (("delay", "1", "--until", "40d", "--by", "agent Ray", "--oral"), "holds for 30 days"),
        (("assess", "9", *FACTORS, "--low"), "there is no breach 9"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_is_written(stocked: Site, command: tuple[str, ...], said: str) -> None:
    opened(stocked, "--patient", KEY)
    before = stocked.json("breach", "show", "1")
    done = stocked.run("breach", *command)
    assert done.code == 1
    assert said in done.err
    assert stocked.json("breach", "show", "1") == before
    assert len(stocked.json("breach", "list")) == 1


def test_an_assessment_needs_all_four_factors_and_a_finding(stocked: Site) -> None:
    opened(stocked)
    for left_out in range(0, 8, 2):
        done = stocked.run("breach", "assess", "1", *FACTORS[:left_out], *FACTORS[left_out + 2 :], "--low")
        assert (done.code, FACTORS[left_out] in done.err) == (2, True)
    assert stocked.run("breach", "assess", "1", *FACTORS).code == 2
    assert stocked.run("breach", "assess", "1", *FACTORS, "--low", "--exception", "secured").code == 2


def test_law_enforcement_puts_notices_off(stocked: Site) -> None:
    opened(stocked, "--patient", KEY)
    end = TODAY + timedelta(days=200)
    found = stocked.json("breach", "delay", "1", "--until", str(end), "--by", "agent Ray, in writing")
    assert due(found)["patients"] == str(end)


def test_the_page_says_all_of_it_and_is_its_owners_alone(stocked: Site, tmp_path: Path) -> None:
    opened(stocked, "--patient", KEY, "--to", "a stranger")
    stocked.json("breach", "assess", "1", *FACTORS, "--breach")
    page = tmp_path / "breach.html"
    assert stocked.run("breach", "show", "1", "--html", str(page), *REVEAL).code == 0
    text = page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    for said in (
        "a list left on a bus",
        "read on paper",
        "45 CFR 164.404",
        "JANE",
        "ELM",
        "164.400-414",
        "no legal advice",
    ):
        assert said in text, said
    assert re.search(r"<script|http://", text) is None


def test_one_whose_time_was_over_is_no_damage(stocked: Site) -> None:
    opened(stocked, "--others", "1")
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        store.charts_ledger.write_now(
            lambda conn: store.audit.purge(
                conn,
                AuditRecord(at=stocked.clock.now(), actor="system", action="trail-purged", subject="audit"),
                [(1, 1)],
            )
        )
    assert stocked.json("breach", "list") == []
    assert [one for one in stocked.run("status", "--json").json["trouble"] if one.startswith("breach")] == []
    assert stocked.json("audit", "verify")["ok"] is True


@pytest.mark.parametrize("how", ["UPDATE audit_payload SET body = x'00'", "DELETE FROM audit_payload"])
def test_a_worksheet_that_was_altered_is_said_and_no_older_one_passes_for_it(stocked: Site, how: str) -> None:
    from test_cli_audit import behind, kinds

    opened(stocked, "--others", "1")
    opened(stocked, "--others", "1")
    stocked.json("breach", "add", "1", "--others", "600")
    seq = stocked.json("audit", "list", "--action", "breach-changed")[0]["seq"]
    behind(stocked, f"{how} WHERE seq = {seq}")
    done = stocked.run("breach", "list", "--json")
    assert [one["id"] for one in done.json] == [2]
    assert "Breach 1 can't be read" in done.err
    for command in (("show", "1"), ("add", "1", "--others", "2"), ("close", "1", "--because", "x")):
        failed = stocked.run("breach", *command)
        assert (failed.code, "breach 1 was altered" in failed.err) == (1, True)
    assert opened(stocked)["id"] == 3
    assert "breach-due:1" in stocked.run("status", "--json").json["trouble"]
    assert {one["id"]: one for one in stocked.json("evidence")["rows"]}["hipaa-breach"]["state"] == "open"
    assert "breach 1 can't be read" in stocked.json("audit", "disclosures", KEY)["remarks"][0]
    assert [one for one in kinds(stocked) if one.startswith("payload")]


@pytest.mark.parametrize(
    ("role", "may"),
    [(("privacy_officer",), True), (("nurse", "--unit", "4W"), False), (("ops",), False), (("billing",), False)],
)
def test_who_watches_over_privacy_keeps_worksheets_and_nobody_else(
    stocked: Site, role: tuple[str, ...], may: bool
) -> None:
    opened(stocked, "--patient", KEY)
    configure(stocked)
    sit(stocked, "--role", *role)
    for command in (
        ("breach", "list"), ("breach", "show", "1", *REVEAL), ("breach", "add", "1", "--others", "2"),
        ("breach", "assess", "1", *FACTORS, "--low"), ("audit", "refusals"),
        ("audit", "note", "part2", "--because", "x"),
        ("audit", "suspend", KEY, "--recipient", "x", "--by", "x", "--until", "9d"),
        ("audit", "refuse", KEY, "--asked-by", "x", "--exception", "privacy", "--because", "x"),
    ):  # fmt: skip
        done = stocked.run(*command)
        if may:
            assert done.code == 0, (command, done.err)
        else:
            refused(done, "not allowed")
            assert seen(done.out + done.err) == []


@pytest.mark.parametrize(("known", "code"), [("2d", None), ("50d", "breach-due:1"), ("70d", "breach-overdue:1")])
def test_status_says_what_is_due_also_where_no_daemon_runs(stocked: Site, known: str, code: str | None) -> None:
    opened(stocked, known=known)
    found = [one for one in stocked.run("status", "--json").json["trouble"] if one.startswith("breach")]
    assert found == ([code] if code else [])
