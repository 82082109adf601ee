"""Which charts have to do with a telephone number."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from store_builders import NOW, changed, chart, load, merged, outcome, record

from engine.domain.consent import ContactConsent
from engine.domain.text import Question, Text, TextState
from engine.store import Store, numbers

ONE, OTHER = "+15185550123", "+15185550124"


def said(number: str, *, given: bool = True, consent_id: str = "k1") -> ContactConsent:
    return ContactConsent(
        id=consent_id, purpose="care", channel="sms", number=number, given=given, at=NOW, how="form", by="lee"
    )


def asking(text_id: str, number: str | None, state: TextState = TextState.SENT) -> Text:
    return Text(
        id=text_id, series="s", series_version="1", step="day-1", encounter=None, planned_for=NOW, due_at=None,
        useful_until=NOW, number=number, state=state, question=Question(answers=(), seconds=60), answer_by=NOW,
    )  # fmt: skip


def at(store: Store, number: str) -> list[tuple[str, int]]:
    found = store.read_now(lambda conn: numbers.concerned(conn, store.keys, store.charts, number))
    return [(one.chart_id, one.open_questions) for one in found]


def test_texts_and_consents_lead_to_their_charts_with_what_is_asked_there(store: Any) -> None:
    first = chart("chart-1", 1, contact_consents=(said(ONE, given=False),), texts=(asking("t1", None),))
    second = chart("chart-2", 2, texts=(asking("t2", ONE), asking("t3", ONE, TextState.EXPIRED), asking("t4", OTHER)))
    record(store, outcome(1, first), outcome(2, second), outcome(3, chart("chart-3", 3)))
    assert at(store, ONE) == [("chart-2", 1), ("chart-1", 0)]
    assert at(store, OTHER) == [("chart-2", 1)]
    assert at(store, "+15185550125") == []


def test_a_number_of_later_is_found_and_one_of_before_stays(store: Any) -> None:
    first = chart("chart-1", 1, contact_consents=(said(ONE),))
    record(store, outcome(1, first))
    more = changed(first, contact_consents=(said(ONE), said(OTHER, consent_id="k2")))
    record(store, outcome(2, more), before=load(store, first))
    assert at(store, ONE) == at(store, OTHER) == [("chart-1", 0)]


def test_a_merge_is_followed_and_counts_once(store: Any) -> None:
    one = chart("chart-1", 1, contact_consents=(said(ONE),))
    two = chart("chart-2", 2, contact_consents=(said(ONE, consent_id="k2"),))
    record(store, outcome(1, one), outcome(2, two))
    survivor, gone = merged(one, two)
    record(store, outcome(3, survivor, gone), before=load(store, one, two))
    assert at(store, ONE) == [("chart-1", 0)]


def test_a_row_that_was_led_to_another_patient_leads_to_nobody(store: Any) -> None:
    record(store, outcome(1, chart("chart-1", 1, contact_consents=(said(ONE),))), outcome(2, chart("chart-2", 2)))
    store.charts_ledger.write_now(
        lambda conn: conn.execute(text("UPDATE charts.contact_number SET chart_id = 'chart-2'"))
    )
    assert at(store, ONE) == []


def test_the_number_itself_stands_nowhere_in_clear(store: Any) -> None:
    record(store, outcome(1, chart("chart-1", 1, contact_consents=(said(ONE),))))
    rows = store.read_now(lambda conn: conn.execute(text("SELECT found_by FROM charts.contact_number")).all())
    assert [b"5550123" in bytes(row.found_by) for row in rows] == [False]
