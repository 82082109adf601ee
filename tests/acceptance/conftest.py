"""Fixtures: a site, and daemons that end with the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from harness import Daemon, MakeDaemon, Site
from old_messages import plans_old_discharges


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A new site on free ports."""
    site = Site(tmp_path / "site")
    tmp_path.joinpath("site").mkdir()
    site.run("init", ".")
    plans_old_discharges(site.folder)
    site.edit("config.yaml", (r"port: 8080", "port: 0"))
    site.edit("channels/main-campus.yaml", (r"port: 2575", "port: 0"))
    return site


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
