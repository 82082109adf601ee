"""`handoff evidence`: what shows an auditor that rules are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from site_with_store import Site, seen


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
