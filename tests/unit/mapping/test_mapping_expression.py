from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.message import Message
from engine.mapping.expression import (
    DEPTH_MAX,
    PATTERN_STEPS_MAX,
    SUBJECT_CHARS_MAX,
    FilterError,
    _cost,
    _pattern,
    compile_filter,
)

PAYLOAD = b"\r".join(
    [
        rb"MSH|^~\&|EHR|MAIN|HANDOFF|HUB|20260715143005||ADT^A01^ADT_A01|1|P|2.5.1",
        b'PID|01||7^^^MRN^MR~8^^^SSA^SS||DOE^JANE|""|19580715|F',
        b"PV1|1|I^Inpatient|ICU^12^01",
        b"DG1|1||I50.9^^I10",
        b"DG1|2||E11.9^^I10",
        b"",
    ]
)
MESSAGE = Message.parse(PAYLOAD)


@pytest.mark.parametrize(
    "text",
    [
        "PV1-2 == 'I'",
        'PV1-2 == "I"',
        "'I' == PV1-2",
        "PV1-2 in ('E', 'I')",
        "PV1-2 in ['E', 'I']",
        "PV1-2 in ('I')",
        "PV1-2 in ('I',)",
        "PV1-2 not in ('E', 'O')",
        "PV1-2 != 'E'",
        "PV1-3.1 matches '^IC'",
        "PV1-3.1 matches 'C'",
        "PV1-3.1 not matches '^C'",
        "PID-3[type=MR].1 == '7'",
        "PID-3[type='SS'].4 == 'SSA'",
        "PID-1 == 1",
        "PID-1 == '01'",
        "1 == PID-1",
        "PID-1 in (2, 1)",
        "MSH-9.2 == 'A01'",
        "PID-5",
        "not PID-40",
        "not PID-6",
        "PID-6 == '\"\"'",
        "PID-40 == ''",
        "ZZZ-1 == ''",
        "PID-3[*].1 == '8'",
        "PID-3[*].5 in ('SS', 'XX')",
        "DG1[*]-3.1 matches '^E11'",
        "DG1[*]-3.1 != 'Z00'",
        "not DG1[*]-3.1 != 'E11.9'",
        "DG1[*]-3",
        "not OBX[*]-5",
        "OBX[*]-5 == ''",
        "PID-3[*].4 == PID-3[2].4",
        "PID-5.1 == PID-5.1",
        "PID-8 == 'F' and PV1-2 == 'I'",
        "PID-8 == 'M' or PV1-2 == 'I'",
        "PID-8 == 'M' or PID-8 == 'F' and PV1-2 == 'I'",
        "not PID-8 == 'M' and PV1-2 == 'I'",
        "not not PID-8",
        "not (PID-8 == 'M' or PV1-2 == 'E')",
        "PV1-2 == 'I'\n  and PID-8 == 'F'",
        "'a' == 'a'",
        "'01' in (1, 2)",
        "1 == 1.0",
    ],
)
def test_filter_holds(text: str) -> None:
    assert compile_filter(text)(MESSAGE) is True


