"""A console that is open, and what asks it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
from aiohttp.test_utils import TestClient
from site_with_store import Site

from engine.console.site import ConsoleSite
from engine.desk.accounts import Accounts
from engine.domain.account import Account
from engine.runtime import hints

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
