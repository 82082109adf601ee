"""Copies that people give out, refusals to, and what of it a patient's accounting says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from site_with_store import Site, seen
from test_cli_access import admit, configure, refused, sit
from test_cli_audit import behind

from engine.domain.chart import Chart

KEY = "MRN:558181838"
GIVEN = ("--to", "Superior Court", "--address", "1 Law Square", "--as", "accountable", "--purpose", "a court order")
EXPORT = ("patients", "export", KEY, "--reason", "order 17 MARK")
REVEAL = ("--reveal", "--reason", "asked")


def accounting(site: Site) -> Any:
    return site.json("audit", "disclosures", KEY, *REVEAL)


def test_an_export_holds_all_that_is_stored_of_the_patient(stocked: Site) -> None:
    stocked.run("patients", "show", KEY, *REVEAL)
    found = stocked.run(*EXPORT).json
    shown = stocked.json("patients", "show", KEY, *REVEAL)
    assert {name: found["patient"][name] for name in shown if name not in {"held", "dead"}} == {
        name: value for name, value in shown.items() if name not in {"held", "dead"}
    }
    assert {"encounters", "scores", "tasks", "pages", "appointments", "identifiers"} <= found["patient"].keys()
    every = {one.name for one in structs.fields(Chart) if one.default == ()}
    assert every <= found["patient"].keys()  # whatever a chart has many of, also what is no part of it
    assert len(found["messages"]) == 3  # with the one that was refused
    assert all(one["text"].startswith("MSH|") and "558181838" in one["text"] for one in found["messages"])
    assert "reveal" in {one["action"] for one in found["trail"]}
    assert found["format"] == "handoff-patient-record/1"


def test_an_export_is_on_record_and_holds_nothing_of_others(stocked: Site) -> None:
    stocked.receive(admit("900001"))
    stocked.process()
    assert len(stocked.run(*EXPORT).json["messages"]) == 3  # nothing of the other patient
    (record,) = stocked.json("audit", "list", "--action", "patient-exported")
    assert len(record["patients"]) == 1
    assert "MARK" not in str(record)
    assert "facts" not in record


def test_a_merge_is_in_it_and_a_message_that_says_something_of_another_patient_is_not(stocked: Site) -> None:
    merge = (
        "MSH|^~\\&|EHR|MAIN|||20261130120000||ADT^A40^ADT_A39|M1|P|2.5.1\rEVN|A40|20261130120000\r"
        "PID|1||558181838^^^MRN^MR||DOE^JANE\rMRG|900001^^^MRN^MR\r"
    )
    for message in (admit("900001"), merge.encode()):
        stocked.receive(message)
        stocked.process()
    found = stocked.run(*EXPORT).json
    assert "MRN:900001" in str(found["patient"]["merged_from"])
    assert all(one["left_out"] is None for one in found["messages"])  # both are the same person now
    assert sum("900001" in one["text"] for one in found["messages"]) == 2


def test_a_file_is_its_owners_alone_and_the_terminal_shows_nothing(stocked: Site, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    done = stocked.run(*EXPORT, "--out", str(out))
    assert done.code == 0
    assert seen(done.out + done.err) == []
    assert out.stat().st_mode & 0o777 == 0o600
    assert json.loads(out.read_text())["patient"]["key"] == KEY
    assert stocked.run(*EXPORT, "--out", "/nowhere/x.json").code == 2


def test_one_that_is_given_out_is_in_the_accounting(stocked: Site) -> None:
    stocked.run(*EXPORT, *GIVEN)
    stocked.run(*EXPORT, *GIVEN)
    (line,) = accounting(stocked)["disclosures"]
    assert line["recipient"] == {"name": "Superior Court", "address": "1 Law Square"}
    assert (line["number"], line["purpose"]) == (2, "a court order")
    assert line["description"] == "copy of all that is stored about the patient"


@pytest.mark.parametrize(
    ("given", "ground"),
    [((), "use"), (("--to", "the patient", "--as", "patient"), "patient"), (("--to", "x", "--as", "tpo"), "tpo")],
)
def test_one_for_the_house_or_the_patient_is_counted_among_what_is_left_out(
    stocked: Site, given: tuple[str, ...], ground: str
) -> None:
    stocked.run(*EXPORT, *given)
    found = accounting(stocked)
    assert found["disclosures"] == []
    assert ground in {one["ground"] for one in found["excluded"]}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--to", "x"), 1, "say what it counts as: --as"),
        (("--as", "tpo"), 1, "say who gets it: --to"),
        (("--to", "x", "--as", "nothing"), 2, "There is no ground nothing"),
        (("--to", "x", "--as", "accountable"), 1, "--purpose"),
    ],
)
@pytest.mark.parametrize("command", [EXPORT, ("audit", "export", "--format", "fhir")])
def test_half_of_what_has_to_be_said_is_refused_before_anything_is_shown(
    stocked: Site, command: tuple[str, ...], given: tuple[str, ...], code: int, said: str
) -> None:
    done = stocked.run(*command, *given)
    assert (done.code, said in done.err, seen(done.out)) == (code, True, [])
    assert stocked.json("audit", "list") == []


@pytest.mark.parametrize("form", ["fhir", "rfc5424"])
def test_the_trail_given_out_is_in_the_accounting_of_all_who_appear(stocked: Site, form: str) -> None:
    stocked.run("patients", "show", KEY, *REVEAL)
    assert stocked.run("audit", "export", "--format", form, *GIVEN).code == 0
    (line,) = accounting(stocked)["disclosures"]
    assert line["description"] == "records of who has looked at the patient's data"
    stocked.run("audit", "export", "--format", form)  # for the house
    assert len(accounting(stocked)["disclosures"]) == 1


def test_what_a_stranger_has_got_is_in_the_accounting(stocked: Site) -> None:
    stocked.json("breach", "open", "--what", "x", "--known", "2d", "--patient", KEY, "--to", "a passenger")
    stocked.json("breach", "open", "--what", "x", "--known", "2d", "--patient", KEY)  # nobody outside
    (line,) = accounting(stocked)["disclosures"]
    assert (line["recipient"]["name"], line["ground"], line["description"]) == ("a passenger", "impermissible", "x")


def test_what_people_typed_of_a_copy_is_masked_unless_it_is_revealed(stocked: Site, tmp_path: Path) -> None:
    stocked.run(*EXPORT, *GIVEN)
    stocked.json("breach", "open", "--what", "Superior list", "--known", "2d", "--patient", KEY, "--to", "Superior man")
    page = tmp_path / "page.html"
    done = stocked.run("audit", "disclosures", KEY, "--html", str(page))
    assert done.code == 0
    for typed in ("Superior", "Law Square", "court order"):
        assert typed not in done.out + page.read_text()
    assert len(stocked.json("audit", "disclosures", KEY)["disclosures"]) == 2


def test_who_does_not_see_all_of_the_patient_is_refused(stocked: Site) -> None:
    configure(stocked)
    sit(stocked, "--role", "nurse", "--unit", "4W")
    refused(stocked.run(*EXPORT), "not allowed")


@pytest.mark.parametrize("action", ["patient-exported", "accounting-suspended"])
def test_a_record_of_a_copy_that_was_altered_is_said_and_not_left_out_in_silence(stocked: Site, action: str) -> None:
    stocked.run(*EXPORT, *GIVEN)
    stocked.json(*SUSPEND, "--until", "400d")
    seq = stocked.json("audit", "list", "--action", action)[0]["seq"]
    behind(stocked, f"UPDATE audit_payload SET body = x'00' WHERE seq = {seq}")
    (remark,) = accounting(stocked)["remarks"]
    assert remark.startswith(f"Record {seq} ({action}) was altered")


# --- law enforcement -------------------------------------------------------------------------------------------------

SUSPEND = ("audit", "suspend", KEY, "--recipient", "superior court", "--by", "Sgt. Ray, letter of today")


def test_disclosures_to_law_enforcement_are_kept_from_the_patient_for_the_time_that_it_asked(
    stocked: Site, tmp_path: Path
) -> None:
    stocked.run(*EXPORT, *GIVEN)
    stocked.json(*SUSPEND, "--until", "400d")
    page = tmp_path / "page.html"
    found = stocked.json("audit", "disclosures", KEY, "--html", str(page), *REVEAL)
    assert found["disclosures"] == []
    assert [one["recipient"]["name"] for one in found["suspended"]] == ["Superior Court"]
    assert "Superior Court" not in page.read_text()
    assert "law enforcement" not in page.read_text()
    assert "Superior Court" in stocked.run("audit", "disclosures", KEY, *REVEAL).out  # the privacy officer knows


def test_a_suspension_ends_and_a_later_word_takes_the_place_of_an_earlier_one(stocked: Site) -> None:
    (stocked.folder / "offset").write_text("0")
    text = stocked.config.read_text()
    stocked.config.write_text(text + "\npurpose: test\nclock: {offset_seconds_file: offset}\n")
    stocked.run(*EXPORT, *GIVEN)
    stocked.json(*SUSPEND, "--until", "400d")
    stocked.json(*SUSPEND, "--until", "10d", "--oral")
    assert accounting(stocked)["disclosures"] == []
    (stocked.folder / "offset").write_text(str(11 * 86_400))
    assert len(accounting(stocked)["disclosures"]) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [(("--until", "31d", "--oral"), "longer in writing only"), (("--until", "2020-01-01"), "in the future")],
)
def test_by_word_of_mouth_it_holds_for_thirty_days(stocked: Site, more: tuple[str, ...], said: str) -> None:
    done = stocked.run(*SUSPEND, *more)
    assert (done.code, said in done.err) == (1, True)
    end = datetime.now(UTC) + timedelta(days=29)
    assert stocked.run(*SUSPEND, "--until", end.isoformat(), "--oral").code == 0


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exception", ["privacy", "infeasibility", "manner"])
def test_a_refusal_to_share_keeps_exception_and_evidence(stocked: Site, exception: str) -> None:
    command = (
        "audit",
        "refuse",
        KEY,
        "--asked-by",
        "Clinic MARK",
        "--exception",
        exception,
        "--because",
        "MARK letter",
    )
    assert stocked.json(*command)["law"].startswith("45 CFR 171.")
    (masked,) = stocked.json("audit", "refusals")
    assert (masked["exception"], "MARK" in str(masked)) == (exception, False)
    (shown,) = stocked.json("audit", "refusals", *REVEAL)
    assert (shown["requester"], shown["evidence"]) == ("Clinic MARK", "MARK letter")
    assert "Clinic" not in stocked.run("audit", "refusals").out


def test_an_exception_that_the_rule_does_not_know_is_refused(stocked: Site) -> None:
    done = stocked.run("audit", "refuse", KEY, "--asked-by", "x", "--exception", "mood", "--because", "x")
    assert (done.code, "There is no exception mood" in done.err) == (2, True)
