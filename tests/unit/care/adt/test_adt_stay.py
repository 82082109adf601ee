"""The fields and times of the encounter that an event speaks of."""

from __future__ import annotations

from ward import Ward

from engine.care.adt.event import Meaning
from engine.domain.encounter import EncounterStatus
from engine.domain.moment import Moment


def test_a01_opens_an_inpatient_encounter_and_takes_the_admission_time_from_the_event_when_pv1_44_is_empty(
    ward: Ward,
) -> None:
    ward.apply(Meaning.ADMIT, 1, encounter={})
    encounter = ward.encounter()
    assert encounter.status is EncounterStatus.ACTIVE
    assert encounter.class_ == "I"
    assert encounter.admitted_at == Moment.of("2026-03-01T10:00:00-05:00")
    assert encounter.time_sources == {"admitted_at": "EVN-2"}


def test_pv1_44_goes_before_the_event_time(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, encounter={"admitted_at": "2026-02-28T09:00:00-05:00"})
    assert ward.encounter().time_sources == {"admitted_at": "PV1-44"}


def test_a04_opens_a_visit_of_the_class_that_was_sent(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "E"})
    assert ward.encounter().class_ == "E"
    assert ward.encounter().status is EncounterStatus.ACTIVE


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


def test_a_null_for_the_time_of_an_arrival_or_discharge_leaves_that_of_the_event(ward: Ward) -> None:
    for _ in range(2):
        ward.apply(Meaning.ADMIT, 1, encounter={"class_": "I", "admitted_at": None})
        assert ward.encounter().admitted_at == Moment.of("2026-03-01T10:00:00-05:00")
    for _ in range(2):
        ward.apply(Meaning.DISCHARGE, 3, encounter={"discharged_at": None})
        assert ward.encounter().discharged_at == Moment.of("2026-03-03T10:00:00-05:00")


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
