"""What is erased can't be read in a backup of before, and the rest of it can: on both databases."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from store_builders import NOW, append, delivery, outcome, receipt, record
from test_backup import back_up, put_back
from test_sweeping import POLICY, YEAR, over, settle

from engine.domain.audit import AuditRecord
from engine.domain.message import AckState
from engine.errors import BackupError
from engine.runtime.sweeper import Sweep
from engine.store import Store, erasure, retention, schema
from engine.store.backup import companion
from engine.store.backup.archive import Archive
from engine.store.counts import ledger
from engine.store.keys import KeyRing
from engine.store.retention import Charts, of_charts
from engine.store.verify import verify


@pytest.fixture
def store(site: Any) -> Store:
    return site.open("tool")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def fill(store: Store, first: int, last: int, **more: Any) -> None:
    """A patient each, with an entry, a chart and a delivery that has arrived."""
    for number in range(first, last + 1):
        content = f"CANARY-{number}-" + "x" * 900
        (stored,) = append(store, receipt(store.keys, f"C{number}", content, ack_state=AckState.NOT_OWED, **more))
        made = over(number)
        waits = delivery(f"key-{number}", ordering_key=made.id, payload=b"CANARY")
        record(store, outcome(stored.id, made, deliveries=(waits,)), now=more.get("received_at", NOW))
    settle(store)


def erase(store: Store, chart_id: str) -> None:
    charts = Charts(store)
    item = store.read_now(lambda conn: charts.item(conn, chart_id, NOW))
    said = AuditRecord(at=NOW, actor="me", action="patient-erased", subject=f"chart:{chart_id}", reason="asked for it")
    assert charts.erase_one(item, said)


def sweep(store: Store, later: timedelta) -> None:
    Sweep(store, POLICY, NOW + later, "me").run()


def count(store: Store, table: Any) -> int:
    with store.reader() as conn:
        return conn.execute(select(func.count()).select_from(table)).scalar_one()


def check_whole(back: Store) -> None:
    with back.reader() as conn:
        found = verify(back, conn)
        assert found.ok, found.problems
        assert all(line.balanced for line in ledger(conn))


@pytest.mark.parametrize("known_by", ["store", "file"])
def test_an_erased_patient_is_gone_from_the_backup_of_before(
    store: Store, folder: Path, tmp_path: Path, known_by: str
) -> None:
    fill(store, 1, 4)
    back_up(store, folder)
    old = tmp_path / "old copy"
    shutil.copytree(folder, old)
    erase(store, "chart-2")
    assert companion.renew(store) == []
    where = {"store": (old, {"site": store}), "file": (folder, {})}[known_by]
    done = put_back(where[0], store.keys, tmp_path / "there", everything=True, **where[1])
    assert (done.ok, done.problems) == (True, ())
    assert (done.entries, done.charts) == (4, 3)
    assert done.left_out == {"charts": 1, "messages": 1, "deliveries": 1}
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        check_whole(back)
        with back.reader() as conn:
            assert back.charts.by_id(conn, "chart-2") is None
            assert back.charts.by_id(conn, "chart-3") is not None
            for table in of_charts():
                assert "chart-2" not in set(conn.execute(select(table.c.chart_id)).scalars()), table.name
            outcomes = back.recorder.outcomes(conn, [2, 3])
            assert outcomes[2].reason == "what was stored of this patient was erased"
            assert outcomes[3].patient_key == "MRN:P3"
            assert sorted(conn.execute(select(schema.payload.c.entry_id)).scalars()) == [1, 3, 4]
            (said,) = back.audit.find(conn, action="restore")
            assert said.reason is not None
            assert "left out, because erased since: 1 of charts, 1 of deliveries, 1 of messages" in said.reason
        fill(back, 5, 5)
        back_up(back, folder)  # a restored store goes on with the same keys


def test_the_bytes_of_a_backup_have_no_key_left(store: Store, folder: Path) -> None:
    """Not only are they left out: nothing that is left opens them."""
    fill(store, 1, 3)
    made = back_up(store, folder)
    erase(store, "chart-2")
    companion.renew(store)
    left = companion.read(companion.path_of(folder, made.manifest.tree), store.keys)
    for span in (erasure.of_chart("chart-2"), erasure.of_number(erasure.Kind.MESSAGE, 2)):
        assert left.key(span) is None
        assert all(not node.first <= span.first <= node.last for node in left.nodes.values())
    assert left.key(erasure.of_chart("chart-1")) is not None
    own = store.read_now(lambda conn: erasure.load(conn, store.keys))
    assert own is not None
    assert own.nodes == left.nodes


def test_a_rehearsal_and_a_later_backup_know_it_too(store: Store, folder: Path, tmp_path: Path) -> None:
    fill(store, 1, 60)
    first = back_up(store, folder)
    erase(store, "chart-30")
    second = back_up(store, folder)
    assert (second.manifest.depth, second.manifest.charts) == (1, 59)
    done = put_back(Path(first.path), store.keys, tmp_path / "a", rehearse=True, everything=True)
    assert (done.ok, done.left_out["charts"], done.problems) == (True, 1, ())
    done = put_back(Path(second.path), store.keys, tmp_path / "b", everything=True)
    assert (done.ok, done.left_out, done.charts, done.problems) == (True, {}, 59, ())


def test_what_was_swept_is_gone_from_the_backup_of_before(store: Store, folder: Path, tmp_path: Path) -> None:
    fill(store, 1, 3)
    fill(store, 4, 5, received_at=NOW + YEAR)
    back_up(store, folder)
    sweep(store, YEAR)
    assert count(store, schema.erasing) == 0
    companion.renew(store)
    done = put_back(folder, store.keys, tmp_path / "there", everything=True)
    assert (done.ok, done.problems, done.charts) == (True, (), 5)
    assert done.left_out["messages"] == 3
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        check_whole(back)
        assert count(back, schema.payload) == 2


def test_the_trail_that_was_purged_is_explained_in_the_restored_store(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    fill(store, 1, 1)
    sweep(store, timedelta(days=100))  # a record
    back_up(store, folder)
    sweep(store, timedelta(days=100) + 7 * YEAR)
    companion.renew(store)
    done = put_back(folder, store.keys, tmp_path / "there", everything=True)
    assert (done.ok, done.problems) == (True, ())
    assert done.left_out["trail"] >= 1
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        check_whole(back)
        with back.reader() as conn:
            assert verify(back, conn).purged >= 1


@pytest.mark.parametrize("step", ["_erase_payloads", "finish"])
def test_a_crash_between_the_steps_is_made_good(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class KilledError(Exception):
        pass

    def die(*_: Any) -> None:
        raise KilledError

    fill(store, 1, 3)
    back_up(store, folder)
    with monkeypatch.context() as patch:
        patch.setattr(retention if step == "_erase_payloads" else erasure, step, die)
        item = store.read_now(lambda conn: retention.Messages(store).page(conn, None, NOW + YEAR, NOW))[0]
        with pytest.raises(KilledError):
            retention.Messages(store).erase(
                [item], lambda what, n: AuditRecord(at=NOW, actor="me", action="swept", subject=what, count=n)
            )
    span = erasure.of_number(erasure.Kind.MESSAGE, 1)

    def has_key() -> bool:
        tree = store.read_now(lambda conn: erasure.load(conn, store.keys))
        assert tree is not None
        return tree.key(span) is not None

    assert has_key()  # the value is there, or was until now
    erasure.finish(store)
    assert has_key() == (step == "_erase_payloads")  # never a value without its key
    assert count(store, schema.erasing) == (step == "_erase_payloads")
    sweep(store, YEAR)
    assert not has_key()
    assert count(store, schema.erasing) == 0


def test_without_its_erasure_keys_no_backup_is_read_and_the_text_says_what_to_do(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    fill(store, 1, 2)
    made = back_up(store, folder)
    keys = companion.path_of(folder, made.manifest.tree)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(keys, elsewhere)
    with pytest.raises(BackupError, match=r"are not beside it: copy the newest there is into its folder, or name"):
        put_back(folder, store.keys, tmp_path / "there")
    assert put_back(folder, store.keys, tmp_path / "there", erasure_keys=[elsewhere]).ok
    assert companion.renew(store) == [str(folder)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_damaged_erasure_keys_say_so(store: Store, folder: Path, tmp_path: Path, share: float) -> None:
    fill(store, 1, 1)
    path = companion.path_of(folder, back_up(store, folder).manifest.tree)
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * share)] ^= 1
    path.write_bytes(raw)
    with pytest.raises((BackupError, Exception), match=r"damaged|is not a file of erasure keys|key file does not hold"):
        put_back(folder, store.keys, tmp_path / "there")


def test_they_stand_elsewhere_where_the_site_says_so(store: Store, folder: Path, tmp_path: Path) -> None:
    fill(store, 1, 2)
    safe = tmp_path / "safe"
    safe.mkdir()
    back_up(store, folder, erasure_keys=safe)
    assert [one.suffix for one in safe.iterdir()] == [".erasure-keys"]
    assert [one for one in folder.iterdir() if one.suffix == ".erasure-keys"] == []
    erase(store, "chart-1")
    assert companion.renew(store) == []
    assert put_back(folder, store.keys, tmp_path / "there", erasure_keys=[safe]).left_out["charts"] == 1


def test_after_a_rotation_and_a_retired_key_they_open_still(store: Store, folder: Path, tmp_path: Path) -> None:
    from engine.store.sealed import SEALED, count_by_key, reseal_page

    fill(store, 1, 3)
    back_up(store, folder)
    erase(store, "chart-1")
    store.keys.rotate()
    for one in SEALED:
        reseal_page(store, one, None)
    assert set(store.read_now(count_by_key)) == {2}
    made = back_up(store, folder)
    store.keys.retire(1)
    ring = KeyRing.load(tmp_path / "keys.json") if (tmp_path / "keys.json").exists() else store.keys
    done = put_back(Path(made.path), ring, tmp_path / "there", everything=True)
    assert (done.ok, done.charts, done.left_out) == (True, 2, {})


def test_a_number_that_is_given_again_after_a_restore_is_backed_up_all_the_same(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    fill(store, 1, 2)
    early = back_up(store, folder)
    fill(store, 3, 3)
    back_up(store, folder)
    erase(store, "chart-3")
    companion.renew(store)
    put_back(Path(early.path), store.keys, tmp_path / "there")
    with Store.open(f"sqlite:///{tmp_path}/there/handoff.db", store.keys, "tool") as back:
        fill(back, 4, 4)  # it is entry 3 again
        made = back_up(back, tmp_path / "again.handoff-backup")
        assert made.manifest.bare > 0
        done = put_back(Path(made.path), store.keys, tmp_path / "once more", everything=True)
    assert (done.ok, done.entries, done.charts, done.left_out) == (True, 3, 3, {})


def test_a_row_is_not_taken_for_another_things(store: Store, folder: Path) -> None:
    fill(store, 1, 2)
    made = back_up(store, folder)
    with Archive(folder, store.keys) as archive:
        raw = b"".join(archive.chunks("journal.payload"))
    assert b"CANARY" not in raw
    from engine.store.backup.wrapping import Wrapping

    tree = companion.read(companion.path_of(folder, made.manifest.tree), store.keys)
    with pytest.raises(BackupError, match="is not what was written"):
        list(Wrapping(tree).unwrap("charts.audit_payload", raw))


def test_two_that_erase_at_once_leave_both_without_a_key(site: Any, folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store, other = site.open("tool"), site.open("tool")
    fill(store, 1, 30)
    back_up(store, folder)

    def destroy(which: int) -> None:
        own = (store, other)[which % 2]
        own.charts_ledger.write_now(
            lambda conn: erasure.destroy(conn, own.keys, [erasure.of_number(erasure.Kind.MESSAGE, which)])
        )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(destroy, range(1, 25)))
    tree = store.read_now(lambda conn: erasure.load(conn, store.keys))
    assert tree is not None
    known = [tree.key(erasure.of_number(erasure.Kind.MESSAGE, n)) is not None for n in range(1, 31)]
    assert known == [False] * 24 + [True] * 6
