"""Single sign-on, against a provider that is one, and against one that sends what it should not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from peers.openid_provider import CLIENT, REDIRECT, SECRET, OpenIdProvider

from engine.connectors.http import Answer, CallError
from engine.connectors.oidc import Begun, SignOn, SignOnError
from engine.settings import Secret
from engine.settings.site import Oidc

ISSUER: Final = "https://login.example.org/realms/hospital"


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        yield one


def settings(provider: OpenIdProvider, **more: Any) -> Oidc:
    fields = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret": Secret(SECRET), "name_claim": "sub"}
    return Oidc(**fields | more)


def log_in(
    provider: OpenIdProvider, config: Oidc, spoil: Callable[[dict[str, str]], dict[str, str]] | None = None
) -> str:
    """The whole way, with the browser; the name of who was identified. spoil: what the browser comes back with."""

    async def way() -> str:
        one = SignOn(config, Path())
        try:
            begun = await one.begin(REDIRECT)
            returned = await asyncio.to_thread(provider.browse, begun.url)
            return (await one.finish(begun, spoil(returned) if spoil else returned)).name
        finally:
            await one.close()

    return asyncio.run(way())


def test_who_has_logged_in_there_with_two_factors_is_identified(provider: OpenIdProvider) -> None:
    provider.seat("dana", "password", "otp")
    assert log_in(provider, settings(provider)) == "dana"


def test_a_password_alone_is_not_enough_unless_the_site_says_so(provider: OpenIdProvider) -> None:
    provider.seat("sam", "password")
    with pytest.raises(SignOnError, match="second factor"):
        log_in(provider, settings(provider))
    assert log_in(provider, settings(provider, mfa=())) == "sam"


def test_the_provider_is_asked_with_pkce_and_for_this_return_only(provider: OpenIdProvider) -> None:
    async def begin() -> tuple[Begun, Begun]:
        one = SignOn(settings(provider), Path())
        try:
            return await one.begin(REDIRECT), await one.begin(REDIRECT)
        finally:
            await one.close()

    first, second = asyncio.run(begin())
    query = parse_qs(urlsplit(first.url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["response_type"] == ["code"]
    assert first.verifier not in first.url
    assert len({first.state, second.state, first.nonce, second.nonce, first.verifier, second.verifier}) == 6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda back: back | {"state": "another"}, "begun here"),
        (lambda back: {key: value for key, value in back.items() if key != "state"}, "begun here"),
        (lambda back: back | {"error": "access_denied"}, "let nobody in"),
        # A guessed code is not tried: this provider's backend in memory takes any code of the client, as the order of a
        # set of Python has it. Codes of others are refused below, by the verifier.
        (lambda back: back | {"code": ""}, "no code"),
        (lambda back: back | {"iss": "https://evil.example"}, "another provider"),
    ],
)
def test_a_return_that_was_altered_lets_nobody_in(
    provider: OpenIdProvider, spoil: Callable[[dict[str, str]], dict[str, str]], said: str
) -> None:
    provider.seat("dana", "password", "otp")
    with pytest.raises(SignOnError, match=said):
        log_in(provider, settings(provider), spoil)


def test_a_code_counts_once_and_only_for_who_began(provider: OpenIdProvider) -> None:
    """The provider itself holds us to it: another verifier, or the code again, is refused."""
    provider.seat("dana", "password", "otp")

    async def way() -> None:
        one = SignOn(settings(provider), Path())
        try:
            begun, other = await one.begin(REDIRECT), await one.begin(REDIRECT)
            returned = await asyncio.to_thread(provider.browse, begun.url)
            with pytest.raises(SignOnError, match="refused"):
                await one.finish(other, returned | {"state": other.state})
        finally:
            await one.close()

    asyncio.run(way())


def test_a_wrong_secret_of_ours_lets_nobody_in(provider: OpenIdProvider) -> None:
    provider.seat("dana", "password", "otp")
    with pytest.raises(SignOnError, match="refused"):
        log_in(provider, settings(provider, client_secret=Secret("guessed")))


# --- a provider that sends what it should not ---

KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Far:
    """In the place of the network: answers as a provider does, with one thing altered."""

    def __init__(self, token: Callable[[str], str], **metadata: Any) -> None:
        self._token, self._metadata, self.nonce = token, metadata, ""

    async def request(self, method: str, url: str, **_: Any) -> Answer:
        path = urlsplit(url).path
        if path.endswith("openid-configuration"):
            said: Any = {name: f"{ISSUER}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
            said |= {"issuer": ISSUER} | self._metadata
        elif path.endswith("jwks_uri"):
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            said = {"keys": [public | {"kid": "1", "alg": "RS256", "use": "sig"}]}
        else:
            said = {"id_token": self._token(self.nonce)}
        return Answer(status=200, headers={}, body=json.dumps(said).encode())

    async def close(self) -> None:
        """Nothing is open."""


def token(nonce: str, key: Any = KEY, algorithm: str = "RS256", kid: str = "1", **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": ISSUER, "aud": CLIENT, "sub": "u1", "iat": now, "exp": now + 300, "nonce": nonce, "amr": ["mfa"]}
    said |= {"preferred_username": "dana"} | claims
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid})


def unsigned(nonce: str) -> str:
    parts = token(nonce).split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"1"}').rstrip(b"=").decode()
    return f"{head}.{parts[1]}."


def finished(far: Far, **more: Any) -> str:
    async def way() -> str:
        one = SignOn(Oidc(issuer=ISSUER, client_id=CLIENT, **more), Path(), client=far)  # type: ignore[arg-type]
        begun = await one.begin(REDIRECT)
        far.nonce = begun.nonce
        return (await one.finish(begun, {"state": begun.state, "code": "c"})).name

    return asyncio.run(way())


def test_what_is_as_it_should_be_is_taken() -> None:
    assert finished(Far(token)) == "dana"


@pytest.mark.parametrize(
    "forged",
    [
        lambda nonce: token(nonce, key=OTHER),
        lambda nonce: token(nonce, kid="2"),
        lambda nonce: token(nonce, key="a shared secret that is long enough", algorithm="HS256"),
        unsigned,
        lambda _: "no token",
        lambda _: token("of another log-in"),
        lambda _: token(""),
        lambda nonce: token(nonce, iss="https://evil.example"),
        lambda nonce: token(nonce, aud="another-site"),
        lambda nonce: token(nonce, aud=[CLIENT, "another"], azp="another"),
        lambda nonce: token(nonce, exp=int(time.time()) - 120),
        lambda nonce: token(nonce, exp=None),
        lambda nonce: token(nonce, iat=int(time.time()) + 600),
        lambda nonce: token(nonce, amr=["pwd"]),
        lambda nonce: token(nonce, amr="mfa-looking text"),
        lambda nonce: token(nonce, amr=None),
        lambda nonce: token(nonce, preferred_username=None),
        lambda nonce: token(nonce, preferred_username=""),
        lambda nonce: token(nonce, preferred_username=["dana"]),
        lambda nonce: token(nonce, sub=None),
    ],
)
def test_an_id_token_that_is_not_the_providers_for_us_and_now_lets_nobody_in(forged: Callable[[str], str]) -> None:
    with pytest.raises(SignOnError) as error:
        finished(Far(forged))
    assert "dana" not in str(error.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://login.example.org/token"},
        {"jwks_uri": "http://login.example.org/keys"},
        {"authorization_endpoint": None},
        {"token_endpoint": 5},
    ],
)
def test_a_provider_that_leads_elsewhere_is_not_followed(metadata: dict[str, Any]) -> None:
    with pytest.raises(SignOnError):
        finished(Far(token, **metadata))


def test_a_provider_that_is_gone_is_said() -> None:
    class Gone(Far):
        async def request(self, *_: Any, **__: Any) -> Answer:
            raise CallError(sent=False, timed_out=True)

    with pytest.raises(SignOnError, match="can't be reached"):
        finished(Gone(token))
