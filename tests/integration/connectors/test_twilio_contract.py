"""Our calls, the peer's answers and our reading of Twilio's, held to the interface that Twilio has published.

The peer holds every call of every test to it (`Twilio.misfits`); here is shown that it would find a fault, and that
Twilio's own answers are read as they are meant.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from connector_deliveries import delivery, queued
from peers.rude_server import RudeServer
from peers.twilio import FROM, SID, Twilio, sid_of
from peers.twilio_interface import PLACE, STATUSES, examples, misfits_of_answer, misfits_of_call

from engine.clock import SystemClock
from engine.connectors.base import Called
from engine.connectors.twilio import TwilioConnector, TwilioDestination, signature
from engine.domain.delivery import Notice, Operation
from engine.settings import Secret

TOKEN = "token-of-a-test"
TEXT = Notice(id="t1-1", patient_key="MRN:1001", to="+15185550123", body="How are you?")
WHOLE: dict[str, Any] = {
    "content_retention": "discard",
    "address_retention": "retain",
    "whatsapp": {"from": "+14155238886", "templates": {"s/day-1": sid_of(1, "HX")}},
}


def phone(url: str, **settings: Any) -> TwilioDestination:
    return TwilioDestination(type="twilio", account_sid=SID, auth_token=TOKEN, base_url=url, **settings)


def connector(url: str, **settings: Any) -> TwilioConnector:
    return TwilioConnector("phone", phone(url, **settings), clock=SystemClock(), hooks="https://hooks.example.org")


def answered(value: Any, status: str) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("sender", [{"from": FROM}, {"messaging_service": sid_of(1, "MG")}])
async def test_each_form_of_our_calls_is_one_that_twilio_describes(sender: dict[str, str]) -> None:
    async with Twilio() as carrier:
        made = connector(carrier.url, **sender, **WHOLE)
        await made.connect()
        template = {"channel": "whatsapp", "template": "s/day-1", "fields": {"1": "Jane"}}
        for said in (TEXT, Notice(id="t2-1", patient_key="MRN:1001", to=TEXT.to, body="x", **template)):
            item = queued(delivery(Operation.SEND_TEXT, said.encoded()))
            assert [one.delivered for one in await made.deliver([item])] == [True]
            await made.look_up(item)
        await made.close()
        assert (len(carrier.creates), len(carrier.lists), carrier.misfits) == (2, 2, [])


@pytest.mark.parametrize("given", [{}, {"To": "+1", "Validity": "1"}, {"To": "+1", "ValidityPeriod": "soon"}])
def test_a_call_that_twilio_does_not_describe_would_be_found(given: dict[str, str]) -> None:
    assert misfits_of_call("create", SID, given)
    assert misfits_of_call("list", SID, {"PageSize": "2000"})
    assert misfits_of_call("list", "AC1", {})


def test_an_answer_of_the_peers_that_twilio_would_not_give_would_be_found() -> None:
    (_, good), *_ = examples("created")
    assert misfits_of_answer("created", good) == []
    assert misfits_of_answer("created", good | {"status": "underway"})
    assert misfits_of_answer("created", good | {"date_created": "2026-03-05"})
    assert misfits_of_answer("created", {name: value for name, value in good.items() if name != "error_code"})


@pytest.mark.parametrize(("name", "answer"), list(examples("created")))
async def test_twilios_own_answers_to_a_text_are_understood(name: str, answer: dict[str, Any]) -> None:
    with RudeServer(answered(answer, "201 CREATED")) as server:
        made = connector(server.url, **{"from": FROM})
        await made.connect()
        (result,) = await made.deliver([queued(delivery(Operation.SEND_TEXT, TEXT.encoded()))])
        await made.close()
    assert (result.delivered, result.receipt) == (True, answer["sid"]), name
    assert PLACE.format(AccountSid=SID).encode() in server.heads[0]


@pytest.mark.parametrize(("name", "answer"), list(examples("listed")))
async def test_twilios_own_lists_are_understood(name: str, answer: dict[str, Any]) -> None:
    """They are of years ago: nothing of them may be taken for a text of now, and none is unreadable."""
    with RudeServer(answered(answer, "200 OK")) as server:
        made = connector(server.url, **{"from": FROM})
        await made.connect()
        assert list(await made.look_up(queued(delivery(Operation.SEND_TEXT, TEXT.encoded())))) == [], name
        await made.close()


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_of_a_text_that_goes_out_means_something(status: str) -> None:
    url = "https://hooks.example.org/hooks/phone/status?of=k"
    own = signature(Secret(TOKEN), f"{url}MessageSidSM1MessageStatus{status}")
    headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": own}
    body = f"MessageSid=SM1&MessageStatus={status}".encode()
    said = phone("https://api.twilio.com", **{"from": FROM}).carrier_word(
        Called(headers=headers, body=body, now=0.0, url=url)
    )
    assert (said is None) == (status in {"receiving", "received"}), "those are of texts that come in"
