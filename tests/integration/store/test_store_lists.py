"""Dead letters, tasks, audit and configuration versions."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import select
from store_builders import CHANNEL, NOW, chart, delivery, due, load, outcome, patient, record, said, task

from engine.domain.audit import AuditRecord
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import EntryState
from engine.domain.task import TaskState
from engine.errors import StoreError, TamperedError
from engine.snapshot import version_of
from engine.store import schema
from engine.store.deadletters import DISCARDED


def letter(stage=Stage.PROCESSING, error="mapping"):
    return DeadLetter(stage=stage, error=error, location="PID-7", detail="not a date")


@pytest.fixture
def letters(store):
    record(store, outcome(1, state=EntryState.DEAD, dead_letter=letter()))
    record(store, outcome(2, state=EntryState.REFUSED, dead_letter=letter(Stage.INTAKE, "version")), channel="lab")
    record(store, outcome(3, state=EntryState.DEAD, dead_letter=letter(error="identifier-missing")))
    return store


def find_letters(store, **conditions):
    return [one.id for one in store.read_now(lambda conn: store.dead_letters.find(conn, **conditions))]


def test_dead_letters_are_listed_newest_first_and_by_condition(letters):
    assert find_letters(letters) == [3, 2, 1]
    assert find_letters(letters, limit=2) == [3, 2]
    assert find_letters(letters, stage=Stage.INTAKE) == [2]
    assert find_letters(letters, error="mapping") == [1]
    assert find_letters(letters, channel=CHANNEL) == [3, 1]
    assert find_letters(letters, channel="lab", error="mapping") == []
    assert letters.read_now(lambda conn: letters.dead_letters.get(conn, 2)).stage is Stage.INTAKE
    assert letters.read_now(lambda conn: letters.dead_letters.get(conn, 9)) is None
    assert [one.id for one in letters.read_now(lambda conn: letters.dead_letters.of_entry(conn, 3))] == [3]


def test_a_resolved_dead_letter_leaves_the_list_and_is_resolved_once(letters):
    resolve = letters.dead_letters.resolve
    letters.charts_ledger.write_now(lambda conn: resolve(conn, 2, "entry:17", NOW))
    letters.charts_ledger.write_now(lambda conn: resolve(conn, 3, DISCARDED, NOW))
    assert find_letters(letters) == [1]
    assert find_letters(letters, resolved=True) == [3, 2]
    assert find_letters(letters, resolved=None) == [1, 3, 2]
    found = letters.read_now(lambda conn: letters.dead_letters.get(conn, 2))
    assert (found.resolved_by, found.resolved_at) == ("entry:17", NOW)
    for letter_id in (2, 99):
        with pytest.raises(StoreError, match="resolved before"):
            letters.charts_ledger.write_now(lambda conn, number=letter_id: resolve(conn, number, DISCARDED, NOW))


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plans(store):
    hour = timedelta(hours=1)
    one = chart(
        "chart-1",
        1,
        tasks=(
            task("late", "MRN:V1", due_at=NOW - hour),
            task("soon", "MRN:V1", due_at=NOW + hour, kind="education", assignee="dr-lee"),
            task("done", "MRN:V1", due_at=NOW - 2 * hour, state=TaskState.DONE),
        ),
    )
    two = chart("chart-2", 2, tasks=(task("other", "MRN:V2", due_at=NOW),))
    record(store, outcome(1, one), outcome(2, two))
    return store


def find_tasks(store, **conditions):
    return [one.task.id for one in store.read_now(lambda conn: store.tasks.find(conn, **conditions))]


def test_tasks_are_listed_by_urgency_and_condition(plans):
    assert find_tasks(plans) == ["late", "other", "soon", "done"]
    assert find_tasks(plans, states=[TaskState.OPEN]) == ["late", "other", "soon"]
    assert find_tasks(plans, kind="education") == ["soon"]
    assert find_tasks(plans, assignee="dr-lee") == ["soon"]
    assert find_tasks(plans, chart_ids=["chart-2"]) == ["other"]
    assert find_tasks(plans, due_before=NOW, states=[TaskState.OPEN]) == ["late"]
    assert find_tasks(plans, limit=1) == ["late"]
    assert find_tasks(plans, states=[TaskState.DONE, TaskState.OPEN], due_from=NOW) == ["other", "soon"]
    assert plans.read_now(lambda conn: plans.tasks.count(conn, states=[TaskState.OPEN])) == 3
    [other] = plans.read_now(lambda conn: plans.tasks.find(conn, chart_ids=["chart-2"]))
    assert (other.patient_key, other.chart_id) == ("MRN:P2", "chart-2")


def test_what_a_person_did_is_recorded_with_its_audit_and_the_books_of_the_patients_channel(plans):
    before = plans.read_now(lambda conn: plans.charts.by_id(conn, "chart-1"))
    first, *others = before.tasks
    ended = msgspec.structs.replace(first, state=TaskState.DONE, ended_at=NOW, ended_by="anna")
    after = msgspec.structs.replace(before, version=2, tasks=(ended, *others))
    noted = AuditRecord(at=NOW, actor="anna", action="task-done", subject="task:late", reason="called her")
    one = outcome(3, after, audit=(noted,), channel="east", deliveries=(delivery("told", ordering_key="chart-1"),))
    record(plans, one, before=load(plans, before), channel="@act", cursor=0)
    assert plans.read_now(lambda conn: plans.charts.by_id(conn, "chart-1")) == after
    assert find_tasks(plans, states=[TaskState.OPEN]) == ["other", "soon"]
    assert said(plans) == [noted]
    assert due(plans) == ["told"]
    assert plans.read_now(lambda conn: conn.execute(select(schema.delivery.c.channel)).scalars().all()) == ["east"]
    assert plans.read_now(lambda conn: plans.tasks.get(conn, "nobody")) is None


def test_tasks_follow_their_patient_in_a_merge(plans):
    one, two = (plans.read_now(lambda conn, n=n: plans.charts.by_id(conn, f"chart-{n}")) for n in (1, 2))
    survivor = msgspec.structs.replace(
        one,
        version=2,
        patient=patient(1, identifiers=(*one.patient.identifiers, *two.patient.identifiers)),
        encounters=(*one.encounters, *two.encounters),
        scores=(*one.scores, *two.scores),
        tasks=(*one.tasks, *two.tasks),
    )
    gone = msgspec.structs.replace(
        two, version=2, merged_into="chart-1", encounters=(), encounter_stamps={}, scores=(), tasks=()
    )
    known = plans.read_now(lambda conn: plans.charts.load(conn, {("MRN", "MR", "P1"), ("MRN", "MR", "P2")}, set()))
    record(plans, outcome(3, survivor, gone), before=known)
    found = plans.read_now(lambda conn: plans.tasks.find(conn, kind="pcp_follow_up", due_before=NOW + timedelta(1)))
    other = next(one for one in found if one.task.id == "other")
    assert (other.task.id, other.patient_key) == ("other", "MRN:P1")


# --- audit -----------------------------------------------------------------------------------------------------------


def test_audit_records_come_back_newest_first(store):
    records = [
        AuditRecord(at=NOW + timedelta(hours=n), actor="ann", action=action, subject=f"entry:{n}", reason=reason)
        for n, (action, reason) in enumerate([("reveal", "asked by the ward"), ("replay", None), ("reveal", "é")])
    ]
    store.charts_ledger.write_now(lambda conn: store.audit.append(conn, records))
    assert said(store) == records[::-1]
    assert said(store, action="replay") == [records[1]]
    assert said(store, since=NOW + timedelta(hours=1)) == records[:0:-1]
    assert said(store, limit=1) == [records[2]]


# --- configuration versions ------------------------------------------------------------------------------------------


def test_a_configuration_version_is_remembered_once_and_is_what_its_name_says(store):
    files = {"config.yaml": "node: a\n", "channels/é.yaml": "name: é\n"}
    version = version_of(files)
    for kept in (files, {"config.yaml": "other"}):
        store.charts_ledger.write_now(lambda conn, kept=kept: store.configs.remember(conn, version, kept, NOW))
    assert store.read_now(lambda conn: store.configs.get(conn, version)) == files
    assert store.read_now(lambda conn: store.configs.get(conn, "v2")) is None
    store.charts_ledger.write_now(lambda conn: store.configs.remember(conn, "v2", files, NOW))
    with pytest.raises(TamperedError):
        store.read_now(lambda conn: store.configs.get(conn, "v2"))
