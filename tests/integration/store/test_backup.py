"""Backups and what is put back from them, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from store_builders import NOW, append, chart, delivery, outcome, receipt, record

from engine.desk.accounts import Accounts
from engine.domain.account import Account
from engine.domain.audit import AuditRecord
from engine.domain.delivery import DeliveryState
from engine.errors import AccountError, BackupError, KeyMissingError, WhichError
from engine.store import Store
from engine.store.backup import archive as archives
from engine.store.backup import making
from engine.store.backup.archive import Archive, Manifest
from engine.store.backup.making import Made, make_backup
from engine.store.backup.mark import last_mark
from engine.store.backup.restoring import Restored, restore
from engine.store.backup.rows import chunks, read_rows, rows_of, tables
from engine.store.counts import ledger
from engine.store.keys import KeyRing
from engine.store.schema import backup_made
from engine.store.schema import delivery as deliveries
from engine.store.verify import verify


def now() -> datetime:
    return datetime.now(UTC)


def said(action: str) -> Callable[[Manifest], AuditRecord]:
    return lambda manifest: AuditRecord(at=NOW, actor="user:ann", action=action, subject=f"backup:{manifest.id[:16]}")


def fill(store: Store, first: int, last: int) -> None:
    """Entries with an outcome, a chart and a delivery each."""
    for number in range(first, last + 1):
        (stored,) = append(store, receipt(store.keys, f"C{number}", "x" * 2000))
        made = chart(f"chart-{number}", number)
        waits = delivery(f"{made.id}-key", ordering_key=made.id)
        record(store, outcome(stored.id, made, deliveries=(waits,)))


def back_up(store: Store, path: Path, **more: Any) -> Made:
    return make_backup(store, path, node="n", program="test", now=now, record=said("backup"), **more)


def put_back(path: Path, keys: KeyRing, target: str | Path, **more: Any) -> Restored:
    return restore(path, keys, str(target), name="handoff.db", now=now, record=said("restore"), **more)


def contents(store: Store) -> dict[str, list[tuple]]:
    with store.reader() as conn:
        return {table.fullname: sorted(map(repr, map(tuple, read_rows(conn, table)))) for table in tables()}


def states(store: Store) -> set[tuple[str, str | None]]:
    with store.reader() as conn:
        return {tuple(row) for row in conn.execute(select(deliveries.c.state, deliveries.c.error))}


HELD = (DeliveryState.HELD.value, "restored")
OF_A_RESTORE = {"charts.restored", "charts.delivery", "charts.audit", "charts.audit_payload", "charts.audit_head",
                "charts.audit_patient", "charts.settlement"}  # fmt: skip


def test_everything_comes_back(site: Any, tmp_path: Path) -> None:
    store = site.open("tool")
    fill(store, 1, 30)
    before = contents(store)
    made = back_up(store, tmp_path / "one.backup")
    assert (tmp_path / "one.backup").stat().st_mode & 0o777 == 0o600
    assert made.manifest.entries == made.manifest.charts == made.manifest.last_entry == 30
    done = put_back(tmp_path / "one.backup", store.keys, tmp_path / "there")
    assert (done.ok, done.entries, done.charts, done.held, done.problems) == (True, 30, 30, 30, ())
    assert done.as_of == made.manifest.as_of
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        after = contents(back)
        assert {name: rows for name, rows in after.items() if name not in OF_A_RESTORE} == {
            name: rows for name, rows in before.items() if name not in OF_A_RESTORE
        }
        assert states(back) == {HELD}
        with back.reader() as conn:
            assert all(line.balanced for line in ledger(conn))
            assert verify(back, conn).ok
            assert "restore" in {one.action for one in back.audit.find(conn)}
            mark = last_mark(conn)
            assert mark is not None
            assert (mark.as_of, mark.last_entry) == (made.manifest.as_of, 30)
        fill(back, 31, 31)  # life goes on where it was
    left = {one.name for one in (tmp_path / "there").iterdir()}
    assert {name for name in left if not name.endswith(("-wal", "-shm"))} == {"handoff-journal.db", "handoff.db"}


def test_a_backup_of_either_database_is_put_back_into_postgresql(
    site: Any, tmp_path: Path, empty_postgresql: Any
) -> None:
    store = site.open("tool")
    fill(store, 1, 5)
    back_up(store, tmp_path / "one.backup")
    done = put_back(tmp_path / "one.backup", store.keys, empty_postgresql.url)
    assert (done.ok, done.problems, done.entries) == (True, (), 5)
    with Store.open(empty_postgresql.url, store.keys, "tool") as back:
        after, before = contents(back), contents(store)
        for name in before.keys() - OF_A_RESTORE - {"charts.backup_made"}:
            assert after[name] == before[name]
        fill(back, 6, 6)
    with pytest.raises(BackupError, match="there is a store in this database already"):
        put_back(tmp_path / "one.backup", store.keys, empty_postgresql.url)


def test_a_rehearsal_leaves_nothing(site: Any, tmp_path: Path) -> None:
    store = site.open("tool")
    fill(store, 1, 5)
    back_up(store, tmp_path / "one.backup")
    done = put_back(tmp_path / "one.backup", store.keys, tmp_path / "there", rehearse=True, everything=True)
    assert (done.ok, done.target, done.held) == (True, None, 0)
    assert not (tmp_path / "there").exists()


def test_what_comes_again_after_a_restore_is_held(site: Any, tmp_path: Path) -> None:
    store = site.open("tool")
    (stored,) = append(store, receipt(store.keys, "C1"))
    record(store, outcome(stored.id, chart(), deliveries=(delivery("k1"),)), doubtful=frozenset({stored.id}))
    (second,) = append(store, receipt(store.keys, "C2"))
    record(store, outcome(second.id, chart("chart-2", 2), deliveries=(delivery("k2", ordering_key="chart-2"),)))
    assert states(store) == {HELD, (DeliveryState.PENDING.value, None)}
    store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, 1, NOW))
    assert states(store) == {(DeliveryState.PENDING.value, None)}


def test_a_folder_holds_what_is_new(site: Any, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    store = site.open("tool")
    fill(store, 1, 120)
    first = back_up(store, folder)
    fill(store, 121, 125)
    second = back_up(store, folder)
    assert (first.manifest.depth, second.manifest.depth) == (0, 1)
    assert second.manifest.bytes < first.manifest.bytes * 0.7
    done = put_back(folder, store.keys, tmp_path / "there")  # the newest
    assert (done.ok, done.entries, done.problems) == (True, 125, ())
    done = put_back(Path(first.path), store.keys, tmp_path / "before")
    assert (done.ok, done.entries) == (True, 120)
    Path(first.path).unlink()
    with pytest.raises(BackupError, match=r"rests on 1 earlier backup\(s\) that are not in its folder"):
        put_back(folder, store.keys, tmp_path / "gone")
    assert back_up(store, folder).manifest.depth == 0  # nothing to rest on: it is whole


def test_a_week_of_backups_ends_with_a_whole_one(sqlite_site: Any, tmp_path: Path) -> None:
    store = sqlite_site.open("tool")
    fill(store, 1, 3)
    depths = [back_up(store, tmp_path).manifest.depth for _ in range(8)]
    assert depths == [0, 1, 2, 3, 4, 5, 6, 0]
    assert back_up(store, tmp_path, whole=True).manifest.depth == 0


def test_old_backups_go_and_what_younger_ones_rest_on_stays(sqlite_site: Any, tmp_path: Path) -> None:
    """Ten days, one a day; the second whole one is that of the eighth."""
    store = sqlite_site.open("tool")
    fill(store, 1, 40)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f"another{archives.SUFFIX}").write_text("cannot be read")
    made = []
    for day in range(10):
        today = NOW + timedelta(days=day)
        one = make_backup(
            store, tmp_path, node="n", program="test", now=lambda today=today: today, record=said("backup"),
            keep=timedelta(days=2, hours=12),
        )  # fmt: skip
        made.append(one)
        assert all(
            put_back(path, store.keys, tmp_path / f"r{day}", rehearse=True).ok for path in tmp_path.glob("hand*")
        )
    assert [one.manifest.depth for one in made] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert not any(made[0].path in one.deleted for one in made[:9])  # until the first week as a whole is too old
    assert made[0].path in made[9].deleted
    assert len(list(tmp_path.glob(f"handoff-*{archives.SUFFIX}"))) == 3
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / f"another{archives.SUFFIX}").exists()
    with store.reader() as conn:
        assert any("older ones deleted" in (one.reason or "") for one in store.audit.find(conn))


def test_accounts_wait_to_be_confirmed_after_a_restore(site: Any, tmp_path: Path) -> None:
    """Who was shut out since the backup does not come in by it, with a password, a token or another's word."""
    store = site.open("tool")
    accounts = Accounts(store, "boss", NOW)
    for name in ("dana", "lee", "gone"):
        accounts.add(Account(name=name, roles=("nurse",), created_at=NOW, created_by="boss"), None)
    accounts.disable("gone")
    token, _ = accounts.make_token("lee", ["all"], NOW + timedelta(days=1))
    back_up(store, tmp_path / "one.backup")
    accounts.disable("lee")
    done = put_back(tmp_path / "one.backup", store.keys, tmp_path / "there")
    assert (done.ok, done.unconfirmed) == (True, 2)
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        restored = Accounts(back, "boss", NOW)
        states = {name: restored.get(name).state.value for name in ("dana", "lee", "gone")}
        assert states == {"dana": "unconfirmed", "lee": "unconfirmed", "gone": "disabled"}
        for way in (
            lambda: restored.enter(token),
            lambda: restored.let_in("lee", "oidc"),
            lambda: restored.make_token("lee", ["all"], NOW + timedelta(days=1)),
        ):
            with pytest.raises(AccountError):
                way()
        with pytest.raises(WhichError):  # all or none
            restored.enable("dana", "nobody")
        assert not restored.get("dana").active
        restored.enable("dana")
        assert restored.let_in("dana", "oidc").actor.name == "dana"
        with back.reader() as conn:
            assert verify(back, conn).ok


