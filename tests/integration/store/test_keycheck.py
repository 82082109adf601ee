"""A store is opened with its own keys or not at all."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from store_builders import append, receipt

from engine.errors import KeyMissingError
from engine.store.keys import KeyRing
from engine.store.schema import payload
from engine.store.store import Store


def test_a_daemon_does_not_open_a_store_with_the_keys_of_another_and_a_tool_does(site, tmp_path):
    store = site.open("tool")
    other = KeyRing.create(tmp_path / "other.json")
    with Store.open(site.url, other, "main"):
        pass  # nothing is stored yet: these may become its keys
    append(store, *(receipt(store.keys, str(number)) for number in range(3)))
    for role in ("main", "worker"):
        with pytest.raises(KeyMissingError, match="not the one"):
            Store.open(site.url, other, role)
    with Store.open(site.url, other, "tool"):
        pass
    site.open("main")


def test_a_damaged_entry_is_not_taken_for_a_wrong_key(site):
    store = site.open("tool")
    append(store, *(receipt(store.keys, str(number)) for number in range(3)))
    store.journal_ledger.write_now(
        lambda conn: conn.execute(update(payload).where(payload.c.entry_id == 3).values(head=b"\x01" * 40))
    )
    site.open("main")


def test_a_rotated_key_that_is_missing_is_named(site, tmp_path):
    path = tmp_path / "keys.json"
    before = path.read_text()
    site.keys.rotate()
    store = site.open("tool")
    append(store, receipt(store.keys, "1"))
    with pytest.raises(KeyMissingError, match="key 2"):
        Store.open(site.url, KeyRing.parse(before), "main")
