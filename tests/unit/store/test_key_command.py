"""Keys out of what a command prints, as that of a key management service."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.connectors.registry import load
from engine.errors import KeyFileError, KeyMissingError, StoreError
from engine.outline import outline
from engine.snapshot import Snapshot
from engine.store.keys import KeyRing
from engine.store.opening import key_file, open_keys


def site(folder: Path, command: str, *, more: str = "") -> Snapshot:
    for name in ("channels", "mappings"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"store: {{keys: {{command: {command}{more}}}}}\n")
    return Snapshot.read(folder / "config.yaml")


@pytest.fixture
def kept(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "kept" / "keys.json")


@pytest.mark.parametrize("light", [True, False])
def test_what_it_prints_are_the_keys_and_they_are_asked_for_again_by_a_reload(
    tmp_path: Path, kept: KeyRing, *, light: bool
) -> None:
    snapshot = site(tmp_path, "[cat, kept/keys.json]")
    place = outline(snapshot) if light else load(snapshot)
    assert place is not None
    keys = open_keys(place)
    assert keys.open("t.c:1", kept.seal("t.c:1", b"x")) == b"x"
    kept.rotate()
    assert keys.open("t.c:1", kept.seal("t.c:1", b"y")) == b"y"
    assert keys.active == 2
    kept.rotate()
    keys.reload()
    assert keys.active == 3
    assert key_file(place) is None
    with pytest.raises(StoreError, match="where they are kept"):
        keys.rotate()
    KeyRing.create(tmp_path / "other.json")
    (tmp_path / "other.json").replace(tmp_path / "kept" / "keys.json")
    with pytest.raises(KeyMissingError, match="other keys"):
        keys.reload()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("[no-such-program-here]", "can't be run: No such file"),
        ("[sh, -c, 'echo canary; echo canary >&2; exit 3']", "exit code 3"),
        ("[sh, -c, 'echo canary']", "is not a key file"),
        ("[head, -c, '2000000', /dev/zero]", "more than any key file holds"),
        ("['true']", "is not a key file"),
    ],
)
def test_one_that_fails_is_named_and_nothing_that_it_says_is_shown(tmp_path: Path, command: str, words: str) -> None:
    with pytest.raises(KeyFileError, match=words) as caught:
        open_keys(load(site(tmp_path, command)))
    assert "canary" not in str(caught.value)


def test_one_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    snapshot = site(tmp_path, "[sh, -c, 'sleep 30 | sleep 30']", more=", seconds_max: 0.2")
    began = time.monotonic()
    with pytest.raises(KeyFileError, match="longer than"):
        open_keys(load(snapshot))
    assert time.monotonic() - began < 10
