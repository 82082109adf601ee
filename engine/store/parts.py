"""How each part of a chart is stored, as a table beside `engine.domain.parts`: its rows, and what they are sealed for.

A part has a table with its plain columns, `chart_id` among them, and the sealed `document`. The owner is part of the
place that it is sealed for, and so are all plain columns that decide something: a row that is moved to another chart,
or altered, behind our back does not open. That none was taken away or put in is seen by the keys in the sealed document
of the chart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, select

from engine.domain import parts
from engine.domain.chart import Chart, Stamp
from engine.domain.codec import decoder, encode
from engine.domain.parts import Part
from engine.domain.record import Phi
from engine.errors import StoreError
from engine.store import schema
from engine.store.keys import KeyRing
from engine.store.schema import to_micros
from engine.store.statements import Listed, Rows, Statement


class Hashes:
    """Keyed hashes that parts are found by, each worked out once."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._encounters: dict[str | None, bytes] = {None: b""}
        self._assignees: dict[str | None, bytes | None] = {None: None}

    def encounter(self, key: str | None) -> bytes:
        """None: of no stay."""
        found = self._encounters.get(key)
        if found is None:
            found = self._encounters[key] = encounter_hash(self._keys, key or "")
        return found

    def item(self, what: str, key: str) -> bytes:
        """Of a part that is stored plainly."""
        return self._keys.lookup(what, key)

    def assignee(self, assignee: str | None) -> bytes | None:
        found = self._assignees.get(assignee)
        if found is None and assignee is not None:
            found = self._assignees[assignee] = assignee_hash(self._keys, assignee)
        return found


def encounter_hash(keys: KeyRing, key: str) -> bytes:
    return keys.lookup("encounter", key)


def assignee_hash(keys: KeyRing, assignee: str) -> bytes:
    """Tasks are found by it: people type names and worse, so the assignee itself stands in the sealed document only."""
    return keys.lookup("assignee", assignee)


