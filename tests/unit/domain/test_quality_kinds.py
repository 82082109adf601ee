"""The kinds of the data-quality list, and the deviations that are such faults by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.domain.quality import (
    DETAIL_CHARS_MAX,
    MEANINGS,
    OF_DEVIATIONS,
    OTHERS,
    QualityItem,
    QualityKind,
    items_of,
)

ENGINE = Path(__file__).parents[3] / "engine"


@pytest.mark.parametrize("kind", QualityKind)
def test_each_kind_says_what_it_means_and_what_to_do(kind: QualityKind) -> None:
    meaning = MEANINGS[kind]
    assert len(meaning.text.split()) > 3
    assert len(meaning.remedy.split()) > 3
    assert len(meaning.location) <= DETAIL_CHARS_MAX
    assert meaning.location != OTHERS


def test_every_deviation_that_is_a_fault_is_one_of_the_code_and_of_one_kind() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in ENGINE.rglob("*.py") if path.name != "quality.py")
    assert [code for code in OF_DEVIATIONS if not re.search(rf'"{code}[":]', texts)] == []
    assert sum(len(meaning.deviations) for meaning in MEANINGS.values()) == len(OF_DEVIATIONS)


@pytest.mark.parametrize(
    ("deviations", "faults"),
    [
        ((), []),
        (("line-feed-terminator", "stale-event"), []),
        (("unknown-code:PV1-2", "unknown-code:PD1-2"), [("code_unknown", "PV1-2"), ("code_unknown", "PD1-2")]),
        (("invalid-boolean:PID-30", "invalid-phone:PID-13"), [("value_unreadable", "PID-30"),
                                                             ("value_unreadable", "PID-13")]),
        (("invalid-time:PV1-44", "time-cut:PV1-44"), [("time_unreadable", "PV1-44")]),
        (("event-time-implausible:EVN-2",), [("time_implausible", "EVN-2")]),
        (("charset-undecodable",), [("charset_wrong", "MSH-18")]),
        (("identifier-of-another-patient", "identifier-of-another-patient"), [("identifier_of_another", "PID-3")]),
    ],
)  # fmt: skip
def test_a_fault_is_said_once_with_its_field(deviations: tuple[str, ...], faults: list[tuple[str, str]]) -> None:
    assert [(one.kind, one.detail) for one in items_of(deviations)] == faults


def test_a_detail_is_short_whatever_is_said() -> None:
    assert len(QualityItem.of(QualityKind.CODE_UNKNOWN, "X" * 500).detail) == DETAIL_CHARS_MAX
