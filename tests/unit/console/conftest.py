"""A site with accounts, and its console's application, asked over a real connection."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from old_messages import plans_old_discharges
from site_with_store import REFUSED, UNREADABLE, Site, first_messages

from engine.cli import app
from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.site import ConsoleSite
from engine.desk.accounts import Accounts
from engine.domain.account import Account
from engine.runtime import hints
from engine.snapshot import Snapshot

ROLES = ("admin", "doctor", "nurse", "care_coordinator", "billing", "ops", "privacy_officer")
PASSWORD = "brass lantern over quiet hills"
ACCESS = "\naccess: {provider: local, roles: mappings/access/roles.yaml, grace_days: 366}\n"


class Line:
    """A stand-in for the way to the daemon."""

    def __init__(self) -> None:
        self.asked: list[hints.Ask] = []
        self.looks = 0

    async def ask(self, ask: hints.Ask) -> hints.Told:
        self.asked.append(ask)
        return hints.Told(number=0, status=200, media="application/json", body="{}")

    def hear(self, told: hints.Told) -> None:
        raise AssertionError(told)

    def look(self) -> None:
        self.looks += 1


class Console:
    """The console of a site. Accounts are made beside it, as the command line makes them."""

    def __init__(self, site: Site, client: TestClient[Any, Any], of: ConsoleSite, line: Line) -> None:
        self.site, self.client, self.of, self.line = site, client, of, line

    @property
    def accounts(self) -> Accounts:
        return Accounts(self.of.store, "boss", datetime.now(UTC))

    def account(self, name: str, *roles: str, **more: Any) -> str:
        """The token of a new account, which may do all that its roles allow."""
        fields: dict[str, Any] = {"created_at": datetime.now(UTC), "created_by": "boss"}
        self.accounts.add(Account(name=name, roles=roles, **fields | more), None)
        return self.token(name)

    def token(self, name: str, *scopes: str) -> str:
        return self.accounts.make_token(name, scopes or ("all",), datetime.now(UTC) + timedelta(days=1))[0]

    def person(self, name: str, *roles: str, **more: Any) -> pyotp.TOTP:
        """One who logs in with a password; what shows the codes."""
        self.account(name, *roles, **more)
        self.accounts.set_password(name, PASSWORD)
        return pyotp.TOTP(self.accounts.set_factor(name)[0])

    async def ask(
        self, method: str, path: str, token: str | None = None, *, body: Any = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, answer and headers."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        more = {} if method in {"GET", "DELETE"} and body is None else {"json": {} if body is None else body}
        answer = await self.client.request(method, path, headers=sent, **more)
        text = await answer.text()
        is_json = "json" in answer.content_type
        return answer.status, (await answer.json(content_type=None) if is_json and text else text), answer.headers

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """Somebody decides acts meanwhile."""
        with self.site.daemon():
            yield


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
