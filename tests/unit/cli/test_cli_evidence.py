"""`handoff evidence`: what shows an auditor that rules are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from site_with_store import Site, seen
from test_cli_access import ME, configure, sit


def rows(site: Site) -> dict[str, Any]:
    return {one["id"]: one for one in site.json("evidence")["rows"]}


def test_a_proof_is_shown_once_it_is_on_the_trail(stocked: Site) -> None:
    before = rows(stocked)["hipaa-audit"]
    assert (before["state"], before["open"]) == ("open", ["no record of trail-verified"])
    assert stocked.run("audit", "verify").code == 0
    after = rows(stocked)["hipaa-audit"]
    assert (after["state"], after["open"]) == ("shown", [])
    assert after["proofs"][0]["last"]["seq"] > 0


def test_a_setting_is_shown_with_its_value_here(stocked: Site) -> None:
    (row,) = rows(stocked)["hipaa-disclosures"]["settings"]
    assert row == {"key": "destinations.files.disclosure", "value": "not set"}


def test_the_page_has_every_row_and_nothing_of_a_patient(stocked: Site, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = stocked.json("evidence", "--html", str(page))["rows"]
    text = page.read_text()
    assert seen(text) == []
    assert text.count('class="mark') == len(found)
    assert "<script" not in text


def test_what_the_site_did_is_noted_and_shown(stocked: Site) -> None:
    before = rows(stocked)["hipaa-scans"]
    assert (before["state"], before["noted"]) == ("open", None)
    assert stocked.run("audit", "note", "hipaa-scans", "--because", "scan of 3 March, report 17").code == 0
    after = rows(stocked)["hipaa-scans"]
    assert (after["state"], after["noted"]["result"]) == ("shown", "allowed")
    assert rows(stocked)["part2"]["noted"] is None


def test_a_row_that_asks_nothing_of_the_site_takes_no_note(stocked: Site) -> None:
    for row in ("hipaa-audit", "nothing"):
        done = stocked.run("audit", "note", row, "--because", "x")
        assert (done.code, "hipaa-scans" in done.err or "part of the site" in done.err) == (2, True)


def figures(site: Site, row: str) -> dict[str, str]:
    return {one["what"]: one["value"] for one in rows(site)[row]["figures"]}


def test_figures_are_counted_in_the_store(stocked: Site) -> None:
    found = figures(stocked, "cop-notification")
    assert found["copies about stays in 30 days, sent"] == "0"
    assert int(found["waiting or held"]) > 0
    assert {"failed", "refused or withheld"} <= found.keys()
    assert found["no address: patients without a primary care practitioner, of the 1 that changed last"] in {"0", "1"}
    assert " of " in figures(stocked, "team")["tasks pcp_follow_up, done with date and proof"]
    assert figures(stocked, "hipaa-emergency") == {"broken glasses that nobody has attested": "0"}
    assert figures(stocked, "hipaa-breach") == {"worksheets": "none"}
    stocked.run("breach", "open", "--what", "x", "--known", "70d", "--others", "3")
    found = figures(stocked, "hipaa-breach")
    assert found["worksheets"] == "1 open"
    assert found["breach 1, next notice due"].endswith("(overdue)")
    assert rows(stocked)["hipaa-breach"]["state"] == "open"
    stocked.run("audit", "refuse", "MRN:558181838", "--asked-by", "x", "--exception", "privacy", "--because", "x")
    assert figures(stocked, "blocking") == {"refusals": "1 privacy"}


def test_each_rule_has_its_row_and_what_the_product_does_not_do_is_said(stocked: Site) -> None:
    found = rows(stocked)
    said = " ".join(one["rule"] for one in found.values())
    for rule in ("Security", "Privacy", "Part 2", "21 CFR 11", "blocking", "CoP", "TEFCA", "TEAM", "HRRP", "Breach"):
        assert rule in said, rule
    for row in ("team", "hrrp", "part11-signatures"):
        assert found[row]["state"] == "open"
        assert found[row]["lacks"] in found[row]["open"]


def test_an_inventory_is_a_proof(stocked: Site) -> None:
    assert rows(stocked)["hipaa-inventory"]["state"] == "open"
    stocked.run("inventory")
    assert rows(stocked)["hipaa-inventory"]["state"] == "shown"


def test_a_site_without_rules_of_breaches_has_its_evidence_all_the_same(stocked: Site) -> None:
    for name in ("breach.yaml", "breach.test.yaml"):
        (stocked.folder / "mappings/privacy" / name).unlink()
    row = rows(stocked)["hipaa-breach"]
    assert (row["state"], "breach.yaml" in row["open"][0]) == ("open", True)
    done = stocked.run("breach", "list")
    assert (done.code, "handoff init --missing" in done.err) == (78, True)


def test_a_glass_that_nobody_has_attested_for_a_week_opens_its_row(stocked: Site) -> None:
    (stocked.folder / "offset").write_text("0")
    text = stocked.config.read_text()
    stocked.config.write_text(f"{text}\npurpose: test\nclock: {{offset_seconds_file: offset}}\n")
    configure(stocked)
    assert stocked.run("users", "add", "pat", "--role", "privacy_officer").code == 0
    sit(stocked, "--role", "nurse", "--unit", "9Z")
    stocked.json("break-glass", "MRN:558181838", "--reason", "covering", "--because", "I round for a colleague")
    assert stocked.run("users", "change", ME, "--role", "privacy_officer").code == 0
    for days, state in ((6, "shown"), (8, "open")):
        (stocked.folder / "offset").write_text(str(days * 86_400))
        assert rows(stocked)["hipaa-emergency"]["state"] == state