@pytest.mark.parametrize(
    "text",
    [
        "PV1-2 == 'E'",
        "PV1-2 == 'i'",
        "PV1-2 != 'I'",
        "PID-1 == '1'",
        "PID-5.1 == 1",
        "PID-6",
        "PID-40",
        "DG1[*]-3.1 != 'E11.9'",
        "DG1[*]-3.1 not in ('E11.9', 'Z00')",
        "DG1[*]-3.1 not matches '^I50'",
        "PID-8 == 'M' and PV1-2 == 'I' or PV1-2 == 'E'",
        "not (PID-8 == 'F')",
        "PID-5.1 == PID-5.2",
        "'a' == 1",
    ],
)
def test_filter_does_not_hold(text: str) -> None:
    assert compile_filter(text)(MESSAGE) is False


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "empty"),
        ("   ", 1, 1, "empty"),
        ("PV1-2 = 'I'", 1, 7, "write =="),
        ("PV1-2 == I", 1, 10, "texts stand in quotes"),
        ("PV1-2 == 'I' AND PV1-3", 1, 14, "lower case"),
        ("PV1-2 == 'I'\nand\n  PID-3[kind=MR] == '1'", 3, 9, "no component of that name"),
        ("PV1-2 == 'I", 1, 10, "not closed"),
        ("PV1-2 < 3", 1, 7, "no order"),
        ("PV1-2 && PV1-3", 1, 7, "`and`"),
        ("(PV1-2", 1, 7, "`)`"),
        ("PV1-2)", 1, 6, "or the end"),
        ("PV1-2 in 'I'", 1, 10, "list"),
        ("PV1-2 in ()", 1, 10, "empty"),
        ("PV1-2 in ('I' 'E')", 1, 15, "expected `,`"),
        ("PV1-2 in ('I']", 1, 14, "expected `,` or `)`"),
        ("PV1-2 in (PV1-3)", 1, 11, "text in quotes or a number"),
        ("PV1-2 not 'I'", 1, 11, "`in` or `matches`"),
        ("PV1-2 == 'I' == 'E'", 1, 14, "one comparison at a time"),
        ("'I'", 1, 1, "no condition"),
        ("3 in (3, 4) and 3", 1, 17, "no condition"),
        ("PV1-2 ==", 1, 9, "expected a path"),
        ("not", 1, 4, "expected a path"),
        ("PV1-0", 1, 5, "a field"),
        ("PV1-2.1.1.1", 1, 10, "does not belong"),
        ("PV1-2 matches PV1-3", 1, 15, "pattern in quotes"),
        ("'I' matches 'I'", 1, 13, "path on its left"),
        ("PV1-2 matches '('", 1, 16, "not a valid pattern"),
        ("PV1-2 == 1234567890123456", 1, 10, "too long"),
        ("len(PV1-2)", 1, 1, "neither a path"),
        ("PV1-2.__class__", 1, 6, "nothing here"),
        ("(" * (DEPTH_MAX + 1) + "PV1-2" + ")" * (DEPTH_MAX + 1), 1, DEPTH_MAX + 1, "levels deep"),
        ("PV1-2 == '" + "x" * 5000 + "'", 1, 1, "at most"),
    ],
)
def test_a_wrong_filter_is_refused_with_line_and_column(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert says in caught.value.text


def test_a_filter_names_what_it_reads() -> None:
    assert [path.text for path in compile_filter("PV1-2 == 'I' or PID-3[*].5 in ('MR', 'PI')").paths] == [
        "PV1-2",
        "PID-3[*].5",
    ]


def test_a_filter_reads_one_segment_as_it_reads_a_message() -> None:
    deleted = compile_filter("DG1-3.1 == 'E11.9'")
    assert [deleted(segment) for segment in MESSAGE.segments("DG1")] == [False, True]


# --- patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(a*)*", "(a|a)*$", "(a|ab){2,}", "((a?)b)+", "(a{1,5}){3}", "a**", "(?=a)", "(?<n>a)", "(a)\\1",
        "a*b*c*d*", ".*.*.*.*", "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaaa",
        "(a|a)" * 20, "a{1000}", "a{2,1}", "[a", "a)",
        "\\", "[[a]]", "x" * 300,
    ],
)  # fmt: skip
def test_a_pattern_that_is_wrong_or_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(FilterError):
        compile_filter(f"PV1-2 matches '{pattern}'")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^(ICU|CCU|MICU)$", "CCU", True),
        (r"^\d{3}-\d{4}$", "555-1234", True),
        ("^4[0-9]{2}[A-F]?$", "412B", True),
        ("^[^]a]+$", "bcd", True),
        ("TEST.*PATIENT", "A TEST FOR A PATIENT", True),
        (r"\.[0-9]+$", "E11.", False),
        ("(?:AB)?C", "ABC", True),
        ("^a{2}b{2,}$", "aabbb", True),
    ],
)
def test_a_pattern_finds_what_it_says(pattern: str, text: str, found: bool) -> None:
    message = Message.parse(PAYLOAD.replace(b"ICU", text.encode()))
    assert compile_filter(f"PV1-3.1 matches '{pattern}'")(message) is found


def test_a_costly_pattern_sees_fewer_characters_of_a_value() -> None:
    assert _pattern("a*b").chars_max == SUBJECT_CHARS_MAX
    assert _pattern("a*b*c").chars_max < SUBJECT_CHARS_MAX


@pytest.mark.parametrize("pattern", ["^.*.*x", "a*a*x", "a?a?a?a?a?a?a*x", "(?:a|a)(?:a|a)(?:a|a)a*x"])
def test_the_costliest_patterns_that_are_allowed_stay_within_their_bound(pattern: str) -> None:
    limited = _pattern(pattern)
    limit = limited.chars_max
    factor, unbounded = _cost(pattern)
    assert factor * limit**unbounded <= PATTERN_STEPS_MAX
    assert limited.compiled.search("a" * limit) is None  # an exponential search would not come back


# --- for any text, for any message

_PIECES = st.sampled_from(
    ["PV1-2", "PID-3[type=MR].1", "DG1[*]-3.1", "'I'", '"E"', "('I','E')", "(", ")", "[", "]", ",", "==", "!=", "in",
     "not", "matches", "and", "or", "1", "-2.5", "'^a+'", "'(a'", "'[a-z]*?'", "é", "\n", " "]
)  # fmt: skip


@given(st.text() | st.lists(_PIECES, max_size=14).map(" ".join))
def test_compiling_raises_nothing_but_filter_errors_and_running_raises_nothing(text: str) -> None:
    try:
        compiled = compile_filter(text)
    except FilterError:
        return
    assert compiled(MESSAGE) in {True, False}


_FILTERS = [
    compile_filter(text)
    for text in (
        "PV1-2 in ('I', 1)", "PID-3[type=MR].1 == PID-18", "DG1[*]-3.1 matches '^[A-Z]+[0-9]*'",
        "not PID-5 or PID-1 == 1", "PID-3[*].4 not in ('X')", "MSH-2 == '^' and MSH-1 != 'x'",
    )
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["PID", "PV1", "DG1", "ZZZ", ""]), st.text()), max_size=5))
def test_running_raises_nothing_for_any_message(segments: list[tuple[str, str]]) -> None:
    lines = [r"MSH|^~\&|A|B|C|D|20260715||ADT^A01|1|P|2.5", *(f"{name}|{rest}" for name, rest in segments)]
    message = Message.parse("\r".join(lines).encode("utf-8", "replace"))
    assert all(one(message) in {True, False} for one in _FILTERS)
