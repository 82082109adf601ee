from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from store_builders import CHANNEL, NOW, append, chart, outcome, receipt, record

from engine.domain.delivery import DeadLetter, Stage
from engine.domain.hold import Hold, HoldCode
from engine.domain.message import AckCode, AckState, EntryState, Summary
from engine.errors import Fault, StoreError
from engine.store.journal import Append

REFUSAL = Fault(error="unsupported-version", text="this version is not accepted", hl7_code=203, location="MSH-12")


def entries(store, position=0, limit=100, channel=CHANNEL):
    def read(conn):
        return store.journal.entries(conn, [id_ for id_, _ in store.journal.after(conn, channel, position, limit)])

    return store.read_now(read)


def find(store, **conditions):
    return store.read_now(lambda conn: store.journal.find(conn, **conditions))


def test_an_entry_comes_back_as_it_was_received(store):
    sent = receipt(
        store.keys, payload=b"\x00\xff MSH", deviations=("crlf",), wants_application_ack=True, config_as_of="cfg7"
    )
    [stored] = append(store, sent)
    [entry] = entries(store)
    assert entry == store.read_now(lambda conn: store.journal.entry(conn, stored.id))
    assert (entry.payload, entry.peer, entry.summary) == (sent.payload, sent.peer, sent.summary)
    assert (entry.received_at, entry.deviations, entry.config_as_of) == (NOW, ("crlf",), "cfg7")
    assert (entry.ack, entry.ack_state, entry.wants_application_ack) == (AckCode.AA, AckState.OWED, True)
    assert entry.refusal is None
    assert entry.replay_of is None


def test_a_refused_receipt_is_kept_with_its_reason(store):
    [stored] = append(store, receipt(store.keys, refusal=REFUSAL, ack=AckCode.AR))
    assert stored.refused
    [entry] = entries(store)
    assert (entry.refusal, entry.ack) == (REFUSAL, AckCode.AR)
    assert find(store)[0].state is EntryState.REFUSED
    assert find(store)[0].reason == REFUSAL.text


def test_ids_are_dense_and_in_the_order_of_arrival_over_channels(store):
    first = append(store, receipt(store.keys, "1"), receipt(store.keys, "2", channel="lab"))
    second = append(store, receipt(store.keys, "1"), receipt(store.keys, "3"))
    assert [stored.id for stored in (*first, *second)] == [1, 2, None, 3]
    assert [entry.id for entry in entries(store)] == [1, 3]
    assert [entry.id for entry in entries(store, channel="lab")] == [2]


def test_entries_after_a_position_are_read_up_to_a_limit(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(300)))
    assert [entry.id for entry in entries(store, 100, 5)] == [101, 102, 103, 104, 105]
    assert len(entries(store, 0, 1000)) == 300
    assert entries(store, 300, 5) == []


def test_a_batch_of_very_large_entries_ends_early_but_never_empty(store, monkeypatch):
    monkeypatch.setattr("engine.store.journal._BATCH_BYTES_MAX", 1000)
    append(store, *(receipt(store.keys, str(number), payload=bytes(700)) for number in range(4)))
    assert [entry.id for entry in entries(store, 0)] == [1, 2]
    assert [entry.id for entry in entries(store, 2)] == [3, 4]


def test_channels_and_the_time_of_their_first_entry_are_known(store):
    append(store, receipt(store.keys, "1", received_at=NOW), receipt(store.keys, "2", channel="lab"))
    append(store, receipt(store.keys, "3", received_at=NOW + timedelta(days=1)))
    assert store.read_now(store.journal.channels) == ["lab", CHANNEL]
    assert store.read_now(store.journal.first_received) == {"lab": NOW, CHANNEL: NOW}


# --- duplicates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "in two groups"])
def test_an_identical_message_makes_no_entry_and_gets_the_stored_answer(store, together):
    first = receipt(store.keys, ack=AckCode.CA, wants_application_ack=True)
    again = receipt(store.keys, received_at=NOW + timedelta(minutes=5), ack=AckCode.AA)
    stored = append(store, first, again) if together else [*append(store, first), *append(store, again)]
    assert (stored[0].id, stored[0].duplicate_of) == (1, None)
    assert (stored[1].id, stored[1].duplicate_of) == (None, 1)
    assert (stored[1].ack, stored[1].received_at, stored[1].wants_application_ack) == (AckCode.CA, NOW, True)
    assert stored[1].ack_state is AckState.OWED
    assert stored[1].arrival == -1
    assert len(entries(store)) == 1
    assert find(store)[0].repeats == 1


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "in two groups"])
def test_a_known_control_id_with_other_content_is_flagged_and_stored(store, together):
    first, other = receipt(store.keys, content="a"), receipt(store.keys, content="b")
    stored = append(store, first, other) if together else [*append(store, first), *append(store, other)]
    assert (stored[1].id, stored[1].conflict_with, stored[1].refused) == (2, 1, False)
    assert [entry.flagged_duplicate_of for entry in entries(store)] == [None, 1]


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "in two groups"])
def test_a_flagged_message_sent_again_is_an_exact_duplicate_of_itself(store, together):
    receipts = [receipt(store.keys, content=content) for content in ("a", "b", "b", "a", "c", "c")]
    stored = append(store, *receipts) if together else [append(store, one)[0] for one in receipts]
    assert [(one.id, one.duplicate_of, one.conflict_with) for one in stored] == [
        (1, None, None), (2, None, 1), (None, 2, None), (None, 1, None), (3, None, 1), (None, 3, None),
    ]  # fmt: skip


