"""Deliveries as calls that post JSON, one each: what webhooks and paging services have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from engine.clock import Clock
from engine.connectors.base import DELIVERED, NOT_ATTEMPTED, DestinationSettings, Result, always, failed, stamps
from engine.domain.delivery import QueuedDelivery
from engine.domain.record import Phi
from engine.errors import DeliveryError, DeliveryFailure, Problem
from engine.settings import Configuration, ProxyUrl, Text

if TYPE_CHECKING:
    from engine.connectors.http import Answer, HttpClient

_RESPONSE_BYTES_MAX: Final = 256 << 10
"""An answer is looked at for its status alone, and never kept."""
_REST_SECONDS_MAX: Final = 3600.0
_BUSY: Final = frozenset({408, 425, 429})
_UNFIT: Final = frozenset({400, 411, 413, 415, 422, 431})
"""What it says of one call may be otherwise with the next one."""


class PostingDestination(DestinationSettings):
    """What every such destination can be told."""

    proxy: ProxyUrl | None = None
    """`http://HOST:PORT` of the proxy to go through; none: none, whatever the environment says."""
    ca: Text | None = None
    """PEM file of the authorities that may have signed the far end's certificate; none: the usual ones."""

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:
        return stamps(configuration, self.ca)

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        from engine.connectors.http import tls_context

        if self.ca is None:
            return
        try:
            tls_context(configuration.path(self.ca))
        except OSError:
            text = f"{self.ca} can't be used: it must be a readable PEM file of certificates"
            yield configuration.site_document.problem(("destinations", name, "ca"), text)


class Post(Phi, frozen=True, kw_only=True):
    """One call."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Verdict(NamedTuple):
    """What an HTTP status means."""

    failure: DeliveryFailure
    text: str
    of_destination: bool


class PostingConnector:
    """One call a delivery, over connections that are kept. A call with an unknown outcome is made again: the far end
    knows it by the id that it carries.
    """

    idempotent: Final = True
    ordered_batches: Final = False

    def __init__(self, name: str, settings: PostingDestination, *, clock: Clock, ca: Path | None) -> None:
        self.name: Final = name
        self._settings = settings
        self._clock = clock
        self._ca = ca
        self._client: HttpClient | None = None
        self._stopped = False

    @abstractmethod
    def post(self, queued: QueuedDelivery) -> Post | Result:
        """The call that a delivery is; or what became of it without one."""

    def taken(self, _answer: Answer) -> Result:
        """What an answer of 2xx means."""
        return DELIVERED

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
            result = await self._deliver(queued)
            results.append(result)
            if result.of_destination:
                break  # it would say the same of the next one
        return results + [NOT_ATTEMPTED] * (len(batch) - len(results))

    def stop(self) -> None:
        self._stopped = True

    async def close(self) -> None:
        self._stopped = False
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _deliver(self, queued: QueuedDelivery) -> Result:
        from engine.connectors.http import CallError

        post = self.post(queued)
        if isinstance(post, Result):
            return post
        if self._client is None:
            raise RuntimeError("connect comes before deliver")
        try:
            answer = await self._client.request("POST", post.url, headers=post.headers, body=post.body)
        except OSError:
            raise DeliveryError(
                self.name, "ca-unusable", "the file that `ca` names can't be read", kind=DeliveryFailure.TRANSIENT
            ) from None
        except CallError as error:
            if not error.sent:
                return failed(DeliveryFailure.TRANSIENT, "unreachable", "no connection came about", of_destination=True)
            code, text = ("no-answer", "no answer within the time allowed") if error.timed_out else _BROKEN_OFF
            return failed(DeliveryFailure.AMBIGUOUS, code, text, of_destination=True)
        return self._judged(answer)

    def _judged(self, answer: Answer) -> Result:
        if 200 <= answer.status < 300:
            return self.taken(answer)
        verdict = judge(answer.status)
        return failed(
            verdict.failure,
            f"http-{answer.status}",
            verdict.text,
            of_destination=verdict.of_destination,
            not_before=rest_until(answer.headers.get("retry-after"), self._clock.now()),
        )


_BROKEN_OFF: Final = ("answer-lost", "the connection or its answer broke off")


def judge(status: int) -> Verdict:
    """What a status other than 2xx means. A redirect is a failure: followed, it would carry data to wherever it points
    (Standard Webhooks, "Success and failure": 2xx alone is success, 410 asks for no more, 429 and 5xx to slow down).
    """
    if status in _UNFIT:
        return Verdict(DeliveryFailure.PERMANENT, "the far end refuses this call", of_destination=False)
    if status in _BUSY or status >= 500:
        return Verdict(DeliveryFailure.TRANSIENT, "the far end takes nothing now", of_destination=True)
    return Verdict(DeliveryFailure.TRANSIENT, "the far end does not let us in, or is not there", of_destination=True)


def rest_until(said: str | None, now: datetime) -> datetime | None:
    """`Retry-After` (RFC 9110, section 10.2.3): seconds or a date; none: it says nothing that can be read."""
    if said is None:
        return None
    text = said.strip()
    if text.isascii() and text.isdecimal() and len(text) < 7:
        return now + timedelta(seconds=min(float(text), _REST_SECONDS_MAX))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(at, now), now + timedelta(seconds=_REST_SECONDS_MAX))
