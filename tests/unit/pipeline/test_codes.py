"""A code that a table does not know is said, whatever becomes of it."""

from __future__ import annotations

import pytest
from heart import Heart, adt

NOTED = "unknown-coding-system:DG1-3.3"


@pytest.mark.parametrize(
    ("dg1", "noted"),
    [
        ("DG1|1||I50.9^X^I10GM", True),
        ("DG1|1||I50.9^X^ICD-10-XY", True),
        ("DG1|1||I50.9^X^L", True),
        ("DG1|1|I10Q|I50.9^X", True),
        ("DG1|1||I50.9^X^ICD10GM", False),
        ("DG1|1||I50.9^X^icd-10-cm", False),
        ("DG1|1||I50.9^X", False),
        ("DG1|1||422504002^X^SCT", False),
        ("DG1|1||428.0^X^I9CDX", False),
        ("DG1|1||I50.9^X^2.16.840.1.113883.6.90", False),
        ("DG1|1||I50.9^X^I10\rDG1|2||E11^X^I1O", True),
    ],
)
def test_diagnoses_of_a_coding_system_that_nobody_knows_are_noted(dg1: str, noted: bool) -> None:
    outcome = Heart().send(adt("A08", pv1={}, segments=tuple(dg1.split("\r"))))
    assert (NOTED in outcome.deviations) is noted


@pytest.mark.parametrize(
    ("pv1", "location", "noted"),
    [
        ({36: "01"}, "PV1-36", False), ({36: "1"}, "PV1-36", False), ({36: ""}, "PV1-36", False),
        ({36: "HOME"}, "PV1-36", True), ({36: "99"}, "PV1-36", True),
        ({4: "E"}, "PV1-4", False), ({4: "ER"}, "PV1-4", True), ({2: "STAT"}, "PV1-2", True),
    ],
)  # fmt: skip
def test_codes_of_a_visit_that_no_table_knows_are_noted(pv1: dict[int, str], location: str, noted: bool) -> None:
    outcome = Heart().send(adt("A03", pv1=pv1))
    assert (f"unknown-code:{location}" in outcome.deviations) is noted
