"""Single sign-on in the browser, at a provider that is one: who comes in, who does not, and what is on record of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer
from opened_console import Console, Line
from peers.openid_provider import CLIENT, REDIRECT, SECRET, OpenIdProvider
from site_with_store import Site

from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.signon import RETURN
from engine.console.site import ConsoleSite
from engine.snapshot import Snapshot

HOST = urlsplit(REDIRECT).hostname or ""
ACCESS = """
access:
  provider: {way}
  roles: mappings/access/roles.yaml
  oidc: {{issuer: "{issuer}", client_id: {client}, client_secret: {{file: provider.secret}}, name_claim: sub}}
"""
KEPT, SESSION = "__Host-handoff-sign-on", "__Host-handoff"


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        yield one


class Browser:
    """Asks the console by its name, as a proxy with TLS passes it on, and keeps what it is given."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.jar: dict[str, str] = {}
        self.given: dict[str, Any] = {}

    async def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        sent = {"Host": HOST, "Cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items())} | headers
        answer = await self.console.client.get(path, headers=sent, allow_redirects=False)
        for line in answer.headers.getall("Set-Cookie", []):
            for name, one in SimpleCookie(line).items():
                self.given[name] = one
                self.jar[name] = one.value
                if not one.value:
                    del self.jar[name]
        return answer.status, await answer.text(), answer.headers

    async def begin(self, to: str = "/ops") -> str:
        """The address at the provider."""
        status, text, headers = await self.get(f"/login/provider?{urlencode({'next': to})}")
        assert status == 303, text
        return str(headers["Location"])

    async def come_back(self, provider: OpenIdProvider, to: str = "/ops", **spoil: str) -> tuple[int, str, Any]:
        """The whole way, as far as the page behind it. spoil: what is altered of the query."""
        returned = await asyncio.to_thread(provider.browse, await self.begin(to)) | spoil
        return await self.get(f"{RETURN}?{urlencode(returned)}")


async def _open(site: Site, provider: OpenIdProvider, way: str) -> tuple[Console, TestClient[Any, Any]]:
    text = site.config.read_text()
    begin = text.index("\naccess:")
    secret = site.folder / "provider.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    text = text[:begin].replace(
        "console: {host: 127.0.0.1, port: 8080", f"console: {{host: 127.0.0.1, port: 8080, hosts: [{HOST}]"
    )
    site.config.write_text(text + ACCESS.format(way=way, issuer=provider.issuer, client=CLIENT))
    of = ConsoleSite(load(Snapshot.read(site.config)), Line())
    client = TestClient(TestServer(create_console(of, "127.0.0.1")))
    await client.start_server()
    return Console(site, client, of, Line()), client


@pytest.fixture
async def console(site: Site, provider: OpenIdProvider) -> AsyncIterator[Console]:
    console, client = await _open(site, provider, "oidc")
    yield console
    await client.close()
    console.of.close()


@pytest.fixture
def browser(console: Console) -> Browser:
    return Browser(console)


def trail(console: Console, action: str) -> list[tuple[str, str, str | None]]:
    found = console.of.store.read_now(lambda conn: console.of.store.audit.find(conn, limit=None, action=action))
    return [(one.actor, one.subject, one.reason) for one in found]


def account(console: Console, name: str, **more: Any) -> None:
    console.account(name, "admin", **more)


async def test_who_signs_on_has_a_session_as_others_have_one(
    console: Console, browser: Browser, provider: OpenIdProvider
) -> None:
    account(console, "dana")
    provider.seat("dana", "password", "otp")
    status, text, headers = await browser.come_back(provider, "/ops?x=1&y=2")
    assert status == 200, text
    assert 'content="0; url=/ops?x=1&amp;y=2"' in text  # a redirect would still come from the provider's site
    assert headers["Referrer-Policy"] == "no-referrer"
    assert KEPT not in browser.jar
    session = browser.given[SESSION]
    assert (session["samesite"], session["httponly"], session["secure"]) == ("Strict", True, True)
    assert (await browser.get("/ops"))[0] == 200
    assert trail(console, "logged-in") == [("dana", "account:dana", "oidc")]
    console.accounts.disable("dana")
    assert (await browser.get("/ops"))[0] == 303


async def test_what_the_browser_keeps_meanwhile_says_nothing_and_is_sent_back_by_the_providers_page(
    browser: Browser,
) -> None:
    url = await browser.begin()
    kept = browser.given[KEPT]
    assert (kept["samesite"], kept["httponly"], kept["secure"], kept["path"]) == ("Lax", True, True, "/")
    query = parse_qs(urlsplit(url).query)
    assert query["redirect_uri"] == [REDIRECT]
    assert not any(query[name][0] in kept.value for name in ("state", "nonce", "code_challenge"))
    assert await browser.begin() != url


