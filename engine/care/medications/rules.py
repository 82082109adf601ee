"""All that a site's files say of medicines: `mappings/medications/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from engine.care.medications.directions import NO_DIRECTIONS, load_directions
from engine.care.medications.drugs import NO_DRUGS, load_drugs
from engine.care.medications.reading import Formulary
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document

T = TypeVar("T")

KINDS: Final = ("medications", "directions")
"""The first key of a file says what kind of file it is."""


def load_formulary(documents: Mapping[str, Document], problems: list[Problem]) -> Formulary:
    """documents: the folder's files by name. A site has one of each kind; without them each line goes to a person."""
    by_kind: dict[str, Document] = {}
    for document in documents.values():
        keys = document.value if isinstance(document.value, dict) else {}
        kind = next((one for one in KINDS if one in keys), None)
        if kind is None:
            problems.append(document.problem((), f"is no file of medicines: it begins with one of {', '.join(KINDS)}"))
        elif kind in by_kind:
            problems.append(
                document.problem((kind,), f"{by_kind[kind].file} is a file of this kind, too: a site has one")
            )
        else:
            by_kind[kind] = document

    def one(kind: str, load: Callable[[Document, list[Problem]], T], without: T) -> T:
        try:
            return load(by_kind[kind], problems) if kind in by_kind else without
        except SettingsError as error:
            problems.extend(error.problems)
            return without

    return Formulary(one("medications", load_drugs, NO_DRUGS), one("directions", load_directions, NO_DIRECTIONS))
