"""What listeners count is bounded: who was refused, which messages repeat, which labels there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.runtime import metrics, refusals
from engine.runtime.metrics import OTHER, Repeats, vetted
from engine.runtime.refusals import Refusals

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_peer_that_was_not_heard_of_for_more_than_an_hour_is_news_again() -> None:
    known = Refusals()
    hour = timedelta(hours=1)
    assert known.note("adt", "10.0.0.1", "too-many", NOW)
    assert not known.note("adt", "10.0.0.1", "too-many", NOW + hour)
    assert known.note("adt", "10.0.0.1", "too-many", NOW + 2 * hour + timedelta(seconds=1))
    assert known.note("adt", "10.0.0.1", "unknown-ca", NOW + 2 * hour), "for another reason"
    assert [one.count for one in known.listed()] == [1, 3]


def test_as_many_refusals_are_kept_as_the_limit_and_the_oldest_makes_room() -> None:
    known = Refusals()
    for number in range(refusals._KEPT_MAX):
        known.note("adt", f"peer-{number}", "too-many", NOW)
    assert len(known.listed()) == refusals._KEPT_MAX
    known.note("adt", "peer-0", "too-many", NOW)
    known.note("adt", "one-more", "too-many", NOW)
    kept = [one.peer for one in known.listed()]
    assert (len(kept), kept[:2], "peer-1" in kept) == (refusals._KEPT_MAX, ["one-more", "peer-0"], False)


def test_a_message_repeats_when_it_comes_again_within_the_time() -> None:
    repeats = Repeats()
    assert [repeats.count(1, now) for now in (0.0, 599.9, 1199.8, 1799.8)] == [1, 2, 3, 1]
    assert (repeats.most(2399.7), repeats.most(2399.8)) == (1, 0)


def test_as_many_messages_are_watched_as_the_limit() -> None:
    repeats = Repeats()
    for entry in range(metrics._REPEATED_MAX):
        repeats.count(entry, 0.0)
    assert repeats.count(0, 1.0) == 2
    repeats.count(-1, 1.0)
    assert (repeats.count(0, 2.0), repeats.count(1, 2.0)) == (3, 1), (
        "the one that was not heard of longest was left out"
    )


def test_there_are_as_many_labels_as_the_limit_and_none_of_another_form() -> None:
    known = dict.fromkeys((f"label-{number}" for number in range(metrics._LABELS_MAX - 1)), 1)
    assert vetted(known, "one-more") == "one-more"
    known["one-more"] = 1
    assert (vetted(known, "too-many"), vetted(known, "one-more")) == (OTHER, "one-more")
    assert vetted({}, "Doe Jane") == OTHER
