"""What a merge never does, however its numbers are written."""

from __future__ import annotations

import pytest
from heart import Heart, adt
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.message import EntryState

AT = "20260309120000"


def a40(pid3: str, mrg: str) -> bytes:
    return adt("A40", at=AT, pid3=pid3, segments=(mrg,))


def living(heart: Heart) -> set[str]:
    return {chart.patient.key for chart in heart.charts.by_id.values() if chart.merged_into is None}


# --- external and alternate numbers (MRG-4 was PID-2, MRG-2 was PID-4) never pair with those of PID-3


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A39", "A40"])
@pytest.mark.parametrize(("pid", "mrg"), [({2: "E1", 3: "1"}, "MRG||||2"), ({4: "E1", 3: "1"}, "MRG||2")])
def test_a_number_that_was_another_field_s_is_not_taken_for_one_of_pid_3(
    trigger: str, pid: dict[int, str], mrg: str
) -> None:
    heart = Heart()
    for number in ("1", "2"):
        heart.send(adt("A28", pid3=number))
    outcome = heart.send(adt(trigger, at=AT, pid=pid, segments=(mrg,)))
    assert outcome.state is EntryState.DEAD
    assert living(heart) == {"MRN:1", "MRN:2"}


# --- what a merge never does

_CX = st.tuples(st.sampled_from("1234"), st.sampled_from(["MRN", "WEST", ""]), st.sampled_from(["MR", "PI", "", "SS"]))
_LISTS = st.lists(_CX, min_size=1, max_size=3)


def _written(numbers: list[tuple[str, str, str]]) -> str:
    return "~".join(f"{value}^^^{authority}^{type_}" for value, authority, type_ in numbers)


def _key(number: tuple[str, str, str]) -> tuple[str, str, str]:
    return number[0], number[1] or "MRN", number[2]


@settings(max_examples=300, deadline=None)
@given(_LISTS, _LISTS, st.lists(_LISTS, max_size=5))
def test_a_merge_never_goes_across_authorities_and_touches_nobody_whom_it_does_not_name(
    pid3: list[tuple[str, str, str]], mrg: list[tuple[str, str, str]], known: list[list[tuple[str, str, str]]]
) -> None:
    heart = Heart()
    for numbers in known:
        heart.send(adt("A28", pid3=_written(numbers)))
    before = dict(heart.charts.by_id)
    heart.send(a40(_written(pid3), f"MRG|{_written(mrg)}"))

    def leads(number: tuple[str, str, str]) -> set[str]:
        """The charts that a number leads to; a type that the message or the chart lacks is no difference."""
        value, authority, type_ = _key(number)
        return {
            id_
            for id_, chart in before.items()
            for known in chart.patient.identifiers
            if (known.value, known.authority) == (value, authority)
            and ("" in {type_, known.type} or known.type == type_)
        }

    named = {id_ for number in (*pid3, *mrg) for id_ in leads(number)}
    changed = {id_ for id_, chart in before.items() if heart.charts.by_id[id_] != chart}
    assert changed <= named
    authorities = {_key(number)[1] for number in pid3}
    for id_ in changed:
        if heart.charts.by_id[id_].merged_into is not None:
            assert any(id_ in leads(number) and _key(number)[1] in authorities for number in mrg)
