"""The home list against the discharge list: what is the same, what differs, and what a person has to look at.

Steps of `AHRQ MATCH` (Medications at Transitions and Clinical Handoffs): each line is understood, lines of the same
ingredients are put together (way into the body, release, strength), and what differs is said. Nothing is decided: each
finding waits for a person. A line that is not understood is never taken for one that was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

from engine.care.medications.directions import Measure, plain
from engine.care.medications.reading import Formulary, Understood
from engine.domain.medication import Medication, MedicationState
from engine.domain.record import Phi


class Difference(StrEnum):
    SAME = "same"
    DOSE = "dose"
    FREQUENCY = "frequency"
    FORM_RELEASE = "form_release"
    BRAND_GENERIC = "brand_generic"
    SUBSTITUTION = "substitution"
    """Another ingredient of the class."""
    NEW = "new"
    STOPPED = "stopped"
    HELD = "held"
    DUPLICATE_INGREDIENT = "duplicate_ingredient"
    """Twice on the discharge list."""
    DUPLICATE_CLASS = "duplicate_class"
    """Two of one class on the discharge list."""
    UNCLEAR = "unclear"


class Finding(Phi, frozen=True, kw_only=True):
    """home, discharge: ids of lines."""

    difference: Difference
    home: tuple[str, ...] = ()
    discharge: tuple[str, ...] = ()
    note: str
    """For the person who decides."""


class _Line(NamedTuple):
    line: Medication
    is_: Understood


def reconcile(home: Sequence[Medication], discharge: Sequence[Medication], formulary: Formulary) -> list[Finding]:
    """What differs, the lines of the home list in their order first. Each line stands in at least one finding."""
    return list(_Comparing(home, discharge, formulary).findings())


class _Comparing:
    def __init__(self, home: Sequence[Medication], discharge: Sequence[Medication], formulary: Formulary) -> None:
        self._drugs = formulary.drugs
        self._home = [_Line(one, formulary.understand(one)) for one in home]
        self._discharge = [_Line(one, formulary.understand(one)) for one in discharge]
        self._pairs = self._paired()
        taken = {other.line.id for other in self._pairs.values()}
        self._left = [one for one in self._discharge if one.line.id not in taken]
        self._said = set(self._pairs)
        """Lines of the home list that stand in a finding, or will."""

    def findings(self) -> Iterator[Finding]:
        for one in self._home:
            other = self._pairs.get(one.line.id)
            if other is not None:
                yield self._compared(one, other)
            elif one.line.id not in self._said:
                self._said.add(one.line.id)
                yield self._unmatched(one)
        for one in self._left:
            yield self._new(one)
        yield from self._duplicates()

    # --- matching

    def _paired(self) -> dict[str, _Line]:
        """Line of the home list -> that of the discharge list: the closest of the same ingredients first."""
        close = sorted(
            (
                (_distance(one, other), first, second)
                for first, one in enumerate(self._home)
                for second, other in enumerate(self._discharge)
                if _is_same_medicine(one, other)
            )
        )
        pairs: dict[int, int] = {}
        taken: set[int] = set()
        for _, first, second in close:
            if first not in pairs and second not in taken:
                pairs[first] = second
                taken.add(second)
        return {self._home[first].line.id: self._discharge[second] for first, second in pairs.items()}

    # --- what is said of each

    def _compared(self, one: _Line, other: _Line) -> Finding:
        difference, note = _difference(one, other)
        return Finding(difference=difference, home=(one.line.id,), discharge=(other.line.id,), note=note)

    def _unmatched(self, one: _Line) -> Finding:
        home = (one.line.id,)
        if not one.is_.ingredients:
            return Finding(
                difference=Difference.UNCLEAR, home=home, note="This name is not known: find it on the other list"
            )
        if one.line.state is MedicationState.STOPPED:
            return Finding(difference=Difference.STOPPED, home=home, note="Stopped, as its order says")
        if one.line.state is MedicationState.HELD:
            return Finding(
                difference=Difference.HELD, home=home, note="Held, as its order says: when is it taken again?"
            )
        parts = self._parts(one)
        if parts is not None:
            return parts
        instead = self._instead(one)
        if instead is not None:
            self._left.remove(instead)
            class_ = _class_name(self._drugs.classes[one.is_.ingredients[0]])
            note = f"Another medicine of its class ({class_}) in its place: was that meant?"
            return Finding(difference=Difference.SUBSTITUTION, home=home, discharge=(instead.line.id,), note=note)
        unknown = tuple(other.line.id for other in self._left if not other.is_.ingredients)
        if unknown or not self._discharge:
            note = (
                "Not found on the discharge list, but that has lines that are not understood"
                if unknown
                else "There is no discharge list"
            )
            return Finding(difference=Difference.UNCLEAR, home=home, discharge=unknown, note=note)
        return Finding(difference=Difference.STOPPED, home=home, note="Not on the discharge list; nobody has said why")

    def _parts(self, one: _Line) -> Finding | None:
        """One product on one list, its ingredients apart on the other."""
        wanted = set(one.is_.ingredients)
        whole = next((other for other in self._left if wanted < set(other.is_.ingredients)), None)
        if whole is not None:
            home = [one, *self._within(self._home, whole, besides=one)]
            return self._put_together(home, [whole], home, whole)
        parts = self._within(self._left, one)
        return self._put_together([one], parts, parts, one) if parts else None

    def _within(self, lines: Sequence[_Line], whole: _Line, besides: _Line | None = None) -> list[_Line]:
        """Lines that nothing is said of yet, of some of the ingredients of another."""
        wanted = set(whole.is_.ingredients)
        return [
            other
            for other in lines
            if other is not besides
            and other.line.id not in self._said
            and other.is_.ingredients
            and wanted > set(other.is_.ingredients)
        ]

    def _put_together(self, home: list[_Line], discharge: list[_Line], parts: list[_Line], whole: _Line) -> Finding:
        self._said.update(other.line.id for other in home)
        self._left = [other for other in self._left if other not in discharge]
        missing = sorted(set(whole.is_.ingredients) - {name for part in parts for name in part.is_.ingredients})
        if not missing:
            note = "One product on one list, its ingredients apart on the other: compare the doses"
        elif discharge == [whole]:
            note = f"On the discharge list with {', '.join(missing)} besides: was that meant?"
        else:
            note = f"On the discharge list without {', '.join(missing)}: was that meant?"
        return Finding(
            difference=Difference.UNCLEAR if missing else Difference.FORM_RELEASE,
            home=tuple(other.line.id for other in home),
            discharge=tuple(other.line.id for other in discharge),
            note=note,
        )

    def _instead(self, one: _Line) -> _Line | None:
        if len(one.is_.ingredients) != 1:
            return None
        wanted = self._drugs.classes.get(one.is_.ingredients[0])
        return next(
            (
                other
                for other in self._left
                if len(other.is_.ingredients) == 1
                and wanted in self._drugs.once
                and self._drugs.classes.get(other.is_.ingredients[0]) == wanted
                and other.line.state is MedicationState.ACTIVE
            ),
            None,
        )

    def _new(self, one: _Line) -> Finding:
        ids = (one.line.id,)
        if not one.is_.ingredients:
            return Finding(
                difference=Difference.UNCLEAR, discharge=ids, note="This name is not known: find it on the other list"
            )
        if one.line.state is MedicationState.HELD:
            return Finding(difference=Difference.HELD, discharge=ids, note="Held, and not on the home list")
        if one.line.state is MedicationState.STOPPED:
            return Finding(difference=Difference.STOPPED, discharge=ids, note="Stopped, and not on the home list")
        if any(not other.is_.ingredients for other in self._home if other.line.id not in self._pairs):
            note = "Not found on the home list, but that has lines that are not understood"
            return Finding(difference=Difference.UNCLEAR, discharge=ids, note=note)
        note = "Not on the home list" + (f" ({_doubted(one.is_)})" if one.is_.doubts else "")
        return Finding(difference=Difference.NEW, discharge=ids, note=note)

    def _duplicates(self) -> Iterator[Finding]:
        active = [one for one in self._discharge if one.line.state is MedicationState.ACTIVE]
        for one, other in combinations(active, 2):
            ids = (one.line.id, other.line.id)
            both = sorted(set(one.is_.ingredients) & set(other.is_.ingredients))
            if both and (one.is_.route == other.is_.route or None in {one.is_.route, other.is_.route}):
                note = f"Both hold {', '.join(both)}"
                yield Finding(difference=Difference.DUPLICATE_INGREDIENT, discharge=ids, note=note)
                continue
            classes = {self._drugs.classes.get(name) for name in one.is_.ingredients}
            shared = sorted(
                name
                for name in classes & {self._drugs.classes.get(name) for name in other.is_.ingredients}
                if name is not None and name in self._drugs.once
            )
            if shared and not both:
                note = f"Two of one class: {', '.join(map(_class_name, shared))}"
                yield Finding(difference=Difference.DUPLICATE_CLASS, discharge=ids, note=note)


def _is_same_medicine(one: _Line, other: _Line) -> bool:
    if one.is_.ingredients:
        return one.is_.ingredients == other.is_.ingredients
    return not other.is_.ingredients and _raw(one.line) == _raw(other.line)


def _distance(one: _Line, other: _Line) -> tuple[bool, bool, bool, bool]:
    """What differs of two lines of the same ingredients, what matters most first."""
    first, second = one.is_, other.is_
    return (
        None not in {first.route, second.route} and first.route != second.route,
        first.release != second.release,
        first.form != second.form,
        first.strengths != second.strengths,
    )


def _raw(line: Medication) -> tuple[str, ...]:
    """All that a line says, without case and blanks."""
    said = (line.text, line.strength, line.amount, line.form, line.route, line.frequency, *line.directions)
    return tuple(" ".join(one.lower().split()) for one in said if one)


def _difference(one: _Line, other: _Line) -> tuple[Difference, str]:
    first, second = one.is_, other.is_
    if other.line.state is MedicationState.HELD:
        return Difference.HELD, "Held: when is it taken again?"
    if other.line.state is MedicationState.STOPPED:
        return Difference.STOPPED, "Stopped, as its order says"
    if one.line.state is MedicationState.STOPPED:
        return Difference.UNCLEAR, "Stopped before, and on the discharge list: is it taken again?"
    if _raw(one.line) == _raw(other.line) and "daily_of_a_weekly_one" not in second.doubts:
        return Difference.SAME, "Word for word"
    if first.doubts or second.doubts:
        return Difference.UNCLEAR, f"Compare them by hand: {_doubted(first, second)}"
    apart = _apart(first, second)
    if apart is not None:
        return Difference.FORM_RELEASE, apart
    if first.as_needed != second.as_needed:
        return Difference.FREQUENCY, f"{_often(first)} before, {_often(second)} now"
    dose = _doses(first, second)
    if dose is None or None in {first.times, second.times}:
        return Difference.UNCLEAR, f"Compare them by hand: {_lacking(first, second)}"
    same_dose, often = dose, first.times == second.times
    if same_dose and often:
        return _same(first, second)
    if same_dose:
        return Difference.FREQUENCY, f"{_often(first)} before, {_often(second)} now"
    if first.daily is not None and first.daily == second.daily:
        return Difference.FREQUENCY, f"{_taken(first)} before, {_taken(second)} now: the same a day"
    return Difference.DOSE, f"{_taken(first)} before, {_taken(second)} now"


def _same(first: Understood, second: Understood) -> tuple[Difference, str]:
    if first.brand != second.brand:
        names = f"{first.brand or 'generic'} before, {second.brand or 'generic'} now"
        return Difference.BRAND_GENERIC, f"{names}: the same medicine and dose"
    if first.strengths != second.strengths:
        return Difference.SAME, "The same dose, of another strength: how many are taken has changed"
    return Difference.SAME, "The same medicine, dose and times"


def _apart(first: Understood, second: Understood) -> str | None:
    """What differs of release, form and way."""
    if first.release != second.release and "er" in {first.release, second.release}:
        return f"{_RELEASES[first.release]} before, {_RELEASES[second.release]} now"
    if {first.release, second.release} == {"ir", "dr"}:
        return f"{_RELEASES[first.release]} before, {_RELEASES[second.release]} now"
    for name, before, now in (("way", first.route, second.route), ("form", first.form, second.form)):
        if before is not None and now is not None and before != now:
            return f"{name} {before} before, {now} now"
    return None


_RELEASES = {
    None: "release not said",
    "er": "extended release",
    "dr": "delayed release",
    "ir": "immediate release",
}


def _doses(first: Understood, second: Understood) -> bool | None:
    """Whether the doses at a time are the same; none: it can't be told."""
    if len(first.strengths) > 1 or len(second.strengths) > 1:  # of several ingredients: only whole products compare
        if None in {first.count, second.count} or len(first.strengths) != len(second.strengths):
            return None
        return [_scaled(one, first) for one in first.strengths] == [_scaled(one, second) for one in second.strengths]
    if first.dose is not None and second.dose is not None and first.dose.unit == second.dose.unit:
        return first.dose == second.dose
    if not first.strengths and not second.strengths and first.count is not None and second.count is not None:
        return None if first.count == second.count else False
    if first.strengths == second.strengths and first.count is not None:
        return first.count == second.count if second.count is not None else None
    return None


