"""What patients write, decided on the chart as it is when its turn comes."""

from __future__ import annotations

import msgspec
import pytest
from heart import Heart, adt

from engine.care.texts.consent import standing
from engine.domain.cause import TextReceived, written
from engine.domain.message import EntryKind
from engine.domain.outcome import Outcome
from engine.pipeline.process import channel_of, decide, prepare

NUMBER = "+12125550143"


@pytest.fixture
def heart() -> Heart:
    """A patient who has gone home."""
    made = Heart()
    made.send(adt("A01", pv1={3: "W^1^A"}))
    made.send(adt("A03", at="20260306150000", pv1={36: "01", 45: "20260306150000"}))
    return made


def reply(heart: Heart, text: str, *, known: bool = True, id_: str = "SM1", answered: str | None = None) -> Outcome:
    cause = TextReceived(
        actor="destination:texts", chart_id=heart.chart().id if known else None, id=id_, channel="sms", number=NUMBER,
        to="+12025550100", text=text, at=heart.now, answered=answered,
    )  # fmt: skip
    entry = msgspec.structs.replace(heart.entry(written(cause)), channel=EntryKind.REPLY.lane)
    prepared = prepare(entry, None)
    channel = heart.channel if channel_of(prepared, heart.charts) == "main-campus" else None
    outcome = decide(prepared, channel, heart.charts, heart.now)
    for chart in outcome.charts:
        heart.charts.add(chart)
    return outcome


@pytest.mark.parametrize("word", ["STOP", "stop", " Stop. ", "Opt  out", "UNSUBSCRIBE", "cancel"])
def test_a_word_that_opts_out_forbids_all_texts_to_the_number_at_once(heart: Heart, word: str) -> None:
    reply(heart, word)
    found = standing(heart.chart(), "care", "sms", NUMBER)
    assert (found.state, found.statement.how if found.statement else None) == ("revoked", "reply")


def test_what_the_carrier_has_taken_for_a_stop_is_one(heart: Heart) -> None:
    reply(heart, "whatever it was", answered="STOP")
    assert standing(heart.chart(), "care", "sms", NUMBER).state == "revoked"


def test_each_reply_is_on_record_with_nothing_of_its_words(heart: Heart) -> None:
    outcome = reply(heart, "please STOP calling DOE")
    (noted,) = outcome.audit
    assert (noted.actor, noted.action, noted.subject) == (
        "destination:texts", "text-received", f"chart:{heart.chart().id}"
    )  # fmt: skip
    assert noted.reason is noted.terms is None


def test_a_reply_of_nobody_known_is_taken(heart: Heart) -> None:
    outcome = reply(heart, "hello", known=False)
    assert (outcome.charts, outcome.dead_letter) == ((), None)
