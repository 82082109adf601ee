"""Runs the test files that stand beside the risk models, the care tables and the protocols."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.care.calendar import BusinessCalendar
from engine.care.dispositions import load_dispositions
from engine.care.protocol import load_protocol
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.moment import parse_moment
from engine.domain.patient import Identifier, Patient
from engine.domain.score import Band
from engine.risk.inputs import inputs_from_json, inputs_of, load_input_tables
from engine.risk.registry import load_models
from engine.settings import Calendar
from engine.yamlfile import Document, parse

MAPPINGS = Path(__file__).parents[2] / "mappings"
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def document(path: str) -> Document:
    return parse((MAPPINGS / path).read_text(encoding="utf-8"), path)


def cases(pattern: str) -> list[Any]:
    found = []
    for file in sorted(MAPPINGS.glob(pattern)):
        stem = file.name.removesuffix(".test.yaml")
        for case in parse(file.read_text(encoding="utf-8"), file.name).value["cases"]:
            assert set(case) <= {"name", "model", "given", "expect"}, f"{file.name}: {case['name']}"
            found.append(pytest.param(stem, case, id=f"{stem}: {case['name']}"))
    assert found
    return found


def assert_holds(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Everything that is expected is there; what is not mentioned may be anything."""
    assert {key: actual[key] for key in expected} == dict(expected)


def plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


MODELS = load_models(
    {path.stem: document(f"risk/{path.name}") for path in MAPPINGS.glob("risk/*.yaml") if ".test" not in path.name}
)
DISPOSITIONS = load_dispositions(document("care/dispositions.yaml"))
INPUT_TABLES = load_input_tables(document("care/risk-inputs.yaml"))


def test_every_model_and_protocol_has_a_test_file_beside_it() -> None:
    for folder in ("risk", "protocols"):
        files = {path.name for path in (MAPPINGS / folder).iterdir()}
        models = {name for name in files if not name.endswith(".test.yaml")}
        assert models
        assert files - models == {name.replace(".yaml", ".test.yaml") for name in models}


@pytest.mark.parametrize(("stem", "case"), cases("risk/*.test.yaml"))
def test_risk_model(stem: str, case: dict[str, Any]) -> None:
    model = MODELS[case.get("model", stem)]
    score = plain(model.score(inputs_from_json(case["given"]), now=NOW, observed_since=None))
    score["factors"] = {factor["name"]: factor["points"] for factor in score["factors"]}
    assert_holds(case["expect"], score)


@pytest.mark.parametrize(("stem", "case"), cases("care/dispositions.test.yaml"))
def test_disposition(stem: str, case: dict[str, Any]) -> None:
    assert_holds(case["expect"], plain(DISPOSITIONS.of(case["given"]["code"])))


@pytest.mark.parametrize(("stem", "case"), cases("care/risk-inputs.test.yaml"))
def test_risk_inputs(stem: str, case: dict[str, Any]) -> None:
    given = case["given"]
    patient = {"identifiers": [{"value": "1", "authority": "MRN"}], **given.get("patient", {})}
    stay = msgspec.convert({"key": "VN:1", **given["stay"]}, Encounter)
    chart = Chart(id="c1", patient=msgspec.convert(patient, Patient), encounters=(stay,))
    inputs = inputs_of(chart, stay, now=NOW, observed_since=NOW, tables=INPUT_TABLES)
    assert_holds(case["expect"], plain(inputs))


@pytest.mark.parametrize(("stem", "case"), cases("protocols/*.test.yaml"))
def test_protocol(stem: str, case: dict[str, Any]) -> None:
    protocol = load_protocol(document(f"protocols/{stem}.yaml"))
    given = case["given"]
    assert set(given) <= {"disposition", "band", "class", "discharged_at", "now", "deceased"}
    discharged_at = given.get("discharged_at", NOW.isoformat())
    now = parse_moment(given.get("now", discharged_at))
    assert now is not None
    stay = Encounter(
        key="VN:1",
        class_=given.get("class", "I") or None,
        discharged_at=discharged_at,
        disposition=given["disposition"],
        discharges=1,
    )
    patient = Patient(identifiers=(Identifier(value="1", authority="MRN"),), deceased=given.get("deceased"))
    tasks = protocol.plan(
        Chart(id="c1", patient=patient, encounters=(stay,)),
        stay,
        band=Band(given["band"]) if "band" in given else None,
        disposition=DISPOSITIONS.of(stay.disposition),
        calendar=BusinessCalendar(Calendar()),
        now=now,
        key=lambda *parts: "/".join(parts),
    ).tasks
    expected = [{"kind": task} if isinstance(task, str) else task for task in case["expect"]["tasks"]]
    assert [task.kind for task in tasks] == [task["kind"] for task in expected]
    for task, wanted in zip(tasks, expected, strict=True):
        actual = msgspec.structs.asdict(task)
        for field, value in wanted.items():
            assert actual[field] == (parse_moment(value) if field.endswith("_at") else value), f"{task.kind} {field}"
