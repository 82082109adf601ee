"""PHI at rest: nothing of it in clear, and nothing taken for what it is not."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from store_builders import NOW, append, behind, chart, delivery, load, outcome, patient, receipt, record, score, task

from engine.domain.audit import AuditRecord
from engine.domain.encounter import Diagnosis, Encounter
from engine.domain.message import Summary
from engine.domain.moment import Moment
from engine.domain.outcome import Effect
from engine.domain.patient import Address, Identifier, Name, Provider
from engine.domain.score import Factor
from engine.errors import StoreError, TamperedError
from engine.store.outbox import Settled
from engine.store.schema import metadata

MARK = "ZQXMARKER"
BORN = "1931-02-17"
"""A marker that is a date."""


def fill(store):
    """Everything that can be stored, with the marker in each value that may come from a message or a person."""
    append(
        store,
        receipt(
            store.keys,
            f"{MARK}1",
            payload=f"MSH|{MARK}".encode() * 50,
            summary=Summary(control_id=f"{MARK}1", type="ADT^A01", sending_application=MARK, sending_facility=MARK),
            peer=f"10.0.0.4:1 CN={MARK}",
        ),
        receipt(store.keys, f"{MARK}1", payload=f"MSH|{MARK}|again".encode()),
        receipt(store.keys, f"{MARK}1", payload=f"MSH|{MARK}".encode() * 50),
    )
    key = f"MRN:{MARK}V"
    one = chart(
        patient=patient(
            identifiers=(Identifier(value=MARK, authority=MARK, type=MARK),),
            name=Name(family=MARK, given=MARK),
            address=Address(line=MARK, city=MARK),
            phones=(MARK,),
            birth_date=Moment.of(BORN),
            pcp=Provider(id=MARK, family=MARK),
            merged_from=(f"MRN:{MARK}",),
        ),
        encounters=(Encounter(key=key, visit_number=MARK, diagnoses=(Diagnosis(code=MARK, text=MARK),), account=MARK),),
        encounter_stamps={key: {"status": (1.0, 1)}},
        scores=(score(key, factors=(Factor(name="age", points=1, evidence=MARK),)),),
        tasks=(task("task-1", key, reason=MARK),),
    )
    record(
        store,
        outcome(
            1,
            one,
            reason=MARK,
            encounter_key=key,
            effects=(Effect(kind="scored", subject=key, detail=MARK),),
            deliveries=(delivery("k1", payload=f'{{"patient": "{MARK}"}}'.encode()),),
        ),
    )
    store.charts_ledger.write_now(
        lambda conn: store.audit.append(
            conn, [AuditRecord(at=NOW, actor="system", action="reveal", subject="chart:1", reason=f"asked by {MARK}")]
        )
    )
    return one


def needles():
    import base64

    raw, born = MARK.encode(), BORN.encode()
    return [
        raw,
        MARK.lower().encode(),
        born,
        born.hex().encode(),
        raw.hex().encode(),
        base64.b64encode(raw)[:10],
        raw.decode().encode("utf-16-le"),
    ]


def test_no_phi_stands_in_clear_in_any_file(sqlite_site):
    store = sqlite_site.open("tool")
    fill(store)
    files = {path.name: path.read_bytes() for path in sqlite_site.folder.iterdir()}
    assert any(name.endswith("-wal") for name in files)
    assert sum(map(len, files.values())) > 100_000
    store.close()
    files.update({f"closed {path.name}": path.read_bytes() for path in sqlite_site.folder.iterdir()})
    assert [(name, needle) for name, raw in files.items() for needle in needles() if needle in raw] == []


def test_no_phi_stands_in_clear_in_any_column(site):
    store = site.open("tool")
    one = fill(store)
    with store.reader() as conn:
        for table in metadata.sorted_tables:
            for row in conn.execute(table.select()):
                shown = b"\0".join(item if isinstance(item, bytes) else str(item).encode() for item in row)
                assert not any(needle in shown for needle in needles()), table.name
    assert load(store, one).by_id["chart-1"] == one  # and it is all there
    assert store.read_now(store.audit.find)[0].reason == f"asked by {MARK}"


def tables(name):
    return next(table for table in metadata.sorted_tables if table.name == name)


SEALED = [
    ("payload", "head", "entry_id"),
    ("payload", "body", "entry_id"),
    ("outcome", "document", "entry_id"),
    ("chart", "document", "id"),
    ("encounter", "document", "encounter_hash"),
    ("score", "document", "chart_id"),
    ("task", "document", "id"),
    ("delivery_payload", "body", "delivery_id"),
    ("audit_payload", "body", "seq"),
]


def two_of_everything(store):
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2"))
    for number in (1, 2):
        one = chart(f"chart-{number}", number)
        record(store, outcome(number, one, deliveries=(delivery(f"k{number}", ordering_key=one.id),)))
        entry = AuditRecord(at=NOW, actor="system", action="reveal", subject=f"chart:{number}", reason="asked")
        store.charts_ledger.write_now(lambda conn, entry=entry: store.audit.append(conn, [entry]))


def read_everything(store):
    with store.reader() as conn:
        found = store.journal.entries(conn, [id_ for id_, _ in store.journal.after(conn, "main-campus", 0, 10)])
        if any(entry.damaged for entry in found):  # such an entry must not hold up the others, so nothing is raised
            raise TamperedError("payload")
        store.journal.find(conn)
        store.recorder.outcomes(conn, [1, 2])
        store.charts.find(conn)
        store.tasks.find(conn)
        due = store.outbox.due(conn, "crm", NOW, 10)
        if any(queued.unreadable for queued in due):  # as above
            raise TamperedError("delivery_payload.body:")
        if any(one.damaged for one in store.audit.find(conn)):
            raise TamperedError("audit_payload.body:")


@pytest.mark.parametrize(("table", "column", "key"), SEALED)
def test_sealed_values_of_two_rows_cannot_be_swapped(store, table, column, key):
    known = tables(table)
    two_of_everything(store)
    read_everything(store)
    with store.reader() as conn:
        rows = conn.execute(select(known.c[key], known.c[column])).all()
    assert len(rows) == 2
    swap = known.update().where(known.c[key] == rows[1][0]).values({column: rows[0][1]})
    (behind if table == "audit_payload" else write)(store, swap)
    with pytest.raises(TamperedError) as caught:
        read_everything(store)
    assert caught.value.place.startswith("payload" if table == "payload" else f"{table}.{column}:")


@pytest.mark.parametrize("table", ["encounter", "score", "task"])
def test_a_row_cannot_be_moved_to_another_chart(store, table):
    two_of_everything(store)
    known = tables(table)
    write(store, known.update().where(known.c.chart_id == "chart-1").values(chart_id="chart-2"))
    with pytest.raises(TamperedError):
        read_everything(store)


@pytest.mark.parametrize("table", ["encounter", "score", "task"])
def test_a_row_that_was_taken_away_is_missed(store, table):
    two_of_everything(store)
    known = tables(table)
    write(store, known.delete().where(known.c.chart_id == "chart-1"))
    with pytest.raises(TamperedError, match="chart-1"):
        store.read_now(store.charts.find)


def test_values_sealed_before_a_rotation_are_read_and_new_ones_use_the_new_key(site):
    store = site.open("tool")
    two_of_everything(store)
    site.keys.rotate()
    append(store, receipt(store.keys, "3"))
    record(store, outcome(3, chart("chart-3", 3)))
    read_everything(store)
    with store.reader() as conn:
        heads = conn.execute(text("SELECT head FROM journal.payload ORDER BY entry_id")).scalars().all()
    assert [int.from_bytes(head[1:3]) for head in heads] == [1, 1, 2]
    assert append(store, receipt(store.keys, "1"))[0].duplicate_of == 1


def test_the_keys_of_another_site_read_nothing(site, tmp_path):
    from engine.store.keys import KeyRing
    from engine.store.store import Store

    two_of_everything(site.open("tool"))
    with Store.open(site.url, KeyRing.create(tmp_path / "other.json"), "tool") as other:
        assert [one.control_id for one in other.read_now(other.journal.find)] == [None, None]
        assert other.read_now(lambda conn: other.journal.entry(conn, 1)).damaged
        assert other.read_now(lambda conn: other.charts.by_key(conn, "MRN:P1")) == []


def test_an_error_of_the_database_carries_no_value(store):
    record(store, outcome(1, chart()))
    thief = chart("chart-2", 2, tasks=(task("task-1", reason=MARK, kind=MARK),))
    with pytest.raises(StoreError) as caught:
        record(store, outcome(2, thief))
    error = caught.value
    while error is not None:
        assert MARK not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_what_is_stored_of_an_attempt_is_its_code_only(store):
    record(store, outcome(1, deliveries=(delivery("k1"),)))
    [queued] = store.read_now(lambda conn: store.outbox.of_entry(conn, 1))
    result = Settled(id=queued.id, state=queued.state, attempts=1, next_attempt_at=NOW, error="timeout")
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], NOW))
    with store.reader() as conn:
        assert conn.execute(text("SELECT error FROM charts.delivery")).scalar_one() == "timeout"


def write(store, statement):
    ledger = store.journal_ledger if statement.table.schema == "journal" else store.charts_ledger
    ledger.write_now(lambda conn: conn.execute(statement))
