"""Whether the rows of both sides are all there, as they were made, and no older than they were.

A sealed value can't be altered or moved without notice, but its row can be taken away, and an older one put in its
place. So rows vouch for each other: an outcome has sealed which version of its charts it made, how many deliveries,
and what it has asked; a settlement what was delivered, of whom and to whom; a dead letter what it says; rows in clear
that decide have a keyed hash (`bound.py`, `lives.py`). Numbers that are given one by one have no gaps. What is cut off
at the end, a checkpoint outside of the database tells (`Checkpoint.last`).

All of it reads every outcome once: for `audit verify` and for a restore, not for the daemon.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, func, or_, select

from engine.domain.delivery import DeliveryState, Operation, chart_of_line
from engine.domain.ids import ALIKE_DIGITS
from engine.domain.message import LANES, EntryState
from engine.errors import KeyMissingError, TamperedError
from engine.pipeline.admit import NOTICES
from engine.store import admissions, bound, lives, settlements
from engine.store.charts import chart_place
from engine.store.keys import KeyRing
from engine.store.letters import letter_mac, letter_of
from engine.store.record import OutcomeDocument, open_outcome
from engine.store.schema import (
    SHADOW_NUMBERS,
    admission,
    chart,
    concerned,
    dead_letter,
    delivery,
    entry,
    hold,
    notice,
    outcome,
    repeat,
    settlement,
)

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


def problems(keys: KeyRing, conn: Connection) -> Iterator[Problem]:
    """All that can be told without a checkpoint. conn: a reader of both sides."""
    made = _Made()
    yield from _gaps(conn)
    yield from _outcomes(keys, conn, made)
    yield from _charts(keys, conn, made)
    held = _Held()
    yield from _delivered(keys, conn, held)
    yield from _undelivered(keys, conn, made, held)
    yield from _bound(keys, conn)
    yield from _questions(conn, made)
    yield from _notices(conn, made)
    yield from _admissions(conn)
    yield from _letters(keys, conn)


def _gaps(conn: Connection) -> Iterator[Problem]:
    for name, (table, column) in _DENSE.items():
        number = table.c[column]
        count, first, last = conn.execute(
            select(func.count(), func.min(number), func.max(number)).where(number < SHADOW_NUMBERS)
        ).one()
        if count and (first != 1 or count != last):
            yield None, "rows-missing", f"of {last:,} {name} there are {count:,}, the first of them {first}"


def _pages(conn: Connection, table: Table, number: Column[Any], *where: ColumnElement[bool]) -> Iterator[Sequence[Any]]:
    """All rows of a table, in the order of its key."""
    statement = select(table).where(*where).order_by(number).limit(_ROWS)
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
        self.asked: dict[tuple[int, str, str], tuple[int, str | None]] = {}
        """Questions -> the entry that has asked them last, and the chart."""
        self.took_back: dict[int, tuple[int, set[str]]] = {}
        """By entry, how many notices it has taken back, and the charts that it was about."""
        self.merged: dict[str, str] = {}
        """Charts that were merged away -> into which."""
        self.charts: dict[str, list[str]] = {}
        """The same charts, by what the keys of their deliveries begin with."""

    def learn(self, row: Any, said: OutcomeDocument, about: set[str]) -> None:
        if said.erased:
            self.erased.add(row.chart_id)
        if said.version:
            self.own.add(row.chart_id)
            self.newest[row.chart_id] = max(said.version, self.newest.get(row.chart_id, 0))
        for chart_id, version in said.others.items():
            self.newest[chart_id] = max(version, self.newest.get(chart_id, 0))
        for one in said.asked:
            self.asked[one.root, one.code, one.location] = (row.entry_id, one.chart_id)
        if said.took_back:
            self.took_back[row.entry_id] = (said.took_back, {row.chart_id, *said.others})
        if len(said.others) + bool(said.version) > 1:
            self.unlisted.update((chart_id, row.entry_id) for chart_id in said.others.keys() - about)

    def end_of(self, chart_ids: Iterable[str]) -> set[str]:
        """With all that they were merged into."""
        found: set[str] = set()
        for chart_id in chart_ids:
            one: str | None = chart_id
            while one is not None and one not in found:
                found.add(one)
                one = self.merged.get(one)
        return found


def _outcomes(keys: KeyRing, conn: Connection, made: _Made) -> Iterator[Problem]:
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


def _of_outcome(row: Any, said: OutcomeDocument, sent: int, about: set[str]) -> Iterator[Problem]:
    if sent != said.deliveries:
        yield None, "deliveries", f"entry {row.entry_id} has caused {said.deliveries} deliveries, and there are {sent}"
    if not about <= said.others.keys():
        yield None, "concerned", f"entry {row.entry_id} is said to be about a patient whom it was not about"


def _charts(keys: KeyRing, conn: Connection, made: _Made) -> Iterator[Problem]:
    missing = made.own - made.erased
    for rows in _pages(conn, chart, chart.c.id):
        for row in rows:
            missing.discard(row.id)
            if row.merged_into is not None:
                made.merged[row.id] = row.merged_into
                made.charts.setdefault(row.id[:ALIKE_DIGITS], []).append(row.id)
                if not _opens(keys, row):
                    yield None, "chart-altered", f"chart {row.id}, which was merged away, was altered"
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


def _opens(keys: KeyRing, row: Any) -> bool:
    place = chart_place(row.id, row.version, row.merged_into, row.due_at, row.due_rank, row.partition, row.test)
    try:
        keys.open(place, bytes(row.document))
    except KeyMissingError:
        return True
    except TamperedError:
        return False
    return True


# --- deliveries ------------------------------------------------------------------------------------------------------


class _Held:
    """Deliveries that were held at some time -> the last settlement that says so."""

    def __init__(self) -> None:
        self.by: dict[int, int] = {}


def _delivered(keys: KeyRing, conn: Connection, held: _Held) -> Iterator[Problem]:
    """Deliveries against settlements, both ways."""
    said_before = _Numbers()
    for rows in _pages(conn, settlement, settlement.c.id):
        for row in rows:
            try:
                said = settlements.read(row)
            except TamperedError:
                yield None, "settlement", f"settlement {row.id} was altered, or not made here"
                continue
            held.by.update(dict.fromkeys(said.held, row.id))
            for number in itertools.chain.from_iterable(numbers for _, numbers in said.delivered):
                if not said_before.add(number):
                    yield None, "delivered-twice", f"delivery {number} was delivered twice: somebody has put it back"
            yield from _of_settlement(keys, conn, row, said)
    unsaid = select(delivery.c.id).where(delivery.c.state == DeliveryState.DELIVERED.value)
    for number in conn.execute(unsaid).scalars():
        if number not in said_before:
            yield None, "not-delivered", f"delivery {number} is said to be delivered, and no courier has delivered it"


def _is_of_books(row: Any) -> bool:
    """What an act of a person or the clock has caused is counted by the channel of its patient."""
    return row.created_at == row.recorded_at and (row.channel == row.books or row.books in LANES)


def _of_settlement(keys: KeyRing, conn: Connection, row: Any, said: settlements.Said) -> Iterator[Problem]:
    marks = {number: mark for mark, numbers in said.delivered for number in numbers}
    numbers = sorted(marks)
    wanted = delivery.c.id.in_(numbers)
    columns = (*delivery.c, outcome.c.recorded_at, outcome.c.channel.label("books"))
    joined = delivery.outerjoin(outcome, outcome.c.entry_id == delivery.c.entry_id)
    there = {one.id: one for one in conn.execute(select(*columns).select_from(joined).where(wanted))}
    vouched = {
        one.id: f"{settlements.what(one.destination, one.operation, one.entry_id)}{one.ordering_key}"
        for one in there.values()
    }
    if not settlements.fits(keys, row, said, vouched):
        about = f", or of one of the deliveries {numbers[0]} to {numbers[-1]}, which it is about," if numbers else ""
        yield None, "settlement", f"settlement {row.id} was altered{about} or not made here"
    for number in numbers:
        one = there.get(number)
        if one is None:
            yield None, "delivery-missing", f"delivery {number} was delivered, and its row is gone"
        elif one.state != DeliveryState.DELIVERED.value:
            yield None, "delivery-altered", f"delivery {number} was delivered, and is said to be {one.state}"
        elif (one.settled_at, one.disclosed) != (row.at, marks[number]):
            detail = f"when delivery {number} was delivered, or what its copy counts as, was altered"
            yield None, "delivery-altered", detail
        elif (one.turn, one.started_at, one.error, one.life) != (0, None, None, None):
            yield None, "delivery-altered", f"delivery {number} was delivered, and is said to wait, or to fail"
        elif one.recorded_at is not None and not _is_of_books(one):
            detail = f"when delivery {number} came about, or whose books count it, was altered"
            yield None, "delivery-altered", detail


_PENDING, _HELD_STATE, _WITHHELD, _DEAD = (
    one.value for one in (DeliveryState.PENDING, DeliveryState.HELD, DeliveryState.WITHHELD, DeliveryState.DEAD)
)


def _undelivered(keys: KeyRing, conn: Connection, made: _Made, held: _Held) -> Iterator[Problem]:
    """The life of each delivery that was not delivered: nobody may keep one from going without a word."""
    lines: set[tuple[str, str]] = set()
    for rows in _pages(conn, delivery, delivery.c.id, delivery.c.state != DeliveryState.DELIVERED.value):
        entries = sorted({row.entry_id for row in rows if row.entry_id is not None})
        columns = (outcome.c.entry_id, outcome.c.chart_id, outcome.c.channel, outcome.c.recorded_at)
        by = {one.entry_id: one for one in conn.execute(select(*columns).where(outcome.c.entry_id.in_(entries)))}
        about: dict[int, set[str]] = {}
        for one in conn.execute(select(concerned).where(concerned.c.entry_id.in_(entries))):
            about.setdefault(one.entry_id, set()).add(one.chart_id)
        wanted = notice.c.delivery_id.in_([row.id for row in rows])
        hung = conn.execute(select(notice.c.delivery_id, notice.c.chart_id).where(wanted))
        planned = {one.delivery_id: one.chart_id for one in hung}
        for row in rows:
            caused = by.get(row.entry_id)
            if not _is_as_left(keys, row, caused, held):
                detail = f"what has happened to delivery {row.id} ({row.state}) was altered, or put back to earlier"
                yield None, "delivery-altered", detail
            charts = {caused.chart_id, *about.get(row.entry_id, ())} if caused is not None else None
            if row.state in {_PENDING, _HELD_STATE} and not _is_in_its_line(row, charts, planned.get(row.id), made):
                yield None, "delivery-altered", f"delivery {row.id} waits in the line of another patient"
            if (problem := _turn(row, lines)) is not None:
                yield None, "delivery-turn", problem


def _is_as_left(keys: KeyRing, row: Any, caused: Any, held: _Held) -> bool:
    """caused: the outcome that it is of, if there is one."""
    if row.disclosed is not None or not lives.fits(keys, row):
        return False
    if row.life is None and (caused is None or (row.created_at, row.channel) != (caused.recorded_at, caused.channel)):
        return False
    return lives.after_of(row) >= held.by.get(row.id, 0)


def _is_in_its_line(row: Any, charts: set[str | None] | None, planned: str | None, made: _Made) -> bool:
    """charts: those that its entry was about; none: no entry has caused it. planned: a notice: on which chart."""
    own = chart_of_line(row.ordering_key)
    if row.operation == Operation.NOTIFY_GLASS.value:
        return own.startswith("glass-")
    if planned is not None:
        return own == planned
    if charts is not None and None not in charts:
        ends = made.end_of(one for one in charts if one is not None)
        if own not in ends and made.erased.isdisjoint(ends):
            return False
    if row.operation == Operation.FORWARD.value:
        return True
    if row.idempotency_key.startswith(own[:ALIKE_DIGITS]):
        return True
    merged = made.charts.get(row.idempotency_key[:ALIKE_DIGITS], ())
    return any(own in made.end_of([one]) for one in merged)


def _turn(row: Any, lines: set[tuple[str, str]]) -> str | None:
    """lines: those in which an older one waits."""
    if row.state not in {_PENDING, _HELD_STATE}:
        over = (row.turn, row.started_at) == (0, None)
        return None if over else f"delivery {row.id} is {row.state}, and is said to have its turn"
    line = (row.ordering_key, row.destination)
    if line not in lines:
        lines.add(line)
        return None if row.turn == 1 else f"delivery {row.id} is the oldest of its line, and has not its turn"
    if row.turn and row.started_at is None:
        return f"delivery {row.id} has its turn before an older one of its line"
    return None


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


# --- rows in clear ---------------------------------------------------------------------------------------------------

_CALLED: Final = {"hold": "question m", "notice": "notice ", "admission": "what a rule said of delivery "}


def _bound(keys: KeyRing, conn: Connection) -> Iterator[Problem]:
    for one in bound.BOUND:
        (number,) = one.table.primary_key.columns
        for rows in _pages(conn, one.table, number):
            for row in rows:
                if not bound.fits(keys, one, row):
                    which = f"{_CALLED[one.table.name]}{getattr(row, number.name)}"
                    yield None, f"{one.table.name}-altered", f"{which} was altered, or not made here"


def _is_there(conn: Connection, chart_id: str | None) -> bool:
    """Of a chart that is erased, all rows are gone; of one that is gone otherwise, `chart-missing` says so."""
    return chart_id is None or conn.execute(select(chart.c.id).where(chart.c.id == chart_id)).first() is not None


def _questions(conn: Connection, made: _Made) -> Iterator[Problem]:
    """Questions to people against the outcomes that have asked them."""
    asked = dict(made.asked)
    for rows in _pages(conn, hold, hold.c.id):
        for row in rows:
            entry_id, _ = asked.pop((row.root_id, row.code, row.location), (None, None))
            if entry_id is not None and entry_id != row.entry_id:
                detail = f"question m{row.id} is as entry {row.entry_id} has asked it; entry {entry_id} did so last"
                yield None, "hold-altered", detail
            elif entry_id is None and row.chart_id not in made.erased:
                yield None, "hold-altered", f"question m{row.id} is one that no message has asked"
    for (root, code, _), (_, chart_id) in asked.items():
        if _is_there(conn, chart_id):
            yield None, "hold-missing", f"what entry {root} has left to a person ({code}) is gone"


def _notices(conn: Connection, made: _Made) -> Iterator[Problem]:
    """Words to people against their deliveries, and against the outcomes that have taken them back."""
    operations = sorted(one.value for one in NOTICES)
    joined = delivery.outerjoin(notice, notice.c.delivery_id == delivery.c.id)
    columns = (delivery.c.id, delivery.c.ordering_key)
    unsaid = select(*columns).select_from(joined).where(delivery.c.operation.in_(operations))
    for row in conn.execute(unsaid.where(notice.c.delivery_id.is_(None), delivery.c.id < SHADOW_NUMBERS)):
        if _is_there(conn, chart_of_line(row.ordering_key)):
            yield None, "notice-missing", f"what delivery {row.id} hangs on is gone"
    counted = select(notice.c.gone_by, func.count().label("number")).where(notice.c.gone_by.is_not(None))
    found = {row.gone_by: row.number for row in conn.execute(counted.group_by(notice.c.gone_by))}
    for entry_id, (number, about) in made.took_back.items():
        if found.get(entry_id, 0) != number and made.erased.isdisjoint(about):
            detail = f"entry {entry_id} has taken back {number} notices, and there are {found.get(entry_id, 0)}"
            yield None, "notice-altered", detail


def _admissions(conn: Connection) -> Iterator[Problem]:
    """What a rule keeps is asked of a person, or a person has left it so."""
    joined = delivery.outerjoin(admission, admission.c.delivery_id == delivery.c.id)
    unasked = or_(
        admission.c.delivery_id.is_(None),
        admission.c.not_before.is_not(None),
        admission.c.decision.in_(("released", admissions.LIFTED)),
    )
    withheld = and_(delivery.c.state == _WITHHELD, delivery.c.id < SHADOW_NUMBERS)
    for number in conn.execute(select(delivery.c.id).select_from(joined).where(withheld, unasked)).scalars():
        yield None, "admission-missing", f"delivery {number} is withheld, and nobody is asked about it"
    is_open = and_(admission.c.not_before.is_(None), admission.c.decision.is_(None))
    goes = or_(delivery.c.id.is_(None), delivery.c.state != _WITHHELD)
    joined = admission.outerjoin(delivery, admission.c.delivery_id == delivery.c.id)
    for number in conn.execute(select(admission.c.delivery_id).select_from(joined).where(is_open, goes)).scalars():
        yield None, "admission-altered", f"delivery {number} is to be kept, and is said not to be"


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
