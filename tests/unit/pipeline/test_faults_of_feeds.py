"""What messages, and the rules that work on them, put on the data-quality list."""

from __future__ import annotations

from datetime import timedelta

import pytest
from heart import DAY, HOUR, Feed, Heart, adt

from engine.care.event import Applied
from engine.domain.outcome import Outcome
from engine.domain.quality import QualityKind
from engine.domain.why import Reason, What, Why
from engine.pipeline.outcomes import beside


def faults(outcome: Outcome) -> list[tuple[str, str]]:
    return sorted((one.kind, one.detail) for one in outcome.quality)


@pytest.mark.parametrize(
    ("pv1", "pid", "said"),
    [
        ({}, {}, []),
        ({2: "Q"}, {}, [("code_unknown", "PV1-2")]),
        ({4: "Q"}, {}, [("code_unknown", "PV1-4")]),
        ({}, {8: "Q"}, [("code_unknown", "PID-8")]),
        ({}, {7: "19990230"}, [("time_unreadable", "PID-7")]),
        ({44: "yesterday"}, {}, [("time_unreadable", "PV1-44")]),
        ({44: "19000101"}, {}, [("time_implausible", "PV1-44")]),
        ({44: "20990101120000"}, {}, [("time_implausible", "PV1-44")]),
        ({}, {30: "perhaps"}, [("value_unreadable", "PID-30")]),
    ],
)
def test_what_a_field_says_wrong_is_on_the_list_with_the_field(
    pv1: dict[int, str], pid: dict[int, str], said: list[tuple[str, str]]
) -> None:
    assert faults(Heart().send(adt("A01", pv1=pv1, pid=pid))) == said


def test_a_discharge_of_a_class_that_no_protocol_knows_is_on_the_list() -> None:
    heart = Heart()
    heart.send(adt("A01", pv1={2: "Q"}))
    outcome = heart.send(adt("A03", at="20260306130000", pv1={2: "Q", 36: "01"}))
    assert ("class_unknown", "PV1-2") in faults(outcome)


def test_a_clock_far_from_ours_is_on_the_list_with_each_field_that_it_wrote() -> None:
    outcome = Feed().send("A01", DAY, skew=timedelta(days=3))
    assert {("time_implausible", "EVN-2"), ("time_implausible", "MSH-7")} <= set(faults(outcome))


def test_what_a_message_in_shadow_says_wrong_is_known_to_the_living() -> None:
    outcome = Feed().send("A01", DAY + HOUR, pv1={2: "Q"})
    assert outcome.quality
    assert beside(outcome).quality == outcome.quality


def test_parts_of_a_message_say_their_faults_and_reasons_together() -> None:
    whole, part = Applied(note="first"), Applied(note="second")
    why = Why(what=What.PLAN, reason=Reason.NO_VISIT)
    part.quality(QualityKind.STAYS_OVERLAP)
    part.quality(QualityKind.CODE_UNKNOWN, "ZBE-9")
    part.why(why)
    part.why(why)
    whole.take_in(part)
    assert [(one.kind, one.detail) for one in whole.faults] == [("stays_overlap", "PV1-19"), ("code_unknown", "ZBE-9")]
    assert (whole.whys, whole.note) == ((why,), "first")
