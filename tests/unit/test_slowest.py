"""The tables of docs/tests.md: what tests took, against budgets that people set."""

from __future__ import annotations

from pathlib import Path

from slowest import ROOT, Case, budgets, read, tables, written

PAGE = "before\n<!-- make slowest: from here -->\n| `tests/a.py` | 3.0 | 10 | old |\n<!-- to here -->\nafter\n"
RESULTS = """<testsuites><testsuite>
<testcase file="tests/unit/test_slowest.py" name="test_one[a|b]" time="1.5"/>
<testcase file="tests/unit/test_slowest.py" name="test_two" time="2.0"/>
<testcase file="tests/a.py" name="test_three" time="{seconds}"/>
</testsuite></testsuites>"""


def cases(tmp_path: Path, seconds: float) -> list[Case]:
    tmp_path.joinpath("results.xml").write_text(RESULTS.format(seconds=seconds))
    return read([tmp_path / "results.xml"])


def test_budgets_of_the_page_are_kept_and_new_files_get_one(tmp_path: Path) -> None:
    generated, over = tables(cases(tmp_path, 9.9), budgets(PAGE))
    assert over == []
    assert "| `tests/a.py` | 9.9 | 10 |" in generated
    assert "| `tests/unit/test_slowest.py` | 3.5 | 10 | The tables of docs/tests.md" in generated
    assert r"| `test_one[a\|b]` | 1.5 | `test_slowest.py` |" in generated
    page = written(PAGE, generated)
    assert (page.startswith("before\n"), page.endswith("\nafter\n"), "old" in page) == (True, True, False)
    assert written(page, generated) == page


def test_a_file_over_its_budget_is_named(tmp_path: Path) -> None:
    assert tables(cases(tmp_path, 10.1), budgets(PAGE))[1] == ["tests/a.py: 10 s of 10"]


def test_every_file_that_the_page_names_exists() -> None:
    page = ROOT.joinpath("docs/tests.md").read_text(encoding="utf-8")
    assert [file for file in budgets(page) if not ROOT.joinpath(file).exists()] == []
