"""docs/hl7.md says what the code does: each rule has its tests, and its tables are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from engine.care import appointments, patient
from engine.connectors.remedies import REMEDIES
from engine.domain import quality, why
from engine.domain.hold import QUESTIONS
from engine.errors import Fault
from engine.hl7v2 import ack, batch, charset, header, message, mllp
from engine.hl7v2.header import HeaderError, read_header
from engine.mapping import compile as compile_
from engine.mapping import functions, times
from engine.pipeline import decisions, faults, identity, plan, zones
from engine.pipeline.acceptance import enhanced_code, original_code
from engine.pipeline.adt import reading
from engine.runtime.peers import _SSL_REASONS, _VERIFY_CODES
from engine.runtime.refusals import MEANINGS
from engine.settings import Channel, Listen

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hl7.md").read_text(encoding="utf-8")
SHOWN = (ROOT / "docs" / "reference" / "shown-by.md").read_text(encoding="utf-8")
CARE = (ROOT / "docs" / "reference" / "care-rules.md").read_text(encoding="utf-8")
PAGING = (ROOT / "docs" / "guides" / "paging.md").read_text(encoding="utf-8")
MARK = "<!-- shown by: reference/shown-by.md -->"
RULE = re.compile(r"`(test_\w+(?:\.py)?)::(test_\w+)`")
CASE = re.compile(r"`(test_\w+)::(test_\w+)(?:\[([^]`]+)\])?`")
UNREADABLE = (
    b"hello", b"MSH", b"MSH|AAAA|", b"MSH|^~\\&|||||||||P|2.5\r", b"MSH|^~\\&|||||||ADT^A01||P|2.5\r",
    b"MSH|^~\\&|||||||ADT^A01|1|P|2.5\rMSH|^~\\&|\r",
)  # fmt: skip


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def table(first: str) -> list[list[str]]:
    """The cells of the rows of the table whose first heading is this."""
    lines = PAGE[PAGE.index(f"\n| {first} |") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code(cell: str) -> str:
    return cell.strip("`")


def _rules_of(page: str) -> dict[str, list[str]]:
    """By heading: the numbers (or names) of the rules that stand behind a mark."""
    found: dict[str, list[str]] = {}
    heading, marked = "", False
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, marked = f"{page}: {line.lstrip('# ')}", False
        elif line == MARK:
            marked = True
        elif marked and line.startswith("- "):
            found.setdefault(heading, []).append(line[2:].partition(":")[0])
        elif marked and line.startswith("|") and not line.startswith("|---") and not line.startswith(("| |", "|  |")):
            found.setdefault(heading, []).append(re.split(r"(?<!\\)\|", line)[1].strip())
        elif marked and line and not line.startswith("|"):
            marked = False
    return found


def _shown() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for part in SHOWN.split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| ")][1:]
        found.setdefault(heading, {}).update({row[0].strip(): row[1].strip() for row in rows})
    return found


def test_every_test_that_shows_a_rule_exists() -> None:
    files = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = {(file.removesuffix(".py"), test) for file, test in RULE.findall(SHOWN + PAGE + PAGING)}
    assert len(named) > 250
    known = {file: functions_of(files[file]) for file in {file for file, _ in named} & files.keys()}
    assert [f"{file}::{test}" for file, test in sorted(named) if test not in known.get(file, ())] == []


def test_every_rule_has_a_test_and_every_test_a_rule() -> None:
    rules = _rules_of("hl7.md") | _rules_of("guarantees.md")
    shown = _shown()
    assert sum(map(len, rules.values())) > 200
    headers = {"setting", "content of"}
    assert {heading: [one for one in each if one not in headers] for heading, each in rules.items()} == {
        heading: list(each) for heading, each in shown.items()
    }
    assert [key for each in shown.values() for key, tests in each.items() if not RULE.search(tests)] == []


def test_every_rule_of_care_has_a_test_that_exists() -> None:
    files = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    rows = [line for line in CARE.partition("## Not done here")[0].splitlines() if re.match(r"\|(?!---)", line)]
    headings = [line for line in rows if line.endswith("shown by |")]
    assert len(rows) > 100
    assert [row for row in rows if row not in headings and CASE.search(row) is None] == []
    missing = []
    for file, test, case in CASE.findall(CARE):
        text = files[file].read_text(encoding="utf-8") if file in files else ""
        if f"def {test}(" not in text or case not in text:
            missing.append(f"{file}::{test}[{case}]")
    assert missing == []


def test_every_setting_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:listen|ack|accept|charset|identity)\.[a-z_.]+)", PAGE):
        model: type[BaseModel] = Channel
        for name in path.split("."):
            assert name in model.model_fields, path
            annotation = model.model_fields[name].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation


def test_the_limits_are_those_of_the_code_with_their_defaults() -> None:
    documented = {code(row[0]).removeprefix("listen."): float(row[1]) for row in table("setting")}
    assert documented == {name: field.default for name, field in Listen.model_fields.items() if name.endswith("_max")}


def test_the_refusals_are_those_of_the_code_with_their_codes() -> None:
    refusals = [value for value in vars(faults).values() if isinstance(value, Fault)]
    for payload in UNREADABLE:
        with pytest.raises(HeaderError) as caught:
            read_header(payload)
        error = caught.value
        refusals.append(Fault(error=error.error, text=error.text, hl7_code=error.hl7_code))
    documented = {code(row[0]): row[1:4] for row in table("ERR-5")}
    assert documented == {
        one.error: [str(one.hl7_code), original_code(one).value, enhanced_code(one).value] for one in refusals
    }


KEBAB = re.compile(r"[a-z-]+-[a-z0-9-]+")


def deviations(module: ModuleType) -> set[str]:
    """The module's own constants that are names of deviations."""
    constants = [value for name, value in vars(module).items() if name.isupper() and not name.startswith("_")]
    return {value for value in constants if isinstance(value, str) and KEBAB.fullmatch(value)}


