"""The fence around the trail: triggers that refuse changes, and the look whether the schema is as we made it.

Rows of the trail are only ever added. What may go is noted in `audit_purge` first, so that a slip of ours, or of an
administrator, does no harm. It is no proof: who may drop a trigger can do what he likes, and is found by
`engine.store.verify`.

Payloads may be updated: they are sealed anew after a rotation, and their row's hash says that they are the same.

Other triggers, rules, views and row security are nobody's business here: they could swallow what we write, or show us
what is not there. A column or an index more does neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import Connection, text

from engine.domain.record import Record
from engine.errors import AlteredSchemaError
from engine.store.schema import (
    CHARTS,
    JOURNAL,
    audit,
    audit_head,
    audit_patient,
    audit_payload,
    audit_purge,
    metadata,
)

_REFUSAL: Final = "rows of the trail are only ever added"
_PURGED: Final = "SELECT 1 FROM {place}audit_purge WHERE OLD.seq BETWEEN first AND last"
_WHOLE: Final = {audit.name: " AND whole = 1", audit_payload.name: "", audit_patient.name: ""}
"""Tables whose rows stay -> what a purge of them says besides."""
OF_THE_TRAIL: Final = frozenset(table.name for table in (audit, audit_payload, audit_patient, audit_head, audit_purge))
_SAID_MAX: Final = 3


class Breach(Record, frozen=True, kw_only=True):
    """Something in the schema that is not as we made it. table: the one that it concerns; may be none of ours."""

    side: str
    table: str
    detail: str
    blocks: bool = True
    """What is written there may be swallowed: a daemon does not start."""

    def __str__(self) -> str:
        return f"{self.side}.{self.table}: {self.detail}"


def statements(dialect: str, schema: str) -> Iterator[str]:
    """What makes the fence."""
    if dialect == "sqlite":
        yield from _sqlite(schema).values()
        return
    for name, body in _bodies(schema).items():
        yield f"CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
    for name, (table, when, level) in _POSTGRESQL.items():
        yield (
            f"CREATE TRIGGER {name} BEFORE {when} ON {schema}.{table} FOR EACH {level}"
            f" EXECUTE FUNCTION {schema}.{_function(table)}()"
        )


def breaches(conn: Connection, side: str = CHARTS) -> list[Breach]:
    """What of a side is not as we made it, on a connection that sees it."""
    found = _of_sqlite(conn, side) if conn.dialect.name == "sqlite" else _of_postgresql(conn, side)
    return sorted(found, key=str)


def all_breaches(conn: Connection) -> list[Breach]:
    """Of both sides."""
    return [one for side in (JOURNAL, CHARTS) for one in breaches(conn, side)]


def check(found: Iterable[Breach]) -> None:
    """Raises AlteredSchemaError when what is written may be swallowed, or changed behind our back."""
    blocking = [str(one) for one in found if one.blocks]
    if blocking:
        raise AlteredSchemaError(
            f"somebody has altered the store's schema ({'; '.join(blocking[:_SAID_MAX])}): what is written there may"
            " not stay; `handoff audit verify` says more, put it right before anything is done"
        )


# --- SQLite ----------------------------------------------------------------------------------------------------------


def _sqlite(schema: str) -> dict[str, str]:
    made: dict[str, str] = {}
    for table, whole in _WHOLE.items():
        stop = f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        unless = f"WHEN NOT EXISTS ({_PURGED.format(place='')}{whole})"
        if table != audit_payload.name:
            made[f"{table}_stays"] = f"CREATE TRIGGER {schema}.{table}_stays BEFORE UPDATE ON {table} {stop}"
        made[f"{table}_kept"] = f"CREATE TRIGGER {schema}.{table}_kept BEFORE DELETE ON {table} {unless} {stop}"
    return made


def _of_sqlite(conn: Connection, side: str) -> Iterator[Breach]:
    rows = conn.execute(
        text(f"SELECT type, name, tbl_name, sql FROM {side}.sqlite_master WHERE type <> 'index'")  # noqa: S608 - ours
    ).all()
    ours = _sqlite(side) if side == CHARTS else {}
    triggers = {row.name: row for row in rows if row.type == "trigger"}
    for name, row in triggers.items():
        if name not in ours:
            yield Breach(side=side, table=row.tbl_name, detail=f"trigger {name} is not ours")
        elif _plain(row.sql) != _plain(ours[name].replace(f"{side}.", "", 1)):
            yield Breach(side=side, table=row.tbl_name, detail=f"trigger {name} was altered")
    for name in ours.keys() - triggers.keys():
        yield Breach(side=side, table=name.rpartition("_")[0], detail=f"trigger {name} is gone")
    tables = {row.name for row in rows if row.type == "table"}
    for row in rows:
        if row.type == "view":
            yield Breach(side=side, table=row.name, detail="is a view, and none is ours", blocks=False)
    for table in _tables(side) - tables:
        yield Breach(side=side, table=table, detail="the table is gone")


def _plain(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()


# --- PostgreSQL ------------------------------------------------------------------------------------------------------

_POSTGRESQL: Final = {
    f"{table}_{name}": (table, when, level)
    for table in _WHOLE
    for name, when, level in (
        ("stays", "UPDATE OR TRUNCATE" if table != audit_payload.name else "TRUNCATE", "STATEMENT"),
        ("kept", "DELETE", "ROW"),
    )
}


def _function(table: str) -> str:
    return f"{table}_stays"


def _bodies(schema: str) -> dict[str, str]:
    """The functions of the triggers."""
    return {
        _function(table): (
            f" BEGIN IF TG_OP = 'DELETE' THEN"
            f" IF EXISTS ({_PURGED.format(place=f'{schema}.')}{whole}) THEN RETURN OLD; END IF; END IF;"
            f" RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = '55000'; END "
        )
        for table, whole in _WHOLE.items()
    }


_TRIGGERS: Final = text("""
    SELECT t.tgname AS name, c.relname AS tab, t.tgenabled AS enabled, n.nspname AS place,
           p.proname AS function, pn.nspname AS function_place, p.prosrc AS source, pg_get_triggerdef(t.oid) AS made
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace pn ON pn.oid = p.pronamespace
    WHERE NOT t.tgisinternal AND n.nspname = :place
