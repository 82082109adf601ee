"""Messages as senders write them: a wrong EVN-1, an account in MRG alone, a leave without its visit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from heart import Heart

from engine.domain.encounter import Encounter, EncounterStatus

MESSAGES = Path(__file__).parents[2] / "messages"
ADMITTED = "adt_a01_admission"


@pytest.fixture
def heart() -> Heart:
    heart = Heart()
    heart.now = datetime(2024, 6, 20, tzinfo=UTC)
    return heart


def after(heart: Heart, *names: str) -> Encounter:
    for name in names:
        outcome = heart.send((MESSAGES / f"{name}.hl7").read_bytes())
        assert (outcome.state, outcome.holds) == ("processed", ())
        assert outcome.charts, name
    (stay,) = heart.chart().encounters
    return stay


def place(stay: Encounter) -> str | None:
    return stay.location.point_of_care if stay.location else None


def test_a_transfer_and_its_cancel(heart: Heart) -> None:
    assert place(after(heart, ADMITTED, "adt_a02_transfer_v24")) == "ICU"
    assert place(after(heart, "adt_a12_cancel_transfer_v23")) == "3W"


def test_departing_by_a_message_whose_evn_1_says_transfer(heart: Heart) -> None:
    stay = after(heart, ADMITTED, "adt_a09_departing")
    assert stay.temporary_location is not None
    assert (place(stay), stay.in_transit, stay.temporary_location.point_of_care) == ("3W", True, "OTWAIT")


def test_a_pending_discharge_with_a_disposition(heart: Heart) -> None:
    stay = after(heart, ADMITTED, "adt_a16_pending_discharge_v28")
    assert stay.expected_discharge_at is not None
    assert stay.expected_discharge_at.text == "2024-06-16T11:00-05:00"
    assert (stay.status, stay.disposition, heart.chart().tasks) == (EncounterStatus.ACTIVE, None, ())


def test_a_leave_without_visit_number_and_class(heart: Heart) -> None:
    stay = after(heart, ADMITTED, "adt_a21_leave_no_visit_number")
    assert stay.leave_began_at is not None
    assert (stay.status, stay.class_, stay.leave_began_at.text) == (
        EncounterStatus.ON_LEAVE, "I", "2024-06-15T17:30:00-05:00",
    )  # fmt: skip


def test_a_class_change_that_names_the_former_account_alone(heart: Heart) -> None:
    admitted = (MESSAGES / f"{ADMITTED}.hl7").read_bytes()
    registered = admitted.replace(b"ADT^A01^ADT_A01", b"ADT^A04^ADT_A01").replace(b"PV1|1|I|3W", b"PV1|1|E|ED")
    heart.send(registered)
    stay = after(heart, "adt_a06_inpatient_new_account")
    assert (stay.class_, stay.account, place(stay), stay.status) == ("I", "ACC0002", "3W", EncounterStatus.ACTIVE)
    assert heart.chart().patient.merged_from == ()


def test_the_cancel_of_a_pre_admission_that_was_never_heard_of(heart: Heart) -> None:
    assert after(heart, "adt_a38_cancel_preadmission").status is EncounterStatus.CANCELLED
