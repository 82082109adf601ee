"""A part of a chart that says nothing of how it is stored: its table and its rows follow from its declaration."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import update
from store_builders import patient

from engine.domain.chart import Chart
from engine.domain.parts import Part, folded
from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store import schema
from engine.store.parts import Hashes, stored_plainly


class Booking(Phi, frozen=True, kw_only=True):
    number: str
    place: str | None = None


class WithBookings(Chart, frozen=True, kw_only=True):
    bookings: tuple[Booking, ...] = ()
    booking_stamps: dict = {}


STAMPED = Part(name="bookings", what="booking", item=Booking, key=lambda one: one.number, stamps="booking_stamps")
PLAIN = Part(name="bookings", what="booking", item=Booking, key=lambda one: one.number)


def chart(number, *places, part):
    """places: of the bookings A, B, ..."""
    bookings = tuple(Booking(number=key, place=place) for key, place in zip("ABC", places, strict=False) if place)
    stamps = {one.number: {"place": (float(number), number)} for one in bookings} if part is STAMPED else {}
    return WithBookings(id=f"c{number}", patient=patient(number), bookings=bookings, booking_stamps=stamps)


@pytest.fixture(params=[STAMPED, PLAIN], ids=["with stamps", "without"])
def part(request):
    return request.param


@pytest.fixture
def kept(store, part):
    """Charts are written through it, in place of what is stored of them, and read."""
    stored = stored_plainly(part)
    table = schema.metadata.tables[f"{schema.CHARTS}.booking"]
    store.charts_ledger.write_now(lambda conn: table.create(conn))
    keys = store.charts.keys

    class Kept:
        def write(self, changed, old=()):
            before = {one.id: one for one in old}
            store.charts_ledger.write_now(lambda conn: stored.write(conn, keys, Hashes(keys), changed, before))

        def read(self, *ids):
            found = store.read_now(lambda conn: stored.load(conn, keys, ids))
            return {chart_id: shown(by_key) for chart_id, by_key in found.items()}

        def read_some(self, wanted):
            found = store.read_now(lambda conn: stored.load_some(conn, keys, Hashes(keys), wanted))
            return {chart_id: shown(by_key) for chart_id, by_key in found.items()}

        def alter(self, **values):
            store.charts_ledger.write_now(lambda conn: conn.execute(update(table).values(**values)))

    def shown(by_key):
        fields = {"bookings": tuple(by_key.values())}
        if stored.stamped:
            stored.spread(fields)
        return {one.number: (one.place, fields.get("booking_stamps", {}).get(one.number)) for one in fields["bookings"]}

    yield Kept()
    store.charts_ledger.write_now(lambda conn: table.drop(conn))
    schema.metadata.remove(table)


def said(place, number, part):
    return place, {"place": (float(number), number)} if part is STAMPED else None


def test_items_come_back_as_they_were_written(kept, part):
    kept.write([chart(1, "east", "west", part=part), chart(2, part=part)])
    assert kept.read("c1", "c2") == {"c1": {"A": said("east", 1, part), "B": said("west", 1, part)}}
    assert kept.read_some({"c1": ["B"]}) == {"c1": {"B": said("west", 1, part)}}


def test_what_changed_is_replaced_and_what_is_gone_goes(kept, part):
    old, new = chart(1, "east", "west", part=part), chart(1, "north", part=part)
    kept.write([old])
    kept.write([new], [old])
    assert kept.read("c1") == {"c1": {"A": said("north", 1, part)}}


@pytest.mark.parametrize(("survivor", "merged"), [(1, 2), (2, 1)])
def test_at_a_merge_an_item_of_both_charts_is_kept_once(kept, part, survivor, merged):
    charts = {1: chart(1, "east", "west", part=part), 2: chart(2, "south", None, "north", part=part)}
    kept.write([*charts.values()])
    kept.write([*folded(charts[survivor], charts[merged], (part,))], [*charts.values()])
    both = {1: said("east", 1, part), 2: said("south", 2, part)}
    newer = both[2] if part is STAMPED else both[survivor]
    assert kept.read("c1", "c2") == {
        f"c{survivor}": {"A": newer, "B": said("west", 1, part), "C": said("north", 2, part)}
    }


def test_a_row_that_was_moved_to_another_chart_is_noticed(kept, part):
    kept.write([chart(1, "east", part=part)])
    kept.alter(chart_id="c2")
    with pytest.raises(TamperedError):
        kept.read("c2")


def test_nothing_of_an_item_is_readable_in_its_row(kept, part, store):
    kept.write([chart(1, "a readable place", part=part)])
    rows = store.read_now(lambda conn: conn.execute(schema.metadata.tables[f"{schema.CHARTS}.booking"].select()).all())
    assert len(rows) == 1
    assert "readable" not in repr(rows)
    assert msgspec.json.encode("A") not in rows[0].document
