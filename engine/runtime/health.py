"""The daemon's HTTP, on the console's port: is it alive, is it ready, what does it count, how does it stand.

Everything but /healthz and /readyz stays closed while the console is bound to more than loopback: that needs a login.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final, Protocol

import msgspec
from aiohttp import web, web_response

from engine.domain.record import Record
from engine.runtime.metrics import Metrics
from engine.runtime.peeruid import peer_uid
from engine.runtime.sockets import user_name
from engine.runtime.status import Connections, ReloadResult, Status

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_CONNECTIONS_MAX: Final = 64
_LIFE_SECONDS_MAX: Final = 120.0
"""Of a connection, which is there for one request; longer than a reload can take."""
_SWEEP_SECONDS: Final = 5.0
_CLOSE_SECONDS_MAX: Final = 1.0
_RELOADS_MAX: Final = 5
_RELOADS_SECONDS: Final = 10.0
"""At most so many reloads by HTTP in this time; a signal does it too."""
_BODY_BYTES_MAX: Final = 64 * 1024
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{1,5})?", re.ASCII)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Whoever asks need not know what we are made of. What is refused before the app sees it never comes to `unnamed`.
web_response.SERVER_SOFTWARE = "handoff"  # type: ignore[attr-defined]


class Watched(Protocol):
    """The daemon, as its HTTP sees it."""

    metrics: Metrics

    def status(self) -> Status: ...

    def connections(self) -> Connections: ...

    def look(self) -> None:
        """Something was put into the journal by another process, and somebody waits for its outcome."""
        ...

    async def try_reload(self, *, allow_remove: bool, who: str) -> ReloadResult:
        """Load the configuration again; never raises for what is wrong with it."""
        ...


class ConsoleServer:
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


class _ReloadRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow_remove: bool = False


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
        hosts = request.headers.getall("Host", [])
        unnamed = not hosts and request.path in _OPEN  # health checks of load balancers speak HTTP/1.0
        if loopback and not unnamed and (len(hosts) != 1 or not is_loopback(_host_name(hosts[0]))):
            return _json({"error": "ask by a loopback name"}, status=421)
        if request.method not in {"GET", "HEAD"} and _is_foreign(request):
            return _json({"error": "a page of another site may not ask for this"}, status=403)
        return await handler(request)

    async def healthz(_: web.Request) -> web.Response:
        return _json({"alive": True} | _unreal(daemon.status()))

    async def readyz(_: web.Request) -> web.Response:
        status = daemon.status()
        said = {"ready": status.ready, "trouble": status.trouble} | _unreal(status)
        return _json(said, status=200 if status.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=daemon.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def status(_: web.Request) -> web.Response:
        return _json(daemon.status())

    async def connections(_: web.Request) -> web.Response:
        return _json(daemon.connections())

    async def look(_: web.Request) -> web.Response:
        daemon.look()
        return _json({})

    async def reload(request: web.Request) -> web.Response:
        # Browsers do not send this type to another site without asking first, and we never say yes.
        if request.content_type != "application/json":
            return _json({"error": "send application/json"}, status=415)
        uid = peer_uid(request.transport)
        if uid is None or uid not in {os.geteuid(), 0}:
            return _json({"error": "only the daemon's own user or root may reload it"}, status=403)
        try:
            asked = msgspec.json.decode(await request.read(), type=_ReloadRequest)
        except msgspec.MsgspecError:
            return _json({"error": 'send a JSON object: {} or {"allow_remove": true}'}, status=400)
        now = asyncio.get_running_loop().time()
        while reloads and now - reloads[0] > _RELOADS_SECONDS:
            reloads.popleft()
        if len(reloads) >= _RELOADS_MAX:
            answer = _json({"error": f"at most {_RELOADS_MAX} reloads in {_RELOADS_SECONDS:.0f} s"}, status=429)
            answer.headers["Retry-After"] = "10"
            return answer
        reloads.append(now)
        result = await daemon.try_reload(allow_remove=asked.allow_remove, who=user_name(uid))
        return _json(result, status=200 if result.ok else 409)

    async def unnamed(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)

    reloads: deque[float] = deque()
    app = web.Application(middlewares=[one_request_each, guard], client_max_size=_BODY_BYTES_MAX)
    app.on_response_prepare.append(unnamed)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/api/v1/status", status)
    app.router.add_get("/api/v1/connections", connections)
    app.router.add_post("/api/v1/look", look)
    app.router.add_post("/api/v1/reload", reload)
    return app


def _unreal(status: Status) -> dict[str, object]:
    """That its clock is not the real one: whoever sends patients here is to know it."""
    return {} if status.clock.real else {"clock": status.clock, "warning": "a test site: its clock is not the real one"}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """`[::1]:8080` -> `::1`, `localhost:8080` -> `localhost`; empty for what is no host and port."""
    found = _HOST.fullmatch(host)
    return (found["ipv6"] or found["name"]).lower() if found else ""


def _is_foreign(request: web.Request) -> bool:
    """Whether a browser says that a page of another site asks. Commands say nothing of where they come from."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("Origin")
    return origin is not None and origin != f"http://{request.headers.get('Host', '')}"


def _json(document: object, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
