"""Every statement of a hot path uses an index, however large its tables grow (SQLite's plan for it)."""

from __future__ import annotations

import re
from contextlib import contextmanager

import msgspec
import pytest
from store_builders import (
    CHANNEL,
    NOW,
    append,
    changed,
    chart,
    close_all,
    delivery,
    load,
    outcome,
    receipt,
    record,
    with_past,
)

from engine.domain import parts
from engine.domain.appointment import AppointmentStatus
from engine.domain.delivery import DeliveryState, Operation
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import Assertion, Fact, Hold, HoldCode
from engine.domain.message import EntryState
from engine.domain.page import UNANSWERED
from engine.domain.quality import QualityItem, QualityKind
from engine.domain.task import TaskState
from engine.store import admissions, counts, due, notices, oncall, recorded, statements
from engine.store.outbox import Settled, join_lines
from engine.store.requeue import ask_again, requeue, withheld_after


@pytest.fixture
def plans(sqlite_site, monkeypatch):
    """Collects the plan of each statement that runs: a list of (statement, line of its plan)."""
    lines: list[tuple[str, str]] = []
    store = sqlite_site.open("tool")

    def explain(connection, statement, parameters):
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        lines.extend((statement, row[-1]) for row in plan)

    class Explaining:
        def __init__(self, connection):
            self._connection = connection

        def execute(self, statement, parameters):
            explain(self._connection, statement, parameters)
            return self._connection.execute(statement, parameters)

    driver = statements._driver
    monkeypatch.setattr(statements, "_driver", lambda conn: Explaining(driver(conn)))

    from sqlalchemy import Engine, event

    def before(_conn, cursor, statement, parameters, _context, _many):
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "WITH", "INSERT")):
            explain(cursor.connection, statement, parameters)

    event.listen(Engine, "before_cursor_execute", before)
    yield store, lines
    event.remove(Engine, "before_cursor_execute", before)


def scans(lines, *, allowed=()):
    """Lines of plans that walk through a whole table or sort what an index could have given in order."""
    return [
        (line, statement)
        for statement, line in lines
        if (re.match(r"SCAN (journal|charts)\.", line) or "TEMP B-TREE" in line or "AUTOMATIC" in line)
        and not any(re.search(pattern, line) for pattern in allowed)
    ]


@contextmanager
def only(lines):
    lines.clear()
    yield
    assert lines, "no statement was seen"


def filled(store):
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2"), receipt(store.keys, "3"))
    first = chart()
    record(store, outcome(1, first, deliveries=(delivery("k1"), delivery("k2"))))
    return first


