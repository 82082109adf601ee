"""Who a message speaks of, and how the numbers of a merge pair, as real senders write them."""

from __future__ import annotations

from typing import Any

import pytest
from heart import Heart, adt

from engine.domain.message import EntryState
from engine.domain.outcome import Outcome

SET = {"authority": "CASEH", "authorities": [{"name": "CASEH", "oid": "1.2.3", "also": ["CASE", "urn:oid:1.2.3"]}]}
AT = "20260309120000"


def keys(heart: Heart) -> set[str]:
    """Of all patients who are not merged into another."""
    return {chart.patient.key for chart in heart.charts.by_id.values() if chart.merged_into is None}


def died_of(outcome: Outcome) -> tuple[str, str | None]:
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    return outcome.dead_letter.error, outcome.dead_letter.location


# --- numbers that nobody can compare

UNSEEN = ("55\u200b81", "5581\ufeff", "55\u202e81", "7" * 10_000)


@pytest.mark.parametrize("number", UNSEEN)
def test_a_message_whose_only_number_can_not_be_believed_is_dead_lettered(number: str) -> None:
    heart = Heart()
    assert died_of(heart.send(adt("A01", pid3=f"{number}^^^MRN^MR", pv1={}))) == ("identifier-missing", "PID-3")
    assert keys(heart) == set()


@pytest.mark.parametrize("number", UNSEEN)
def test_beside_a_number_that_can_be_believed_it_is_left_out_and_noted(number: str) -> None:
    heart = Heart()
    outcome = heart.send(adt("A01", pid3=f"{number}^^^MRN^MR~7^^^MRN^MR", pv1={}))
    assert keys(heart) == {"MRN:7"}
    assert "invalid-identifier:PID-3" in outcome.deviations
    assert [one.value for one in heart.chart("7").patient.identifiers] == ["7"]


@pytest.mark.parametrize("number", UNSEEN)
def test_a_visit_number_that_can_not_be_believed_names_no_visit_and_is_noted(number: str) -> None:
    heart = Heart()
    outcome = heart.send(adt("A01", pv1={19: f"{number}^^^MRN", 44: "20260306113000"}))
    assert outcome.state is EntryState.PROCESSED
    assert "invalid-identifier:PV1-19" in outcome.deviations
    [stay] = heart.chart().encounters
    assert stay.visit_number is None


@pytest.mark.parametrize("number", UNSEEN)
def test_a_merge_of_a_number_that_can_not_be_believed_is_dead_lettered(number: str) -> None:
    heart = Heart()
    died_of(heart.send(adt("A40", pid3="7^^^MRN^MR", segments=(f"MRG|{number}^^^MRN^MR",))))
    assert keys(heart) == set()


# --- authorities


@pytest.mark.parametrize(
    ("hd", "deviation"),
    [
        ("CASEH", None), ("&1.2.3&ISO", None), ("CASEH&1.2.3&ISO", None), ("CASE", None), ("CASE&1.2.3&ISO", None),
        ("urn:oid:1.2.3", None), ("", None), ("CASEH&9.9.9&ISO", "authority-alias:PID-3"),
        ("NEWNAME&1.2.3&ISO", "authority-alias:PID-3"),
    ],
)  # fmt: skip
def test_the_names_of_an_authority_lead_to_one_patient(hd: str, deviation: str | None) -> None:
    heart = Heart(identity=SET)
    heart.send(adt("A28", pid3="7^^^CASEH^MR"))
    outcome = heart.send(adt("A31", at=AT, pid3=f"7^^^{hd}^MR"))
    assert keys(heart) == {"CASEH:7"}
    assert {d for d in outcome.deviations if "authority" in d} == ({deviation} if deviation else set())


def test_a_name_and_an_oid_that_nobody_has_said_to_be_one_are_two() -> None:
    heart = Heart(identity={})
    heart.send(adt("A28", pid3="7^^^CASEH^MR"))
    heart.send(adt("A28", pid3="7^^^&1.2.3&ISO^MR"))
    assert keys(heart) == {"CASEH:7", "1.2.3:7"}


def test_an_hd_that_names_two_known_authorities_is_nobody_s_key() -> None:
    heart = Heart(identity={"authorities": [{"name": "CASEH", "oid": "1.2.3"}, {"name": "WEST", "oid": "4.5.6"}]})
    outcome = heart.send(adt("A28", pid3="7^^^CASEH&4.5.6&ISO^MR"))
    assert died_of(outcome) == ("identifier-missing", "PID-3")
    outcome = heart.send(adt("A28", pid3="7^^^CASEH&4.5.6&ISO^MR~8^^^WEST^MR"))
    assert keys(heart) == {"WEST:8"}
    assert "authority-contradicted:PID-3" in outcome.deviations


