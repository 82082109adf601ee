"""The daemon's HTTP, on the console's port: is it alive, is it ready, what does it count, how does it stand.

Everything but /healthz and /readyz stays closed while the console is bound to more than loopback: that needs a login.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final, Protocol

import msgspec
from aiohttp import ClientError, web, web_response

from engine import logs
from engine.domain.record import Record
from engine.runtime import hints
from engine.runtime.metrics import Metrics
from engine.runtime.peeruid import peer_uid
from engine.runtime.sockets import user_name
from engine.runtime.status import Connections, ReloadResult, Status

OPEN: Final = frozenset({"/healthz", "/readyz"})
_CONNECTIONS_MAX: Final = 64
_LIFE_SECONDS_MAX: Final = 120.0
"""Of a connection, which is there for one request; longer than a reload can take."""
_SWEEP_SECONDS: Final = 5.0
_CLOSE_SECONDS_MAX: Final = 1.0
_RELOADS_MAX: Final = 5
_RELOADS_SECONDS: Final = 10.0
"""At most so many reloads by HTTP in this time; a signal does it too."""
_BODY_BYTES_MAX: Final = 64 * 1024
_log = logs.get_logger(__name__)
WHO: Final = web.RequestKey("who", str)
"""Who has logged in, where somebody has."""
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{1,5})?", re.ASCII)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

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


class _Answering(web.RequestHandler):
    """The library quotes what it can't read, in its answer and in the log: a token, or the reason of a look."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        if exc is not None and status >= 500:
            _log.error("request failed", route="-", exc_info=exc)
        said = "the request can't be read" if status < 500 else "something went wrong here; the daemon's log has it"
        answer = as_json({"error": said}, status=status)
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.force_close()
        return answer


class ConsoleServer:
    """The HTTP server. It keeps few connections, and none for long: descriptors and memory are for the senders.

    When there are too many, the oldest makes room: whoever comes to ask whether we are ready is always heard.
    """

    def __init__(
        self, app: web.Application, *, connections_max: int = _CONNECTIONS_MAX, tls: ssl.SSLContext | None = None
    ) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS_MAX)
        self._connections_max = connections_max
        self._tls = tls
        self._since: dict[web.RequestHandler, float] = {}
        self._loop = asyncio.get_running_loop()
        self._listening: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(self, sock: socket.socket) -> None:
        """sock: listens already; it is closed with this server, or by `pause`."""
        if self._runner.server is None:
            await self._runner.setup()
            self._sweep()
        self._listening = await self._loop.create_server(self._greet, sock=sock, ssl=self._tls)

    @property
    def is_open(self) -> bool:
        return self._listening is not None

    def pause(self) -> None:
        """Take no further connections; those that there are go on."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

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
        for handler in connected[: max(0, len(connected) + 1 - self._connections_max)]:
            _abort(handler)
        return _Answering(self._server, loop=self._loop, **self._server._kwargs)  # noqa: SLF001

    def _sweep(self) -> None:
        now = self._loop.time()
        self._since = {handler: self._since.get(handler, now) for handler in self._server.connections}
        for handler, since in self._since.items():
            if now - since > _LIFE_SECONDS_MAX:
                _abort(handler)
            elif now - since > _LIFE_SECONDS_MAX / 2:
                handler.close()  # behind the answer that is under way, if there is one
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


class _ReloadRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow_remove: bool = False


def _abort(handler: web.RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


Ask = Callable[[hints.Ask], Awaitable[hints.Told]]
"""Puts a question to the daemon: in its own process at once, from the console's through the pipe."""


async def answer(daemon: Watched, ask: hints.Ask) -> hints.Told:
    """What the daemon says to a question of its HTTP."""
    match ask.what:
        case "healthz":
            return _told(ask, {"alive": True} | _unreal(daemon.status()))
        case "readyz":
            status = daemon.status()
            said = {"ready": status.ready, "trouble": status.trouble} | _unreal(status)
            return _told(ask, said, status=200 if status.ready else 503)
        case "metrics":
            text = daemon.metrics.text()
            return hints.Told(number=ask.number, status=200, media="text/plain; version=0.0.4", body=text.decode())
        case "status":
            return _told(ask, daemon.status())
        case "connections":
            return _told(ask, daemon.connections())
        case "look":
            daemon.look()
            return _told(ask, {})
        case "reload":
            result = await daemon.try_reload(allow_remove=ask.allow_remove, who=ask.who)
            return _told(ask, result, status=200 if result.ok else 409)


