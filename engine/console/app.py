"""The console's HTTP application: each route of the table, behind the door."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import ClientError, web
from multidict import MultiMapping

from engine import logs
from engine.console import asked as asking
from engine.console.asked import LIMIT, LIMIT_MAX, Asked, Param
from engine.console.door import Door, Entered
from engine.console.openapi import document
from engine.console.pages.app import add_pages, is_page, problem_page
from engine.console.problems import ProblemError, bad, of_error, response
from engine.console.reading import Tagged
from engine.console.routes import OF_DAEMON, ROUTES, LogIn, Route
from engine.console.site import ConsoleSite
from engine.domain.audit import Whence
from engine.errors import HandoffError
from engine.runtime.health import OPEN, WHO, Handler, add_routes, as_json, unnamed

_log = logs.get_logger(__name__)

_BODY_BYTES_MAX: Final = 64 * 1024
_AT: Final = re.compile(r" - at `(\$[\w.\[\].]*)`$", re.ASCII)
_LIMIT: Final = asking.number("limit", "So many at most.", most=LIMIT_MAX)
_CURSOR: Final = asking.text("cursor", "`next` of the page before.", characters_max=400)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_AS_SAID: Final = frozenset({"password", "code"})
"""Fields whose text is taken as it is."""


def create_console(site: ConsoleSite, bound: str) -> web.Application:
    """bound: the address that the console's socket is bound to."""
    door = Door(site, bound)

    def said(request: web.Request, problem: ProblemError) -> web.Response:
        return problem_page(request, problem) if is_page(request.path) else response(problem)

    @web.middleware
    async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in OPEN:
                door.check(request)
            elif request.headers.getall("Host", []):
                door.check(request)  # health checks of load balancers speak HTTP/1.0
            return await handler(request)
        except ProblemError as problem:
            return said(request, problem)
        except HandoffError as error:
            return said(request, of_error(error))
        except web.HTTPException as error:
            return said(request, ProblemError(error.status, error.reason, _allowed(error)))
        except Exception as error:  # noqa: BLE001 - one request must not be told, nor end, what another one does
            _log.error("request failed", route=_name(request), exc_info=error)
            return said(request, ProblemError(500, "something went wrong here; the daemon's log has it"))

    @web.middleware
    async def guard_daemon(request: web.Request, handler: Handler) -> web.StreamResponse:
        """What the daemon answers is open on this machine, and needs a log-in from elsewhere."""
        route = OF_DAEMON.get((request.method, request.path))
        if route is not None and not door.is_at_home(request):
            whence = door.whence(request, route.name)
            entered = await door.enter(request, whence)
            await site.run(partial(_sit_down, site, entered, route, whence))
            request[WHO] = entered.actor.name
        return await handler(request)

    async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.secure:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"

    app = web.Application(middlewares=[answer_problems, guard_daemon], client_max_size=_BODY_BYTES_MAX)
    app.on_response_prepare.append(unnamed)
    app.on_response_prepare.append(add_headers)
    add_routes(app.router, site.line.ask)
    add_pages(app, site, door)
    for route in ROUTES:
        if route.daemon is None:
            app.router.add_route(route.method, route.path, _handler(site, door, route))
    return app


def _handler(site: ConsoleSite, door: Door, route: Route) -> Handler:
    at_door = _AT_DOOR.get(route.door or "")

    async def handle(request: web.Request) -> web.StreamResponse:
        whence = door.whence(request, route.name)
        if route.door == "log-in":
            return await _log_in(door, request, whence, await _body(request, route))
        entered = await door.enter(request, whence)
        if at_door is not None:
            return await at_door(site, door, request, entered, whence)
        asked = _read(request, route, await _body(request, route))
        found = await site.run(partial(_work, site, entered, route, whence, asked))
        if isinstance(found, Tagged):
            return as_json(found.shape) if not found.tag else _tagged(found)
        return as_json(found)

    return handle


def _work(site: ConsoleSite, entered: Entered, route: Route, whence: Whence, asked: Asked) -> Any:
    assert route.do is not None  # noqa: S101 - all others were answered before
    with site.desk(entered.actor, route.action, whence) as desk:
        return route.do(desk, asked)


