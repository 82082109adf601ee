"""What a reload changes is said in words, without a value that could be a secret."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.connectors.registry import load
from engine.pipeline.changes import changes, in_the_way
from engine.settings import Configuration
from engine.snapshot import Snapshot

ROOT = Path(__file__).parents[3]
Edit = Callable[[Path], object]


def replace(file: str, old: str, new: str) -> Edit:
    def edit(site: Path) -> None:
        text = (site / file).read_text()
        assert old in text
        (site / file).write_text(text.replace(old, new))

    return edit


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("channels", "mappings"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copyfile(ROOT / "config.yaml", tmp_path / "config.yaml")
    replace("config.yaml", "  # lab: ", "  lab: ")(tmp_path)
    text = (tmp_path / "channels/main-campus.yaml").read_text()
    west = text.replace("name: main-campus", "name: west").replace("2575", "2576")
    (tmp_path / "channels/west.yaml").write_text(west)
    return tmp_path


def read(site: Path) -> Configuration:
    return load(Snapshot.read(site / "config.yaml"))


CHANNEL = "channels/main-campus.yaml"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda _: None, []),
        (lambda site: (site / "channels/west.yaml").unlink(), ["- channel west (port 2576 closed, 3 connections)"]),
        (replace("channels/west.yaml", "name: west", "name: east"),
         ["+ channel east (live, 127.0.0.1:2576)", "- channel west (port 2576 closed, 3 connections)"]),
        (replace(CHANNEL, "2575", "2599"), ["~ channel main-campus (127.0.0.1:2575 -> 127.0.0.1:2599, listen)"]),
        (replace(CHANNEL, "mode: live", "mode: shadow"), ["~ channel main-campus (mode live -> shadow)"]),
        (replace(CHANNEL, "timezone: America/New_York", "timezone: UTC"), ["~ channel main-campus (timezone)"]),
        (replace("config.yaml", "  lab: ", "  # lab: "), ["- destination lab (46 deliveries waiting)"]),
        (replace("config.yaml", "  lab: ", "  ris: "),
         ["- destination lab (46 deliveries waiting)", "+ destination ris (mllp)"]),
        (replace("config.yaml", "port: 2576", "port: 2577"), ["~ destination lab (port)"]),
        (replace("config.yaml", "holidays: US", "holidays: US-CA"), ["~ site main-1 (calendar)"]),
        (replace("mappings/tables/sex.yaml", "  A: A", "  X: A"), ["~ table sex"]),
        (replace("mappings/care/dispositions.yaml", "codes:", "# codes\ncodes:"), ["~ care rules dispositions"]),
        (lambda site: shutil.copyfile(site / "mappings/tables/sex.yaml", site / "mappings/tables/gender.yaml"),
         ["+ table gender"]),
        (lambda site: (site / "mappings/tables/admission-type.yaml").unlink(), ["- table admission-type"]),
    ],
)  # fmt: skip
def test_each_change_is_a_line(site: Path, edit: Edit, said: list[str]) -> None:
    old = read(site)
    edit(site)
    found = changes(old, read(site), connections={"west": 3, "main-campus": 2}, waiting={"lab": 46})
    assert sorted(map(str, found)) == sorted(said)


def test_a_protocol_is_said_with_its_versions(site: Path) -> None:
    old = read(site)
    file = site / "mappings/protocols/post-discharge.yaml"
    lines = ["version: '9'" if line.startswith("version:") else line for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines))
    (change,) = changes(old, read(site), connections={}, waiting={})
    assert str(change).startswith("~ protocol post-discharge (version ")
    assert str(change).endswith(" -> version 9)")


@pytest.mark.parametrize(
    ("connections", "waiting", "needs"),
    [({}, {}, ()), ({"west": 1}, {}, ("channel west",)), ({}, {"lab": 1}, ("destination lab",)),
     ({"west": 2}, {"lab": 2}, ("channel west", "destination lab")), ({"main-campus": 5}, {"files": 5}, ())],
)  # fmt: skip
def test_only_what_is_in_use_needs_the_word(
    site: Path, connections: dict[str, int], waiting: dict[str, int], needs: tuple[str, ...]
) -> None:
    old = read(site)
    (site / "channels/west.yaml").unlink()
    replace("config.yaml", "  lab: ", "  # lab: ")(site)
    why = in_the_way(changes(old, read(site), connections=connections, waiting=waiting))
    assert (why is not None) == bool(needs)
    assert all(name in (why or "") for name in needs)
