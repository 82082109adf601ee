"""What of a restricted record goes to which destination: the table, cell by cell, and what a copy carries."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from engine.access.copies import Copies, Terms, dressed
from engine.access.roles import load_policy
from engine.domain.chart import Chart
from engine.domain.consent import Consent, ConsentKind, Marking
from engine.domain.delivery import (
    Content,
    EncounterUpsert,
    Forward,
    Notification,
    Operation,
    PatientUpsert,
    ScoreUpsert,
)
from engine.domain.encounter import Diagnosis
from engine.domain.moment import Moment
from engine.domain.score import Band, Score
from engine.trial.access import NOW, chart_of
from engine.yamlfile import parse

FILE: Final = Path(__file__).parents[3] / "mappings/access/roles.yaml"
TEXT: Final = (
    FILE.read_text()
    .replace("when: {units: [], facilities: [], services: []}", "when: {units: [SUD], facilities: [], services: []}")
    .replace("# [{type: [YOUR-TYPE], status: [A]}]", "")
    .replace("    when: []                                            \n", "    when: [{type: [P2], status: [A]}]\n", 1)
    .replace("    when: []                                            # [{type: [YOUR-TYPE], status: [R, X]}]\n",
             "    when: [{type: [EN], status: [R, X]}]\n", 1)
)  # fmt: skip
COPIES: Final = Copies.of(load_policy(parse(TEXT, "roles.yaml")))

PATIENTS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"stays": [{"unit": "3W", "key": "VN:1"}]},
    "PD1-12": {"stays": [{"unit": "3W", "key": "VN:1"}], "patient": {"protection": True}},
    "PV1-16": {"stays": [{"unit": "3W", "key": "VN:1", "vip": "V"}]},
    "PV1-16 says no": {"stays": [{"unit": "3W", "key": "VN:1", "vip": "N"}]},
    "ARV psychiatric": {"stays": [{"key": "VN:1"}], "patient": {"restrictions": [{"code": "PSY"}]}},
    "ARV address": {"stays": [{"key": "VN:1"}], "patient": {"restrictions": [{"code": "DEM"}]}},
    "CON refused": {"stays": [{"key": "VN:1"}], "patient": {"consent_statements": [{"code": "001", "status": "R"}]}},
    "CON granted": {"stays": [{"key": "VN:1"}], "patient": {"consent_statements": [{"code": "001", "status": "A"}]}},
    "part 2": {"stays": [{"unit": "SUD", "key": "VN:1"}]},
    "part 2 before": {"stays": [{"unit": "3W", "key": "VN:1"}, {"unit": "SUD", "key": "VN:2"}]},
    "part 2, CON": {"stays": [{"unit": "SUD", "key": "VN:1"}],
                    "patient": {"consent_statements": [{"code": "P2", "status": "A"}]}},
    "part 2, CON taken back": {"stays": [{"unit": "SUD", "key": "VN:1"}],
                               "patient": {"consent_statements": [{"code": "P2", "status": "X"}]}},
    "no notices": {"stays": [{"key": "VN:1"}], "patient": {"consent_statements": [{"code": "EN", "status": "R"}]}},
}  # fmt: skip
TERMS: Final = {
    "sends": Terms(name="crm", tpo=True),
    "bare": Terms(name="crm", restricted="without_clinical", tpo=True),
    "none": Terms(name="crm", restricted="withhold", part2="withhold", tpo=True),
    "not tpo": Terms(name="research", part2="needs_consent"),
    "program": Terms(name="sud-crm", part2="send", restricted="withhold"),
    "notices": Terms(name="adt", event_notices=True, tpo=True),
}

# What becomes of patient, encounter, score and message. Y goes; m goes marked; w goes without, marked; else the code's
# first letter: r restricted, p part2_no_consent, n the patient has refused.
# fmt: off
TABLE: Final[dict[str, dict[str, str]]] = {
    #                           sends   not clinical withholds not tpo  in the program notices
    "plain":                  {"sends": "Y Y Y Y", "bare": "Y Y Y Y", "none": "Y Y Y Y", "notices": "Y Y Y Y"},
    "PD1-12":                 {"sends": "m m m m", "bare": "w w r r", "none": "r r r r", "not tpo": "m m m m"},
    "PV1-16":                 {"sends": "m m m m", "bare": "w w r r", "none": "r r r r", "notices": "m m m m"},
    "PV1-16 says no":         {"sends": "Y Y Y Y", "bare": "Y Y Y Y", "none": "Y Y Y Y"},
    "ARV psychiatric":        {"sends": "m m m m", "bare": "w w r r", "none": "r r r r"},
    "ARV address":            {"sends": "m m m m", "bare": "w w r r", "none": "r r r r"},
    "CON refused":            {"sends": "m m m m", "bare": "w w r r", "none": "r r r r"},
    "CON granted":            {"sends": "Y Y Y Y", "none": "Y Y Y Y"},
    "part 2":                 {"sends": "p p p p", "bare": "p p p p", "none": "p p p p", "program": "m m m m"},
    "part 2 before":          {"sends": "Y Y Y Y", "none": "Y Y Y Y", "not tpo": "Y Y Y Y"},
    "part 2, CON":            {"sends": "m m m m", "bare": "m m m m", "none": "p p p p", "not tpo": "p p p p"},
    "part 2, CON taken back": {"sends": "p p p p", "not tpo": "p p p p", "program": "m m m m"},
    "no notices":             {"sends": "Y Y Y Y", "notices": "n n n n", "none": "Y Y Y Y"},
}
# fmt: on
CODE: Final = {"r": "restricted", "p": "part2_no_consent", "n": "patient_refused"}
CASES: Final = [
    (patient, terms, what, cell)
    for patient, row in TABLE.items()
    for terms, cells in row.items()
    for what, cell in zip(("patient", "encounter", "score", "message"), cells.split(), strict=True)
]


def chart(name: str, **more: Any) -> Chart:
    return chart_of({**PATIENTS[name], **more})


def contents(of: Chart) -> dict[str, tuple[Operation, Content]]:
    stay = structs.replace(of.encounters[0], diagnoses=(Diagnosis(code="F11.2"),), disposition="01")
    score = Score(
        model="lace", version="1", encounter=stay.key, value=9, min=9, max=9, band=Band.HIGH, band_max=Band.HIGH,
        factors=(), missing=(), observed_since=None, scored_at=NOW,
    )  # fmt: skip
    return {
        "patient": (Operation.UPSERT_PATIENT, PatientUpsert.of(structs.replace(of.patient, lives_alone=True))),
        "encounter": (Operation.UPSERT_ENCOUNTER, EncounterUpsert(patient_key="MRN:1", encounter=stay)),
        "score": (Operation.UPSERT_SCORE, ScoreUpsert(patient_key="MRN:1", score=score)),
        "message": (Operation.FORWARD, Forward(hl7=b"MSH|", stay=stay.key)),
    }


@pytest.mark.parametrize(("patient", "terms", "what", "cell"), CASES)
def test_a_destination_gets_what_the_table_says(patient: str, terms: str, what: str, cell: str) -> None:
    of = chart(patient)
    operation, content = contents(of)[what]
    said = COPIES.judge(content, operation, of, TERMS[terms], NOW)
    assert said.code == CODE.get(cell)
    assert bool(said.rule) is (cell in CODE)
    assert (said.marking is not None) is (cell in "mwrp")
    assert bool(said.without) is (cell == "w")


def test_a_copy_without_clinical_data_holds_none_and_says_so() -> None:
    of = chart("PD1-12")
    for what, gone in (("encounter", "F11.2"), ("patient", '"lives_alone":true')):
        operation, content = contents(of)[what]
        said = COPIES.judge(content, operation, of, TERMS["bare"], NOW)
        text = dressed(content, said).encoded().decode()
        assert gone in content.encoded().decode()
        assert gone not in text
        assert '"without":["clinical"]' in text
        assert "protected at the patient" in text
        assert '"key":' in text


def test_what_a_restriction_hides_is_left_out_too() -> None:
    of = structs.replace(
        chart("ARV address"), patient=structs.replace(chart("ARV address").patient, phones=("+12125550143",))
    )
    operation, content = contents(of)["patient"]
    text = dressed(content, COPIES.judge(content, operation, of, TERMS["bare"], NOW)).encoded().decode()
    assert "+12125550143" not in text


def test_a_call_of_the_one_on_duty_is_never_kept_back_and_says_nothing_of_the_patient() -> None:
    call = Notification(
        id="p1-1", page_id="p1", ladder="l", level=1, loop=1, step=1, person="x", to=None, text="t", link="/pages/p1",
        reason="k", raised_at=NOW,
    )  # fmt: skip
    for name in PATIENTS:
        for terms in TERMS.values():
            said = COPIES.judge(call, Operation.NOTIFY, chart(name), terms, NOW)
            assert (said.code, said.marking) == (None, None)


HOUR: Final = timedelta(hours=1)


def consent(kind: ConsentKind, **more: Any) -> Consent:
    return structs.replace(Consent(id="c1", kind=kind, begins=NOW - HOUR, by="user:pat"), **more)


@pytest.mark.parametrize(
    ("said", "terms", "code"),
    [
        (consent(ConsentKind.PART2_TPO), "sends", None),
        (consent(ConsentKind.PART2_TPO), "not tpo", "part2_no_consent"),
        (consent(ConsentKind.PART2_TPO), "none", "part2_no_consent"),
        (consent(ConsentKind.PART2_TPO, ends=NOW), "sends", "part2_no_consent"),
        (consent(ConsentKind.PART2_TPO, ends=NOW + HOUR), "sends", None),
        (consent(ConsentKind.PART2_TPO, begins=NOW + HOUR), "sends", "part2_no_consent"),
        (consent(ConsentKind.PART2_TPO, revoked_at=NOW), "sends", "part2_no_consent"),
        (consent(ConsentKind.PART2_SPECIFIC, to=("research",)), "not tpo", None),
        (consent(ConsentKind.PART2_SPECIFIC, to=("research",)), "sends", "part2_no_consent"),
        (consent(ConsentKind.NOTICES_REFUSED), "sends", "part2_no_consent"),
    ],
)
def test_a_consent_covers_what_it_says_and_as_long_as_it_says(said: Consent, terms: str, code: str | None) -> None:
    of = structs.replace(chart("part 2"), consents=(said,))
    operation, content = contents(of)["encounter"]
    found = COPIES.judge(content, operation, of, TERMS[terms], NOW)
    assert found.code == code
    if code is None:
        assert isinstance(found.marking, Marking)
        assert found.marking.consent
        assert found.marking.confidentiality == "ETH"
        assert any("42 CFR part 2 prohibits" in line for line in found.marking.lines)


def test_a_refusal_of_notices_can_be_taken_back() -> None:
    refusal = consent(ConsentKind.NOTICES_REFUSED)
    of = structs.replace(chart("plain"), consents=(refusal,))
    operation, content = contents(of)["patient"]
    assert COPIES.judge(content, operation, of, TERMS["notices"], NOW).code == "patient_refused"
    of = structs.replace(of, consents=(structs.replace(refusal, revoked_at=NOW),))
    assert COPIES.judge(content, operation, of, TERMS["notices"], NOW).code is None


def test_a_statement_of_a_message_holds_between_its_dates() -> None:
    for begins, ends, code in (("20260401", None, "part2_no_consent"), ("20260201", "20260301", "part2_no_consent"),
                               ("20260201", "20260401", None)):  # fmt: skip
        of = chart("part 2, CON")
        (said,) = of.patient.consent_statements
        dated = structs.replace(said, begins=_at(begins), ends=_at(ends))
        of = structs.replace(of, patient=structs.replace(of.patient, consent_statements=(dated,)))
        operation, content = contents(of)["encounter"]
        assert COPIES.judge(content, operation, of, TERMS["sends"], NOW).code == code


def _at(day: str | None) -> Moment | None:
    if day is None:
        return None
    return Moment(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00+00:00")
