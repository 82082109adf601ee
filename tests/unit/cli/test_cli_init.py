"""A new site."""

from __future__ import annotations

import stat
import subprocess
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
    packaged = {name for name, file in shipped_files() if "engine" in file.relative_to(root).parts[:1]}
    put_aside = packaged | {
        f"{target.removeprefix('share/handoff').strip('/')}/{path.name}".lstrip("/")
        for target, patterns in table.items()
        for pattern in patterns
        for path in root.glob(pattern)
    }
    assert {name for name, _ in shipped_files()} <= put_aside


def test_a_new_site_is_that_of_the_package_whatever_lies_beside_it(tmp_path: Path) -> None:
    """The checkout may be lived in: its channels and ports are not those of the next site."""
    root = shipped()
    for name, file in shipped_files():
        if name.startswith(("config.yaml", "channels/")):
            assert file.is_relative_to(root / "engine")
            assert file.read_bytes() == (root / name).read_bytes(), f"{name}: the packaged one is another"


def test_init_keeps_keys_and_data_out_of_a_repository(tmp_path: Path) -> None:
    site = tmp_path / "site"
    app.run(["init", str(site)])
    (site / "channels/tls").mkdir()
    (site / "channels/tls/server.key").touch()
    subprocess.run(["git", "init", "-q", str(site)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(site), "ls-files", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "config.yaml" in listed
    assert "mappings/tables/sex.yaml" in listed
    assert not [name for name in listed if name.startswith("var/") or name.endswith((".key", "keys.json"))]


def test_the_configuration_of_a_new_site_is_not_for_everybody(tmp_path: Path) -> None:
    app.run(["init", str(tmp_path / "site")])
    assert stat.S_IMODE((tmp_path / "site/config.yaml").stat().st_mode) == 0o640
