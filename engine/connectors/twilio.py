"""Texts by Twilio: Programmable Messaging (2010-04-01) over its HTTP API, SMS and WhatsApp.

A text is one `POST Messages.json`. Twilio knows no idempotency key, so a call that may have been done (no answer, 5xx)
is never repeated: it is in doubt, and the courier has it looked up by `GET Messages.json` (`look_up`). 429 was never
processed. What an error code means stands in `twilio_codes.yaml`.

With a text goes the address of our `/hooks/NAME/status`, with the delivery's idempotency key, so that a word about it
is known whatever came first: the word, or the answer to the call.

Calls at our door are signed over the public address. Twilio gives them no time: one that is played again is the same
word again, and counts once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from pydantic import Field, model_validator

from engine.clock import Clock
from engine.connectors import carriers
from engine.connectors.base import (
    NOT_ATTEMPTED,
    Called,
    CarrierWord,
    Incoming,
    Result,
    UnsignedError,
    always,
    delivered,
    failed,
    in_doubt,
)
from engine.connectors.carriers import NUMBER, SHORT_CODE, Kind, hooks_url
from engine.connectors.posting import PostingDestination, judge, rest_until
from engine.domain.cause import TextSettled
from engine.domain.chart import Chart
from engine.domain.delivery import Notice, Notification, Operation, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure
from engine.pipeline.admit import GO, Admission, Known, Never, Rule, notice_of
from engine.settings import Configuration, HttpsUrl, Identifier, Seconds, Secret, Text
from engine.yamlfile import parse
from engine.yamlmodel import StrictModel

if TYPE_CHECKING:
    from engine.connectors.http import Answer, HttpClient

_TOO_LONG: Final = 21617
_RESPONSE_BYTES_MAX: Final = 2 << 20
_VALIDITY_SECONDS_MAX: Final = 36_000
_PAGE_SIZE: Final = 200
_SKEW: Final = timedelta(seconds=120)
"""Twilio's clock and ours may differ by so much."""
_WINDOW: Final = timedelta(hours=24)
_WHATSAPP: Final = "whatsapp:"
_SHA256: Final = "HMAC_SHA256"
_SID: Final = re.compile(r"[A-Za-z]{2}[0-9A-Za-z]{1,62}", re.ASCII)

_SAID: Final[Mapping[str, str]] = {
    "accepted": TextSettled.SENT,
    "scheduled": TextSettled.SENT,
    "queued": TextSettled.SENT,
    "sending": TextSettled.SENT,
    "sent": TextSettled.SENT,
    "partially_delivered": TextSettled.SENT,
    "delivered": TextSettled.DELIVERED,
    "read": TextSettled.DELIVERED,
    "undelivered": TextSettled.FAILED,
    "failed": TextSettled.FAILED,
    "canceled": TextSettled.FAILED,
}
"""`MessageStatus` -> what it makes of a text."""
_NEVER_WENT: Final = frozenset({"failed", "undelivered", "canceled"})
"""Unless its error says that nobody knows (30410)."""


class Meaning(NamedTuple):
    """What an error code means. seconds: the least wait before another try."""

    kind: Kind
    seconds: int | None = None


@lru_cache(maxsize=1)
def codes() -> Mapping[int, Meaning]:
    """Error code -> what it means (`twilio_codes.yaml`)."""
    text = (files("engine.connectors") / "twilio_codes.yaml").read_text(encoding="utf-8")
    found: dict[int, Meaning] = {}
    for kind, listed in parse(text, "twilio_codes.yaml").value.items():
        waits = listed if isinstance(listed, dict) else dict.fromkeys(listed)
        found.update({int(code): Meaning(kind, seconds) for code, seconds in waits.items()})
    return found


def code_of(number: int) -> str:
    """A code of ours for one of Twilio's: `opted-out-21610`."""
    return carriers.code_of(codes().get(number, _UNKNOWN).kind, number)


_UNKNOWN: Final = Meaning("refused")


