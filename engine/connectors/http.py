"""The one HTTP client for outbound calls, which carry credentials and PHI: each call ends when its time is up.

aiohttp makes the calls. Its own timeouts are not relied upon: asyncio's ends a call, whatever it waits for (a name, a
connection, a handshake, a byte). Nothing of the environment applies: a variable or a ~/.netrc that somebody has left
there must not send what we hold elsewhere, or somebody else's credentials with it. A redirect is an answer like others:
followed, it would carry token and body to wherever it points. Answers are never unpacked: a small one could become a
huge one.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import requests
from requests.adapters import BaseAdapter

from engine.domain.record import Phi
from engine.tls import harden

_IDLE_SECONDS_MAX: Final = 20.0
"""Connections unused for longer are dropped: the far end may have closed them, and a request lost that way is
ambiguous."""


class Answer(Phi, frozen=True, kw_only=True):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class CallError(Exception):
    """A call that brought no answer. Its text holds nothing of the call.

    sent: any of it may have been sent; if not, nobody can have acted on it. timed_out: its time was up.
    """

    def __init__(self, *, sent: bool, timed_out: bool) -> None:
        super().__init__("timed out" if timed_out else "broken off")
        self.sent = sent
        self.timed_out = timed_out


class HttpClient:
    """Calls to one far end, one at a time, over connections that are kept alive.

    proxy: its URL. ca: a PEM file of authorities, in place of the usual ones; read when the first call is made.
    """

    def __init__(
        self, *, timeout_seconds: float, response_bytes_max: int, proxy: str | None = None, ca: Path | None = None
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._response_bytes_max = response_bytes_max
        self._proxy = proxy
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None
        self._sent = False

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Raises CallError, and OSError when `ca` can't be read."""
        if self._session is None:
            self._session = self._open()
        self._sent = False
        timed_out = False
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.request(
                    method, url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                return Answer(
                    status=response.status,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=await self._body(response),
                )
        except TimeoutError:
            timed_out = True
        except (aiohttp.ClientError, OSError, ValueError):  # the last: a URL, or a header of the answer, that is none
            pass
        await self.close()  # what is left of the call must find nobody
        raise CallError(sent=self._sent, timed_out=timed_out)

    async def close(self) -> None:
        """Let go of the connections; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._response_bytes_max:
                raise TimeoutError  # it would not come to an end
        return bytes(body)

    def _open(self) -> aiohttp.ClientSession:
        async def about_to_send(*_: object) -> None:
            self._sent = True

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(about_to_send)
        trace.on_connection_reuseconn.append(about_to_send)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls_context(self._ca),
                keepalive_timeout=_IDLE_SECONDS_MAX,
                use_dns_cache=False,  # a look-up that hangs would be shared with the next call
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            trace_configs=[trace],
        )


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Name and certificate are checked. Raises OSError when `ca` can't be read."""
    context = ssl.create_default_context(cafile=requests.utils.DEFAULT_CA_BUNDLE_PATH if ca is None else str(ca))
    return harden(context)


def requests_session(client: HttpClient, loop: asyncio.AbstractEventLoop) -> requests.Session:
    """A session for libraries that know only requests, in a thread of theirs; each of its calls is made by the client.

    Its calls raise requests.Timeout or requests.ConnectionError, with the CallError as their cause.
    """
    session = requests.Session()
    session.trust_env = False
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Through(client, loop))
    return session


class _Through(BaseAdapter):
    def __init__(self, client: HttpClient, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._client = client
        self._loop = loop

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        body = request.body or b""
        call = self._client.request(
            request.method or "GET",
            request.url or "",
            headers={name: value for name, value in request.headers.items() if name.lower() != "accept-encoding"},
            body=body.encode() if isinstance(body, str) else bytes(body),
        )
        try:
            answer = asyncio.run_coroutine_threadsafe(call, self._loop).result()
        except CallError as error:
            raise (requests.ReadTimeout if error.timed_out else requests.ConnectionError) from error
        response = requests.Response()
        response.status_code = answer.status
        # Without `Location` requests follows no redirect, and without the others it takes the body as it is.
        kept = {"content-type", "retry-after", "sforce-limit-info"}
        response.headers.update({name: value for name, value in answer.headers.items() if name in kept})
        response.raw = io.BytesIO(answer.body)
        response.encoding = "utf-8"  # what JSON is in; guessing it out of a large answer would take minutes
        response.request = request
        response.url = request.url or ""
        return response

    def close(self) -> None:
        """The client is closed by who made it."""
