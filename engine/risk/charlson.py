"""The Charlson comorbidity index over ICD-10 (Quan 2005), with the weights of choice.

The categories serve other models too: `lace` has weights of its own for them, `seed` takes single categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.domain.score import Score
from engine.errors import Problem, SettingsError
from engine.risk.icd import Pattern, PrefixTable
from engine.risk.inputs import RiskInputs
from engine.risk.points import Bands, Name, Points, Tally, Text
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class _Category(StrictModel):
    """A category of comorbidity."""

    codes: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    """ICD-10 codes without dots, as prefixes (`I50`) or ranges (`I60-I69`)."""
    weights: dict[Name, Points]
    """Name of a set of weights -> the category's weight in it."""


class _Rule(StrictModel):
    """A category that stands for another."""

    keep: Name
    """Category that counts."""
    drop: Name
    """Category that then does not."""


class _Spec(StrictModel):
    """Charlson: the comorbidity index over ICD-10."""

    model: Literal["charlson"]
    """`charlson`."""
    version: Text
    """Version of this file, kept with each score."""
    source: Text
    """Where codes and weights come from."""
    bands: Bands
    """Bands of the sum."""
    default_weights: Name
    """Set of weights that the model `charlson` uses; `charlson-NAME` uses the set NAME."""
    categories: Annotated[dict[Name, _Category], Field(min_length=1)]
    """Name -> category."""
    hierarchy: tuple[_Rule, ...]
    """Which category stands for which."""


class Categories:
    """Comorbidities by ICD-10 code, the milder form dropped where the graver one is present."""

    def __init__(self, codes: Mapping[str, tuple[str, ...]], hierarchy: tuple[tuple[str, str], ...]) -> None:
        self.codes = codes
        self._table = PrefixTable(codes)
        self._hierarchy = hierarchy

    def match(self, diagnoses: Iterable[str]) -> dict[str, str]:
        """Category -> the first code that proves it."""
        found = self._table.match(diagnoses)
        for keep, drop in self._hierarchy:
            if keep in found:
                found.pop(drop, None)
        return found

    def check_weights(self, weights: Mapping[str, int]) -> Iterable[tuple[str, str]]:
        """(category, what is wrong) for weights that these categories can't be summed with."""
        for name in weights:
            if name not in self.codes:
                yield name, "there is no such category in the table of categories"
        for keep, drop in self._hierarchy:
            if weights.get(keep, 0) < weights.get(drop, 0):
                yield keep, f"must weigh at least as much as {drop}, which it drops"

    def sum_max(self, weights: Mapping[str, int]) -> int:
        """The sum of a patient who has everything."""
        dropped = {drop for _, drop in self._hierarchy}
        return sum(points for name, points in weights.items() if name not in dropped)


class Charlson:
    def __init__(
        self, name: str, version: str, categories: Categories, weights: Mapping[str, int], bands: Bands
    ) -> None:
        self.name = name
        self.version = version
        self._categories = categories
        self._weights = weights
        self._bands = bands
        self._max = categories.sum_max(weights)

    def score(self, inputs: RiskInputs, *, now: datetime, observed_since: datetime | None) -> Score:
        tally = Tally()
        if inputs.diagnoses is None:
            tally.unknown("diagnoses", self._max)
        else:
            for category, code in self._categories.match(inputs.diagnoses).items():
                tally.add(category, self._weights[category], code)
        return tally.score(self.name, self.version, self._bands, now=now, observed_since=observed_since)


def load(name: str, document: Document) -> tuple[Categories, dict[str, Charlson]]:
    """The categories, and a model for each set of weights: the default one under `name`, each under `name-weights`."""
    spec = validate(document, _Spec)
    problems: list[Problem] = []

    def problem(message: str, *path: str | int) -> None:
        problems.append(document.problem(path, message))

    sets = list(next(iter(spec.categories.values())).weights)
    for key, category in spec.categories.items():
        if list(category.weights) != sets:
            problem(f"must give the same weights as the first category: {', '.join(sets)}", "categories", key)
    if spec.default_weights not in sets:
        problem(f"is none of the weights given: {', '.join(sets)}", "default_weights")
    for index, rule in enumerate(spec.hierarchy):
        for end, category_name in (("keep", rule.keep), ("drop", rule.drop)):
            if category_name not in spec.categories:
                problem("there is no such category", "hierarchy", index, end)
    if problems:
        raise SettingsError(tuple(problems))
    categories = Categories(
        {key: category.codes for key, category in spec.categories.items()},
        tuple((rule.keep, rule.drop) for rule in spec.hierarchy),
    )
    models: dict[str, Charlson] = {}
    for variant in sets:
        weights = {key: category.weights[variant] for key, category in spec.categories.items()}
        for key, message in categories.check_weights(weights):
            problem(message, "categories", key, "weights", variant)
        arguments: tuple[Any, ...] = (f"{spec.version} {variant}", categories, weights, spec.bands)
        models[f"{name}-{variant}"] = Charlson(f"{name}-{variant}", *arguments)
        if variant == spec.default_weights:
            models[name] = Charlson(name, *arguments)
    if problems:
        raise SettingsError(tuple(problems))
    return categories, models
