"""Directions: how much, how often, by which way (`mappings/medications/directions.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final, NamedTuple, TypeVar

from pydantic import Field

from engine.care.medications.drugs import Release, words_of
from engine.errors import Problem
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Word = Annotated[str, Field(min_length=1, max_length=80)]
_Words = Annotated[tuple[_Word, ...], Field(max_length=500)]
Name = TypeVar("Name", bound=str)
_Number = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(/[1-9][0-9]*)?$")]


class RouteSpec(StrictModel):
    """A way into the body."""

    words: _Words
    """Words of it."""
    forms: _Words = ()
    """Forms that are given so; none: any."""


class DirectionsFile(StrictModel):
    """How lists of medicines write doses."""

    directions: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the list."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where it comes from."""
    frequencies: Annotated[dict[_Number, _Words], Field(max_length=100)]
    """Times a day -> words."""
    as_needed: _Words
    """Words of what is taken when it is needed."""
    doubts: Annotated[dict[_Word, _Words], Field(max_length=50)]
    """Why no dose of a day follows -> words."""
    numbers: Annotated[dict[_Number, _Words], Field(max_length=100)]
    """Numbers as words."""
    units: Annotated[dict[_Word, dict[_Word, _Number]], Field(max_length=50)]
    """What is measured -> word -> how many of it that is."""
    counted: _Words
    """Words of one thing that is taken."""
    forms: Annotated[dict[_Word, _Words], Field(max_length=100)]
    """Form -> words."""
    routes: Annotated[dict[_Word, RouteSpec], Field(max_length=50)]
    """Way into the body -> words."""
    releases: Annotated[dict[Release, _Words], Field(max_length=10)]
    """Release -> words."""


class Measure(NamedTuple):
    """An amount in a unit of the file."""

    number: Fraction
    unit: str

    def __str__(self) -> str:
        return f"{plain(self.number)} {self.unit}"


def plain(number: Fraction) -> str:
    """`12.5`; what has no end as a decimal number stays a fraction."""
    short = f"{float(number):.4f}".rstrip("0").rstrip(".")
    return short if Fraction(short) == number else str(number)


@dataclass(frozen=True, slots=True)
class Dosed:
    """What a direction says. Each is none where it says nothing, or two things."""

    count: Fraction | None
    """Things at a time: tablets, puffs."""
    measure: Measure | None
    """At a time."""
    times: Fraction | None
    """A day."""
    as_needed: bool
    doubts: frozenset[str]
    """Why no dose of a day follows: words of the file, or `range`, `two_amounts`, `two_frequencies`."""


