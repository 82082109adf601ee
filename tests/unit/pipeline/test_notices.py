"""What the heart plans to say to people, and what takes it back."""

from __future__ import annotations

import msgspec
import pytest
from connector_deliveries import NOW as QUEUED_AT
from connector_deliveries import delivery, queued
from heart import NOW, Heart, adt, merge

from engine.care.pages import called_off, raised
from engine.connectors.remedies import remedy
from engine.domain.appointment import Appointment, RequestState
from engine.domain.cause import TaskDone, written
from engine.domain.chart import Chart
from engine.domain.delivery import Gone, Ground, Notice, Operation
from engine.domain.encounter import EncounterStatus
from engine.domain.message import EntryKind
from engine.domain.outcome import Outcome
from engine.domain.page import Policy
from engine.domain.task import TaskState
from engine.domain.text import Text, TextState
from engine.pipeline import notices
from engine.pipeline.admit import GO, RULES, Known, Never, NotBefore, admit
from engine.pipeline.grounds import GROUNDS, Planned, fallen, newly
from engine.pipeline.process import decide, prepare

HOME = {36: "01", 45: "20260306150000"}


@pytest.fixture
def heart() -> Heart:
    """A patient who has gone home, with a plan."""
    made = Heart()
    made.send(adt("A01", pv1={3: "W^1^A"}))
    made.send(adt("A03", at="20260306150000", pv1=HOME))
    return made


def grounds(outcome: Outcome) -> set[str]:
    """Kinds of what an entry took away, or the code when it is everything."""
    return {
        ground.kind if one.grounds is not None else one.code
        for one in outcome.fallen
        for ground in one.grounds or (Ground(kind="", key=""),)
    }


def open_tasks(chart: Chart) -> set[str]:
    return {task.id for task in chart.tasks if task.state is TaskState.OPEN}


def done(heart: Heart) -> Outcome:
    chart = heart.chart()
    cause = TaskDone(actor="anna", chart_id=chart.id, task=chart.tasks[0].id)
    entry = msgspec.structs.replace(heart.entry(written(cause)), channel=EntryKind.ACT.lane)
    outcome = decide(prepare(entry, None), heart.channel, heart.charts, heart.now)
    for changed in outcome.charts:
        heart.charts.add(changed)
    return outcome


# --- what falls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "takes"),
    [
        (adt("A13", at="20260306160000", pv1={}), {"task", "discharge"}),  # the discharge is cancelled
        (adt("A08", at="20260306160000", pv1=HOME | {2: "O"}), {"task"}),  # no inpatient after all: no plan
        (adt("A01", at="20260306170000", pv1={19: "V2^^^MRN"}), {"task"}),  # admitted again: the plan is suspended
        (adt("A31", at="20260306160000", pid={30: "Y"}), {Gone.DECEASED}),
        (adt("A31", at="20260306160000", pid={30: "Y", 29: "20260306125000"}), {Gone.DECEASED}),
        (adt("A08", at="20260306160000", pv1=HOME, pid={13: "^^^^^518^5550100"}), set()),  # another phone
        (adt("A04", at="20260306160000", pv1={2: "O", 19: "V3^^^MRN"}), set()),  # a visit beside it
        (adt("A03", at="20260306150000", pv1=HOME), set()),  # the same again
    ],
    ids=["A13", "class", "readmitted", "death", "death with its time", "phone", "visit", "repeated"],
)
def test_what_an_event_takes_away(heart: Heart, payload: bytes, takes: set[str]) -> None:
    assert grounds(heart.send(payload)) == takes


def test_a_task_that_is_done_falls_alone(heart: Heart) -> None:
    first = heart.chart().tasks[0].id
    (one,) = done(heart).fallen
    assert (one.code, one.chart_id) == (Gone.GROUND, heart.chart().id)
    assert one.grounds == (Ground(kind="task", key=first),)


def test_a_second_discharge_is_another_ground(heart: Heart) -> None:
    before = heart.chart()
    heart.send(adt("A13", at="20260306160000", pv1={}))
    heart.send(adt("A03", at="20260306170000", pv1=HOME | {45: "20260306170000"}))
    (again,) = newly("discharge", before, heart.chart())
    (was,) = newly("discharge", None, before)
    assert again[0] != was[0]


def test_who_is_merged_away_loses_all_and_the_survivor_nothing(heart: Heart) -> None:
    heart.send(adt("A01", at="20260306151000", pid3="7^^^MRN^MR", pv1={19: "V7^^^MRN"}))
    heart.send(adt("A03", at="20260306152000", pid3="7^^^MRN^MR", pv1={19: "V7^^^MRN"} | HOME))
    other, survivor = heart.chart("7"), heart.chart()
    outcome = heart.send(merge("558181838", "7"))
    assert {(one.chart_id, one.code) for one in outcome.fallen if one.grounds is None} == {(other.id, Gone.MERGED)}
    left = [one for one in outcome.fallen if one.grounds is not None]
    assert all(one.chart_id == survivor.id for one in left)
    assert {ground.key for one in left for ground in one.grounds or ()} == open_tasks(survivor) - open_tasks(
        heart.chart()
    )


def test_what_moved_to_another_patient_is_gone_from_the_first(heart: Heart) -> None:
    before = heart.chart()
    after = msgspec.structs.replace(before, tasks=(), encounters=())
    one = fallen(before, after)
    assert one is not None
    assert {ground.kind for ground in one.grounds or ()} == {"task", "discharge"}