def _sit_down(site: ConsoleSite, entered: Entered, route: Route, whence: Whence) -> None:
    with site.desk(entered.actor, route.action, whence):
        pass


def _tagged(found: Tagged) -> web.Response:
    answer = as_json(found.shape)
    answer.headers["ETag"] = f'"{found.tag}"'
    return answer


# --- at the door -----------------------------------------------------------------------------------------------------


async def _log_in(door: Door, request: web.Request, whence: Whence, said: LogIn) -> web.Response:
    entered = await door.log_in(whence, said.name, said.password, said.code)
    answer = as_json(_who_shape(entered))
    door.give(request, answer, entered.secret)
    return answer


async def _who(
    _site: ConsoleSite, _door: Door, _request: web.Request, entered: Entered, _whence: Whence
) -> web.StreamResponse:
    return as_json(_who_shape(entered))


async def _log_out(
    site: ConsoleSite, door: Door, request: web.Request, entered: Entered, whence: Whence
) -> web.StreamResponse:
    if not entered.by_cookie:
        raise bad("a token is no session: `handoff users revoke` ends it")
    await site.run(lambda: site.accounts(whence).log_out(entered.secret))
    answer = web.Response(status=204)
    door.take_back(request, answer)
    return answer


async def _openapi(
    _site: ConsoleSite, _door: Door, _request: web.Request, _entered: Entered, _whence: Whence
) -> web.StreamResponse:
    return as_json(document())


_AT_DOOR: Final[dict[str, Callable[..., Awaitable[web.StreamResponse]]]] = {
    "who": _who,
    "log-out": _log_out,
    "openapi": _openapi,
}


def _who_shape(entered: Entered) -> dict[str, Any]:
    actor = entered.actor
    return {
        "name": actor.name,
        "kind": actor.kind,
        "roles": sorted(actor.roles),
        "units": sorted(actor.units),
        "scopes": None if actor.scopes is None else sorted(actor.scopes),
        "csrf": entered.csrf if entered.by_cookie else None,
    }


# --- reading what was asked ------------------------------------------------------------------------------------------


def _read(request: web.Request, route: Route, body: Any) -> Asked:
    lists = route.lists
    pages: tuple[Param, ...] = () if lists is None else (_LIMIT, _CURSOR) if lists[1] else (_LIMIT,)
    query = asking.read_all((*route.query, *pages), _given(request.query))
    kind, shapes = lists or ("", ())
    return Asked(
        path=asking.read_all(route.at, {name: [value] for name, value in request.match_info.items()}),
        body=body,
        reveal=asking.reveal_of(request.headers.get("X-Reveal-Reason")) if route.reveals else None,
        limit=query.pop("limit", LIMIT),
        after=asking.place(kind, shapes, query.pop("cursor", None)),
        query=query,
        if_match=request.headers.get("If-Match"),
    )


def _given(query: MultiMapping[str]) -> dict[str, list[str]]:
    return {name: query.getall(name) for name in query}


async def _body(request: web.Request, route: Route) -> Any:
    """Raises ProblemError, whose text names the field and not what is in it."""
    if route.body is None:
        return None
    # Browsers do not send this type to another site without asking first, and we never say yes.
    if request.content_type != "application/json":
        raise ProblemError(415, "send application/json")
    try:
        said = msgspec.json.decode(await request.read(), type=route.body)
    except (OSError, ClientError):
        raise bad("the body did not come") from None  # whoever sent it is gone
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        found = _AT.search(str(error))
        where = f"body: {found[1] if found else '$'}"
        fields = ", ".join(route.body.__struct_fields__) or "no field"
        raise bad(f"{where} is not as it has to be; the body is a JSON object with {fields}") from None
    for name in route.body.__struct_fields__:
        value = getattr(said, name)
        plain = isinstance(value, str) and name not in _AS_SAID
        if plain and not (value.strip() and value.isprintable() and len(value) <= asking.SAID_CHARACTERS_MAX):
            raise bad(f"body: $.{name} must be a text of one line, of {asking.SAID_CHARACTERS_MAX} characters at most")
    return said


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _name(request: web.Request) -> str:
    """The route, without what its path holds."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource is not None else '-'}"
