"""The simulated hospital as data: `pathways.yaml`, read strictly, and the mixes in it made quick to draw from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field

from engine.errors import Problem, SettingsError
from engine.yamlfile import Document, parse
from engine.yamlmodel import StrictModel, validate

PATHWAYS: Final = Path(__file__).with_name("pathways.yaml")

Item = TypeVar("Item")


def _plain(text: str) -> str:
    if any(character in "|^~\\&" or ord(character) < 32 for character in text):
        raise ValueError("holds an HL7 delimiter or a control character")
    return text


Plain = Annotated[str, AfterValidator(_plain)]
Weight = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Minutes = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Band = Literal["child", "adult", "middle", "old", "oldest"]
BANDS: Final[tuple[Band, ...]] = ("child", "adult", "middle", "old", "oldest")
Event = Literal["A01", "A02", "A03", "A04", "A05", "A08", "A11", "A13", "A28", "A31", "A40"]
Codes = Literal["none", "admitting", "working", "final"]
Change = Literal["any", "phone", "address", "pcp", "name", "insurance", "death"]


class Mix(Generic[Item]):
    """A weighted choice."""

    def __init__(self, items: Sequence[Item], weights: Sequence[float]) -> None:
        total = sum(weights)
        self._items = tuple(items)
        self._bounds = tuple(accumulate(weight / total for weight in weights))[:-1]

    def draw(self, random: Random) -> Item:
        return self._items[bisect_right(self._bounds, random.random())]


class Hospital(StrictModel):
    application: Plain
    facility: Plain
    receiving_application: Plain
    receiving_facility: Plain
    version: Plain
    authority: Plain
    messages_per_day_max: Annotated[int, Field(ge=1)]
    arrivals_by_hour: Annotated[tuple[Weight, ...], Field(min_length=24, max_length=24)]


class Quirks(StrictModel):
    admit_time_missing: Share
    discharge_time_missing: Share
    occurred_time_missing: Share
    disposition_one_digit: Share
    phone_missing: Share
    pcp_missing: Share
    phone_one_text: Share


class Unit(StrictModel):
    names: Annotated[tuple[Plain, ...], Field(min_length=1)]
    rooms: Annotated[int, Field(ge=1, le=99)]
    beds: Annotated[int, Field(ge=1, le=9)]
    service: Plain


class Reason(StrictModel):
    code: Plain
    text: Plain
    weight: Weight


class Comorbidity(StrictModel):
    code: Plain
    text: Plain
    share: dict[Band, Share]


class Step(StrictModel):
    event: Event
    after_minutes: Minutes = (0, 0)
    chance: Share = 1.0
    times: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (1, 1)
    diagnoses: Codes = "none"
    disposition: str | None = None
    unit: str | None = None
    class_: Plain | None = Field(default=None, alias="class")
    change: Change | None = None
    identity: Literal["own", "duplicate"] = "own"


class Pathway(StrictModel):
    name: str
    weight: Weight
    class_: Plain = Field(alias="class")
    admission_type: Plain = ""
    admit_source: int | None = None
    patient_type: Plain = ""
    unit: str | None = None
    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    ages: dict[Band, Weight]
    began_before: Share = 0.0
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    def itinerary(self, random: Random) -> list[tuple[int, Step]]:
        """One case's steps, each with its second since the first. Short gaps are likelier than long ones."""
        at = 0
        result: list[tuple[int, Step]] = []
        for step in self.steps:
            if step.chance < 1 and random.random() >= step.chance:
                continue
            fewest, most = step.times
            times = fewest if fewest == most else fewest + int(random.random() * (most - fewest + 1))
            for _ in range(times):
                low, high = step.after_minutes
                at += int(60 * (low + (high - low) * random.random() ** 2))
                result.append((at, step))
        return result


class Town(StrictModel):
    city: Plain
    state: Plain
    postal_code: Plain
    area: Annotated[int, Field(ge=200, le=999)]
    weight: Weight


class Insurer(StrictModel):
    code: Plain
    name: Plain
    weight: Weight


