"""What is swept from a real store, and what is not: on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import func, select, text, update
from store_builders import (
    CHANNEL,
    NOW,
    append,
    behind,
    changed,
    chart,
    charts_of,
    dead_letter,
    delivery,
    encounter,
    merged,
    outcome,
    patient,
    receipt,
    record,
    said,
    task,
)

from engine.clock import FixedClock
from engine.domain.audit import AuditRecord
from engine.domain.delivery import DeliveryState
from engine.domain.encounter import EncounterStatus
from engine.domain.message import AckState, EntryState
from engine.domain.patient import Identifier
from engine.domain.retention import Period, Policy
from engine.domain.task import TaskState
from engine.runtime.sweeper import Sweep, Sweeper, believable, finish
from engine.store import Store, schema
from engine.store.counts import ledger
from engine.store.days import partition_name, prepare_days
from engine.store.legalholds import LegalHolds
from engine.store.outbox import Settled
from engine.store.retention import Charts, of_charts
from engine.store.verify import verify

POLICY = Policy(messages=Period(days=90), deliveries=Period(days=90), charts=Period(years=7), trail=Period(years=6))
YEAR = timedelta(days=366)


def over(number: int = 1, chart_id: str = "", **more):
    """A chart in which nothing is open."""
    key = f"MRN:V{number}"
    fields = {
        "encounters": (
            encounter(
                key,
            ),
        ),
        "tasks": (task(f"task-{number}", key, state=TaskState.DONE),),
    }
    stay = msgspec.structs.replace(fields["encounters"][0], status=EncounterStatus.FINISHED)
    return chart(chart_id or f"chart-{number}", number, **{**fields, "encounters": (stay,), **more})


def arrive(store: Store, *numbers: int, **more):
    append(store, *(receipt(store.keys, f"C{n}", ack_state=AckState.NOT_OWED, **more) for n in numbers))


def sweep(store: Store, after=YEAR, **more):
    found = Sweep(store, POLICY, NOW + after, "system", **more).run()
    return {one.what: one for one in found}


def payloads(store: Store) -> list[int]:
    with store.reader() as conn:
        return list(conn.execute(select(schema.payload.c.entry_id).order_by(schema.payload.c.entry_id)).scalars())


def settle(store: Store) -> None:
    with store.reader() as conn:
        waiting = conn.execute(select(schema.delivery.c.id).where(schema.delivery.c.state != "delivered")).scalars()
        done = [Settled(id=number, state=DeliveryState.DELIVERED, attempts=1) for number in waiting]
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, done, NOW))


def hold(store: Store, chart_id: str) -> int:
    legal = LegalHolds(store.keys)
    return store.charts_ledger.write_now(lambda conn: legal.place(conn, chart_id, by="me", reason="suit", now=NOW))


def test_old_messages_go_and_all_that_counts_them_stays(store: Store) -> None:
    arrive(store, 1, 2)
    record(store, outcome(1, over(1)), outcome(2, over(2)))
    arrive(store, 3, received_at=NOW + YEAR)
    record(store, outcome(3, over(3)))
    before = store.read_now(ledger)
    assert sweep(store, dry_run=True)["messages"].count == 2
    assert payloads(store) == [1, 2, 3]
    assert sweep(store)["messages"].count == 2
    assert payloads(store) == [3]
    (line,) = store.read_now(ledger)
    assert (line.balanced, line.erased) == (True, 2)
    assert msgspec.structs.replace(line, erased=0) == before[0]
    assert sweep(store)["messages"].count == 0
    (swept,) = [one for one in said(store, action="swept") if one.subject == "messages"]
    assert (swept.count, swept.terms, swept.actor) == (2, "entry:1-2", "system")
    assert store.read_now(lambda conn: verify(store, conn)).ok


def test_a_swept_message_that_is_sent_again_is_still_a_duplicate(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    sweep(store)
    (again,) = append(store, receipt(store.keys, "C1"))
    assert (again.id, again.duplicate_of) == (None, 1)


def test_a_swept_entry_says_that_it_was_erased_and_is_listed_still(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    sweep(store)
    with store.reader() as conn:
        found = store.journal.entry(conn, 1)
        (listed,) = store.journal.find(conn)
    assert (found.erased, found.damaged, found.payload) == (True, True, b"")
    assert (listed.id, listed.state) == (1, EntryState.PROCESSED)


def test_a_message_that_was_taken_away_behind_our_back_does_not_pass_for_swept(store: Store) -> None:
    arrive(store, 1)
    store.journal_ledger.write_now(lambda conn: conn.execute(schema.payload.delete()))
    found = store.read_now(lambda conn: store.journal.entry(conn, 1))
    assert (found.erased, found.damaged) == (False, True)


def _pending(store: Store) -> str:
    arrive(store, 1)
    return "its processing"


def _owed(store: Store) -> str:
    append(store, receipt(store.keys))
    record(store, outcome(1, over()))
    return "an answer that is owed"


def _undelivered(store: Store) -> str:
    arrive(store, 1)
    record(store, outcome(1, over(), deliveries=(delivery("k1"),)))
    return "a delivery"


def _held_delivery(store: Store) -> str:
    _undelivered(store)
    store.charts_ledger.write_now(lambda conn: conn.execute(update(schema.delivery).values(state="held")))
    return "a delivery"


def _withheld(store: Store) -> str:
    _undelivered(store)
    store.charts_ledger.write_now(lambda conn: conn.execute(update(schema.delivery).values(state="withheld")))
    return "a delivery"


def _dead(store: Store) -> str:
    arrive(store, 1)
    record(store, outcome(1, over()))
    letter = dead_letter(store.keys, entry_id=1, channel=CHANNEL, stage="mapping", died_at=schema.to_micros(NOW))
    store.charts_ledger.write_now(lambda conn: conn.execute(schema.dead_letter.insert(), letter))
    return "a dead letter"


def _asked(store: Store) -> str:
    arrive(store, 1)
    record(store, outcome(1, over()))
    row = {
        "entry_id": 1, "root_id": 1, "channel": CHANNEL, "chart_id": "chart-1", "code": "c", "location": "",
        "detail": "d", "opened_at": 0, "state": "open", "document": b"", "mac": b"",
    }  # fmt: skip
    store.charts_ledger.write_now(lambda conn: conn.execute(schema.hold.insert(), row))
    return "a question to a person"


def _open_task(store: Store) -> str:
    arrive(store, 1)
    record(store, outcome(1, chart(encounters=over().encounters)))
    return "an open task"


def _missed_task(store: Store) -> str:
    arrive(store, 1)
    record(store, outcome(1, over(tasks=(task("task-1", "MRN:V1", state=TaskState.MISSED),))))
    return "an open task"


WAITING = [_pending, _owed, _undelivered, _held_delivery, _withheld, _dead, _asked, _open_task, _missed_task]


@pytest.mark.parametrize("make", WAITING)
def test_what_somebody_waits_for_is_never_swept_however_old(store: Store, make) -> None:
    why = make(store)
    done = sweep(store, YEAR * 50)
    assert payloads(store) == [1]
    assert (done["messages"].count, done["messages"].why) == (0, {why: 1})
    assert done["deliveries"].count == 0
    assert done["charts"].count == 0


def test_what_waited_goes_once_it_is_over(store: Store) -> None:
    _undelivered(store)
    settle(store)
    done = sweep(store)
    assert (done["messages"].count, done["deliveries"].count) == (1, 1)
    with store.reader() as conn:
        assert conn.execute(select(func.count()).select_from(schema.delivery_payload)).scalar_one() == 0
        assert conn.execute(select(schema.delivery.c.state)).scalars().all() == ["delivered"]


def test_a_legal_hold_beats_age_also_of_charts_that_were_merged(store: Store) -> None:
    arrive(store, 1, 2, 3)
    one, other = over(1), over(2)
    record(store, outcome(1, one), outcome(2, other), outcome(3, over(3)))
    arrive(store, 4)
    survivor, gone = merged(one, other)
    record(store, outcome(4, survivor, gone), before=charts_of(one, other))
    number = hold(store, "chart-2")  # it has ended in chart-1
    done = sweep(store, YEAR * 10)
    assert (done["messages"].count, done["messages"].held) == (1, 3)
    assert (done["charts"].count, done["charts"].held) == (1, 1)
    assert payloads(store) == [1, 2, 4]
    store.charts_ledger.write_now(lambda conn: LegalHolds(store.keys).lift(conn, number, NOW))
    done = sweep(store, YEAR * 10)
    assert (done["charts"].count, done["charts"].held) == (1, 0)
    assert payloads(store) == []


def test_a_hold_that_was_lifted_behind_our_back_holds_still(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    hold(store, "chart-1")
    behind(store, update(schema.legal_hold).values(lifted_at=1))
    assert sweep(store)["messages"].held == 1
    (listed,) = store.read_now(lambda conn: LegalHolds(store.keys).find(conn))
    assert (listed.stands, listed.unreadable) == (True, True)


def test_under_a_hold_what_nobody_can_say_whose_it_is_is_kept(store: Store) -> None:
    arrive(store, 1, 2, 3)
    record(
        store,
        outcome(1, over()),
        outcome(2, state=EntryState.FILTERED),
        outcome(3, state=EntryState.FILTERED, patient_key="MRN:other"),
    )
    hold(store, "chart-1")
    done = sweep(store)["messages"]
    assert (done.count, done.held) == (1, 2)
    assert payloads(store) == [1, 2]


def test_a_chart_goes_after_its_years_with_all_that_belongs_to_it(store: Store) -> None:
    arrive(store, 1, 2)
    record(store, outcome(1, over(1), deliveries=(delivery("k1"),)), outcome(2, over(2)), now=NOW)
    settle(store)
    assert sweep(store, timedelta(days=7 * 365))["charts"].count == 0  # two leap days are missing
    arrive(store, 3)
    fresh = changed(over(2))
    record(store, outcome(3, fresh), before=charts_of(over(2)), now=NOW + YEAR)
    assert sweep(store, timedelta(days=7 * 365 + 3))["charts"].count == 1
    with store.reader() as conn:
        assert store.charts.by_id(conn, "chart-1") is None
        assert store.charts.by_id(conn, "chart-2") is not None
        for table in of_charts():
            owners = set(conn.execute(select(table.c.chart_id)).scalars())
            assert "chart-1" not in owners, table.name
        outcomes = store.recorder.outcomes(conn, [1, 2])
        assert verify(store, conn).ok
        (line,) = ledger(conn)
    assert outcomes[1].patient_key is None
    assert outcomes[2].patient_key is not None
    assert line.balanced
    assert [one.subject for one in said(store, action="patient-erased")] == ["chart:chart-1"]


@pytest.mark.parametrize("make", [_undelivered, _dead, _asked, _open_task])
def test_a_chart_that_waits_for_something_stays_for_good(store: Store, make) -> None:
    make(store)
    assert sweep(store, YEAR * 40)["charts"].count == 0
    assert store.read_now(lambda conn: store.charts.by_id(conn, "chart-1")) is not None


def test_a_patient_who_is_in_hospital_stays(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over(encounters=(encounter("MRN:V1"),))))
    assert sweep(store, YEAR * 10)["charts"].why == {"the end of a stay": 1}


def test_a_chart_that_changes_while_it_is_looked_at_is_left(store: Store) -> None:
    arrive(store, 1, 2)
    record(store, outcome(1, over()))
    charts = Charts(store)
    item = store.read_now(lambda conn: charts.item(conn, "chart-1", NOW))
    record(store, outcome(2, changed(over())), before=charts_of(over()))
    from engine.domain.audit import AuditRecord

    asked = AuditRecord(at=NOW, actor="me", action="patient-erased", subject="chart:chart-1")
    assert not charts.erase_one(item, asked)
    assert store.read_now(lambda conn: store.charts.by_id(conn, "chart-1")) is not None
    assert payloads(store) == [1, 2]


def test_a_patient_who_comes_again_gets_a_new_chart(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    sweep(store, YEAR * 8)
    arrive(store, 2)
    record(store, outcome(2, over()))
    assert store.read_now(lambda conn: store.charts.by_key(conn, "MRN:P1"))[0].version == 1


def test_a_message_about_another_patient_who_is_on_hold_is_kept(store: Store) -> None:
    arrive(store, 1)
    one, other = over(1), over(2, patient=patient(identifiers=(Identifier(value="P2", authority="MRN", type="MR"),)))
    record(store, outcome(1, one, other))
    hold(store, "chart-2")
    assert sweep(store, YEAR * 10)["charts"].count == 1
    assert payloads(store) == [1]


def test_the_sealed_part_of_old_records_goes_and_the_trail_is_whole(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    sweep(store, timedelta(days=100))
    assert sweep(store, timedelta(days=100) + timedelta(days=6 * 366))["trail"].count >= 1
    with store.reader() as conn:
        found = verify(store, conn)
        assert store.audit.find(conn, action="swept")
    assert found.ok, found.problems
    assert found.purged >= 1


def test_what_a_clock_that_ran_ahead_has_stamped_hides_nothing_behind_it(store: Store) -> None:
    arrive(store, *range(1, 1202), received_at=NOW + YEAR * 30)
    arrive(store, 2000)
    numbers = [*range(1, 1202), 1202]
    record(store, *(outcome(n, state=EntryState.FILTERED) for n in numbers))
    assert sweep(store)["messages"].count == 1
    assert 1202 not in payloads(store)
    assert len(payloads(store)) == 1201


def test_a_clock_that_was_set_back_sweeps_nothing(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over()))
    assert sweep(store, -YEAR * 20)["messages"].count == 0


def test_a_daemon_does_not_believe_a_clock_that_is_far_ahead(store: Store) -> None:
    assert believable(store, NOW + YEAR)  # nothing ever came
    arrive(store, 1)
    assert believable(store, NOW + timedelta(days=30))
    assert not believable(store, NOW + YEAR)
    assert believable(store, NOW - YEAR)


def test_days_that_hold_nothing_any_more_are_dropped(postgresql_site) -> None:
    store = postgresql_site.open("tool")
    store.journal_ledger.write_now(lambda conn: prepare_days(conn, NOW))
    arrive(store, 1)
    arrive(store, 2, received_at=NOW + timedelta(days=1))
    record(store, outcome(1, over()), outcome(2, chart("chart-2", 2, encounters=over(2).encounters)))

    def days() -> set[str]:
        known = text("SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE relkind = 'r'")
        with store.reader() as conn:
            return {name for name in conn.execute(known).scalars() if name[-1].isdigit()}

    first, second = (partition_name(schema.day_of(NOW) + n) for n in (0, 1))
    assert {first, second} <= days()
    sweep(store)
    assert first not in days()
    assert second in days()  # an open task keeps its message
    assert payloads(store) == [2]


def test_a_hold_that_was_taken_away_behind_our_back_is_found_by_verify(store: Store) -> None:
    from engine.domain.audit import AuditRecord

    number = hold(store, "chart-1")
    assert [one.kind for one in store.read_now(lambda conn: verify(store, conn)).problems] == ["unrecorded"]
    placed = AuditRecord(at=NOW, actor="me", action="hold-placed", subject=f"legal-hold:{number}", reason="suit")
    store.charts_ledger.write_now(lambda conn: store.audit.append(conn, [placed]))
    assert store.read_now(lambda conn: verify(store, conn)).ok
    behind(store, schema.legal_hold.delete())
    assert [one.kind for one in store.read_now(lambda conn: verify(store, conn)).problems] == ["unfounded"]


def _begun(store: Store, number: int) -> None:
    """The record is there, and nothing is erased yet: a crash came between."""
    charts = Charts(store)
    item = store.read_now(lambda conn: charts.item(conn, f"chart-{number}", NOW))
    record_of = AuditRecord(
        at=NOW, actor="me", action="patient-erased", subject=f"chart:chart-{number}", reason="asked"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Charts, "_erase_entries", _crash)
        with pytest.raises(RuntimeError, match="killed"):
            charts.erase_one(item, record_of)


def _crash(*_given, **_named) -> None:
    raise RuntimeError("killed")


def _left(store: Store) -> set[str]:
    with store.reader() as conn:
        return set(conn.execute(select(schema.chart.c.id)).scalars())


def test_an_erasing_that_was_broken_off_is_finished_and_one_that_something_new_has_come_of_is_not(
    store: Store,
) -> None:
    arrive(store, 1, 2, 3)
    record(store, outcome(1, over(1)), outcome(2, over(2)), outcome(3, over(3)))
    settle(store)
    _begun(store, 1)
    _begun(store, 2)
    arrive(store, 4)
    record(store, outcome(4, changed(over(2))), before=charts_of(over(2)))
    assert Charts(store).finish(NOW, lambda: False) == 0
    assert finish(store, NOW) == 1
    assert _left(store) == {"chart-2", "chart-3"}
    assert payloads(store) == [2, 3, 4]
    assert finish(store, NOW) == 0
    last = max(one.seq for one in store.read_now(store.audit.find))
    _begun(store, 3)
    assert finish(store, NOW, after=last + 99) == 0
    assert store.read_now(lambda conn: verify(store, conn)).ok
    number = hold(store, "chart-3")
    assert finish(store, NOW) == 0
    legal = LegalHolds(store.keys)
    store.charts_ledger.write_now(lambda conn: legal.lift(conn, number, NOW))
    assert finish(store, NOW, after=last) == 1


def test_the_daemon_sweeps_nothing_after_a_restore_until_legal_holds_are_confirmed(store: Store) -> None:
    arrive(store, 1)
    record(store, outcome(1, over(1)))
    settle(store)
    now = NOW + timedelta(days=120)
    arrive(store, 2, received_at=now)

    def on_record(action: str) -> None:
        one = AuditRecord(at=now, actor="me", action=action, subject="backup:1")
        store.charts_ledger.write_now(lambda conn: store.audit.append(conn, [one]))

    sweeper = Sweeper(lambda: store, lambda: POLICY, FixedClock(now))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "close", lambda _store: None)  # it is looked at again
        on_record("restore")
        sweeper._look(POLICY, now, threading.Event())
        assert payloads(store) == [1, 2]
        on_record("holds-confirmed")
        sweeper._look(POLICY, now, threading.Event())
    assert payloads(store) == [2]
