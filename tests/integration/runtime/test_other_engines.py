"""docs/guides/beside-mirth.md: senders that read answers otherwise than the standard has it, each played by a peer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable

import pytest
from peers.picky_sender import ERROR, SENT, UNANSWERED, PickySender
from test_intake_store_failure import full_disk
from wire import Feed, Sender, adt, code, eventually, fields, frame

from engine.runtime.metrics import REPEATS_TROUBLE, Repeats

MakeFeed = Callable[..., Awaitable[Feed]]
BATCH = b"BHS|^~\\&|OIE|MAIN|||||||b\r" + adt("b1") + adt("b2") + adt("b3") + b"BTS|3\r"


async def results(sender: PickySender, messages: dict[str, bytes]) -> list[str]:
    return [await sender.send(control_id, payload) for control_id, payload in messages.items()]


async def test_a_sender_that_reads_one_answer_a_frame_is_served_by_single_batch_answers(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"batch": "single"})
    async with PickySender(feed.port) as sender:
        sent = await results(sender, {"b1": BATCH} | {str(number): adt(str(number)) for number in range(5)})
    assert sent == [SENT] * 6


async def test_a_batch_that_is_answered_message_by_message_without_anybody_having_said_so_is_named_in_the_log(
    make_feed: MakeFeed, log: io.StringIO
) -> None:
    feed = await make_feed()
    async with PickySender(feed.port) as sender:
        assert await results(sender, {"b1": BATCH, "1": adt("1")}) == [SENT, ERROR]  # it was delivered all the same
    await eventually(lambda: len(feed.entries()) == 4)
    assert '"event": "batch answered message by message"' in log.getvalue()
    assert "ack.batch" in log.getvalue()


async def test_a_channel_that_says_how_batches_are_answered_has_no_such_line(
    make_feed: MakeFeed, log: io.StringIO
) -> None:
    sender = await (await make_feed(ack={"batch": "messages"})).sender()
    await sender.exchange(BATCH)
    assert "message by message" not in log.getvalue()


@pytest.mark.parametrize(("accept", "application"), [("AL", "AL"), ("SU", "AL"), ("AL", "ER"), ("NE", "AL"), ("", "")])
async def test_a_sender_that_reads_one_answer_a_message_gets_one_whatever_it_asks_for(
    make_feed: MakeFeed, accept: str, application: str
) -> None:
    feed = await make_feed(ack={"answers": "one"})
    async with PickySender(feed.port) as sender:
        for number in range(5):
            message = adt(str(number), accept=accept, application=application)
            sending = asyncio.create_task(sender.send(str(number), message))
            await eventually(lambda wanted=number: len(feed.entries()) > wanted)
            await feed.process()
            assert await sending == SENT
    assert [entry.payload for entry in feed.entries()] == [
        adt(str(number), accept=accept, application=application) for number in range(5)
    ]


async def test_a_refusal_is_the_one_answer_too(make_feed: MakeFeed) -> None:
    sender = await (await make_feed(ack={"answers": "one"})).sender()
    assert code(await sender.exchange(adt("1", accept="AL", application="AL", version="9.9"))) == "CR"
    assert await sender.silent()


async def test_a_sender_that_asks_for_no_answer_and_waits_for_one_is_answered_by_a_channel_of_original_mode(
    make_feed: MakeFeed,
) -> None:
    feed = await make_feed(ack={"mode": "original"})
    async with PickySender(feed.port) as sender:
        assert await sender.send("1", adt("1", accept="NE", application="NE")) == SENT
    assert sender.attempts == 1


async def test_a_sender_that_repeats_one_message_for_ever_is_trouble(make_feed: MakeFeed, log: io.StringIO) -> None:
    feed = await make_feed()
    async with PickySender(feed.port, answer_seconds_max=0.03, attempts_max=REPEATS_TROUBLE + 5) as sender:
        assert await sender.send("1", adt("1", accept="NE", application="NE")) == UNANSWERED
    assert len(feed.entries()) == 1
    await eventually(lambda: b'handoff_repeats_max{channel="adt"}' in feed.metrics.text())
    assert '"event": "sender repeats one message"' in log.getvalue()


def test_repeats_are_counted_for_each_message_and_forgotten_when_they_end() -> None:
    repeats = Repeats()
    assert repeats.most(0.0) == 0
    for second in range(30):
        repeats.count(7, float(second))
        repeats.count(8 + second, float(second))
    assert repeats.most(30.0) == 30
    assert repeats.most(10_000.0) == 0
    assert repeats.count(7, 10_000.0) == 1
    for entry in range(1000):
        repeats.count(entry, 10_001.0)
    assert repeats.most(10_001.0) <= 2


async def test_a_sender_that_takes_every_refusal_as_final_is_closed_while_the_store_fails_and_loses_nothing(
    make_feed: MakeFeed,
) -> None:
    feed = await make_feed(ack={"unavailable": "close"})
    async with PickySender(feed.port) as sender:
        assert await sender.send("1", adt("1")) == SENT
        with full_disk():
            sending = asyncio.create_task(sender.send("2", adt("2")))
            await eventually(lambda: sender.attempts > 4)
            assert not sending.done()
        assert await sending == SENT
        assert await sender.send("3", adt("3")) == SENT
    assert [entry.payload for entry in feed.entries()] == [adt("1"), adt("2"), adt("3")]
    assert feed.counts.connections_closed["unavailable"] > 0
    assert feed.counts.answers["AR"] == 0


async def test_answers_before_the_one_that_can_not_be_given_still_go_out(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"unavailable": "close"})
    sender = await feed.sender()
    assert code(await sender.exchange(adt("1"))) == "AA"
    with full_disk():
        await sender.write(*(frame(adt(str(number))) for number in range(2, 20)))
        assert await sender.closed()
    again = await feed.sender()
    await again.write(*(frame(adt(str(number))) for number in range(2, 20)))
    assert [code(await again.answer()) for _ in range(18)] == ["AA"] * 18


async def test_the_connection_too_many_is_closed_without_a_word_where_refusals_are_final(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"connections_max": 1}, ack={"unavailable": "close"})
    first = await feed.sender()
    assert code(await first.exchange(adt("1"))) == "AA"
    async with PickySender(feed.port) as sender:
        sending = asyncio.create_task(sender.send("2", adt("2")))
        await eventually(lambda: sender.attempts > 2)
        first.abort()
        assert await sending == SENT


async def test_without_an_outcome_in_time_such_a_sender_is_closed_and_gets_the_outcome_when_it_is_back(
    make_feed: MakeFeed,
) -> None:
    feed = await make_feed(ack={"unavailable": "close", "when": "processed", "processed_seconds_max": 0.3})
    async with PickySender(feed.port) as sender:
        sending = asyncio.create_task(sender.send("1", adt("1")))
        await eventually(lambda: sender.attempts > 1)
        await feed.process()
        assert await sending == SENT
    assert len(feed.entries()) == 1


@pytest.mark.parametrize("version", ["2.3", "2.5.1", "2.7", "2.8", "2.9.1"])
async def test_the_text_of_a_refusal_stands_in_msa_3_for_every_version_where_the_channel_says_so(
    make_feed: MakeFeed, version: str
) -> None:
    feed = await make_feed(ack={"msa_text": "always"})
    async with PickySender(feed.port) as sender:
        assert await sender.send("1", adt("1", type="ORU^R01", version=version)) == ERROR
    assert sender.texts == ["this channel does not accept this message type"]


async def test_without_that_setting_msa_3_is_empty_from_2_7_on(sender: Sender) -> None:
    answer = await sender.exchange(adt("1", type="ORU^R01", version="2.8"))
    assert len(fields(answer, "MSA")) == 3