def test_a_backup_gives_way_before_the_disk_of_the_store_is_full(
    sqlite_site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_site.open("tool")
    fill(store, 1, 3)
    monkeypatch.setattr(making, "FREE_BYTES_MIN", 1 << 60)
    folder = tmp_path / "backups"
    folder.mkdir()
    with pytest.raises(BackupError, match="are free on the disk of the store"):
        back_up(store, folder)
    assert list(folder.iterdir()) == []


def test_after_a_rotation_nothing_rests_on_the_old_key(sqlite_site: Any, tmp_path: Path) -> None:
    store = sqlite_site.open("tool")
    fill(store, 1, 3)
    back_up(store, tmp_path)
    store.keys.rotate()
    assert back_up(store, tmp_path).manifest.depth == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> tuple[Path, KeyRing]:
    """A backup of several chunks, with its keys."""
    folder = tmp_path_factory.mktemp("whole")
    keys = KeyRing.create(folder / "keys.json")
    var = folder / "var"
    import shutil

    shutil.copytree(sqlite_template, var)
    with Store.open(f"sqlite:///{var}/handoff.db", keys, "tool") as store:
        fill(store, 1, 60)
        back_up(store, folder / "one.backup")
    return folder / "one.backup", keys


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99, 1.0])
def test_a_backup_that_was_cut_off_says_so(whole: tuple[Path, KeyRing], tmp_path: Path, share: float) -> None:
    path, keys = whole
    raw = path.read_bytes()
    (tmp_path / "cut").write_bytes(raw[: min(int(len(raw) * share), len(raw) - 1)])
    with pytest.raises(BackupError, match=r"it was cut off|is not a backup of Handoff"):
        put_back(tmp_path / "cut", keys, tmp_path / "there")
    assert not (tmp_path / "there").exists() or not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.1, 0.5, 0.9, 0.98, 0.9999])
