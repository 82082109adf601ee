"""Deliveries as signed webhooks: one POST each, after the Standard Webhooks specification.

A call has the headers `webhook-id` (the delivery's idempotency key: the same for every attempt, so that the far end can
leave out what it has), `webhook-timestamp` and `webhook-signature` (`v1,` and the HMAC-SHA256 of
`id.timestamp.body`). The body is `{"type", "timestamp", "data"}`: the operation, when it was queued, and the payload as
other destinations get it. The URL never holds anything of a patient.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from pydantic import AfterValidator, Field

from engine.clock import Clock
from engine.connectors.base import Acknowledgment, Called, Result, UnsignedError
from engine.connectors.checkpoints import CHECKPOINT_SECONDS_MAX, FilePlace
from engine.connectors.posting import Post, PostingConnector, PostingDestination
from engine.domain.checkpoint import Call as CheckpointCall
from engine.domain.checkpoint import Checkpoint
from engine.domain.delivery import ADDRESSED, STATE, Operation, QueuedDelivery
from engine.errors import CheckpointError
from engine.outline import RECEIPTS
from engine.settings import Configuration, HttpsUrl, Secret

_PREFIX: Final = "whsec_"
_SECRET_BYTES_MIN: Final = 24
"""Standard Webhooks, "Signature scheme": between 24 and 64 bytes."""
_TOLERANCE_SECONDS: Final = 300.0
_RESPONSE_BYTES_MAX: Final = 64 << 10


def _check_secret(secret: Secret) -> Secret:
    if not secret.known or _key(secret):
        return secret
    raise ValueError(f"after {_PREFIX} must come base64")


def _key(secret: Secret) -> bytes:
    """Of a secret with the prefix its base64, of any other its characters."""
    text = secret.reveal()
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


class WebhookDestination(PostingDestination):
    """A web address that takes deliveries as signed calls."""

    takes: ClassVar = STATE | {Operation.FORWARD.what} | {operation.what for operation in ADDRESSED}
    takes_checkpoints: ClassVar = True

    type: Literal["webhook"]
    """`webhook`: an address that takes signed calls."""
    url: HttpsUrl
    """Address; it holds nothing of a patient."""
    secret: Annotated[Secret, AfterValidator(_check_secret)]
    """Secret that calls are signed with: a reference, never the secret itself."""
    former_secret: Annotated[Secret, AfterValidator(_check_secret)] | None = None
    """The one before it, while the far end changes over: calls carry both signatures."""
    batch_max: Annotated[int, Field(ge=1, le=1000)] = 50
    """Most deliveries sent in one turn."""

    def doubts(self) -> Iterator[tuple[str, str]]:
        for key in ("secret", "former_secret"):
            secret = getattr(self, key)
            if secret is not None and secret.known and len(_key(secret)) < _SECRET_BYTES_MIN:
                yield key, f"is shorter than {_SECRET_BYTES_MIN} bytes and could be guessed"

    def acknowledgment(self, call: Called) -> Acknowledgment | None:
        """`{"page": ID, "by": WHO}`, signed as our own calls are."""
        message_id, sent_at = call.headers.get("webhook-id", ""), call.headers.get("webhook-timestamp", "")
        if not (sent_at.isascii() and sent_at.isdecimal() and abs(float(sent_at) - call.now) <= _TOLERANCE_SECONDS):
            raise UnsignedError("the call is too old, or has no webhook-timestamp")
        given = call.headers.get("webhook-signature", "").split(" ")
        secrets = [one for one in (self.secret, self.former_secret) if one is not None]
        wanted = [signature(secret, message_id, sent_at, call.body) for secret in secrets]
        if not message_id or not any(
            hmac.compare_digest(one.encode(), own.encode()) for one in given for own in wanted
        ):
            raise UnsignedError("the call does not have our secret's signature")
        try:
            said = msgspec.json.decode(call.body, type=_Answer)
        except msgspec.MsgspecError:
            raise ValueError('the body must be {"page": ID, "by": WHO}') from None
        return Acknowledgment(page=said.page, by=said.by, once=message_id)

    def call(self, message_id: str, body: bytes) -> Post:
        """A signed call. message_id: the same for every attempt at the same."""
        # The far end compares it with its own clock, so it is that of the machine, whatever the engine's shows.
        sent_at = str(int(time.time()))
        secrets = [one for one in (self.secret, self.former_secret) if one is not None]
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": sent_at,
            "webhook-signature": " ".join(signature(one, message_id, sent_at, body) for one in secrets),
        }
        return Post(url=self.url, headers=headers, body=body)

    def checkpoint_place(self, name: str, configuration: Configuration) -> WebhookPlace:
        return WebhookPlace(name, self, configuration)

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> WebhookConnector:
        ca = configuration.path(self.ca) if self.ca is not None else None
        return WebhookConnector(name, self, clock=clock, ca=ca)


class _Answer(msgspec.Struct, frozen=True):
    page: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Body(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: msgspec.Raw


class WebhookConnector(PostingConnector):
    _settings: WebhookDestination

    def post(self, queued: QueuedDelivery) -> Post | Result:
        settings, delivery = self._settings, queued.delivery
        queued_at = queued.created_at.isoformat(timespec="milliseconds")
        body = msgspec.json.encode(
            _Body(type=delivery.operation.value, timestamp=queued_at, data=msgspec.Raw(delivery.payload))
        )
        return settings.call(delivery.idempotency_key, body)


class WebhookPlace:
    """A place for checkpoints of the trail: one signed call each, outside of the outbox.

    A checkpoint is of no patient and the next one says all that it says, so nothing of it is queued: one that did not
    arrive is trouble until a later one has. What the far end took is noted in a file beside the other checkpoints.
    """

    def __init__(self, name: str, settings: WebhookDestination, configuration: Configuration) -> None:
        self.name = f"destination {name}"
        self._settings = settings
        self._ca = configuration.path(settings.ca) if settings.ca is not None else None
        self._receipts = FilePlace(configuration.path(RECEIPTS.format(name=name)))

    def write(self, checkpoint: Checkpoint) -> None:
        if not self._settings.secret.known:
            raise CheckpointError(f"{self.name}: its secret is not known here")
        at = checkpoint.at.isoformat(timespec="milliseconds")
        message_id = f"trail-{checkpoint.chain}-{checkpoint.seq}-{int(checkpoint.at.timestamp() * 1000)}"
        body = msgspec.json.encode(CheckpointCall(timestamp=at, data=checkpoint))
        status = asyncio.run(self._send(self._settings.call(message_id, body)))
        if not 200 <= status < 300:
            raise CheckpointError(f"{self.name}: did not take it: HTTP {status}")
        self._receipts.write(checkpoint)

    def read(self) -> list[Checkpoint] | None:
        """Those that the far end took."""
        return self._receipts.read()

    async def _send(self, post: Post) -> int:
        from engine.connectors.http import CallError, HttpClient

        client = HttpClient(
            timeout_seconds=min(self._settings.timeout_seconds, CHECKPOINT_SECONDS_MAX),
            response_bytes_max=_RESPONSE_BYTES_MAX,
            proxy=self._settings.proxy,
            ca=self._ca,
        )
        try:
            return (await client.request("POST", post.url, headers=post.headers, body=post.body)).status
        except (CallError, OSError) as error:
            why = str(error) if isinstance(error, CallError) else "`ca` can't be read"
            raise CheckpointError(f"{self.name}: can't be reached: {why}") from None
        finally:
            await client.close()


def signature(secret: Secret, message_id: str, timestamp: str, body: bytes) -> str:
    """Standard Webhooks, "Signature scheme": `v1,` and base64 of the HMAC-SHA256 of `id.timestamp.body`."""
    text = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), text, "sha256")).decode()
