"""A sender that never says where patients go is one item with a count, and no task for each of its patients."""

from __future__ import annotations

import msgspec
import pytest
from heart import Heart, adt

from engine.domain.outcome import Outcome
from engine.domain.why import Reason
from engine.pipeline.unsaid import ASKED_IN_A_ROW_MAX, SENDERS_MAX


class Feed(Heart):
    def leaves(self, number: int, code: str = "", *, class_: str = "I", sender: str = "EPIC") -> Outcome:
        """One more patient goes."""
        gone = {2: class_, 19: f"V{number}^^^MRN", 44: "20260301080000", 45: "20260306110000", 36: code}
        message = adt("A03", pid3=f"{number}^^^MRN^MR", pv1=gone).replace(b"|EPIC|", f"|{sender}|".encode())
        return self.send(message)

    def asks(self, number: int) -> bool:
        return any(task.stands for task in self.chart(str(number)).tasks)


@pytest.fixture
def feed() -> Feed:
    """A sender that has left it out so often that nobody is asked any more."""
    feed = Feed()
    for number in range(ASKED_IN_A_ROW_MAX):
        feed.leaves(number)
        assert feed.asks(number), "one that is left out now and then asks a person"
    return feed


def test_after_so_many_in_a_row_discharges_are_counted_and_withheld_with_the_reason(feed: Feed) -> None:
    outcome = feed.leaves(100)
    assert not feed.asks(100)
    assert [item.kind for item in outcome.quality] == ["disposition_missing"]
    assert Reason.NEVER_SAID in [why.reason for why in outcome.why]
    (withheld,) = [effect for effect in outcome.effects if effect.kind == "plan-withheld"]
    assert "quality list" in withheld.detail
    assert outcome.reason == withheld.detail


@pytest.mark.parametrize("code", ["01", "02", "20", "77"])
def test_a_sender_that_says_it_once_is_asked_about_again(feed: Feed, code: str) -> None:
    feed.leaves(100, code)
    feed.leaves(101)
    assert feed.asks(101)


def test_another_sender_is_asked_about(feed: Feed) -> None:
    feed.leaves(100, sender="OTHER")
    assert feed.asks(100)
    feed.leaves(101)
    assert not feed.asks(101)


def test_a_disposition_that_comes_later_is_planned_for(feed: Feed) -> None:
    feed.leaves(100)
    feed.leaves(100, "01")
    assert {task.kind for task in feed.chart("100").tasks} >= {"tcm_contact"}


def test_a_replay_asks(feed: Feed) -> None:
    feed.leaves(100)
    gone = {2: "I", 19: "V200^^^MRN", 44: "20260301080000", 45: "20260306110000"}
    entry = feed.entry(adt("A03", pid3="200^^^MRN^MR", pv1=gone))
    feed.work(msgspec.structs.replace(entry, replay_of=1, replay_root=1))
    assert feed.asks(200)


def test_what_was_asked_stays_asked(feed: Feed) -> None:
    feed.send(adt("A08", at="20260306130000", pid3="3^^^MRN^MR", pv1={19: "V3^^^MRN", 44: "20260301080000"}))
    feed.leaves(3)
    assert feed.asks(3)


@pytest.mark.parametrize("class_", ["O", "E"])
def test_visits_that_get_no_plan_are_not_counted(class_: str) -> None:
    feed = Feed()
    for number in range(ASKED_IN_A_ROW_MAX + 1):
        feed.leaves(number, class_=class_)
    feed.leaves(100)
    assert feed.asks(100)


def test_a_class_that_nobody_knows_is_asked_about_all_the_same(feed: Feed) -> None:
    feed.leaves(100, "01", class_="ZZ")
    assert feed.asks(100)


def test_no_more_senders_are_counted_than_the_limit(feed: Feed) -> None:
    feed.charts.unsaid |= dict.fromkeys(range(SENDERS_MAX), frozenset({"MRN:V0"}))
    feed.leaves(100, sender="OTHER")
    assert len(feed.charts.unsaid) <= SENDERS_MAX + 1


@pytest.mark.parametrize("between", [None, 1, 2])
def test_one_stay_counts_once_however_often_its_discharge_is_sent(between: int | None) -> None:
    feed = Feed()
    for _ in range(ASKED_IN_A_ROW_MAX + 5):
        feed.leaves(0)
        if between is not None:
            feed.leaves(between)
    feed.leaves(100)
    assert feed.asks(100)
    assert all(len(stays) <= ASKED_IN_A_ROW_MAX for stays in feed.charts.unsaid.values())
