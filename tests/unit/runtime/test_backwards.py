"""A sender whose clock runs backwards is on the data-quality list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.domain.message import Entry, EntryState, Summary
from engine.domain.outcome import Outcome
from engine.pipeline.prepared import Prepared
from engine.runtime.backwards import BACK_SECONDS, Backwards
from engine.runtime.skews import SENDERS_MAX

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Feed:
    def __init__(self) -> None:
        self.backwards = Backwards()
        self._entries = 0

    def batch(self, *sent: float | None, sender: int = 7, channel: str = "a", keep: bool = True) -> list[int]:
        """sent: by the sender's clock, in seconds after noon; none: a message without. Gives the places that are so."""
        prepared = []
        for at in sent:
            self._entries += 1
            received = NOON + timedelta(days=1, seconds=self._entries)
            entry = Entry(
                id=self._entries, channel=channel, peer="", received_at=received, payload=b"", summary=Summary()
            )
            late = None if at is None else (received - NOON).total_seconds() - at
            prepared.append(Prepared(entry=entry, clock=None if late is None else (sender, late)))
        outcomes = [Outcome(entry_id=one.entry.id, state=EntryState.PROCESSED) for one in prepared]
        found, heard = self.backwards.look(channel, prepared, outcomes)
        if keep:
            self.backwards.keep(heard)
        kinds = [[(item.kind, item.detail) for item in one.quality] for one in found]
        assert all(each in ([], [("clock_backwards", "MSH-7")]) for each in kinds)
        return [place for place, each in enumerate(kinds) if each]


def test_a_later_message_that_was_sent_earlier_is_noted_once() -> None:
    feed = Feed()
    assert feed.batch(0, 10, 20) == []
    assert feed.batch(30, -3600, -3590, -3500) == [1]
    assert feed.batch(-3400) == []
    assert feed.batch(-90_000) == [0]


@pytest.mark.parametrize(("back", "noted"), [(0.0, []), (BACK_SECONDS, []), (BACK_SECONDS + 1, [1])])
def test_a_minute_is_nothing(back: float, noted: list[int]) -> None:
    assert Feed().batch(0, -back) == noted


def test_senders_and_channels_have_clocks_of_their_own() -> None:
    feed = Feed()
    assert feed.batch(0, sender=1) == []
    assert feed.batch(-7200, sender=2) == []
    assert feed.batch(-7200, sender=1, channel="b") == []
    assert feed.batch(None, -7200, None, sender=1) == [1]


def test_a_batch_that_was_not_recorded_is_looked_at_as_before() -> None:
    feed = Feed()
    assert feed.batch(0, 600, keep=False) == []
    assert feed.batch(0, 600) == []
    assert feed.batch(0) == [0]


def test_a_sender_that_calls_itself_by_ever_new_names_takes_no_memory() -> None:
    feed = Feed()
    for sender in range(SENDERS_MAX + 10):
        feed.batch(0, sender=sender)
    assert feed.batch(-7200, sender=SENDERS_MAX + 5) == []
    assert feed.batch(-7200, sender=3) == [0]
