"""Sites for the commands to run on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from site_with_store import REFUSED, UNREADABLE, Site, first_messages

from engine.cli import app


@pytest.fixture(scope="session")
def _bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "site"
    site = Site(folder)
    assert app.run(["init", str(folder)]) == 0
    assert site.run("db", "migrate").code == 0
    return folder


@pytest.fixture(scope="session")
def _stocked(_bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = Site(tmp_path_factory.mktemp("stocked") / "site")
    shutil.copytree(_bare, site.folder)
    site.receive(*first_messages(site), UNREADABLE, REFUSED)
    site.process()
    return site.folder


@pytest.fixture
def bare(_bare: Path, tmp_path: Path) -> Site:
    """A site whose store is empty."""
    return Site(Path(shutil.copytree(_bare, tmp_path / "site")))


@pytest.fixture
def stocked(_stocked: Path, tmp_path: Path) -> Site:
    """A site that has processed an admission, a discharge, a message without a patient id and a refused one."""
    return Site(Path(shutil.copytree(_stocked, tmp_path / "site")))
