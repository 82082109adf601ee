"""A list that is read from a key on, piece by piece, is the list: nothing twice, nothing left out."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from store_builders import NOW, chart, outcome, record, task

from engine.domain.appointment import Appointment
from engine.domain.moment import Moment
from engine.domain.page import UNANSWERED, Page, PageState, Policy
from engine.domain.task import STANDING, TaskState

NUMBER = 23


def times(seed: int) -> list[timedelta]:
    """Few of them, so that many are alike."""
    draw = random.Random(seed)
    return [timedelta(hours=draw.randrange(4)) for _ in range(NUMBER)]


def page_of(number: int, state: PageState, later: timedelta) -> Page:
    return Page(
        id=f"p{number:02}", task="t", kind="call", encounter="MRN:V1", closes=True, state=state, raised_at=NOW + later,
        next_at=NOW, policy=Policy(ladder="on-call", version="1"),
    )  # fmt: skip


def appointment_of(number: int, later: timedelta) -> Appointment:
    starts = None if later == timedelta(hours=3) else Moment.of((NOW + later).isoformat())
    return Appointment(id=f"a{number:02}", starts_at=starts)


@pytest.fixture
def full(store):
    draw = random.Random(4)
    tasks = tuple(
        task(f"t{n:02}", due_at=NOW + later, state=draw.choice(list(TaskState))) for n, later in enumerate(times(1))
    )
    pages = tuple(page_of(n, draw.choice(list(PageState)), later) for n, later in enumerate(times(2)))
    appointments = tuple(appointment_of(n, later) for n, later in enumerate(times(3)))
    record(store, outcome(1, chart(tasks=tasks, pages=pages, appointments=appointments)))
    return store


LISTS = {
    "tasks": ("tasks", {"states": list(TaskState)}),
    "open tasks": ("tasks", {"states": list(STANDING)}),
    "pages": ("pages", {}),
    "pages that wait": ("pages", {"states": UNANSWERED}),
    "appointments": ("appointments", {}),
    "appointments of a time": ("appointments", {"starts_from": NOW + timedelta(hours=1)}),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_a_list_in_pieces_is_the_list(full, name, size):
    which, conditions = LISTS[name]
    of = getattr(full, which)
    whole = [of.key(one) for one in full.read_now(lambda conn: of.find(conn, **conditions))]
    found, after = [], None
    while piece := full.read_now(lambda conn: of.find(conn, **conditions, limit=size, after=after)):
        assert len(piece) <= size
        found += [of.key(one) for one in piece]
        after = of.key(piece[-1])
    assert found == whole
    assert len(whole) > 4


def test_what_comes_meanwhile_moves_nothing(full):
    """A task that is due before the place changes no later piece, as a count of those before would."""
    states = [TaskState.OPEN]
    first = full.read_now(lambda conn: full.tasks.find(conn, states=states, limit=2))
    rest = full.read_now(lambda conn: full.tasks.find(conn, states=states, after=full.tasks.key(first[-1])))
    record(full, outcome(2, chart("chart-2", 2, tasks=(task("t000", "MRN:V2", due_at=NOW - timedelta(days=1)),))))
    again = full.read_now(lambda conn: full.tasks.find(conn, states=states, after=full.tasks.key(first[-1])))
    assert [one.task.id for one in again] == [one.task.id for one in rest]
