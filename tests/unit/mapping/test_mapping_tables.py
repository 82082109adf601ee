from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SettingsError
from engine.mapping.tables import Tables, load_table, load_tables
from engine.yamlfile import parse

FOLDER = Path(__file__).parents[3] / "mappings" / "tables"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_table_loads_and_has_the_name_of_its_file(path: Path) -> None:
    table = load_table(parse(path.read_text(encoding="utf-8"), path.name))
    assert table.name == path.stem
    assert table.values


@pytest.mark.parametrize(
    ("name", "code", "answer"),
    [
        ("sex", "F", ("F", True)),
        ("sex", "f", ("F", True)),
        ("sex", "X", ("X", False)),
        ("sex", "N", ("N", True)),
        ("patient-class", "OBS", ("OBS", True)),
        ("patient-class", "IP", ("IP", False)),
        ("admission-type", "E", ("E", True)),
        ("living-arrangement", "A", (True, True)),
        ("living-arrangement", "S", (False, True)),
        ("living-arrangement", "U", (None, True)),
        ("living-arrangement", "T", (None, False)),
    ],
)
def test_shipped_tables_answer_known_and_unknown_codes(tables: Tables, name: str, code: str, answer: object) -> None:
    assert tables[name].find(code) == answer


@pytest.mark.parametrize(
    ("unknown", "answer", "is_error"),
    [("keep", "zz", False), ("null", None, False), ("error", None, True), ("{value: U}", "U", False)],
)
def test_a_table_declares_what_becomes_of_an_unknown_code(unknown: str, answer: object, is_error: bool) -> None:
    table = load_table(parse(f"name: t\nvalues: {{A: B}}\nunknown: {unknown}\n", "t.yaml"))
    if not is_error:
        assert table.find("zz") == (answer, False)
    assert table.unknown_is_error is is_error


def test_codes_that_yaml_could_take_for_something_else_stay_codes() -> None:
    table = load_table(parse("name: t\nvalues: {N: N, no: no, 01: home, 1: one, Y: true}\nunknown: null\n", "t.yaml"))
    assert [table.find(code)[0] for code in ("N", "no", "01", "1", "Y")] == ["N", "no", "home", "one", True]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("name: t\nvalues: {A: B}\n", (1, 1), "'unknown' is missing"),
        ("name: t\nvalues: {A: B}\nunknown: maybe\n", (3, 1), ""),
        ("name: t\nvalues: {A: [B]}\nunknown: keep\n", (2, 10), ""),
        ("name: t\nvalues: {A: B, A: C}\nunknown: keep\n", (2, 16), "twice"),
        ("name: Not A Name\nvalues: {A: B}\nunknown: keep\n", (1, 1), ""),
        ("name: t\nvalues: {A: B}\nunknown: keep\ncomment: x\n", (4, 1), "unknown key"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(text: str, place: tuple[int, int], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_table(parse(text, "t.yaml"))
    problem = caught.value.problems[0]
    assert (problem.line, problem.column) == place
    assert says in problem.message


def test_the_problems_of_all_tables_are_reported_at_once() -> None:
    good = "name: t\nvalues: {A: B}\nunknown: keep\n"
    documents = [parse(good, "a.yaml"), parse(good, "b.yaml"), parse("name: u\n", "c.yaml")]
    with pytest.raises(SettingsError) as caught:
        load_tables(documents)
    assert {(problem.file, problem.key) for problem in caught.value.problems} == {
        ("b.yaml", "name"),
        ("c.yaml", "values"),
        ("c.yaml", "unknown"),
    }
