"""The load generator: what it sends is real, and what it counts is true."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.domain.message import AckCode
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.header import read_header
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.simulator.bench.append import append_rate, sync_milliseconds
from engine.simulator.bench.load import Feed, Run, left_home, spread
from engine.simulator.bench.site import make_certificate

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
Answer = Callable[[bytes], bytes]
Pause = Callable[[int], Awaitable[None]]


def accept(payload: bytes) -> bytes:
    return acknowledge(read_header(payload), Verdict(code=AckCode.AA), now=NOW, control_id="R1")


async def at_once(number: int) -> None:
    pass


@asynccontextmanager
async def receiver(
    answer: Answer, received: list[bytes], pause: Pause = at_once, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder(1 << 20)
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                received.append(frame.payload)
                await pause(len(received))
                writer.write(wrap(answer(frame.payload)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def closed(port: int, *, senders: int, ca: str | None = None, **limits: float) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        run = Run("127.0.0.1", port, senders=senders, name="B", ca=ca)
        try:
            return run.closed(**{"seconds": 0.0, "warm_up_seconds": 0.0, "messages": 0} | limits)
        finally:
            run.close()

    return await asyncio.to_thread(work)


async def opened(port: int, *, senders: int, rate: float, seconds: float, series_seconds: float = 0) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        run = Run("127.0.0.1", port, senders=senders, name="B")
        try:
            return run.open(rate=rate, seconds=seconds, warm_up_seconds=0, series_seconds=series_seconds)
        finally:
            run.close()

    return await asyncio.to_thread(work)


LEFT = datetime(2026, 3, 5, 19, 30, tzinfo=UTC)


def messages_of(sender: int, count: int, name: str = "B") -> list[Message]:
    feed = Feed(name, sender, LEFT)
    stream = b"".join(bytes(feed.next()) for _ in range(count))
    return [Message.parse(frame.payload) for frame in FrameDecoder(1 << 20).feed(stream)]


def test_each_patient_is_admitted_updated_and_discharged_home() -> None:
    messages = messages_of(3, 9)
    assert [message.header.trigger_event for message in messages] == ["A01", "A08", "A03"] * 3
    patients = [message.get("PID-3[type=MR].1") for message in messages]
    assert len(set(patients)) == 3
    assert [patients[index] for index in (0, 3, 6)] == [patients[index] for index in (2, 5, 8)]
    assert len({message.get("PV1-19.1") for message in messages}) == 3
    assert {message.get("PV1-36") for message in messages[2::3]} == {"01"}
    assert {message.get("PV1-44") for message in messages} == {"20260302093000"}
    assert {message.get("PV1-45") or "" for message in messages} == {"", "20260305143000"}
    assert {deviation for message in messages for deviation in message.deviations} == set()


def test_a_discharge_is_fresh_so_that_it_opens_a_plan() -> None:
    now = datetime(2026, 11, 30, 22, 0, tzinfo=UTC)
    assert timedelta(0) < now - left_home(now) < timedelta(hours=1)
    assert datetime.now(UTC) - left_home() < timedelta(hours=1)


def test_a_frame_is_about_1200_bytes() -> None:
    feed = Feed("B", 0, LEFT)
    assert all(1150 <= len(feed.next()) <= 1300 for _ in range(3))


def test_senders_and_runs_share_no_ids() -> None:
    ids = [message.header.control_id for sender in (0, 1, 63, 4095) for message in messages_of(sender, 300)]
    ids += [message.header.control_id for message in messages_of(0, 300, "C")]
    assert len(set(ids)) == 1500
    patients = {message.get("PID-3[type=MR].1") for sender in (0, 4095) for message in messages_of(sender, 300)}
    assert len(patients) == 200


async def test_only_answers_with_aa_and_the_own_id_are_counted() -> None:
    received: list[bytes] = []

    def mostly(payload: bytes) -> bytes:
        if len(received) % 10 == 0:
            return accept(payload).replace(b"MSA|AA|", b"MSA|AE|")
        if len(received) % 10 == 5:
            return accept(payload).replace(read_header(payload).control_id_raw, b"B999900000000")
        return accept(payload)

    async with receiver(mostly, received) as port:
        result = await closed(port, senders=4, messages=100)
    assert len(received) == 100
    assert (result["sent"], result["acknowledged"], result["wrong"]) == (100, 80, 20)
    assert result["rate"] > 0
    assert result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"] <= result["max_ms"]


async def test_a_sender_waits_for_its_answer() -> None:
    received: list[bytes] = []
    async with receiver(accept, received) as port:
        await closed(port, senders=1, messages=30)
    assert [read_header(payload).control_id_raw for payload in received] == [
        b"B0000%08d" % number for number in range(30)
    ]


async def test_a_run_of_seconds_counts_only_what_came_after_the_warm_up() -> None:
    received: list[bytes] = []
    async with receiver(accept, received) as port:
        result = await closed(port, senders=2, seconds=1.0, warm_up_seconds=0.2)
    assert result["wrong"] == 0
    assert 0 < result["acknowledged"] < result["sent"] == len(received)
    assert result["seconds"] == 1.0


async def test_tls_is_spoken_only_with_who_shows_the_expected_certificate(tmp_path: Path) -> None:
    expected, other = tmp_path / "bench.crt", tmp_path / "other.crt"
    make_certificate(expected)
    make_certificate(other)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expected, expected.with_suffix(".key"))
    received: list[bytes] = []
    async with receiver(accept, received, tls=context) as port:
        result = await closed(port, senders=3, ca=str(expected), messages=60)
        with pytest.raises(ssl.SSLCertVerificationError):
            await closed(port, senders=1, ca=str(other), messages=1)
    assert (result["acknowledged"], result["wrong"], len(received)) == (60, 0, 60)


@pytest.mark.parametrize("measure", ["closed", "open"])
async def test_a_receiver_that_hangs_up_is_counted_as_wrong(measure: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if measure == "closed":
        result = await closed(port, senders=3, messages=30)
        assert result["sent"] == 3
    else:
        result = await opened(port, senders=3, rate=100, seconds=0.1)
    server.close()
    assert result["acknowledged"] == 0
    assert result["wrong"] == result["unanswered"] >= 3


async def test_at_a_fixed_rate_every_message_is_sent_once_however_slow_the_receiver() -> None:
    received: list[bytes] = []

    async def slowly(number: int) -> None:
        await asyncio.sleep(0.02)

    async with receiver(accept, received, slowly) as port:
        result = await opened(port, senders=2, rate=200, seconds=0.5, series_seconds=0.1)
    assert len({read_header(payload).control_id_raw for payload in received}) == len(received) == 100
    assert (result["sent"], result["acknowledged"], result["wrong"]) == (100, 100, 0)
    assert result["waited"] > 0
    assert sum(part["acknowledged"] for part in result["series"]) == 100
    assert [part["seconds"] for part in result["series"]] == [0.0, 0.1, 0.2, 0.3, 0.4]


async def test_a_stall_counts_for_every_message_that_was_due_in_it() -> None:
    """Coordinated omission: one answer is late, and the messages behind it could not even be sent."""
    received: list[bytes] = []

    async def stall(number: int) -> None:
        if number == 20:
            await asyncio.sleep(0.5)

    async with receiver(accept, received, stall) as port:
        result = await opened(port, senders=1, rate=100, seconds=1.0)
    assert result["acknowledged"] == 100
    assert result["waited"] >= 40  # due within the half second
    assert result["p50_ms"] >= result["from_sending"]["p50_ms"]
    assert result["p90_ms"] >= 390  # what was due in the first tenth of a second of it waited for the rest
    assert result["p90_ms"] >= result["from_sending"]["p90_ms"]
    assert result["max_ms"] >= 500


def test_percentiles_are_values_that_were_measured() -> None:
    values = [number / 1000 for number in range(1, 101)]
    assert spread(values) == {
        "p50_ms": 51.0, "p90_ms": 91.0, "p95_ms": 96.0, "p99_ms": 100.0, "p999_ms": 100.0, "max_ms": 100.0
    }  # fmt: skip
    assert set(spread([]).values()) == {None}


@pytest.mark.parametrize("group", [1, 64])
def test_the_append_probe_measures_something_and_leaves_nothing(tmp_path: Path, group: int) -> None:
    assert append_rate(tmp_path, b"x" * 1200, group=group, seconds=0.05) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_sync_probe_leaves_nothing(tmp_path: Path) -> None:
    median, worst = sync_milliseconds(tmp_path, times=5)
    assert 0 < median <= worst
    assert list(tmp_path.iterdir()) == []
