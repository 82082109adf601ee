"""Questions that messages leave to a person: opened, listed, decided, ended by replays; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store_builders import NOW, chart, load, merged, outcome, record

from engine.domain.hold import Hold, HoldCode, HoldState
from engine.domain.message import EntryState
from engine.domain.outcome import Dismissal
from engine.errors import StoreError

STALE = Hold(code=HoldCode.STATUS_EVENT_STALE, chart_id="chart-1", subject="MRN:V1", patient_key="MRN:P1")
DEATH = Hold(code=HoldCode.DEATH_IN_FUTURE, location="PID-29", chart_id="chart-1", patient_key="MRN:P1")


def holds(store, root=1):
    return store.read_now(lambda conn: store.holds.of_message(conn, root))


def states(store, root=1):
    return {one.code: one.state for one in holds(store, root)}


def open_ones(store):
    return store.read_now(store.holds.find)


def dismiss(store, hold_id):
    ended = Dismissal(hold=hold_id, by="ana", reason="old news")
    at = store.read_now(store.recorder.cursors).get("@act", {}).get(0, 1000) + 1
    record(store, outcome(at, dismissals=(ended,)), channel="@act")


def release(store, hold_id):
    write = store.charts_ledger.write_now
    write(lambda conn: store.holds.begin_release(conn, hold_id, by="ana", reason="it is so", now=NOW))


def replay(store, entry_id, *questions, decision=None, state=EntryState.PROCESSED):
    record(store, outcome(entry_id, holds=questions, replay_root=1, decision=decision, state=state))


def test_a_question_comes_back_as_it_was_asked(store):
    record(store, outcome(1, holds=(STALE, DEATH)))
    first, second = open_ones(store)
    assert (first.entry, first.root, first.code, first.location) == (1, 1, "status-event-stale", None)
    assert (first.subject, first.chart_id, first.patient_key) == ("MRN:V1", "chart-1", "MRN:P1")
    assert (first.detail, first.opened_at, first.state) == (STALE.text, NOW, HoldState.OPEN)
    assert (second.code, second.location, second.unreadable) == ("death-in-future", "PID-29", False)
    assert store.read_now(store.holds.counts) == {"status-event-stale": 1, "death-in-future": 1}


def test_a_replay_that_asks_again_makes_no_second_question(store):
    record(store, outcome(1, holds=(STALE,)))
    replay(store, 2, STALE)
    assert [(one.entry, one.state) for one in holds(store)] == [(1, HoldState.OPEN)]


def test_a_message_and_its_replay_in_one_batch_ask_once(store):
    record(store, outcome(1, holds=(STALE,)), outcome(2, holds=(STALE, DEATH), replay_root=1))
    assert [one.code for one in open_ones(store)] == ["status-event-stale", "death-in-future"]


def test_a_replay_in_the_same_batch_that_does_not_ask_leaves_no_question(store):
    record(store, outcome(1, holds=(STALE,)), outcome(2, replay_root=1))
    assert open_ones(store) == []


@pytest.mark.parametrize("state", [EntryState.PROCESSED, EntryState.FILTERED])
def test_a_replay_that_ends_without_it_supersedes_a_question(store, state):
    record(store, outcome(1, holds=(STALE, DEATH)))
    replay(store, 2, DEATH, state=state)
    assert states(store) == {"status-event-stale": HoldState.SUPERSEDED, "death-in-future": HoldState.OPEN}


def test_a_replay_that_dies_leaves_the_question_open(store):
    record(store, outcome(1, holds=(STALE,)))
    replay(store, 2, state=EntryState.DEAD)
    assert states(store) == {"status-event-stale": HoldState.OPEN}


def test_a_superseded_question_that_is_asked_again_is_open_again(store):
    record(store, outcome(1, holds=(STALE,)))
    replay(store, 2)
    replay(store, 3, STALE)
    (again,) = holds(store)
    assert (again.entry, again.state, again.decided_at) == (3, HoldState.OPEN, None)


def test_a_release_ends_the_question_only_when_its_replay_is_recorded(store):
    record(store, outcome(1, holds=(DEATH, STALE)))
    (death, _) = open_ones(store)
    release(store, death.id)
    (waiting, _) = open_ones(store)
    assert (waiting.state, waiting.decided_by, waiting.decision) == (HoldState.OPEN, "ana", "it is so")
    replay(store, 2, STALE, decision="death-in-future@PID-29")
    assert states(store) == {"death-in-future": HoldState.RELEASED, "status-event-stale": HoldState.OPEN}
    assert [one.decided_by for one in holds(store)] == ["ana", None]


@pytest.mark.parametrize(("again", "state"), [((DEATH,), EntryState.PROCESSED), ((), EntryState.DEAD)])
def test_a_release_that_could_not_be_applied_leaves_the_question_open_and_undecided(store, again, state):
    record(store, outcome(1, holds=(DEATH,)))
    (death,) = open_ones(store)
    release(store, death.id)
    replay(store, 2, *again, decision="death-in-future@PID-29", state=state)
    (still,) = open_ones(store)
    assert (still.decided_at, still.decided_by, still.decision) == (None, None, None)


@pytest.mark.parametrize("decided", ["dismissed", "released"])
def test_what_a_person_decided_is_not_asked_again_by_a_replay(store, decided):
    record(store, outcome(1, holds=(STALE,)))
    (one,) = open_ones(store)
    if decided == "dismissed":
        dismiss(store, one.id)
    else:
        release(store, one.id)
        replay(store, 2, decision="status-event-stale")
    replay(store, 3, STALE)
    assert states(store) == {"status-event-stale": decided}


def test_a_dismissal_is_kept_with_who_and_why(store):
    record(store, outcome(1, holds=(STALE,)))
    (one,) = open_ones(store)
    dismiss(store, one.id)
    (after,) = holds(store)
    assert (after.state, after.decided_by, after.decision) == (HoldState.DISMISSED, "ana", "old news")
    assert open_ones(store) == []


def test_what_is_decided_or_just_being_released_is_not_dismissed(store):
    record(store, outcome(1, holds=(STALE, DEATH)))
    first, second = open_ones(store)
    dismiss(store, first.id)
    release(store, second.id)
    for one in (first, second):
        before = store.read_now(lambda conn, number=one.id: store.holds.get(conn, number))
        dismiss(store, one.id)
        assert store.read_now(lambda conn, number=one.id: store.holds.get(conn, number)) == before
    with pytest.raises(StoreError):
        release(store, first.id)


def test_a_release_that_was_cut_off_can_be_asked_for_again(store):
    record(store, outcome(1, holds=(STALE,)))
    (one,) = open_ones(store)
    release(store, one.id)
    release(store, one.id)
    replay(store, 2, decision="status-event-stale")
    assert states(store) == {"status-event-stale": HoldState.RELEASED}


def test_questions_of_a_merged_patient_stand_with_the_survivor(store):
    survivor, other = chart("chart-1"), chart("chart-2", 2)
    record(
        store, outcome(1, survivor), outcome(2, other, holds=(Hold(code=HoldCode.VISIT_MISSING, chart_id="chart-2"),))
    )
    before = load(store, survivor, other)
    after = merged(survivor, other)
    record(store, outcome(3, *after), before=before)
    found = store.read_now(lambda conn: store.holds.of_chart(conn, "chart-1"))
    assert [(one.code, one.chart_id) for one in found] == [("visit-missing", "chart-2")]


def test_a_row_that_was_moved_to_another_patient_does_not_open(store):
    record(store, outcome(1, holds=(STALE,)))
    from engine.store.schema import hold

    store.charts_ledger.write_now(lambda conn: conn.execute(hold.update().values(chart_id="chart-2")))
    (one,) = open_ones(store)
    assert (one.unreadable, one.subject, one.patient_key) == (True, None, None)


def test_questions_are_listed_oldest_first_up_to_a_limit(store):
    for number in (1, 2, 3):
        record(store, outcome(number, holds=(STALE,)), now=NOW + timedelta(seconds=number))
    found = store.read_now(lambda conn: store.holds.find(conn, limit=2))
    assert [one.entry for one in found] == [1, 2]
