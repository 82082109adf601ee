"""The marks that restrict a record, as messages bring them."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from engine.hl7v2.message import Message
from engine.mapping.apply import Mapping
from engine.mapping.compile import compile_mapping
from engine.mapping.tables import load_tables
from engine.pipeline.messages import TARGETS
from engine.yamlfile import parse

ROOT = Path(__file__).parents[3] / "mappings"
HEAD = "MSH|^~\\&|EHR|WEST|||20260302101500||ADT^A08^ADT_A01|1|P|2.7\rPID|1||77^^^MRN^MR||DOE^JANE\r"


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    tables = load_tables(parse(file.read_text(), file.name) for file in sorted((ROOT / "tables").glob("*.yaml")))
    fields = parse((ROOT / "fields/adt.yaml").read_text(), "adt.yaml")
    return compile_mapping(fields, tables, zone=ZoneInfo("UTC"), targets=TARGETS)


def applied(mapping: Mapping, *segments: str) -> tuple[dict[str, object], dict[str, object]]:
    mapped = mapping.apply(Message.parse((HEAD + "\r".join(segments) + "\r").encode()))
    return mapped.patient, mapped.encounter


def test_the_protection_indicator_is_yes_or_no(mapping: Mapping) -> None:
    assert applied(mapping, "PD1||||||||||||Y")[0]["protection"] is True
    assert applied(mapping, "PD1||||||||||||N")[0]["protection"] is False
    assert "protection" not in applied(mapping, "PD1|||")[0]


def test_access_restrictions_are_those_that_stand(mapping: Mapping) -> None:
    patient, _ = applied(mapping, "ARV|1|A|PSY^Psychiatric|PAT", "ARV|2|D|HIV", "ARV|3|A|DEM")
    found = patient["restrictions"]
    assert isinstance(found, tuple)
    assert [(one.code, one.reason) for one in found] == [("PSY", "PAT"), ("DEM", None)]


def test_the_last_restriction_that_is_taken_away_leaves_none(mapping: Mapping) -> None:
    assert applied(mapping, "ARV|1|D|PSY")[0]["restrictions"] is None  # the chart has none then


def test_statements_of_consent_have_a_type_and_a_status(mapping: Mapping) -> None:
    found = applied(mapping, "CON|1|001^Release|||||||||R")[0]["consent_statements"]
    assert isinstance(found, tuple)
    assert [(one.code, one.status) for one in found] == [("001", "R")]


def test_a_stay_says_who_is_asked_about_it_and_whether_it_is_that_of_a_vip(mapping: Mapping) -> None:
    _, stay = applied(mapping, "PV1|1|I|3W||||1^A|2^B|3^C~4^D|||||||VIP|||V9")
    consulting = stay["consulting"]
    assert isinstance(consulting, tuple)
    assert [one.id for one in consulting] == ["3", "4"]
    assert stay["vip"] == "VIP"
