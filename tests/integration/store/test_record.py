from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import func, select
from store_builders import (
    CHANNEL,
    NOW,
    append,
    changed,
    chart,
    charts_of,
    delivery,
    due,
    encounter,
    load,
    merged,
    outcome,
    patient,
    positions,
    receipt,
    record,
    score,
    task,
)

from engine.domain.chart import Charts
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import AckCode, EntryState
from engine.domain.moment import Moment
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier
from engine.domain.task import TaskState
from engine.errors import CursorMovedError, IdentityTakenError, StaleChartError, StoreError
from engine.store import schema


def rows(store, table):
    return store.read_now(lambda conn: conn.execute(select(func.count()).select_from(table)).scalar_one())


def stored(store, chart_id):
    return store.read_now(lambda conn: store.charts.by_id(conn, chart_id))


def nothing_written(store):
    tables = (schema.outcome, schema.chart, schema.identifier, schema.delivery, schema.dead_letter, schema.task)
    return all(rows(store, table) == 0 for table in tables) and positions(store) == {}


def test_a_chart_comes_back_as_it_was_recorded(store):
    new = chart(
        encounters=(encounter("MRN:V1"), encounter("MRN:V2", admitted_at=Moment.of("2026-03-01T10:00:00-05:00"))),
        encounter_stamps={"MRN:V1": {"status": (2.5, 1)}},
        scores=(score("MRN:V2", "seed"), score("MRN:V1", "lace"), score(None, "lace")),
        tasks=(task("t2"), task("t1", state=TaskState.DONE, escalate_at=None, assignee=None)),
    )
    record(store, outcome(1, new))
    assert stored(store, "chart-1") == new
    assert load(store, new).by_id["chart-1"] == new


def test_a_chart_is_found_by_any_identity_and_by_an_encounter(store):
    identifiers = (
        Identifier(value="P1", authority="MRN", type="MR"),
        Identifier(value="S9", authority="SSA", type="SS"),
    )
    record(store, outcome(1, chart(patient=patient(identifiers=identifiers))))

    def found(identities, visits):
        return set(store.read_now(lambda conn: store.charts.load(conn, identities, visits)).by_id)

    assert found({("MRN", "MR", "P1")}, set()) == {"chart-1"}
    assert found({("SSA", "SS", "S9")}, set()) == {"chart-1"}
    assert found(set(), {"MRN:V1"}) == {"chart-1"}
    assert found({("MRN", "PI", "P1"), ("SSA", "SS", "P1"), ("", "MR", "P1")}, {"MRN:V9"}) == set()
    assert [one.id for one in store.read_now(lambda conn: store.charts.by_key(conn, "SSA:S9"))] == ["chart-1"]
    assert store.read_now(lambda conn: store.charts.by_key(conn, "SSA:P1")) == []


def test_a_change_is_written_over_the_old_version(store):
    first = chart()
    record(store, outcome(1, first))
    second = changed(
        first,
        patient=msgspec.structs.replace(first.patient, sex="F"),
        encounters=(first.encounters[0], encounter("MRN:V2")),
        scores=(score(model="lace", value=9, min=9, max=9), score(model="seed")),
        tasks=(msgspec.structs.replace(first.tasks[0], state=TaskState.RETRACTED), task("t9")),
    )
    record(store, outcome(2, second), before=load(store, first))
    assert stored(store, "chart-1") == second


def test_scores_that_are_no_longer_current_go(store):
    first = chart(scores=(score(model="lace"), score(model="seed")))
    record(store, outcome(1, first))
    second = changed(first, scores=(first.scores[1],))
    record(store, outcome(2, second), before=load(store, first))
    assert stored(store, "chart-1") == second
    assert rows(store, schema.score) == 1


def test_only_the_last_version_in_a_batch_is_written(store):
    first = chart()
    second = changed(first, tasks=(*first.tasks, task("t2")))
    third = changed(second, stamps={"name": (9.0, 1)})
    record(store, outcome(1, first), outcome(2, second), outcome(3, third))
    assert stored(store, "chart-1") == third
    assert rows(store, schema.outcome) == 3


