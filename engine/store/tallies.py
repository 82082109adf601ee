"""Whether the rows of both sides are all there, as they were made, and no older than they were.

A sealed value can't be altered or moved without notice, but its row can be taken away, and an older one put in its
place. So rows vouch for each other: an outcome has sealed which version of its charts it made and how many deliveries;
a settlement what was delivered; a dead letter what it says. Numbers that are given one by one have no gaps. What is cut
off at the end, a checkpoint outside of the database tells (`Checkpoint.last`).

All of it reads every outcome once: for `audit verify` and for a restore, not for the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, Table, and_, func, select

from engine.domain.delivery import DeliveryState
from engine.domain.message import EntryState
from engine.errors import KeyMissingError, TamperedError
from engine.store import settlements
from engine.store.keys import KeyRing
from engine.store.letters import letter_mac, letter_of
from engine.store.record import OutcomeDocument, open_outcome
from engine.store.schema import (
    SHADOW_NUMBERS,
    chart,
    concerned,
    dead_letter,
    delivery,
    entry,
    outcome,
    repeat,
    settlement,
)

if TYPE_CHECKING:
    from engine.store.store import Store

Problem = tuple[int | None, str, str]
_ROWS: Final = 1_000
_DENSE: Final[Mapping[str, tuple[Table, str]]] = {
    "entries": (entry, "id"),
    "repeats": (repeat, "id"),
    "deliveries": (delivery, "id"),
    "settlements": (settlement, "id"),
}
"""Tables of which no row is ever taken out, and whose numbers are given one by one, from 1."""


def last_numbers(conn: Connection) -> dict[str, int]:
    """Of the tables whose rows stay, for a checkpoint."""
    found: dict[str, int] = {}
    for name, (table, column) in _DENSE.items():
        number = table.c[column]
        found[name] = conn.execute(
            select(func.coalesce(func.max(number), 0)).where(number < SHADOW_NUMBERS)
        ).scalar_one()
    return found


def problems(store: Store, conn: Connection) -> Iterator[Problem]:
    """All that can be told without a checkpoint. conn: a reader of both sides."""
    keys = store.keys
    yield from _gaps(conn)
    yield from _outcomes(keys, conn)
    yield from _deliveries(keys, conn)
    yield from _letters(keys, conn)


def _gaps(conn: Connection) -> Iterator[Problem]:
    for name, (table, column) in _DENSE.items():
        number = table.c[column]
        count, first, last = conn.execute(
            select(func.count(), func.min(number), func.max(number)).where(number < SHADOW_NUMBERS)
        ).one()
        if count and (first != 1 or count != last):
            yield None, "rows-missing", f"of {last:,} {name} there are {count:,}, the first of them {first}"


def _pages(conn: Connection, table: Table, number: Column[Any]) -> Iterator[Sequence[Any]]:
    """All rows of a table, in the order of its key."""
    statement = select(table).order_by(number).limit(_ROWS)
    rows = conn.execute(statement).all()
    while rows:
        yield rows
        rows = conn.execute(statement.where(number > getattr(rows[-1], number.name))).all()


# --- outcomes and charts ---------------------------------------------------------------------------------------------


class _Made:
    """What outcomes say of charts."""

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        """The version that the last outcome has made."""
        self.own: set[str] = set()
        """Of which some outcome is."""
        self.erased: set[str] = set()
        """Of which an outcome is left, and not what it said: a person had it erased."""
        self.unlisted: dict[str, int] = {}
        """Which `concerned` does not name, and the entry that was about them: lawful when the chart was erased."""

    def learn(self, row: Any, said: OutcomeDocument, about: set[str]) -> None:
        if said.erased:
            self.erased.add(row.chart_id)
        if said.version:
            self.own.add(row.chart_id)
            self.newest[row.chart_id] = max(said.version, self.newest.get(row.chart_id, 0))
        for chart_id, version in said.others.items():
            self.newest[chart_id] = max(version, self.newest.get(chart_id, 0))
        if len(said.others) + bool(said.version) > 1:
            self.unlisted.update((chart_id, row.entry_id) for chart_id in said.others.keys() - about)


def _outcomes(keys: KeyRing, conn: Connection) -> Iterator[Problem]:
    made = _Made()
    for rows in _pages(conn, outcome, outcome.c.entry_id):
        between = (rows[0].entry_id, rows[-1].entry_id)
        number = delivery.c.entry_id
        counted = select(number, func.count().label("sent")).where(number.between(*between)).group_by(number)
        sent = {row.entry_id: row.sent for row in conn.execute(counted)}
        about: dict[int, set[str]] = {}
        for row in conn.execute(select(concerned).where(concerned.c.entry_id.between(*between))):
            about.setdefault(row.entry_id, set()).add(row.chart_id)
        for row in rows:
            try:
                said = open_outcome(keys, row)
            except KeyMissingError:
                continue
            except TamperedError:
                yield None, "outcome-altered", f"what became of entry {row.entry_id} was altered, or is another's"
                continue
            others = about.pop(row.entry_id, set())
            made.learn(row, said, others)
            if not said.erased:
                yield from _of_outcome(row, said, sent.get(row.entry_id, 0), others)
        for entry_id in about:
            yield None, "concerned", f"entry {entry_id} is said to be about a patient, and has no outcome"
    yield from _charts(conn, made)


def _of_outcome(row: Any, said: OutcomeDocument, sent: int, about: set[str]) -> Iterator[Problem]:
    if sent != said.deliveries:
        yield None, "deliveries", f"entry {row.entry_id} has caused {said.deliveries} deliveries, and there are {sent}"
    if not about <= said.others.keys():
        yield None, "concerned", f"entry {row.entry_id} is said to be about a patient whom it was not about"


def _charts(conn: Connection, made: _Made) -> Iterator[Problem]:
    missing = made.own - made.erased
    for rows in _pages(conn, chart, chart.c.id):
        for row in rows:
            missing.discard(row.id)
            if row.id in made.erased:
                continue
            newest = made.newest.get(row.id)
            if newest is None:
                yield None, "chart-unfounded", f"no message has made chart {row.id}"
            elif row.version != newest:
                detail = f"chart {row.id} is of version {row.version}; the last one that was made is {newest}"
                yield None, "chart-rolled-back", detail
            if (entry_id := made.unlisted.get(row.id)) is not None:
                yield None, "concerned", f"entry {entry_id} is not listed as one about chart {row.id}"
    for chart_id in sorted(missing):
        yield None, "chart-missing", f"chart {chart_id} is gone, and nobody has had it erased"


# --- deliveries ------------------------------------------------------------------------------------------------------


def _deliveries(keys: KeyRing, conn: Connection) -> Iterator[Problem]:
    """Deliveries against settlements, both ways."""
    said_before = _Numbers()
    for rows in _pages(conn, settlement, settlement.c.id):
        for row in rows:
            try:
                said = settlements.opened(keys, row)
            except TamperedError:
                yield None, "settlement", f"settlement {row.id} was altered, or not made here"
                continue
            marks = {number: mark for mark, numbers in said for number in numbers}
            for number in marks:
                if not said_before.add(number):
                    yield None, "delivered-twice", f"delivery {number} was delivered twice: somebody has put it back"
            yield from _of_settlement(conn, row, marks)
    unsaid = select(delivery.c.id).where(delivery.c.state == DeliveryState.DELIVERED.value)
    for number in conn.execute(unsaid).scalars():
        if number not in said_before:
            yield None, "not-delivered", f"delivery {number} is said to be delivered, and no courier has delivered it"


def _of_settlement(conn: Connection, row: Any, marks: Mapping[int, str | None]) -> Iterator[Problem]:
    numbers = sorted(marks)
    columns = (delivery.c.id, delivery.c.state, delivery.c.settled_at, delivery.c.disclosed)
    there = {one.id: one for one in conn.execute(select(*columns).where(delivery.c.id.in_(numbers)))}
    for number in numbers:
        one = there.get(number)
        if one is None:
            yield None, "delivery-missing", f"delivery {number} was delivered, and its row is gone"
        elif one.state != DeliveryState.DELIVERED.value:
            yield None, "delivery-altered", f"delivery {number} was delivered, and is said to be {one.state}"
        elif (one.settled_at, one.disclosed) != (row.at, marks[number]):
            detail = f"when delivery {number} was delivered, or what its copy counts as, was altered"
            yield None, "delivery-altered", detail


class _Numbers:
    """Many numbers from 1, a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> bool:
        """Whether it was not there."""
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1024 - len(self._bits)))
        new = not self._bits[place] >> bit & 1
        self._bits[place] |= 1 << bit
        return bool(new)

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)