def test_a_damaged_byte_is_noticed_wherever_it_is(whole: tuple[Path, KeyRing], tmp_path: Path, share: float) -> None:
    path, keys = whole
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * share)] ^= 1
    (tmp_path / "bad").write_bytes(raw)
    with pytest.raises((BackupError, KeyMissingError)):
        put_back(tmp_path / "bad", keys, tmp_path / "there", erasure_keys=[path.parent])
    assert not list(tmp_path.glob("there/*"))


def test_chunks_in_another_order_are_noticed(whole: tuple[Path, KeyRing], tmp_path: Path) -> None:
    path, keys = whole
    with Archive(path, keys) as archive:
        first, second = sorted((p for ps in archive.lists.values() for p in ps), key=lambda p: p.size)[-2:]
    size = min(first.size, second.size)
    raw = bytearray(path.read_bytes())
    one, two = (raw[p.offset : p.offset + size] for p in (first, second))
    raw[first.offset : first.offset + size], raw[second.offset : second.offset + size] = two, one
    (tmp_path / "bad").write_bytes(raw)
    with pytest.raises(BackupError, match="it is damaged, or was altered"):
        put_back(tmp_path / "bad", keys, tmp_path / "there", erasure_keys=[path.parent])


def test_other_keys_do_not_open_it(whole: tuple[Path, KeyRing], tmp_path: Path) -> None:
    other = KeyRing.create(tmp_path / "keys.json")
    with pytest.raises(KeyMissingError, match="made with other keys than those of this site's key file"):
        put_back(whole[0], other, tmp_path / "there")


