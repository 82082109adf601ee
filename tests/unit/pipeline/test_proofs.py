"""A later visit closes what it proves, what it does not prove stays, and a cancelled visit proves nothing."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from heart import NOW, Heart, adt, merge
from scheduling import siu

from engine.care.tasks import done, rung
from engine.domain.task import Task, TaskState

LEFT = {36: "01", 45: "20260306150000", 44: "20260220120000"}
VISIT = {2: "O", 19: "V9^^^MRN", 10: "FAM", 44: "20260309100000"}
DOCTOR = "PD1||||77^Welby^Marcus"


@pytest.fixture
def heart() -> Heart:
    """A patient at high risk who has gone home on a Friday, 10:00 in New York."""
    made = Heart()
    send(made, "A01", "20260220120000", {4: "E", 44: "20260220120000"})
    send(made, "A03", "20260306150000", LEFT)
    assert stands(made) >= {"pcp_follow_up", "specialist_follow_up", "tcm_contact"}
    return made


def send(heart: Heart, trigger: str, at: str, pv1: dict[int, str], *segments: str) -> None:
    heart.now = max(heart.now, datetime.strptime(at, "%Y%m%d%H%M%S").replace(tzinfo=UTC) + timedelta(hours=5))
    codes = ("DG1|1||I50.9^Heart failure^I10|||F", "DG1|2||E11.9^Diabetes^I10|||F")
    heart.send(adt(trigger, at=at, pv1=pv1, segments=(*segments, *(codes if pv1.get(2, "I") == "I" else ()))))


def task(heart: Heart, kind: str = "pcp_follow_up") -> Task:
    return next(one for one in heart.chart().tasks if one.kind == kind)


def stands(heart: Heart) -> set[str]:
    return {one.kind for one in heart.chart().tasks if one.stands}


def test_a_visit_that_was_kept_closes_the_task_and_the_evidence_names_entry_and_fields(heart: Heart) -> None:
    before, others = task(heart), stands(heart)
    send(heart, "A04", "20260309100000", VISIT)
    done = task(heart)
    assert (done.state, done.ended_by) == (TaskState.DONE, "engine")
    assert done.evidence == "entry 3: PV1-2, PV1-10, PV1-44"
    assert stands(heart) == others - {"pcp_follow_up"}
    send(heart, "A11", "20260309110000", VISIT)
    assert task(heart) == before


@pytest.mark.parametrize(
    ("pv1", "closes"),
    [
        ({10: "CAR"}, {"specialist_follow_up"}),
        ({10: "URO"}, {"specialist_follow_up"}),
        ({10: "GP"}, {"pcp_follow_up"}),
        ({10: ""}, set()),
        ({10: "XRAY"}, set()),
        ({2: "E", 10: "FAM"}, set()),
        ({2: "I", 10: "FAM", 44: "20260309100000"}, set()),
        ({44: "20260306140000"}, set()),
        ({44: "20260306"}, set()),
        ({44: "20260307"}, {"pcp_follow_up"}),
        ({10: "", 7: "77^Welby^Marcus"}, {"pcp_follow_up"}),
        ({10: "", 7: "78^Other^Doctor"}, set()),
    ],
)
def test_a_visit_closes_what_it_proves_and_nothing_else(heart: Heart, pv1: dict[int, str], closes: set[str]) -> None:
    send(heart, "A08", "20260306160000", LEFT, DOCTOR)
    before = {one.kind for one in heart.chart().tasks if one.state is TaskState.DONE}
    send(heart, "A04", "20260309100000", VISIT | pv1)
    assert {one.kind for one in heart.chart().tasks if one.state is TaskState.DONE} - before == closes


@pytest.mark.parametrize(
    ("came", "closes"),
    [("20260306090000", False), ("20260306235900", False), ("20260306", False), ("20260307", True),
     ("202603070100", True)],
)  # fmt: skip
def test_a_discharge_of_a_mere_date_lasts_to_its_end_so_a_visit_of_that_day_proves_nothing(
    came: str, closes: bool
) -> None:
    heart = Heart()
    send(heart, "A01", "20260220120000", {4: "E", 44: "20260220120000"})
    send(heart, "A03", "20260307080000", LEFT | {45: "20260306"})
    send(heart, "A04", "20260307120000", VISIT | {44: came})
    assert (task(heart).state is TaskState.DONE) is closes


def test_which_doctor_is_the_patients_own_may_be_heard_of_after_the_visit(heart: Heart) -> None:
    send(heart, "A04", "20260309100000", VISIT | {10: "", 7: "77^Welby^Marcus"})
    assert task(heart).stands
    heart.now += timedelta(hours=1)
    heart.send(adt("A31", at="20260309110000", segments=(DOCTOR,)))
    assert task(heart).state is TaskState.DONE


@pytest.mark.parametrize(("at", "closes"), [("20260405140000", True), ("20260405160000", False)])
def test_a_visit_after_the_window_proves_nothing(heart: Heart, at: str, closes: bool) -> None:
    send(heart, "A04", at, VISIT | {44: at})
    assert (task(heart).state is TaskState.DONE) is closes


@pytest.mark.parametrize("trigger", ["A05", "A14"])
def test_a_visit_that_is_only_planned_proves_nothing(heart: Heart, trigger: str) -> None:
    send(heart, trigger, "20260308100000", VISIT)
    assert task(heart).stands
    send(heart, "A04", "20260309100000", VISIT)
    assert task(heart).state is TaskState.DONE


def test_it_does_not_matter_which_is_heard_of_first_the_visit_or_the_discharge() -> None:
    heart = Heart()
    send(heart, "A01", "20260220120000", {4: "E", 44: "20260220120000"})
    send(heart, "A04", "20260309100000", VISIT)
    send(heart, "A03", "20260306150000", LEFT)
    assert task(heart).state is TaskState.DONE


def test_a_second_visit_goes_on_proving_when_the_first_was_cancelled(heart: Heart) -> None:
    send(heart, "A04", "20260309100000", VISIT)
    send(heart, "A04", "20260310100000", VISIT | {19: "V10^^^MRN", 44: "20260310100000"})
    send(heart, "A11", "20260310110000", VISIT)
    assert task(heart).proved_by == "encounter:MRN:V10"


@pytest.mark.parametrize("change", [{10: "CAR"}, {2: "E"}])
def test_a_visit_that_was_another_one_after_all_proves_that(heart: Heart, change: dict[int, str]) -> None:
    send(heart, "A04", "20260309100000", VISIT)
    send(heart, "A08", "20260309110000", VISIT | change)
    assert task(heart).stands
    assert task(heart, "specialist_follow_up").stands is (change != {10: "CAR"})


def test_what_a_person_has_closed_stays_as_they_said(heart: Heart) -> None:
    chart = heart.chart()
    closed = done(task(heart), by="anna", at=NOW, evidence="letter")
    heart.charts.add(
        msgspec.structs.replace(chart, tasks=tuple(closed if one.id == closed.id else one for one in chart.tasks))
    )
    send(heart, "A04", "20260309100000", VISIT)
    send(heart, "A11", "20260309110000", VISIT)
    assert task(heart) == closed


def test_a_visit_comes_along_in_a_merge_and_proves_there(heart: Heart) -> None:
    heart.now = datetime(2026, 3, 9, 18, tzinfo=UTC)
    heart.send(adt("A04", at="20260309100000", pid3="777^^^MRN^MR", pv1=VISIT))
    assert task(heart).stands
    heart.send(merge("558181838", "777"))
    assert task(heart).state is TaskState.DONE


def test_a_missed_task_is_done_by_a_late_visit_and_stays_known_as_missed(heart: Heart) -> None:
    one, (alert,) = rung(task(heart), task(heart).due_at)
    chart = heart.chart()
    tasks = (*(one if other.id == one.id else other for other in chart.tasks), alert)
    heart.charts.add(msgspec.structs.replace(chart, tasks=tasks))
    send(heart, "A04", "20260320100000", VISIT | {44: "20260320100000"})
    assert (task(heart).state, task(heart).missed_at) == (TaskState.DONE, one.due_at)
    assert next(other for other in heart.chart().tasks if other.id == alert.id).state is TaskState.RETRACTED
    send(heart, "A11", "20260320110000", VISIT | {44: "20260320100000"})
    assert task(heart) == one
    assert next(other for other in heart.chart().tasks if other.id == alert.id) == alert


def test_without_the_protocol_nothing_is_proved_and_what_is_proved_stays_until_the_visit_goes(heart: Heart) -> None:
    send(heart, "A04", "20260309100000", VISIT)
    heart.channel = dataclasses.replace(heart.channel, planner=None, planners={})
    send(heart, "A08", "20260309103000", VISIT | {10: "CAR"})
    assert task(heart).state is TaskState.DONE
    send(heart, "A11", "20260309110000", VISIT)
    assert task(heart).stands


AHEAD = ["20260307090000", "20260307", "20260309100000", "20260309", "20260320090000", "20270309100000"]


@pytest.mark.parametrize("trigger", ["A04", "A01", "A10"])
@pytest.mark.parametrize("begin", AHEAD)
def test_a_visit_that_is_registered_ahead_proves_nothing_before_somebody_speaks_of_it_on_its_day(
    heart: Heart, trigger: str, begin: str
) -> None:
    send(heart, trigger, "20260306160000", VISIT | {44: begin})
    send(heart, "A08", "20260306170000", VISIT | {44: begin})
    assert task(heart).stands
    heart.now += timedelta(days=40)
    heart.send(adt("A31", at="20260306180000", segments=(DOCTOR,)))
    assert task(heart).stands, "that the day has passed shows nothing"


@pytest.mark.parametrize("begin", ["20260309100000", "20260309"])
@pytest.mark.parametrize(
    ("trigger", "said"),
    [("A04", {}), ("A08", {}), ("A08", {44: ""}), ("A03", {}), ("A03", {44: "", 45: "20260309110000"})],
)
def test_a_visit_that_was_registered_ahead_is_proved_by_whoever_speaks_of_it_on_its_day(
    heart: Heart, begin: str, trigger: str, said: dict[int, str]
) -> None:
    send(heart, "A04", "20260306160000", VISIT | {44: begin})
    send(heart, "A08", "20260308160000", VISIT | {44: begin, 3: "ELSEWHERE"})
    assert task(heart).stands
    send(heart, trigger, "20260309100500", VISIT | {44: begin} | said)
    assert task(heart).state is TaskState.DONE


def test_a_visit_that_was_registered_ahead_and_came_sooner_is_proved_by_the_time_that_is_said_then(
    heart: Heart,
) -> None:
    send(heart, "A04", "20260306160000", VISIT)
    send(heart, "A08", "20260308160000", VISIT | {44: "20260308153000"})
    assert task(heart).state is TaskState.DONE


@pytest.mark.parametrize(("trigger", "class_"), [("A38", "O"), ("A27", "P"), ("A08", "P")])
def test_what_is_said_of_a_visit_that_was_only_announced_expects_nobody(
    heart: Heart, trigger: str, class_: str
) -> None:
    send(heart, trigger, "20260306160000", VISIT | {2: class_})
    assert all(one.expected_admission_at is None for one in heart.chart().encounters)


def test_what_an_admission_in_the_hospital_says_wrongly_is_no_plan(heart: Heart) -> None:
    send(heart, "A01", "20260308160000", {2: "I", 19: "V8^^^MRN", 44: "20270308160000"})
    (stay,) = [one for one in heart.chart().encounters if one.key == "MRN:V8"]
    assert stay.expected_admission_at is None
    assert stay.time_sources["admitted_at"] == "EVN-2"


def missed(heart: Heart, at: str, status: str = "Noshow", *, number: str = "V9", pv1: str | None = None) -> None:
    heart.now = max(heart.now, datetime.strptime(at, "%Y%m%d%H%M%S").replace(tzinfo=UTC) + timedelta(hours=5))
    heart.send(siu("S26", number, at=at, start="20260309100000", status=status, pv1=pv1))


@pytest.mark.parametrize("begin", ["20260306160000", "20260309100000"])
@pytest.mark.parametrize(("number", "pv1"), [("V9^MRN", None), ("77", "V9^^^MRN"), ("77", "V9")])
def test_a_visit_that_was_missed_after_its_registration_proves_nothing_and_raises_the_alert(
    heart: Heart, begin: str, number: str, pv1: str | None
) -> None:
    at = "20260306160000" if begin < "20260309" else "20260309095000"
    send(heart, "A04", at, VISIT | {44: begin})
    assert task(heart).state is TaskState.DONE
    missed(heart, "20260309200000", number=number, pv1=pv1)
    assert task(heart).stands
    assert [one.why for one in task(heart).escalations] == ["no-show"]
    assert task(heart, "pcp_alert").stands


def test_who_came_late_after_a_no_show_has_come(heart: Heart) -> None:
    missed(heart, "20260309103000")
    send(heart, "A04", "20260309104000", VISIT)
    assert task(heart).state is TaskState.DONE
    assert not task(heart, "pcp_alert").stands


def test_that_another_visit_was_missed_takes_no_proof_back(heart: Heart) -> None:
    send(heart, "A04", "20260309100000", VISIT)
    missed(heart, "20260309200000", number="V10")
    assert task(heart).state is TaskState.DONE
