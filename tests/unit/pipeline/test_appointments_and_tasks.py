"""What appointments and visits do to follow-up tasks: booked, moved, kept, missed, and no word of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from heart import adt
from scheduling import NEW_YORK, Scheduled, siu

from engine.care.appointed import Appointed, AppointedAs
from engine.care.tasks import end
from engine.domain.appointment import Appointment
from engine.domain.cause import CLOCK, Due, written
from engine.domain.message import Entry, Summary
from engine.domain.patient import Identifier, Patient, Provider
from engine.domain.task import Task, TaskState
from engine.pipeline.due import due_at
from engine.pipeline.process import process

PCP = "PD1||||77^Welby^Marcus"
STAY = {2: "I", 44: "20260301080000"}


class Clinic(Scheduled):
    """A patient at high risk who was discharged on 2026-03-06 at 12:00."""

    takes = ("task", "appointment")

    def __init__(self, *before: bytes, **changes: Any) -> None:
        """before: messages that come before the discharge."""
        super().__init__(deliver=[{"to": "crm", "what": self.takes}], **changes)
        self.send(adt("A01", at="20260301080000", pv1=STAY, segments=(PCP, "DG1|1||I50.9^HF^I10")))
        for message in before:
            self.send(message)
        self.discharge()

    def discharge(self, at: str = "20260306120000", number: str = "V1") -> None:
        gone = {**STAY, 4: "E", 19: f"{number}^^^MRN", 36: "01", 45: at}
        diagnoses = tuple(f"DG1|{n}||{code}^X^I10" for n, code in enumerate(("I50.9", "N18.6", "C80.1", "E11.9"), 1))
        self.send(adt("A03", at=at, pv1=gone, segments=(PCP, *diagnoses)))

    def task(self, kind: str = "pcp_follow_up") -> Task:
        [task] = [one for one in self.chart().tasks if one.kind == kind]
        return task

    def alerts(self) -> list[Task]:
        return [one for one in self.chart().tasks if one.raised_for == self.task().id]

    def appointment(self, number: str) -> Appointment:
        [found] = [one for one in self.chart().appointments if one.numbers[0].value == number]
        return found

    def until(self, at: datetime) -> None:
        """All that is due up to then happens."""
        while (due := due_at(self.chart())) is not None and due <= at:
            self.now = max(due, self.now)
            chart = self.chart()
            cause = Due(actor=CLOCK, chart_id=chart.id, at=due, version=chart.version, since=due)
            self._id += 1
            entry = Entry(
                id=self._id, channel="@due", peer="", received_at=self.now, payload=written(cause), summary=Summary(),
            )  # fmt: skip
            for chart in process(entry, self.channel, self.charts, self.now).charts:
                self.charts.add(chart)


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


def test_a_high_risk_discharge_has_the_follow_ups(clinic: Clinic) -> None:
    assert {"pcp_follow_up", "specialist_follow_up"} <= {task.kind for task in clinic.chart().tasks}
    assert (clinic.task().state, clinic.task().appointment) == ("open", None)


@pytest.mark.parametrize(
    "more",
    [
        {"service": "PC1^Primary care visit", "clinician": ""},
        {"service": "X^Visit", "clinician": "77^Welby^Marcus"},
        {"service": "X^Visit", "clinician": "^Welby^Marcus"},
        {"service": "", "clinician": "", "place": "FAMILY MEDICINE^^^MAIN"},
        {"service": "", "clinician": "", "sch": {8: "PCP^Visit"}},
    ],
)
def test_one_that_is_booked_belongs_to_the_task_that_it_is_for(clinic: Clinic, more: dict[str, Any]) -> None:
    outcome = clinic.send(siu("S12", at="20260306140000", start="20260308100000", **more))
    assert clinic.task().appointment == clinic.appointment("36996").id
    assert clinic.appointment("36996").task == clinic.task().id
    assert clinic.task("specialist_follow_up").appointment is None
    assert {one.operation for one in outcome.deliveries} == {"upsert_task", "upsert_appointment"}


@pytest.mark.parametrize(
    "more",
    [
        {"service": "DERM^Skin check", "clinician": "88^House^Greg"}, {"service": "PCPX^Visit", "clinician": ""},
        {"start": "20260305100000"}, {"start": "20260306110000"},
    ],
)  # fmt: skip
def test_what_is_for_something_else_or_before_the_discharge_proves_nothing(
    clinic: Clinic, more: dict[str, Any]
) -> None:
    clinic.send(siu("S12", at="20260302140000", **{"start": "20260308100000"} | more))
    clinic.send(siu("S14", at="20260308180000", status="Complete", **{"start": "20260308100000"} | more))
    assert (clinic.task().state, clinic.task().appointment) == ("open", None)


def test_one_that_was_booked_before_the_discharge_belongs_to_the_task_at_once() -> None:
    clinic = Clinic(siu("S12", at="20260302140000", start="20260308100000"))
    assert clinic.task().appointment == clinic.appointment("36996").id


def test_a_visit_that_was_kept_ends_the_task_with_what_shows_it(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(siu("S14", at="20260308110000", start="20260308100000", status="Complete"))
    task = clinic.task()
    assert (task.state, task.ended_by, task.appointment) == ("done", "engine", clinic.appointment("36996").id)
    assert task.evidence == f"appointment kept (entry {clinic._id}, S14 SCH-25)"
    assert clinic.task("specialist_follow_up").state == "open"


@pytest.mark.parametrize(
    ("at", "start", "on_its_day"),
    [
        ("20260307110000", "20260308100000", False), ("20260306120500", "20260310", False),
        ("20260308080000", "20260308100000", True), ("20260308080000", "20260308", True),
        ("20260309080000", "20260308100000", True),
    ],
)  # fmt: skip
def test_a_visit_that_was_kept_before_its_day_is_for_whoever_looks_after_the_feed(
    clinic: Clinic, at: str, start: str, on_its_day: bool
) -> None:
    outcome = clinic.send(siu("S14", at=at, start=start, status="Complete"))
    assert clinic.task().state == ("done" if on_its_day else "open")
    assert clinic.appointment("36996").status == ("kept" if on_its_day else "booked")
    assert ("appointment-kept-before-its-day:SCH-11" in outcome.deviations) is not on_its_day
    assert ("appointment_contradicted" in [item.kind for item in outcome.quality]) is not on_its_day


def test_a_visit_that_is_registered_days_ahead_under_the_appointments_number_was_not_kept(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260310100000", pv1="C7^^^MRN"))
    early = {2: "O", 3: "ELSEWHERE", 19: "C7^^^MRN", 44: "20260306150000"}
    clinic.send(adt("A04", at="20260306150000", pv1=early))
    assert clinic.appointment("36996").status == "booked"
    clinic.send(adt("A08", at="20260310095000", pv1=early | {44: "20260310095000"}))
    assert clinic.appointment("36996").status == "kept"


def test_an_arrival_is_no_visit_that_was_kept(clinic: Clinic) -> None:
    clinic.send(siu("S14", at="20260308095500", start="20260308100000", status="Started"))
    assert (clinic.task().state, clinic.task().appointment is None) == ("open", False)


@pytest.mark.parametrize(("trigger", "status"), [("S26", ""), ("S14", "Noshow"), ("S15", ""), ("S17", "")])
def test_a_kept_visit_that_is_taken_back_opens_the_task_again(clinic: Clinic, trigger: str, status: str) -> None:
    clinic.send(siu("S14", at="20260308110000", start="20260308100000", status="Complete"))
    clinic.send(siu(trigger, at="20260308180000", start="20260308100000", status=status))
    assert (clinic.task().state, clinic.task().evidence, clinic.task().appointment) == ("open", None, None)


def test_a_cancellation_brings_the_task_back_and_is_no_missed_visit(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(siu("S15", at="20260307140000", start="20260308100000"))
    assert (clinic.task().state, clinic.task().appointment, clinic.alerts()) == ("open", None, [])
    assert clinic.task().escalations == ()


def test_what_was_entered_in_error_leaves_no_missed_visit(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    assert len(clinic.alerts()) == 1
    clinic.send(siu("S17", at="20260308190000", start="20260308100000"))
    assert clinic.task().appointment is None
    assert not clinic.alerts()[0].stands


CORRECTIONS: dict[str, tuple[bytes, ...]] = {
    "entered in error": (siu("S17", at="20260308190000", start="20260308100000"),),
    "moved": (siu("S13", at="20260308190000", start="20260310100000"),),
    "booked all the same": (siu("S14", at="20260308190000", start="20260308100000", status="Booked"),),
    "cancelled": (siu("S15", at="20260308190000", start="20260308100000"),),
    "moved to a new number": (
        siu("S15", at="20260308190000", start="20260308100000"),
        siu("S13", "40001", at="20260308190005", start="20260310100000"),
    ),
}


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_missed_visit_that_turns_out_to_be_none_takes_its_alert_back_and_a_real_one_alerts_anew(
    clinic: Clinic, name: str, answered: bool
) -> None:
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    (alert,) = clinic.alerts()
    if answered:
        done = tuple(end(one, TaskState.DONE, at=clinic.now) if one is alert else one for one in clinic.chart().tasks)
        clinic.charts.add(msgspec.structs.replace(clinic.chart(), tasks=done))
    for message in CORRECTIONS[name]:
        clinic.send(message)
    assert [one.state for one in clinic.alerts()] == ["done" if answered else "retracted"]
    assert clinic.task().escalations == ()
    clinic.send(siu("S26", "7", at="20260309080000", start="20260309070000"))
    assert [one.stands for one in clinic.alerts()] == [False, True]
    assert clinic.task().escalations[0].appointment == clinic.appointment("7").id


def test_of_two_missed_visits_one_that_was_none_leaves_the_alert_and_so_does_a_deadline(clinic: Clinic) -> None:
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    clinic.send(siu("S26", "2", at="20260308181000", start="20260308110000"))
    clinic.send(siu("S17", at="20260308190000", start="20260308100000"))
    assert [one.stands for one in clinic.alerts()] == [True]
    clinic.until(clinic.task().due_at)
    clinic.send(siu("S17", "2", at="20260309190000", start="20260308110000"))
    assert [one.why for one in clinic.task().escalations] == ["deadline"]
    assert [one.stands for one in clinic.alerts()] == [True]


def test_a_missed_visit_that_was_none_takes_its_alert_back_though_a_person_has_cancelled_the_task(
    clinic: Clinic,
) -> None:
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    task = clinic.task()
    tasks = tuple(
        end(one, TaskState.CANCELLED, at=clinic.now, by="anna") if one is task else one for one in clinic.chart().tasks
    )
    clinic.charts.add(msgspec.structs.replace(clinic.chart(), tasks=tasks))
    clinic.send(siu("S12", "9", at="20260308183000", start="20260312100000", service="DERM^Skin"))
    assert [one.stands for one in clinic.alerts()] == [True]
    clinic.send(siu("S17", at="20260308190000", start="20260308100000"))
    assert [one.stands for one in clinic.alerts()] == [False]


@pytest.mark.parametrize(
    ("start", "kept"),
    [("20260306090000", False), ("20260306230000", False), ("20260306", False), ("20260307", True),
     ("20260307001000", True)],
)  # fmt: skip
@pytest.mark.parametrize("said", ["Complete", "Noshow"])
def test_after_a_discharge_of_a_mere_date_a_visit_of_that_day_says_nothing(start: str, kept: bool, said: str) -> None:
    clinic = Clinic()
    clinic.send(adt("A13", at="20260306130000", pv1=STAY))
    gone = {**STAY, 4: "E", 36: "01", 45: "20260306"}
    clinic.send(
        adt(
            "A03",
            at="20260307080000",
            pv1=gone,
            segments=(
                PCP,
                *(f"DG1|{n}||{code}^X^I10" for n, code in enumerate(("I50.9", "N18.6", "C80.1", "E11.9"), 1)),
            ),
        )
    )
    clinic.send(siu("S14", at="20260307230000", start=start, status=said))
    (task,) = [one for one in clinic.chart().tasks if one.kind == "pcp_follow_up" and one.discharge == 2]
    assert (task.state == "done") is (kept and said == "Complete")
    assert bool(task.escalations) is (kept and said == "Noshow")


def test_a_missed_visit_alerts_the_care_team_once_with_the_reason(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    assert [one.why for one in clinic.task().escalations] == ["no-show"]
    assert [one.state for one in clinic.alerts()] == ["open"]
    clinic.send(siu("S26", at="20260308190000", start="20260308100000"))
    clinic.send(siu("S12", "2", at="20260308200000", start="20260309080000"))
    clinic.send(siu("S26", "2", at="20260309180000", start="20260309080000"))
    assert [one.why for one in clinic.task().escalations if one.why == "no-show"] == ["no-show"]
    assert len(clinic.alerts()) == 1


def test_a_visit_that_is_kept_after_a_missed_one_ends_task_and_alert(clinic: Clinic) -> None:
    clinic.send(siu("S26", at="20260308180000", start="20260308100000"))
    clinic.send(siu("S14", "2", at="20260309180000", start="20260309100000", status="Complete"))
    assert clinic.task().state == "done"
    assert [one.state for one in clinic.alerts()] == ["retracted"]


# --- moved


MOVE = (
    siu("S12", at="20260306140000", start="20260308100000"),
    siu("S15", at="20260307090000", start="20260308100000"),
    siu("S13", "40001", at="20260307090005", start="20260309113000"),
)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=lambda order: "".join(map(str, order)))
def test_a_visit_that_is_moved_to_a_new_number_is_one_chain_in_any_order(
    clinic: Clinic, order: tuple[int, ...]
) -> None:
    for number in order:
        clinic.send(MOVE[number])
    old, new = clinic.appointment("36996"), clinic.appointment("40001")
    assert (old.status, old.replaced_by, new.replaces, new.status) == ("cancelled", new.id, old.id, "booked")
    assert (clinic.task().appointment, new.task, old.task) == (new.id, clinic.task().id, None)
    assert clinic.task().escalations == ()


@pytest.mark.parametrize(
    "more",
    [
        {"service": "DERM^Skin", "clinician": "88^House^Greg"}, {"service": "DERM^Skin"}, {"at": "20260312090005"},
    ],
)  # fmt: skip
def test_a_new_number_for_something_else_or_much_later_is_no_new_time(clinic: Clinic, more: dict[str, Any]) -> None:
    for message in MOVE[:2]:
        clinic.send(message)
    clinic.send(siu("S13", "40001", **{"at": "20260307090005", "start": "20260313113000"} | more))
    assert (clinic.appointment("36996").replaced_by, clinic.appointment("40001").replaces) == (None, None)


@pytest.mark.parametrize(
    ("more", "minutes", "linked"),
    [
        ({"sch": {8: "FU^Follow-up"}}, 300, True), ({"place": "CLINIC"}, 300, True), ({}, 5, True), ({}, 300, False),
        ({"place": "CLINIC", "sch": {8: "FU"}}, 300, True),
    ],
)  # fmt: skip
def test_thin_messages_are_put_together_by_type_by_place_or_when_they_follow_at_once(
    clinic: Clinic, more: dict[str, Any], minutes: int, linked: bool
) -> None:
    thin: dict[str, Any] = {"service": "", "clinician": "", "place": ""} | more
    clinic.send(siu("S12", at="20260306140000", start="20260308100000", **thin))
    clinic.send(siu("S15", at="20260307090000", start="20260308100000", **thin))
    at = datetime(2026, 3, 7, 9, tzinfo=NEW_YORK) + timedelta(minutes=minutes)
    clinic.send(siu("S13", "40001", at=at.strftime("%Y%m%d%H%M%S"), start="20260309113000", **thin))
    assert (clinic.appointment("40001").replaces is not None) is linked


def test_a_new_appointment_is_not_taken_for_the_new_time_of_a_cancelled_one(clinic: Clinic) -> None:
    for message in MOVE[:2]:
        clinic.send(message)
    clinic.send(siu("S12", "40001", at="20260307090005", start="20260309113000"))
    assert clinic.appointment("40001").replaces is None


def test_a_chain_goes_on_and_each_has_one_before_and_one_after(clinic: Clinic) -> None:
    for message in MOVE:
        clinic.send(message)
    clinic.send(siu("S15", "40001", at="20260307100000"))
    clinic.send(siu("S13", "40002", at="20260307100005", start="20260310113000"))
    links = [(one.numbers[0].value, one.replaces is not None, one.replaced_by is not None)
             for one in sorted(clinic.chart().appointments, key=lambda one: one.numbers[0].value)]  # fmt: skip
    assert links == [("36996", False, True), ("40001", True, True), ("40002", True, False)]


def test_a_move_ends_when_the_old_one_is_booked_again(clinic: Clinic) -> None:
    for message in MOVE:
        clinic.send(message)
    clinic.send(siu("S14", at="20260307110000", start="20260308100000", status="Booked"))
    assert (clinic.appointment("36996").replaced_by, clinic.appointment("40001").replaces) == (None, None)


def test_a_new_time_is_for_what_the_old_one_was_for_though_it_does_not_say_so(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000", service="", place="PCP^^^MAIN"))
    clinic.send(siu("S15", at="20260307090000", start="20260308100000", service="", place=""))
    clinic.send(siu("S13", "40001", at="20260307090005", start="20260309113000", service="", place=""))
    assert clinic.task().appointment == clinic.appointment("40001").id


# --- kept by a visit


@pytest.mark.parametrize(
    ("trigger", "pv1"),
    [
        ("A04", {2: "O", 3: "CLINIC^^^MAIN"}), ("A04", {2: "O", 3: "clinic", 7: "1^Other^Doc"}),
        ("A04", {2: "O", 3: "ELSEWHERE", 7: "77^Welby^Marcus"}), ("A01", {2: "O", 3: "CLINIC^^^MAIN"}),
    ],
)  # fmt: skip
def test_a_visit_that_is_registered_there_that_day_was_kept(clinic: Clinic, trigger: str, pv1: dict[int, str]) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    came = {19: "C7^^^MRN", 44: "20260308095000"} | pv1
    clinic.send(adt(trigger, at="20260308095000", pv1=came))
    assert (clinic.appointment("36996").status, clinic.task().state) == ("kept", "done")
    assert clinic.task().evidence == f"visit registered (entry {clinic._id}, PV1)"
    clinic.send(adt("A11", at="20260308101000", pv1=came))
    assert (clinic.appointment("36996").status, clinic.task().state) == ("booked", "open")


@pytest.mark.parametrize(
    "pv1",
    [
        {2: "O", 3: "ELSEWHERE^^^MAIN"}, {2: "O", 3: "CLINIC^^^OTHER"}, {2: "I", 3: "CLINIC^^^MAIN"},
        {2: "O", 3: "CLINIC^^^MAIN", 44: "20260309095000"}, {2: "O"},
    ],
)  # fmt: skip
def test_any_other_visit_is_not_that_one(clinic: Clinic, pv1: dict[int, str]) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(adt("A04", at="20260309095000", pv1={19: "C7^^^MRN", 44: "20260308095000"} | pv1))
    assert clinic.appointment("36996").status == "booked"


def test_a_visit_under_the_number_that_the_scheduler_gave_is_that_one(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000", pv1="C7^^^MRN"))
    clinic.send(adt("A04", at="20260309095000", pv1={2: "O", 3: "ELSEWHERE", 19: "C7^^^MRN", 44: "20260309095000"}))
    assert clinic.appointment("36996").status == "kept"


def test_the_visit_may_be_heard_of_before_its_appointment(clinic: Clinic) -> None:
    clinic.send(adt("A04", at="20260308095000", pv1={2: "O", 3: "CLINIC^^^MAIN", 19: "C7^^^MRN", 44: "20260308095000"}))
    clinic.send(siu("S12", at="20260308095500", start="20260308100000"))
    assert (clinic.appointment("36996").status, clinic.task().state) == ("kept", "done")


# --- no word


def test_a_day_that_passes_without_word_is_said_on_the_task(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    midnight = datetime(2026, 3, 9, tzinfo=NEW_YORK)
    clinic.until(midnight - timedelta(seconds=1))
    assert clinic.appointment("36996").unheard_at is None
    clinic.until(midnight)
    assert clinic.appointment("36996").unheard_at == midnight
    assert "no-word" in [one.why for one in clinic.task().escalations]
    assert clinic.task().stands
    clinic.send(siu("S14", at="20260309110000", start="20260308100000", status="Complete"))
    assert clinic.task().state == "done"


def test_a_mere_date_passes_when_it_has_passed_everywhere(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308"))
    clinic.until(datetime(2026, 3, 9, 11, 59, tzinfo=UTC))
    assert clinic.appointment("36996").unheard_at is None
    clinic.until(datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert clinic.appointment("36996").unheard_at is not None


def test_another_time_is_waited_for_anew(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.until(datetime(2026, 3, 9, 12, tzinfo=UTC))
    clinic.send(siu("S13", at="20260309140000", start="20260312100000"))
    assert clinic.appointment("36996").unheard_at is None
    clinic.until(datetime(2026, 3, 13, 12, tzinfo=UTC))
    assert clinic.appointment("36996").unheard_at is not None


@pytest.mark.parametrize(("trigger", "status"), [("S15", ""), ("S14", "Complete")])
def test_nobody_waits_for_word_of_what_is_over(clinic: Clinic, trigger: str, status: str) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(siu(trigger, at="20260308140000", start="20260308100000", status=status))
    clinic.until(datetime(2026, 3, 30, tzinfo=UTC))
    assert clinic.appointment("36996").unheard_at is None


def test_nobody_waits_for_word_when_the_task_is_not_to_be_done_any_more(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(adt("A13", at="20260306150000", pv1=STAY))
    clinic.until(datetime(2026, 3, 30, tzinfo=UTC))
    assert clinic.appointment("36996").unheard_at is None


# --- what is taken back


def test_a_discharge_that_is_cancelled_takes_the_task_and_leaves_the_appointment(clinic: Clinic) -> None:
    clinic.send(siu("S12", at="20260306140000", start="20260308100000"))
    clinic.send(adt("A13", at="20260306150000", pv1=STAY))
    assert (clinic.task().state, clinic.appointment("36996").status) == ("retracted", "booked")
    assert clinic.appointment("36996").task is None


# --- appointed


PATIENT = Patient(identifiers=(Identifier(value="1", authority="M"),), pcp=Provider(id="77", family="Welby", given="M"))


@pytest.mark.parametrize(
    ("words", "text", "fits"),
    [
        (["primary care"], "Primary  Care visit", True), (["primary care"], "primary-care", True),
        (["primary care"], "primary medical care", False), (["gp"], "GP", True), (["gp"], "GPX", False),
        (["physio*"], "Physiotherapy", True), (["physio*"], "a physio", True), (["physio*"], "neurophysio", False),
        (["a/b"], "A B clinic", True), (["x.*"], "xyz", True), (["x.*"], "ax", False),
    ],
)  # fmt: skip
def test_a_word_is_whole_and_in_any_case(words: list[str], text: str, fits: bool) -> None:
    appointed = Appointed({"k": AppointedAs(words=tuple(words))})
    assert appointed.fits("k", PATIENT, clinician=None, texts=[text]) is fits
    assert not appointed.fits("other", PATIENT, clinician=None, texts=[text])


@pytest.mark.parametrize(
    ("clinician", "fits"),
    [
        (Provider(id="77"), True), (Provider(id="78", family="Welby", given="M"), False),
        (Provider(family="WELBY", given="m"), True), (Provider(family="Welby"), False), (None, False),
    ],
)  # fmt: skip
def test_the_patients_own_provider_is_known_by_id_or_by_both_names(clinician: Provider | None, fits: bool) -> None:
    appointed = Appointed({"k": AppointedAs(clinician="pcp")})
    assert appointed.fits("k", PATIENT, clinician=clinician, texts=[]) is fits


def answer(clinic: Clinic, state: TaskState = TaskState.DONE, by: str = "dr") -> None:
    after = tuple(
        end(one, state, at=clinic.now, by=by) if one.kind == "pcp_alert" and one.stands else one
        for one in clinic.chart().tasks
    )
    clinic.charts.add(msgspec.structs.replace(clinic.chart(), tasks=after))


@pytest.mark.parametrize("state", [TaskState.DONE, TaskState.CANCELLED])
def test_a_second_missed_visit_raises_an_alert_anew_when_the_first_was_answered(
    clinic: Clinic, state: TaskState
) -> None:
    clinic.send(siu("S26", "1", at="20260307110000", start="20260307100000"))
    clinic.send(siu("S26", "2", at="20260307120000", start="20260307110000"))
    answer(clinic, state)
    clinic.send(siu("S12", "3", at="20260307130000", start="20260308100000"))
    clinic.send(siu("S26", "1", at="20260307140000", start="20260307100000"))
    assert [one.stands for one in clinic.alerts()] == [False], "what was missed before the answer is answered"
    clinic.send(siu("S26", "3", at="20260308110000", start="20260308100000"))
    assert [one.stands for one in clinic.alerts()] == [False, True]
    clinic.send(siu("S17", "3", at="20260308120000", start="20260308100000"))
    clinic.send(siu("S17", "1", at="20260308130000", start="20260307100000"))
    assert [one.appointment for one in clinic.task().escalations] == [clinic.appointment("2").id]
    clinic.send(siu("S17", "2", at="20260308140000", start="20260307110000"))
    assert [one.stands for one in clinic.alerts()] == [False, False]


def test_a_deadline_after_an_alert_that_was_answered_raises_one_anew(clinic: Clinic) -> None:
    clinic.send(siu("S26", "1", at="20260307110000", start="20260307100000"))
    answer(clinic)
    clinic.until(clinic.task().due_at)
    assert [one.stands for one in clinic.alerts()] == [False, True]


def test_a_visit_that_was_said_to_be_kept_before_its_day_is_kept_or_missed_by_what_comes_on_its_day(
    clinic: Clinic,
) -> None:
    early = siu("S14", at="20260307110000", start="20260308100000", status="Complete")
    clinic.send(early)
    clinic.send(siu("S26", at="20260308110000", start="20260308100000"))
    assert [one.stands for one in clinic.alerts()] == [True]
    clinic.send(siu("S14", at="20260308120000", start="20260308100000", status="Complete"))
    assert clinic.task().state == "done"


def test_of_a_visit_that_was_said_to_be_kept_before_its_day_the_task_says_when_nothing_more_came(
    clinic: Clinic,
) -> None:
    clinic.send(siu("S14", at="20260306140000", start="20260308100000", status="Complete"))
    clinic.until(datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert "no-word" in [one.why for one in clinic.task().escalations]
