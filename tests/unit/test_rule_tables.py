"""The test files that are shipped beside channels, risk models, care tables and protocols hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.bootstrap import Examined, examine
from engine.snapshot import Snapshot
from engine.trial.cases import run_tests

ROOT = Path(__file__).parents[2]
FILES = sorted(Snapshot.read(ROOT / "config.yaml").tests)


@pytest.fixture(scope="module")
def shipped() -> Examined:
    return examine(ROOT / "config.yaml", tests=False)


def test_every_model_and_protocol_has_a_test_file_beside_it() -> None:
    for folder in ("mappings/risk", "mappings/protocols"):
        files = {path.name for path in (ROOT / folder).glob("*.yaml")}
        tested = {name for name in files if not name.endswith(".test.yaml")}
        assert tested
        assert files - tested == {name.replace(".yaml", ".test.yaml") for name in tested}


@pytest.mark.parametrize("file", FILES)
def test_the_cases_of_a_shipped_test_file_hold(shipped: Examined, file: str) -> None:
    report = run_tests(shipped.compiled, shipped.configuration.snapshot, only=lambda name: name == file)
    assert [str(failure) for failure in report.failures] == []
    assert report.passed
    assert not report.skipped


def test_the_example_of_a_channels_test_holds_for_the_shipped_channel(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "channels", tmp_path / "channels")
    shutil.copytree(ROOT / "mappings", tmp_path / "mappings")
    shutil.copyfile(ROOT / "config.yaml", tmp_path / "config.yaml")
    shutil.copyfile(ROOT / "channels/examples/main-campus.test.yaml", tmp_path / "channels/main-campus.test.yaml")
    examined = examine(tmp_path / "config.yaml")
    assert [str(failure) for failure in examined.failures] == []
