"""What `make test` spends its time on: writes the tables of docs/tests.md from pytest's JUnit files.

    make test; make slowest

A budget is what somebody has agreed to: it is kept as it stands in the page, and a file that is new in the table gets
half as much again as it took. The exit code is 1 when something is over its budget.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "tests.md"
_FILES_SHOWN: Final = 25
_TESTS_SHOWN: Final = 25
_STEP_SECONDS: Final = 5
_BEGIN, _END = "<!-- make slowest: from here -->", "<!-- to here -->"
_BUDGET: Final = re.compile(r"^\| `(tests/\S+?)` \| [\d.]+ \| (\d+) \|", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    file: str
    name: str
    seconds: float


def read(results: Sequence[Path]) -> list[Case]:
    """The tests of these JUnit files, each with its fixtures."""
    return [
        Case(case.get("file", ""), case.get("name", ""), float(case.get("time", "0")))
        for path in results
        for case in ElementTree.parse(path).iter("testcase")  # noqa: S314 - our own pytest wrote it
    ]


def budgets(page: str) -> dict[str, int]:
    """Seconds, by file, as the page has them."""
    return {file: int(seconds) for file, seconds in _BUDGET.findall(page)}


def tables(cases: Sequence[Case], kept: Mapping[str, int]) -> tuple[str, list[str]]:
    """The generated part of the page, and what is over its budget."""
    spent: dict[str, float] = defaultdict(float)
    for case in cases:
        spent[case.file] += case.seconds
    files = sorted(spent, key=lambda file: -spent[file])[:_FILES_SHOWN]
    allowed = {file: kept.get(file) or _STEP_SECONDS * math.ceil(spent[file] * 1.5 / _STEP_SECONDS) for file in files}
    over = [f"{file}: {spent[file]:.0f} s of {kept[file]}" for file in kept if spent[file] > kept[file]]
    return "\n".join(_lines(cases, spent, files, allowed)), over


def _lines(
    cases: Sequence[Case], spent: Mapping[str, float], files: Sequence[str], allowed: Mapping[str, int]
) -> Iterator[str]:
    yield _BEGIN
    yield ""
    yield f"{len(cases):,} tests in {len(spent)} files, {sum(spent.values()):,.0f} s of tests."
    yield ""
    yield "| file | seconds | budget | what it shows |"
    yield "|---|---|---|---|"
    for file in files:
        yield f"| `{file}` | {spent[file]:.1f} | {allowed[file]} | {_shows(file)} |"
    yield ""
    yield "| test | seconds | in |"
    yield "|---|---|---|"
    for case in sorted(cases, key=lambda case: -case.seconds)[:_TESTS_SHOWN]:
        yield f"| `{case.name.replace('|', chr(92) + '|')}` | {case.seconds:.1f} | `{Path(case.file).name}` |"
    yield ""
    yield _END


def _shows(file: str) -> str:
    """The first sentence of the file's docstring."""
    path = ROOT / file
    said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.exists() else ""
    return said.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def written(page: str, generated: str) -> str:
    before, _, rest = page.partition(_BEGIN)
    return before + generated + rest.partition(_END)[2]


def main(arguments: Sequence[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    generated, over = tables(read([Path(argument) for argument in arguments]), budgets(page))
    PAGE.write_text(written(page, generated), encoding="utf-8")
    sys.stdout.write("".join(f"over its budget: {line}\n" for line in over) or "Everything is within its budget.\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
