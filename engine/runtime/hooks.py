"""What far ends tell the daemon, on a port of its own.

| call | says |
|---|---|
| `POST /hooks/NAME/ack` | a page was acknowledged there |
| `POST /hooks/NAME/message` | somebody has written to us there |
| `POST /hooks/NAME/status` | what became of a text that was sent there |

NAME is a destination; its type says how such a call is signed and read. It is answered when it is on disk. Whoever
calls is outside: nothing is said but whether the call was taken. When there are too many, or the journal can't be
written, the answer asks them to come again (429, 503): nothing is taken that is not on disk.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from engine.connectors.base import Acknowledgment, Called, CarrierWord, DestinationSettings, Incoming, UnsignedError
from engine.errors import StoreError
from engine.logs import get_logger
from engine.runtime.limits import Buckets

CONNECTIONS_MAX: Final = 256
_CALLS_MAX: Final = 128
"""At the same time: fewer than the connections, so that too many are told so."""
_BODY_BYTES_MAX: Final = 256 * 1024
_CARRIER_BYTES_MAX: Final = 64 * 1024
_CALL_SECONDS_MAX: Final = 10.0
"""Carriers wait 15 seconds."""
_PER_SECOND: Final = 500.0
_BURST: Final = 5000.0
"""Of one peer; a proxy is one. A busy carrier brings 170 a second."""
_AGAIN_SECONDS: Final = 5
_NOTHING_TO_SAY: Final = '<?xml version="1.0" encoding="UTF-8"?><Response></Response>'
"""TwiML: what is to be answered goes out as texts do."""

log = get_logger(__name__)

Find = Callable[[str], DestinationSettings | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hears(Protocol):
    """`engine.runtime.hearing.Hearing`."""

    async def acknowledgment(self, destination: str, said: Acknowledgment) -> bool: ...

    async def carrier_word(self, destination: str, said: CarrierWord) -> bool: ...

    async def incoming(self, destination: str, said: Incoming) -> None: ...


def create_hooks(
    find: Find, hearing: Hears, count: Callable[[str, str], None], public_url: Callable[[], str | None]
) -> web.Application:
    """find: a destination by its name. count: told of each call (destination, `taken`, `ignored`, `refused` or
    `busy`). public_url: the address under which far ends reach us; none: the one that was called.
    """

    async def called(request: web.Request) -> Called:
        return Called(
            headers={key.lower(): value for key, value in request.headers.items()},
            body=await request.read(),
            now=time.time(),
            url=(public_url() or f"http://{request.host}") + request.raw_path,
        )

    async def ack(request: web.Request, destination: DestinationSettings) -> web.Response:
        said = destination.acknowledgment(await called(request))
        if said is None or not await hearing.acknowledgment(_name(request), said):
            count(_name(request), "ignored")
            return _said(202)
        count(_name(request), "taken")
        return _said(200)

    async def message(request: web.Request, destination: DestinationSettings) -> web.Response:
        said = destination.incoming(_small(await called(request)))
        if said is not None:
            await hearing.incoming(_name(request), said)
        count(_name(request), "taken" if said is not None else "ignored")
        return web.Response(text=_NOTHING_TO_SAY, content_type="text/xml", charset="utf-8")

    async def status(request: web.Request, destination: DestinationSettings) -> web.Response:
        said = destination.carrier_word(_small(await called(request)))
        ours = said is not None and await hearing.carrier_word(_name(request), said)
        count(_name(request), "taken" if ours else "ignored")
        return web.Response(status=200)

    def of(handler: Callable[[web.Request, DestinationSettings], Awaitable[web.Response]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            name = _name(request)
            destination = find(name)
            if destination is None:
                return _said(404)
            try:
                async with asyncio.timeout(_CALL_SECONDS_MAX):
                    return await handler(request, destination)
            except UnsignedError as error:
                log.warning("call of a far end refused", destination=name, reason=str(error))
                count(name, "refused")
                return _said(401)
            except ValueError:
                count(name, "refused")
                return _said(400)
            except (StoreError, TimeoutError):
                count(name, "busy")
                return _again(503, _AGAIN_SECONDS)

        return handle

    @web.middleware
    async def one_call_each(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.force_close()
        return response

    async def unnamed(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)

    app = web.Application(middlewares=[one_call_each, few_at_once()], client_max_size=_BODY_BYTES_MAX)
    app.on_response_prepare.append(unnamed)
    for path, handler in (("ack", ack), ("message", message), ("status", status)):
        app.router.add_post(f"/hooks/{{name}}/{path}", of(handler))
    return app


def few_at_once() -> Middleware:
    """Whoever calls too often, or while too many are heard, is asked to come again: what waits takes memory."""
    peers = Buckets(_PER_SECOND, _BURST)
    under_way = 0

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal under_way
        wait = peers.take(request.remote or "", time.monotonic())
        if wait > 0:
            return _again(429, math.ceil(wait))
        if under_way >= _CALLS_MAX:
            return _again(503, _AGAIN_SECONDS)
        under_way += 1
        try:
            return await handler(request)
        finally:
            under_way -= 1

    return ask


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _small(call: Called) -> Called:
    """Raises ValueError: no carrier says so much."""
    if len(call.body) > _CARRIER_BYTES_MAX:
        raise ValueError("the call is too long")
    return call


def _said(status: int) -> web.Response:
    return web.json_response({"taken": status == 200}, status=status)


def _again(status: int, seconds: int) -> web.Response:
    return web.json_response({"taken": False}, status=status, headers={"Retry-After": str(max(seconds, 1))})