def test_appending(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        append(
            store,
            receipt(store.keys, "1"),
            receipt(store.keys, "2", "other"),
            receipt(store.keys, "4", sequence_number=3),
            receipt(store.keys, "5", replay_of=1),
            sent=[1, -1],
            unsent=[2],
        )
    assert scans(lines) == []


def test_looking_for_the_answers_owed_at_the_start(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.journal_ledger.write_now(store.journal.mark_startup_unsent)
    # A partial index that holds the owed ones and nothing else is read whole.
    assert scans(lines, allowed=["INDEX (entry|repeat)_owed$"]) == []


def test_faults_of_feeds(plans):
    store, lines = plans
    filled(store)
    fault = QualityItem.of(QualityKind.CODE_UNKNOWN, "PV1-2")
    with only(lines):
        record(store, outcome(2, quality=(fault,)), outcome(3, quality=(fault,), replay_root=2))
        store.read_now(lambda conn: store.quality.get(conn, 1))
    assert scans(lines, allowed=[r"^SCAN charts\.cursor$", "INDEX hold_open", "TEMP B-TREE FOR ORDER BY"]) == []


def test_the_story_of_a_patient(plans):
    store, lines = plans
    filled(store)
    with only(lines), store.reader() as conn:
        family = sorted(store.charts.family(conn, {"chart-1"}))
        store.recorder.concerned(conn, family)
        store.recorder.outcomes(conn, [1, 2])
        store.outbox.of_entries(conn, [1, 2])
    assert scans(lines, allowed=["TEMP B-TREE FOR ORDER BY"]) == []


def test_questions_that_wait_for_a_person(plans):
    store, lines = plans
    filled(store)
    asked = Hold(code=HoldCode.STATUS_EVENT_STALE, chart_id="chart-1")
    record(store, outcome(2, holds=(asked,)))
    with only(lines):
        record(store, outcome(3, holds=(asked,), replay_root=2))
        fact = Fact(chart_id="chart-1", encounter="MRN:V1", asserts=Assertion(status=EncounterStatus.FINISHED))
        record(store, outcome(4, facts=(fact,)), before=load(store, chart("chart-1")))
        store.read_now(lambda conn: store.holds.of_message(conn, 2))
        store.read_now(lambda conn: store.holds.of_chart(conn, "chart-1"))
        store.read_now(lambda conn: store.holds.find(conn, limit=10))
        store.read_now(store.holds.counts)
        store.read_now(lambda conn: store.journal.find(conn, held=True))
    # A partial index that holds the open ones and nothing else is read whole.
    found = scans(lines, allowed=[r"^SCAN charts\.cursor$", "INDEX hold_open", "TEMP B-TREE FOR (ORDER|GROUP) BY"])
    assert found == []


def test_taking_the_next_entries(plans):
    store, lines = plans
    filled(store)
    with only(lines), store.reader() as conn:
        store.recorder.cursors(conn)
        store.journal.channels(conn)
        store.journal.first_received(conn)
        store.journal.entries(conn, [id_ for id_, _ in store.journal.after(conn, CHANNEL, 1, 100)])
        store.journal.entry(conn, 1)
        counts.pending(conn, [CHANNEL])
    # The cursors are a handful of rows; the recursion walks over the channels it has found.
    assert scans(lines, allowed=[r"^SCAN charts\.cursor$", "TEMP B-TREE FOR ORDER BY"]) == []


def test_looking_for_what_is_due(plans):
    store, lines = plans
    filled(store)
    with only(lines), store.reader() as conn:
        for urgent in (True, False):
            due.due(conn, range(64), NOW, 512, urgent=urgent)
        due.decided(conn, [1, 2, 3])
        due.overdue(conn, NOW)
    # Dead letters that wait for a person are few, and their own index holds no others.
    assert scans(lines, allowed=["INDEX dead_letter_open$"]) == []
    assert any("chart_due" in line for _, line in lines)
    assert not any(re.match(r"SEARCH chart (?!USING (COVERING )?INDEX chart_due)", line) for _, line in lines)


def test_parts_that_no_chart_of_a_batch_has_are_not_asked_for(plans):
    store, lines = plans
    bare = chart("chart-2", 2, scores=(), tasks=())
    record(store, outcome(1, chart()), outcome(2, bare))

    def asked(*charts):
        with only(lines):
            load(store, *charts)
        return {part.name for part in parts.PARTS if any(f" charts.{part.what} " in text for text, _ in lines)}

    assert asked(bare) == {"encounters"}
    assert asked(bare, chart()) == {"encounters", "scores", "tasks"}


def test_loading_charts(plans):
    store, lines = plans
    first = filled(store)
    with only(lines):
        load(store, first)
        store.read_now(lambda conn: store.charts.by_key(conn, "MRN:P1"))
        store.read_now(store.charts.find)
    assert scans(lines, allowed=["INDEX chart_updated$"]) == []


def test_loading_charts_without_what_is_closed(plans):
    store, lines = plans
    first = filled(store)
    record(
        store, outcome(2, with_past(first, "MRN:W1", "MRN:W2")), before=load(store, first), cursor=1, close=close_all
    )
    with only(lines):
        store.read_now(lambda conn: store.charts.load(conn, [("MRN", "MR", "P1")], ["MRN:V1"], bounded=True))
    assert scans(lines, allowed=[]) == []
    # Each row that is open is found by its own key: those that are closed are not walked over.
    assert not [line for line in lines if "score" in line and "encounter_hash" not in line]


def test_recording(plans):
    store, lines = plans
    first = filled(store)
    known = load(store, first)
    with only(lines):
        second = changed(first, scores=())
        new = chart("chart-2", 2)
        deliveries = (delivery("k3"),)
        record(store, outcome(2, second, deliveries=deliveries), outcome(3, new), before=known, cursor=1)
        store.read_now(lambda conn: store.recorder.outcomes(conn, [1, 2]))
    # Of the open questions the first one is read, to know whether there are any.
    assert scans(lines, allowed=["INDEX hold_open$"]) == []


@pytest.mark.parametrize("ordered", [False, True])
def test_taking_what_is_due_and_settling_it(plans, ordered):
    store, lines = plans
    filled(store)
    with only(lines):
        with store.reader() as conn:
            [first, *_] = store.outbox.due(conn, "crm", NOW, 100, ordered_batches=ordered)
            store.outbox.last_due_at(conn, "crm")
            store.outbox.interrupted(conn, "crm")
            store.outbox.of_entry(conn, 1)
        store.charts_ledger.write_now(lambda conn: store.outbox.start(conn, first.id, NOW))
        for state in (DeliveryState.PENDING, DeliveryState.DELIVERED):
            result = Settled(id=first.id, state=state, attempts=1)
            store.charts_ledger.write_now(lambda conn, result=result: store.outbox.settle(conn, [result], NOW))
    # The line of a patient is put in order by id over several patients: the temporary tree holds only these.
    assert scans(lines, allowed=["TEMP B-TREE FOR ORDER BY"] if ordered else []) == []


def test_joining_lines_and_putting_back(plans):
    store, lines = plans
    forward = msgspec.structs.replace(delivery("m"), operation=Operation.FORWARD)
    record(store, outcome(1, chart(), deliveries=(forward,)))
    buried = Settled(id=1, state=DeliveryState.DEAD, attempts=1)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [buried], NOW))
    with only(lines):
        store.charts_ledger.write_now(lambda conn: join_lines(conn, {"chart-1": "chart-2"}))
        store.charts_ledger.write_now(lambda conn: requeue(conn, store.keys, 1, NOW))
    assert scans(lines) == []


