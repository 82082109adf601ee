"""How many fields the segments of the standard have, and components their fields: `segments.yaml`.

A path that leads beyond them reads nothing, in any message, for ever: a filter that asks for it drops everybody. So it
is refused when it is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

from engine.hl7v2.path import Path
from engine.yamlfile import did_you_mean, parse

_ANY: Final = "?"


@lru_cache(maxsize=1)
def segments() -> Mapping[str, tuple[str, ...]]:
    """Segment -> for each field how many components it may have (`?`: any number)."""
    text = (files("engine.hl7v2") / "segments.yaml").read_text(encoding="utf-8")
    return {name: tuple(str(fields).split()) for name, fields in parse(text, "segments.yaml").value.items()}


def nowhere(path: Path) -> str | None:
    """Why a path can't lead to a value in any message of the standard; none: it can."""
    name = path.segment
    if not name or name.startswith("Z"):
        return None
    fields = segments().get(name)
    if fields is None:
        return f"{name} is no segment of HL7{did_you_mean(name, segments())} (a sender's own begins with Z)"
    if not fields:
        return None
    if path.field > len(fields):
        return f"{name} has {_counted(len(fields), 'field')}"
    known = fields[path.field - 1]
    wanted = max([path.component, *(condition.component for condition in path.conditions)])
    if known != _ANY and wanted > int(known):
        return f"{name}-{path.field} has {_counted(int(known), 'component')}"
    return None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
