"""A readmission risk score with what it rests on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.domain.record import Phi


class Band(StrEnum):
    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"


class Factor(Phi, frozen=True, kw_only=True):
    name: str
    points: int
    evidence: str
    """What the points rest on, in words (`age 78`, `E11.9`)."""


class Score(Phi, frozen=True, kw_only=True):
    """min..max is the interval that missing inputs leave open; `value` is set when it is closed (min = max).

    `band` is the band of `min`: points that are proven. `band_max` is the band that the missing inputs could lead to.
    """

    model: str
    version: str
    """Includes the variant (`1 van-walraven-2010`)."""
    value: int | None
    min: int
    max: int
    band: Band
    band_max: Band
    factors: tuple[Factor, ...]
    missing: tuple[str, ...]
    observed_since: datetime | None
    scored_at: datetime
    encounter: str | None = None
    """Encounter key, when the score is of a stay."""
    expected_risk_percent: float | None = None
    """Readmission within 30 days that the model's publication expects at `value`, where it says so."""
