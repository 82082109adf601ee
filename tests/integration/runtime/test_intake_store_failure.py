"""docs/hl7.md: nothing is acknowledged that is not on disk, and a store that fails is survived."""

from __future__ import annotations

import asyncio
import io
import resource
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from wire import Feed, Sender, adt, code, codes, eventually, fields, frame

from engine.errors import StoreUnavailableError

MakeFeed = Callable[..., Awaitable[Feed]]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_store_down_is_answered_ar_207_and_the_connection_stays_and_recovers(feed: Feed, sender: Sender) -> None:
    assert code(await sender.exchange(adt("1"))) == "AA"
    with full_disk():
        answer = await sender.exchange(adt("2"))
        assert code(answer) == "AR"
        assert fields(answer, "MSA")[2] == "2"
        assert fields(answer, "ERR")[3].startswith("207^")
        assert not feed.metrics.store_writable
    assert code(await sender.exchange(adt("2"))) == "AA"
    assert feed.metrics.store_writable
    assert [entry.payload for entry in feed.entries()] == [adt("1"), adt("2")]


async def test_store_down_is_answered_ce_207_in_enhanced_mode(sender: Sender) -> None:
    with full_disk():
        answer = await sender.exchange(adt("1", accept="AL", application="AL"))
        assert code(answer) == "CE"
        assert fields(answer, "ERR")[3].startswith("207^")
        assert code(await sender.exchange(adt("2", accept="NE", application="AL"))) == "AR"
    assert code(await sender.exchange(adt("3", accept="AL"))) == "CA"


async def test_store_down_is_never_silence_for_pipelined_messages_and_batches(feed: Feed, sender: Sender) -> None:
    with full_disk():
        await sender.write(*(frame(adt(str(number))) for number in range(20)))
        assert codes([await sender.answer() for _ in range(20)]) == ["AR"] * 20
        await sender.send(b"BHS|^~\\&\r" + adt("a") + adt("b") + b"BTS|2\r")
        assert codes([await sender.answer(), await sender.answer()]) == ["AR", "AR"]
    assert feed.entries() == []


async def test_store_down_is_one_batch_acknowledgment_where_the_channel_gives_one(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"batch": "single"})
    sender = await feed.sender()
    with full_disk():
        answer = await sender.exchange(b"BHS|^~\\&|EPIC|MAIN|||||||B1\r" + adt("a") + adt("b") + b"BTS|2\r")
    assert fields(answer, "BHS")[12] == "B1"
    assert [line[:8] for line in answer.split(b"\r") if line.startswith(b"MSA")] == [b"MSA|AR|a", b"MSA|AR|b"]
    assert await sender.silent()