def test_a_conflict_is_refused_where_the_channel_says_so(store):
    append(store, receipt(store.keys, content="a"))
    other = receipt(store.keys, content="b", refuse_conflict=True, conflict_ack=AckCode.AE, wants_application_ack=True)
    [stored] = append(store, other)
    assert (stored.id, stored.conflict_with, stored.refused, stored.ack) == (2, 1, True, AckCode.AE)
    assert (stored.ack_state, stored.wants_application_ack) == (AckState.OWED, False)
    entry = entries(store)[1]
    assert (entry.refusal.hl7_code, entry.refusal.location, entry.ack) == (205, "MSH-10", AckCode.AE)
    # What was refused is not known afterwards: the same again is refused again, and the original is still the original.
    assert append(store, other)[0].refused
    assert append(store, receipt(store.keys, content="a"))[0].duplicate_of == 1


def test_a_refused_conflict_whose_sender_wants_no_answer_owes_none(store):
    append(store, receipt(store.keys, content="a"))
    [stored] = append(store, receipt(store.keys, content="b", refuse_conflict=True, conflict_ack=None))
    assert (stored.ack, stored.ack_state) == (None, AckState.NOT_OWED)


def test_a_refused_message_may_be_sent_again_once_it_is_acceptable(store):
    append(store, receipt(store.keys, refusal=REFUSAL, ack=AckCode.AR))
    [stored] = append(store, receipt(store.keys))
    assert (stored.id, stored.duplicate_of, stored.conflict_with) == (2, None, None)


def test_the_same_control_id_of_another_channel_or_sender_is_another_message(store):
    lab = receipt(store.keys, channel="lab", dedupe_key=store.keys.lookup("lab", "EPIC", "", "C1"))
    other = receipt(store.keys, dedupe_key=store.keys.lookup(CHANNEL, "CERNER", "", "C1"))
    stored = append(store, receipt(store.keys), lab, other)
    assert [(one.id, one.duplicate_of, one.conflict_with) for one in stored] == [
        (1, None, None), (2, None, None), (3, None, None),
    ]  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["in one group", "in two groups"])
def test_a_collision_of_the_index_is_not_taken_for_a_conflict(store, together):
    mine = receipt(store.keys, "C1", "a")
    summary = Summary(control_id="C1", sending_application="CERNER")
    theirs = receipt(store.keys, "C1", "b", summary=summary, dedupe_key=mine.dedupe_key, refuse_conflict=True)
    stored = append(store, mine, theirs) if together else [*append(store, mine), *append(store, theirs)]
    assert (stored[1].id, stored[1].conflict_with, stored[1].refused) == (2, None, False)
    assert append(store, theirs)[0].duplicate_of == 2


def test_messages_without_a_control_id_are_never_duplicates(store):
    stored = append(store, receipt(store.keys, None), receipt(store.keys, None))
    assert [one.id for one in stored] == [1, 2]


def test_a_sender_that_repeats_one_control_id_for_ever_finds_few_rows_each_time(store):
    for start in range(0, 300, 100):
        append(store, *(receipt(store.keys, "1", str(start + number)) for number in range(100)))
    assert append(store, receipt(store.keys, "1", "299"))[0].duplicate_of == 300
    assert append(store, receipt(store.keys, "1", "0"))[0].duplicate_of == 1
    keys = [entry.flagged_duplicate_of for entry in entries(store, limit=1000)]
    assert keys == [None, *[1] * 299]


# --- replays ---------------------------------------------------------------------------------------------------------


def test_a_replay_is_a_new_entry_that_knows_its_root(store):
    original = receipt(store.keys)
    append(store, original)
    replay = msgspec.structs.replace(original, replay_of=1, ack=None, ack_state=AckState.NOT_OWED)
    append(store, replay)
    append(store, msgspec.structs.replace(replay, replay_of=2))
    assert [(e.id, e.replay_of, e.replay_root) for e in entries(store)] == [(1, None, None), (2, 1, 1), (3, 2, 1)]
    assert append(store, original)[0].duplicate_of == 1