def test_the_deviations_are_those_of_the_code() -> None:
    known = set().union(*map(deviations, (ack, batch, charset, header, message, mllp)))
    assert len(known) > 20
    assert {code(row[0]) for row in table("name")} == known


def test_the_deviations_of_content_are_those_of_the_code() -> None:
    known = set().union(*map(deviations, (functions, times, identity, reading, plan, zones, appointments)))
    assert {code(row[0]) for row in table("content")} == known


def test_the_questions_that_are_held_are_those_of_the_code() -> None:
    documented = {code(row[0]): (row[1], row[2]) for row in table("hold")}
    assert documented == {
        one.value: (asked.text, "released or dismissed" if asked.can_be_released else "dismissed")
        for one, asked in QUESTIONS.items()
    }


def test_the_faults_of_data_are_those_of_the_code_with_what_to_do() -> None:
    documented = {code(row[0]): row[1:] for row in table("fault")}
    assert documented == {kind.value: [said.text, said.remedy] for kind, said in quality.MEANINGS.items()}


def test_the_reasons_listed_are_those_of_the_code() -> None:
    decided: dict[str, set[str]] = {}
    for meaning in why.MEANINGS.values():
        decided.setdefault(meaning.word, set()).add("done" if meaning.done else "withheld")
    assert {code(row[0]): set(row[1].split(", ")) for row in table("Reason")} == decided


def test_the_reasons_of_decisions_are_those_of_the_code() -> None:
    assert {code(row[0]): row[1] for row in table("Reason besides")} == decisions.REASONS


def test_the_guide_to_destinations_lists_every_code_and_what_to_do() -> None:
    guide = (ROOT / "docs/guides/destinations.md").read_text(encoding="utf-8")
    assert [code for code, remedy in REMEDIES.items() if f"| `{code}` | {remedy} |" not in guide] == []


def test_the_limits_of_content_are_those_of_the_code() -> None:
    limits = {
        message.SEGMENTS_MAX, message.REPETITIONS_MAX, compile_.ITEMS_MAX, reading.MERGES_MAX, reading.MERGE_GROUPS_MAX,
        patient.IDENTIFIERS_MAX,
    }  # fmt: skip
    documented = {int(number) for row in table("content of") for number in re.findall(r"\d+", row[1])}
    assert documented == limits


def test_the_reasons_why_nobody_connects_are_those_of_the_code() -> None:
    assert [[code(row[0]), *row[1:]] for row in table("reason")] == [[name, *said] for name, said in MEANINGS.items()]


REASON = re.compile(
    r"(?:connections_(?:refused|closed)\[|_give_up\(|refused\([^\n]*, |return |reason = |reason=)"
    r"\"([a-z-]+)\""
)


def test_every_reason_in_the_code_has_its_meaning() -> None:
    known = {*_VERIFY_CODES.values(), *_SSL_REASONS.values()}
    for module in ("listener", "peers"):
        text = (ROOT / "engine" / "runtime" / f"{module}.py").read_text(encoding="utf-8")
        known |= set(REASON.findall(text))
    assert known <= set(MEANINGS)
    assert len(known) > 25
