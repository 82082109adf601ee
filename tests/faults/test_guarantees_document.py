"""Each fault that is tested stands among those that docs/reference/shown-by.md names for docs/guarantees.md."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "reference" / "shown-by.md").read_text(encoding="utf-8")
_NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@functools.cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_fault_that_is_tested_stands_in_the_table() -> None:
    named = set(_NAMED.findall(TEXT))
    tested = {
        (file.name, name) for file in Path(__file__).parent.glob("test_faults_*.py") for name in functions_of(file)
    }
    assert not tested - named
