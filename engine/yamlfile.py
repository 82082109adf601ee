"""YAML files as people edit them: every problem is reported with file, line, column and key.

Why our own construction from libyaml's events: it never recurses (30 KB of `[` would end a process that does), and
PyYAML's own reads `no` as False, `012` as 10, `1:30` as 90 and takes duplicate keys. Scalars follow the YAML 1.2 core
schema, except that digits with a leading zero stay text (disposition codes, ICD prefixes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, Final, Literal, NoReturn, TypeVar

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import SettingsError

Place = tuple[int, int]
Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS_MAX: Final = 18
"""Of a number: it fits into 64 bits."""
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TEXT_CHARS_MAX: Final = 1 << 20
"""Of one file."""
NODES_MAX: Final = 100_000
"""Keys and values of one file: a table of 50,000 codes."""
DEPTH_MAX: Final = 32
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
    level: Literal["problem", "warning"] = "problem"
    """A warning keeps nothing from starting: it is for a person to judge."""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        level = "warning: " if self.level == "warning" else ""
        return f"{self.file}:{self.line}:{self.column}: {level}{key}{self.message}"


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

    def warning(self, path: Path, message: str) -> Problem:
        line, column = self.place(path)
        return Problem(self.file, line, column, dotted(path), message, "warning")


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(text: str, file: str) -> Document:
    """Read one YAML document. Raises SettingsError for syntax errors, duplicate keys, tags, aliases, and for what is
    over the limits: it is read event by event, never by recursion, so no text can take the process down or fill it.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise SettingsError((Problem(file, 1, 1, "", f"is longer than {TEXT_CHARS_MAX:,} characters"),))
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise SettingsError((Problem(file, line, column, "", _syntax(error, text, line, column)),)) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise SettingsError((_forbidden_character(file, text, error),)) from None
    if builder.problems:
        raise SettingsError(tuple(builder.problems))
    return Document(file, {} if builder.empty else builder.value, builder.places)


class _Level:
    """A mapping or a sequence that is being filled."""

    __slots__ = ("container", "key", "key_place", "path")

    def __init__(self, container: dict[str, Any] | list[Any], path: Path) -> None:
        self.container = container
        self.path = path
        self.key: str | None = None
        self.key_place: Place = (1, 1)


class _Builder:
    """Makes plain values out of parsing events, and remembers where each of them stands."""

    def __init__(self, file: str) -> None:
        self.value: Any = None
        self.empty = True
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []
        self._file = file
        self._levels: list[_Level] = []
        self._count = 0

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._value(event, None)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._value(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, yaml.CollectionEndEvent):
            self._levels.pop()
        elif isinstance(event, yaml.AliasEvent):
            self._stop(event, f"*{event.anchor} repeats what stands elsewhere: write it out (aliases are not read)")
        elif isinstance(event, yaml.DocumentStartEvent) and not self.empty:
            self._stop(event, "a second document begins here: a file holds one")

    def _value(self, event: Any, container: dict[str, Any] | list[Any] | None) -> None:
        self._count += 1
        if self._count > NODES_MAX:
            self._stop(event, f"holds more than {NODES_MAX:,} values")
        if event.tag is not None:
            self._stop(event, "a type that begins with ! is not read: write the value as it is")
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        level = self._levels[-1] if self._levels else None
        if level is not None and isinstance(level.container, dict) and level.key is None:
            if container is not None:
                self._stop(event, "a key must be a plain text")
            level.key, level.key_place = event.value, place
            if event.value in level.container:
                self._problem(place, (*level.path, event.value), "this key stands here twice")
            return
        path = self._path(level)
        if len(path) > DEPTH_MAX:
            self._stop(event, f"nested more than {DEPTH_MAX} levels deep", path=path[:4])
        value = container if container is not None else self._scalar(event, path, place)
        self.places[path] = place
        if level is None:
            self.value, self.empty = value, False
        elif isinstance(level.container, dict):
            level.container[str(level.key)] = value
            self.places[path] = level.key_place
            level.key = None
        else:
            level.container.append(value)
        if container is not None:
            self._levels.append(_Level(container, path))

    def _path(self, level: _Level | None) -> Path:
        if level is None:
            return ()
        if isinstance(level.container, list):
            return (*level.path, len(level.container))
        return level.path if level.key is None else (*level.path, level.key)

    def _scalar(self, event: Any, path: Path, place: Place) -> Any:
        try:
            return _scalar(event.value, quoted=event.style in {"'", '"', "|", ">"})
        except ValueError:
            self._problem(place, path, "this number is too long; a text of digits stands in quotes")
            return None

    def _problem(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(Problem(self._file, *place, dotted(path), message))

    def _stop(self, event: Any, message: str, *, path: Path | None = None) -> NoReturn:
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        self._problem(place, self._path(self._levels[-1]) if path is None and self._levels else path or (), message)
        raise SettingsError(tuple(self.problems))


def _scalar(text: str, *, quoted: bool) -> Any:
    """Raises ValueError for a number that nobody means as one."""
    if quoted:  # or a block: always text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _LEADING_ZERO.fullmatch(text):
        return text
    if _INT.fullmatch(text):
        if len(text) > _DIGITS_MAX:
            raise ValueError(text)
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text) if len(text) <= _DIGITS_MAX * 2 else inf
        if not isfinite(number):
            raise ValueError(text)
        return number
    return text


