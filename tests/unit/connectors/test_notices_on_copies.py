"""The notice of a restricted record on the copy of each type of destination that has a place for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import structs

from engine.domain.consent import Marking
from engine.domain.delivery import EncounterUpsert, Forward
from engine.domain.encounter import Encounter
from engine.hl7v2.message import Message
from engine.hl7v2.notice import with_lines

MARKING = Marking(
    notice=("42 CFR part 2 prohibits unauthorized use or disclosure of these records.",),
    confidentiality="ETH",
    consent="disclosure to this recipient, until 2027-01-01",
)
ADT = b"MSH|^~\\&|A|B|||20261128||ADT^A01|1|P|2.7\rPID|1||1^^^MRN\r"


def test_what_is_stored_says_nothing_of_it_and_the_copy_does() -> None:
    content = EncounterUpsert(patient_key="MRN:1", encounter=Encounter(key="V:1"))
    assert b"marking" not in content.encoded()
    said = json.loads(structs.replace(content, marking=MARKING).encoded())["marking"]
    assert said == {
        "notice": list(MARKING.notice), "confidentiality": "ETH",
        "consent": "disclosure to this recipient, until 2027-01-01",
    }  # fmt: skip


@pytest.mark.parametrize("payload", [ADT, ADT.rstrip(b"\r")])
def test_a_message_keeps_its_bytes_and_gets_a_segment_for_each_sentence(payload: bytes) -> None:
    made = with_lines(payload, MARKING.lines)
    assert made.startswith(payload)
    read = Message.parse(made)
    notes = read.segments("NTE")
    assert [one.get(1) for one in notes] == ["1", "2", "3"]
    assert [one.get(3) for one in notes] == list(MARKING.lines)
    assert read.get("PID-3.1") == "1"


def test_a_sentence_can_not_break_out_of_its_field() -> None:
    made = with_lines(ADT, ("one|two^three\rPID|2||9^^^MRN",))
    read = Message.parse(made)
    assert len(read.segments("PID")) == 1
    assert len(read.segments("NTE")) == 1


def test_delimiters_are_those_of_the_message() -> None:
    made = with_lines(ADT.replace(b"|", b"#"), ("a notice",))
    assert made.endswith(b"NTE#1##a notice#RE\r")


def test_a_message_says_which_stay_it_is_about_only_where_that_is_known() -> None:
    assert json.loads(Forward(hl7=ADT).encoded()).keys() == {"hl7"}
    assert json.loads(Forward(hl7=ADT, stay="V:1").encoded())["stay"] == "V:1"


def test_the_field_map_that_is_shipped_has_a_place_for_it() -> None:
    text = (Path(__file__).parents[3] / "mappings/destinations/salesforce.yaml").read_text()
    assert text.count("RecordNotice__c") == 2
