"""A new site."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from engine.cli import app
from engine.cli.init import shipped, shipped_files


def test_init_makes_a_site_that_check_finds_good(tmp_path: Path) -> None:
    assert app.run(["init", str(tmp_path / "site")]) == 0
    assert app.run(["check", "--config", str(tmp_path / "site" / "config.yaml")]) == 0


def test_init_says_the_next_command_as_it_can_be_typed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "venv/bin/handoff"
    command.parent.mkdir(parents=True)
    command.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["venv/bin/handoff"])
    monkeypatch.setenv("PATH", "/nowhere")
    app.run(["init", "a site"])
    assert f"Now: cd 'a site' && {command} run" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(command.parent))
    app.run(["init", "another"])
    assert "Now: cd another && handoff run" in capsys.readouterr().err


def test_init_keeps_the_keys_and_the_data_to_their_owner(tmp_path: Path) -> None:
    app.run(["init", str(tmp_path / "site")])
    assert stat.S_IMODE((tmp_path / "site/var/keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "site/var").stat().st_mode) == 0o700


def test_init_refuses_a_folder_that_holds_a_site_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("node: mine\n")
    assert app.run(["init", str(tmp_path)]) == 1
    assert "none is ever overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() == "node: mine\n"


def test_init_missing_adds_the_keys_and_leaves_the_rest(tmp_path: Path) -> None:
    site = tmp_path / "site"
    app.run(["init", str(site)])
    keys = site / "var/keys.json"
    keys.unlink()
    (site / "channels/main-campus.yaml").rename(site / "channels/other.yaml")
    assert app.run(["init", str(site), "--missing"]) == 0
    assert keys.exists()
    assert not (site / "channels/main-campus.yaml").exists()
    before = keys.read_bytes()
    assert app.run(["init", str(site), "--missing"]) == 0
    assert keys.read_bytes() == before


def test_an_installation_puts_aside_every_file_that_init_needs() -> None:
    root = shipped()
    table = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    put_aside = {
        f"{target.removeprefix('share/handoff').strip('/')}/{path.name}".lstrip("/")
        for target, patterns in table.items()
        for pattern in patterns
        for path in root.glob(pattern)
    }
    assert {name for name, _ in shipped_files()} <= put_aside
