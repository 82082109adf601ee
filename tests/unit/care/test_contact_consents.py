"""The ledger of consents to be written to: what counts, and what a merge makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.texts.consent import STATEMENTS_MAX, ConsentState, FullError, said, standing, united
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.domain.patient import Identifier, Patient

NOW = datetime(2026, 3, 6, 15, tzinfo=UTC)
NUMBER = "+12125550100"


def statement(number: int, given: bool, *, at: int = 0, to: str = NUMBER, channel: str = "sms") -> ContactConsent:
    return ContactConsent(
        id=f"k{number}", purpose="care", channel=channel, number=to, given=given, at=NOW + timedelta(hours=at),
        how="form", by="anna",
    )  # fmt: skip


def chart(*statements: ContactConsent, id_: str = "a") -> Chart:
    empty = Chart(id=id_, patient=Patient(identifiers=(Identifier(value=id_, authority="MRN", type="MR"),)))
    return said(empty, *statements)


def state(one: Chart, to: str = NUMBER, channel: str = "sms") -> str:
    return standing(one, "care", channel, to).state.value


def test_nothing_said_is_no_consent() -> None:
    assert standing(chart(), "care", "sms", NUMBER) == (ConsentState.NONE, None)


@pytest.mark.parametrize("order", list(permutations([(1, True, 0), (2, False, 2), (3, True, 1)])))
def test_what_was_said_last_counts_in_whatever_order_it_came(order: tuple[tuple[int, bool, int], ...]) -> None:
    one = chart(*(statement(number, given, at=at) for number, given, at in order))
    assert standing(one, "care", "sms", NUMBER).statement == statement(2, False, at=2)


def test_of_two_of_one_moment_the_one_that_forbids_counts() -> None:
    assert state(chart(statement(1, False), statement(2, True))) == "revoked"
    assert state(chart(statement(1, True), statement(2, False))) == "revoked"


def test_a_statement_is_about_its_own_purpose_channel_and_number_alone() -> None:
    one = chart(statement(1, True))
    assert state(one) == "given"
    assert state(one, to="+12125550101") == state(one, channel="whatsapp") == "none"
    assert standing(one, "marketing", "sms", NUMBER).state is ConsentState.NONE


def test_the_same_statement_is_there_once() -> None:
    one = chart(statement(1, True))
    assert said(one, statement(1, True)) is one


def test_a_full_ledger_takes_no_consent_and_every_revocation() -> None:
    full = chart(
        *(statement(number, number % 2 == 0) for number in range(STATEMENTS_MAX - 1)), statement(999, True, at=1)
    )
    with pytest.raises(FullError):
        said(full, statement(2001, True, at=2))
    after = said(full, statement(2000, False, at=2))
    assert state(after) == "revoked"
    assert said(after, statement(2002, False, at=3)) is after  # it says nothing new
    with pytest.raises(FullError):
        said(after, statement(2003, True, at=4))


@pytest.mark.parametrize("survives", ["a", "b"])
def test_a_number_that_is_opted_out_on_either_chart_is_so_after_the_merge(survives: str) -> None:
    out = chart(statement(1, True), statement(2, False, at=1), id_="a")
    later = chart(statement(3, True, at=5), id_="b")
    both = (out, later) if survives == "a" else (later, out)
    after = said(chart(), *united(*both))
    found = standing(after, "care", "sms", NUMBER)
    assert (found.state, found.statement.how if found.statement else None) == (ConsentState.REVOKED, "merge")
    assert state(said(after, statement(4, True, at=6))) == "given"  # said after the merge


def test_a_merge_leaves_what_nobody_has_revoked() -> None:
    two = (
        chart(statement(1, True), id_="a"),
        chart(statement(2, True, at=1), statement(3, True, to="+12125550101"), id_="b"),
    )
    assert len(united(*two)) == 3


_said = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=4)


@given(_said, _said, _said)
def test_whatever_the_order_of_merges_an_opt_out_on_one_chart_wins(
    one: list[tuple[bool, int]], two: list[tuple[bool, int]], three: list[tuple[bool, int]]
) -> None:
    charts = [
        chart(*(statement(10 * n + i, given, at=at) for i, (given, at) in enumerate(items)), id_=str(n))
        for n, items in enumerate((one, two, three), 1)
    ]
    states = [state(each) for each in charts]
    expected = "revoked" if "revoked" in states else "given" if "given" in states else "none"
    for first, second, third in permutations(charts):
        merged = said(chart(), *united(first, second))
        assert state(said(chart(), *united(merged, third))) == expected
        assert state(said(chart(), *united(third, merged))) == expected
        assert united(merged, merged) == merged.contact_consents  # again: nothing more