# --- dead letters ----------------------------------------------------------------------------------------------------


def _letters(keys: KeyRing, conn: Connection) -> Iterator[Problem]:
    for rows in _pages(conn, dead_letter, dead_letter.c.id):
        for row in rows:
            if letter_mac(keys, letter_of(row)) != bytes(row.mac):
                yield None, "dead-letter", f"dead letter {row.id} was altered, or not made here"
    copied = select(func.min(dead_letter.c.id)).group_by(dead_letter.c.mac).having(func.count() > 1)
    for number in conn.execute(copied).scalars():
        yield None, "dead-letter", f"dead letter {number} is there more than once"
    of_entry = and_(dead_letter.c.entry_id == outcome.c.entry_id, dead_letter.c.delivery_id.is_(None))
    unsaid = (
        select(outcome.c.entry_id)
        .outerjoin(dead_letter, of_entry)
        .where(outcome.c.state == EntryState.DEAD.value, dead_letter.c.id.is_(None))
    )
    for entry_id in conn.execute(unsaid).scalars():
        yield None, "dead-letter", f"entry {entry_id} died, and its dead letter is gone"
    unsaid = (
        select(delivery.c.id)
        .outerjoin(dead_letter, dead_letter.c.delivery_id == delivery.c.id)
        .where(delivery.c.state == DeliveryState.DEAD.value, dead_letter.c.id.is_(None))
    )
    for number in conn.execute(unsaid).scalars():
        yield None, "dead-letter", f"delivery {number} died, and its dead letter is gone"
    alive = (
        select(delivery.c.id)
        .join(dead_letter, dead_letter.c.delivery_id == delivery.c.id)
        .where(dead_letter.c.resolved_by.is_(None), delivery.c.state != DeliveryState.DEAD.value)
    )
    for number in conn.execute(alive).scalars():
        yield None, "delivery-altered", f"delivery {number} died, and is said not to be dead"
