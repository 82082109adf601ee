"""Dead messages are found with the patient they name, also from before there was a chart; on both databases."""

from __future__ import annotations

import msgspec
from sqlalchemy import update
from store_builders import NOW, append, chart, merged, outcome, receipt, record

from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import EntryState
from engine.store.charts import key_hash
from engine.store.schema import dead_letter

LETTER = DeadLetter(stage=Stage.PROCESSING, error="merge-structure", location="MRG", detail="no MRG")


def died(entry_id, key, chart_id=None, state=EntryState.DEAD):
    one = outcome(entry_id, state=state, dead_letter=LETTER)
    return msgspec.structs.replace(one, patient_key=key, chart_id=chart_id)


def messages(store, patient):
    with store.reader() as conn:
        return [one.id for one in store.journal.find(conn, patient=patient)]


def letters(store, patient):
    with store.reader() as conn:
        return [one.entry for one in store.dead_letters.of_patient(conn, store.keys, patient)]


def arrive(store, count):
    append(store, *(receipt(store.keys, f"c{number}") for number in range(count)))


def test_a_dead_message_of_a_known_patient_is_listed_with_the_others(store):
    arrive(store, 3)
    record(store, outcome(1, chart()), died(2, "MRN:P1", "chart-1"), died(3, "MRN:P2"))
    assert messages(store, "MRN:P1") == [2, 1]
    assert letters(store, "MRN:P1") == [2]


def test_a_dead_message_of_a_patient_without_chart_is_found_by_its_key_and_later_by_the_chart(store):
    arrive(store, 2)
    record(store, died(1, "MRN:P1"))
    assert (messages(store, "MRN:P1"), letters(store, "MRN:P1"), messages(store, "MRN:P2")) == ([1], [1], [])
    record(store, outcome(2, chart()))
    assert (messages(store, "MRN:P1"), letters(store, "MRN:P1")) == ([2, 1], [1])


def test_a_refused_message_is_found_too(store):
    arrive(store, 1)
    record(store, died(1, "MRN:P1", state=EntryState.REFUSED))
    assert messages(store, "MRN:P1") == [1]


def test_the_dead_messages_of_a_number_that_was_merged_are_the_survivors(store):
    arrive(store, 2)
    record(store, died(1, "MRN:P2"))
    record(store, outcome(2, *merged(chart(), chart("chart-2", 2))))
    assert messages(store, "MRN:P1") == [2, 1]
    assert letters(store, "MRN:P1") == [1]


def test_a_resolved_letter_is_not_the_patients_any_more_but_its_message_is(store):
    arrive(store, 1)
    record(store, died(1, "MRN:P1"))
    store.charts_ledger.write_now(lambda conn: store.dead_letters.resolve(conn, 1, "entry:2", NOW))
    assert (messages(store, "MRN:P1"), letters(store, "MRN:P1")) == ([1], [])


def test_who_a_dead_message_is_about_stands_in_its_sealed_outcome_and_not_in_the_column(store):
    arrive(store, 1)
    record(store, died(1, "MRN:P1"))
    other = key_hash(store.keys, "MRN:P2")
    store.charts_ledger.write_now(lambda conn: conn.execute(update(dead_letter).values(key_hash=other)))
    assert (messages(store, "MRN:P2"), letters(store, "MRN:P2")) == ([], [])
    with store.reader() as conn:
        assert store.dead_letters.patients(conn, store.keys, other[:4]) == set()


def test_the_key_of_a_patient_without_chart_is_found_by_the_beginning_of_its_hash(store):
    arrive(store, 2)
    record(store, died(1, "MRN:P1"), died(2, "MRN:P2", "chart-2"))
    hashed = key_hash(store.keys, "MRN:P1")
    with store.reader() as conn:
        assert store.dead_letters.patients(conn, store.keys, hashed[:4]) == {"MRN:P1"}
        assert store.dead_letters.patients(conn, store.keys, key_hash(store.keys, "MRN:P2")) == set()
