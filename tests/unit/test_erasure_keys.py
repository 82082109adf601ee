"""The tree of erasure keys, without a store."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.store.erasure import Kind, Node, Span, Tree, of_chart, of_number, runs, without

NUMBERS = st.integers(1, 300)
SPANS = st.lists(st.tuples(NUMBERS, st.integers(0, 40)), max_size=8)
WHOLE = Node(0, 0, b"r" * 32)


def tree(*gone: Span) -> Tree:
    nodes = [WHOLE]
    for one in gone:
        nodes = [part for node in nodes for part in without(node, one)]
    return Tree("t", nodes)


@given(SPANS)
def test_what_is_destroyed_has_no_key_and_all_else_keeps_its_own(spans: list[tuple[int, int]]) -> None:
    left = tree(*(of_number(Kind.MESSAGE, first, first + more) for first, more in spans))
    gone = {n for first, more in spans for n in range(first, first + more + 1)}
    before = tree()
    for number in range(345):
        span = of_number(Kind.MESSAGE, number)
        assert left.key(span) == (None if number in gone else before.key(span))
        other = of_number(Kind.DELIVERY, number)
        assert left.key(other) == before.key(other) is not None


@given(SPANS, SPANS)
def test_of_two_copies_only_what_neither_has_destroyed_is_left(one: list, other: list) -> None:
    def cut(*several: list[tuple[int, int]]) -> Tree:
        return tree(*(of_number(Kind.TRAIL, a, a + more) for spans in several for a, more in spans))

    assert cut(one).and_of(cut(other)).nodes == cut(one, other).nodes


@given(st.lists(NUMBERS))
def test_keys_are_the_same_in_whatever_order_they_are_asked_for(numbers: list[int]) -> None:
    asked, spans = tree(of_number(Kind.CHART, 7)), [of_number(Kind.MESSAGE, n) for n in numbers]
    mixed = [span for n in numbers for span in (of_number(Kind.MESSAGE, n), of_chart(f"{n:032x}"))]
    assert {span: asked.key(span) for span in mixed} == {
        span: tree(of_number(Kind.CHART, 7)).key(span) for span in mixed
    }
    assert len({asked.key(span) for span in spans}) == len(set(numbers))


def test_charts_of_one_entry_have_keys_of_their_own() -> None:
    one, other = "00000000000a" + "1" * 20, "00000000000a" + "2" * 20
    left = tree(of_chart(one))
    assert left.key(of_chart(one)) is None
    assert left.key(of_chart(other)) is not None


def test_what_is_swept_in_order_takes_no_room() -> None:
    assert len(tree(*(of_number(Kind.MESSAGE, n) for n in range(1, 1001))).nodes) < 80


@given(st.sets(NUMBERS))
def test_runs_are_the_numbers(numbers: set[int]) -> None:
    found = list(runs(numbers))
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(numbers)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))