class WhatsApp(StrictModel):
    """WhatsApp by the same account."""

    from_: Annotated[Text, Field(alias="from", pattern=NUMBER.pattern)]
    """Number of the WhatsApp sender (E.164)."""
    templates: dict[str, Annotated[str, Field(pattern=r"^HX[0-9A-Za-z]{1,62}$")]] = {}
    """Approved templates: `SERIES/STEP`, or `SERIES/STEP/LANGUAGE` -> content SID. What has none goes as free words,
    and only for 24 hours after the patient has last written."""

    def template(self, name: str | None, language: str | None) -> str | None:
        return self.templates.get(f"{name}/{language}") or self.templates.get(f"{name}")


class WebhookKey(StrictModel):
    """Key of a Webhook Rule of Twilio, with which it signs instead of with the auth token."""

    key: Identifier
    """Its name, as the header X-Twilio-Webhooks-Signature-Settings says it."""
    secret: Secret
    """A reference, never the secret itself."""
    algorithm: Literal["HMAC_SHA256"] = "HMAC_SHA256"
    """How it signs. A call that is signed in another way is refused, whatever its headers say."""


class TwilioDestination(PostingDestination):
    """Texts by Twilio, SMS and WhatsApp."""

    takes: ClassVar = frozenset({Operation.SEND_TEXT.what, Operation.NOTIFY.what})
    sends_texts: ClassVar = True
    is_heard_by_hooks: ClassVar = True

    type: Literal["twilio"]
    """`twilio`: texts by Twilio Programmable Messaging."""
    account_sid: Annotated[str, Field(pattern=r"^AC[0-9A-Za-z]{1,62}$")]
    """The account (`AC...`)."""
    auth_token: Secret
    """Its primary auth token, which also signs Twilio's calls: a reference, never the token itself."""
    former_auth_token: Secret | None = None
    """The one before it, while it is changed: Twilio's calls may still be signed with it."""
    from_: Annotated[Text | None, Field(alias="from")] = None
    """Number that texts come from (E.164, or a short code)."""
    messaging_service: Annotated[str, Field(pattern=r"^MG[0-9A-Za-z]{1,62}$")] | None = None
    """Messaging Service that chooses the number; in place of `from`."""
    whatsapp: WhatsApp | None = None
    """For patients who have agreed to WhatsApp; none: SMS alone."""
    base_url: HttpsUrl = "https://api.twilio.com"
    """Address of the API (an edge or region of Twilio's)."""
    webhook_key: WebhookKey | None = None
    """Key that Twilio's calls are signed with; none: the auth token (HMAC-SHA1, Twilio's usual way)."""
    content_retention: Literal["retain", "discard"] | None = None
    """Whether Twilio keeps the words; none: as the account has it."""
    address_retention: Literal["retain", "obfuscate"] | None = None
    """Whether Twilio keeps the whole number; none: as the account has it. With `obfuscate` what is in doubt can't be
    looked up, and is held."""
    look_up_seconds: Seconds = 60.0
    """So long after a call whose outcome is not known Twilio is asked whether it has the text."""
    console_url: HttpsUrl | None = None
    """Address of the console, as the person on call reaches it; notifications link to the page there. None: no link."""
    batch_max: Annotated[int, Field(ge=1, le=1000)] = 1
    """Most texts handed over in one turn. They go one by one in any case: none may go twice."""

    @model_validator(mode="after")
    def _has_a_sender(self) -> TwilioDestination:
        if self.from_ is None and self.messaging_service is None and self.whatsapp is None:
            raise ValueError("has no sender: give it `from`, `messaging_service` or `whatsapp`")
        if self.from_ is not None and self.messaging_service is not None:
            raise ValueError("has both from and messaging_service: give one of them")
        return self

    def doubts(self) -> Iterator[tuple[str, str]]:
        if re.fullmatch(r"AC[0-9a-fA-F]{32}", self.account_sid) is None:
            yield "account_sid", "is not of the form that Twilio gives (AC and 32 hexadecimal digits)"
        if self.from_ is not None and not (NUMBER.fullmatch(self.from_) or SHORT_CODE.fullmatch(self.from_)):
            yield "from", "is neither a number (+15185550100) nor a short code: nobody could reply to it"

    def admission(self) -> Sequence[Rule]:
        return (Rule(partial(in_the_window, self.whatsapp), frozenset({"chart"})),)

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> TwilioConnector:
        return TwilioConnector(
            name,
            self,
            clock=clock,
            ca=configuration.path(self.ca) if self.ca is not None else None,
            hooks=hooks_url(configuration),
        )

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:
        return (*super().made_from(configuration), hooks_url(configuration))

    def incoming(self, call: Called) -> Incoming | None:
        said = self._read(call)
        number, channel = _address(said.get("From", ""))
        sid = said.get("MessageSid") or said.get("SmsMessageSid") or said.get("SmsSid") or ""
        if NUMBER.fullmatch(number) is None and not SHORT_CODE.fullmatch(number):
            raise ValueError("the call names nobody who has written")
        if _SID.fullmatch(sid) is None:
            raise ValueError("the call has no MessageSid")
        answered = said.get("OptOutType", "").upper()
        return Incoming(
            id=sid,
            channel=channel,
            number=number,
            to=_address(said.get("To", ""))[0],
            text=_with_media(said.get("Body", ""), said.get("NumMedia", ""))[: carriers.TEXT_CHARS_MAX],
            answered=answered if answered in {"STOP", "START", "HELP"} else None,
        )

    def carrier_word(self, call: Called) -> CarrierWord | None:
        said = self._read(call)
        key = dict(parse_qsl(urlsplit(call.url).query)).get(carriers.KEY_PARAMETER)
        sid = said.get("MessageSid") or said.get("SmsSid") or ""
        result = _SAID.get((said.get("MessageStatus") or said.get("SmsStatus") or "").lower())
        if key is None or result is None:
            return None
        error = said.get("ErrorCode", "")
        number = int(error) if error.isascii() and error.isdecimal() and len(error) < 10 else 0
        return CarrierWord(
            key=key,
            receipt=sid if _SID.fullmatch(sid) else None,
            result=result,
            detail=code_of(number) if result == TextSettled.FAILED else None,
        )

    def _read(self, call: Called) -> dict[str, str]:
        """The parameters of a call, all that there are. Raises UnsignedError, ValueError."""
        form = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form == "application/x-www-form-urlencoded":
            try:
                given = parse_qsl(
                    call.body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=500
                )
            except (UnicodeDecodeError, ValueError):
                raise ValueError("the body is no form") from None
            self._check(call, _signed_text(call.url, given))
            return dict(given)
        hashes = [value for name, value in parse_qsl(urlsplit(call.url).query) if name == "bodySHA256"]
        own = hashlib.sha256(call.body).hexdigest()
        if call.body and not (
            hashes and all(hmac.compare_digest(one.lower().encode(), own.encode()) for one in hashes)
        ):
            raise UnsignedError("the body is not that of the signature (bodySHA256)")
        self._check(call, call.url)
        try:
            read = msgspec.json.decode(call.body, type=dict[str, object]) if call.body else {}
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ValueError("the body is no JSON object") from None
        return {name: value for name, value in read.items() if isinstance(value, str)}

    def _check(self, call: Called, text: str) -> None:
        """Raises UnsignedError unless it is signed in the one way that is configured."""
        said = call.headers.get("x-twilio-webhooks-signature-settings")
        given = call.headers.get("x-twilio-signature", "")
        secrets, algorithm = [self.auth_token, *([self.former_auth_token] if self.former_auth_token else [])], "sha1"
        if self.webhook_key is not None:
            settings = dict(part.strip().partition("=")[::2] for part in (said or "").split(","))
            if (settings.get("key"), settings.get("algorithm")) != (self.webhook_key.key, self.webhook_key.algorithm):
                raise UnsignedError("the call is not signed with the key that webhook_key names")
            secrets, algorithm = [self.webhook_key.secret], "sha256"
        elif said is not None:
            raise UnsignedError("the call is signed with a key, and webhook_key of the destination is not set")
        known = [signature(one, _beside(text, call.url, url), algorithm) for one in secrets for url in _ports(call.url)]
        if not any(hmac.compare_digest(one.encode(), given.encode()) for one in known):
            raise UnsignedError("the call does not have our secret's signature")


