"""How far senders' clocks are from ours: measured from messages, shown without names."""

from __future__ import annotations

import msgspec

from engine.runtime import hints
from engine.runtime.metrics import Metrics
from engine.runtime.skews import SENDERS_MAX, WRONG_SECONDS, Skews
from engine.runtime.worker import Tally


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_least_of_the_last_minutes_is_the_skew() -> None:
    clock = Clock()
    skews = Skews(clock)
    for seconds, entry in ((4000.0, 1), (12.0, 2), (90.0, 3)):  # messages that waited say nothing of the clock
        skews.hear("adt", 7, seconds, entry)
    (one,) = skews.all()
    assert (one.skew_seconds, one.entry, one.wrong) == (10, 2, False)


def test_a_clock_that_goes_wrong_is_seen_after_some_minutes_and_one_that_runs_ahead_at_once() -> None:
    clock = Clock()
    skews = Skews(clock)
    skews.hear("adt", 7, 0.0, 1)
    skews.hear("adt", 8, 0.0, 2)
    skews.hear("adt", 8, -18_000.0, 3)
    clock.now = 601.0
    skews.hear("adt", 7, 18_000.0, 4)
    slow, fast = skews.all()
    assert (slow.sender, slow.skew_seconds, slow.wrong, slow.entry) == (1, 18_000, True, 4)
    assert (fast.sender, fast.skew_seconds, fast.wrong, fast.entry) == (2, -18_000, True, 3)


def test_a_clock_is_wrong_when_it_is_off_by_more_than_the_limit() -> None:
    skews = Skews()
    for sender, seconds in enumerate((WRONG_SECONDS, -WRONG_SECONDS, WRONG_SECONDS + 1, -WRONG_SECONDS - 1)):
        skews.hear("adt", sender, seconds, 1)
    assert [one.wrong for one in skews.all()] == [False, False, True, True]


def test_a_measure_counts_for_ten_minutes() -> None:
    clock = Clock()
    skews = Skews(clock)
    skews.hear("adt", 7, 0.0, 1)
    for now, entry in ((600.0, 1), (600.5, 3)):
        clock.now = now
        skews.hear("adt", 7, 100.0, 3)
        assert next(iter(skews.all())).entry == entry


def test_senders_are_bounded() -> None:
    skews, tally = Skews(), Tally()
    for sender in range(SENDERS_MAX + 10):
        skews.hear("adt", sender, 0.0, 1)
        tally.clock("adt", sender, 0.0, 1)
    assert len(list(skews.all())) == SENDERS_MAX
    report = tally.take(None, failing=(), leased=hints.Leased())
    assert len(report.skews["adt"]) == SENDERS_MAX


def test_metrics_show_the_skew_without_a_name() -> None:
    tally, metrics = Tally(), Metrics("1")
    tally.clock("adt", 123456, -18_000.0, 9)
    tally.clock("adt", 123456, -17_000.0, 10)
    tally.count("events_without_effect", "adt", "A06")
    report = tally.take(None, failing=(), leased=hints.Leased())
    metrics.hear(msgspec.json.decode(msgspec.json.encode(report), type=hints.Report))
    text = metrics.text().decode()
    assert 'handoff_sender_skew_seconds{channel="adt",sender="1"} -18000.0' in text
    assert 'handoff_events_without_effect_total{channel="adt",event="A06"} 1.0' in text
