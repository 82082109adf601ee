"""A buried delivery that is put back tells no old news."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from store_builders import (
    NOW,
    changed,
    chart,
    due,
    encounter,
    ids,
    load,
    merged,
    outcome,
    record,
    score,
)

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, DeliveryState, Operation
from engine.domain.encounter import EncounterStatus
from engine.domain.moment import Moment
from engine.domain.shapes import encounter_shape, patient_shape, plain, task_shape
from engine.domain.task import TaskState
from engine.errors import StoreError
from engine.store import schema
from engine.store.outbox import Settled
from engine.store.requeue import Requeued, requeue


def of(one: Chart, key: str, operation: Operation = Operation.UPSERT_PATIENT, **payload: Any) -> Delivery:
    """A delivery of a patient's object as it is in this version of the chart."""
    patient_key = one.patient.key
    said: dict[str, Any] = payload
    match operation:
        case Operation.UPSERT_PATIENT:
            said = {"patient": patient_shape(one.patient)}
        case Operation.UPSERT_ENCOUNTER:
            said = {"patient_key": patient_key, "encounter": encounter_shape(one.encounters[0])}
        case Operation.UPSERT_SCORE:
            said = {
                "patient_key": patient_key, "decides": True, "withdrawn": False, "score": plain(one.scores[0])
            } | payload  # fmt: skip
        case Operation.UPSERT_TASK:
            said = {"task": task_shape(one.tasks[0], patient_key)}
        case Operation.FORWARD:
            said = {"hl7": base64.b64encode(key.encode()).decode()}
    return Delivery(
        destination="crm", operation=operation, ordering_key=one.id, idempotency_key=key,
        payload=msgspec.json.encode(said),
    )  # fmt: skip


def settle(store, key, state=DeliveryState.DELIVERED):
    result = Settled(id=ids(store, [key])[0], state=state, attempts=1, error="x")
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], NOW))


def bury(store, key):
    settle(store, key, DeliveryState.DEAD)


def put_back(store, number, **more):
    return store.charts_ledger.write_now(lambda conn: requeue(conn, store.keys, number, NOW, **more))


def said(store, number):
    found = store.read_now(lambda conn: store.outbox.get(conn, number))
    return msgspec.json.decode(found.delivery.payload)


def with_phone(one: Chart, phone: str) -> Chart:
    return changed(one, patient=msgspec.structs.replace(one.patient, phones=(phone,)))


def test_what_is_still_true_goes_out_as_it_was_under_its_key_and_in_its_place(store):
    one = chart()
    record(store, outcome(1, one, deliveries=(of(one, "patient"), of(one, "stay", Operation.UPSERT_ENCOUNTER))))
    [number] = ids(store, ["patient"])
    bury(store, "patient")
    assert due(store) == ["stay"]
    assert put_back(store, number) is Requeued.AS_IT_WAS
    assert due(store) == ["patient"]
    assert said(store, number)["patient"]["phones"] == list(one.patient.phones)


def test_what_has_changed_since_goes_out_as_it_is_now_under_a_key_of_its_own(store):
    one = chart()
    record(store, outcome(1, one, deliveries=(of(one, "old"),)))
    [number] = ids(store, ["old"])
    bury(store, "old")
    two = with_phone(one, "+12125550199")
    record(store, outcome(2, two, deliveries=(of(two, "new"),)), before=load(store, one))
    settle(store, "new")
    assert put_back(store, number) is Requeued.RENEWED
    [queued] = store.read_now(lambda conn: store.outbox.due(conn, "crm", NOW, 10))
    assert (queued.id, queued.delivery.idempotency_key in {"old", "new"}) == (number, False)
    assert said(store, number)["patient"]["phones"] == ["+12125550199"]


