"""Texts by Twilio, against one that behaves as its documentation says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from connector_deliveries import NOW, delivery, queued
from peers.rude_server import RudeServer
from peers.twilio import FROM, SID, TOKEN, Message, Twilio, sid_of

from engine.clock import FixedClock, SystemClock
from engine.connectors.base import NOT_ATTEMPTED, Result
from engine.connectors.twilio import TwilioConnector, TwilioDestination
from engine.domain.delivery import Notice, Notification, Operation, QueuedDelivery
from engine.domain.page import ack_code
from engine.errors import DeliveryError, DeliveryFailure

TO = "+15185550123"
SERVICE = sid_of(1, "MG")
TEXT = Notice(id="t1-1", patient_key="MRN:1001", to=TO, body="Example Hospital: how are you? Reply STOP to stop")
CALL = Notification(
    id="n1", page_id="p-1", step=1, ladder="on-call", level=1, loop=1, person="lee", to="+15185550777",
    text="A page waits.", link="pages/p-1", reason="on_call_page", raised_at=NOW,
)  # fmt: skip
Make = Callable[..., TwilioConnector]


@pytest.fixture
async def carrier() -> AsyncIterator[Twilio]:
    async with Twilio() as server:
        yield server


@pytest.fixture
async def made() -> AsyncIterator[Make]:
    connectors: list[TwilioConnector] = []

    def make(url: str, *, hooks: str | None = "https://hooks.example.org", **settings: Any) -> TwilioConnector:
        given = {"type": "twilio", "account_sid": SID, "auth_token": TOKEN, "base_url": url, "timeout_seconds": 20.0}
        clock = settings.pop("clock", SystemClock())
        whole = given | ({} if settings.keys() & {"messaging_service"} else {"from": FROM}) | settings
        connectors.append(TwilioConnector("phone", TwilioDestination(**whole), clock=clock, hooks=hooks))
        return connectors[-1]

    yield make
    for connector in connectors:
        await connector.close()


def one(content: Notice | Notification = TEXT, key: str = "k/1", **fields: Any) -> QueuedDelivery:
    operation = Operation.SEND_TEXT if isinstance(content, Notice) else Operation.NOTIFY
    made = queued(delivery(operation, content.encoded(), key=key))
    return msgspec.structs.replace(made, created_at=datetime.now(UTC), **fields)


async def tell(connector: TwilioConnector, *items: QueuedDelivery) -> list[Result]:
    await connector.connect()
    return await connector.deliver(items)


async def test_a_text_is_one_call_with_where_to_tell_what_becomes_of_it(carrier: Twilio, made: Make) -> None:
    (result,) = await tell(made(carrier.url), one())
    assert (result.delivered, result.receipt) == (True, carrier.messages[0].sid)
    assert carrier.creates == [
        {
            "To": TO,
            "From": FROM,
            "Body": TEXT.body,
            "StatusCallback": "https://hooks.example.org/hooks/phone/status?of=k%2F1",
        }
    ]


async def test_a_text_is_good_until_it_is_of_no_use_and_what_is_kept_is_as_configured(
    carrier: Twilio, made: Make
) -> None:
    connector = made(
        carrier.url, hooks=None, clock=FixedClock(NOW), messaging_service=SERVICE, content_retention="discard",
        address_retention="retain",
    )  # fmt: skip
    for seconds in (600, 40_000, 0.2):
        until = msgspec.structs.replace(TEXT, not_after=NOW + timedelta(seconds=seconds))
        assert (await tell(connector, one(until)))[0].delivered
    assert [form["ValidityPeriod"] for form in carrier.creates] == ["600", "36000", "1"]
    assert {"StatusCallback", "From"}.isdisjoint(carrier.creates[0])
    assert (carrier.creates[0]["MessagingServiceSid"], carrier.creates[0]["ContentRetention"]) == (SERVICE, "discard")


async def test_a_person_on_duty_reads_a_link_and_what_to_reply(carrier: Twilio, made: Make) -> None:
    connector = made(carrier.url, console_url="https://handoff.example.org")
    assert (await tell(connector, one(CALL)))[0].delivered
    body = carrier.creates[0]["Body"]
    assert body == f"A page waits. https://handoff.example.org/pages/p-1 Reply ACK {ack_code('p-1')}"
    (result,) = await tell(connector, one(msgspec.structs.replace(CALL, to=None)))
    assert (result.failure, result.error) == (DeliveryFailure.PERMANENT, "no-number")


@pytest.mark.parametrize(
    ("status", "code", "error", "failure", "of_destination"),
    [
        (400, 21211, "bad-number-21211", DeliveryFailure.PERMANENT, False),
        (400, 21614, "bad-number-21614", DeliveryFailure.PERMANENT, False),
        (400, 21610, "opted-out-21610", DeliveryFailure.PERMANENT, False),
        (400, 63016, "needs-template-63016", DeliveryFailure.PERMANENT, False),
        (400, 30007, "bad-text-30007", DeliveryFailure.PERMANENT, False),
        (400, 21408, "bad-region-21408", DeliveryFailure.PERMANENT, False),
        (400, 99999, "carrier-refused-99999", DeliveryFailure.PERMANENT, False),
        (400, None, "http-400", DeliveryFailure.PERMANENT, False),
        (401, 20003, "carrier-setup-20003", DeliveryFailure.TRANSIENT, True),
        (404, 20404, "carrier-setup-20404", DeliveryFailure.TRANSIENT, True),
        (400, 21606, "carrier-setup-21606", DeliveryFailure.TRANSIENT, True),
        (403, None, "http-403", DeliveryFailure.TRANSIENT, True),
        (400, 21611, "carrier-busy-21611", DeliveryFailure.TRANSIENT, True),
        (429, 20429, "carrier-busy-20429", DeliveryFailure.TRANSIENT, True),
        (429, None, "http-429", DeliveryFailure.TRANSIENT, True),
        (307, None, "http-307", DeliveryFailure.TRANSIENT, True),
    ],
)
async def test_an_error_is_judged_by_its_code(
    carrier: Twilio, made: Make, status: int, code: int | None, error: str, failure: str, of_destination: bool
) -> None:
    carrier.answers = [(status, code, {})]
    (result,) = await tell(made(carrier.url), one())
    assert (result.delivered, result.error, result.failure) == (False, error, failure)
    assert (result.of_destination, result.in_doubt) == (of_destination, False)


async def test_a_busy_carrier_says_how_long_to_wait(carrier: Twilio, made: Make) -> None:
    carrier.answers = [(429, 20429, {"Retry-After": "7"}), (400, 21611, {})]
    connector = made(carrier.url, clock=FixedClock(NOW))
    waits = [(await tell(connector, one()))[0].not_before for _ in range(2)]
    assert waits == [NOW + timedelta(seconds=7), NOW + timedelta(seconds=600)]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        ("+1518555", None),
        ("518-555-0123", "bad-number-21211"),
        ("", "bad-number-21211"),
        (TO, "bad-number-21614"),
        ("+525512345678", "bad-region-21408"),
    ],
)
async def test_a_number_that_is_none_a_landline_and_one_abroad_are_told(
    carrier: Twilio, made: Make, number: str, error: str | None
) -> None:
    carrier.landlines.add(TO)
    (result,) = await tell(made(carrier.url), one(msgspec.structs.replace(TEXT, to=number)))
    assert (result.error or None, result.delivered) == (error, error is None)


@pytest.mark.parametrize("body", ["\U0001f600 " * 40, "Niño, ¿cómo está?", "a" * 1600])
async def test_words_arrive_as_they_are(carrier: Twilio, made: Make, body: str) -> None:
    assert (await tell(made(carrier.url), one(msgspec.structs.replace(TEXT, body=body))))[0].delivered
    assert carrier.creates[0]["Body"] == body


async def test_too_many_words_never_leave(carrier: Twilio, made: Make) -> None:
    (result,) = await tell(made(carrier.url), one(msgspec.structs.replace(TEXT, body="a" * 1601)))
    assert (result.error, result.failure, carrier.creates) == ("bad-text-21617", DeliveryFailure.PERMANENT, [])


@pytest.mark.parametrize("lost", [500, 502, 503, 504, None])
async def test_what_may_have_been_sent_is_in_doubt_and_found(carrier: Twilio, made: Make, lost: int | None) -> None:
    carrier.lose = [lost]
    connector, item = made(carrier.url), one()
    (result, _) = await tell(connector, item, one(key="k2"))
    assert (result.delivered, result.in_doubt, result.of_destination) == (False, True, True)
    assert list(await connector.look_up(item)) == [carrier.messages[0].sid]
    assert len(carrier.creates) == 1, "it is not sent on while that is not known"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        b'HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{"sid":"../"}',
    ],
)
async def test_an_answer_of_something_in_between_is_in_doubt(made: Make, answer: bytes) -> None:
    with RudeServer(answer) as server:
        (result,) = await tell(made(server.url), one())
    assert (result.delivered, result.in_doubt, result.error) == (False, True, "answer-unfit")


async def test_a_carrier_that_is_not_there_was_told_nothing(made: Make) -> None:
    (result,) = await tell(made("http://127.0.0.1:9"), one())
    assert (result.error, result.in_doubt, result.failure) == ("unreachable", False, DeliveryFailure.TRANSIENT)


async def test_what_is_listed_and_can_not_be_it_is_not_found(carrier: Twilio, made: Make) -> None:
    connector, item = made(carrier.url), one()
    await connector.connect()
    now = datetime.now(UTC)
    form = {"To": TO, "From": FROM, "Body": TEXT.body}
    others = [
        Message(sid_of(1), form | {"Body": "other words"}, now),
        Message(sid_of(2), form | {"From": "+15005550007"}, now),
        Message(sid_of(3), form, now - timedelta(hours=1)),
        Message(sid_of(4), form, now, status="undelivered"),
        Message(sid_of(5), form | {"To": "+15185550124"}, now),
    ]
    carrier.messages += others
    assert list(await connector.look_up(item)) == []
    carrier.messages += [Message(sid_of(6), form | {"ContentRetention": "discard"}, now), Message(sid_of(7), form, now)]
    assert list(await connector.look_up(item)) == [sid_of(6), sid_of(7)], (
        "words that are not kept are no sign against it"
    )


async def test_what_failed_there_and_may_have_arrived_is_not_sent_again(carrier: Twilio, made: Make) -> None:
    """30410: a provider was too slow to answer; Twilio itself tries no second time."""
    connector, item = made(carrier.url), one()
    await connector.connect()
    form = {"To": TO, "From": FROM, "Body": TEXT.body}
    carrier.messages += [
        Message(sid_of(n), form, datetime.now(UTC), "failed", code) for n, code in ((1, 30410), (2, 30006))
    ]
    assert list(await connector.look_up(item)) == [sid_of(1)]


async def test_a_list_that_does_not_come_is_asked_for_again_and_one_that_tells_nothing_is_for_a_person(
    carrier: Twilio, made: Make
) -> None:
    connector = made(carrier.url)
    await connector.connect()
    carrier.list_answers = [503]
    with pytest.raises(DeliveryError) as caught:
        await connector.look_up(one())
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "http-503")
    blind = made(carrier.url, address_retention="obfuscate")
    await blind.connect()
    carrier.messages += [
        Message(sid_of(n), {"To": TO, "From": FROM, "Body": "x"}, datetime.now(UTC)) for n in range(200)
    ]
    for unsure in (blind, connector):
        with pytest.raises(DeliveryError) as caught:
            await unsure.look_up(one())
        assert caught.value.kind is DeliveryFailure.AMBIGUOUS


async def test_whatsapp_goes_by_its_template_and_by_free_words_without(carrier: Twilio, made: Make) -> None:
    templates = {"post-discharge-texts/day-1": sid_of(1, "HX"), "post-discharge-texts/day-1/es": sid_of(2, "HX")}
    connector = made(carrier.url, whatsapp={"from": "+14155238886", "templates": templates})
    said = msgspec.structs.replace(
        TEXT, channel="whatsapp", template="post-discharge-texts/day-1", fields={"first_name": "Jane"}
    )
    spanish = msgspec.structs.replace(said, language="es")
    free = msgspec.structs.replace(said, template="post-discharge-texts/day-2")
    carrier.written[TO] = datetime.now(UTC)
    for content in (said, spanish, free):
        assert (await tell(connector, one(content)))[0].delivered
    first, second, third = carrier.creates
    assert (first["To"], first["From"]) == (f"whatsapp:{TO}", "whatsapp:+14155238886")
    assert (first["ContentSid"], second["ContentSid"]) == (sid_of(1, "HX"), sid_of(2, "HX"))
    assert json.loads(first["ContentVariables"]) == {"first_name": "Jane"}
    assert "Body" not in first
    assert (third["Body"], "ContentSid" in third) == (TEXT.body, False)
    carrier.written[TO] -= timedelta(hours=24)
    assert (await tell(connector, one(free)))[0].error == "needs-template-63016"


async def test_nothing_is_begun_after_it_was_stopped(carrier: Twilio, made: Make) -> None:
    connector = made(carrier.url)
    await connector.connect()
    connector.stop()
    assert await connector.deliver([one()]) == [NOT_ATTEMPTED]
    assert carrier.creates == []


async def test_what_is_no_text_is_refused(carrier: Twilio, made: Make) -> None:
    broken = queued(delivery(Operation.SEND_TEXT, b'{"to": 1}'))
    foreign = queued(delivery(Operation.UPSERT_PATIENT))
    for item in (broken, foreign):
        assert [result.error for result in await tell(made(carrier.url), item)] == ["payload-unreadable"]