def test_a_new_chart_can_be_merged_away_in_the_batch_that_made_it(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    survivor, gone = merged(one, two)
    record(store, outcome(1, one), outcome(2, two), outcome(3, survivor, gone))
    known = store.read_now(lambda conn: store.charts.load(conn, {("MRN", "MR", "P2")}, set()))
    assert known.find(two.patient.identifiers[0]) == survivor


def test_a_merge_moves_encounters_scores_tasks_and_identifiers(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    record(store, outcome(1, one), outcome(2, two))
    survivor, gone = merged(one, two)
    record(store, outcome(3, survivor, gone), before=load(store, one, two))
    assert stored(store, "chart-1") == survivor
    assert stored(store, "chart-2") == gone
    for identities, visits in (({("MRN", "MR", "P2")}, set()), (set(), {"MRN:V2"})):
        known = store.read_now(lambda conn, i=identities, v=visits: store.charts.load(conn, i, v))
        assert known.find(two.patient.identifiers[0]) == survivor
    assert store.read_now(lambda conn: store.charts.by_key(conn, "MRN:P2")) == [survivor]


def test_an_identity_that_was_never_seen_can_be_merged_away(store):
    one = chart("chart-1", 1)
    record(store, outcome(1, one))
    unknown = chart("chart-2", 2, version=0, encounters=(), encounter_stamps={}, scores=(), tasks=())
    survivor, gone = merged(one, unknown)
    record(store, outcome(2, gone, survivor), before=load(store, one))
    known = store.read_now(lambda conn: store.charts.load(conn, {("MRN", "MR", "P2")}, set()))
    assert known.find(unknown.patient.identifiers[0]) == survivor


def test_a_chain_of_merges_is_followed_to_the_living_chart(store):
    one, two, three = (chart(f"chart-{number}", number) for number in (1, 2, 3))
    record(store, outcome(1, one), outcome(2, two), outcome(3, three))
    two, one_gone = merged(two, one)
    record(store, outcome(4, two, one_gone), before=load(store, *map(chart_before, (one, two))))
    three, two_gone = merged(three, stored(store, "chart-2"))
    known = charts_of(*(stored(store, f"chart-{number}") for number in (2, 3)))
    record(store, outcome(5, three, two_gone), before=known)
    loaded = store.read_now(lambda conn: store.charts.load(conn, {("MRN", "MR", "P1")}, set()))
    assert loaded.find(one.patient.identifiers[0]) == three
    assert stored(store, "chart-1").merged_into == "chart-2"


def chart_before(one):
    return chart(one.id, int(one.id[-1]))


# --- what must not happen --------------------------------------------------------------------------------------------


def test_a_chart_that_somebody_changed_meanwhile_is_stale_and_nothing_is_written(store):
    first = chart()
    record(store, outcome(1, first))
    known = load(store, first)
    given = msgspec.structs.replace(first.tasks[0], assignee="dr-lee")
    record(store, outcome(2, changed(first, tasks=(given,))), before=known, channel="@act", cursor=0)
    again = changed(first, stamps={"name": (9.0, 1)})
    with pytest.raises(StaleChartError) as caught:
        record(store, outcome(3, again, deliveries=(delivery("k1"),)), before=known, cursor=1)
    assert caught.value.chart_ids == ("chart-1",)
    assert rows(store, schema.outcome) == 2
    assert positions(store) == {CHANNEL: 1, "@act": 2}
    assert due(store) == []
    assert stored(store, "chart-1").tasks[0].assignee == "dr-lee"


def test_a_chart_that_somebody_made_meanwhile_is_stale(store):
    record(store, outcome(1, chart()))
    with pytest.raises(StaleChartError):
        record(store, outcome(2, chart()), before=Charts())


def test_a_chart_without_a_new_version_is_refused(store):
    first = chart()
    record(store, outcome(1, first))
    with pytest.raises(StoreError, match="higher version"):
        record(store, outcome(2, chart(stamps={"name": (9.0, 1)})), before=load(store, first))


def test_two_processors_never_both_advance(store):
    record(store, outcome(1), outcome(2))
    for cursor in (0, 1, 3):
        with pytest.raises(CursorMovedError):
            record(store, outcome(4, chart()), cursor=cursor)
    assert rows(store, schema.chart) == 0
    record(store, outcome(4), cursor=2)
    assert positions(store) == {CHANNEL: 4}


def test_a_second_store_cannot_record_what_the_first_has_recorded(site):
    one, two = site.open("worker"), site.open("worker")
    record(one, outcome(1, chart()), cursor=0)
    with pytest.raises(CursorMovedError):
        record(two, outcome(1, chart()), cursor=0)
    assert rows(two, schema.outcome) == 1


def test_channels_advance_by_themselves(store):
    record(store, outcome(1), outcome(5))
    record(store, outcome(2), channel="lab")
    assert positions(store) == {CHANNEL: 5, "lab": 2}


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (0, 1)])
def test_outcomes_out_of_order_are_refused(store, order):
    with pytest.raises(StoreError, match="order"):
        record(store, *(outcome(number) for number in order))
    assert nothing_written(store)


