"""Requests for appointments: they follow their tasks, are written as SRM, answered by SRR or SIU, and withdrawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from heart import adt
from peers.scheduling_system import SchedulingSystem
from scheduling import siu
from test_appointments_and_tasks import STAY, Clinic

from engine.connectors.requests import Answer, compile_requests
from engine.domain.appointment import Appointment
from engine.domain.cause import COURIER, RequestSettled, written
from engine.domain.delivery import Delivery, Operation
from engine.domain.message import Entry, Summary
from engine.domain.outcome import Outcome
from engine.errors import SettingsError
from engine.hl7v2.message import Message
from engine.pipeline.process import process
from engine.yamlfile import parse

SHIPPED = Path(__file__).parents[3] / "mappings/destinations/scheduling.yaml"
MAP = compile_requests(parse(SHIPPED.read_text(), "scheduling.yaml"), zone=ZoneInfo("America/New_York"))


class Asking(Clinic):
    """The clinic with a scheduling system: what goes out is kept, until `work_off` lets it answer."""

    takes = ("task", "appointment", "request")

    def __init__(self, system: SchedulingSystem | None = None, *before: bytes, **changes: Any) -> None:
        self.out: list[Delivery] = []
        self.system = system or SchedulingSystem()
        super().__init__(*before, **changes)

    def work(self, entry: Entry) -> Outcome:
        outcome = super().work(entry)
        self.out += [one for one in outcome.deliveries if one.operation.what == "request"]
        return outcome

    def request(self, kind: str = "pcp_follow_up") -> Appointment:
        [found] = [one for one in self.chart().appointments if one.requested_for == self.task(kind).id]
        return found

    def message(self, delivery: Delivery) -> Message:
        payload = MAP.write(delivery, self.now)
        assert payload is not None
        return Message.parse(payload)

    def work_off(self) -> None:
        """What is on its way arrives, and is answered."""
        waiting, self.out = self.out, []
        for delivery in waiting:
            payload = MAP.write(delivery, self.now)
            assert payload is not None
            answer = self.system.answer(payload)
            if delivery.operation is Operation.REQUEST_APPOINTMENT:
                self.settle(delivery, answer)

    def settle(self, delivery: Delivery, answer: bytes | None, *, result: str | None = None) -> None:
        said = Answer.of(answer) if answer is not None else Answer()
        refused = answer is not None and b"MSA|A" in answer and b"MSA|AA" not in answer
        cause = RequestSettled(
            actor=COURIER, chart_id=self.chart().id, appointment=delivery.content.about[0] or "", delivery=self._id,
            result=result or (RequestSettled.REFUSED if refused else RequestSettled.TAKEN),
            detail="answer-ae-204" if refused else None, filler=said.filler, filler_authority=said.authority,
            status=said.status, starts_at=said.starts_at,
        )  # fmt: skip
        self._id += 1
        entry = Entry(
            id=self._id, channel="@reply", peer="", received_at=self.now, payload=written(cause), summary=Summary()
        )
        outcome = process(entry, self.channel, self.charts, self.now)
        self.out += [one for one in outcome.deliveries if one.operation.what == "request"]
        for chart in outcome.charts:
            self.charts.add(chart)


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_each_follow_up_for_which_nothing_is_booked_has_one_request(asking: Asking) -> None:
    kinds = {task.kind for task in asking.chart().tasks}
    wanted = kinds & {"pcp_follow_up", "specialist_follow_up", "physiotherapy", "pharmacy_consult"}
    assert len(wanted) >= 2
    assert len(asking.out) == len(wanted)
    request = asking.request()
    assert (request.status, request.request, request.task) == ("requested", "asked", asking.task().id)
    assert asking.task().appointment == request.id
    asking.send(adt("A08", at="20260306130000", pv1={**STAY, 36: "01", 45: "20260306120000"}))
    assert len(asking.out) == len(wanted)


def test_a_follow_up_that_is_booked_is_not_asked_for() -> None:
    asking = Asking(None, siu("S12", at="20260302140000", start="20260308100000"))
    assert asking.task().appointment == asking.appointment("36996").id
    assert asking.task().id not in {one.requested_for for one in asking.chart().appointments}
    assert {one.requested_for for one in asking.chart().appointments} - {None}


def test_without_a_scheduling_system_it_is_a_task_with_a_window() -> None:
    clinic = Clinic()
    assert clinic.chart().appointments == ()
    assert clinic.task().due_at is not None


def test_the_request_says_who_what_until_when_and_no_more(asking: Asking) -> None:
    [delivery] = [one for one in asking.out if one.content.about[0] == asking.request().id]
    message = asking.message(delivery)
    assert message.header.type == "SRM^S01"
    got = {path: message.get(path) for path in (
        "ARQ-1.1", "ARQ-1.2", "ARQ-9", "ARQ-11.1", "ARQ-11.2", "PID-3.1", "PID-3.4", "PID-5.1", "PID-7", "AIS-3.1",
        "AIP-3.1", "MSH-12")}  # fmt: skip
    assert got == {
        "ARQ-1.1": asking.request().numbers[0].value, "ARQ-1.2": "HANDOFF", "ARQ-9": "30",
        "ARQ-11.1": "20260306120001-0500", "ARQ-11.2": "20260309120000-0400", "PID-3.1": "558181838",
        "PID-3.4": "MRN", "PID-5.1": "Doe", "PID-7": "19480312", "AIS-3.1": "PCP", "AIP-3.1": "77", "MSH-12": "2.5.1",
    }  # fmt: skip
    assert b"I50" not in (MAP.write(delivery, asking.now) or b"")
    again = asking.message(delivery)
    assert again.get("MSH-10") == message.get("MSH-10")
    assert len(message.get("MSH-10") or "") <= 20


def test_its_answer_makes_it_an_appointment_of_the_scheduling_system(asking: Asking) -> None:
    asking.work_off()
    found = asking.request()
    assert found.starts_at is not None
    assert (found.status, found.request, found.told_by) == ("booked", "confirmed", "SRR")
    assert found.starts_at.text.startswith("2026-03-08T12:00:01")
    booked = asking.system.booked[found.numbers[0].value]
    assert found.numbers[1].value == booked.filler
    asking.send(siu("S14", booked.filler, at="20260308130000", start="20260308120000", status="Complete", service=""))
    assert (asking.task().state, asking.request().status) == ("done", "kept")


@pytest.mark.parametrize("name", ["standard", "epic"])
def test_a_message_with_our_number_confirms_it_whatever_the_map_says_of_numbers(name: str) -> None:
    asking = Asking(SchedulingSystem(plain=True), appointments=name)
    asking.work_off()
    assert (asking.request().request, asking.request().status) == ("sent", "requested")
    placer = asking.request().numbers[0].value
    asking.system.book(placer, "20260308093000")
    asking.send(asking.system.notice(placer, "S12", at="20260306150000"))
    found = asking.request()
    assert (found.status, found.request, [one.value for one in found.numbers]) == (
        "booked", "confirmed", [placer, asking.system.booked[placer].filler],
    )  # fmt: skip


def test_a_request_that_is_pending_waits_for_its_time() -> None:
    asking = Asking(SchedulingSystem(hours_ahead=None))
    asking.work_off()
    assert (asking.request().status, asking.request().request, asking.request().starts_at) == (
        "requested", "confirmed", None,
    )  # fmt: skip
    placer = asking.request().numbers[0].value
    asking.system.book(placer, "20260308093000")
    asking.send(asking.system.notice(placer, "S13", at="20260306150000"))
    assert asking.request().status == "booked"


def test_a_refused_request_brings_the_task_back_and_is_not_repeated() -> None:
    asking = Asking(SchedulingSystem(refuse=["204"] * 9))
    asking.work_off()
    assert (asking.request().request, asking.request().status) == ("refused", "cancelled")
    assert asking.request().told_by == "answer-ae-204"
    assert (asking.task().state, asking.task().appointment) == ("open", None)
    assert "request-refused" in [one.why for one in asking.task().escalations]
    assert asking.out == []


def test_a_visit_that_is_cancelled_brings_the_task_back_and_people_see_to_it(asking: Asking) -> None:
    asking.work_off()
    placer = asking.request().numbers[0].value
    asking.send(asking.system.notice(placer, "S15", at="20260307150000"))
    assert (asking.request().status, asking.task().state, asking.task().appointment) == ("cancelled", "open", None)
    assert asking.out == []


def test_a_request_whose_visit_is_moved_to_another_number_is_followed(asking: Asking) -> None:
    asking.work_off()
    placer = asking.request().numbers[0].value
    asking.send(asking.system.notice(placer, "S15", at="20260307150000"))
    asking.send(siu("S13", "F-77", at="20260307150005", start="20260309093000", service="PCP", clinician=""))
    new = asking.appointment("F-77")
    assert (new.replaces, asking.task().appointment) == (asking.request().id, new.id)


def test_a_task_that_is_taken_back_withdraws_what_was_sent(asking: Asking) -> None:
    asking.work_off()
    placer = asking.request().numbers[0].value
    asking.send(adt("A13", at="20260306150000", pv1=STAY))
    assert (asking.request().request, asking.request().status) == ("withdrawn", "cancelled")
    cancels = [asking.message(one) for one in asking.out]
    assert {one.header.type for one in cancels} == {"SRM^S04"}
    asking.work_off()
    assert {one.status for one in asking.system.booked.values()} == {"Cancelled"}
    assert placer in asking.system.booked
    assert asking.out == []


def test_what_was_not_sent_yet_does_not_go_out_and_is_not_cancelled(asking: Asking) -> None:
    waiting, asking.out = asking.out, []
    outcome = asking.send(adt("A13", at="20260306150000", pv1=STAY))
    assert asking.request().request == "dropped"
    assert asking.out == []
    [fallen] = outcome.fallen
    assert {ground.key for ground in fallen.grounds or () if ground.kind == "request"} == {
        one.content.about[0] for one in waiting
    }
    for one in waiting:
        asking.settle(one, None, result=RequestSettled.REFUSED)
    assert (asking.request().request, asking.out) == ("dropped", [])


def test_what_went_out_all_the_same_is_cancelled_when_that_is_known(asking: Asking) -> None:
    waiting, asking.out = asking.out, []
    asking.send(adt("A13", at="20260306150000", pv1=STAY))
    for one in waiting:
        payload = MAP.write(one, asking.now)
        assert payload is not None
        asking.settle(one, asking.system.answer(payload))
    assert asking.request().request == "withdrawn"
    asking.work_off()
    assert {one.status for one in asking.system.booked.values()} == {"Cancelled"}


def test_a_death_withdraws_all_requests(asking: Asking) -> None:
    asking.work_off()
    asking.send(adt("A31", at="20260306150000", pid={30: "Y"}))
    assert {one.request for one in asking.chart().appointments} == {"withdrawn"}
    asking.work_off()
    assert {one.status for one in asking.system.booked.values()} == {"Cancelled"}


def test_nobody_knows_what_became_of_a_request_until_a_person_or_the_system_says(asking: Asking) -> None:
    for one in asking.out:
        asking.settle(one, None, result=RequestSettled.UNKNOWN)
    assert asking.request().request == "asked"
    payload = MAP.write(asking.out[0], asking.now)
    assert payload is not None
    asking.system.answer(payload)
    placer = next(iter(asking.system.booked))
    asking.send(asking.system.notice(placer, "S12", at="20260306150000"))
    assert "confirmed" in {one.request for one in asking.chart().appointments}


def test_a_number_is_the_same_in_every_replay_and_another_for_another_task() -> None:
    numbers = [[one.numbers[0].value for one in Asking().chart().appointments] for _ in range(2)]
    assert numbers[0] == numbers[1]
    assert len(set(numbers[0])) == len(numbers[0])
    assert all(len(one) <= 20 for one in numbers[0])


# --- the file


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as caught:
        compile_requests(parse(text, "x.yaml"), zone=ZoneInfo("UTC"))
    return [(one.key, one.message) for one in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ('"1.1": {from: "appointment.numbers[0].value"}', '"1.1": {from: appointment.nummer}', "fields", "no value"),
        ("needs: appointment.clinician.family", "needs: appointment.clinican.family", "needs", "no value"),
        ("on: cancel_appointment", "on: request_appointment", "on", "another message"),
        ("type: SRM^S04^SRM_S01", "type: SRM", "type", ""),
        ('"9": {from: minutes}', '"9": {from: minutes, value: x}', "9", "exactly one"),
        ('"5": {value: SCHEDULING}', '"2": {value: x}', "2", "delimiters"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(old: str, new: str, key: str, words: str) -> None:
    found = problems(SHIPPED.read_text().replace(old, new, 1))
    assert any(key in where and words in what for where, what in found)


@pytest.mark.parametrize(
    ("value", "wire"), [("O'Neil|Smith", "O'Neil\\F\\Smith"), ("A^B&C", "A\\S\\B\\T\\C"), ("Ü", "Ü"), ("a\rb", None)]
)
def test_no_value_breaks_out_of_its_place(asking: Asking, value: str, wire: str | None) -> None:
    delivery = asking.out[0]
    payload = delivery.payload.replace(b'"family":"Doe"', b'"family":' + msgspec.json.encode(value))
    text = (MAP.write(msgspec.structs.replace(delivery, payload=payload), asking.now) or b"").decode()
    pid = next(line for line in text.split("\r") if line.startswith("PID"))
    assert wire is None or wire in pid
    assert Message.parse(text.encode()).get("PID-5.2") == "Jane"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"MSH|^~\\&|||||||SRR^S01|1|P|2.5\rMSA|AA|1\r", Answer()), (b"", Answer()), (b"rubbish", Answer()),
        (b"MSH|^~\\&|||||||SRR^S01|1|P|2.5\rMSA|AA|1\rSCH|P|F^A|||||||||^^^20260308||||||||||||||Booked\r",
         Answer(filler="F", authority="A", status="Booked", starts_at="20260308")),
    ],
)  # fmt: skip
def test_an_answer_says_what_it_says(answer: bytes, said: Answer) -> None:
    assert Answer.of(answer) == said
    assert Answer.read(said.written()) == said


def test_a_request_on_its_way_whose_stay_becomes_another_patients_comes_back_to_people(asking: Asking) -> None:
    mrg = ("MRG|558181838^^^MRN^MR||||V1^^^MRN",)
    asking.send(adt("A45", at="20260306130000", pid3="7^^^MRN^MR", pv1={}, segments=mrg))
    chart = asking.chart("7")
    assert {(one.request, one.told_by) for one in chart.appointments} == {("refused", "patient-moved")}
    asked_for = {one.requested_for for one in chart.appointments}
    (told,) = {tuple(step.why for step in task.escalations) for task in chart.tasks if task.id in asked_for}
    assert told == ("request-refused",)
    assert asking.chart().appointments == ()
