from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import delivery, forward_payload, patient_payload, queued
from peers.mllp_receiver import MllpReceiver

from engine.connectors.base import Result
from engine.connectors.mllp import AnswersWithoutCode, MllpConnector, tls_context
from engine.domain.delivery import Operation, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure
from engine.settings import TlsClient


@pytest.fixture
async def receiver() -> AsyncIterator[MllpReceiver]:
    async with MllpReceiver() as peer:
        yield peer


def connector(port: int, *, timeout_seconds: float = 60.0, **settings: Any) -> MllpConnector:
    """timeout_seconds: to be short only where there is no answer; another may take its time on a busy machine."""
    given = {"host": "127.0.0.1", "deduplicates": False, "timeout_seconds": timeout_seconds}
    return MllpConnector("lab", port=port, **(given | settings))


def forwards(*control_ids: str) -> list[QueuedDelivery]:
    return [
        queued(delivery(Operation.FORWARD, forward_payload(control_id), key=control_id), number=number)
        for number, control_id in enumerate(control_ids, 1)
    ]


async def send(target: MllpConnector, *control_ids: str) -> list[str]:
    await target.connect()
    return outcomes(await target.deliver(forwards(*control_ids)))


def outcomes(results: Sequence[Result]) -> list[str]:
    return [
        "delivered" if r.delivered else "not attempted" if not r.attempted else f"{r.failure} {r.error}"
        for r in results
    ]


@pytest.mark.parametrize("answer", ["aa", "ca", "bare"])
async def test_a_message_with_an_answer_of_its_own_is_delivered(receiver: MllpReceiver, answer: str):
    receiver.behave(answer)
    target = connector(receiver.port, timeout_seconds=60.0)
    assert await send(target, "A") == ["delivered"]
    await target.close()
    assert receiver.received[0].startswith(b"MSH|^~\\&|EHR")


async def test_the_message_arrives_byte_for_byte(receiver: MllpReceiver):
    payload = b"MSH|^~\\&|EHR|A|B|C|20260305||ADT^A08|X1|P|2.3\rPID|1||7||M\xfcller\rZZZ|\x00\xff\r"
    item = queued(delivery(Operation.FORWARD, {"hl7": base64.b64encode(payload).decode()}))
    target = connector(receiver.port)
    await target.connect()
    assert outcomes(await target.deliver([item])) == ["delivered"]
    assert receiver.received == [payload]
    await target.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("ae", "transient answer-ae"),
        ("ar", "transient answer-ar"),
        ("ce", "transient answer-ce"),
        ("cr", "transient answer-cr"),
        ("ae:207", "transient answer-ae-207"),
        ("ae:206", "transient answer-ae-206"),
        ("ce:207", "transient answer-ce-207"),
        ("ar:207", "transient answer-ar-207"),
        ("ar:200", "permanent answer-ar-200"),
        ("cr:203", "permanent answer-cr-203"),
        ("ce:101", "permanent answer-ce-101"),
        ("ae:500", "transient answer-ae"),
        ("ar:19580715", "transient answer-ar"),
    ],
)
async def test_a_refusal_means_what_its_code_says(receiver: MllpReceiver, answer: str, expected: str):
    receiver.behave(answer)
    target = connector(receiver.port)
    assert await send(target, "A", "B") == [expected, "delivered"]
    await target.close()


@pytest.mark.parametrize("meaning", ["retry", "hold", "dead"])
@pytest.mark.parametrize("answer", ["ae", "ce", "ar", "cr", "ae:500", "ar:0"])
async def test_a_refusal_without_a_code_means_what_the_site_says(receiver: MllpReceiver, answer: str, meaning: str):
    receiver.behave(answer)
    mine, other = ("ae", "ar") if answer[1] == "e" else ("ar", "ae")
    answers = AnswersWithoutCode(**{mine: meaning, other: "hold" if meaning == "dead" else "dead"})
    target = connector(receiver.port, answers_without_code=answers)
    await target.connect()
    result, _ = await target.deliver(forwards("A", "B"))
    kind = {"retry": "transient", "hold": "undecided", "dead": "permanent"}[meaning]
    assert (result.failure, result.error) == (kind, f"answer-{answer[:2]}")
    assert (result.answered, result.attempts_max) == ((True, 10) if meaning == "retry" else (False, None))
    await target.close()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("foreign", "ambiguous answer-foreign"),
        ("aa!", "ambiguous answer-without-control-id"),
        ("garbage", "ambiguous answer-unreadable"),
        ("silent", "ambiguous no-answer"),
        ("close", "ambiguous connection-lost"),
    ],
)
async def test_what_is_no_answer_to_the_message_is_never_success_and_ends_the_connection(
    receiver: MllpReceiver, behaviour: str, expected: str
):
    receiver.behave(behaviour)
    target = connector(receiver.port, timeout_seconds=2.0 if behaviour == "silent" else 60.0)
    assert await send(target, "A", "B") == [expected, "not attempted"]
    assert receiver.control_ids() == ["A"]
    assert await send(target, "B") == ["delivered"]
    assert receiver.connections == 2
    await target.close()


async def test_a_late_answer_is_never_credited_to_the_next_message(receiver: MllpReceiver):
    """The receiver answers the first message too late, with what would come just before the second one's answer."""
    receiver.behave("late", "ae")
    target = connector(receiver.port, timeout_seconds=2.0)
    assert await send(target, "A") == ["ambiguous no-answer"]
    assert await send(target, "B") == ["transient answer-ae"]
    await target.close()


