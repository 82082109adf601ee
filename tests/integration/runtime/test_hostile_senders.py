"""Senders that mean harm, or behave as if they did: memory stays bounded, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import CR, END, START, Feed, Sender, adt, code, codes, eventually, fields, frame

from engine.hl7v2 import mllp
from engine.runtime import listener

MakeFeed = Callable[..., Awaitable[Feed]]


@contextlib.contextmanager
def stuck_disk(feed: Feed) -> Iterator[None]:
    """Nothing gets to the disk until the end of the block."""
    go_on = threading.Event()
    append = feed.store.journal.append_each

    def wait(conn: Any, items: Any) -> Any:
        go_on.wait(60)
        return append(conn, items)

    feed.store.journal.append_each = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        feed.store.journal.append_each = append  # type: ignore[method-assign]
        go_on.set()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def vanish(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# --- floods of frames ------------------------------------------------------------------------------------------------


async def test_a_flood_of_empty_frames_takes_no_more_room_than_the_pipeline_has_and_each_is_answered(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = await make_feed(listen={"pipeline_frames_max": 50})
    most = 0
    take = feed.listener.take

    def watched(exchange: Any, one: mllp.Frame) -> None:
        nonlocal most
        most = max(most, len(exchange.connection.exchanges))
        take(exchange, one)

    monkeypatch.setattr(feed.listener, "take", watched)
    sender = await feed.sender()
    writing = asyncio.create_task(sender.write(frame(b"") * 3000))
    assert {code(await sender.answer()) for _ in range(3000)} == {"AR"}
    await writing
    assert most == 50
    assert len(feed.entries()) == 3000


async def test_a_flood_that_ends_in_a_half_close_is_answered_to_the_last_frame(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"pipeline_frames_max": 20})
    sender = await feed.sender()
    await sender.write(*(frame(adt(str(number))) for number in range(400)), START, adt("400"), END)
    sender.writer.write_eof()
    answers = [await sender.answer() for _ in range(401)]
    assert [fields(answer, "MSA")[2] for answer in answers] == [str(number) for number in range(401)]
    assert await sender.closed()


async def test_end_bytes_inside_a_payload_do_not_stop_the_reading(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"pipeline_frames_max": 10})
    sender = await feed.sender()
    payload = adt("1") + b"NTE|1||" + b"\x1cA" * 50_000 + b"\r"
    assert code(await sender.exchange(payload)) == "AA"
    assert feed.entries()[0].payload == payload


async def test_a_frame_without_end_takes_no_more_memory_than_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"frame_bytes_max": 65536})
    sender = await feed.sender()
    most = 0
    await sender.write(START, adt("1"))
    for _ in range(256):
        await sender.write(b"x" * (256 << 10))
        most = max(most, feed.listener.inflight_bytes)
    await sender.write(END, CR)
    answer = await sender.answer()
    assert (code(answer), fields(answer, "MSA")[2]) == ("AR", "1")
    assert most <= 65536 + (512 << 10)  # the bytes that are kept, and those of one read
    assert len(feed.entries()[0].payload) == 65536


async def test_any_bytes_in_a_frame_are_kept_as_they_came_and_answered_once(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"mode": "original"})  # else such bytes might say that no answer is asked for
    sender = await feed.sender()
    dice = random.Random(7)
    sent: list[bytes] = []
    for number in range(300):
        payload = bytearray(adt(str(number)) if number % 3 else dice.randbytes(dice.randrange(200)))
        for _ in range(dice.randrange(12)):
            if payload:
                payload[dice.randrange(len(payload))] = dice.randrange(256)
        sent.append(bytes(payload).translate(None, START + END))
        await sender.send(sent[-1])
        await sender.answer()
    assert await sender.silent()
    assert [entry.payload for entry in feed.entries()] == sent


async def test_a_batch_of_more_messages_than_the_channel_takes_is_kept_and_refused_whole(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"batch_messages_max": 3})
    sender = await feed.sender()
    four = b"BHS|^~\\&\r" + b"".join(adt(str(number)) for number in range(4)) + b"BTS|4\r"
    answer = await sender.exchange(four)
    assert code(answer) == "AR"
    assert fields(answer, "ERR")[3].startswith("104^")
    assert await sender.silent()
    (entry,) = feed.entries()
    assert entry.payload == four
    await sender.send(b"BHS|^~\\&\r" + b"".join(adt(str(number)) for number in range(3)) + b"BTS|3\r")
    assert codes([await sender.answer() for _ in range(3)]) == ["AA"] * 3


# --- memory ----------------------------------------------------------------------------------------------------------


async def test_what_waits_for_the_disk_counts_as_in_flight_though_its_sender_is_gone(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 600_000})
    with stuck_disk(feed):
        for number in range(6):
            sender = await feed.sender()
            writing = asyncio.create_task(sender.send(adt(str(number)) + b"NTE|1||" + b"x" * 200_000 + b"\r"))
            if feed.listener.full:
                await asyncio.sleep(0.1)
            else:
                await eventually(lambda number=number: feed.listener.waiting_bytes > 200_000 * (number + 1))
            sender.abort()
            await asyncio.gather(writing, return_exceptions=True)
        await asyncio.sleep(0.2)
        assert 600_000 < feed.listener.inflight_bytes < 1_400_000  # and no more is read
    await eventually(lambda: feed.listener.inflight_bytes == 0)
    assert code(await (await feed.sender()).exchange(adt("9"))) == "AA"


async def test_halves_of_large_frames_never_keep_small_messages_of_others_out(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 400_000, "connections_max": 20})
    hostile = [await feed.sender() for _ in range(10)]
    for sender in hostile:
        await sender.write(START, adt("x"), b"x" * 60_000)
    await eventually(lambda: feed.listener.full)
    await asyncio.sleep(0.1)
    good = await feed.sender()
    for number in range(20):
        assert code(await good.exchange(adt(str(number)))) == "AA"
    for sender in hostile:  # and whoever was only slow is served in the end
        await sender.write(END, CR)
    assert codes([await sender.answer() for sender in hostile]) == ["AA"] * 10


async def test_the_room_that_a_message_takes_beside_its_bytes_counts_too(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 100_000})
    with stuck_disk(feed):
        sender = await feed.sender()
        for _ in range(60):
            await sender.write(frame(b""))
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
        assert sum(len(connection.exchanges) for connection in feed.listener.connections) < 60
    assert {code(await sender.answer()) for _ in range(60)} == {"AR"}


# --- connections -----------------------------------------------------------------------------------------------------


async def test_as_many_as_there_is_room_for_may_connect_at_the_same_moment(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 200})
    senders = await asyncio.gather(*(feed.sender() for _ in range(200)))
    answers = await asyncio.gather(*(sender.exchange(adt(str(number))) for number, sender in enumerate(senders)))
    assert set(codes(answers)) == {"AA"}
    assert not feed.counts.connections_refused


async def test_a_flood_of_connections_is_told_for_a_while_and_then_just_closed(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_TURNED_AWAY_MAX", 5)
    feed = await make_feed(listen={"connections_max": 1})
    inside = await feed.sender()
    await inside.exchange(adt("1"))
    flood = [connect(feed.port) for _ in range(30)]
    await eventually(lambda: feed.counts.connections_refused["too-many"] == 30)
    assert len(feed.listener.connections) + len(feed.listener.lingering) <= 6
    assert code(await inside.exchange(adt("2"))) == "AA"
    for sock in flood:
        sock.close()


async def test_a_message_of_a_peer_that_is_not_allowed_is_not_taken_though_the_peer_is_gone(
    make_feed: MakeFeed,
) -> None:
    """Its address can't be asked for any more by then."""
    feed = await make_feed(listen={"allow": ["10.0.0.0/8"]})
    for number in range(10):
        sock = connect(feed.port)
        sock.sendall(frame(adt(str(number))))
        vanish(sock)
    await eventually(lambda: feed.counts.connections_refused["not-in-allow-list"] == 10)
    await asyncio.sleep(0.1)
    assert feed.entries() == []


