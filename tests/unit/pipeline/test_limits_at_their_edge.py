"""Named limits, each exactly at its edge, one below and one above: a limit that is tested far away may be any."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from heart import Heart, adt

from engine.care.protocol import Protocol, load_protocol
from engine.care.times import believed, is_before
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment
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
        discharged_at=Moment.of_instant(discharged) if discharged else None,
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
    assert (len(dues(NOW + timedelta(days=1) + beyond)) == len(dues(None))) is believed  # else a person is asked


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


def with_identifiers(heart: Heart, number: str, count: int) -> None:
    """A patient who has so many, the key among them."""
    for start in range(1, count, 200):
        more = "~".join(f"{number}-{one}^^^EPI^XX" for one in range(start, min(start + 200, count)))
        heart.send(adt("A08", pid3=f"{number}^^^MRN^MR~{more}"))
    assert len(heart.chart(number).patient.identifiers) == count


@pytest.mark.parametrize(("count", "state"), [(249, "processed"), (250, "processed"), (251, "dead")])
def test_two_patients_are_merged_who_have_no_more_identifiers_together_than_one_may_have(
    count: int, state: str
) -> None:
    heart = Heart()
    with_identifiers(heart, "7", 250)
    with_identifiers(heart, "8", count)
    outcome = heart.send(adt("A40", at="20260307120000", pid3="7^^^MRN^MR", segments=("MRG|8^^^MRN^MR",)))
    assert outcome.state == state
    assert len(heart.chart("7").patient.identifiers) == (250 if state == "dead" else 250 + count)


RECEIVED = datetime(2026, 3, 2, 12, tzinfo=UTC)
EVE = "2026-03-03"
"""A day that begins 12 hours after the receipt in UTC, and 14 hours earlier in the easternmost zone."""


@pytest.mark.parametrize(
    ("said", "ahead_seconds", "kept"),
    [
        ((RECEIVED + 300 * SECOND).isoformat(), 300, True),
        ((RECEIVED + 301 * SECOND).isoformat(), 300, False),
        ((RECEIVED - timedelta(days=9)).isoformat(), 300, True),
        ((RECEIVED - timedelta(days=9) - SECOND).isoformat(), 300, False),
        (EVE, 0, True),
        ("2026-03-04", 22 * 3600 - 1, False),
        ("2026-03-04", 22 * 3600, True),
    ],
)
def test_a_time_is_believed_inside_of_the_window_around_its_receipt(said: str, ahead_seconds: int, kept: bool) -> None:
    notes: list[str] = []
    sent = {"MSH-7": Moment.of(said)}
    claims = believed(sent, RECEIVED, ahead_seconds=ahead_seconds, behind_seconds=9 * 86_400, notes=notes)
    assert (claims.said, notes) == ((sent, []) if kept else ({}, ["event-time-implausible:MSH-7"]))


@pytest.mark.parametrize(("earlier", "is_earlier"), [(60, False), (61, True)])
def test_what_is_earlier_by_a_minute_is_as_good_as_at_once(earlier: int, is_earlier: bool) -> None:
    said = {"EVN-2": Moment.of_instant(RECEIVED - earlier * SECOND)}
    assert is_before(said["EVN-2"], Moment.of_instant(RECEIVED)) is is_earlier
    claims = believed(said, RECEIVED, ahead_seconds=0, behind_seconds=3600, notes=[])
    assert claims.before(Moment.of_instant(RECEIVED)) == (["EVN-2"] if is_earlier else [])


@pytest.mark.parametrize(
    ("late", "after_heard", "sure"), [(0, 301, True), (0, 300, False), (300, 301, True), (301, 301, False)]
)
def test_what_was_recorded_surely_after_something_that_was_heard(late: int, after_heard: int, sure: bool) -> None:
    """It came at once by its own clock, and was recorded later than that by more than clocks may differ."""
    recorded = RECEIVED - late * SECOND
    said = {"EVN-2": Moment.of_instant(recorded)}
    claims = believed(said, RECEIVED, ahead_seconds=300, behind_seconds=3600, notes=[])
    assert (recorded.timestamp() - after_heard < claims.surely_after) is sure


@pytest.mark.parametrize(("sent", "believed_too"), [("2025-01-01T12:00:00+00:00", True), (RECEIVED.isoformat(), False)])
def test_what_an_old_message_says_of_its_stay_may_be_as_old_as_the_message(sent: str, believed_too: bool) -> None:
    claims = believed({"MSH-7": Moment.of(sent)}, RECEIVED, ahead_seconds=300, behind_seconds=3600, notes=[])
    assert claims.plausible(Moment.of("2025-01-01T11:00:00+00:00")) is believed_too
    assert claims.plausible(Moment.of_instant(RECEIVED + 300 * SECOND))
    assert not claims.plausible(Moment.of_instant(RECEIVED + 301 * SECOND))


def test_when_it_was_recorded_is_never_after_the_receipt() -> None:
    for ahead, recorded in ((-60, -60), (0, 0), (60, 0)):
        said = {"EVN-2": Moment.of_instant(RECEIVED + ahead * SECOND)}
        claims = believed(said, RECEIVED, ahead_seconds=300, behind_seconds=3600, notes=[])
        assert claims.recorded() == RECEIVED.timestamp() + recorded
