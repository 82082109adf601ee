"""docs/reference/mapping.md says what the languages are: its examples compile, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path as File
from zoneinfo import ZoneInfo

import pytest

from engine.hl7v2.message import REPETITIONS_MAX
from engine.hl7v2.path import Path
from engine.mapping.compile import compile_mapping
from engine.mapping.expression import SUBJECT_CHARS_MAX, compile_filter
from engine.mapping.spec import Rule
from engine.mapping.tables import load_table, load_tables
from engine.pipeline.messages import TARGETS
from engine.yamlfile import parse

ROOT = File(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "mapping.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def first_cells(heading: str) -> list[str]:
    lines = PAGE[PAGE.index(f"\n| {heading} |") :].strip().split("\n\n")[0].splitlines()
    return [cell for line in lines[2:] for cell in re.findall(r"^\| `([^`]*)`", line)]


def test_the_targets_and_keys_are_those_of_the_code() -> None:
    assert first_cells("target") == list(TARGETS)
    assert set(first_cells("key")) == {field.alias or name for name, field in Rule.model_fields.items()}


@pytest.mark.parametrize("text", first_cells("path"))
def test_the_paths_of_the_page_are_paths(text: str) -> None:
    assert Path.parse(text).segment


@pytest.mark.parametrize("text", blocks("filter"))
def test_the_filters_of_the_page_compile(text: str) -> None:
    assert compile_filter(text.strip()).paths


def test_the_field_map_and_the_table_of_the_page_compile() -> None:
    tables = load_tables(
        parse(path.read_text(encoding="utf-8"), path.name) for path in sorted((ROOT / "mappings/tables").glob("*.yaml"))
    )
    (fields,) = blocks("yaml")
    assert compile_mapping(parse(fields, "page.yaml"), tables, zone=ZoneInfo("UTC")).patient
    (table,) = blocks("table")
    assert load_table(parse(table, "page.yaml")).find("W") == ("F", True)


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    assert f"first {SUBJECT_CHARS_MAX} characters" in PAGE
    assert f"more than {REPETITIONS_MAX} times" in PAGE
