"""Every limit of a listener has a clear behaviour; one that is full, slow or refused never holds up another."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from wire import END, START, Feed, Sender, adt, code, eventually, fields, frame

from engine.runtime import listener

MakeFeed = Callable[..., Awaitable[Feed]]


async def test_the_connection_too_many_is_told_and_closed_never_left_waiting(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 2})
    first, second = await feed.sender(), await feed.sender()
    await first.exchange(adt("1"))
    await second.exchange(adt("2"))
    third = await feed.sender()
    answer = await third.answer()
    assert code(answer) == "AR"
    assert fields(answer, "MSA")[2] == ""
    assert "too many connections" in fields(answer, "ERR")[8]
    assert await third.closed()
    assert feed.counts.connections_refused["too-many"] == 1
    assert code(await first.exchange(adt("3"))) == "AA"


async def test_the_connection_too_many_is_told_even_when_it_has_written_already(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 1})
    await (await feed.sender()).exchange(adt("1"))
    late = await feed.sender()
    await late.write(frame(adt("2")) * 50)
    assert code(await late.answer()) == "AR"
    assert len(feed.entries()) == 1


async def test_a_place_that_becomes_free_is_given_to_the_next(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 1})
    first = await feed.sender()
    await first.exchange(adt("1"))
    first.close()
    await eventually(lambda: not feed.listener.connections)
    assert code(await (await feed.sender()).exchange(adt("2"))) == "AA"


async def test_the_connection_too_many_is_told_cr_on_an_enhanced_channel_and_nothing_on_one_without_answers(
    make_feed: MakeFeed,
) -> None:
    enhanced = await make_feed(listen={"connections_max": 1}, ack={"mode": "enhanced"})
    await (await enhanced.sender()).exchange(adt("1"))
    assert code(await (await enhanced.sender()).answer()) == "CR"
    await enhanced.close()
    silent = await make_feed(listen={"connections_max": 1}, ack={"mode": "none"})
    await (await silent.sender()).send(adt("2"))
    await eventually(lambda: silent.counts.connections == 1)
    assert await (await silent.sender()).closed()


async def test_a_peer_outside_of_the_allowed_networks_is_closed_and_counted(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"allow": ["10.0.0.0/8", "192.168.0.0/16"]})
    assert await (await feed.sender()).closed()
    assert feed.counts.connections_refused["not-in-allow-list"] == 1


async def test_a_peer_inside_of_the_allowed_networks_is_served(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"allow": ["127.0.0.0/8"]})
    assert code(await (await feed.sender()).exchange(adt("1"))) == "AA"


async def test_a_connection_that_says_nothing_is_closed(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"idle_seconds_max": 1.5})
    idle, busy = await feed.sender(), await feed.sender()
    closing = asyncio.create_task(idle.closed())
    number = 0
    while not closing.done():
        assert code(await busy.exchange(adt(str(number)))) == "AA"
        await asyncio.sleep(0.02)
        number += 1
    assert await closing
    assert feed.counts.connections_closed["idle"] == 1


async def test_a_connection_whose_message_waits_for_processing_is_not_idle(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    listen = feed.channel.listen.model_copy(update={"idle_seconds_max": 0.2})  # now, or it might be too slow to send
    feed.listener.reconfigure(feed.channel.model_copy(update={"listen": listen}))
    other = await feed.sender()
    assert await other.closed()
    await asyncio.sleep(0.3)
    await feed.process()
    assert code(await sender.answer()) == "AA"


async def test_a_frame_that_takes_too_long_is_dropped_and_its_connection_closed(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"frame_seconds_max": 0.3})
    sender = await feed.sender()
    with contextlib.suppress(ConnectionError, RuntimeError):  # the latter: uvloop's, of a transport that is closed
        await sender.write(START)
        for byte in adt("1"):
            await sender.write(bytes((byte,)))
            await asyncio.sleep(0.02)
            if sender.reader.at_eof():
                break
    assert await sender.closed()
    assert feed.entries() == []
    assert feed.counts.connections_closed["slow-frame"] == 1


async def test_a_peer_that_does_not_take_its_answers_is_closed_and_they_are_unsent(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"write_seconds_max": 0.3})
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", feed.port))

    async def pour() -> None:
        number = 0
        with contextlib.suppress(ConnectionError):
            while True:
                number += 1
                await loop.sock_sendall(sock, frame(adt(f"{number}-" + "x" * 2000)))

    pouring = asyncio.create_task(pour())
    await eventually(lambda: feed.counts.connections_closed["slow-reader"] == 1)
    pouring.cancel()
    sock.close()
    states = {entry.ack_state for entry in await feed.settled()}
    assert states == {"sent", "unsent"}


async def test_a_peer_that_does_not_take_its_answers_is_not_read_meanwhile(make_feed: MakeFeed) -> None:
    feed = await make_feed()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", feed.port))
    pouring = asyncio.create_task(
        loop.sock_sendall(sock, b"".join(frame(adt(f"{n}-" + "x" * 900)) for n in range(20_000)))
    )
    await asyncio.sleep(0.2)
    before = -1
    while before != (now := len(feed.entries())):  # until nothing more is taken
        before = now
        await asyncio.sleep(0.3)
    assert before < 20_000
    other = await feed.sender()
    assert code(await other.exchange(adt("other"))) == "AA"
    pouring.cancel()
    sock.close()


async def test_unanswered_frames_of_a_connection_are_limited_and_none_is_lost(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"pipeline_frames_max": 4}, ack={"when": "processed"})
    sender = await feed.sender()
    for number in range(40):
        await sender.send(adt(str(number)))
        await asyncio.sleep(0.002)
    await eventually(lambda: len(feed.entries()) >= 4)
    await asyncio.sleep(0.2)
    assert len(feed.entries()) < 40
    got = asyncio.create_task(take(sender, 40))
    processed = 0
    while processed < 40:
        await eventually(lambda: len(feed.entries()) > processed)
        processed = await feed.process()
    assert [fields(answer, "MSA")[2] for answer in await got] == [str(number) for number in range(40)]


async def take(sender: Sender, count: int) -> list[bytes]:
    return [await sender.answer() for _ in range(count)]


async def test_bytes_in_flight_of_a_channel_are_limited_and_none_is_lost(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 4096}, ack={"when": "processed"})
    senders = [await feed.sender() for _ in range(8)]
    for number, sender in enumerate(senders):
        await sender.send(adt(str(number)) + b"NTE|1||" + b"x" * 1500 + b"\r")
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(feed.entries()) < 8
    waiting = [asyncio.create_task(sender.answer()) for sender in senders]
    processed = 0
    while processed < 8:
        await eventually(lambda: len(feed.entries()) > processed)
        processed = await feed.process()
    assert {code(answer) for answer in await asyncio.gather(*waiting)} == {"AA"}
    await eventually(lambda: feed.listener.inflight_bytes == 0)


async def test_incomplete_frames_alone_never_block_the_channel_for_ever(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 20_000, "frame_bytes_max": 65536})
    senders = [await feed.sender() for _ in range(6)]
    big = [adt(str(number)) + b"NTE|1||" + b"x" * 12_000 + b"\r" for number in range(6)]
    for sender, payload in zip(senders, big, strict=True):
        await sender.write(START, payload[:8000])
        await asyncio.sleep(0.02)
    for sender, payload in zip(senders, big, strict=True):
        await sender.write(payload[8000:], END, b"\r")
    answers = await asyncio.gather(*(sender.answer() for sender in senders))
    assert {code(answer) for answer in answers} == {"AA"}
    assert [entry.payload for entry in sorted(feed.entries(), key=lambda entry: entry.payload)] == big
    await eventually(lambda: feed.listener.inflight_bytes == 0)


async def test_the_bytes_of_a_connection_that_is_gone_are_given_back(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.write(frame(adt("1")), START, b"MSH|half")
    await eventually(lambda: feed.listener.unfinished_bytes > 0 and feed.listener.waiting_bytes > 0)
    sender.abort()
    await eventually(lambda: feed.listener.inflight_bytes == 0)
    assert feed.counts.connections == 0


async def test_draining_answers_what_was_received_and_then_closes(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    senders = [await feed.sender() for _ in range(3)]
    idle = await feed.sender()
    for number, sender in enumerate(senders):
        await sender.send(adt(str(number)))
    await eventually(lambda: len(feed.entries()) == 3)
    draining = asyncio.create_task(feed.listener.drain(60))
    assert await idle.closed()
    await feed.process()
    for sender in senders:
        assert code(await sender.answer()) == "AA"
        assert await sender.closed()
        sender.close()
    assert await draining is True
    with pytest.raises(ConnectionError):
        await Sender.to(feed.port)


@pytest.mark.parametrize("rounds", range(6))
async def test_a_connection_that_comes_as_a_drain_begins_is_closed_and_not_waited_for(
    make_feed: MakeFeed, rounds: int
) -> None:
    """Whatever it has come to by then: the loop takes some rounds to accept it, to make its transport and to read."""
    feed = await make_feed()
    with socket.create_connection(("127.0.0.1", feed.port)) as sock:
        for _ in range(rounds):
            await asyncio.sleep(0)
        draining = asyncio.create_task(feed.listener.drain(60))
        sender = Sender(*await asyncio.open_connection(sock=sock))
        assert await sender.closed()
        sender.abort()
        async with asyncio.timeout(30):  # less than the drain would wait
            assert await draining
    assert feed.counts.connections == 0


async def test_draining_gives_up_on_answers_that_do_not_come_in_time(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    assert await feed.listener.drain(0.2) is False
    assert not feed.listener.connections


async def test_a_frame_that_is_incomplete_when_the_listener_drains_is_not_stored(make_feed: MakeFeed) -> None:
    feed = await make_feed()
    sender = await feed.sender()
    await sender.write(frame(adt("1")), START, adt("2")[:50])
    assert code(await sender.answer()) == "AA"
    draining = asyncio.create_task(feed.listener.drain(60))
    assert await sender.closed()
    sender.close()
    assert await draining
    assert len(feed.entries()) == 1
    assert feed.counts.partial_frames == 1


async def test_one_peer_never_takes_all_the_places(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 4, "connections_per_peer_max": 2})
    first, second = await feed.sender(), await feed.sender()
    assert code(await first.exchange(adt("1"))) == "AA"
    assert code(await second.exchange(adt("2"))) == "AA"
    third = await feed.sender()
    assert code(await third.answer()) == "AR"
    assert await third.closed()
    assert feed.counts.connections_refused["too-many-of-peer"] == 1
    for number, address in enumerate(("127.0.0.2", "127.0.0.3")):
        other = await feed.sender(local_addr=(address, 0))
        assert code(await other.exchange(adt(f"other {number}"))) == "AA"
    first.close()
    await eventually(lambda: len(feed.listener.connections) == 3)
    assert code(await (await feed.sender()).exchange(adt("3"))) == "AA"


async def test_a_peer_that_has_more_than_half_of_the_places_makes_room_for_others(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 4}, ack={"when": "processed"})
    greedy = [await feed.sender() for _ in range(4)]
    await greedy[0].send(adt("0"))  # waits for its answer
    await greedy[1].write(b"\x0bMSH|half of a frame")
    await eventually(lambda: len(feed.entries()) == 1)
    assert code(await (await feed.sender()).answer()) == "AR"  # not for one of its own
    for number, address in enumerate(("127.0.0.2", "127.0.0.3"), 1):
        other = await feed.sender(local_addr=(address, 0))
        await other.send(adt(str(number)))
        await eventually(lambda wanted=number: len(feed.entries()) == 1 + wanted)
    assert code(await (await feed.sender(local_addr=("127.0.0.4", 0))).answer()) == "AR"  # no one has too many now
    await feed.process()
    assert code(await greedy[0].answer()) == "AA"
    assert code(await other.answer()) == "AA"
    assert feed.counts.connections_closed["made-room"] == 2


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_peer_max"])
async def test_the_oldest_connection_that_never_said_anything_makes_room(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(listener, "_SILENT_SECONDS", 0.2)
    feed = await make_feed(listen={limit: 3})
    busy, silent, later = await feed.sender(), await feed.sender(), await feed.sender()
    assert code(await busy.exchange(adt("1"))) == "AA"
    await asyncio.sleep(0.3)
    assert code(await (await feed.sender()).exchange(adt("2"))) == "AA"
    assert await silent.closed()
    assert code(await busy.exchange(adt("3"))) == "AA"
    assert code(await later.exchange(adt("4"))) == "AA"
    assert feed.counts.connections_closed["made-room"] == 1
    assert code(await (await feed.sender()).answer()) == "AR"  # nobody is silent any more


async def test_refused_messages_and_connections_are_in_the_log_without_what_they_say(
    make_feed: MakeFeed, log: io.StringIO
) -> None:
    feed = await make_feed(listen={"connections_max": 1})
    sender = await feed.sender()
    assert code(await sender.exchange(adt("ZQX1", type="ORU^R01", sender="ZQXAPP|ZQXFAC"))) == "AR"
    assert code(await sender.exchange(b"ZQX garbage")) == "AR"
    assert code(await (await feed.sender()).answer()) == "AR"
    lines = [msgspec.json.decode(line) for line in log.getvalue().splitlines()]
    messages = [line for line in lines if line["event"] == "message refused"]
    assert [(line["error"], line["entry"]) for line in messages] == [("type-not-accepted", 1), ("header-missing", 2)]
    assert all(line["peer"].startswith("127.0.0.1:") for line in messages)
    (connection,) = [line for line in lines if line["event"] == "connection refused"]
    assert (connection["reason"], connection["peer"], connection["channel"]) == ("too-many", "127.0.0.1", "adt")
    assert "ZQX" not in log.getvalue()


async def test_a_storm_of_refused_messages_is_a_few_lines(feed: Feed, sender: Sender, log: io.StringIO) -> None:
    for number in range(100):
        await sender.exchange(adt(str(number), type="ORU^R01"))
    assert 1 <= log.getvalue().count("message refused") < 40