def test_an_identifier_of_another_living_chart_is_never_taken(store):
    record(store, outcome(1, chart("chart-1", 1)))
    thief = chart("chart-2", 2, patient=patient(1))
    with pytest.raises(IdentityTakenError):
        record(store, outcome(2, thief, deliveries=(delivery("k1"),)))
    assert stored(store, "chart-2") is None
    assert due(store) == []
    assert [one.id for one in store.read_now(lambda conn: store.charts.by_key(conn, "MRN:P1"))] == ["chart-1"]


def test_two_charts_of_one_batch_cannot_claim_one_identifier(store):
    with pytest.raises(IdentityTakenError):
        record(store, outcome(1, chart("chart-1", 1), chart("chart-2", 2, patient=patient(1))))
    assert nothing_written(store)


def test_an_encounter_of_another_chart_is_never_taken(store):
    record(store, outcome(1, chart("chart-1", 1)))
    thief = chart("chart-2", 2, encounters=(encounter("MRN:V1"),), scores=(), tasks=())
    with pytest.raises(StoreError):
        record(store, outcome(2, thief))
    assert stored(store, "chart-2") is None
    assert stored(store, "chart-1").encounters == chart().encounters


def test_a_task_of_another_chart_is_never_taken(store):
    record(store, outcome(1, chart("chart-1", 1)))
    with pytest.raises(StoreError):
        record(store, outcome(2, chart("chart-2", 2, tasks=(task("task-1"),))))
    assert stored(store, "chart-1").tasks == chart().tasks


@pytest.mark.parametrize("part", ["encounters", "tasks"])
def test_encounters_and_tasks_never_vanish(store, part):
    first = chart()
    record(store, outcome(1, first))
    with pytest.raises(StoreError, match="away"):
        record(store, outcome(2, changed(first, **{part: ()})), before=load(store, first))
    assert stored(store, "chart-1") == first


@pytest.mark.parametrize("last", ["chart", "delivery", "outcome"])
def test_a_batch_is_all_or_nothing_whatever_fails_last(store, last):
    """Each failure comes from the database, after other tables were written."""
    append(store, receipt(store.keys))
    good = outcome(1, chart(), deliveries=(delivery("k1"),), dead_letter=letter())
    bad = {
        "chart": outcome(2, chart("chart-2", 2, tasks=(task("task-1"),))),
        "delivery": outcome(2, deliveries=(msgspec.structs.replace(delivery("k2"), destination=None),)),
        "outcome": outcome(2, config_version=None),
    }[last]
    with pytest.raises(StoreError):
        record(store, good, bad)
    assert nothing_written(store)
    record(store, good)
    assert due(store) == ["k1"]


# --- outcomes, deliveries, dead letters ------------------------------------------------------------------------------


def letter():
    return DeadLetter(stage=Stage.PROCESSING, error="mapping", location="PID-7", detail="not a date")


def test_an_outcome_comes_back_with_its_effects(store):
    effects = (Effect(kind="scored", subject="MRN:V1", detail="lace high"),)
    record(
        store,
        outcome(
            1, chart(), reason="why", encounter_key="MRN:V1", effects=effects, deviations=("stale-event",),
            application_ack=AckCode.AE, error_code=207,
        ),
        outcome(2, state=EntryState.FILTERED),
    )  # fmt: skip
    found = store.read_now(lambda conn: store.recorder.outcomes(conn, [1, 2, 3]))
    assert set(found) == {1, 2}
    one = found[1]
    assert (one.reason, one.encounter_key, one.patient_key, one.chart_id) == ("why", "MRN:V1", "MRN:P1", "chart-1")
    assert (one.effects, one.deviations, one.application_ack) == (effects, ("stale-event",), AckCode.AE)
    assert (one.error_code, one.config_version, one.recorded_at, one.state) == (207, "cfg1", NOW, EntryState.PROCESSED)
    assert found[2].state is EntryState.FILTERED


