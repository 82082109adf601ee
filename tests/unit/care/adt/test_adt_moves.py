"""What goes to another patient with a stay, and what stays with the person."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from ward import Ward, event, mrn

from engine.care.adt.event import Change, Meaning
from engine.care.adt.moves import apply_changes
from engine.care.event import Applied
from engine.domain.appointment import Appointment
from engine.domain.chart import Chart
from engine.domain.page import Page, Policy
from engine.domain.parts import PARTS
from engine.domain.task import Task, TaskState

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def task(name: str, stay: str | None) -> Task:
    return Task(
        id=name, kind="pcp_follow_up", encounter=stay, due_at=AT, escalate_at=None, state=TaskState.OPEN,
        assignee=None, reason="why", protocol="p", discharge=1, created_at=AT,
    )  # fmt: skip


def move(ward: Ward) -> tuple[Chart, Chart]:
    """Both charts after V1 has become the stay of patient 2."""
    applied = Applied()
    change = Change(
        what=Meaning.MOVE_ACCOUNT, event=0, key=mrn("2"), chart_id="c2", was=(mrn("1"),), old_account="A1", account="A1"
    )
    about = event(Meaning.PERSON, 9, identifiers=(mrn("2"),), patient={})
    apply_changes(ward.charts, (change,), (about,), ward.dispositions, applied)
    assert applied.holds == []
    charts = {chart.id: chart for chart in applied.others}
    return charts["chart-1"], charts["c2"]


def test_what_is_of_a_stay_and_what_hangs_on_that_goes_with_it(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1, account="A1")
    ward.apply(Meaning.REGISTER, 2, visit="MRN:V2", visit_number="V2", account="A2")
    chart = ward.charts.by_id["chart-1"]
    appointments = (
        Appointment(id="a1", task="t1"),
        Appointment(id="a2", replaces="a3", visit="MRN:V1"),
        Appointment(id="a3", replaced_by="a2"),
        Appointment(id="a4", task="t2"),
        Appointment(id="a5"),
    )
    policy = Policy(ladder="duty", version="1")
    pages = tuple(
        Page(
            id=f"p{n}",
            task=n,
            kind="on_call_page",
            encounter=stay,
            policy=policy,
            closes=True,
            raised_at=AT,
            next_at=None,
        )
        for n, stay in (("t1", "MRN:V1"), ("t2", "MRN:V2"))
    )
    tasks = (task("t1", "MRN:V1"), task("t2", "MRN:V2"), task("t3", None))
    stamps = {"a1": {"status": (1.0, 1)}, "a4": {"status": (2.0, 2)}}
    ward.charts.add(
        msgspec.structs.replace(chart, tasks=tasks, pages=pages, appointments=appointments, appointment_stamps=stamps)
    )
    left, come = move(ward)

    def keys(one: Chart) -> dict[str, set[str]]:
        return {part.name: set(map(part.key, part.of(one))) for part in PARTS if part.of(one)}

    assert keys(come) == {
        "encounters": {"MRN:V1"},
        "tasks": {"t1"},
        "appointments": {"a1", "a2", "a3"},
        "pages": {"pt1"},
    }
    assert keys(left) == {
        "encounters": {"MRN:V2"},
        "tasks": {"t2", "t3"},
        "appointments": {"a4", "a5"},
        "pages": {"pt2"},
    }
    assert (come.appointment_stamps, left.appointment_stamps) == ({"a1": stamps["a1"]}, {"a4": stamps["a4"]})
    assert "MRN:V1" in come.encounter_stamps
    assert "MRN:V1" not in left.encounter_stamps
