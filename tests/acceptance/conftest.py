"""Fixtures: a site, and daemons that end with the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from harness import Daemon, MakeDaemon, Site, new_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path / "site")


@pytest.fixture
def make_daemon() -> Iterator[MakeDaemon]:
    """Starts daemons, and ends them when the test does."""
    daemons: list[Daemon] = []

    def start(site: Site, environment: Mapping[str, str] | None = None) -> Daemon:
        daemons.append(Daemon(site, environment))
        return daemons[-1].start()

    yield start
    for daemon in daemons:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def daemon(site: Site, make_daemon: MakeDaemon) -> Daemon:
    return make_daemon(site)
