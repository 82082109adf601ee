"""The load generator: what it sends is real, and what it counts is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from engine.domain.message import AckCode
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.header import read_header
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.simulator.bench.append import append_rate, sync_milliseconds
from engine.simulator.bench.load import Run, frames, load

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
Answer = Callable[[bytes], bytes]


def accept(payload: bytes) -> bytes:
    return acknowledge(read_header(payload), Verdict(code=AckCode.AA), now=NOW, control_id="R1")


@asynccontextmanager
async def receiver(answer: Answer, received: list[bytes]) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder(1 << 20)
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                received.append(frame.payload)
                writer.write(wrap(answer(frame.payload)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def messages_of(sender: int, count: int, name: str = "B") -> list[Message]:
    [*frames_] = islice(frames(sender, name), count)
    [*payloads] = FrameDecoder(1 << 20).feed(b"".join(frame for frame, _ in frames_))
    return [Message.parse(frame.payload) for frame in payloads]


def test_each_patient_is_admitted_updated_and_discharged_home() -> None:
    messages = messages_of(3, 9)
    assert [message.header.trigger_event for message in messages] == ["A01", "A08", "A03"] * 3
    patients = [message.get("PID-3[type=MR].1") for message in messages]
    assert len(set(patients)) == 3
    assert [patients[index] for index in (0, 3, 6)] == [patients[index] for index in (2, 5, 8)]
    assert len({message.get("PV1-19.1") for message in messages}) == 3
    assert {message.get("PV1-36") for message in messages[2::3]} == {"01"}
    assert {message.get("PV1-44") for message in messages} == {"20260302091500"}
    assert {message.get("PV1-45") or "" for message in messages} == {"", "20260305143000"}
    assert {deviation for message in messages for deviation in message.deviations} == set()


def test_a_frame_is_about_1200_bytes() -> None:
    assert all(1150 <= len(frame) <= 1300 for frame, _ in islice(frames(0, "B"), 3))


def test_senders_and_runs_share_no_ids() -> None:
    ids = [message.header.control_id for sender in (0, 1, 63) for message in messages_of(sender, 300)]
    ids += [message.header.control_id for message in messages_of(0, 300, "C")]
    assert len(set(ids)) == 1200


async def test_only_answers_with_aa_and_the_own_id_are_counted() -> None:
    received: list[bytes] = []

    def mostly(payload: bytes) -> bytes:
        if len(received) % 10 == 0:
            return accept(payload).replace(b"MSA|AA|", b"MSA|AE|")
        if len(received) % 10 == 5:
            return accept(payload).replace(read_header(payload).control_id_raw, b"B99900000000")
        return accept(payload)

    async with receiver(mostly, received) as port:
        run = Run(seconds=0, warm_up_seconds=0, messages=100)
        result = await load("127.0.0.1", port, senders=4, name="B", run=run)
    assert len(received) == 100
    assert (result["sent"], result["acknowledged"], result["wrong"]) == (100, 80, 20)
    assert result["rate"] > 0
    assert result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]


async def test_a_sender_waits_for_its_answer() -> None:
    received: list[bytes] = []
    async with receiver(accept, received) as port:
        run = Run(seconds=0, warm_up_seconds=0, messages=30)
        await load("127.0.0.1", port, senders=1, name="B", run=run)
    assert [read_header(payload).control_id_raw for payload in received] == [
        b"B000%08d" % number for number in range(30)
    ]


async def test_a_receiver_that_hangs_up_is_counted_as_wrong() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    run = Run(seconds=0, warm_up_seconds=0, messages=30)
    result = await load("127.0.0.1", server.sockets[0].getsockname()[1], senders=3, name="B", run=run)
    server.close()
    assert (result["acknowledged"], result["wrong"]) == (0, 3)


@pytest.mark.parametrize("group", [1, 64])
def test_the_append_probe_measures_something_and_leaves_nothing(tmp_path: Path, group: int) -> None:
    assert append_rate(tmp_path, b"x" * 1200, group=group, seconds=0.05) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_sync_probe_leaves_nothing(tmp_path: Path) -> None:
    median, worst = sync_milliseconds(tmp_path, times=5)
    assert 0 < median <= worst
    assert list(tmp_path.iterdir()) == []