def signature(secret: Secret, text: str, algorithm: str = "sha1") -> str:
    """Twilio, "Validating signatures": base64 of the HMAC of the address and the form's parameters."""
    return base64.b64encode(hmac.digest(secret.reveal().encode(), text.encode(), algorithm)).decode()


def _signed_text(url: str, given: Sequence[tuple[str, str]]) -> str:
    """The address, then each parameter's name and value, sorted; of several of a name each value once."""
    return url + "".join(f"{name}{value}" for name, value in sorted(set(given)))


def _beside(text: str, url: str, other: str) -> str:
    return other + text.removeprefix(url)


def _ports(url: str) -> Iterator[str]:
    """The address as it is, and with or without the port that goes without saying: Twilio signs either."""
    yield url
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    if usual is None or parts.hostname is None:
        return
    if parts.port is None:
        yield parts._replace(netloc=f"{parts.netloc}:{usual}").geturl()
    elif parts.port == usual:
        yield parts._replace(netloc=parts.netloc.rpartition(":")[0]).geturl()


def _address(text: str) -> tuple[str, str]:
    """Number and channel of a channel address: `whatsapp:+15185550100`."""
    if text.startswith(_WHATSAPP):
        return text.removeprefix(_WHATSAPP).strip(), "whatsapp"
    return text.strip(), "sms"


