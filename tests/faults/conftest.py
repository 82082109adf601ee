"""Fixtures: a site whose machine can fail, and daemons on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))  # the harness of real processes

import chamber as chambers
import machine as machines
from acceptance.conftest import daemon, make_daemon, site
from harness import Daemon, MakeDaemon, Site

__all__ = ["daemon", "make_daemon", "site"]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux"):
        pytest.skip("the failing machine is made for Linux")
    if machines.compiler() is None:
        pytest.skip("needs a C compiler (gcc) for the failing machine, tests/faults/machine.c")
    return machines.build(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> machines.Machine:
    """A machine on which nothing fails yet."""
    return machines.Machine(library, tmp_path / "machine")


@pytest.fixture
def failing(site: Site, machine: machines.Machine, make_daemon: MakeDaemon) -> Daemon:
    """A daemon on that machine; errors of the disk hit the site's `var` (store and outbox)."""
    return make_daemon(site, machine.environment(site.folder / "var"))


@pytest.fixture
def chamber() -> Iterator[chambers.Chamber]:
    reason = chambers.why_none()
    if reason is not None:
        pytest.skip(reason)
    with chambers.Chamber() as made:
        yield made
