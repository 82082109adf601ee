"""Code tables: `mappings/tables/*.yaml`, which code of a sender means what to us.

    name: sex
    source: HL7 table 0001
    values: {F: F, M: M}
    unknown: keep

Every table declares what an unknown code becomes: `keep` (the code as it came), `null` (the field is cleared: the
sender said something that we can't read), `error` (the message is a dead letter until the table knows the code), or
`{value: X}`. A code is looked up as it is, then in upper case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from engine.errors import Problem, SettingsError
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

Value = str | bool | int | None
Code = Annotated[str, Field(min_length=1, max_length=256)]


class UnknownValue(StrictModel):
    """A fixed meaning for every unknown code."""

    value: str | bool | int
    """What an unknown code becomes."""


class TableFile(StrictModel):
    """A code table: which code of a sender means what."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Name of the table, as mappings name it."""
    source: str | None = None
    """Where the values come from, for the reader of the file."""
    values: dict[Code, str | bool | int | None]
    """Code -> its meaning; `null` clears the field. A code is looked up as it is, then in upper case."""
    unknown: Literal["keep", "error"] | UnknownValue | None
    """What an unknown code becomes: `keep` (as it came), `null` (the field is cleared), `error` (the message is a dead
    letter) or `{value: X}`. There is no default: whoever writes the table decides."""


class _Keep:
    """Marks a table that keeps unknown codes as they are."""


KEEP: Final = _Keep()


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    file: str
    values: Mapping[str, Value]
    unknown: Value | _Keep
    """What an unknown code becomes."""
    unknown_is_error: bool = False

    def find(self, code: str) -> tuple[Value, bool]:
        """What a code means, and whether the table knows it."""
        if code in self.values:
            return self.values[code], True
        upper = code.upper()
        if upper in self.values:
            return self.values[upper], True
        return (code if isinstance(self.unknown, _Keep) else self.unknown), False

    def results(self) -> set[type]:
        """The types that a look-up can give, `None` left out."""
        kinds = {type(value) for value in self.values.values()}
        kinds.add(str if isinstance(self.unknown, _Keep) else type(self.unknown))
        return kinds - {type(None)}


Tables = Mapping[str, Table]


def load_table(document: Document) -> Table:
    """One table. Raises SettingsError."""
    file = validate(document, TableFile)
    wrong = [code for code in file.values if set("^~|") & set(code)]
    if wrong:
        text = "a code is what stands in one component: ^, ~ and | are never in it"
        raise SettingsError(tuple(document.problem(("values", code), text) for code in wrong))
    unknown: Value | _Keep = None
    if file.unknown == "keep":
        unknown = KEEP
    elif isinstance(file.unknown, UnknownValue):
        unknown = file.unknown.value
    return Table(file.name, document.file, file.values, unknown, unknown_is_error=file.unknown == "error")


def load_tables(documents: Iterable[Document], collected: list[Problem] | None = None) -> Tables:
    """All tables by name.

    collected: takes the problems, and the tables without any are returned; none: raises SettingsError with them.
    """
    tables: dict[str, Table] = {}
    problems: list[Problem] = [] if collected is None else collected
    for document in documents:
        try:
            table = load_table(document)
        except SettingsError as error:
            problems.extend(error.problems)
            continue
        if table.name in tables:
            problems.append(document.problem(("name",), f"{tables[table.name].file} has a table of the same name"))
        tables[table.name] = table
    if problems and collected is None:
        raise SettingsError(tuple(problems))
    return tables
