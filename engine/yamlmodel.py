"""Configuration files as strict models: what Pydantic finds wrong, in words for whoever edits the file.

Apart from `yamlfile`, because the models take longer to load than a command may take that only reads a few names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import Problem, SettingsError
from engine.yamlfile import SECRET, Document, Path, did_you_mean, dotted

Model = TypeVar("Model", bound=BaseModel)


_OPENS: Final = re.compile(r"(?<=://)[^/?#\s]*(?=@)|(?<=\?)\S+")
"""Of a URL."""


class StrictModel(BaseModel):
    """A part of a configuration file: unknown keys are errors, nothing is coerced from one type to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What stands before the `@` of a URL, and its query, may open something."""
        for name, value in super().__repr_args__():
            yield name, _OPENS.sub("***", value) if isinstance(value, str) and "://" in value else value


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


_PLAIN: Final = re.compile(r"[A-Za-z0-9_.^*-]{1,40}")
_SPAN: Final = re.compile(r"([0-9]{1,5}) *(minutes?|hours?|days?|business[ _]days?)")


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
