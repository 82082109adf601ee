"""Named limits, each exactly at its edge, one below and one above: a limit that is tested far away may be any."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from heart import Heart, adt

from engine.care.protocol import Protocol, load_protocol
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.patient import Identifier, Patient
from engine.domain.score import Band
from engine.domain.task import TaskState
from engine.yamlfile import parse

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FILE = Path(__file__).parents[3] / "mappings/protocols/post-discharge.yaml"
TEXT = FILE.read_text(encoding="utf-8").replace("# discharge_age_days_max: 30", "discharge_age_days_max: 30")
PROTOCOL = load_protocol(parse(TEXT, FILE.name))


def dues(discharged: datetime | None, protocol: Protocol = PROTOCOL) -> list[datetime]:
    """When the tasks of an inpatient are due who has gone home at that time."""
    stay = Encounter(
        key="MRN:V1", class_="I", status=EncounterStatus.FINISHED, disposition="01", discharges=1,
        discharged_at=discharged.isoformat() if discharged else None,
    )  # fmt: skip
    channel = Heart().channel
    patient = Patient(identifiers=(Identifier(value="1", authority="MRN", type="MR"),))
    planned = protocol.plan(
        Chart(id="c1", patient=patient, encounters=(stay,)),
        stay,
        band=Band.HIGH,
        disposition=channel.dispositions.of("01"),
        calendar=channel.calendar,
        now=NOW,
        key=lambda *parts: "/".join(parts),
    )
    return sorted(task.due_at for task in planned.tasks)


@pytest.mark.parametrize(("beyond", "believed"), [(-SECOND, True), (timedelta(), True), (SECOND, False)])
def test_a_discharge_may_lie_one_day_ahead_and_not_more(beyond: timedelta, believed: bool) -> None:
    assert (dues(NOW + timedelta(days=1) + beyond) != dues(None)) is believed


@pytest.mark.parametrize(("beyond", "planned"), [(-SECOND, True), (timedelta(), True), (SECOND, False)])
def test_a_discharge_may_be_as_old_as_the_protocol_says_and_not_older(beyond: timedelta, planned: bool) -> None:
    assert bool(dues(NOW - timedelta(days=30) - beyond)) is planned


@pytest.mark.parametrize(("pairs", "state"), [(499, "processed"), (500, "processed"), (501, "dead")])
def test_a_merge_names_five_hundred_pairs_and_not_more(pairs: int, state: str) -> None:
    heart = Heart()
    per_group = 50
    parts = [range(at, min(at + per_group, pairs)) for at in range(0, pairs, per_group)]
    segments: list[str] = []
    for number, part in enumerate(parts):
        kept = "~".join(f"S{one}^^^MRN^MR" for one in part)
        gone = "~".join(f"M{one}^^^MRN^MR" for one in part)
        if number:
            segments.append(f"PID|{number + 1}||{kept}||Doe^Jane||19480312|F")
        segments.append(f"MRG|{gone}")
    first = "~".join(f"S{one}^^^MRN^MR" for one in parts[0])
    outcome = heart.send(adt("A40", pid3=first, segments=tuple(segments)))
    assert (outcome.state, outcome.dead_letter.error if outcome.dead_letter else None) == (
        state,
        "merge-structure" if state == "dead" else None,
    )


@pytest.mark.parametrize(("groups", "state"), [(99, "processed"), (100, "processed"), (101, "dead")])
def test_a_merge_has_a_hundred_groups_and_not_more(groups: int, state: str) -> None:
    segments = ["MRG|M0^^^MRN^MR"]
    for number in range(1, groups):
        segments += [f"PID|{number + 1}||S{number}^^^MRN^MR||Doe^Jane||19480312|F", f"MRG|M{number}^^^MRN^MR"]
    outcome = Heart().send(adt("A40", pid3="S0^^^MRN^MR", segments=tuple(segments)))
    assert outcome.state == state


def test_without_models_too_a_change_of_class_plans_anew() -> None:
    heart = Heart(risk=[])
    heart.channel = dataclasses.replace(heart.channel, models=())
    stay = {2: "I", 36: "01", 44: "20260301113000", 45: "20260306114500"}
    heart.send(adt("A01", at="20260301120000", pv1={2: "I", 44: "20260301113000"}))
    heart.send(adt("A03", pv1=stay))
    assert [task for task in heart.chart().tasks if task.state is TaskState.OPEN]
    heart.send(adt("A08", at="20260306130000", pv1=stay | {2: "O"}))
    assert not [task for task in heart.chart().tasks if task.state is TaskState.OPEN]
