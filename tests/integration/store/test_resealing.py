"""After a rotation everything is sealed anew, and only then is the old key taken away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import LargeBinary, select, update
from store_builders import append, load, patient, receipt
from test_store_secrecy import fill

from engine.errors import KeyMissingError
from engine.runtime.resealing import Resealer
from engine.snapshot import version_of
from engine.store import schema
from engine.store.charts import ChartDocument, chart_place
from engine.store.keys import KeyRing, key_number
from engine.store.parts import STORED, encode
from engine.store.sealed import SEALED, _select, count_by_key, count_with, look, replace, reseal_page
from engine.store.store import Store

FILES = {"config.yaml": "node: n1\n"}


def reseal(store: Store) -> int:
    count = 0
    for one in SEALED:
        after, more = None, True
        while more:
            page = reseal_page(store, one, after)
            assert not page.damaged
            count, after = count + len(page.fresh), page.last
            more = after is not None
    return count


def counts(store: Store) -> dict[int, int]:
    return dict(store.read_now(count_by_key))


def _remember(store: Store) -> None:
    version = version_of(FILES)
    store.charts_ledger.write_now(lambda conn: store.configs.remember(conn, version, FILES, datetime.now(UTC)))


@pytest.fixture
def filled(site):
    with site.open("tool") as store:
        fill(store)
        _remember(store)
        yield store


def test_every_sealed_column_of_the_schema_is_known_here():
    """Columns of bytes are sealed, or they are keyed hashes, which stay, or the places of erasure keys."""
    hashes = {"digest", "found_by", "ground", "life", "mac", "prev", "first"}
    known = {one.column for one in SEALED}
    for table in schema.metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, LargeBinary) and column not in known:
                assert column.name.endswith("_hash") or column.name in hashes, f"{table.name}.{column.name}"
    assert {stored.table.c.document for stored in STORED} <= known


def test_after_a_rotation_all_is_sealed_anew_and_reads_as_before(site):
    filled = site.open("tool")
    made = fill(filled)
    _remember(filled)
    before = counts(filled)
    assert set(before) == {1}
    found = load(filled, made).by_id
    assert found
    assert filled.keys.rotate() == 2
    assert reseal(filled) == before[1]
    assert counts(filled) == {2: before[1]}
    filled.keys.retire(1)
    assert load(filled, made).by_id == found
    with filled.reader() as conn:
        assert filled.configs.get(conn, version_of(FILES)) == FILES
        assert not any(entry.damaged for entry in filled.journal.entries(conn, [1, 2]))
    assert reseal(filled) == 0


DUMMIES = {int: 1, str: "x", bytes: b"\1" * 16}


def _dummy(table, **given):
    """A row with something in every column that must have it, or goes into a place."""
    wanted = [column for column in table.columns if not column.nullable or column.name in {"decided_at", "decided_by"}]
    return {column.name: DUMMIES[column.type.python_type] for column in wanted} | given


@pytest.mark.parametrize("one", SEALED, ids=str)
def test_each_column_is_sealed_anew_whatever_stands_beside_it(site, one):
    """Also where a table's key has several columns, and the place needs another table."""
    store = site.open("tool")
    own, keys = one.table, site.keys
    write = store.journal_ledger if one.side == schema.JOURNAL else store.charts_ledger
    more = {}
    if own is schema.closed:
        document = encode(ChartDocument(patient=patient(), closed=3))
        more = {"document": keys.seal(chart_place("x", 1, None, None, None, None, 1), document)}

    def insert(conn):
        if one.beside is not None:
            conn.execute(one.beside[0].insert(), [_dummy(one.beside[0], **more)])
        conn.execute(own.insert(), [_dummy(own)])

    write.write_now(insert)
    (row,) = store.read_now(lambda conn: conn.execute(_select(one, None, None)).all())
    sealed = keys.seal(one.place(keys, row), b"what it says")
    write.write_now(lambda conn: conn.execute(update(own).values({one.column.name: sealed})))
    keys.rotate()
    assert len(reseal_page(store, one, None).fresh) == 1
    (row,) = store.read_now(lambda conn: conn.execute(_select(one, None, None)).all())
    assert key_number(bytes(row.sealed)) == 2
    assert keys.open(one.place(keys, row), bytes(row.sealed)) == b"what it says"
    key = tuple(getattr(row, column.name) for column in own.primary_key.columns)
    assert store.read_now(lambda conn: look(conn, keys, one, key, 10)) == ([], None, 0)  # nothing behind it


