"""Values that are kept elsewhere, and stand in no file of the configuration.

A `Secret` is a type of its own, so that no text, log line or traceback shows it by accident: only `reveal` gives the
value. In a file stands where it is (`{env: NAME}`, `{file: PATH}`, `{credential: NAME}`); one that is written out is
found by its type, told by `handoff check`, and left out of what is recorded (`literal_secrets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from engine.snapshot import UNRESOLVED
from engine.yamlfile import Path
from engine.yamlmodel import StrictModel

_CHARS_MAX: Final = 1 << 16
_SHOWN: Final = "<secret>"
SCHEMA_FORMAT: Final = "secret"
"""Marks it in a JSON Schema, until `handoff schema` puts the three ways to refer to a value in its place."""

_WITH_USER: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*@")
_OPTIONS: Final = re.compile(
    r"(?i)(.*[_-])?(password|passwd|passphrase|sslpassword|secret|token|api_?key|apikey|sig|signature|auth)"
)
"""Keys in the query of a URL whose values open something."""


class Secret:
    """A text that only `reveal` gives. Equal to another one of the same text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    @property
    def known(self) -> bool:
        """False while it is only checked, without the value."""
        return self._text != UNRESOLVED

    def __repr__(self) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is written nowhere")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(min_length=1, max_length=_CHARS_MAX)
        )
        shown = core_schema.plain_serializer_function_ser_schema(lambda _: _SHOWN)
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=shown,
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "object", "format": SCHEMA_FORMAT}


class Held(NamedTuple):
    """A secret of a file: where, what it is, and what stands there: the secret itself, or a reference."""

    path: Path
    what: str
    written: Any

    @property
    def variable(self) -> str | None:
        """The variable of the environment that holds it."""
        return self.written.get("env") if isinstance(self.written, dict) else None

    @property
    def literal(self) -> bool:
        return not isinstance(self.written, dict)


def secrets_of(model: StrictModel, written: Any, path: Path = ()) -> Iterator[Held]:
    """model: the file as it is understood. written: its plain values, with references as they stand there."""
    if not isinstance(written, dict):
        return
    for name, about in type(model).model_fields.items():
        key = about.alias if about.alias is not None and about.alias in written else name
        if key in written:
            yield from _within(getattr(model, name), written[key], (*path, key))


def _within(value: Any, written: Any, path: Path) -> Iterator[Held]:
    if isinstance(value, Secret):
        yield Held(path, "a secret", written)
    elif isinstance(value, StrictModel):
        yield from secrets_of(value, written, path)
    elif isinstance(value, str):
        if opens(written if isinstance(written, str) else value):
            yield Held(path, "a URL with a password or the like", written)
        elif isinstance(written, dict) and value.lstrip().startswith("{"):
            yield Held(path, "the keys", written)
    elif isinstance(value, dict) and isinstance(written, dict):
        for key, inner in value.items():
            yield from _within(inner, written.get(key), (*path, key))
    elif isinstance(value, tuple) and isinstance(written, list):
        for index, (inner, one) in enumerate(zip(value, written, strict=False)):
            yield from _within(inner, one, (*path, index))


def opens(url: str) -> bool:
    """Whether a URL holds what opens something: a password, a user of a web address (often a token), a key."""
    if "://" not in url:
        return False
    try:
        parts = urlsplit(url)
        named = bool(parts.username) and not parts.scheme.startswith(("postgresql", "sqlite"))
        options = [*parse_qsl(parts.query), *parse_qsl(parts.fragment)]
    except ValueError:
        return _WITH_USER.match(url) is not None
    return named or bool(parts.password) or any(_OPTIONS.fullmatch(key) for key, _ in options)
