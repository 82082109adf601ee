"""What ADT events do to charts: every row of the event table, and above all what they must not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.dispositions import Dispositions, load_dispositions
from engine.care.events import Applied, Event, Meaning, Merge, apply_event, apply_merges, load_events
from engine.domain.chart import Charts
from engine.domain.encounter import EncounterStatus
from engine.domain.patient import Identifier, Name
from engine.errors import MessageError
from engine.yamlfile import parse

ROOT = Path(__file__).parents[3]
CARE = ROOT / "mappings" / "care"


@pytest.fixture(scope="module")
def dispositions() -> Dispositions:
    file = CARE / "dispositions.yaml"
    return load_dispositions(parse(file.read_text(), file.name))


def mrn(value: str = "1", type_: str = "MR", authority: str = "MRN") -> Identifier:
    return Identifier(value=value, authority=authority, type=type_)


def event(meaning: Meaning, at: float, **changes: Any) -> Event:
    values: dict[str, Any] = {
        "meaning": meaning,
        "at": (at, 0),
        "chart_id": "chart-1",
        "identifiers": (mrn(),),
        "patient": {"name": Name(family="Doe")},
        "encounter": {"class_": "I"},
        "visit": "MRN:V1",
        "visit_number": "V1",
        "has_visit": True,
        "event_time": (f"2026-03-{int(at):02d}T10:00:00-05:00", "EVN-2"),
    }
    return Event(**(values | changes))


class Ward:
    """Charts, and events applied to them one after the other."""

    def __init__(self, dispositions: Dispositions) -> None:
        self.charts = Charts()
        self.dispositions = dispositions

    def apply(self, meaning: Meaning, at: float, **changes: Any) -> Applied:
        applied = apply_event(self.charts, event(meaning, at, **changes), self.dispositions)
        assert applied.chart is not None
        self.charts.add(applied.chart)
        return applied

    def encounter(self, key: str = "MRN:V1") -> Any:
        chart = self.charts.find(mrn())
        assert chart is not None
        return chart.encounter(key)


@pytest.fixture
def ward(dispositions: Dispositions) -> Ward:
    return Ward(dispositions)


def test_the_shipped_event_table_loads_and_leaves_unknown_triggers_alone() -> None:
    file = CARE / "adt-events.yaml"
    events = load_events(parse(file.read_text(), file.name))
    assert events.of("A01") is Meaning.ADMIT
    assert events.of("A40") is Meaning.MERGE
    assert events.of("A17") is Meaning.HOLD
    assert events.of("A06") is Meaning.RECORD
    assert events.of("Z01") is Meaning.RECORD


def test_a01_opens_an_inpatient_encounter_and_takes_the_admission_time_from_the_event_when_pv1_44_is_empty(
    ward: Ward,
) -> None:
    ward.apply(Meaning.ADMIT, 1, encounter={})
    encounter = ward.encounter()
    assert encounter.status is EncounterStatus.ACTIVE
    assert encounter.class_ == "I"
    assert encounter.admitted_at == "2026-03-01T10:00:00-05:00"
    assert encounter.time_sources == {"admitted_at": "EVN-2"}


def test_pv1_44_goes_before_the_event_time(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, encounter={"admitted_at": "2026-02-28T09:00:00-05:00"})
    assert ward.encounter().time_sources == {"admitted_at": "PV1-44"}


def test_a04_opens_a_visit_of_the_class_that_was_sent(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "E"})
    assert ward.encounter().class_ == "E"
    assert ward.encounter().status is EncounterStatus.ACTIVE


def test_a05_plans_an_encounter_and_does_not_take_back_an_admission(ward: Ward) -> None:
    ward.apply(Meaning.PRE_ADMIT, 1)
    assert ward.encounter().status is EncounterStatus.PLANNED
    ward.apply(Meaning.ADMIT, 2)
    ward.apply(Meaning.PRE_ADMIT, 3)
    assert ward.encounter().status is EncounterStatus.ACTIVE


def test_a03_ends_the_encounter_once_and_a_second_a03_is_no_second_discharge(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01"})
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "06"})
    encounter = ward.encounter()
    assert encounter.status is EncounterStatus.FINISHED
    assert encounter.discharges == 1
    assert encounter.disposition == "06"
    assert encounter.time_sources["discharged_at"] == "EVN-2"


def test_a13_takes_the_discharge_back_and_clears_what_it_had_set(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01"})
    applied = ward.apply(Meaning.CANCEL_DISCHARGE, 4)
    encounter = ward.encounter()
    assert [effect.kind for effect in applied.effects] == ["encounter-active"]
    assert encounter.status is EncounterStatus.ACTIVE
    assert encounter.discharged_at is None
    assert encounter.disposition is None
    assert "discharged_at" not in encounter.time_sources


def test_a_discharge_after_a_cancelled_discharge_is_a_new_discharge(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 3)
    ward.apply(Meaning.CANCEL_DISCHARGE, 4)
    ward.apply(Meaning.DISCHARGE, 5)
    assert ward.encounter().discharges == 2


def test_a_late_a03_does_not_discharge_again_after_its_cancel_has_arrived(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.CANCEL_DISCHARGE, 4)
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01"})
    assert ward.encounter().status is EncounterStatus.ACTIVE
    assert ward.encounter().discharged_at is None
    assert "stale-event" in applied.deviations


def test_an_orphan_a13_is_no_error(ward: Ward) -> None:
    applied = ward.apply(Meaning.CANCEL_DISCHARGE, 4)
    assert ward.encounter().status is EncounterStatus.ACTIVE
    assert [effect.kind for effect in applied.effects] == ["patient-created", "encounter-created"]


def test_a11_cancels_the_admission(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.CANCEL_ADMIT, 2)
    assert [effect.kind for effect in applied.effects] == ["encounter-cancelled"]
    assert ward.encounter().status is EncounterStatus.CANCELLED


def test_an_a03_before_its_a01_keeps_the_encounter_finished_and_learns_the_admission(ward: Ward) -> None:
    ward.apply(Meaning.DISCHARGE, 3, encounter={})
    ward.apply(Meaning.ADMIT, 1, encounter={"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"})
    encounter = ward.encounter()
    assert encounter.status is EncounterStatus.FINISHED
    assert encounter.class_ == "I"
    assert encounter.admitted_at == "2026-03-01T08:00:00-05:00"
    assert encounter.discharges == 1


def test_a_stay_first_seen_in_an_a08_after_its_end_gets_its_discharge_from_the_late_a03(ward: Ward) -> None:
    ward.apply(Meaning.UPDATE, 5, encounter={"class_": "I", "discharged_at": "2026-03-03T10:00:00-05:00"})
    assert ward.encounter().status is EncounterStatus.FINISHED
    assert ward.encounter().discharges == 0
    ward.apply(Meaning.DISCHARGE, 3)
    assert ward.encounter().discharges == 1


@pytest.mark.parametrize("meaning", [Meaning.UPDATE, Meaning.TRANSFER])
def test_a_late_a03_counts_though_a_newer_event_had_opened_the_encounter(ward: Ward, meaning: Meaning) -> None:
    ward.apply(meaning, 5)
    ward.apply(Meaning.DISCHARGE, 3, encounter={"class_": "I", "disposition": "01"})
    assert (ward.encounter().status, ward.encounter().discharges) == (EncounterStatus.FINISHED, 1)


def test_an_encounter_that_goes_on_holds_nothing_of_a_discharge(ward: Ward) -> None:
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01", "discharged_at": "2026-03-03T09:00:00-05:00"})
    ward.apply(Meaning.ADMIT, 8, encounter={"class_": "I", "admitted_at": "2026-03-08T09:00:00-05:00"})
    encounter = ward.encounter()
    assert encounter.status is EncounterStatus.ACTIVE
    assert (encounter.discharged_at, encounter.disposition) == (None, None)
    assert "discharged_at" not in encounter.time_sources
    ward.apply(Meaning.DISCHARGE, 9)
    assert ward.encounter().disposition is None


def test_a_cancelled_discharge_clears_what_an_update_newer_than_it_had_said_of_the_discharge(ward: Ward) -> None:
    ward.apply(Meaning.DISCHARGE, 3)
    ward.apply(Meaning.UPDATE, 7, encounter={"disposition": "01", "discharged_at": "2026-03-03T09:00:00-05:00"})
    ward.apply(Meaning.CANCEL_DISCHARGE, 6)
    assert (ward.encounter().discharged_at, ward.encounter().disposition) == (None, None)


def test_an_a01_recorded_after_the_discharge_of_its_own_stay_does_not_open_it_again(ward: Ward) -> None:
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01"})
    ward.apply(Meaning.ADMIT, 4, encounter={"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"})
    encounter = ward.encounter()
    assert (encounter.status, encounter.class_) == (EncounterStatus.FINISHED, "I")
    assert encounter.admitted_at == "2026-03-01T08:00:00-05:00"


def test_an_a01_of_another_class_after_the_discharge_opens_the_visit_again(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "E"})
    ward.apply(Meaning.DISCHARGE, 2, encounter={"disposition": "01"})
    ward.apply(Meaning.ADMIT, 3)
    assert (ward.encounter().status, ward.encounter().class_) == (EncounterStatus.ACTIVE, "I")


def test_a_discharge_that_is_none_changes_nothing_of_an_earlier_one_and_is_not_counted(ward: Ward) -> None:
    ward.apply(Meaning.UPDATE, 2, encounter={"class_": "I", "discharged_at": "2026-03-02T10:00:00-05:00"})
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "30", "discharged_at": "2026-03-03T10:00:00-05:00"})
    assert (ward.encounter().discharges, ward.encounter().discharged_at) == (0, "2026-03-02T10:00:00-05:00")


def test_a_null_for_the_time_of_an_arrival_or_discharge_leaves_that_of_the_event(ward: Ward) -> None:
    for _ in range(2):
        ward.apply(Meaning.ADMIT, 1, encounter={"class_": "I", "admitted_at": None})
        assert ward.encounter().admitted_at == "2026-03-01T10:00:00-05:00"
    for _ in range(2):
        ward.apply(Meaning.DISCHARGE, 3, encounter={"discharged_at": None})
        assert ward.encounter().discharged_at == "2026-03-03T10:00:00-05:00"


def test_more_news_of_a_cancelled_visit_found_by_its_account_opens_no_other(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, account="A1")
    ward.apply(Meaning.CANCEL_ADMIT, 2, account="A1", visit=None, visit_number=None)
    ward.apply(Meaning.CANCEL_ADMIT, 2, account="A1", visit=None, visit_number=None)
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert [encounter.key for encounter in chart.encounters] == ["MRN:V1"]


def test_a_death_by_disposition_is_the_same_said_twice_beside_a_pid_30_that_says_no(ward: Ward) -> None:
    for _ in range(2):
        ward.apply(Meaning.DISCHARGE, 3, patient={"deceased": False}, encounter={"disposition": "20"})
        chart = ward.charts.find(mrn())
        assert chart is not None
        assert chart.patient.deceased is True


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


@pytest.mark.parametrize("disposition", ["09", "30"])
def test_a03_with_a_disposition_that_is_no_discharge_does_not_end_the_encounter(ward: Ward, disposition: str) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": disposition})
    assert ward.encounter().status is EncounterStatus.ACTIVE
    assert ward.encounter().discharged_at is None
    assert "disposition-is-no-discharge" in applied.deviations


@pytest.mark.parametrize("disposition", ["20", "40", "41", "42"])
def test_a03_with_a_disposition_of_death_marks_the_patient_deceased(ward: Ward, disposition: str) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": disposition})
    chart = ward.charts.find(mrn())
    assert chart is not None
    assert chart.patient.deceased is True
    assert applied.chart.patient.deceased is True


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


def test_a_visit_number_of_another_patient_is_never_moved(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    with pytest.raises(MessageError) as caught:
        ward.apply(Meaning.UPDATE, 2, identifiers=(mrn("2"),), chart_id="chart-2")
    assert caught.value.error == "visit-of-another-patient"


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


def test_an_admission_said_again_after_the_discharge_does_not_open_the_stay_again(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 3)
    ward.apply(Meaning.ADMIT, 4)
    assert ward.encounter().status is EncounterStatus.FINISHED


def test_a01_without_a_class_admits_an_emergency_visit_as_an_inpatient(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "E"})
    ward.apply(Meaning.ADMIT, 2, encounter={})
    assert ward.encounter().class_ == "I"
    ward.apply(Meaning.UPDATE, 3, encounter={})
    assert ward.encounter().class_ == "I"


def test_a01_without_a_class_leaves_the_class_of_a_stay_in_a_bed(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "OBS"})
    ward.apply(Meaning.ADMIT, 2, encounter={})
    assert ward.encounter().class_ == "OBS"


# --- which visit is meant --------------------------------------------------------------------------------------------


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


def merge(survivor: str, merged: str) -> Merge:
    return Merge(
        survivor=mrn(survivor), survivor_id=f"chart-{survivor}", merged=mrn(merged), merged_id=f"chart-{merged}"
    )


def test_a40_moves_encounters_and_makes_the_old_identity_an_alias(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.ADMIT, 1, identifiers=(mrn("2"),), chart_id="chart-2", visit="MRN:V2", visit_number="V2")
    applied = apply_merges(ward.charts, (merge("2", "1"),), ward.dispositions, 1)
    survivor = applied.chart
    assert survivor is not None
    assert survivor.id == "chart-2"
    assert {e.key for e in survivor.encounters} == {"MRN:V1", "MRN:V2"}
    assert survivor.patient.merged_from == ("MRN:1",)
    for chart in (*applied.others, survivor):
        ward.charts.add(chart)
    found = ward.charts.find(mrn("1"))
    assert found is not None
    assert found.id == "chart-2"


def test_a40_does_not_bring_back_what_the_survivor_had_cleared_since(ward: Ward) -> None:
    phones = ("+12125550100",)
    ward.apply(Meaning.PERSON, 1, patient={"phones": phones, "language": "en"}, identifiers=(mrn("2"),), chart_id="c2")
    ward.apply(Meaning.PERSON, 2, patient={"phones": None})
    survivor = apply_merges(ward.charts, (merge("1", "2"),), ward.dispositions, 1).chart
    assert survivor is not None
    assert survivor.patient.phones == ()
    assert survivor.patient.language == "en"


def test_a40_of_an_unknown_old_identity_still_leaves_an_alias(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    for chart in (*applied.others, *([applied.chart] if applied.chart else [])):
        ward.charts.add(chart)
    found = ward.charts.find(mrn("9"))
    assert found is not None
    assert found.id == "chart-1"


def test_a40_twice_is_the_same_as_once(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    first = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    for chart in (*first.others, *([first.chart] if first.chart else [])):
        ward.charts.add(chart)
    second = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    assert second.chart == first.chart
    assert second.others == []


def test_a40_chains_in_one_message_end_at_the_last_survivor(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = apply_merges(ward.charts, (merge("2", "1"), merge("3", "2")), ward.dispositions, 1)
    for chart in (*applied.others, *([applied.chart] if applied.chart else [])):
        ward.charts.add(chart)
    assert {ward.charts.find(mrn(v)).id for v in ("1", "2", "3")} == {"chart-3"}  # type: ignore[union-attr]


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