@pytest.mark.parametrize("kind", GROUNDS)
def test_what_does_not_stand_begins_nothing_and_can_not_fall(heart: Heart, kind: str) -> None:
    page = raised("t1", "on_call_page", Policy(ladder="on-call", version="1"), heart.now)
    asked = Appointment(id="a1", request=RequestState.ASKED)
    text = Text(
        id="x1", series="s", series_version="1", step="day-0", encounter="MRN:V1", planned_for=NOW, due_at=None,
        useful_until=NOW, state=TextState.QUEUED, tries=1,
    )  # fmt: skip
    chart = msgspec.structs.replace(heart.chart(), pages=(page,), appointments=(asked,), texts=(text,))
    assert list(newly(kind, None, chart))
    assert list(newly(kind, chart, chart)) == []
    over = msgspec.structs.replace(
        chart,
        tasks=tuple(msgspec.structs.replace(task, state=TaskState.DONE) for task in chart.tasks),
        encounters=tuple(msgspec.structs.replace(one, status=EncounterStatus.ACTIVE) for one in chart.encounters),
        pages=(called_off(page, "over", heart.now),),
        appointments=(msgspec.structs.replace(asked, request=RequestState.DROPPED),),
        texts=(msgspec.structs.replace(text, state=TextState.RETRACTED),),
    )
    assert list(newly(kind, None, over)) == []
    assert (
        fallen(over, msgspec.structs.replace(over, tasks=(), encounters=(), pages=(), appointments=(), texts=()))
        is None
    )


def test_nothing_begins_for_the_dead(heart: Heart) -> None:
    chart = heart.chart()
    dead = msgspec.structs.replace(chart, patient=msgspec.structs.replace(chart.patient, deceased=True))
    assert [list(newly(kind, None, dead)) for kind in GROUNDS] == [[]] * len(GROUNDS)


# --- what is planned -------------------------------------------------------------------------------------------------


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says something at each discharge."""

    def plan(before, after, channel, now):  # type: ignore[no-untyped-def]
        for ground, _stay in newly("discharge", before, after):
            notice = Notice(
                id=channel.key("text", ground.key)[:32], patient_key=after.patient.key, to="x", body="y", ground=ground
            )
            yield Planned(Operation.SEND_TEXT, notice)

    monkeypatch.setattr(notices, "PLANNERS", (plan,))


def texts(outcome: Outcome) -> list[str]:
    return [one.destination for one in outcome.deliveries if one.operation is Operation.SEND_TEXT]


@pytest.mark.parametrize("takers", [(), ("sms",), ("sms", "second")])
def test_a_planned_notice_goes_to_each_destination_that_takes_its_kind(planner: None, takers: tuple[str, ...]) -> None:
    heart = Heart(deliver=[{"to": name, "what": ["text"]} for name in takers])
    heart.send(adt("A01", pv1={3: "W^1^A"}))
    outcome = heart.send(adt("A03", at="20260306150000", pv1=HOME))
    assert texts(outcome) == list(takers)
    assert "text" in outcome.changed
    assert len({one.idempotency_key for one in outcome.deliveries}) == len(outcome.deliveries)
    assert texts(heart.send(adt("A08", at="20260306160000", pv1=HOME, pid={8: "M"}))) == []


def test_a_notice_stands_in_no_line_of_its_patient(planner: None) -> None:
    heart = Heart(deliver=[{"to": "both", "what": ["patient", "task", "text"]}])
    heart.send(adt("A01", pv1={3: "W^1^A"}))
    outcome = heart.send(adt("A03", at="20260306150000", pv1=HOME))
    lines = {one.operation.what: one.ordering_key for one in outcome.deliveries}
    assert lines["text"] != lines["task"]
    assert {one.chart_id for one in outcome.deliveries} == {heart.chart().id}


@pytest.mark.parametrize("mode", ["shadow", "paused"])
def test_a_channel_that_delivers_nothing_says_nothing_to_people(planner: None, mode: str) -> None:
    heart = Heart(deliver=[{"to": "sms", "what": ["text"]}], mode=mode)
    heart.send(adt("A01", pv1={3: "W^1^A"}))
    assert texts(heart.send(adt("A03", at="20260306150000", pv1=HOME))) == []


# --- whether it still goes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", Gone)
def test_a_notice_whose_ground_has_gone_is_not_sent(gone: Gone) -> None:
    said = Notice(id="n", patient_key="MRN:1", to="x", body="y")
    text = queued(delivery(Operation.SEND_TEXT, said.encoded()))
    assert admit(RULES, text, Known(gone=gone), QUEUED_AT) == Never(code=gone, final=gone.final)
    of_chart = msgspec.structs.replace(said, ground=Ground(kind="text", key="x#1"))  # it is decided on anew
    again = queued(delivery(Operation.SEND_TEXT, of_chart.encoded()))
    assert admit(RULES, again, Known(gone=gone), QUEUED_AT) == Never(code=gone, final=True)
    assert remedy(gone)
    released = Known(gone=gone, released=frozenset({gone.value}))
    assert (admit(RULES, text, released, QUEUED_AT) == GO) == (gone is Gone.MERGED)


def test_a_notice_is_not_sent_before_its_time() -> None:
    said = Notice(id="n", patient_key="MRN:1", to="x", body="y", not_before=NOW)
    text = queued(delivery(Operation.SEND_TEXT, said.encoded()))
    assert admit(RULES, text, Known(), NOW) == GO
    assert admit(RULES, text, Known(), QUEUED_AT) == NotBefore(at=NOW, code="not-yet")
    assert remedy("not-yet")