def test_a_replay_of_an_entry_that_is_not_there_is_an_error(store):
    with pytest.raises(StoreError, match="entry 99"):
        append(store, receipt(store.keys, replay_of=99))
    assert entries(store) == []


# --- answers ---------------------------------------------------------------------------------------------------------


def test_what_became_of_answers_is_written_with_the_next_append(store):
    stored = append(store, *(receipt(store.keys, control) for control in ("1", "2", "3", "1")))
    assert [one.arrival for one in stored] == [1, 2, 3, -1]
    append(store, sent=[1, -1], unsent=[2])
    assert [entry.ack_state for entry in entries(store)] == [AckState.SENT, AckState.UNSENT, AckState.OWED]
    assert store.read_now(lambda conn: conn.exec_driver_sql("SELECT ack_state FROM journal.repeat").scalar()) == "sent"


def test_answers_owed_at_the_start_of_the_daemon_never_went_out(store):
    append(store, receipt(store.keys, "1"), receipt(store.keys, "1"), receipt(store.keys, "2"))
    append(store, receipt(store.keys, "3", ack=None, ack_state=AckState.NOT_OWED), sent=[2])
    assert store.journal_ledger.write_now(store.journal.mark_startup_unsent) == 2
    states = [entry.ack_state for entry in entries(store)]
    assert states == [AckState.UNSENT, AckState.SENT, AckState.NOT_OWED]
    assert store.journal_ledger.write_now(store.journal.mark_startup_unsent) == 0


def test_a_repeat_of_a_message_that_asked_for_no_answer_owes_none(store):
    stored = append(store, receipt(store.keys, ack=None, ack_state=AckState.NOT_OWED), receipt(store.keys))
    assert (stored[1].duplicate_of, stored[1].ack, stored[1].ack_state) == (1, None, AckState.NOT_OWED)


def test_a_code_that_was_decided_after_processing_is_kept(store):
    append(store, receipt(store.keys, "1", ack=None), receipt(store.keys, "1"), receipt(store.keys, "2", ack=None))
    answered = Append(answered=((1, AckCode.AE), (-1, AckCode.AE), (2, AckCode.AA)), sent=(1, -1))
    store.journal_ledger.write_now(lambda conn: store.journal.append_each(conn, [answered]))
    assert [(entry.ack, entry.ack_state) for entry in entries(store)] == [
        (AckCode.AE, AckState.SENT), (AckCode.AA, AckState.OWED),
    ]  # fmt: skip


def test_every_caller_of_a_group_gets_what_belongs_to_it(store):
    items = [
        Append(receipts=(receipt(store.keys, "1"), receipt(store.keys, "2"))),
        Append(sent=(1,)),
        Append(receipts=(receipt(store.keys, "2"),)),
    ]
    results = store.journal_ledger.write_now(lambda conn: store.journal.append_each(conn, items))
    assert [[one.arrival for one in own] for own in results] == [[1, 2], [], [-1]]


# --- sequence numbers ------------------------------------------------------------------------------------------------


def test_the_last_accepted_sequence_number_of_a_channel_is_kept(store):
    append(
        store,
        receipt(store.keys, "1", sequence_number=7),
        receipt(store.keys, "2", sequence_number=8),
        receipt(store.keys, "3", sequence_number=99, refusal=REFUSAL),
        receipt(store.keys, "4", sequence_number=3, channel="lab"),
    )
    assert store.read_now(lambda conn: store.journal.sequence_number(conn, CHANNEL)) == 8
    assert store.read_now(lambda conn: store.journal.sequence_number(conn, "lab")) == 3
    assert store.read_now(lambda conn: store.journal.sequence_number(conn, "none")) is None
    append(store, receipt(store.keys, "5", sequence_number=0))
    assert store.read_now(lambda conn: store.journal.sequence_number(conn, CHANNEL)) == 0
    store.journal_ledger.write_now(lambda conn: store.journal.forget_sequence_number(conn, CHANNEL))
    assert store.read_now(lambda conn: store.journal.sequence_number(conn, CHANNEL)) is None


# --- lists -----------------------------------------------------------------------------------------------------------


def test_entries_are_listed_newest_first_with_their_state(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 5)))
    append(store, receipt(store.keys, "5", refusal=REFUSAL))
    record(store, outcome(1, chart()), outcome(2, state=EntryState.FILTERED, reason="the filter"))
    listed = find(store)
    assert [(one.id, one.state) for one in listed] == [
        (5, EntryState.REFUSED), (4, EntryState.RECEIVED), (3, EntryState.RECEIVED), (2, EntryState.FILTERED),
        (1, EntryState.PROCESSED),
    ]  # fmt: skip
    assert (listed[4].patient_key, listed[4].control_id, listed[4].type) == ("MRN:P1", "1", "ADT^A01")
    assert listed[3].reason == "the filter"
    assert [one.id for one in find(store, limit=2)] == [5, 4]
    assert [one.id for one in find(store, state=EntryState.RECEIVED)] == [4, 3]
    assert [one.id for one in find(store, state=EntryState.REFUSED)] == [5]
    assert [one.id for one in find(store, state=EntryState.FILTERED)] == [2]
    assert [one.id for one in find(store, state=EntryState.DEAD)] == []
    assert [one.id for one in find(store, ids=[1, 4])] == [4, 1]


