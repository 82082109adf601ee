"""The outline of a configuration says the same as the models, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.connectors.registry import load
from engine.errors import SettingsError
from engine.outline import Outline, outline
from engine.snapshot import Snapshot

ROOT = Path(__file__).resolve().parents[2]
SITE = """\
node: north-2
purpose: test
clock: {offset_seconds_file: var/ahead}
store: {url: {env: OUTLINE_STORE}, keys: secret/keys.json}
console: {host: "::1", port: 0}
calendar: {timezone: Europe/Berlin}
channels: feeds/
destinations:
  crm: {type: mllp, host: 10.0.0.9, port: 1}
  files: {type: file, path: out}
"""
WEST = """\
name: west
mode: shadow
listen: {host: 0.0.0.0, port: 2776}
timezone: {default: Europe/Berlin, senders: {WESTKIS: Europe/Berlin}}
senders: [ORBIS, WEST]
mapping: adt
identity:
  authority: OTHER
  authorities: [MRN, {name: WESTKIS, oid: 1.2.3, also: [OTHER]}]
deliver: [{to: files, what: [patient]}]
"""
EAST = "name: east\nlisten: {port: 2777}\ntimezone: Asia/Tokyo\nmapping: adt\n"


def site(folder: Path, text: str = SITE, **channels: str) -> Snapshot:
    (folder / "mappings").mkdir()
    (folder / "feeds").mkdir()
    (folder / "config.yaml").write_text(text)
    for name, channel in (channels or {"west": WEST, "east": EAST}).items():
        (folder / f"feeds/{name}.yaml").write_text(channel)
    return Snapshot.read(folder / "config.yaml")


def test_it_is_that_of_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLINE_STORE", "sqlite:///elsewhere/x.db")
    snapshot = site(tmp_path)
    found = outline(snapshot)
    assert found == load(snapshot).outline
    assert found is not None
    assert found.store_url == "sqlite:///elsewhere/x.db"
    assert found.clock_file == tmp_path / "var/ahead"
    assert found.channels["west"].authorities == {"MRN", "WESTKIS"}
    assert found.channels["east"].authorities == {"east"}


def test_it_is_that_of_the_models_for_what_is_shipped_and_where_nothing_is_said(tmp_path: Path) -> None:
    shipped = Snapshot.read(ROOT / "config.yaml")
    assert outline(shipped) == load(shipped).outline
    bare = site(tmp_path, "channels: feeds\n", east=EAST)
    assert outline(bare) == load(bare).outline


@pytest.mark.parametrize(
    "text",
    ["store: sqlite\n", "store: {url: 7}\n", "store: {url: {env: NOT_THERE_AT_ALL}}\n", "store:\n", "node: [a]\n",
     "console: {port: '8080'}\n", "console: {port: true}\n", "destinations: [a]\n", "destinations: {a: {}}\n",
     "a: *b\n", "- a\n"],
)  # fmt: skip
def test_whatever_is_unusual_in_the_site_is_left_to_the_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "channels").mkdir()
    assert outline_of(tmp_path, text) is None


@pytest.mark.parametrize(
    "text",
    ["", "name: 7\n", WEST.replace("port: 2776", "port: [1]"), WEST.replace("[ORBIS, WEST]", "ORBIS"),
     WEST.replace("[ORBIS, WEST]", "[1]"), WEST.replace("[MRN,", "[7,"), WEST.replace("also: [OTHER]", "also: OTHER"),
     WEST.replace("{WESTKIS: Europe/Berlin}", "[WESTKIS]"), WEST + "name: west\n"],
)  # fmt: skip
def test_whatever_is_unusual_in_a_channel_is_left_to_the_models(tmp_path: Path, text: str) -> None:
    assert outline(site(tmp_path, "channels: feeds\n", west=text)) is None


def outline_of(folder: Path, text: str) -> Outline | None:
    (folder / "mappings").mkdir()
    (folder / "config.yaml").write_text(text)
    try:
        return outline(Snapshot.read(folder / "config.yaml"))
    except SettingsError:  # not even the files can be found
        return None
