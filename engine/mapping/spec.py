"""The shape of a mapping file: `mappings/fields/<name>.yaml`.

One line a target; the target decides what is read (a name, a date, phones), the rule says from where:

    patient.birth_date: PID-7                                          # short for {from: PID-7}
    patient.name:       {from: PID-5, prefer: [L, ""]}
    patient.phones:     {from: [PID-13, PID-14], region: US}
    patient.sex:        {from: PID-8, table: sex}
    patient.pcp:        {first_of: [PD1-4, {path: ROL-4, where: "ROL-3.1 == 'PP'"}]}
    encounter.diagnoses:
      each: DG1
      where: "DG1-21 != 'D'"
      parts: {code: DG1-3.1, system: DG1-3.3}

from        a path; for targets that hold several things a list of paths, all of which are read
first_of    paths, of which the first valued one counts
where       only segments for which this filter holds; inside `{path: ..., where: ...}`, or beside `each`
each        a segment, of which every occurrence becomes one item; `parts` says what of it
prefer      types (name and address: component 7, provider: 13, phone: 3) best first; others come after them
table       a code table of `mappings/tables/`
region      the country (US) of phone numbers that name none
default     what the field gets when the message says nothing of it
required    a message without it is refused: error 101 at the first path
on_error    what happens when a value can't be read (a date that does not exist): `deviation` (the field is left as it
            is and the deviation noted), or `dead` (the message becomes a dead letter)

An absent or empty field leaves what the chart holds, the null `""` clears it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, RootModel, model_validator
from pydantic_core import CoreSchema

from engine.yamlmodel import StrictModel

PathText = Annotated[str, Field(min_length=1, max_length=256)]
TableName = Annotated[str, Field(min_length=1, max_length=64)]
Default = str | bool | int
OnError = Literal["deviation", "dead"]


class _Model(StrictModel):
    # Lists, not tuples, in these models: behind a validator of the raw value pydantic reads Python, not JSON, and in
    # Python a strict tuple is no list.
    model_config = StrictModel.model_config | ConfigDict(populate_by_name=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Tells editors of the short form, a path alone."""
        return {"anyOf": [{"type": "string", "description": "A path: PID-7"}, handler(core_schema)]}


class Source(_Model):
    """A path, or a path in those segments for which a filter holds."""

    path: PathText
    """A path: `PV1-44`, `PID-3[type=MR].1` (see docs/reference/mapping.md)."""
    where: Annotated[str, Field(min_length=1)] | None = None
    """Condition on the segment, `ROL-3.1 == 'PP'`; others are passed over."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


Sources = Annotated[list[Source], Field(min_length=1, max_length=32)]
From = Annotated[Sources | None, BeforeValidator(_listed, json_schema_input_type=Source | Sources | None)]


class _Reading(_Model):
    from_: From = Field(default=None, alias="from")
    """A path; for targets that hold several things a list of paths, all of which are read."""
    first_of: Sources | None = None
    """Paths, of which the first valued one counts."""
    table: TableName | None = None
    """Code table of mappings/tables/, by its name."""
    default: Default | None = None
    """What the field gets when the message says nothing of it."""
    on_error: OnError = "deviation"
    """When a value can't be read: deviation (the field is left as it is and the deviation noted), or dead (the message
    becomes a dead letter)."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value

    @property
    def sources(self) -> list[Source]:
        return self.from_ or self.first_of or []


class Part(_Reading):
    """What one field of an item of `each` is read from."""

    @model_validator(mode="after")
    def _one_way(self) -> Part:
        if (self.from_ is None) == (self.first_of is None):
            raise ValueError("needs either from or first_of")
        return self


class Rule(_Reading):
    """What one target is read from."""

    each: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2}$")] | None = None
    """Segment of which every occurrence becomes one item; `parts` says what of it."""
    where: Annotated[str, Field(min_length=1)] | None = None
    """With `each`: condition on the segment; others are passed over."""
    parts: dict[str, Part] | None = None
    """With `each`: field of the item -> where it is read from."""
    prefer: list[str] | None = None
    """Types (name and address: component 7, provider: 13, phone: 3), best first; others come after them."""
    region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    """Country of phone numbers that name none, as `US`."""
    required: bool = False
    """A message without it is refused: error 101 at the first path."""

    @model_validator(mode="after")
    def _one_way(self) -> Rule:
        if [self.from_, self.first_of, self.each].count(None) != 2:
            raise ValueError("needs exactly one of from, first_of and each")
        if (self.each is None) != (self.parts is None):
            raise ValueError("each and parts belong together")
        if self.where is not None and self.each is None:
            raise ValueError("where stands beside each, or in a source: {path: ROL-4, where: ...}")
        return self


class MappingFile(RootModel[dict[str, Rule]]):
    """A mapping file: target -> rule."""
