"""What is due next follows from the chart, and who is to be called comes first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.domain.chart import Chart
from engine.domain.patient import Identifier, Patient
from engine.domain.task import Alert, Rung, Task, TaskState
from engine.pipeline.due import due_at, is_urgent

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PAGED = Alert(kind="on_call_page", assignee="on_call", due_at=NOW + HOUR, reason="x", page="on-call")


def task(number: int, *ladder: Rung, **more: Any) -> Task:
    fields: dict[str, Any] = {
        "id": f"t{number}", "kind": "pcp_follow_up", "encounter": "MRN:V1", "due_at": NOW, "state": TaskState.OPEN,
        "assignee": "nurse", "reason": "x", "protocol": "p", "discharge": 1, "created_at": NOW - HOUR,
        "escalate_at": NOW,
    }  # fmt: skip
    return Task(**{**fields, "ladder": ladder, **more})


def chart(*tasks: Task, **more: Any) -> Chart:
    patient = Patient(identifiers=(Identifier(value="1", authority="MRN", type="MR"),))
    return Chart(id="chart-1", version=1, patient=patient, tasks=tasks, **more)


@pytest.mark.parametrize(
    ("tasks", "urgent"),
    [
        ((), False),
        ((task(1),), False),
        ((task(1, Rung(at=NOW, page="on-call")),), True),
        ((task(1, Rung(at=NOW, alert=PAGED)),), True),
        ((task(1, Rung(at=NOW, owner="lead")),), False),
        ((task(1, Rung(at=NOW, owner="lead"), Rung(at=NOW + HOUR, page="on-call")),), False),  # that comes later
        ((task(1, Rung(at=NOW, owner="lead"), Rung(at=NOW + HOUR, page="on-call"), climbed=1),), True),
        ((task(1, Rung(at=NOW, page="on-call"), state=TaskState.DONE), task(2)), False),
        ((task(1, Rung(at=NOW, page="on-call"), climbed=1), task(2)), False),
        ((task(1, Rung(at=NOW + HOUR, page="on-call")), task(2, Rung(at=NOW, owner="lead"))), False),
    ],
)
def test_a_chart_is_urgent_when_its_next_deadline_has_somebody_called(tasks: tuple[Task, ...], *, urgent: bool) -> None:
    assert is_urgent(chart(*tasks)) is urgent


def test_the_first_of_two_deadlines_is_first_also_in_the_hour_that_comes_twice() -> None:
    zone = ZoneInfo("America/New_York")
    first, second = datetime(2026, 11, 1, 1, 50, tzinfo=zone), datetime(2026, 11, 1, 1, 10, fold=1, tzinfo=zone)
    assert first.astimezone(UTC) < second.astimezone(UTC)
    found = due_at(chart(task(1, Rung(at=first, owner="lead")), task(2, Rung(at=second, owner="lead"))))
    assert found is not None
    assert found.astimezone(UTC) == first.astimezone(UTC)


def test_a_chart_that_was_merged_away_waits_for_nothing() -> None:
    assert due_at(chart(task(1))) is not None
    assert due_at(chart(task(1), merged_into="chart-2")) is None
