"""Notices whose ground has gone are taken back in the transaction that took it, and those that were sent say so."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import structs
from store_builders import NOW, append, changed, chart, due, ids, load, merged, outcome, receipt, record, task

from engine.domain.delivery import (
    Delivery,
    DeliveryState,
    Fallen,
    Gone,
    Ground,
    Notice,
    Operation,
    line_of_notice,
)
from engine.errors import StoreError
from engine.pipeline.admit import Known
from engine.store import admissions, notices
from engine.store.outbox import Settled
from engine.store.requeue import Requeued, requeue

LATER = NOW + timedelta(hours=10)
TASK = Ground(kind="task", key="t1")


@pytest.fixture(autouse=True)
def entries(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 9)))


def text(key, one, ground=TASK, destination="crm"):
    said = Notice(id=key, patient_key=one.patient.key, to="x", body="y", ground=ground)
    return Delivery(
        destination=destination,
        operation=Operation.SEND_TEXT,
        ordering_key=line_of_notice(one.id, key),
        idempotency_key=key,
        payload=said.encoded(),
    )


def planned(store, *keys, ground=TASK):
    one = chart(tasks=(task("t1"),))
    record(store, outcome(1, one, deliveries=tuple(text(key, one, ground) for key in keys)))
    return one


def falls(store, one, entry=2, code=Gone.GROUND, grounds=(TASK,)):
    gone = Fallen(chart_id=one.id, code=code, grounds=grounds)
    record(store, outcome(entry, changed(one), fallen=(gone,)), before=load(store, one), now=LATER)


def settle(store, key, state, **more):
    (number,) = ids(store, [key])
    result = Settled(id=number, state=state, attempts=1, **more)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], NOW))
    return number


def known(store, number):
    def read(conn):
        return store.outbox.facts_of(conn, [store.outbox.get(conn, number)], frozenset(), NOW)[0]

    found: Known = store.read_now(read)
    return found


def gone(store, number):
    return store.read_now(lambda conn: notices.without_ground(conn, [number])).get(number)


def test_a_notice_that_waits_is_asked_about_at_once_when_its_ground_falls(store):
    one = planned(store, "n1", "n2")
    for key in ("n1", "n2"):
        settle(store, key, DeliveryState.PENDING, error="quiet-hours", next_attempt_at=NOW + timedelta(days=1),
               not_before=NOW + timedelta(days=1))  # fmt: skip
    assert due(store, now=LATER) == []
    falls(store, one)
    assert due(store, now=LATER) == ["n1", "n2"]
    for number in ids(store, ["n1", "n2"]):
        assert known(store, number).gone is Gone.GROUND
        assert (gone(store, number).entry, gone(store, number).at) == (2, LATER)
    taken = store.read_now(lambda conn: notices.taken_back_by(conn, 2))
    assert [one.delivery_id for one in taken] == ids(store, ["n1", "n2"])


def test_what_hangs_on_something_else_stays(store):
    one = chart(tasks=(task("t1"), task("t2")))
    other = chart("chart-2", 2, tasks=())
    record(
        store,
        outcome(1, one, other, deliveries=(text("mine", one, Ground(kind="task", key="t2")), text("theirs", other),
                                           text("alone", one, None))),
    )  # fmt: skip
    falls(store, one)
    assert [known(store, number).gone for number in ids(store, ["mine", "theirs", "alone"])] == [None] * 3


@pytest.mark.parametrize("code", [Gone.DECEASED, Gone.MERGED])
def test_all_notices_of_a_patient_fall_together(store, code):
    one = chart(tasks=(task("t1"),))
    record(store, outcome(1, one, deliveries=(text("n1", one), text("n2", one, None))))
    falls(store, one, code=code, grounds=None)
    assert [known(store, number).gone for number in ids(store, ["n1", "n2"])] == [code] * 2


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.HELD, DeliveryState.DEAD])
def test_what_was_sent_or_failed_before_stays_so_and_says_that_its_ground_has_gone(store, state):
    one = planned(store, "n1")
    number = settle(store, "n1", state, error=None if state is DeliveryState.DELIVERED else "no-answer")
    falls(store, one)
    assert store.read_now(lambda conn: store.outbox.get(conn, number)).state is state
    assert (gone(store, number).code, gone(store, number).entry) == (Gone.GROUND, 2)


def test_what_is_tried_again_by_a_person_is_not_sent_when_its_ground_has_gone(store):
    one = planned(store, "n1", "n2")
    dead, held = settle(store, "n1", DeliveryState.DEAD, error="x"), settle(store, "n2", DeliveryState.HELD, error="x")
    falls(store, one)
    with pytest.raises(StoreError, match="ground-gone"):
        store.charts_ledger.write_now(lambda conn: requeue(conn, store.keys, dead, NOW))
    store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, held, NOW))
    assert known(store, held).gone is Gone.GROUND  # it is asked, and not sent


def test_nothing_is_left_to_decide_of_what_was_withheld_when_its_ground_falls(store):
    one = planned(store, "n1")
    number = settle(store, "n1", DeliveryState.WITHHELD, error="no-consent")
    assert store.read_now(admissions.counts) == {"crm": {"no-consent": 1}}
    falls(store, one)
    assert store.read_now(admissions.counts) == {}
    (said,) = store.read_now(lambda conn: admissions.get(conn, [number])).values()
    assert (said.code, said.decision) == ("no-consent", admissions.FINAL)


def test_after_a_merge_a_person_decides(store):
    one = planned(store, "n1")
    falls(store, one, code=Gone.MERGED, grounds=None)
    number = settle(store, "n1", DeliveryState.WITHHELD, error=Gone.MERGED.value)
    assert store.read_now(admissions.counts) == {"crm": {"patient-merged": 1}}

    def release(conn):
        assert admissions.decide(conn, store.keys, number, "released", by="anna", now=LATER)
        return requeue(conn, store.keys, number, LATER)

    assert store.charts_ledger.write_now(release) is Requeued.AS_IT_WAS
    assert known(store, number).released == {Gone.MERGED.value}
    assert due(store, now=LATER) == ["n1"]


def test_a_notice_stays_in_its_own_line_when_its_patient_is_merged(store):
    survivor, other = chart(), chart("chart-2", 2)
    record(store, outcome(1, survivor, other, deliveries=(text("n1", other), text("n2", other))))
    kept, folded = merged(survivor, other)
    record(store, outcome(2, kept, folded, fallen=(Fallen(chart_id=other.id, code=Gone.MERGED),)),
           before=load(store, survivor, other))  # fmt: skip
    assert sorted(due(store, now=LATER)) == ["n1", "n2"]
    number = settle(store, "n1", DeliveryState.WITHHELD, error=Gone.MERGED.value)

    def read(conn):
        queued = store.outbox.get(conn, number)
        return store.outbox.facts_of(conn, [queued], frozenset({"chart"}), NOW)[0]

    assert store.read_now(read).chart.id == survivor.id


def test_a_ground_that_falls_in_the_batch_that_planned_on_it_takes_it_along(store):
    first = chart(tasks=(task("t1"),))
    second = changed(first)
    gone_now = Fallen(chart_id=first.id, code=Gone.GROUND, grounds=(TASK,))
    record(store, outcome(1, first, deliveries=(text("n1", first),)), outcome(2, second, fallen=(gone_now,)))
    (number,) = ids(store, ["n1"])
    assert gone(store, number).entry == 2


def test_what_is_planned_anew_after_the_fall_stands(store):
    one = planned(store, "n1")
    gone_now = Fallen(chart_id=one.id, code=Gone.GROUND, grounds=(TASK,))
    second, third = changed(one), changed(changed(one))
    record(store, outcome(2, second, fallen=(gone_now,)), outcome(3, third, deliveries=(text("n2", third),)),
           before=load(store, one))  # fmt: skip
    first, again = ids(store, ["n1", "n2"])
    assert (gone(store, first).entry, gone(store, again)) == (2, None)


def test_a_notice_waits_for_no_other_and_no_other_for_it(store):
    one = chart(tasks=(task("t1"),))
    state = Delivery(destination="crm", operation=Operation.UPSERT_TASK, ordering_key=one.id, idempotency_key="s1",
                     payload=b"{}")  # fmt: skip
    more = structs.replace(state, idempotency_key="s2")
    record(store, outcome(1, one, deliveries=(text("n1", one), state, text("n2", one), more)))
    settle(store, "n1", DeliveryState.PENDING, error="quiet-hours", next_attempt_at=LATER, not_before=LATER)
    assert due(store) == ["s1", "n2"]


def test_when_notices_went_out_is_known_for_caps_also_after_a_merge(store):
    survivor, other = chart(), chart("chart-2", 2)
    record(store, outcome(1, survivor, other, deliveries=(text("n1", other), text("n2", survivor),
                                                          text("n3", survivor))))  # fmt: skip
    settle(store, "n1", DeliveryState.DELIVERED)
    kept, folded = merged(survivor, other)
    record(store, outcome(2, kept, folded), before=load(store, survivor, other))
    settle(store, "n2", DeliveryState.DELIVERED)
    (number,) = ids(store, ["n3"])

    def sent_at(now):
        def read(conn):
            queued = store.outbox.get(conn, number)
            return store.outbox.facts_of(conn, [queued], frozenset({"sent_at"}), now)[0].sent_at

        return store.read_now(read)

    assert sent_at(LATER) == (NOW, NOW)
    assert sent_at(NOW + timedelta(days=40)) == ()
