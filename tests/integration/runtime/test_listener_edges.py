"""Each limit of the listener exactly at its edge, and one beyond: a limit that is tried far away may be any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from wire import START, Feed, Sender, adt, code, codes, eventually, fields, frame

from engine.runtime import answers, listener
from engine.runtime.listener import Connection, Room

MakeFeed = Callable[..., Awaitable[Feed]]
TICK = 0.001


async def connected(feed: Feed, count: int = 1) -> list[tuple[Sender, Connection]]:
    senders = [await feed.sender() for _ in range(count)]
    await eventually(lambda: len(feed.listener.connections) == count)
    by_port = {one.address[1]: one for one in feed.listener.connections}
    return [(sender, by_port[sender.writer.get_extra_info("sockname")[1]]) for sender in senders]


async def test_a_connection_may_be_idle_exactly_as_long_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"idle_seconds_max": 100})
    [(sender, connection)] = await connected(feed)
    connection.check(connection.seen_at + 100)
    assert code(await sender.exchange(adt("1"))) == "AA"
    connection.check(connection.seen_at + 100 + TICK)
    assert await sender.closed()
    assert feed.counts.connections_closed == {"idle": 1}


async def test_a_frame_may_take_exactly_as_long_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"frame_seconds_max": 100})
    [(sender, connection)] = await connected(feed)
    await sender.write(START, adt("1")[:20])
    await eventually(lambda: connection.unfinished)
    connection.check(connection.seen_at + 100)
    assert feed.counts.connections_closed == {}
    connection.check(connection.seen_at + 100 + TICK)
    assert await sender.closed()
    assert feed.counts.connections_closed == {"slow-frame": 1}


async def test_answers_may_wait_to_be_taken_exactly_as_long_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"write_seconds_max": 100})
    [(sender, connection)] = await connected(feed)
    connection.pause_writing()
    since = connection._stalled_since
    assert since is not None
    connection.check(since + 100)
    assert feed.counts.connections_closed == {}
    connection.check(since + 100 + TICK)
    assert await sender.closed()
    assert feed.counts.connections_closed == {"slow-reader": 1}


async def test_a_connection_that_was_told_something_may_take_a_second_to_read_it(make_feed: MakeFeed) -> None:
    feed = await make_feed()
    [(sender, connection)] = await connected(feed)
    connection.drain()
    since = connection._closing_since
    assert since is not None
    connection.check(since + listener._LINGER_SECONDS_MAX)
    assert connection in feed.listener.lingering
    connection.check(since + listener._LINGER_SECONDS_MAX + TICK)
    assert await sender.closed()
    await eventually(lambda: connection not in feed.listener.lingering)


async def test_connections_are_served_up_to_the_limit_and_one_more_is_told(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 3})
    taken = [sender for sender, _ in await connected(feed, 3)]
    assert codes([await sender.exchange(adt(str(n))) for n, sender in enumerate(taken)]) == ["AA"] * 3
    more = await feed.sender()
    assert code(await more.answer()) == "AR"
    assert feed.counts.connections_refused == {"too-many": 1}


async def test_connections_of_a_peer_are_served_up_to_their_limit_and_one_more_is_told(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_per_peer_max": 2})
    taken = [sender for sender, _ in await connected(feed, 2)]
    assert codes([await sender.exchange(adt(str(n))) for n, sender in enumerate(taken)]) == ["AA"] * 2
    more = await feed.sender()
    assert code(await more.answer()) == "AR"
    assert feed.counts.connections_refused == {"too-many-of-peer": 1}


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_peer_max"])
async def test_connections_beyond_a_limit_are_told_so_up_to_a_number_and_then_just_closed(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(listener, "_TURNED_AWAY_MAX", 2)
    feed = await make_feed(listen={limit: 1})
    (first, _), *_ = await connected(feed)
    await first.exchange(adt("1"))
    told = [await feed.sender() for _ in range(2)]
    assert codes([await sender.answer() for sender in told]) == ["AR", "AR"]
    assert await (await feed.sender()).closed(), "while those two read what they were told"


async def test_a_frame_may_be_exactly_as_long_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"frame_bytes_max": 1024})
    sender = await feed.sender()
    fits = adt("1") + b"NTE|1||" + b"x" * (1024 - len(adt("1")) - 8) + b"\r"
    assert len(fits) == 1024
    assert code(await sender.exchange(fits)) == "AA"
    answer = await sender.exchange(fits.replace(b"|1|P|", b"|2|P|").replace(b"xx\r", b"xxx\r"))
    assert (code(answer), fields(answer, "ERR")[5].split("^")[0]) == ("AR", "frame-too-long")


async def test_a_batch_may_hold_exactly_as_many_messages_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"batch_messages_max": 2})
    sender = await feed.sender()

    def batch(count: int) -> bytes:
        return b"BHS|^~\\&|A\r" + b"".join(adt(f"{count}{n}") for n in range(count)) + b"BTS|%d\r" % count

    await sender.send(batch(2))
    assert codes([await sender.answer(), await sender.answer()]) == ["AA", "AA"]
    assert code(await sender.exchange(batch(3))) == "AR"


async def test_a_connection_is_not_read_once_as_many_frames_wait_as_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"pipeline_frames_max": 3}, ack={"when": "processed"})
    [(sender, connection)] = await connected(feed)
    await sender.write(frame(adt("1")), frame(adt("2")))
    await eventually(lambda: len(connection.exchanges) == 2)
    assert not connection._holds
    await sender.send(adt("3"))
    await eventually(lambda: connection._holds)
    await feed.process()
    assert codes([await sender.answer() for _ in range(3)]) == ["AA"] * 3


async def test_a_channel_is_full_when_it_holds_more_bytes_than_the_limit(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"inflight_bytes_max": 8192, "connections_max": 4})
    [(_, connection), (_, other)] = await connected(feed, 2)
    channel = feed.listener

    def room(*, waiting: int = 0, unfinished: int = 0) -> Room:
        channel.waiting_bytes, channel.unfinished_bytes = waiting, unfinished
        channel.settle()
        return channel.room

    assert room(waiting=8192) is Room.FREE
    assert room(waiting=8193) is Room.WAITING
    assert room(unfinished=8192) is Room.FREE
    connection.unfinished = 8192 // 4  # its share: it may go on
    other.unfinished = 8192 // 4 + 1
    try:
        assert room(unfinished=8193) is Room.UNFINISHED
        assert not connection._holds
        assert channel._may_finish is other, "of those with more than their share one may finish its frame"
    finally:
        connection.unfinished = other.unfinished = 0
        room()


async def test_an_answer_is_late_exactly_when_its_time_is_over(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed", "processed_seconds_max": 500})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(lambda: feed.intake.late._waiting)
    [[waiter]] = feed.intake.late._waiting.values()
    assert not waiter.is_overdue(waiter.since + 500 - TICK)
    assert waiter.is_overdue(waiter.since + 500)
    await feed.process()
    assert code(await sender.answer()) == "AA"


async def test_as_many_answers_may_wait_for_their_outcome_as_the_limit(
    make_feed: MakeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_WAITERS_MAX", 2)
    feed = await make_feed()
    sender = await feed.sender()
    for number in range(3):
        assert code(await sender.exchange(adt(str(number), accept="AL", application="AL"))) == "CA"
    await feed.process()
    assert sorted([fields(await sender.answer(), "MSA")[2] for _ in range(2)]) == ["0", "1"]
    assert await sender.silent()
