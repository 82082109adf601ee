"""Who waits for the outcome of a message gets it, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from engine.clock import FixedClock
from engine.domain.message import AckCode, AckState
from engine.hl7v2.ack import Verdict
from engine.pipeline.acceptance import NO_SUMMARY, judge
from engine.runtime.answers import Exchange, Lane, LateAnswers
from engine.runtime.metrics import ChannelCounts
from engine.settings import Ack, Channel, Listen
from engine.store.journal import Stored

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MESSAGE = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A01^ADT_A01|7|P|2.5\rPID|1||5\r"


class Sender:
    peer = "10.0.0.4:51022"
    summary = NO_SUMMARY

    def __init__(self) -> None:
        self.answered = 0

    def flush(self) -> None:
        self.answered += 1

    def push(self, answer: bytes, arrivals: list[int]) -> bool:
        raise AssertionError("original mode answers in turn")


async def nothing_known(_entries: Sequence[int]) -> Mapping[int, Verdict]:
    return {}


def waiting_for(entry: int, late: LateAnswers, sender: Sender) -> Exchange:
    channel = Channel(
        name="adt", listen=Listen(port=0), timezone="UTC", mapping="adt", ack=Ack.model_validate({"when": "processed"})
    )
    exchange = Exchange(sender, len(MESSAGE))
    exchange.lane = Lane(channel, ChannelCounts())
    exchange.judgements = (judge(exchange.lane.rules, MESSAGE),)
    exchange.parts = [None]
    late.expect(
        exchange,
        0,
        Stored(arrival=entry, id=entry, received_at=NOW, ack_state=AckState.OWED, wants_application_ack=True),
    )
    return exchange


def late_answers(told: list[tuple[int, AckCode]]) -> LateAnswers:
    return LateAnswers(
        FixedClock(NOW),
        outcomes=nothing_known,
        return_to=lambda _lane, _answer, _told: None,
        answered=lambda arrival, code: told.append((arrival, code)),
        sent=lambda _arrivals: None,
        unsent=lambda _lane, _arrivals: None,
    )


async def test_an_outcome_that_comes_before_its_sender_waits_is_not_missed() -> None:
    told: list[tuple[int, AckCode]] = []
    late, sender = late_answers(told), Sender()
    late.have_outcomes((3, 4), ())
    exchange = waiting_for(4, late, sender)
    assert not exchange.done, "the other messages of its frame come first"
    await asyncio.sleep(0)
    assert exchange.done
    assert (sender.answered, told) == (1, [(4, AckCode.AA)])
    assert b"MSA|AA|7" in (exchange.answer or b"")


async def test_an_outcome_answers_those_only_who_wait_for_it() -> None:
    told: list[tuple[int, AckCode]] = []
    late, first, second = late_answers(told), Sender(), Sender()
    one, other = waiting_for(1, late, first), waiting_for(2, late, second)
    late.have_outcomes((2,), ())
    await asyncio.sleep(0)
    assert (one.done, other.done) == (False, True)


async def test_outcomes_that_nobody_waits_for_are_forgotten_in_time() -> None:
    late, sender = late_answers([]), Sender()
    late.have_outcomes(tuple(range(1, 5000)), ())
    exchange = waiting_for(1, late, sender)
    await asyncio.sleep(0)
    assert not exchange.done
    assert len(late._early) < 5000
