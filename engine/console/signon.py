"""Single sign-on in the browser: who comes to the door is sent to the provider, and comes back with who they are.

What has to be known when they come back (`oidc.Begun`) is kept by the browser itself, in a cookie that the site's keys
seal: nothing of it grows here, and with several nodes, or after a restart, another process may finish what this one
began. The provider takes a code once and only with the verifier that is in there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from engine.connectors.oidc import Begun, Identified, SignOn
from engine.console.problems import ProblemError, bad
from engine.domain.record import Phi
from engine.errors import KeyMissingError, TamperedError

if TYPE_CHECKING:
    from engine.console.site import ConsoleSite
    from engine.settings import Configuration

RETURN: Final = "/login/return"
"""Where the provider sends people back to; it has to know the address."""
KEPT_FOR: Final = timedelta(minutes=10)
_PLACE: Final = "console.sign-on"
_COOKIE_CHARACTERS_MAX: Final = 4096


class Kept(Phi, frozen=True, kw_only=True):
    begun: Begun
    to: str
    """The page that was asked for."""
    at: datetime


class Provider:
    """The provider that config.yaml names. Used from one event loop."""

    def __init__(self, site: ConsoleSite) -> None:
        self._site = site
        self._of: Configuration | None = None
        self._sign_on: SignOn | None = None

    async def begin(self, origin: str, to: str) -> tuple[str, str]:
        """Where the browser is sent, and what it keeps meanwhile. origin: `https://NAME` of this console, as it is
        asked. Raises ProblemError or SignOnError.
        """
        sign_on = await self._current()
        begun = await sign_on.begin(f"{origin}{RETURN}")
        kept = Kept(begun=msgspec.structs.replace(begun, url=""), to=to, at=self._site.clock.now())
        sealed = self._site.store.keys.seal(_PLACE, msgspec.json.encode(kept))
        return begun.url, base64.urlsafe_b64encode(sealed).decode()

    async def finish(self, kept: Kept, returned: Mapping[str, str]) -> Identified:
        """Raises SignOnError."""
        return await (await self._current()).finish(kept.begun, returned)

    def kept(self, cookie: str) -> Kept:
        """What a browser has kept. Raises ProblemError when it is none of ours, or too old."""
        stale = bad("no log-in was begun in this browser within the last minutes: begin anew")
        if not 0 < len(cookie) <= _COOKIE_CHARACTERS_MAX:
            raise stale
        try:
            sealed = base64.b64decode(cookie, altchars=b"-_", validate=True)
            kept = msgspec.json.decode(self._site.store.keys.open(_PLACE, sealed), type=Kept)
        except (binascii.Error, ValueError, TamperedError, KeyMissingError, msgspec.MsgspecError):
            raise stale from None
        if not timedelta(0) <= self._site.clock.now() - kept.at <= KEPT_FOR:
            raise stale
        return kept

    async def close(self, _app: web.Application | None = None) -> None:
        sign_on, self._sign_on, self._of = self._sign_on, None, None
        if sign_on is not None:
            await sign_on.close()

    async def _current(self) -> SignOn:
        """By the configuration that is in force: a reload may name another provider."""
        configuration = self._site.configuration
        access = configuration.site.access
        if access is None or access.oidc is None:
            raise ProblemError(404, "the site has no single sign-on (access.oidc)")
        if self._sign_on is None or self._of is not configuration:
            await self.close()
            self._sign_on, self._of = SignOn(access.oidc, configuration.snapshot.base), configuration
        return self._sign_on