""")
_RELATIONS: Final = text("""
    SELECT c.relname AS name, c.relkind AS kind, c.relrowsecurity AS secured,
           EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN') AS ruled
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :place AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")


def _of_postgresql(conn: Connection, side: str) -> Iterator[Breach]:
    place = (conn.get_execution_options().get("schema_translate_map") or {}).get(side, side)
    bodies, seen = _bodies(place), set()
    for row in conn.execute(_TRIGGERS, {"place": place}):
        table, when, level = _POSTGRESQL.get(row.name, (None, "", "")) if side == CHARTS else (None, "", "")
        if table != row.tab:
            yield Breach(side=side, table=row.tab, detail=f"trigger {row.name} is not ours")
            continue
        seen.add(row.name)
        wanted = f" BEFORE {when} ON {place}.{table} FOR EACH {level} EXECUTE FUNCTION {place}."
        # What PostgreSQL shows of a trigger without a condition ends with the call of its function.
        as_made = row.made.endswith(f"{wanted}{_function(row.tab)}()") and row.source == bodies[_function(row.tab)]
        if row.enabled not in {"O", b"O", "A", b"A"}:
            yield Breach(side=side, table=row.tab, detail=f"trigger {row.name} is switched off")
        elif not as_made:
            yield Breach(side=side, table=row.tab, detail=f"trigger {row.name} was altered")
    for name, (table, _, _) in _POSTGRESQL.items() if side == CHARTS else ():
        if name not in seen:
            yield Breach(side=side, table=table, detail=f"trigger {name} is gone")
    relations = {row.name: row for row in conn.execute(_RELATIONS, {"place": place})}
    for name, row in relations.items():
        if row.kind not in {"r", "p", b"r", b"p"}:
            detail = "is a view or a foreign table, and none is ours"
            yield Breach(side=side, table=name, detail=detail, blocks=name in _tables(side))
        elif row.ruled:
            yield Breach(side=side, table=name, detail="has a rule, and none is ours")
        elif row.secured:
            yield Breach(side=side, table=name, detail="has row security, which hides rows")
    for table in _tables(side) - relations.keys():
        yield Breach(side=side, table=table, detail="the table is gone")


def _tables(side: str) -> set[str]:
    return {table.name for table in metadata.tables.values() if table.schema == side}
