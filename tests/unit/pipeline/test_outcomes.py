"""All outcomes are built in one place: what a channel's mode withholds, and what its questions say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from heart import ROOT, Heart, adt, channel

from engine.domain.delivery import Delivery, Operation
from engine.domain.hold import Hold, HoldCode
from engine.domain.message import Entry, EntryKind, EntryState
from engine.domain.why import Reason
from engine.pipeline.outcomes import outcome_of

TOLD = Delivery(
    destination="crm", operation=Operation.UPSERT_PATIENT, ordering_key="c", idempotency_key="k", payload=b"{}"
)


def entry(lane: str = "main-campus", **more: object) -> Entry:
    return msgspec.structs.replace(Heart().entry(adt("A08")), channel=lane, **more)


@pytest.mark.parametrize(
    ("lane", "mode", "goes_out", "why"),
    [
        ("main-campus", "live", True, None),
        ("main-campus", "shadow", False, Reason.SHADOW),
        ("main-campus", "paused", False, Reason.PAUSED),
        (EntryKind.ACT.lane, "live", True, None),
        (EntryKind.ACT.lane, "shadow", False, None),
        (EntryKind.ACT.lane, "paused", True, None),
    ],
)
def test_what_goes_out_is_said_by_the_mode_of_the_channel(
    lane: str, mode: str, goes_out: bool, why: Reason | None
) -> None:
    outcome = outcome_of(entry(lane), channel(mode=mode), deliveries=(TOLD,))
    assert outcome.deliveries == ((TOLD,) if goes_out else ())
    assert [one.reason for one in outcome.why] == ([why] if why else [])


@pytest.mark.parametrize("state", [EntryState.FILTERED, EntryState.REFUSED, EntryState.DEAD])
def test_of_a_message_that_is_not_worked_on_nothing_is_withheld(state: EntryState) -> None:
    assert outcome_of(entry(), channel(mode="shadow"), state).why == ()


def test_questions_are_asked_once_each_and_their_texts_are_the_reason() -> None:
    holds = (
        Hold(code=HoldCode.DEATH_STALE, location="PID-30", detail="first"),
        Hold(code=HoldCode.DEATH_STALE, location="PID-30", detail="first"),
        Hold(code=HoldCode.VISIT_MISSING, location="PV1", detail="second", chart_id="c1"),
        Hold(code=HoldCode.EVENT_NOT_SUPPORTED, location="PID-3", detail="second"),
    )
    outcome = outcome_of(entry(id=7), channel(), reason="a note that is not so important", holds=holds)
    assert [hold.location for hold in outcome.holds] == ["PID-30", "PV1", "PID-3"]
    assert outcome.reason == "held for a person: first; also: second"
    assert [(one.kind, one.subject) for one in outcome.effects] == [
        ("held", "entry-7"), ("held", "c1"), ("status-event-set-aside", "c1"), ("held", "entry-7")
    ]  # fmt: skip


def test_every_outcome_says_which_replay_decision_and_configuration_it_is_of() -> None:
    replay = entry(replay_root=3, decision="death-stale@PID-30")
    for built in (outcome_of(replay, channel()), outcome_of(replay, None, EntryState.DEAD, version="v1")):
        assert (built.replay_root, built.decision) == (3, "death-stale@PID-30")
    assert outcome_of(replay, channel()).config_version == channel().version
    assert outcome_of(replay, None).config_version == ""


def test_deviations_are_noted_once_and_in_their_order() -> None:
    assert outcome_of(entry(), channel(), deviations=("b", "a", "b")).deviations == ("b", "a")


def test_nothing_else_in_the_engine_builds_an_outcome() -> None:
    built = [file for file in Path(ROOT, "engine").rglob("*.py") if "return Outcome(" in file.read_text()]
    assert [file.name for file in built] == ["outcomes.py"]
