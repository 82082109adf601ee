"""Which encounter a message means."""

from __future__ import annotations

from typing import Any

import pytest
from ward import Ward, mrn

from engine.care.adt.event import Meaning
from engine.domain.encounter import EncounterStatus
from engine.errors import MessageError


def test_more_news_of_a_cancelled_visit_found_by_its_account_opens_no_other(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, account="A1")
    ward.apply(Meaning.CANCEL_ADMIT, 2, account="A1", visit=None, visit_number=None)
    ward.apply(Meaning.CANCEL_ADMIT, 2, account="A1", visit=None, visit_number=None)
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert [encounter.key for encounter in chart.encounters] == ["MRN:V1"]


def test_a_visit_number_of_another_patient_is_never_moved(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    with pytest.raises(MessageError) as caught:
        ward.apply(Meaning.UPDATE, 2, identifiers=(mrn("2"),), chart_id="chart-2")
    assert caught.value.error == "visit-of-another-patient"


def test_without_a_visit_number_the_one_open_encounter_is_meant(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.DISCHARGE, 3, visit=None, visit_number=None)
    assert applied.encounter == "MRN:V1"


def test_without_a_visit_number_two_open_encounters_are_never_guessed(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.REGISTER, 2, visit="MRN:V2", visit_number="V2")
    with pytest.raises(MessageError) as caught:
        ward.apply(Meaning.DISCHARGE, 3, visit=None, visit_number=None)
    assert caught.value.error == "encounter-ambiguous"


def stays(ward: Ward) -> list[Any]:
    chart = ward.charts.find(mrn())
    assert chart is not None
    return list(chart.encounters)


def numbered(number: str, authority: str | None) -> dict[str, Any]:
    return {"visit": f"{authority or 'MRN'}:{number}", "visit_number": number, "visit_authority": authority}


@pytest.mark.parametrize(("first", "last"), [(None, "HOSP"), ("HOSP", None), ("HOSP", "HOSP"), (None, None)])
def test_a_visit_number_is_the_same_whether_or_not_its_authority_is_said(
    ward: Ward, first: str | None, last: str | None
) -> None:
    ward.apply(Meaning.ADMIT, 1, **numbered("V1", first))
    ward.apply(Meaning.DISCHARGE, 3, **numbered("V1", last))
    ward.apply(Meaning.DISCHARGE, 3, **numbered("V1", first))
    (only,) = stays(ward)
    assert (only.status, only.discharges) == (EncounterStatus.FINISHED, 1)
    assert only.visit_authority == (first or last)


def test_the_same_visit_number_of_two_authorities_is_two_visits(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, **numbered("V1", None))
    ward.apply(Meaning.ADMIT, 2, **numbered("V1", "HOSP"))
    ward.apply(Meaning.ADMIT, 3, **numbered("V1", "CLINIC"))
    assert [stay.visit_authority for stay in stays(ward)] == ["HOSP", "CLINIC"]
    with pytest.raises(MessageError) as caught:  # its key is that of the stay that HOSP gave the number
        ward.apply(Meaning.DISCHARGE, 4, **numbered("V1", "MRN"))
    assert caught.value.error == "encounter-ambiguous"


def test_a_visit_number_without_authority_that_two_visits_have_is_never_guessed(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, **numbered("V1", "HOSP"))
    ward.apply(Meaning.ADMIT, 2, **numbered("V1", "CLINIC"))
    with pytest.raises(MessageError) as caught:
        ward.apply(Meaning.DISCHARGE, 3, **numbered("V1", None))
    assert caught.value.error == "encounter-ambiguous"


def test_stays_months_apart_are_not_taken_for_one_by_a_number_whose_authority_is_open(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, **numbered("7", None), encounter={"admitted_at": "2026-03-01T08:00:00-05:00"})
    ward.apply(Meaning.ADMIT, 9, **numbered("7", "HOSP"), encounter={"admitted_at": "2026-08-01T08:00:00-05:00"})
    assert len(stays(ward)) == 2


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"account": "A1"}, {"account": "A1"}),
        (
            {"encounter": {"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"}},
            {"encounter": {"class_": "I", "admitted_at": "2026-03-01T13:00:00Z"}},
        ),
    ],
    ids=["by account", "by the time of admission"],
)
def test_a_stay_that_gets_its_visit_number_later_is_the_same_stay(
    ward: Ward, first: dict[str, Any], later: dict[str, Any]
) -> None:
    ward.apply(Meaning.ADMIT, 1, visit=None, visit_number=None, **first)
    ward.apply(Meaning.UPDATE, 2, **numbered("V1", "MRN"), **later)
    ward.apply(Meaning.DISCHARGE, 3, **numbered("V1", None))
    (only,) = stays(ward)
    assert (only.visit_number, only.status) == ("V1", EncounterStatus.FINISHED)


def test_a_new_visit_on_an_old_account_is_a_visit_of_its_own(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, visit=None, visit_number=None, account="A1")
    ward.apply(Meaning.DISCHARGE, 3, visit=None, visit_number=None, account="A1")
    ward.apply(Meaning.ADMIT, 9, **numbered("V9", None), account="A1")
    assert len(stays(ward)) == 2


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"discharged_at": "2026-03-05T16:00:00-05:00"},
        {"discharged_at": "2026-03-05T09:00:00-05:00", "admitted_at": "2026-03-01T10:00:00-05:00"},
    ],
)
def test_a_discharge_said_again_later_without_a_visit_number_is_the_same_discharge(
    ward: Ward, values: dict[str, Any]
) -> None:
    nameless: dict[str, Any] = {"visit": None, "visit_number": None}
    ward.apply(Meaning.ADMIT, 1, **nameless)
    ward.apply(Meaning.DISCHARGE, 5, **nameless)
    again = ("2026-03-05T18:00:00-05:00", "EVN-2")
    ward.apply(Meaning.DISCHARGE, 5.3, **nameless, event_time=again, encounter={"class_": "I", **values})
    (only,) = stays(ward)
    assert only.discharges == 1


@pytest.mark.parametrize(
    ("at", "values"),
    [
        (7, {"class_": "I"}),  # days later
        (5.3, {"class_": "E"}),
        (5.3, {"class_": "I", "admitted_at": "2026-03-05T12:00:00-05:00"}),
    ],
)
def test_a_discharge_that_can_be_of_another_stay_is_one(ward: Ward, at: float, values: dict[str, Any]) -> None:
    nameless: dict[str, Any] = {"visit": None, "visit_number": None}
    ward.apply(Meaning.ADMIT, 1, **nameless)
    ward.apply(Meaning.DISCHARGE, 5, **nameless)
    again = (f"2026-03-{int(at):02d}T18:00:00-05:00", "EVN-2")
    ward.apply(Meaning.DISCHARGE, at, **nameless, event_time=again, encounter=values)
    assert [stay.discharges for stay in stays(ward)] == [1, 1]


def test_the_time_of_admission_says_which_of_two_open_stays_is_meant(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, encounter={"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"})
    ward.apply(Meaning.REGISTER, 2, visit="MRN:V2", visit_number="V2", encounter={"class_": "O"})
    said = {"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"}
    ward.apply(Meaning.DISCHARGE, 3, visit=None, visit_number=None, encounter=said)
    assert ward.encounter().status is EncounterStatus.FINISHED
    assert ward.encounter("MRN:V2").status is EncounterStatus.ACTIVE
