"""Values that senders and people write, in everything that commands print: no line is forged, no terminal driven."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from site_with_store import Site

from engine.cli.messages import human_entry
from engine.cli.patients import human_chart
from engine.cli.tables import table
from engine.printable import VALUE_CHARACTERS_MAX, escaped, lines, single, singles

HOSTILE = "A\n  state     processed\r\x1b[2J\x7f\x9b31m\u202e\u2066\u200f\u061c\ufeff\u2028\u2029\u00ad\x00\tB"
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def drives(text: str) -> list[str]:
    """What of a text ends lines, drives a terminal or turns letters around."""
    return [one for one in text if unicodedata.category(one) in HIDDEN]


CODES = (
    *range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F),
    *range(0x2060, 0x2065), *range(0x2066, 0x2070), 0xFEFF, 0xE0001, 0xD800,
)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_single_value_shows_that_something_was_there_and_does_nothing(code: int) -> None:
    assert single(f"a{chr(code)}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_what_people_write_stays() -> None:
    for text in ("Müller-Lüdenscheidt", "山田太郎", "O'Neill, Ann (RN)", "Ηλίας", "שרה", "a b", "👩"):
        assert single(text) == lines(text) == text


def test_a_single_value_is_bounded_and_lines_are_kept_where_they_belong() -> None:
    assert single("x" * 8000) == "x" * (VALUE_CHARACTERS_MAX - 1) + "…"
    assert lines("a\n\tb\r\x1b") == "a\n\tb\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_json_says_the_same_and_drives_nothing() -> None:
    text = escaped(json.dumps({"value": HOSTILE}, ensure_ascii=False))
    assert json.loads(text) == {"value": HOSTILE}
    assert drives(text) == []


def poisoned(value: Any) -> Any:
    """The same shape with a hostile text in place of every text."""
    if isinstance(value, dict):
        return {name: poisoned(item) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_tables_show_one_line_a_row() -> None:
    text = table(("a", "b"), [(HOSTILE, 1), ("x" * 8000, None)])
    assert len(text.splitlines()) == 3
    assert drives(text.replace("\n", "")) == []
    assert max(map(len, text.splitlines())) < VALUE_CHARACTERS_MAX + 20


def test_every_text_of_a_document_is_made_single() -> None:
    found = json.dumps(singles(poisoned({"a": ["x", {"b": "y"}], "n": 1})), ensure_ascii=False)
    assert drives(found) == []


ENTRY: dict[str, Any] = {
    "id": 1, "type": "t", "control_id": "c", "channel": "c", "peer": "10.0.0.4 CN=c", "sender": "s",
    "received_at": "2026-03-01T12:00:00+00:00", "state": "processed", "reason": "r", "ack": "AA", "ack_state": "sent",
    "patient_key": "k", "encounter": "e", "flagged_duplicate_of": None, "without_effect": False, "replay_of": None,
    "deviations": ["d"], "quality": [], "effects": [{"kind": "k", "detail": "d"}], "deliveries": [],
    "took_ground_of": [{"delivery": 1, "destination": "d", "state": "s", "code": "c"}],
    "dead_letters": [{"id": 1, "error": "e", "detail": "d", "resolved_by": "r"}],
    "held": [{"id": "m1", "code": "c", "detail": "d", "state": "open"}], "damaged": [], "payload": None, "test": False,
    "why": [{"what": "delivery", "name": "n", "decided": "withheld", "reason": "no_change: s"}],
}  # fmt: skip
CHART: dict[str, Any] = {
    "key": "k", "name": {"family": "f", "given": "g"}, "birth_date": "b", "sex": "s", "deceased": False,
    "merged_from": ["m"], "held": [{"id": "m1", "code": "c", "detail": "d"}], "encounters": [], "scores": [],
    "tasks": [], "appointments": [], "pages": [], "texts": [], "medications": [],
}  # fmt: skip


@pytest.mark.parametrize(("human", "shape"), [(human_entry, ENTRY), (human_chart, CHART)])
def test_what_is_printed_of_an_entry_or_a_patient_has_as_many_lines_as_without_hostile_values(
    human: Any, shape: dict[str, Any]
) -> None:
    hostile = poisoned(shape) | {"received_at": shape.get("received_at")}
    text = human(hostile)
    assert len(text.splitlines()) == len(human(shape).splitlines())
    assert drives(text.replace("\n", "")) == []


COMMANDS = (
    ("messages", "list"), ("messages", "show", "5"), ("messages", "show", "6"), ("dead", "list"), ("held", "list"),
    ("tasks", "list"), ("audit", "list"), ("patients", "find", "--name", "ZQX"), ("ledger",), ("status",),
    ("destinations", "list"),
)  # fmt: skip


def test_no_command_prints_what_a_sender_wrote_as_it_is(stocked: Site) -> None:
    """Escapes in hexadecimal bring any character into a field; an authority stays out of masked texts altogether."""
    bad = "\\X0A\\  state     processed\\X1B\\[2J\\X7F\\"
    bidi = "\u202eEVIL\u2066\u009b31m"
    first = (
        f"MSH|^~\\&|APP{bad}{bidi}|FAC{bad}|H|H|20260302100000|"
        f"|ADT^A01^ADT_A01|HOSTILE{bidi}|P|2.5.1|||||||UNICODE UTF-8\r"
        "EVN|A01|20260302100000\r"
        f"PID|1||H1^^^ZQXAUTHORITY{bad}{bidi}^MR||ZQX{bad}^ANN||19480312|F\r"
        f"PV1|1|I|3W^1^A||||||||||||||||VH1^^^ZQXVISIT{bidi}\r"
    )
    stocked.receive(first.encode(), first.replace("HOSTILE", "SECOND").replace("PID|1||H1", "PID|1||").encode())
    stocked.process()
    task = stocked.json("tasks", "list")[0]["id"]
    assert stocked.run("tasks", "assign", task, f"team {bidi}").code in {0, 2}
    for command in COMMANDS:
        for options in ((), ("--json",)):
            done = stocked.run(*command, *options)
            for text in (done.out, done.err):
                assert drives(text.replace("\n", "").replace("\t", "")) == [], command
                assert "ZQX" not in text, command
    shown = stocked.run("messages", "show", "5").out
    assert shown.count("\n  state ") == 1


def test_a_pseudonym_without_its_authority_leads_to_the_patient(stocked: Site) -> None:
    stocked.receive(
        b"MSH|^~\\&|A|F|H|H|20260302100000||ADT^A01^ADT_A01|Z1|P|2.5.1\rEVN|A01|20260302100000\r"
        b"PID|1||H1^^^ELSEWHERE^MR||ROE^ANN||19480312|F\rPV1|1|I|3W^1^A||||||||||||||||VH1\r"
    )
    stocked.process()
    masked = stocked.json("messages", "show", "5")["patient_key"]
    assert "ELSEWHERE" not in masked
    shape = stocked.json("patients", "show", masked)
    assert (shape["key"], shape["identifiers"][0]["authority"]) == (masked, masked.partition(":")[0])
    assert stocked.json("patients", "show", f"ELSEWHERE:{masked.rpartition(':')[2]}")["key"] == masked
    assert stocked.json("patients", "show", "MRN:558181838")["key"].startswith("MRN:~")
