"""The pages' handlers: a page for whoever has logged in, a form for each act of the API, log-in and log-out.

All works without script: an act is a form that is answered by the page it came from. A form is ours when it carries the
session's CSRF token, and no page of another site can have it sent (`Door.check`).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Union, get_args, get_origin
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from engine.access.actions import CATALOGUE, Action
from engine.console import asked as asking
from engine.console.asked import LIMIT, LIMIT_MAX, Asked, Param
from engine.console.door import Door, Entered
from engine.console.pages import rendering
from engine.console.pages.table import PAGES, Page
from engine.console.problems import ProblemError, bad
from engine.console.routes import ROUTES, Route
from engine.console.signon import RETURN
from engine.console.site import ConsoleSite
from engine.desk.desk import Desk, Reveal
from engine.domain.actor import Purpose
from engine.domain.audit import Whence

_LIMIT: Final = asking.number("limit", "So many at most.", most=LIMIT_MAX)
_CURSOR: Final = asking.text("cursor", "`next` of the page before.", characters_max=400)
_BACK_CHARACTERS_MAX: Final = 600
LIVE: Final = "X-Live"
"""A page that is open asks by itself, whether it is still as the tag says."""
_YEAR: Final = 31_536_000
_SAID: Final = {"done": "Done.", "out": "You have logged out."}
_AT_WORK: Final = frozenset({Purpose.TREAT})
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_page(path: str) -> bool:
    """Whether a person's browser asks, who is to see a page and no JSON, whatever the answer is."""
    return not path.startswith("/api/") and path not in {"/healthz", "/readyz", "/metrics"}


def add_pages(app: web.Application, site: ConsoleSite, door: Door) -> None:
    pages = _Pages(site, door)
    app.router.add_get("/", pages.home)
    app.router.add_get("/login", pages.log_in_page)
    app.router.add_post("/login", pages.log_in)
    app.router.add_get("/login/provider", pages.to_provider, allow_head=False)
    app.router.add_get(RETURN, pages.from_provider, allow_head=False)
    app.on_cleanup.append(door.provider.close)
    app.router.add_post("/logout", pages.log_out)
    app.router.add_get("/static/{digest}/{name}", _static)
    for page in PAGES:
        app.router.add_get(page.path, pages.handler(page))
        if page.reveals:
            app.router.add_post(page.path, pages.handler(page))
    for route in ROUTES:
        if route.method == "POST" and route.do is not None and route.lists is None:
            app.router.add_post(route.path.replace("/api/v1", "/act", 1), pages.form(route))


def problem_page(request: web.Request, problem: ProblemError) -> web.Response:
    """An error, in words. Who has not come in is led to the door."""
    if problem.status == 401 and request.method == "GET":
        to = f"/login?{urlencode({'next': request.path})}" if request.path != "/" else "/login"
        return web.Response(status=303, headers={"Location": to})
    context = {
        "title": "Not done",
        "problem": problem.detail,
        "status": problem.status,
        "back": _back(request),
        "now": rendering.now(),
    }
    answer = rendering.page("problem.html", context, status=problem.status)
    answer.headers.update(problem.headers)
    return answer


