"""The additive score of the seed document: age, five conditions, admissions, social circumstances, medications."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.domain.score import Score
from engine.errors import Problem, SettingsError
from engine.risk.charlson import Categories
from engine.risk.icd import Pattern, PrefixTable
from engine.risk.inputs import RiskInputs
from engine.risk.points import Bands, Ladder, Name, Points, Steps, Tally, Text
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class _Condition(StrictModel):
    """A condition that gives points once, however many codes prove it."""

    points: Points
    """Points of the condition."""
    codes: tuple[Pattern, ...] = ()
    """ICD-10 codes without dots, as prefixes (`I50`) or ranges (`E08-E13`)."""
    category: Name | None = None
    """Category of the Charlson file, in place of codes."""

    @model_validator(mode="after")
    def _one_of_both(self) -> _Condition:
        if bool(self.codes) == (self.category is not None):
            raise ValueError("needs either codes or a category")
        return self


class _Spec(StrictModel):
    """Seed: an additive score."""

    model: Literal["seed"]
    """`seed`."""
    version: Text
    """Version of this file, kept with each score."""
    variant: Text
    """Which form it is, kept with each score."""
    source: Text
    """Where the numbers come from."""
    bands: Bands
    """Bands of the score."""
    cap: Annotated[int, Field(ge=1)]
    """Highest score."""
    categories: Name
    """Charlson file whose categories the conditions may name, by its name in mappings/risk/."""
    age: Steps
    """Points by age in years."""
    conditions: dict[Name, _Condition]
    """Name -> condition."""
    admissions_12m: Steps
    """Points by admissions in the twelve months before."""
    lives_alone: Points
    """Points of living alone."""
    no_transportation: Points
    """Points of having no transport."""
    active_medications: Steps
    """Points by number of active medications."""


class Seed:
    def __init__(self, name: str, spec: _Spec, conditions: PrefixTable) -> None:
        self.name = name
        self.version = f"{spec.version} {spec.variant}"
        self._bands = spec.bands
        self._cap = spec.cap
        self._age = Ladder(spec.age)
        self._conditions = conditions
        self._condition_points = {key: condition.points for key, condition in spec.conditions.items()}
        self._conditions_max = sum(self._condition_points.values())
        self._admissions = Ladder(spec.admissions_12m)
        self._lives_alone = spec.lives_alone
        self._no_transportation = spec.no_transportation
        self._medications = Ladder(spec.active_medications)

    def score(self, inputs: RiskInputs, *, now: datetime, observed_since: datetime | None) -> Score:
        tally = Tally()
        self._add_age(inputs.age, tally)
        if inputs.diagnoses is None:
            tally.unknown("diagnoses", self._conditions_max)
        else:
            for condition, code in self._conditions.match(inputs.diagnoses).items():
                tally.add(condition, self._condition_points[condition], code)
        if (admissions := inputs.admissions_12m) is None:
            tally.unknown("admissions_12m", self._admissions.max)
        else:
            tally.add("admissions_12m", self._admissions.of(admissions), f"{admissions} admissions in 365 days")
        if inputs.lives_alone is None:
            tally.unknown("lives_alone", self._lives_alone)
        elif inputs.lives_alone:
            tally.add("lives_alone", self._lives_alone, "lives alone")
        if inputs.no_transportation is None:
            tally.unknown("no_transportation", self._no_transportation)
        elif inputs.no_transportation:
            tally.add("no_transportation", self._no_transportation, "no transportation")
        if (medications := inputs.active_medications) is None:
            tally.unknown("active_medications", self._medications.max)
        else:
            tally.add("active_medications", self._medications.of(medications), f"{medications} active medications")
        return tally.score(self.name, self.version, self._bands, now=now, observed_since=observed_since, cap=self._cap)

    def _add_age(self, age: tuple[int, int] | None, tally: Tally) -> None:
        if age is None:
            tally.unknown("age", self._age.max)
            return
        youngest, oldest = age
        proven, possible = self._age.of(youngest), self._age.of(oldest)
        tally.add("age", proven, f"age {youngest}" if youngest == oldest else f"age {youngest} or more")
        if possible > proven:  # the birth date is not precise enough to tell
            tally.unknown("age", possible - proven)


def load(name: str, document: Document, tables: Mapping[str, Categories]) -> Seed:
    """Raises SettingsError."""
    spec = validate(document, _Spec)
    categories = tables.get(spec.categories)
    if categories is None:
        raise SettingsError((document.problem(("categories",), "no charlson document of this name"),))
    problems: list[Problem] = []
    groups: dict[str, tuple[str, ...]] = {}
    for key, condition in spec.conditions.items():
        if condition.category is None:
            groups[key] = condition.codes
        elif condition.category in categories.codes:
            groups[key] = categories.codes[condition.category]
        else:
            problems.append(document.problem(("conditions", key, "category"), "there is no such category"))
    if problems:
        raise SettingsError(tuple(problems))
    return Seed(name, spec, PrefixTable(groups))