def test_the_names_of_an_authority_are_one_for_visits_and_merges_too() -> None:
    heart = Heart(identity=SET)
    heart.send(adt("A01", pid3="7^^^CASEH^MR", pv1={19: "V1^^^CASEH"}))
    heart.send(adt("A03", at="20260306130000", pid3="7^^^&1.2.3&ISO^MR", pv1={19: "V1^^^&1.2.3&ISO", 36: "01"}))
    assert [e.status for e in heart.chart("7", "CASEH", "MR").encounters] == ["finished"]
    heart.send(adt("A40", at=AT, pid3="8^^^CASE^MR", segments=("MRG|7^^^CASEH&1.2.3&ISO^MR",)))
    assert keys(heart) == {"CASEH:8"}


# --- types


@pytest.mark.parametrize("cx5", ["mr", "Mr", " MR ", " mr"])
def test_types_are_compared_without_case_and_blanks(cx5: str) -> None:
    heart = Heart()
    heart.send(adt("A28", pid3="83011^^^MRN^MR"))
    heart.send(adt("A31", at=AT, pid3=f"83011^^^MRN^{cx5}", pid={5: "Doe^New"}))
    assert keys(heart) == {"MRN:83011"}
    assert [i.type for i in heart.chart("83011").patient.identifiers] == ["MR"]


@pytest.mark.parametrize("cx5", ["MR", "mr", " mr "])
def test_a_path_that_selects_by_type_compares_so_too(cx5: str) -> None:
    heart = Heart(filter="PID-3[type=MR].1 == '7'")
    assert heart.send(adt("A28", pid3=f"9^^^MRN^PI~7^^^MRN^{cx5}")).state is EntryState.PROCESSED
    assert heart.send(adt("A28", pid3=f"7^^^MRN^PI~9^^^MRN^{cx5}")).state is EntryState.FILTERED


def test_types_of_the_configuration_are_compared_so_too() -> None:
    heart = Heart(identity={"types": ["epi", "mr"]})
    heart.send(adt("A28", pid3="1^^^MRN^MR~2^^^MRN^Epi"))
    assert keys(heart) == {"MRN:2"}


# --- validity and position


@pytest.mark.parametrize(
    ("pid3", "key"),
    [
        ("OLD^^^MRN^MR^^20150101^20200101~NEW^^^MRN^MR^^20200101", "MRN:NEW"),
        ("OLD^^^MRN^MR^^^2019~NEW^^^MRN^MR", "MRN:NEW"),
        ("SOON^^^MRN^MR^^20270101~NOW^^^MRN^MR", "MRN:NOW"),
        ("OLD^^^MRN^MR^^^20260305~NEW^^^MRN^PI", "MRN:NEW"),
        ("LAST^^^MRN^MR^^^20260306~NEW^^^MRN^MR", "MRN:LAST"),  # the last day counts
        ("FIRST^^^MRN^MR^^20260306~NEW^^^MRN^MR", "MRN:FIRST"),
        ("MONTH^^^MRN^MR^^^202603~NEW^^^MRN^MR", "MRN:MONTH"),
        ("OLD^^^MRN^MR^^^20200101", "MRN:OLD"),  # no other one
        ("ODD^^^MRN^MR^^^never~NEW^^^MRN^MR", "MRN:ODD"),
    ],
)
def test_a_number_that_is_not_valid_is_no_key_beside_one_that_is(pid3: str, key: str) -> None:
    heart = Heart()
    heart.send(adt("A28", pid3=pid3))
    assert keys(heart) == {key}
    (chart,) = heart.charts.by_id.values()
    assert len(chart.patient.identifiers) == pid3.count("~") + 1  # the other one is an alias


