"""`handoff test`: what fails is named with its place, what was expected and what came."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.bootstrap import examine
from engine.trial.cases import Report, run_tests

ROOT = Path(__file__).parents[3]
MESSAGE = """
      MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|20261109143000-0500||ADT^A03|T-1|P|2.5.1
      PID|1||7001^^^MRN^MR||ROE^RICHARD||19600102|M
      PV1|1|I|ED^^^MAIN||||||||||||||||V7001|||||||||||||||||01||||||||20261104|20261109143000-0500
"""
CASE = f"now: 2026-11-09T15:00-05:00\ncases:\n  - name: a case\n    message: |{MESSAGE}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("channels", "mappings"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.test.yaml"))
    shutil.copyfile(ROOT / "config.yaml", tmp_path / "config.yaml")
    return tmp_path


Tested = Callable[[str, str], Report]


@pytest.fixture
def tested(site: Path) -> Tested:
    """What comes of a test file of this name and text."""

    def run(file: str, text: str) -> Report:
        (site / file).write_text(text)
        examined = examine(site / "config.yaml", tests=False)
        return run_tests(examined.compiled, examined.configuration.snapshot)

    return run


@pytest.mark.parametrize(
    ("file", "given", "right", "wrong", "got"),
    [
        ("mappings/risk/lace.test.yaml", "{los_days: 3, acute: true, charlson: 0, ed_visits_6m: 0}", "{value: 6}",
         "{value: 7}", "expected 7, got 6"),
        ("mappings/risk/lace.test.yaml", "{los_days: 3}", "{factors: {los_days: 3}}",
         "{factors: {los: 3}}", "nothing (there are"),
        ("mappings/care/dispositions.test.yaml", "{code: '1'}", "{action: home_plan}", "{action: hospice}",
         "got home_plan"),
        ("mappings/care/adt-events.test.yaml", "{event: A01}", "{meaning: admit}", "{meaning: merge}", "got admit"),
        ("mappings/care/risk-inputs.test.yaml", "{stay: {class: I}}", "{}", "{charlson: 3}", "expected 3, got null"),
        ("mappings/protocols/post-discharge.test.yaml", "{disposition: '01', band: low}",
         "{tasks: [medication_reconciliation, education, tcm_contact]}", "{tasks: [education]}",
         "medication_reconciliation"),
        ("mappings/protocols/post-discharge.test.yaml", "{disposition: '01', band: low}",
         "{tasks: [{assignee: pharmacist}, education, tcm_contact]}",
         "{tasks: [{assignee: nobody}, education, tcm_contact]}", "expected nobody, got pharmacist"),
        ("mappings/tables/sex.test.yaml", "{code: f}", "{value: F, known: true}", "{value: M}", "expected M, got F"),
        ("mappings/tables/sex.test.yaml", "{code: Q}", "{value: Q, known: false}", "{known: true}", "got false"),
        ("mappings/fields/adt.test.yaml",
         '{message: "MSH|^~\\\\&|A|B|||20260101||ADT^A01|1|P|2.5\\nPID|1||7^^^MRN^MR||ROE"}',
         "{patient: {name: {family: ROE}}, error: null}", "{patient: {name: {family: DOE}}}", "expected DOE, got ROE"),
    ],
)  # fmt: skip
def test_a_case_of_a_rule_holds_or_is_told_with_its_place(
    tested: Tested, file: str, given: str, right: str, wrong: str, got: str
) -> None:
    case = "cases:\n  - name: a case\n    given: {}\n    expect: {}\n"
    good = tested(file, case.format(given, right))
    assert (good.passed, [str(one) for one in good.failures]) == (1, [])
    (failure,) = tested(file, case.format(given, wrong)).failures
    assert (failure.file, failure.line, failure.key.startswith("cases[0].expect")) == (file, 4, True)
    assert failure.message.startswith("a case: ")
    assert got in failure.message


def test_a_rollout_changes_no_test_of_a_plan_but_of_a_case_that_asks_for_it(site: Path, tested: Tested) -> None:
    protocol = site / "mappings/protocols/post-discharge.yaml"
    protocol.write_text(f"rollout: {{units: [9NORTH]}}\n{protocol.read_text()}")
    tests = "mappings/protocols/post-discharge.test.yaml"
    shipped = tested(tests, (ROOT / tests).read_text())
    assert [str(one) for one in shipped.failures if one.file == tests] == []
    given = "disposition: '01', band: low, rollout: true"
    case = "cases:\n  - {{name: a case, given: {{{}, unit: {}}}, expect: {{tasks: {}}}}}\n"
    plan = "[medication_reconciliation, education, tcm_contact]"
    for unit, tasks in (("9NORTH", plan), ("4WEST", "[]")):
        assert [str(one) for one in tested(tests, case.format(given, unit, tasks)).failures] == []


@pytest.mark.parametrize(
    ("right", "wrong", "got"),
    [
        ("ack: AA", "ack: AE", "expected AE, got AA"),
        ("ack: {code: AA, error: null}", "ack: {code: AR}", "got AA"),
        ("state: processed", "state: filtered", "got processed"),
        ("reason: null", "reason: no", "expected no"),
        ("class: I", "class: O", "expected O, got I"),
        ("patient: {name: {family: ROE}}", "patient: {name: {family: DOE}}", "expected DOE, got ROE"),
        ("patient: {key: 'MRN:7001'}", "patient: {kye: 'MRN:7001'}", "nothing (there are key,"),
        ("encounter: {disposition: '01'}", "encounter: {disposition: '02'}", "expected 02, got 01"),
        ("encounter: {discharged_at: 2026-11-09T19:30Z}", "encounter: {discharged_at: 2026-11-09T14:30Z}",
         "14:30:00-05:00"),
        ("scores: {lace: low}", "scores: {lace: high}", "expected high, got"),
        ("tasks: [tcm_contact, medication_reconciliation, education]", "tasks: [tcm_contact]", "no more than 1"),
        ("tasks: [tcm_contact, education, {kind: medication_reconciliation, assignee: pharmacist}]",
         "tasks: [tcm_contact, education, on_call_page]", "on_call_page"),
        ("error: null", "error: identifier-missing", "expected identifier-missing"),
        ("deviations: []", "deviations: [invalid-date:PID-7]", "invalid-date:PID-7"),
        ("state: processed", "stat: processed", "did you mean state?"),
    ],
)  # fmt: skip
def test_a_message_of_a_channel_is_compared_in_every_part(tested: Tested, right: str, wrong: str, got: str) -> None:
    good = tested("channels/main-campus.test.yaml", f"{CASE}    expect: {{{right}}}\n")
    assert [str(one) for one in good.failures] == []
    (failure,) = tested("channels/main-campus.test.yaml", f"{CASE}    expect: {{{wrong}}}\n").failures
    assert failure.line == 8
    assert got in failure.message


def test_messages_in_a_row_find_what_those_before_them_left(tested: Tested) -> None:
    message = MESSAGE.replace("\n", "\n      ")
    cancelled = message.replace("A03", "A13").replace("14300", "15300")
    text = (
        "now: 2026-11-09T15:00-05:00\ncases:\n  - name: a cancelled discharge\n    messages:\n"
        f"      - message: |{message}"
        "\n        expect: {encounter: {status: finished}}\n"
        f"      - now: 2026-11-09T16:00-05:00\n        message: |{cancelled}"
        "\n        expect: {encounter: {status: active}, tasks: []}\n"
    )
    report = tested("channels/main-campus.test.yaml", text)
    assert (report.passed, [str(one) for one in report.failures]) == (1, [])


def test_deliveries_are_those_of_the_last_message(tested: Tested) -> None:
    expect = "{deliveries: [{what: upsert_patient to files}, {destination: files, operation: upsert_encounter}]}"
    (failure,) = tested("channels/main-campus.test.yaml", f"{CASE}    expect: {expect}\n").failures
    assert "expected no more than 2" in failure.message
    assert "upsert_score to files" in failure.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cases: []\n", "at least one"),
        ("cases:\n  - name: x\n    expct: {}\n", "did you mean expect?"),
        ("cases:\n  - name: x\n    file: nowhere.hl7\n", "say when it arrives"),
        ("now: 2026-11-09T15:00Z\ncases:\n  - name: x\n    file: nowhere.hl7\n", "No such file"),
        ("now: 2026-11-09T15:00Z\ncases:\n  - name: x\n    file: ../channels\n", "is a folder, not a file"),
        ("now: 2026-11-09T15:00Z\ncases:\n  - name: x\n    message: ' '\n", "holds no message"),
        ("now: 2026-11-09T15:00Z\ncases:\n  - name: x\n", "needs either message or file"),
        ("now: soon\ncases:\n  - name: x\n    message: MSH\n", "say when it arrives"),
    ],
)  # fmt: skip
def test_a_test_file_that_makes_no_sense_fails_with_what_is_wrong(tested: Tested, text: str, words: str) -> None:
    failures = tested("channels/main-campus.test.yaml", text).failures
    assert any(words in failure.message for failure in failures)


def test_cases_for_a_channel_that_has_changed_are_skipped_and_that_is_said(tested: Tested) -> None:
    text = f"assumes: {{timezone: Europe/Berlin}}\n{CASE}    expect: {{ack: AE}}\n"
    report = tested("channels/main-campus.test.yaml", text)
    assert (report.passed, report.failures, [one.key for one in report.skipped]) == (0, [], ["assumes.timezone"])


def test_tests_with_nothing_beside_them_are_said(tested: Tested) -> None:
    report = tested("channels/west.test.yaml", CASE)
    assert "there is no channels/west.yaml beside it" in report.skipped[0].message


def test_tests_that_take_too_long_are_ended_and_that_fails(site: Path, tested: Tested) -> None:
    tested("channels/main-campus.test.yaml", f"{CASE}    expect: {{}}\n")
    examined = examine(site / "config.yaml", tests=False)
    report = run_tests(examined.compiled, examined.configuration.snapshot, seconds_max=0)
    assert "the rest was not run" in report.failures[0].message


def test_what_fails_is_a_problem_of_the_check(site: Path) -> None:
    (site / "channels/main-campus.test.yaml").write_text(f"{CASE}    expect: {{ack: AE}}\n")
    (failure,) = examine(site / "config.yaml").failures
    assert failure.level == "problem"


def test_the_shipped_points_are_pinned_down(site: Path) -> None:
    """A changed score is found by its test before a patient is."""
    shutil.copyfile(ROOT / "mappings/risk/lace.test.yaml", site / "mappings/risk/lace.test.yaml")
    assert not examine(site / "config.yaml").failures
    lace = site / "mappings/risk/lace.yaml"
    lace.write_text(lace.read_text().replace("points: 3", "points: 4"))
    assert examine(site / "config.yaml").failures
