"""What a message or a chart may hold: beyond it a dead letter with its place, never a queue that stands still."""

from __future__ import annotations

from time import process_time

import pytest
from heart import Heart, adt

from engine.care.patient import IDENTIFIERS_MAX
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome
from engine.hl7v2.message import REPETITIONS_MAX, SEGMENTS_MAX, Message, MessageError
from engine.mapping.compile import ITEMS_MAX


def died_of(outcome: Outcome) -> tuple[str, str | None]:
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    return outcome.dead_letter.error, outcome.dead_letter.location


def many(text: str, count: int) -> str:
    return "~".join(text.replace("#", str(number)) for number in range(count))


@pytest.mark.parametrize(
    ("pid", "pv1", "location"),
    [
        ({3: many("#^^^MRN^MR", REPETITIONS_MAX + 1)}, None, "PID-3"),
        ({5: many("N#^A", REPETITIONS_MAX + 1)}, None, "PID-5"),
        ({11: "~" * REPETITIONS_MAX}, None, "PID-11"),
        ({13: many("212555#", REPETITIONS_MAX + 1)}, None, "PID-13"),
        ({}, {7: many("#^Doc", REPETITIONS_MAX + 1)}, "PV1-7"),
    ],
)
def test_a_field_that_repeats_without_end_is_a_dead_letter(
    pid: dict[int, str], pv1: dict[int, str] | None, location: str
) -> None:
    outcome = Heart().send(adt("A08", pid=pid, pv1=pv1))
    assert died_of(outcome) == ("repetitions-too-many", location)


def test_a_field_that_nobody_reads_may_repeat_as_it_likes() -> None:
    assert Heart().send(adt("A08", pid={21: "~" * 9000})).state is EntryState.PROCESSED


@pytest.mark.parametrize("name", ["DG1", "PR1"])
def test_diagnoses_and_procedures_without_end_are_a_dead_letter(name: str) -> None:
    segments = tuple(f"{name}|{number}||I50.{number}^X^I10" for number in range(ITEMS_MAX + 1))
    assert Heart().send(adt("A08", pv1={}, segments=segments[1:])).state is EntryState.PROCESSED
    outcome = Heart().send(adt("A08", pv1={}, segments=segments))
    assert died_of(outcome) == ("items-too-many", f"{name}[{ITEMS_MAX + 1}]")


@pytest.mark.parametrize("end", [b"\r", b""])
@pytest.mark.parametrize(("count", "fits"), [(SEGMENTS_MAX, True), (SEGMENTS_MAX + 1, False)])
def test_a_message_may_have_exactly_as_many_segments_as_the_limit(count: int, fits: bool, end: bytes) -> None:
    header = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A08|1|P|2.5.1"
    payload = header + b"\rNTE|1" * (count - 1) + end
    if fits:
        assert len(Message.parse(payload).segments("NTE")) == count - 1
    else:
        with pytest.raises(MessageError, match="segments"):
            Message.parse(payload)


def test_a_field_may_repeat_exactly_as_often_as_the_limit() -> None:
    outcome = Heart().send(adt("A08", pid={13: many("212555#", REPETITIONS_MAX)}))
    assert outcome.state is EntryState.PROCESSED


def test_segments_without_end_are_a_dead_letter() -> None:
    outcome = Heart().send(adt("A08", segments=("NTE|",) * SEGMENTS_MAX))
    assert died_of(outcome) == ("segments-too-many", "MSH")


def test_a_chart_does_not_grow_by_identifiers_without_end() -> None:
    heart = Heart()
    step = IDENTIFIERS_MAX // 4
    for start in range(0, IDENTIFIERS_MAX - 1, step):
        count = min(step, IDENTIFIERS_MAX - 1 - start)
        pid3 = "7^^^MRN^MR~" + "~".join(f"{start + number}^^^EPI^XX" for number in range(count))
        assert heart.send(adt("A08", pid3=pid3)).state is EntryState.PROCESSED
    assert len(heart.chart("7").patient.identifiers) == IDENTIFIERS_MAX
    assert died_of(heart.send(adt("A08", pid3="7^^^MRN^MR~new^^^EPI^XX"))) == ("identifiers-too-many", "PID-3")
    assert heart.send(adt("A08", at="20260307120000", pid3="7^^^MRN^MR")).state is EntryState.PROCESSED
    merge = adt("A40", at="20260309120000", pid3="7^^^MRN^MR", segments=("MRG|8^^^MRN^MR",))
    assert died_of(heart.send(merge)) == ("identifiers-too-many", "MRG-1")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("PID-3[*].1 matches '^a*a*a*b'", 3),
        ("PID-3[*].1 not matches '^a*a*a*b'", 3),
        ("PID-5 matches '^x' or PID-3[*].1 matches 'a*a*b'", 3),
        (" or ".join(["PID-5.1 matches '^a*a*a*b'"] * 90), 5),
        ("ZZZ[*]-1 matches 'a*a*b'", 0),
    ],
)
def test_patterns_have_a_budget_for_each_message_and_what_passes_it_is_dead_and_not_filtered(
    text: str, field: int
) -> None:
    value = "a" * 256
    segments = tuple(f"ZZZ|{value}" for _ in range(4000)) if field == 0 else ()
    pid = {3: "~".join([f"{value}^^^MRN^MR"] * 900)} if field == 3 else {5: f"{value}^A"}
    heart = Heart(filter=text)
    payload = adt("A08", pid=pid, segments=segments)
    before = process_time()
    outcome = heart.send(payload)
    assert process_time() - before < 5
    error, location = died_of(outcome)
    assert error == "filter-budget"
    assert location in text
    assert heart.send(adt("A08", pid3="1^^^MRN^MR~2^^^MRN^MR")).state in {EntryState.PROCESSED, EntryState.FILTERED}
