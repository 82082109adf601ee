"""What is old, and what is of a patient, can be taken out of each table without walking through it.

For each table of the schema: one that is added has to say here how its rows
are found. Old is found by numbers that were given in the order of time (a sweep finds the first one of a day by
halving), or by when the patient's chart was last touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from store_builders import chart, delivery, outcome, record

from engine.store.schema import metadata

FAMILY = "('chart-1', 'chart-2')"
"""A patient's charts: the one that lives, and those merged into it."""
INACTIVE = "(SELECT id FROM charts.chart WHERE updated_at < 1000 AND due_at IS NULL)"  # what waits is not over
ENTRIES = (
    f"(SELECT entry_id FROM charts.outcome WHERE chart_id IN {FAMILY}"
    f" UNION SELECT entry_id FROM charts.concerned WHERE chart_id IN {FAMILY})"
)
DELIVERIES = (
    f"(SELECT id FROM charts.delivery WHERE entry_id IN {ENTRIES} AND ordering_key IN {FAMILY}"
    f" UNION SELECT id FROM charts.delivery WHERE entry_id IS NULL AND ordering_key IN {FAMILY})"
)

OF_A_CHART = (
    "concerned",
    "identifier",
    "encounter",
    "score",
    "closed",
    "task",
    "page",
    "patient_text",
    "appointment",
    "medication",
    "contact_number",
)
OLD = {
    "journal.entry": ["id < 1000 AND received_at < 1000"],
    "journal.payload": ["entry_id < 1000"],  # PostgreSQL: or its day's partition is dropped
    "journal.repeat": ["id < 1000 AND received_at < 1000"],
    "charts.outcome": ["entry_id < 1000 AND recorded_at < 1000"],
    "charts.chart": [f"id IN {INACTIVE}"],
    **{f"charts.{name}": [f"chart_id IN {INACTIVE}"] for name in OF_A_CHART},
    "charts.oncall_override": ["ends_at < 1000"],
    "charts.delivery": ["id < 1000 AND settled_at < 1000"],
    "charts.delivery_payload": ["delivery_id < 1000"],
    "charts.delivery_receipt": ["delivery_id < 1000"],
    "charts.settlement": ["id < 1000 AND at < 1000"],
    "charts.admission": ["delivery_id < 1000"],
    "charts.notice": ["delivery_id < 1000"],
    "charts.dead_letter": ["id < 1000 AND died_at < 1000"],
    "charts.hold": ["id < 1000 AND opened_at < 1000"],
    "charts.legal_hold": ["id < 1000 AND lifted_at < 1000"],
    "charts.audit": ["seq < 1000 AND at < 1000"],
    "charts.audit_payload": ["seq < 1000"],
    "charts.audit_patient": ["seq < 1000"],
    "charts.ticket": ["ends_at < 1000"],
    "charts.glass": ["begins_at < 1000"],
}
OF_A_PATIENT = {
    "journal.entry": [f"id IN {ENTRIES}"],
    "journal.payload": [f"entry_id IN {ENTRIES}"],
    "journal.repeat": [f"entry_id IN {ENTRIES}"],
    "charts.outcome": [f"entry_id IN {ENTRIES}"],
    "charts.chart": [f"id IN {FAMILY}", f"merged_into IN {FAMILY}"],
    **{f"charts.{name}": [f"chart_id IN {FAMILY}"] for name in (*OF_A_CHART, "hold")},
    "charts.delivery": [
        f"entry_id IN {ENTRIES} AND ordering_key IN {FAMILY}",
        f"entry_id IS NULL AND ordering_key IN {FAMILY}",  # a destination was told again
    ],
    "charts.delivery_payload": [f"delivery_id IN {DELIVERIES}"],
    "charts.delivery_receipt": [f"delivery_id IN {DELIVERIES}"],
    "charts.admission": [f"delivery_id IN {DELIVERIES}"],
    "charts.notice": [f"chart_id IN {FAMILY}"],
    "charts.legal_hold": [f"chart_id IN {FAMILY}"],
    "charts.dead_letter": [
        f"entry_id IN {ENTRIES}",
        "key_hash IN (X'00', X'01')",  # died before there was a chart
        f"delivery_id IN {DELIVERIES}",
    ],
}
NO_PATIENT = {
    **dict.fromkeys(
        ("charts.audit", "charts.audit_payload", "charts.audit_patient"),
        "what was done stays: it names opaque ids, and is kept for its time whoever it is about",
    ),
    "charts.settlement": "numbers of deliveries, by which their rows are proved",
    "charts.oncall_override": "it is about staff",
    "charts.ticket": "it is about staff",
    "charts.glass": "who looked stays: it names opaque ids, and is kept as long as the trail",
}
FEW = {
    "journal.erased": "a row a channel",
    "journal.link": "a row a channel",
    "charts.cursor": "a row a partition of a channel",
    "charts.worker": "a row a worker that lives",
    "charts.destination": "a row a destination",
    "charts.quality": "a row a fault of a channel, of a closed list",
    "charts.account": "a row an account",
    "charts.config_version": "a row a configuration that was in force",
    "charts.config_load": "a row a start or reload",
    "charts.backup_made": "a row a backup",
    "charts.restored": "a row a restore",
    "charts.erasure_key": "places in a tree of keys: of what is gone",
    "charts.erasing": "ranges of entries; a row goes when its entries have gone",
    "charts.audit_head": "the end of the trail",
    "charts.audit_purge": "a row a range that was taken out of the trail",
}
"""Tables that hold nothing of a patient and grow with none."""
STATEMENTS = [
    pytest.param(table, where, id=f"{table} {what} {number}")
    for what, tables in (("old", OLD), ("of a patient", OF_A_PATIENT))
    for table, all_of_it in tables.items()
    for number, where in enumerate(all_of_it)
]


