"""What is valid word for word and can never come to pass: refused by `check`, or warned of, with file and line."""

from __future__ import annotations

import re

import pytest
from heart import ROOT, key

from engine.connectors.registry import load
from engine.pipeline.compiling import compile_configuration
from engine.pipeline.unworkable import contradictions, never_happens
from engine.snapshot import Snapshot

CHANNEL = "channels/main-campus.yaml"
PROTOCOL = "mappings/protocols/post-discharge.yaml"
FIELDS = "mappings/fields/adt.yaml"
EVENTS = "mappings/care/adt-events.yaml"
DISPOSITIONS = "mappings/care/dispositions.yaml"
SHIPPED = Snapshot.read(ROOT / "config.yaml")
AGENCY = r'dispositions: \["06"\]'
CONTACT = r"(kind: tcm_contact\n)"


def said(changes: list[tuple[str, str, str]]) -> tuple[list[str], list[str]]:
    """Of the shipped site with these changes: what is refused, and what is warned of, as `file: text`."""
    files = dict(SHIPPED.files)
    for file, before, after in changes:
        text, count = re.subn(before, after, files[file], count=1, flags=re.MULTILINE)
        assert count == 1, before
        files[file] = text
    compiled = compile_configuration(load(Snapshot(SHIPPED.base, SHIPPED.site_file, files), references="never"), key)
    refused, warned = list(contradictions(compiled)), list(never_happens(compiled))
    assert all(one.line > 1 and one.level == "problem" for one in refused)
    assert all(one.line > 1 and one.level == "warning" for one in warned)
    return tuple([f"{one.file}: {one.message}" for one in found] for found in (refused, warned))  # type: ignore[return-value]


def test_what_is_shipped_can_all_come_to_pass() -> None:
    assert said([]) == ([], [])


def asks(*conditions: str) -> list[tuple[str, str, str]]:
    """A task of home_plan that asks for all of these conditions."""
    names = [chr(ord("a") + number) for number in range(len(conditions))]
    declared = "".join(f"  {name}: {one}\n" for name, one in zip(names, conditions, strict=True))
    return [
        (PROTOCOL, r"^conditions:\n", f"conditions:\n{declared}"),
        (PROTOCOL, CONTACT, rf"\1        when: [{', '.join(names)}]\n"),
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([(PROTOCOL, AGENCY, 'dispositions: ["ZZ"]')], "is not in mappings/care/dispositions.yaml"),
        ([(PROTOCOL, AGENCY, 'dispositions: ["06", "77"]')], "is not in mappings/care/dispositions.yaml"),
        ([(PROTOCOL, AGENCY, 'dispositions: ["02"]')], "calls for transfer, and this is a task of home_plan"),
        ([(PROTOCOL, AGENCY, 'dispositions: ["20"]')], "calls for death, and this is a task of home_plan"),
        ([(PROTOCOL, AGENCY, 'dispositions: ["6"]')], "counts as 06: write that"),
        ([(PROTOCOL, AGENCY, 'dispositions: ["86"]')], "counts as 06: write that"),
        (asks("{classes: [QQ]}"), "a asks for class QQ, which this protocol does not plan for"),
        (asks("{age_years_min: 70}", "{age_years_max: 60}"), "their ages do not meet"),
        (asks("{units: [4C]}", "{units: [5D]}"), "they ask for other units"),
        (asks("{classes: [I]}", "{age_years_min: 65}", "{classes: [OBS]}"), "they ask for other classes"),
    ],
)
def test_a_task_that_nobody_can_get_is_refused_with_its_line(changes: list[tuple[str, str, str]], text: str) -> None:
    (refused,), _ = said(changes)
    assert refused.startswith(f"{PROTOCOL}: ")
    assert text in refused


@pytest.mark.parametrize(
    "conditions",
    [
        ("{age_years_min: 60}", "{age_years_max: 60}"),
        ("{classes: [I, OBS]}", "{classes: [OBS]}"),
        ("{units: [4C]}", "{age_years_min: 65}"),
        ("{diagnoses: [I50]}", "{diagnoses: [J44]}"),  # one stay may have both
    ],
)
def test_conditions_that_can_hold_together_are_taken(conditions: tuple[str, ...]) -> None:
    assert said(asks(*conditions))[0] == []


@pytest.mark.parametrize(
    ("changes", "file", "text"),
    [
        ([(CHANNEL, r"types: \[.*?\]", "types: [ADT^A01, ADT^A08]")], CHANNEL, "no accepted message ends a stay (A03)"),
        ([(EVENTS, r"A03: discharge", "A03: record")], CHANNEL, "no accepted message ends a stay (no event does)"),
        ([(CHANNEL, r"types: \[.*?\]", 'types: ["ADT^*", "VXU^V04"]')], CHANNEL, "nothing here reads VXU messages"),
        ([(CHANNEL, r"processing_ids: \[P\]", 'processing_ids: [P], versions: ["2.51"]')], CHANNEL, "is no version"),
        ([(CHANNEL, r"^risk: .*", "risk: []")], CHANNEL, "high, moderate, low of home_plan are for nobody"),
        ([(FIELDS, r"^encounter.disposition: .*", "")], CHANNEL, "fills no encounter.disposition"),
        ([(FIELDS, r"^encounter.class: .*", "")], CHANNEL, "fills no encounter.class"),
        ([(FIELDS, r"^encounter.visit_number: .*", "")], CHANNEL, "fills no encounter.visit_number"),
    ],
)
def test_what_a_channel_asks_for_and_never_gets_is_warned_of(
    changes: list[tuple[str, str, str]], file: str, text: str
) -> None:
    refused, warned = said(changes)
    assert refused == []
    assert [one for one in warned if text in one and one.startswith(f"{file}: ")]


def test_tasks_of_an_action_that_no_code_calls_for_are_warned_of() -> None:
    files = dict(SHIPPED.files)
    files[DISPOSITIONS] = files[DISPOSITIONS].replace("action: hospice", "action: transfer")
    compiled = compile_configuration(load(Snapshot(SHIPPED.base, SHIPPED.site_file, files), references="never"), key)
    (warned,) = never_happens(compiled)
    assert (warned.file, warned.key) == (PROTOCOL, "plans.hospice")
