"""Webhooks against a receiver that verifies, refuses, asks for pauses and loses its answers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import NOW, delivery, queued
from peers.rude_server import RudeServer
from peers.webhook_receiver import WebhookReceiver

from engine.clock import SystemClock
from engine.connectors.base import NOT_ATTEMPTED, Result
from engine.connectors.checkpoints import places_of
from engine.connectors.posting import rest_until
from engine.connectors.registry import load
from engine.connectors.webhook import WebhookConnector, WebhookDestination, WebhookPlace, signature
from engine.domain.checkpoint import Checkpoint, read
from engine.domain.delivery import Notification, Operation
from engine.errors import CheckpointError, DeliveryFailure
from engine.settings import Secret
from engine.snapshot import Snapshot

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver(KEY) as server:
        yield server


@pytest.fixture
async def made() -> AsyncIterator[Callable[..., WebhookConnector]]:
    connectors: list[WebhookConnector] = []

    def make(url: str, **settings: Any) -> WebhookConnector:
        given = {"type": "webhook", "url": url, "secret": SECRET, "timeout_seconds": 20.0} | settings
        destination = WebhookDestination(**given)
        connectors.append(WebhookConnector("hook", destination, clock=SystemClock(), ca=None))
        return connectors[-1]

    yield make
    for connector in connectors:
        await connector.close()


async def send(connector: WebhookConnector, *numbers: int) -> list[Result]:
    await connector.connect()
    return await connector.deliver([queued(number=number) for number in numbers])


def test_the_signature_is_that_of_the_specification_s_libraries() -> None:
    # the example that the libraries of the specification test themselves with
    found = signature(
        Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_delivery_is_one_signed_call_whose_id_is_the_idempotency_key(
    receiver: WebhookReceiver, made: Callable[..., WebhookConnector]
) -> None:
    results = await send(made(receiver.url), 1, 2)
    assert [result.delivered for result in results] == [True, True]
    assert list(receiver.taken) == ["key-1", "key-2"]
    said = receiver.taken["key-1"]
    assert said["type"] == "upsert_patient"
    assert datetime.fromisoformat(said["timestamp"]) == NOW
    assert said["data"]["patient"]["key"] == "MRN:1001"
    assert set(receiver.paths) == {"/hook"}


async def test_a_page_goes_out_as_what_it_says(
    receiver: WebhookReceiver, made: Callable[..., WebhookConnector]
) -> None:
    connector = made(receiver.url)
    said = Notification(
        id="p1-1", page_id="p1", ladder="on-call", level=1, loop=1, step=1, person="lee", to="duty",
        text="Open the page", link="/pages/p1", reason="on_call_page", raised_at=NOW,
    )  # fmt: skip
    one = delivery(Operation.NOTIFY, said.encoded())
    await connector.connect()
    (result,) = await connector.deliver([queued(one)])
    assert result.delivered
    assert receiver.taken["key-1"]["type"] == "notify"
    assert receiver.taken["key-1"]["data"]["page_id"] == "p1"


async def test_a_call_whose_answer_was_lost_is_made_again_with_the_same_id(
    receiver: WebhookReceiver, made: Callable[..., WebhookConnector]
) -> None:
    receiver.lose = 1
    connector = made(receiver.url)
    assert connector.idempotent
    (first,) = await send(connector, 1)
    assert (first.delivered, first.failure, first.error) == (False, DeliveryFailure.AMBIGUOUS, "answer-lost")
    (again,) = await send(connector, 1)
    assert again.delivered
    assert receiver.calls == ["key-1", "key-1"]
    assert list(receiver.taken) == ["key-1"]


async def test_while_the_secret_changes_both_signatures_are_there(
    receiver: WebhookReceiver, made: Callable[..., WebhookConnector]
) -> None:
    (refused,) = await send(made(receiver.url, secret=OTHER), 1)
    assert (refused.failure, refused.error) == (DeliveryFailure.PERMANENT, "http-400")
    (result,) = await send(made(receiver.url, secret=OTHER, former_secret=SECRET), 1)
    assert result.delivered
    assert len(receiver.signatures) == 2


@pytest.mark.parametrize(
    ("status", "failure", "of_destination"),
    [
        (400, DeliveryFailure.PERMANENT, False),
        (413, DeliveryFailure.PERMANENT, False),
        (422, DeliveryFailure.PERMANENT, False),
        (301, DeliveryFailure.TRANSIENT, True),
        (307, DeliveryFailure.TRANSIENT, True),
        (401, DeliveryFailure.TRANSIENT, True),
        (403, DeliveryFailure.TRANSIENT, True),
        (404, DeliveryFailure.TRANSIENT, True),
        (408, DeliveryFailure.TRANSIENT, True),
        (410, DeliveryFailure.TRANSIENT, True),
        (429, DeliveryFailure.TRANSIENT, True),
        (500, DeliveryFailure.TRANSIENT, True),
        (503, DeliveryFailure.TRANSIENT, True),
    ],
)
async def test_what_a_status_means(
    receiver: WebhookReceiver,
    made: Callable[..., WebhookConnector],
    status: int,
    failure: DeliveryFailure,
    of_destination: bool,
) -> None:
    receiver.answers = [(status, {"Location": "http://127.0.0.1:1/elsewhere"})]
    first, second = await send(made(receiver.url), 1, 2)
    assert (first.failure, first.error, first.of_destination) == (failure, f"http-{status}", of_destination)
    assert "Doe" not in first.text, "a word of the far end"
    if of_destination:
        assert second == NOT_ATTEMPTED
        assert receiver.calls == ["key-1"], "what would get the same answer was sent, or a redirect followed"
    else:
        assert second.delivered


async def test_a_pause_that_the_far_end_asks_for_is_kept(
    receiver: WebhookReceiver, made: Callable[..., WebhookConnector]
) -> None:
    receiver.answers = [(429, {"Retry-After": "120"})]
    before = datetime.now(UTC)
    (result,) = await send(made(receiver.url), 1)
    assert result.not_before is not None
    assert timedelta(seconds=110) < result.not_before - before < timedelta(seconds=130)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None), ("9" * 40, None),
        ("0", 0), ("30", 30), (" 30 ", 30), ("999999", 3600),
        ("Thu, 05 Mar 2026 14:31:00 GMT", 60), ("Thu, 05 Mar 2020 14:31:00 GMT", 0),
        ("Fri, 05 Mar 2027 14:31:00 GMT", 3600), ("Fri, 99 Foo 2027 14:31:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(said: str | None, seconds: float | None) -> None:
    until = rest_until(said, NOW)
    assert until == (None if seconds is None else NOW + timedelta(seconds=seconds))


async def test_nobody_there_and_no_answer(made: Callable[..., WebhookConnector]) -> None:
    (result,) = await send(made("http://127.0.0.1:9"), 1)
    assert (result.failure, result.error) == (DeliveryFailure.TRANSIENT, "unreachable")
    with RudeServer(silent=True) as server:
        (result,) = await send(made(f"{server.url}/x", timeout_seconds=0.5), 1)
    assert (result.failure, result.error) == (DeliveryFailure.AMBIGUOUS, "no-answer")


async def test_after_stop_nothing_is_begun(receiver: WebhookReceiver, made: Callable[..., WebhookConnector]) -> None:
    connector = made(receiver.url)
    await connector.connect()
    connector.stop()
    assert await connector.deliver([queued(number=1)]) == [NOT_ATTEMPTED]
    assert receiver.calls == []


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_", "whsec_abc"])
def test_a_secret_that_is_no_base64_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        WebhookDestination(type="webhook", url="https://example.org/x", secret=secret)


def test_a_short_secret_is_doubted() -> None:
    short = WebhookDestination(type="webhook", url="https://example.org/x", secret="letmein")
    assert [key for key, _ in short.doubts()] == ["secret"]
    good = WebhookDestination(type="webhook", url="https://example.org/x", secret=SECRET, former_secret=OTHER)
    assert list(good.doubts()) == []


# --- checkpoints of the trail ----------------------------------------------------------------------------------------

CHECKPOINT = Checkpoint(chain="c" * 32, seq=7, mac="ab" * 32, at=NOW, key=1, signature="cd" * 64)


def place(folder: Path, url: str) -> WebhookPlace:
    site = {
        "trail": {"checkpoints": [{"destination": "siem"}]},
        "destinations": {"siem": {"type": "webhook", "url": url, "secret": SECRET}},
    }
    for name in ("channels", "mappings"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps(site))
    (found,) = places_of(load(Snapshot.read(folder / "config.yaml")))
    assert isinstance(found, WebhookPlace)
    return found


async def test_a_checkpoint_arrives_signed_and_what_was_taken_is_noted(
    receiver: WebhookReceiver, tmp_path: Path
) -> None:
    siem = place(tmp_path, receiver.url)
    await asyncio.to_thread(siem.write, CHECKPOINT)
    await asyncio.to_thread(siem.write, CHECKPOINT)
    ((message_id, body),) = receiver.taken.items()
    assert receiver.calls == [message_id, message_id]  # so the far end can tell that it has it
    assert body["type"] == "trail_checkpoint"
    assert read(json.dumps(body)) == CHECKPOINT
    assert siem.read() == [CHECKPOINT, CHECKPOINT]


@pytest.mark.parametrize(("status", "why"), [(500, "HTTP 500"), (404, "HTTP 404"), (302, "HTTP 302")])
async def test_one_that_was_not_taken_is_not_noted(
    receiver: WebhookReceiver, tmp_path: Path, status: int, why: str
) -> None:
    receiver.answers.append((status, {"location": "https://elsewhere.example.org"}))
    siem = place(tmp_path, receiver.url)
    with pytest.raises(CheckpointError, match=why):
        await asyncio.to_thread(siem.write, CHECKPOINT)
    assert siem.read() == []


async def test_a_far_end_that_is_not_there_is_said(tmp_path: Path) -> None:
    siem = place(tmp_path, "http://127.0.0.1:1/hook")
    with pytest.raises(CheckpointError, match="destination siem: can't be reached"):
        await asyncio.to_thread(siem.write, CHECKPOINT)