# --- what YAML itself does not like, in words ------------------------------------------------------------------------

_SYNTAX: Final = (
    (
        "mapping values are not allowed",
        "a colon where none can be: quote a text that holds `: `, or mend the indentation",
    ),
    (
        "did not find expected key",
        "the indentation does not fit what stands above, or a bracket or quote is not closed",
    ),
    ("could not find expected ':'", "a key without its colon (`key: value`), or the indentation is wrong"),
    ("did not find expected ',' or", "a bracket or brace is not closed, or a comma is missing"),
    ("found unexpected end of stream", "a quote or bracket is not closed before the end of the file"),
    ("did not find expected '-' indicator", "the entries of a list must stand under each other, each with `- `"),
    ("found unknown escape character", "in double quotes \\ begins an escape: use single quotes"),
    ("did not find expected <document start>", "the indentation is wrong, or this line belongs to nothing"),
)
"""What libyaml says, and what it means to whoever edits the file."""


def _syntax(error: yaml.MarkedYAMLError, text: str, line: int, column: int) -> str:
    said = str(error.problem)
    lines = text.splitlines()
    character = lines[line - 1][column - 1 : column] if line <= len(lines) else ""
    if character == "\t":
        return "a tab: indent with blanks"
    if "cannot start any token" in said:
        return f"{character} can't begin a text: put it in quotes"
    meaning = next((meaning for known, meaning in _SYNTAX if known in said), None)
    return f"not valid YAML: {said}" + (f" ({meaning})" if meaning else "")


def _forbidden_character(file: str, text: str, error: yaml.YAMLError) -> Problem:
    at = next((index for index, character in enumerate(text) if _FORBIDDEN.match(character)), None)
    if at is None:
        return Problem(file, 1, 1, "", f"not valid YAML: {type(error).__name__}")
    before = text[:at]
    line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
    return Problem(file, line, column, "", f"the character U+{ord(text[at]):04X} can't stand in YAML: take it out")


def validate(document: Document, model: type[Model]) -> Model:
    """The document as a model. Raises SettingsError with every problem; no value of the file is repeated in a text."""
    try:
        # Through JSON, so that strict validation still takes a list for a tuple and a text for an enum.
        return model.model_validate_json(msgspec.json.encode(document.value))
    except ValidationError as error:
        raise SettingsError(tuple(_problems(document, error, model))) from None


