"""HOSPITAL: haemoglobin, oncology, sodium, procedure, index type, admissions, length of stay (Donze 2013, 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from engine.domain.score import Score
from engine.risk.charlson import Categories
from engine.risk.inputs import RiskInputs
from engine.risk.points import Bands, Ladder, Points, Steps, Tally, Text
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

Percent = Annotated[float, Field(ge=0, le=100)]


class _Below(StrictModel):
    """Points of a low result."""

    below: Annotated[float, Field(gt=0)]
    """Limit: a lower value gives the points."""
    points: Points
    """The points."""


class _Expected(StrictModel):
    """Expected risk of each band, in percent."""

    low: Percent
    """Of the low band."""
    moderate: Percent
    """Of the moderate band."""
    high: Percent
    """Of the high band."""


class _Spec(StrictModel):
    """HOSPITAL: the score of potentially avoidable readmissions."""

    model: Literal["hospital"]
    """`hospital`."""
    version: Text
    """Version of this file, kept with each score."""
    variant: Text
    """Which published form it is, kept with each score."""
    source: Text
    """Where the numbers come from."""
    bands: Bands
    """Bands of the score."""
    haemoglobin_g_dl: _Below
    """H: last haemoglobin before the discharge, in g/dL."""
    oncology: Points
    """O: points of a discharge from an oncology service."""
    sodium_mmol_l: _Below
    """S: last sodium before the discharge, in mmol/L."""
    procedure: Points
    """P: points of any coded procedure."""
    not_elective: Points
    """IT: points of an admission that was not elective."""
    admissions_12m: Steps
    """A: points by admissions in the twelve months before."""
    los_days: Steps
    """L: points by days of stay."""
    expected_risk_percent: _Expected
    """Expected risk of each band, in percent."""


class Hospital:
    def __init__(self, name: str, spec: _Spec) -> None:
        self.name = name
        self.version = f"{spec.version} {spec.variant}"
        self._spec = spec
        self._admissions = Ladder(spec.admissions_12m)
        self._los = Ladder(spec.los_days)
        self._expected: Mapping[str, float] = spec.expected_risk_percent.model_dump()

    def score(self, inputs: RiskInputs, *, now: datetime, observed_since: datetime | None) -> Score:
        spec, tally = self._spec, Tally()
        _add_level("haemoglobin_g_dl", inputs.haemoglobin_g_dl, spec.haemoglobin_g_dl, "g/dL", tally)
        _add_flag("oncology", spec.oncology, "discharged from oncology", tally, value=inputs.oncology)
        _add_level("sodium_mmol_l", inputs.sodium_mmol_l, spec.sodium_mmol_l, "mmol/L", tally)
        _add_flag("procedure", spec.procedure, "a procedure during the stay", tally, value=inputs.procedure)
        not_elective = None if inputs.elective is None else not inputs.elective
        _add_flag("elective", spec.not_elective, "the admission was not elective", tally, value=not_elective)
        if (admissions := inputs.admissions_12m) is None:
            tally.unknown("admissions_12m", self._admissions.max)
        else:
            tally.add("admissions_12m", self._admissions.of(admissions), f"{admissions} admissions in 12 months")
        if (days := inputs.los_days if inputs.los_days is not None else inputs.los_midnights) is None:
            tally.unknown("los_days", self._los.max)
        else:
            tally.add("los_days", self._los.of(days), f"stay of {days} days")
        score = tally.score(self.name, self.version, spec.bands, now=now, observed_since=observed_since)
        if score.band != score.band_max:
            return score
        return msgspec.structs.replace(score, expected_risk_percent=self._expected[score.band])


def _add_level(name: str, value: float | None, rule: _Below, unit: str, tally: Tally) -> None:
    if value is None:
        tally.unknown(name, rule.points)
    elif value < rule.below:
        tally.add(name, rule.points, f"{value:g} {unit}")


def _add_flag(name: str, points: int, evidence: str, tally: Tally, *, value: bool | None) -> None:
    if value is None:
        tally.unknown(name, points)
    elif value:
        tally.add(name, points, evidence)


def load(name: str, document: Document, tables: Mapping[str, Categories]) -> Hospital:  # noqa: ARG001 - as all loaders
    """Raises SettingsError."""
    return Hospital(name, validate(document, _Spec))