class People(StrictModel):
    family: Annotated[tuple[Plain, ...], Field(min_length=1)]
    female: Annotated[tuple[Plain, ...], Field(min_length=1)]
    male: Annotated[tuple[Plain, ...], Field(min_length=1)]
    middle: Annotated[tuple[Plain, ...], Field(min_length=1)]
    streets: Annotated[tuple[Plain, ...], Field(min_length=1)]
    towns: Annotated[tuple[Town, ...], Field(min_length=1)]
    languages: dict[Plain, Weight]
    marital: dict[Plain, Weight]
    living: dict[Plain, Weight]
    plans: Annotated[tuple[Insurer, ...], Field(min_length=1)]
    attendings: Annotated[int, Field(ge=1, le=999)]
    practices: Annotated[int, Field(ge=1, le=999)]


class Book(StrictModel):
    """The whole of `pathways.yaml`."""

    hospital: Hospital
    quirks: Quirks
    units: dict[str, Unit]
    ages: dict[Band, tuple[int, int]]
    dispositions: dict[str, dict[Plain, Weight]]
    reasons: dict[str, Annotated[tuple[Reason, ...], Field(min_length=1)]]
    comorbidities: tuple[Comorbidity, ...]
    pathways: Annotated[tuple[Pathway, ...], Field(min_length=1)]
    people: People

    @cached_property
    def pathway_mix(self) -> Mix[Pathway]:
        return Mix(self.pathways, [pathway.weight for pathway in self.pathways])

    @cached_property
    def age_mixes(self) -> Mapping[str, Mix[Band]]:
        """By the pathway's name."""
        return {pathway.name: Mix(list(pathway.ages), list(pathway.ages.values())) for pathway in self.pathways}

    @cached_property
    def reason_mixes(self) -> Mapping[str, Mix[Reason]]:
        """By the pathway's name."""
        result = {}
        for pathway in self.pathways:
            reasons = [reason for group in pathway.reasons for reason in self.reasons[group]]
            result[pathway.name] = Mix(reasons, [reason.weight for reason in reasons])
        return result

    @cached_property
    def disposition_mixes(self) -> Mapping[str, Mix[str]]:
        return {name: Mix(list(mix), list(mix.values())) for name, mix in self.dispositions.items()}


def load_book(path: Path = PATHWAYS) -> Book:
    """Read the hospital. Raises SettingsError with every problem."""
    document = parse(path.read_text(encoding="utf-8"), path.name)
    book = validate(document, Book)
    problems = (*_dangling(document, book), *_impossible(document, book))
    if problems:
        raise SettingsError(problems)
    return book


def _dangling(document: Document, book: Book) -> Iterator[Problem]:
    """Names that lead nowhere."""

    def check(name: str | None, known: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
        if name is not None and name not in known:
            yield document.problem(path, f"no such entry below {path[-1] if isinstance(path[-1], str) else path[-2]}")

    for index, pathway in enumerate(book.pathways):
        at: tuple[str | int, ...] = ("pathways", index)
        yield from check(pathway.unit, book.units, (*at, "unit"))
        for number, group in enumerate(pathway.reasons):
            yield from check(group, book.reasons, (*at, "reasons", number))
        for number, step in enumerate(pathway.steps):
            yield from check(step.unit, book.units, (*at, "steps", number, "unit"))
            yield from check(step.disposition, book.dispositions, (*at, "steps", number, "disposition"))
    for band in BANDS:
        if band not in book.ages:
            yield document.problem(("ages",), f"{band} is missing")


def _impossible(document: Document, book: Book) -> Iterator[Problem]:
    """Steps that no hospital's registration would let through."""
    for index, pathway in enumerate(book.pathways):
        for number, step in enumerate(pathway.steps):
            at = ("pathways", index, "steps", number)
            low, high = step.after_minutes
            if low > high or step.times[0] > step.times[1]:
                yield document.problem(at, "the least is more than the most")
            if (number or step.times != (1, 1)) and low < 2:
                yield document.problem(at, "needs at least 2 minutes after the step before")
            if number == 0 and (step.chance < 1 or step.times != (1, 1)):
                yield document.problem(at, "the first step always happens, once")
            if (step.event == "A03") != (step.disposition is not None):
                yield document.problem(at, "a disposition belongs to A03 and to nothing else")