class _Pages:
    def __init__(self, site: ConsoleSite, door: Door) -> None:
        self._site, self._door = site, door

    # --- in and out

    async def home(self, request: web.Request) -> web.StreamResponse:
        whence = self._door.whence(request, "GET /")
        entered = await self._door.enter(request, whence)
        nav = self._nav(entered)
        return web.Response(status=303, headers={"Location": nav[0]["path"] if nav else "/login"})

    async def log_in_page(self, request: web.Request) -> web.StreamResponse:
        return rendering.page("login.html", self._door_context(request, None))

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        whence = self._door.whence(request, "POST /login")
        said = await _fields(request)
        try:
            entered = await self._door.log_in(
                whence, said.get("name", "").strip(), said.get("password", ""), said.get("code", "").strip()
            )
        except ProblemError as problem:
            context = self._door_context(request, problem.detail) | {"next": _local(said.get("next"))}
            return rendering.page("login.html", context, status=problem.status)
        answer = web.Response(status=303, headers={"Location": _local(said.get("next"))})
        self._door.give(request, answer, entered.secret)
        return answer

    async def to_provider(self, request: web.Request) -> web.StreamResponse:
        whence = self._door.whence(request, "GET /login/provider")
        return await self._at_provider(request, self._door.send_to_provider(request, whence, self._next(request)))

    async def from_provider(self, request: web.Request) -> web.StreamResponse:
        return await self._at_provider(request, self._come_back(request))

    async def _come_back(self, request: web.Request) -> web.Response:
        entered, to = await self._door.come_back(request, self._door.whence(request, f"GET {RETURN}"))
        # A page that leads on, and no redirect: behind one the browser would still come from the provider's site, and
        # keep the session's cookie (SameSite=Strict) to itself.
        context = self._door_context(request, None) | {"next": _local(to)}
        answer = rendering.page("signed_on.html", context)
        answer.headers["Referrer-Policy"] = "no-referrer"  # the address holds the provider's code
        self._door.give(request, answer, entered.secret)
        self._door.end_sign_on(request, answer)
        return answer

    async def _at_provider(self, request: web.Request, work: Awaitable[web.Response]) -> web.StreamResponse:
        """What goes wrong is said at the door."""
        try:
            return await work
        except ProblemError as problem:
            answer = rendering.page("login.html", self._door_context(request, problem.detail), status=problem.status)
            answer.headers.update(problem.headers)
            return answer

    @staticmethod
    def _next(request: web.Request) -> str:
        return _local(request.query.get("next"))

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        whence = self._door.whence(request, "POST /logout")
        said = await _fields(request)
        entered = await self._door.enter(request, whence, csrf=said.get("csrf", ""))
        await self._site.run(lambda: self._site.accounts(whence).log_out(entered.secret))
        answer = web.Response(status=303, headers={"Location": "/login?said=out"})
        self._door.take_back(request, answer)
        return answer

    def _door_context(self, request: web.Request, problem: str | None) -> dict[str, Any]:
        return {
            "title": "Log in",
            "problem": problem,
            "next": self._next(request),
            "by_password": self._site.by_password,
            "provider": f"/login/provider?{urlencode({'next': self._next(request)})}"
            if self._site.by_sign_on
            else None,
            "said": _SAID.get(request.query.get("said", "")),
            "now": rendering.now(),
        }

    # --- pages

    def handler(self, page: Page) -> Handle:
        async def handle(request: web.Request) -> web.StreamResponse:
            whence = self._door.whence(request, page.name)
            wish: Reveal | None = None
            if request.method == "POST":
                said = await _fields(request)
                entered = await self._door.enter(request, whence, csrf=said.get("csrf", ""))
                wish = Reveal(_reason(said.get("reason", "")))
            else:
                entered = await self._door.enter(request, whence, at_work=LIVE not in request.headers)
            asked = _asked(page, request, wish)
            tag = await self._site.run(partial(self._tag, page, entered, asked))
            if tag and request.headers.get(LIVE) == tag:
                return web.Response(status=204)
            context = await self._site.run(partial(self._look, page, entered, whence, asked))
            common = self._common(page, request, entered) | {"revealed": wish is not None, "live": tag}
            return rendering.page(page.template, common | context)

        return handle

    def _tag(self, page: Page, entered: Entered, asked: Asked) -> str:
        """Keyed: it tells nothing but that something has changed. Empty: the page is not kept fresh."""
        if page.tag is None or asked.reveal is not None or not self._may(entered, page.action):
            return ""
        said = page.tag(self._site.store, asked, self._site.clock.now())
        return self._site.store.keys.lookup("page-tag", msgspec.json.encode([entered.actor.name, said])).hex()

    def _look(self, page: Page, entered: Entered, whence: Whence, asked: Asked) -> dict[str, Any]:
        with self._site.desk(entered.actor, page.action, whence) as desk:
            at_work = asked.reveal is None and page.reveals and _is_at_work(desk)
            if at_work:
                wish = Reveal(f"at work: {page.title.lower()}", at_work=True)
                asked = Asked(**{name: getattr(asked, name) for name in _ASKED} | {"reveal": wish})
            return page.do(desk, asked) | {"desk_now": desk.now, "at_work": at_work}

    def _common(self, page: Page, request: web.Request, entered: Entered) -> dict[str, Any]:
        configuration = self._site.configuration
        return {
            "title": page.title,
            "actor": entered.actor.name,
            "csrf": entered.csrf if entered.by_cookie else "",
            "nav": self._nav(entered),
            "here": page.path,
            "path": request.path,
            "query": {name: request.query.getall(name) for name in request.query},
            "back": request.path_qs[:_BACK_CHARACTERS_MAX],
            "may": partial(self._may, entered),
            "zone": configuration.site.calendar.timezone,
            "now": rendering.now(),
            "said": _SAID.get(request.query.get("said", "")),
            "test_clock": configuration.clock_file is not None,
            "node": configuration.site.node,
        }

    def _nav(self, entered: Entered) -> list[dict[str, str]]:
        """The pages that the actor may see at all."""
        return [
            {"path": page.path, "title": page.title} for page in PAGES if page.nav and self._may(entered, page.action)
        ]

    def _may(self, entered: Entered, action: Action | str) -> bool:
        """Of somebody, at least."""
        wanted = Action(action)
        roles = [self._site.policy.roles.get(name) for name in entered.actor.roles]
        scopes = entered.actor.scopes
        return any(role is not None and wanted in role.may for role in roles) and (scopes is None or "all" in scopes)

    # --- acts

    def form(self, route: Route) -> Handle:
        """An act of the API, sent by a form."""

        async def handle(request: web.Request) -> web.StreamResponse:
            whence = self._door.whence(request, route.name)
            said = await _fields(request)
            entered = await self._door.enter(request, whence, csrf=said.pop("csrf", ""))
            back = _local(said.pop("back", None))
            asked = Asked(
                path=asking.read_all(route.at, {name: [value] for name, value in request.match_info.items()}),
                body=_body(route, said, self._site.configuration.site.calendar.timezone),
                reveal=None,
                limit=LIMIT,
                after=None,
                query={},
                if_match=said.get("version"),
            )
            await self._site.run(partial(_act, self._site, entered, route, whence, asked))
            joined = "&" if "?" in back else "?"
            to = back if "said=" in back else f"{back}{joined}said=done"
            return web.Response(status=303, headers={"Location": to})

        return handle