@pytest.mark.parametrize(
    ("identity", "pid3", "noted"),
    [
        ({}, "2510^^^TEC MRN~1781^^^CLH MRN~83005^^^EUH MRN~5938^^^EMPI", True),
        ({"authorities": ["EUH MRN"]}, "2510^^^TEC MRN~1781^^^CLH MRN~83005^^^EUH MRN", False),
        ({}, "1^^^MRN^MR~2^^^MRN^MR", True),
        ({}, "1^^^MRN^MR~1^^^MRN^MR", False),
        ({}, "1^^^MRN^MR~2^^^MRN^PI", False),
        ({}, "1^^^MRN^MR~2^^^USA^SS", False),
        ({}, "1^^^MRN^MR^^^2019~2^^^MRN^MR", False),
    ],
)
def test_a_key_that_only_its_position_decided_is_noted(identity: dict[str, Any], pid3: str, noted: bool) -> None:
    outcome = Heart(identity=identity).send(adt("A28", pid3=pid3))
    assert ("key-by-position:PID-3" in outcome.deviations) is noted


# --- one patient, one visit


@pytest.mark.parametrize(
    ("trigger", "second", "location"),
    [
        ("A01", "PID|2||800020^^^MRN^MR||Roe^Rich", "PID[2]"),
        ("A08", "PID|2||800020^^^MRN^MR||Roe^Rich", "PID[2]"),
        ("A28", "PID|2||800020^^^MRN^MR||Roe^Rich", "PID[2]"),
        ("A03", "PV1|2|I||||||||||||||||V2", "PV1[2]"),
        ("A04", "EVN|A04|20260306", "EVN[2]"),
        ("A31", "MRG|1^^^MRN^MR\rMRG|2^^^MRN^MR", "MRG[2]"),
        ("A40", "MRG|1^^^MRN^MR\rPV1|1|I\rPV1|2|I", "PV1[2]"),
    ],
)
def test_a_second_patient_or_visit_is_never_left_out(trigger: str, second: str, location: str) -> None:
    heart = Heart()
    outcome = heart.send(adt(trigger, pid3="800019^^^MRN^MR", pv1=None if trigger == "A40" else {}, segments=(second,)))
    assert died_of(outcome) == ("segment-repeated", location)
    assert (outcome.application_ack, outcome.error_code) == ("AE", 100)
    assert keys(heart) == set()


# --- merges

SIMULATOR = "1001^^^SIMULATOR MRN^MRN~9990001^^^NHSNBR^NHSNMBR"


@pytest.mark.parametrize(
    ("pid3", "mrg", "merged"),
    [
        (SIMULATOR, "1002^^^SIMULATOR MRN^MRN~1003^^^SIMULATOR MRN^MRN", ["1002", "1003"]),
        ("1001^^^MRN^MR", "1002^^^MRN^MR~Q34^^^OTHER^XX", ["1002"]),  # F7
        ("9^^^USA^SS~1001^^^MRN^MR", "1002^^^MRN^MR", ["1002"]),
        ("1001^^^MRN^MR~9^^^USA^SS", "9^^^USA^SS~1002^^^MRN^MR", ["1002"]),
        ("1001^^^MRN^MR~77^^^EPI^PI", "1002^^^MRN^MR~78^^^EPI^PI~1003^^^MRN^MR", ["1002", "78", "1003"]),
        ("1001^^^MRN^MR~1009^^^MRN^PI", "78^^^X^XX~1002^^^MRN^MR", ["1002"]),
        ("1001^^^MRN^MR", "1002^^^MRN", ["1002"]),
        ("1001^^^MRN", "1002^^^MRN^MR", ["1002"]),
        ("1001^^^MRN", "1002^^^MRN", ["1002"]),
        ("~1001^^^MRN^MR", "1002^^^MRN^MR~1003^^^MRN^MR", ["1002", "1003"]),
        ("1001^^^MRN^MR", "~1002^^^MRN^MR", ["1002"]),
        ("1001^^^MRN^mr", "1002^^^MRN^Mr", ["1002"]),
        ("1001^^^MRN^MR~1002^^^MRN^MR", "1002^^^MRN^MR", ["1002"]),  # as the patient is after the merge
    ],
)
def test_a_merge_pairs_what_fits(pid3: str, mrg: str, merged: list[str]) -> None:
    heart = Heart()
    outcome = heart.send(adt("A40", at=AT, pid3=pid3, segments=(f"MRG|{mrg}",)))
    assert outcome.state is EntryState.PROCESSED, outcome.dead_letter
    (survivor,) = [chart for chart in heart.charts.by_id.values() if chart.merged_into is None]
    assert survivor.patient.identifiers[0].value == "1001"
    assert [key.split(":")[1] for key in survivor.patient.merged_from] == merged