async def test_a_group_that_fails_behind_its_first_message_is_answered_aa_for_none_of_them(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = feed.store.journal.append_each

    def half(conn: Any, items: Any) -> Any:
        append(conn, items)
        raise StoreUnavailableError("gone in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(feed.store.journal, "append_each", half)
        await sender.write(*(frame(adt(str(number))) for number in range(5)))
        assert codes([await sender.answer() for _ in range(5)]) == ["AR"] * 5
    assert feed.entries() == []


async def test_a_batch_of_which_one_message_can_not_be_stored_is_stored_and_answered_aa_for_none(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = feed.store.journal.append_each

    def refuse_one(conn: Any, items: Any) -> Any:
        done = append(conn, items)
        if any(receipt.summary.control_id == "2" for item in items for receipt in item.receipts):
            raise ValueError("a defect that one message triggers")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(feed.store.journal, "append_each", refuse_one)
        await sender.send(b"BHS|^~\\&\r" + adt("1") + adt("2") + adt("3") + b"BTS|3\r")
        assert codes([await sender.answer() for _ in range(3)]) == ["AR"] * 3
    assert feed.entries() == []


async def test_a_store_that_fails_for_long_is_logged_once_and_not_for_each_message(
    feed: Feed, sender: Sender, log: io.StringIO
) -> None:
    with full_disk():
        for number in range(50):
            assert code(await sender.exchange(adt(str(number)))) == "AR"
    assert log.getvalue().count("store failed") == 1
    assert feed.metrics.store_failures >= 50


async def test_store_down_is_a_commit_nak_where_commit_blocks_are_spoken(make_feed: MakeFeed) -> None:
    feed = await make_feed(listen={"commit_blocks": True})
    sender = await feed.sender()
    with full_disk():
        assert await sender.exchange(adt("1")) == b"\x15"


async def test_the_store_is_found_to_work_again_without_traffic(feed: Feed, sender: Sender) -> None:
    with full_disk():
        await sender.exchange(adt("1"))
        assert not feed.metrics.store_writable
    await eventually(lambda: feed.metrics.store_writable)


async def test_states_of_answers_are_kept_over_a_failure_of_the_store(feed: Feed, sender: Sender) -> None:
    await sender.exchange(adt("1"))
    with full_disk():
        await asyncio.sleep(0.8)  # the state of the first answer is due, and can't be written
    assert [entry.ack_state for entry in await feed.settled()] == ["sent"]


async def test_a_receipt_that_can_not_be_stored_does_not_take_its_group_with_it(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = feed.store.journal.append_each

    def refuse_one(conn: Any, items: Any) -> Any:
        if any(receipt.summary.control_id == "3" for item in items for receipt in item.receipts):
            raise ValueError("a defect that one message triggers")
        return append(conn, items)

    monkeypatch.setattr(feed.store.journal, "append_each", refuse_one)
    await sender.write(*(frame(adt(str(number))) for number in range(1, 6)))
    assert codes([await sender.answer() for _ in range(5)]) == ["AA", "AA", "AR", "AA", "AA"]
    assert len(feed.entries()) == 4


async def test_a_message_that_triggers_a_defect_of_ours_is_kept_and_answered(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.runtime import intake

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "judge", broken)
        answer = await sender.exchange(adt("1"))
    assert code(answer) == "AR"
    assert fields(answer, "ERR")[3].startswith("207^")
    assert feed.entries()[0].payload == adt("1")
    assert code(await sender.exchange(adt("2"))) == "AA"


async def test_an_answer_that_can_not_mirror_its_message_is_given_without_and_takes_nothing_down(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.runtime import answers

    acknowledge = answers.acknowledge

    def broken(header: Any, *rest: Any, **more: Any) -> bytes:
        if header is not None:
            raise RuntimeError("a defect")
        return acknowledge(header, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(answers, "acknowledge", broken)
        answer = await sender.exchange(adt("1"))
        with full_disk():
            refusal = await sender.exchange(adt("2"))
    assert (code(answer), fields(answer, "MSA")[2]) == ("AA", "")
    assert (code(refusal), fields(refusal, "MSA")[2]) == ("AR", "")
    assert code(await sender.exchange(adt("2"))) == "AA"


async def test_no_answer_leaves_before_the_commit_is_on_disk(
    feed: Feed, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the time of each answer another process finds the entry in the file."""
    file = feed.store.location.journal_file
    seen: list[int] = []
    send = type(feed.listener).told

    def told(listener: Any, arrivals: list[int]) -> None:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as other:
            for arrival in arrivals:
                seen.extend(row[0] for row in other.execute("SELECT id FROM entry WHERE id = ?", (arrival,)))
        send(listener, arrivals)

    monkeypatch.setattr(type(feed.listener), "told", told)
    for number in range(5):
        await sender.exchange(adt(str(number)))
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("store", ["sqlite_site", "postgresql_site"])
async def test_intake_works_on_both_stores(make_feed: MakeFeed, request: pytest.FixtureRequest, store: str) -> None:
    feed = await make_feed(site=request.getfixturevalue(store))
    sender = await feed.sender()
    await sender.write(*(frame(adt(str(number))) for number in (1, 2, 1, 3)))
    answers = [await sender.answer() for _ in range(4)]
    assert codes(answers) == ["AA"] * 4
    assert answers[0] == answers[2]
    assert [entry.ack_state for entry in await feed.settled()] == ["sent"] * 3
    assert feed.repeats() == 1


async def test_postgresql_that_is_gone_is_answered_ar_and_recovers(
    make_feed: MakeFeed, postgresql_site: Any, postgres: Any, postgres_database: str
) -> None:
    feed = await make_feed(site=postgresql_site)
    sender = await feed.sender()
    assert code(await sender.exchange(adt("1"))) == "AA"
    postgres.execute("postgres", f"ALTER DATABASE {postgres_database} ALLOW_CONNECTIONS false")
    try:
        postgres.execute(
            "postgres",
            f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{postgres_database}'",
        )
        assert code(await sender.exchange(adt("2"))) == "AR"
    finally:
        postgres.execute("postgres", f"ALTER DATABASE {postgres_database} ALLOW_CONNECTIONS true")
    assert code(await sender.exchange(adt("2"))) == "AA"
    assert len(feed.entries()) == 2
