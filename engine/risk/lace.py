"""LACE: length of stay, acuity, comorbidity, emergency visits (van Walraven, CMAJ 2010;182:551)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from engine.domain.score import Score
from engine.errors import SettingsError
from engine.risk.charlson import Categories
from engine.risk.inputs import RiskInputs
from engine.risk.points import Bands, Ladder, Name, Points, Steps, Tally, Text
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class _Comorbidity(StrictModel):
    """LACE's C: weights over the categories of a Charlson file."""

    categories: Name
    """Charlson file whose codes are used, by its name in mappings/risk/."""
    weights: Annotated[dict[Name, Points], Field(min_length=1)]
    """Category -> weight; those not listed do not count."""
    points: Steps
    """Points by the sum of the weights."""


class _Spec(StrictModel):
    """LACE: length of stay, acuity, comorbidity, emergency visits."""

    model: Literal["lace"]
    """`lace`."""
    version: Text
    """Version of this file, kept with each score."""
    variant: Text
    """Which published form it is, kept with each score."""
    source: Text
    """Where the numbers come from."""
    bands: Bands
    """Bands of the score."""
    length_of_stay: Literal["midnights", "days_inclusive"]
    """How days are counted: midnights, or days_inclusive (days of admission and discharge both count)."""
    los_days: Steps
    """L: points by days of stay."""
    acute: Points
    """A: points of an emergent admission."""
    charlson: _Comorbidity
    """C: comorbidity."""
    ed_visits_6m: Steps
    """E: points by emergency visits in the six months before."""
    expected_risk_percent: tuple[Annotated[float, Field(ge=0, le=100)], ...]
    """Expected risk in percent for each score, from 0 up."""


class Lace:
    def __init__(self, name: str, spec: _Spec, categories: Categories) -> None:
        self.name = name
        counted = "" if spec.length_of_stay == "midnights" else " days-inclusive"
        self.version = f"{spec.version} {spec.variant}{counted}"
        self._bands = spec.bands
        self._extra_days = 0 if spec.length_of_stay == "midnights" else 1
        self._los = Ladder(spec.los_days)
        self._acute = spec.acute
        self._categories = categories
        self._weights = spec.charlson.weights
        self._comorbidity = Ladder(spec.charlson.points)
        self._ed_visits = Ladder(spec.ed_visits_6m)
        self._expected = spec.expected_risk_percent

    def score(self, inputs: RiskInputs, *, now: datetime, observed_since: datetime | None) -> Score:
        tally = Tally()
        if inputs.los_days is not None:
            self._add_days(inputs.los_days, tally)
        elif inputs.los_midnights is not None:
            self._add_days(inputs.los_midnights + self._extra_days, tally)
        else:
            tally.unknown("los_days", self._los.max)
        if inputs.acute is None:
            tally.unknown("acute", self._acute)
        elif inputs.acute:
            tally.add("acute", self._acute, "acute admission")
        self._add_comorbidity(inputs, tally)
        if (visits := inputs.ed_visits_6m) is None:
            tally.unknown("ed_visits_6m", self._ed_visits.max)
        else:
            tally.add("ed_visits_6m", self._ed_visits.of(visits), f"{visits} emergency visits in 6 months")
        score = tally.score(self.name, self.version, self._bands, now=now, observed_since=observed_since)
        if score.value is None:
            return score
        return msgspec.structs.replace(score, expected_risk_percent=self._expected[score.value])

    def _add_days(self, days: int, tally: Tally) -> None:
        tally.add("los_days", self._los.of(days), f"stay of {days} days")

    def _add_comorbidity(self, inputs: RiskInputs, tally: Tally) -> None:
        if inputs.charlson is not None:
            tally.add("charlson", self._comorbidity.of(inputs.charlson), f"comorbidity sum {inputs.charlson}")
        elif inputs.diagnoses is not None:
            found = self._categories.match(inputs.diagnoses)
            total = sum(self._weights.get(category, 0) for category in found)
            codes = ", ".join(code for category, code in found.items() if category in self._weights)
            tally.add("charlson", self._comorbidity.of(total), f"comorbidity sum {total} ({codes})")
        else:
            tally.unknown("charlson", self._comorbidity.max)


def load(name: str, document: Document, tables: Mapping[str, Categories]) -> Lace:
    """Raises SettingsError."""
    spec = validate(document, _Spec)
    categories = tables.get(spec.charlson.categories)
    if categories is None:
        raise SettingsError((document.problem(("charlson", "categories"), "no charlson document of this name"),))
    problems = [
        document.problem(("charlson", "weights", key), message)
        for key, message in categories.check_weights(spec.charlson.weights)
    ]
    points_max = spec.los_days[-1].points + spec.acute + spec.charlson.points[-1].points + spec.ed_visits_6m[-1].points
    if len(spec.expected_risk_percent) != points_max + 1:
        message = f"needs one figure for each score from 0 to {points_max}"
        problems.append(document.problem(("expected_risk_percent",), message))
    if problems:
        raise SettingsError(tuple(problems))
    return Lace(name, spec, categories)
