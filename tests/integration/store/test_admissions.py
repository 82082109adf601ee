"""What rules keep from going out: on record, counted apart, released or dismissed by a person."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec import structs
from store_builders import NOW, append, chart, delivery, due, ids, outcome, queue, receipt, record

from engine.domain.delivery import DeliveryState, Operation
from engine.errors import TamperedError
from engine.store import admissions
from engine.store.outbox import Settled

LATER = NOW + timedelta(hours=10)


def settle(store, key, state, destination="crm", now=NOW, **more):
    (number,) = ids(store, [key], destination)
    result = Settled(id=number, state=state, attempts=0, **more)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], now))
    return number


def withhold(store, key, code="no-consent", **more):
    return settle(store, key, DeliveryState.WITHHELD, error=code, **more)


def put_off(store, key, until=LATER, code="quiet-hours", **more):
    soon = NOW + timedelta(hours=1)
    return settle(store, key, DeliveryState.PENDING, error=code, next_attempt_at=soon, not_before=until, **more)


def decide(store, number, decision):
    return store.charts_ledger.write_now(
        lambda conn: admissions.decide(conn, store.keys, number, decision, by="anna", now=LATER)
    )


def standing(store, now=NOW, name="crm"):
    found = store.read_now(lambda conn: store.destinations.standings(conn, {"crm": "file", "sms": "file"}, now))
    return next(one for one in found if one.name == name)


def test_what_is_withheld_is_counted_by_destination_and_code_until_a_person_decides(store):
    queue(store, *(delivery(f"k{number}", ordering_key=f"p{number}") for number in range(4)))
    queue(store, delivery("s0", "sms"))
    first, second = withhold(store, "k0"), withhold(store, "k1")
    withhold(store, "k2", "too-late")
    withhold(store, "s0", "muted", destination="sms")
    assert standing(store).withheld == {"no-consent": 2, "too-late": 1}
    assert standing(store, name="sms").withheld == {"muted": 1}
    assert (standing(store).dead, standing(store).held, standing(store).troubled) == (0, 0, False)
    oldest = store.read_now(lambda conn: admissions.find(conn, destination="crm", limit=2))
    assert [one.delivery_id for one in oldest] == [first, second]
    assert decide(store, first, "dismissed")
    assert standing(store).withheld == {"no-consent": 1, "too-late": 1}
    assert not decide(store, first, "released")  # it is not open any more
    (said,) = store.read_now(lambda conn: admissions.get(conn, [first])).values()
    assert (said.decision, said.decided_by, said.decided_at) == ("dismissed", "anna", LATER)


def test_what_was_withheld_at_another_time_is_not_found(store):
    queue(store, delivery("k0"))
    withhold(store, "k0")
    moment = timedelta(microseconds=1)
    for since, until, number in ((NOW, None, 1), (NOW, NOW + moment, 1), (NOW + moment, None, 0), (None, NOW, 0)):
        found = store.read_now(lambda conn, since=since, until=until: admissions.find(conn, since=since, until=until))
        assert len(found) == number


def test_what_nobody_can_release_is_on_no_list(store):
    queue(store, delivery("k0"))
    number = withhold(store, "k0", final=True)
    assert standing(store).withheld == {}
    assert not decide(store, number, "released")
    assert store.read_now(lambda conn: admissions.get(conn, [number]))[number].decision == admissions.FINAL


def test_a_rule_that_was_set_aside_stays_so_when_another_keeps_the_delivery_again(store):
    queue(store, delivery("k0"))
    for code in ("no-consent", "muted"):
        number = withhold(store, "k0", code)
        assert decide(store, number, "released")
        store.charts_ledger.write_now(lambda conn: store.outbox.put_back(conn, number, NOW, ordering_key="chart-1"))
    put_off(store, "k0")
    assert store.read_now(lambda conn: admissions.released(conn, [number])) == {
        number: frozenset({"no-consent", "muted"})
    }
    assert standing(store).withheld == {}


def test_what_is_put_off_is_not_behind_nor_is_what_waits_for_it(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"))
    queue(store, delivery("b0", ordering_key="b"), now=NOW + timedelta(minutes=7))
    put_off(store, "a0")
    one = standing(store)
    assert (one.pending, one.put_off, one.oldest_at) == (3, 1, NOW)
    assert one.behind_at == NOW + timedelta(minutes=7)
    settle(store, "b0", DeliveryState.DELIVERED)
    assert standing(store).behind_at is None
    # When its time has come it is late like any other, also before anybody has asked again.
    after = standing(store, now=LATER)
    assert (after.put_off, after.behind_at) == (0, NOW)


def test_what_waits_after_a_failure_is_behind_however_long_it_was_put_off_before(store):
    queue(store, delivery("a0"))
    put_off(store, "a0")
    settle(store, "a0", DeliveryState.PENDING, error="no-answer", next_attempt_at=LATER)
    one = standing(store)
    assert (one.put_off, one.behind_at) == (0, NOW)


def test_nothing_is_known_of_ordinary_deliveries(store):
    queue(store, delivery("a0", ordering_key="a"), delivery("a1", ordering_key="a"))
    settle(store, "a0", DeliveryState.DELIVERED)
    settle(store, "a1", DeliveryState.PENDING, error="no-answer", next_attempt_at=LATER)
    assert store.read_now(lambda conn: admissions.get(conn, ids(store, ["a0", "a1"]))) == {}
    assert store.read_now(lambda conn: admissions.put_off(conn, NOW)) == []


# --- facts for rules -------------------------------------------------------------------------------------------------


def facts(store, *needs, key="k0"):
    def read(conn):
        (number,) = ids(store, [key])
        queued = store.outbox.get(conn, number)
        return store.outbox.facts_of(conn, [queued], frozenset(needs), NOW)[0]

    return store.read_now(read)


def of_patient(key, number=1, **more):
    payload = f'{{"survivor":"MRN:{number}","merged":"MRN:99"}}'.encode()
    return delivery(key, payload=payload, **more)


def test_a_rule_is_given_the_chart_it_needs_and_nothing_that_it_does_not(store):
    append(store, receipt(store.keys, "1"))
    one = chart()
    whose = one.patient.key.partition(":")[2]
    merge = structs.replace(of_patient("k0", whose), operation=Operation.MERGE_PATIENT)
    record(store, outcome(1, one, deliveries=(merge,)))
    assert facts(store).chart is None
    known = facts(store, "chart")
    assert known.chart.patient == one.patient
    assert known.unreadable is None


def test_a_delivery_that_was_put_beside_another_patient_is_not_asked_about_that_one(store):
    append(store, receipt(store.keys, "1"))
    merge = structs.replace(of_patient("k0", "someone-else"), operation=Operation.MERGE_PATIENT)
    record(store, outcome(1, chart(), deliveries=(merge,)))
    assert facts(store, "chart").unreadable == "chart-damaged"


@pytest.mark.parametrize("needs", [(), ("chart",), ("sent_at",), ("chart", "sent_at")])
def test_a_delivery_without_a_chart_has_no_facts(store, needs):
    queue(store, delivery("k0", payload=b"no JSON"))
    known = facts(store, *needs)
    assert (known.chart, known.sent_at, known.gone, known.unreadable) == (None, (), None, None)
    assert due(store) == ["k0"]


def test_a_chart_that_cannot_be_read_keeps_its_own_delivery_and_no_other(store, monkeypatch):
    queue(store, delivery("k0", ordering_key="a"))

    def damaged(*_):
        raise TamperedError("chart.document:a")

    monkeypatch.setattr("engine.store.charts.ChartStore.living", damaged)
    assert facts(store, "chart").unreadable == "chart-damaged"