def create_app(ask: Ask, *, loopback: bool, console: Callable[[], bool] = lambda: False) -> web.Application:
    """loopback: bound to a loopback address. console: a process of its own answers all else, and is not up now."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN and not loopback:
            if console():
                return not_up()
            return as_json({"error": "needs a login: bind the console to loopback, or ask there"}, status=403)
        # A page on the web may be resolved to our address by its own name server; its name gives it away.
        hosts = request.headers.getall("Host", [])
        unnamed = not hosts and request.path in OPEN  # health checks of load balancers speak HTTP/1.0
        if loopback and not unnamed and (len(hosts) != 1 or not is_loopback(host_name(hosts[0]))):
            return as_json({"error": "ask by a loopback name"}, status=421)
        if request.method not in {"GET", "HEAD"} and is_foreign(request):
            return as_json({"error": "a page of another site may not ask for this"}, status=403)
        if console() and request.match_info.http_exception is not None:
            return not_up()
        return await handler(request)

    app = web.Application(middlewares=[one_request_each, guard], client_max_size=_BODY_BYTES_MAX)
    app.on_response_prepare.append(unnamed)
    add_routes(app.router, ask)
    return app


def add_routes(router: web.UrlDispatcher, ask: Ask) -> None:
    """What the daemon itself answers. Whoever serves them decides who may ask."""

    def simple(what: hints.Asked) -> Handler:
        async def handle(_: web.Request) -> web.Response:
            return _response(await ask(hints.Ask(what=what)))

        return handle

    async def reload(request: web.Request) -> web.Response:
        # Browsers do not send this type to another site without asking first, and we never say yes.
        if request.content_type != "application/json":
            return as_json({"error": "send application/json"}, status=415)
        who = request.get(WHO)
        if who is None:
            uid = peer_uid(request.transport)
            if uid is None or uid not in {os.geteuid(), 0}:
                return as_json({"error": "only the daemon's own user or root may reload it"}, status=403)
            who = user_name(uid)
        try:
            asked = msgspec.json.decode(await request.read(), type=_ReloadRequest)
        except (msgspec.MsgspecError, OSError, ClientError):
            return as_json({"error": 'send a JSON object: {} or {"allow_remove": true}'}, status=400)
        now = asyncio.get_running_loop().time()
        while reloads and now - reloads[0] > _RELOADS_SECONDS:
            reloads.popleft()
        if len(reloads) >= _RELOADS_MAX:
            answer = as_json({"error": f"at most {_RELOADS_MAX} reloads in {_RELOADS_SECONDS:.0f} s"}, status=429)
            answer.headers["Retry-After"] = "10"
            return answer
        reloads.append(now)
        return _response(await ask(hints.Ask(what="reload", allow_remove=asked.allow_remove, who=who)))

    reloads: deque[float] = deque()
    router.add_get("/healthz", simple("healthz"))
    router.add_get("/readyz", simple("readyz"))
    router.add_get("/metrics", simple("metrics"))
    router.add_get("/api/v1/status", simple("status"))
    router.add_get("/api/v1/connections", simple("connections"))
    router.add_post("/api/v1/look", simple("look"))
    router.add_post("/api/v1/reload", reload)


@web.middleware
async def one_request_each(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.force_close()
    return response


async def unnamed(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)


def not_up() -> web.Response:
    """The process that serves people is being started again."""
    text = "the console is being started again; the daemon itself goes on"
    said = as_json({"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": text}, status=503)
    said.content_type = "application/problem+json"
    said.headers["Retry-After"] = "2"
    return said


def _told(ask: hints.Ask, document: object, *, status: int = 200) -> hints.Told:
    body = msgspec.json.encode(document).decode()
    return hints.Told(number=ask.number, status=status, media="application/json", body=body)


def _response(told: hints.Told) -> web.Response:
    return web.Response(body=told.body.encode(), status=told.status, headers={"Content-Type": told.media})


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


def host_name(host: str) -> str:
    """`[::1]:8080` -> `::1`, `localhost:8080` -> `localhost`; empty for what is no host and port."""
    found = _HOST.fullmatch(host)
    return (found["ipv6"] or found["name"]).lower() if found else ""


def is_foreign(request: web.Request, *, encrypted: bool = False) -> bool:
    """Whether a browser says that a page of another site asks. Commands say nothing of where they come from.

    encrypted: what the browser sees is https.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("Origin")
    host = request.headers.get("Host", "")
    return origin is not None and origin != f"{'https' if encrypted else 'http'}://{host}"


def as_json(document: object, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
