"""A PagerDuty that takes events as its documentation of the Events API v2 says, failures included.

202 `{"status": "success", "message", "dedup_key"}`; 400 with `errors` for an event that is not valid; 429 when there
are too many; 5xx when it can't. Of an incident it remembers what a person would see: a trigger of one that is open is
added to it and calls nobody anew, one of an acknowledged incident calls nobody, one of a resolved one opens another. An
acknowledge or resolve of an incident that is not there is taken, and does nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

_SEVERITIES = {"critical", "error", "warning", "info"}
_BYTES_MAX = 512 * 1024


@dataclass
class Incident:
    routing_key: str
    summary: str
    status: str = "triggered"
    called: int = 1
    """How often a person was called for it."""
    events: list[dict[str, Any]] = field(default_factory=list)


class PagerDuty:
    def __init__(self, *routing_keys: str) -> None:
        self.routing_keys = set(routing_keys)
        self.incidents: dict[str, list[Incident]] = {}
        """By dedup key, in their order."""
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.lose = 0
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v2/enqueue", self._enqueue)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v2/enqueue"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _enqueue(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers)
        errors = self._wrong(body)
        if errors:
            text = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return web.json_response(text, status=400)
        event = json.loads(body)
        self._take(event)
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.close()
        said = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return web.json_response(said, status=202)

    def _wrong(self, body: bytes) -> list[str]:
        if len(body) > _BYTES_MAX:
            return ["Event size exceeds 512 KB"]
        try:
            event = json.loads(body)
        except ValueError:
            return ["Invalid JSON"]
        found = []
        if event.get("routing_key") not in self.routing_keys:
            found.append("routing_key is invalid")
        action = event.get("event_action")
        if action not in {"trigger", "acknowledge", "resolve"}:
            found.append("event_action is invalid")
        if len(event.get("dedup_key") or "") > 255 or (action != "trigger" and not event.get("dedup_key")):
            found.append("dedup_key is invalid")
        if action == "trigger":
            payload = event.get("payload") or {}
            needed = ("summary", "source", "severity")
            found += [f"payload.{name} is missing or blank" for name in needed if not payload.get(name)]
            if len(payload.get("summary") or "") > 1024:
                found.append("payload.summary is too long")
            if payload.get("severity") not in _SEVERITIES:
                found.append("payload.severity is invalid")
        return found

    def _take(self, event: dict[str, Any]) -> None:
        incidents = self.incidents.setdefault(event["dedup_key"], [])
        open_ = incidents[-1] if incidents and incidents[-1].status != "resolved" else None
        if event["event_action"] == "trigger":
            if open_ is None:
                open_ = Incident(event["routing_key"], event["payload"]["summary"])
                incidents.append(open_)
        elif open_ is not None:
            open_.status = {"acknowledge": "acknowledged", "resolve": "resolved"}[event["event_action"]]
        if open_ is not None:
            open_.events.append(event)