def test_what_senders_are_told_is_known_though_the_outcome_is_damaged(store):
    """One that can't be read must not hold up the answers to all others that wait beside it."""
    record(store, outcome(1, application_ack=AckCode.AE, error_code=207), outcome(2))
    damaged = schema.outcome.update().where(schema.outcome.c.entry_id == 1).values(document=b"damaged")
    store.charts_ledger.write_now(lambda conn: conn.execute(damaged))
    found = store.read_now(lambda conn: store.recorder.answers(conn, [1, 2, 3]))
    assert found == {1: (AckCode.AE, 207), 2: (AckCode.AA, 0)}


def test_a_dead_letter_is_recorded_with_its_entry(store):
    record(store, outcome(1, state=EntryState.DEAD, dead_letter=letter()))
    [found] = store.read_now(store.dead_letters.find)
    assert (found.entry, found.channel, found.stage, found.error) == (1, CHANNEL, Stage.PROCESSING, "mapping")
    assert (found.location, found.detail, found.died_at, found.resolved_by) == ("PID-7", "not a date", NOW, None)


def test_a_delivery_is_recorded_once_for_its_idempotency_key(store):
    assert record(store, outcome(1, deliveries=(delivery("a"), delivery("b")))) == 2
    assert record(store, outcome(2, deliveries=(delivery("b", payload=b"other"), delivery("c"), delivery("c")))) == 1
    queued = store.read_now(lambda conn: store.outbox.of_entry(conn, 1))
    assert [(item.delivery.idempotency_key, item.delivery.payload) for item in queued] == [("a", b"{}"), ("b", b"{}")]
    assert rows(store, schema.delivery) == rows(store, schema.delivery_payload) == 3


def test_deliveries_have_ids_in_the_order_of_the_outcomes(store):
    keys = [f"k{number}" for number in range(700)]
    record(
        store,
        outcome(1, deliveries=tuple(delivery(key, ordering_key=key) for key in keys[:300])),
        outcome(2, deliveries=tuple(delivery(key, ordering_key=key) for key in keys[300:])),
    )
    queued = store.read_now(
        lambda conn: [*store.outbox.of_entry(conn, 1), *store.outbox.of_entry(conn, 2)],
    )
    assert [(item.id, item.delivery.idempotency_key) for item in queued] == [
        (number + 1, key) for number, key in enumerate(keys)
    ]


def test_an_empty_batch_moves_nothing(store):
    assert record(store) == 0
    assert positions(store) == {}


def test_a_large_batch_of_many_patients_is_recorded_whole(store):
    charts = [chart(f"chart-{number}", number) for number in range(1, 601)]
    record(
        store,
        *(
            outcome(number, one, deliveries=(delivery(f"k{number}", ordering_key=one.id),))
            for number, one in enumerate(charts, start=1)
        ),
    )
    known = load(store, *charts)
    assert known.by_id == {one.id: one for one in charts}
    assert len(due(store, limit=1000)) == 600


def test_the_newest_changed_charts_are_listed_first(store):
    one, two = chart("chart-1", 1), chart("chart-2", 2)
    record(store, outcome(1, one), now=NOW)
    record(store, outcome(2, two), now=NOW.replace(hour=13))
    assert [found.id for found in store.read_now(store.charts.find)] == ["chart-2", "chart-1"]
    survivor, gone = merged(one, two)
    record(store, outcome(3, survivor, gone), before=load(store, one, two), now=NOW.replace(hour=14))
    assert [found.id for found in store.read_now(store.charts.find)] == ["chart-1"]


def test_at_a_merge_two_scores_of_no_stay_become_one(store):
    """Of one model there is one that is the patient's own: the later one."""
    one = chart("chart-1", 1, scores=(score(None),))
    two = chart("chart-2", 2, scores=(score(None, scored_at=NOW + timedelta(days=1)),))
    record(store, outcome(1, one), outcome(2, two))
    survivor, gone = merged(one, two)
    record(store, outcome(3, survivor, gone), before=load(store, one, two))
    assert stored(store, "chart-1").scores == two.scores
    assert rows(store, schema.score) == 1