@dataclass(frozen=True, slots=True)
class Directions:
    """Words of doses. Pure."""

    frequencies: Mapping[tuple[str, ...], Fraction]
    as_needed: frozenset[tuple[str, ...]]
    doubts: Mapping[tuple[str, ...], str]
    numbers: Mapping[tuple[str, ...], Fraction]
    units: Mapping[str, Measure]
    counted: frozenset[str]
    forms: Mapping[tuple[str, ...], str]
    routes: Mapping[tuple[str, ...], str]
    fitting: Mapping[str, frozenset[str]]
    """Route -> the forms that are given so."""
    releases: Mapping[tuple[str, ...], Release]

    def strengths(self, text: str) -> tuple[Measure, ...]:
        """The strengths that a name holds, in their order: `5-325 mg` has two, `250 mg/5 mL` is how much a millilitre
        has.
        """
        found: list[Measure] = []
        for match in _STRENGTH.finditer(_halves(text).lower()):
            unit = self.units.get(match["unit"])
            if unit is None:
                continue
            by = self.units.get(match["by"] or "")
            of = (
                Measure(unit.number / (_number(match["of"] or "1") * by.number), f"{unit.unit}/{by.unit}")
                if by
                else unit
            )
            found += [Measure(_number(one) * of.number, of.unit) for one in re.split(r"\s*[-/]\s*", match["numbers"])]
        return tuple(found)

    def form(self, texts: Iterable[str]) -> str | None:
        """That of the first text which names one: `solution for injection` is one for injection."""
        for text in texts:
            named = list(_named(self.forms, words_of(text)))
            if named:
                return next((one for one in named if one not in _CARRIERS), named[0])
        return None

    def route(self, texts: Iterable[str]) -> str | None:
        for text in texts:
            named = set(_named(self.routes, words_of(text)))
            if len(named) == 1:
                return named.pop()
        return None

    def release(self, texts: Iterable[str]) -> Release | None:
        for text in texts:
            named = set(_named(self.releases, words_of(text)))
            if len(named) == 1:
                return named.pop()
        return None

    def read(self, amount: str | None, frequency: str | None, directions: Sequence[str]) -> Dosed:
        """What is said of how much and how often: by fields of their own first, and in words."""
        doubts: set[str] = set()
        counts: list[Fraction] = []
        measures: list[Measure] = []
        for text in (amount, *directions) if amount else directions:
            some_counts, some_measures, some_doubts = self._amounts(text)
            doubts |= some_doubts
            if not counts and not measures:
                counts, measures = some_counts, some_measures
        texts = [text for text in (frequency, amount, *directions) if text]
        often = {one for one in (self._often(text) for text in texts) if one}
        needed = any(_any(self.as_needed, words_of(text)) for text in texts)
        doubts |= {doubt for text in texts for doubt in _named(self.doubts, words_of(text))}
        if len(often) > 1 or any(len(one) > 1 for one in often):
            doubts.add("two_frequencies")
        if len(set(counts)) > 1 or len(set(measures)) > 1:
            doubts.add("two_amounts")
        times = next(iter(often)) if len(often) == 1 else ()
        return Dosed(
            counts[0] if len(set(counts)) == 1 else None,
            measures[0] if len(set(measures)) == 1 else None,
            times[0] if len(times) == 1 else None,
            needed,
            frozenset(doubts),
        )

    def _amounts(self, text: str) -> tuple[list[Fraction], list[Measure], set[str]]:
        """Numbers before something that is counted or measured."""
        said = words_of(_halves(text))
        counts: list[Fraction] = []
        measures: list[Measure] = []
        doubts = {"range"} if _RANGE.search(_halves(text).lower()) else set()
        index = 0
        while index < len(said):
            number, end = self._numeral(said, index)
            if number is None:
                index += 1
                continue
            word = said[end] if end < len(said) else ""
            if word in self.counted:
                counts.append(number)
            elif (unit := self.units.get(word)) is not None:
                measures.append(Measure(number * unit.number, unit.unit))
            elif self._is_strength(said, end):  # two 50 mg tablets
                unit = self.units[said[end + 1]]
                counts.append(number)
                measures.append(Measure(number * _number(said[end]) * unit.number, unit.unit))
                end += 3
            index = end
        return counts, measures, doubts

    def _is_strength(self, said: Sequence[str], start: int) -> bool:
        """A number, its unit, and what is counted."""
        words = said[start : start + 3]
        return len(words) == 3 and words[0][0].isdigit() and words[1] in self.units and words[2] in self.counted

    def _numeral(self, said: Sequence[str], start: int) -> tuple[Fraction | None, int]:
        for count in range(4, 0, -1):
            words = tuple(said[start : start + count])
            if len(words) == count and words in self.numbers:
                return self.numbers[words], start + count
        if said[start][0].isdigit():
            return _number(said[start]), start + 1
        return None, start

    def _often(self, text: str) -> tuple[Fraction, ...]:
        """Times a day, each once; `twice daily` is one of them."""
        said = words_of(text.replace("/day", " a day"))
        found: list[Fraction] = []
        left: list[str] = []
        index = 0
        while index < len(said):
            times, end = _longest(self.frequencies, said, index)
            if times is not None:
                found.append(times)
                index = end
                continue
            left.append(said[index])
            index += 1
        found += [Fraction(24) / _number(match["hours"]) for match in _EVERY_HOURS.finditer(" ".join(left))]
        counted = [
            _number(match["times"]) * (Fraction(1, 7) if match["week"] else 1)
            for match in _TIMES.finditer(" ".join(said))
        ]
        if counted:  # `3 times a day` holds `a day`
            found = [one for one in found if one not in {1, Fraction(1, 7)}] + counted
        return tuple(sorted(set(found)))


