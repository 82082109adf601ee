"""Records that a package of another message code declares beside patient and visit."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest

from engine.domain.record import Phi
from engine.errors import MessageError, SettingsError
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapping, Reading
from engine.mapping.compile import compile_mapping
from engine.mapping.tables import Tables
from engine.mapping.targets import IDENTIFIER, TARGETS, TEXT, TIME, items, record
from engine.yamlfile import parse

Build = Callable[..., Message]
ZONE = ZoneInfo("America/New_York")


class Resource(Phi, frozen=True, kw_only=True):
    place: str
    at: str | None = None


OWN = record(
    "appointment",
    number=IDENTIFIER,
    starts_at=TIME,
    class_=TEXT,
    resources=items("resources", Resource, "place", place=TEXT, at=TIME),
)
RULES = """
patient.identifiers: PID-3
appointment.number: SCH-2
appointment.starts_at: SCH-11.4
appointment.class: SCH-8
appointment.resources: {each: AIL, parts: {place: AIL-3.1, at: AIL-6}}
"""
SCH = "SCH|P1|F1||||R|V|NEW|||^^^20260715143000"


def compiled(tables: Tables, rules: str) -> Mapping:
    return compile_mapping(parse(rules, "site.yaml"), tables, zone=ZONE, targets={**TARGETS, **OWN})


def test_a_record_is_read_by_its_name_and_leaves_patient_and_visit_alone(tables: Tables, build: Build) -> None:
    mapping, reading = compiled(tables, RULES), Reading(ZONE)
    message = build(SCH, "PID|1||P1", "AIL|1||EAST", "AIL|2|||||20260715150000")
    said = mapping.read("appointment", message, reading)
    assert (said["number"].value, said["class_"]) == ("F1", "NEW")
    assert said["starts_at"].text.startswith("2026-07-15T14:30")
    assert [one.place for one in said["resources"]] == ["EAST"]
    assert reading == ["item-without-place:AIL-3.1"]
    mapped = mapping.apply(message)
    assert (mapped.patient, mapped.encounter, mapped.deviations) == ({}, {}, ())


def test_a_message_without_its_segments_says_nothing_of_it(tables: Tables, build: Build) -> None:
    assert compiled(tables, RULES).read("appointment", build("PID|1||P1"), Reading(ZONE)) == {}
    assert compiled(tables, "patient.identifiers: PID-3").read("appointment", build(SCH), Reading(ZONE)) == {}


def test_a_required_field_of_it_is_asked_for_only_where_it_is_read(tables: Tables, build: Build) -> None:
    mapping = compiled(tables, "patient.identifiers: PID-3\nappointment.number: {from: SCH-2, required: true}")
    assert mapping.apply(build("PID|1||P1")).identifiers
    with pytest.raises(MessageError) as caught:
        mapping.read("appointment", build("PID|1||P1"), Reading(ZONE))
    assert caught.value.location == "SCH-2"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("appointment.start: SCH-11.4", "did you mean appointment.starts_at?"),
        ("appointment.resources: {each: AIL, parts: {at: AIL-6}}", "the part 'place' is missing"),
        ("appointment.resources: AIL-3", "resources are read with each and parts"),
    ],
)
def test_wrong_rules_of_it_are_told_as_those_of_patients_are(tables: Tables, rules: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compiled(tables, f"patient.identifiers: PID-3\n{rules}")
    assert any(says in problem.message for problem in caught.value.problems)


def test_without_the_package_there_is_no_such_target(tables: Tables) -> None:
    with pytest.raises(SettingsError) as caught:
        compile_mapping(parse(RULES, "site.yaml"), tables, zone=ZONE)
    assert {problem.message.split(";")[0] for problem in caught.value.problems} == {"there is no such target"}