class StoredPart:
    """How the items of one part are stored."""

    def __init__(
        self,
        part: Part,
        table: Table,
        *,
        plain: Callable[[Hashes, str, Any], tuple[Any, ...]],
        place: Callable[..., str],
        some: str,
        among: Callable[[Hashes, str], Any],
        own: bool = False,
    ) -> None:
        """The document is the item; of a part with stamps both, as `{"encounter": ..., "stamps": ...}`.

        plain: hashes, chart id, item -> the values of all columns but `document`, in the order of the table. place:
        these values -> what the document is sealed for. some: a column that some items of a chart are found by; among:
        hashes, key -> its value. own: a row belongs to its chart for ever, and goes when its item does; those of other
        parts never go, but of test data, and move with their item when charts are merged.
        """
        self.part = part
        self.name = part.name
        self.place = place
        self.stamped = part.stamps is not None
        self._item_of = attrgetter(part.what)
        self._key_of: Callable[[Any], str] = self._key_of_stamped if self.stamped else part.key
        self._plain = plain
        self._own = own
        self._decode = decoder(_with_stamps(part) if self.stamped else part.item)
        self.table = table
        self.columns = columns = tuple(table.columns.keys())
        key = tuple(column.name for column in table.primary_key.columns)
        self._by_chart = Listed(table.c.chart_id, lambda listed: select(table).where(listed))
        self._among = among
        column, of_chart = table.c[some], [table.c.chart_id == bindparam("chart")] if own else []
        self._some = Listed(column, lambda listed: select(table).where(*of_chart, listed), ("chart",) if own else ())
        self._insert = Rows(table, columns)
        replaced = tuple(name for name in columns if name not in key)
        self._replace = Rows(table, columns, conflict=key, replace=replaced)
        self._delete = Statement(delete(table).where(*(table.c[name] == bindparam(name) for name in key)), key)
        self._key = tuple(columns.index(name) for name in key)

    # --- reading

    def load(self, conn: Connection, keys: KeyRing, chart_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """All that belongs to these charts: chart id -> key -> document. Raises TamperedError."""
        return self._opened(keys, self._by_chart.rows(conn, chart_ids))

    def load_some(
        self, conn: Connection, keys: KeyRing, hashes: Hashes, wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, Any]]:
        """Some of what belongs to charts, as `load` gives all. wanted: chart id -> keys. Raises TamperedError."""
        rows: list[Any] = []
        among = self._among
        if self._own:
            for chart_id, names in wanted.items():
                values = {among(hashes, name) for name in names}
                rows += self._some.rows(conn, list(values), chart_id) if values else ()
        else:
            values = {among(hashes, name) for names in wanted.values() for name in names}
            rows += self._some.rows(conn, list(values))
        return self._opened(keys, rows)

    def _opened(self, keys: KeyRing, rows: Sequence[Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        unseal, decode, place, key_of = keys.open, self._decode, self.place, self._key_of
        for row in rows:
            document = decode(unseal(place(*row[:-1]), row[-1]))
            found.setdefault(row.chart_id, {})[key_of(document)] = document
        return found

    def open(self, keys: KeyRing, row: Any) -> Any:
        """The document of a row of the table, whole. Raises TamperedError."""
        return self._decode(keys.open(self.place(*row[:-1]), row.document))

    def open_item(self, keys: KeyRing, row: Any) -> Any:
        """The item of a row of the table, without its stamps. Raises TamperedError."""
        document = self.open(keys, row)
        return self._item_of(document) if self.stamped else document

    def _key_of_stamped(self, document: Any) -> str:
        return self.part.key(self._item_of(document))

    def spread(self, fields: dict[str, Any]) -> None:
        """Take the documents in the fields of a chart apart, which hold the stamps as well."""
        documents = fields[self.name]
        items = tuple(map(self._item_of, documents))
        keys = map(self.part.key, items)
        stamps = {key: one.stamps for key, one in zip(keys, documents, strict=True) if one.stamps}
        fields |= {self.name: items, self.part.stamps or "": stamps}

    # --- writing

    def write(
        self, conn: Connection, keys: KeyRing, hashes: Hashes, changed: Sequence[Chart], old: Mapping[str, Chart]
    ) -> None:
        """Write what differs between two versions of some charts. `old` has no entry for a new chart."""
        part, own, plain, place = self.part, self._own, self._plain, self.place
        key_of, what = part.key, part.what if self.stamped else None
        held = {
            (was.id, key_of(item)) if own else key_of(item): (item, was)
            for was in old.values()
            for item in part.of(was)
        }
        inserts: list[tuple[Any, ...]] = []
        replaces: list[tuple[Any, ...]] = []
        for new in changed:
            stamps = part.stamps_of(new)
            for item in part.of(new):
                key = key_of(item)
                was = held.pop((new.id, key) if own else key, None) if held else None
                if was is not None and was[1].id == new.id and self._same(key, was, item, new):
                    continue
                row = plain(hashes, new.id, item)
                document = item if what is None else {what: item, "stamps": stamps.get(key, {})}
                sealed = keys.seal(place(*row), encode(document))
                (inserts if was is None else replaces).append((*row, sealed))
        for item, was_in in held.values():
            if own or was_in.test:
                row = plain(hashes, was_in.id, item)
                self._delete.write(conn, *(row[index] for index in self._key))
                continue
            raise StoreError(f"a change would take away one of the {self.name} without giving it to another chart")
        self._replace.write(conn, replaces)
        self._insert.write(conn, inserts)

    def _same(self, key: str, was: tuple[Any, Chart], item: Any, new: Chart) -> bool:
        if was[0] is not item and was[0] != item:
            return False
        if not self.stamped:
            return True
        before, after = self.part.stamps_of(was[1]).get(key), self.part.stamps_of(new).get(key)
        return after is before or (after or {}) == (before or {})


def _with_stamps(part: Part) -> type[Any]:
    """The document of an item with its stamps, as a type."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [(part.what, part.item), ("stamps", dict[str, Stamp], {})]
    return msgspec.defstruct(
        f"{part.item.__name__}Document", fields, bases=(Phi,), module=__name__, frozen=True, kw_only=True
    )


def _place_of_task(task_id: str, chart_id: str, kind: str, state: str, due_at: int, assigned: bytes | None) -> str:
    to = assigned.hex() if assigned else ""
    return f"task.document:{chart_id}/{task_id}/{kind}/{state}/{due_at}/{to}"


ENCOUNTERS: Final = StoredPart(
    parts.ENCOUNTERS,
    schema.encounter,
    plain=lambda hashes, chart_id, item: (hashes.encounter(item.key), chart_id),
    place=lambda hashed, chart_id: f"encounter.document:{chart_id}/{hashed.hex()}",
    some="encounter_hash",
    among=lambda hashes, key: hashes.encounter(key),
)
SCORES: Final = StoredPart(
    parts.SCORES,
    schema.score,
    plain=lambda hashes, chart_id, item: (chart_id, hashes.encounter(item.encounter), item.model),
    place=lambda chart_id, hashed, model: f"score.document:{chart_id}/{hashed.hex()}/{model}",
    some="encounter_hash",
    among=lambda hashes, key: hashes.encounter(parts.stay_of_score(key)),
    own=True,
)
TASKS: Final = StoredPart(
    parts.TASKS,
    schema.task,
    plain=lambda hashes, chart_id, item: (
        item.id,
        chart_id,
        item.kind,
        item.state._value_,  # what `value` gives by two calls of Python
        to_micros(item.due_at),
        hashes.assignee(item.assignee),
    ),
    place=_place_of_task,
    some="id",
    among=lambda _hashes, key: key,
)


PAGES: Final = StoredPart(
    parts.PAGES,
    schema.page,
    plain=lambda _hashes, chart_id, item: (item.id, chart_id, item.state._value_, to_micros(item.raised_at)),
    place=lambda page_id, chart_id, state, raised_at: f"page.document:{chart_id}/{page_id}/{state}/{raised_at}",
    some="id",
    among=lambda _hashes, key: key,
)

TEXTS: Final = StoredPart(
    parts.TEXTS,
    schema.patient_text,
    plain=lambda _hashes, chart_id, item: (item.id, chart_id, item.state._value_, to_micros(item.planned_for)),
    place=lambda text_id, chart_id, state, planned_for: f"text.document:{chart_id}/{text_id}/{state}/{planned_for}",
    some="id",
    among=lambda _hashes, key: key,
)

APPOINTMENTS: Final = StoredPart(
    parts.APPOINTMENTS,
    schema.appointment,
    plain=lambda _hashes, chart_id, item: (
        chart_id,
        item.id,
        item.status._value_,
        item.starts_at and item.starts_at.micros,
    ),
    place=lambda chart_id, id_, status, starts_at: f"appointment.document:{chart_id}/{id_}/{status}/{starts_at or ''}",
    some="id",
    among=lambda _hashes, key: key,
    own=True,
)


def stored_plainly(part: Part) -> StoredPart:
    """How a part is stored that is only ever looked up by its chart: sealed, under a hash of its key."""
    return StoredPart(
        part,
        schema.rows_of_part(part.what),
        plain=lambda hashes, chart_id, item: (chart_id, hashes.item(part.what, part.key(item))),
        place=lambda chart_id, hashed: f"{part.what}.document:{chart_id}/{hashed.hex()}",
        some="key_hash",
        among=lambda hashes, key: hashes.item(part.what, key),
        own=True,
    )


_BY_PART: Final = {stored.name: stored for stored in (ENCOUNTERS, SCORES, TASKS, APPOINTMENTS, PAGES, TEXTS)}
STORED: Final = tuple(_BY_PART.get(part.name) or stored_plainly(part) for part in parts.PARTS)
"""Parts with columns of their own have their rows here; the table of any other follows from its declaration."""