async def test_who_has_no_account_here_is_refused_and_on_record(
    console: Console, browser: Browser, provider: OpenIdProvider
) -> None:
    account(console, "svc", kind="service")
    account(console, "left")
    console.accounts.disable("left")
    for name in ("nobody.here", "svc", "left"):
        provider.seat(name, "password", "otp")
        status, text, _ = await browser.come_back(provider)
        assert (status, "no account here has your name" in text) == (401, True), text
        assert SESSION not in browser.jar
        assert trail(console, "login-failed")[0] == ("console", f"account:{name}", "oidc")
    assert trail(console, "logged-in") == []


async def test_a_name_that_is_somebody_elses_now_does_not_open_the_account(
    console: Console, browser: Browser, provider: OpenIdProvider
) -> None:
    account(console, "dana")
    console.accounts.let_in("dana", "oidc", "another person")
    provider.seat("dana", "password", "otp")
    status, text, _ = await browser.come_back(provider)
    assert (status, "another person" in text) == (401, True), text
    assert trail(console, "login-failed") == [
        ("console", "account:dana", "oidc: the provider says that it is another person than before")
    ]
    console.accounts.disable("dana")
    console.accounts.enable("dana")
    assert (await browser.come_back(provider))[0] == 200


async def test_a_password_alone_is_not_enough_there_either(
    console: Console, browser: Browser, provider: OpenIdProvider
) -> None:
    account(console, "sam")
    provider.seat("sam", "password")
    status, text, _ = await browser.come_back(provider)
    assert (status, "second factor" in text) == (401, True)
    ((_, subject, why),) = trail(console, "login-failed")
    assert (subject, "amr" in str(why)) == ("account:unknown", True)


@pytest.mark.parametrize("spoil", [{"state": "another"}, {"code": ""}, {"error": "access_denied"}], ids=str)
async def test_a_return_that_was_altered_lets_nobody_in(
    console: Console, browser: Browser, provider: OpenIdProvider, spoil: dict[str, str]
) -> None:
    account(console, "dana")
    provider.seat("dana", "password", "otp")
    status, text, _ = await browser.come_back(provider, **spoil)
    assert status == 401
    assert SESSION not in browser.jar
    assert not any(value in text for value in spoil.values() if value)
    assert len(trail(console, "login-failed")) == 1


async def test_a_return_into_another_browser_or_too_late_lets_nobody_in(
    console: Console, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else somebody could be logged in as another person, and put what they do into that one's name."""
    account(console, "dana")
    provider.seat("dana", "password", "otp")
    first, second = Browser(console), Browser(console)
    returned = urlencode(await asyncio.to_thread(provider.browse, await first.begin()))
    assert (await second.get(f"{RETURN}?{returned}"))[0] == 400
    await second.begin()
    assert (await second.get(f"{RETURN}?{returned}"))[0] == 401
    for cookie in ("x", "====", first.jar[KEPT][:-8] + "AAAAAAA=", "x" * 5000):
        second.jar = {KEPT: cookie}
        assert (await second.get(f"{RETURN}?{returned}"))[0] == 400
    now = console.of.clock.now
    monkeypatch.setattr(console.of.clock, "now", lambda: now() + timedelta(minutes=11))
    assert (await first.get(f"{RETURN}?{returned}"))[0] == 400


async def test_wrong_returns_are_limited_and_a_provider_that_is_gone_is_nobodys_fault(
    console: Console, browser: Browser, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.begin()
    kept = dict(browser.jar)
    status = 0
    for _ in range(25):
        browser.jar = dict(kept)
        status = (await browser.get(f"{RETURN}?state=x&code=y"))[0]
        if status == 429:
            break
    assert status == 429
    assert len(trail(console, "login-failed")) == 20


async def test_a_provider_that_is_gone_is_said_and_counts_for_nobody(site: Site, provider: OpenIdProvider) -> None:
    class Gone:
        issuer = "http://localhost:9"

    console, client = await _open(site, Gone(), "local+oidc")  # type: ignore[arg-type]
    try:
        browser = Browser(console)
        for _ in range(22):
            status, text, _ = await browser.get("/login/provider")
            assert (status, "be reached" in text) == (503, True), text
        assert trail(console, "login-failed") == []
    finally:
        await client.close()
        console.of.close()


@pytest.mark.parametrize(("way", "fields", "link"), [("oidc", False, True), ("local+oidc", True, True)])
async def test_the_door_offers_what_the_site_has(
    site: Site, provider: OpenIdProvider, way: str, fields: bool, link: bool
) -> None:
    console, client = await _open(site, provider, way)
    try:
        _, text, _ = await Browser(console).get("/login?next=/worklist")
        assert ('name="password"' in text, "/login/provider?next=%2Fworklist" in text) == (fields, link)
    finally:
        await client.close()
        console.of.close()


async def test_without_a_provider_there_is_no_way_to_one(open_console: Any) -> None:
    console: Console = await open_console()
    assert "/login/provider" not in await (await console.client.get("/login")).text()
    for path in ("/login/provider", RETURN):
        answer = await console.client.get(path, allow_redirects=False)
        assert answer.status in {400, 404}
