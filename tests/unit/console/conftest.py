"""A site with accounts, and its console's application, asked over a real connection."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from old_messages import plans_old_discharges
from opened_console import ACCESS, Console, Line
from site_with_store import REFUSED, UNREADABLE, Site, first_messages

from engine.cli import app
from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.site import ConsoleSite
from engine.snapshot import Snapshot


@pytest.fixture(scope="session")
def _stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("console") / "site"
    site = Site(folder)
    assert app.run(["init", str(folder)]) == 0
    plans_old_discharges(folder)
    assert site.run("db", "migrate").code == 0
    site.receive(*first_messages(site), UNREADABLE, REFUSED)
    site.process()
    site.config.write_text(site.config.read_text() + ACCESS)
    return folder


@pytest.fixture
def site(_stocked: Path, tmp_path: Path) -> Site:
    return Site(Path(shutil.copytree(_stocked, tmp_path / "site")))


@pytest.fixture
async def open_console(site: Site) -> AsyncIterator[Callable[..., Any]]:
    """Opens it; bound: the address that it takes itself to be bound to."""
    opened: list[Callable[[], Any]] = []

    async def make(bound: str = "127.0.0.1") -> Console:
        line = Line()
        of = ConsoleSite(load(Snapshot.read(site.config)), line)
        client = TestClient(TestServer(create_console(of, bound)))
        await client.start_server()
        opened.extend((of.close, client.close))
        return Console(site, client, of, line)

    yield make
    for close in reversed(opened):
        if (closing := close()) is not None:
            await closing


@pytest.fixture
async def console(open_console: Callable[..., Any]) -> Console:
    found: Console = await open_console()
    return found
