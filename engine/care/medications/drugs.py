"""Names of medicines: what stands behind them (`mappings/medications/drugs.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from engine.errors import Problem
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(min_length=1, max_length=120)]
_Names = Annotated[tuple[_Name, ...], Field(max_length=50)]
Release = Literal["er", "dr", "ir"]


class ClassSpec(StrictModel):
    """A therapeutic class."""

    once: bool = False
    """Two of them on one list are put before a person."""


class DrugSpec(StrictModel):
    """An ingredient."""

    class_: Annotated[_Name, Field(alias="class")]
    """Therapeutic class, one of `classes`."""
    brands: _Names = ()
    """Products with this ingredient alone."""
    also: _Names = ()
    """Other names of the ingredient."""
    salts: _Names = ()
    """Words after the name that change nothing."""
    releases: Annotated[dict[_Name, Release], Field(max_length=20)] = {}
    """Salts by which one knows the release."""
    brand_releases: Annotated[dict[_Name, Release], Field(max_length=20)] = {}
    """Brands by which one knows the release."""
    forms: _Names = ("tablet",)
    """The usual ones."""
    per: Literal["week"] | None = None
    """It is taken once a week; each day is a known error."""


class CombinationSpec(StrictModel):
    """Products of several ingredients."""

    brands: _Names
    """Products."""
    also: _Names = ()
    """Other names that are no brands."""
    of: Annotated[tuple[_Name, ...], Field(min_length=2, max_length=10)]
    """Ingredients."""


class DrugsFile(StrictModel):
    """Medicines by ingredient."""

    medications: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the list."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where it comes from."""
    classes: Annotated[dict[_Name, ClassSpec], Field(max_length=500)]
    """Therapeutic classes."""
    drugs: Annotated[dict[_Name, DrugSpec], Field(max_length=20_000)]
    """Ingredients."""
    combinations: Annotated[tuple[CombinationSpec, ...], Field(max_length=5000)] = ()
    """Products of several ingredients."""


_WORD: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)*|[^\W\d_][^\W_]*|%")
_APOSTROPHES: Final = re.compile("['\u2019\u2018`]")


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, in small letters: `Toprol-XL 50mg` is `toprol xl 50 mg`."""
    return tuple(_WORD.findall(_APOSTROPHES.sub("", text).lower()))


class Named(NamedTuple):
    """What the words of a text name. ingredients: none: nothing that is known, or something besides."""

    ingredients: tuple[str, ...]
    brand: str | None
    release: Release | None
    rest: tuple[str, ...]
    """Words that name nothing: strength, form, directions."""
    at: int
    """Where the first name stands, in words; -1: nowhere."""


class _Meant(NamedTuple):
    ingredients: tuple[str, ...]
    brand: str | None = None
    release: Release | None = None


@dataclass(frozen=True, slots=True)
class Drugs:
    """Names of medicines. Pure."""

    version: str
    names: Mapping[tuple[str, ...], _Meant]
    longest: int
    """Most words of a name."""
    salts: Mapping[str, Mapping[tuple[str, ...], Release | None]]
    """Ingredient -> words behind it -> the release that they tell."""
    classes: Mapping[str, str]
    """Ingredient -> class."""
    once: frozenset[str]
    """Classes of which a list should have one."""
    weekly: frozenset[str]
    """Ingredients that are taken once a week."""

    def named(self, text: str) -> Named:
        """The ingredients that a text names, each once, in the order of the alphabet."""
        said = words_of(text)
        found: set[str] = set()
        brands: list[str] = []
        releases: set[Release] = set()
        rest: list[str] = []
        first = -1
        index = 0
        while index < len(said):
            meant, end = self._at(said, index)
            if meant is None:
                rest.append(said[index])
                index += 1
                continue
            first = index if first < 0 else first
            found.update(meant.ingredients)
            if meant.brand is not None:
                brands.append(meant.brand)
            if meant.release is not None:
                releases.add(meant.release)
            index = end
            for one in meant.ingredients:
                release, end = self._salt(one, said, index)
                if release is not None:
                    releases.add(release)
                index = max(index, end)
        return Named(
            tuple(sorted(found)),
            brands[0] if brands else None,
            releases.pop() if len(releases) == 1 else None,
            tuple(rest),
            first,
        )

    def _at(self, said: Sequence[str], start: int) -> tuple[_Meant | None, int]:
        for count in range(min(self.longest, len(said) - start), 0, -1):
            meant = self.names.get(tuple(said[start : start + count]))
            if meant is not None:
                return meant, start + count
        return None, start

    def _salt(self, ingredient: str, said: Sequence[str], start: int) -> tuple[Release | None, int]:
        found: Release | None = None
        salts = self.salts.get(ingredient, {})
        while True:
            longest = max(
                (words for words in salts if tuple(said[start : start + len(words)]) == words), key=len, default=()
            )
            if not longest:
                return found, start
            found = salts[longest] or found
            start += len(longest)


NO_DRUGS: Final = Drugs(
    version="", names={}, longest=0, salts={}, classes={}, once=frozenset(), weekly=frozenset()
)  # fmt: skip
"""Where a site has no list: each medicine is asked of a person."""


def load_drugs(document: Document, problems: list[Problem]) -> Drugs:
    """Raises SettingsError."""
    spec = validate(document, DrugsFile)
    names: dict[tuple[str, ...], _Meant] = {}

    def put(name: str, meant: _Meant, path: tuple[str | int, ...]) -> None:
        words = words_of(name)
        if not words:
            problems.append(document.problem(path, "has no letter or digit: no list can name it"))
        elif names.setdefault(words, meant) != meant:
            problems.append(document.problem(path, f"{name!r} stands for another medicine already: which is it?"))

    for ingredient, drug in spec.drugs.items():
        path = ("drugs", ingredient)
        if drug.class_ not in spec.classes:
            problems.append(document.problem((*path, "class"), f"there is no class {drug.class_!r}"))
        for name in (ingredient, *drug.also):
            put(name, _Meant((ingredient,)), path)
        for name in drug.brands:
            put(name, _Meant((ingredient,), name, drug.brand_releases.get(name)), path)
        for key, known in (("releases", drug.salts), ("brand_releases", drug.brands)):
            problems += [
                document.problem((*path, key, name), f"stands not among {', '.join(known)}")
                for name in getattr(drug, key)
                if name not in known
            ]
    for index, one in enumerate(spec.combinations):
        for place, ingredient in enumerate(one.of):
            if ingredient not in spec.drugs:
                problems.append(
                    document.problem(("combinations", index, "of", place), f"there is no {ingredient!r} in drugs")
                )
        parts = tuple(sorted(one.of))
        for name in one.brands:
            put(name, _Meant(parts, name), ("combinations", index))
        for name in one.also:
            put(name, _Meant(parts), ("combinations", index))
    return Drugs(
        version=spec.version,
        names=names,
        longest=max(map(len, names), default=0),
        salts={name: dict(_salts(drug)) for name, drug in spec.drugs.items()},
        classes={name: drug.class_ for name, drug in spec.drugs.items()},
        once=frozenset(name for name, one in spec.classes.items() if one.once),
        weekly=frozenset(name for name, drug in spec.drugs.items() if drug.per == "week"),
    )


def _salts(drug: DrugSpec) -> Iterator[tuple[tuple[str, ...], Release | None]]:
    for name in drug.salts:
        yield words_of(name), drug.releases.get(name)
