"""Whether a stay is planned, going on or over: every row of the event table, and above all what it must not do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ward import Ward, event

from engine.care.adt import status
from engine.care.adt.event import Event, Meaning
from engine.care.times import believed
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import HoldCode
from engine.domain.moment import Moment


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
    assert encounter.admitted_at == Moment.of("2026-03-01T08:00:00-05:00")
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


def test_an_a01_recorded_after_the_discharge_of_its_own_stay_does_not_open_it_again(ward: Ward) -> None:
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "01"})
    ward.apply(Meaning.ADMIT, 4, encounter={"class_": "I", "admitted_at": "2026-03-01T08:00:00-05:00"})
    encounter = ward.encounter()
    assert (encounter.status, encounter.class_) == (EncounterStatus.FINISHED, "I")
    assert encounter.admitted_at == Moment.of("2026-03-01T08:00:00-05:00")


def test_an_a01_of_another_class_after_the_discharge_opens_the_visit_again(ward: Ward) -> None:
    ward.apply(Meaning.REGISTER, 1, encounter={"class_": "E"})
    ward.apply(Meaning.DISCHARGE, 2, encounter={"disposition": "01"})
    ward.apply(Meaning.ADMIT, 3)
    assert (ward.encounter().status, ward.encounter().class_) == (EncounterStatus.ACTIVE, "I")


def test_a_discharge_that_is_none_changes_nothing_of_an_earlier_one_and_is_not_counted(ward: Ward) -> None:
    ward.apply(Meaning.UPDATE, 2, encounter={"class_": "I", "discharged_at": "2026-03-02T10:00:00-05:00"})
    ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": "30", "discharged_at": "2026-03-03T10:00:00-05:00"})
    assert (ward.encounter().discharges, ward.encounter().discharged_at) == (0, Moment.of("2026-03-02T10:00:00-05:00"))


@pytest.mark.parametrize("disposition", ["09", "30"])
def test_a03_with_a_disposition_that_is_no_discharge_does_not_end_the_encounter(ward: Ward, disposition: str) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": disposition})
    assert ward.encounter().status is EncounterStatus.ACTIVE
    assert ward.encounter().discharged_at is None
    assert "disposition-is-no-discharge" in applied.deviations


def test_an_admission_said_again_after_the_discharge_does_not_open_the_stay_again(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 3)
    ward.apply(Meaning.ADMIT, 4)
    assert ward.encounter().status is EncounterStatus.FINISHED


@pytest.mark.parametrize(("disposition", "held"), [("01", True), ("30", False)])
def test_a_late_a03_that_says_that_the_patient_is_still_here_contradicts_nothing(
    ward: Ward, disposition: str, held: bool
) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.DISCHARGE, 2)
    ward.apply(Meaning.CANCEL_DISCHARGE, 5)
    ward.apply(Meaning.ADMIT, 6, encounter={"class_": "I", "admitted_at": "2026-03-06T08:00:00-05:00"})
    applied = ward.apply(Meaning.DISCHARGE, 3, encounter={"disposition": disposition})
    assert (HoldCode.STATUS_EVENT_STALE in {hold.code for hold in applied.holds}) is held
    assert ward.encounter().status is EncounterStatus.ACTIVE


RECEIVED = datetime(2026, 3, 4, 12, tzinfo=UTC)


def said(sender: str, sent: datetime = RECEIVED) -> Event:
    """A discharge of that sender, whose clock showed this."""
    claims = believed({"MSH-7": Moment.of_instant(sent)}, RECEIVED, ahead_seconds=300, behind_seconds=86_400, notes=[])
    return event(Meaning.DISCHARGE, 4, sender=sender, claims=claims)


@pytest.mark.parametrize(("seconds", "certain"), [(-1, False), (0, True), (1, True)])
def test_a_sender_s_own_clock_decides_between_its_messages_and_the_same_second_is_not_earlier(
    seconds: int, certain: bool
) -> None:
    stamps = status._with_turn(said("EPIC"), {})
    assert status._is_certain(said("EPIC", RECEIVED + timedelta(seconds=seconds)), stamps) is certain


def test_the_last_words_of_as_many_senders_are_known_as_the_limit() -> None:
    stamps: dict[str, tuple[float, int]] = {}
    for number in range(status._TURNED_MAX + 1):
        stamps = dict(status._with_turn(said(f"S{number}"), stamps))
        assert len(stamps) == min(number + 1, status._TURNED_MAX)
    assert "turned:S0" not in stamps
