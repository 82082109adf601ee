"""The JSON Schemas of a site's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.cli import app
from engine.cli.init import shipped
from engine.cli.reference import anchor, reference
from engine.cli.schema import MODELS, rendered, schema_of
from engine.yamlfile import parse

ROOT = shipped()


@pytest.mark.parametrize("kind", MODELS)
def test_the_schema_in_docs_is_the_one_the_code_makes(kind: str) -> None:
    assert (ROOT / "docs/schemas" / f"{kind}.json").read_text() == rendered(kind), "run `make schemas`"


@pytest.mark.parametrize("kind", MODELS)
def test_schema_prints_one_json_document(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["title"]


def test_schema_prints_the_same_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["schema", "channel", "--json"]) == 0
    assert capsys.readouterr().out == rendered("channel")
    assert app.run(["schema", "--write", str(tmp_path), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert {Path(file).stem for file in written} == set(MODELS)


def test_schema_without_a_kind_is_a_usage_error() -> None:
    assert app.run(["schema"]) == 2


def test_a_text_of_the_configuration_may_stand_elsewhere() -> None:
    url = schema_of("config")["$defs"]["Store"]["properties"]["url"]
    assert {"$ref": "#/$defs/Reference"} in url["anyOf"]


def test_fields_carry_their_description() -> None:
    channel = schema_of("channel")
    assert channel["$defs"]["Listen"]["properties"]["allow"]["description"].startswith("Networks that may connect")


def _objects(kind: str) -> Iterator[dict[str, Any]]:
    schema = schema_of(kind)
    for shape in (schema, *schema.get("$defs", {}).values()):
        yield from (one for one in (shape, *shape.get("anyOf", ()), *shape.get("oneOf", ())) if "properties" in one)


@pytest.mark.parametrize("kind", MODELS)
def test_every_key_has_a_description_and_so_has_every_object(kind: str) -> None:
    for shape in _objects(kind):
        without = [key for key, about in shape["properties"].items() if not about.get("description")]
        assert not without, shape.get("title")
        assert shape.get("description") or "title" not in shape, shape.get("title")


def test_the_reference_in_docs_is_the_one_the_code_makes() -> None:
    page = ROOT / "docs/reference/configuration.md"
    assert page.read_text() == reference(page.parent / "examples", ROOT), "run `make schemas`"


def test_the_reference_has_a_row_for_every_key_and_no_dead_link() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    headings = {anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= headings
    assert all((ROOT / "docs/reference" / file).exists() for file in re.findall(r"\]\(([^#)]+)\)", page))
    for kind in MODELS:
        for shape in _objects(kind):
            if "title" in shape:
                rows = [f"| `{key}` | " for key in shape["properties"]]
                assert all(row in page for row in rows), shape["title"]


@pytest.mark.parametrize("file", sorted((ROOT / "docs/reference/examples").iterdir()), ids=lambda file: file.stem)
def test_an_example_of_the_reference_is_good_and_has_every_key(file: Path) -> None:
    schema, example = schema_of(file.stem), parse(file.read_text(), file.name).value
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(example))
    written = set(re.findall(r"([A-Za-z_0-9.-]+):(?: |$)", file.read_text(), re.MULTILINE))
    asked = {key for shape in _objects(file.stem) if "title" in shape for key in shape["properties"]}
    assert asked - written == set()


def _shipped_yaml() -> list[Path]:
    files = [ROOT / "config.yaml", *ROOT.glob("channels/*.yaml"), *ROOT.glob("mappings/**/*.yaml")]
    return [file for file in files if not file.name.endswith(".test.yaml")]


@pytest.mark.parametrize("file", _shipped_yaml(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_shipped_file_names_its_schema(file: Path) -> None:
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", file.read_text().splitlines()[0])
    assert found
    assert (file.parent / found[1]).resolve().is_relative_to(ROOT / "docs/schemas")
    assert (file.parent / found[1]).exists()


@pytest.mark.parametrize("file", _shipped_yaml(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_shipped_file_is_good_by_its_schema(file: Path) -> None:
    found = re.search(r"\$schema=(\S+)", file.read_text())
    assert found
    schema = json.loads((file.parent / found[1]).read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(parse(file.read_text(), file.name).value))
    assert not errors


def test_a_wrong_key_is_an_error_by_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(schema_of("channel"))
    channel = parse((ROOT / "channels/main-campus.yaml").read_text(), "x").value
    assert validator.is_valid(channel)
    assert not validator.is_valid(channel | {"moode": "live"})
    assert not validator.is_valid(channel | {"mode": "lively"})