def test_what_is_put_back_is_not_newer_than_what_waits_behind_it(store):
    """Or the destination would see the newest phone, then an older one, then the newest again."""
    versions = [chart()]
    record(store, outcome(1, versions[0], deliveries=(of(versions[0], "v1"),)))
    [number] = ids(store, ["v1"])
    bury(store, "v1")
    for step, phone in enumerate(("+12125550102", "+12125550103"), start=2):
        versions.append(with_phone(versions[-1], phone))
        record(
            store,
            outcome(step, versions[-1], deliveries=(of(versions[-1], f"v{step}"),)),
            before=load(store, versions[-2]),
        )
    assert put_back(store, number) is Requeued.RENEWED
    assert said(store, number)["patient"]["phones"] == ["+12125550102"]


@pytest.mark.parametrize(
    ("operation", "change", "seen"),
    [
        (
            Operation.UPSERT_ENCOUNTER,
            lambda one: {"encounters": (msgspec.structs.replace(one.encounters[0], status=EncounterStatus.FINISHED),)},
            lambda said: said["encounter"]["status"] == "finished",
        ),
        (
            Operation.UPSERT_TASK,
            lambda one: {"tasks": (msgspec.structs.replace(one.tasks[0], state=TaskState.DONE),)},
            lambda said: said["task"]["state"] == "done",
        ),
        (
            Operation.UPSERT_SCORE,
            lambda one: {"scores": (msgspec.structs.replace(one.scores[0], value=3, min=3, max=3),)},
            lambda said: said["score"]["value"] == 3 and said["decides"],
        ),
    ],
)
def test_every_kind_of_object_is_renewed(store, operation, change, seen):
    one = chart()
    record(store, outcome(1, one, deliveries=(of(one, "old", operation),)))
    [number] = ids(store, ["old"])
    bury(store, "old")
    record(store, outcome(2, changed(one, **change(one))), before=load(store, one))
    assert put_back(store, number) is Requeued.RENEWED
    assert seen(said(store, number))


def test_a_score_of_an_earlier_stay_no_longer_speaks_for_the_patient(store):
    one = chart()
    record(store, outcome(1, one, deliveries=(of(one, "old", Operation.UPSERT_SCORE),)))
    [number] = ids(store, ["old"])
    bury(store, "old")
    later = encounter("MRN:V9", admitted_at=Moment.of("2030-01-01T10:00:00+00:00"))
    earlier = msgspec.structs.replace(one.encounters[0], admitted_at=Moment.of("2029-01-01T10:00:00+00:00"))
    two = changed(one, encounters=(earlier, later), scores=(*one.scores, score("MRN:V9")))
    record(store, outcome(2, two), before=load(store, one))
    assert put_back(store, number) is Requeued.RENEWED
    assert said(store, number)["decides"] is False