def _with_media(body: str, count: str) -> str:
    """A picture can't be shown here: that there is one is said."""
    number = int(count) if count.isascii() and count.isdecimal() and len(count) < 4 else 0
    if not number:
        return body
    return f"{body} [{number} picture or file: see it at the carrier]".strip()


def in_the_window(whatsapp: WhatsApp | None, queued: QueuedDelivery, known: Known, now: datetime) -> Admission:
    """WhatsApp takes free words for 24 hours after the patient has last written; then an approved template alone."""
    said = notice_of(queued)
    if not isinstance(said, Notice) or said.channel != "whatsapp":
        return GO
    if whatsapp is None:
        return Never(code="needs-template")
    if whatsapp.template(said.template, said.language) is not None:
        return GO
    last = _last_word(known.chart, said.to)
    return GO if last is not None and now - last < _WINDOW else Never(code="needs-template")


def _last_word(chart: Chart | None, number: str) -> datetime | None:
    """When somebody has last written from a number by WhatsApp, as far as the chart knows."""
    if chart is None:
        return None
    texts = (text for text in chart.texts if text.number == number and text.channel == "whatsapp")
    return max((reply.at for text in texts for reply in text.replies), default=None)


class TwilioConnector:
    """One call a text; none is made twice."""

    idempotent: Final = False
    ordered_batches: Final = False

    def __init__(
        self, name: str, settings: TwilioDestination, *, clock: Clock, ca: Path | None = None, hooks: str | None = None
    ) -> None:
        """hooks: the address of our hooks; none: Twilio can't tell us what became of a text."""
        self.name: Final = name
        self._settings = settings
        self._clock = clock
        self._ca = ca
        self._hooks = hooks
        self._client: HttpClient | None = None
        self._stopped = False
        login = f"{settings.account_sid}:{settings.auth_token.reveal()}"
        self._headers = {
            "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
            "Accept": "application/json",
        }
        self._place = f"{settings.base_url}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"

    @property
    def look_up_seconds(self) -> float:
        return self._settings.look_up_seconds

    async def connect(self) -> None:
        from engine.connectors.http import HttpClient

        if self._client is None:
            self._client = HttpClient(
                timeout_seconds=self._settings.timeout_seconds,
                response_bytes_max=_RESPONSE_BYTES_MAX,
                proxy=self._settings.proxy,
                ca=self._ca,
            )

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        results: list[Result] = []
        for queued in batch:
            if self._stopped or not may_go_on():
                break
            results.append(await self._deliver(queued))
            if results[-1].of_destination:
                break
        return results + [NOT_ATTEMPTED] * (len(batch) - len(results))

    def stop(self) -> None:
        self._stopped = True

    async def close(self) -> None:
        self._stopped = False
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # --- a text ---

    async def _deliver(self, queued: QueuedDelivery) -> Result:
        from engine.connectors.http import CallError

        try:
            form = self._form(queued)
        except msgspec.DecodeError:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no text")
        if isinstance(form, Result):
            return form
        headers = self._headers | {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            answer = await self._call("POST", self._place, headers, urlencode(form).encode())
        except CallError as error:
            if not error.sent:
                return failed(DeliveryFailure.TRANSIENT, "unreachable", "no connection came about", of_destination=True)
            if error.timed_out:
                return in_doubt("no-answer", "no answer within the time allowed")
            return in_doubt("answer-lost", "the connection or its answer broke off")
        return self._judged(answer)

    async def _call(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        if self._client is None:
            raise RuntimeError("connect comes before deliver")
        try:
            return await self._client.request(method, url, headers=headers, body=body)
        except OSError:
            raise DeliveryError(
                self.name, "ca-unusable", "the file that `ca` names can't be read", kind=DeliveryFailure.TRANSIENT
            ) from None

    def _form(self, queued: QueuedDelivery) -> dict[str, str] | Result:
        """Raises msgspec.DecodeError."""
        content, settings = queued.delivery.content, self._settings
        if isinstance(content, Notification):
            if not content.to:
                return failed(DeliveryFailure.PERMANENT, "no-number", "the contact has no number")
            form = {"To": content.to, "Body": carriers.page_text(content, settings.console_url)} | self._sender()
        elif isinstance(content, Notice):
            form = self._words(content)
        else:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "Twilio takes texts alone")
        if len(form.get("Body", "")) > carriers.BODY_CHARS_MAX:
            return failed(DeliveryFailure.PERMANENT, code_of(_TOO_LONG), "it has more than 1,600 characters")
        if content.not_after is not None:
            left = int((content.not_after - self._clock.now()).total_seconds())
            form["ValidityPeriod"] = str(min(max(left, 1), _VALIDITY_SECONDS_MAX))
        if self._hooks is not None:
            form["StatusCallback"] = carriers.status_url(self._hooks, self.name, queued.delivery.idempotency_key)
        if settings.content_retention is not None:
            form["ContentRetention"] = settings.content_retention
        if settings.address_retention is not None:
            form["AddressRetention"] = settings.address_retention
        return form

    def _words(self, said: Notice) -> dict[str, str]:
        whatsapp = self._settings.whatsapp
        if said.channel != "whatsapp" or whatsapp is None:
            return {"To": said.to, "Body": said.body} | self._sender()
        addresses = {"To": _WHATSAPP + said.to, "From": _WHATSAPP + whatsapp.from_}
        content = whatsapp.template(said.template, said.language)
        if content is None:
            return addresses | {"Body": said.body}
        return addresses | {"ContentSid": content, "ContentVariables": msgspec.json.encode(said.fields).decode()}

    def _sender(self) -> dict[str, str]:
        if self._settings.messaging_service is not None:
            return {"MessagingServiceSid": self._settings.messaging_service}
        return {"From": self._settings.from_ or ""}

    def _judged(self, answer: Answer) -> Result:
        said = _decoded(answer.body, _Said) or _Said()
        now = self._clock.now()
        if 200 <= answer.status < 300:
            if said.sid is None or _SID.fullmatch(said.sid) is None:
                return in_doubt("answer-unfit", "the answer is not that of the API")
            return delivered(said.sid, rest_until(answer.headers.get("retry-after"), now))
        if answer.status >= 500:
            return in_doubt(f"http-{answer.status}", "Twilio does not say whether it has taken it")
        asked = rest_until(answer.headers.get("retry-after"), now)
        known = codes().get(said.code) if said.code is not None else None
        if known is None:
            return self._unknown(answer.status, said.code, asked)
        if asked is None and known.seconds is not None:
            asked = now + timedelta(seconds=known.seconds)
        return carriers.refusal(known.kind, said.code or 0, not_before=asked, is_busy=answer.status == 429)

    def _unknown(self, status: int, code: int | None, asked: datetime | None) -> Result:
        """An answer without a code that we know."""
        if status == 400 and code is not None:
            return carriers.refusal("refused", code)
        verdict = judge(status)
        return failed(
            verdict.failure, f"http-{status}", verdict.text, of_destination=verdict.of_destination, not_before=asked
        )

    # --- what is in doubt ---

    async def look_up(self, queued: QueuedDelivery) -> Sequence[str]:
        """By whom it is for, when, and its words where Twilio keeps them.

        `DateSent` is empty while a text waits in Twilio's queue, so it is not asked for: the list begins with the
        newest, and times are compared here.
        """
        from engine.connectors.http import CallError

        try:
            form = self._form(queued)
        except msgspec.DecodeError:
            form = failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no text")
        if isinstance(form, Result) or self._settings.address_retention == "obfuscate":
            raise DeliveryError(self.name, "in-doubt", "it can't be looked up", kind=DeliveryFailure.AMBIGUOUS)
        query = urlencode({"To": form["To"], "PageSize": str(_PAGE_SIZE)})
        try:
            answer = await self._call("GET", f"{self._place}?{query}", self._headers)
        except CallError as error:
            code = "no-answer" if error.timed_out else "unreachable"
            raise DeliveryError(self.name, code, "no list came", kind=DeliveryFailure.TRANSIENT) from None
        listed = _decoded(answer.body, _Listed)
        if answer.status != 200 or listed is None or listed.messages is None:
            code = f"http-{answer.status}" if answer.status != 200 else "answer-unfit"
            raise DeliveryError(self.name, code, "no list came", kind=DeliveryFailure.TRANSIENT)
        since = queued.created_at - _SKEW
        full = len(listed.messages) >= _PAGE_SIZE and all(_at(one, since) >= since for one in listed.messages)
        if full:
            raise DeliveryError(self.name, "in-doubt", "there are too many to tell", kind=DeliveryFailure.AMBIGUOUS)
        found = [one for one in reversed(listed.messages) if self._may_be(one, form, since)]
        return [one.sid for one in sorted(found, key=lambda one: _at(one, since))]

    def _may_be(self, one: _Message, form: Mapping[str, str], since: datetime) -> bool:
        """Whether it can be this text: a field that Twilio does not keep is no sign against it."""
        never_went = one.status in _NEVER_WENT and codes().get(one.error_code or 0, _UNKNOWN).kind != "doubt"
        if one.direction.startswith("inbound") or never_went or _at(one, since) < since:
            return False
        service, sender = form.get("MessagingServiceSid"), form.get("From")
        if service is not None and one.messaging_service_sid not in {None, service}:
            return False
        if sender is not None and one.from_ not in {None, "", sender}:
            return False
        return "Body" not in form or not one.body or _same(one.body, form["Body"])


def _same(listed: str, own: str) -> bool:
    """Twilio may set a prefix before the words (a trial account), and takes spaces at the ends away."""
    return listed.strip().endswith(own.strip())


class _Said(msgspec.Struct, frozen=True):
    sid: str | None = None
    code: int | None = None


class _Message(msgspec.Struct, frozen=True):
    sid: str
    to: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    body: str | None = None
    status: str = ""
    direction: str = ""
    messaging_service_sid: str | None = None
    error_code: int | None = None
    date_created: str | None = None
    date_sent: str | None = None


class _Listed(msgspec.Struct, frozen=True):
    messages: list[_Message] | None = None


def _at(one: _Message, unknown: datetime) -> datetime:
    """When it was taken; unknown: of one that does not say so."""
    for text in (one.date_created, one.date_sent):
        try:
            if text is not None:
                at = parsedate_to_datetime(text)
                return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            continue
    return unknown


S = TypeVar("S", _Said, _Listed)


def _decoded(body: bytes, type_: type[S]) -> S | None:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
