"""Conditions that a protocol declares, and its tasks ask for: who gets a task beyond what band and disposition say.

What is not known never takes a task away where it could only be a person's age (no birth date: the condition holds); a
diagnosis counts once it is coded.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import Field, model_validator

from engine.domain.age import AGE_YEARS_MAX, age_range
from engine.domain.encounter import Encounter
from engine.domain.moment import instant
from engine.domain.patient import Patient
from engine.yamlmodel import StrictModel

_Years = Annotated[int, Field(ge=0, le=AGE_YEARS_MAX)]
_Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.]{0,15}$")]


class Condition(StrictModel):
    """All that is said must hold."""

    diagnoses: tuple[_Code, ...] = ()
    """Beginnings of diagnosis codes of the stay (DG1-3), with or without the dot: one of them."""
    age_years_min: _Years | None = None
    """Least age at the discharge; it holds when the birth date is not known."""
    age_years_max: _Years | None = None
    """Highest age at the discharge; it holds when the birth date is not known."""
    classes: tuple[str, ...] = ()
    """Patient classes (PV1-2 after its table): one of them."""
    units: tuple[str, ...] = ()
    """Points of care (PV1-3.1): one of them."""

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        low, high = self.age_years_min, self.age_years_max
        if not (self.diagnoses or self.classes or self.units) and low is None and high is None:
            raise ValueError("says nothing: needs diagnoses, age_years_min, age_years_max, classes or units")
        if low is not None and high is not None and low > high:
            raise ValueError("age_years_min is above age_years_max")
        return self

    def holds(self, patient: Patient, encounter: Encounter, now: datetime) -> bool:
        """now: when the discharge is not known."""
        if self.classes and encounter.class_ not in self.classes:
            return False
        if self.units and (encounter.location is None or encounter.location.point_of_care not in self.units):
            return False
        if self.diagnoses:
            beginnings = tuple(map(_plain, self.diagnoses))
            if not any(_plain(diagnosis.code).startswith(beginnings) for diagnosis in encounter.diagnoses):
                return False
        return self._of_age(patient, encounter, now)

    def _of_age(self, patient: Patient, encounter: Encounter, now: datetime) -> bool:
        if self.age_years_min is None and self.age_years_max is None:
            return True
        left = instant(encounter.discharged_at) or now.astimezone(UTC)
        ages = age_range(patient.birth_date, left.date())
        if ages is None:
            return True
        youngest, oldest = ages
        low = 0 if self.age_years_min is None else self.age_years_min
        high = AGE_YEARS_MAX if self.age_years_max is None else self.age_years_max
        return oldest >= low and youngest <= high


@lru_cache(4096)
def _plain(code: str) -> str:
    return code.replace(".", "").upper()
