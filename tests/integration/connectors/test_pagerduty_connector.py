"""Notifications of pages as events of PagerDuty, against one that behaves as its documentation says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from connector_deliveries import NOW, delivery, queued
from peers.pagerduty import PagerDuty
from peers.rude_server import RudeServer

from engine.clock import SystemClock
from engine.connectors.base import NOT_ATTEMPTED, NOTHING_TO_SEND, Result
from engine.connectors.pagerduty import PagerDutyConnector, PagerDutyDestination
from engine.domain.delivery import Content, Notification, NotificationEnd, Operation, PageUpsert
from engine.domain.page import PageState
from engine.domain.shapes import PageShape
from engine.errors import DeliveryFailure

KEY, OTHER_KEY = "R0123456789ABCDEF0123456789ABCDE", "R1123456789ABCDEF0123456789ABCDE"
CALL = Notification(
    id="n1", page_id="p-1", step=1, ladder="on-call", level=1, loop=1, person="lee", to=None, text="Open the page.",
    link="pages/p-1", reason="on_call_page", raised_at=NOW,
)  # fmt: skip
PAGE = PageShape(
    id="p-1", patient_key="MRN:1001", task="t-1", kind="on_call_page", encounter="VN:1", ladder="on-call",
    policy_version="1", roster="on-call", level=1, loop=1, round=0, state=PageState.QUEUED, raised_at=NOW,
    next_at=NOW, acknowledged_by=None, acknowledged_at=None, on_ladder=None, ended_at=None, end_reason=None, steps=(),
)  # fmt: skip
END = NotificationEnd(page_id="p-1", state="acknowledged", by="lee", at=NOW)


@pytest.fixture
async def duty() -> AsyncIterator[PagerDuty]:
    async with PagerDuty(KEY, OTHER_KEY) as server:
        yield server


@pytest.fixture
async def made() -> AsyncIterator[Callable[..., PagerDutyConnector]]:
    connectors: list[PagerDutyConnector] = []

    def make(url: str, **settings: Any) -> PagerDutyConnector:
        given = {"type": "pagerduty", "url": url, "routing_key": KEY, "timeout_seconds": 20.0} | settings
        connectors.append(PagerDutyConnector("duty", PagerDutyDestination(**given), clock=SystemClock(), ca=None))
        return connectors[-1]

    yield make
    for connector in connectors:
        await connector.close()


async def tell(connector: PagerDutyConnector, *contents: Content) -> list[Result]:
    await connector.connect()
    operations = {
        Notification: Operation.NOTIFY, NotificationEnd: Operation.NOTIFY_END, PageUpsert: Operation.UPSERT_PAGE,
    }  # fmt: skip
    batch = [
        queued(delivery(operations[type(one)], one.encoded(), key=f"k{number}"), number=number)  # type: ignore[index]
        for number, one in enumerate(contents, start=1)
    ]
    return await connector.deliver(batch)


async def test_all_calls_of_a_page_are_one_incident_until_it_is_acknowledged_and_resolved(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    connector = made(duty.url)
    second = msgspec.structs.replace(CALL, id="n2", level=2, person="kim")
    results = await tell(connector, CALL, second)
    assert [(one.delivered, one.receipt) for one in results] == [(True, "p-1")] * 2
    (incident,) = duty.incidents["p-1"]
    assert [event["payload"]["custom_details"]["level"] for event in incident.events] == [1, 2]
    await tell(connector, END)
    assert incident.status == "acknowledged"
    await tell(connector, msgspec.structs.replace(END, state="resolved"))
    assert incident.status == "resolved"


async def test_a_page_that_is_raised_again_calls_anew(duty: PagerDuty, made: Callable[..., PagerDutyConnector]) -> None:
    connector = made(duty.url)
    await tell(connector, CALL, END, msgspec.structs.replace(CALL, round=1))
    assert [duty.incidents[key][0].status for key in ("p-1", "p-1-1")] == ["acknowledged", "triggered"]
    await tell(connector, msgspec.structs.replace(END, round=1))
    assert duty.incidents["p-1-1"][0].status == "acknowledged"


async def test_a_contact_with_an_address_has_a_service_of_its_own(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    connector = made(duty.url)
    await tell(connector, msgspec.structs.replace(CALL, to=OTHER_KEY))
    await tell(connector, msgspec.structs.replace(END, to=OTHER_KEY))
    (incident,) = duty.incidents["p-1"]
    assert (incident.routing_key, incident.status) == (OTHER_KEY, "acknowledged")


async def test_a_link_leads_to_the_console_where_one_is_named(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    await tell(made(duty.url), CALL)
    assert b"links" not in duty.bodies[-1]
    await tell(made(duty.url, console_url="https://console.example.org/handoff/"), CALL)
    event = msgspec.json.decode(duty.bodies[-1])
    assert event["links"][0]["href"] == event["client_url"] == "https://console.example.org/handoff/pages/p-1"


async def test_an_event_whose_answer_was_lost_is_sent_again_and_is_no_second_incident(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    duty.lose = 1
    connector = made(duty.url)
    (first,) = await tell(connector, CALL)
    assert (first.failure, first.error) == (DeliveryFailure.AMBIGUOUS, "answer-lost")
    assert connector.idempotent
    (again,) = await tell(connector, CALL)
    assert again.delivered
    assert [len(one) for one in duty.incidents.values()] == [1]


async def test_a_key_that_it_does_not_know_is_a_permanent_failure_that_names_nothing_of_it(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    (result,) = await tell(made(duty.url, routing_key="wrong"), CALL)
    assert (result.failure, result.error, result.of_destination) == (DeliveryFailure.PERMANENT, "http-400", False)
    assert "wrong" not in result.text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 403, 404])
async def test_when_it_takes_nothing_it_is_tried_again(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector], status: int
) -> None:
    duty.answers = [(status, {"Retry-After": "30"})]
    first, second = await tell(made(duty.url), CALL, END)
    assert (first.failure, first.error, first.of_destination) == (DeliveryFailure.TRANSIENT, f"http-{status}", True)
    assert first.not_before is not None
    assert second == NOT_ATTEMPTED, "the end would have gone before the call"


async def test_what_answers_otherwise_is_not_pagerduty(made: Callable[..., PagerDutyConnector]) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"
    with RudeServer(page) as server:
        (result,) = await tell(made(server.url), CALL)
    assert (result.failure, result.error, result.of_destination) == (DeliveryFailure.TRANSIENT, "answer-unfit", True)


async def test_a_channel_may_deliver_its_pages_where_pagerduty_says_who_is_on_call(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    connector = made(duty.url)
    seen = []
    for state in PageState:
        page = msgspec.structs.replace(PAGE, state=state)
        (result,) = await tell(connector, PageUpsert(page=page))
        assert result.delivered
        seen.append((state.value, duty.incidents["p-1"][-1].status))
    assert seen == [
        ("queued", "triggered"), ("sent", "triggered"), ("delivered", "triggered"), ("acknowledged", "acknowledged"),
        ("resolved", "resolved"), ("exhausted", "triggered"),
    ]  # fmt: skip
    assert all(b"1001" not in body and b"VN" not in body for body in duty.bodies), "a patient's number left"


async def test_an_end_that_is_none_of_its_events_is_not_sent(
    duty: PagerDuty, made: Callable[..., PagerDutyConnector]
) -> None:
    assert await tell(made(duty.url), msgspec.structs.replace(END, state="exhausted")) == [NOTHING_TO_SEND]
    assert duty.bodies == []


async def test_anything_but_a_notification_is_refused(duty: PagerDuty, made: Callable[..., PagerDutyConnector]) -> None:
    connector = made(duty.url)
    await connector.connect()
    (result,) = await connector.deliver([queued()])
    assert (result.failure, result.error) == (DeliveryFailure.PERMANENT, "not-a-notification")
    assert duty.bodies == []
