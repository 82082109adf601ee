"""Sites for the commands to run on."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from old_messages import plans_old_discharges
from site_with_store import REFUSED, UNREADABLE, Site, first_messages

from engine.cli import app


@pytest.fixture(autouse=True)
def _hooks() -> Iterator[None]:
    """A command sets up logging for its process; here that is the tests' own."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.raiseExceptions
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture(scope="session")
def _bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "site"
    site = Site(folder)
    assert app.run(["init", str(folder)]) == 0
    plans_old_discharges(folder)
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