_CARRIERS: Final = frozenset({"solid", "liquid", "powder"})
"""Forms that others are made as: an inhaler holds a powder, an injection is a solution."""
_STRENGTH: Final = re.compile(
    r"(?P<numbers>[0-9][0-9,]*(?:\.[0-9]+)?(?:\s*[-/]\s*[0-9][0-9,]*(?:\.[0-9]+)?)*)\s*-?(?P<unit>[a-zµμ]+|%|\[iu\])"
    r"(?:\s*(?:/|per)\s*(?P<of>[0-9]+(?:\.[0-9]+)?)?\s*(?P<by>ml|cc)(?![a-z]))?"
)
_RANGE: Final = re.compile(r"[0-9]\s*(?:-|to|or)\s*[0-9]")
_EVERY_HOURS: Final = re.compile(r"(?:every |q ?)(?P<hours>[0-9]+) ?(?:h|hr|hrs|hour|hours)(?![a-z])")
_TIMES: Final = re.compile(r"(?P<times>[0-9]+) times? (?:a |per |each |every )?(?:(?P<week>week|weekly)|day|daily)")


def _halves(text: str) -> str:
    return re.sub(r"(?<![0-9/.])1\s*/\s*2(?![0-9/.])", " half ", text.replace("½", " half "))


def _number(text: str) -> Fraction:
    return Fraction(re.sub(r",(?=[0-9]{3}(?![0-9]))", "", text).replace(",", "."))


def _longest(words: Mapping[tuple[str, ...], Fraction], said: Sequence[str], start: int) -> tuple[Fraction | None, int]:
    for count in range(min(8, len(said) - start), 0, -1):
        found = words.get(tuple(said[start : start + count]))
        if found is not None:
            return found, start + count
    return None, start


def _named(words: Mapping[tuple[str, ...], Name], said: Sequence[str]) -> Iterator[Name]:
    index = 0
    while index < len(said):
        for count in range(min(8, len(said) - index), 0, -1):
            found = words.get(tuple(said[index : index + count]))
            if found is not None:
                yield found
                index += count
                break
        else:
            index += 1


def _any(words: frozenset[tuple[str, ...]], said: Sequence[str]) -> bool:
    return any(tuple(said[index : index + len(one)]) == one for one in words for index in range(len(said)))


def load_directions(document: Document, problems: list[Problem]) -> Directions:
    """Raises SettingsError."""
    spec = validate(document, DirectionsFile)
    forms = dict(_flat(spec.forms))
    for name, route in spec.routes.items():
        for index, form in enumerate(route.forms):
            if form not in spec.forms:
                problems.append(document.problem(("routes", name, "forms", index), f"there is no form {form!r}"))
    return Directions(
        frequencies={words: Fraction(times) for words, times in _flat(spec.frequencies)},
        as_needed=frozenset(words_of(one) for one in spec.as_needed),
        doubts=dict(_flat(spec.doubts)),
        numbers={words: Fraction(number) for words, number in _flat(spec.numbers)},
        units={
            word: Measure(Fraction(number), unit)
            for unit, words in spec.units.items()
            for word, number in words.items()
        },
        counted=frozenset(spec.counted),
        forms=forms,
        routes=dict(_flat({name: one.words for name, one in spec.routes.items()})),
        fitting={name: frozenset(one.forms) for name, one in spec.routes.items()},
        releases=dict(_flat(spec.releases)),
    )


def _flat(words: Mapping[Name, Sequence[str]]) -> Iterator[tuple[tuple[str, ...], Name]]:
    for name, some in words.items():
        for one in some:
            yield words_of(one), name


NO_DIRECTIONS: Final = Directions(
    frequencies={},
    as_needed=frozenset(),
    doubts={},
    numbers={},
    units={},
    counted=frozenset(),
    forms={},
    routes={},
    fitting={},
    releases={},
)
"""Where a site has no list."""
