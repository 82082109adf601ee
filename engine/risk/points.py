"""What all additive scores share: ladders of points, bands, and the tally that turns into a score."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from engine.domain.score import Band, Factor, Score
from engine.yamlmodel import StrictModel

Points = Annotated[int, Field(ge=0, le=1000)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class Step(StrictModel):
    """Points from a value on, up to the next step."""

    start: Annotated[int, Field(ge=0, alias="from")]
    """Lowest value of the step; the first is 0."""
    points: Points
    """Points of the step."""


def _check_ladder(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if not steps or steps[0].start != 0:
        raise ValueError("the first step must begin at 0")
    for lower, upper in pairwise(steps):
        if upper.start <= lower.start:
            raise ValueError("each step must begin above the one before it")
        if upper.points < lower.points:
            # Intervals rest on it: the lowest value then has the fewest points.
            raise ValueError("a higher step can't give fewer points")
    return steps


Steps = Annotated[tuple[Step, ...], AfterValidator(_check_ladder)]


class Ladder:
    """Points by value: those of the last step that begins at or below it."""

    __slots__ = ("_points", "_starts", "max")

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._starts = [step.start for step in steps]
        self._points = [step.points for step in steps]
        self.max = self._points[-1]

    def of(self, value: int) -> int:
        return self._points[bisect_right(self._starts, value) - 1]


class Bands(StrictModel):
    """The lowest score of each band; `low` begins at 0."""

    moderate: Annotated[int, Field(ge=1)]
    """Lowest score of the moderate band."""
    high: Annotated[int, Field(ge=2)]
    """Lowest score of the high band."""

    @model_validator(mode="after")
    def _ordered(self) -> Bands:
        if self.moderate >= self.high:
            raise ValueError("high must begin above moderate")
        return self

    def of(self, points: int) -> Band:
        return Band.HIGH if points >= self.high else Band.MODERATE if points >= self.moderate else Band.LOW


class Tally:
    """Points as they are found, and the interval that missing inputs leave open."""

    __slots__ = ("factors", "max", "min", "missing")

    def __init__(self) -> None:
        self.min = 0
        self.max = 0
        self.factors: list[Factor] = []
        self.missing: list[str] = []

    def add(self, name: str, points: int, evidence: str) -> None:
        """Points of a known input. An input that gives none is no factor: it is known because it is not missing."""
        if points:
            self.min += points
            self.max += points
            self.factors.append(Factor(name=name, points=points, evidence=evidence))

    def unknown(self, name: str, points_max: int) -> None:
        self.missing.append(name)
        self.max += points_max

    def score(
        self,
        name: str,
        version: str,
        bands: Bands,
        *,
        now: datetime,
        observed_since: datetime | None,
        cap: int | None = None,
    ) -> Score:
        least = self.min if cap is None else min(self.min, cap)
        most = self.max if cap is None else min(self.max, cap)
        return Score(
            model=name,
            version=version,
            value=least if least == most else None,
            min=least,
            max=most,
            band=bands.of(least),
            band_max=bands.of(most),
            factors=tuple(self.factors),
            missing=tuple(self.missing),
            observed_since=observed_since,
            scored_at=now,
        )