def test_what_a_restriction_changes_is_found_by_indexes(plans):
    """Of millions of deliveries few wait, and few are withheld."""
    store, lines = plans
    filled(store)
    with only(lines):
        store.charts_ledger.write_now(lambda conn: ask_again(conn, store.keys, "chart-1", NOW))
        store.read_now(lambda conn: withheld_after(conn, store.keys, "crm", 0))
    assert scans(lines, allowed=["INDEX admission_withheld$", "TEMP B-TREE"]) == []


def test_counting_the_outbox_looks_at_open_deliveries_only(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(store.outbox.unfinished)
        store.read_now(store.outbox.held)
    assert scans(lines, allowed=["INDEX delivery_(unfinished|held)$", "TEMP B-TREE"]) == []


def test_counting_what_waits_for_the_processor_looks_at_an_index_alone(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(lambda conn: counts.pending(conn, [CHANNEL]))
    looked = [line for _, line in lines if "journal.entry" in line]
    assert looked
    assert all("COVERING INDEX entry_channel (channel=? AND id>?)" in line for line in looked)


def test_the_ledger_walks_through_each_table_once(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(counts.ledger)
    walks = [match[1] for _, line in lines if (match := re.match(r"SCAN ((journal|charts)\.\w+)", line))]
    assert sorted(walks) == ["charts.delivery", "charts.outcome", "journal.entry", "journal.erased", "journal.repeat"]


def test_looking_for_open_tasks(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(lambda conn: store.tasks.find(conn, states=[TaskState.OPEN], due_before=NOW))
        store.read_now(lambda conn: store.tasks.get(conn, "task-1"))
    # Only those that are due at the same moment are sorted, by id.
    assert scans(lines, allowed=["TEMP B-TREE FOR LAST TERM"]) == []


def test_looking_for_appointments(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(lambda conn: store.appointments.find(conn, starts_from=NOW))
        store.read_now(lambda conn: store.appointments.find(conn, chart_ids=["c1"]))
        store.read_now(lambda conn: store.appointments.find(conn, statuses=[AppointmentStatus.BOOKED]))
    assert scans(lines, allowed=["TEMP B-TREE FOR LAST TERM", "TEMP B-TREE FOR ORDER BY"]) == []


def test_looking_for_pages_for_news_of_notifications_and_for_who_stands_in(plans):
    store, lines = plans
    filled(store)
    del lines[:]
    store.read_now(lambda conn: store.pages.find(conn, states=UNANSWERED))
    store.read_now(lambda conn: store.pages.find(conn, chart_ids=["chart-1"]))
    store.read_now(lambda conn: store.pages.get(conn, "p1"))
    found = store.read_now(lambda conn: notices.awaited(conn, 100))
    store.read_now(lambda conn: oncall.overrides(conn, store.keys, NOW))
    store.charts_ledger.write_now(lambda conn: notices.heard(conn, store.keys, found))
    # The few that are open, or of one patient, are put in order; and there are never many who stand in.
    assert scans(lines, allowed=(r"TEMP B-TREE", r"oncall_override", r"notice_awaits")) == []
    assert any("notice_awaits" in line for _, line in lines)


def test_finding_messages(plans):
    store, lines = plans
    filled(store)
    with only(lines), store.reader() as conn:
        store.journal.find(conn, ids=[1])
        store.journal.find(conn, channel=CHANNEL)
        store.journal.find(conn, state=EntryState.DEAD)
    assert scans(lines) == []
    with only(lines), store.reader() as conn:
        store.journal.find(conn, patient="MRN:P1")
        store.dead_letters.of_patient(conn, store.keys, "MRN:P1")
        store.dead_letters.patients(conn, store.keys, b"1234")
        store.journal.find(conn, control_id="1")
    assert scans(lines, allowed=["TEMP B-TREE FOR ORDER BY"]) == []


def test_how_destinations_stand_and_what_they_were_told(plans):
    store, lines = plans
    filled(store)
    with only(lines):
        store.read_now(lambda conn: store.destinations.get(conn, "crm"))
        store.read_now(lambda conn: store.destinations.standings(conn, {"crm": "file"}, NOW))
        store.read_now(lambda conn: admissions.find(conn, limit=10))
        told = store.read_now(lambda conn: store.outbox.told(conn, "crm", "chart-1", {"chart-1"}))
        store.read_now(lambda conn: store.outbox.behind(conn, told))
    # One row a destination; the partial indexes hold what is unfinished, unresolved or withheld and nothing else.
    allowed = [
        r"^SCAN charts\.destination$",
        "INDEX (delivery_(unfinished|ready)|admission_(withheld|put_off)|dead_letter_open)",
        "TEMP B-TREE",
    ]
    assert scans(lines, allowed=allowed) == []


def test_looking_for_recorded_messages(plans):
    store, lines = plans
    first = filled(store)
    with only(lines), store.reader() as conn:
        assert len(list(recorded.received(conn, CHANNEL, since=NOW, until=None, limit=2))) == 2
        assert recorded.families(conn, {first.id}) == {first.id: first.id}
        assert [one.id for one in recorded.of_charts(conn, {first.id}, since=NOW, before=9)] == [1]
    assert scans(lines) == []
