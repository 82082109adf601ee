"""The trail on both databases: what it keeps, and what is noticed of whoever writes to the database behind its back.

Each tampering that other products were found not to notice is done here to a real store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text
from store_builders import NOW, append, behind, dead_letter, outcome, receipt, record, said, vouched

from engine.domain.audit import AuditRecord, Whence
from engine.domain.checkpoint import Checkpoint
from engine.domain.checkpoint import read as read_checkpoint
from engine.domain.outcome import Effect
from engine.errors import AlteredSchemaError, StoreError, UnrecordedError
from engine.snapshot import Loaded
from engine.store import Store, bound, schema
from engine.store import audit as trail
from engine.store.audit import AuditStore
from engine.store.checkpoints import checkpoint
from engine.store.verify import Verified, verify

audit, payload, patients, head = schema.audit, schema.audit_payload, schema.audit_patient, schema.audit_head


def act(number: int, action: str = "reveal", **more: Any) -> AuditRecord:
    fields: dict[str, Any] = {
        "at": NOW + timedelta(minutes=number), "actor": f"u{number}", "action": action, "subject": f"chart:c{number}",
        "reason": f"why {number}",
    }  # fmt: skip
    return AuditRecord(**{**fields, **more})


def write(store: Store, *records: AuditRecord) -> None:
    store.charts_ledger.write_now(lambda conn: store.audit.append(conn, records))


def made(store: Store) -> Checkpoint:
    return store.read_now(lambda conn: checkpoint(store, conn, NOW + timedelta(hours=1)))


def looked(store: Store, *checkpoints: Checkpoint) -> Verified:
    return store.read_now(lambda conn: verify(store, conn, checkpoints))


def kinds(found: Verified) -> list[tuple[int | None, str]]:
    return [(one.seq, one.kind) for one in found.problems]


@pytest.fixture
def kept(store: Store) -> Store:
    """Six records."""
    write(store, *(act(number) for number in range(1, 4)))
    write(store, *(act(number) for number in range(4, 7)))
    return store


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_record_keeps_who_where_from_why_and_about_whom(store: Store) -> None:
    whence = Whence(address="10.1.2.3", host="ward-7", tty="pts/3", loginuid=1000, sudo_uid=1001, uid=0, command="x y")
    full = act(1, result="denied", purpose="TREAT", patients=("c1", "c2"), entry=7, terms="DOE", count=2, whence=whence)
    write(store, full, act(2, reason=None, subject="entry:9"))
    assert said(store) == [act(2, reason=None, subject="entry:9"), full]
    assert said(store, patient="c2") == [full]
    assert looked(store).ok


def test_an_empty_trail_is_whole(store: Store) -> None:
    found = looked(store)
    assert (found.ok, found.records, found.last, found.problems) == (True, 0, 0, ())


def test_a_whole_trail_with_its_checkpoints_is_whole(kept: Store) -> None:
    first = made(kept)
    write(kept, act(7))
    found = looked(kept, first, made(kept))
    assert (found.ok, found.first, found.last, found.records, found.checkpoints) == (True, 1, 7, 7, 2)


def test_what_is_not_in_the_catalogue_is_not_recorded(store: Store) -> None:
    with pytest.raises(UnrecordedError, match="catalogue"):
        write(store, act(1, "made-up"))


def test_records_of_an_old_and_a_new_version_stand_in_one_chain(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later program binds more columns, and still reads what was written before."""
    monkeypatch.setitem(trail._BOUND, 2, (*trail._BOUND[1], "version"))
    monkeypatch.setattr(trail, "VERSION", 2)
    write(kept, act(7), act(8))
    assert looked(kept).ok
    monkeypatch.delitem(trail._BOUND, 2)
    assert kinds(looked(kept)) == [(7, "version"), (8, "version")]  # an old program says that it can't know


def test_a_chain_goes_on_over_a_rotation_of_the_keys(kept: Store) -> None:
    first = made(kept)
    kept.keys.rotate()
    write(kept, act(7))
    second = made(kept)
    assert (first.key, second.key) == (1, 2)
    assert looked(kept, first, second).ok


