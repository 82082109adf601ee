"""What of others is in here is known, is allowed, and has no known hole that nobody has looked at."""

from __future__ import annotations

import json
import re

import pytest
import supply
import yaml

ADVISORIES = yaml.safe_load(supply.ADVISORIES.read_text())
SHIPPED = supply.pins(supply.SHIPPED.read_text())


def test_every_locked_package_is_read_with_its_hashes() -> None:
    for lock in supply.LOCKS:
        text = lock.read_text()
        found = supply.pins(text)
        assert len(found) == len(re.findall(r"^[A-Za-z0-9_.-]+==", text, re.MULTILINE)) > 0
        assert sum(len(pin.hashes) for pin in found) == text.count("--hash=")
    assert {pin.marker for pin in SHIPPED if pin.name == "uvloop"} == {"sys_platform != 'win32'"}


def test_what_is_locked_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert supply.main(["audit"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [("requests", "2.32.3", "CVE-2024-47081"), ("Requests", "2.31.0", "CVE-2024-35195"), ("requests", "2.32.4", None),
     ("requests", "2.33.0rc1", None), ("pyyaml", "5.3.1", "CVE-2020-14343"), ("unheard-of", "0.1", None)],
)  # fmt: skip
def test_a_version_below_the_fix_is_named_with_the_advisory(name: str, version: str, found: str | None) -> None:
    pin = supply.Pin(name, version, None, ("0" * 64,))
    said = "".join(supply.problems([pin], {}, ADVISORIES))
    assert (found in said) if found else not said


def test_what_is_compiled_in_counts_and_only_what_was_accepted_is_left_out() -> None:
    assert not list(supply.problems([], {"sqlite": "3.53.4"}, ADVISORIES))
    said = "".join(supply.problems([], {"sqlite": "3.53.4"}, ADVISORIES | {"accepted": {}}))
    assert said.count("CVE-2026-119") == 2
    assert {"sqlite", "openssl"} == supply.inside().keys()


def test_a_package_without_a_hash_is_a_problem() -> None:
    assert list(supply.problems(supply.pins("x==1.0\n    # via y\n"), {}, ADVISORIES)) == ["x 1.0: has no hash"]


def test_whatever_is_accepted_is_a_known_advisory_with_a_reason() -> None:
    known = {one["id"] for entries in ADVISORIES["packages"].values() for one in entries}
    assert ADVISORIES["accepted"].keys() <= known
    assert all(len(reason) > 40 for reason in ADVISORIES["accepted"].values())


@pytest.mark.parametrize(
    ("expression", "bad"),
    [("MIT", set()), ("Apache-2.0 AND MIT", set()), ("GPL-3.0-only OR MIT", set()),
     ("AGPL-3.0-only", {"AGPL-3.0-only"}),
     ("MIT AND GPL-2.0-only", {"GPL-2.0-only"})],
)  # fmt: skip
def test_one_side_of_a_choice_is_enough(expression: str, bad: set[str]) -> None:
    assert supply.foreign(expression) == bad


def test_the_page_of_licences_is_that_of_the_lock_file() -> None:
    assert supply.LICENCES.read_text() == supply.page(SHIPPED)


def test_the_bill_of_materials_names_everything_and_stays_the_same() -> None:
    made = supply.sbom(SHIPPED, "1.0")
    assert made == supply.sbom(SHIPPED, "1.0") != supply.sbom(SHIPPED[1:], "1.0")
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["purl"] for one in made["components"]} == {
        f"pkg:pypi/{pin.name.lower()}@{pin.version}" for pin in SHIPPED
    }
    assert set(made["dependencies"][0]["dependsOn"]) == {one["bom-ref"] for one in made["components"]}
    json.dumps(made)
