"""What Twilio tells us: who has signed it, and what it says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from connector_deliveries import delivery, queued
from peers.twilio import SID, TOKEN, signed

from engine.connectors.base import Called, UnsignedError
from engine.connectors.remedies import remedy
from engine.connectors.twilio import TwilioDestination, WhatsApp, code_of, codes, in_the_window
from engine.domain.chart import Chart
from engine.domain.delivery import Notice, Operation
from engine.domain.patient import Patient
from engine.domain.text import Reply, Text
from engine.pipeline.admit import GO, Known, Never

URL = "https://hooks.example.org/hooks/phone/message"
KEY = {"key": "WK1", "secret": "shared"}
SAID = {
    "MessageSid": "SM1",
    "From": "+15185550123",
    "To": "+15005550006",
    "Body": "¿Quién? \U0001f600 & = +",
    "NumMedia": "0",
}
NOW = datetime(2026, 3, 5, 14, 30, tzinfo=UTC)


def phone(**settings: Any) -> TwilioDestination:
    given = {"type": "twilio", "account_sid": SID, "auth_token": TOKEN, "from": "+15005550006"}
    return TwilioDestination(**(given | settings))


def called(
    form: Mapping[str, str] | list[tuple[str, str]] = SAID, *, url: str = URL, asked: str | None = None, **how: Any
) -> Called:
    """url: what is signed. asked: the address that we think was called."""
    pairs = form if isinstance(form, list) else list(form.items())
    headers, body = signed(url, pairs, **how)
    return Called(headers={name.lower(): v for name, v in headers.items()}, body=body, now=0.0, url=asked or url)


def test_a_text_that_comes_in_is_read_with_whatever_parameters_there_are() -> None:
    said = phone().incoming(called({**SAID, "SomethingNew": "x", "Empty": ""}))
    assert said is not None
    assert (said.id, said.channel, said.number, said.to) == ("SM1", "sms", "+15185550123", "+15005550006")
    assert (said.text, said.answered) == (SAID["Body"], None)


@pytest.mark.parametrize("body", ["", "x" * 1600, "x" * 10_000, "STOP", "\x00\x1b[31m", "\u202eSTOP"])
def test_whatever_a_patient_writes_is_taken_up_to_a_limit(body: str) -> None:
    said = phone().incoming(called({**SAID, "Body": body}))
    assert said is not None
    assert said.text == body[:4096]


def test_whatsapp_pictures_and_words_of_the_carriers_own() -> None:
    form = SAID | {"From": "whatsapp:+15185550123", "To": "whatsapp:+14155238886", "NumMedia": "2", "Body": ""}
    said = phone().incoming(called(form | {"OptOutType": "STOP"}))
    assert said is not None
    assert (said.channel, said.number, said.to, said.answered) == ("whatsapp", "+15185550123", "+14155238886", "STOP")
    assert said.text == "[2 picture or file: see it at the carrier]"


def test_several_of_a_name_are_signed_each_once_in_their_order() -> None:
    pairs = [*SAID.items(), ("Extra", "b"), ("Extra", "a"), ("Extra", "b"), ("extra", "c")]
    assert phone().incoming(called(pairs)) is not None


@pytest.mark.parametrize(
    ("signed_url", "asked"),
    [
        ("https://hooks.example.org:443/hooks/phone/message", URL),
        (URL, "https://hooks.example.org:443/hooks/phone/message"),
        ("http://127.0.0.1/hooks/phone/message", "http://127.0.0.1:80/hooks/phone/message"),
        (f"{URL}?of=k%2F1&of=%41", f"{URL}?of=k%2F1&of=%41"),
    ],
)
def test_the_port_that_goes_without_saying_may_be_signed_or_not_and_a_query_as_it_came(
    signed_url: str, asked: str
) -> None:
    assert phone().incoming(called(url=signed_url, asked=asked)) is not None


@pytest.mark.parametrize(
    "forged",
    [
        called(token="another"),
        called(asked="https://hooks.example.org/hooks/other/message"),
        called(asked="http://hooks.example.org/hooks/phone/message"),
        called(asked="https://hooks.example.org:8443/hooks/phone/message"),
        called(asked=URL + "?a=1"),
        msgspec.structs.replace(called(), body=called().body + b"&Body=STOP"),
        msgspec.structs.replace(called(), body=called().body.replace(b"SM1", b"SM2")),
        msgspec.structs.replace(called(), headers={}),
        msgspec.structs.replace(called(), headers={"content-type": "application/x-www-form-urlencoded"}),
        called(algorithm="sha256"),
        called(algorithm="md5"),
        called(settings="key=WK1,algorithm=HMAC_SHA1"),
        called(algorithm="sha256", token="shared", settings="key=WK1,algorithm=HMAC_SHA256"),
    ],
    ids=range(13),
)
def test_a_forged_call_is_refused(forged: Called) -> None:
    for ask in (phone().incoming, phone().carrier_word):
        with pytest.raises(UnsignedError):
            ask(forged)


def test_with_a_key_only_that_key_and_its_algorithm_count() -> None:
    keyed = phone(webhook_key=KEY)
    settings = "key=WK1,algorithm=HMAC_SHA256"
    right = called(algorithm="sha256", token="shared", settings=settings)
    assert keyed.incoming(right) is not None
    assert keyed.incoming(called(algorithm="sha256", token="shared", settings="algorithm=HMAC_SHA256, key=WK1"))
    for wrong in (
        called(),
        called(settings=settings),
        called(token="shared", settings=settings),
        called(token="shared", settings="key=WK1,algorithm=HMAC_SHA1"),
        called(algorithm="sha256", token="shared", settings="key=WK2,algorithm=HMAC_SHA256"),
        called(algorithm="sha256", token="shared", settings="key=WK1"),
        called(algorithm="sha256", token="shared", settings=""),
        called(algorithm="sha256", token=TOKEN, settings=settings),
    ):
        with pytest.raises(UnsignedError):
            keyed.incoming(wrong)


def test_while_the_token_is_changed_both_count() -> None:
    changing = phone(former_auth_token="old")
    assert changing.incoming(called()) is not None
    assert changing.incoming(called(token="old")) is not None
    with pytest.raises(UnsignedError):
        changing.incoming(called(token="older"))


def of_json(body: bytes, *, url: str = URL, hashes: int = 1, of: bytes | None = None) -> Called:
    own = hashlib.sha256(body if of is None else of).hexdigest()
    whole = url + "?" + "&".join([f"bodySHA256={own}"] * hashes) if hashes else url
    made = base64.b64encode(hmac.new(TOKEN.encode(), whole.encode(), "sha1").digest()).decode()
    headers = {"content-type": "application/json", "x-twilio-signature": made}
    return Called(headers=headers, body=body, now=0.0, url=whole)


def test_a_call_in_json_is_signed_with_the_hash_of_its_body() -> None:
    body = json.dumps(SAID | {"AddOns": {"a": 1}}).encode()
    assert phone().incoming(of_json(body)) is not None
    assert phone().incoming(of_json(body, hashes=2)) is not None, "Twilio adds it twice where it stood there already"
    for wrong in (of_json(body, of=b"{}"), of_json(body, hashes=0)):
        with pytest.raises(UnsignedError):
            phone().incoming(wrong)
    for unreadable in (b"[]", b"{", b"\xff"):
        with pytest.raises(ValueError, match="JSON"):
            phone().incoming(of_json(unreadable))


@pytest.mark.parametrize("gone", ["From", "MessageSid"])
def test_a_call_without_what_it_is_about_can_not_be_read(gone: str) -> None:
    with pytest.raises(ValueError, match="the call"):
        phone().incoming(called({name: value for name, value in SAID.items() if name != gone}))
    with pytest.raises(ValueError, match="the call"):
        phone().incoming(called({**SAID, gone: "../../x y"}))


@pytest.mark.parametrize(
    ("status", "error", "result", "detail"),
    [
        ("queued", "", "sent", None),
        ("sent", "", "sent", None),
        ("delivered", "", "delivered", None),
        ("read", "", "delivered", None),
        ("undelivered", "30006", "failed", "bad-number-30006"),
        ("failed", "30007", "failed", "bad-text-30007"),
        ("failed", "63014", "failed", "opted-out-63014"),
        ("failed", "63016", "failed", "needs-template-63016"),
        ("failed", "30001", "failed", "carrier-busy-30001"),
        ("undelivered", "30036", "failed", "carrier-late-30036"),
        ("failed", "", "failed", "carrier-refused-0"),
        ("failed", "1e9", "failed", "carrier-refused-0"),
        ("canceled", "", "failed", "carrier-refused-0"),
    ],
)
def test_a_word_about_a_text_says_which_and_what(status: str, error: str, result: str, detail: str | None) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": status} | ({"ErrorCode": error} if error else {})
    said = phone().carrier_word(called(form, url="https://hooks.example.org/hooks/phone/status?of=k%2F1"))
    assert said is not None
    assert (said.key, said.receipt, said.result, said.detail) == ("k/1", "SM1", result, detail)


def test_a_word_about_nothing_of_ours_says_nothing() -> None:
    place = "https://hooks.example.org/hooks/phone/status"
    assert phone().carrier_word(called({"MessageSid": "SM1", "MessageStatus": "sent"}, url=place)) is None
    assert phone().carrier_word(called({"MessageSid": "SM1", "MessageStatus": "new"}, url=f"{place}?of=k")) is None


def test_every_code_of_the_table_has_a_kind_and_a_remedy() -> None:
    assert len(codes()) >= 45
    for number in codes():
        assert not code_of(number).startswith("carrier-refused")
        assert remedy(code_of(number)) is not None, number
    assert remedy(code_of(12345)) is not None


def whatsapp_chart(replied: datetime | None) -> Chart:
    replies = () if replied is None else (Reply(id="SM0", at=replied, text="hi", meaning="free"),)
    text = Text(
        id="t1", series="s", series_version="1", step="day-0", channel="whatsapp", encounter=None,
        planned_for=NOW, due_at=None, useful_until=NOW, number="+15185550123", replies=replies,
    )  # fmt: skip
    return msgspec.structs.replace(EMPTY, texts=(text,))


EMPTY = Chart(id="c1", patient=Patient(identifiers=()))


@pytest.mark.parametrize(
    ("ago", "template", "goes"),
    [
        (None, None, False),
        (timedelta(hours=23, minutes=59), None, True),
        (timedelta(hours=24), None, False),
        (None, "post-discharge-texts/day-0", True),
        (timedelta(days=9), "post-discharge-texts/day-0", True),
        (timedelta(days=9), "post-discharge-texts/day-1", False),
    ],
)
def test_whatsapp_takes_free_words_for_a_day_after_the_patients_own(
    ago: timedelta | None, template: str | None, goes: bool
) -> None:
    whatsapp = WhatsApp(**{"from": "+14155238886", "templates": {"post-discharge-texts/day-0": "HX1"}})
    said = Notice(id="t1-1", patient_key="p", to="+15185550123", body="x", channel="whatsapp", template=template)
    item = queued(delivery(Operation.SEND_TEXT, said.encoded()))
    known = Known(chart=whatsapp_chart(NOW - ago if ago is not None else None))
    answer = in_the_window(whatsapp, item, known, NOW)
    assert answer == (GO if goes else Never(code="needs-template"))
    sms = queued(delivery(Operation.SEND_TEXT, msgspec.structs.replace(said, channel="sms").encoded()))
    assert in_the_window(whatsapp, sms, known, NOW) == GO
    assert in_the_window(None, item, known, NOW) == Never(code="needs-template")


@pytest.mark.parametrize(
    "settings",
    [{"from": None}, {"messaging_service": "MG1"}, {"account_sid": "12"}, {"webhook_key": KEY | {"algorithm": "SHA1"}}],
)
def test_settings_that_can_not_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        phone(**settings)


def test_what_may_not_be_meant_is_said() -> None:
    assert dict(phone(account_sid="AC1", **{"from": "Hospital"}).doubts()).keys() == {"account_sid", "from"}
    assert dict(phone().doubts()) == {}