def test_what_a_page_holds_is_all_that_one_transaction_writes(filled, monkeypatch):
    monkeypatch.setattr("engine.store.sealed.PAGE_ROWS", 1)
    before = counts(filled)[1]
    filled.keys.rotate()
    assert reseal(filled) == before
    assert set(counts(filled)) == {2}


def test_a_value_that_was_written_meanwhile_is_left_alone(filled):
    filled.keys.rotate()
    (one,) = [one for one in SEALED if str(one) == "payload.body"]
    page = filled.read_now(lambda conn: look(conn, filled.keys, one, None, 100))
    newer = filled.keys.seal("payload.body:1", b"newer")
    filled.journal_ledger.write_now(lambda conn: conn.execute(update(schema.payload).values(body=newer)))
    filled.journal_ledger.write_now(lambda conn: replace(conn, one, page.fresh))
    with filled.reader() as conn:
        found = {bytes(raw) for raw in conn.execute(select(schema.payload.c.body)).scalars()}
    assert found == {newer}


def test_a_damaged_value_keeps_its_key_and_is_counted(filled):
    with filled.reader() as conn:
        sealed = bytes(conn.execute(select(schema.chart.c.document)).scalar_one())
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    filled.charts_ledger.write_now(lambda conn: conn.execute(update(schema.chart).values(document=broken)))
    filled.keys.rotate()
    (one,) = [one for one in SEALED if str(one) == "chart.document"]
    assert reseal_page(filled, one, None)[::2] == ([], 1)
    with filled.reader() as conn:
        assert count_with(conn, filled.keys, 1, [one], damaged=True) == 1
        assert count_with(conn, filled.keys, 1, [one], damaged=False) == 0
        assert count_with(conn, filled.keys, 1, damaged=False) == counts(filled)[1] - 1


def test_another_process_goes_on_after_a_key_was_retired_and_nothing_can_bring_its_number_back(filled, tmp_path):
    other = KeyRing.load(tmp_path / "keys.json")
    sealed = other.seal("t.c:1", b"old")
    filled.keys.rotate()
    filled.keys.retire(1)
    other.reload()
    assert (other.active, other.numbers) == (2, (2,))
    with pytest.raises(KeyMissingError):
        other.open("t.c:1", sealed)
    assert filled.keys.rotate() == 3


async def test_the_daemon_seals_anew_in_the_background_what_others_have_sealed(filled, tmp_path):
    elsewhere = KeyRing.load(tmp_path / "keys.json")
    stopping = asyncio.Event()
    services = [asyncio.create_task(Resealer(filled, side).run(stopping)) for side in (schema.JOURNAL, schema.CHARTS)]
    elsewhere.rotate()
    append(filled, receipt(filled.keys, "C9"))  # a process that has not heard of the new key
    assert 1 in counts(filled)
    filled.keys.reload()
    async with asyncio.timeout(20):
        while 1 in counts(filled):
            await asyncio.sleep(0.05)
    stopping.set()
    await asyncio.gather(*services)
    assert set(counts(filled)) == {2}


async def test_only_one_of_several_processes_seals_anew(filled):
    filled.keys.rotate()
    stopping = asyncio.Event()
    task = asyncio.create_task(Resealer(filled, schema.CHARTS, ours=lambda: False).run(stopping))
    await asyncio.sleep(0.05)
    stopping.set()
    await task
    assert 2 not in counts(filled)


def test_the_number_of_the_key_is_read_from_the_value(filled):
    filled.keys.rotate()
    assert key_number(filled.keys.seal("t.c:1", b"")) == 2
