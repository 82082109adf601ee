"""The table of the parts of a chart, and that nothing of a chart is left out of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from engine.desk.seeing import HIDDEN, View
from engine.domain.appointment import Appointment
from engine.domain.chart import Chart
from engine.domain.delivery import CONTENTS
from engine.domain.encounter import Diagnosis, Encounter
from engine.domain.medication import Medication
from engine.domain.page import Page, Policy
from engine.domain.parts import DELIVERED, PARTS, DeliveredPart, chart_shape, folded, united
from engine.domain.patient import Identifier, Patient
from engine.domain.score import Band, Factor, Score
from engine.domain.task import Task, TaskState
from engine.domain.text import Text
from engine.store.parts import STORED

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def items_of(number: int) -> dict[str, tuple[Any, ...]]:
    key = f"MRN:V{number}"
    return {
        "encounters": (Encounter(key=key, diagnoses=(Diagnosis(code="E11.9"),), class_="I"),),
        "scores": (
            Score(model="lace", version="1", value=7, min=7, max=7, band=Band.LOW, band_max=Band.LOW, missing=(),
                  factors=(Factor(name="age", points=1, evidence="age 78"),), observed_since=None, scored_at=NOW,
                  encounter=key),
        ),
        "tasks": (
            Task(id=f"t{number}", kind="education", encounter=key, due_at=NOW, escalate_at=None, assignee=None,
                 state=TaskState.OPEN, reason="band low", protocol="p", discharge=1, created_at=NOW),
        ),
        "pages": (
            Page(id=f"pt{number}", task=f"t{number}", kind="on_call_page", encounter=key, closes=True, raised_at=NOW,
                 policy=Policy(ladder="on-call", version="1"), next_at=NOW),
        ),
        "appointments": (Appointment(id=f"a{number}"),),
        "texts": (
            Text(id=f"x{number}", series="s", series_version="1", step="day-0", encounter=key, planned_for=NOW,
                 due_at=NOW, useful_until=NOW, number="+15550100000", body="words"),
        ),
        "medications": (Medication(id=f"m{number}", text="Lisinopril 10 mg", written_at=NOW, said_at=NOW),),
    }  # fmt: skip


def chart(number: int) -> Chart:
    patient = Patient(identifiers=(Identifier(value=f"P{number}", authority="MRN", type="MR"),))
    stamps = {f"MRN:V{number}": {"status": (1.0, number)}}
    return Chart(id=f"c{number}", patient=patient, encounter_stamps=stamps, **items_of(number))


def test_every_list_of_a_chart_is_a_part_and_every_part_has_its_row_in_the_store() -> None:
    lists = [field.name for field in msgspec.structs.fields(Chart) if field.default == ()]
    beside = ["consents", "contact_consents"]  # what people said: it stands in the chart itself
    assert lists == [part.name for part in PARTS] + beside
    assert [part.name for part in PARTS] == [stored.name for stored in STORED]


@pytest.mark.parametrize("part", DELIVERED, ids=lambda part: part.name)
def test_a_part_is_told_by_its_operation_and_found_again_by_its_key(part: DeliveredPart) -> None:
    [item] = part.of(chart(1))
    told = part.content(item, "MRN:P1")
    assert type(told) is CONTENTS[part.operation]
    assert part.operation.what == part.what
    assert part.key(getattr(told, part.what)) == part.key(item)
    assert told.whose == "MRN:P1"


def test_at_a_merge_all_parts_follow_the_patient_with_what_is_known_of_them() -> None:
    survivor, merged = folded(chart(1), chart(2))
    assert all(len(part.of(survivor)) == 2 and part.of(merged) == () for part in PARTS)
    assert survivor.encounter_stamps.keys() == {"MRN:V1", "MRN:V2"}
    assert merged.encounter_stamps == {}
    assert all(part.of(united((chart(1), chart(2)))) == part.of(survivor) for part in PARTS)


def test_a_mask_hides_what_nobody_has_decided_to_show() -> None:
    shape = chart_shape(chart(1))
    shown = View(lambda key: f"~{len(key)}", revealed=False).chart(shape)
    assert shown.keys() == shape.keys()
    assert shown["encounters"][0]["key"] == "~6"
    assert shown["encounters"][0]["class"] == "I"
    assert shown["encounters"][0]["diagnoses"] == [{"code": HIDDEN, "system": None, "text": None, "type": None}]
    assert (shown["scores"][0]["factors"], shown["scores"][0]["factors_masked"]) == ([], 1)
    assert (shown["tasks"][0]["encounter"], shown["tasks"][0]["patient_key"]) == ("~6", "~6")
    assert shown["medications"][0]["text"] == HIDDEN
    assert (shown["texts"][0]["number"], shown["texts"][0]["body"]) == (HIDDEN, HIDDEN)
    assert View(lambda key: key, revealed=True).chart(shape) == shape


@pytest.mark.parametrize(("at", "shown"), [
    ("2026-11-09T14:30:00-05:00", "2026-11-09"), ("2026-11-09", "2026-11-09"), ("2026-11", "2026-11"), ("2026", "2026"),
    (None, None),
])  # fmt: skip
def test_masked_each_time_of_a_stay_is_its_day(at: str | None, shown: str | None) -> None:
    shape = chart_shape(chart(1))["encounters"][0]
    times = {name: at for name in shape if name.endswith("_at")}
    assert len(times) == 6
    masked = View(str, revealed=False).part("encounter", shape | times | {"hospital_service": "PSY"})
    assert {name: masked[name] for name in times} == dict.fromkeys(times, shown)
    assert masked["hospital_service"] == HIDDEN
