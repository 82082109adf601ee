"""YAML files as people edit them: every problem is reported with file, line, column and key.

Why our own constructor over libyaml's parser: PyYAML's own reads `no` as False, `012` as 10, `1:30` as 90 and takes
duplicate keys; ruamel's parser needs 0.3 s for a thousand lines: too long for the start. Scalars follow
the YAML 1.2 core schema, except that digits with a leading zero stay text (disposition codes, ICD prefixes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import SettingsError

Place = tuple[int, int]
Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+")
_CONSTANTS: Final[Mapping[str, Any]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.message}"


class StrictModel(BaseModel):
    """A part of a configuration file: unknown keys are errors, nothing is coerced from one type to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: plain values, and where each of them stands."""

    file: str
    value: Any
    places: Mapping[Path, Place]

    def place(self, path: Path) -> Place:
        """Line and column of a value (or of the nearest thing around it that has one)."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, (1, 1))

    def problem(self, path: Path, message: str) -> Problem:
        line, column = self.place(path)
        return Problem(self.file, line, column, dotted(path), message)


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(text: str, file: str) -> Document:
    """Read one YAML document. Raises SettingsError for syntax errors, duplicate keys, tags and unclosed aliases."""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise SettingsError((Problem(file, line, column, "", f"not valid YAML: {error.problem}"),)) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise SettingsError((Problem(file, 1, 1, "", f"not valid YAML: {type(error).__name__}"),)) from None
    places: dict[Path, Place] = {}
    problems: list[Problem] = []
    value = {} if node is None else _construct(node, (), file, places, problems)
    if problems:
        raise SettingsError(tuple(problems))
    return Document(file, value, places)


def _construct(node: yaml.Node, path: Path, file: str, places: dict[Path, Place], problems: list[Problem]) -> Any:
    places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if len(path) > 32:
        problems.append(Problem(file, *places[path], dotted(path[:4]), "nested more than 32 levels deep"))
        return None
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Problem(file, line, column, dotted(path), "a key must be a plain text"))
                continue
            key = key_node.value
            if key in result:
                problems.append(Problem(file, line, column, dotted((*path, key)), "this key stands here twice"))
                continue
            result[key] = _construct(value_node, (*path, key), file, places, problems)
            places[(*path, key)] = (line, column)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, index), file, places, problems) for index, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    if isinstance(node, yaml.ScalarNode) and node.style in {"'", '"', "|", ">"}:  # quoted or a block: always text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _LEADING_ZERO.fullmatch(text):
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def validate(document: Document, model: type[Model]) -> Model:
    """The document as a model. Raises SettingsError with every problem; no value of the file is repeated in a text."""
    try:
        # Through JSON, so that strict validation still takes a list for a tuple and a text for an enum.
        return model.model_validate_json(msgspec.json.encode(document.value))
    except ValidationError as error:
        raise SettingsError(tuple(_problems(document, error))) from None


def _problems(document: Document, error: ValidationError) -> Iterator[Problem]:
    for item in error.errors(include_url=False, include_context=True, include_input=False):
        path = _known(document, item["loc"])
        message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
        match item["type"]:
            case "extra_forbidden":
                message = "unknown key"
            case "missing":
                path = (*path, item["loc"][-1])
                message = f"the key {path[-1]!r} is missing here"
            case "union_tag_invalid":
                path = (*path, item["ctx"]["discriminator"].strip("'"))
                message = f"must be one of {item['ctx']['expected_tags']}"
            case "string_pattern_mismatch":
                message = f"must have the form {item['ctx']['pattern']}"
        yield Problem(document.file, *document.place(path), dotted(path), message)


def _known(document: Document, location: Path) -> Path:
    """The keys and indexes that stand in the file; Pydantic puts the types that it tried between them."""
    path: Path = ()
    for part in location:
        if (*path, part) in document.places:
            path = (*path, part)
    return path