@pytest.mark.parametrize(
    ("pid3", "mrg", "error"),
    [
        ("1^^^MRN^MR~2^^^MRN^MR", "8^^^MRN^MR~9^^^MRN^MR~7^^^MRN^MR", ("merge-pairing", "MRG-1[3]")),
        ("77^^^EPI^PI~1^^^MRN^MR~2^^^MRN^MR", "9^^^MRN^MR", ("merge-pairing", "MRG-1[1]")),
        ("1^^^MRN^MR", "9^^^OTHER^MR", ("merge-pairing", "MRG-1[1]")),
        ("1^^^MRN^MR", "9^^^MRN^PI", ("merge-pairing", "MRG-1[1]")),
        ("1^^^MRN^MR", "Q34^^^OTHER^XX", ("merge-empty", "MRG-1")),
        ("1^^^MRN^MR", "1^^^MRN^MR", ("merge-empty", "MRG-1")),
    ],
)
def test_a_merge_that_is_ambiguous_or_says_nothing_merges_nobody(pid3: str, mrg: str, error: tuple[str, str]) -> None:
    heart = Heart()
    for value in "129":
        heart.send(adt("A28", pid3=f"{value}^^^MRN^MR"))
    assert died_of(heart.send(adt("A40", at=AT, pid3=pid3, segments=(f"MRG|{mrg}",)))) == error
    assert keys(heart) == {"MRN:1", "MRN:2", "MRN:9"}


@pytest.mark.parametrize(
    ("known", "pid3", "mrg"),
    [
        ("MR", "1^^^MRN", "2^^^MRN"), ("MR", "1^^^MRN", "2^^^MRN^MR"), ("MR", "1^^^MRN^MR", "2^^^MRN"),
        ("", "1^^^MRN^MR", "2^^^MRN^MR"), ("PI", "1^^^MRN", "2^^^MRN"),
    ],
)  # fmt: skip
def test_a_merge_finds_the_patients_whichever_side_lacks_the_type(known: str, pid3: str, mrg: str) -> None:
    heart = Heart()
    for value in "12":
        heart.send(adt("A28", pid3=f"{value}^^^MRN^{known}"))
    outcome = heart.send(adt("A40", at=AT, pid3=pid3, segments=(f"MRG|{mrg}",)))
    assert outcome.state is EntryState.PROCESSED, outcome.dead_letter
    assert keys(heart) == {"MRN:1"}
    assert heart.chart("2", "MRN", known).patient.key == "MRN:1"


def test_a_merge_of_a_number_that_is_known_under_another_type_only_is_for_a_person() -> None:
    heart = Heart()
    heart.send(adt("A28", pid3="2^^^MRN^PI"))
    outcome = heart.send(adt("A40", at=AT, pid3="1^^^MRN^MR", segments=("MRG|2^^^MRN^MR",)))
    assert died_of(outcome) == ("identifier-type", "MRG-1")


@pytest.mark.parametrize("mrg", ["MRG|2", "MRG||||2", "MRG||2"])
@pytest.mark.parametrize("pid", [{2: "1", 3: ""}, {3: "1"}, {3: "", 4: "1"}])
def test_a_merge_of_old_senders_is_read_from_their_fields(pid: dict[int, str], mrg: str) -> None:
    heart = Heart()
    heart.send(adt("A28", pid3="2"))
    heart.send(adt("A40", at=AT, pid=pid, segments=(mrg,)))
    assert keys(heart) == {"MRN:1"}


@pytest.mark.parametrize(
    ("how", "pid3", "mrg", "error"),
    [
        ("position", "1^^^MRN^MR~9^^^USA^SS", "9^^^USA^SS~2^^^MRN^MR", "merge-pairing"),
        ("position", "1^^^MRN^MR", "2^^^MRN^MR~3^^^MRN^MR", "merge-pairing"),
        ("position", "1^^^MRN^MR", "~2^^^MRN^MR", "merge-positions"),
        ("position", "~1^^^MRN^MR", "2^^^MRN^MR", "merge-positions"),
        ("type", "1^^^MRN^MR~3^^^MRN^MR", "2^^^MRN^MR", "merge-pairing"),
        ("type", "1^^^MRN^MR", "2^^^MRN^MR~Q34^^^OTHER^XX", "merge-pairing"),
    ],
)
def test_the_strict_ways_to_pair_stay_strict(how: str, pid3: str, mrg: str, error: str) -> None:
    heart = Heart(identity={"authority": "MRN", "merge_pairing": how})
    assert died_of(heart.send(adt("A40", at=AT, pid3=pid3, segments=(f"MRG|{mrg}",))))[0] == error
