"""What a route is asked: its parameters, read and bounded. What is wrong is said without the value."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from engine.console.problems import bad
from engine.desk.desk import Reveal

LIMIT_MAX: Final = 200
LIMIT: Final = 50
SAID_CHARACTERS_MAX: Final = 500
_CURSOR_CHARACTERS_MAX: Final = 400
_ROW_MAX: Final = (1 << 63) - 1

Read = Callable[[str], Any]
"""Raises ValueError, whose text says what is expected."""


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter of a query or path. many: it may be given several times."""

    name: str
    says: str
    read: Read = field(repr=False)
    schema: Mapping[str, Any]
    many: bool = False


def text(name: str, says: str, *, characters_max: int = 100) -> Param:
    def read(value: str) -> str:
        if not value or len(value) > characters_max or not value.isprintable():
            raise ValueError(f"a text of one line, of {characters_max} characters at most")
        return value

    return Param(
        name=name, says=says, read=read, schema={"type": "string", "minLength": 1, "maxLength": characters_max}
    )


def opaque(name: str, says: str) -> Param:
    """An id of the engine's own, which says nothing of a patient."""

    def read(value: str) -> str:
        if not (0 < len(value) <= 64 and value.isascii() and value.replace("-", "").replace("_", "").isalnum()):
            raise ValueError("an id, of letters and digits")
        return value

    return Param(name=name, says=says, read=read, schema={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})


def number(name: str, says: str, *, least: int = 1, most: int = _ROW_MAX) -> Param:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 19 and least <= int(value) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return Param(name=name, says=says, read=read, schema={"type": "integer", "minimum": least, "maximum": most})


def choice(name: str, says: str, of: tuple[str, ...], *, many: bool = False) -> Param:
    def read(value: str) -> str:
        if value not in of:
            raise ValueError(f"one of {', '.join(of)}")
        return value

    return Param(name=name, says=says, read=read, schema={"type": "string", "enum": list(of)}, many=many)


def time(name: str, says: str) -> Param:
    def read(value: str) -> datetime:
        return _instant(value)

    return Param(name=name, says=says, read=read, schema={"type": "string", "format": "date-time"})


def _instant(value: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1900 < at.year < 2200:
        raise ValueError("a time with its zone, like 2026-12-01T09:30:00Z")
    return at.astimezone(UTC)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """path, query: read. body: of the route's type; none: it has none. after: where a page of a list begins."""

    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any
    reveal: Reveal | None
    limit: int
    after: tuple[Any, ...] | None
    if_match: str | None


def read_all(params: tuple[Param, ...], given: Mapping[str, list[str]]) -> dict[str, Any]:
    """Raises ProblemError."""
    found: dict[str, Any] = {}
    known = {one.name: one for one in params}
    if any(name not in known for name in given):
        raise bad(f"there is a parameter that this route does not have; it has {', '.join(known) or 'none'}")
    for name, values in given.items():
        one = known[name]
        if len(values) > (20 if one.many else 1):
            raise bad(f"{name}: is given too often")
        try:
            read = [one.read(value) for value in values]
        except ValueError as error:
            raise bad(f"{name}: must be {error}") from None
        found[name] = tuple(read) if one.many else read[0]
    return found


def reveal_of(header: str | None) -> Reveal | None:
    """The wish to see patient data unmasked: its reason, percent-encoded. Raises ProblemError."""
    if header is None:
        return None
    reason = unquote(header, errors="replace").strip()
    if not reason or len(reason) > SAID_CHARACTERS_MAX or not reason.isprintable():
        raise bad(f"X-Reveal-Reason: must be a text of one line, of {SAID_CHARACTERS_MAX} characters at most")
    return Reveal(reason)


# --- cursors ---------------------------------------------------------------------------------------------------------


def cursor(kind: str, key: tuple[Any, ...] | None) -> str | None:
    """Where the next page begins: times and opaque ids alone."""
    if key is None:
        return None
    document = [kind, *({"t": one.isoformat()} if isinstance(one, datetime) else one for one in key)]
    return base64.urlsafe_b64encode(msgspec.json.encode(document)).decode().rstrip("=")


def place(kind: str, shapes: tuple[type, ...], text: str | None) -> tuple[Any, ...] | None:
    """Raises ProblemError for a cursor that is none of this list."""
    if text is None:
        return None
    wrong = bad("cursor: is none that this list has given")
    if len(text) > _CURSOR_CHARACTERS_MAX:
        raise wrong
    try:
        document = msgspec.json.decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        said, *parts = document
        key = tuple(_instant(one["t"]) if isinstance(one, dict) else one for one in parts)
    except (binascii.Error, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        raise wrong from None
    if said != kind or len(key) != len(shapes):
        raise wrong
    for one, shape in zip(key, shapes, strict=True):
        fits = type(one) is shape or (one is None and shape is datetime)
        if not fits or (isinstance(one, int) and not -_ROW_MAX <= one <= _ROW_MAX):
            raise wrong
        if isinstance(one, str) and (len(one) > 64 or "\0" in one):
            raise wrong
    return key
