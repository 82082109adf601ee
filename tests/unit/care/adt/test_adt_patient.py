"""What an event says of the patient, and whose identifiers it may name."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from ward import CARE, Ward, mrn

from engine.care.adt.event import Meaning
from engine.care.dispositions import load_dispositions
from engine.domain.patient import Name
from engine.yamlfile import parse


def test_a_stale_event_turns_no_newer_field_back_but_fills_an_empty_one(ward: Ward) -> None:
    ward.apply(Meaning.UPDATE, 5, patient={"name": Name(family="New")})
    ward.apply(Meaning.UPDATE, 4, patient={"name": Name(family="Old"), "sex": "F"})
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert chart.patient.name == Name(family="New")
    assert chart.patient.sex == "F"


def test_a_null_clears_a_field_and_a_missing_one_is_left(ward: Ward) -> None:
    ward.apply(Meaning.UPDATE, 1, patient={"sex": "F", "phones": ("+12125550100",)})
    ward.apply(Meaning.UPDATE, 2, patient={"phones": None})
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert chart.patient.sex == "F"
    assert chart.patient.phones == ()


def test_a_person_event_does_not_touch_encounters(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    before = ward.encounter()
    ward.apply(Meaning.PERSON, 2, encounter={"class_": "O"})
    assert ward.encounter() == before


def test_pv1_2_n_is_no_visit(ward: Ward) -> None:
    applied = ward.apply(Meaning.ADMIT, 1, encounter={"class_": "N"})
    assert applied.encounter is None
    assert applied.chart is not None
    assert applied.chart.encounters == ()


def test_an_identifier_of_another_patient_stays_with_that_patient(ward: Ward) -> None:
    ssn = mrn("123-45-6789", "SS", "USA")
    ward.apply(Meaning.ADMIT, 1, identifiers=(mrn("1"), ssn))
    applied = ward.apply(
        Meaning.ADMIT, 2, identifiers=(mrn("2"), ssn), chart_id="chart-2", visit="MRN:V2", visit_number="V2"
    )
    assert applied.chart is not None
    assert applied.chart.id == "chart-2"
    assert applied.chart.patient.identifiers == (mrn("2"),)
    assert "identifier-of-another-patient" in applied.deviations


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    Meaning.ADMIT, Meaning.DISCHARGE, Meaning.CANCEL_DISCHARGE, Meaning.CANCEL_ADMIT,
                    Meaning.UPDATE, Meaning.TRANSFER, Meaning.REGISTER, Meaning.PRE_ADMIT,
                ]
            ),
            st.integers(1, 28),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_applying_the_same_events_again_changes_nothing(history: list[tuple[Meaning, int]]) -> None:
    file = CARE / "dispositions.yaml"
    ward = Ward(load_dispositions(parse(file.read_text(), file.name)))
    ordered = sorted(history, key=lambda item: item[1])
    seen: set[int] = set()
    ordered = [item for item in ordered if not (item[1] in seen or seen.add(item[1]))]  # type: ignore[func-returns-value]
    for meaning, at in ordered:
        ward.apply(meaning, at)
    if not ordered:
        return
    settled = ward.charts.find(mrn())
    assert settled is not None
    for meaning, at in ordered[:-1]:  # every one of them is older than the last
        ward.apply(meaning, at)
    again = ward.charts.find(mrn())
    assert again is not None
    assert [(e.status, e.discharged_at) for e in again.encounters] == [
        (e.status, e.discharged_at) for e in settled.encounters
    ]
    assert msgspec.structs.replace(again.patient) == settled.patient
