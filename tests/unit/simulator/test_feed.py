"""A simulated day on the wire: order per patient, resending, and honest counting."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime

import pytest

from engine.domain.message import AckCode
from engine.errors import DeliveryError
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.header import read_header
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.simulator.feed import Feed
from engine.simulator.pathways import load_book
from engine.simulator.traffic import Simulated, traffic

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
Judge = Callable[[bytes], Verdict | None]


class Hospital:
    """The receiving side. `judge` decides on each frame; none: the connection is cut without an answer."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.received: list[bytes] = []
        self.by_connection: dict[int, list[bytes]] = defaultdict(list)
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = len(self.by_connection)
        self.by_connection[connection] = []
        decoder = FrameDecoder(1 << 20)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for frame in decoder.feed(data):
                    self.received.append(frame.payload)
                    self.by_connection[connection].append(frame.payload)
                    verdict = self._judge(frame.payload)
                    if verdict is None:
                        writer.transport.abort()
                        return
                    header = read_header(frame.payload)
                    writer.write(wrap(acknowledge(header, verdict, now=NOW, control_id="R1")))
        writer.close()


@asynccontextmanager
async def hospital(judge: Judge) -> AsyncIterator[Hospital]:
    peer = Hospital(judge)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()


def day(messages: int) -> list[Simulated]:
    return list(traffic(load_book(), seed=3, day=date(2026, 3, 2), messages=messages))


def agree(_payload: bytes) -> Verdict:
    return Verdict(code=AckCode.AA)


async def test_messages_of_one_patient_take_one_connection_in_order() -> None:
    stream = day(400)
    async with hospital(agree) as peer:
        feed = Feed("127.0.0.1", peer.port, connections=5)
        summary = await feed.run(iter(stream))
    assert (summary.sent, summary.acked, summary.errors) == (400, {"AA": 400}, 0)
    assert sorted(peer.received) == sorted(each.payload for each in stream)
    place = {each.payload: (each.case, index) for index, each in enumerate(stream)}
    cases: dict[int, set[int]] = defaultdict(set)
    for connection, payloads in peer.by_connection.items():
        last: dict[int, int] = {}
        for payload in payloads:
            case, index = place[payload]
            cases[case].add(connection)
            assert last.get(case, -1) < index
            last[case] = index
    assert {len(connections) for connections in cases.values()} == {1}
    assert len(peer.by_connection) == 5


async def test_what_is_not_acknowledged_is_sent_again_byte_for_byte_before_anything_else() -> None:
    stream = day(60)
    lost = 0

    def cut_every_tenth(_payload: bytes) -> Verdict | None:
        nonlocal lost
        cut = len(peer.received) % 10 == 0
        lost += cut
        return None if cut else Verdict(code=AckCode.AA)

    async with hospital(cut_every_tenth) as peer:
        feed = Feed("127.0.0.1", peer.port, connections=1)
        summary = await feed.run(iter(stream))
    assert lost > 3
    assert (summary.sent, summary.acked, summary.errors, summary.unacknowledged) == (60, {"AA": 60}, lost, 0)
    once = [payload for index, payload in enumerate(peer.received) if [payload] != peer.received[index - 1 : index]]
    assert once == [each.payload for each in stream]


@pytest.mark.parametrize("verdict", [Verdict(code=AckCode.AR, hl7_code=207), Verdict(code=AckCode.CE)])
async def test_a_fault_of_the_receivers_is_tried_again(verdict: Verdict) -> None:
    def later(_payload: bytes) -> Verdict:
        return verdict if len(peer.received) < 3 else Verdict(code=AckCode.AA)

    async with hospital(later) as peer:
        summary = await Feed("127.0.0.1", peer.port, connections=1).run(iter(day(1)))
    assert summary.acked == {"AA": 1, verdict.code: 2}
    assert len(set(peer.received)) == 1


@pytest.mark.parametrize("verdict", [Verdict(code=AckCode.AE, hl7_code=101), Verdict(code=AckCode.AR, hl7_code=203)])
async def test_a_fault_of_the_messages_is_not_tried_again(verdict: Verdict) -> None:
    async with hospital(lambda _payload: verdict) as peer:
        summary = await Feed("127.0.0.1", peer.port, connections=2).run(iter(day(9)))
    assert (summary.sent, summary.acked) == (9, {verdict.code: 9})
    assert len(peer.received) == 9


async def test_patience_ends_with_the_error_that_ended_it() -> None:
    async with hospital(lambda _payload: None) as peer:
        feed = Feed("127.0.0.1", peer.port, connections=2, patience_seconds=1.0)
        with pytest.raises(DeliveryError) as caught:
            await feed.run(iter(day(9)))
    assert caught.value.error == "closed"
    assert feed.unacknowledged >= 1
    assert feed.accepted == 0
    assert feed.summary().errors >= 2


async def test_nobody_listening_is_told_at_once() -> None:
    async with hospital(agree) as peer:
        port = peer.port
    feed = Feed("127.0.0.1", port, connections=2, patience_seconds=60)
    with pytest.raises(DeliveryError) as caught:
        await feed.run(iter(day(9)))
    assert caught.value.error == "unreachable"
    assert feed.sent == 0


async def test_a_rate_spreads_the_messages() -> None:
    async with hospital(agree) as peer:
        summary = await Feed("127.0.0.1", peer.port, connections=4, per_second=100).run(iter(day(30)))
    assert summary.sent == 30
    assert summary.seconds >= 0.29  # the last one is not before its time; how much later is the machine's affair
