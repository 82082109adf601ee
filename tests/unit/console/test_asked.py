"""What is asked is read or refused, whatever it is: nothing else is ever raised, and no value is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.console.asked import cursor, place, read_all, reveal_of
from engine.console.problems import ProblemError
from engine.console.routes import ROUTES

PARAMS = [(route.name, one) for route in ROUTES for one in (*route.at, *route.query)]
SHAPES = (bool, datetime, str)
INSTANTS = st.integers(0, 5_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
KEY = st.tuples(st.booleans(), INSTANTS, st.from_regex(r"[0-9a-f]{1,32}", fullmatch=True))


def refused(read: Callable[[], object]) -> ProblemError | None:
    """Why it was refused; none: it was read."""
    try:
        read()
    except ProblemError as problem:
        return problem
    return None


@pytest.mark.parametrize(("route", "param"), PARAMS, ids=lambda one: getattr(one, "name", one))
@given(given_text=st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(str))
def test_a_parameter_is_read_or_refused_without_its_value(route: str, param: object, given_text: str) -> None:
    problem = refused(lambda: read_all((param,), {param.name: [given_text]}))  # type: ignore[arg-type, attr-defined]
    if problem is not None:
        assert problem.status == 400, route
        assert len(given_text) <= 12 or given_text not in problem.detail


@given(key=KEY)
def test_a_cursor_leads_back_to_its_place(key: tuple[object, ...]) -> None:
    text = cursor("task", key)
    assert text is not None
    assert place("task", SHAPES, text) == key
    with pytest.raises(ProblemError):
        place("page", SHAPES, text)


@given(text=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ProblemError):
        place("task", SHAPES, text)


@given(text=st.text(max_size=600))
def test_a_reason_is_one_line_or_refused(text: str) -> None:
    problem = refused(lambda: reveal_of(text))
    if problem is not None:
        assert problem.status == 400
        return
    said = reveal_of(text)
    assert said is not None
    assert said.reason.isprintable()
    assert said.reason.strip() == said.reason != ""
