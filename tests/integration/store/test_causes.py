"""Causes that are no messages, on their way into the journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from engine.domain.cause import TaskAssigned, TaskDone, read
from engine.domain.message import EntryKind
from engine.store.causes import put
from engine.store.counts import ledger

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Ring(TaskDone, frozen=True, kw_only=True, tag="ring"):
    """A cause that is known by name, as those of a clock are."""

    @property
    def once(self):
        return f"due/{self.task}"


def append(store, *causes, now=NOW):
    return store.journal_ledger.write_now(lambda conn: put(store.journal, store.keys, conn, causes, now))


def entries(store):
    ids = store.read_now(lambda conn: store.journal.after(conn, EntryKind.ACT.lane, 0, 100))
    return store.read_now(lambda conn: store.journal.entries(conn, [id_ for id_, _ in ids]))


def test_an_act_comes_back_as_it_was_put_and_each_is_its_own(store):
    act = TaskAssigned(actor="anna", chart_id="c1", task="t1", assignee="dr-lee")
    first, second = append(store, act, act)
    assert (first.id, second.id) == (1, 2)
    assert [read(one.payload) for one in entries(store)] == [act, act]
    assert {one.kind for one in entries(store)} == {EntryKind.ACT}
    assert {one.peer for one in entries(store)} == {"anna"}


@pytest.mark.parametrize("together", [True, False])
def test_a_cause_with_a_name_is_taken_once_and_leaves_no_other_trace(store, together):
    ring = Ring(actor="engine", chart_id="c1", task="t1")
    after_a_merge = msgspec.structs.replace(ring, chart_id="c2")
    if together:
        first, again = append(store, ring, after_a_merge)
    else:
        (first,), (again,) = append(store, ring), append(store, after_a_merge, now=NOW + timedelta(days=1))
    assert (first.id, again.id, again.duplicate_of) == (1, None, 1)
    assert len(entries(store)) == 1
    (line,) = store.read_now(ledger)
    assert (line.kind, line.received, line.duplicates, line.balanced) == (EntryKind.ACT, 1, 0, True)
    (other,) = append(store, Ring(actor="engine", chart_id="c1", task="t2"))
    assert other.id == 2
