"""Questions that messages leave to a person: opened, listed, decided, ended by replays; on both databases."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from store_builders import NOW, chart, load, merged, outcome, record

from engine.domain.encounter import EncounterStatus
from engine.domain.hold import Assertion, Fact, Hold, HoldCode, HoldState
from engine.domain.message import EntryState
from engine.domain.outcome import Dismissal
from engine.errors import StoreError
from engine.store import overview

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


def test_a_question_that_may_be_answered_by_itself_is_listed_and_alarms_nobody_until_its_time(store):
    waits = msgspec.structs.replace(STALE, code=HoldCode.NOTHING_TO_CANCEL, waits_until=NOW + timedelta(hours=1))
    record(store, outcome(1, holds=(waits, DEATH)))
    first, second = open_ones(store)
    assert (first.waits_until, second.waits_until) == (NOW + timedelta(hours=1), None)

    def asking(minutes):
        return store.read_now(lambda conn: store.holds.counts(conn, asking_at=NOW + timedelta(minutes=minutes)))

    assert asking(59) == {"death-in-future": 1}
    assert asking(60) == {"death-in-future": 1, "nothing-to-cancel": 1}
    assert store.read_now(lambda conn: overview.overview(store, conn, (), {}, NOW)).holds == {"death-in-future": 1}


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


# --- a later event makes true what was asked --------------------------------------------------------------------------

SAID = Assertion(status=EncounterStatus.FINISHED, received=1.0)
LEFT = Hold(code=HoldCode.STATUS_EVENT_STALE, chart_id="chart-1", subject="MRN:V1", asserts=SAID)
HAS_LEFT = Fact(chart_id="chart-1", encounter="MRN:V1", asserts=SAID, changed=True, surely_after=2.0)


def happen(store, entry_id, *facts, known=(), **more):
    """An event that another message tells of."""
    known = known or (chart("chart-1"),)
    record(store, outcome(entry_id, facts=facts, **more), before=load(store, *known))


@pytest.fixture
def asked(store):
    record(store, outcome(1, chart("chart-1"), holds=(LEFT, DEATH)))
    return store


def test_an_event_that_makes_it_true_supersedes_a_question_and_is_named(asked):
    happen(asked, 2, HAS_LEFT)
    assert states(asked) == {"status-event-stale": HoldState.SUPERSEDED, "death-in-future": HoldState.OPEN}
    left, death = holds(asked)
    assert (left.answered_by, left.decided_at, left.decided_by, left.unreadable) == (2, NOW, None, False)
    assert (death.answered_by, death.decided_at) == (None, None)
    (act,) = asked.read_now(asked.audit.find)
    assert (act.actor, act.action, act.subject) == ("system", "supersede", f"hold:m{left.id}")
    assert act.reason == "entry 2 has answered it"


def test_what_is_decided_about_a_death_answers_all_that_was_asked_about_it(asked):
    happen(asked, 2, Fact(chart_id="chart-1"))
    assert states(asked) == {"status-event-stale": HoldState.OPEN, "death-in-future": HoldState.SUPERSEDED}


def test_an_event_of_another_patient_answers_nothing(asked):
    record(asked, outcome(2, chart("chart-2", 2)))
    happen(asked, 3, Fact(chart_id="chart-2"), known=(chart("chart-2", 2),))
    assert len(open_ones(asked)) == 2


def test_an_event_in_the_batch_of_the_question_answers_it_only_when_it_comes_after_it(store):
    record(store, outcome(1, chart("chart-1")))
    known = load(store, chart("chart-1"))
    record(store, outcome(2, facts=(HAS_LEFT,)), outcome(3, holds=(LEFT,)), before=known)
    assert states(store, 3) == {"status-event-stale": HoldState.OPEN}
    record(store, outcome(4, holds=(LEFT,)), outcome(5, facts=(HAS_LEFT,)), before=known)
    assert open_ones(store) == []
    (again,) = holds(store, 4)
    assert (again.state, again.answered_by) == (HoldState.SUPERSEDED, 5)


def test_a_question_that_is_just_being_released_is_left_to_the_release(asked):
    release(asked, open_ones(asked)[0].id)
    happen(asked, 2, HAS_LEFT)
    assert states(asked)["status-event-stale"] == HoldState.OPEN
    replay(asked, 3, DEATH, decision="status-event-stale")
    assert states(asked)["status-event-stale"] == HoldState.RELEASED
    assert [one.answered_by for one in holds(asked)] == [3, None]


def test_what_a_person_has_dismissed_stays_dismissed(asked):
    dismiss(asked, open_ones(asked)[0].id)
    happen(asked, 2, HAS_LEFT)
    assert states(asked)["status-event-stale"] == HoldState.DISMISSED


def test_an_event_of_the_survivor_answers_what_was_asked_of_the_merged_patient(store):
    survivor, other = chart("chart-1"), chart("chart-2", 2)
    moved = Hold(code=HoldCode.STATUS_EVENT_STALE, chart_id="chart-2", subject="MRN:V2", asserts=SAID)
    late = Hold(code=HoldCode.DEATH_STALE, location="PID-30", chart_id="chart-2")
    record(store, outcome(1, survivor), outcome(2, other, holds=(moved, late)))
    after = merged(survivor, other)
    record(store, outcome(3, *after), before=load(store, survivor, other))
    has_left = Fact(chart_id="chart-1", encounter="MRN:V2", asserts=SAID, surely_after=2.0)
    happen(store, 4, has_left, Fact(chart_id="chart-1"), known=after)
    assert open_ones(store) == []


def test_a_release_whose_message_is_replayed_without_it_leaves_no_decision_behind(store):
    record(store, outcome(1, holds=(STALE,)))
    release(store, open_ones(store)[0].id)
    replay(store, 2)
    (one,) = holds(store)
    assert (one.state, one.decided_by, one.decision, one.unreadable) == (HoldState.SUPERSEDED, None, None, False)
