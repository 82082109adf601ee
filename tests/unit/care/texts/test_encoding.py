import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.texts.encoding import BASIC, EXTENSION, GSM_7, UCS_2, length_of


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("", GSM_7, 1),
        ("a" * 160, GSM_7, 1),
        ("a" * 161, GSM_7, 2),
        ("a" * 306, GSM_7, 2),
        ("a" * 307, GSM_7, 3),
        ("a" * 158 + "€", GSM_7, 1),
        ("a" * 159 + "€", GSM_7, 2),
        ("€" * 80, GSM_7, 1),
        ("€" * 81, GSM_7, 2),
        ("€" * 153, GSM_7, 3),  # 76 in each: an escape is never parted from what it escapes
        ("ñ" * 160, GSM_7, 1),
        ("ó" * 70, UCS_2, 1),
        ("ó" * 71, UCS_2, 2),
        ("ó" * 134, UCS_2, 2),
        ("ó" * 135, UCS_2, 3),
        ("👍" * 35, UCS_2, 1),
        ("👍" * 36, UCS_2, 2),
        ("👍" * 67, UCS_2, 3),  # 33 in each: a pair of surrogates is never parted
    ],
)
def test_segments_are_counted_at_their_borders(text: str, encoding: str, segments: int) -> None:
    found = length_of(text)
    assert (found.encoding, found.segments, found.characters) == (encoding, segments, len(text))


def test_what_makes_a_text_ucs_2_is_named_once_each() -> None:
    found = length_of("It’s 9 o’clock 👍")
    assert found.culprits == ("’", "👍")
    assert "’ (U+2019)" in found.text
    assert "👍 (U+1F44D)" in found.text


def _independent_count(text: str) -> int:
    """From the bytes on the air: greedy, unit by unit."""
    if all(one in BASIC or one in EXTENSION for one in text):
        pieces, one, several = [["e", "x"] if one in EXTENSION else ["x"] for one in text], 160, 153
    else:
        encoded = [one.encode("utf-16-be") for one in text]
        pieces, one, several = [["x"] * (len(each) // 2) for each in encoded], 70, 67
    units = [unit for piece in pieces for unit in piece]
    if len(units) <= one:
        return 1
    count = 0
    while pieces:
        taken = 0
        while pieces and taken + len(pieces[0]) <= several:
            taken += len(pieces.pop(0))
        count += 1
    return count


@given(st.text(alphabet=st.sampled_from([*sorted(BASIC | EXTENSION)]), max_size=700))
def test_gsm_7_segments_are_those_of_an_independent_count(text: str) -> None:
    assert length_of(text).encoding == GSM_7
    assert length_of(text).segments == _independent_count(text)


@given(st.text(max_size=400))
def test_segments_of_any_text_are_those_of_an_independent_count(text: str) -> None:
    assert length_of(text).segments == _independent_count(text)


def test_the_tables_have_the_size_of_the_standard() -> None:
    assert len(BASIC) == 127  # 128 with the escape itself
    assert len(EXTENSION) == 10
    assert not BASIC & EXTENSION