async def test_a_second_answer_to_the_same_message_is_not_taken_for_the_next_ones(receiver: MllpReceiver):
    """Enhanced mode: CA at once, AA when the receiver has worked on it."""
    receiver.behave("twice", "ae", "twice", "aa")
    target = connector(receiver.port)
    assert await send(target, "A", "B", "C", "D") == ["delivered", "transient answer-ae", "delivered", "delivered"]
    assert receiver.connections == 1
    await target.close()


async def test_what_stands_behind_an_answer_is_no_answer(receiver: MllpReceiver):
    receiver.behave("chatty", "chatty", "ae")
    target = connector(receiver.port)
    assert await send(target, "A", "B", "C") == ["delivered", "delivered", "transient answer-ae"]
    assert receiver.connections == 1
    await target.close()


async def test_a_control_id_is_never_used_twice_on_one_connection(receiver: MllpReceiver):
    """Or the late second answer to the first one could be credited to the second."""
    receiver.behave("twice", "ae")
    target = connector(receiver.port)
    assert await send(target, "A", "A") == ["delivered", "transient answer-ae"]
    assert receiver.connections == 2
    await target.close()


@pytest.mark.parametrize("flood", [b"x" * 65536, b"\x0bx\x1c\r" * 10_000, b"\x0b" + b"x" * 65535])
async def test_a_receiver_that_says_very_much_and_nothing_is_given_up(flood: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        with contextlib.suppress(OSError):
            while True:
                writer.write(flood)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = connector(server.sockets[0].getsockname()[1], timeout_seconds=60.0)
    (result,) = await send(target, "A")
    assert result in {"ambiguous answer-endless", "ambiguous answer-unreadable"}
    await target.close()
    server.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".invalid", "no-such-host.invalid"])
async def test_a_name_that_leads_nowhere_is_transient(host: str):
    with pytest.raises(DeliveryError) as caught:
        await connector(2575, host=host, timeout_seconds=20.0).connect()
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "unreachable")


async def test_a_receiver_that_is_not_there_is_transient():
    async with MllpReceiver() as gone:
        port = gone.port
    with pytest.raises(DeliveryError) as caught:
        await connector(port).connect()
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "unreachable")


async def test_a_connection_that_the_receiver_closed_meanwhile_is_not_used(receiver: MllpReceiver):
    target = connector(receiver.port)
    assert await send(target, "A") == ["delivered"]
    receiver.drop_connections()
    assert target._link is not None
    while target._link.fresh():
        await asyncio.sleep(0.01)
    assert await send(target, "B") == ["delivered"]
    await target.close()


async def test_a_connection_that_was_long_idle_is_replaced(receiver: MllpReceiver):
    target = connector(receiver.port)
    assert await send(target, "A") == ["delivered"]
    assert target._link is not None
    target._link._used_at -= 60
    assert await send(target, "B") == ["delivered"]
    assert receiver.connections == 2
    await target.close()


async def test_what_cannot_be_sent_fails_by_itself(receiver: MllpReceiver):
    batch = [
        queued(delivery(Operation.UPSERT_PATIENT, patient_payload())),
        queued(delivery(Operation.FORWARD, b"{")),
        queued(delivery(Operation.FORWARD, {"hl7": "bm8gTVNI"})),
        queued(delivery(Operation.FORWARD, {"hl7": "TVNIfF5+XCZ8QXxCfHx8MjAyNnx8QURUXkEwOHxYfFB8Mi41DQscDQ=="})),
        *forwards("A"),
    ]
    target = connector(receiver.port)
    await target.connect()
    assert outcomes(await target.deliver(batch)) == [
        "permanent operation-unknown",
        "permanent payload-unreadable",
        "permanent header-unreadable",
        "permanent framing-bytes",
        "delivered",
    ]
    assert receiver.control_ids() == ["A"]
    await target.close()


async def test_whoever_stops_waiting_closes_the_connection(receiver: MllpReceiver):
    receiver.behave("silent")
    target = connector(receiver.port, timeout_seconds=30.0)
    await target.connect()
    waiting = asyncio.create_task(target.deliver(forwards("A")))
    while not receiver.received:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert target._link is None


def test_a_receiver_that_deduplicates_is_idempotent():
    assert connector(1, deduplicates=True).idempotent
    assert not connector(1).idempotent


# --- TLS ---


async def test_the_server_certificate_is_checked(certificate: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    receiver = MllpReceiver()
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    def tls(**files: str) -> Any:
        return lambda: tls_context(TlsClient(**files), lambda name: certificate / name)

    trusting = connector(port, host="localhost", timeout_seconds=60.0, tls=tls(ca="cert.pem"))
    assert await send(trusting, "A") == ["delivered"]
    await trusting.close()
    for settings, error in (
        ({"host": "localhost", "tls": tls()}, "tls-failed"),
        ({"host": "127.0.0.1", "tls": tls(ca="cert.pem")}, "tls-failed"),
        ({"host": "localhost", "tls": tls(ca="missing.pem")}, "tls-files"),
    ):
        with pytest.raises(DeliveryError) as caught:
            await connector(port, timeout_seconds=60.0, **settings).connect()
        assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, error)
    server.close()
