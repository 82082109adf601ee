"""Domain objects in the shapes of the contract (`docs/contract.md`): plain values, unmasked.

Deliveries carry these; the command line and the console show them through a mask.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.patient import Patient
from engine.domain.score import Score
from engine.domain.task import ENGINE, Task


def plain(value: Any) -> Any:
    """A record as dicts, lists, texts and numbers."""
    return msgspec.to_builtins(value)


def patient_shape(patient: Patient) -> dict[str, Any]:
    return {"key": patient.key, **plain(patient)}


def encounter_shape(encounter: Encounter) -> dict[str, Any]:
    return plain(encounter)  # type: ignore[no-any-return]  # a record becomes a dict


def score_shape(score: Score) -> dict[str, Any]:
    return plain(score)  # type: ignore[no-any-return]  # a record becomes a dict


def task_shape(task: Task, patient_key: str) -> dict[str, Any]:
    """closed_by: the person who ended it; null while it is open, and when a message ended it."""
    shape: dict[str, Any] = plain(task)
    shape["patient_key"] = patient_key
    shape["closed_by"] = None if task.ended_by == ENGINE else task.ended_by
    return shape


def chart_shape(chart: Chart) -> dict[str, Any]:
    """The answer of `handoff patients show`."""
    return {
        **patient_shape(chart.patient),
        "encounters": [encounter_shape(encounter) for encounter in chart.encounters],
        "scores": [score_shape(score) for score in chart.scores],
        "tasks": [task_shape(task, chart.patient.key) for task in chart.tasks],
    }
