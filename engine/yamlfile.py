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
from typing import Any, Final, NoReturn

import yaml

from engine.errors import Problem, SettingsError

Place = tuple[int, int]
Path = tuple[str | int, ...]

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


def without_values(text: str, paths: Iterable[Path], instead: str) -> str:
    """The text of a file that can be read, with another plain text in the place of the values that stand there."""
    root = yaml.compose(text, Loader=yaml.CSafeLoader)  # recurses, so only after `parse` has counted the levels
    spans = sorted(((node.start_mark.index, node.end_mark.index) for node in _nodes(root, paths)), reverse=True)
    for start, end in spans:
        ending = "\n" if text[:end].endswith("\n") else ""  # that of a block
        text = text[:start] + instead + ending + text[end:]
    return text


def _nodes(root: Any, paths: Iterable[Path]) -> Iterator[Any]:
    for path in paths:
        node = root
        for part in path:
            if isinstance(part, int):
                node = node.value[part]
            else:
                node = next(value for key, value in node.value if key.value == part)
        yield node


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean listen?`, or nothing when nothing is near."""
    names = list(known)
    close = get_close_matches(name, names, n=1) or [
        other for other in names if name and (other.startswith(name) or name.startswith(other))
    ]
    return f"; did you mean {close[0]}?" if close else ""


SECRET: Final = re.compile(r"secret|token|password|passphrase|private_key|routing_key|(^|_)keys?$")
"""Names of keys whose values are repeated nowhere."""
