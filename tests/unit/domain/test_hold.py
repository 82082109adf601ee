"""Which later events make true what a hold asks."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.encounter import EncounterStatus
from engine.domain.hold import QUESTIONS, Assertion, Fact, HoldCode

ACTIVE, FINISHED, CANCELLED = EncounterStatus.ACTIVE, EncounterStatus.FINISHED, EncounterStatus.CANCELLED
THEN, LATER = "2026-03-06T12:00:00-05:00", "2026-03-06T13:00:00-05:00"
DEATHS = [code for code in HoldCode if code.startswith("death-")]


def said(status: EncounterStatus, happened_at: str | None = None, **more: Any) -> Assertion:
    return Assertion(status=status, happened_at=happened_at, **({"received": 100.0} | more))


def of(status: EncounterStatus, encounter: str = "MRN:V1", happened_at: str | None = None, **more: Any) -> Fact:
    asserts = said(status, happened_at, received=200.0)
    return Fact(**({"chart_id": "c", "encounter": encounter, "asserts": asserts, "surely_after": 150.0} | more))


def answers(
    fact: Fact,
    code: HoldCode,
    status: EncounterStatus | None = None,
    encounter: str | None = "MRN:V1",
    happened_at: str | None = None,
) -> bool:
    return fact.answers(code, encounter, None if status is None else said(status, happened_at))


@pytest.mark.parametrize("code", [HoldCode.STATUS_EVENT_STALE, HoldCode.DISPOSITION_IS_NO_DISCHARGE])
@pytest.mark.parametrize("status", [ACTIVE, FINISHED, CANCELLED, EncounterStatus.PLANNED])
def test_a_stay_that_has_come_to_the_status_answers(code: HoldCode, status: EncounterStatus) -> None:
    assert answers(of(status), code, status)
    assert answers(of(status, changed=True), code, status)


def test_another_status_or_another_stay_answers_nothing() -> None:
    assert not answers(of(ACTIVE), HoldCode.STATUS_EVENT_STALE, FINISHED)
    assert not answers(of(FINISHED, "MRN:V2"), HoldCode.STATUS_EVENT_STALE, FINISHED)
    assert not answers(of(FINISHED), HoldCode.STATUS_EVENT_STALE)


@pytest.mark.parametrize(("received", "answered"), [(149.9, True), (150.0, False), (250.0, False)])
def test_what_may_have_been_said_after_it_is_not_answered(received: float, answered: bool) -> None:
    held = said(FINISHED, received=received, sender=1, clock=500)
    assert of(FINISHED).answers(HoldCode.STATUS_EVENT_STALE, "MRN:V1", held) is answered


@pytest.mark.parametrize(("clock", "answered"), [(299, True), (300, True), (301, False), (0, True)])
def test_of_one_sender_its_own_clock_tells_what_was_said_before(clock: int, answered: bool) -> None:
    fact = of(FINISHED, asserts=said(FINISHED, sender=1, clock=300))
    held = said(FINISHED, sender=1, clock=clock)
    assert fact.answers(HoldCode.STATUS_EVENT_STALE, "MRN:V1", held) is answered


def test_only_the_cancel_of_a_discharge_that_was_seen_answers_one_that_was_not() -> None:
    assert not answers(of(ACTIVE), HoldCode.NOTHING_TO_CANCEL, ACTIVE)
    assert answers(of(ACTIVE, changed=True), HoldCode.NOTHING_TO_CANCEL, ACTIVE)
    assert not answers(of(ACTIVE, "MRN:V2", changed=True), HoldCode.NOTHING_TO_CANCEL, ACTIVE)


@pytest.mark.parametrize("code", [HoldCode.VISIT_MISSING, HoldCode.ENCOUNTER_UNKNOWN])
def test_a_message_sent_again_with_its_visit_answers(code: HoldCode) -> None:
    assert answers(of(FINISHED, happened_at=THEN), code, FINISHED, None, THEN)
    assert not answers(of(FINISHED, happened_at=LATER), code, FINISHED, None, THEN)
    assert not answers(of(ACTIVE, happened_at=THEN), code, FINISHED, None, THEN)
    assert not answers(of(FINISHED), code, FINISHED, None, None)


@pytest.mark.parametrize("code", HoldCode)
def test_whether_the_patient_has_died_answers_what_is_asked_about_a_death_and_nothing_else(code: HoldCode) -> None:
    assert answers(Fact(chart_id="c"), code, FINISHED) is (code in DEATHS)
    assert QUESTIONS[code].death is (code in DEATHS)


@pytest.mark.parametrize("code", [*DEATHS, HoldCode.PERSON_CONTRADICTED, HoldCode.MERGE_WITHOUT_EFFECT])
def test_a_stay_answers_no_question_about_a_person(code: HoldCode) -> None:
    assert not any(answers(of(status, changed=True), code) for status in EncounterStatus)
