"""docs/guarantees.md names tests: each of them is there, and each fault that is tested stands in its table."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
_NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@functools.cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_test_that_is_named_exists() -> None:
    files = {file.name: file for file in TESTS.rglob("test_*.py")}
    named = set(_NAMED.findall(TEXT))
    assert len(named) > 80
    missing = sorted(
        f"{file}::{name}" for file, name in named if file not in files or name not in functions_of(files[file])
    )
    assert not missing


def test_every_fault_that_is_tested_stands_in_the_table() -> None:
    named = set(_NAMED.findall(TEXT))
    tested = {
        (file.name, name) for file in Path(__file__).parent.glob("test_faults_*.py") for name in functions_of(file)
    }
    assert not tested - named


def test_every_row_says_what_shows_it() -> None:
    tables = [line for line in TEXT.splitlines() if line.startswith("| ")]
    rows = [line for line in tables if not re.match(r"\| (promise|fault|\*\*)", line)]
    assert rows
    assert not [row for row in rows if not _NAMED.search(row)]
