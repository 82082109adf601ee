"""The daemon's HTTP, on the console's port: is it alive, is it ready, what does it count, how does it stand.

Everything but /healthz and /readyz stays closed while the console is bound to more than loopback: that needs a login.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final, Protocol

import msgspec
from aiohttp import web

from engine.runtime.metrics import Metrics
from engine.runtime.status import ReloadResult, Status

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watched(Protocol):
    """The daemon, as its HTTP sees it."""

    metrics: Metrics

    def status(self) -> Status: ...

    async def try_reload(self) -> ReloadResult:
        """Load the configuration again; never raises for what is wrong with it."""
        ...


def create_app(daemon: Watched, *, loopback: bool) -> web.Application:
    """loopback: the console is bound to a loopback address."""

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

    app = web.Application(middlewares=[guard])
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
