"""What is stored is damaged, or the key is not the right one: found, named, and the rest is served.

A flipped bit in a sealed value shows because it no longer opens; a page that is not what the tree of the database
needs shows as SQLITE_CORRUPT. Nothing damaged is ever taken for what it was.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, MakeDaemon, Site
from test_kill import admission
from watch import events, eventually, log, readiness

AA = b"MSA|AA"
DAMAGED = 5
"""The entry, or its patient, that the tests damage; of ten."""


@pytest.fixture
def with_ten_waiting(site: Site, make_daemon: MakeDaemon) -> Site:
    """A site that is stopped; ten entries wait for processing."""
    site.edit("channels/main-campus.yaml", (r"mode: live", "mode: paused"))
    daemon = make_daemon(site)
    daemon.send(*map(admission, range(1, 11)))
    assert daemon.stop() == 0
    site.edit("channels/main-campus.yaml", (r"mode: paused", "mode: live"))
    return site


def flip(file: Path, table: str, column: str, where: str) -> int:
    """Flip a bit of the last byte of a value in all rows that this is true for; how many there were."""
    with closing(sqlite3.connect(file)) as conn:
        conn.create_function("flip", 1, lambda value: value[:-1] + bytes((value[-1] ^ 1,)))
        changed = conn.execute(f"UPDATE {table} SET {column} = flip({column}) WHERE {where}").rowcount
        conn.commit()
    return changed


def journal(site: Site) -> Path:
    return site.folder / "var" / "handoff-journal.db"


def charts(site: Site) -> Path:
    return site.folder / "var" / "handoff.db"


def sent(site: Site) -> set[str]:
    """The patients of whom something was delivered."""
    files = (site.folder / "var" / "outbox").glob("*.ndjson")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {line["patient"]["key"] for line in lines if line["operation"] == "upsert_patient"}


def of_all_but(number: int) -> set[str]:
    return {f"MRN:{other}" for other in range(1, 11) if other != number}


def letters(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.json("dead", "list")
    return found


@pytest.mark.parametrize("column", ["body", "head"])
def test_a_damaged_entry_is_buried_alone_under_its_name(
    with_ten_waiting: Site, make_daemon: MakeDaemon, column: str
) -> None:
    site = with_ten_waiting
    assert flip(journal(site), "payload", column, f"entry_id = {DAMAGED}") == 1
    daemon = make_daemon(site)
    [row] = daemon.settled()
    assert (row["processed"], row["dead"], row["balanced"]) == (9, 1, True)
    [letter] = letters(site)
    assert (letter["entry"], letter["error"]) == (DAMAGED, "entry-damaged")
    assert sent(site) == of_all_but(DAMAGED)
    eventually(lambda: readiness(daemon) == (True, ["dead-letters"]))
    assert len(site.json("messages", "list")) == 10  # lists go on as well
    assert AA in daemon.send(admission(11))[0]
    daemon.settled()
    assert daemon.stop() == 0


def test_a_damaged_page_of_the_journal_takes_its_own_entries_only(site: Site, make_daemon: MakeDaemon) -> None:
    """A page in the middle of the payloads is overwritten, as by a disk that writes to the wrong place."""
    site.edit("channels/main-campus.yaml", (r"mode: live", "mode: paused"))
    daemon = make_daemon(site)
    daemon.send(*map(admission, range(1, 41)))
    assert daemon.stop() == 0
    site.edit("channels/main-campus.yaml", (r"mode: paused", "mode: live"))
    with closing(sqlite3.connect(journal(site))) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page_bytes] = conn.execute("PRAGMA page_size").fetchone()
        [root] = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'payload'").fetchone()
    raw = bytearray(journal(site).read_bytes())
    leaf = leaves(raw, root, page_bytes)[1]
    raw[(leaf - 1) * page_bytes : leaf * page_bytes] = b"\x5a" * page_bytes
    journal(site).write_bytes(raw)

    daemon = make_daemon(site)
    [row] = daemon.settled()
    assert row["balanced"]
    assert row["processed"] + row["dead"] == 40
    assert 1 <= row["dead"] < 30
    dead = letters(site)
    assert {letter["error"] for letter in dead} == {"entry-damaged"}
    assert len({letter["entry"] for letter in dead}) == row["dead"]
    assert len(sent(site)) == row["processed"]
    assert AA in daemon.send(admission(50))[0]
    daemon.settled()
    assert "MRN:50" in sent(site)
    assert daemon.stop() == 0


def leaves(raw: bytes, root: int, page_bytes: int) -> list[int]:
    """The leaf pages of a table, in order (SQLite's file format: https://www.sqlite.org/fileformat2.html#b_tree_pages)."""
    at = (root - 1) * page_bytes + (100 if root == 1 else 0)
    if raw[at] == 13:
        return [root]
    assert raw[at] == 5, "an interior page of a table"
    cells = int.from_bytes(raw[at + 3 : at + 5])
    found: list[int] = []
    for index in range(cells):
        cell = (root - 1) * page_bytes + int.from_bytes(raw[at + 12 + 2 * index : at + 14 + 2 * index])
        found += leaves(raw, int.from_bytes(raw[cell : cell + 4]), page_bytes)
    return found + leaves(raw, int.from_bytes(raw[at + 8 : at + 12]), page_bytes)


@pytest.mark.parametrize(
    ("table", "column", "where"),
    [
        ("chart", "document", "id = (SELECT chart_id FROM outcome WHERE entry_id = 5)"),
        ("encounter", "document", "chart_id = (SELECT chart_id FROM outcome WHERE entry_id = 5)"),
    ],
)
def test_a_damaged_chart_is_changed_by_nobody_and_holds_up_nobody_else(
    site: Site, make_daemon: MakeDaemon, table: str, column: str, where: str
) -> None:
    daemon = make_daemon(site)
    daemon.send(*map(admission, range(1, 11)))
    daemon.settled()
    assert daemon.stop() == 0
    assert flip(charts(site), table, column, where) == 1
    daemon = make_daemon(site)
    updates = [admission(number).replace(b"|C", b"|U").replace(b"A01", b"A08") for number in range(1, 11)]
    assert all(AA in answer for answer in daemon.send(*updates))
    [row] = daemon.settled()
    assert (row["processed"], row["dead"], row["balanced"]) == (19, 1, True)
    [letter] = letters(site)
    assert letter["entry"] == 10 + DAMAGED
    assert any("was altered" in line.get("exception_text", "") for line in log(daemon))
    assert daemon.stop() == 0


def test_a_damaged_delivery_is_buried_alone_and_the_others_go_out(site: Site, make_daemon: MakeDaemon) -> None:
    outbox = site.folder / "var" / "outbox"
    outbox.write_text("a file where the destination wants a folder")
    daemon = make_daemon(site)
    daemon.send(*map(admission, range(1, 11)))
    eventually(lambda: site.json("ledger", code=None)[0]["processed"] == 10)
    assert daemon.stop() == 0
    first = "(SELECT min(id) FROM delivery WHERE entry_id = 5)"
    assert flip(charts(site), "delivery_payload", "body", f"delivery_id = {first}") == 1
    outbox.unlink()
    daemon = make_daemon(site)
    [row] = daemon.settled()
    assert (row["deliveries"]["dead"], row["deliveries"]["held"], row["balanced"]) == (1, 0, True)
    [letter] = letters(site)
    assert (letter["entry"], letter["stage"], letter["error"]) == (DAMAGED, "delivery", "payload-damaged")
    assert sent(site) >= of_all_but(DAMAGED)
    assert daemon.stop() == 0


@pytest.mark.parametrize("start", ["with another site's keys", "without its keys"])
def test_a_daemon_does_not_start_with_the_wrong_key(
    with_ten_waiting: Site, make_daemon: MakeDaemon, tmp_path: Path, start: str
) -> None:
    site = with_ten_waiting
    keys, kept = site.folder / "var" / "keys.json", tmp_path / "keys.json"
    keys.rename(kept)
    if start == "with another site's keys":
        other = Site(tmp_path / "other")
        other.folder.mkdir()
        other.run("init", ".")
        shutil.copy(other.folder / "var" / "keys.json", keys)
    before = journal(site).read_bytes()
    done = site.run("run", code=78)
    assert "key file" in done.stderr
    assert journal(site).read_bytes() == before
    keys.unlink(missing_ok=True)
    kept.rename(keys)
    daemon = make_daemon(site)
    [row] = daemon.settled()
    assert (row["processed"], row["balanced"]) == (10, True)
    assert daemon.stop() == 0


def test_a_key_file_that_is_swapped_under_a_running_daemon_is_refused_by_its_reload(
    site: Site, daemon: Daemon, tmp_path: Path
) -> None:
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    other.run("init", ".")
    keys, kept = site.folder / "var" / "keys.json", tmp_path / "keys.json"
    assert AA in daemon.send(admission(1))[0]
    keys.rename(kept)
    shutil.copy(other.folder / "var" / "keys.json", keys)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration refused, the old one stays" in events(daemon))
    assert any("other keys than those in use" in line.get("exception_text", "") for line in log(daemon))
    assert AA in daemon.send(admission(2))[0]
    kept.rename(keys)
    [row] = daemon.settled()
    assert (row["processed"], row["balanced"]) == (2, True)
    assert daemon.stop() == 0