def test_two_writers_never_read_the_same_end(site: Any) -> None:
    stores = [site.open("tool") for _ in range(4)]
    errors: list[Exception] = []

    def work(store: Store, number: int) -> None:
        try:
            for turn in range(5):
                write(store, act(number * 100 + turn), act(number * 100 + turn))
        except Exception as error:  # noqa: BLE001 - for the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(store, number)) for number, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = looked(stores[0])
    assert (found.ok, found.records, found.last) == (True, 40, 40)


def test_no_record_no_act(store: Store) -> None:
    """What is done in the same transaction is undone with it, and nothing is left that verify could not see."""

    def pause(conn: Any) -> None:
        store.destinations.pause(conn, "crm", NOW, until=None, by="ann")
        store.audit.append(conn, [act(1, "not-in-the-catalogue")])

    with pytest.raises(StoreError):
        store.charts_ledger.write_now(pause)
    with store.reader() as conn:
        assert conn.execute(select(schema.destination)).all() == []
    assert looked(store).records == 0


# --- the fence -------------------------------------------------------------------------------------------------------

REFUSED = {
    "update": audit.update().values(actor="nobody"),
    "delete": audit.delete(),
    "payload delete": payload.delete(),
    "patients": patients.delete(),
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_a_slip_changes_nothing(kept: Store, statement: Any) -> None:
    with pytest.raises(StoreError):
        kept.charts_ledger.write_now(lambda conn: conn.execute(statement))
    assert looked(kept).ok


def test_a_truncate_is_refused_too(postgresql_site: Any) -> None:
    store = postgresql_site.open("tool")
    write(store, act(1))
    with pytest.raises(StoreError):
        store.charts_ledger.write_now(lambda conn: conn.execute(text("TRUNCATE charts.audit")))


SQLITE = {
    "ignored": "CREATE TRIGGER charts.x BEFORE INSERT ON audit BEGIN SELECT RAISE(IGNORE); END",
    "deleted": "CREATE TRIGGER charts.x AFTER INSERT ON audit_payload BEGIN"
               " DELETE FROM audit_payload WHERE seq = new.seq; END",
    "fence down": "DROP TRIGGER charts.audit_stays",
}  # fmt: skip
POSTGRESQL = {
    "ignored": "CREATE FUNCTION charts.x() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
               "CREATE TRIGGER x BEFORE INSERT ON charts.audit FOR EACH ROW EXECUTE FUNCTION charts.x()",
    "rule": "CREATE RULE x AS ON INSERT TO charts.audit DO INSTEAD NOTHING",
    "fence down": "DROP TRIGGER audit_stays ON charts.audit",
    "fence off": "ALTER TABLE charts.audit DISABLE TRIGGER audit_kept",
    "hollow": "CREATE OR REPLACE FUNCTION charts.audit_stays() RETURNS trigger LANGUAGE plpgsql AS"
              " $$ BEGIN RETURN NULL; END $$",
    "row security": "ALTER TABLE charts.audit ENABLE ROW LEVEL SECURITY",
}  # fmt: skip
HERE_AND_THERE = [
    *(pytest.param("empty_sqlite", one, id=f"sqlite {name}") for name, one in SQLITE.items()),
    *(pytest.param("empty_postgresql", one, id=f"postgresql {name}") for name, one in POSTGRESQL.items()),
]


@pytest.mark.parametrize(("place", "statements"), HERE_AND_THERE)
def test_what_swallows_records_stops_acts_and_daemons_and_is_said(
    request: pytest.FixtureRequest, place: str, statements: str
) -> None:
    from engine.store.migrations import upgrade

    site = request.getfixturevalue(place)
    upgrade(site.location)
    running = site.open("tool")
    write(running, act(1))
    alter(running, statements)
    with pytest.raises(AlteredSchemaError):
        write(site.open("tool"), act(2))  # a command that comes
    with pytest.raises(AlteredSchemaError):
        site.open("worker")
    assert "schema" in {one.kind for one in looked(running).problems}


def alter(store: Store, statements: str) -> None:
    def work(conn: Any) -> None:
        raw = conn.connection.driver_connection
        raw.execute(statements)

    store.charts_ledger.write_now(work)


@pytest.mark.parametrize(
    ("place", "statements"),
    [("sqlite_site", SQLITE["ignored"]),
     ("sqlite_site", "CREATE TRIGGER charts.x AFTER INSERT ON audit_head BEGIN SELECT 1; END;"),
     ("empty_postgresql", POSTGRESQL["ignored"]), ("empty_postgresql", POSTGRESQL["rule"])],
    ids=["sqlite ignored", "sqlite harmless", "postgresql ignored", "postgresql rule"],
)  # fmt: skip
def test_a_record_that_is_swallowed_while_we_run_is_missed_at_once(
    request: pytest.FixtureRequest, place: str, statements: str
) -> None:
    from engine.store.migrations import upgrade

    site = request.getfixturevalue(place)
    upgrade(site.location)
    running = site.open("tool")
    write(running, act(1))
    alter(running, statements)
    if "SELECT 1" in statements:  # one that does nothing: it is said, and what runs goes on
        write(running, act(2))
        assert {one.kind for one in looked(running).problems} == {"schema"}
        return
    with pytest.raises(UnrecordedError):
        write(running, act(2))
    assert [one.subject for one in said(running)] == ["chart:c1"]


@pytest.mark.parametrize("place", ["sqlite_site", "empty_postgresql"])
def test_a_view_in_the_place_of_the_trail_is_noticed(request: pytest.FixtureRequest, place: str) -> None:
    from engine.store.migrations import upgrade

    site = request.getfixturevalue(place)
    upgrade(site.location)
    store = site.open("tool")
    write(store, act(1))
    view = f"CREATE VIEW charts.audit AS SELECT {', '.join(column.name for column in audit.c)} FROM charts.gone"
    for statement in (
        "ALTER TABLE charts.audit RENAME TO gone",
        view,
    ):
        alter(store, statement.replace("FROM charts.gone", "FROM gone") if place == "sqlite_site" else statement)
    assert "schema" in {one.kind for one in looked(store).problems}
    with pytest.raises(AlteredSchemaError):
        site.open("worker")
    with pytest.raises(StoreError):
        write(site.open("tool"), act(2))


# --- tampering -------------------------------------------------------------------------------------------------------


ALTERED = {column.name: column for column in audit.c if column.name not in {"seq", "mac", "prev"}}


@pytest.mark.parametrize("name", ALTERED)
def test_a_column_that_is_altered_is_noticed_and_the_rest_is_shown(kept: Store, name: str) -> None:
    value: Any = {"payload_hash": b"x" * 32, "version": 9, "key_id": 9, "at": 1, "entry_id": 1}.get(name, "nobody")
    behind(kept, audit.update().where(audit.c.seq == 3).values({name: value}))
    problems = {one.seq for one in looked(kept).problems if one.kind != "unfounded"}
    assert problems == {3}
    with kept.reader() as conn:
        shown = kept.audit.find(conn)
    assert [one.seq for one in shown if one.damaged] == [3]
    assert [one.reason for one in shown if not one.damaged] == [f"why {n}" for n in (6, 5, 4, 2, 1)]


OTHER = select(payload.c.body).where(payload.c.seq == 2).scalar_subquery()
TAMPERED: dict[str, tuple[Sequence[Any], list[tuple[int | None, str]]]] = {
    "a row is taken away": ([audit.delete().where(audit.c.seq == 3)], [(3, "missing")]),
    "rows are swapped": (
        [
            audit.update().where(audit.c.seq == 2).values(seq=100),
            audit.update().where(audit.c.seq == 3).values(seq=2),
            audit.update().where(audit.c.seq == 100).values(seq=3),
        ],
        [(2, "link"), (2, "altered"), (3, "link"), (3, "altered"), (4, "link")],
    ),
    "the end is cut off": ([audit.delete().where(audit.c.seq > 4)], [(5, "missing")]),
    "the middle is renumbered": (
        [audit.delete().where(audit.c.seq == 3), audit.update().where(audit.c.seq == 4).values(seq=3)],
        [(3, "link"), (3, "altered"), (4, "missing")],
    ),
    "a sealed part is taken away": ([payload.delete().where(payload.c.seq == 3)], [(3, "payload-missing")]),
    "a sealed part is another's": (
        [payload.update().where(payload.c.seq == 3).values(body=OTHER)],
        [(3, "payload")],
    ),
    "a patient is taken out of the index": ([patients.delete().where(patients.c.seq == 3)], [(3, "patients")]),
    "a patient is put into the index": ([patients.insert().values(chart_id="c9", seq=3)], [(3, "patients")]),
    "a sealed part is put behind the end": ([payload.insert().values(seq=9, body=b"x")], [(9, "payload")]),
    "a patient is put behind the end": ([patients.insert().values(seq=9, chart_id="c1")], [(9, "payload")]),
    "the end is gone": ([head.delete()], [(None, "head")]),
    "the end is said to be earlier": ([head.update().values(seq=4)], [(6, "head")]),
    "the end has another MAC": ([head.update().values(mac=b"x" * 32)], [(6, "head")]),
    "there are two ends": ([head.insert().values(chain="other", seq=0, mac=b"")], [(None, "head")]),
    "a purge is forged": (
        [
            schema.audit_purge.insert().values(event=6, first=1, last=3, whole=1),
            audit.delete().where(audit.c.seq <= 3),
            payload.delete().where(payload.c.seq <= 3),
            patients.delete().where(patients.c.seq <= 3),
        ],
        [(1, "missing")],
    ),
    "a payload's purge is forged": (
        [
            schema.audit_purge.insert().values(event=6, first=2, last=2, whole=0),
            payload.delete().where(payload.c.seq == 2),
        ],
        [(2, "payload-missing")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_noticed(kept: Store, name: str) -> None:
    statements, expected = TAMPERED[name]
    behind(kept, *statements)
    found = looked(kept)
    assert not found.ok
    if name in {"the end is gone", "there are two ends"}:
        assert kinds(found)[0] == expected[0]
    else:
        assert kinds(found) == expected
    with kept.reader() as conn:
        kept.audit.find(conn)  # and the list is still shown


def cut(store: Store, last: int) -> None:
    """Somebody who knows the tables cuts the end off and sets the head right."""
    macs = {row.seq: row.mac for row in store.read_now(lambda conn: conn.execute(select(audit)).all())}
    behind(
        store,
        *(table.delete().where(table.c.seq > last) for table in (audit, payload, patients)),
        head.update().values(seq=last, mac=macs.get(last, b"")),
    )


@pytest.mark.parametrize("last", [5, 3, 0], ids=["the last record", "half", "the whole chain"])
def test_a_chain_that_was_cut_cleanly_is_noticed_by_a_checkpoint_alone(kept: Store, last: int) -> None:
    seen = made(kept)
    cut(kept, last)
    assert looked(kept).ok  # in the database nobody can tell
    assert kinds(looked(kept, seen)) == [(6, "rolled-back")]
    write(kept, *(act(number) for number in range(last + 1, 8)))  # it grows over what is gone
    assert kinds(looked(kept, seen)) == [(6, "checkpoint")]


def test_a_chain_that_was_made_anew_is_another(kept: Store) -> None:
    seen = made(kept)
    cut(kept, 0)
    behind(kept, head.update().values(chain="f" * 32))
    write(kept, *(act(number) for number in range(1, 9)))
    assert kinds(looked(kept, seen)) == [(6, "other-chain")]


def test_plain_hashes_that_are_computed_again_help_nobody(kept: Store) -> None:
    """A database administrator without the key makes a row, and as good a MAC as can be made without it."""
    import hashlib
    import hmac

    rows = kept.read_now(lambda conn: conn.execute(select(audit).order_by(audit.c.seq)).all())
    prev = rows[2].mac
    for row in rows[3:]:
        values = {**row._mapping, "actor": "nobody", "prev": prev}
        data = "|".join(map(str, values.values())).encode()
        mac = hashlib.sha256(data).digest() if row.seq % 2 else hmac.digest(b"", data, "sha256")
        behind(kept, audit.update().where(audit.c.seq == row.seq).values(actor="nobody", prev=prev, mac=mac))
        prev = mac
    behind(kept, head.update().values(mac=prev))
    assert kinds(looked(kept)) == [(4, "altered"), (5, "altered"), (6, "altered")]


def test_a_record_of_another_chain_does_not_fit(kept: Store, tmp_path: Any) -> None:
    """Shadow, or another site with the same keys."""
    behind(kept, head.update().values(chain="0" * 32))
    assert [kind for _, kind in kinds(looked(kept))] == ["altered"] * 6


def test_a_checkpoint_that_is_altered_or_forged_is_noticed(kept: Store) -> None:
    seen = made(kept)
    for wrong in ({"seq": 3}, {"mac": "00" * 32}, {"signature": "zz"}, {"key": 9}, {"at": NOW}):
        assert kinds(looked(kept, msgspec.structs.replace(seen, **wrong)))[0][1] == "checkpoint-forged"
    assert read_checkpoint(seen.written()) == seen
    assert read_checkpoint(b"\xff") is None
    assert read_checkpoint(b"{}") is None


# --- lawful gaps -----------------------------------------------------------------------------------------------------


def purge(store: Store, ranges: list[tuple[int, int]], *, whole: bool = False) -> None:
    note = act(50, "trail-purged", subject="audit", reason="six years are over")
    store.charts_ledger.write_now(lambda conn: store.audit.purge(conn, note, ranges, whole=whole))


def test_a_purge_is_explained(kept: Store) -> None:
    seen = made(kept)
    purge(kept, [(1, 3)], whole=True)
    found = looked(kept, seen)
    assert (found.ok, found.first, found.last, found.purged, found.records) == (True, 4, 7, 3, 4)
    purge(kept, [(4, 5)], whole=True)
    found = looked(kept, seen)
    assert (found.ok, found.first, found.purged) == (True, 6, 5)
    behind(kept, audit.delete().where(audit.c.seq == 6))
    assert (6, "missing") in kinds(looked(kept))


def test_an_erased_payload_is_explained_and_the_row_stays(kept: Store) -> None:
    purge(kept, [(2, 2), (4, 5)])
    found = looked(kept)
    assert (found.ok, found.first, found.purged, found.records) == (True, 1, 3, 7)
    with kept.reader() as conn:
        gone = {one.seq: (one.damaged, one.reason, one.actor) for one in kept.audit.find(conn)}[2]
    assert gone == ("its sealed part is gone", None, "u2")
    behind(kept, payload.delete().where(payload.c.seq == 3))
    assert kinds(looked(kept)) == [(3, "payload-missing")]


def test_a_restore_is_a_roll_back_until_somebody_says_so(kept: Store) -> None:
    first, seen = made(kept), made(kept)
    write(kept, act(7), act(8))
    seen = made(kept)
    cut(kept, 6)
    assert kinds(looked(kept, first, seen)) == [(8, "rolled-back")]
    note = act(40, "trail-resealed", subject="audit", reason="disk died", at=NOW + timedelta(hours=2))
    kept.charts_ledger.write_now(lambda conn: kept.audit.reseal(conn, note, lost=8))
    found = looked(kept, first, seen)
    assert (found.ok, found.restores, found.last) == (True, 1, 7)
    write(kept, act(8), act(9))
    assert looked(kept, first, seen).ok
    cut(kept, 6)  # whoever takes the word away again brings the roll-back back
    assert kinds(looked(kept, first, seen)) == [(8, "rolled-back")]


def test_a_later_roll_back_is_not_explained_by_an_earlier_word(kept: Store) -> None:
    note = act(40, "trail-resealed", subject="audit", at=NOW)
    kept.charts_ledger.write_now(lambda conn: kept.audit.reseal(conn, note, lost=9))
    write(kept, act(8), act(9))
    seen = made(kept)
    cut(kept, 8)
    assert kinds(looked(kept, seen)) == [(9, "rolled-back")]


# --- the books -------------------------------------------------------------------------------------------------------


def acted(store: Store, *, recorded: bool, kind: str = "task-done") -> None:
    append(store, receipt(store.keys, "1", channel="@act"))
    notes = (act(1, kind, subject="task:t1", entry=1),) if recorded else ()
    done = outcome(1, effects=(Effect(kind=kind, subject="t1"),), audit=notes)
    record(store, done, channel="@act")


@pytest.mark.parametrize("kind", ["task-done", "page-ack", "dismiss", "quality-resolved", "oncall-override"])
def test_an_act_without_its_record_is_noticed(store: Store, kind: str) -> None:
    acted(store, recorded=False, kind=kind)
    assert kinds(looked(store)) == [(None, "unrecorded")]


def test_an_act_with_its_record_is_fine_and_one_that_was_not_done_needs_none(store: Store) -> None:
    acted(store, recorded=True)
    append(store, receipt(store.keys, "2", channel="@act"))
    record(store, outcome(2, effects=(Effect(kind="not-done", subject="t1"),)), channel="@act", cursor=1)
    assert looked(store).ok


def test_a_record_of_an_act_that_was_not_done_is_noticed(store: Store) -> None:
    write(store, act(1, "task-done", subject="task:t1", entry=99))
    assert kinds(looked(store)) == [(1, "unfounded")]


def test_a_configuration_is_loaded_and_recorded_or_noticed(store: Store) -> None:
    loaded = Loaded(id="l1", at=NOW, who="ann", by="reload")
    store.charts_ledger.write_now(lambda conn: store.configs.note_load(conn, "v1", "main-1", loaded))
    assert kinds(looked(store)) == [(None, "unrecorded")]
    write(store, act(0, "config-reload", actor="ann", subject="config:v1"))
    assert looked(store).ok
    write(store, act(0, "config-reload", actor="ann", subject="config:v1"))
    assert [kind for _, kind in kinds(looked(store))] == ["unfounded"]


DECISIONS: dict[str, tuple[Callable[[Store], None], AuditRecord]] = {
    "a pause": (
        lambda store: store.charts_ledger.write_now(
            lambda conn: store.destinations.pause(conn, "crm", NOW, until=None, by="ann")
        ),
        act(1, "destination-paused", subject="destination:crm"),
    ),
    "a discard": (
        lambda store: behind(store, schema.dead_letter.insert().values(
            dead_letter(store.keys, resolved_by="discarded", resolved_at=2)
        )),
        act(1, "discard", subject="dead-letter:1"),
    ),
    "a replay": (
        lambda store: behind(store, schema.dead_letter.insert().values(
            dead_letter(store.keys, resolved_by="entry:5", resolved_at=2)
        )),
        act(1, "replay", subject="dead-letter:1"),
    ),
    "a withheld delivery": (
        lambda store: behind(store, schema.admission.insert().values(vouched(
            store.keys, bound.ADMISSION, delivery_id=4, destination="crm", code="c", said_at=1, decision="dismissed",
            decided_at=1, decided_by="ann",
        ))),
        act(1, "dismiss", subject="delivery:4"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_without_its_record_is_noticed(store: Store, name: str) -> None:
    decide, note = DECISIONS[name]
    decide(store)
    assert kinds(looked(store)) == [(None, "unrecorded")]
    write(store, note)
    assert looked(store).ok


def test_a_record_of_a_discard_that_was_not_done_is_noticed(store: Store) -> None:
    write(store, act(1, "discard", subject="dead-letter:7"))
    assert kinds(looked(store)) == [(1, "unfounded")]


def test_acts_that_are_on_record_are_those_of_people() -> None:
    from engine.domain.audit import EVENTS
    from engine.domain.cause import OF_PEOPLE
    from engine.pipeline.causes import RULES

    assert {cause.__struct_config__.tag for cause, rule in RULES.items() if rule.audited} == OF_PEOPLE
    assert EVENTS.keys() >= OF_PEOPLE


def test_a_second_trail_begins_with_its_own_end(store: Store) -> None:
    """Each process has its own `AuditStore`; the end is read from the table each time."""
    for number in range(3):
        store.charts_ledger.write_now(lambda conn, n=number: AuditStore(store.keys).append(conn, [act(n)]))
    assert looked(store).ok