_ASKED: Final = tuple(Asked.__dataclass_fields__)


def _act(site: ConsoleSite, entered: Entered, route: Route, whence: Whence, asked: Asked) -> None:
    assert route.do is not None  # noqa: S101 - others have no form
    with site.desk(entered.actor, route.action, whence) as desk:
        route.do(desk, asked)


def _is_at_work(desk: Desk) -> bool:
    """Whether who looks treats patients, and so sees those whom they treat unmasked, on their pages."""
    if desk.gate is None or not CATALOGUE[desk.action].patients:
        return False
    roles = [desk.gate.policy.roles.get(name) for name in desk.gate.actor.roles]
    treats = any(role is not None and role.purposes and role.purposes[0] in _AT_WORK for role in roles)
    return treats and desk.gate.at_all(Action.PATIENT_REVEAL).allowed


# --- what was asked --------------------------------------------------------------------------------------------------


def _asked(page: Page, request: web.Request, wish: Reveal | None) -> Asked:
    pages: tuple[Param, ...] = (_LIMIT, _CURSOR) if page.lists is not None else ()
    given = {name: [one for one in request.query.getall(name) if one] for name in request.query if name != "said"}
    query = asking.read_all((*page.query, *pages), {name: values for name, values in given.items() if values})
    kind, shapes = page.lists or ("", ())
    return Asked(
        path=asking.read_all(page.at, {name: [value] for name, value in request.match_info.items()}),
        body=None,
        reveal=wish,
        limit=query.pop("limit", LIMIT),
        after=asking.place(kind, shapes, query.pop("cursor", None)),
        query=query,
        if_match=None,
    )


async def _fields(request: web.Request) -> dict[str, str]:
    """Raises ProblemError."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise ProblemError(415, "send a form")
    form = await request.post()
    found: dict[str, str] = {}
    for name, value in form.items():
        if isinstance(value, str) and value != "":
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _reason(text: str) -> str:
    said = text.strip()
    if not said or len(said) > asking.SAID_CHARACTERS_MAX or not said.isprintable():
        raise bad(f"reason: must be a text of one line, of {asking.SAID_CHARACTERS_MAX} characters at most")
    return said


def _body(route: Route, said: Mapping[str, str], zone: str) -> Any:
    """The body of a route, from the fields of a form. Raises ProblemError, whose text names the field alone."""
    if route.body is None:
        return None
    hints = typing.get_type_hints(route.body)
    fields = route.body.__struct_fields__
    values = {name: _value(hints[name], said[name], zone) for name in fields if name in said}
    try:
        return msgspec.convert(values, route.body, strict=False)
    except msgspec.ValidationError:
        missing = [name for name in fields if name not in values]
        raise bad(f"fill in {' and '.join(missing)}" if missing else "a field is not as it has to be") from None


def _value(hint: Any, text: str, zone: str) -> Any:
    """What a field of a form says: several lines are a list, a time without a zone is the site's."""
    kinds = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    if any(kind is datetime for kind in kinds):
        return _time(text, zone)
    if any(get_origin(kind) is tuple for kind in kinds):
        return text.split("\n")
    return text.strip()


def _time(text: str, zone: str) -> Any:
    """`2026-12-01T14:30` of the site's clock, or a span ahead: `4h`, `2d`."""
    spans = {"h": timedelta(hours=1), "d": timedelta(days=1)}
    if text[-1:] in spans and text[:-1].isascii() and text[:-1].isdigit() and len(text) <= 4:
        return rendering.now() + int(text[:-1]) * spans[text[-1]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise bad("a time like 2026-12-01T14:30, or a span like 4h") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(zone))


def _local(path: str | None) -> str:
    """A path of ours: nobody is led elsewhere."""
    if not path or len(path) > _BACK_CHARACTERS_MAX or not path.startswith("/") or path.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(path)
    return "/" if parts.scheme or parts.netloc or not path.isprintable() else path


def _back(request: web.Request) -> str:
    referer = urlsplit(request.headers.get("Referer", ""))
    return _local(f"{referer.path}?{referer.query}" if referer.query else referer.path) if referer.path else "/"


async def _static(request: web.Request) -> web.StreamResponse:
    found = rendering.statics().get(request.match_info["name"])
    if found is None or found[2] != request.match_info["digest"]:
        raise ProblemError(404, "there is nothing here")
    content, media, _ = found
    headers = {"Cache-Control": f"public, max-age={_YEAR}, immutable"}
    return web.Response(body=content, content_type=media, charset="utf-8", headers=headers)
