"""From what a desk shows to HTML: the templates, what they may say of times and codes, and the headers of a page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

HERE: Final = Path(__file__).parent.parent
STATIC: Final = HERE / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS: Final = {
    # Nothing of other hosts, nothing inline: a name with a script in it stays a name.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # With none at all a form says `Origin: null`, and could not be told from a stranger's.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ASIDE: Final = "\u2013"
"""Stands where nothing is known."""
_HIDDEN: Final = "***"


@cache
def statics() -> Mapping[str, tuple[bytes, str, str]]:
    """Name -> content, media type, digest. They hold nothing of the site."""
    found: dict[str, tuple[bytes, str, str]] = {}
    for file in sorted(STATIC.iterdir()):
        if file.suffix in _TYPES:
            content = file.read_bytes()
            found[file.name] = (content, _TYPES[file.suffix], hashlib.sha256(content).hexdigest()[:12])
    return found


def static_url(name: str) -> str:
    """With the digest of its content, so that a browser may keep it for ever."""
    return f"/static/{statics()[name][2]}/{name}"


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = static_url
    made.filters |= {
        "clock": clock,
        "ago": ago,
        "until": until,
        "name": name,
        "words": words,
        "aside": aside,
        "iso": lambda at: "" if at is None else str(at),
        "person": person,
    }
    return made


def page(template: str, context: Mapping[str, Any], *, status: int = 200) -> web.Response:
    body = environment().get_template(template).render(context)
    return web.Response(body=body.encode(), status=status, content_type="text/html", charset="utf-8", headers=HEADERS)


# --- how things are said ---------------------------------------------------------------------------------------------


def aside(value: Any) -> Any:
    """The value, or a dash where there is none."""
    return _ASIDE if value is None or value == "" else value


def instant(at: Any) -> datetime | None:
    """A time of a shape; none: there is none, it is hidden, or it is no moment."""
    if isinstance(at, datetime):
        return at
    if not isinstance(at, str) or at == _HIDDEN:
        return None
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


@lru_cache(maxsize=16)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def clock(at: Any, zone: str) -> str:
    """`2 Dec 14:30`, on the clock of the site; what is no moment (a day) as it is."""
    found = instant(at)
    if found is None:
        return _ASIDE if at is None else str(at)
    local = found.astimezone(_zone(zone))
    return f"{local.day} {local:%b} {local:%H:%M}"


def ago(at: Any, now: datetime) -> str:
    """`2 d ago`."""
    found = instant(at)
    return _ASIDE if found is None else f"{_span(now - found)} ago" if found <= now else f"in {_span(found - now)}"


def until(at: Any, now: datetime) -> str:
    """`in 3 h`, `2 d late`."""
    found = instant(at)
    return _ASIDE if found is None else f"in {_span(found - now)}" if found > now else f"{_span(now - found)} late"


_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR} h"
    return f"{seconds // _DAY} d"


def name(shape: Mapping[str, Any] | None) -> str:
    """`DOE, Jane`."""
    if not shape:
        return _ASIDE
    return ", ".join(part for part in (shape.get("family"), shape.get("given")) if part) or _ASIDE


def person(shape: Mapping[str, Any] | None) -> str:
    """A doctor: by name, else by id."""
    if not shape:
        return _ASIDE
    return name(shape) if shape.get("family") else str(shape.get("id") or _ASIDE)


def words(code: Any) -> str:
    """`medication_reconciliation` -> `medication reconciliation`."""
    return _ASIDE if code is None else str(code).replace("_", " ").replace("-", " ")


def now() -> datetime:
    return datetime.now(UTC)
