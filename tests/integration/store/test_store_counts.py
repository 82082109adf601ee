from __future__ import annotations

import msgspec
from sqlalchemy import text
from store_builders import CHANNEL, NOW, append, delivery, ids, outcome, receipt, record

from engine.domain.delivery import DeliveryState
from engine.domain.message import AckCode, AckState, EntryState
from engine.errors import Fault
from engine.store import counts
from engine.store.outbox import Settled

REFUSAL = Fault(error="unsupported-version", text="not accepted", hl7_code=203, location="MSH-12")


def ledger(store, *channels):
    return {line.channel: line for line in store.read_now(lambda conn: counts.ledger(conn, channels))}


def day(store):
    """Six entries (one refused), two repeats; the first four are processed."""
    append(
        store,
        receipt(store.keys, "1"),
        receipt(store.keys, "2"),
        receipt(store.keys, "3"),
        receipt(store.keys, "4", refusal=REFUSAL, ack=AckCode.AR),
        receipt(store.keys, "5"),
        receipt(store.keys, "6"),
        receipt(store.keys, "1"),
        receipt(store.keys, "1"),
    )
    append(store, sent=[1, 2, 4, -1], unsent=[3])
    record(
        store,
        outcome(1, deliveries=tuple(delivery(f"k{number}", ordering_key=f"p{number}") for number in range(4))),
        outcome(2, state=EntryState.FILTERED),
        outcome(3, state=EntryState.DEAD),
        outcome(4, state=EntryState.REFUSED),
    )


def test_an_untouched_store_has_a_line_for_each_named_channel_that_balances(store):
    assert ledger(store) == {}
    [line] = ledger(store, "lab").values()
    assert line.balanced
    assert (line.received, line.pending) == (0, 0)


def test_every_arrival_is_accounted_for(store):
    day(store)
    numbers = ids(store, [f"k{number}" for number in range(4)])
    states = [DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.HELD, DeliveryState.DEAD]
    results = [Settled(id=number, state=state, attempts=1) for number, state in zip(numbers, states, strict=True)]
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, results, NOW))
    line = ledger(store)[CHANNEL]
    assert msgspec.to_builtins(line) == {
        "channel": CHANNEL,
        "kind": "message",
        "received": 8,
        "refused": 1,
        "filtered": 1,
        "processed": 1,
        "dead": 1,
        "pending": 2,
        "duplicates": 2,
        "acked": 3,
        "erased": 0,
        "deliveries": {"pending": 1, "delivered": 1, "held": 1, "dead": 1, "withheld": 0},
        "balanced": True,
    }


def test_channels_are_counted_by_themselves(store):
    day(store)
    append(store, receipt(store.keys, "x", channel="lab"), receipt(store.keys, "y", channel="lab"))
    record(store, outcome(7), channel="lab")
    lines = ledger(store)
    assert (lines["lab"].received, lines["lab"].processed, lines["lab"].pending) == (2, 1, 1)
    assert lines[CHANNEL].received == 8
    assert all(line.balanced for line in lines.values())


def test_a_refused_entry_counts_as_refused_before_the_processor_has_come_to_it(store):
    append(store, receipt(store.keys, "1", refusal=REFUSAL))
    line = ledger(store)[CHANNEL]
    assert (line.refused, line.pending, line.balanced) == (1, 0, True)


def test_an_entry_that_the_processor_passed_over_is_noticed(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(3)))
    record(store, outcome(1), outcome(3))
    line = ledger(store)[CHANNEL]
    assert (line.received, line.processed, line.pending, line.balanced) == (3, 2, 0, False)


def test_a_refused_entry_that_the_processor_passed_over_is_noticed(store):
    append(store, receipt(store.keys, "1", refusal=REFUSAL), receipt(store.keys, "2"))
    record(store, outcome(2))
    assert not ledger(store)[CHANNEL].balanced


def test_an_outcome_without_an_entry_is_noticed(store):
    append(store, receipt(store.keys, "1"))
    record(store, outcome(1), outcome(2))
    assert not ledger(store)[CHANNEL].balanced


def test_entries_that_vanished_are_noticed(store):
    day(store)
    store.journal_ledger.write_now(lambda conn: conn.execute(text("DELETE FROM journal.entry WHERE id = 2")))
    assert not ledger(store)[CHANNEL].balanced


def test_an_answer_that_did_not_go_out_is_not_counted_as_acknowledged(store):
    append(
        store,
        receipt(store.keys, "1", ack=AckCode.CA),
        receipt(store.keys, "2", ack=AckCode.AE),
        receipt(store.keys, "3", ack=None, ack_state=AckState.NOT_OWED),
        receipt(store.keys, "4"),
    )
    append(store, sent=[1, 2])
    assert ledger(store)[CHANNEL].acked == 1


def test_what_waits_is_counted_without_the_rest(store):
    day(store)
    append(store, receipt(store.keys, "x", channel="lab"))
    found = store.read_now(lambda conn: counts.pending(conn, [CHANNEL, "lab", "none"]))
    assert found == {CHANNEL: 2, "lab": 1, "none": 0}
