"""PostgreSQL: payloads by day, so that retention drops tables."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from store_builders import NOW, append, receipt

from engine.errors import StoreUnavailableError
from engine.store.days import AHEAD_DAYS, partition_name, prepare_days, prepare_days_apart
from engine.store.schema import day_of


@pytest.fixture
def store(empty_postgresql):
    from engine.store.migrations import upgrade

    upgrade(empty_postgresql.location)
    return empty_postgresql.open("tool")


def prepare(store, now=NOW):
    return store.journal_ledger.write_now(lambda conn: prepare_days(conn, now))


def rows(store, table):
    with store.reader() as conn:
        return conn.execute(text(f"SELECT count(*) FROM journal.{table}")).scalar_one()


def entries(store):
    with store.reader() as conn:
        return store.journal.entries(conn, [id_ for id_, _ in store.journal.after(conn, "main-campus", 0, 100)])


def test_partitions_are_made_ahead_once(store):
    made = prepare(store)
    assert made[0] == "payload_20260301"
    assert len(made) == AHEAD_DAYS + 1
    assert prepare(store) == []
    assert prepare(store, NOW + timedelta(days=1)) == [partition_name(day_of(NOW) + AHEAD_DAYS + 1)]


def test_each_payload_goes_to_its_day_and_is_found_there(store):
    prepare(store)
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2", received_at=NOW + timedelta(days=1)))
    assert (rows(store, "payload_20260301"), rows(store, "payload_20260302")) == (1, 1)
    assert [entry.summary.control_id for entry in entries(store)] == ["1", "2"]


def test_a_day_that_nobody_has_prepared_loses_nothing(store):
    append(store, receipt(store.keys, "1"))
    assert rows(store, "payload_other") == 1
    made = prepare(store)
    assert partition_name(day_of(NOW)) not in made, "its rows are in the default partition already"
    append(store, receipt(store.keys, "2"), receipt(store.keys, "3", received_at=NOW + timedelta(days=400)))
    assert [entry.summary.control_id for entry in entries(store)] == ["1", "2", "3"]


def test_a_dropped_day_takes_its_payloads_and_leaves_ids_and_duplicates(store):
    prepare(store)
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2", received_at=NOW + timedelta(days=1)))
    store.journal_ledger.write_now(lambda conn: conn.execute(text("DROP TABLE journal.payload_20260301")))
    first, second = entries(store)
    assert (first.id, first.damaged, first.payload) == (1, True, b"")
    assert (second.damaged, second.summary.control_id) == (False, "2")
    assert append(store, receipt(store.keys, "1"))[0].duplicate_of == 1
    assert [one.id for one in append(store, receipt(store.keys, "3"))] == [3]
    assert len(store.read_now(store.journal.find)) == 3


def test_a_single_payload_is_looked_for_in_its_day_only(store):
    prepare(store)
    append(store, *(receipt(store.keys, str(number)) for number in range(50)))
    with store.reader() as conn:
        plan = conn.execute(
            text(
                "EXPLAIN (ANALYZE, TIMING OFF) SELECT payload.head FROM journal.entry JOIN journal.payload"
                " ON payload.entry_id = entry.id AND payload.day = entry.day WHERE entry.id = 7"
            )
        ).scalars()
        looked_at = [line for line in plan if "payload_" in line and "never executed" not in line]
    assert len(looked_at) == 1, looked_at


def test_a_dump_that_reads_the_whole_journal_costs_the_preparation_and_no_message(store):
    ledger = store.journal_ledger
    with store.reader() as dump:
        dump.execute(text("SELECT count(*) FROM journal.payload"))
        with pytest.raises(StoreUnavailableError):
            prepare_days_apart(store.location, NOW)
        assert ledger._conn is None, "the journal's own writer had nothing to do with it"
        append(store, receipt(store.keys, "1"))
    append(store, receipt(store.keys, "2"))
    assert [entry.summary.control_id for entry in entries(store)] == ["1", "2"]
    assert len(prepare_days_apart(store.location, NOW)) == AHEAD_DAYS, "today's are in the default partition"