def _problems(document: Document, error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    schema = _Keys(model)
    for item in error.errors(include_url=False, include_context=True, include_input=True):
        path = _known(document, item["loc"])
        message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
        match item["type"]:
            case "extra_forbidden":
                message = _unknown_key(str(path[-1]), schema.of(document, path[:-1]))
            case "missing":
                path = (*path, item["loc"][-1])
                message = f"the key {path[-1]!r} is missing here"
            case "union_tag_invalid":
                path = (*path, item["ctx"]["discriminator"].strip("'"))
                message = f"must be one of {item['ctx']['expected_tags']}"
            case "string_pattern_mismatch":
                message = f"must have the form {item['ctx']['pattern']}"
            case "bool_type" | "bool_parsing":
                message = "must be true or false, without quotes"
            case "int_type" | "int_parsing" | "float_type" | "float_parsing" | "int_from_float":
                whole = "whole " if item["type"].startswith("int") else ""
                message = f"must be a {whole}number, without quotes and without a leading 0"
            case "string_type":
                message = f"must be a valid string: {_in_quotes(path, item['input'])}"
            case "too_short" if isinstance(item["input"], list) and item["input"]:
                continue  # what stands here is wrong, and told as that
            case "too_short" if isinstance(item["input"], list):
                message = "is empty: at least one has to stand here"
            case "tuple_type" | "list_type" | "frozen_set_type" | "set_type":
                message = f"must be a list{_as_list(item['input'])}"
            case "model_type" | "model_attributes_type" | "dict_type":
                message = _as_mapping(item["input"], schema.of(document, path))
        yield Problem(document.file, *document.place(path), dotted(path), message)


def _unknown_key(key: str, known: tuple[str, ...]) -> str:
    if not known:
        return "unknown key"
    return f"unknown key{did_you_mean(key, known)}; the keys here are {', '.join(known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean listen?`, or nothing when nothing is near."""
    names = list(known)
    close = get_close_matches(name, names, n=1) or [
        other for other in names if name and (other.startswith(name) or name.startswith(other))
    ]
    return f"; did you mean {close[0]}?" if close else ""


_PLAIN: Final = re.compile(r"[A-Za-z0-9_.^*-]{1,40}")
_SPAN: Final = re.compile(r"([0-9]{1,5}) *(minutes?|hours?|days?|business[ _]days?)")
SECRET: Final = re.compile(r"secret|token|password|passphrase|private_key|routing_key|(^|_)keys?$")
"""Names of keys whose values are repeated nowhere."""


def _in_quotes(path: Path, value: Any) -> str:
    if isinstance(value, bool | int | float) and not any(SECRET.search(str(part)) for part in path):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes: "{shown}"'
    if value is None:
        return "there is nothing behind the colon"
    return "a single text, in quotes where it is a number" if not isinstance(value, str) else "a text"


def _as_list(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return f": [{value}]" if not value.startswith("*") and "^" not in value else f': ["{value}"]'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f': ["{value}"]'
    return ", in brackets: [a, b]" if value is not None else ": there is nothing behind the colon"


def _as_mapping(value: Any, known: tuple[str, ...]) -> str:
    span = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if span is not None and "days" in known:
        unit = span[2].replace(" ", "_").rstrip("s") + "s"
        return f"must be keys with values: {{{unit}: {int(span[1])}}}"
    keys = f" ({', '.join(known)})" if known else ""
    return f"must be keys with values{keys}, in braces or indented below"


class _Keys:
    """Which keys a model takes at a place of a document; found in its JSON Schema, and only when there is a problem."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._schema: dict[str, Any] | None = None

    def of(self, document: Document, path: Path) -> tuple[str, ...]:
        if self._schema is None:
            self._schema = self._model.model_json_schema()
        here = [self._schema]
        value = document.value
        for part in path:
            here = [inner for schema in here for inner in self._inner(schema, value, part)]
            try:
                value = value[part]
            except (LookupError, TypeError):
                value = None
        keys = [key for schema in here for one in self._choices(schema, value) for key in one.get("properties", {})]
        return tuple(dict.fromkeys(keys))

    def _inner(self, schema: dict[str, Any], value: Any, part: str | int) -> Iterator[dict[str, Any]]:
        for one in self._choices(schema, value):
            if isinstance(part, int):
                inner = one.get("items")
            else:
                any_name = next(iter(one.get("patternProperties", {}).values()), one.get("additionalProperties"))
                inner = one.get("properties", {}).get(part, any_name)
            if isinstance(inner, dict):
                yield inner

    def _choices(self, schema: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
        """What a schema may stand for, where the value says so only what it says."""
        if "$ref" in schema and self._schema is not None:
            schema = self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
        tags = schema.get("discriminator", {}).get("mapping")
        if tags and isinstance(value, dict) and (chosen := tags.get(value.get("type"))) is not None:
            yield from self._choices({"$ref": chosen}, value)
            return
        nested = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
        if not nested:
            yield schema
        for one in nested:
            yield from self._choices(one, value)


def _known(document: Document, location: Path) -> Path:
    """The keys and indexes that stand in the file; Pydantic puts the types that it tried between them."""
    path: Path = ()
    for part in location:
        if (*path, part) in document.places:
            path = (*path, part)
    return path
