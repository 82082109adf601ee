"""How each part of a chart is stored, as a table beside `engine.domain.parts`: its rows, and what they are sealed for.

A part has a table with its plain columns, `chart_id` among them, and the sealed `document`. The owner is part of the
place that it is sealed for, and so are all plain columns that decide something: a row that is moved to another chart,
or altered, behind our back does not open. That none was taken away or put in is seen by the keys in the sealed document
of the chart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, select

from engine.domain import parts
from engine.domain.chart import Chart, Stamp
from engine.domain.encounter import Encounter
from engine.domain.parts import Part
from engine.domain.record import Phi
from engine.domain.score import Score
from engine.domain.task import Task
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


@dataclass(frozen=True, slots=True)
class Stamped:
    """Of items whose documents hold more than the items themselves: the stamps, which a chart has in a field apart."""

    field: str
    """Of `Chart`: stamps by key."""
    seal: Callable[[Any, dict[str, Stamp]], Any]
    """Item, stamps -> document."""
    item: Callable[[Any], Any]
    """Document -> item."""


class StoredPart:
    """How the items of one part are stored."""

    def __init__(
        self,
        part: Part,
        table: Table,
        document: type[Any],
        *,
        plain: Callable[[Hashes, str, Any], tuple[Any, ...]],
        place: Callable[..., str],
        some: str,
        among: Callable[[Hashes, str], Any],
        own: bool = False,
        stamped: Stamped | None = None,
    ) -> None:
        """document: its type; the item itself, unless `stamped`.

        plain: hashes, chart id, item -> the values of all columns but `document`, in the order of the table. place:
        these values -> what the document is sealed for. some: a column that some items of a chart are found by; among:
        hashes, key -> its value. own: a row belongs to its chart for ever, and goes when its item does; those of other
        parts never go, and move with their item when charts are merged.
        """
        self.part = part
        self.name = part.name
        self.place = place
        self.stamped = stamped
        key_of = part.key
        self._key_of = key_of if stamped is None else lambda document: key_of(stamped.item(document))
        self._plain = plain
        self._own = own
        self._decode = msgspec.json.Decoder(document).decode
        columns = tuple(table.columns.keys())
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

    def spread(self, fields: dict[str, Any], stamped: Stamped) -> None:
        """Take the documents in the fields of a chart apart."""
        documents = fields[self.name]
        fields[self.name] = items = tuple(map(stamped.item, documents))
        keys = map(self.part.key, items)
        fields[stamped.field] = {key: one.stamps for key, one in zip(keys, documents, strict=True) if one.stamps}

    # --- writing

    def write(
        self, conn: Connection, keys: KeyRing, hashes: Hashes, changed: Sequence[Chart], old: Mapping[str, Chart]
    ) -> None:
        """Write what differs between two versions of some charts. `old` has no entry for a new chart."""
        key_of, own, plain, place, stamped = self.part.key, self._own, self._plain, self.place, self.stamped
        held = {
            (was.id, key_of(item)) if own else key_of(item): (item, was)
            for was in old.values()
            for item in self.part.of(was)
        }
        inserts: list[tuple[Any, ...]] = []
        replaces: list[tuple[Any, ...]] = []
        for new in changed:
            for item in self.part.of(new):
                key = key_of(item)
                was = held.pop((new.id, key) if own else key, None) if held else None
                if was is not None and was[1].id == new.id and self._same(key, was, item, new):
                    continue
                row = plain(hashes, new.id, item)
                document = item if stamped is None else stamped.seal(item, getattr(new, stamped.field).get(key, {}))
                sealed = keys.seal(place(*row), _encode(document))
                (inserts if was is None else replaces).append((*row, sealed))
        if own:
            for item, was_in in held.values():
                row = plain(hashes, was_in.id, item)
                self._delete.write(conn, *(row[index] for index in self._key))
        elif held:
            raise StoreError(f"a change would take away one of the {self.name} without giving it to another chart")
        self._replace.write(conn, replaces)
        self._insert.write(conn, inserts)

    def _same(self, key: str, was: tuple[Any, Chart], item: Any, new: Chart) -> bool:
        if was[0] is not item and was[0] != item:
            return False
        if self.stamped is None:
            return True
        before, after = getattr(was[1], self.stamped.field).get(key), getattr(new, self.stamped.field).get(key)
        return after is before or (after or {}) == (before or {})


class EncounterDocument(Phi, frozen=True, kw_only=True):
    """The sealed part of an encounter."""

    encounter: Encounter
    stamps: dict[str, Stamp] = {}


def _place_of_task(
    task_id: str, chart_id: str, kind: str, state: str, due_at: int, escalate_at: int | None, assigned: bytes | None
) -> str:
    to = assigned.hex() if assigned else ""
    return f"task.document:{chart_id}/{task_id}/{kind}/{state}/{due_at}/{escalate_at}/{to}"


ENCOUNTERS: Final = StoredPart(
    parts.ENCOUNTERS,
    schema.encounter,
    EncounterDocument,
    plain=lambda hashes, chart_id, item: (hashes.encounter(item.key), chart_id),
    place=lambda hashed, chart_id: f"encounter.document:{chart_id}/{hashed.hex()}",
    some="encounter_hash",
    among=lambda hashes, key: hashes.encounter(key),
    stamped=Stamped(
        field="encounter_stamps",
        seal=lambda item, stamps: EncounterDocument(encounter=item, stamps=stamps),
        item=attrgetter("encounter"),
    ),
)
SCORES: Final = StoredPart(
    parts.SCORES,
    schema.score,
    Score,
    plain=lambda hashes, chart_id, item: (chart_id, hashes.encounter(item.encounter), item.model),
    place=lambda chart_id, hashed, model: f"score.document:{chart_id}/{hashed.hex()}/{model}",
    some="encounter_hash",
    among=lambda hashes, key: hashes.encounter(parts.stay_of_score(key)),
    own=True,
)
TASKS: Final = StoredPart(
    parts.TASKS,
    schema.task,
    Task,
    plain=lambda hashes, chart_id, item: (
        item.id,
        chart_id,
        item.kind,
        item.state.value,
        to_micros(item.due_at),
        None if item.escalate_at is None else to_micros(item.escalate_at),
        hashes.assignee(item.assignee),
    ),
    place=_place_of_task,
    some="id",
    among=lambda _hashes, key: key,
)
STORED: Final = (ENCOUNTERS, SCORES, TASKS)

_encode: Final = msgspec.json.Encoder().encode
