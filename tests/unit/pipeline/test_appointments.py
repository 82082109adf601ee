"""Appointments as scheduling systems tell of them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from heart import adt, merge
from scheduling import Scheduled, siu

from engine.domain.advice import ERRORS
from engine.domain.appointment import Appointment
from engine.domain.message import EntryState
from engine.domain.moment import Moment, instant
from engine.domain.shapes import appointment_shape


@pytest.fixture
def heart() -> Scheduled:
    return Scheduled(deliver=[{"to": "crm", "what": ["patient", "appointment"]}])


def only(heart: Scheduled) -> Appointment:
    [appointment] = heart.chart().appointments
    return appointment


def test_a_new_appointment_is_booked_with_time_service_place_and_clinician(heart: Scheduled) -> None:
    outcome = heart.send(siu("S12", end="20260310094500"))
    shape = appointment_shape(only(heart), "MRN:558181838")
    assert {
        "status": "booked",
        "starts_at": "2026-03-10T09:15:00-04:00",
        "ends_at": "2026-03-10T09:45:00-04:00",
        "patient_key": "MRN:558181838",
        "service": {"code": "PCP", "text": "Primary care visit", "system": None},
        "clinician": {"id": "77", "family": "Welby", "given": "Marcus"},
        "replaces": None,
        "replaced_by": None,
        "task": None,
    }.items() <= shape.items()
    assert shape["location"]["point_of_care"] == "CLINIC"
    assert [delivery.operation for delivery in outcome.deliveries] == ["upsert_patient", "upsert_appointment"]
    assert "appointment-booked" in [effect.kind for effect in outcome.effects]


@pytest.mark.parametrize(
    ("trigger", "status", "become"),
    [
        ("S12", "Booked", "booked"), ("S12", "Pending", "requested"), ("S13", "", "booked"), ("S14", "", "booked"),
        ("S14", "Started", "arrived"), ("S14", "Complete", "kept"), ("S14", "NOSHOW", "noshow"),
        ("S15", "", "cancelled"),
        ("S14", "Cancelled", "cancelled"), ("S16", "", "cancelled"), ("S17", "", "entered_in_error"),
        ("S26", "", "noshow"), ("S27", "Complete", "kept"),
    ],
)  # fmt: skip
def test_an_event_of_a_known_appointment_says_what_has_become_of_it(
    heart: Scheduled, trigger: str, status: str, become: str
) -> None:
    heart.send(siu("S12", at="20260301080000"))
    heart.send(siu(trigger, at="20260310170000", status=status))
    assert only(heart).status == become


@pytest.mark.parametrize(("trigger", "become"), [("S13", "booked"), ("S14", "booked"), ("S15", "cancelled")])
def test_an_event_of_an_unknown_appointment_creates_it(heart: Scheduled, trigger: str, become: str) -> None:
    heart.send(siu(trigger))
    assert (only(heart).status, only(heart).opened_by) == (become, trigger)


STORY = (
    siu("S12", at="20260301080000", start="20260310091500"),
    siu("S13", at="20260302080000", start="20260311100000"),
    siu("S14", at="20260311100500", start="20260311100000", status="Started"),
    siu("S14", at="20260311110000", start="20260311100000", status="Complete"),
)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_older_messages_turn_nothing_back(heart: Scheduled, order: tuple[int, ...]) -> None:
    for number in order:
        heart.send(STORY[number])
    found = only(heart)
    assert (found.status, found.opened_by) == ("kept", "S12")
    assert found.starts_at is not None
    assert found.starts_at.text == "2026-03-11T10:00:00-04:00"


def test_a_message_that_comes_twice_changes_nothing(heart: Scheduled) -> None:
    heart.send(siu("S12"))
    before = heart.chart()
    assert heart.send(siu("S12")).deliveries == ()
    assert heart.chart().appointments == before.appointments


@pytest.mark.parametrize("trigger", ["S23", "S24"])
def test_slots_are_no_patients_and_are_ignored_and_counted(heart: Scheduled, trigger: str) -> None:
    outcome = heart.send(f"MSH|^~\\&|A|B|C|D|20260306120000||SIU^{trigger}|9|P|2.5\rSCH|1|77\rRGS|1\r".encode())
    assert (outcome.state, outcome.charts) == (EntryState.PROCESSED, ())
    assert [(one.kind, one.detail) for one in outcome.effects] == [("recorded-without-effect", f"SIU^{trigger}")]


def test_an_event_that_the_map_does_not_know_is_recorded_and_noted(heart: Scheduled) -> None:
    outcome = heart.send(siu("Z02"))
    assert (outcome.state, outcome.charts) == (EntryState.PROCESSED, ())
    assert "appointment-event-unknown:MSH-9" in outcome.deviations


def test_an_appointment_without_a_number_is_a_dead_letter(heart: Scheduled) -> None:
    outcome = heart.send(siu("S12", None, sch={1: ""}))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "appointment-number-missing"


@pytest.mark.parametrize("trigger", ["S12", "S13", "S14", "S15", "S17", "S18", "S26"])
@pytest.mark.parametrize(
    ("pid", "error", "place"),
    [(None, "pid-missing", "PID"), ("PID|1", "identifier-missing", "PID-3"),
     ("PID|1||^^^MRN^MR||Doe^Jane", "identifier-missing", "PID-3")],
)  # fmt: skip
def test_an_appointment_of_nobody_is_a_dead_letter_that_says_so(
    heart: Scheduled, trigger: str, pid: str | None, error: str, place: str
) -> None:
    """Also of one that is known: the message may be about another one."""
    heart.send(siu("S12", at="20260301080000"))
    before = heart.chart()
    said = [line for line in siu(trigger, at="20260302080000").decode().split("\r") if not line.startswith("PID")]
    outcome = heart.send("\r".join([*said[:2], *([pid] if pid else []), *said[2:]]).encode())
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert (outcome.dead_letter.error, outcome.dead_letter.location) == (error, place)
    assert ERRORS[error].remedy
    assert heart.chart() == before


# --- resources


def test_the_clinician_changes_and_the_status_does_not(heart: Scheduled) -> None:
    heart.send(siu("S12"))
    heart.send(siu("S19", at="20260307120000", status="Complete", clinician="88^House^Greg"))
    found = only(heart)
    assert found.clinician is not None
    assert (found.status, found.clinician.id) == ("booked", "88")


@pytest.mark.parametrize("trigger", ["S20", "S21", "S22"])
def test_a_resource_that_is_taken_away_is_gone_and_the_appointment_stands(heart: Scheduled, trigger: str) -> None:
    heart.send(siu("S12"))
    heart.send(siu(trigger, at="20260307120000", status="Cancelled", service="", place=""))
    found = only(heart)
    assert (found.status, found.clinician) == ("booked", None)
    assert found.location is not None


def test_of_several_resources_only_the_one_that_is_marked_goes(heart: Scheduled) -> None:
    heart.send(siu("S12"))
    gone = "AIP|2|D|77^Welby^Marcus"
    heart.send(siu("S20", at="20260307120000", clinician="88^House^Greg", more=(gone,)))
    found = only(heart)
    assert found.clinician is not None
    assert found.clinician.id == "88"


def test_a_clinician_who_is_cancelled_is_not_taken_for_the_one_who_sees_the_patient(heart: Scheduled) -> None:
    off = "AIP|1|A|77^Welby^Marcus|||||||||Cancelled"
    heart.send(siu("S12", clinician="", more=(off, "AIP|2|A|88^House^Greg")))
    found = only(heart)
    assert found.clinician is not None
    assert found.clinician.id == "88"


# --- times


@pytest.mark.parametrize(
    ("sch", "end"),
    [
        ({9: "30", 10: "MIN"}, "2026-03-10T13:45:00+00:00"), ({9: "30"}, "2026-03-10T13:45:00+00:00"),
        ({9: "2", 10: "HR"}, "2026-03-10T15:15:00+00:00"), ({9: "90", 10: "minutes"}, "2026-03-10T14:45:00+00:00"),
        ({9: "3", 10: "fortnights"}, None), ({9: "0", 10: "MIN"}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_start_without_an_end_has_the_end_of_its_duration_or_none(
    heart: Scheduled, sch: dict[int, str], end: str | None
) -> None:
    heart.send(siu("S12", sch=sch))
    assert instant(only(heart).ends_at) == instant(Moment.read(end))


@pytest.mark.parametrize(
    ("start", "end"), [("20260401", "20260930"), ("20260401080000", "20260901080000"), ("202604", ""), ("2026", "2027")]
)
def test_a_window_of_months_is_no_time_of_a_visit(heart: Scheduled, start: str, end: str) -> None:
    heart.send(siu("S12", start=start, end=end, status="Waitlist"))
    found = only(heart)
    assert (found.status, found.starts_at, found.ends_at) == ("requested", None, None)
    assert found.earliest is not None


def test_a_visit_of_days_is_one(heart: Scheduled) -> None:
    heart.send(siu("S12", start="20260310080000", end="20260312160000"))
    assert only(heart).starts_at is not None


def test_a_window_ends_when_the_visit_gets_its_time(heart: Scheduled) -> None:
    heart.send(siu("S12", start="20260401", end="20260930", status="Waitlist"))
    heart.send(siu("S13", at="20260307120000", start="20260415093000"))
    found = only(heart)
    assert found.starts_at is not None
    assert (found.status, found.starts_at.text, found.earliest) == ("booked", "2026-04-15T09:30:00-04:00", None)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("20260310", "2026-03-10"), ("202603100915-0800", "2026-03-10T09:15-08:00"),
        ("2026031009", "2026-03-10T09-04:00"), ("20261110091500", "2026-11-10T09:15:00-05:00"),
    ],
)  # fmt: skip
def test_a_time_keeps_its_precision_and_its_zone(heart: Scheduled, start: str, text: str) -> None:
    heart.send(siu("S12", start=start))
    found = only(heart).starts_at
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize("start", ["00000000", "99991231", "20260231"])
def test_what_is_no_date_is_no_time_of_a_visit(heart: Scheduled, start: str) -> None:
    heart.send(siu("S12", start=start))
    assert (only(heart).status, only(heart).starts_at) == ("booked", None)


def test_an_end_before_its_start_is_none(heart: Scheduled) -> None:
    outcome = heart.send(siu("S12", end="20260310080000"))
    assert only(heart).ends_at is None
    assert "appointment-ends-before-start:SCH-11" in outcome.deviations


@pytest.mark.parametrize(
    "more", [("TQ1|1||||||20260310091500",), ("AIS|1|A|PCP|20260310091500",), ("AIP|1|A|77|||20260310091500",)]
)
def test_the_time_may_stand_in_tq1_or_with_a_resource(heart: Scheduled, more: tuple[str, ...]) -> None:
    heart.send(siu("S12", start="", service="", clinician="", place="", more=more))
    found = only(heart).starts_at
    assert found is not None
    assert found.text == "2026-03-10T09:15:00-04:00"


# --- no-shows


@pytest.mark.parametrize(
    ("at", "start", "become"),
    [
        ("20260310170000", "20260310091500", "noshow"), ("20260310091500", "20260310091500", "noshow"),
        ("20260310091400", "20260310091500", "cancelled"), ("20260107080000", "20260310091500", "cancelled"),
        ("20260310070000", "20260310", "noshow"), ("20260309230000", "20260310", "cancelled"),
        ("20260310170000", "", "cancelled"),
    ],
)  # fmt: skip
def test_nobody_has_missed_a_visit_that_had_not_begun(heart: Scheduled, at: str, start: str, become: str) -> None:
    outcome = heart.send(siu("S26", at=at, start=start))
    assert only(heart).status == become
    assert ("appointment-noshow-before-start:SCH-11" in outcome.deviations) is (become == "cancelled")


def test_the_start_that_is_known_counts_where_a_no_show_does_not_repeat_it(heart: Scheduled) -> None:
    heart.send(siu("S12", at="20260301080000"))
    heart.send(siu("S26", at="20260310180000", start=""))
    assert only(heart).status == "noshow"


# --- whose it is


def test_a_merge_takes_appointments_along_and_the_same_one_is_there_once(heart: Scheduled) -> None:
    heart.send(siu("S12", at="20260301080000"))
    heart.send(siu("S12", at="20260301080000", pid3="999^^^MRN^MR", number="5"))
    heart.send(siu("S15", at="20260303080000", pid3="999^^^MRN^MR"))
    heart.send(merge("558181838", "999"))
    found = {one.numbers[0].value: one.status for one in heart.chart().appointments}
    assert found == {"36996": "cancelled", "5": "booked"}


def test_a_group_that_comes_together_has_an_appointment_each(heart: Scheduled) -> None:
    second = "PID|2||999^^^MRN^MR||Roe^Rita||19600101|F"
    message = siu("S12").replace(b"\rRGS", f"\r{second}\rRGS".encode())
    heart.send(message)
    assert [len(chart.appointments) for chart in heart.charts.by_id.values()] == [1, 1]


def test_what_it_says_of_the_person_counts_as_in_any_message(heart: Scheduled) -> None:
    heart.send(adt("A01", pv1={}))
    heart.send(siu("S12", at="20260307120000", pid="Doe^Janet||19480312|F"))
    name = heart.chart().patient.name
    assert name is not None
    assert name.given == "Janet"


def test_a_message_of_another_person_books_nothing(heart: Scheduled) -> None:
    heart.send(adt("A01", pv1={}))
    outcome = heart.send(siu("S12", pid="Smith^Bob||20010101|M"))
    assert [hold.code for hold in outcome.holds] == ["person-contradicted"]
    assert heart.chart().appointments == ()


# --- real feeds


def epic(trigger: str, **more: Any) -> bytes:
    return siu(trigger, pv1="36996", status="1^SCH", **more)


def test_epic_has_a_constant_in_sch_1_and_the_number_in_sch_2() -> None:
    heart = Scheduled(appointments="epic")
    outcome = heart.send(epic("S12", sch={9: "30", 10: "MIN"}))
    heart.send(siu("S12", "36997", pv1="36997", start="20260312091500"))
    assert [one.numbers[0].value for one in heart.chart().appointments] == ["36996", "36997"]
    assert not [note for note in outcome.deviations if note.startswith("appointment")]
    assert heart.chart().appointments[0].visit == "MRN:36996"


def test_a_local_status_code_is_noted_where_no_map_knows_it(heart: Scheduled) -> None:
    outcome = heart.send(epic("S12"))
    assert only(heart).status == "booked"
    assert "appointment-status-unknown:SCH-25" in outcome.deviations


def barts(trigger: str, at: str, status: str) -> bytes:
    return siu(trigger, None, at=at, start="20261113140000", end="20261113143000", status=status, sch={1: "7733"})


@pytest.mark.parametrize("name", ["millennium", "standard"])
def test_barts_has_the_number_in_sch_1_and_cancels_by_s26_a_week_before(name: str) -> None:
    heart = Scheduled(appointments=name)
    heart.send(barts("S12", "20261001090000", "Booked"))
    heart.send(barts("S26", "20261107090000", "Cancelled"))
    assert only(heart).status == "cancelled"


@pytest.mark.parametrize(
    ("trigger", "status", "become"),
    [("Z02", "3", "kept"), ("Z02", "", "kept"), ("S14", "3", "kept"), ("S14", "4", "cancelled"), ("S26", "5", "noshow"),
     ("S26", "4", "cancelled"), ("S14", "8", "booked")],
)  # fmt: skip
def test_an_nhs_pas_has_digits_and_checks_out_by_z02(trigger: str, status: str, become: str) -> None:
    heart = Scheduled(appointments="nhs-pas")
    evn = ("EVN|S12|20260310120000",)
    heart.send(siu("S12", None, sch={1: "A-1"}, at="20260301080000"))
    heart.send(siu(trigger, None, sch={1: "A-1"}, at="20260310120000", status=status, more=evn))
    assert only(heart).status == become


def test_an_nhs_pas_sends_s26_two_months_before_the_visit() -> None:
    heart = Scheduled(appointments="nhs-pas")
    heart.send(siu("S26", None, sch={1: "A-1"}, at="20260106080000", start="20260310091500", status="5"))
    assert only(heart).status == "cancelled"


@pytest.mark.parametrize("name", ["clicrdv", "standard"])
def test_clicrdv_leaves_the_status_at_booked_and_the_event_counts(name: str) -> None:
    heart = Scheduled(appointments=name)
    heart.send(siu("S12", at="20260301080000", status="Booked"))
    heart.send(siu("S26", at="20260310180000", status="Booked"))
    assert only(heart).status == "noshow"


def test_isalus_has_the_status_in_sch_6() -> None:
    heart = Scheduled(appointments="isalus")
    heart.send(siu("S12", at="20260301080000", sch={6: "Scheduled"}))
    heart.send(siu("S14", at="20260310091000", sch={6: "ARRIVED"}))
    assert only(heart).status == "arrived"


def test_infor_has_the_case_in_sch_5() -> None:
    heart = Scheduled(appointments="infor")
    heart.send(siu("S12", "1", sch={5: "CASE-9"}))
    heart.send(siu("S15", "2", sch={5: "CASE-9"}, at="20260307120000"))
    assert (only(heart).status, only(heart).numbers[0].value) == ("cancelled", "CASE-9")


def test_ireland_books_a_waiting_list_as_a_window_of_months(heart: Scheduled) -> None:
    heart.send(siu("S12", start="20260401", end="20260831"))
    found = only(heart)
    assert (found.starts_at, found.earliest and found.earliest.text, found.latest and found.latest.text) == (
        None, "2026-04-01", "2026-08-31",
    )  # fmt: skip


def test_the_filler_takes_over_the_number_of_the_placer(heart: Scheduled) -> None:
    heart.send(siu("S12", None, sch={1: "P-1"}))
    heart.send(siu("S14", "F-1", sch={1: "P-1"}, at="20260307120000"))
    heart.send(siu("S15", "F-1", sch={1: ""}, at="20260308120000"))
    assert (only(heart).status, [one.value for one in only(heart).numbers]) == ("cancelled", ["P-1", "F-1"])


def test_an_authority_that_is_not_named_is_no_contradiction_and_another_one_is(heart: Scheduled) -> None:
    heart.send(siu("S12", "7^CAD"))
    heart.send(siu("S15", "7", at="20260307120000"))
    heart.send(siu("S12", "7^LAB", at="20260308120000"))
    assert [(one.numbers[0].authority, one.status) for one in heart.chart().appointments] == [
        ("CAD", "cancelled"), ("LAB", "booked"),
    ]  # fmt: skip


def test_a_constant_where_a_number_might_be_leads_to_no_other_appointment(heart: Scheduled) -> None:
    heart.send(siu("S12", "1"))
    heart.send(siu("S12", "2"))
    heart.send(siu("S15", "2", at="20260307120000"))
    assert {one.numbers[0].value: one.status for one in heart.chart().appointments} == {"1": "booked", "2": "cancelled"}


def test_tq1_counts_before_what_was_asked_for_in_sch_11(heart: Scheduled) -> None:
    timing = ("TQ1|1||||||20260310093000|20260310102000",)
    heart.send(siu("S26", at="20260310100000", start="20260201112600", end="20260209112600", more=timing))
    found = only(heart)
    assert found.starts_at is not None
    assert (found.status, found.starts_at.text, found.earliest) == ("noshow", "2026-03-10T09:30:00-04:00", None)


@pytest.mark.parametrize(("trigger", "status"), [("S15", "Cancelled"), ("S17", "Deleted")])
def test_resources_that_are_cancelled_with_their_appointment_are_still_its_own(
    heart: Scheduled, trigger: str, status: str
) -> None:
    off = (f"AIS|1|A|PCP|||||||{status}", f"AIP|1||77^Welby^Marcus|||||||||{status}")
    heart.send(siu(trigger, service="", clinician="", place="", more=off))
    found = only(heart)
    assert found.service is not None
    assert found.clinician is not None
    assert (found.service.code, found.clinician.id) == ("PCP", "77")
