"""The daemon's HTTP, on the console's port: is it alive, is it ready, what does it count, how does it stand.

Everything but /healthz and /readyz stays closed while the console is bound to more than loopback: that needs a login.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final, Protocol

import msgspec
from aiohttp import web

from engine.runtime.metrics import Metrics
from engine.runtime.status import ReloadResult, Status

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_CONNECTIONS_MAX: Final = 64
_LIFE_SECONDS_MAX: Final = 120.0
"""Of a connection, which is there for one request; longer than a reload can take."""
_SWEEP_SECONDS: Final = 5.0
_CLOSE_SECONDS_MAX: Final = 1.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watched(Protocol):
    """The daemon, as its HTTP sees it."""

    metrics: Metrics

    def status(self) -> Status: ...

    async def try_reload(self) -> ReloadResult:
        """Load the configuration again; never raises for what is wrong with it."""
        ...


class Console:
    """The HTTP server. It keeps few connections, and none for long: descriptors and memory are for the senders.

    When there are too many, the oldest makes room: whoever comes to ask whether we are ready is always heard.
    """

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS_MAX)
        self._since: dict[web.RequestHandler, float] = {}
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(self, sock: socket.socket) -> None:
        await self._runner.setup()
        self._listening = await self._loop.create_server(self._greet, sock=sock)
        self._sweep()

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    @property
    def _server(self) -> web.Server:
        server = self._runner.server
        assert server is not None  # noqa: S101 - it is set up before it listens
        return server

    def _greet(self) -> asyncio.Protocol:
        """Somebody connects."""
        connected = [handler for handler in self._server.connections if handler.connected]
        for handler in connected[: max(0, len(connected) + 1 - _CONNECTIONS_MAX)]:
            _abort(handler)
        return self._server()

    def _sweep(self) -> None:
        now = self._loop.time()
        self._since = {handler: self._since.get(handler, now) for handler in self._server.connections}
        for handler, since in self._since.items():
            if now - since > _LIFE_SECONDS_MAX:
                _abort(handler)
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


def _abort(handler: web.RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


def create_app(daemon: Watched, *, loopback: bool) -> web.Application:
    """loopback: the console is bound to a loopback address."""

    @web.middleware
    async def one_request_each(request: web.Request, handler: _Handler) -> web.StreamResponse:
        response = await handler(request)
        response.force_close()
        return response

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path not in _OPEN and not loopback:
            return _json({"error": "needs a login: bind the console to loopback, or ask there"}, status=403)
        # A page on the web may be resolved to our address by its own name server; its name gives it away.
        if loopback and not is_loopback(_host_name(request.host)):
            return _json({"error": "ask by a loopback name"}, status=421)
        return await handler(request)

    async def healthz(_: web.Request) -> web.Response:
        return _json({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        status = daemon.status()
        return _json({"ready": status.ready, "trouble": status.trouble}, status=200 if status.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=daemon.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def status(_: web.Request) -> web.Response:
        return _json(daemon.status())

    async def reload(request: web.Request) -> web.Response:
        # Browsers do not send this type to another site without asking first, and we never say yes.
        if request.content_type != "application/json":
            return _json({"error": "send application/json"}, status=415)
        result = await daemon.try_reload()
        return _json(result, status=200 if result.ok else 409)

    app = web.Application(middlewares=[one_request_each, guard])
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/api/v1/status", status)
    app.router.add_post("/api/v1/reload", reload)
    return app


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """`[::1]:8080` -> `::1`, `localhost:8080` -> `localhost`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _json(document: object, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
