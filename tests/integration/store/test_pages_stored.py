"""Pages and overrides in the store: lists, and what has become of notifications until the journal has it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store_builders import NOW, append, chart, ids, outcome, receipt, record

from engine.domain.delivery import Delivery, DeliveryState, Gone, Ground, Notification, Operation, line_of_notice
from engine.domain.oncall import Override
from engine.domain.page import Page, PageState, Policy, StepResult
from engine.runtime.receipts import cause_of
from engine.store import notices, oncall
from engine.store.outbox import Settled

GROUND = Ground(kind="page", key="pt1#0")


@pytest.fixture(autouse=True)
def entries(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 9)))


def page(number, state=PageState.QUEUED, minutes=0):
    return Page(
        id=f"pt{number}", task=f"t{number}", kind="on_call_page", encounter="MRN:V1", closes=True, state=state,
        raised_at=NOW + timedelta(minutes=minutes), next_at=NOW, policy=Policy(ladder="on-call", version="1"),
    )  # fmt: skip


def notification(step):
    said = Notification(
        id=f"pt1-{step}", page_id="pt1", ladder="on-call", level=1, loop=1, step=step, person="lee", to=None, text="x",
        link="/pages/pt1", reason="on_call_page", raised_at=NOW, ground=GROUND,
    )  # fmt: skip
    return Delivery(
        destination="crm", operation=Operation.NOTIFY, ordering_key=line_of_notice("chart-1", said.id),
        idempotency_key=said.id, payload=said.encoded(),
    )  # fmt: skip


def awaited(store):
    return store.read_now(lambda conn: notices.awaited(conn, 10))


def settle(store, key, state, error=None):
    result = Settled(id=ids(store, [key])[0], state=state, attempts=1, error=error)
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], NOW))


def test_pages_are_listed_with_those_that_nobody_has_acknowledged_first(store):
    states = (PageState.ACKNOWLEDGED, PageState.SENT, PageState.EXHAUSTED, PageState.RESOLVED)
    pages = tuple(page(number, state, number) for number, state in enumerate(states))
    record(store, outcome(1, chart(pages=pages), chart_id="chart-1"))
    find = store.pages.find
    found = store.read_now(find)
    assert [one.page.id for one in found] == ["pt2", "pt1", "pt3", "pt0"]
    assert {one.patient_key for one in found} == {"MRN:P1"}
    unanswered = {PageState.SENT, PageState.EXHAUSTED}
    assert [one.page.id for one in store.read_now(lambda conn: find(conn, states=unanswered))] == ["pt1", "pt2"]
    assert store.read_now(lambda conn: store.pages.count(conn, states=unanswered)) == 2
    assert store.read_now(lambda conn: find(conn, chart_ids=["chart-2"])) == []
    assert store.read_now(lambda conn: store.pages.get(conn, "pt9")) is None


@pytest.mark.parametrize(
    ("state", "error", "result", "detail"),
    [
        (DeliveryState.DELIVERED, None, StepResult.SENT, None),
        (DeliveryState.DEAD, "number-invalid", StepResult.FAILED, "number-invalid"),
        (DeliveryState.HELD, "answer-lost", StepResult.FAILED, "answer-lost"),
        (DeliveryState.WITHHELD, Gone.GROUND.value, StepResult.FAILED, "ground-gone"),
    ],
)
def test_what_becomes_of_a_notification_awaits_the_journal_until_it_is_there(store, state, error, result, detail):
    record(store, outcome(1, chart(pages=(page(1),)), deliveries=(notification(1), notification(2))))
    assert awaited(store) == []
    settle(store, "pt1-2", state, error)
    (one,) = awaited(store)
    cause = cause_of(one)
    assert (cause.page, cause.step, cause.result, cause.detail) == ("pt1", 2, result.value, detail)
    assert (cause.chart_id, cause.once) == ("chart-1", f"receipt/{one.delivery_id}/{result.value}")
    store.charts_ledger.write_now(lambda conn: notices.heard(conn, store.keys, [one]))
    assert awaited(store) == []


def test_a_notification_that_waits_for_its_next_try_is_no_news(store):
    record(store, outcome(1, chart(pages=(page(1),)), deliveries=(notification(1),)))
    settle(store, "pt1-1", DeliveryState.PENDING, "timeout")
    assert awaited(store) == []


def test_overrides_are_recorded_with_the_outcome_of_their_act_and_read_while_they_last(store):
    made = [
        Override(
            number=number, roster="duty", role="primary", person="lee", begins=NOW, ends=NOW + timedelta(hours=number),
            made_by="ann", made_at=NOW, reason="ill",
        )
        for number in (1, 2)
    ]  # fmt: skip
    for one in made:
        record(store, outcome(one.number, overrides=(one,)))

    def read(hours):
        return store.read_now(lambda conn: oncall.overrides(conn, store.keys, NOW + timedelta(hours=hours)))

    assert read(0) == tuple(made)
    assert read(1) == tuple(made[1:])
    assert read(2) == ()