async def test_without_descriptors_those_who_are_connected_are_served_and_others_as_soon_as_there_are_some(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_NO_DESCRIPTOR_SECONDS", 0.1)
    feed = await make_feed()
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    inside = await feed.sender()
    await inside.exchange(adt("1"))
    waiting = socket.socket()
    waiting.settimeout(60)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        await asyncio.to_thread(waiting.connect, ("127.0.0.1", feed.port))
        await eventually(lambda: feed.counts.connections_refused["no-descriptor"] > 0)
        assert code(await inside.exchange(adt("2"))) == "AA"
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await asyncio.to_thread(waiting.sendall, frame(adt("3")))
    assert b"MSA|AA|3" in await asyncio.to_thread(waiting.recv, 4096)
    waiting.close()
    assert unhandled == []


async def test_a_peer_that_vanishes_without_a_word_is_found_by_keepalive(feed: Feed, sender: Sender) -> None:
    await sender.exchange(adt("1"))
    (connection,) = feed.listener.connections
    sock = connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    seconds = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + sock.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_KEEPCNT
    ) * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    assert seconds <= 120


async def test_a_sender_that_vanishes_while_its_message_is_being_written_gets_the_stored_answer_when_it_is_back(
    feed: Feed, sender: Sender
) -> None:
    with stuck_disk(feed):
        await sender.send(adt("1"))
        await eventually(lambda: feed.listener.waiting_bytes > 0)
        sender.abort()
        await eventually(lambda: not feed.listener.connections)
    await eventually(feed.entries)
    assert [(entry.ack, entry.ack_state) for entry in await feed.settled()] == [("AA", "unsent")]
    again = await feed.sender()
    assert code(await again.exchange(adt("1"))) == "AA"
    assert len(feed.entries()) == 1


async def test_duplicates_on_two_connections_in_one_group_are_one_entry_with_equal_answers(feed: Feed) -> None:
    one, two, other = [await feed.sender() for _ in range(3)]
    with stuck_disk(feed):
        await other.send(adt("0"))
        await eventually(lambda: feed.listener.waiting_bytes > 0)
        await one.send(adt("1"))
        await two.send(adt("1"))
        await eventually(lambda: sum(len(connection.exchanges) for connection in feed.listener.connections) == 3)
    assert await one.answer() == await two.answer()
    assert len(feed.entries()) == 2
    assert feed.repeats() == 1


async def test_draining_under_load_loses_nothing_that_was_answered_and_answers_nothing_that_is_lost(
    make_feed: MakeFeed,
) -> None:
    feed = await make_feed()
    answered: set[str] = set()

    async def pour(number: int) -> None:
        sender = await feed.sender()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for index in range(10_000):
                control_id = f"{number}-{index}"
                answer = await sender.exchange(adt(control_id))
                assert (code(answer), fields(answer, "MSA")[2]) == ("AA", control_id)
                answered.add(control_id)
        sender.close()

    pouring = [asyncio.create_task(pour(number)) for number in range(8)]
    await eventually(lambda: len(answered) > 100)
    assert await feed.listener.drain(60)
    await asyncio.gather(*pouring)
    stored = {entry.summary.control_id for entry in feed.entries()}
    assert stored == answered
