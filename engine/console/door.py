"""Who comes in: by a session's cookie or a service's token. What a page of another site can send does not get in."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from typing import Final, NamedTuple

from aiohttp import web

from engine.connectors.oidc import ProviderGoneError, SignOnError
from engine.console.problems import ProblemError, no_entry, too_often
from engine.console.signon import KEPT_FOR, Provider
from engine.console.site import ConsoleSite
from engine.desk.accounts import SESSION_PREFIX, TOKEN_PREFIX, Entry
from engine.domain.actor import Actor
from engine.domain.audit import Whence
from engine.errors import AccountError
from engine.runtime.health import host_name, is_foreign, is_loopback
from engine.runtime.limits import Buckets

CSRF: Final = "X-CSRF-Token"
_SECRET_CHARACTERS_MAX: Final = 128
GUESSES_PER_SECOND: Final = 0.2
GUESSES_AT_ONCE: Final = 20.0
LOGGING_IN_MAX: Final = 32
"""Passwords that wait to be looked at; each look takes a tenth of a second and 64 MiB."""
_BUSY_SECONDS: Final = 2.0
_SAFE: Final = frozenset({"GET", "HEAD"})
_SIGN_ON: Final = "-sign-on"


class Entered(NamedTuple):
    """Who has come in."""

    actor: Actor
    secret: str
    by_cookie: bool

    @property
    def csrf(self) -> str:
        """What a page of ours sends along: whoever knows it has read an answer of this session."""
        return hmac.new(self.secret.encode(), b"csrf", hashlib.sha256).hexdigest()


class Door:
    """bound: the address that the console's socket is bound to. encrypted: it speaks TLS itself."""

    def __init__(self, site: ConsoleSite, bound: str) -> None:
        self._site = site
        self._on_loopback = is_loopback(bound)
        self._asking = Buckets(20.0, 200.0)
        """By actor."""
        self._failing = Buckets(0.5, 20.0)
        """By address: what was no entry. Who has one is let in all the same: nobody is locked out by a neighbour."""
        self._guesses = Buckets(GUESSES_PER_SECOND, GUESSES_AT_ONCE)
        """By address: wrong log-ins. Right ones cost nothing: a shift begins behind one address."""
        self._logging_in = 0
        self.provider = Provider(site)
        """Of single sign-on, on a site that has one."""

    # --- where it comes from

    def check(self, request: web.Request) -> None:
        """Raises ProblemError for a name that is not ours, and for what a page of another site asks."""
        if not self._is_ours(request):
            raise ProblemError(421, "ask by a name of this console: console.hosts of config.yaml has them")
        if request.method not in _SAFE and is_foreign(request, encrypted=self._is_encrypted(request)):
            raise ProblemError(403, "a page of another site may not ask for this")

    def is_at_home(self, request: web.Request) -> bool:
        """Whether somebody on this machine asks, by a name of this machine: they may see how the engine does."""
        return self._on_loopback and is_loopback(_host(request))

    def _is_ours(self, request: web.Request) -> bool:
        names = {one.lower() for one in self._site.configuration.site.console.hosts}
        host = _host(request)
        return host in names or is_loopback(host) or (not self._on_loopback and not names)

    def _is_encrypted(self, request: web.Request) -> bool:
        """Whether the browser speaks TLS: with us, or with the proxy before us, which passes a name of its own on."""
        return request.secure or not is_loopback(_host(request))

    def whence(self, request: web.Request, command: str) -> Whence:
        """For the record. A proxy on this machine says in whose name it asks."""
        address = request.remote or ""
        said = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if self._site.configuration.site.console.hosts and is_loopback(address) and _is_address(said):
            address = said
        return Whence(address=address or None, host=self._site.configuration.site.node, command=command)

    # --- who it is

    async def enter(
        self, request: web.Request, whence: Whence, *, csrf: str | None = None, at_work: bool = True
    ) -> Entered:
        """csrf: as a form has sent it; none: it stands in the header. at_work: see `Accounts.enter`.

        Raises ProblemError.
        """
        secret, by_cookie = self._secret(request)
        now, address = time.monotonic(), whence.address or ""
        if secret is None:
            raise self._refused(address, now, no_entry())
        try:
            actor = await self._site.run(lambda: self._site.accounts(whence).enter(secret, at_work=at_work))
        except AccountError as error:
            raise self._refused(address, now, no_entry(str(error))) from None
        entered = Entered(actor, secret, by_cookie)
        said = (request.headers.get(CSRF, "") if csrf is None else csrf).encode(errors="replace")
        if by_cookie and request.method not in _SAFE and not hmac.compare_digest(said, entered.csrf.encode()):
            raise ProblemError(403, f"send {CSRF}: `GET /api/v1/session` says it")
        if (seconds := self._asking.take(actor.name, now)) > 0:
            raise too_often(seconds)
        return entered

    def _refused(self, address: str, now: float, problem: ProblemError) -> ProblemError:
        return too_often(seconds) if (seconds := self._failing.take(address, now)) > 0 else problem

    def _secret(self, request: web.Request) -> tuple[str | None, bool]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            token = token.strip()
            good = scheme.lower() == "bearer" and token.startswith(TOKEN_PREFIX)
            return (token if good and _may_be_secret(token) else None), False
        cookie = request.cookies.get(self._cookie(request), "")
        good = cookie.startswith(SESSION_PREFIX) and _may_be_secret(cookie)
        return (cookie if good else None), True

    async def log_in(self, whence: Whence, name: str, password: str, code: str) -> Entered:
        """Raises ProblemError."""
        if not self._site.by_password:
            raise ProblemError(
                403, "nobody logs in with a password here: the site has single sign-on (access.provider)"
            )
        with self._trying(whence):
            entry: Entry = await self._site.run(
                lambda: self._site.accounts(whence).log_in(name, password, code), hashing=True
            )
        return Entered(entry.actor, entry.secret, by_cookie=True)

    @contextlib.contextmanager
    def _trying(self, whence: Whence) -> Iterator[None]:
        """Somebody tries to log in: wrong tries are counted by address. Raises ProblemError."""
        address = whence.address or ""
        if (seconds := self._guesses.wait(address, time.monotonic())) > 0:
            raise too_often(seconds)
        if self._logging_in >= LOGGING_IN_MAX:
            raise too_often(_BUSY_SECONDS)
        self._logging_in += 1
        try:
            yield
        except ProviderGoneError as error:
            raise ProblemError(503, str(error)) from None
        except (AccountError, SignOnError) as error:
            self._guesses.take(address, time.monotonic())
            raise no_entry(str(error)) from None
        finally:
            self._logging_in -= 1

    # --- single sign-on

    async def send_to_provider(self, request: web.Request, whence: Whence, to: str) -> web.Response:
        """The browser goes to the provider. to: the page that was asked for. Raises ProblemError."""
        scheme = "https" if self._is_encrypted(request) else "http"
        with self._trying(whence):
            url, kept = await self.provider.begin(f"{scheme}://{request.host}", to)
        answer = web.Response(status=303, headers={"Location": url})
        # Lax: the provider's page leads back to us, and that is another site's.
        answer.set_cookie(
            self._cookie(request, _SIGN_ON), kept, path="/", httponly=True, samesite="Lax",
            secure=self._is_encrypted(request) or None, max_age=int(KEPT_FOR / timedelta(seconds=1)),
        )  # fmt: skip
        return answer

    async def come_back(self, request: web.Request, whence: Whence) -> tuple[Entered, str]:
        """Who comes back from the provider, and the page that they had asked for. Raises ProblemError."""
        kept = self.provider.kept(request.cookies.get(self._cookie(request, _SIGN_ON), ""))
        with self._trying(whence):
            try:
                who = await self.provider.finish(kept, request.query)
            except ProviderGoneError:
                raise
            except SignOnError as error:
                said = str(error)
                await self._site.run(lambda: self._site.accounts(whence).not_identified(said))
                raise
            entry = await self._site.run(lambda: self._site.accounts(whence).let_in(who.name, "oidc", who.subject))
        return Entered(entry.actor, entry.secret, by_cookie=True), kept.to

    def end_sign_on(self, request: web.Request, response: web.Response) -> None:
        """What was kept for the return is needed no more."""
        response.del_cookie(self._cookie(request, _SIGN_ON), path="/", secure=self._is_encrypted(request) or None)

    # --- the cookie

    def _cookie(self, request: web.Request, more: str = "") -> str:
        return ("__Host-handoff" if self._is_encrypted(request) else "handoff-loopback") + more

    def give(self, request: web.Request, response: web.Response, secret: str) -> None:
        secure = self._is_encrypted(request)
        response.set_cookie(
            self._cookie(request), secret, path="/", httponly=True, samesite="Strict", secure=secure or None
        )

    def take_back(self, request: web.Request, response: web.Response) -> None:
        response.del_cookie(self._cookie(request), path="/", secure=self._is_encrypted(request) or None)


def _may_be_secret(text: str) -> bool:
    """Bytes of a header that are no text come as half characters."""
    return text.isascii() and len(text) <= _SECRET_CHARACTERS_MAX


def _host(request: web.Request) -> str:
    hosts = request.headers.getall("Host", [])
    return host_name(hosts[0]) if len(hosts) == 1 else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
