"""The worker's end of the way of a cause into the journal."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from engine.domain.message import Receipt, Summary
from engine.errors import StoreUnavailableError
from engine.runtime import hints
from engine.runtime.causes import PIECE_MAX, CausesToMain


def cause(number: int, *, once: bool = True) -> Receipt:
    return Receipt(
        channel="@act",
        peer=str(number),
        received_at=datetime(2026, 3, 2, tzinfo=UTC),
        payload=b"{}",
        summary=Summary(),
        dedupe_key=b"k",
        digest=b"k",
        once=once,
    )


def causes(*numbers: int) -> list[Receipt]:
    return [cause(number) for number in numbers]


class Main:
    """The other end: what was asked of it, and what it answers, each time by `answers` in turn."""

    def __init__(self, *answers: str, seconds_max: float = 5) -> None:
        self.asked: list[list[int]] = []
        self._answers = list(answers)
        self.of_worker = CausesToMain(self._hear, seconds_max)

    def _hear(self, message: hints.ToMain) -> None:
        line = hints.read_to_main(hints._encode(message))
        assert isinstance(line, hints.PutCauses)
        numbers = [int(receipt.peer) for receipt in line.receipts]
        self.asked.append(numbers)
        answer = self._answers.pop(0) if self._answers else "done"
        if answer == "of the last life":  # with the number of another request
            self.of_worker.hear(hints.InJournal(number=line.number + 7, entries=(1,)))
        if answer == "silence":
            return
        entries = None if answer == "no" else tuple(100 + number for number in numbers)
        asyncio.get_running_loop().call_later(
            0.01, self.of_worker.hear, hints.InJournal(number=line.number, entries=entries)
        )


async def test_what_is_asked_for_comes_back_as_entries_in_its_order() -> None:
    main = Main()
    assert await main.of_worker.put(causes(3, 1, 2)) == [103, 101, 102]
    assert await main.of_worker.put([]) == []
    assert main.asked == [[3, 1, 2]]


async def test_many_causes_go_in_pieces_each_after_the_answer_to_the_one_before() -> None:
    main = Main("done", "no")
    numbers = list(range(2 * PIECE_MAX + 1))
    with pytest.raises(StoreUnavailableError):
        await main.of_worker.put(causes(*numbers))
    assert [len(piece) for piece in main.asked] == [PIECE_MAX, PIECE_MAX]
    assert await main.of_worker.put(causes(*numbers)) == [100 + number for number in numbers]
    assert [number for piece in main.asked[2:] for number in piece] == numbers
    assert max(map(len, main.asked)) == PIECE_MAX


async def test_two_services_are_never_mixed_up() -> None:
    main = Main()
    first, second = await asyncio.gather(main.of_worker.put(causes(1, 2)), main.of_worker.put(causes(3)))
    assert (first, second) == ([101, 102], [103])


async def test_an_answer_to_another_request_is_none() -> None:
    main = Main("of the last life")
    main.of_worker.hear(hints.InJournal(number=0, entries=(9,)))
    assert await main.of_worker.put(causes(1)) == [101]


async def test_a_main_process_that_does_not_answer_is_not_waited_for_and_its_late_answer_is_nobodys() -> None:
    main = Main("silence", seconds_max=0.05)
    with pytest.raises(StoreUnavailableError):
        await main.of_worker.put(causes(1))
    main.of_worker.hear(hints.InJournal(number=1, entries=(101,)))
    assert await main.of_worker.put(causes(2)) == [102]


async def test_a_cause_without_a_name_is_not_taken_from_a_worker() -> None:
    main = Main()
    with pytest.raises(ValueError, match="needs a name"):
        await main.of_worker.put([cause(1), cause(2, once=False)])
    assert main.asked == []
