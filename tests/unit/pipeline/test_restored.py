"""What may have been sent before a restore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.domain.cause import Due
from engine.domain.message import Entry, EntryKind, Summary
from engine.pipeline.prepared import Prepared
from engine.pipeline.restored import Mark, may_be_sent

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = AS_OF + timedelta(hours=6)
MARK = Mark(at=AT, as_of=AS_OF, last_entry=100)
HOUR = timedelta(hours=1)


def entry(number: int, received: datetime, channel: str = "west") -> Entry:
    return Entry(id=number, channel=channel, peer="", received_at=received, payload=b"", summary=Summary())


def message(number: int, received: datetime, sent: datetime | None) -> Prepared:
    clock = None if sent is None else (1, (received - sent).total_seconds())
    return Prepared(entry=entry(number, received), clock=clock)


def due(since: datetime) -> Prepared:
    cause = Due(actor="system", chart_id="c", at=since, version=1, since=since)
    return Prepared(entry=entry(101, AT + HOUR, EntryKind.DUE.lane), cause=cause)


@pytest.mark.parametrize(
    ("prepared", "held"),
    [
        pytest.param(message(100, AS_OF - HOUR, AS_OF - HOUR), True, id="it waited when the backup was made"),
        pytest.param(message(101, AT + HOUR, AS_OF + HOUR), True, id="a resend of what came in between"),
        pytest.param(message(101, AT + HOUR, AS_OF - 9 * HOUR), True, id="a resend of what the backup has"),
        pytest.param(message(101, AT + HOUR, AT - timedelta(seconds=1)), True, id="just before the restore"),
        pytest.param(message(101, AT + HOUR, AT), False, id="sent since"),
        pytest.param(message(101, AT + HOUR, AT + 2 * HOUR), False, id="a sender whose clock is ahead"),
        pytest.param(message(101, AT + HOUR, None), True, id="nobody knows when it was sent"),
        pytest.param(message(101, AT + timedelta(days=8), None), False, id="...a week later"),
        pytest.param(due(AS_OF + HOUR), True, id="a deadline in between"),
        pytest.param(due(AT), False, id="a deadline since"),
        pytest.param(Prepared(entry=entry(101, AT + HOUR, EntryKind.ACT.lane)), False, id="somebody has done it"),
        pytest.param(Prepared(entry=entry(100, AS_OF, EntryKind.ACT.lane)), True, id="an act that waited then"),
    ],
)
def test_what_may_have_been_sent_before_the_restore_is_held(prepared: Prepared, held: bool) -> None:
    assert may_be_sent(MARK, prepared) is held