def test_entries_are_found_by_control_id_channel_and_time(store):
    append(
        store,
        receipt(store.keys, "A", received_at=NOW),
        receipt(store.keys, "A", "other", received_at=NOW + timedelta(hours=1)),
        receipt(store.keys, "A", refusal=REFUSAL, received_at=NOW + timedelta(hours=2)),
        receipt(store.keys, "A", channel="lab", received_at=NOW + timedelta(hours=3)),
        receipt(store.keys, "B", received_at=NOW + timedelta(hours=4)),
        receipt(store.keys, None, received_at=NOW + timedelta(hours=5)),
    )
    assert [one.id for one in find(store, control_id="A")] == [4, 3, 2, 1]
    assert [one.id for one in find(store, control_id="A", limit=2)] == [4, 3]
    assert [one.id for one in find(store, control_id="A", channel=CHANNEL)] == [3, 2, 1]
    assert find(store, control_id="nobody") == []
    since, until = NOW + timedelta(hours=1), NOW + timedelta(hours=4)
    assert [one.id for one in find(store, since=since, until=until)] == [4, 3, 2]


def test_entries_of_a_patient_include_those_of_charts_merged_into_theirs(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 5)))
    one, two, three = (chart(f"chart-{number}", number) for number in (1, 2, 3))
    record(store, outcome(1, one), outcome(2, two), outcome(3, three))
    survivor = msgspec.structs.replace(
        one,
        version=2,
        patient=msgspec.structs.replace(one.patient, identifiers=(*one.patient.identifiers, *two.patient.identifiers)),
        encounters=(*one.encounters, *two.encounters),
        scores=(*one.scores, *two.scores),
        tasks=(*one.tasks, *two.tasks),
    )
    merged = msgspec.structs.replace(
        two, version=2, merged_into=one.id, encounters=(), encounter_stamps={}, scores=(), tasks=()
    )
    known = store.read_now(lambda conn: store.charts.load(conn, {("MRN", "MR", "P1"), ("MRN", "MR", "P2")}, set()))
    record(store, outcome(4, survivor, merged), before=known)
    assert [item.id for item in find(store, patient="MRN:P2")] == [4, 2, 1]
    assert [item.id for item in find(store, patient="MRN:P1")] == [4, 2, 1]
    assert [item.id for item in find(store, patient="MRN:P3")] == [3]
    assert find(store, patient="MRN:P9") == []


def settled(store, entry_id):
    entry = store.read_now(lambda conn: store.journal.entry(conn, entry_id))
    return entry.settled


def test_a_replay_knows_whether_its_message_was_applied_before(store):
    asked = Hold(code=HoldCode.STATUS_EVENT_STALE, chart_id="chart-1")
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 5)))
    letter = DeadLetter(stage=Stage.PROCESSING, error="pid-missing", location="PID", detail="")
    record(
        store,
        outcome(1),
        outcome(2, holds=(asked,)),
        outcome(3, state=EntryState.DEAD, dead_letter=letter),
        outcome(4, state=EntryState.FILTERED),
    )
    append(store, *(receipt(store.keys, str(number), replay_of=number) for number in range(1, 5)))
    assert [settled(store, entry) for entry in range(1, 9)] == [False] * 4 + [True, False, False, False]


def test_a_message_that_died_and_was_applied_by_a_replay_is_known_as_applied(store):
    append(store, receipt(store.keys, "1"))
    letter = DeadLetter(stage=Stage.PROCESSING, error="pid-missing", location="PID", detail="")
    record(store, outcome(1, state=EntryState.DEAD, dead_letter=letter))
    append(store, receipt(store.keys, "1", replay_of=1))
    store.charts_ledger.write_now(lambda conn: store.dead_letters.resolve(conn, 1, "entry:2", NOW))
    assert not settled(store, 2)
    record(store, outcome(2, replay_root=1))
    append(store, receipt(store.keys, "1", replay_of=1))
    assert settled(store, 3)


def test_a_decision_travels_with_the_replay_that_carries_it(store):
    append(store, receipt(store.keys, "1"))
    append(store, receipt(store.keys, "1", replay_of=1, decision="death-in-future@PID-29"))
    found = store.read_now(lambda conn: store.journal.entry(conn, 2))
    assert found.decision == "death-in-future@PID-29"
