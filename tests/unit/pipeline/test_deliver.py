"""What a destination is told of an object, now and when a delivery is put back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from heart import Heart, adt

from engine.domain.delivery import Operation, ScoreUpsert
from engine.domain.outcome import Outcome
from engine.pipeline.deliver import Gone, as_of_now


@pytest.fixture
def heart() -> Heart:
    return Heart()


def stay(visit: str, day: int, **more: str) -> dict[int, str]:
    return {4: "E", 19: f"{visit}^^^MRN", 44: f"202603{day:02d}110000"} | {
        int(name[1:]): value for name, value in more.items()
    }


def deciding(outcome: Outcome) -> list[str]:
    """The stays whose score is sent as the one that speaks for the patient."""
    said = [item.content for item in outcome.deliveries]
    return [str(one.score.encounter) for one in said if isinstance(one, ScoreUpsert) and one.decides]


def sent(outcome: Outcome, operation: Operation) -> Any:
    """What the last one of an operation says."""
    return [item.content for item in outcome.deliveries if item.operation is operation][-1]


def test_a_correction_of_an_old_stay_does_not_put_its_risk_over_the_one_of_today(heart: Heart) -> None:
    assert deciding(heart.send(adt("A01", at="20260301120000", pv1=stay("V1", 1)))) == ["MRN:V1"]
    heart.send(adt("A03", at="20260303120000", pv1=stay("V1", 1, _36="01", _45="20260303110000")))
    assert deciding(heart.send(adt("A01", at="20260305120000", pv1=stay("V2", 5)))) == ["MRN:V2"]
    late = adt(
        "A08", at="20260306120000", pv1=stay("V1", 1, _36="01", _45="20260303110000"),
        segments=("DG1|1||I50.9^Heart failure^I10|||F", "DG1|2||E11.9^Diabetes^I10|||F"),
    )  # fmt: skip
    outcome = heart.send(late)
    assert "MRN:V1" in {sent(outcome, Operation.UPSERT_SCORE).score.encounter}
    assert "MRN:V1" not in deciding(outcome)


@pytest.mark.parametrize("operation", [Operation.UPSERT_PATIENT, Operation.UPSERT_ENCOUNTER, Operation.UPSERT_SCORE])
def test_what_has_not_changed_says_the_same_now(heart: Heart, operation: Operation) -> None:
    said = sent(heart.send(adt("A01", pv1=stay("V1", 1))), operation)
    assert as_of_now(heart.chart(), said) == said


def test_a_score_of_a_stay_that_never_was_is_withdrawn_now(heart: Heart) -> None:
    outcome = heart.send(adt("A01", at="20260301120000", pv1=stay("V1", 1)))
    said = next(
        one for one in (item.content for item in outcome.deliveries) if isinstance(one, ScoreUpsert) and one.decides
    )
    heart.send(adt("A11", at="20260302120000", pv1=stay("V1", 1)))
    now = as_of_now(heart.chart(), said)
    assert isinstance(now, ScoreUpsert)
    assert (now.withdrawn, now.decides, now.score.value) == (True, True, None)
    other = as_of_now(heart.chart(), msgspec.structs.replace(said, decides=False))
    assert isinstance(other, ScoreUpsert)
    assert not other.decides


def test_an_object_that_is_gone_has_nothing_to_say(heart: Heart) -> None:
    said = sent(heart.send(adt("A01", pv1=stay("V1", 1))), Operation.UPSERT_ENCOUNTER)
    other = Heart()
    other.send(adt("A01", pv1=stay("V2", 1)))
    with pytest.raises(Gone):
        as_of_now(other.chart(), said)


def test_deliveries_are_about_the_same_object_whatever_they_say_of_it(heart: Heart) -> None:
    first = heart.send(adt("A01", at="20260301120000", pv1=stay("V1", 1)))
    moved = heart.send(adt("A02", at="20260302120000", pv1=stay("V1", 1, _3="W2^2^B")))
    other = heart.send(adt("A01", at="20260305120000", pv1=stay("V2", 5)))
    about = [sent(outcome, Operation.UPSERT_ENCOUNTER).about for outcome in (first, moved, other)]
    assert about == [("MRN:V1",), ("MRN:V1",), ("MRN:V2",)]
