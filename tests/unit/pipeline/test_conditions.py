"""Kinds of task and conditions that a site declares in its protocol."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from heart import Heart, adt
from moments import moments
from pydantic import ValidationError

from engine.care.conditions import Condition
from engine.care.protocol import load_protocol
from engine.domain.encounter import Diagnosis, Encounter, Location
from engine.domain.patient import Identifier, Patient
from engine.domain.task import TaskState
from engine.errors import SettingsError
from engine.yamlfile import parse

TEXT = (Path(__file__).parents[3] / "mappings/protocols/post-discharge.yaml").read_text(encoding="utf-8")
NOW = datetime(2026, 3, 2, 15, tzinfo=UTC)
FAMILY = (Identifier(value="1", authority="MRN"),)


def condition_of(said: dict[str, Any]) -> Condition:
    return Condition.model_validate_json(json.dumps(said))


def holds(condition: dict[str, Any], *, born: str | None = None, **stay: Any) -> bool:
    fields = {"key": "V:1", "class_": "I", "discharged_at": "2026-03-02T10:00-05:00"} | stay
    return condition_of(condition).holds(
        Patient(identifiers=FAMILY, **moments({"birth_date": born})), Encounter(**moments(fields)), NOW
    )


@pytest.mark.parametrize(
    ("beginnings", "code", "expected"),
    [
        (["I50"], "I50.9", True), (["I50"], "I509", True), (["i50.9"], "I50.9", True), (["I50.91"], "I50.9", False),
        (["I50"], "I51.0", False), (["J44", "I50"], "I50.1", True),
    ],
)  # fmt: skip
def test_a_diagnosis_counts_by_the_beginning_of_its_code(beginnings: list[str], code: str, expected: bool) -> None:
    coded = (Diagnosis(code="Z99"), Diagnosis(code=code))
    assert holds({"diagnoses": beginnings}, diagnoses=coded) is expected
    assert holds({"diagnoses": beginnings}) is False, "what is not coded does not count"


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("1951-03-02", True), ("1951-03-03", False), ("1951-03", True), ("1951", True), ("1952", False),
        (None, True), ("1800-01-01", True),
    ],
)  # fmt: skip
def test_who_may_be_75_at_the_discharge_counts_as_75(born: str | None, expected: bool) -> None:
    assert holds({"age_years_min": 75}, born=born) is expected


def test_a_highest_age_leaves_out_who_is_older_for_certain() -> None:
    assert holds({"age_years_max": 17}, born="2010-01-01")
    assert not holds({"age_years_max": 17}, born="2008-03-01")
    assert holds({"age_years_max": 17}, born="2008")


def test_all_that_is_said_must_hold() -> None:
    both = {"classes": ["OBS"], "units": ["4W"], "diagnoses": ["I50"]}
    stay: dict[str, Any] = {
        "class_": "OBS", "location": Location(point_of_care="4W"), "diagnoses": (Diagnosis(code="I50"),),
    }  # fmt: skip
    assert holds(both, **stay)
    for name, other in (
        ("class_", "I"),
        ("location", Location(point_of_care="5W")),
        ("location", None),
        ("diagnoses", ()),
    ):
        assert not holds(both, **stay | {name: other})


@pytest.mark.parametrize(
    "nothing", [{}, {"age_years_min": 80, "age_years_max": 70}, {"diagnoses": ["?"]}, {"sex": "F"}]
)
def test_a_condition_that_says_nothing_or_nonsense_is_refused(nothing: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        condition_of(nothing)


def problems(*changes: tuple[str, str]) -> list[str]:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    try:
        load_protocol(parse(text, "p.yaml"))
    except SettingsError as error:
        return [f"{one.key}: {one.message}" for one in error.problems]
    return []


KIND = ("kinds:\n", "kinds:\n  home_visit: A nurse visits the patient\n")
CONDITION = ("conditions:\n", "conditions:\n  frail: {age_years_min: 75}\n")


def step(kind: str = "home_visit", when: str = "[frail]") -> tuple[str, str]:
    new = f"- {{kind: {kind}, due: {{days: 2}}, assignee: nurse, reason: Visit the patient, when: {when}}}"
    return "    every:\n", f"    every:\n      {new}\n"


def test_a_kind_and_a_condition_of_the_site_s_own_are_declared_in_the_file() -> None:
    assert problems(KIND, CONDITION, step()) == []


def test_a_kind_or_a_condition_that_is_not_declared_is_told_with_what_there_is() -> None:
    (kind,) = problems(CONDITION, step("home_visits"))
    assert "plans.home_plan.every[0].kind" in kind
    assert "tcm_contact" in kind
    found = problems(KIND, CONDITION, step(when="[frial]"))
    assert any("did you mean frail" in one for one in found)


def test_a_condition_that_no_task_asks_for_is_told() -> None:
    assert problems(CONDITION) == ["conditions.frail: no task asks for it: see `when`"]


def test_the_plans_that_must_leave_nobody_out_keep_a_task_for_everybody() -> None:
    reason = '      reason: "Left against medical advice'
    (found,) = problems(CONDITION, (reason, f"      when: [frail]\n{reason}"))
    assert found.startswith("plans.against_advice: needs a task without")


def test_a_protocol_that_declares_no_kinds_knows_those_that_are_shipped() -> None:
    start, end = TEXT.index("kinds:\n"), TEXT.index("# Whom some tasks are for")
    known = load_protocol(parse(TEXT[:start] + TEXT[end:], "p.yaml"))
    assert set(known.kinds) == set(load_protocol(parse(TEXT, "p.yaml")).kinds)


def test_a_task_comes_with_the_diagnosis_it_waits_for_and_goes_with_it() -> None:
    heart = Heart()
    text = TEXT.replace(*KIND).replace("conditions:\n", "conditions:\n  failing: {diagnoses: [I50]}\n")
    protocol = load_protocol(parse(text.replace(*step(when="[failing]")), "p.yaml"))
    planner = heart.channel.planner
    assert planner is not None
    planner = dataclasses.replace(planner, protocol=protocol)
    heart.channel = dataclasses.replace(heart.channel, planner=planner, planners={protocol.name: planner})
    left = {36: "01", 45: "20260306150000"}

    def visits() -> list[TaskState]:
        return [task.state for task in heart.chart().tasks if task.kind == "home_visit"]

    heart.send(adt("A01", pv1={3: "4W^1^A"}))
    heart.send(adt("A03", at="20260306150000", pv1=left))
    assert visits() == []
    heart.send(adt("A08", at="20260306160000", pv1=left, segments=("DG1|1||I50.9^Heart failure^I10|||F",)))
    assert visits() == [TaskState.OPEN]
    heart.send(adt("A08", at="20260306170000", pv1=left, segments=("DG1|1||E11.9^Diabetes^I10|||F",)))
    assert visits() == [TaskState.RETRACTED]
