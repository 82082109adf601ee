"""What far ends tell the daemon, on a port of its own: `POST /hooks/NAME/ack` says that a page was acknowledged there.

NAME is a destination; its type says how such a call is signed and read. It is answered when it is on disk. Whoever
calls is outside: nothing is said but whether the call was taken.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from engine.connectors.base import Called, DestinationSettings, UnsignedError
from engine.domain.cause import PageAnswered
from engine.errors import StoreError
from engine.logs import get_logger

_BODY_BYTES_MAX: Final = 256 * 1024

log = get_logger(__name__)

Find = Callable[[str], DestinationSettings | None]
ChartOf = Callable[[str], Awaitable[str | None]]
Put = Callable[[PageAnswered], Awaitable[object]]


def create_hooks(find: Find, chart_of: ChartOf, put: Put, count: Callable[[str, str], None]) -> web.Application:
    """find: a destination by its name. chart_of: the chart that a page is of; none: there is no such page. put: has a
    cause put into the journal, once. count: told of each call (destination, `taken`, `ignored` or `refused`).
    """

    async def ack(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        destination = find(name)
        if destination is None:
            return _said(404)
        try:
            said = destination.acknowledgment(
                Called(
                    headers={key.lower(): value for key, value in request.headers.items()},
                    body=await request.read(),
                    now=time.time(),
                )
            )
        except UnsignedError as error:
            log.warning("call of a far end refused", destination=name, reason=str(error))
            count(name, "refused")
            return _said(401)
        except ValueError:
            count(name, "refused")
            return _said(400)
        try:
            chart_id = await chart_of(said.page) if said is not None else None
            if said is None or chart_id is None:
                count(name, "ignored")
                return _said(202)
            answered = PageAnswered(
                actor=f"destination:{name}", chart_id=chart_id, page=said.page, by=said.by, word=said.once
            )
            await put(answered)
        except StoreError:
            return _said(503)
        count(name, "taken")
        return _said(200)

    @web.middleware
    async def one_call_each(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = await handler(request)
        response.force_close()
        return response

    async def unnamed(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)

    app = web.Application(middlewares=[one_call_each], client_max_size=_BODY_BYTES_MAX)
    app.on_response_prepare.append(unnamed)
    app.router.add_post("/hooks/{name}/ack", ack)
    return app


def _said(status: int) -> web.Response:
    return web.json_response({"taken": status == 200}, status=status)
