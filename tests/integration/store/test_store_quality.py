"""The data-quality list: counted, decided, opened again; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store_builders import NOW, outcome, record

from engine.domain.outcome import QualityDecision
from engine.domain.quality import DETAILS_MAX, OTHERS, QualityItem, QualityKind, QualityState

BLANK = QualityItem.of(QualityKind.DISPOSITION_MISSING, "PV1-36")
CODE = QualityItem.of(QualityKind.CODE_UNKNOWN, "PV1-2")
HOUR = timedelta(hours=1)


def items(store, **conditions):
    return store.read_now(lambda conn: store.quality.find(conn, **conditions))


def counts(store):
    return {(one.channel, one.kind, one.detail): one.count for one in items(store)}


def decide(store, item, state, at=NOW):
    number = store.read_now(store.recorder.cursors).get("@act", {}).get(0, 1000) + 1
    made = QualityDecision(item=item, state=state, by="ana", reason="the sender was told")
    record(store, outcome(number, quality_decisions=(made,)), channel="@act", now=at)


def test_all_messages_with_the_same_fault_are_one_item_with_a_count(store):
    record(store, outcome(1, quality=(BLANK, CODE)), outcome(2), outcome(3, quality=(BLANK,)))
    record(store, outcome(4, quality=(BLANK,)), now=NOW + HOUR)
    record(store, outcome(5, quality=(BLANK,)), channel="other")
    assert counts(store) == {
        ("main-campus", "disposition_missing", "PV1-36"): 3,
        ("main-campus", "code_unknown", "PV1-2"): 1,
        ("other", "disposition_missing", "PV1-36"): 1,
    }
    first = items(store)[0]
    assert (first.first_at, first.last_at, first.example_entry, first.state) == (NOW, NOW + HOUR, 4, QualityState.OPEN)
    assert store.read_now(store.quality.counts)["main-campus"] == {"disposition_missing": 1, "code_unknown": 1}


def test_a_replay_is_counted_once(store):
    record(store, outcome(1, quality=(BLANK,)))
    record(store, outcome(2, quality=(BLANK, CODE), replay_root=1), outcome(3, quality=(CODE,)))
    assert counts(store) == {
        ("main-campus", "disposition_missing", "PV1-36"): 1,
        ("main-campus", "code_unknown", "PV1-2"): 2,
    }


def test_a_message_and_its_replay_in_one_batch_are_counted_once(store):
    record(store, outcome(1, quality=(BLANK,)), outcome(2, quality=(BLANK,), replay_root=1))
    assert counts(store) == {("main-campus", "disposition_missing", "PV1-36"): 1}


def test_an_outcome_says_what_was_wrong_with_its_message(store):
    record(store, outcome(1, quality=(BLANK, CODE)))
    found = store.read_now(lambda conn: store.recorder.outcomes(conn, [1]))
    assert found[1].quality == (BLANK, CODE)


def test_what_was_seen_to_is_done_until_it_happens_again(store):
    record(store, outcome(1, quality=(BLANK,)))
    (one,) = items(store)
    decide(store, one.id, QualityState.DONE)
    (done,) = items(store, state=QualityState.DONE)
    assert (done.decided_by, done.decided_at, done.decision) == ("ana", NOW, "the sender was told")
    assert store.read_now(store.quality.counts) == {}
    record(store, outcome(2, quality=(BLANK,)), now=NOW + HOUR)
    (again,) = items(store)
    assert (again.id, again.state, again.count, again.decided_at) == (one.id, QualityState.OPEN, 2, NOW)


def test_a_replay_of_what_was_counted_does_not_open_it_again(store):
    record(store, outcome(1, quality=(BLANK,)))
    decide(store, items(store)[0].id, QualityState.DONE)
    record(store, outcome(2, quality=(BLANK,), replay_root=1))
    assert [one.state for one in items(store)] == [QualityState.DONE]


def test_a_person_opens_it_again(store):
    record(store, outcome(1, quality=(BLANK,)))
    (one,) = items(store)
    decide(store, one.id, QualityState.DONE)
    decide(store, one.id, QualityState.OPEN, NOW + HOUR)
    assert [(one.state, one.decided_at) for one in items(store)] == [(QualityState.OPEN, NOW + HOUR)]


@pytest.mark.parametrize("at_once", [True, False])
def test_details_without_end_are_a_bounded_number_of_items(store, at_once):
    many = [QualityItem.of(QualityKind.CODE_UNKNOWN, f"ZZ{n}-1") for n in range(DETAILS_MAX + 9)]
    if at_once:
        record(store, outcome(1, quality=tuple(many)))
    else:
        for number, item in enumerate(many, 1):
            record(store, outcome(number, quality=(item,)))
    found = counts(store)
    assert len(found) == DETAILS_MAX + 1
    assert found["main-campus", "code_unknown", OTHERS] == 9
    record(store, outcome(500, quality=(many[0], CODE)))
    assert counts(store)["main-campus", "code_unknown", "ZZ0-1"] == 2
    assert counts(store)["main-campus", "code_unknown", OTHERS] == 10


def test_the_list_can_be_narrowed(store):
    record(store, outcome(1, quality=(BLANK, CODE)))
    record(store, outcome(2, quality=(CODE,)), channel="other")
    assert len(items(store, channel="other")) == 1
    assert len(items(store, kind="code_unknown")) == 2
    assert len(items(store, limit=2)) == 2
    assert items(store, state=QualityState.DONE) == []


def test_a_decision_that_was_altered_behind_our_back_is_not_shown(store):
    from sqlalchemy import update

    from engine.store.schema import quality

    record(store, outcome(1, quality=(BLANK,)))
    decide(store, items(store)[0].id, QualityState.DONE)
    store.charts_ledger.write_now(lambda conn: conn.execute(update(quality).values(decided_by="eve")))
    assert [one.decision for one in items(store)] == [None]