def test_a_delivery_of_a_patient_merged_since_goes_out_for_the_survivor_in_its_line(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    old = (of(one, "patient"), of(one, "stay", Operation.UPSERT_ENCOUNTER), of(one, "task", Operation.UPSERT_TASK))
    record(store, outcome(1, one, deliveries=old), outcome(2, two))
    numbers = ids(store, ["patient", "stay", "task"])
    for key in ("patient", "stay", "task"):
        bury(store, key)
    survivor, gone = merged(two, one)
    merge = of(survivor, "merge", Operation.MERGE_PATIENT, survivor="MRN:P2", merged="MRN:P1")
    record(store, outcome(3, survivor, gone, deliveries=(merge,)), before=load(store, one, two))
    settle(store, "merge")
    assert [put_back(store, number) for number in numbers] == [Requeued.RENEWED] * 3
    patient, stay, task = (said(store, number) for number in numbers)
    assert (patient["patient"]["key"], stay["patient_key"], task["task"]["patient_key"]) == ("MRN:P2",) * 3
    with store.reader() as conn:
        lines = conn.execute(select(schema.delivery.c.ordering_key).where(schema.delivery.c.id.in_(numbers)))
        assert {row.ordering_key for row in lines} == {"chart-2"}
    assert len(due(store)) == 1


def test_a_merge_is_told_again_as_it_was(store):
    one = chart()
    merge = of(one, "merge", Operation.MERGE_PATIENT, survivor="MRN:P1", merged="MRN:P7")
    record(store, outcome(1, one, deliveries=(merge,)))
    [number] = ids(store, ["merge"])
    bury(store, "merge")
    record(store, outcome(2, with_phone(one, "+1")), before=load(store, one))
    assert put_back(store, number) is Requeued.AS_IT_WAS


def test_what_is_no_longer_there_is_not_sent(store):
    one = chart()
    gone = msgspec.structs.replace(one, encounters=(encounter("MRN:V7"),))
    record(store, outcome(1, one, deliveries=(of(gone, "old", Operation.UPSERT_ENCOUNTER),)))
    [number] = ids(store, ["old"])
    bury(store, "old")
    assert put_back(store, number) is Requeued.SUPERSEDED
    assert due(store) == []
    assert store.read_now(lambda conn: store.outbox.get(conn, number)).state is DeliveryState.DEAD


# --- messages ---


def forwarded(store):
    """Three messages of a patient, the first one buried."""
    one = chart()
    versions = [one, changed(one, stamps={"name": (2.0, 1)}), changed(changed(one), stamps={"name": (3.0, 1)})]
    for step, version in enumerate(versions, start=1):
        item = of(version, f"m{step}", Operation.FORWARD)
        before = load(store, one) if step > 1 else None
        record(store, outcome(step, version, deliveries=(item,)), before=before)
    bury(store, "m1")
    return ids(store, ["m1"])[0]


def test_a_message_goes_before_the_later_ones_that_still_wait(store):
    number = forwarded(store)
    assert put_back(store, number) is Requeued.AS_IT_WAS
    assert due(store) == ["m1"]


def test_a_message_that_later_ones_have_overtaken_goes_only_when_a_person_says_so(store):
    number = forwarded(store)
    settle(store, "m2")
    with pytest.raises(StoreError, match="out-of-order"):
        put_back(store, number)
    assert due(store) == ["m3"]
    assert put_back(store, number, out_of_order=True) is Requeued.AS_IT_WAS
    assert due(store) == ["m1"]


def test_messages_of_the_patient_it_was_merged_into_overtake_it_too(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    record(store, outcome(1, one, deliveries=(of(one, "m1", Operation.FORWARD),)), outcome(2, two))
    [number] = ids(store, ["m1"])
    bury(store, "m1")
    survivor, gone = merged(two, one)
    item = of(survivor, "a40", Operation.FORWARD)
    record(store, outcome(3, survivor, gone, deliveries=(item,)), before=load(store, one, two))
    settle(store, "a40")
    with pytest.raises(StoreError, match="out-of-order"):
        put_back(store, number)


def test_a_message_of_no_patient_goes_out_again(store):
    item = msgspec.structs.replace(of(chart(), "m1", Operation.FORWARD), ordering_key="entry-1")
    record(store, outcome(1, deliveries=(item,)))
    bury(store, "m1")
    assert put_back(store, ids(store, ["m1"])[0]) is Requeued.AS_IT_WAS


# --- what is refused ---


def test_only_a_dead_delivery_is_put_back(store):
    one = chart()
    record(store, outcome(1, one, deliveries=(of(one, "k"),)))
    for number in (ids(store, ["k"])[0], 999):
        with pytest.raises(StoreError, match="not a dead or withheld one"):
            put_back(store, number)


def test_what_cannot_be_read_or_judged_is_refused(store):
    one = chart()
    orphan = msgspec.structs.replace(of(one, "orphan"), ordering_key="nobody")
    record(store, outcome(1, one, deliveries=(of(one, "damaged"), orphan)))
    for key in ("damaged", "orphan"):
        bury(store, key)
    damaged, orphan = ids(store, ["damaged", "orphan"])
    with pytest.raises(StoreError, match="chart is not there"):
        put_back(store, orphan)
    payload = schema.delivery_payload

    def damage(conn):
        body = conn.execute(select(payload.c.body).where(payload.c.delivery_id == orphan)).scalar_one()
        conn.execute(payload.update().where(payload.c.delivery_id == damaged).values(body=body))

    store.charts_ledger.write_now(damage)
    with pytest.raises(StoreError, match="payload-damaged"):
        put_back(store, damaged)
