"""Charts that are merged may have the same item: it is there once, with what was said of it last."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.chart import Chart, Stamp
from engine.domain.parts import Part, folded, united
from engine.domain.patient import Identifier, Patient
from engine.domain.record import Phi


class Booking(Phi, frozen=True, kw_only=True):
    number: str
    starts_at: str | None = None
    place: str | None = None
    told: int = 0
    """Without a stamp."""


class Consent(Phi, frozen=True, kw_only=True):
    purpose: str
    given: bool = False
    at: int = 0


class MadeUp(Chart, frozen=True, kw_only=True):
    bookings: tuple[Booking, ...] = ()
    booking_stamps: dict[str, dict[str, Stamp]] = {}
    consents: tuple[Consent, ...] = ()


BOOKINGS = Part(name="bookings", what="booking", item=Booking, key=lambda one: one.number, stamps="booking_stamps")
CONSENTS = Part(name="consents", what="consent", item=Consent, key=lambda one: one.purpose, as_of=lambda one: one.at)
UNORDERED = Part(name="consents", what="consent", item=Consent, key=lambda one: one.purpose)
PARTS = (BOOKINGS, CONSENTS)
FIELDS = ("starts_at", "place")


def chart(number: int, bookings: dict[str, dict[str, tuple[str, Stamp]]], consents: tuple[Consent, ...] = ()) -> MadeUp:
    """bookings: number -> field -> value and stamp."""
    items = tuple(
        Booking(number=key, told=number, **{name: value for name, (value, _) in said.items()})
        for key, said in bookings.items()
    )
    stamps = {key: {name: at for name, (_, at) in said.items()} for key, said in bookings.items()}
    return MadeUp(
        id=f"c{number}",
        patient=Patient(identifiers=(Identifier(value=f"P{number}", authority="MRN"),)),
        bookings=items,
        booking_stamps={key: said for key, said in stamps.items() if said},
        consents=consents,
    )


@st.composite
def charts(draw: st.DrawFn) -> list[MadeUp]:
    """Two to four charts with bookings of the same few numbers; no two things are said at the same time."""
    count = draw(st.integers(2, 4))
    times = iter(draw(st.permutations(range(1, count * 12 + 1))))
    found = []
    for number in range(count):
        bookings = {
            key: {
                name: (f"{name} by {number}", (float(next(times)), number))
                for name in draw(st.lists(st.sampled_from(FIELDS), unique=True, min_size=1))
            }
            for key in draw(st.lists(st.sampled_from("ABC"), unique=True))
        }
        consents = tuple(
            Consent(purpose=purpose, given=draw(st.booleans()), at=next(times))
            for purpose in draw(st.lists(st.sampled_from(("text", "mail")), unique=True))
        )
        found.append(chart(number, bookings, consents))
    return found


def known(one: Chart) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Items and stamps by key: their order is that of the charts."""
    return {
        part.name: {part.key(item): (item, part.stamps_of(one).get(part.key(item))) for item in part.of(one)}
        for part in PARTS
    }


def merged(several: list[Any]) -> Any:
    """One merge after the other into the first."""
    survivor = several[0]
    for one in several[1:]:
        survivor, _ = folded(survivor, one, PARTS)
    return survivor


@given(charts())
def test_a_merge_loses_nothing_and_doubles_nothing(several: list[MadeUp]) -> None:
    survivor = merged(several)
    for part in PARTS:
        keys = [part.key(item) for item in part.of(survivor)]
        assert len(keys) == len(set(keys))
        assert set(keys) == {part.key(item) for one in several for item in part.of(one)}
    for key, (booking, stamps) in known(survivor)["bookings"].items():
        for name in FIELDS:
            said = [
                (one.booking_stamps[key][name], getattr(item, name))
                for one in several
                for item in one.bookings
                if item.number == key and name in one.booking_stamps[key]
            ]
            if said:
                assert (stamps[name], getattr(booking, name)) == max(said)
            else:
                assert name not in stamps


@given(charts())
def test_it_does_not_matter_in_which_order_charts_are_merged(several: list[MadeUp]) -> None:
    first = known(merged(several))
    assert all(known(merged(list(order))) == first for order in permutations(several))
    assert known(united(several, PARTS)) == first
    if len(several) > 2:
        rest, _ = folded(several[1], several[2], PARTS)
        assert known(merged([several[0], rest, *several[3:]])) == first


@given(charts())
def test_a_merge_that_is_done_again_changes_nothing(several: list[MadeUp]) -> None:
    once = merged(several)
    assert known(merged([once, *several])) == known(once)
    assert folded(once, once, PARTS)[0] == once
    emptied = folded(several[0], several[1], PARTS)[1]
    assert known(folded(once, emptied, PARTS)[0]) == known(once)
    assert known(emptied) == {"bookings": {}, "consents": {}}
    assert emptied.booking_stamps == {}  # type: ignore[attr-defined]


def test_what_has_no_stamp_is_as_in_the_version_that_was_spoken_of_last() -> None:
    older = chart(1, {"A": {"place": ("east", (5.0, 1))}})
    newer = chart(2, {"A": {"starts_at": ("09:00", (9.0, 2))}})
    for survivor, other in ((older, newer), (newer, older)):
        [booking] = united((survivor, other), PARTS).bookings  # type: ignore[attr-defined]
        assert (booking.place, booking.starts_at, booking.told) == ("east", "09:00", 2)


def test_a_field_that_was_cleared_later_stays_clear() -> None:
    said = chart(1, {"A": {"place": ("east", (5.0, 1))}})
    cleared = chart(2, {"A": {"place": (None, (6.0, 2))}})  # type: ignore[dict-item]
    assert united((said, cleared), PARTS).bookings[0].place is None  # type: ignore[attr-defined]
    assert united((cleared, said), PARTS).bookings[0].place is None  # type: ignore[attr-defined]


def test_of_what_was_said_at_the_same_time_the_surviving_chart_is_right() -> None:
    one, other = (chart(n, {"A": {"place": (f"by {n}", (5.0, 7))}}) for n in (1, 2))
    assert united((one, other), PARTS).bookings[0].place == "by 1"  # type: ignore[attr-defined]
    assert united((other, one), PARTS).bookings[0].place == "by 2"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("part", "given_"), [(CONSENTS, True), (UNORDERED, False)], ids=["as_of", "no order"])
def test_of_a_part_without_stamps_the_later_version_counts_or_the_survivors(part: Part, given_: bool) -> None:
    mine, theirs = (chart(n, {}, (Consent(purpose="text", given=n == 2, at=n),)) for n in (1, 2))
    [consent] = united((mine, theirs), (part,)).consents  # type: ignore[attr-defined]
    assert consent.given is given_


def test_a_part_needs_no_more_than_its_name_its_type_and_its_key() -> None:
    booking = Booking(number="A", place="east")
    assert BOOKINGS.shape(booking, "MRN:1") == msgspec.to_builtins(booking)
    assert BOOKINGS.stay(booking) is None
    assert (BOOKINGS.mask.shown, BOOKINGS.mask.codes, BOOKINGS.mask.keys) == (frozenset(), frozenset(), frozenset())