def test_a_key_that_is_gone_is_named(sqlite_site: Any, tmp_path: Path) -> None:
    store = sqlite_site.open("tool")
    fill(store, 1, 1)
    store.keys.rotate()
    back_up(store, tmp_path / "one.backup")
    old = KeyRing.create(tmp_path / "other.json")
    with pytest.raises(KeyMissingError, match="sealed with key 2, which the key file does not hold"):
        put_back(tmp_path / "one.backup", old, tmp_path / "there")


def test_a_backup_of_another_version_says_so(sqlite_site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_site.open("tool")
    monkeypatch.setattr(making, "REVISION", "0001")
    back_up(store, tmp_path / "one.backup")
    with pytest.raises(BackupError, match=r"made by another version of Handoff \(test, tables 0001; here 0002\)"):
        put_back(tmp_path / "one.backup", store.keys, tmp_path / "there")


@pytest.mark.parametrize("content", [b"", b"no backup", b"HANDOFFB" + b"x" * 100])
def test_another_file_is_no_backup(tmp_path: Path, keys: KeyRing, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BackupError, match=r"is not a backup|is not known to this version"):
        put_back(tmp_path / "file", keys, tmp_path / "there")


def test_a_backup_is_never_overwritten_and_half_of_one_is_none(sqlite_site: Any, tmp_path: Path) -> None:
    store = sqlite_site.open("tool")
    fill(store, 1, 1)
    (tmp_path / "one.backup").write_text("mine")
    with pytest.raises(BackupError, match="never overwritten"):
        back_up(store, tmp_path / "one.backup")
    assert (tmp_path / "one.backup").read_text() == "mine"
    folder = tmp_path / "b"
    folder.mkdir()
    with archives.ArchiveWriter(folder / "two", store.keys) as writer:
        writer.append(b"x")
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_a_folder_with_a_store_is_not_restored_into(whole: tuple[Path, KeyRing], sqlite_site: Any) -> None:
    path, keys = whole
    with pytest.raises(BackupError, match="is there already"):
        put_back(path, keys, sqlite_site.folder)


def test_it_is_on_record_and_tells_nothing(sqlite_site: Any, tmp_path: Path) -> None:
    store = sqlite_site.open("tool")
    append(store, receipt(store.keys, payload=b"MSH|^~\\&|||||||ADT^A01|C1|CANARY-DOE"))
    made = back_up(store, tmp_path / "one.backup")
    assert b"CANARY" not in (tmp_path / "one.backup").read_bytes()
    with store.reader() as conn:
        assert conn.execute(select(backup_made.c.id)).scalars().all() == [made.manifest.id]
        assert [one.action for one in store.audit.find(conn)] == ["backup"]


def test_rows_come_to_the_same_chunks_after_one_was_put_in() -> None:
    rows = [(number, None, b"x" * (number % 900)) for number in range(5000)]
    before = [chunk for chunk, _ in chunks(rows)]
    after = [chunk for chunk, _ in chunks([*rows[:7], (7, "new", b""), *rows[7:]])]
    assert [row for chunk in before for row in rows_of(chunk)] == rows
    assert len(before) > 20
    assert len(set(after) - set(before)) < len(before) / 2
