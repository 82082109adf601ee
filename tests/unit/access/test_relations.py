"""Relations: read from the chart, and over when what they follow from is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.access.relations import relations
from engine.trial.access import NOW, actor_of, chart_of

WEEK = timedelta(days=7)


def found(actor: dict[str, Any], *, grace: timedelta = WEEK, **chart: Any) -> set[str]:
    return {str(one) for one in relations(chart_of(chart), actor_of(actor), NOW, grace)}


@pytest.mark.parametrize(
    ("actor", "chart", "expected"),
    [
        ({"provider": "a1"}, {"stays": [{"attending": "A1"}]}, {"attending"}),
        ({"provider": "A1"}, {"stays": [{"consulting": ["B2", "A1"]}]}, {"consulting"}),
        ({"provider": "A1"}, {"patient": {"pcp": {"id": "A1"}}}, {"primary_care"}),
        ({"provider": "A1", "panels": ["B2"]}, {"patient": {"pcp": {"id": "B2"}}}, {"panel"}),
        ({"units": ["3W"]}, {"stays": [{"unit": "3W"}]}, {"unit"}),
        ({"units": ["3W"]}, {"stays": [{"unit": "4E", "pending_unit": "3W"}]}, {"unit"}),
        ({"units": ["3W"]}, {"stays": [{"unit": "3W", "status": "on_leave"}]}, {"unit"}),
        ({"units": ["3W"]}, {"stays": [{"unit": "3W", "status": "planned"}]}, set()),
        ({"provider": "A1"}, {"stays": [{"attending": "A1", "status": "planned"}]}, {"attending"}),
        ({"provider": "A1"}, {"stays": [{"attending": "A1", "status": "cancelled"}]}, set()),
        ({"name": "dana"}, {"tasks": [{"owner": "dana"}]}, {"team"}),
        ({"role": "nurse"}, {"tasks": [{"assignee": "nurse"}]}, {"team"}),
        ({"also": ["dr-d"]}, {"pages": [{"called": ["dr-d"]}]}, {"page"}),
        ({"name": "dana"}, {"pages": [{"acknowledged_by": "dana"}]}, {"page"}),
        ({"name": "dana"}, {"pages": [{"called": ["dana"], "ended_days_ago": 6}]}, {"page"}),
        ({"name": "dana"}, {"pages": [{"called": ["dana"], "ended_days_ago": 8}]}, set()),
        ({"provider": "A1"}, {"appointments": [{"clinician": "A1", "days_ago": -20}]}, {"appointment"}),
        ({"provider": "A1"}, {"appointments": [{"clinician": "A1", "days_ago": 8}]}, set()),
        ({"provider": "A1"}, {"appointments": [{"clinician": "A1", "status": "cancelled"}]}, set()),
        # Nobody is nobody's: what is not said on either side is no match.
        ({}, {"stays": [{}], "tasks": [{}], "appointments": [{}], "patient": {"pcp": {}}}, set()),
        ({"provider": ""}, {"stays": [{"attending": ""}]}, set()),
    ],
)
def test_a_relation_is_what_the_chart_says(actor: dict[str, Any], chart: dict[str, Any], expected: set[str]) -> None:
    assert found(actor, **chart) == expected


def test_a_stay_that_ended_at_an_unknown_time_is_over() -> None:
    assert found({"provider": "A1"}, stays=[{"attending": "A1", "status": "finished"}]) == set()


@pytest.mark.parametrize("days", [0.0, 1.0, 30.0])
def test_the_grace_period_is_the_settings(days: float) -> None:
    grace = timedelta(days=days)
    before = [{"attending": "A1", "ended_days_ago": max(days - 0.1, 0)}]
    after = [{"attending": "A1", "ended_days_ago": days + 0.1}]
    assert found({"provider": "A1"}, grace=grace, stays=before) == {"attending"}
    assert found({"provider": "A1"}, grace=grace, stays=after) == set()


def test_a_stay_that_is_not_looked_at_makes_no_relation() -> None:
    chart = chart_of(
        {"stays": [{"attending": "A1", "key": "VN:1"}], "tasks": [{"owner": "case-actor", "stay": "VN:1"}]}
    )
    without = frozenset({"VN:1"})
    assert relations(chart, actor_of({"provider": "A1"}), NOW, WEEK, without=without) == frozenset()
