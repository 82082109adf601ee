"""A Twilio that takes texts as its documentation of Programmable Messaging says, failures included.

`POST Messages.json` answers 201 with the message, 401 without the account's token, 400 with a code for what is wrong,
429 (20429) when there are too many; it takes the same text twice, as the real one does. `GET Messages.json` lists what
it has, the newest first. Phones are what the test says of them: opted out, landlines, WhatsApp windows. `answers` come
first, one for each create (status, code, headers); `lose`: so many creates are taken, and their answers lost (a status,
or none: the connection breaks). Words about texts are told by the test (`tell`), in any order, signed in either form.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import web

SID = "AC" + "0" * 31 + "1"
TOKEN = "token-of-a-test"
FROM = "+15005550006"
_BLOCKS = {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}


@dataclass
class Message:
    sid: str
    form: dict[str, str]
    created: datetime
    status: str = "queued"

    def shape(self) -> dict[str, Any]:
        discarded = self.form.get("ContentRetention") == "discard"
        return {
            "sid": self.sid,
            "account_sid": SID,
            "to": self.form["To"],
            "from": self.form.get("From"),
            "messaging_service_sid": self.form.get("MessagingServiceSid"),
            "body": "" if discarded else self.form.get("Body", ""),
            "status": self.status,
            "direction": "outbound-api",
            "date_created": format_datetime(self.created),
            "date_sent": None if self.status in {"queued", "accepted"} else format_datetime(self.created),
            "error_code": None,
            "error_message": None,
            "num_segments": "1",
            "uri": f"/2010-04-01/Accounts/{SID}/Messages/{self.sid}.json",
        }


@dataclass
class Twilio:
    sid: str = SID
    token: str = TOKEN
    messages: list[Message] = field(default_factory=list)
    creates: list[dict[str, str]] = field(default_factory=list)
    """Forms of all creates, also of those that were refused."""
    lists: list[dict[str, str]] = field(default_factory=list)
    answers: list[tuple[int, int | None, dict[str, str]]] = field(default_factory=list)
    lose: list[int | None] = field(default_factory=list)
    list_answers: list[int] = field(default_factory=list)
    opted_out: set[str] = field(default_factory=set)
    landlines: set[str] = field(default_factory=set)
    open_windows: set[str] = field(default_factory=set)
    queue_max: int = 10_000

    async def __aenter__(self) -> Self:
        self._numbers = itertools.count(1)
        app = web.Application()
        place = f"/2010-04-01/Accounts/{self.sid}/Messages.json"
        app.router.add_post(place, self._create)
        app.router.add_get(place, self._list)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if not self._knows(request):
            return _error(401, 20003)
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.creates.append(form)
        if self.answers:
            status, code, headers = self.answers.pop(0)
            return _error(status, code, headers)
        wrong = self._wrong(form)
        if wrong is not None:
            return _error(400, wrong)
        message = Message(f"SM{next(self._numbers):032x}", form, datetime.now(UTC))
        self.messages.append(message)
        if self.lose:
            status_ = self.lose.pop(0)
            if status_ is not None:
                return _error(status_, 20500)
            assert request.transport is not None
            request.transport.close()
        return web.json_response(message.shape(), status=201)

    def _wrong(self, form: Mapping[str, str]) -> int | None:
        to, body = form.get("To", ""), form.get("Body", "")
        number = to.removeprefix("whatsapp:")
        if not number.startswith("+") or not number[1:].isdecimal():
            return 21211
        if not form.get("From") and not form.get("MessagingServiceSid"):
            return 21603
        if not body and not form.get("ContentSid"):
            return 21602
        if len(body) > 1600:
            return 21617
        if not 1 <= int(form.get("ValidityPeriod", "36000")) <= 36000:
            return 90007
        if to in self.opted_out:
            return 21610
        if to in self.landlines:
            return 21614
        if to.startswith("whatsapp:") and not form.get("ContentSid") and number not in self.open_windows:
            return 63016
        if sum(one.status == "queued" for one in self.messages) >= self.queue_max:
            return 21611
        return None

    async def _list(self, request: web.Request) -> web.Response:
        if not self._knows(request):
            return _error(401, 20003)
        self.lists.append(dict(request.query))
        if self.list_answers:
            return _error(self.list_answers.pop(0), None)
        found = [one.shape() for one in reversed(self.messages) if one.form["To"] == request.query.get("To")]
        return web.json_response({"messages": found[: int(request.query.get("PageSize", "50"))]})

    def _knows(self, request: web.Request) -> bool:
        login = base64.b64encode(f"{self.sid}:{self.token}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {login}"

    # --- what it tells us ---

    async def tell(self, message: Message, status: str, error: int | None = None) -> int:
        """A word about a text, at the address that came with it. Returns how it was answered."""
        message.status = status
        form = {"MessageSid": message.sid, "SmsSid": message.sid, "MessageStatus": status, "AccountSid": self.sid}
        form |= {"To": message.form["To"], "From": message.form.get("From", ""), "NewParameter": "grows"}
        if error is not None:
            form["ErrorCode"] = str(error)
        return await self.call(message.form["StatusCallback"], form)

    async def write(self, url: str, number: str, text: str, *, sid: str, **more: str) -> int:
        """A patient writes. A word of the carrier's own blocks us, when it stands alone."""
        if text.strip().upper() in _BLOCKS:
            self.opted_out.add(number)
        form = {"MessageSid": sid, "From": number, "To": FROM, "Body": text, "NumMedia": "0"} | more
        return await self.call(url, form)

    async def call(self, url: str, form: Mapping[str, str]) -> int:
        headers, body = signed(url, list(form.items()), token=self.token)
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            return answer.status


def _error(status: int, code: int | None, headers: Mapping[str, str] | None = None) -> web.Response:
    said = {"code": code, "message": "of a test", "status": status} if code is not None else {}
    return web.json_response(said, status=status, headers=headers)


def signed(
    url: str,
    form: Sequence[tuple[str, str]],
    *,
    token: str = TOKEN,
    algorithm: str = "sha1",
    settings: str | None = None,
    public: str | None = None,
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a signed call. public: the address that is signed, where it is another. The other way round
    than ours: the form that goes out is read again, and each name is asked for.
    """
    body = urlencode(list(form)).encode()
    read = parse_qsl(body.decode(), keep_blank_values=True)
    text = public or url
    for name in sorted({name for name, _ in read}):
        for value in sorted({value for other, value in read if other == name}):
            text += name + value
    own = base64.b64encode(hmac.new(token.encode(), text.encode(), getattr(hashlib, algorithm)).digest()).decode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": own}
    return headers | ({"X-Twilio-Webhooks-Signature-Settings": settings} if settings is not None else {}), body
