"""Notifications of pages as events of PagerDuty: Events API v2, `trigger`, `acknowledge` and `resolve`.

One page is one incident: its id is the dedup key of all its events. A page that is raised again, because nothing was
done after it was acknowledged, is an incident of its own: PagerDuty calls nobody for a trigger of one that somebody has
acknowledged. An event may be sent twice without harm: a trigger with a known dedup key is added to the incident.

What leaves holds nothing of a patient: the page's id, the ladder, its level, and words of the site's own.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field

from engine.clock import Clock
from engine.connectors.base import (
    NOTHING_TO_SEND,
    Acknowledgment,
    Called,
    Result,
    UnsignedError,
    delivered,
    failed,
)
from engine.connectors.posting import Post, PostingConnector, PostingDestination
from engine.domain.delivery import (
    ADDRESSED,
    GlassNotice,
    Notification,
    NotificationEnd,
    Operation,
    PageUpsert,
    QueuedDelivery,
)
from engine.domain.shapes import PageShape
from engine.errors import DeliveryFailure
from engine.settings import Configuration, HttpsUrl, Secret

if TYPE_CHECKING:
    from engine.connectors.http import Answer

_SUMMARY_CHARS_MAX: Final = 1024
_ACCEPTED: Final = 202
_BY_CHARS_MAX: Final = 64
_ENDS: Final[Mapping[str, str]] = {"acknowledged": "acknowledge", "resolved": "resolve"}
"""State of a page -> event; in any other somebody is to be called."""
_TEXT: Final = "A page waits for an acknowledgment"


class PagerDutyDestination(PostingDestination):
    """PagerDuty, or whatever speaks its Events API v2."""

    takes: ClassVar = frozenset(operation.what for operation in (*ADDRESSED, Operation.UPSERT_PAGE))

    type: Literal["pagerduty"]
    """`pagerduty`: incidents by the Events API v2."""
    url: HttpsUrl = "https://events.pagerduty.com/v2/enqueue"
    """Address that takes events."""
    routing_key: Secret
    """Integration key of the service: a reference, never the key itself. A contact with an `address` has its own."""
    severity: Literal["critical", "error", "warning", "info"] = "critical"
    """How urgent an incident is."""
    webhook_secret: Secret | None = None
    """Secret of a webhook subscription of PagerDuty (V3) that calls `/hooks/NAME/ack`: an acknowledgment there is one
    here. A reference, never the secret itself; none: PagerDuty tells us nothing."""
    console_url: HttpsUrl | None = None
    """Address of the console, as the person on call reaches it; incidents link to the page there. None: no link."""
    batch_max: Annotated[int, Field(ge=1, le=1000)] = 20
    """Most events sent in one turn."""

    def acknowledgment(self, call: Called) -> Acknowledgment | None:
        """V3 webhooks: `incident.acknowledged`, whose incident key is the page; other events say nothing to us.

        `X-PagerDuty-Signature` holds, with commas, `v1=` and the HMAC-SHA256 of the body in hexadecimal digits, one for
        each secret that is in use.
        """
        if self.webhook_secret is None:
            raise UnsignedError("webhook_secret of the destination is not set")
        wanted = "v1=" + hmac.new(self.webhook_secret.reveal().encode(), call.body, "sha256").hexdigest()
        given = [one.strip() for one in call.headers.get("x-pagerduty-signature", "").split(",")]
        if not any(hmac.compare_digest(one.encode(), wanted.encode()) for one in given):
            raise UnsignedError("the call does not have our secret's signature")
        try:
            event = msgspec.json.decode(call.body, type=_Heard).event
        except msgspec.MsgspecError:
            raise ValueError("the body is no event of V3 webhooks") from None
        if event.event_type != "incident.acknowledged" or event.data is None or event.data.incident_key is None:
            return None
        by = event.agent.summary if event.agent is not None and event.agent.summary else "PagerDuty"
        return Acknowledgment(page=event.data.incident_key.partition("-")[0], by=by[:_BY_CHARS_MAX], once=event.id)

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> PagerDutyConnector:
        ca = configuration.path(self.ca) if self.ca is not None else None
        return PagerDutyConnector(name, self, clock=clock, ca=ca)


class PagerDutyConnector(PostingConnector):
    _settings: PagerDutyDestination

    def post(self, queued: QueuedDelivery) -> Post | Result:
        try:
            content = queued.delivery.content
        except msgspec.DecodeError:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no notification")
        if isinstance(content, Notification):
            event = self._trigger(content)
        elif isinstance(content, NotificationEnd):
            if content.state not in _ENDS:
                return NOTHING_TO_SEND
            event = self._event(_ENDS[content.state], content.page_id, content.round, to=content.to)
        elif isinstance(content, PageUpsert):
            event = self._state(content.page)
        elif isinstance(content, GlassNotice):
            event = self._glass(content)
        else:
            return failed(DeliveryFailure.PERMANENT, "not-a-notification", "PagerDuty is told of pages alone")
        return Post(
            url=self._settings.url, headers={"Content-Type": "application/json"}, body=msgspec.json.encode(event)
        )

    def _event(self, action: str, page_id: str, round_: int, *, to: str | None = None) -> dict[str, Any]:
        return {
            "routing_key": to or self._settings.routing_key.reveal(),
            "event_action": action,
            "dedup_key": f"{page_id}-{round_}" if round_ else page_id,
        }

    def _trigger(self, said: Notification) -> dict[str, Any]:
        details = {
            "level": said.level,
            "loop": said.loop,
            "person": said.person,
            "acknowledge_by": said.acknowledge_by,
            "handed_over": said.handed_over,
        }
        return self._event("trigger", said.page_id, said.round, to=said.to) | self._call(
            said.page_id, said.text, said.ladder, said.reason, said.raised_at, said.link, details
        )

    def _glass(self, said: GlassNotice) -> dict[str, Any]:
        """An incident of its own, which a person resolves there; each reminder triggers it again."""
        key = f"glass-{said.id}"
        text = f"The glass was broken by {said.actor} ({said.reason}): handoff audit attest {said.id}"
        details = {"reminder": said.reminder, "ends_at": said.ends_at}
        return self._event("trigger", key, 0) | self._call(
            key, text, "break-glass", "glass-broken", said.broken_at, f"glasses/{said.id}", details
        )

    def _state(self, page: PageShape) -> dict[str, Any]:
        """The page as it is, where PagerDuty itself says who is on call."""
        event = self._event(_ENDS.get(page.state, "trigger"), page.id, page.round)
        if page.state in _ENDS:
            return event
        details = {"level": page.level, "loop": page.loop, "state": page.state}
        return event | self._call(page.id, _TEXT, page.ladder, page.kind, page.raised_at, f"pages/{page.id}", details)

    def _call(
        self,
        page_id: str,
        text: str,
        ladder: str,
        reason: str,
        raised_at: datetime,
        link: str,
        details: Mapping[str, Any],
    ) -> dict[str, Any]:
        settings = self._settings
        place = f"{settings.console_url}/{link.lstrip('/')}" if settings.console_url is not None else None
        return {
            "payload": {
                "summary": text[:_SUMMARY_CHARS_MAX],
                "source": "handoff",
                "severity": settings.severity,
                "timestamp": raised_at,
                "component": ladder,
                "class": reason,
                "custom_details": {"page": page_id, **details},
            },
            "client": "Handoff",
            **({"client_url": place, "links": [{"href": place, "text": "the page"}]} if place is not None else {}),
        }

    def taken(self, answer: Answer) -> Result:
        """202, and `{"status": "success", "dedup_key": ...}`; another 2xx with other words is a proxy's."""
        try:
            said = msgspec.json.decode(answer.body, type=_Taken)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            said = _Taken()
        if answer.status != _ACCEPTED and said.status != "success":
            text = "the answer is not that of the Events API"
            return failed(DeliveryFailure.TRANSIENT, "answer-unfit", text, of_destination=True)
        return delivered(said.dedup_key)


class _Agent(msgspec.Struct, frozen=True):
    summary: str | None = None


class _Incident(msgspec.Struct, frozen=True):
    incident_key: str | None = None


class _Event(msgspec.Struct, frozen=True):
    id: str
    event_type: str
    agent: _Agent | None = None
    data: _Incident | None = None


class _Heard(msgspec.Struct, frozen=True):
    event: _Event


class _Taken(msgspec.Struct, frozen=True):
    status: str = ""
    dedup_key: str | None = None