def test_each_table_says_how_its_rows_are_found_when_they_are_to_go() -> None:
    tables = set(metadata.tables)
    assert tables == {*OLD, *FEW}
    assert tables == {*OF_A_PATIENT, *NO_PATIENT, *FEW}


@pytest.mark.parametrize(("table", "where"), STATEMENTS)
def test_sqlite_walks_through_no_table(sqlite_conn: Connection, table: str, where: str) -> None:
    plan = sqlite_conn.exec_driver_sql(f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE {where}").all()
    lines = [row[-1] for row in plan]
    assert any(line.startswith("SEARCH") for line in lines)
    # What a subquery has found is in a list of its own.
    assert [line for line in lines if line.startswith("SCAN") and "SUBQUERY" not in line] == []


@pytest.mark.parametrize(("table", "where"), STATEMENTS)
def test_postgresql_can_do_without_walking_through_a_table(postgresql_conn: Connection, table: str, where: str) -> None:
    """With tables as small as these it would rather do so: it is told not to."""
    where = where.replace("X'", r"'\x")
    found = postgresql_conn.execute(
        text(f"EXPLAIN (FORMAT JSON) DELETE FROM {table} WHERE {where}".replace(":", r"\:"))
    )
    (plan,) = found.scalar_one()
    postgresql_conn.rollback()  # it has the locks that the deletion would need
    walks = [
        json.dumps(node)
        for node in nodes(plan["Plan"])
        if node["Node Type"] == "Seq Scan"
        or (node["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"} and "Index Cond" not in node)
    ]
    assert walks == []


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def test_an_entry_that_was_about_several_patients_is_found_by_each(store) -> None:
    one, other = chart(), chart("chart-2", 2)
    both = outcome(1, one, other, deliveries=(delivery("k1"), delivery("k2", ordering_key="chart-2")))
    record(store, both, outcome(2, chart("chart-3", 3)))

    def found(chart_id: str) -> tuple[set[int], set[int]]:
        family = f"('{chart_id}', '-')"

        def ids(conn: Connection, where: str) -> set[int]:
            return set(conn.exec_driver_sql(where.replace(FAMILY, family)).scalars())

        with store.reader() as conn:
            return ids(conn, ENTRIES[1:-1]), ids(conn, DELIVERIES[1:-1])

    assert found("chart-1") == ({1}, {1})
    assert found("chart-2") == ({1}, {2})
    assert found("chart-3") == ({2}, set())


@pytest.fixture(scope="module")
def sqlite_conn(sqlite_template) -> Iterator[Connection]:
    from engine.store.engines import locate, reader_engine

    engine = reader_engine(locate(f"sqlite:///{sqlite_template}/handoff.db"))
    with engine.connect() as conn:
        yield conn
    engine.dispose()


@pytest.fixture(scope="module")
def postgresql_conn(postgres) -> Iterator[Connection]:
    """Of a database in which nothing ever was: what other tests have left in the statistics would change the plans."""
    from engine.store.engines import locate, reader_engine
    from engine.store.migrations import upgrade

    name = postgres.new_database()
    upgrade(locate(postgres.url(name)))
    engine = reader_engine(locate(postgres.url(name)))
    with engine.connect() as conn:
        for way in ("seqscan", "hashjoin", "mergejoin"):
            conn.exec_driver_sql(f"SET enable_{way} = off")
        conn.commit()
        yield conn
    engine.dispose()
    postgres.drop(name)
