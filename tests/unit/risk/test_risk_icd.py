from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.icd import PrefixTable, expand, normalise

CODES = st.from_regex(r"[A-CI][0-4][0-9](\.[0-9A-Z]{0,3})?", fullmatch=True)
PREFIXES = st.from_regex(r"[A-CI][0-4][0-9][0-9]?", fullmatch=True)


def test_a_range_holds_both_ends_and_all_between() -> None:
    assert expand("I60-I63") == ("I60", "I61", "I62", "I63")
    assert expand("Z490-Z492") == ("Z490", "Z491", "Z492")
    assert expand("C00-C03") == ("C00", "C01", "C02", "C03")


@pytest.mark.parametrize(
    "pattern", ["", "I", "I5", "I50.9", "i50", "I69-I60", "I60-J69", "I60-I699", "I60-I60", "I60-"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"prefix|range"):
        expand(pattern)


def test_dots_case_and_spaces_do_not_matter() -> None:
    assert normalise(" i50.9 ") == "I509"


def test_a_prefix_matches_every_longer_code_and_no_shorter_one() -> None:
    table = PrefixTable({"mi": ["I252"]})
    assert table.match(["I25.2"]) == {"mi": "I25.2"}
    assert table.match(["I25.20"]) == {"mi": "I25.20"}
    assert table.match(["I25", "I25.5", "", "I", "XI252"]) == {}


def test_the_first_code_is_the_evidence_and_a_code_may_be_in_two_groups() -> None:
    table = PrefixTable({"chf": ["I132", "I50"], "heart": ["I13-I15", "I50"]})
    assert table.match(["I13.2", "I50.9"]) == {"heart": "I13.2", "chf": "I13.2"}


@given(
    groups=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(PREFIXES, max_size=8)),
    codes=st.lists(CODES, max_size=8),
)
def test_the_table_finds_what_trying_every_prefix_finds(groups: dict[str, list[str]], codes: list[str]) -> None:
    slow = {
        group
        for group, prefixes in groups.items()
        if any(normalise(code).startswith(prefix) for code in codes for prefix in prefixes)
    }
    assert set(PrefixTable(groups).match(codes)) == slow
