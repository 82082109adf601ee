"""A result that came closes the task that waits for it, and no other result does."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from heart import ROOT, Heart, adt, key

from engine.care.protocol import load_protocol
from engine.domain.outcome import Outcome
from engine.domain.task import Task, TaskState
from engine.errors import SettingsError
from engine.pipeline.channel import Planner
from engine.yamlfile import parse

PROTOCOL = ROOT / "mappings" / "protocols" / "post-discharge.yaml"
STEP = """
      - kind: result_follow_up
        due: {days: 7}
        assignee: care_coordinator
        reason: The result that was wanted after the discharge
"""
AWAITED = "results:\n  result_follow_up:\n    - {codes: ['6301-6', '38875-1'], within: {days: 10}}\nlate:"


def protocol(awaited: str = AWAITED) -> str:
    text = PROTOCOL.read_text(encoding="utf-8")
    return text.replace("\nlate:", f"\n{awaited}", 1).replace("    every:\n", f"    every:{STEP}", 1)


class Lab(Heart):
    """A patient who went home on 2026-03-06 at 10:00."""

    def __init__(self, awaited: str = AWAITED) -> None:
        super().__init__()
        planner = Planner(load_protocol(parse(protocol(awaited), PROTOCOL.name)), "lace")
        name = planner.protocol.name
        self.channel = dataclasses.replace(self.channel, planner=planner, planners={name: planner}, former={})
        stay = {4: "E", 44: "20260220120000"}
        self.now = datetime(2026, 3, 6, 15, tzinfo=UTC)
        self.send(adt("A01", at="20260220120000", pv1=stay))
        self.send(adt("A03", at="20260306100000", pv1=stay | {36: "01", 45: "20260306100000"}))

    def result(
        self,
        code: str = "6301-6",
        *,
        at: str = "20260309120000",
        taken: str = "20260309090000",
        state: str = "F",
        whole: str = "F",
        order: str = "O1",
        panel: str = "INR^INR^L",
        pid3: str = "558181838^^^MRN^MR",
    ) -> Outcome:
        self.now = max(self.now, datetime.strptime(at, "%Y%m%d%H%M%S").replace(tzinfo=UTC) + timedelta(hours=5))
        fields = {1: "1", 3: order, 4: panel, 7: taken, 25: whole}
        obr = "|".join(["OBR", *(fields.get(number, "") for number in range(1, 26))])
        observed = f"OBX|1|NM|{code}^INR^LN||2.4||||||{state}"
        lines = [
            f"MSH|^~\\&|LAB|MAIN|HANDOFF|H|{at}||ORU^R01^ORU_R01|{key(at, code, state)[:12]}|P|2.5.1",
            f"PID|1||{pid3}||Doe^Jane||19480312|F",
            obr,
            observed,
            "",
        ]
        return self.send("\r".join(lines).encode())

    @property
    def waits(self) -> Task:
        (task,) = [task for task in self.chart().tasks if task.kind == "result_follow_up"]
        return task


@pytest.mark.parametrize("state", ["F", "C", "f"])
def test_a_result_that_a_task_waits_for_closes_it_with_entry_and_fields_as_evidence(state: str) -> None:
    lab = Lab()
    others = [task for task in lab.chart().tasks if task.kind != "result_follow_up"]
    outcome = lab.result(state=state)
    assert (lab.waits.state, lab.waits.ended_by) == (TaskState.DONE, "engine")
    assert lab.waits.evidence == f"entry {outcome.entry_id}: OBX-3, OBX-11"
    assert [task for task in lab.chart().tasks if task.kind != "result_follow_up"] == others
    assert "task-done" in {effect.kind for effect in outcome.effects}


@pytest.mark.parametrize(
    "more",
    [
        {"code": "718-7"}, {"state": "P"}, {"state": "I"}, {"state": "D"}, {"state": "", "whole": "P"},
        {"state": "", "whole": ""},
        {"taken": "20260306090000"}, {"taken": "20270309090000"}, {"taken": "20260311"}, {"taken": "20260306"},
        {"taken": ""},
        {"at": "20260306095900", "taken": "20260306095000"},
        {"at": "20260317120000", "taken": "20260317090000"},
    ],
)  # fmt: skip
def test_any_other_result_closes_nothing(more: dict[str, str]) -> None:
    lab = Lab()
    lab.result(**more)
    assert lab.waits.state is TaskState.OPEN


@pytest.mark.parametrize(("whole", "closes"), [("F", True), ("P", False), ("", True), ("A", False)])
def test_an_order_is_done_when_it_says_so_as_a_whole(whole: str, closes: bool) -> None:
    lab = Lab(AWAITED.replace("6301-6", "INR"))
    lab.result(whole=whole)
    assert (lab.waits.state is TaskState.DONE) is closes


def test_what_was_taken_before_the_discharge_counts_where_the_protocol_waits_for_it() -> None:
    lab = Lab(AWAITED.replace("within", "pending: true, within"))
    lab.result(at="20260306095900", taken="20260305090000")
    assert lab.waits.stands
    lab.result(taken="20260305090000")
    assert lab.waits.state is TaskState.DONE


@pytest.mark.parametrize("state", ["D", "W", "X"])
def test_a_result_that_was_none_opens_the_task_again_and_that_of_another_order_does_not(state: str) -> None:
    lab = Lab()
    before = lab.waits
    lab.result()
    lab.result(state=state, at="20260309130000", order="O2")
    assert lab.waits.state is TaskState.DONE
    lab.result(state=state, at="20260309140000")
    assert msgspec.structs.replace(lab.waits, disproved={}) == before


def test_a_result_of_a_patient_whom_nobody_has_heard_of_makes_no_chart() -> None:
    lab = Lab()
    outcome = lab.result(pid3="999^^^MRN^MR")
    assert outcome.charts == ()
    assert outcome.reason is not None
    assert "nobody has heard of" in outcome.reason


def test_where_no_task_waits_for_results_they_leave_the_charts_alone() -> None:
    lab = Lab("late:")
    before = lab.chart()
    outcome = lab.result()
    assert outcome.reason == "recorded: this event leaves the charts alone"
    assert lab.chart() is before


def test_results_of_no_kind_of_task_are_refused() -> None:
    with pytest.raises(SettingsError, match="no such kind of task"):
        load_protocol(parse(protocol(AWAITED.replace("  result_follow_up:", "  result_folow_up:", 1)), PROTOCOL.name))


PANEL = AWAITED.replace("6301-6", "INR")
W = "20260309130000"


@pytest.mark.parametrize("whole", ["F", "C", ""])
@pytest.mark.parametrize("state", ["W", "X", "D"])
def test_an_order_of_which_nothing_was_observed_closes_nothing_whatever_it_says_of_itself(
    state: str, whole: str
) -> None:
    lab = Lab(PANEL)
    lab.result(state=state, whole=whole)
    assert lab.waits.state is TaskState.OPEN


@pytest.mark.parametrize("awaited", [AWAITED, PANEL])
@pytest.mark.parametrize("order", ["O1", ""])
@pytest.mark.parametrize("state", ["W", "X", "D"])
def test_what_was_withdrawn_shows_nothing_whichever_comes_first_and_only_what_was_written_later_does(
    state: str, order: str, awaited: str
) -> None:
    lab = Lab(awaited)
    lab.result()
    assert lab.waits.state is TaskState.DONE
    lab.result(state=state, order=order, at=W)
    assert lab.waits.state is TaskState.OPEN
    lab.result()
    assert lab.waits.state is TaskState.OPEN, "the first one sent again"
    lab.result(state="C", at="20260309140000")
    assert lab.waits.state is TaskState.DONE
    late = Lab(awaited)
    late.result(state=state, order=order, at=W)
    late.result()
    assert late.waits.state is TaskState.OPEN
    late.result(order="O2", at="20260309140000")
    assert late.waits.state is TaskState.DONE


def test_of_many_withdrawn_results_so_many_are_remembered() -> None:
    lab = Lab()
    for number in range(103):
        lab.result(state="W", order=f"O{number}", at=W)
    assert len(lab.waits.disproved) == 100


@pytest.mark.parametrize("turned", [False, True])
def test_a_result_that_was_written_after_a_withdrawal_counts_in_whatever_order_they_come(turned: bool) -> None:
    lab = Lab()
    sent = [{"state": "W", "at": "20260309120000"}, {"state": "F", "at": W}]
    for one in reversed(sent) if turned else sent:
        lab.result(**one)
    assert lab.waits.state is TaskState.DONE
