"""Movements as German, French and Italian systems send them (ZBE of IHE PAM)."""

from __future__ import annotations

import pytest
from heart import Heart, adt

from engine.domain.message import EntryState

IN = {3: "ICU^1^1", 44: "20260301080000"}


def moved(zbe: str, *, trigger: str = "A02", at: str = "20260306150000") -> tuple[str | None, tuple[str, ...]]:
    """Where the patient is after the message, and its deviations."""
    heart = Heart()
    heart.send(adt("A01", at="20260301080000", pv1=IN))
    outcome = heart.send(adt(trigger, at=at, pv1={3: "WARD^2^2"}, segments=(zbe,) if zbe else ()))
    assert outcome.state is EntryState.PROCESSED
    (encounter,) = heart.chart().encounters
    return encounter.location.point_of_care if encounter.location else None, outcome.deviations


@pytest.mark.parametrize(
    ("zbe", "place"),
    [
        ("", "WARD"),
        ("ZBE|7^H|20260306143000||INSERT|N", "WARD"),
        ("ZBE|7^H|20260306143000||insert", "WARD"),
        ("ZBE|7^H|20260306143000", "WARD"),
        ("ZBE|", "WARD"),
        ("ZBE|7^H|20260302143000||INSERT|Y", "ICU"),
        ("ZBE|7^H|20260302143000||CANCEL|N", "ICU"),
        ("ZBE|7^H|20260302143000||UPDATE|N", "ICU"),
        ("ZBE|7^H|20260302143000||update|Y", "ICU"),
    ],
)
@pytest.mark.parametrize("trigger", ["A02", "A08"])
def test_only_a_movement_of_now_says_where_the_patient_is(trigger: str, zbe: str, place: str) -> None:
    found, deviations = moved(zbe, trigger=trigger)
    assert found == place
    assert ("movement-not-current:ZBE" in deviations) is (place == "ICU")


@pytest.mark.parametrize(
    ("zbe", "at", "source"),
    [
        ("ZBE|7^H|20260306113000||INSERT|N", "2026-03-06T11:30:00-05:00", "ZBE-2"),
        ("ZBE|7^H|||INSERT|N", "2026-03-06T12:00:00-05:00", "EVN-2"),
        ("ZBE|7^H|20260301||UPDATE|Y", "2026-03-06T12:00:00-05:00", "EVN-2"),
    ],
)
def test_the_time_of_a_movement_is_that_of_the_event(zbe: str, at: str, source: str) -> None:
    heart = Heart()
    heart.send(adt("A01", pv1={3: "ICU^1^1"}, segments=(zbe,)))
    (encounter,) = heart.chart().encounters
    assert (encounter.admitted_at, encounter.time_sources["admitted_at"]) == (at, source)
