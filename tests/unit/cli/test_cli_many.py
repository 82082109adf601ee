"""Commands on very many rows: worked on in pieces, with the same result as at once, in memory that does not grow."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from site_with_store import UNREADABLE, Site
from sqlalchemy import text

from engine.cli import dead, messages
from engine.connectors.registry import load
from engine.desk import replaying
from engine.snapshot import Snapshot
from engine.store.opening import open_store

REVEAL = ("--reveal", "--reason", "x")


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "arguments",
    [
        (), ("--limit", "1"), ("--limit", "2"), ("--limit", "3"), ("--state", "processed"), ("--state", "dead"),
        ("--state", "refused"), ("--patient", "MRN:558181838"), ("--control-id", "WRONG-TYPE"), ("--until", "7d"),
        REVEAL,
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_list_that_is_read_in_pieces_is_the_same_list(
    stocked: Site, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], piece: int
) -> None:
    whole = stocked.run("messages", "list", *arguments, "--json")
    for_people = stocked.run("messages", "list", *arguments)
    monkeypatch.setattr(messages, "_PIECE", piece)
    assert stocked.run("messages", "list", *arguments, "--json") == whole
    assert stocked.run("messages", "list", *arguments) == for_people
    assert whole.out == json.dumps(whole.json, indent=2, ensure_ascii=False) + "\n"


def test_all_that_is_revealed_in_pieces_is_on_record(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_PIECE", 3)
    stocked.json("messages", "list", *REVEAL)
    subjects = {record["subject"] for record in stocked.json("audit", "list")}
    assert subjects == {f"entry:{number}" for number in (1, 2, 3, 4)}


def test_a_replay_in_pieces_replays_each_entry_once_in_order(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PIECE", 3)
    document = stocked.json("replay", "--all")
    assert (document["selected"], document["replayed"], document["entries"]) == ([1, 2, 3, 4], 4, [5, 6, 7, 8])
    listed = {entry["id"]: entry["replay_of"] for entry in stocked.json("messages", "list", "--limit", "4")}
    assert listed == {5: 1, 6: 2, 7: 3, 8: 4}


def test_dead_letters_in_pieces_are_all_replayed(stocked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stocked.receive(*(UNREADABLE.replace(b"NO-ID", b"NO-ID-%d" % number) for number in range(3)))
    stocked.process()
    monkeypatch.setattr(dead, "PIECE", 2)
    results = stocked.json("dead", "replay", "--all")
    letters = {letter["id"]: letter["resolved_by"] for letter in stocked.json("dead", "list")}
    assert [result["id"] for result in results] == sorted(letters)
    assert [letters[result["id"]] for result in results] == [f"entry:{result['entry']}" for result in results]
    assert len({result["entry"] for result in results}) == 5


def test_a_replay_of_large_messages_holds_few_of_them_at_a_time(bare: Site) -> None:
    note = b"NTE|1||" + b"x" * 900_000 + b"\r"
    for start in range(0, 150, 10):
        bare.receive(*(UNREADABLE.replace(b"NO-ID", b"%d" % number) + note for number in range(start, start + 10)))
    tracemalloc.start()
    try:
        document = bare.json("replay", "--all")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert document["replayed"] == 150
    assert peak < 80_000_000


def test_a_damaged_outcome_does_not_keep_its_message_from_being_replayed_as_it_was_then(stocked: Site) -> None:
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        store.charts_ledger.write_now(
            lambda conn: conn.execute(text("UPDATE outcome SET document = x'0102' WHERE entry_id = 2"))
        )
    document = stocked.json("replay", "--config-as-of", "then", "--state", "processed")
    assert (document["selected"], document["entries"], document["problems"]) == ([1, 2], [5, 6], [])
