"""A receiver of webhooks after the Standard Webhooks specification: it verifies each call, and leaves out what it has.

`answers`: what the next calls are answered with (status, headers), after which it takes them. `lose`: so many of the
next calls are taken and never answered, as by a proxy that dies. A call that does not verify is answered 400.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Self

from aiohttp import web

TOLERANCE_SECONDS = 300


class WebhookReceiver:
    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.lose = 0
        self.taken: dict[str, dict[str, Any]] = {}
        """By id."""
        self.calls: list[str] = []
        """Ids, in the order in which they came."""
        self.signatures: list[str] = []
        self.paths: list[str] = []

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.paths.append(request.path_qs)
        message_id = request.headers.get("webhook-id", "")
        self.calls.append(message_id)
        self.signatures = request.headers.get("webhook-signature", "").split(" ")
        if not self._verified(request, message_id, body):
            return web.Response(status=400, text="signature")
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers, text="PHI of the far end: John Doe")
        self.taken.setdefault(message_id, json.loads(body))
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=204)

    def _verified(self, request: web.Request, message_id: str, body: bytes) -> bool:
        sent_at = request.headers.get("webhook-timestamp", "")
        if request.method != "POST" or not message_id or abs(time.time() - float(sent_at or 0)) > TOLERANCE_SECONDS:
            return False
        text = b".".join((message_id.encode(), sent_at.encode(), body))
        wanted = base64.b64encode(hmac.new(self.secret, text, hashlib.sha256).digest()).decode()
        return f"v1,{wanted}" in self.signatures
