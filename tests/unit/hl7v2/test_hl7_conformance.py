"""Structure checks with hl7apy's tables."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.conformance import ConformanceUnavailableError, problems
from engine.hl7v2.header import HeaderError

MESSAGES = Path(__file__).parents[2] / "messages"
ADMISSION = (MESSAGES / "adt_a01_admission.hl7").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["adt_a01_admission", "adt_a03_discharge_home_health", "adt_a40_merge_two_groups", "adt_a13_cancel_discharge"],
)
def test_a_message_of_its_structure_has_no_problems(name: str) -> None:
    assert problems((MESSAGES / f"{name}.hl7").read_bytes(), "2.5.1") == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b"\rPV1|", b"\rZV1|", "PV1 is missing"),
        (b"\rPD1|", b"\rMRG|", "MRG is not part of this structure"),
        (b"\rNK1|1|", b"\rPV2|1|", "PV2 stands in the wrong place"),
        (b"558181838^^^MRN^MR~900-00-0001^^^SSA^SS", b"", "PID-3 is required"),
        (b"|19480715|", b"|19480715~19480716|", "PID-7 repeats more often than allowed"),
        (b"\rAL1|1|", b"\rQQQ|1|", "a segment is none of this version's"),
        (b"ADT^A01^ADT_A01", b"ADT^Q77^ADT_Q77", "MSH-9: the structure of this message is not known in this version"),
    ],
)
def test_what_does_not_fit_the_structure_is_told_by_its_place(old: bytes, new: bytes, found: str) -> None:
    assert old in ADMISSION
    assert found in problems(ADMISSION.replace(old, new, 1), "2.5.1")


def test_the_structure_is_known_by_the_event_where_msh_9_3_is_missing() -> None:
    assert problems(ADMISSION.replace(b"ADT^A01^ADT_A01", b"ADT^A08"), "2.5.1") == []


def test_no_segment_is_dropped_silently_when_groups_do_not_fit() -> None:
    merge = (MESSAGES / "adt_a40_merge_two_groups.hl7").read_bytes()
    assert "OBX is not part of this structure" in problems(merge + b"OBX|1|TX|x||y||||||F\r", "2.5.1")


def test_an_unknown_version_is_said_to_be_unknown() -> None:
    assert problems(ADMISSION, "9.9") == ["MSH-12: the structures of this version are not known"]


def test_a_message_without_header_is_a_header_error() -> None:
    with pytest.raises(HeaderError):
        problems(b"PID|1\r", "2.5.1")


def test_a_missing_hl7apy_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hl7apy", None)
    with pytest.raises(ConformanceUnavailableError, match=r"handoff-engine\[conformance\]"):
        problems(ADMISSION, "2.5.1")


def test_no_pickle_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a pickle was loaded")

    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    assert problems(ADMISSION, "2.5.1") == []


@given(st.lists(st.sampled_from(["PID", "PV1", "MRG", "OBX", "ZAA", "IN1", "PR1", "ROL", "marker7"]), max_size=12))
def test_problems_name_no_value(names: list[str]) -> None:
    body = "".join(f"{name}|marker7|marker7~marker7\r" for name in names)
    found = problems(b"MSH|^~\\&|marker7|||||marker7|ADT^A01^ADT_A01|marker7|P|2.5.1\r" + body.encode(), "2.5.1")
    assert found
    assert "marker7" not in " ".join(found)
