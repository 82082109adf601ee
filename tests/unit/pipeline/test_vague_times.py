"""A mere date, or a time to the hour, is never taken for its first instant: neither for one in New York, nor in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from heart import Heart, adt

from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.outcome import Outcome

NEW_YORK = ZoneInfo("America/New_York")
FINISHED = EncounterStatus.FINISHED


class Ward:
    """One patient's messages: each comes at the very time that it claims, in New York."""

    def __init__(self) -> None:
        self.heart = Heart()

    def send(self, trigger: str, at: str, begin: str = "", end: str = "", *, visit: str = "V1^^^MRN") -> Outcome:
        local = datetime.strptime(at, "%Y%m%d%H%M").replace(tzinfo=NEW_YORK)
        self.heart.now = max(self.heart.now, local.astimezone(UTC))
        fields = {19: visit, 36: "01" if trigger == "A03" else "", 44: begin, 45: end}
        return self.heart.send(adt(trigger, at=f"{at}00", pv1=fields))

    @property
    def stays(self) -> list[Encounter]:
        return list(self.heart.chart().encounters)


@pytest.fixture
def ward() -> Ward:
    return Ward()


def codes(outcome: Outcome) -> list[str]:
    return [hold.code.value for hold in outcome.holds]


# --- a discharge said again, without a visit number -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("", "20260310"),
        ("", "2026031010"),
        ("", "20260311"),
        ("20260309", "202603101000"),
        ("2026030922", "202603101000"),
        ("20260309", "20260310"),
    ],
)
def test_a_discharge_said_again_less_precisely_makes_no_second_stay(ward: Ward, begin: str, end: str) -> None:
    ward.send("A01", "202603092200", "202603092200", visit="")
    ward.send("A03", "202603101000", "", "202603101000", visit="")
    ward.send("A03", "202603111015", begin, end, visit="")
    (only,) = ward.stays
    assert (only.status, only.discharges) == (FINISHED, 1)


@pytest.mark.parametrize(("begin", "end"), [("202603092200", "202603101000"), ("", "202603102100"), ("", "2026031110")])
def test_a_discharge_said_again_more_precisely_makes_no_second_stay(ward: Ward, begin: str, end: str) -> None:
    ward.send("A01", "202603092200", "20260309", visit="")
    ward.send("A03", "202603101000", "", "20260310", visit="")
    ward.send("A03", "202603111015", begin, end, visit="")
    (only,) = ward.stays
    assert (only.status, only.discharges) == (FINISHED, 1)


def test_of_two_stays_the_one_that_ended_on_the_day_is_discharged_again(ward: Ward) -> None:
    ward.send("A01", "202603051000", "202603051000", visit="")
    ward.send("A03", "202603092100", "", "202603092100", visit="")
    ward.send("A01", "202603092200", "202603092200", visit="")
    ward.send("A03", "202603101000", "", "202603101000", visit="")
    ward.send("A03", "202603101015", "", "20260309", visit="")
    assert [stay.discharges for stay in ward.stays] == [1, 1]


@pytest.mark.parametrize(
    ("begin", "end"), [("", "20260312"), ("", "2026031112"), ("20260310", "20260311"), ("2026030923", "20260310")]
)
def test_a_discharge_that_is_surely_of_another_stay_is_one(ward: Ward, begin: str, end: str) -> None:
    ward.send("A01", "202603092200", "202603092200", visit="")
    ward.send("A03", "202603101000", "", "202603101000", visit="")
    ward.send("A03", "202603131200", begin, end, visit="")
    assert [stay.discharges for stay in ward.stays] == [1, 1]


@pytest.mark.parametrize("said", ["20260309", "20260310"])
def test_a_number_without_authority_means_the_stay_that_began_late_on_the_day(ward: Ward, said: str) -> None:
    ward.send("A01", "202603092200", "202603092200", visit="V1")
    ward.send("A03", "202603101000", said, "202603101000", visit="V1^^^HOSP")
    assert [stay.discharges for stay in ward.stays] == [1]


