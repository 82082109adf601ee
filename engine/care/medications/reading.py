"""What a line of a list says: ingredients, strength, form, release, way, and the dose of a day.

The raw words stay beside it. What is not understood is said as a doubt, and never filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from engine.care.medications.directions import NO_DIRECTIONS, Directions, Measure, plain
from engine.care.medications.drugs import NO_DRUGS, Drugs, Release
from engine.domain.medication import Medication


@dataclass(frozen=True, slots=True)
class Understood:
    """A line, understood."""

    ingredients: tuple[str, ...]
    """In the order of the alphabet; none: the name is not known."""
    brand: str | None
    strengths: tuple[Measure, ...]
    """Of one thing that is taken, in the order of the name."""
    form: str | None
    release: Release | None
    route: str | None
    count: Fraction | None
    """Things at a time."""
    dose: Measure | None
    """At a time, of one ingredient."""
    times: Fraction | None
    """A day; of one that is taken when it is needed: at most."""
    as_needed: bool
    doubts: tuple[str, ...]
    """Codes: why no dose follows, or not all is understood."""

    @property
    def daily(self) -> Measure | None:
        """Of one that is taken each day, of one ingredient."""
        if self.dose is None or self.times is None or self.as_needed:
            return None
        return Measure(self.dose.number * self.times, self.dose.unit)

    @property
    def shape(self) -> dict[str, Any]:
        """For whoever compares it with the words that it was made of."""
        return {
            "ingredients": list(self.ingredients),
            "brand": self.brand,
            "strengths": list(map(str, self.strengths)),
            "form": self.form,
            "release": self.release,
            "route": self.route,
            "dose": str(self.dose) if self.dose is not None else None,
            "times_a_day": plain(self.times) if self.times is not None else None,
            "as_needed": self.as_needed,
            "doubts": list(self.doubts),
        }


@dataclass(frozen=True, slots=True)
class Formulary:
    """What a site's files say of medicines. Pure."""

    drugs: Drugs = NO_DRUGS
    directions: Directions = NO_DIRECTIONS
    codes: dict[tuple[str, str], str] | None = None
    """System (`NDC`, `RXNORM`) and code -> the name that it stands for."""

    def understand(self, line: Medication) -> Understood:
        how, name = self.directions, self._name(line)
        named = self.drugs.named(name)
        texts = tuple(one for one in (line.form, name, *line.directions, line.amount) if one)
        form = how.form(texts)
        said_route = how.route([line.route]) if line.route else None
        route = said_route or how.route((*line.directions, *([line.form] if line.form else ()), name))
        strengths = how.strengths(line.strength or "") or how.strengths(name)
        dosed = how.read(line.amount, line.frequency, line.directions)
        doubts = set(dosed.doubts)
        if not named.ingredients:
            doubts.add("unknown_name")
        if route is not None and form is not None and how.fitting.get(route) and form not in how.fitting[route]:
            doubts.add("route_and_form")
        dose = dosed.measure or self._dose(dosed.count, strengths)
        if strengths and dosed.measure is not None and dosed.count is not None:
            by_count = self._dose(dosed.count, strengths)
            if by_count is not None and by_count.unit == dosed.measure.unit and by_count != dosed.measure:
                doubts.add("two_amounts")
        if any(one in self.drugs.weekly for one in named.ingredients) and dosed.times == 1:
            doubts.add("daily_of_a_weekly_one")
        return Understood(
            ingredients=named.ingredients,
            brand=named.brand,
            strengths=strengths,
            form=form,
            release=named.release or how.release([one for one in (name, line.form) if one]),
            route=route,
            count=dosed.count,
            dose=None if "two_amounts" in doubts or "range" in doubts else dose,
            times=None if doubts & _NO_DAY else dosed.times,
            as_needed=dosed.as_needed,
            doubts=tuple(sorted(doubts)),
        )

    def _name(self, line: Medication) -> str:
        """The words of the list; where they name nothing that is known, those that its code stands for."""
        if self.codes and line.code and not self.drugs.named(line.text).ingredients:
            found = self.codes.get(((line.system or "").upper(), ndc11(line.code) or line.code))
            if found is not None:
                return found
        return line.text

    @staticmethod
    def _dose(count: Fraction | None, strengths: tuple[Measure, ...]) -> Measure | None:
        """Of the first ingredient: where there are several, all are multiplied alike."""
        if count is None or not strengths or "/" in strengths[0].unit:
            return None
        return Measure(count * strengths[0].number, strengths[0].unit)


NO_FORMULARY: Final = Formulary()
"""Where a site has no files of medicines: each line goes to a person."""
_NO_DAY: Final = frozenset({"two_frequencies", "as_directed", "sliding_scale", "taper", "by_day"})
_NDC: Final[dict[tuple[int, ...], tuple[int, int]]] = {
    (4, 4, 2): (0, 1),
    (5, 3, 2): (1, 1),
    (5, 4, 1): (2, 1),
    (5, 4, 2): (0, 0),
}
"""Lengths of the parts of an NDC -> which part lacks how many digits."""


def ndc11(code: str) -> str | None:
    """An NDC with hyphens as eleven digits (45 CFR 162.1002: 5-4-2); none: it is none, or one cannot tell which part
    lacks a digit.
    """
    parts = code.split("-")
    if len(parts) == 1:
        return code if code.isdecimal() and len(code) == 11 else None
    lacks = _NDC.get(tuple(map(len, parts)))
    if lacks is None or not all(part.isdecimal() for part in parts):
        return None
    place, digits = lacks
    parts[place] = "0" * digits + parts[place]
    return "".join(parts)
