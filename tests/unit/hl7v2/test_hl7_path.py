"""Paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.path import ALL, Path, PathError, compiled


def test_a_path_names_segment_field_component_and_subcomponent() -> None:
    path = Path.parse("PID-3.4.2")
    assert (path.segment, path.index, path.field, path.repetition) == ("PID", 1, 3, 1)
    assert (path.component, path.subcomponent) == (4, 2)
    assert str(path) == "PID-3.4.2"


@pytest.mark.parametrize(
    ("text", "index", "repetition"),
    [("PID-3.1", 1, 1), ("DG1[2]-3.1", 2, 1), ("DG1[*]-3.1", ALL, 1), ("PID-3[2].1", 1, 2), ("OBX[*]-5[*]", ALL, ALL)],
)
def test_indexes_of_segments_and_repetitions(text: str, index: int, repetition: int) -> None:
    path = Path.parse(text)
    assert (path.index, path.repetition) == (index, repetition)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("PID-3[type=MR].1", [(5, 1, "MR")]),
        ("PID-3[authority=HOSP].1", [(4, 1, "HOSP")]),
        ("PID-3[id=7].5", [(1, 1, "7")]),
        ("PID-3[4.1=HOSP].1", [(4, 1, "HOSP")]),
        ("PID-3[5=MR].1", [(5, 1, "MR")]),
        ("PID-3[type=MR,authority=HOSP].1", [(5, 1, "MR"), (4, 1, "HOSP")]),
        ("PID-3[ type = 'a]b, c' ].1", [(5, 1, "a]b, c")]),
        ('PID-3[type=""].1', [(5, 1, "")]),
        ("PID-13[use=PRN].1", [(2, 1, "PRN")]),
        ("PID-11[type=H].1", [(7, 1, "H")]),
        ("PID-5[type=L].1", [(7, 1, "L")]),
        ("PV1-7[authority=NPI].1", [(9, 1, "NPI")]),
    ],
)
def test_repetitions_are_selected_by_named_or_numbered_components(
    text: str, conditions: list[tuple[int, int, str]]
) -> None:
    path = Path.parse(text)
    assert [condition[:3] for condition in path.conditions] == conditions
    assert path.repetition == ALL


def test_a_path_inside_a_segment_has_no_segment() -> None:
    assert Path.parse("3[5=MR].1").segment == ""


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("PID", 1),
        ("PID-", 5),
        ("pid-3", 1),
        ("PIDX-3", 1),
        ("PID-0", 5),
        ("PID-3.", 6),
        ("PID-3.0", 6),
        ("PID-3.1.1.1", 10),
        ("PID-3[0].1", 7),
        ("PID-3[type=MR.1", 16),
        ("PID-3[type=MR", 14),
        ("PID-3[colour=red].1", 7),
        ("PID-8[type=MR]", 7),
        ("3[type=MR]", 3),
        ("ZPI-3[type=MR]", 7),
        ("PID-3.1 ", 8),
        ("PID[x]-3", 1),
    ],
)
def test_an_unreadable_path_names_the_column(text: str, column: int) -> None:
    with pytest.raises(PathError) as caught:
        Path.parse(text)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column}: ")


def test_an_unknown_name_is_told_together_with_the_known_ones() -> None:
    with pytest.raises(PathError, match="field PID-13 has no component of that name; it has use, equipment"):
        Path.parse("PID-13[type=PRN].1")


@given(st.text(alphabet="PID-3.[]*=type'MR\", 0", max_size=20))
def test_any_text_is_a_path_or_a_path_error(text: str) -> None:
    try:
        path = Path.parse(text)
    except PathError as error:
        column = error.column
    else:
        assert path.text == text
        return
    assert 1 <= column <= len(text) + 1


def test_compiled_paths_are_remembered() -> None:
    assert compiled("PID-3.1") is compiled("PID-3.1")
