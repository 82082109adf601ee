"""A stay that becomes another patient's: its rows move in one transaction, and nobody is told old news of it."""

from __future__ import annotations

import msgspec
import pytest
from store_builders import NOW, changed, chart, delivery, due, ids, load, outcome, queue, record

from engine.domain.chart import Gone, Renamed
from engine.domain.delivery import Delivery, DeliveryState, EncounterUpsert, Operation, PatientUpsert, TaskUpsert
from engine.domain.parts import folded
from engine.errors import StaleChartError
from engine.store import admissions
from engine.store.outbox import Settled


def moved(source, target):
    """Both charts after the stay of the one has become the other's."""
    after, left = folded(target, source)
    at = (9.5, 3)
    to = Gone(to=target.patient.key, chart_id=target.id, at=at)
    gone = Renamed(
        departed={stay.key: changed_stay(to, stay.key) for stay in source.encounters}, accounts_gone={"A": to}
    )
    came = {stay.key: ((source.patient.key, at),) for stay in source.encounters}
    numbers = {"MRN:V0": ("MRN:V1", "V1", None, at)}
    accounts = {"A": ("B", at)}
    return changed(left, renamed=gone), changed(after, renamed=Renamed(came=came, visits=numbers, accounts=accounts))


def changed_stay(to, key):
    return msgspec.structs.replace(to, stay=key)


def of(one, name: str, operation: Operation, content) -> Delivery:
    made = delivery(name, ordering_key=one.id, payload=content.encoded())
    return Delivery(**{field: getattr(made, field) for field in Delivery.__struct_fields__} | {"operation": operation})


def told_of(one, name: str) -> list[Delivery]:
    """What a destination hears of a patient, the stay and its task."""
    key = one.patient.key
    return [
        of(one, f"{name}-patient", Operation.UPSERT_PATIENT, PatientUpsert.of(one.patient)),
        *(of(one, f"{name}-{e.key}", Operation.UPSERT_ENCOUNTER, EncounterUpsert(patient_key=key, encounter=e))
          for e in one.encounters),
        *(of(one, f"{name}-{t.id}", Operation.UPSERT_TASK, TaskUpsert.of(t, key)) for t in one.tasks),
    ]  # fmt: skip


@pytest.fixture
def two(store):
    """Two patients with a stay each; of nothing a destination has heard yet."""
    one, other = chart("chart-1", 1), chart("chart-2", 2)
    record(store, outcome(1, one), outcome(2, other))
    queue(store, *told_of(one, "one"), *told_of(other, "other"))
    return one, other


def test_all_that_is_of_the_stay_is_loaded_with_the_other_patient(store, two):
    one, other = two
    left, after = moved(one, other)
    record(store, outcome(3, after, left), before=load(store, *two))
    found = load(store, one, other)
    assert found.by_id["chart-1"].encounters == found.by_id["chart-1"].tasks == found.by_id["chart-1"].scores == ()
    assert {stay.key for stay in found.by_id["chart-2"].encounters} == {"MRN:V1", "MRN:V2"}
    assert {task.id for task in found.by_id["chart-2"].tasks} == {"task-1", "task-2"}
    assert found.by_id["chart-1"].renamed == left.renamed
    assert found.by_id["chart-2"].renamed == after.renamed
    assert found.visits["MRN:V1"] == "chart-2"


def test_what_waits_for_the_old_patient_about_the_stay_is_not_told_any_more(store, two):
    one, other = two
    left, after = moved(one, other)
    record(store, outcome(3, after, left, deliveries=told_of(after, "after")), before=load(store, *two))
    told = []
    while found := due(store):
        told += found
        results = [Settled(id=one, state=DeliveryState.DELIVERED, attempts=1) for one in ids(store, found)]
        store.charts_ledger.write_now(lambda conn, results=results: store.outbox.settle(conn, results, NOW))
    assert not {"one-MRN:V1", "one-task-1"} & set(told)
    assert {"one-patient", "other-MRN:V2", "after-MRN:V1", "after-task-1"} <= set(told)
    kept = store.read_now(lambda conn: admissions.get(conn, ids(store, ["one-MRN:V1", "one-task-1"])))
    assert {(one.code, one.decision) for one in kept.values()} == {("moved-away", "final")}


def test_what_is_held_for_the_old_patient_stays_held(store, two):
    one, other = two
    [patient, stay] = ids(store, ["one-patient", "one-MRN:V1"])
    for number, state in ((patient, DeliveryState.DELIVERED), (stay, DeliveryState.HELD)):
        result = Settled(id=number, state=state, attempts=1)
        store.charts_ledger.write_now(lambda conn, result=result: store.outbox.settle(conn, [result], NOW))
    left, after = moved(one, other)
    record(store, outcome(3, after, left), before=load(store, *two))
    held = store.read_now(lambda conn: store.outbox.held(conn))
    assert [queued.delivery.idempotency_key for queued in held] == ["one-MRN:V1"]


@pytest.mark.parametrize("stale", [0, 1])
def test_a_move_is_recorded_only_when_neither_chart_has_changed_meanwhile(store, two, stale):
    before = load(store, *two)
    newer = changed(two[stale], stamps={"name": (9.0, 1)})
    record(store, outcome(3, newer), before=load(store, *two))
    left, after = moved(*two)
    with pytest.raises(StaleChartError):
        record(store, outcome(4, after, left), before=before)
    assert {stay.key for stay in load(store, *two).by_id["chart-1"].encounters} == {"MRN:V1"}
