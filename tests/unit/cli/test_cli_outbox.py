"""The reader of a sealed outbox: its key, and what it reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from site_with_store import Site

from engine.cli import app
from engine.connectors.sealedlines import LineSealer

LINE = b'{"idempotency_key":"k","operation":"upsert_patient","name":"DOE"}'


@pytest.fixture
def sealed(bare: Site) -> tuple[Path, Path]:
    made = bare.json("outbox", "key", str(bare.folder / "reader.key"))
    file = bare.folder / "files-00000001.ndjson"
    file.write_bytes(LineSealer(made["public"]).seal("k", LINE) + b"\n" + LINE + b"\n")
    return Path(made["file"]), file


def test_what_is_read_is_on_record_before_it_is_shown(bare: Site, sealed: tuple[Path, Path]) -> None:
    key, file = sealed
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    done = bare.run("outbox", "read", str(file), "--key", str(key), "--reason", "nightly load")
    assert [json.loads(line) for line in done.out.splitlines()] == [json.loads(LINE)] * 2
    (record,) = [one for one in bare.json("audit", "list") if one["subject"].startswith("outbox:")]
    assert (record["action"], record["subject"]) == ("reveal", "outbox:files-00000001.ndjson")
    assert len(bare.json("outbox", "read", str(file), "--key", str(key), "--reason", "x")) == 2


def test_a_key_is_never_overwritten_nor_shown(bare: Site, sealed: tuple[Path, Path]) -> None:
    key, _ = sealed
    before = key.read_text()
    done = bare.run("outbox", "key", str(key))
    assert done.code != 0
    assert key.read_text() == before
    assert before.strip() not in done.out + done.err


def test_lines_of_another_reader_are_said_and_the_rest_is_shown(bare: Site, sealed: tuple[Path, Path]) -> None:
    _, file = sealed
    bare.json("outbox", "key", str(bare.folder / "other.key"))
    done = bare.run("outbox", "read", str(file), "--key", str(bare.folder / "other.key"), "--reason", "x")
    assert (done.code, done.out) == (1, LINE.decode() + "\n")
    assert f"{file}:1: can't be opened" in done.err


def test_a_reason_is_needed_and_a_reader_without_a_site_needs_nothing_else(
    bare: Site, sealed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, file = sealed
    assert bare.run("outbox", "read", str(file), "--key", str(key)).code == 2
    elsewhere = ["--config", str(tmp_path / "none.yaml")]
    assert app.run(["outbox", "read", str(file), "--key", str(key), "--reason", "x", *elsewhere]) == 0
    assert "DOE" in capsys.readouterr().out


def test_check_warns_until_somebody_has_decided(bare: Site) -> None:
    config = bare.config.read_text()
    bare.config.write_text(config.replace(", sealed: false", ""))
    (warning,) = bare.json("check")["problems"]
    assert (warning["level"], warning["key"]) == ("warning", "destinations.files.path")
    public = bare.json("outbox", "key", str(bare.folder / "reader.key"))["public"]
    bare.config.write_text(config.replace("sealed: false", f"reader: '{public}'"))
    assert bare.json("check", "--strict")["ok"]
    bare.config.write_text(config.replace("sealed: false", "reader: abc"))
    (problem,) = bare.json("check", code=1)["problems"]
    assert (problem["level"], "outbox key" in problem["message"]) == ("problem", True)
    bare.config.write_text(config.replace("sealed: false", "sealed: true"))
    (problem,) = bare.json("check", code=1)["problems"]
    assert "no reader" in problem["message"]
