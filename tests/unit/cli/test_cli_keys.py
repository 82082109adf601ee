"""Keys from the first to the last day: rotated, everything sealed anew, retired."""

from __future__ import annotations

import json

from site_with_store import Site, first_messages
from sqlalchemy import update

from engine.connectors.registry import load
from engine.runtime.status import Status, StatusFile, status_path
from engine.snapshot import Snapshot
from engine.store.opening import open_store
from engine.store.schema import chart

REVEAL = ("--reveal", "--reason", "test")


def values(site: Site) -> dict[int, int | None]:
    return {key["number"]: key["values"] for key in site.json("keys", "status")["keys"]}


def test_a_key_goes_from_rotation_over_sealing_anew_to_its_end(stocked: Site) -> None:
    assert values(stocked) == {1: None}  # with one key there is nothing to count
    patient = stocked.json("patients", "show", "MRN:558181838", *REVEAL)
    stocked.json("keys", "rotate")
    before = values(stocked)
    assert before[1] > 10 > before[2]
    refused = stocked.run("keys", "retire", "1")
    assert (refused.code, f"{before[1]} value(s)" in refused.err, "keys reseal" in refused.err) == (1, True, True)
    assert stocked.json("keys", "reseal") == {"resealed": before[1], "damaged": 0}
    assert values(stocked)[1] == 0
    assert [key["number"] for key in stocked.json("keys", "retire", "1")["keys"]] == [2]
    assert "1" not in json.loads((stocked.folder / "var/keys.json").read_text())["keys"]
    assert stocked.json("patients", "show", "MRN:558181838", *REVEAL) == patient
    assert stocked.json("ledger")[0]["balanced"] is True
    stocked.receive(first_messages(stocked)[0].replace(b"FIRST-0001", b"LATER"))
    stocked.process()
    assert stocked.json("messages", "show", "5", *REVEAL)["payload"].startswith("MSH")


def test_the_key_in_use_and_one_that_is_not_there_are_not_retired(stocked: Site) -> None:
    assert "keys rotate" in stocked.run("keys", "retire", "1").err
    assert stocked.run("keys", "retire", "1").code == 1
    assert "no key 9" in stocked.run("keys", "retire", "9").err


def test_while_the_daemon_seals_with_it_a_key_is_not_retired(stocked: Site) -> None:
    stocked.json("keys", "rotate")
    stocked.json("keys", "reseal")
    file = StatusFile(status_path(load(Snapshot.read(stocked.config))))
    assert file.take()
    file.write(Status(node="test", state="running", pid=None, channels=(), console=None, sealing_key=1))
    try:
        assert "handoff reload" in stocked.run("keys", "retire", "1").err
    finally:
        file.remove()
    assert stocked.run("keys", "retire", "1").code == 0


def test_a_damaged_value_is_said_and_left_only_on_purpose(stocked: Site) -> None:
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        broken = store.keys.seal("elsewhere:1", b"x")
        store.charts_ledger.write_now(lambda conn: conn.execute(update(chart).values(document=broken)))
    stocked.json("keys", "rotate")
    assert stocked.json("keys", "reseal", code=1)["damaged"] > 0
    assert stocked.run("keys", "retire", "1").code == 1
    assert stocked.run("keys", "retire", "1", "--leave-damaged").code == 0


def test_keys_behind_a_credential_are_changed_in_the_file_that_it_comes_from(bare: Site) -> None:
    config = bare.config
    config.write_text(config.read_text().replace("keys: var/keys.json ", "keys: {file: var/keys.json} "))
    file = str(bare.folder / "var/keys.json")
    assert bare.run("keys", "rotate").code == 78
    assert bare.run("keys", "rotate", "--file", file).code == 0
    assert bare.run("keys", "reseal").code == 0
    assert bare.run("keys", "retire", "1", "--file", file).code == 0
    assert values(bare) == {2: None}