# --- an admission behind the end of its stay --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["20260310", "2026031010", "202603101000"])
@pytest.mark.parametrize("begin", ["202603092200", "2026030922", "20260309", "202603100930"])
def test_an_admission_behind_its_discharge_is_the_beginning_of_the_stay(ward: Ward, begin: str, end: str) -> None:
    ward.send("A03", "202603101000", "", end)
    outcome = ward.send("A01", "202603101030", begin)
    (only,) = ward.stays
    assert (codes(outcome), only.status) == ([], FINISHED)
    assert only.time_sources["admitted_at"] == "PV1-44"


@pytest.mark.parametrize("end", ["20260310", "2026031010", "202603101000"])
@pytest.mark.parametrize("begin", ["202603101130", "20260311"])
def test_an_admission_after_the_end_was_recorded_is_asked_about(ward: Ward, begin: str, end: str) -> None:
    ward.send("A03", "202603101000", "", end)
    assert codes(ward.send("A01", "202603111200", begin)) == ["status-event-stale"]


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("20260308", "202603081000"),
        ("20260308", "2026030810"),
        ("20260308", "202603080730"),
        ("2026030810", "202603081030"),
        ("202603081000", "20260308"),
        ("202603082200", "20260308"),
        ("20260308", "20260308"),
    ],
)
@pytest.mark.parametrize("at", ["202603081000", "202603101030"])
def test_an_admission_said_again_with_another_precision_asks_nothing(
    ward: Ward, first: str, again: str, at: str
) -> None:
    ward.send("A01", "202603081000", first)
    ward.send("A03", "202603101000", "", "202603101000")
    assert codes(ward.send("A01", at, again)) == []
    assert [(stay.status, stay.discharges) for stay in ward.stays] == [(FINISHED, 1)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("20260308", "202603081800"),
        ("20260308", "20260309"),
        ("2026030810", "2026030811"),
        ("202603082200", "20260309"),
    ],
)
def test_a_second_admission_under_the_number_is_asked_about(ward: Ward, first: str, second: str) -> None:
    ward.send("A01", "202603081000", first)
    ward.send("A03", "202603101000", "", "202603101000")
    assert codes(ward.send("A01", "202603091900", second)) == ["status-event-stale"]


@pytest.mark.parametrize("again", ["20260308", "2026030814"])
def test_an_admission_that_may_be_after_the_end_on_the_same_day_is_asked_about(ward: Ward, again: str) -> None:
    ward.send("A01", "202603081000", "202603081000")
    ward.send("A03", "202603081400", "", "202603081400")
    assert codes(ward.send("A01", "202603081430", again)) == ["status-event-stale"]


# --- an end that an update tells of -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["A01", "A02", "A08"])
@pytest.mark.parametrize(
    ("end", "told"),
    [("20260310", True), ("2026031009", True), ("20260311", True), ("20260309", False), ("2026031006", False)],
)
def test_an_end_that_can_be_after_the_admission_leaves_a_trace(ward: Ward, trigger: str, end: str, told: bool) -> None:
    ward.send("A01", "202603100700", "202603100700")
    outcome = ward.send(trigger, "202603111000", "202603100700", end)
    assert ("end-without-discharge" in outcome.deviations) is told


def test_an_end_on_the_evening_of_the_admission_is_of_the_day_in_new_york(ward: Ward) -> None:
    ward.send("A01", "202603102100", "202603102100")
    assert "end-without-discharge" in ward.send("A08", "202603110800", "", "20260310").deviations


def test_the_day_of_a_discharge_that_was_taken_back_tells_of_no_new_end(ward: Ward) -> None:
    ward.send("A01", "202603080700", "202603080700")
    ward.send("A03", "202603101000", "", "20260310")
    ward.send("A13", "202603101100")
    assert "end-without-discharge" not in ward.send("A08", "202603101200", "", "20260310").deviations
    assert "end-without-discharge" in ward.send("A08", "202603111200", "", "20260311").deviations


# --- a pre-admission of a stay to come --------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "held"), [("20260310", True), ("2026030923", True), ("20260309", False)])
def test_a_pre_admission_for_the_day_after_a_late_discharge_is_asked_about(ward: Ward, said: str, held: bool) -> None:
    ward.send("A01", "202603081000", "202603081000")
    ward.send("A03", "202603092200", "", "202603092200")
    assert bool(codes(ward.send("A05", "202603092300", said))) is held