def _scaled(one: Measure, line: Understood) -> Measure:
    assert line.count is not None  # noqa: S101  # as the caller has seen
    return Measure(one.number * line.count, one.unit)


def _lacking(*lines: Understood) -> str:
    found = []
    if any(one.dose is None for one in lines):
        found.append("how much at a time is not said on both")
    if any(one.times is None for one in lines):
        found.append("how often is not said on both")
    return ", ".join(found) or "the units differ"


_DOUBTS = {
    "as_directed": "as directed",
    "by_day": "it differs by day",
    "daily_of_a_weekly_one": "each day, of a medicine that is taken once a week",
    "range": "a range",
    "route_and_form": "this form is not given by this way",
    "sliding_scale": "a sliding scale",
    "taper": "the dose changes by plan",
    "two_amounts": "two amounts",
    "two_frequencies": "how often is said twice, and differs",
    "unknown_name": "the name is not known",
}


def _doubted(*lines: Understood) -> str:
    return ", ".join(dict.fromkeys(_DOUBTS.get(doubt, doubt) for one in lines for doubt in one.doubts))


def _class_name(name: str | None) -> str:
    return (name or "").replace("_", " ")


def _often(one: Understood) -> str:
    times = "how often is not said" if one.times is None else _times(one)
    return f"when needed, {times}" if one.as_needed else times


def _times(one: Understood) -> str:
    assert one.times is not None  # noqa: S101  # as the caller has seen
    if one.times < 1:
        return "every other day" if one.times * 2 == 1 else f"once in {plain(1 / one.times)} days"
    return {1: "once a day", 2: "twice a day"}.get(one.times, f"{plain(one.times)} times a day")  # type: ignore[call-overload, no-any-return]


def _taken(one: Understood) -> str:
    amount = (
        str(one.dose) if one.dose is not None else f"{plain(one.count)} at a time" if one.count is not None else "?"
    )
    return f"{amount} {_often(one)}"
