"""Which risk models there are: the documents below `mappings/risk/`, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from engine.domain.score import Score
from engine.errors import Problem, SettingsError
from engine.risk import charlson, hospital, lace, seed
from engine.risk.charlson import Categories
from engine.risk.inputs import RiskInputs
from engine.yamlfile import Document


class Model(Protocol):
    """A risk model, ready to score. Pure."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Includes the variant."""
        ...

    def score(self, inputs: RiskInputs, *, now: datetime, observed_since: datetime | None) -> Score: ...


_LOADERS: Final[Mapping[str, Any]] = {"seed": seed.load, "lace": lace.load, "hospital": hospital.load}


def load_models(documents: Mapping[str, Document], collected: list[Problem] | None = None) -> dict[str, Model]:
    """Compile every document; keys are names without folder and ending (`lace`), and name the models.

    The document's `model` says which logic it feeds, so that a site may keep a variant under a name of its own. A
    charlson document gives one model for each set of weights. collected: takes the problems of all documents, and the
    models without any are returned; none: raises SettingsError with them.
    """
    models: dict[str, Model] = {}
    tables: dict[str, Categories] = {}
    problems: list[Problem] = [] if collected is None else collected
    others: list[tuple[str, Document]] = []
    for name, document in documents.items():
        kind = str(document.value.get("model")) if isinstance(document.value, dict) else ""
        if kind in _LOADERS:
            others.append((name, document))
        elif kind == "charlson":
            try:
                tables[name], made = charlson.load(name, document)
                models.update(made)
            except SettingsError as error:
                problems.extend(error.problems)
        else:
            known = ", ".join(sorted({*_LOADERS, "charlson"}))
            problems.append(document.problem(("model",), f"must name a model: {known}"))
    for name, document in others:
        if name in models:
            problems.append(document.problem((), "a charlson document already gives a model of this name"))
        try:
            models[name] = _LOADERS[document.value["model"]](name, document, tables)
        except SettingsError as error:
            problems.extend(error.problems)
    if problems and collected is None:
        raise SettingsError(tuple(problems))
    return models
