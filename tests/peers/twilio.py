"""A Twilio that takes texts as its documentation of Programmable Messaging says, failures included.

`POST Messages.json` answers 201 with the message, 401 without the account's token, 400 with a code for what is wrong,
429 (20429) when there are too many; it takes the same text twice, as the real one does. `GET Messages.json` lists what
it has, the newest first. Phones are what the test says of them: opted out, landlines, regions. `answers` come first,
one for each create (status, code, headers); `lose`: so many creates are taken, and their answers lost (a status, or
none: the connection breaks). Words about texts are told by the test (`tell`), in any order, signed in either form.

A patient who writes (`write`) blocks us by STOP and lets us in again by START; with `advanced_opt_out` the call says so
(`OptOutType`), and the answer is Twilio's own. By WhatsApp it opens the 24 hours of free words, by the peer's clock.

Every call and every answer is held to the interface that Twilio has published (`twilio_interface`): `misfits`, of which
there may be none at the end.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
from aiohttp import web
from peers.twilio_interface import misfits_of_answer, misfits_of_call

SID = "AC" + "0" * 31 + "1"
TOKEN = "token-of-a-test"
FROM = "+15005550006"
_BLOCKS = {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
_RETURNS = {"START", "YES", "UNSTOP"}
_WINDOW = timedelta(hours=24)


def sid_of(number: int, kind: str = "SM") -> str:
    return f"{kind}{number:032x}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Message:
    sid: str
    form: dict[str, str]
    created: datetime
    status: str = "queued"
    error: int | None = None

    def shape(self) -> dict[str, Any]:
        discarded = self.form.get("ContentRetention") == "discard"
        place = f"/2010-04-01/Accounts/{SID}/Messages/{self.sid}"
        return {
            "sid": self.sid,
            "account_sid": SID,
            "api_version": "2010-04-01",
            "to": self.form["To"],
            "from": self.form.get("From"),
            "messaging_service_sid": self.form.get("MessagingServiceSid"),
            "body": "" if discarded else self.form.get("Body", ""),
            "status": self.status,
            "direction": "outbound-api",
            "date_created": format_datetime(self.created),
            "date_updated": format_datetime(self.created),
            "date_sent": None if self.status in {"queued", "accepted"} else format_datetime(self.created),
            "error_code": self.error,
            "error_message": None,
            "num_segments": "1",
            "num_media": "0",
            "price": None,
            "price_unit": None,
            "uri": f"{place}.json",
            "subresource_uris": {"media": f"{place}/Media.json"},
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
    regions: tuple[str, ...] = ("+1",)
    """Beginnings of the numbers that the account may text."""
    written: dict[str, datetime] = field(default_factory=dict)
    """Number -> when it has last written by WhatsApp."""
    advanced_opt_out: bool = False
    own_answers: list[tuple[str, str]] = field(default_factory=list)
    """Number and word that Twilio itself has answered."""
    queue_max: int = 10_000
    now: Callable[[], datetime] = _now
    misfits: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._numbers = itertools.count(1)
        app = web.Application()
        self._place = f"/2010-04-01/Accounts/{self.sid}/Messages.json"
        app.router.add_post(self._place, self._create)
        app.router.add_get(self._place, self._list)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        assert self.misfits == []

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if not self._knows(request):
            return _error(401, 20003)
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.creates.append(form)
        self.misfits += misfits_of_call("create", self.sid, form)
        if self.answers:
            status, code, headers = self.answers.pop(0)
            return _error(status, code, headers)
        wrong = self._wrong(form)
        if wrong is not None:
            return _error(400, wrong)
        message = Message(sid_of(next(self._numbers)), form, self.now())
        self.messages.append(message)
        if self.lose:
            status_ = self.lose.pop(0)
            if status_ is not None:
                return _error(status_, 20500)
            assert request.transport is not None
            request.transport.close()
        return self._answer("created", message.shape(), 201)

    def _answer(self, kind: str, answer: dict[str, Any], status: int) -> web.Response:
        self.misfits += misfits_of_answer(kind, answer)
        return web.json_response(answer, status=status)

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
        if "_" in (urlsplit(form.get("StatusCallback", "")).hostname or ""):
            return 21609
        if not 1 <= int(form.get("ValidityPeriod", "36000")) <= 36000:
            return 90007
        if not number.startswith(self.regions):
            return 21408
        if number in self.opted_out:
            return 21610
        if to in self.landlines:
            return 21614
        last = self.written.get(number)
        is_open = last is not None and self.now() - last < _WINDOW
        if to.startswith("whatsapp:") and not form.get("ContentSid") and not is_open:
            return 63016
        if sum(one.status == "queued" for one in self.messages) >= self.queue_max:
            return 21611
        return None

    async def _list(self, request: web.Request) -> web.Response:
        if not self._knows(request):
            return _error(401, 20003)
        query = dict(request.query)
        self.lists.append(query)
        self.misfits += misfits_of_call("list", self.sid, query)
        if self.list_answers:
            return _error(self.list_answers.pop(0), None)
        found = [one.shape() for one in reversed(self.messages) if query.get("To") in {None, one.form["To"]}]
        size = int(query.get("PageSize", "50"))
        pages = {
            "uri": self._place,
            "first_page_uri": f"{self._place}?PageSize={size}&Page=0",
            "next_page_uri": f"{self._place}?PageSize={size}&Page=1" if len(found) > size else None,
            "previous_page_uri": None,
            "page": 0,
            "page_size": size,
            "start": 0,
            "end": max(len(found[:size]) - 1, 0),
        }
        return self._answer("listed", {**pages, "messages": found[:size]}, 200)

    def _knows(self, request: web.Request) -> bool:
        login = base64.b64encode(f"{self.sid}:{self.token}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {login}"

    # --- what it tells us ---

    async def tell(self, message: Message, status: str, error: int | None = None, *, as_json: bool = False) -> int:
        """A word about a text, at the address that came with it. Returns how it was answered."""
        message.status, message.error = status, error
        form = {"MessageSid": message.sid, "SmsSid": message.sid, "MessageStatus": status, "AccountSid": self.sid}
        form |= {"To": message.form["To"], "From": message.form.get("From", ""), "NewParameter": "grows"}
        if error is not None:
            form["ErrorCode"] = str(error)
        return await self.call(message.form["StatusCallback"], form, as_json=as_json)

    async def write(self, url: str, number: str, text: str, *, sid: str, channel: str = "sms", **more: str) -> int:
        """A patient writes. A word of the carrier's own blocks us, or lets us in again, when it stands alone."""
        word = text.strip().upper()
        taken = "STOP" if word in _BLOCKS else "START" if word in _RETURNS else "HELP" if word == "HELP" else None
        if taken == "STOP":
            self.opted_out.add(number)
        elif taken == "START":
            self.opted_out.discard(number)
        if channel == "whatsapp":
            self.written[number] = self.now()
        if taken is not None and self.advanced_opt_out:
            self.own_answers.append((number, taken))
            more = {"OptOutType": taken} | more
        prefix = "whatsapp:" if channel == "whatsapp" else ""
        form = {"MessageSid": sid, "From": prefix + number, "To": prefix + FROM, "Body": text, "NumMedia": "0"} | more
        return await self.call(url, form)

    async def call(self, url: str, form: Mapping[str, str], *, as_json: bool = False) -> int:
        headers, body = signed(url, list(form.items()), token=self.token)
        if as_json:
            url, headers, body = signed_json(url, form, token=self.token)
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


def signed_json(url: str, said: Mapping[str, Any], *, token: str = TOKEN) -> tuple[str, dict[str, str], bytes]:
    """Address, headers and body of a call in JSON: the hash of the body stands in the address, and that is signed."""
    body = json.dumps(said).encode()
    whole = f"{url}{'&' if '?' in url else '?'}bodySHA256={hashlib.sha256(body).hexdigest()}"
    own = base64.b64encode(hmac.new(token.encode(), whole.encode(), hashlib.sha1).digest()).decode()
    return whole, {"Content-Type": "application/json", "X-Twilio-Signature": own}, body
