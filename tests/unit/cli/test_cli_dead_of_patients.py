"""A dead message is seen with the patient that it names."""

from __future__ import annotations

import pytest
from site_with_store import Site, seen

KEY = "MRN:558181838"
UNKNOWN = "MRN:4711"
MERGE = (
    "MSH|^~\\&|EHR|MAIN|||20261110120000||ADT^A40|{0}|P|2.5.1\rEVN|A40|20261110120000\r"
    "PID|1||{1}^^^MRN^MR||DOE^JANE||19470715\rMRG|{1}^^^MRN^MR\r"
)
"""A merge of a number with itself."""


def died(site: Site, value: str) -> None:
    site.receive(MERGE.format(f"M{value}", value).encode())
    site.process()


def test_patients_show_lists_the_dead_messages_of_the_patient(stocked: Site) -> None:
    before = {letter["error"] for letter in stocked.json("patients", "show", KEY)["dead"]}
    assert before == {"type-not-accepted"}
    died(stocked, "558181838")
    letters = stocked.json("patients", "show", KEY)["dead"]
    assert {"id", "entry", "error", "detail", "died_at"} <= letters[0].keys()
    assert letters[0]["error"] not in before
    shown = stocked.run("patients", "show", KEY).out
    assert f"dead letter {letters[0]['id']}" in shown
    assert seen(shown) == []
    stocked.run("dead", "discard", str(letters[0]["id"]), "--reason", "a test")
    assert len(stocked.json("patients", "show", KEY)["dead"]) == 1


@pytest.mark.parametrize("as_pseudonym", [False, True])
def test_messages_of_a_patient_without_a_chart_are_found_by_the_key_that_a_dead_one_names(
    stocked: Site, as_pseudonym: bool
) -> None:
    died(stocked, "4711")
    (letter, *_) = stocked.json("dead", "list")
    name = letter["patient_key"] if as_pseudonym else UNKNOWN
    assert letter["patient_key"].startswith("MRN:~")
    assert [entry["id"] for entry in stocked.json("messages", "list", "--patient", name)] == [letter["entry"]]
    assert stocked.run("messages", "list", "--patient", "MRN:4712").code != 0
