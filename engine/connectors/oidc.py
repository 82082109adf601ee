"""Single sign-on at a provider of OpenID Connect: the code flow with PKCE (Core 1.0, RFC 7636, RFC 9700).

`begin` gives the address that a browser is sent to, and what has to be kept until it comes back; `finish` takes what it
came back with, fetches the ID token from the provider itself, and says who it is. Whatever is wrong on the way is
`SignOnError`, whose text holds nothing of what came.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jwt

from engine.connectors.http import CallError, HttpClient
from engine.domain.record import Phi
from engine.errors import HandoffError
from engine.settings import LOOPBACK
from engine.settings.site import Oidc

_FAMILIES: Final = ("RS", "PS", "ES")
ALGORITHMS: Final = (*(f"{family}{bits}" for family in _FAMILIES for bits in (256, 384, 512)), "EdDSA")
"""That may have signed an ID token: neither `none`, nor one whose key both sides know."""
_TIMEOUT_SECONDS: Final = 10.0
_BYTES_MAX: Final = 1 << 20
_SKEW_SECONDS: Final = 60
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_USED: Final = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
_VALUE_CHARS_MAX: Final = 4096


class SignOnError(HandoffError):
    """Nobody was identified."""


class ProviderGoneError(SignOnError):
    """The provider does not answer: that says nothing of who came."""


class Begun(Phi, frozen=True, kw_only=True):
    """What is kept, on the server's side, of somebody who was sent to the provider; for one return, and minutes."""

    url: str
    """Where the browser is sent."""
    state: str
    nonce: str
    verifier: str
    redirect_uri: str


class Identified(Phi, frozen=True, kw_only=True):
    name: str
    """Of the account here."""
    subject: str
    """The provider's own id of the person."""


class SignOn:
    """A provider; its keys and addresses are fetched when they are first needed. Used from one event loop."""

    def __init__(self, settings: Oidc, base: Path, *, client: HttpClient | None = None) -> None:
        """base: folder of config.yaml. client: another one than its own."""
        self._settings = settings
        ca = None if settings.ca is None else base / settings.ca
        self._client = client or HttpClient(timeout_seconds=_TIMEOUT_SECONDS, response_bytes_max=_BYTES_MAX, ca=ca)
        self._calling = asyncio.Lock()  # the client makes one call at a time
        self._metadata: dict[str, str] | None = None
        self._keys: dict[str, jwt.PyJWK] = {}

    async def begin(self, redirect_uri: str) -> Begun:
        """redirect_uri: where the provider sends the browser back to; the provider has to know it."""
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._settings.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = metadata["authorization_endpoint"]
        url = f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"
        return Begun(url=url, state=state, nonce=nonce, verifier=verifier, redirect_uri=redirect_uri)

    async def finish(self, begun: Begun, returned: Mapping[str, str]) -> Identified:
        """returned: the query with which the browser came back."""
        if not secrets.compare_digest(returned.get("state", "").encode(), begun.state.encode()):
            raise SignOnError("this return belongs to no log-in that was begun here: begin anew")
        if "error" in returned:
            raise SignOnError("the provider has let nobody in")
        metadata = await self._discover()
        if (issuer := returned.get("iss")) is not None and issuer != metadata["issuer"]:  # RFC 9207
            raise SignOnError("another provider than ours has answered")
        code = returned.get("code", "")
        if not 0 < len(code) <= _VALUE_CHARS_MAX:
            raise SignOnError("the provider has sent no code")
        tokens = await self._exchange(metadata["token_endpoint"], code, begun)
        claims = await self._claims(str(tokens.get("id_token", "")), begun.nonce)
        return self._who(claims)

    async def close(self) -> None:
        await self._client.close()

    def _who(self, claims: Mapping[str, Any]) -> Identified:
        wanted = self._settings.mfa
        used = claims.get("amr")
        if wanted and not (isinstance(used, list) and any(one in wanted for one in used)):
            raise SignOnError("the provider does not say that a second factor was used (claim amr)")
        name = claims.get(self._settings.name_claim)
        if not isinstance(name, str) or not name or len(name) > _VALUE_CHARS_MAX:
            raise SignOnError(f"the provider does not say who it is (claim {self._settings.name_claim})")
        return Identified(name=name, subject=str(claims["sub"]))

    async def _discover(self) -> dict[str, str]:
        if self._metadata is None:
            found = await self._get(self._settings.issuer.rstrip("/") + _WELL_KNOWN)
            if any(not isinstance(found.get(name), str) for name in _USED):
                raise SignOnError("the provider does not say where it is asked (openid-configuration)")
            if found["issuer"].rstrip("/") != self._settings.issuer.rstrip("/"):
                raise SignOnError("the provider calls itself otherwise than access.oidc.issuer")
            for name in _USED[1:]:
                _check(found[name])
            self._metadata = {name: found[name] for name in _USED}
        return self._metadata

    async def _exchange(self, endpoint: str, code: str, begun: Begun) -> dict[str, Any]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.redirect_uri,
            "code_verifier": begun.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        secret = self._settings.client_secret
        if secret is None:
            fields["client_id"] = self._settings.client_id
        else:
            pair = urlencode({self._settings.client_id: secret.reveal()}).replace("=", ":", 1)
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return await self._call("POST", endpoint, headers, urlencode(fields).encode())

    async def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """What an ID token says, once it is shown to be the provider's, for us, for this log-in, and of now."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise SignOnError("the provider has sent no ID token") from None
        key = await self._key(str(kid))
        metadata = await self._discover()
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,  # of a key without `alg` the library would take RS256 only
                algorithms=list(ALGORITHMS),
                audience=self._settings.client_id,
                issuer=metadata["issuer"],
                leeway=_SKEW_SECONDS,
                options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )
        except jwt.PyJWTError:
            raise SignOnError("the ID token is not the provider's, not for us, or over") from None
        if not secrets.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise SignOnError("the ID token belongs to another log-in")
        if claims.get("azp", self._settings.client_id) != self._settings.client_id:
            raise SignOnError("the ID token was made for another site")
        return claims

    async def _key(self, kid: str) -> jwt.PyJWK:
        """By which a token was signed; the provider is asked again for one that is not known: it changes its keys."""
        if kid not in self._keys:
            found = await self._get((await self._discover())["jwks_uri"])
            try:
                keys = jwt.PyJWKSet.from_dict(found).keys
            except jwt.PyJWTError:
                raise SignOnError("the provider's keys can't be read") from None
            self._keys = {str(one.key_id): one for one in keys}
        if kid not in self._keys:
            raise SignOnError("the ID token is signed by none of the provider's keys")
        return self._keys[kid]

    async def _get(self, url: str) -> dict[str, Any]:
        return await self._call("GET", url, {"Accept": "application/json"}, b"")

    async def _call(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        try:
            async with self._calling:
                answer = await self._client.request(method, url, headers=headers, body=body)
        except (CallError, OSError):
            raise ProviderGoneError("the provider can't be reached") from None
        try:
            found = json.loads(answer.body) if answer.status == 200 else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SignOnError("the provider has refused it")
        return found


def _check(url: str) -> None:
    """What carries codes and tokens goes by TLS, but to this very machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise SignOnError("the provider names an address without TLS")
