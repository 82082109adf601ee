"""The files of `mappings/privacy/`, compiled. A site that has none of a kind can't use the command that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from engine.errors import Problem, SettingsError
from engine.privacy.breach import BreachFile, load_breach
from engine.privacy.disclosures import DisclosuresFile, load_disclosures
from engine.privacy.evidence import EvidenceFile, load_evidence
from engine.privacy.unusual import UnusualFile, load_unusual
from engine.yamlfile import Document

T = TypeVar("T")
FOLDER: Final = "privacy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyRules:
    disclosures: DisclosuresFile | None = None
    unusual: UnusualFile | None = None
    evidence: EvidenceFile | None = None
    breach: BreachFile | None = None


_LOADERS: Final[Mapping[str, Callable[[Document], object]]] = {
    "disclosures": load_disclosures,
    "unusual": load_unusual,
    "evidence": load_evidence,
    "breach": load_breach,
}


def load_privacy(documents: Mapping[str, Document], problems: list[Problem]) -> PrivacyRules:
    """documents: by the stem of their files. What is wrong is added to the problems."""
    found: dict[str, object] = {}
    for stem, document in documents.items():
        load = _LOADERS.get(stem)
        if load is None:
            problems.append(document.problem((), f"this file is not read; there are {', '.join(sorted(_LOADERS))}"))
            continue
        try:
            found[stem] = load(document)
        except SettingsError as error:
            problems += error.problems
    return PrivacyRules(**found)  # type: ignore[arg-type]  # each loader gives what its field holds


def needed(rules: T | None, stem: str, mappings: str) -> T:
    """Raises SettingsError when the site has no such file."""
    if rules is None:
        text = "this file is missing; `handoff init --missing` puts the shipped one there"
        raise SettingsError((Problem(f"{mappings}/{FOLDER}/{stem}.yaml", 1, 1, "", text),))
    return rules
