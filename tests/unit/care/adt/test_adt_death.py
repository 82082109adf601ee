"""A death that a disposition tells."""

from __future__ import annotations

import pytest
from ward import Ward, mrn

from engine.care.adt.event import Meaning


def test_a_death_by_disposition_is_the_same_said_twice_beside_a_pid_30_that_says_no(ward: Ward) -> None:
    for _ in range(2):
        ward.apply(Meaning.DISCHARGE, 3, patient={"deceased": False}, encounter={"disposition": "20"})
        chart = ward.charts.find(mrn())
        assert chart is not None
        assert chart.patient.deceased is True


@pytest.mark.parametrize("disposition", ["20", "40", "41", "42"])
def test_a03_with_a_disposition_of_death_marks_the_patient_deceased(ward: Ward, disposition: str) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": disposition})
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert chart.patient.deceased is True
    assert applied.chart.patient.deceased is True
